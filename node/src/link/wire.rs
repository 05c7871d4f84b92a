//! Messages of the link to values and back. prost types end here.

use super::{BeatFacts, DestinationFacts, EngineFacts, LeaseName, LinkConfig, News};
use ledger::rows::TaskRow;
use proto::internal::v1::{
    Assignment, Beat, CancelTask, DestinationLoad, FullSet, HeldLease, Hello, LinkEngine, LinkKvTier,
    NodeMessage, Request, Revoke, node_message,
};
use types::{Epoch, ProjectName, TaskUid};

pub(super) fn hello(
    config: &LinkConfig,
    leases: Vec<LeaseName>,
    engines: Vec<EngineFacts>,
    wall_ms: u64,
) -> NodeMessage {
    let hello = Hello {
        cluster_id: config.cluster.0.to_vec().into(),
        node_id: config.node.0,
        boot_id: config.boot_id.to_vec().into(),
        version: config.version.clone(),
        slots: config.slots,
        engines: engines.into_iter().map(engine).collect(),
        leases: leases.into_iter().map(held).collect(),
        wall_ms,
        reads_form: u32::from(ledger::READER),
    };
    message(node_message::Body::Hello(hello))
}

pub(super) fn beat(sequence: u64, facts: BeatFacts, wall_ms: u64) -> NodeMessage {
    let beat = Beat {
        sequence,
        wall_ms,
        running: facts.running,
        engines: facts.engines.into_iter().map(engine).collect(),
        device: facts.device.into(),
        segments: facts.segments,
        segment_bytes: facts.segment_bytes,
        context_bytes_received: facts.context_bytes_received,
        context_bytes_sent: facts.context_bytes_sent,
        context_bytes_full: facts.context_bytes_full,
        destinations: facts.destinations.into_iter().map(destination).collect(),
    };
    message(node_message::Body::Beat(beat))
}

pub(super) fn request(request: Request) -> NodeMessage {
    message(node_message::Body::Request(request))
}

fn message(body: node_message::Body) -> NodeMessage {
    NodeMessage { body: Some(body) }
}

fn held(lease: LeaseName) -> HeldLease {
    let LeaseName { project, task, epoch } = lease;
    HeldLease { project: project.to_string(), task: task.to_string(), epoch: epoch.to_string() }
}

fn destination(facts: DestinationFacts) -> DestinationLoad {
    let DestinationFacts { name, running, waiting, cuts, start, most } = facts;
    DestinationLoad { name, running, waiting, cuts, start, most }
}

fn engine(facts: EngineFacts) -> LinkEngine {
    LinkEngine {
        model: facts.model,
        model_digest: facts.model_digest.0.to_vec().into(),
        numerics_id: facts.numerics_id.0.to_vec().into(),
        window: facts.window,
        kv_blocks: facts.kv_blocks,
        kv_blocks_used: facts.kv_blocks_used,
        kv_bytes: facts.kv_bytes,
        kernels: facts.kernels,
        tokens_computed: facts.tokens_computed,
        tokens_cached: facts.tokens_cached,
        tokens_generated: facts.tokens_generated,
        model_bytes: facts.model_bytes,
        weight_bytes: facts.weight_bytes,
        kv_tiers: facts.kv_tiers.into_iter().map(kv_tier).collect(),
    }
}

fn kv_tier((tier, bytes): (&'static str, u64)) -> LinkKvTier {
    LinkKvTier { tier: tier.to_string(), bytes }
}

pub(super) fn full_set(set: FullSet) -> Result<News, String> {
    let leases = set.leases.iter().map(row).collect::<Result<_, _>>()?;
    Ok(News::FullSet { leases, term: set.term })
}

pub(super) fn assigned(assignment: &Assignment) -> Result<News, String> {
    Ok(News::Assigned(Box::new(row(assignment)?)))
}

pub(super) fn cancel(cancel: &CancelTask) -> Result<News, String> {
    Ok(News::Cancel(lease(&cancel.project, &cancel.task, &cancel.epoch)?))
}

pub(super) fn revoked(revoke: &Revoke) -> Result<News, String> {
    Ok(News::Revoked(lease(&revoke.project, &revoke.task, &revoke.epoch)?))
}

fn row(assignment: &Assignment) -> Result<TaskRow, String> {
    types::decode(&assignment.task).map_err(|error| format!("an assignment that cannot be read: {error}"))
}

fn lease(project: &str, task: &str, epoch: &str) -> Result<LeaseName, String> {
    let parse = || -> Result<LeaseName, types::ParseIdError> {
        Ok(LeaseName {
            project: ProjectName::parse(project)?,
            task: TaskUid::parse(task)?,
            epoch: Epoch::parse(epoch)?,
        })
    };
    parse().map_err(|error| error.to_string())
}
