//! The network as nodes and clients see it: streams of bytes, made by connecting to a
//! host and port or by accepting on an address.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::codegen::http::Uri;
use tonic::transport::server::Connected;
use tonic::transport::{Channel, Endpoint};

/// A network that a node is on.
pub trait Network: Send + Sync + 'static {
    /// Connects to a port of a host, which is a name or an address. No timeout.
    ///
    /// # Errors
    /// `ConnectionRefused` only if the host itself says that nothing listens there.
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>>;

    /// Listens on an address of this host; port 0 is any that is free.
    ///
    /// # Errors
    /// Such as `AddrInUse`.
    fn bind(&self, address: SocketAddr) -> BoxFuture<'static, io::Result<Listener>>;
}

/// One end of a connection.
pub trait Socket: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Socket for T {}

/// One end of a connection, of whatever network.
pub struct Stream(Box<dyn Socket>);

impl Stream {
    /// Bytes that go where `socket` takes them.
    pub fn new(socket: impl Socket) -> Self {
        Self(Box::new(socket))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Connected for Stream {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

/// Who accepts connections, one after the other.
pub trait Accept: Send + Unpin + 'static {
    /// The next connection, and who made it.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>>;
}

/// A bound address. As a stream it yields connections and never ends.
pub struct Listener {
    address: SocketAddr,
    accept: Box<dyn Accept>,
}

impl Listener {
    /// Listens on what is bound to `address` already.
    pub fn new(address: SocketAddr, accept: impl Accept) -> Self {
        Self { address, accept: Box::new(accept) }
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The next connection, and who made it.
    ///
    /// # Errors
    /// Such as too many open files; the next call may succeed.
    pub async fn accept(&mut self) -> io::Result<(Stream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// The same, for whoever polls.
    ///
    /// # Errors
    /// The same.
    pub fn poll_accept(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(Stream, SocketAddr)>> {
        self.accept.poll_accept(context)
    }
}

impl futures::Stream for Listener {
    type Item = io::Result<Stream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.accept.poll_accept(context).map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

/// Connects tonic's channels over a network.
#[derive(Clone)]
pub struct Connector(Arc<dyn Network>);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Stream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Some((host, port)) = uri.host().zip(uri.port_u16()) else {
            let error = io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} has no port"));
            return Box::pin(std::future::ready(Err(error)));
        };
        // An IPv6 address stands in brackets in a URI, and nowhere else.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let connecting = self.0.connect(host, port);
        Box::pin(async move { Ok(TokioIo::new(connecting.await?)) })
    }
}

/// Connects, within the endpoint's `connect_timeout`.
///
/// # Errors
/// As [`Network::connect`], inside of tonic's error.
pub async fn channel(
    network: &Arc<dyn Network>,
    endpoint: &Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    endpoint.connect_with_connector(Connector(Arc::clone(network))).await
}

/// Connects when first used, and again after the connection broke.
pub fn lazy_channel(network: &Arc<dyn Network>, endpoint: &Endpoint) -> Channel {
    endpoint.connect_with_connector_lazy(Connector(Arc::clone(network)))
}
