//! The simulated network, as nodes and clients see it.

use futures::FutureExt;
use futures::future::BoxFuture;
use ottla_host::{Accept, Listener, Network, Stream};
use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

/// Connections accepted and not yet taken, as the backlog of a real listener.
const BACKLOG: usize = 128;

/// The network of the simulation that runs. Hosts are known by their names.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNetwork;

impl Network for SimNetwork {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let host = host.to_owned();
        async move { Ok(Stream::new(TcpStream::connect((host.as_str(), port)).await?)) }.boxed()
    }

    fn bind(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>> {
        async move {
            let listener = TcpListener::bind(address).await?;
            let address = listener.local_addr()?;
            let (accepted, queue) = mpsc::channel(BACKLOG);
            // Ends with the host that it runs on.
            tokio::spawn(
                async move { while accepted.send(listener.accept().await).await.is_ok() {} },
            );
            Ok(Listener::new(address, Accepted(queue)))
        }
        .boxed()
    }
}

struct Accepted(mpsc::Receiver<io::Result<(TcpStream, SocketAddr)>>);

impl Accept for Accepted {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        self.0.poll_recv(context).map(|accepted| match accepted {
            Some(accepted) => accepted.map(|(stream, from)| (Stream::new(stream), from)),
            None => Err(io::Error::other("nobody accepts any more")),
        })
    }
}
