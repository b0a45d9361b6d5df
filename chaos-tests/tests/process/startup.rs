//! Starting a node where it must not start: each refusal says why.

use ottla_chaos::process::{Cluster, binary, wait_until};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

fn run_node(config: &Path, flags: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(binary()?);
    command.args(["node", "--config"]).arg(config).args(flags);
    Ok(command.output()?)
}

fn refused(output: &Output, expected: &[&str]) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{stderr}");
    for text in expected {
        assert!(stderr.contains(text), "`{text}` is missing from: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[tokio::test]
async fn a_node_refuses_what_is_not_its_own() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(1).await?;
    let config = cluster.nodes()[0].config_file();

    // Its port is in use: by itself, as a user's second start.
    refused(&run_node(&config, &[])?, &["cannot bind", &cluster.nodes()[0].address()]);

    cluster.node(1).stop()?;
    // A data directory of another cluster, and of another node.
    refused(&run_node(&config, &["--cluster-id", "other"])?, &["process-test", "other"]);

    // A directory that was never formatted.
    let blank = cluster.dir().join("blank");
    std::fs::create_dir(&blank)?;
    let blank = blank.to_str().expect("UTF-8");
    refused(&run_node(&config, &["--data-dir", blank])?, &["format"]);

    // A port in use by something else.
    let other = TcpListener::bind("127.0.0.1:0")?;
    let address = other.local_addr()?.to_string();
    refused(&run_node(&config, &["--listen", &address])?, &["cannot bind", &address]);

    // After all that its own directory still serves.
    cluster.node(1).start()?;
    cluster.wait_healthy().await
}

/// A voter whose disk was replaced by a blank one could vote twice in one term:
/// it is refused, and the others go on.
#[tokio::test]
async fn a_blank_disk_of_a_known_voter_is_refused() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(3).await?;
    let node = cluster.node(2);
    node.kill()?;
    std::fs::remove_dir_all(node.data_dir())?;
    node.format()?;
    refused(&run_node(&node.config_file(), &[])?, &["BLANK_DISK_OF_KNOWN_VOTER"]);
    wait_until("the two others have a controller and take a topic", async || {
        cluster.create_topic("after", 1, &[]).await.map(drop).or_else(|error| {
            // Three replicas are not to be had; the refusal is the controller's.
            if format!("{error:?}").contains("INVALID_REPLICATION_FACTOR") {
                Ok(())
            } else {
                Err(error)
            }
        })
    })
    .await
}

/// A further data directory: added by formatting again, used, and missed without
/// keeping the node from serving what lies elsewhere.
#[tokio::test]
async fn a_further_data_directory_may_be_missing() -> anyhow::Result<()> {
    let mut cluster = Cluster::start_patient(1).await?;
    let extra = cluster.dir().join("extra");
    let node = cluster.node(1);
    node.stop()?;
    let config = std::fs::read_to_string(node.config_file())?;
    std::fs::write(node.config_file(), format!("extra_data_dirs = [{extra:?}]\n{config}"))?;
    node.format()?;
    node.start()?;
    cluster.wait_healthy().await?;
    let topic = cluster.create_topic("spread", 4, &[]).await?;
    let index_of = |dir: &Path| -> anyhow::Result<Vec<String>> {
        let names = std::fs::read_dir(dir.join("partitions"))?;
        let names = names.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    };
    let main = cluster.nodes()[0].data_dir();
    wait_until("both directories hold two partitions", async || {
        let held = (index_of(&main)?.len(), index_of(&extra)?.len());
        anyhow::ensure!(held == (2, 2), "{held:?}");
        Ok(())
    })
    .await?;

    let node = cluster.node(1);
    node.stop()?;
    std::fs::rename(&extra, extra.with_extension("aside"))?;
    node.start()?;
    wait_until("the node serves one half and says that it cannot serve the other", async || {
        let partitions = cluster.describe("spread").await?.partitions;
        let led = partitions.iter().filter(|partition| partition.leader_id.is_some()).count();
        anyhow::ensure!(led == 2, "{partitions:?}");
        Ok(())
    })
    .await?;
    let log = cluster.nodes()[0].log()?;
    assert!(log.contains("data directory is offline"), "{log}");
    assert!(!extra.exists(), "nothing is begun anew");
    let bootstrap = cluster.nodes()[0].address();
    let health = ["cluster", "health", "--bootstrap", &bootstrap];
    let health = Command::new(binary()?).args(health).output()?;
    let shown = String::from_utf8_lossy(&health.stdout);
    let expected = format!("node 1: data directory {} is offline", extra.display());
    assert!(shown.contains(&expected), "{shown}");

    let node = cluster.node(1);
    node.stop()?;
    std::fs::rename(extra.with_extension("aside"), &extra)?;
    node.start()?;
    cluster.wait_healthy().await?;
    assert_eq!(topic.partitions.len(), 4);
    Ok(())
}
