//! Secrets out of what leaves the house: values whose names say that they are secret, and
//! the passwords of URLs.
//!
//! Nothing that a node shows today is a secret. Options that come may be, and people write
//! passwords into addresses, so this looks at everything that goes into a bundle.

use regex::{Captures, Regex};
use serde_json::Value;
use std::sync::LazyLock;

/// What stands in the place of a secret.
pub(super) const MASK: &str = "***";

/// In names of options, of variables and of JSON's fields, whatever joins their words.
const SECRET_WORDS: &str = r"passw(?:or)?d|passphrase|secret|token|credential|jaas|private[._-]?key|api[._-]?key|access[._-]?key|auth[._-]?key";

static SECRET_NAME: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(&format!("(?i){SECRET_WORDS}")).expect("a pattern of this file"));

/// `user:password@` of a URL or of an address without a scheme.
static URL_PASSWORD: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"([A-Za-z0-9._%+-]+):([^\s:/@"'\\]+)@([A-Za-z0-9\[])"#)
        .expect("a pattern of this file")
});

/// `name = value`, `name: value`, with or without quotes; the name is the first group.
static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| {
    let name = format!(r#"[\w.-]*(?:{SECRET_WORDS})[\w.-]*"#);
    let value = r#""(?:[^"\\]|\\.)*"|'[^']*'|[^\s,;&"'}\]]+"#;
    Regex::new(&format!(r#"(?i)({name}["']?\s*[=:]\s*)({value})"#)).expect("a pattern of this file")
});

pub(super) fn is_secret(name: &str) -> bool {
    SECRET_NAME.is_match(name)
}

/// Text without secrets, and how many there were.
pub(super) fn mask_text(text: &str) -> (String, usize) {
    let mut masked = 0;
    let text = ASSIGNMENT.replace_all(text, |found: &Captures<'_>| {
        masked += 1;
        let quote = found[2].chars().next().filter(|first| ['"', '\''].contains(first));
        let quote = quote.map(String::from).unwrap_or_default();
        format!("{}{quote}{MASK}{quote}", &found[1])
    });
    let text = URL_PASSWORD.replace_all(&text, |found: &Captures<'_>| {
        masked += 1;
        format!("{}:{MASK}@{}", &found[1], &found[3])
    });
    (text.into_owned(), masked)
}

/// The same for JSON, in its place. Returns how many there were.
pub(super) fn mask_json(value: &mut Value) -> usize {
    match value {
        Value::String(text) => {
            let (without, masked) = mask_text(text);
            *text = without;
            masked
        }
        Value::Array(values) => values.iter_mut().map(mask_json).sum(),
        Value::Object(fields) => {
            let named = fields.get("name").and_then(Value::as_str).is_some_and(is_secret);
            let mask = |(name, value): (&String, &mut Value)| {
                if is_secret(name) || (named && name == "value") {
                    mask_all(value)
                } else {
                    mask_json(value)
                }
            };
            fields.iter_mut().map(mask).sum()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Everything in it, but what describes an option and is the same for everybody.
fn mask_all(value: &mut Value) -> usize {
    const KNOWN: [&str; 3] = ["source", "unit", "takes"];
    match value {
        Value::Array(values) => values.iter_mut().map(mask_all).sum(),
        Value::Object(fields) => {
            let hidden = fields.iter_mut().filter(|(name, _)| !KNOWN.contains(&name.as_str()));
            hidden.map(|(_, value)| mask_all(value)).sum()
        }
        Value::String(_) | Value::Number(_) => {
            *value = MASK.into();
            1
        }
        // Whether there is one at all says nothing of it.
        Value::Null | Value::Bool(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_say_what_is_secret() {
        for name in ["password", "ssl.keystore.password", "OTTLA_TLS_PASSPHRASE", "api-key"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["sasl.jaas.config", "client_secret", "privateKey", "AccessKeyId", "token"] {
            assert!(is_secret(name), "{name}");
        }
        for name in ["log_cleaner_key_map_bytes", "key", "bootstrap", "message.timestamp.type"] {
            assert!(!is_secret(name), "{name}");
        }
    }

    #[test]
    fn options_keep_their_names_and_sources() {
        let mut shown = json!({
            "options": {
                "tls_key_password": { "value": "hush", "source": "file", "dynamic": false },
                "token_ttl": { "value": null, "source": "default" },
                "segment.bytes": { "value": "8192", "source": "topic" },
            },
            "list": [{ "name": "sasl.password", "value": "hush" }, { "name": "a", "value": "b" }],
            "tokens": ["hush", 7],
        });
        assert_eq!(mask_json(&mut shown), 4);
        assert_eq!(
            shown,
            json!({
                "options": {
                    "tls_key_password": { "value": MASK, "source": "file", "dynamic": false },
                    "token_ttl": { "value": null, "source": "default" },
                    "segment.bytes": { "value": "8192", "source": "topic" },
                },
                "list": [{ "name": "sasl.password", "value": MASK }, { "name": "a", "value": "b" }],
                "tokens": [MASK, MASK],
            })
        );
    }

    #[test]
    fn passwords_go_wherever_they_stand_in_text() {
        for (text, expected) in [
            ("http://me:hush@host:80/x", "http://me:***@host:80/x"),
            (
                "bootstrap = \"me:hush@a:7401,you:hush@b:7401\"",
                "bootstrap = \"me:***@a:7401,you:***@b:7401\"",
            ),
            ("password = \"hush \\\" hush\" # mine", "password = \"***\" # mine"),
            ("  client-secret: 'hush'\nnext: 1", "  client-secret: '***'\nnext: 1"),
            ("?token=hush&a=b", "?token=***&a=b"),
            ("{\"db_password\": \"hush\"}", "{\"db_password\": \"***\"}"),
            ("OTTLA_TLS_PASSWORD=hush", "OTTLA_TLS_PASSWORD=***"),
        ] {
            let (masked, count) = mask_text(text);
            assert_eq!(masked, expected);
            assert!(count > 0 && !masked.contains("hush"), "{masked}");
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for text in [
            "127.0.0.1:7401,[::1]:7402",
            "ottla_group_lag{group=\"a@b\",topic=\"t\"} 7",
            "at 2026-01-31T12:00:00Z node-1:7401 said: no",
            "log_cleaner_key_map_bytes = 134217728",
        ] {
            assert_eq!(mask_text(text), (text.to_owned(), 0));
        }
    }
}
