//! What a node's HTTP port answers.
//!
//! One GET without anything that a client of a library would bring: HTTP/1.0, so that the
//! answer comes as it is and ends with the connection.

use anyhow::{Context as _, ensure};
use ottla_client::HostPort;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for a node's whole answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of an answer that are read: the figures of ten thousand partitions.
const MAX_BYTES: u64 = 32 * 1024 * 1024;

/// The body, and whether there was more of it.
pub(super) async fn get(address: &str, path: &str) -> anyhow::Result<(String, bool)> {
    let answer = timeout(PATIENCE, read(address, path)).await;
    let answer = answer.with_context(|| format!("no answer within {PATIENCE:?}"))??;
    let is_cut = answer.len() as u64 > MAX_BYTES;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    // A node that is not ready says why with 503: that is an answer too.
    let is_answer = status.contains(" 200 ") || status.contains(" 503 ");
    ensure!(is_answer, "GET {path} is answered with {status:?}");
    Ok((body.to_owned(), is_cut))
}

async fn read(address: &str, path: &str) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_BYTES + 1).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// Where the HTTP port of a node can be reached from here, as far as its option
/// `http_listen` and the address that it advertises say.
pub(super) fn address(listen: &str, advertised: &HostPort) -> Result<String, String> {
    let parsed: SocketAddr =
        listen.parse().map_err(|_| format!("http_listen is {listen:?}, no address"))?;
    if parsed.ip().is_unspecified() {
        return Ok(HostPort::new(advertised.host(), parsed.port()).to_string());
    }
    let is_here = advertised.host() == "localhost"
        || advertised.host().parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    if parsed.ip().is_loopback() && !is_here {
        return Err(format!("its http_listen is {listen}, which only its own machine reaches"));
    }
    Ok(listen.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn an_address_is_known_or_it_is_said_why_not() {
        let here = HostPort::new("127.0.0.1", 7401);
        let there = HostPort::new("ottla-1.example.net", 7401);
        assert_eq!(address("127.0.0.1:7501", &here), Ok("127.0.0.1:7501".to_owned()));
        assert_eq!(address("0.0.0.0:7501", &there), Ok("ottla-1.example.net:7501".to_owned()));
        assert_eq!(address("10.0.0.7:7501", &there), Ok("10.0.0.7:7501".to_owned()));
        assert!(address("127.0.0.1:7501", &there).is_err_and(|why| why.contains("only its own")));
        assert!(address("nowhere", &here).is_err());
    }

    async fn answered(answer: &'static str) -> anyhow::Result<(String, bool)> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let serve = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = [0; 1024];
            let read = stream.read(&mut request).await.expect("a request");
            assert!(request[..read].starts_with(b"GET /metrics HTTP/1.0\r\n"));
            stream.write_all(answer.as_bytes()).await.expect("written");
        };
        let ((), found) = tokio::join!(serve, get(&address, "/metrics"));
        found
    }

    #[tokio::test]
    async fn a_body_is_told_from_its_head() {
        let good = answered("HTTP/1.0 200 OK\r\nA: b\r\n\r\nottla_up 1\n").await.expect("good");
        assert_eq!(good, ("ottla_up 1\n".to_owned(), false));
        let unready = answered("HTTP/1.1 503 No\r\n\r\nnot ready: x\n").await.expect("an answer");
        assert_eq!(unready.0, "not ready: x\n");
        answered("HTTP/1.1 404 Not Found\r\n\r\n").await.expect_err("not there");
        answered("SSH-2.0").await.expect_err("something else");
    }
}
