//! `ottla node health`: asks one node's probes, for supervisors whose probes are commands.
//!
//! Not its job: the health of a cluster (`ottla cluster health`).

use crate::connection::duration;
use crate::output::{self, Format};
use anyhow::{Context as _, bail};
use ottla_client::HostPort;
use serde_json::json;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than a probe ever says, in bytes: whoever else listens there is not read for ever.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Ask one node whether it is ready for clients. Exits with 1 unless it is.
///
/// For health checks of containers, whose images have neither shell nor curl. Without
/// --http it asks the address that OTTLA_HTTP_LISTEN has the node listen at.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  ottla node health
  ottla node health --live --http 127.0.0.1:7502")]
pub(super) struct Args {
    /// Address of the node's HTTP port. A wildcard, where the node listens, is asked at
    /// the loopback address.
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "OTTLA_HTTP_LISTEN",
        default_value = "127.0.0.1:7501"
    )]
    http: HostPort,

    /// Ask only whether the process serves: what may end it if it does not.
    #[arg(long)]
    live: bool,

    /// How long to wait for the answer, such as 500ms, 30s, 2m.
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    timeout: Duration,

    /// How the result is written.
    #[arg(long, value_enum, default_value_t)]
    pub(super) format: Format,
}

/// What a probe said.
struct Answer {
    well: bool,
    text: String,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = if args.live { "/livez" } else { "/readyz" };
    let address = reachable(&args.http);
    let asked = tokio::time::timeout(args.timeout, get(&address, path));
    let answer = match asked.await {
        Ok(answer) => answer.with_context(|| format!("asking {address}{path}"))?,
        Err(_elapsed) => {
            let within = humantime::format_duration(args.timeout);
            bail!("asking {address}{path}: no answer within {within}")
        }
    };
    match args.format {
        Format::Text => output::line(&answer.text)?,
        Format::Json => {
            output::json(&json!({ "healthy": answer.well, "answer": answer.text }))?;
        }
    }
    Ok(if answer.well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where a node is asked that listens at `listen`.
fn reachable(listen: &HostPort) -> HostPort {
    match listen.host().parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => HostPort::new("127.0.0.1", listen.port()),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => HostPort::new("::1", listen.port()),
        _ => listen.clone(),
    }
}

/// One request and the whole answer. HTTP/1.0 needs no chunks to be put together, which is
/// all that a client of HTTP would do here.
async fn get(address: &HostPort, path: &str) -> anyhow::Result<Answer> {
    let mut stream = TcpStream::connect((address.host(), address.port())).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("expected an answer of HTTP, found {} bytes without a blank line", answer.len());
    };
    let status = head.lines().next().unwrap_or_default();
    let Some(code) = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1)) else {
        bail!("expected a status line of HTTP, found `{status}`");
    };
    match code {
        "200" | "503" => {}
        _ => bail!("expected 200 or 503 of a node's probe, found `{status}`"),
    }
    Ok(Answer { well: code == "200", text: body.trim_end().to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// What is concluded from `answer`; `None`: nobody answers, and keeps the connection.
    async fn asked(answer: Option<&'static str>) -> anyhow::Result<ExitCode> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let http = HostPort::new("127.0.0.1", listener.local_addr()?.port());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            // What is closed with something unread in it is reset.
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut request).await?;
            }
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await,
                None => std::future::pending().await,
            }
        });
        let timeout = Duration::from_millis(if answer.is_some() { 30_000 } else { 100 });
        let code = run(&Args { http, live: false, timeout, format: Format::Text }).await;
        server.abort();
        code
    }

    fn is(code: anyhow::Result<ExitCode>, expected: ExitCode) -> bool {
        // `ExitCode` has no equality.
        format!("{:?}", code.expect("an answer")) == format!("{expected:?}")
    }

    #[tokio::test]
    async fn the_exit_code_is_what_the_probe_says() {
        let ready = "HTTP/1.0 200 OK\r\ncontent-length: 6\r\n\r\nready\n";
        assert!(is(asked(Some(ready)).await, ExitCode::SUCCESS));
        let fenced = "HTTP/1.1 503 Service Unavailable\r\n\r\nnot ready: fenced\n";
        assert!(is(asked(Some(fenced)).await, ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn whoever_is_no_node_is_an_error() {
        for (answer, told) in [
            (Some("HTTP/1.1 404 Not Found\r\n\r\n"), "expected 200 or 503"),
            (Some("220 mail.example.net ESMTP\r\n\r\n"), "expected a status line"),
            (Some("\0\0"), "without a blank line"),
            (None, "no answer within"),
        ] {
            let error = format!("{:#}", asked(answer).await.expect_err("no node"));
            assert!(error.contains(told), "{answer:?}: {error}");
        }
    }

    #[test]
    fn a_wildcard_is_asked_at_the_loopback_address() {
        let at = |text: &str| reachable(&text.parse().expect("an address")).to_string();
        assert_eq!(at("0.0.0.0:7501"), "127.0.0.1:7501");
        assert_eq!(at("[::]:7501"), "[::1]:7501");
        assert_eq!(at("node-1:7501"), "node-1:7501");
    }
}
