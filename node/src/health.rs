//! What a node says of itself to who sends clients to it: over HTTP (`/readyz`) and as
//! `grpc.health.v1`.
//!
//! Not its job: serving either.

use crate::http;
use ottla_commitlog::data_dir::DirectoryState;
use ottla_metadata::Metadata;
use ottla_replication::{DiskStatus, Replicas, Room};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tonic_health::server::HealthReporter;

/// Whether clients should be sent here: what `/readyz` says.
pub(crate) fn readiness(
    metadata: &Metadata,
    replicas: &Replicas,
    stop: &CancellationToken,
) -> http::Readiness {
    let (broker, opening) = (metadata.broker(), replicas.opening());
    let (replicas, stop) = (replicas.clone(), stop.clone());
    Arc::new(move || {
        if stop.is_cancelled() {
            return Err("shutting down".to_owned());
        }
        let status = broker.borrow();
        match (status.epoch, status.fenced) {
            (None, _) => return Err("not registered with a controller".to_owned()),
            (Some(_), true) => return Err("fenced: not caught up with the metadata".to_owned()),
            (Some(_), false) => {}
        }
        let progress = *opening.borrow();
        if !progress.is_done() {
            return Err(format!("opening logs: {} of {} done", progress.done, progress.logs));
        }
        Ok(replicas.disks().iter().filter_map(trouble).collect())
    })
}

/// A data directory that is not as it should be, for whoever looks after the node.
fn trouble(disk: &DiskStatus) -> Option<String> {
    let path = disk.directory.path.display();
    match &disk.directory.state {
        DirectoryState::Online if disk.room == Room::Enough => None,
        DirectoryState::Online => {
            let free = disk.space.unwrap_or_default().free;
            let what = if disk.room.refuses_writes() { "too little" } else { "little" };
            Some(format!("data directory {path} has {what} room: {free} bytes"))
        }
        DirectoryState::Suspect { reason } => Some(format!("data directory {path}: {reason}")),
        DirectoryState::Offline { reason } => {
            Some(format!("data directory {path} is offline: {reason}"))
        }
    }
}

/// Keeps `grpc.health.v1` in step with the broker's standing.
pub(crate) async fn report_health(metadata: Metadata, health: HealthReporter) {
    let mut broker = metadata.broker();
    loop {
        let serving = {
            let status = broker.borrow_and_update();
            status.epoch.is_some() && !status.fenced
        };
        set_serving(&health, serving).await;
        if broker.changed().await.is_err() {
            return;
        }
    }
}

pub(crate) async fn set_serving(health: &HealthReporter, serving: bool) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let status = if serving { Serving } else { NotServing };
    health.set_service_status("", status).await;
    health.set_service_status("ottla.v1.LogService", status).await;
}
