//! The one member of a group: it joins, and is heard of as often as the coordinator says.

use super::commits::{Outcome, PATIENCE, Window};
use anyhow::{Context as _, ensure};
use ottla_proto::v1;
use ottla_proto::v1::group_service_client::GroupServiceClient;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::transport::Channel;

pub(super) struct Member {
    client: GroupServiceClient<Channel>,
    /// The next heartbeat.
    request: v1::HeartbeatRequest,
    interval: Duration,
}

impl Member {
    /// Joins, is given everything, and says that it has it.
    pub(super) async fn join(
        client: GroupServiceClient<Channel>,
        group: &str,
        topic: &str,
    ) -> anyhow::Result<Self> {
        let subscription = v1::Subscription { topics: vec![topic.to_owned()], pattern: None };
        let request = v1::HeartbeatRequest {
            group: group.to_owned(),
            member_id: format!("{group}-member"),
            subscription: Some(subscription),
            ..Default::default()
        };
        let mut member = Self { client, request, interval: Duration::ZERO };
        let answer = member.say().await?;
        member.request.subscription = None;
        let assigned = answer.assignment.context("a group of one has everything to give")?;
        ensure!(!assigned.topics.is_empty(), "it was given nothing");
        member.request.owned = Some(assigned);
        member.say().await?;
        member.request.owned = None;
        Ok(member)
    }

    /// For commits: its id, and its epoch.
    pub(super) fn who(&self) -> (String, u32) {
        (self.request.member_id.clone(), self.request.member_epoch)
    }

    async fn say(&mut self) -> Result<v1::HeartbeatResponse, tonic::Status> {
        self.request.sequence += 1;
        let answer = self.client.heartbeat(self.request.clone()).await?.into_inner();
        self.request.member_epoch = answer.member_epoch;
        self.interval = Duration::from_millis(answer.heartbeat_interval_ms.into());
        Ok(answer)
    }

    /// Until the end. Members are spread over an interval: this is one of so many.
    pub(super) async fn beat(mut self, number: u32, of: u32, window: Window) -> Outcome {
        let mut outcome = Outcome::default();
        let mut due = Instant::now() + self.interval * number / of;
        while due < window.until {
            sleep_until(due).await;
            let started = Instant::now();
            let answer = timeout(PATIENCE, self.say()).await;
            outcome.note(window, due, started, answer.map(|answer| answer.map(drop)));
            due += self.interval;
        }
        outcome
    }
}
