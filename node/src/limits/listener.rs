//! A port whose connections are counted.

use super::connections::{Connection, Connections};
use ottla_host::{Accept, Listener, Stream};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tonic::transport::server::Connected;

/// Pause after a connection could not be accepted, such as for want of descriptors: who
/// asked is still waiting, and would be asked for again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts, and never fails.
pub(crate) struct Bounded {
    listener: Listener,
    connections: Arc<Connections>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Bounded {
    pub(crate) fn new(listener: Listener, connections: Arc<Connections>) -> Self {
        Self { listener, connections, pause: None }
    }

    fn poll_admit(&mut self, context: &mut Context<'_>) -> Poll<(Admitted, SocketAddr)> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(context)) {
                Ok((stream, from)) => {
                    let connection = self.connections.add();
                    return Poll::Ready((Admitted { stream, connection }, from));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

impl futures::Stream for Bounded {
    type Item = io::Result<Admitted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_admit(context).map(|(admitted, _)| Some(Ok(admitted)))
    }
}

impl Accept for Bounded {
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Stream, SocketAddr)>> {
        self.poll_admit(context).map(|(admitted, from)| Ok((Stream::new(admitted), from)))
    }
}

/// One end of a connection that is counted. It ends where the node has closed it.
pub(crate) struct Admitted {
    stream: Stream,
    connection: Arc<Connection>,
}

impl Admitted {
    /// Whether it goes on; who asks is woken when it is to end. Also of writing: whoever
    /// reads nothing is not read from either.
    fn check(&self, context: &Context<'_>) -> io::Result<()> {
        if self.connection.is_closed(context.waker()) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl Connected for Admitted {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Arc<Connection> {
        Arc::clone(&self.connection)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.connection.gone();
    }
}

impl AsyncRead for Admitted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if buffer.filled().len() > before {
            self.connection.was_heard();
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Admitted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
