use super::*;
use proptest::prelude::*;

fn error(name: &str, value: &str) -> String {
    TopicConfig::parse([(name, value)]).expect_err("must be refused").to_string()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn defaults_are_kafkas_but_for_safety() {
    let config = TopicConfig::parse(std::iter::empty::<(&str, &str)>()).expect("no options");
    assert_eq!(config, TopicConfig::default());
    assert!(config.set_options().is_empty());
    let shown: Vec<String> =
        config.entries().map(|(name, value, set)| format!("{name}={value} {set}")).collect();
    assert_eq!(
        shown,
        [
            "cleanup.policy=delete false",
            "delete.retention.ms=86400000 false",
            "durability=disk false",
            "flush.messages=9223372036854775807 false",
            "flush.ms=9223372036854775807 false",
            "index.interval.bytes=4096 false",
            "max.compaction.lag.ms=9223372036854775807 false",
            "max.message.bytes=1048576 false",
            "message.timestamp.type=CreateTime false",
            "min.cleanable.dirty.ratio=0.5 false",
            "min.compaction.lag.ms=0 false",
            "min.insync.replicas=2 false",
            "retention.bytes=-1 false",
            "retention.ms=604800000 false",
            "segment.bytes=1073741824 false",
            "segment.ms=604800000 false",
            "unclean.leader.election.enable=false false",
        ]
    );
}

#[test]
fn every_default_can_be_set_and_reads_back() {
    for (name, value, _) in TopicConfig::default().entries() {
        let config = TopicConfig::parse([(name, &value)]).expect("a default is within its bounds");
        assert_eq!(config.set_options(), map(&[(name, &value)]));
        assert_eq!(TopicConfig::parse(config.set_options()), Ok(config));
    }
}

#[test]
fn only_what_was_set_is_stored_even_if_it_is_the_default() {
    let config =
        TopicConfig::parse([("durability", "memory"), ("min.insync.replicas", "2")]).unwrap();
    assert_eq!(config.durability, Durability::Memory);
    let set = config.set_options();
    assert_eq!(set.len(), 2);
    assert_eq!(TopicConfig::parse(&set), Ok(config));
}

#[test]
fn options_are_set_and_unset_one_by_one() {
    let before = TopicConfig::parse([("retention.ms", "5"), ("durability", "memory")]).unwrap();
    let after = before.altered(&map(&[("retention.ms", "-1")]), &names(&["durability"])).unwrap();
    assert_eq!(after.set_options(), map(&[("retention.ms", "-1")]));
    assert_eq!((after.retention_ms, after.durability), (UNLIMITED, Durability::Disk));
    let same = after.altered(&BTreeMap::new(), &names(&["segment.ms"])).unwrap();
    assert_eq!(same, after);
    let both = after.altered(&map(&[("flush.ms", "1")]), &names(&["flush.ms"])).unwrap_err();
    assert_eq!(both.to_string(), "flush.ms cannot be both set and unset");
    let unknown = after.altered(&BTreeMap::new(), &names(&["retention"])).unwrap_err();
    assert_eq!(unknown.option(), "retention");
}

#[test]
fn a_topic_of_one_replica_needs_one() {
    let config = TopicConfig::default();
    assert_eq!([1, 2, 3].map(|replicas| config.effective_min_isr(replicas)), [1, 2, 2]);
}

#[test]
fn policies_are_read_in_any_order() {
    for text in ["compact,delete", "delete,compact"] {
        let policy = TopicConfig::parse([("cleanup.policy", text)]).unwrap().cleanup_policy;
        assert_eq!(policy.as_str(), "compact,delete");
        assert!(policy.compacts() && policy.deletes());
    }
    let compact = TopicConfig::parse([("cleanup.policy", "compact")]).unwrap().cleanup_policy;
    assert!(compact.compacts() && !compact.deletes());
}

#[test]
fn every_refusal_names_the_option_and_what_it_takes() {
    let unknown = error("retention.hours", "1");
    assert!(unknown.starts_with("unknown topic option `retention.hours`; known are cleanup."));
    for (name, value, expected) in [
        ("min.insync.replicas", "two", "a whole number"),
        ("min.insync.replicas", "0", "1 to 4294967295"),
        ("durability", "Disk", "disk or memory"),
        ("max.message.bytes", "8388609", "100 to 8388608"),
        ("segment.bytes", "4095", "4096 to 2147483647"),
        ("segment.bytes", "-1", "a whole number"),
        ("segment.ms", "0", "1 to 9223372036854775807"),
        ("retention.ms", "-2", "-1 to 9223372036854775807"),
        ("retention.bytes", "1.5", "a whole number"),
        ("delete.retention.ms", "9223372036854775808", "0 to 9223372036854775807"),
        ("index.interval.bytes", "2147483648", "0 to 2147483647"),
        ("cleanup.policy", "compact,", "delete, compact, or both with a comma"),
        ("message.timestamp.type", "createtime", "CreateTime or LogAppendTime"),
        ("min.cleanable.dirty.ratio", "1.001", "0 to 1, with at most three decimals"),
        ("min.cleanable.dirty.ratio", "-0.5", "0 to 1, with at most three decimals"),
        ("min.cleanable.dirty.ratio", "0.1234", "0 to 1, with at most three decimals"),
        ("flush.messages", "0", "1 to 9223372036854775807"),
    ] {
        let message = format!("`{value}` is not a value for {name}: expected {expected}");
        assert_eq!(error(name, value), message);
    }
    let lags = [("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")];
    assert_eq!(
        TopicConfig::parse(lags).unwrap_err().to_string(),
        "`10` is not a value for min.compaction.lag.ms: expected at most max.compaction.lag.ms, \
         which is 9"
    );
}

proptest! {
    #[test]
    fn a_ratio_is_what_it_is_written_as(permille in 0..=1000_u16) {
        let ratio = Ratio::from_permille(permille);
        prop_assert_eq!(Ratio::parse(&ratio.to_string()), Ok(ratio));
        let written: f64 = ratio.to_string().parse().expect("a decimal number");
        prop_assert!((written * 1000.0 - f64::from(permille)).abs() < 1e-6);
    }
}
