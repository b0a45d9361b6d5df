//! The reference configuration: a file with every option of a node, what it is for, its
//! unit and bounds, its default, and whether it changes while the node runs. Made from
//! the table of options, so that it is never out of date.

use super::options::default;
use ottla_metadata::records::{NodeOption, NodeValue, node_options};
use std::fmt::Write as _;

/// Longest line of a comment, in characters.
const WIDTH: usize = 90;

const HEAD: &str = "\
# Every option of a node. Those with a # before them are set to their defaults, or to an
# example where they have none; unknown options are errors. Each can also be given as an
# environment variable, such as OTTLA_NODE_ID, and by `ottla node --set`, which come before
# this file. `ottla node --config FILE --check` says whether a file is good.
#
# Made by `ottla node reference`.
";

/// What every node must be told, and an example of it. The voters come last: what follows
/// a table's name in TOML belongs to the table.
const REQUIRED: [(&str, &str); 3] =
    [("node_id", "1"), ("cluster_id", "\"my-cluster\""), ("data_dir", "\"/var/lib/ottla\"")];

const VOTERS: &str = "\
[voters]
1 = \"ottla-1.example.net:7401\"
2 = \"ottla-2.example.net:7401\"
3 = \"ottla-3.example.net:7401\"
";

/// Of options without a default that need not be given.
const EXAMPLES: [(&str, &str); 4] = [
    ("advertise", "\"ottla-1.example.net:7401\""),
    ("extra_data_dirs", "[\"/disk2/ottla\", \"/disk3/ottla\"]"),
    ("otlp_endpoint", "\"http://localhost:4317\""),
    ("rack", "\"rack-1\""),
];

/// The reference configuration, in TOML.
#[must_use]
pub fn reference() -> String {
    let mut text = HEAD.to_owned();
    let find = |list: &[(&str, &'static str)], option: &NodeOption| {
        list.iter().find(|(name, _)| *name == option.name).map(|(_, value)| *value)
    };
    let is_free =
        |option: &&NodeOption| find(&REQUIRED, option).is_none() && option.name != "voters";
    title(&mut text, "What every node must be told, and [voters] at the end");
    for option in node_options() {
        if let Some(value) = find(&REQUIRED, option) {
            entry(&mut text, option, "", value);
        }
    }
    for (dynamic, what) in [
        (false, "Read at the start"),
        (true, "Followed while the node runs: `ottla cluster config` comes before the file"),
    ] {
        title(&mut text, what);
        for option in node_options().filter(is_free).filter(|option| option.dynamic == dynamic) {
            let value = default(option).map(|value| value.to_string());
            let value = value.or_else(|| find(&EXAMPLES, option).map(str::to_owned));
            entry(&mut text, option, "# ", &value.unwrap_or_default());
        }
    }
    for option in node_options().filter(|option| option.name == "voters") {
        comment(&mut text, option);
        text.push_str(VOTERS);
    }
    text
}

fn title(text: &mut String, what: &str) {
    wrap(text, &format!("--- {what} ---"));
}

fn entry(text: &mut String, option: &NodeOption, before: &str, value: &str) {
    comment(text, option);
    text.push_str(before);
    text.push_str(option.name);
    text.push_str(" = ");
    text.push_str(value);
    text.push('\n');
}

fn comment(text: &mut String, option: &NodeOption) {
    let info = option.info();
    wrap(text, option.what());
    // Writing to a string does not fail.
    let _ = match (info.unit, option.value) {
        (_, NodeValue::Text) => Ok(()),
        ("", _) => writeln!(text, "# ({})", info.takes),
        (unit, _) => writeln!(text, "# ({unit}, {})", info.takes),
    };
}

/// A paragraph of comments, with an empty line before it.
fn wrap(text: &mut String, what: &str) {
    text.push_str("\n#");
    let mut column = 1;
    for word in what.split_whitespace() {
        if column + 1 + word.chars().count() > WIDTH {
            text.push_str("\n#");
            column = 1;
        }
        text.push(' ');
        text.push_str(word);
        column += 1 + word.chars().count();
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::NodeConfig;
    use super::*;
    use std::path::Path;

    fn load(text: &str) -> NodeConfig {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        NodeConfig::load(Some(file.path()), &[]).expect("a good configuration")
    }

    /// `UPDATE_REFERENCE=1 cargo test -p ottla-node reference` writes it anew.
    #[test]
    fn the_file_that_is_shipped_is_the_one_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ottla.toml");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, reference()).expect("written");
        }
        let shipped = std::fs::read_to_string(&path).expect("deploy/ottla.toml");
        assert!(shipped == reference(), "deploy/ottla.toml is out of date");
    }

    #[test]
    fn it_has_every_option_once_and_is_good_as_it_is() {
        let text = reference();
        for option in node_options().filter(|option| option.name != "voters") {
            let lines = text.lines().filter(|line| {
                let line = line.strip_prefix("# ").unwrap_or(line);
                line.strip_prefix(option.name).is_some_and(|rest| rest.starts_with(" = "))
            });
            assert_eq!(lines.count(), 1, "{}", option.name);
            assert!(!option.what().is_empty(), "{}", option.name);
        }
        assert_eq!(load(&text).voters.len(), 3);
    }

    /// What is commented out says what is so anyway.
    #[test]
    fn its_defaults_are_the_defaults() {
        let set = |line: &str| {
            let line = line.strip_prefix("# ").unwrap_or(line);
            let is_set = node_options().any(|option| {
                line.strip_prefix(option.name).is_some_and(|rest| rest.starts_with(" = "))
            });
            let example = EXAMPLES.iter().any(|(name, _)| line.starts_with(name));
            if is_set && !example { line.to_owned() } else { String::new() }
        };
        let text = reference();
        let (options, voters) = text.split_once("\n[voters]").expect("the voters");
        let all: Vec<String> = options.lines().map(set).collect();
        let all = load(&format!("{}\n[voters]{voters}", all.join("\n")));
        assert_eq!(NodeConfig { given: load(&text).given, ..all }, load(&text));
    }
}
