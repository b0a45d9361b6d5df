//! Where reading begins, as people write it: `start`, `end`, an offset, `@time`.

use crate::channel::Connection;
use crate::client::with_timeout;
use crate::{Client, ClientError};
use ottla_proto::v1;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use v1::OffsetPosition as Position;

/// A place in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    /// The first record that is still there.
    Start,
    /// Behind the last committed record: only what comes from now on.
    End,
    /// This offset.
    Offset(u64),
    /// The first record with a timestamp not below this one, in milliseconds
    /// since the Unix epoch.
    Timestamp(i64),
}

impl FromStr for StartPosition {
    type Err = ClientError;

    /// `start`, `end`, an offset, or `@MILLISECONDS` since the Unix epoch.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            ClientError::InvalidArgument(format!(
                "{text:?} is neither start, end, an offset nor @MILLISECONDS"
            ))
        };
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            _ => match text.strip_prefix('@') {
                Some(time) => {
                    let timestamp: i64 = time.parse().map_err(|_| bad())?;
                    if timestamp < 0 { Err(bad()) } else { Ok(Self::Timestamp(timestamp)) }
                }
                None => Ok(Self::Offset(text.parse().map_err(|_| bad())?)),
            },
        }
    }
}

impl fmt::Display for StartPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => offset.fmt(f),
            Self::Timestamp(timestamp) => write!(f, "@{timestamp}"),
        }
    }
}

impl Client {
    /// The offset of a position in a partition. An offset is returned as it
    /// is, without asking. After a failover this waits until the new leader
    /// knows how far the log is committed.
    ///
    /// # Errors
    /// UNKNOWN_TOPIC, UNKNOWN_PARTITION, or no leader answered in time.
    pub async fn offset_of(
        &self,
        topic: &str,
        partition: u32,
        position: StartPosition,
    ) -> Result<u64, ClientError> {
        let (position, timestamp_ms) = match position {
            StartPosition::Offset(offset) => return Ok(offset),
            StartPosition::Start => (Position::Earliest, 0),
            StartPosition::End => (Position::Latest, 0),
            StartPosition::Timestamp(timestamp) => (Position::Timestamp, timestamp),
        };
        let request = v1::ListOffsetsRequest {
            topic: topic.to_owned(),
            partition,
            position: position.into(),
            timestamp_ms,
            ..Default::default()
        };
        let what = format!("finding an offset of {topic}-{partition}");
        let call = |connection: Connection, timeout: Duration| {
            let request = with_timeout(request.clone(), timeout);
            async move { connection.log().list_offsets(request).await }
        };
        let answer = self.ask_leader(&what, topic, partition, self.deadline(), call).await?;
        Ok(answer.into_inner().offset)
    }
}

impl Client {
    /// See [`Admin::delete_records`](crate::Admin::delete_records).
    pub(crate) async fn delete_records(
        &self,
        topic: &str,
        partition: u32,
        before: Option<u64>,
    ) -> Result<u64, ClientError> {
        let what = format!("deleting records of {topic}-{partition}");
        // With an offset, twice is the same as once: what is written between two
        // attempts stays.
        let position = before.map_or(StartPosition::End, StartPosition::Offset);
        let before_offset = Some(self.offset_of(topic, partition, position).await?);
        let call = |connection: Connection, timeout: Duration| {
            let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
            let topic = topic.to_owned();
            let request = v1::DeleteRecordsRequest { topic, partition, before_offset, timeout_ms };
            let request = with_timeout(request, timeout);
            async move { connection.log().delete_records(request).await }
        };
        let answer = self.ask_leader(&what, topic, partition, self.deadline(), call).await?;
        Ok(answer.into_inner().low_watermark)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_round_trip() {
        let all = [
            ("start", StartPosition::Start),
            ("end", StartPosition::End),
            ("0", StartPosition::Offset(0)),
            ("18446744073709551615", StartPosition::Offset(u64::MAX)),
            ("@1700000000000", StartPosition::Timestamp(1_700_000_000_000)),
        ];
        for (text, position) in all {
            assert_eq!(text.parse::<StartPosition>().expect(text), position);
            assert_eq!(position.to_string(), text);
        }
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        for text in ["", "begin", "-1", "@", "@-5", "@x", "1.5", "START"] {
            let error = text.parse::<StartPosition>().expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}
