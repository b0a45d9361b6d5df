//! The task of a member of a group: carries out what [`Membership`] decides.

use super::begin::{begin, ids, listed};
use super::commits::Asked;
use super::coordinator::CoordinatorLink;
use super::membership::{
    Beat, Departure, Effect, End, Event, Membership, Millis, Partitions, Refused, Subscription,
    Told,
};
use super::shared::Shared;
use super::shelf::Held;
use super::types::{ConsumerError, ConsumerEvent, TopicPartition};
use crate::ClientError;
use crate::backoff::Backoff;
use futures::FutureExt;
use futures::future::BoxFuture;
use ottla_proto::v1::{self, ErrorReason as R, heartbeat_request};
use ottla_proto::{PartitionId, TopicId};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What the application and the task that commits have to say; both wait for room.
pub(super) const COMMANDS_WAITING: usize = 64;

/// Session of a coordinator that does not say: its default.
const DEFAULT_SESSION: Duration = Duration::from_secs(10);

/// Wait for the name of a static member that another still has.
const NAME_AGAIN: Duration = Duration::from_millis(500);

/// How long a member that goes may take to say so.
const LEAVE_PATIENCE: Duration = Duration::from_secs(10);

/// What the task is told.
pub(super) enum Command {
    /// These are not read any more.
    Released(Vec<PartitionId>),
    /// Something else is wanted.
    Subscribe(Subscription),
    /// The application asks for records again.
    Present,
    /// The application goes.
    Leave,
}

/// What a heartbeat says that does not change.
pub(super) struct Identity {
    pub(super) group: Arc<str>,
    pub(super) member_id: String,
}

type Answer = Result<v1::HeartbeatResponse, ClientError>;

pub(super) struct MemberTask {
    shared: Arc<Shared>,
    link: CoordinatorLink,
    identity: Identity,
    core: Membership,
    commands: mpsc::Receiver<Command>,
    names: HashMap<TopicId, Arc<str>>,
    /// Partitions whose offsets are being asked for.
    starts: JoinSet<()>,
    beat: Option<BoxFuture<'static, Answer>>,
    /// Of the last heartbeat: one that was given up and comes later is not believed.
    sequence: u64,
    backoff: Backoff,
    begun: Instant,
    /// Why the coordinator refused last.
    refusal: Option<ClientError>,
    leaving: Option<Instant>,
}

impl MemberTask {
    pub(super) fn new(
        shared: Arc<Shared>,
        link: CoordinatorLink,
        identity: Identity,
        subscription: Subscription,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let is_static = shared.options.instance_id.is_some();
        Self {
            shared,
            link,
            identity,
            core: Membership::new(subscription, is_static, 0),
            commands,
            names: HashMap::new(),
            starts: JoinSet::new(),
            beat: None,
            sequence: 0,
            backoff: Backoff::default(),
            begun: Instant::now(),
            refusal: None,
            leaving: None,
        }
    }

    /// Until it has left, or the group does not want it.
    pub(super) async fn run(mut self) {
        let mut event = Event::Time;
        loop {
            let effects = self.core.on(event, self.now());
            let lease = self.begun + Duration::from_millis(self.core.lease());
            self.shared.lease.send_replace(Some(lease));
            self.shared.epoch.send_replace(self.core.epoch());
            self.shared.news.notify_one();
            for effect in effects {
                if self.carry_out(effect).await {
                    return self.end();
                }
            }
            event = match self.next().await {
                Some(event) => event,
                None => return self.end(),
            };
        }
    }

    fn end(self) {
        let held = self.shared.shelf.lock().held();
        self.shared.remove(&held);
        self.shared.epoch.send_replace(None);
        self.shared.closed.send_replace(true);
        self.shared.news.notify_one();
    }

