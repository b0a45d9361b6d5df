//! What goes into a bundle: the answers of the other commands, as JSON, and what only nodes
//! know of themselves. Whatever cannot be had is named, and the rest goes on.

use super::archive::Archive;
use super::http;
use crate::cluster::{Status, config, features, info};
use crate::connection::Connection;
use crate::profile;
use crate::{group, topic};
use ottla_client::{Admin, Client, HostPort, Probe, v1};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest wait for one answer: a cluster in trouble answers some things never.
const PATIENCE: Duration = Duration::from_secs(5);

/// Topics that are described, and groups: with ten thousand of them the bundle would be
/// about nothing else, and take its time. All are listed.
const MAX_DESCRIBED: usize = 1_000;

/// Variables of the environment that change what this program does.
const VARIABLES: &str = "OTTLA_";

pub(super) struct Collector {
    pub(super) archive: Archive,
    /// Where nodes' HTTP ports are, as far as somebody has said so.
    pub(super) http: BTreeMap<u64, String>,
}

impl Collector {
    pub(super) async fn all(&mut self, connection: &Connection) -> anyhow::Result<()> {
        self.here(connection)?;
        let timeout = connection.timeout.min(PATIENCE);
        let connection = Connection { timeout, ..connection.clone() };
        let client = match connection.client().await {
            Ok(client) => client,
            Err(error) => {
                self.archive.missing("the cluster", error);
                return self.nodes(None, Vec::new()).await;
            }
        };
        let admin = client.admin();
        let nodes = self.cluster(&admin).await?;
        self.nodes(Some(&admin), nodes).await?;
        self.topics(&admin).await?;
        self.groups(&client).await
    }

