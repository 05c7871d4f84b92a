//! Either wire form: bytes of a body in, an answer out. Pure.

use crate::answer::{Failure, Finish, Heard, Piece, Reason};
use crate::bounds::{BODY_BYTES, REQUEST_BYTES};
use crate::endpoint::{Endpoint, Kind};
use crate::gather::{Broken, Gather};
use crate::request::Request;
use crate::sse::Reader;
use crate::tool_names::ToolNames;
use crate::usage::Reported;
use crate::{anthropic, openai};
use serde_json::Value;

/// A request's body, the same bytes for the same request in every build.
pub(crate) fn body(endpoint: &Endpoint, request: &Request) -> Result<String, Failure> {
    let body = match endpoint.kind {
        Kind::OpenAi => openai::body(endpoint, request),
        Kind::Anthropic => anthropic::body(endpoint, request),
    };
    let body = canonical(&body);
    if body.len() > REQUEST_BYTES {
        let message = format!(
            "the request has {} bytes, at most {REQUEST_BYTES} are sent; give the agent less text",
            body.len()
        );
        return Err(Failure::lasting(Reason::ContextTooLong, message));
    }
    Ok(body)
}

/// JSON with sorted keys, whatever order the library keeps.
fn canonical(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort_unstable();
            let fields =
                keys.into_iter().map(|key| format!("{}:{}", Value::from(key.as_str()), canonical(&map[key])));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(canonical).collect::<Vec<_>>().join(","))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// How a body comes.
enum Form {
    Stream(Reader),
    Whole(Vec<u8>),
}

/// Takes one body apart.
pub(crate) struct Parser {
    kind: Kind,
    form: Form,
    gather: Gather,
    bytes: usize,
}

/// A whole answer, its usage not judged yet.
#[derive(Debug)]
pub(crate) struct Gathered {
    pub(crate) heard: Heard,
    pub(crate) finish: Finish,
    pub(crate) reported: Reported,
    pub(crate) provider_id: Option<String>,
}

impl Parser {
    /// `content_type` is the answer's, which decides: not every server streams when it is asked to.
    pub(crate) fn new(kind: Kind, content_type: &str, names: ToolNames) -> Self {
        let is_stream = content_type.trim_start().to_ascii_lowercase().starts_with("text/event-stream");
        let form = if is_stream { Form::Stream(Reader::default()) } else { Form::Whole(Vec::new()) };
        Parser { kind, form, gather: Gather::new(names), bytes: 0 }
    }

    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.form, Form::Stream(_))
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        self.bytes += bytes.len();
        if self.bytes > BODY_BYTES {
            let message = format!("it has more than {BODY_BYTES} bytes");
            return Err(Broken { reason: Reason::TooLarge, message });
        }
        match &mut self.form {
            Form::Whole(body) => body.extend_from_slice(bytes),
            Form::Stream(reader) => {
                let events = reader.push(bytes).map_err(|error| Broken::new(error.to_string()))?;
                for event in events {
                    if self.gather.ended {
                        break;
                    }
                    match self.kind {
                        Kind::OpenAi => openai::event(&mut self.gather, &event.data)?,
                        Kind::Anthropic => anthropic::event(&mut self.gather, &event.data)?,
                    }
                }
            }
        }
        Ok(())
    }

    /// The stream said that it is over.
    pub(crate) fn has_ended(&self) -> bool {
        self.gather.ended
    }

    pub(crate) fn take_pieces(&mut self) -> Vec<Piece> {
        self.gather.take_pieces()
    }

    pub(crate) fn take_moved(&mut self) -> bool {
        self.gather.take_moved()
    }

    pub(crate) fn heard(&self) -> Heard {
        self.gather.heard()
    }

    /// No more bytes will come. None: the answer is not whole.
    pub(crate) fn end(&mut self) -> Result<Option<Gathered>, Broken> {
        if let Form::Whole(body) = &mut self.form {
            let body = std::mem::take(body);
            match self.kind {
                Kind::OpenAi => openai::whole(&mut self.gather, &body)?,
                Kind::Anthropic => anthropic::whole(&mut self.gather, &body)?,
            }
        }
        self.gather.end_calls()?;
        let heard = self.gather.heard();
        // Some servers do not say why they ended, only that they did.
        let finish = self.gather.finish.or((self.gather.ended && !heard.is_empty()).then_some(Finish::Stop));
        Ok(finish.map(|finish| Gathered {
            heard,
            finish,
            reported: self.gather.reported,
            provider_id: self.gather.provider_id.clone(),
        }))
    }
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod wire_test;
