//! How long a call may take: the caller's gRPC deadline and its own wish,
//! bounded by the node.

use std::time::Duration;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

/// Time for a write or an administrative call that names none.
pub(crate) const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// Longest time any one call is kept waiting, so that a forgotten caller
/// releases what it holds.
pub(crate) const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// What is kept back of the caller's deadline, so that a typed answer arrives
/// before the caller gives up: a tenth, at most this.
const MAX_MARGIN: Duration = Duration::from_millis(100);

/// When the call must be answered. `wish_ms` = 0 means no wish.
pub(crate) fn of(metadata: &MetadataMap, wish_ms: u32) -> Instant {
    let wish = match wish_ms {
        0 => DEFAULT_TIMEOUT,
        ms => Duration::from_millis(ms.into()),
    };
    let allowed = grpc_timeout(metadata)
        .map_or(MAX_TIMEOUT, |timeout| timeout.saturating_sub((timeout / 10).min(MAX_MARGIN)));
    Instant::now() + wish.min(allowed).min(MAX_TIMEOUT)
}

/// The `grpc-timeout` header: at most eight digits and a unit.
fn grpc_timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let n: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(n * 3600),
        "M" => Duration::from_secs(n * 60),
        "S" => Duration::from_secs(n),
        "m" => Duration::from_millis(n),
        "u" => Duration::from_micros(n),
        "n" => Duration::from_nanos(n),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", text.parse().expect("ASCII"));
        metadata
    }

    #[test]
    fn grpc_timeouts_are_read_or_ignored() {
        assert_eq!(grpc_timeout(&header("250m")), Some(Duration::from_millis(250)));
        assert_eq!(grpc_timeout(&header("2S")), Some(Duration::from_secs(2)));
        for nonsense in ["", "S", "5", "-1S", "999999999S", "1é"] {
            if let Ok(value) = nonsense.parse() {
                let mut metadata = MetadataMap::new();
                metadata.insert("grpc-timeout", value);
                assert_eq!(grpc_timeout(&metadata), None, "{nonsense}");
            }
        }
    }

    #[test]
    fn the_shorter_of_wish_and_deadline_counts() {
        let now = Instant::now();
        assert!(of(&header("1S"), 10_000) <= now + Duration::from_secs(1));
        assert!(of(&header("100S"), 1_000) <= now + Duration::from_secs(2));
        assert!(of(&MetadataMap::new(), u32::MAX) <= now + MAX_TIMEOUT + Duration::from_secs(1));
    }
}
