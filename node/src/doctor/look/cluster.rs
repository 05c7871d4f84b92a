//! What the other nodes say: members, versions, clocks, models.

use crate::config::Config;
use crate::doctor::facts::{ClusterFacts, MemberFacts, MembersFacts, ModelFacts, ModelFile};
use crate::members;
use crate::models::{ModelError, ModelStore};
use crate::security::Security;
use crate::store::identity::Member;
use crate::tls::dial::NodeDialer;
use coordinator::Client;
use ledger::query::{Answer, Query};
use ledger::rows::NodeRow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A node of the same site answers in a hundredth of it.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) type Digests = BTreeMap<String, String>;

/// `member`: which node of which cluster this is, with its disk's number; `runs`: its own process can be asked.
pub(super) fn look(
    config: &Config,
    member: Option<(Member, [u8; 16])>,
    runs: bool,
) -> (ClusterFacts, Digests) {
    let own = runs.then(|| config.internal_address());
    let seeds: Vec<String> = config.join.iter().cloned().chain(own).collect();
    if seeds.is_empty() {
        return (ClusterFacts::Alone, Digests::new());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(ask(config, member, seeds, runs)),
        Err(error) => (ClusterFacts::Silent { asked: seeds, why: error.to_string() }, Digests::new()),
    }
}

async fn ask(
    config: &Config,
    member: Option<(Member, [u8; 16])>,
    seeds: Vec<String>,
    runs: bool,
) -> (ClusterFacts, Digests) {
    let Some((member, disk_id)) = member else { return (reachable(seeds).await, Digests::new()) };
    let dialer = match Security::load(config) {
        Ok(security) => security.dialer(),
        // The certificates have their own finding.
        Err(error) => return (ClusterFacts::Silent { asked: seeds, why: error.to_string() }, Digests::new()),
    };
    let client = Client::new(member.cluster_id, None, Arc::new(dialer.clone()), seeds.clone());
    let rows = match timeout(PATIENCE, client.read_stale(Query::Nodes)).await {
        Ok(Ok((Answer::Nodes(rows), _, _))) => rows,
        Ok(Err(error)) => {
            return (ClusterFacts::Silent { asked: seeds, why: error.to_string() }, Digests::new());
        }
        _ => return (ClusterFacts::Silent { asked: seeds, why: "no answer in time".into() }, Digests::new()),
    };
    let mut facts = members_of(&client, &rows).await;
    let own = rows.iter().find(|row| row.id == member.node_id);
    facts.same_disk = Some(own.is_some_and(|row| row.disk_id == disk_id));
    facts.double = double(config, member, own, runs, &dialer).await;
    (ClusterFacts::Answered(facts), digests(&client).await)
}

/// Before it has joined a node can only see whether somebody is there.
async fn reachable(seeds: Vec<String>) -> ClusterFacts {
    let mut why = String::new();
    for seed in &seeds {
        match timeout(PATIENCE, TcpStream::connect(seed)).await {
            Ok(Ok(_)) => return ClusterFacts::Alone,
            Ok(Err(error)) => why = error.to_string(),
            Err(_) => why = "no answer in time".into(),
        }
    }
    ClusterFacts::Silent { asked: seeds, why }
}

async fn members_of(client: &Client, rows: &[NodeRow]) -> MembersFacts {
    let status = timeout(PATIENCE, client.status()).await.ok().and_then(Result::ok);
    let attached: BTreeSet<u64> =
        status.iter().flat_map(|status| &status.attached).map(|node| node.node_id).collect();
    let member = |row: &NodeRow| MemberFacts {
        name: row.name.clone(),
        version: row.version.clone(),
        attached: attached.contains(&row.id.0),
    };
    MembersFacts {
        leader: status.is_some(),
        leader_clock_s: status.map_or(0, |status| (status.wall_ms / 1000) as i64),
        members: rows.iter().map(member).collect(),
        same_disk: None,
        double: None,
    }
}

/// While this node's own process is not running, nobody should answer as it.
async fn double(
    config: &Config,
    member: Member,
    own: Option<&NodeRow>,
    runs: bool,
    dialer: &NodeDialer,
) -> Option<String> {
    let own = own?;
    let elsewhere = own.internal_addr != config.internal_address();
    let asked = elsewhere || !runs;
    (asked && members::answers_as(dialer, &own.internal_addr, member).await)
        .then(|| own.internal_addr.clone())
}

async fn digests(client: &Client) -> Digests {
    match timeout(PATIENCE, client.read_stale(Query::Models)).await {
        Ok(Ok((Answer::Models(rows), _, _))) => {
            rows.into_iter().map(|row| (row.name, row.digest.to_string())).collect()
        }
        _ => Digests::new(),
    }
}

pub(super) fn models(config: &Config, elsewhere: &ModelStore, known: &Digests) -> Vec<ModelFacts> {
    let own = config.models_dir.clone().map(ModelStore::open);
    let store = own.as_ref().unwrap_or(elsewhere);
    config.engine.models.iter().map(|name| model(store, name, known.get(name).cloned())).collect()
}

fn model(store: &ModelStore, name: &str, cluster_digest: Option<String>) -> ModelFacts {
    let (bytes, file) = match store.check(name) {
        Ok(checked) => (
            checked.bytes,
            ModelFile::There {
                path: checked.path.display().to_string(),
                digest: checked.digest.to_string(),
                noted: checked.noted.map(|hash| hash.to_string()),
            },
        ),
        Err(ModelError::Absent { dir, .. }) => {
            (0, ModelFile::Absent { looked_in: dir.display().to_string() })
        }
        Err(error) => (0, ModelFile::Unreadable(error.to_string())),
    };
    ModelFacts { name: name.into(), bytes, file, cluster_digest }
}
