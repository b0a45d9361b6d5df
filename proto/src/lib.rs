//! Ottla's protocol: the generated messages and services of `ottla.v1` (for
//! clients) and `ottla.internal.v1` (between nodes), the id newtypes that the
//! whole project speaks in, and the one wire form of errors.
//!
//! Not its job: any decision. What a message means is said where it is handled.

pub mod ids;

#[cfg(feature = "grpc")]
mod error;

#[cfg(feature = "grpc")]
pub use error::{ApiError, ERROR_DOMAIN, Leader, reason_name};
pub use ids::*;

/// The public protocol: what clients speak.
#[cfg(feature = "grpc")]
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures)]
pub mod v1 {
    tonic::include_proto!("ottla.v1");
}

/// The protocol between nodes of one cluster. Not for clients, and free to
/// change between releases as far as rolling upgrades allow.
#[cfg(feature = "grpc")]
pub mod internal {
    /// Version 1.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::large_futures)]
    pub mod v1 {
        tonic::include_proto!("ottla.internal.v1");
    }
}

/// The compiled descriptors of every service, for server reflection.
#[cfg(feature = "grpc")]
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/ottla_descriptors.bin"));

/// Largest record batch a topic may allow (`max.message.bytes`), in bytes.
/// Every gRPC message limit is derived from it.
pub const MAX_BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Limit on one gRPC message, in bytes, for encoding and decoding: a response
/// of one full batch and its envelope, or of friendly records, whose encoding
/// is at most about twice as long as their batch.
pub const MAX_GRPC_MESSAGE_BYTES: usize = 2 * MAX_BATCH_BYTES + 1024 * 1024;

/// HTTP/2 frame size, in bytes. Measured: of all gRPC settings the one that
/// matters most for large transfers (16 KiB, the default, halves them).
pub const HTTP2_FRAME_BYTES: u32 = 1024 * 1024;

/// HTTP/2 flow-control window of one stream, in bytes.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// HTTP/2 flow-control window of one connection, in bytes.
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
