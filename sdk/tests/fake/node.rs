//! A node in this process: it answers what it was told to, and remembers what it was asked.

use futures::Stream;
use proto::v1::{self, *};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};

type Events = Pin<Box<dyn Stream<Item = Result<TaskEvent, Status>> + Send>>;
type Chunks = Pin<Box<dyn Stream<Item = Result<ReadSegmentResponse, Status>> + Send>>;

/// What the node does with the next unary call; without one it answers well.
pub(crate) enum Answer {
    Refuse(Status),
    /// The connection breaks while the call is under way.
    BreakConnection,
    /// No answer, ever.
    Silence,
}

/// One move of a watch stream.
#[derive(Clone)]
pub(crate) enum Step {
    Send(TaskEvent),
    /// The stream ends in good order.
    End,
    /// The stream breaks.
    Break,
    Refuse(Status),
}

#[derive(Default)]
struct Seen {
    answers: VecDeque<Answer>,
    request_ids: Vec<String>,
    watched_from: Vec<u64>,
    calls: usize,
    task: Option<Task>,
    watches: Shared<Vec<Step>>,
    chunks: Shared<Vec<Result<&'static str, ()>>>,
}

/// Scripts that several nodes take from in turn.
type Shared<T> = Arc<Mutex<VecDeque<T>>>;

#[derive(Clone)]
pub(crate) struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Fake {
    pub(crate) async fn start() -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Fake { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let server = tonic::transport::Server::builder()
            .add_service(task_service_server::TaskServiceServer::new(fake.clone()))
            .add_service(context_service_server::ContextServiceServer::new(fake.clone()))
            .add_service(cluster_service_server::ClusterServiceServer::new(fake.clone()));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        fake
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.seen.lock().unwrap().answers.extend(answers);
    }

    pub(crate) fn holds(&self, task: Task) {
        self.seen.lock().unwrap().task = Some(task);
    }

    pub(crate) fn request_ids(&self) -> Vec<String> {
        self.seen.lock().unwrap().request_ids.clone()
    }

    pub(crate) fn watched_from(&self) -> Vec<u64> {
        self.seen.lock().unwrap().watched_from.clone()
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().calls
    }

    /// Counts the call, then does what was scripted.
    async fn on_call(&self) -> Result<(), Status> {
        let answer = {
            let mut seen = self.seen.lock().unwrap();
            seen.calls += 1;
            seen.answers.pop_front()
        };
        match answer {
            None => Ok(()),
            Some(Answer::Refuse(status)) => Err(status),
            // What a client sees of a reset stream, without taking the other calls down with it.
            Some(Answer::BreakConnection) => Err(Status::unknown("broken")),
            Some(Answer::Silence) => futures::future::pending().await,
        }
    }

    fn task(&self) -> Task {
        self.seen.lock().unwrap().task.clone().unwrap_or_else(task)
    }
}

/// Gives the nodes one list of watch streams: the first to be asked plays the first.
pub(crate) fn share(fakes: &[&Fake], scripts: impl IntoIterator<Item = Vec<Step>>) {
    let shared: Shared<Vec<Step>> = Arc::new(Mutex::new(scripts.into_iter().collect()));
    fakes.iter().for_each(|fake| fake.seen.lock().unwrap().watches = shared.clone());
}

/// The same for the pieces of a segment; `Err` breaks the stream.
pub(crate) fn share_chunks(
    fakes: &[&Fake],
    scripts: impl IntoIterator<Item = Vec<Result<&'static str, ()>>>,
) {
    let shared = Arc::new(Mutex::new(scripts.into_iter().collect()));
    fakes.iter().for_each(|fake| fake.seen.lock().unwrap().chunks = Arc::clone(&shared));
}

pub(crate) fn task() -> Task {
    Task { id: "t_1".into(), uid: "t_1".into(), state: v1::TaskState::Running.into(), ..Default::default() }
}

fn event(sequence: u64, kind: task_event::Kind) -> TaskEvent {
    TaskEvent { task: "t_1".into(), sequence, at_ms: 1, kind: Some(kind) }
}

