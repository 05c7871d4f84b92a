//! Traces of real processes, at a collector of the test: one whole tree for a task whose node is killed, the caller's
//! own trace, and a collector that is not there.

use crate::support::*;
use crate::tools::{Noted, sink, turns};
use anyhow::{Context, ensure};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use proto::v1 as pb;
use quorate_tests::cluster::binary;
use quorate_tests::secured::Secured;
use quorate_tests::{Cluster, Spec, until};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncReadExt;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// Few enough that no event of the task is forgotten.
const TURNS: usize = 12;
/// In the system prompt, the input, and every answer of the model.
const CANARY: &str = "xyzzy-tangerine-0815";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Keeps what it is sent.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().expect("no panic while held").push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    async fn start() -> anyhow::Result<(Collector, SocketAddr)> {
        Collector::serve(Server::builder())
    }

    fn serve(mut server: Server) -> anyhow::Result<(Collector, SocketAddr)> {
        let collector = Collector::default();
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse()?)?;
        let address = incoming.local_addr()?;
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(server.add_service(service).serve_with_incoming(incoming));
        Ok((collector, address))
    }

    fn requests(&self) -> Vec<ExportTraceServiceRequest> {
        self.0.lock().expect("no panic while held").clone()
    }

    /// Spans of a trace, once each; one that came twice must have been the same.
    fn trace(&self, id: &str) -> anyhow::Result<Vec<Span>> {
        let mut spans: BTreeMap<Vec<u8>, Span> = BTreeMap::new();
        for span in spans_of(&self.requests()).filter(|span| hex(&span.trace_id) == id) {
            if let Some(known) = spans.insert(span.span_id.clone(), span.clone()) {
                ensure!(known == *span, "one name, two spans: {known:?} {span:?}");
            }
        }
        Ok(spans.into_values().collect())
    }

    /// Waits until a task's first steps were told.
    async fn some_calls(&self) -> anyhow::Result<()> {
        until("calls at the collector", PATIENCE, || async {
            let third = |span: &Span| matches!(value(span, "quorate.step"), Some(Value::IntValue(3..)));
            let requests = self.requests();
            spans_of(&requests).any(|span| span.name.starts_with("chat ") && third(span)).then_some(())
        })
        .await
    }

    /// The trace with this task's own span in it, once that came and all its steps.
    async fn of_task(&self, uid: &str, steps: u64) -> anyhow::Result<Vec<Span>> {
        until("the trace of the task", PATIENCE, || async {
            let requests = self.requests();
            let own = spans_of(&requests).find(|span| {
                span.name.starts_with("invoke_agent ") && text(span, "quorate.task").as_deref() == Some(uid)
            })?;
            let trace = self.trace(&hex(&own.trace_id)).ok()?;
            (named(&trace, "step ").len() as u64 >= steps).then_some(trace)
        })
        .await
    }
}

fn spans_of(requests: &[ExportTraceServiceRequest]) -> impl Iterator<Item = &Span> {
    let scopes = requests.iter().flat_map(|it| &it.resource_spans).flat_map(|it| &it.scope_spans);
    scopes.flat_map(|it| &it.spans)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn value(span: &Span, name: &str) -> Option<Value> {
    span.attributes.iter().find(|it| it.key == name)?.value.as_ref()?.value.clone()
}

fn text(span: &Span, name: &str) -> Option<String> {
    match value(span, name)? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn named<'a>(spans: &'a [Span], beginning: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name.starts_with(beginning)).collect()
}

/// Everything but the one root has its parent in the trace, and has begun and ended.
fn check_whole(spans: &[Span], root: &Span) -> anyhow::Result<()> {
    let ids: BTreeSet<&[u8]> = spans.iter().map(|span| &span.span_id[..]).collect();
    for span in spans.iter().filter(|span| span.span_id != root.span_id) {
        ensure!(ids.contains(&span.parent_span_id[..]), "no parent of {span:#?}");
    }
    for span in spans {
        let closed = span.start_time_unix_nano > 0 && span.end_time_unix_nano >= span.start_time_unix_nano;
        ensure!(closed && span.trace_id == root.trace_id, "{span:#?}");
    }
    Ok(())
}

