//! What a node asks of the machine it runs on, beside the disk (`commitlog::vfs`):
//! connections to other nodes and to clients, and threads for work that blocks.
//! Production takes both from tokio; the simulation gives its own.
//!
//! Not its job: what is said over a connection.

mod net;
mod tcp;
mod work;

pub use net::{Accept, Connector, Listener, Network, Socket, Stream, channel, lazy_channel};
pub use tcp::Tcp;
pub use work::{Blocking, WorkLost, blocking, delay_work};
