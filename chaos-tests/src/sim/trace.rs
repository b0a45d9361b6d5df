//! What happens in the simulation of this thread, in order: connections and what is sent
//! over them, faults, what clients were told. A hash of all of it is always kept, so that
//! two runs can be compared; the lines themselves only where somebody wants to read them.
//!
//! Not its job: judging. That is the checker's.

use std::cell::RefCell;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use tracing::{Level, subscriber::DefaultGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::{Layer as _, registry};

/// Whose logs: our own.
const LOGGED: &str = "ottla";

/// Where lines go.
pub type Lines = Box<dyn Write + Send>;

/// All that happened, in a few bytes. Equal for equal runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// How many events there were.
    pub events: u64,
    /// Of all of them, in order.
    pub hash: u64,
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x} of {} events", self.hash, self.events)
    }
}

/// Something that happened.
#[derive(Hash)]
pub(super) enum Event<'a> {
    /// To the nodes, or to a client.
    Told(&'a str),
    Connected(&'a str),
    Refused(&'a str, &'a str),
    Accepted(&'a str),
    Sent(&'a str, &'a [u8]),
    Received(&'a str, &'a [u8]),
    Closed(&'a str),
}

impl fmt::Display for Event<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told(what) => f.write_str(what),
            Self::Connected(connection) => write!(f, "{connection} connected"),
            Self::Refused(connection, why) => write!(f, "{connection} not connected: {why}"),
            Self::Accepted(connection) => write!(f, "{connection} accepted"),
            Self::Sent(connection, bytes) => write!(f, "{connection} sends {}", Bytes(bytes)),
            Self::Received(connection, bytes) => write!(f, "{connection} gets {}", Bytes(bytes)),
            Self::Closed(connection) => write!(f, "{connection} is dropped"),
        }
    }
}

/// How many, and a few of their hash's digits to compare them by.
struct Bytes<'a>(&'a [u8]);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        write!(f, "{} B ({:08x})", self.0.len(), hasher.finish() >> 32)
    }
}

struct Trace {
    events: u64,
    hasher: DefaultHasher,
    lines: Option<Lines>,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Notes all events of this thread from here on.
pub(super) fn begin(lines: Option<Lines>) {
    // The same keys each time.
    TRACE.set(Some(Trace { events: 0, hasher: DefaultHasher::new(), lines }));
}

/// What was noted since it began.
pub(super) fn end() -> Fingerprint {
    let Some(mut trace) = TRACE.take() else { return Fingerprint::default() };
    if let Some(lines) = &mut trace.lines {
        // Whoever wanted to read has gone, which changes nothing of the run.
        let _ = lines.flush();
    }
    Fingerprint { events: trace.events, hash: trace.hasher.finish() }
}

/// Notes an event.
pub(super) fn note(event: &Event<'_>) {
    TRACE.with_borrow_mut(|trace| {
        let Some(trace) = trace else { return };
        let now = super::os::now();
        trace.events += 1;
        (now, event).hash(&mut trace.hasher);
        if let Some(lines) = &mut trace.lines {
            // As above.
            let _ = writeln!(lines, "{:11.6} {event}", now.as_secs_f64());
        }
    });
}

/// What nodes and clients log goes to the lines, if there are any, and into no hash: what
/// is logged may change without the run.
pub(super) fn logs() -> Option<DefaultGuard> {
    TRACE.with_borrow(|trace| trace.as_ref()?.lines.as_ref().map(drop))?;
    let lines = layer().with_ansi(false).without_time().with_writer(|| Logs);
    // No filter that has a hash map: it would draw, and what follows draw something else.
    let logged = lines.with_filter(Targets::new().with_target(LOGGED, Level::DEBUG));
    Some(tracing::subscriber::set_default(registry().with(logged)))
}

struct Logs;

impl Write for Logs {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        TRACE.with_borrow_mut(|trace| {
            if let Some(lines) = trace.as_mut().and_then(|trace| trace.lines.as_mut()) {
                let (now, text) = (super::os::now().as_secs_f64(), String::from_utf8_lossy(text));
                writeln!(lines, "{now:11.6} log: {}", text.trim_end())?;
            }
            Ok(text.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes what was done or told.
pub(super) fn told(what: &str) {
    note(&Event::Told(what));
}
