//! What the application's handle and the tasks behind it share.

use super::batch::Credit;
use super::commits::Asked;
use super::member::Command;
use super::options::ConsumerOptions;
use super::shelf::{Held, Shelf};
use super::types::TopicPartition;
use super::{feed, shelf};
use crate::{Client, StartPosition};
use ottla_proto::PartitionId;
use parking_lot::Mutex;
use std::sync::Arc;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::Instant;

/// Where a reader begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begin {
    pub(super) at: StartPosition,
    /// What the group had committed, if it had.
    pub(super) committed: Option<u64>,
}

/// How the application is doing.
#[derive(Debug)]
pub(super) struct Presence {
    /// Calls for records that wait.
    pub(super) waiting: usize,
    /// When the last one ended.
    pub(super) last: Instant,
    /// It was given up.
    pub(super) absent: bool,
}

pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) options: ConsumerOptions,
    pub(super) group: Option<Arc<str>>,
    pub(super) shelf: Mutex<Shelf>,
    /// Something is on the shelf, or may be handed out again.
    pub(super) news: Notify,
    pub(super) presence: Mutex<Presence>,
    /// How far each partition may be ahead.
    window: watch::Sender<Credit>,
    /// In a group: until when records may be handed out.
    pub(super) lease: watch::Sender<Option<Instant>>,
    /// In a group: the member's epoch, while it is one.
    pub(super) epoch: watch::Sender<Option<u32>>,
    pub(super) member_id: String,
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) commits: mpsc::Sender<Asked>,
    /// Nothing more is handed out.
    pub(super) closed: watch::Sender<bool>,
}

impl Shared {
    #[allow(clippy::too_many_arguments)] // made in one place
    pub(super) fn new(
        client: Client,
        options: ConsumerOptions,
        group: Option<Arc<str>>,
        member_id: String,
        is_member: bool,
        commands: mpsc::Sender<Command>,
        commits: mpsc::Sender<Asked>,
    ) -> Self {
        let now = Instant::now();
        let window = watch::Sender::new(options.window(1));
        Self {
            client,
            options,
            group,
            shelf: Mutex::default(),
            news: Notify::new(),
            presence: Mutex::new(Presence { waiting: 0, last: now, absent: false }),
            window,
            lease: watch::Sender::new(is_member.then_some(now)),
            epoch: watch::Sender::new(None),
            member_id,
            commands,
            commits,
            closed: watch::Sender::new(false),
        }
    }

    /// Whether records may be handed out at this moment, or until when to wait for that.
    pub(super) fn may_hand_out(&self) -> bool {
        self.lease.borrow().is_none_or(|until| Instant::now() < until)
    }

    pub(super) fn add(&self, partition: TopicPartition, id: Option<PartitionId>) -> Held {
        let held = self.shelf.lock().add(partition, id);
        self.share_window();
        held
    }

    pub(super) fn remove(&self, held: &[Held]) -> Vec<PartitionId> {
        let ids = self.shelf.lock().remove(held);
        self.share_window();
        ids
    }

    pub(super) fn share_window(&self) {
        let window = self.options.window(self.shelf.lock().held().len());
        self.window.send_if_modified(|now| std::mem::replace(now, window) != window);
    }

    /// Begins to read, unless the partition is not held any more.
    pub(super) fn begin(self: &Arc<Self>, held: &Held, begin: Begin) {
        let known = match begin.at {
            StartPosition::Offset(offset) => Some(offset),
            _ => None,
        };
        let begun = self.shelf.lock().begin(held, known, begin.committed);
        let Some((number, topic_id, credits)) = begun else { return };
        let feed = feed::Feed {
            shared: Arc::downgrade(self),
            client: self.client.clone(),
            held: held.clone(),
            number,
            topic_id,
            credits,
            window: self.window.subscribe(),
        };
        let task = tokio::spawn(feed.run(begin.at));
        self.shelf.lock().reads(held, number, task.abort_handle());
    }

    pub(super) fn tell(&self, what: impl FnOnce(&mut shelf::Shelf)) {
        what(&mut self.shelf.lock());
        self.news.notify_one();
    }
}
