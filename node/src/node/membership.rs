//! How a node comes to belong to a cluster: it remembers, it founds one, or it joins one.

use super::{Parts, random};
use crate::config::{self, Role};
use crate::door::InitRequest;
use crate::measured::Measured;
use crate::members;
use crate::store::identity::{Identity, Member};
use anyhow::{Context, bail};
use coordinator::raft::{Flush, GrpcTransport, Timings};
use coordinator::{Client, ClientError, Coordinator, CoordinatorOptions, NodeFacts, SystemClock};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use types::{ClusterId, NodeId};

/// Written when raft has run once, so that an empty log later means a lost disk.
const RAFT_STARTED: &str = "raft-started";
/// Pause between two tries to join.
const JOIN_PAUSE: Duration = Duration::from_millis(300);
/// For a look at the list of members before the node shows itself.
const ASK: Duration = Duration::from_secs(3);
/// Different troubles that are logged while a node waits to join.
const JOIN_TROUBLES: usize = 16;

/// Waits until the node belongs to a cluster. The request is whoever asked for a new one, and waits for the answer.
pub(super) async fn obtain(
    parts: &Parts,
    mut identity: Identity,
    found: bool,
    mut requests: mpsc::Receiver<InitRequest>,
) -> anyhow::Result<(Member, Option<InitRequest>)> {
    if let Some(member) = identity.member {
        return Ok((member, None));
    }
    if !parts.config.join.is_empty() {
        let (node_id, cluster_id) = until_joined(parts, identity.disk_id).await?;
        let member = Member { cluster_id, node_id };
        identity.join(parts.disk.as_ref(), member)?;
        return Ok((member, None));
    }
    let request = match found {
        true => None,
        false => Some(wait_for_init(parts, &mut requests).await?),
    };
    // The first node of a cluster is always number one: consensus needs an id before there is a log.
    let member = Member { cluster_id: ClusterId(random()), node_id: NodeId(1) };
    identity.join(parts.disk.as_ref(), member)?;
    Ok((member, request))
}

async fn wait_for_init(
    parts: &Parts,
    requests: &mut mpsc::Receiver<InitRequest>,
) -> anyhow::Result<InitRequest> {
    if !parts.config.roles.contains(&Role::Coordinator) {
        bail!("a worker without `join` belongs to no cluster: set join = [\"host:7401\"] in its config");
    }
    tracing::info!("waiting for `quorate cluster init`");
    tokio::select! {
        request = requests.recv() => request.context("the door is closed"),
        () = parts.stop.cancelled() => bail!("stopped before the cluster was founded"),
    }
}

