//! A backup of one cluster, restored into another: every record, option and group.

use crate::plain::{ottla, succeeded};
use anyhow::Context as _;
use ottla_chaos::process::{Cluster, flip_a_bit, wait_until};
use ottla_client::{
    Client, ClientOptions, Compression, HostPort, Producer, ProducerOptions, ProducerRecord,
    Record, RecordHeader, StartPosition, v1,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

/// Cleaners that never rest.
const CLEANS: &str = "log_cleaner_backoff_ms = 20\n";

/// And one that does not begin before the test is over: what was restored stays so.
const RESTS: &str = "log_cleaner_backoff_ms = 3600000\n";

const CODECS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

/// Records of each codec in each partition.
const RECORDS: i64 = 60;

/// Topics and how many partitions each has.
const TOPICS: [(&str, u32); 3] = [("mixed", 3), ("keyed", 1), ("stamped", 1)];

/// Records of a topic's partitions.
type Content = BTreeMap<(String, u32), Vec<Record>>;

async fn client(cluster: &Cluster) -> anyhow::Result<Client> {
    let bootstrap = HostPort::parse_list(&cluster.bootstrap().join(","))?;
    Ok(Client::connect(&bootstrap, ClientOptions::default()).await?)
}

/// Of another time than now, so that a clock would be noticed; with and without key, value
/// and headers, whose names repeat.
fn record(n: i64, partition: u32) -> ProducerRecord {
    let header = |value: Option<&'static str>| RecordHeader {
        name: "h".into(),
        value: value.map(Into::into),
    };
    let headers = [header(Some("a")), header(None), header(Some(""))];
    ProducerRecord {
        key: (n % 5 != 0).then(|| format!("k{n}").into()),
        value: (n % 7 != 0).then(|| "compressible ".repeat(1 + n as usize % 9).into()),
        headers: headers[..n as usize % 4].to_vec(),
        timestamp_ms: Some(1_700_000_000_000 - n * 1_000),
        partition: Some(partition),
    }
}

async fn fill_mixed(client: &Client) -> anyhow::Result<()> {
    for compression in CODECS {
        let linger = Duration::from_millis(1);
        let options = ProducerOptions { compression, linger, ..ProducerOptions::default() };
        let producer = Producer::new(client, options);
        let topic = producer.topic("mixed").await?;
        for n in 0..RECORDS {
            for partition in 0..3 {
                // Where it is dropped it is sent nevertheless, and `shutdown` waits for it.
                drop(topic.send(record(n, partition)).await?);
            }
        }
        producer.shutdown().await;
        assert_eq!(producer.stats().failed, 0);
    }
    Ok(())
}

/// Many values of few keys, in small segments, and now and then a key that does not come
/// again, until compaction has left gaps between those.
async fn fill_keyed(client: &Client) -> anyhow::Result<()> {
    let topic = Producer::new(client, ProducerOptions::default()).topic("keyed").await?;
    for round in 0..40 {
        let mut sent = Vec::new();
        for key in 0..25 {
            let value = format!("{round}:{}", "x".repeat(40));
            let mut record = ProducerRecord::keyed(format!("k{key}"), value);
            // The last round deletes some.
            record.value = record.value.filter(|_| round < 39 || key % 5 != 0);
            sent.push(topic.send(record).await?);
        }
        sent.push(topic.send(ProducerRecord::keyed(format!("once{round}"), "kept")).await?);
        for delivery in sent {
            delivery.await?;
        }
    }
    wait_until("the topic is compacted", async || {
        let records = all(client, "keyed", 0).await?;
        let end = client.offset_of("keyed", 0, StartPosition::End).await?;
        anyhow::ensure!((records.len() as u64) < end / 2, "{} of {end}", records.len());
        Ok(())
    })
    .await
}

/// All records of a partition.
async fn all(client: &Client, topic: &str, partition: u32) -> anyhow::Result<Vec<Record>> {
    let mut next = client.offset_of(topic, partition, StartPosition::Start).await?;
    let mut records = Vec::new();
    loop {
        let batch = client.fetch(topic, partition, next, 1 << 20, Duration::ZERO).await?;
        records.extend(batch.records);
        if batch.next_offset >= batch.high_watermark {
            return Ok(records);
        }
        next = batch.next_offset;
    }
}

async fn content(client: &Client) -> anyhow::Result<Content> {
    let mut content = Content::new();
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            let records = all(client, topic, partition).await?;
            content.insert((topic.to_owned(), partition), records);
        }
    }
    Ok(content)
}

