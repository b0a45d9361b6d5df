//! What one connection may take of the node: how many connections there are, how many
//! requests each has open, and how many bytes are held for it, coming and going
//! (docs/decisions/0057-limits-of-connections.md).
//!
//! Not its job: what requests may ask for, and memory for writes under way, which the
//! replicas bound for the node as a whole.

mod answer;
mod connections;
mod hold;
mod layer;
mod listener;
mod request;
mod streaming;
#[cfg(test)]
mod tests;

pub(crate) use connections::{Connection, ConnectionLimits, Connections};
pub(crate) use hold::Held;
pub(crate) use layer::LimitLayer;
pub(crate) use listener::Bounded;

use std::sync::Arc;

/// The connection that a request came by, if it came by one that is counted.
pub(crate) fn connection_of<T>(request: &tonic::Request<T>) -> Option<Arc<Connection>> {
    request.extensions().get().cloned()
}

/// An answer for which room is held until it is encoded.
pub(crate) fn held_until_encoded<T>(answer: T, held: Option<Held>) -> tonic::Response<T> {
    let mut response = tonic::Response::new(answer);
    if let Some(held) = held {
        response.extensions_mut().insert(answer::Encoded::new(held));
    }
    response
}
