//! The binary as a user runs it, against a cluster of one real node that
//! `ottla dev` has started.

mod node;

use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use tempfile::TempDir;

fn ottla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ottla"));
    // Nor does a profile of whoever runs the tests count.
    command.env_remove("OTTLA_BOOTSTRAP").env_remove("OTTLA_PROFILE").stdin(Stdio::null());
    command.env("OTTLA_PROFILES", "/dev/null");
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
    records_have_many_shapes(&dev);
    profiles_name_clusters(&dev);
    groups_are_sought_and_shown(&dev);
    drop(dev.kill());
}

/// Keys, headers, tombstones and bytes that are no text: in as lines or as JSON, out as a
/// template or as JSON, and from one topic into another.
fn records_have_many_shapes(dev: &Dev) {
    dev.ok(&["topic", "create", "shapes"], b"");
    dev.ok(&["topic", "create", "copy"], b"");
    let produce = ["produce", "shapes", "--key-separator", ":", "--null", "NULL"];
    let headers = ["--header", "h=1", "--header", "h=2"];
    dev.ok(&[&produce[..], &headers].concat(), b"a:NULL\nb:\n:\xff\n");
    let json = br#"{"value": null, "headers": [{"name": "n", "value": null}], "timestamp": 1500}"#;
    dev.ok(&["produce", "shapes", "--input", "json", "--key", "k"], json);

    let template = r"%t-%p@%o %k[%K]=%v[%V] %h\n";
    let shown = |topic: &str| {
        let consume = ["consume", topic, "--until", "end", "--null", "-", "--output", template];
        dev.ok(&consume, b"")
    };
    let expected = b"shapes-0@0 a[1]=-[-1] h=1,h=2\nshapes-0@1 b[1]=[0] h=1,h=2\n\
        shapes-0@2 [0]=\xff[1] h=1,h=2\nshapes-0@3 k[1]=-[-1] n=-\n";
    assert_eq!(shown("shapes"), expected, "{}", String::from_utf8_lossy(&shown("shapes")));
    let time = ["consume", "shapes", "--from", "3", "--max", "1", "--output", "%m %d"];
    assert_eq!(dev.ok(&time, b""), b"1500 1970-01-01T00:00:01.500Z");

    let all = dev.ok(&["consume", "shapes", "--until", "end", "--format", "json"], b"");
    dev.ok(&["produce", "copy", "--input", "json"], &all);
    let copied = String::from_utf8_lossy(&shown("copy")).replace("copy-", "shapes-");
    assert_eq!(copied, String::from_utf8_lossy(expected));

    let refused = dev.run(&["produce", "copy", "--input", "json"], b"{\"value\": 1}\n");
    assert!(stderr(&refused).contains("line 1"), "{}", stderr(&refused));
    let unknown = dev.run(&["consume", "copy", "--output", "%z"], b"");
    assert!(!unknown.status.success() && stderr(&unknown).contains("%k"), "{}", stderr(&unknown));
}

/// A profile says where the cluster is, whoever is nearer to the command line comes first.
fn profiles_name_clusters(dev: &Dev) {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("profiles.toml");
    let run = |args: &[&str], bootstrap: Option<&str>| {
        let mut command = ottla();
        command.args(args).env("OTTLA_PROFILES", &file).env_remove("OTTLA_PROFILE");
        command.envs(bootstrap.map(|addresses| ("OTTLA_BOOTSTRAP", addresses)));
        command.output().expect("ended")
    };
    let ok = |args: &[&str], bootstrap| {
        let output = run(args, bootstrap);
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    };
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = nobody.local_addr().expect("bound").to_string();
    drop(nobody);
    ok(&["profile", "set", "here", "--bootstrap", &dev.bootstrap], None);
    ok(&["profile", "set", "away", "--bootstrap", &nowhere, "--timeout", "200ms"], None);
    let list = ["topic", "list", "--profile", "here"];
    assert!(ok(&list, None).contains("shapes"));
    assert!(ok(&list, Some(&nowhere)).contains("shapes"), "a flag comes before the environment");
    ok(&["profile", "use", "away"], None);
    assert!(!run(&["topic", "list"], None).status.success(), "the profile that is used");
    assert!(ok(&["topic", "list"], Some(&dev.bootstrap)).contains("shapes"));
    assert!(ok(&["topic", "list", "--bootstrap", &dev.bootstrap], None).contains("shapes"));
    let unknown = run(&["topic", "list", "--profile", "nobody"], None);
    let told = stderr(&unknown);
    assert!(!unknown.status.success() && told.contains("it has here, away"), "{told}");
    let listed: Value =
        serde_json::from_str(&ok(&["profile", "list", "--format", "json"], None)).expect("JSON");
    assert_eq!(listed["profiles"][1]["used"], true, "{listed}");
    ok(&["profile", "delete", "away"], None);
    assert!(!ok(&["profile", "list"], None).contains("away"));
}

