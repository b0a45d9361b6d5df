//! The `ottla` command as a person uses it.

use crate::plain::{ottla, succeeded};
use ottla_chaos::process::Cluster;
use std::io::Write as _;

/// Bytes of the file that goes in and comes out: many batches, small enough for
/// a debug build.
const FILE_BYTES: usize = 8 * 1024 * 1024;

/// Lines of every kind: long, empty, CRLF, NUL, not UTF-8.
fn file() -> Vec<u8> {
    let mut bytes = b"\n\n\r\n\xff\xfe\0 not text\n".to_vec();
    let mut n = 0_usize;
    while bytes.len() < FILE_BYTES {
        writeln!(bytes, "{n} {}", "x".repeat(n * 37 % 400)).expect("memory");
        n += 1;
    }
    bytes.extend(std::iter::repeat_n(b'L', 500_000));
    bytes.push(b'\n');
    bytes
}

/// A file goes in with `produce` and comes out of `consume` byte for byte,
/// before and after the leader is killed between the two.
#[tokio::test]
async fn a_file_survives_its_leader_byte_for_byte() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let create = ["topic", "create", "file", "--partitions", "1", "--replication-factor", "3"];
    succeeded(ottla(&cluster, &create, b"")?)?;
    let file = file();
    succeeded(ottla(&cluster, &["produce", "file"], &file)?)?;

    let consume = ["consume", "file", "--from", "start", "--until", "end"];
    let before = succeeded(ottla(&cluster, &consume, b"")?)?;
    assert!(before == file, "{} bytes in, {} out", file.len(), before.len());

    let leader = cluster.leader("file", 0).await?;
    cluster.node(leader).kill()?;
    let after = succeeded(ottla(&cluster, &consume, b"")?)?;
    assert!(after == file, "{} bytes in, {} out after the kill", file.len(), after.len());

    // And it goes on without the dead one.
    succeeded(ottla(&cluster, &["produce", "file"], b"one more\n")?)?;
    let all = succeeded(ottla(&cluster, &consume, b"")?)?;
    assert!(all.ends_with(b"one more\n") && all.len() == file.len() + 9);
    Ok(())
}

/// Failures exit non-zero, name the reason on stderr, and leave stdout alone.
#[tokio::test]
async fn failures_are_named_and_exit_non_zero() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(1).await?;
    let cases: [(&[&str], &str); 5] = [
        (&["consume", "nowhere", "--until", "end"], "UNKNOWN_TOPIC"),
        (&["topic", "create", "a/b"], "INVALID_TOPIC_NAME"),
        (&["topic", "create", "t", "--replication-factor", "3"], "INVALID_REPLICATION_FACTOR"),
        (&["topic", "delete", "nowhere"], "UNKNOWN_TOPIC"),
        (&["produce", "nowhere"], "UNKNOWN_TOPIC"),
    ];
    for (args, reason) in cases {
        let output = ottla(&cluster, args, b"line\n")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{args:?}");
        assert!(stderr.contains(reason), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    Ok(())
}