/// As they are restored: in the same order, numbered from 0.
fn renumbered(content: &Content) -> Content {
    let renumber = |records: &Vec<Record>| {
        let records = (0..).zip(records);
        records.map(|(offset, record)| Record { offset, ..record.clone() }).collect()
    };
    content.iter().map(|(place, records)| (place.clone(), renumber(records))).collect()
}

/// In the middle of batches, in a gap, at the end, and before the first record there is.
fn offsets(content: &Content) -> Vec<v1::OffsetCommit> {
    let at = |topic: &str, partition, offset| v1::OffsetCommit {
        topic: topic.to_owned(),
        partition,
        offset,
        metadata: format!("{topic} so far"),
        ..Default::default()
    };
    let records = |topic: &str, partition| &content[&(topic.to_owned(), partition)];
    let gap = records("keyed", 0).windows(2).find(|pair| pair[1].offset > pair[0].offset + 1);
    let gap = gap.expect("compaction has left gaps")[0].offset + 1;
    let end = records("mixed", 2).last().expect("records").offset + 1;
    vec![at("mixed", 0, 100), at("mixed", 1, 3), at("mixed", 2, end), at("keyed", 0, gap)]
}

async fn fill(cluster: &Cluster, client: &Client) -> anyhow::Result<()> {
    let kept = ("retention.ms", "315360000000");
    cluster.create_topic("mixed", 3, &[kept, ("min.insync.replicas", "1")]).await?;
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.bytes", "8192"),
        ("min.cleanable.dirty.ratio", "0"),
    ];
    cluster.create_topic("keyed", 1, &compacted).await?;
    cluster.create_topic("stamped", 1, &[("message.timestamp.type", "LogAppendTime")]).await?;
    cluster.create_topic("left-out", 1, &[]).await?;
    fill_mixed(client).await?;
    // In the middle of a batch.
    client.admin().delete_records("mixed", 1, Some(7)).await?;
    fill_keyed(client).await?;
    for topic in ["stamped", "left-out"] {
        succeeded(ottla(cluster, &["produce", topic], b"one\ntwo\n")?)?;
    }
    let option = ["cluster", "config", "--set", "segment.ms=604799999"];
    succeeded(ottla(cluster, &option, b"")?)?;
    // Nothing is to change any more while it is compared.
    let lag = ["topic", "alter", "keyed", "--config", "min.compaction.lag.ms=3600000"];
    succeeded(ottla(cluster, &lag, b"")?).map(drop)
}

fn json(output: Output) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&succeeded(output)?)?)
}

/// What the command says of its failure.
fn refused(output: Output) -> anyhow::Result<String> {
    anyhow::ensure!(!output.status.success(), "it was not refused");
    Ok(String::from_utf8(output.stderr)?)
}

fn path(dir: &Path) -> &str {
    dir.to_str().expect("a path of text")
}

