//! The binary as a user runs it, against a cluster of one real node that
//! `ottla dev` has started.

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;

fn ottla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    command.env_remove("OTTLA_BOOTSTRAP").stdin(Stdio::null());
    command
}

/// A running `ottla dev`. However a test ends, it ends too, and its node sees
/// to itself.
struct Dev {
    process: Child,
    // Open for as long as the process may write to it.
    _events: BufReader<ChildStdout>,
    bootstrap: String,
    dir: Option<TempDir>,
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Dev {
    fn start(dir: TempDir) -> Self {
        let mut process = ottla()
            .args(["dev", "--nodes", "1", "--any-port", "--format", "json", "--dir"])
            .arg(dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut events = BufReader::new(process.stdout.take().expect("piped"));
        let bootstrap = loop {
            let event = next_event(&mut events).expect("ready before the output ends");
            if event["event"] == "ready" {
                break event["bootstrap"].as_str().expect("addresses").to_owned();
            }
        };
        Self { process, _events: events, bootstrap, dir: Some(dir) }
    }

    fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let mut command = ottla();
        command.args(args).args(["--bootstrap", &self.bootstrap]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command that refuses its input closes it early.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("ended")
        })
    }

    fn ok(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(args, input);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        output.stdout
    }

    /// Ends `ottla dev` without giving it a chance to stop its node, and
    /// returns its directory when the node is gone.
    fn kill(mut self) -> TempDir {
        self.process.kill().expect("running");
        let dir = self.dir.take().expect("taken here only");
        // The node holds this lock until its very end.
        let lock = File::open(dir.path().join("node-1/data/lock")).expect("the node's lock");
        lock.lock().expect("free in the end");
        dir
    }
}

