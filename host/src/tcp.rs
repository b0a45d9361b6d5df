//! TCP of the operating system.

use crate::net::{Accept, Listener, Network, Stream};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::net::{TcpListener, TcpStream};

/// The network of production. Every connection sends at once (`TCP_NODELAY`): what is
/// written together is written in one call.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tcp;

impl Network for Tcp {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let host = host.to_owned();
        async move {
            let stream = TcpStream::connect((host.as_str(), port)).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::new(stream))
        }
        .boxed()
    }

    fn bind(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            Ok(Listener::new(listener.local_addr()?, listener))
        }
        .boxed()
    }
}

impl Accept for TcpListener {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        TcpListener::poll_accept(self, context).map(|accepted| {
            let (stream, from) = accepted?;
            stream.set_nodelay(true)?;
            Ok((Stream::new(stream), from))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_is_sent_arrives_and_a_closed_port_refuses() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut listener = Tcp.bind(any).await.expect("a port");
        let port = listener.local_addr().port();
        let (dialled, accepted) = tokio::join!(Tcp.connect("127.0.0.1", port), listener.accept());
        let (mut dialled, (mut accepted, _)) = (dialled.expect("out"), accepted.expect("in"));
        dialled.write_all(b"hello").await.expect("sent");
        let mut heard = [0; 5];
        accepted.read_exact(&mut heard).await.expect("heard");
        assert_eq!(&heard, b"hello");
        drop(listener);
        let refused = Tcp.connect("127.0.0.1", port).await.map(drop).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
