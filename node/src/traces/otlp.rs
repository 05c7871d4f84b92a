//! Spans to a collector, with OTLP over gRPC. One task sends, in batches; nobody waits for it.

use super::span::{Kind, Span, Value};
use super::{Order, count, genai};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value,
};
use opentelemetry_proto::tonic::resource::v1 as resource;
use opentelemetry_proto::tonic::trace::v1 as pb;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::{Channel, Endpoint};
use types::ClusterId;

/// Groups of spans that wait to be sent.
const WAITING: usize = 4096;
/// Spans in one message, about.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_millis(200);
/// One try to send.
const SEND: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// Who says it.
#[derive(Clone)]
pub(super) struct Resource {
    pub(super) node: String,
    pub(super) cluster: ClusterId,
}

pub(super) fn start(endpoint: Endpoint, from: Resource) -> mpsc::Sender<Order> {
    let (orders, waiting) = mpsc::channel(WAITING);
    let client = TraceServiceClient::new(endpoint.connect_timeout(SEND).connect_lazy());
    tokio::spawn(run(waiting, Sender { client, from, silent: false }));
    orders
}

async fn run(mut orders: mpsc::Receiver<Order>, mut sender: Sender) {
    while let Some(first) = orders.recv().await {
        let (mut spans, mut flushed) = (Vec::new(), None);
        let until = Instant::now() + GATHER;
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Order::Spans(more) => spans.extend(more),
                Order::Flush(done) => flushed = Some(done),
            }
            let full = spans.len() >= BATCH || flushed.is_some();
            next = if full { None } else { timeout_at(until, orders.recv()).await.ok().flatten() };
        }
        sender.send(&spans).await;
        if let Some(done) = flushed {
            let _ = done.send(());
        }
    }
}

struct Sender {
    client: TraceServiceClient<Channel>,
    from: Resource,
    /// The collector did not answer, and that was said.
    silent: bool,
}

impl Sender {
    async fn send(&mut self, spans: &[Span]) {
        if spans.is_empty() {
            return;
        }
        let request = request(&self.from, spans);
        let mut why = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            match timeout(SEND, self.client.export(request.clone())).await {
                Ok(Ok(answer)) => return self.sent(spans.len(), answer.into_inner().partial_success),
                Ok(Err(status)) => why = format!("{:?}: {}", status.code(), status.message()),
                Err(_) => why = format!("no answer within {} s", SEND.as_secs()),
            }
        }
        count("failed", spans.len() as u64);
        if !std::mem::replace(&mut self.silent, true) {
            tracing::warn!(
                why,
                spans = spans.len(),
                "the collector of traces takes nothing; spans are lost until it does"
            );
        }
    }

    fn sent(
        &mut self,
        spans: usize,
        partial: Option<opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess>,
    ) {
        let refused = partial.map_or(0, |partial| partial.rejected_spans.clamp(0, spans as i64) as u64);
        count("failed", refused);
        count("sent", spans as u64 - refused);
        if std::mem::take(&mut self.silent) {
            tracing::info!("the collector of traces answers again");
        }
    }
}

fn request(from: &Resource, spans: &[Span]) -> ExportTraceServiceRequest {
    let attributes = vec![
        attribute("service.name", &Value::from("quorate")),
        attribute("service.version", &Value::from(env!("CARGO_PKG_VERSION"))),
        attribute("service.namespace", &Value::from(from.cluster.to_string())),
        attribute("service.instance.id", &Value::from(from.node.as_str())),
    ];
    let scope = InstrumentationScope {
        name: "quorate".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..Default::default()
    };
    let spans = pb::ScopeSpans {
        scope: Some(scope),
        spans: spans.iter().map(span).collect(),
        schema_url: genai::SCHEMA.into(),
    };
    let resource = resource::Resource { attributes, ..Default::default() };
    let resource_spans =
        vec![pb::ResourceSpans { resource: Some(resource), scope_spans: vec![spans], ..Default::default() }];
    ExportTraceServiceRequest { resource_spans }
}

fn span(span: &Span) -> pb::Span {
    let kind = match span.kind {
        Kind::Internal => pb::span::SpanKind::Internal,
        Kind::Server => pb::span::SpanKind::Server,
        Kind::Client => pb::span::SpanKind::Client,
    };
    let link = |id: &super::span::SpanId| pb::span::Link {
        trace_id: span.trace.0.to_vec(),
        span_id: id.0.to_vec(),
        ..Default::default()
    };
    let code = if span.failed { pb::status::StatusCode::Error } else { pb::status::StatusCode::Unset };
    pb::Span {
        trace_id: span.trace.0.to_vec(),
        span_id: span.id.0.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.0.to_vec()).unwrap_or_default(),
        name: span.name.clone(),
        kind: kind as i32,
        start_time_unix_nano: span.start_ns,
        end_time_unix_nano: span.end_ns,
        attributes: span.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        links: span.links.iter().map(link).collect(),
        status: Some(pb::Status { message: String::new(), code: code as i32 }),
        // Recorded on purpose; the parent may be anywhere.
        flags: 1,
        ..Default::default()
    }
}

fn attribute(name: &str, value: &Value) -> KeyValue {
    KeyValue { key: name.into(), value: Some(any(value)), ..Default::default() }
}

fn any(value: &Value) -> AnyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.clone()),
        Value::Number(number) => any_value::Value::IntValue(*number),
        Value::Real(number) => any_value::Value::DoubleValue(*number),
        Value::Texts(texts) => any_value::Value::ArrayValue(ArrayValue {
            values: texts.iter().map(|text| any(&Value::Text(text.clone()))).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}