    /// This program and how it was called.
    fn here(&mut self, connection: &Connection) -> anyhow::Result<()> {
        let variables: BTreeMap<String, String> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into(), value.to_string_lossy().into()))
            .filter(|(name, _): &(String, String)| name.starts_with(VARIABLES))
            .collect();
        let here = json!({
            "ottla_version": ottla_node::VERSION,
            "os": std::env::consts::OS,
            "arch": std::env::consts::ARCH,
            "processors": std::thread::available_parallelism().ok(),
            "bootstrap": connection.bootstrap,
            "profile": connection.profile,
            "environment": variables,
        });
        self.archive.json("client/client.json", here)?;
        match profile::text() {
            Ok(Some(text)) => self.archive.text("client/profiles.toml", &text, false),
            Ok(None) => Ok(()),
            Err(error) => {
                self.archive.missing("the profiles", error);
                Ok(())
            }
        }
    }

    /// An answer, or why there is none.
    fn answer<E: ToString>(&mut self, name: &str, found: Result<Value, E>) -> anyhow::Result<()> {
        match found {
            Ok(value) => self.archive.json(name, value),
            Err(error) => {
                self.archive.missing(name, error);
                Ok(())
            }
        }
    }

    /// The cluster as a whole. Returns its nodes, and which of them answer.
    async fn cluster(&mut self, admin: &Admin) -> anyhow::Result<Vec<Probe>> {
        let health = Status::ask(admin).await.map(|status| status.json());
        self.answer("cluster/health.json", health)?;
        let options = admin.describe_config(None).await;
        let options = options.map(|options| config::shown_json(None, &options));
        self.answer("cluster/options.json", options)?;
        // As the first node sees it that answers, if no majority does.
        let found = match admin.cluster_info().await {
            Ok(found) => Ok(found),
            Err(error) => {
                self.archive.missing("a view of the cluster that a majority confirms", error);
                admin.local_cluster_info().await
            }
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.archive.missing("cluster/info.json", error);
                return Ok(Vec::new());
            }
        };
        let (nodes, quorum) = tokio::join!(admin.probe(found.nodes.clone()), info::quorum(admin));
        self.archive.json("cluster/info.json", info::info_json(&found, &nodes, &quorum))?;
        self.archive.json("cluster/features.json", features::json(found.feature_level, &nodes))?;
        Ok(nodes)
    }

    /// What only the nodes themselves know.
    async fn nodes(&mut self, admin: Option<&Admin>, nodes: Vec<Probe>) -> anyhow::Result<()> {
        let mut places = self.http.clone();
        for Probe { node, answer } in &nodes {
            let id = node.node_id;
            if let Err(error) = answer {
                self.archive.missing(&format!("node {id}"), error);
            }
            let Some(admin) = admin else { continue };
            let options = admin.describe_config(Some(id)).await;
            if let Ok(options) = &options
                && !places.contains_key(&id)
            {
                match http_address(node, options) {
                    Ok(place) => drop(places.insert(id, place)),
                    Err(why) => {
                        let hint = format!("{why}; --http {id}=HOST:PORT says where it is");
                        self.archive.missing(&format!("the HTTP port of node {id}"), hint);
                    }
                }
            }
            let options = options.map(|options| config::shown_json(Some(id), &options));
            self.answer(&format!("nodes/{id}/options.json"), options)?;
        }
        for (id, address) in places {
            for (path, name) in [("/metrics", "metrics.txt"), ("/readyz", "readyz.txt")] {
                let name = format!("nodes/{id}/{name}");
                match http::get(&address, path).await {
                    Ok((text, is_cut)) => self.archive.text(&name, &text, is_cut)?,
                    Err(error) => {
                        self.archive.missing(&name, format!("http://{address}{path}: {error:#}"));
                    }
                }
            }
        }
        Ok(())
    }

    async fn topics(&mut self, admin: &Admin) -> anyhow::Result<()> {
        let moves = admin.reassignments(None).await;
        let moves = moves.map(|moves| topic::reassignments_json(&moves));
        self.answer("topics/reassignments.json", moves)?;
        let listed = match admin.list_topics().await {
            Ok(listed) => listed,
            Err(error) => {
                self.archive.missing("topics", error);
                return Ok(());
            }
        };
        self.archive.json("topics/list.json", json!({ "topics": topic::summaries(&listed) }))?;
        let mut described = Vec::new();
        for name in listed.iter().map(|topic| &topic.name).take(MAX_DESCRIBED) {
            match admin.describe_topic(name).await {
                Ok(found) => described.push(topic::describe_json(&found)),
                Err(error) => {
                    self.archive.missing(&format!("topic {name} and those after it"), error);
                    break;
                }
            }
        }
        self.note_rest("topics", listed.len());
        self.archive.json("topics/described.json", json!({ "topics": described }))
    }

    async fn groups(&mut self, client: &Client) -> anyhow::Result<()> {
        let listed = match client.admin().list_groups().await {
            Ok(listed) => listed,
            Err(error) => {
                self.archive.missing("groups", error);
                return Ok(());
            }
        };
        self.archive.json("groups/list.json", group::list_json(&listed))?;
        let mut described = Vec::new();
        for name in listed.iter().map(|group| &group.group).take(MAX_DESCRIBED) {
            match group::described(client, name).await {
                Ok(found) => described.push(found),
                Err(error) => {
                    self.archive.missing(&format!("group {name} and those after it"), error);
                    break;
                }
            }
        }
        self.note_rest("groups", listed.len());
        self.archive.json("groups/described.json", json!({ "groups": described }))
    }

    fn note_rest(&mut self, what: &str, all: usize) {
        if let Some(rest) = all.checked_sub(MAX_DESCRIBED).filter(|rest| *rest > 0) {
            let why = format!("{MAX_DESCRIBED} are described, the others are listed");
            self.archive.missing(&format!("{rest} {what}"), why);
        }
    }
}

fn http_address(node: &v1::ClusterNode, options: &[v1::ConfigOption]) -> Result<String, String> {
    let listen = options.iter().find(|option| option.name == "http_listen");
    let listen = listen.and_then(|option| option.value.as_deref());
    let listen = listen.ok_or("the node does not say what its http_listen is")?;
    let endpoint = node.endpoint.as_ref().ok_or("the cluster knows no address of the node")?;
    let port = u16::try_from(endpoint.port).map_err(|_| "its port is none")?;
    http::address(listen, &HostPort::new(&*endpoint.host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_says_nothing_is_asked_nowhere() {
        let endpoint = Some(v1::Endpoint { host: "127.0.0.1".to_owned(), port: 7401 });
        let node = v1::ClusterNode { node_id: 2, endpoint, ..Default::default() };
        let option = |value: Option<&str>| v1::ConfigOption {
            name: "http_listen".to_owned(),
            value: value.map(str::to_owned),
            ..Default::default()
        };
        let known = http_address(&node, &[option(Some("127.0.0.1:7502"))]);
        assert_eq!(known, Ok("127.0.0.1:7502".to_owned()));
        let silent = http_address(&node, &[option(None)]).expect_err("it does not answer");
        assert!(silent.contains("does not say"), "{silent}");
    }
}