fn next_event(events: &mut impl BufRead) -> Option<Value> {
    let mut line = String::new();
    if events.read_line(&mut line).expect("readable") == 0 {
        return None;
    }
    Some(serde_json::from_str(&line).expect("JSON"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Everything that can be done with a topic, byte for byte, and again after
/// the whole cluster was ended the hard way.
#[test]
fn lines_survive_and_come_back_as_they_went() {
    let dev = Dev::start(TempDir::new().expect("a directory"));
    dev.ok(&["topic", "create", "lines", "--partitions", "2"], b"");
    let mut input = b"first\n\n\r\n\xff\xfe\0binary\n".to_vec();
    (0..20_000).for_each(|n| input.extend_from_slice(format!("line {n}\n").as_bytes()));
    input.extend_from_slice(b"the last line has no newline");
    dev.ok(&["produce", "lines", "--partition", "1"], &input);
    input.push(b'\n');
    assert!(dev.ok(&["consume", "lines", "--until", "end"], b"") == input, "before");

    let dev = Dev::start(dev.kill());
    assert!(dev.ok(&["consume", "lines", "--until", "end"], b"") == input, "after");
    let tail = ["consume", "lines", "--partition", "1", "--from", "3", "--max", "1"];
    let json = dev.ok(&[&tail[..], &["--format", "json"]].concat(), b"");
    let record: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(
        (&record["offset"], &record["value"]["base64"]),
        (&3.into(), &"//4AYmluYXJ5".into())
    );
    drop(dev.kill());
}

#[test]
fn keys_choose_partitions_and_the_summary_counts() {
    let dev = Dev::start(TempDir::new().expect("a directory"));
    dev.ok(&["topic", "create", "keyed", "--partitions", "3"], b"");
    let produce = ["produce", "keyed", "--key-separator", ":", "--format", "json"];
    let summary = dev.ok(&produce, b"a:1\nb:2\na:3\nc:x:y\n");
    let summary: Value = serde_json::from_slice(&summary).expect("JSON");
    assert_eq!((&summary["records"], &summary["bytes"]), (&4.into(), &10.into()));
    let records = dev.ok(&["consume", "keyed", "--until", "end", "--format", "json"], b"");
    let records: Vec<Value> =
        records.split(|b| *b == b'\n').flat_map(serde_json::from_slice).collect();
    let of_key = |key: &str| -> Vec<&Value> {
        records.iter().filter(|record| record["key"] == key).collect()
    };
    let a = of_key("a");
    assert_eq!(a.iter().map(|r| r["value"].as_str()).collect::<Vec<_>>(), [Some("1"), Some("3")]);
    assert_eq!(a[0]["partition"], a[1]["partition"]);
    assert_eq!(of_key("c")[0]["value"], "x:y");
    drop(dev.kill());
}

#[test]
fn failures_are_named_and_change_nothing() {
    let dev = Dev::start(TempDir::new().expect("a directory"));
    dev.ok(&["topic", "create", "t", "--config", "max.message.bytes=1000"], b"");
    let long = [&[b'x'; 2000][..], b"\nnot sent\n"].concat();
    let cases: [(&[&str], &[u8], &str); 8] = [
        (&["topic", "create", "t"], b"", "TOPIC_ALREADY_EXISTS"),
        (&["topic", "create", "a/b"], b"", "INVALID_TOPIC_NAME"),
        (&["topic", "create", "u", "--replication-factor", "2"], b"", "INVALID_REPLICATION_FACTOR"),
        (&["topic", "describe", "nobody"], b"", "UNKNOWN_TOPIC"),
        (&["produce", "t", "--partition", "1"], b"a\n", "line 1: UNKNOWN_PARTITION"),
        (&["produce", "t"], &long, "line 1: RECORD_TOO_LARGE"),
        (&["produce", "t", "--key-separator", ":"], b"no key\n", "line 1: there is no \":\""),
        (&["consume", "t", "--from", "7"], b"", "OFFSET_OUT_OF_RANGE"),
    ];
    for (args, input, reason) in cases {
        let output = dev.run(args, input);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let told = stderr(&output);
        assert!(told.contains(reason), "{args:?}: {told}");
        assert!(output.stdout.is_empty(), "{args:?}: diagnostics are not results");
    }
    assert!(dev.ok(&["consume", "t", "--until", "end"], b"").is_empty());
    let topics: Value =
        serde_json::from_slice(&dev.ok(&["topic", "list", "--format", "json"], b"")).expect("JSON");
    assert_eq!(topics["topics"].as_array().map(Vec::len), Some(1));
    drop(dev.kill());
}

/// A reader that has seen enough closes the pipe; that is no failure.
#[test]
fn a_closed_pipe_ends_consume_quietly() {
    let dev = Dev::start(TempDir::new().expect("a directory"));
    dev.ok(&["topic", "create", "t"], b"");
    let input: Vec<u8> = (0..200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    dev.ok(&["produce", "t"], &input);
    let mut consume = ottla()
        .args(["consume", "t", "--until", "end", "--bootstrap", &dev.bootstrap])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("started");
    let mut first = String::new();
    BufReader::new(consume.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    assert_eq!(first, "0\n");
    let output = consume.wait_with_output().expect("ended");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", stderr(&output));
    drop(dev.kill());
}

#[test]
fn without_a_cluster_commands_fail_and_say_what_to_do() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    let health = ["cluster", "health", "--timeout", "1s", "--bootstrap", &address];
    let output = ottla().args(health).output().expect("ended");
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains(&address) && told.contains("--bootstrap"), "{told}");
}

#[test]
fn dev_names_a_port_in_use_and_leaves_nothing_behind() {
    // Whoever holds the port, this test or another program: it is taken.
    let _held = TcpListener::bind("127.0.0.1:7401");
    let dir = TempDir::new().expect("a directory");
    let output = ottla().arg("dev").arg("--dir").arg(dir.path()).output().expect("ended");
    assert_eq!(output.status.code(), Some(1));
    let told = stderr(&output);
    assert!(told.contains("port 7401") && told.contains("--any-port"), "{told}");
    assert!(!dir.path().join("node-1").exists(), "no node was started");
}