fn check_attributes(span: &Span, names: &[&str]) -> anyhow::Result<()> {
    for name in names {
        ensure!(value(span, name).is_some(), "{name} is not in {span:#?}");
    }
    Ok(())
}

/// What the model says holds the canary.
fn traced(noted: &Noted, address: SocketAddr) -> Spec {
    let script = turns("clerk", "sink.put", TURNS, 60);
    let script = script.replace("I go on.", &format!("I go on: {CANARY}."));
    let everywhere = format!("[traces]\notlp_endpoint = \"http://{address}\"\n");
    Spec { more: sink(&noted.file()), everywhere, ..spec(&[script]) }
}

fn with_canary() -> String {
    format!("max_steps = 64\nsystem = 'Say {CANARY}.'\ntools = ['sink.put']")
}

#[tokio::test]
async fn one_whole_trace_across_a_failover() -> anyhow::Result<()> {
    let (noted, (collector, address)) = (Noted::new()?, Collector::start().await?);
    on_cluster(traced(&noted, address), async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", &with_canary()).await?;
        let uid = client.tasks().create("clerk").input(format!("Note {CANARY}.")).send().await?.uid;
        // What a node has told survives it.
        collector.some_calls().await?;
        let victim = client.tasks().get(&uid).await?.node.context("a node has it")?;
        cluster.node_mut(&victim)?.kill()?;
        let done = succeeded(&client, &uid).await?;
        let trace = collector.of_task(&uid, done.step).await?;
        // Calls of the killed node came before its death, those of the other one with the task's end.
        let trace = until("all calls", PATIENCE, || async {
            let trace = collector.trace(&hex(&trace[0].trace_id)).ok()?;
            (last_call(&trace) && named(&trace, "quorate.").len() == 1).then_some(trace)
        })
        .await?;
        check_failover(&trace, done.step)?;
        let sent = format!("{:?}", collector.requests());
        ensure!(!sent.contains(CANARY), "a text is in the traces");
        ensure!(noted.of(&uid)?.len() == TURNS, "the tool was called");
        counted(cluster, &victim).await
    })
    .await
}

/// The model's last call, which has the answer, was told.
fn last_call(trace: &[Span]) -> bool {
    let steps = named(trace, "step ").len();
    let of_last = |span: &&&Span| value(span, "quorate.step") == Some(Value::IntValue(steps as i64));
    named(trace, "chat ").iter().filter(of_last).count() > 0
}

fn check_steps(trace: &[Span], steps: u64) -> anyhow::Result<()> {
    let told: BTreeSet<String> = named(trace, "step ").iter().map(|span| span.name.clone()).collect();
    ensure!(told == (1..=steps).map(|step| format!("step {step}")).collect(), "{told:?} of {steps}");
    Ok(())
}

fn root(trace: &[Span]) -> anyhow::Result<&Span> {
    let roots: Vec<&Span> = trace.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    ensure!(roots.len() == 1 && roots[0].name == "invoke_agent clerk", "{roots:#?}");
    Ok(roots[0])
}

