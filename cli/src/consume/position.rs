//! Positions as the command line takes them: those of the client library, and
//! times that need a clock or a calendar.

use ottla_client::StartPosition;
use std::time::{SystemTime, UNIX_EPOCH};

/// `start`, `end`, an offset, or `@TIME`: milliseconds since 1970, a date and
/// time such as 2026-01-31T12:00:00Z, or a duration before now such as `@-1h`.
pub(crate) fn parse_from(text: &str) -> Result<StartPosition, String> {
    parse_from_at(text, SystemTime::now())
}

fn parse_from_at(text: &str, now: SystemTime) -> Result<StartPosition, String> {
    if let Ok(position) = text.parse() {
        return Ok(position);
    }
    let wrong =
        || "is none of start, end, OFFSET, @MILLISECONDS, @2026-01-31T12:00:00Z, @-1h".to_owned();
    let time = text.strip_prefix('@').ok_or_else(wrong)?;
    let time = match time.strip_prefix('-') {
        Some(ago) => {
            let ago = humantime::parse_duration(ago).map_err(|_| wrong())?;
            now.checked_sub(ago).ok_or_else(wrong)?
        }
        None => humantime::parse_rfc3339_weak(time).map_err(|_| wrong())?,
    };
    let since = time.duration_since(UNIX_EPOCH).map_err(|_| "is before 1970".to_owned())?;
    i64::try_from(since.as_millis()).map(StartPosition::Timestamp).map_err(|_| wrong())
}

/// Where reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// What was committed when the command started.
    End,
    /// Before this offset of each partition.
    Offset(u64),
}

pub(super) fn parse_until(text: &str) -> Result<Until, String> {
    match text {
        "end" => Ok(Until::End),
        _ => text.parse().map(Until::Offset).map_err(|_| "is neither end nor OFFSET".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn times_are_read_in_three_ways() {
        let now = UNIX_EPOCH + Duration::from_secs(7200);
        let at = |text| parse_from_at(text, now);
        assert_eq!(at("@1500"), Ok(StartPosition::Timestamp(1500)));
        assert_eq!(at("@1970-01-01T00:01:00Z"), Ok(StartPosition::Timestamp(60_000)));
        assert_eq!(at("@1970-01-02 00:00:00"), Ok(StartPosition::Timestamp(86_400_000)));
        assert_eq!(at("@-1h"), Ok(StartPosition::Timestamp(3_600_000)));
        assert_eq!(at("end"), Ok(StartPosition::End));
        assert_eq!(at("17"), Ok(StartPosition::Offset(17)));
    }

    #[test]
    fn nonsense_is_refused() {
        let now = UNIX_EPOCH + Duration::from_secs(7200);
        for text in ["", "@", "@-", "@tomorrow", "-1", "@-3h", "first"] {
            assert!(parse_from_at(text, now).is_err(), "{text}");
        }
        assert!(parse_until("start").is_err());
        assert_eq!(parse_until("7"), Ok(Until::Offset(7)));
    }
}
