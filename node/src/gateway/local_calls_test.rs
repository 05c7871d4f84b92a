//! Calls of tools that the real model has to write: whatever it samples, each that is not cut is a call of one of the
//! tools with arguments that its schema allows. `QUORATE_CALLS` says how many.

use super::local_test::{Generous, call, model_file};
use super::*;
use crate::gateway::gateway_test::message;
use crate::gateway::{Gateway, ModelCall, ModelOutcome};
use context::Role;
use futures::{StreamExt, stream};
use mind::Finish;
use serde_json::Value;
use std::collections::BTreeMap;
use tokio_util::sync::CancellationToken;
use tools::Arguments;
use worker_inference::EngineConfig;

/// What schemas of real tools have: choices, bounds, lists, objects in objects, patterns, alternatives, no arguments.
const TOOLS: &str = r##"[
  {"name": "clock.now", "description": "Tells the time.", "parameters": {"type": "object", "properties": {}, "additionalProperties": false}},
  {"name": "files.read", "description": "Reads a file.", "parameters": {"type": "object", "required": ["path"], "additionalProperties": false,
    "properties": {"path": {"type": "string", "maxLength": 40}, "lines": {"type": "integer", "minimum": 1, "maximum": 500}}}},
  {"name": "mail.send", "description": "Sends a mail.", "parameters": {"type": "object", "required": ["to", "priority"], "additionalProperties": false,
    "properties": {"to": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "pattern": "^[a-z]{1,8}@example\\.com$"}},
      "priority": {"enum": ["low", "normal", "high"]}, "urgent": {"type": "boolean"}}}},
  {"name": "map.route", "description": "Finds a way.", "parameters": {"type": "object", "required": ["from", "to"], "additionalProperties": false,
    "properties": {"from": {"$ref": "#/$defs/place"}, "to": {"$ref": "#/$defs/place"}},
    "$defs": {"place": {"type": "object", "required": ["lat", "lon"], "additionalProperties": false,
      "properties": {"lat": {"type": "number", "minimum": -90, "maximum": 90}, "lon": {"type": "number"}}}}}},
  {"name": "käse.suchen", "description": "Sucht Käse \"aus Österreich\".", "parameters": {"type": "object", "required": ["q"], "additionalProperties": false,
    "properties": {"q": {"anyOf": [{"type": "string", "maxLength": 12}, {"type": "null"}]}}}}
]"##;
const QUESTIONS: [&str; 4] =
    ["What time is it?", "Read notes.txt.", "Write to ann and bob.", "How do I get from Graz to Wien?"];
const AT_ONCE: usize = 8;

#[tokio::test]
async fn calls_that_are_forced_always_parse() {
    let wanted: usize = std::env::var("QUORATE_CALLS").ok().and_then(|it| it.parse().ok()).unwrap_or(24);
    let config = EngineConfig { kv_bytes: 128 << 20, ..EngineConfig::default() };
    let model = LoadedModel::load("smollm2", &model_file(), config).expect("the model loads");
    let provider: Arc<dyn Provider> = Arc::new(Local::new(&model));
    let gateway = Gateway::new([("smollm2".to_string(), provider)]);
    let schemas = schemas();
    let mut answers = stream::iter(0..).map(|seed| ask(&gateway, seed)).buffer_unordered(AT_ONCE);
    let (mut whole, mut cut, mut used) = (0, 0, BTreeMap::<String, u32>::new());
    while whole < wanted {
        match answers.next().await.expect("there are always more") {
            None => cut += 1,
            Some(text) => {
                *used.entry(check(&text, &schemas)).or_default() += 1;
                whole += 1;
            }
        }
    }
    println!("figure forced_calls {whole}\nfigure forced_calls_cut {cut}\nfigure forced_calls_of {used:?}");
    assert!(used.len() >= 2, "the model used only {used:?}");
}

/// None where the limit of tokens cut it.
async fn ask(gateway: &Gateway, seed: u64) -> Option<String> {
    let question = QUESTIONS[seed as usize % QUESTIONS.len()];
    let call = ModelCall {
        tools: Some(TOOLS.into()),
        choice: ToolChoice::Required,
        max_tokens: 160,
        temperature_milli: 1000,
        seed,
        ..call(vec![message(Role::User, question)])
    };
    match gateway.call(call, &Generous, &|_| (), &CancellationToken::new()).await {
        ModelOutcome::Generated(said) => (said.finish == Finish::Stop).then_some(said.text),
        other => panic!("{other:?}"),
    }
}

fn schemas() -> BTreeMap<String, Arguments> {
    let tools: Vec<Value> = serde_json::from_str(TOOLS).expect("the tools");
    let schema = |tool: &Value| {
        let name = tool["name"].as_str().expect("a name").to_string();
        (name, Arguments::new(&tool["parameters"]).expect("a schema"))
    };
    tools.iter().map(schema).collect()
}

/// The tool that is called.
fn check(text: &str, schemas: &BTreeMap<String, Arguments>) -> String {
    let call: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let name = call["name"].as_str().unwrap_or_else(|| panic!("no name: {text}"));
    let schema = schemas.get(name).unwrap_or_else(|| panic!("no such tool: {text}"));
    schema.check(&call["arguments"]).unwrap_or_else(|wrong| panic!("{wrong}: {text}"));
    name.to_string()
}
