//! What people and programs say to tasks, tasks that begin again or go on from a step, and schedules.

use super::tasks::{propose, seal_input, short, some_id, unexpected};
use super::{Door, Identity, Membership, convert, project, status};
use context::{Kind, Segment, Visibility};
use ledger::command::{Command, RequestKey, Terms};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{Ask, Fork, InputRef, ScheduleRow, SignalKind, TaskRow};
use mind::StepRecord;
use proto::v1 as pb;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::{Code, Status};
use types::{Class, Hash, NodeId, ProjectName, limits};

/// A task that goes on from a step of another one.
pub(super) struct Again {
    pub(super) project: String,
    pub(super) id: String,
    pub(super) request_id: String,
    pub(super) task_id: String,
    /// None: the newest.
    pub(super) step: Option<u64>,
    pub(super) only_ended: bool,
}

impl Door {
    pub(super) async fn signal(
        &self,
        caller: &Identity,
        request: pb::SignalTaskRequest,
    ) -> Result<pb::Task, Status> {
        let project = project(caller, &request.project)?;
        let inside = self.inside()?;
        short("request_id", &request.request_id)?;
        let kind = convert::signal_kind(request.kind()).ok_or_else(|| {
            status::invalid("kind", "say what it is: APPROVE, REJECT, ANSWER, MESSAGE, ...")
        })?;
        let row = inside.find_task(&project, &request.id).await?;
        let ask = asked(&row, kind, request.ask)?;
        let author = caller.author();
        let text = sealed_text(&project, &author, kind, &request.text)?;
        let body = Hash::of_parts(&[
            row.uid.to_string().as_bytes(),
            &[kind as u8],
            ask.as_bytes(),
            request.text.as_bytes(),
        ]);
        let (text, home) = match text {
            Some(sealed) => {
                let segments = vec![(sealed.hash, sealed.bytes.into())];
                let kept = inside.keep().await.put(&project, segments, &row.home).await;
                (Some(sealed.hash), kept.map_err(super::tasks::keep_status)?)
            }
            None => (None, Vec::new()),
        };
        let request = RequestKey { author, request_id: some_id(request.request_id), body };
        let command = Command::Signal { project, task: row.uid, kind, ask, text, home, request };
        task_of(inside, propose(inside, command).await?).await
    }

    pub(super) async fn again(&self, caller: &Identity, again: Again) -> Result<pb::Task, Status> {
        let project = project(caller, &again.project)?;
        let inside = self.inside()?;
        short("request_id", &again.request_id)?;
        short("task_id", &again.task_id)?;
        let row = inside.find_task(&project, &again.id).await?;
        if again.only_ended && !row.state.is_final() {
            return Err(status::error(
                Code::FailedPrecondition,
                "NOT_ENDED",
                &format!("task {} is {}", again.id, row.state.name()),
                "a paused task is resumed, a running one cancelled first; only what has ended is retried",
            ));
        }
        let step = again.step.unwrap_or(row.step);
        let head = inside.head_at(&row, step).await?;
        let body =
            Hash::of_parts(&[row.uid.to_string().as_bytes(), &step.to_le_bytes(), again.task_id.as_bytes()]);
        let mut labels: Vec<(String, String)> =
            row.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        labels.retain(|(key, _)| key != "again");
        if labels.len() < limits::TASK_LABELS {
            labels.push(("again".to_string(), row.uid.to_string()));
        }
        let command = Command::CreateTask {
            project,
            agent: row.agent.to_string(),
            inputs: row.inputs.to_vec(),
            task_id: Some(again.task_id).filter(|id| !id.is_empty()),
            labels,
            class: row.class,
            priority: row.priority,
            deadline_ms: 0,
            home: inside.kept_by(&row),
            request: RequestKey { author: caller.author(), request_id: some_id(again.request_id), body },
            terms: Some(Terms { fork: Some(Fork { task: row.uid, step, head }), ..Terms::default() }),
        };
        task_of(inside, propose(inside, command).await?).await
    }

