//! What this node sends to followers, and its limits.

use super::Replicas;
use crate::api::SentBytes;
use crate::flow::Traffic;

impl Replicas {
    /// Bytes of records that this node has sent to followers.
    #[must_use]
    pub fn sent_bytes(&self) -> SentBytes {
        let sent = |traffic| self.env.traffics.sent(traffic);
        SentBytes {
            in_sync: sent(Traffic::Live) + sent(Traffic::Lagging),
            catch_up: sent(Traffic::CatchUp),
            reassignment: sent(Traffic::Moving),
        }
    }

    /// Changes [`Limits::catch_up_bytes_per_second`](crate::Limits), at once.
    pub fn limit_catch_up(&self, bytes_per_second: u64) {
        self.env.traffics.catch_up.set(bytes_per_second);
    }

    /// Changes [`Limits::reassignment_bytes_per_second`](crate::Limits), at once.
    pub fn limit_reassignment(&self, bytes_per_second: u64) {
        self.env.traffics.moving.set(bytes_per_second);
    }

    /// The limit as it is; 0: none.
    #[must_use]
    pub fn reassignment_limit(&self) -> u64 {
        self.env.traffics.moving.get()
    }
}
