//! How an answer is to be made: what both kinds of requests share.

use super::super::error::Failure;
use super::pieces::Texts;
use serde::Deserialize;
use serde_json::value::RawValue;
use worker_inference::Sampling;

/// The most likely tokens that can be told beside each chosen one.
const TOP_LOGPROBS_MAX: u32 = 20;
/// Stop strings of one request, and bytes of each.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
/// Bytes of one JSON schema.
pub(super) const SCHEMA_BYTES_MAX: usize = 64 << 10;

/// How an answer is to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Tokens of the answer at most; None: what the request's kind and the window leave.
    pub max_tokens: Option<u32>,
    pub min_tokens: u32,
    pub sampling: Sampling,
    pub stop: Vec<String>,
    pub ignore_eos: bool,
    /// Tell the logarithm of each chosen token's probability, and of so many likeliest beside it.
    pub logprobs: Option<u32>,
    pub stream: bool,
    /// End a stream with its usage.
    pub include_usage: bool,
    pub form: Form,
}

/// What the answer must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this schema.
    JsonSchema(String),
}

#[derive(Deserialize)]
struct Fields<'a> {
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    min_tokens: Option<u32>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    min_p: Option<f32>,
    seed: Option<i64>,
    frequency_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    n: Option<u32>,
    stop: Option<Texts>,
    ignore_eos: Option<bool>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    #[serde(borrow)]
    response_format: Option<ResponseFormat<'a>>,
    #[serde(borrow)]
    logit_bias: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Deserialize)]
struct ResponseFormat<'a> {
    r#type: String,
    #[serde(borrow)]
    json_schema: Option<JsonSchema<'a>>,
}

#[derive(Deserialize)]
struct JsonSchema<'a> {
    #[serde(borrow)]
    schema: Option<&'a RawValue>,
}

impl Settings {
    /// The shared fields of a body. `logprobs` has another shape in each kind and is not read here.
    pub(super) fn parse(body: &[u8]) -> Result<Settings, Failure> {
        let fields: Fields<'_> = super::from_json(body)?;
        refuse_the_absent(&fields)?;
        let stream = fields.stream.unwrap_or(false);
        let wants_usage = |options: &StreamOptions| options.include_usage == Some(true);
        Ok(Settings {
            max_tokens: max_tokens(&fields)?,
            min_tokens: fields.min_tokens.unwrap_or(0),
            sampling: sampling(&fields)?,
            ignore_eos: fields.ignore_eos.unwrap_or(false),
            logprobs: None,
            stream,
            include_usage: stream && fields.stream_options.as_ref().is_some_and(wants_usage),
            form: form(fields.response_format.as_ref())?,
            stop: stops(fields.stop)?,
        })
    }
}

/// What would change the answer and is not there.
fn refuse_the_absent(fields: &Fields<'_>) -> Result<(), Failure> {
    if fields.n.is_some_and(|n| n != 1) {
        return Err(Failure::unsupported("n", "one answer a request is made; ask again for another one"));
    }
    if fields.logit_bias.is_some_and(|bias| !matches!(bias.get().trim(), "null" | "{}")) {
        return Err(Failure::unsupported("logit_bias", "logits can't be biased; leave logit_bias out"));
    }
    Ok(())
}

fn max_tokens(fields: &Fields<'_>) -> Result<Option<u32>, Failure> {
    let given = fields.max_completion_tokens.or(fields.max_tokens);
    let checked = |tokens: i64| match u32::try_from(tokens) {
        Ok(tokens) if tokens > 0 => Ok(tokens),
        _ => Err(Failure::field("max_tokens", format!("max_tokens is {tokens}; ask for at least 1"))),
    };
    given.map(checked).transpose()
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, Failure> {
    let penalty = |value: Option<f32>, name: &'static str| match value.unwrap_or(0.0) {
        penalty if (-2.0..=2.0).contains(&penalty) => Ok(penalty),
        _ => Err(Failure::field(name, "penalties go from -2 to 2")),
    };
    let sampling = Sampling {
        temperature: fields.temperature.unwrap_or(1.0),
        top_p: fields.top_p.unwrap_or(1.0),
        // vLLM's clients say -1 for all, llama.cpp's 0.
        top_k: u32::try_from(fields.top_k.unwrap_or(0).max(0)).unwrap_or(u32::MAX),
        min_p: fields.min_p.unwrap_or(0.0),
        frequency_penalty: penalty(fields.frequency_penalty, "frequency_penalty")?,
        presence_penalty: penalty(fields.presence_penalty, "presence_penalty")?,
        seed: fields.seed.map_or_else(random_seed, |seed| seed as u64),
    };
    let named = |why: &'static str| {
        let of = |name: &&&str| why.starts_with(**name);
        let param = ["temperature", "top_p", "min_p"].iter().find(of).copied();
        Failure { param, ..Failure::bad(format!("{why}; correct it")) }
    };
    sampling.check().map_err(named)?;
    Ok(sampling)
}

/// Nobody asked for a certain answer: each time another one.
fn random_seed() -> u64 {
    let mut bytes = [0; 8];
    // Without randomness answers repeat themselves; that is no reason to give none.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn stops(given: Option<Texts>) -> Result<Vec<String>, Failure> {
    let stops = given.unwrap_or_default().0;
    if stops.len() > STOPS_MAX || stops.iter().any(|stop| stop.len() > STOP_BYTES_MAX) {
        let why =
            format!("at most {STOPS_MAX} stop strings of {STOP_BYTES_MAX} bytes are possible; send fewer");
        return Err(Failure::field("stop", why));
    }
    Ok(stops)
}

fn form(given: Option<&ResponseFormat<'_>>) -> Result<Form, Failure> {
    let Some(format) = given else { return Ok(Form::Text) };
    match format.r#type.as_str() {
        "text" => Ok(Form::Text),
        "json_object" => Ok(Form::JsonObject),
        "json_schema" => {
            let schema = format.json_schema.as_ref().and_then(|named| named.schema);
            let missing =
                || Failure::field("response_format", "response_format.json_schema.schema is missing");
            checked_schema("response_format", schema.ok_or_else(missing)?).map(Form::JsonSchema)
        }
        other => {
            let why =
                format!("response_format.type is {other:?}; text, json_object and json_schema are there");
            Err(Failure::field("response_format", why))
        }
    }
}

/// A schema that is not too large to be looked at.
pub(super) fn checked_schema(param: &'static str, schema: &RawValue) -> Result<String, Failure> {
    match schema.get() {
        text if text.len() <= SCHEMA_BYTES_MAX => Ok(text.to_owned()),
        text => {
            let why = format!(
                "the JSON schema has {} bytes, {SCHEMA_BYTES_MAX} are possible; make it smaller",
                text.len()
            );
            Err(Failure::field(param, why))
        }
    }
}

/// How many alternatives to tell; refuses more than there may be.
pub(super) fn checked_logprobs(param: &'static str, top: Option<u32>) -> Result<Option<u32>, Failure> {
    match top {
        Some(top) if top > TOP_LOGPROBS_MAX => {
            Err(Failure::field(param, format!("{param} is {top}; at most {TOP_LOGPROBS_MAX} can be told")))
        }
        top => Ok(top),
    }
}
