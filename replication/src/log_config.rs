//! From a topic's options to the configuration of its partitions' logs.

use ottla_commitlog::format::TimestampType;
use ottla_commitlog::{Cleanup, LogConfig};
use ottla_metadata::records::{self, TopicConfig};

/// How the logs of a topic's partitions are kept.
pub(crate) fn log_config(topic: &TopicConfig) -> LogConfig {
    LogConfig {
        segment_bytes: topic.segment_bytes,
        segment_ms: topic.segment_ms,
        // Kafka's 0: an entry for every batch, as with 1.
        index_interval_bytes: topic.index_interval_bytes.max(1),
        timestamp_type: match topic.message_timestamp_type {
            records::TimestampType::CreateTime => TimestampType::CreateTime,
            records::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        cleanup: Cleanup {
            delete: topic.cleanup_policy.deletes(),
            compact: topic.cleanup_policy.compacts(),
        },
        // UNLIMITED is the only negative value.
        retention_ms: u64::try_from(topic.retention_ms).ok(),
        retention_bytes: u64::try_from(topic.retention_bytes).ok(),
        delete_retention_ms: topic.delete_retention_ms,
        min_compaction_lag_ms: topic.min_compaction_lag_ms,
        max_compaction_lag_ms: unless_never(topic.max_compaction_lag_ms),
        min_dirty_permille: topic.min_cleanable_dirty_ratio.permille(),
        flush_ms: unless_never(topic.flush_ms),
        flush_messages: unless_never(topic.flush_messages),
        ..LogConfig::default()
    }
}

/// Kafka writes "never" as the largest number.
fn unless_never(value: u64) -> Option<u64> {
    (value < i64::MAX.cast_unsigned()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_without_options_has_logs_without() {
        assert_eq!(log_config(&TopicConfig::default()), LogConfig::default());
    }

    #[test]
    fn every_option_of_a_log_reaches_it() {
        let options = [
            ("cleanup.policy", "compact"),
            ("delete.retention.ms", "1"),
            ("flush.messages", "2"),
            ("flush.ms", "3"),
            ("index.interval.bytes", "0"),
            ("max.compaction.lag.ms", "5"),
            ("message.timestamp.type", "LogAppendTime"),
            ("min.cleanable.dirty.ratio", "0.25"),
            ("min.compaction.lag.ms", "4"),
            ("retention.bytes", "6"),
            ("retention.ms", "-1"),
            ("segment.bytes", "4096"),
            ("segment.ms", "7"),
        ];
        let expected = LogConfig {
            segment_bytes: 4096,
            segment_ms: 7,
            index_interval_bytes: 1,
            max_index_entries: LogConfig::default().max_index_entries,
            timestamp_type: TimestampType::LogAppendTime,
            cleanup: Cleanup { delete: false, compact: true },
            retention_ms: None,
            retention_bytes: Some(6),
            delete_retention_ms: 1,
            min_compaction_lag_ms: 4,
            max_compaction_lag_ms: Some(5),
            min_dirty_permille: 250,
            flush_ms: Some(3),
            flush_messages: Some(2),
        };
        assert_eq!(log_config(&TopicConfig::parse(options).expect("options")), expected);
    }
}
