//! An operator who does what a story asks for, and tells how it went. What operators do
//! of their own accord is `churn`.

use super::cluster::bootstrap;
use super::load::TOPIC;
use super::network::SimNetwork;
use super::trace;
use ottla_client::{Client, ClientError, ClientOptions, HostPort, NewTopic};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};

/// Before an operator looks again, or tries again what did not work.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How often it is tried.
const ATTEMPTS: usize = 100;

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Move(u32, Vec<u64>),
    Create(&'static str),
    Delete(&'static str),
    Whole(&'static str),
}

type Asked = (Request, oneshot::Sender<Result<(), ClientError>>);

/// Where requests are made.
pub(super) struct Desk(mpsc::Sender<Asked>);

impl Desk {
    pub(super) fn ask(&self, request: Request) -> oneshot::Receiver<Result<(), ClientError>> {
        let (answer, answered) = oneshot::channel();
        // Whoever finds the desk taken has not waited for an answer; the request is dropped,
        // and its answer never comes.
        let _ = self.0.try_send((request, answer));
        answered
    }
}

/// An operator and its desk, with room for one request: a story asks for one at a time.
pub(super) fn operator(nodes: u64) -> (Desk, impl Future<Output = ()> + 'static) {
    let (desk, mut asked) = mpsc::channel::<Asked>(1);
    let work = async move {
        let Ok(bootstrap) = HostPort::parse_list(&bootstrap(nodes)) else { return };
        let mut client = None;
        while let Some((request, answer)) = asked.recv().await {
            let client = match &client {
                Some(client) => client,
                None => client.insert(connected(&bootstrap).await),
            };
            let outcome = carried_out(client, &request).await;
            trace::told(&format!("operator: {request:?}: {outcome:?}"));
            // Whoever asked does not wait any more.
            let _ = answer.send(outcome);
        }
        std::future::pending().await
    };
    (Desk(desk), work)
}

async fn connected(bootstrap: &[HostPort]) -> Client {
    loop {
        let network = std::sync::Arc::new(SimNetwork);
        match Client::connect_over(network, bootstrap, ClientOptions::default()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

async fn carried_out(client: &Client, request: &Request) -> Result<(), ClientError> {
    let mut attempts = 1;
    loop {
        match once(client, request).await {
            Ok(true) => return Ok(()),
            Err(error) if attempts >= ATTEMPTS => return Err(error),
            Ok(false) | Err(_) => {}
        }
        attempts += 1;
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Whether it is done now.
async fn once(client: &Client, request: &Request) -> Result<bool, ClientError> {
    let admin = client.admin();
    match request {
        Request::Move(partition, nodes) => {
            let plan = [(*partition, nodes.clone())].into();
            admin.reassign(TOPIC, plan, false).await.map(|_| true)
        }
        Request::Create(name) => {
            let (name, partitions, replication_factor) = ((*name).to_owned(), 2, 3);
            let topic = NewTopic { name, partitions, replication_factor, ..NewTopic::default() };
            admin.create_topic(topic).await.map(|_| true)
        }
        Request::Delete(name) => admin.delete_topic(name).await.map(|()| true),
        Request::Whole(name) => {
            let described = admin.describe_topic(name).await?;
            Ok(described.topic.partitions.iter().all(|p| p.isr.len() == p.replicas.len()))
        }
    }
}
