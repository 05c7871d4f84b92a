//! `TaskService`: inputs become segments, requests become commands, rows become tasks.

use super::again::Again;
use super::quotas::quota_key;
use super::{Door, Identity, Membership, convert, identity, project, status, watch};
use crate::traces::ids::{Caller, LABEL};
use crate::traces::now_ns;
use crate::traces::span::Times;
use crate::traces::work::created;
use bytes::Bytes;
use context::{Kind, Segment, Visibility};
use ledger::command::{Command, RequestKey, Terms};
use ledger::query::{Answer, Query};
use ledger::reply::Reply;
use ledger::rows::{InputRef, QuotaKey, TaskRow};
use proto::v1 as pb;
use proto::v1::task_service_server::TaskService;
use std::collections::{BTreeMap, HashMap};
use std::pin::Pin;
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};
use types::{Hash, NodeId, ProjectName, TaskState, TaskUid, limits};

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::TaskEvent, Status>> + Send>>;

#[tonic::async_trait]
impl TaskService for Door {
    async fn create_task(
        &self,
        request: Request<pb::CreateTaskRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let begun_ns = now_ns();
        let caller = identity(&request);
        project(&caller, &request.get_ref().project)?;
        let inside = self.inside()?;
        let header = request.metadata().get("traceparent").and_then(|header| header.to_str().ok());
        let traced = header.and_then(Caller::parse);
        let order = inside.order(&caller, request.into_inner()).await?.traced(traced);
        if order.validate_only {
            return inside.dry_run(order).await.map(Response::new);
        }
        let home = inside.keep_inputs(&order).await?;
        match propose(inside, order.command(home)).await? {
            Reply::Task(row) => {
                inside.tell_created(&row, begun_ns);
                inside.task_message(&row, false).await.map(Response::new)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn get_task(&self, request: Request<pb::GetTaskRequest>) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        if !request.allow_stale {
            let row = inside.find_task(&project, &request.id).await?;
            return inside.task_message(&row, true).await.map(Response::new);
        }
        let query = Query::Task { project, id: request.id.clone() };
        let (answer, index, age_ms) = inside.client.read_stale(query).await.map_err(status::from_client)?;
        let Answer::Task(Some(row)) = answer else {
            return Err(status::not_found("task", &request.id, "quorate task list"));
        };
        let mut response = Response::new(inside.task_message(&row, false).await?);
        watch::stamp_stale(response.metadata_mut(), index, age_ms);
        Ok(response)
    }

    async fn list_tasks(
        &self,
        request: Request<pb::ListTasksRequest>,
    ) -> Result<Response<pb::ListTasksResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(
                TaskUid::parse(token)
                    .map_err(|_| status::invalid("page_token", "not one that a list gave"))?,
            ),
        };
        let query = Query::Tasks {
            project,
            filter: request.filter,
            after,
            limit: super::agents::page_size(request.page_size)?,
        };
        let (answer, stale) = match request.allow_stale {
            true => {
                let (answer, index, age) =
                    inside.client.read_stale(query).await.map_err(status::from_client)?;
                (answer, Some((index, age)))
            }
            false => (inside.client.read(query).await.map_err(status::from_client)?, None),
        };
        let mut response = Response::new(tasks_page(answer, inside)?);
        if let Some((index, age_ms)) = stale {
            watch::stamp_stale(response.metadata_mut(), index, age_ms);
        }
        Ok(response)
    }

    type WatchTaskStream = EventStream;

