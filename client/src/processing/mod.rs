//! Patterns of processing, on top of [`Consumer`](crate::Consumer) and
//! [`Producer`](crate::Producer): trying again ([`RetryPolicy`]), retry topics and dead
//! letters ([`Processor`], [`replay_dead_letters`]), keys in parallel ([`Parallel`]),
//! request and reply ([`Requester`], [`respond`]).
//!
//! All of them process a record at least once: what is done twice must do no harm.

mod dead_letters;
mod parallel;
mod processor;
mod progress;
mod request;
mod retry;

pub use dead_letters::{Failure, FailureTopics, replay_dead_letters};
pub use parallel::Parallel;
pub use processor::Processor;
pub use request::{CORRELATION_ID, REPLY_TO, Requester, respond};
pub use retry::RetryPolicy;

use crate::{ClientError, ConsumerError};

/// Why processing ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProcessingError {
    /// Records could not be read, or offsets not committed.
    #[error(transparent)]
    Consumer(#[from] ConsumerError),
    /// A record could not be written: to a retry topic, as a dead letter, as a reply.
    #[error("not written: {0}")]
    Producer(#[from] ClientError),
    /// The application's own code has failed, and nothing was said of what to do then.
    #[error("record {offset} of {partition}: {cause}")]
    Handler {
        /// Where the record is from.
        partition: crate::TopicPartition,
        /// Its offset.
        offset: u64,
        /// What the handler said.
        cause: String,
    },
    /// No reply came in time. The request may have been carried out.
    #[error("no reply within {0:?}")]
    NoReply(std::time::Duration),
}