pub(crate) fn state(sequence: u64, state: v1::TaskState) -> TaskEvent {
    event(sequence, task_event::Kind::State(StateChange { state: state.into(), ..Default::default() }))
}

pub(crate) fn step(sequence: u64, step: u64) -> TaskEvent {
    event(sequence, task_event::Kind::Step(StepCommitted { step, ..Default::default() }))
}

pub(crate) fn token(step: u64, attempt: &str, offset: u64, tokens: u32, text: &str) -> TaskEvent {
    let chunk = TokenChunk { step, attempt: attempt.into(), offset, tokens, text: text.into() };
    event(0, task_event::Kind::Token(chunk))
}

fn broken() -> Status {
    Status::unavailable("the node goes down")
}

type Answered<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl task_service_server::TaskService for Fake {
    type WatchTaskStream = Events;

    async fn create_task(&self, request: Request<CreateTaskRequest>) -> Answered<Task> {
        self.seen.lock().unwrap().request_ids.push(request.into_inner().request_id);
        self.on_call().await?;
        Ok(Response::new(self.task()))
    }

    async fn get_task(&self, _: Request<GetTaskRequest>) -> Answered<Task> {
        self.on_call().await?;
        Ok(Response::new(self.task()))
    }

    /// Five tasks, two a page.
    async fn list_tasks(&self, request: Request<ListTasksRequest>) -> Answered<ListTasksResponse> {
        self.on_call().await?;
        let after: usize = request.into_inner().page_token.parse().unwrap_or(0);
        let end = (after + 2).min(5);
        let tasks = (after..end).map(|n| Task { id: format!("t_{}", n + 1), ..task() }).collect();
        let next_page_token = if end < 5 { end.to_string() } else { String::new() };
        Ok(Response::new(ListTasksResponse { tasks, next_page_token }))
    }

    async fn watch_task(&self, request: Request<WatchTaskRequest>) -> Answered<Events> {
        let from = request.into_inner().from_sequence;
        let script = {
            let mut seen = self.seen.lock().unwrap();
            seen.watched_from.push(from);
            let script = seen.watches.lock().unwrap().pop_front();
            script.ok_or_else(|| Status::internal("no script is left"))?
        };
        if let [Step::Refuse(status)] = script.as_slice() {
            return Err(status.clone());
        }
        // Like a real node: committed events before `from` are left out.
        let wanted =
            move |step: &Step| !matches!(step, Step::Send(e) if e.sequence != 0 && e.sequence < from);
        let moves: Vec<_> = script.into_iter().filter(wanted).filter_map(play).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(moves))))
    }

    async fn signal_task(&self, request: Request<SignalTaskRequest>) -> Answered<Task> {
        self.seen.lock().unwrap().request_ids.push(request.into_inner().request_id);
        self.on_call().await?;
        Ok(Response::new(self.task()))
    }

    async fn retry_task(&self, _: Request<RetryTaskRequest>) -> Answered<Task> {
        Ok(Response::new(self.task()))
    }

    async fn fork_task(&self, _: Request<ForkTaskRequest>) -> Answered<Task> {
        Ok(Response::new(self.task()))
    }

    async fn set_schedule(&self, request: Request<SetScheduleRequest>) -> Answered<Schedule> {
        Ok(Response::new(Schedule { name: request.into_inner().name, ..Schedule::default() }))
    }

    async fn list_schedules(&self, _: Request<ListSchedulesRequest>) -> Answered<ListSchedulesResponse> {
        Ok(Response::new(ListSchedulesResponse::default()))
    }

    async fn delete_schedule(&self, _: Request<DeleteScheduleRequest>) -> Answered<DeleteScheduleResponse> {
        Ok(Response::new(DeleteScheduleResponse {}))
    }

    async fn cancel_task(&self, _: Request<CancelTaskRequest>) -> Answered<Task> {
        Ok(Response::new(self.task()))
    }

    async fn pause_task(&self, _: Request<PauseTaskRequest>) -> Answered<Task> {
        Ok(Response::new(self.task()))
    }

    async fn resume_task(&self, _: Request<ResumeTaskRequest>) -> Answered<Task> {
        Ok(Response::new(self.task()))
    }

    async fn explain_task(&self, _: Request<ExplainTaskRequest>) -> Answered<ExplainTaskResponse> {
        Ok(Response::new(ExplainTaskResponse::default()))
    }
}