    async fn watch_task(
        &self,
        request: Request<pb::WatchTaskRequest>,
    ) -> Result<Response<EventStream>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let row = self.inside()?.find_task(&project, &request.id).await?;
        Ok(Response::new(watch::stream(self.clone(), row, request.from_sequence, !request.no_tokens)))
    }

    async fn cancel_task(
        &self,
        request: Request<pb::CancelTaskRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let pb::CancelTaskRequest { project: p, id, request_id } = request.into_inner();
        self.change(&caller, "cancel", p, id, request_id, |project, task, request| Command::CancelTask {
            project,
            task,
            request,
        })
        .await
    }

    async fn pause_task(&self, request: Request<pb::PauseTaskRequest>) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let pb::PauseTaskRequest { project: p, id, request_id } = request.into_inner();
        self.change(&caller, "pause", p, id, request_id, |project, task, request| Command::PauseTask {
            project,
            task,
            request,
        })
        .await
    }

    async fn resume_task(
        &self,
        request: Request<pb::ResumeTaskRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let pb::ResumeTaskRequest { project: p, id, request_id } = request.into_inner();
        self.change(&caller, "resume", p, id, request_id, |project, task, request| Command::ResumeTask {
            project,
            task,
            request,
        })
        .await
    }

    async fn signal_task(
        &self,
        request: Request<pb::SignalTaskRequest>,
    ) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        self.signal(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn retry_task(&self, request: Request<pb::RetryTaskRequest>) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let pb::RetryTaskRequest { project, id, request_id, task_id } = request.into_inner();
        let again = Again { project, id, request_id, task_id, step: Some(0), only_ended: true };
        self.again(&caller, again).await.map(Response::new)
    }

    async fn fork_task(&self, request: Request<pb::ForkTaskRequest>) -> Result<Response<pb::Task>, Status> {
        let caller = identity(&request);
        let pb::ForkTaskRequest { project, id, request_id, task_id, step } = request.into_inner();
        let again = Again { project, id, request_id, task_id, step, only_ended: false };
        self.again(&caller, again).await.map(Response::new)
    }

    async fn set_schedule(
        &self,
        request: Request<pb::SetScheduleRequest>,
    ) -> Result<Response<pb::Schedule>, Status> {
        let caller = identity(&request);
        self.put_schedule(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn list_schedules(
        &self,
        request: Request<pb::ListSchedulesRequest>,
    ) -> Result<Response<pb::ListSchedulesResponse>, Status> {
        let caller = identity(&request);
        let project = project(&caller, &request.get_ref().project)?;
        self.schedules(project).await.map(Response::new)
    }

    async fn delete_schedule(
        &self,
        request: Request<pb::DeleteScheduleRequest>,
    ) -> Result<Response<pb::DeleteScheduleResponse>, Status> {
        let caller = identity(&request);
        self.drop_schedule(&caller, request.into_inner()).await.map(Response::new)
    }

    async fn explain_task(
        &self,
        request: Request<pb::ExplainTaskRequest>,
    ) -> Result<Response<pb::ExplainTaskResponse>, Status> {
        let caller = identity(&request);
        let request = request.into_inner();
        let project = project(&caller, &request.project)?;
        let inside = self.inside()?;
        let explanation = inside.explain_if(&caller, &project, &request.id, &request.what_if).await?;
        inside.explained(&caller, explanation).await.map(Response::new)
    }
}

impl Door {
    /// A verb on one task that answers with the task as it is then.
    async fn change(
        &self,
        caller: &Identity,
        verb: &str,
        project_text: String,
        id: String,
        request_id: String,
        command: impl FnOnce(ProjectName, TaskUid, RequestKey) -> Command,
    ) -> Result<Response<pb::Task>, Status> {
        let project = project(caller, &project_text)?;
        let inside = self.inside()?;
        let task = inside.find_task(&project, &id).await?.uid;
        let body = Hash::of_parts(&[verb.as_bytes(), task.to_string().as_bytes()]);
        let key = RequestKey { author: caller.author(), request_id, body };
        match propose(inside, command(project, task, key)).await? {
            Reply::Task(row) => inside.task_message(&row, false).await.map(Response::new),
            Reply::Done => {
                let row = inside.read_task(task).await?;
                inside.task_message(&row, false).await.map(Response::new)
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// Proposes one command; a refusal becomes the caller's error.
pub(crate) async fn propose(inside: &Membership, command: Command) -> Result<Reply, Status> {
    match inside.client.propose_one(command).await.map_err(status::from_client)? {
        Reply::Refused(refusal) => Err(status::from_refusal(refusal)),
        reply => Ok(reply),
    }
}

pub(crate) fn unexpected(reply: &Reply) -> Status {
    status::error(
        Code::Internal,
        "UNEXPECTED_REPLY",
        &format!("the ledger answered {reply:?}"),
        "report this; the versions of the nodes may differ",
    )
}

fn tasks_page(answer: Answer, inside: &Membership) -> Result<pb::ListTasksResponse, Status> {
    match answer {
        Answer::Tasks { rows, more } => Ok(pb::ListTasksResponse {
            next_page_token: rows.last().filter(|_| more).map(|row| row.uid.to_string()).unwrap_or_default(),
            tasks: rows.iter().map(|row| convert::task(row, &inside.members)).collect(),
        }),
        Answer::BadQuery(why) => Err(status::invalid("filter", &why)),
        _ => Err(Status::internal("the ledger answered another question")),
    }
}

/// A checked request to create a task.
pub(super) struct Order {
    pub(super) project: ProjectName,
    agent: String,
    inputs: Vec<(InputRef, Bytes)>,
    task_id: Option<String>,
    labels: Vec<(String, String)>,
    class: types::Class,
    priority: u8,
    deadline_ms: u64,
    terms: Terms,
    request: RequestKey,
    validate_only: bool,
}

impl Order {
    /// `after` are the uids of the tasks that the request names.
    fn check(
        caller: &Identity,
        mut request: pb::CreateTaskRequest,
        after: Vec<TaskUid>,
    ) -> Result<Order, Status> {
        let (author, project) = (caller.author(), project(caller, &request.project)?);
        // What is hashed names the project, also where the request left it out.
        request.project = project.to_string();
        short("agent", &request.agent)?;
        short("task_id", &request.task_id)?;
        short("request_id", &request.request_id)?;
        if request.inputs.len() > limits::TASK_INPUTS {
            let why = format!("{} given, at most {} allowed", request.inputs.len(), limits::TASK_INPUTS);
            return Err(status::invalid("inputs", &why));
        }
        let priority = request.priority.unwrap_or(5);
        if priority > 9 {
            return Err(status::invalid("priority", "a number from 0 to 9"));
        }
        let body = body_hash(&request);
        let class = convert::class_from(request.class());
        let inputs = request.inputs.iter().map(|input| seal_input(&project, &author, input));
        let mut labels: Vec<(String, String)> = request.labels.into_iter().collect();
        labels.sort();
        let limits = task_limits(&request.limits)?;
        Ok(Order {
            inputs: inputs.collect::<Result<_, _>>()?,
            project,
            agent: request.agent,
            task_id: Some(request.task_id).filter(|id| !id.is_empty()),
            labels,
            class,
            priority: priority as u8,
            deadline_ms: request.deadline_ms,
            terms: Terms { limits, not_before_ms: request.not_before_ms, after, fork: None },
            request: RequestKey { author, request_id: some_id(request.request_id), body },
            validate_only: request.validate_only,
        })
    }

    /// The caller's span as a label, where there is room for one and the request names none itself. It is no part of
    /// what is asked for: a repetition may come with another.
    fn traced(mut self, caller: Option<Caller>) -> Order {
        let named = self.labels.iter().any(|(key, _)| key == LABEL);
        if let Some(caller) = caller.filter(|_| !named && self.labels.len() < limits::TASK_LABELS) {
            self.labels.push((LABEL.to_string(), caller.to_string()));
            self.labels.sort();
        }
        self
    }

    pub(super) fn command(self, home: Vec<NodeId>) -> Command {
        Command::CreateTask {
            project: self.project,
            agent: self.agent,
            inputs: self.inputs.into_iter().map(|(input, _)| input).collect(),
            task_id: self.task_id,
            labels: self.labels,
            class: self.class,
            priority: self.priority,
            deadline_ms: self.deadline_ms,
            home,
            request: self.request,
            terms: (self.terms != Terms::default()).then_some(self.terms),
        }
    }
}

/// A door that repeats a call needs an id even where the client gave none.
pub(crate) fn some_id(given: String) -> String {
    if !given.is_empty() {
        return given;
    }
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).expect("the system has randomness");
    format!("door-{}", Hash::of(&random).short())
}

pub(crate) fn short(field: &str, text: &str) -> Result<(), Status> {
    match text.len() <= limits::NAME_BYTES && !text.chars().any(char::is_control) {
        true => Ok(()),
        false => Err(status::invalid(
            field,
            &format!("at most {} bytes, no control characters", limits::NAME_BYTES),
        )),
    }
}

fn body_hash(request: &pb::CreateTaskRequest) -> Hash {
    // Maps have no order on the wire.
    let bare = pb::CreateTaskRequest {
        request_id: String::new(),
        labels: Default::default(),
        limits: Default::default(),
        ..request.clone()
    };
    let labels: BTreeMap<_, _> = request.labels.iter().collect();
    let mut maps = format!("{:?}", labels.iter().collect::<Vec<_>>());
    if !request.limits.is_empty() {
        maps += &format!("{:?}", request.limits.iter().collect::<BTreeMap<_, _>>());
    }
    Hash::of_parts(&[&prost::Message::encode_to_vec(&bare), maps.as_bytes()])
}

fn task_limits(given: &HashMap<String, u64>) -> Result<Vec<(QuotaKey, u64)>, Status> {
    let key = |(key, limit): (&String, &u64)| Ok((quota_key("limits", key)?, *limit));
    let mut limits: Vec<_> = given.iter().map(key).collect::<Result<_, Status>>()?;
    limits.sort();
    Ok(limits)
}

pub(super) fn seal_input(
    project: &ProjectName,
    author: &str,
    input: &pb::Input,
) -> Result<(InputRef, Bytes), Status> {
    short("inputs.name", &input.name)?;
    if input.text.len() > limits::SEGMENT_BYTES {
        let why =
            format!("{} bytes, at most {} in one input; split it", input.text.len(), limits::SEGMENT_BYTES);
        return Err(status::invalid("inputs.text", &why));
    }
    // The task has no id yet, so its inputs are visible in the project.
    let segment = Segment::new(Kind::Message, author, Visibility::Project, input.text.as_str());
    segment.check().map_err(|error| status::invalid("inputs", &error.to_string()))?;
    let sealed = context::seal(project, &segment);
    let bytes = sealed.bytes.len() as u64;
    Ok((InputRef { name: (&input.name).into(), segment: sealed.hash, bytes }, sealed.bytes.into()))
}

impl Membership {
    /// Stores the inputs before the ledger hears of them, so that what it names always exists.
    async fn keep_inputs(&self, order: &Order) -> Result<Vec<NodeId>, Status> {
        let segments = order.inputs.iter().map(|(input, bytes)| (input.segment, bytes.clone())).collect();
        self.keep().await.put(&order.project, segments, &[]).await.map_err(keep_status)
    }

    /// The request that made a task, in the task's trace.
    fn tell_created(&self, row: &TaskRow, begun_ns: u64) {
        if let Some(place) = self.traces.place(row, row.uid) {
            let times = Times { begun_ns, ended_ns: now_ns() };
            self.traces.send(vec![created(&place, self.own, times)]);
        }
    }

    pub(crate) async fn find_task(&self, project: &ProjectName, id: &str) -> Result<TaskRow, Status> {
        let query = Query::Task { project: project.clone(), id: id.to_string() };
        match self.client.read(query).await.map_err(status::from_client)? {
            Answer::Task(Some(row)) => Ok(*row),
            _ => Err(status::not_found("task", id, "quorate task list")),
        }
    }

    /// The request checked; it may name other tasks.
    async fn order(&self, caller: &Identity, request: pb::CreateTaskRequest) -> Result<Order, Status> {
        let after = self.uids(&project(caller, &request.project)?, &request.after).await?;
        Order::check(caller, request, after)
    }

    /// Tasks of the project by the names that people use.
    async fn uids(&self, project: &ProjectName, ids: &[String]) -> Result<Vec<TaskUid>, Status> {
        if ids.len() > limits::TASK_AFTER {
            let why = format!("{} given, at most {}", ids.len(), limits::TASK_AFTER);
            return Err(status::invalid("after", &why));
        }
        let mut uids = Vec::with_capacity(ids.len());
        for id in ids {
            uids.push(self.find_task(project, id).await?.uid);
        }
        Ok(uids)
    }

    async fn read_task(&self, uid: TaskUid) -> Result<TaskRow, Status> {
        match self.client.read(Query::TaskByUid { uid }).await.map_err(status::from_client)? {
            Answer::Task(Some(row)) => Ok(*row),
            _ => Err(status::not_found("task", &uid.to_string(), "quorate task list")),
        }
    }

    /// The task with its texts where they are small, and with its blockers where it waits.
    pub(super) async fn task_message(&self, row: &TaskRow, explain: bool) -> Result<pb::Task, Status> {
        self.members.learn(&self.client, row.node.into_iter()).await;
        let mut message = convert::task(row, &self.members);
        if let Some(result) = row.result.filter(|_| row.result_bytes <= limits::INLINE_RESULT_BYTES as u64) {
            // The hash stands in the answer; the text can be asked for again when a holder is back.
            message.result = self.text(row, result).await.unwrap_or_default();
        }
        if let Some(error) = &row.error {
            message.error = match error.text {
                Some(hash) => self.text(row, hash).await.unwrap_or_else(|_| error.reason.clone()),
                None => error.reason.clone(),
            };
        }
        for ask in &mut message.asks {
            if let Ok(hash) = Hash::parse(&ask.text_hash) {
                let text = self.text(row, hash).await.unwrap_or_default();
                let question =
                    (ask.kind() == pb::AskKind::Question).then(|| mind::question_of(&text)).flatten();
                ask.text = question.unwrap_or(text);
            }
        }
        if explain && matches!(row.state, TaskState::Pending | TaskState::Paused(_)) {
            let explanation = self.explain(&row.project, &row.uid.to_string()).await?;
            message.pending = explanation.blockers.into_iter().map(convert::short_blocker).collect();
        }
        Ok(message)
    }

    pub(super) async fn text(&self, row: &TaskRow, hash: Hash) -> Result<String, Status> {
        let bytes = self.segment(&row.project, hash, &row.home).await?;
        let segment =
            context::open(&row.project, hash, &bytes).map_err(|e| Status::data_loss(e.to_string()))?;
        Ok(segment.text)
    }
}

pub(crate) fn keep_status(failed: crate::keep::KeepError) -> Status {
    status::error(
        Code::Unavailable,
        "NOT_DURABLE",
        &failed.to_string(),
        "nothing was changed; check `quorate node list` and disk space, then repeat with the same request id",
    )
}
