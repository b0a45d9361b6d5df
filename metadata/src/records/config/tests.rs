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
    let shown: Vec<String> = config
        .entries()
        .map(|(name, value, source)| format!("{name}={value} {source:?}"))
        .collect();
    assert_eq!(
        shown,
        [
            "cleanup.policy=delete Default",
            "delete.retention.ms=86400000 Default",
            "durability=disk Default",
            "flush.messages=9223372036854775807 Default",
            "flush.ms=9223372036854775807 Default",
            "index.interval.bytes=4096 Default",
            "max.compaction.lag.ms=9223372036854775807 Default",
            "max.message.bytes=1048576 Default",
            "message.timestamp.type=CreateTime Default",
            "min.cleanable.dirty.ratio=0.5 Default",
            "min.compaction.lag.ms=0 Default",
            "min.insync.replicas=2 Default",
            "retention.bytes=-1 Default",
            "retention.ms=604800000 Default",
            "segment.bytes=1073741824 Default",
            "segment.ms=604800000 Default",
            "unclean.leader.election.enable=false Default",
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

/// What is listed of an option is what is done with it.
#[test]
fn every_option_is_listed_with_its_unit_default_and_bounds() {
    for info in topic_options() {
        let (_, value, _) =
            TopicConfig::default().entries().find(|(name, ..)| *name == info.name).expect("listed");
        assert_eq!(info.default.as_ref(), Some(&value), "{info:?}");
        let numbers = info.takes.contains(" to ") && !info.takes.contains(',');
        assert_eq!(numbers, !info.unit.is_empty() || info.takes.starts_with("false"), "{info:?}");
    }
    for option in node_options() {
        let info = option.info();
        let number = matches!(option.value, NodeValue::Number(..) | NodeValue::Limit(..));
        let numbers = number && info.name != "node_id";
        assert_eq!(numbers, !info.unit.is_empty(), "{info:?}");
        if !info.dynamic {
            let error = NodeOptions::default().set(info.name, "1").expect_err("needs a restart");
            assert_eq!(error, ConfigError::NeedsRestart { name: info.name });
            continue;
        }
        let mut options = NodeOptions::default();
        let default = info.default.expect("every dynamic option has one");
        options.set(info.name, &default).expect("a default is within its bounds");
        assert_eq!(options.set_options(), map(&[(info.name, &default)]));
        assert_eq!(NodeOptions::try_from(options.set_options()), Ok(options.clone()));
        options.unset(info.name).expect("known");
        assert!(options.is_empty());
        if let NodeValue::Number(least, most) | NodeValue::Limit(least, most) = option.value {
            for beyond in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten() {
                let error = options.set(info.name, &beyond.to_string()).expect_err("too far");
                let expected = format!("{least} to {most}");
                assert!(error.to_string().ends_with(&expected), "{error}");
            }
        }
    }
    let names: BTreeSet<&str> = node_options().map(|option| option.name).collect();
    assert_eq!(names.len(), node_options().count(), "a name twice");
}

#[test]
fn filters_are_levels_and_targets() {
    let set = |value: &str| NodeOptions::default().set("log_level", value);
    for good in ["off", "debug", "info,ottla_node=trace", "a::b=warn,error"] {
        assert_eq!(set(good), Ok(()), "{good}");
    }
    let long = "info,".repeat(LogFilter::MAX_BYTES) + "info";
    for bad in ["", "INFO", "loud", "a=", "=info", "info,", "a[b]=info", "a=info=b", &long] {
        assert!(set(bad).is_err(), "{bad}");
    }
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
