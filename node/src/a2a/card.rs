//! An agent's card: what it is called, where and how it is asked.

use super::call::SPOKEN;
use axum::http::HeaderMap;
use axum::http::header::HOST;
use proto::v1 as pb;
use serde_json::{Value, json};

/// The address under which the caller found this node.
pub(super) fn base(headers: &HeaderMap, secure: bool) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if secure { "https" } else { "http" })
}

/// Definitions have no words for strangers: the card says the kind and the model, never the instruction.
pub(super) fn card(agent: &pb::Agent, base: &str) -> Value {
    let pb::Agent { project, name, kind, model, revision, .. } = agent;
    let url = format!("{base}/a2a/{project}/{name}");
    let what = match kind.as_str() {
        "team" => format!("The team {name} of the project {project}."),
        _ => format!("The agent {name} of the project {project}, on the model {model}."),
    };
    let skill = json!({ "id": name, "name": name, "description": what, "tags": [kind] });
    json!({
        "name": name,
        "description": what,
        "version": revision,
        "supportedInterfaces": [{ "url": url, "protocolBinding": "JSONRPC", "protocolVersion": SPOKEN }],
        "capabilities": { "streaming": true, "pushNotifications": false, "extendedAgentCard": false },
        "securitySchemes": { "key": { "httpAuthSecurityScheme": {
            "scheme": "Bearer", "description": "An API key of the cluster; none where nodes have no keys." } } },
        "defaultInputModes": ["text/plain", "application/json"],
        "defaultOutputModes": ["text/plain"],
        "skills": [skill],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_leads_to_its_agent_and_keeps_its_instruction() {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "node-1:7480".parse().unwrap());
        assert_eq!(base(&headers, true), "https://node-1:7480");
        let agent = pb::Agent {
            project: "p".into(),
            name: "clerk".into(),
            kind: "agent".into(),
            toml: "system = 'a secret'".into(),
            ..Default::default()
        };
        let card = card(&agent, "http://n");
        assert_eq!(card["supportedInterfaces"][0]["url"], "http://n/a2a/p/clerk");
        assert!(!card.to_string().contains("secret"));
    }
}