/// Where a group goes on is tried, set, shown with its lag, and forgotten.
fn groups_are_sought_and_shown(dev: &Dev) {
    let described = || -> Value {
        let describe = ["group", "describe", "readers", "--format", "json"];
        serde_json::from_slice(&dev.ok(&describe, b"")).expect("JSON")
    };
    let seek = ["group", "seek", "readers", "shapes", "--to"];
    dev.ok(&[&seek[..], &["start", "--dry-run"]].concat(), b"");
    let unknown = dev.run(&["group", "describe", "readers"], b"");
    assert!(stderr(&unknown).contains("UNKNOWN_GROUP"), "nothing was set");
    dev.ok(&[&seek[..], &["1"]].concat(), b"");
    let row = &described()["partitions"][0];
    assert_eq!((&row["committed"], &row["end"], &row["lag"]), (&1.into(), &4.into(), &3.into()));
    let tried = [&seek[..], &["end", "--dry-run", "--format", "json"]].concat();
    let tried: Value = serde_json::from_slice(&dev.ok(&tried, b"")).expect("JSON");
    assert_eq!((&tried["set"], &tried["offsets"][0]["committed"]), (&false.into(), &1.into()));
    assert_eq!(tried["offsets"][0]["offset"], 4);
    let beyond = dev.run(&[&seek[..], &["5"]].concat(), b"");
    assert!(stderr(&beyond).contains("0 to 4"), "{}", stderr(&beyond));
    dev.ok(&[&seek[..], &["end"]].concat(), b"");
    let row = &described()["partitions"][0];
    assert_eq!((&row["lag"], &row["lag_seconds"]), (&0.into(), &0.0.into()));
    dev.ok(&["group", "delete", "readers"], b"");
    let groups = dev.ok(&["group", "list", "--format", "json"], b"");
    assert_eq!(
        serde_json::from_slice::<Value>(&groups).expect("JSON")["groups"],
        Value::Array(vec![])
    );
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

/// Sends a signal to a child and gives how it ended.
#[cfg(unix)]
fn stopped(mut child: Child, signal: &str) -> Option<i32> {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().expect("`kill` is there");
    assert!(sent.success());
    child.wait().expect("ended").code()
}

/// A member of a group prints what the group has not read, and commits it, however it is
/// stopped.
#[cfg(unix)]
#[test]
fn a_group_goes_on_where_it_was() {
    let dev = Dev::start(TempDir::new().expect("a directory"));
    for topic in ["orders-1", "orders-2"] {
        dev.ok(&["topic", "create", topic, "--partitions", "2"], b"");
    }
    let lines =
        |range: std::ops::Range<u32>| -> Vec<String> { range.map(|n| n.to_string()).collect() };
    let produce = |topic: &str, lines: &[String]| {
        dev.ok(&["produce", topic], (lines.join("\n") + "\n").as_bytes());
    };
    let group = |args: &[&str]| -> Vec<String> {
        let args = [&["consume", "orders-1", "--group", "billing"], args].concat();
        let out = String::from_utf8(dev.ok(&args, b"")).expect("text");
        out.lines().map(str::to_owned).collect()
    };
    produce("orders-1", &lines(0..100));
    let mut seen = group(&["--max", "30"]);
    assert_eq!(seen.len(), 30);
    seen.extend(group(&["--until", "end"]));
    seen.sort_by_key(|line| line.parse::<u32>().expect("a number"));
    assert_eq!(seen, lines(0..100), "each once");
    assert!(group(&["--until", "end"]).is_empty());

    for (signal, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut tail = ottla()
            .args(["consume", "orders-1", "--group", "billing"])
            .args(["--bootstrap", &dev.bootstrap])
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        produce("orders-1", &lines(100..120));
        let out = BufReader::new(tail.stdout.take().expect("piped"));
        let mut tailed: Vec<String> =
            out.lines().take(20).map(|line| line.expect("text")).collect();
        tailed.sort();
        assert_eq!(tailed, lines(100..120));
        assert_eq!(stopped(tail, signal), Some(code));
        assert!(group(&["--until", "end"]).is_empty(), "it was committed");
    }

    produce("orders-2", &lines(0..3));
    let both = ["consume", "--pattern", "orders-.*", "--group", "audit", "--max", "143"];
    let records = dev.ok(&[&both[..], &["--format", "json"]].concat(), b"");
    let topics = String::from_utf8(records).expect("text");
    assert_eq!(topics.matches(r#""topic":"orders-1""#).count(), 140);
    assert_eq!(topics.matches(r#""topic":"orders-2""#).count(), 3);

    for (args, told) in [
        (&["consume", "orders-1", "orders-2"][..], "--group"),
        (&["consume", "orders-1", "--group", "g", "--from", "5"], "ottla group seek g"),
        (&["consume", "--pattern", "(", "--group", "g"], "INVALID_SUBSCRIPTION"),
    ] {
        let output = dev.run(args, b"");
        assert!(!output.status.success() && stderr(&output).contains(told), "{}", stderr(&output));
    }
}