fn play(step: Step) -> Option<Result<TaskEvent, Status>> {
    match step {
        Step::Send(event) => Some(Ok(event)),
        Step::End => None,
        Step::Break => Some(Err(broken())),
        Step::Refuse(status) => Some(Err(status)),
    }
}

#[tonic::async_trait]
impl context_service_server::ContextService for Fake {
    type ReadSegmentStream = Chunks;

    async fn read_segment(&self, _: Request<ReadSegmentRequest>) -> Answered<Chunks> {
        let script = self.seen.lock().unwrap().chunks.lock().unwrap().pop_front().unwrap();
        let chunk = |text: &str| ReadSegmentResponse { chunk: text.as_bytes().to_vec(), total_bytes: 0 };
        let moves: Vec<_> = script.into_iter().map(|it| it.map(chunk).map_err(|()| broken())).collect();
        Ok(Response::new(Box::pin(futures::stream::iter(moves))))
    }

    async fn get_context(&self, _: Request<GetContextRequest>) -> Answered<Context> {
        Ok(Response::new(Context::default()))
    }

    async fn evaluate_context(
        &self,
        request: Request<EvaluateContextRequest>,
    ) -> Answered<EvaluateContextResponse> {
        self.on_call().await?;
        let asked = request.into_inner();
        Ok(Response::new(EvaluateContextResponse {
            report: format!("{:?}", asked.of),
            model: asked.model,
            tokens_spent: asked.budget_tokens,
            suggested: format!("{} {} {}", asked.audit_all, asked.suggest, asked.page),
            ..Default::default()
        }))
    }
}

#[tonic::async_trait]
impl cluster_service_server::ClusterService for Fake {
    async fn init_cluster(&self, _: Request<InitClusterRequest>) -> Answered<ClusterStatus> {
        self.on_call().await?;
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn get_cluster_status(&self, _: Request<GetClusterStatusRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Answered<ListNodesResponse> {
        Ok(Response::new(ListNodesResponse::default()))
    }

    async fn get_node(&self, _: Request<GetNodeRequest>) -> Answered<Node> {
        Ok(Response::new(Node::default()))
    }

    async fn add_voter(&self, _: Request<AddVoterRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn remove_voter(&self, _: Request<RemoveVoterRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn transfer_leader(&self, _: Request<TransferLeaderRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn remove_node(&self, _: Request<RemoveNodeRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn raise_level(&self, _: Request<RaiseLevelRequest>) -> Answered<ClusterStatus> {
        Ok(Response::new(ClusterStatus::default()))
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Answered<ListModelsResponse> {
        Ok(Response::new(ListModelsResponse::default()))
    }

    async fn cordon_node(&self, _: Request<CordonNodeRequest>) -> Answered<Node> {
        Ok(Response::new(Node::default()))
    }

    async fn uncordon_node(&self, _: Request<UncordonNodeRequest>) -> Answered<Node> {
        Ok(Response::new(Node::default()))
    }

    async fn drain_node(&self, _: Request<DrainNodeRequest>) -> Answered<Node> {
        Ok(Response::new(Node::default()))
    }

    async fn list_audit_events(
        &self,
        _: Request<ListAuditEventsRequest>,
    ) -> Answered<ListAuditEventsResponse> {
        Ok(Response::new(ListAuditEventsResponse::default()))
    }

    type SnapshotClusterStream =
        std::pin::Pin<Box<dyn futures::Stream<Item = Result<SnapshotClusterResponse, Status>> + Send>>;

    /// A backup that is cut off before its summary.
    async fn snapshot_cluster(
        &self,
        _: Request<SnapshotClusterRequest>,
    ) -> Answered<Self::SnapshotClusterStream> {
        let part = SnapshotClusterResponse { data: b"part".to_vec(), summary: None };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(part)]))))
    }
}
