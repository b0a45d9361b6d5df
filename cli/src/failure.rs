//! How a failure is told: one line with what happened, its reason's name, and
//! what to do about it.

use crate::output::Format;
use ottla_client::v1::ErrorReason as R;
use ottla_client::{ClientError, ConsumerError};
use std::io::{self, Write};
use std::process::ExitCode;

/// Tells an error and returns the exit code for it.
pub(crate) fn report(error: &anyhow::Error, format: Format) -> ExitCode {
    if is_closed_pipe(error) {
        // Whoever read the output has seen enough, as `head` does.
        return ExitCode::SUCCESS;
    }
    diagnose(&render(error, format));
    ExitCode::FAILURE
}

/// Writes one line to standard error.
pub(crate) fn diagnose(line: &str) {
    // If standard error is gone too, there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

fn render(error: &anyhow::Error, format: Format) -> String {
    let client = error.chain().find_map(|cause| {
        let consumer = cause.downcast_ref::<ConsumerError>();
        consumer.map_or_else(|| cause.downcast_ref::<ClientError>(), ConsumerError::client)
    });
    if format == Format::Json {
        let mut object = serde_json::json!({ "error": format!("{error:#}") });
        if let Some(error) = client {
            object["reason"] = error.reason_name().into();
            object["retriable"] = error.is_retriable().into();
            object["indefinite"] = error.is_indefinite().into();
        }
        return object.to_string();
    }
    let mut line = format!("ottla: {error:#}");
    if let Some(error) = client {
        let reason = error.reason_name();
        if !line.contains(reason) {
            line = format!("{line} ({reason})");
        }
        if let Some(advice) = advice(error) {
            line = format!("{line}; {advice}");
        }
    }
    line
}

/// What the reader can do about it, where that is not plain.
fn advice(error: &ClientError) -> Option<&'static str> {
    Some(match error.reason() {
        None if matches!(error.reason_name(), "CONNECT_FAILED" | "DISCONNECTED" | "NO_ANSWER") => {
            "is the cluster running, and --bootstrap (or OTTLA_BOOTSTRAP) one of its addresses?"
        }
        None => return None,
        Some(R::UnknownTopic) => "`ottla topic list` shows what there is",
        Some(R::UnknownGroup) => "`ottla group list` shows what there is",
        Some(R::GroupNotEmpty) => {
            "stop its members first: `ottla group describe` shows who they are"
        }
        Some(R::NotEnoughReplicas) => {
            "`ottla cluster health` shows which replicas are out of sync; \
             --acks 1 writes without waiting for them"
        }
        Some(R::LeaderNotAvailable | R::ControllerNotAvailable | R::NotLeader) => {
            "`ottla cluster health` shows which nodes are missing"
        }
        Some(R::OffsetOutOfRange) => "--from start reads from the first record there is",
        Some(R::RecordTooLarge) => "the topic option max.message.bytes is the limit",
        Some(R::DiskFull) => "free space on the node named, and the write succeeds again",
        Some(R::Overloaded | R::ShuttingDown) => "try again in a moment",
        Some(_) => return None,
    })
}

pub(crate) fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|io| io.kind() == io::ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;
    use ottla_client::HostPort;
    use ottla_proto::ApiError;

    fn unknown_topic() -> ClientError {
        ApiError::new(R::UnknownTopic, "there is no topic \"x\"").into()
    }

    #[test]
    fn one_line_with_reason_and_advice() {
        let error = Err::<(), _>(unknown_topic()).context("line 7").expect_err("an error");
        assert_eq!(
            render(&error, Format::Text),
            "ottla: line 7: UNKNOWN_TOPIC: there is no topic \"x\"; \
             `ottla topic list` shows what there is"
        );
        let endpoint = HostPort::new("localhost", 1);
        let connect = ClientError::Connect { endpoint, message: "refused".to_owned() };
        let line = render(&connect.into(), Format::Text);
        assert!(line.contains("(CONNECT_FAILED); is the cluster running"), "{line}");
    }

    #[test]
    fn json_says_what_a_program_can_do() {
        let json: serde_json::Value =
            serde_json::from_str(&render(&unknown_topic().into(), Format::Json)).expect("JSON");
        assert_eq!(json["reason"], "UNKNOWN_TOPIC");
        assert_eq!(
            (json["retriable"].as_bool(), json["indefinite"].as_bool()),
            (Some(true), Some(false))
        );
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let pipe =
            anyhow::Error::new(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing");
        assert!(is_closed_pipe(&pipe));
        assert!(!is_closed_pipe(&unknown_topic().into()));
    }
}
