//! What a server says of its tools, believed only as far as it can be checked.

use crate::config::McpConfig;
use crate::{Arguments, LeftOut, Policy, ToolSpec, clean, matches_any, output};
use rmcp::model::{Tool, ToolAnnotations};
use serde_json::Value;
use std::collections::BTreeMap;

/// Tools of one server; more are left out.
pub(super) const MOST_TOOLS: usize = 512;

/// The tools of one server, by the server's own names, and those that cannot be used.
#[derive(Default)]
pub(super) struct Listing {
    pub(super) tools: BTreeMap<String, Listed>,
    pub(super) left_out: Vec<LeftOut>,
}

pub(super) struct Listed {
    pub(super) spec: ToolSpec,
    pub(super) arguments: Arguments,
    /// The schema of structured results, where the server promises one.
    pub(super) results: Option<Arguments>,
}

/// `raw` are the entries of `tools/list` as they came: an entry that is no tool spoils only itself.
pub(super) fn listing(server: &str, config: &McpConfig, raw: Vec<Value>) -> Listing {
    let mut listing = Listing::default();
    let more = raw.len().saturating_sub(MOST_TOOLS);
    for entry in raw.into_iter().take(MOST_TOOLS) {
        let name = entry.get("name").and_then(Value::as_str).unwrap_or("(without a name)").to_string();
        match listed(server, config, &name, entry) {
            Ok(_) if listing.tools.contains_key(&name) => {
                listing.leave_out(server, &name, "the server lists this name twice".into());
            }
            Ok(Some(tool)) => drop(listing.tools.insert(name, tool)),
            Ok(None) => {}
            Err(why) => listing.leave_out(server, &name, why),
        }
    }
    if more > 0 {
        listing.leave_out(server, "*", format!("{more} tools over the bound of {MOST_TOOLS}"));
    }
    listing
}

impl Listing {
    fn leave_out(&mut self, server: &str, name: &str, reason: String) {
        let name = clean(output::head(name, ToolSpec::NAME_BYTES));
        self.left_out.push(LeftOut { tool: format!("{server}.{name}"), reason });
    }
}

/// `None` is a tool that the operator does not allow.
fn listed(server: &str, config: &McpConfig, name: &str, entry: Value) -> Result<Option<Listed>, String> {
    if !matches_any(&config.allow, name) {
        return Ok(None);
    }
    let full_name = format!("{server}.{name}");
    if !ToolSpec::is_name(&full_name) {
        return Err("its name is empty, too long, or has characters beside letters, digits, _ - .".into());
    }
    let schema_of = |key: &str| entry.get(key).filter(|schema| !schema.is_null()).cloned();
    let parameters = schema_of("inputSchema").ok_or("it has no inputSchema")?;
    let arguments = arguments(&parameters).map_err(|why| format!("its inputSchema cannot be used: {why}"))?;
    let results = schema_of("outputSchema").map(|schema| Arguments::new(&schema)).transpose();
    let results = results.map_err(|why| format!("its outputSchema cannot be used: {why}"))?;
    let tool: Tool = serde_json::from_value(entry).map_err(|error| format!("it is no tool: {error}"))?;
    let spec = ToolSpec {
        name: full_name,
        description: description(&tool),
        parameters,
        policy: config.policy.get(name).copied().unwrap_or_else(|| policy(tool.annotations.as_ref())),
        timeout_ms: config.timeout_ms,
        output_bytes: config.output_bytes,
    };
    Ok(Some(Listed { spec, arguments, results }))
}

/// Arguments are always an object: a schema of something else could never be met.
fn arguments(schema: &Value) -> Result<Arguments, String> {
    match schema.get("type") {
        None => {}
        Some(Value::String(kind)) if kind == "object" => {}
        Some(other) => return Err(format!("arguments are an object, and it wants {other}")),
    }
    Arguments::new(schema)
}

fn description(tool: &Tool) -> String {
    let title = tool.annotations.as_ref().and_then(|annotations| annotations.title.as_deref());
    let text = tool.description.as_deref().or(tool.title.as_deref()).or(title).unwrap_or("");
    output::cut(clean(text), ToolSpec::DESCRIPTION_BYTES).0
}

/// Hints of a server decide only what happens after a crash, and only where the operator says nothing.
fn policy(annotations: Option<&ToolAnnotations>) -> Policy {
    let hint = |is: fn(&ToolAnnotations) -> Option<bool>| annotations.and_then(is).unwrap_or(false);
    if hint(|a| a.read_only_hint) || hint(|a| a.idempotent_hint) {
        Policy::Idempotent
    } else {
        Policy::AtMostOnce
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tool(name: &str, more: Value) -> Value {
        let mut tool = json!({"name": name, "description": "does", "inputSchema": {"type": "object"}});
        tool.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        tool
    }

    #[test]
    fn hints_become_policies_and_the_operator_has_the_last_word() {
        let config = McpConfig { policy: [("d".to_string(), Policy::Ask)].into(), ..McpConfig::default() };
        let raw = vec![
            tool("a", json!({"annotations": {"readOnlyHint": true}})),
            tool("b", json!({"annotations": {"idempotentHint": true}})),
            tool("c", json!({})),
            tool("d", json!({"annotations": {"readOnlyHint": true}})),
        ];
        let listing = listing("s", &config, raw);
        let policies: Vec<Policy> = listing.tools.values().map(|tool| tool.spec.policy).collect();
        assert_eq!(policies, [Policy::Idempotent, Policy::Idempotent, Policy::AtMostOnce, Policy::Ask]);
        assert_eq!(listing.tools["a"].spec.name, "s.a");
    }

    #[test]
    fn lies_are_left_out_with_the_reason_and_the_rest_stays() {
        let raw = vec![
            tool("good", json!({})),
            tool("good", json!({})),
            tool("wrong", json!({"inputSchema": {"type": "objekt"}})),
            tool("text", json!({"inputSchema": "none"})),
            tool("list", json!({"inputSchema": {"type": "array"}})),
            tool("outside", json!({"inputSchema": {"$ref": "http://127.0.0.1:1/x"}})),
            tool("result", json!({"outputSchema": {"type": 7}})),
            tool("a b\u{1b}[31m", json!({})),
            json!({"name": "bare"}),
            json!(7),
        ];
        let listing = listing("s", &McpConfig::default(), raw);
        assert_eq!(listing.tools.keys().collect::<Vec<_>>(), ["good"]);
        assert_eq!(listing.left_out.len(), 9, "{:#?}", listing.left_out);
        assert!(listing.left_out.iter().all(|left| !left.reason.is_empty() && !left.tool.contains('\u{1b}')));
    }

    #[test]
    fn what_the_operator_does_not_allow_is_not_there() {
        let config = McpConfig { allow: vec!["get_*".into()], ..McpConfig::default() };
        let listing = listing("s", &config, vec![tool("get_time", json!({})), tool("rm", json!({}))]);
        assert_eq!(listing.tools.keys().collect::<Vec<_>>(), ["get_time"]);
        assert!(listing.left_out.is_empty());
    }
}
