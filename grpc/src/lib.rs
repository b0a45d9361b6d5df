//! gRPC calls whose payloads are not copied on their way between a message and the socket.
//!
//! tonic puts each message together in one buffer before it goes to the socket, and again
//! when it comes from there: two copies of every record batch. Here the parts of a message
//! go out as they are, and come in as slices of what was read. On the wire it is the same
//! gRPC, and generated clients and services stay in use: a [`Client`] around a channel, a
//! [`ServerLayer`] around a server, and calls that want it say so, with [`answer`],
//! [`ask`] and [`Messages`]. Without the layers, the same calls work with tonic's copies
//! (docs/decisions/0053-payloads-are-not-copied.md).
//!
//! Not its job: connections, deadlines, and what is said.

mod incoming;
mod layer;
mod outgoing;
mod pieces;
mod rope;
#[cfg(test)]
mod tests;

pub use incoming::Messages;
pub use layer::{Client, Server, ServerLayer};
pub use outgoing::{Answers, Shared, answer, ask};

/// What comes before each message: whether it is compressed, and its length in bytes
/// (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, Length-Prefixed-Message).
const HEADER_BYTES: usize = 5;
