//! From metadata images to local partitions: who is to be here, and what each
//! has to know.

use crate::core::{Durability, Member, Millis, View};
use crate::env::Env;
use crate::log_config::log_config;
use crate::partition::{Partition, Start};
use ottla_commitlog::data_dir::{Place, Wanted};
use ottla_host::blocking;
use ottla_metadata::image::{self, Delta, Image, Topic};
use ottla_metadata::records;
use ottla_proto::{NodeId, PartitionId, TopicId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Follows the metadata until the node stops.
pub(crate) async fn run(env: Arc<Env>, on_disk: Vec<PartitionId>) {
    let stop = env.stop.clone();
    stop.run_until_cancelled(follow_images(&env, on_disk)).await;
}

async fn follow_images(env: &Arc<Env>, on_disk: Vec<PartitionId>) {
    let epoch = env.cluster.registered().await;
    env.broker_epoch.set(epoch).expect("set here, once");
    let mut images = env.cluster.images();
    let registered = |image: &Arc<Image>| {
        image.brokers.get(&env.node_id).is_some_and(|broker| broker.epoch >= epoch)
    };
    // An image that holds this registration is newer than every topic of which
    // there can be anything on this disk. An older one knows too little to
    // delete by it (KAFKA-13127, KAFKA-14616), or to lead by it.
    let Ok(first) = images.wait_for(registered).await.map(|image| Arc::clone(&image)) else {
        return;
    };
    remove_strays(env, &first, on_disk).await;
    let mut limits = env.limits.subscribe();
    let mut handled = Arc::new(Image::default());
    let mut next = first;
    let mut waiting = BTreeSet::new();
    loop {
        if next.offset >= handled.offset {
            waiting = apply(env, &handled, &next, waiting).await;
            env.images.send_replace(Arc::clone(&next));
            handled = next;
        }
        tokio::select! {
            changed = images.changed() => if changed.is_err() { return },
            () = env.leaving.changed() => {}
            // The sender lives as long as this task.
            _ = limits.changed() => {
                let all: Vec<PartitionId> = env.partitions.read().keys().copied().collect();
                all.into_iter().for_each(|id| settle(env, &handled, id, None));
            }
        }
        next = Arc::clone(&images.borrow_and_update());
    }
}

async fn remove_strays(env: &Env, image: &Image, on_disk: Vec<PartitionId>) {
    for id in on_disk.into_iter().filter(|id| !is_here(env, image, *id)) {
        tracing::info!(partition = %id, "removing a log that is not this node's any more");
        let data_dirs = Arc::clone(&env.data_dirs);
        match blocking(move || data_dirs.delete_partition(id)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(partition = %id, %error, "stray log stays"),
            Err(error) => tracing::error!(partition = %id, %error, "stray log stays"),
        }
    }
}

fn is_here(env: &Env, image: &Image, id: PartitionId) -> bool {
    image.partitions.get(&id).is_some_and(|partition| partition.replicas.contains(&env.node_id))
}

/// Brings the local partitions from one image to the next, and those that waited for
/// it. Nothing here waits but for new ones to be given a place: partitions take their
/// view when they get to it. Returns those that are to come back and whose old log is
/// still being deleted.
async fn apply(
    env: &Arc<Env>,
    before: &Image,
    after: &Image,
    waiting: BTreeSet<PartitionId>,
) -> BTreeSet<PartitionId> {
    let delta = Delta::between(before, after);
    let mut touched = waiting;
    touched.extend(delta.partitions.iter().map(|change| change.key));
    for change in &delta.offline_replicas {
        let lists = [&change.before, &change.after];
        touched.extend(lists.into_iter().flatten().flat_map(|list| list.iter().copied()));
    }
    let brokers: BTreeSet<NodeId> = delta.brokers.iter().map(|change| change.key).collect();
    let topics: BTreeSet<TopicId> = delta.topics.iter().map(|change| change.key).collect();
    if !brokers.is_empty() || !topics.is_empty() {
        for id in env.partitions.read().keys() {
            let concerned = topics.contains(&id.topic)
                || after.partitions.get(id).is_some_and(|partition| {
                    partition.replicas.iter().any(|n| brokers.contains(n))
                });
            if concerned {
                touched.insert(*id);
            }
        }
    }
    let comes_back = |id: &PartitionId| is_here(env, after, *id) && env.leaving.contains(*id);
    let waiting: BTreeSet<PartitionId> = touched.extract_if(.., comes_back).collect();
    // The first image names what may have been here before.
    let at_start = !env.opening.progress().borrow().known;
    let new: Vec<PartitionId> = touched
        .iter()
        .copied()
        .filter(|id| is_here(env, after, *id) && env.partition(*id).is_none())
        .collect();
    if at_start {
        env.opening.expect(new.len());
    }
    let mut places = locate(env, after, new, at_start).await;
    for id in touched {
        let place = places.remove(&id).map(|place| Start { place, at_start });
        settle(env, after, id, place);
    }
    waiting
}

/// Where the logs of partitions that are new to this process lie.
async fn locate(
    env: &Env,
    image: &Image,
    new: Vec<PartitionId>,
    may_be_old: bool,
) -> BTreeMap<PartitionId, Result<Place, String>> {
    if new.is_empty() {
        return BTreeMap::new();
    }
    let wanted: Vec<Wanted> = new
        .iter()
        .map(|&partition| {
            let isr = image.partitions.get(&partition).map(|partition| &partition.isr[..]);
            Wanted { partition, may_be_old, sole_copy: isr == Some(&[env.node_id]) }
        })
        .collect();
    let data_dirs = Arc::clone(&env.data_dirs);
    let places = match blocking(move || data_dirs.locate(&wanted)).await {
        Ok(places) => places,
        Err(lost) => new.iter().map(|_| Err(lost.to_string())).collect(),
    };
    new.into_iter().zip(places).collect()
}

fn settle(env: &Arc<Env>, image: &Image, id: PartitionId, start: Option<Start>) {
    let wanted = image
        .topics
        .get(&id.topic)
        .zip(image.partitions.get(&id))
        .filter(|(_, partition)| partition.replicas.contains(&env.node_id));
    let Some((topic, partition)) = wanted else {
        if let Some(gone) = env.partitions.write().remove(&id) {
            env.leaving.begin(id);
            gone.delete();
        }
        return;
    };
    let view = view(image, topic, id, partition, lag_max(env));
    let config = log_config(&topic.config);
    if let Some(known) = env.partition(id) {
        known.configure(config);
        known.set_adding(partition.adding());
        known.set_view(view);
        return;
    }
    let start = start.expect("a place was asked for each that was not here");
    let started = Partition::start(env, id, view, config, start);
    started.set_adding(partition.adding());
    env.partitions.write().insert(id, started);
}

fn lag_max(env: &Env) -> Millis {
    Millis::try_from(env.limits().replica_lag_max.as_millis()).unwrap_or(Millis::MAX)
}

pub(crate) fn view(
    image: &Image,
    topic: &Topic,
    id: PartitionId,
    partition: &image::Partition,
    lag_max: Millis,
) -> View {
    let member = |node: &NodeId| {
        let broker = image.brokers.get(node);
        Member {
            node: *node,
            broker_epoch: broker.map(|broker| broker.epoch),
            eligible: image.can_serve(*node, id),
        }
    };
    View {
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.iter().map(member).collect(),
        isr: partition.isr.iter().copied().collect(),
        recovering: partition.recovering,
        min_isr: topic.config.effective_min_isr(partition.replication_factor()),
        durability: match topic.config.durability {
            records::Durability::Disk => Durability::Disk,
            records::Durability::Memory => Durability::Memory,
        },
        lag_max,
    }
}