/// A backup, made while nothing changed, and what the topics held.
async fn backed_up(
    cluster: &Cluster,
    client: &Client,
    into: &Path,
) -> anyhow::Result<(PathBuf, Content)> {
    let (mut made, mut tries) = (None, 0);
    wait_until("cleaners are at rest during a backup", async || {
        tries += 1;
        let dir = into.join(tries.to_string());
        let before = content(client).await?;
        client.admin().commit_offsets("billing", offsets(&before)).await?;
        let create = [
            "backup",
            "create",
            path(&dir),
            "--format",
            "json",
            "--topic",
            "mixed|keyed",
            "--topic",
        ];
        let told = json(ottla(cluster, &[&create[..], &["stamp.*"]].concat(), b"")?)?;
        let names: BTreeSet<&str> = told["topics"]
            .as_array()
            .context("topics")?
            .iter()
            .flat_map(|t| t["name"].as_str())
            .collect();
        assert_eq!(names, BTreeSet::from(["keyed", "mixed", "stamped"]), "{told}");
        assert_eq!(told["groups"], json!(["billing"]));
        anyhow::ensure!(content(client).await? == before, "something was compacted");
        made = Some((dir, before));
        Ok(())
    })
    .await?;
    made.context("a backup")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_comes_back_in_another_cluster() -> anyhow::Result<()> {
    let mut first = Cluster::start_patient_with(3, CLEANS).await?;
    let from = client(&first).await?;
    fill(&first, &from).await?;
    // A backup does not need every node.
    let leader = first.leader("mixed", 0).await?;
    first.node(leader).kill()?;
    first.leader("mixed", 0).await?;
    let dir = tempfile::tempdir()?;
    let (backup, content_then) = backed_up(&first, &from, dir.path()).await?;
    let told = refused(ottla(&first, &["backup", "create", path(&backup)], b"")?)?;
    assert!(told.contains("is not empty"), "{told}");

    let second = Cluster::start_patient_with(1, RESTS).await?;
    let into = client(&second).await?;
    damage(&second, &backup)?;
    let restore = |more: &[&str]| {
        let args = ["backup", "restore", path(&backup), "--replication-factor", "1"];
        ottla(&second, &[&args, more].concat(), b"")
    };
    let planned = json(restore(&["--dry-run", "--format", "json"])?)?;
    assert_eq!(planned["restored"], false);
    assert_eq!(
        json(ottla(&second, &["topic", "list", "--format", "json"], b"")?)?["topics"],
        json!([])
    );
    let done = json(restore(&["--cluster-options", "--format", "json"])?)?;
    assert_eq!(done["groups"], planned["groups"], "a dry run says what will be");

    assert_eq!(content(&into).await?, renumbered(&content_then));
    for (topic, _) in TOPICS {
        assert_eq!(set_on(&second, topic)?, set_on(&first, topic)?, "options of {topic}");
    }
    let options = json(ottla(&second, &["cluster", "config", "--format", "json"], b"")?)?;
    assert_eq!(options["options"]["segment.ms"]["value"], "604799999");
    goes_on(&second, &from, &into, &content_then).await?;
    let told = refused(restore(&[])?)?;
    assert!(told.contains("has these topics already: keyed, mixed, stamped"), "{told}");
    Ok(())
}

/// A flipped bit is found and named, and nothing of such a backup is restored.
fn damage(cluster: &Cluster, backup: &Path) -> anyhow::Result<()> {
    let verify = ["backup", "verify", path(backup), "--format", "json"];
    assert_eq!(json(ottla(cluster, &verify, b"")?)?["clean"], true);
    let file = backup.join("topics/mixed/2/00000000000000000000.log");
    let good = std::fs::read(&file)?;
    flip_a_bit(&file, 70 << 16)?;
    let output = ottla(cluster, &verify, b"")?;
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(told["damages"][0]["path"].as_str(), file.to_str(), "{told}");
    assert_eq!((&told["damages"][0]["position"], &told["clean"]), (&0.into(), &false.into()));
    let restore = ["backup", "restore", path(backup), "--replication-factor", "1"];
    let refusal = refused(ottla(cluster, &restore, b"")?)?;
    assert!(refusal.contains("1 problems"), "{refusal}");
    std::fs::write(&file, good)?;
    let manifest = backup.join("manifest.json");
    let away = backup.join("manifest.away");
    std::fs::rename(&manifest, &away)?;
    let output = ottla(cluster, &verify, b"")?;
    assert_eq!(output.status.code(), Some(2), "without a manifest it is no backup");
    Ok(std::fs::rename(&away, &manifest)?)
}

/// Options set on the topic, by name.
fn set_on(cluster: &Cluster, topic: &str) -> anyhow::Result<Value> {
    let described = json(ottla(cluster, &["topic", "describe", topic, "--format", "json"], b"")?)?;
    Ok(described["configs"].clone())
}

/// The group reads next what it would have read next, with what it had noted.
async fn goes_on(
    second: &Cluster,
    from: &Client,
    into: &Client,
    content_then: &Content,
) -> anyhow::Result<()> {
    let was = from.admin().describe_group("billing").await?.offsets;
    let is = into.admin().describe_group("billing").await?.offsets;
    assert_eq!((was.len(), is.len()), (4, 4));
    for was in was {
        let place = (was.topic.clone(), was.partition);
        let is = is.iter().find(|is| (&is.topic, is.partition) == (&place.0, place.1));
        let is = is.with_context(|| format!("{place:?}"))?;
        assert_eq!(is.metadata, was.metadata);
        let rest = content_then[&place].iter().filter(|record| record.offset >= was.offset);
        let rest: Vec<_> = rest.map(|r| (&r.key, &r.value, r.timestamp_ms)).collect();
        let found = all(into, &place.0, place.1).await?;
        let found = found.iter().filter(|record| record.offset >= is.offset);
        let found: Vec<_> = found.map(|r| (&r.key, &r.value, r.timestamp_ms)).collect();
        assert_eq!(found, rest, "{place:?}: was at {}, is at {}", was.offset, is.offset);
    }
    // And a member of it does.
    let rest = content_then[&("keyed".to_owned(), 0)].len()
        - is.iter().find(|is| is.topic == "keyed").context("keyed")?.offset as usize;
    let consume = ["consume", "keyed", "--group", "billing", "--until", "end", "--format", "json"];
    let printed = succeeded(ottla(second, &consume, b"")?)?;
    assert_eq!(printed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count(), rest);
    Ok(())
}