fn check_failover(trace: &[Span], steps: u64) -> anyhow::Result<()> {
    let task = root(trace)?;
    check_whole(trace, task)?;
    check_steps(trace, steps)?;
    let leases = named(trace, "lease");
    ensure!(leases.len() == 2, "{leases:#?}");
    let (lost, other): (Vec<&Span>, Vec<&Span>) =
        leases.into_iter().partition(|lease| text(lease, "error.type").as_deref() == Some("node-lost"));
    ensure!(lost.len() == 1 && other.len() == 1 && other[0].links.len() == 1, "{lost:#?} {other:#?}");
    ensure!(other[0].links[0].span_id == lost[0].span_id, "the second lease is linked to the lost one");
    ensure!(text(lost[0], "quorate.node") != text(other[0], "quorate.node"), "{lost:#?} {other:#?}");
    let below = |lease: &Span, what: &str| {
        named(trace, what).iter().filter(|span| span.parent_span_id == lease.span_id).count()
    };
    ensure!(below(other[0], "chat ") > 0 && below(other[0], "execute_tool ") > 0, "the other node's calls");
    ensure!(below(lost[0], "chat ") > 0 && below(lost[0], "step ") > 0, "the killed node's calls");
    for call in named(trace, "chat ") {
        check_attributes(call, &["gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model"])?;
        check_attributes(call, &["gen_ai.response.finish_reasons", "gen_ai.usage.input_tokens"])?;
        check_attributes(call, &["gen_ai.usage.output_tokens", "quorate.step", "quorate.epoch"])?;
    }
    for call in named(trace, "execute_tool ") {
        check_attributes(call, &["gen_ai.operation.name", "gen_ai.tool.name", "gen_ai.tool.call.id"])?;
    }
    check_attributes(task, &["gen_ai.operation.name", "gen_ai.agent.name", "gen_ai.provider.name"])
}

/// Nothing was lost on the way, and every node says so from its start.
async fn counted(cluster: &Cluster, killed: &str) -> anyhow::Result<()> {
    let mut sent = 0.0;
    for node in cluster.nodes.iter().filter(|node| node.name != killed) {
        let count = async |outcome: &str| {
            let line = format!("quorate_trace_spans_total{{outcome=\"{outcome}\"}}");
            metric(node, &line).await?.with_context(|| format!("{} has no {line}", node.name))
        };
        ensure!(count("dropped").await? == 0.0 && count("failed").await? == 0.0, "{} lost spans", node.name);
        sent += count("sent").await?;
    }
    ensure!(sent > 0.0, "spans were sent and not counted");
    Ok(())
}

/// What the ledger records is told by the leader; another one goes on where it stopped.
#[tokio::test]
async fn a_killed_leader_leaves_no_gap() -> anyhow::Result<()> {
    let (noted, (collector, address)) = (Noted::new()?, Collector::start().await?);
    on_cluster(Spec { workers: 1, ..traced(&noted, address) }, async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", &with_canary()).await?;
        let uid = client.tasks().create("clerk").input("go").send().await?.uid;
        collector.some_calls().await?;
        let leader = cluster.leader().await?;
        cluster.node_mut(&leader)?.kill()?;
        let done = succeeded(&client, &uid).await?;
        let trace = collector.of_task(&uid, done.step).await?;
        check_whole(&trace, root(&trace)?)?;
        check_steps(&trace, done.step)
    })
    .await
}

#[tokio::test]
async fn a_callers_trace_is_gone_on_with() -> anyhow::Result<()> {
    let (noted, (collector, address)) = (Noted::new()?, Collector::start().await?);
    on_cluster(Spec { workers: 1, ..traced(&noted, address) }, async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", "max_steps = 64\ntools = ['sink.put']").await?;
        let endpoint = cluster.nodes[0].endpoint();
        let mut tasks = pb::task_service_client::TaskServiceClient::connect(endpoint).await?;
        let message = pb::CreateTaskRequest {
            agent: "clerk".into(),
            inputs: vec![pb::Input { name: "go".into(), text: "go".into() }],
            ..Default::default()
        };
        let mut request = Request::new(message);
        request.metadata_mut().insert("traceparent", TRACEPARENT.parse()?);
        let uid = tasks.create_task(request).await?.into_inner().uid;
        let done = succeeded(&client, &uid).await?;
        let trace = collector.of_task(&uid, done.step).await?;
        let mine = &TRACEPARENT[3..35];
        let trace = until("the request's span", PATIENCE, || async {
            let trace = collector.trace(&hex(&trace[0].trace_id)).ok()?;
            (named(&trace, "quorate.").len() == 1).then_some(trace)
        })
        .await?;
        ensure!(trace.iter().all(|span| hex(&span.trace_id) == mine), "{trace:#?}");
        let outside: Vec<&str> = trace
            .iter()
            .filter(|span| hex(&span.parent_span_id) == TRACEPARENT[36..52])
            .map(|span| span.name.split('/').next_back().unwrap_or_default())
            .collect();
        ensure!(outside.len() == 2, "the request and the task are below the caller's span: {outside:?}");
        ensure!(outside.contains(&"CreateTask") && outside.contains(&"invoke_agent clerk"), "{outside:?}");
        Ok(())
    })
    .await
}

