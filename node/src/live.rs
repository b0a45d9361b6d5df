//! Options that change while the node runs: what is set in the metadata, for this
//! node or for all, before what its own configuration says. Whoever follows an
//! option is told at once.
//!
//! Not its job: which options there are and what they take (`records` of the
//! metadata), and what each does.

use crate::config::NodeConfig;
use crate::telemetry::LogLevels;
use ottla_commitlog::Shared;
use ottla_metadata::image::Image;
use ottla_metadata::records::NodeOptions;
use ottla_proto::NodeId;
use ottla_replication::{Limits, Replicas};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// The values in force of all options that can change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    pub(crate) limits: Limits,
    pub(crate) hot_tail_bytes: usize,
    pub(crate) log_level: String,
    pub(crate) shutdown_timeout: Duration,
}

impl InForce {
    /// As of an image.
    pub(crate) fn of(config: &NodeConfig, image: &Image) -> Self {
        Self::with(config, &image.node_options(NodeId(config.node_id)))
    }

    fn with(config: &NodeConfig, set: &NodeOptions) -> Self {
        let ms = |set: Option<u64>, own: u64| Duration::from_millis(set.unwrap_or(own));
        let bytes = |set: Option<u64>, own: u32| {
            usize::try_from(set.unwrap_or(own.into())).unwrap_or(usize::MAX)
        };
        let limits = Limits {
            produce_bytes: bytes(
                set.max_in_flight_produce_bytes,
                config.max_in_flight_produce_bytes,
            ),
            replica_lag_max: ms(set.replica_lag_max_ms, config.replica_lag_max_ms),
            catch_up_bytes_per_second: set
                .catch_up_bytes_per_second
                .unwrap_or(config.catch_up_bytes_per_second),
            reassignment_bytes_per_second: set
                .reassignment_bytes_per_second
                .unwrap_or(config.reassignment_bytes_per_second),
            flush_check: ms(set.log_flush_check_ms, config.log_flush_check_ms),
            retention_check: ms(set.log_retention_check_ms, config.log_retention_check_ms),
            cleaner_backoff: ms(set.log_cleaner_backoff_ms, config.log_cleaner_backoff_ms),
            cleaner_bytes_per_second: set
                .log_cleaner_bytes_per_second
                .unwrap_or(config.log_cleaner_bytes_per_second),
            cleaner_key_map_bytes: bytes(
                set.log_cleaner_key_map_bytes,
                config.log_cleaner_key_map_bytes,
            ),
            disk_alert_free_bytes: set
                .disk_alert_free_bytes
                .unwrap_or(config.disk_alert_free_bytes),
            disk_refuse_free_bytes: set
                .disk_refuse_free_bytes
                .unwrap_or(config.disk_refuse_free_bytes),
            ..Limits::default()
        };
        let log_level = set.log_level.as_ref().map_or(&config.log_level[..], |l| l.as_str());
        Self {
            limits,
            hot_tail_bytes: bytes(set.hot_tail_bytes, config.hot_tail_bytes),
            log_level: log_level.to_owned(),
            shutdown_timeout: ms(set.shutdown_timeout_ms, config.shutdown_timeout_ms),
        }
    }
}

/// Who follows options while the node runs.
pub(crate) struct Followers {
    pub(crate) replicas: Replicas,
    pub(crate) shared: Arc<Shared>,
    pub(crate) levels: LogLevels,
}

/// Tells the followers whenever an option changes, beginning with what they were
/// told at the start. Ends with the metadata.
pub(crate) async fn follow(
    config: NodeConfig,
    mut images: watch::Receiver<Arc<Image>>,
    mut told: InForce,
    followers: Followers,
) {
    let node = NodeId(config.node_id);
    let mut known = NodeOptions::default();
    loop {
        let set = images.borrow_and_update().node_options(node);
        let now = InForce::with(&config, &set);
        if now != told {
            followers.levels.set(&now.log_level);
            followers.shared.set_hot_tail(now.hot_tail_bytes);
            followers.replicas.set_limits(now.limits);
            told = now;
        }
        if set != known {
            tracing::info!(options = ?set.set_options(), "options set in the metadata are in force");
            known = set;
        }
        if images.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ottla_metadata::records::{NodeDefault, node_options};
    use std::collections::BTreeSet;

    fn config() -> NodeConfig {
        let pairs = [
            ("node_id", "1"),
            ("cluster_id", "east"),
            ("data_dir", "d"),
            ("voters", "1=127.0.0.1:7401"),
        ];
        let flags: Vec<_> = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        NodeConfig::load(None, &flags).expect("a good configuration")
    }

    /// An option that is listed as one that changes while nodes run, and is not
    /// followed, would be a lie; each changes a value of its own.
    #[test]
    fn every_dynamic_option_is_followed() {
        let config = config();
        let own = InForce::of(&config, &Image::default());
        let mut seen = BTreeSet::from([format!("{own:?}")]);
        for option in node_options().filter(|option| option.dynamic) {
            let mut set = NodeOptions::default();
            let other = match option.default {
                NodeDefault::Number(0) => "65536".to_owned(),
                NodeDefault::Number(number) => (number + 1).to_string(),
                _ => "trace".to_owned(),
            };
            set.set(option.name, &other).expect("another than the default");
            let changed = seen.insert(format!("{:?}", InForce::with(&config, &set)));
            assert!(changed, "nobody follows {}", option.name);
        }
    }

    /// What nobody set is the default of whoever it is for.
    #[test]
    fn defaults_are_those_of_the_parts() {
        let InForce { limits, hot_tail_bytes, .. } = InForce::of(&config(), &Image::default());
        assert_eq!(limits, Limits::default());
        assert_eq!(hot_tail_bytes, ottla_commitlog::DEFAULT_HOT_TAIL_BYTES);
    }
}
