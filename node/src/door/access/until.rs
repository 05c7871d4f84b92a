//! Streams live for days; a key may not. The answer to a call ends when its key is taken away.

use http_body::Frame;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::HeaderMap;

/// A body that is cut off, with a status that says why.
pub(super) struct Until<F> {
    inner: Body,
    over: Option<Pin<Box<F>>>,
}

pub(super) fn until<F: Future<Output = ()> + Send + 'static>(inner: Body, over: F) -> Body {
    Body::new(Until { inner, over: Some(Box::pin(over)) })
}

impl<F: Future<Output = ()>> http_body::Body for Until<F> {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        if over.as_mut().poll(cx).is_ready() {
            self.over = None;
            let next = "ask an admin for a key, and go on where the stream ended";
            let status = super::stranger("the API key was taken away, or it has expired", next);
            let mut trailers = HeaderMap::new();
            status.add_header(&mut trailers)?;
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        Poll::Ready(ready!(Pin::new(&mut self.inner).poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.over.is_none() || self.inner.is_end_stream()
    }
}