/// An answer of our own engine: set aside, in line, read, said; each begins where the one before ended.
#[tokio::test]
async fn what_our_engine_answers_is_told_by_its_parts() -> anyhow::Result<()> {
    crate::real_model::model_file()?;
    let (collector, address) = Collector::start().await?;
    let everywhere = format!("[traces]\notlp_endpoint = \"http://{address}\"\n");
    let models = vec!["smollm2".to_string()];
    on_cluster(Spec { workers: 1, coordinators: 1, models, everywhere, ..Spec::default() }, async |cluster| {
        let client = cluster.client()?;
        client.agents().apply("name = 'clerk'\nmodel = 'smollm2'\nmax_tokens = 6\n").send().await?;
        let uid = client.tasks().create("clerk").input(CANARY).send().await?.uid;
        let done = succeeded(&client, &uid).await?;
        let trace = collector.of_task(&uid, done.step).await?;
        // Steps are told by another node than calls.
        let trace = until("the call and its parts", PATIENCE, || async {
            let trace = collector.trace(&hex(&trace[0].trace_id)).ok()?;
            let call = named(&trace, "chat ").first().copied()?.span_id.clone();
            (trace.iter().filter(|span| span.parent_span_id == call).count() >= 4).then_some(trace)
        })
        .await?;
        let prefill = check_parts(&trace, named(&trace, "chat ")[0])?;
        check_attributes(prefill, &["gen_ai.usage.input_tokens", "gen_ai.usage.cache_read.input_tokens"])?;
        a_request_stands_in_its_callers_trace(cluster, &collector).await
    })
    .await
}

/// Where a call's time went, without a gap; answers the third part.
fn check_parts<'a>(trace: &'a [Span], call: &Span) -> anyhow::Result<&'a Span> {
    let mut parts: Vec<&Span> = trace.iter().filter(|span| span.parent_span_id == call.span_id).collect();
    parts.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
    let names: Vec<&str> = parts.iter().map(|span| span.name.as_str()).collect();
    ensure!(names == ["reserve", "queue", "prefill", "decode"], "{parts:#?}");
    let begun = parts.iter().map(|span| span.start_time_unix_nano).chain([call.end_time_unix_nano]);
    let ended = parts.iter().map(|span| span.end_time_unix_nano);
    ensure!(begun.eq([call.start_time_unix_nano].into_iter().chain(ended)), "{parts:#?} of {call:#?}");
    Ok(parts[2])
}