async fn until_joined(parts: &Parts, disk_id: [u8; 16]) -> anyhow::Result<(NodeId, ClusterId)> {
    let (facts, dialer) = (facts(parts, disk_id), parts.security.dialer());
    let mut said = Vec::new();
    loop {
        let joined = Client::join(&dialer, &parts.config.join, facts.clone()).await;
        match joined {
            Ok(joined) => return Ok(joined),
            Err(ClientError::Refused(why)) => bail!(
                "the cluster refuses this node: {why}; give it another `name`, or bring its old disk back: a node whose \
                 disk is lost never returns under its old id"
            ),
            Err(error) => {
                let text = error.to_string();
                if !said.contains(&text) && said.len() < JOIN_TROUBLES {
                    tracing::info!(why = text, next = next_step(&text), "not joined yet; trying on");
                    said.push(text);
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(JOIN_PAUSE) => {}
            () = parts.stop.cancelled() => bail!("stopped before the node had joined"),
        }
    }
}

/// What a person does about a trouble on the way in.
fn next_step(trouble: &str) -> &'static str {
    match trouble {
        text if text.contains("UnknownIssuer") || text.contains("BadSignature") => {
            "the other's certificate is not of this node's CA: tls.ca must be the cluster's ca.crt, and this node's own \
             certificate signed by it"
        }
        text if text.contains("Expired") || text.contains("NotValidYet") => {
            "the other's certificate does not hold now: `quorate cert show` there, and compare the two machines' clocks"
        }
        text if text.contains("refused") || text.contains("timed out") => {
            "check that the nodes of `join` run, and that their internal port can be reached from here"
        }
        _ => "a node that refuses this one's certificate says so in its own log",
    }
}

fn facts(parts: &Parts, disk_id: [u8; 16]) -> NodeFacts {
    let config = &parts.config;
    let role = |role: &Role| match role {
        Role::Coordinator => ledger::rows::Role::Coordinator,
        Role::Worker => ledger::rows::Role::Worker,
    };
    NodeFacts {
        name: config.name.clone(),
        roles: config.roles.iter().map(role).collect(),
        client_addr: config.client_address(),
        internal_addr: config.internal_address(),
        disk_id,
        version: env!("CARGO_PKG_VERSION").into(),
    }
}

/// Starts consensus on this node where it has the role; a founder makes itself the first voter.
pub(super) async fn coordinator(parts: &Parts, member: Member) -> anyhow::Result<Option<Coordinator>> {
    if !parts.config.roles.contains(&Role::Coordinator) {
        return Ok(None);
    }
    let first_start = !parts.disk.exists(RAFT_STARTED)?;
    let coordinator = Coordinator::start(CoordinatorOptions {
        id: member.node_id,
        cluster: member.cluster_id,
        timings: timings(parts),
        disk: Arc::new(Measured { disk: parts.disk.clone(), what: "log" }),
        flush: Flush::Thread,
        transport: GrpcTransport::new(Arc::new(parts.security.dialer())),
        dialer: Arc::new(parts.security.dialer()),
        clock: Arc::new(SystemClock::default()),
        seed: u64::from_le_bytes(random()),
        first_start,
        lease_ms: parts.config.timings.lease_ms,
        strategy: strategy(parts.config.queue.strategy),
    })
    .await?;
    // A crash between taking the identity and the first vote leaves a founder that has not begun.
    let founder = member.node_id == NodeId(1) && !coordinator.raft().is_initialized().await?;
    if founder {
        let disk_id = Identity::open(parts.disk.as_ref(), &parts.config.name, random())?.disk_id;
        coordinator.init(facts(parts, disk_id)).await.map_err(anyhow::Error::msg)?;
    }
    sys::disk::write_durably(parts.disk.as_ref(), RAFT_STARTED, b"1\n")?;
    Ok(Some(coordinator))
}

fn strategy(configured: config::Strategy) -> ledger::Strategy {
    match configured {
        config::Strategy::Llm => ledger::Strategy::Llm,
        config::Strategy::Compute => ledger::Strategy::Compute,
        config::Strategy::Api => ledger::Strategy::Api,
        config::Strategy::Storage => ledger::Strategy::Storage,
    }
}

fn timings(parts: &Parts) -> Timings {
    let configured = &parts.config.timings;
    Timings {
        heartbeat_ms: configured.heartbeat_ms,
        election_min_ms: configured.election_ms,
        election_max_ms: configured.election_ms * 3 / 2,
        ..Timings::default()
    }
}

/// A copied data folder would make two nodes of one: whoever answers as this node elsewhere was here first.
pub(super) async fn only_here(parts: &Parts, member: Member, client: &Client) -> anyhow::Result<()> {
    let asked = tokio::time::timeout(ASK, client.read_stale(ledger::query::Query::Nodes)).await;
    let Ok(Ok((ledger::query::Answer::Nodes(rows), _, _))) = asked else { return Ok(()) };
    let elsewhere = rows.iter().find(|row| row.id == member.node_id).map(|row| &row.internal_addr);
    let Some(address) = elsewhere.filter(|address| **address != parts.config.internal_address()) else {
        return Ok(());
    };
    if members::answers_as(&parts.security.dialer(), address, member).await {
        bail!(
            "another process runs as this node ({}) at {address}: two with one identity would answer for each other; \
             stop that one if this machine takes over, else give this node an empty data_dir and a name of its own: a \
             data folder is never copied",
            member.node_id
        );
    }
    Ok(())
}

/// Tells the cluster where this node is now: its addresses may have changed since it last ran.
pub(super) async fn announce(parts: &Parts, member: Member, client: &Client) -> anyhow::Result<()> {
    let disk_id = match Identity::open(parts.disk.as_ref(), &parts.config.name, random()) {
        Ok(identity) => identity.disk_id,
        Err(error) => {
            tracing::warn!(%error, "the identity file cannot be read again");
            return Ok(());
        }
    };
    let rows = client.read_stale(ledger::query::Query::Nodes).await;
    let facts = facts(parts, disk_id);
    let known = rows.is_ok_and(|(answer, _, _)| match answer {
        ledger::query::Answer::Nodes(rows) => rows.iter().any(|row| {
            row.id == member.node_id
                && row.client_addr == facts.client_addr
                && row.internal_addr == facts.internal_addr
        }),
        _ => false,
    });
    if known {
        return Ok(());
    }
    match announce_once(client, member, &facts).await {
        Ok(true) => {}
        Ok(false) => bail!("{}", removed(member)),
        Err(error) => {
            // The cluster may have no leader while all its nodes start: the link carries on by itself.
            tracing::info!(%error, "this node's addresses are not announced yet; trying on");
            let again = announce_again(client.clone(), member, facts);
            tokio::spawn(parts.stop.clone().run_until_cancelled_owned(again));
        }
    }
    Ok(())
}

fn removed(member: Member) -> String {
    format!(
        "this node ({}) was removed from its cluster and is nobody's member; to let the machine join anew, give it an empty \
         data_dir and another `name`",
        member.node_id
    )
}

/// Founders of a restored cluster may be started minutes apart, and say first where clients find them.
async fn announce_again(client: Client, member: Member, facts: NodeFacts) {
    loop {
        match announce_once(&client, member, &facts).await {
            Ok(true) => return,
            Ok(false) => return tracing::error!("{}", removed(member)),
            Err(_) => tokio::time::sleep(JOIN_PAUSE).await,
        }
    }
}

/// False where this is no member any more: whoever was removed is not to come back by saying its addresses, which would
/// make it a member under another id.
async fn announce_once(client: &Client, member: Member, facts: &NodeFacts) -> Result<bool, ClientError> {
    let ledger::query::Answer::Nodes(rows) = client.read(ledger::query::Query::Nodes).await? else {
        return Ok(true);
    };
    if !rows.iter().any(|row| row.id == member.node_id) {
        return Ok(false);
    }
    client.admit(facts.clone()).await.map(|_| true)
}