    pub(super) async fn put_schedule(
        &self,
        caller: &Identity,
        request: pb::SetScheduleRequest,
    ) -> Result<pb::Schedule, Status> {
        let project = project(caller, &request.project)?;
        let inside = self.inside()?;
        short("name", &request.name)?;
        short("cron", &request.cron)?;
        short("agent", &request.agent)?;
        short("request_id", &request.request_id)?;
        let next_ms = coordinator::next_time(&request.cron, now_ms())
            .map_err(|why| status::invalid("cron", &why))?
            .ok_or_else(|| status::invalid("cron", "this time never comes"))?;
        let author = caller.author();
        let sealed: Vec<(InputRef, bytes::Bytes)> = request
            .inputs
            .iter()
            .map(|input| seal_input(&project, &author, input))
            .collect::<Result<_, _>>()?;
        let segments = sealed.iter().map(|(input, bytes)| (input.segment, bytes.clone())).collect();
        let kept = inside.keep().await.put(&project, segments, &[]).await;
        let home = kept.map_err(super::tasks::keep_status)?;
        let bare = pb::SetScheduleRequest { request_id: String::new(), ..request.clone() };
        let body = Hash::of(&prost::Message::encode_to_vec(&bare));
        let class = match request.class() {
            pb::TaskClass::Unspecified => Class::Batch,
            class => convert::class_from(class),
        };
        let row = ScheduleRow {
            project,
            name: request.name,
            cron: request.cron,
            agent: request.agent,
            inputs: sealed.into_iter().map(|(input, _)| input).collect(),
            class,
            priority: u8::try_from(request.priority.unwrap_or(5)).unwrap_or(u8::MAX),
            home,
            next_ms,
            last_task: None,
            last_error: String::new(),
            fired: 0,
            author: String::new(),
        };
        let request = RequestKey { author, request_id: some_id(request.request_id), body };
        match propose(inside, Command::SetSchedule { row: Box::new(row), request }).await? {
            Reply::Schedule(row) => Ok(convert::schedule(&row)),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn schedules(&self, project: ProjectName) -> Result<pb::ListSchedulesResponse, Status> {
        let inside = self.inside()?;
        match inside.client.read(Query::Schedules { project }).await.map_err(status::from_client)? {
            Answer::Schedules(rows) => {
                Ok(pb::ListSchedulesResponse { schedules: rows.iter().map(convert::schedule).collect() })
            }
            _ => Err(Status::internal("the ledger answered another question")),
        }
    }

    pub(super) async fn drop_schedule(
        &self,
        caller: &Identity,
        request: pb::DeleteScheduleRequest,
    ) -> Result<pb::DeleteScheduleResponse, Status> {
        let project = project(caller, &request.project)?;
        let inside = self.inside()?;
        let body = Hash::of(request.name.as_bytes());
        let key = RequestKey { author: caller.author(), request_id: some_id(request.request_id), body };
        propose(inside, Command::DropSchedule { project, name: request.name, request: key }).await?;
        Ok(pb::DeleteScheduleResponse {})
    }
}

/// The question that is meant: as said, or the only one that this answers.
fn asked(row: &TaskRow, kind: SignalKind, said: String) -> Result<String, Status> {
    let answers =
        matches!(kind, SignalKind::Approve | SignalKind::Reject | SignalKind::Answer | SignalKind::Repeat);
    if !answers || !said.is_empty() {
        return Ok(said);
    }
    let open: &[Ask] = row.talk.as_deref().map_or(&[], |talk| talk.asks.as_slice());
    match open {
        [only] => Ok(only.id.clone()),
        [] => Err(status::error(
            Code::FailedPrecondition,
            "NOTHING_ASKED",
            &format!("task {} is {} and asks nothing", row.uid, row.state.name()),
            "`quorate task get` shows what a task asks; a message is sent with `quorate task signal`",
        )),
        several => {
            let ids: Vec<&str> = several.iter().map(|ask| ask.id.as_str()).collect();
            Err(status::invalid("ask", &format!("several are open, name one: {}", ids.join(", "))))
        }
    }
}

fn sealed_text(
    project: &ProjectName,
    author: &str,
    kind: SignalKind,
    text: &str,
) -> Result<Option<context::Sealed>, Status> {
    if text.is_empty() && matches!(kind, SignalKind::Approve | SignalKind::Reject | SignalKind::Repeat) {
        return Ok(None);
    }
    if text.len() > limits::SEGMENT_BYTES {
        let why = format!("{} bytes, at most {} in one message; split it", text.len(), limits::SEGMENT_BYTES);
        return Err(status::invalid("text", &why));
    }
    if text.is_empty() {
        return Err(status::invalid("text", "is empty; a message or an answer has a text"));
    }
    let of_call = if kind == SignalKind::Answer { Kind::ToolResult } else { Kind::Message };
    let segment = Segment::new(of_call, author, Visibility::Project, text);
    segment.check().map_err(|error| status::invalid("text", &error.to_string()))?;
    Ok(Some(context::seal(project, &segment)))
}

async fn task_of(inside: &Membership, reply: Reply) -> Result<pb::Task, Status> {
    match reply {
        Reply::Task(row) => inside.task_message(&row, false).await,
        other => Err(unexpected(&other)),
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

impl Membership {
    /// The record of a task's step: the journal is walked back from the newest.
    async fn head_at(&self, row: &TaskRow, step: u64) -> Result<Option<Hash>, Status> {
        if step == 0 {
            return Ok(None);
        }
        let mut head = row.head.filter(|_| step <= row.step);
        while let Some(hash) = head {
            let bytes = self.segment(&row.project, hash, &row.home).await?;
            let record = StepRecord::open(&row.project, hash, &bytes)
                .map_err(|error| Status::data_loss(error.to_string()))?;
            if record.n == step {
                return Ok(Some(hash));
            }
            head = record.prev;
        }
        Err(status::invalid("step", &format!("the task has {} steps", row.step)))
    }

    /// Members that hold everything of a task.
    fn kept_by(&self, row: &TaskRow) -> Vec<NodeId> {
        row.keepers.iter().chain(&row.home).copied().collect()
    }
}