/// OpenAI's API: asked at one node, answered at another, told once, below the caller's span.
async fn a_request_stands_in_its_callers_trace(
    cluster: &Cluster,
    collector: &Collector,
) -> anyhow::Result<()> {
    let messages = serde_json::json!([{ "role": "user", "content": CANARY }]);
    let body = serde_json::json!({ "model": "smollm2", "messages": messages, "max_tokens": 5 }).to_string();
    let header = format!("traceparent: {TRACEPARENT}\r\n");
    let path = "/v1/chat/completions";
    let mut answer = String::new();
    let mut open = crate::front::send_with(&cluster.nodes[0], &header, "POST", path, &body).await?;
    tokio::time::timeout(PATIENCE, open.read_to_string(&mut answer)).await.context("an answer in time")??;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let trace = until("the request's span", PATIENCE, || async {
        collector.trace(&TRACEPARENT[3..35]).ok().filter(|trace| !named(trace, "chat ").is_empty())
    })
    .await?;
    let call = named(&trace, "chat ")[0];
    check_parts(&trace, call)?;
    ensure!(trace.len() == 5 && hex(&call.parent_span_id) == TRACEPARENT[36..52], "{trace:#?}");
    check_attributes(call, &["gen_ai.operation.name", "gen_ai.request.model", "gen_ai.usage.output_tokens"])?;
    check_attributes(call, &["gen_ai.response.finish_reasons", "quorate.project", "quorate.node"])?;
    ensure!(!format!("{:?}", collector.requests()).contains(CANARY), "a text is in the traces");
    Ok(())
}

/// A collector elsewhere is known by a CA; one that another CA vouches for gets nothing.
#[tokio::test]
async fn a_collector_is_known_by_its_certificate() -> anyhow::Result<()> {
    let (noted, folder) = (Noted::new()?, tempfile::tempdir()?);
    let (binary, of) = (binary()?, |name: &str| folder.path().join(name));
    let (theirs, others) = (Secured::make(&binary, of("theirs"))?, Secured::make(&binary, of("others"))?);
    theirs.node("collector")?;
    let file = |ending: &str| std::fs::read(folder.path().join(format!("theirs/collector.{ending}")));
    let identity = Identity::from_pem(file("crt")?, file("key")?);
    let server = Server::builder().tls_config(ServerTlsConfig::new().identity(identity))?;
    let (collector, address) = Collector::serve(server)?;
    for (ca, outcome) in [(theirs.ca_file(), "sent"), (others.ca_file(), "failed")] {
        let everywhere = format!("[traces]\notlp_endpoint = \"https://{address}\"\notlp_ca = {ca:?}\n");
        on_cluster(
            Spec { coordinators: 1, workers: 1, everywhere, ..traced(&noted, address) },
            async |cluster| {
                let client = cluster.client()?;
                apply_with(&client, "clerk", "max_steps = 64\ntools = ['sink.put']").await?;
                let before = collector.requests().len();
                let uid = client.tasks().create("clerk").input("go").send().await?.uid;
                succeeded(&client, &uid).await?;
                let worker = cluster.nodes.last().context("a worker")?;
                let line = format!("quorate_trace_spans_total{{outcome=\"{outcome}\"}}");
                until("spans are counted", PATIENCE, || async {
                    metric(worker, &line).await.ok()??.gt(&0.0).then_some(())
                })
                .await?;
                ensure!((collector.requests().len() > before) == (outcome == "sent"), "{outcome}");
                Ok(())
            },
        )
        .await?;
    }
    Ok(())
}

/// Nobody listens at the address; tasks don't notice.
#[tokio::test]
async fn a_missing_collector_harms_nobody() -> anyhow::Result<()> {
    let noted = Noted::new()?;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    on_cluster(Spec { workers: 1, ..traced(&noted, nobody) }, async |cluster| {
        let client = cluster.client()?;
        apply_with(&client, "clerk", "max_steps = 64\ntools = ['sink.put']").await?;
        let uid = client.tasks().create("clerk").input("go").send().await?.uid;
        succeeded(&client, &uid).await?;
        let worker = cluster.nodes.last().context("a worker")?;
        until("lost spans are counted", PATIENCE, || async {
            let failed = metric(worker, "quorate_trace_spans_total{outcome=\"failed\"}").await.ok()??;
            (failed > 0.0).then_some(())
        })
        .await?;
        let told = worker.log().matches("the collector of traces takes nothing").count();
        ensure!(told == 1, "the log says it {told} times");
        Ok(())
    })
    .await
}
