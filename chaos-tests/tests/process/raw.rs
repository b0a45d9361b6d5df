//! HTTP/2 without a library: what no client would send, and a caller that reads nothing
//! (RFC 9113; header fields as literals, RFC 7541 section 6.2.2).

use prost::Message;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const SETTINGS: u8 = 4;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const SETTINGS_INITIAL_WINDOW_SIZE: u16 = 4;

/// The largest window there is, in bytes.
const WINDOW: u32 = (1 << 31) - 1;

/// What a connection begins with, in bytes.
const FIRST_WINDOW: u32 = 65_535;

/// The header of a frame.
pub(crate) fn header(length: u32, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes
}

/// A frame.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short one");
    [header(length, kind, flags, stream), payload.to_vec()].concat()
}

/// A header field.
fn field(name: &str, value: &str) -> Vec<u8> {
    let short = |text: &str| u8::try_from(text.len()).ok().filter(|len| *len < 127);
    let (name_len, value_len) = (short(name).expect("short"), short(value).expect("short"));
    [&[0, name_len][..], name.as_bytes(), &[value_len], value.as_bytes()].concat()
}

/// A connection of which nothing is read unless it says so.
pub(crate) struct Raw(TcpStream);

impl From<TcpStream> for Raw {
    fn from(stream: TcpStream) -> Self {
        Self(stream)
    }
}

impl Raw {
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Self> {
        Self::shake_hands(TcpStream::connect(address).await?).await
    }

    /// Says that it can take all there is.
    pub(crate) async fn shake_hands(stream: TcpStream) -> anyhow::Result<Self> {
        let mut raw = Self(stream);
        let window = [&SETTINGS_INITIAL_WINDOW_SIZE.to_be_bytes()[..], &WINDOW.to_be_bytes()];
        raw.send(PREFACE).await?;
        raw.send(&frame(SETTINGS, 0, 0, &window.concat())).await?;
        let more = WINDOW - FIRST_WINDOW;
        raw.send(&frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes())).await?;
        Ok(raw)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.write_all(bytes).await?)
    }

    /// Begins a call, the first of which is number 0, with one message; the last, if it is.
    pub(crate) async fn call(
        &mut self,
        number: u32,
        path: &str,
        message: &impl Message,
        is_last: bool,
    ) -> anyhow::Result<()> {
        let stream = 2 * number + 1;
        let fields = [
            field(":method", "POST"),
            field(":scheme", "http"),
            field(":path", path),
            field(":authority", "node"),
            field("content-type", "application/grpc"),
            field("te", "trailers"),
        ];
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len())?.to_be_bytes();
        let body = [&[0][..], &length, &message].concat();
        let flags = if is_last { END_STREAM } else { 0 };
        let call = [
            frame(HEADERS, END_HEADERS, stream, &fields.concat()),
            frame(DATA, flags, stream, &body),
        ];
        self.send(&call.concat()).await
    }

    /// Reads until the other side has closed it.
    pub(crate) async fn until_closed(&mut self) {
        let mut bytes = [0; 4096];
        // However it is closed.
        while self.0.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
    }
}
