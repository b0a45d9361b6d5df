//! The simulated network, as nodes and clients see it. What goes over it is in the trace.

use super::trace::{self, Event};
use futures::FutureExt;
use futures::future::BoxFuture;
use ottla_host::{Accept, Listener, Network, Stream};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use turmoil::net::{TcpListener, TcpStream};

/// Connections accepted and not yet taken, as the backlog of a real listener.
const BACKLOG: usize = 128;

/// The network of the simulation that runs. Hosts are known by their names.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNetwork;

/// A connection that is noted in the trace, with all that goes over it.
struct Traced {
    stream: TcpStream,
    name: String,
    line: Arc<Line>,
}

/// What can be done to one end of a connection from outside.
struct Line {
    ends: [String; 2],
    broken: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

thread_local! {
    /// Every end of a connection on this thread's network, in the order they came.
    static LINES: RefCell<Vec<Weak<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Breaks every connection to and from a host: both ends find it reset, and what was on
/// the way is lost.
pub(super) fn reset(host: &str) {
    LINES.with_borrow_mut(|lines| {
        lines.retain(|line| {
            let Some(line) = line.upgrade() else { return false };
            let hit = line.ends.iter().any(|end| end == host);
            if hit {
                line.broken.store(true, Relaxed);
                line.waiting.lock().drain(..).for_each(Waker::wake);
            }
            !hit
        });
    });
}

impl Line {
    fn new(ends: [String; 2]) -> Arc<Self> {
        let line =
            Arc::new(Self { ends, broken: AtomicBool::new(false), waiting: Mutex::default() });
        LINES.with_borrow_mut(|lines| {
            lines.retain(|line| line.strong_count() > 0);
            lines.push(Arc::downgrade(&line));
        });
        line
    }

    fn check(&self) -> io::Result<()> {
        match self.broken.load(Relaxed) {
            true => Err(io::ErrorKind::ConnectionReset.into()),
            false => Ok(()),
        }
    }

    /// Whoever waits for anything is told of the break as well.
    fn wait(&self, context: &Context<'_>) {
        let mut waiting = self.waiting.lock();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
    }
}

fn host_of(address: SocketAddr) -> String {
    turmoil::reverse_lookup(address.ip()).unwrap_or_else(|| address.ip().to_string())
}

impl Drop for Traced {
    fn drop(&mut self) {
        trace::note(&Event::Closed(&self.name));
    }
}

impl AsyncRead for Traced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.line.check()?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            trace::note(&Event::Received(&self.name, &buffer.filled()[before..]));
        } else {
            self.line.wait(context);
        }
        read
    }
}

impl AsyncWrite for Traced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.line.check()?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_pending() {
            self.line.wait(context);
        }
        if let Poll::Ready(Ok(length)) = &written {
            trace::note(&Event::Sent(&self.name, &bytes[..*length]));
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Network for SimNetwork {
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Stream>> {
        let (host, to) = (host.to_owned(), format!("{host}:{port}"));
        async move {
            match TcpStream::connect(to.as_str()).await {
                Ok(stream) => {
                    let from = stream.local_addr()?;
                    let name = format!("{}:{} > {to}", host_of(from), from.port());
                    trace::note(&Event::Connected(&name));
                    let line = Line::new([host_of(from), host]);
                    Ok(Stream::new(Traced { stream, name, line }))
                }
                Err(error) => {
                    trace::note(&Event::Refused(&to, &error.to_string()));
                    Err(error)
                }
            }
        }
        .boxed()
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
            Some(Ok((stream, from))) => {
                let local = stream.local_addr()?;
                let name = format!(
                    "{}:{} < {}:{}",
                    host_of(local),
                    local.port(),
                    host_of(from),
                    from.port()
                );
                trace::note(&Event::Accepted(&name));
                let line = Line::new([host_of(local), host_of(from)]);
                Ok((Stream::new(Traced { stream, name, line }), from))
            }
            Some(Err(error)) => Err(error),
            None => Err(io::Error::other("nobody accepts any more")),
        })
    }
}
