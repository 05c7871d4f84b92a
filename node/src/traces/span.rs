//! A span, as plain values.

/// 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TraceId(pub(crate) [u8; 16]);

/// 8 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SpanId(pub(crate) [u8; 8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Internal,
    /// Answers somebody outside.
    Server,
    /// Asks somebody outside.
    Client,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    Number(i64),
    Real(f64),
    Texts(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) trace: TraceId,
    pub(crate) id: SpanId,
    pub(crate) parent: Option<SpanId>,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Unix nanoseconds, both.
    pub(crate) start_ns: u64,
    pub(crate) end_ns: u64,
    pub(crate) attributes: Vec<(&'static str, Value)>,
    /// Spans of the same trace that came before and are no parents.
    pub(crate) links: Vec<SpanId>,
    pub(crate) failed: bool,
}

/// When it began and ended, Unix nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) begun_ns: u64,
    pub(crate) ended_ns: u64,
}

impl Span {
    pub(super) fn new(
        trace: TraceId,
        id: SpanId,
        parent: Option<SpanId>,
        name: String,
        times: Times,
    ) -> Span {
        Span {
            trace,
            id,
            parent,
            name,
            kind: Kind::Internal,
            start_ns: times.begun_ns,
            // A clock may have been set back meanwhile.
            end_ns: times.ended_ns.max(times.begun_ns),
            attributes: Vec::new(),
            links: Vec::new(),
            failed: false,
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<Value>) -> Span {
        self.attributes.push((name, value.into()));
        self
    }

    /// Nothing is said of what is not known.
    pub(crate) fn with_some(self, name: &'static str, value: Option<impl Into<Value>>) -> Span {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// It ended badly, for this reason: a stable word.
    pub(crate) fn failed_by(mut self, reason: Option<&str>) -> Span {
        self.failed = reason.is_some();
        self.with_some(super::genai::ERROR_TYPE, reason.map(word))
    }
}

/// A reason as it may stand in a trace. Programs of users give reasons, too: what isn't short and plain is not passed on.
pub(crate) fn word(reason: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if (1..=64).contains(&reason.len()) && reason.chars().all(plain) { reason } else { "_OTHER" }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_string())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Real(number)
    }
}