    fn now(&self) -> Millis {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What happens next; `None` when it has waited for long enough to leave.
    async fn next(&mut self) -> Option<Event> {
        loop {
            let deadline = self.core.next_deadline();
            let deadline = deadline.map(|at| self.begun + Duration::from_millis(at));
            let absent = self.absent_at();
            let at = |at: Option<Instant>| async move {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command? {
                    Command::Released(ids) => return Some(Event::Released(ids.into_iter().collect())),
                    Command::Subscribe(subscription) => return Some(Event::Subscribe(subscription)),
                    Command::Present => return Some(Event::Present),
                    Command::Leave => {
                        self.leaving = Some(Instant::now() + LEAVE_PATIENCE);
                        return Some(Event::Leave);
                    }
                },
                answer = async { self.beat.as_mut().expect("guarded").await },
                    if self.beat.is_some() => {
                    self.beat = None;
                    return Some(self.heard(answer));
                }
                Some(_) = self.starts.join_next() => {}
                () = at(deadline) => return Some(Event::Time),
                () = at(self.leaving) => return None,
                () = at(absent) => if self.gives_up_waiting() {
                    return Some(Event::Absent);
                },
            }
        }
    }

    /// When the application will have asked for nothing for too long.
    fn absent_at(&self) -> Option<Instant> {
        let presence = self.shared.presence.lock();
        let is_here = presence.waiting > 0 || presence.absent || self.leaving.is_some();
        let limit = self.shared.options.max_poll_interval;
        // Who is waiting now is looked at again later.
        Some(if is_here { Instant::now() + limit } else { presence.last + limit })
    }

    fn gives_up_waiting(&self) -> bool {
        let limit = self.shared.options.max_poll_interval;
        let mut presence = self.shared.presence.lock();
        let is_absent =
            presence.waiting == 0 && !presence.absent && presence.last.elapsed() >= limit;
        presence.absent |= is_absent;
        if is_absent {
            tracing::warn!(group = %self.identity.group, "records are not asked for: leaving");
        }
        is_absent
    }

    fn heard(&mut self, answer: Answer) -> Event {
        let error = match answer {
            Ok(answer) => {
                self.backoff = Backoff::default();
                return Event::Told(self.told(answer));
            }
            Err(error) => error,
        };
        let group = &self.identity.group;
        tracing::debug!(%group, %error, "no answer to a heartbeat");
        let wait = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let refused = match error.reason() {
            Some(R::UnknownMember | R::FencedMemberEpoch | R::UnknownGroup) => {
                tracing::info!(%group, %error, "put out, joining again");
                Event::Refused(Refused::PutOut, 0)
            }
            Some(R::UnreleasedInstance) => Event::Refused(Refused::NameTaken, wait(NAME_AGAIN)),
            _ if error.is_retriable() || matches!(error, ClientError::DeadlineExceeded { .. }) => {
                let pause = self.backoff.next().max(error.retry_after().unwrap_or_default());
                return Event::Lost { wait: wait(pause) };
            }
            _ => Event::Refused(Refused::ForGood, 0),
        };
        self.refusal = Some(error);
        refused
    }

    fn told(&mut self, answer: v1::HeartbeatResponse) -> Told {
        let assigned = answer.assignment.map(|assignment| {
            for listed in &assignment.topics {
                let Some(topic) = TopicId::from_wire(&listed.topic_id) else { continue };
                self.names.insert(topic, listed.topic.as_str().into());
            }
            ids(&assignment.topics).collect()
        });
        let session = match answer.session_timeout_ms {
            0 => DEFAULT_SESSION.as_secs() * 1_000,
            ms => ms.into(),
        };
        let interval = answer.heartbeat_interval_ms.into();
        Told { epoch: answer.member_epoch, interval, session, assigned }
    }

    /// True: it is over.
    async fn carry_out(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Send(beat) => {
                self.sequence += 1;
                let (link, request) = (self.link.clone(), self.request(beat));
                self.beat = Some(async move { link.heartbeat(request).await }.boxed());
            }
            Effect::Start(ids) => self.start(&ids),
            Effect::Stop(ids) => {
                let ids: Vec<PartitionId> = ids.into_iter().collect();
                // Who has gone, or is not asked, is not waited for.
                let (free, held) = self.shared.shelf.lock().stop(&ids, self.leaving.is_some());
                self.shared.news.notify_one();
                if !held.is_empty() {
                    self.shared.give_back(held);
                }
                self.released(free);
            }
            Effect::Lose(ids) => {
                let ids: Vec<PartitionId> = ids.into_iter().collect();
                self.shared.tell(|shelf| shelf.lose(&ids));
                self.shared.share_window();
                self.released(ids);
            }
            Effect::Ended(End::Left) => return true,
            Effect::Ended(End::Refused) => {
                let group = self.identity.group.to_string();
                let error = self.refusal.take().unwrap_or(ClientError::Closed);
                self.shared.tell(|shelf| shelf.error(ConsumerError::Group { group, error }));
                return true;
            }
        }
        false
    }

    /// Heard of with the next event.
    fn released(&mut self, ids: Vec<PartitionId>) {
        if ids.is_empty() {
            return;
        }
        let commands = self.shared.commands.clone();
        self.starts.spawn(async move {
            // Fails when the member is gone.
            let _ = commands.send(Command::Released(ids)).await;
        });
    }

    /// They are held from now on; where they begin the coordinator is asked.
    fn start(&mut self, ids: &Partitions) {
        let mut begins = BTreeMap::new();
        for id in ids {
            // A topic that went in this moment has no name: it will be taken away.
            let Some(name) = self.names.get(&id.topic).filter(|name| !name.is_empty()) else {
                continue;
            };
            let partition = TopicPartition::new(Arc::clone(name), id.index);
            begins.insert(*id, self.shared.add(partition, Some(*id)));
        }
        let partitions = begins.values().map(|held| held.partition.clone()).collect();
        self.shared.tell(|shelf| shelf.event(ConsumerEvent::Assigned(partitions)));
        self.starts.spawn(begin(Arc::clone(&self.shared), self.link.clone(), begins));
    }

    fn request(&self, beat: Beat) -> v1::HeartbeatRequest {
        let (options, joins) = (&self.shared.options, beat.epoch == 0);
        let departure = beat.departure.map(|departure| match departure {
            Departure::Leave => heartbeat_request::Departure::Leave(true),
            Departure::Pause => heartbeat_request::Departure::Pause(true),
        });
        let patience = options.max_poll_interval.as_millis();
        v1::HeartbeatRequest {
            group: self.identity.group.to_string(),
            member_id: self.identity.member_id.clone(),
            member_epoch: beat.epoch,
            instance_id: options.instance_id.clone(),
            rack: options.rack.clone(),
            rebalance_timeout_ms: u32::try_from(patience).unwrap_or(u32::MAX).max(1),
            subscription: beat
                .subscription
                .map(|wanted| v1::Subscription { topics: wanted.topics, pattern: wanted.pattern }),
            assignor: options.assignor.clone().filter(|_| joins),
            owned: beat.held.map(|held| v1::OwnedPartitions { topics: listed(&held) }),
            client_id: options.client_id.clone(),
            departure,
            sequence: self.sequence,
        }
    }
}

impl Shared {
    /// The application knows: these are given back.
    pub(super) fn give_back(self: &Arc<Self>, held: Vec<Held>) {
        let commits = self.commits.clone();
        tokio::spawn(async move {
            // Fails when the consumer is gone, and with it what it held.
            let _ = commits.send(Asked::Release(held)).await;
        });
    }
}
