//! The layer around all public services: asks who calls, tells the handlers, counts.

use super::Access;
use super::until::until;
use crate::telemetry::names;
use crate::tls::accept::Peer;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::{Service, http};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The layer around all public services.
pub(crate) type Layer = tower::layer::util::Stack<Guard, tower::layer::util::Identity>;

pub(crate) fn layer(access: Access) -> Guard {
    Guard { access: Arc::new(access) }
}

#[derive(Clone)]
pub(crate) struct Guard {
    access: Arc<Access>,
}

impl<S> tower::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { access: self.access.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Guarded<S> {
    access: Arc<Access>,
    inner: S,
}

impl<S> Service<http::Request<Body>> for Guarded<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let peer = request.extensions().get::<Peer>();
        match self.access.check(request.uri().path(), request.headers(), peer) {
            Ok(identity) => {
                let is_stream = STREAMS.iter().any(|stream| request.uri().path().ends_with(stream));
                let revoked = is_stream.then(|| self.access.revoked(request.headers(), &identity)).flatten();
                // From here on nothing needs the key, so nothing can show it.
                request.headers_mut().remove(AUTHORIZATION);
                request.extensions_mut().insert(identity);
                let counted = Counted::begin(request.uri().path());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let response = answer.await?;
                    counted.end(&response);
                    let response = too_large(&response).map_or(response, Status::into_http);
                    Ok(match revoked {
                        Some(revoked) => response.map(|body| until(body, revoked)),
                        None => response,
                    })
                })
            }
            Err(status) => {
                count_refused(&status);
                Box::pin(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// A request over the limit is refused below the handlers; here it gets its next step.
fn too_large(response: &http::Response<Body>) -> Option<Status> {
    let status = Status::from_header_map(response.headers())?;
    let over = status.code() == Code::OutOfRange && status.message().contains("length too large");
    let next = "send at most 8 MiB in one request: cut inputs into several, or make several tasks";
    over.then(|| super::super::status::error(Code::OutOfRange, "REQUEST_TOO_LARGE", status.message(), next))
}

/// Methods whose duration says how long someone watched, not how long the node worked.
const STREAMS: &[&str] =
    &["WatchTask", "WatchQuotas", "ReadSegment", "ServeTools", "ServerReflectionInfo", "Health/Watch"];

fn count_refused(status: &Status) {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    metrics::counter!(names::REQUESTS_REFUSED_TOTAL, "reason" => reason).increment(1);
}

/// One call, for the metrics. Only methods of the table get here, so the label is bounded.
struct Counted {
    method: String,
    begun: Instant,
}

impl Counted {
    fn begin(path: &str) -> Self {
        Counted { method: path.trim_start_matches('/').to_string(), begun: Instant::now() }
    }

    /// An error before the first message is in the headers; later ones belong to streams and are not seen here.
    fn end(self, response: &http::Response<Body>) {
        let code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
        let labels = [("method", self.method.clone()), ("code", format!("{code:?}"))];
        metrics::counter!(names::REQUESTS_TOTAL, &labels).increment(1);
        let is_stream = STREAMS.iter().any(|stream| self.method.ends_with(stream));
        if !is_stream {
            let seconds = self.begun.elapsed().as_secs_f64();
            metrics::histogram!(names::REQUEST_SECONDS, "method" => self.method).record(seconds);
        }
    }
}
