//! What is accepted, what is refused, and that the refusal names it.

use super::*;
use std::io::Write;

const GOOD: &str = r#"
    node_id = 1
    cluster_id = "test"
    data_dir = "d"
    [voters]
    1 = "127.0.0.1:7401"
"#;

fn load(text: &str, flags: &[(&str, &str)]) -> Result<NodeConfig, String> {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let flags: Vec<_> = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    NodeConfig::load(Some(file.path()), &flags).map_err(|e| e.to_string())
}

#[test]
fn defaults_and_flags_over_the_file() {
    let config = load(GOOD, &[("listen", "127.0.0.1:9999"), ("voters", "1=a:1,2=b:2")])
        .expect("a good configuration");
    assert_eq!(config.advertised().to_string(), "127.0.0.1:9999");
    assert_eq!(config.voters.len(), 2);
    assert_eq!(config.session_timeout_ms, 1_000);
}

#[test]
fn further_data_directories_come_after_the_first() {
    let text = format!("extra_data_dirs = [\"e\", \"f\"]\n{GOOD}");
    let paths = |config: NodeConfig| config.data_dirs();
    let expected = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    assert_eq!(load(&text, &[]).map(paths), Ok(expected(&["d", "e", "f"])));
    let flag = [("extra_data_dirs", "x, y,")];
    assert_eq!(load(&text, &flag).map(paths), Ok(expected(&["d", "x", "y"])));
    assert_eq!(load(&text, &[("extra_data_dirs", "")]).map(paths), Ok(expected(&["d"])));
    assert_eq!(load(GOOD, &[]).map(paths), Ok(expected(&["d"])));
}

/// Whoever asks a node for its options is told who gave each its value.
#[test]
fn every_value_says_who_gave_it() {
    let text = format!("extra_data_dirs = [\"e\", \"f\"]\nhot_tail_bytes = 0\n{GOOD}");
    let config = load(&text, &[("log_level", "warn")]).expect("a good configuration");
    let given = |name: &str| {
        let Given { value, origin } = config.given.get(name)?;
        Some((value.as_str(), *origin))
    };
    assert_eq!(given("log_level"), Some(("warn", Origin::Flag)));
    assert_eq!(given("hot_tail_bytes"), Some(("0", Origin::File)));
    assert_eq!(given("extra_data_dirs"), Some(("e,f", Origin::File)));
    assert_eq!(given("voters"), Some(("1=127.0.0.1:7401", Origin::File)));
    assert_eq!(given("dev"), Some(("false", Origin::Default)));
    assert_eq!(given("replica_lag_max_ms"), Some(("10000", Origin::Default)));
    assert_eq!(given("rack"), None);
}

/// A node that is not among the voters joins the cluster that they are.
#[test]
fn a_node_need_not_vote() {
    let config = load(GOOD, &[("node_id", "9")]).expect("a good configuration");
    assert_eq!((config.node_id, config.voters.len()), (9, 1));
    assert!(load(GOOD, &[("voters", "x=a:1")]).expect_err("no id").contains("not a node id"));
}

/// Each option can be set by flag and environment, and nothing else can.
#[test]
fn every_field_is_an_option() {
    let error = load(&format!("no_such_key = 1\n{GOOD}"), &[]).expect_err("unknown key");
    let (_, listed) = error.split_once("expected one of ").expect("a list of the fields");
    let mut fields: Vec<_> = listed.trim().split(", ").map(|f| f.trim_matches('`')).collect();
    let mut options: Vec<_> = node_options().map(|option| option.name).collect();
    fields.sort_unstable();
    options.sort_unstable();
    assert_eq!(fields, options);
}

#[test]
fn what_is_wrong_is_named() {
    let cases = [
        ("node_id", "0", "node_id"),
        ("node_id", "many", "node_id"),
        ("cluster_id", "a b", "cluster_id"),
        ("listen", "0.0.0.0:7401", "advertise"),
        ("advertise", "0.0.0.0:7401", "advertise"),
        ("voters", "1=nowhere", "nowhere"),
        ("session_timeout_ms", "100", "session_timeout_ms"),
        ("log_format", "xml", "xml"),
        ("max_in_flight_produce_bytes", "8388607", "8388608 to 268435456"),
        ("hot_tail_bytes", "-1", "0 to 4294967295"),
        ("log_retention_check_ms", "0", "log_retention_check_ms"),
        ("log_cleaner_bytes_per_second", "0", "log_cleaner_bytes_per_second"),
        ("log_cleaner_key_map_bytes", "0", "log_cleaner_key_map_bytes"),
    ];
    for (option, value, expected) in cases {
        let error = load(GOOD, &[(option, value)]).expect_err(expected);
        assert!(error.contains(expected), "{error}");
    }
}
