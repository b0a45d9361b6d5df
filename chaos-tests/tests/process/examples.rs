//! The examples of the client library do what they say.

use anyhow::Context as _;
use ottla_chaos::process::Cluster;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::time::timeout;

/// None takes longer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

async fn run(cluster: &Cluster, example: &'static str) -> anyhow::Result<String> {
    let built = tokio::task::spawn_blocking(move || {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
        let build = escargot::CargoBuild::new().arg("--workspace").example(example);
        let build = build.manifest_path(manifest);
        let build = if cfg!(debug_assertions) { build } else { build.release() };
        build.run().map(|run| run.path().to_owned())
    })
    .await??;
    let child = Command::new(built)
        .env("OTTLA_BOOTSTRAP", cluster.bootstrap().join(","))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let output = timeout(PATIENCE, child.wait_with_output()).await.context(example)??;
    let told = String::from_utf8_lossy(&output.stderr);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    anyhow::ensure!(output.status.success(), "{example}: {shown}{told}");
    Ok(shown)
}

/// Views in time, and late ones.
fn counted(views: &str) -> anyhow::Result<(u64, u64)> {
    let line = views.lines().find_map(|line| line.strip_prefix("counted "));
    let (counted, late) = line.and_then(|line| line.split_once(", late ")).context("no counts")?;
    Ok((counted.parse()?, late.parse()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_do_what_they_say() -> anyhow::Result<()> {
    let cluster = Cluster::start_patient(3).await?;
    let orders = run(&cluster, "order_processing").await?;
    // At least once: a member that comes while another reads may see some again.
    assert!(orders.contains("shipped 300"), "{orders}");
    let accounts = run(&cluster, "event_sourcing").await?;
    assert_eq!(accounts.lines().count(), 7, "{accounts}");
    let views = run(&cluster, "analytics").await?;
    // Six views were long on their way. How many of them come too late depends on which
    // partition is read first; none of the others ever does.
    let (counted, late) = counted(&views)?;
    assert!(counted + late == 600 && late <= 6, "{views}");
    let notifications = run(&cluster, "notifications").await?;
    for line in ["sent 29, one is a dead letter", "replayed 1, sent 30", "the service says 30"] {
        assert!(notifications.contains(line), "{notifications}");
    }
    assert!(notifications.contains("the mailbox is full"), "{notifications}");
    Ok(())
}
