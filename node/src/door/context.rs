//! `ContextService`: the text behind tasks, by hash, within the caller's project.

use super::{Door, Membership, identity, project, status};
use context::{Kind, Segment, Visibility};
use ledger::rows::TaskRow;
use mind::StepRecord;
use proto::v1 as pb;
use proto::v1::context_service_server::ContextService;
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};
use types::{Hash, ProjectName, limits};

type Chunks = Pin<Box<dyn Stream<Item = Result<pb::ReadSegmentResponse, Status>> + Send>>;

#[tonic::async_trait]
impl ContextService for Door {
    type ReadSegmentStream = Chunks;

    async fn read_segment(
        &self,
        request: Request<pb::ReadSegmentRequest>,
    ) -> Result<Response<Chunks>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let hash = Hash::parse(&request.hash).map_err(|error| status::invalid("hash", &error.to_string()))?;
        let bytes = inside.segment(&project, hash, &[]).await?;
        let text = open(&project, hash, &bytes)?.text.into_bytes();
        let total_bytes = text.len() as u64;
        let mut chunks: Vec<_> = text.chunks(limits::CHUNK_BYTES).map(<[u8]>::to_vec).collect();
        if chunks.is_empty() {
            chunks.push(Vec::new());
        }
        let chunks = chunks.into_iter().map(move |chunk| Ok(pb::ReadSegmentResponse { chunk, total_bytes }));
        Ok(Response::new(Box::pin(tokio_stream::iter(chunks))))
    }

    async fn get_context(
        &self,
        request: Request<pb::GetContextRequest>,
    ) -> Result<Response<pb::Context>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let row = inside.find_task(&project, &request.task).await?;
        let records = inside.records(&row, 0).await?;
        let mut segments = Vec::new();
        for hash in chain(&row, &records) {
            let bytes = inside.segment(&row.project, hash, &row.home).await?;
            segments.push(message(hash, open(&row.project, hash, &bytes)?, request.with_text));
        }
        let head = row.head.map(|hash| hash.to_string()).unwrap_or_default();
        let routes = records.iter().filter_map(route).collect();
        Ok(Response::new(pb::Context { task: row.uid.to_string(), head, segments, routes }))
    }

    async fn evaluate_context(
        &self,
        request: Request<pb::EvaluateContextRequest>,
    ) -> Result<Response<pb::EvaluateContextResponse>, Status> {
        let caller = identity(&request);
        self.evaluated(&caller, request.into_inner()).await.map(Response::new)
    }
}

impl Membership {
    /// The task's committed steps after a number, in their order.
    pub(super) async fn records(&self, row: &TaskRow, after: u64) -> Result<Vec<StepRecord>, Status> {
        let mut records = Vec::new();
        let mut next = row.head;
        while let Some(hash) = next {
            let bytes = self.segment(&row.project, hash, &row.home).await?;
            let record: StepRecord = StepRecord::open(&row.project, hash, &bytes)
                .map_err(|error| Status::data_loss(format!("step record {}: {error}", hash.short())))?;
            if record.n <= after {
                break;
            }
            next = record.prev;
            records.push(record);
        }
        records.reverse();
        Ok(records)
    }
}

/// Everything the task's model calls were given and answered, oldest first.
fn chain(row: &TaskRow, records: &[StepRecord]) -> Vec<Hash> {
    let mut chain = given(row);
    for hash in records.iter().flat_map(|record| record.added.iter()) {
        if !chain.contains(hash) {
            chain.push(*hash);
        }
    }
    chain
}

fn route(record: &StepRecord) -> Option<pb::RoutedStep> {
    let route = record.route.as_ref()?;
    let candidate = |it: &mind::RouteCandidate| pb::RouteCandidate {
        model: it.model.clone(),
        expected_micro_usd: it.micro_usd,
        expected_ms: it.ms,
        verdict: it.verdict.clone(),
    };
    Some(pb::RoutedStep {
        step: record.n,
        model: route.model.clone(),
        reason: route.reason.clone(),
        candidates: route.candidates.iter().map(candidate).collect(),
    })
}

/// What the task had before its first step.
pub(super) fn given(row: &TaskRow) -> Vec<Hash> {
    row.background.iter().copied().chain(row.inputs.iter().map(|input| input.segment)).collect()
}

pub(super) fn open(project: &ProjectName, hash: Hash, bytes: &[u8]) -> Result<Segment, Status> {
    context::open(project, hash, bytes)
        .map_err(|error| Status::data_loss(format!("segment {}: {error}", hash.short())))
}

fn message(hash: Hash, segment: Segment, with_text: bool) -> pb::Segment {
    pb::Segment {
        hash: hash.to_string(),
        kind: kind(segment.kind).to_string(),
        author: segment.author,
        visibility: visibility(segment.visibility).to_string(),
        bytes: segment.text.len() as u64,
        text: if with_text { segment.text } else { String::new() },
    }
}

pub(super) fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::System => "system",
        Kind::Background => "background",
        Kind::TaskState => "task-state",
        Kind::Message => "message",
        Kind::Thought => "thought",
        Kind::ToolCall => "tool-call",
        Kind::ToolResult => "tool-result",
        Kind::Summary => "summary",
        Kind::Artefact => "artefact",
        Kind::Definition => "definition",
        Kind::Record => "record",
        Kind::Tools => "tools",
    }
}

fn visibility(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Agent => "agent",
        Visibility::Task => "task",
        Visibility::Project => "project",
    }
}
