//! `tools`: what an agent may use, and under which rules.

use super::read::Table;
use super::{DefinitionError, quoted};
use minicbor::{Decode, Encode};
use types::limits;

/// Rules of one agent; more than a model can tell apart.
const RULES: usize = 128;
const RULE_KEYS: [&str; 5] = ["name", "policy", "approve", "timeout_ms", "output_bytes"];
/// A day: what takes longer is a task of its own.
const TIMEOUT_MS: u64 = 86_400_000;
const POLICIES: [&str; 3] = ["idempotent", "at_most_once", "ask"];
const CHOICES: [&str; 2] = ["auto", "required"];

/// A tool, or all tools of a server (`files.*`), and what differs from the tool's own word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolRule {
    pub name: String,
    pub policy: Option<Policy>,
    /// A person has to approve every call.
    pub approve: bool,
    pub timeout_ms: Option<u64>,
    /// What of the tool's answer the model gets at most.
    pub output_bytes: Option<u64>,
}

/// What happens to a call whose outcome nobody knows: its worker died, it timed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Policy {
    /// It is made again, with the same operation id.
    #[n(0)]
    Idempotent,
    /// It is never made again: a person says how it ended.
    #[n(1)]
    AtMostOnce,
    /// A person says how it ended, or that it may be made again.
    #[n(2)]
    Ask,
}

/// Whether the model has to use a tool. In the last step that it may take it can use none, so that it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    #[default]
    Auto,
    Required,
    None,
}

impl ToolRule {
    /// Whether the rule is about this tool.
    pub fn covers(&self, tool: &str) -> bool {
        match self.name.strip_suffix('*') {
            Some(start) => tool.starts_with(start),
            None => self.name == tool,
        }
    }
}

pub(super) fn read(table: &mut Table<'_>) -> Result<Vec<ToolRule>, DefinitionError> {
    let line = table.line("tools");
    let rules = table.tables("tools")?;
    if rules.len() > RULES {
        let message = format!("tools has {} entries, at most {RULES} are allowed", rules.len());
        let next = "name all tools of a server at once, like \"files.*\"".to_string();
        return Err(DefinitionError { key: "tools".to_string(), line, message, next });
    }
    rules.into_iter().map(rule).collect()
}

fn rule(mut table: Table<'_>) -> Result<ToolRule, DefinitionError> {
    table.only("a tool", &RULE_KEYS)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '*');
    let name = table.identifier("name", "letters, digits, - _ . and * at the end", good)?;
    if name.trim_end_matches('*').contains('*') || name.ends_with("**") {
        return Err(table.error(
            "name",
            format!("tools.name {name:?} has a * before its end"),
            "write \"files.*\"",
        ));
    }
    Ok(ToolRule {
        name,
        policy: table
            .choice("policy", &POLICIES)?
            .map(|index| [Policy::Idempotent, Policy::AtMostOnce, Policy::Ask][index]),
        approve: table.flag("approve")?.unwrap_or(false),
        timeout_ms: table.whole("timeout_ms", 1, TIMEOUT_MS)?,
        output_bytes: table.whole("output_bytes", 1, limits::SEGMENT_BYTES as u64 / 2)?,
    })
}

pub(super) fn choice(table: &mut Table<'_>) -> Result<ToolChoice, DefinitionError> {
    let choices = [ToolChoice::Auto, ToolChoice::Required];
    Ok(table.choice("tool_choice", &CHOICES)?.map_or(ToolChoice::Auto, |index| choices[index]))
}

/// Lines that stand before every table; nothing where there is nothing to say.
pub(super) fn canonical(rules: &[ToolRule], choice: ToolChoice, conversation: bool) -> String {
    let mut text = String::new();
    if conversation {
        text += "conversation = true\n";
    }
    if choice == ToolChoice::Required {
        text += "tool_choice = \"required\"\n";
    }
    if !rules.is_empty() {
        let rules: Vec<String> = rules.iter().map(canonical_rule).collect();
        text += &format!("tools = [{}]\n", rules.join(", "));
    }
    text
}

fn canonical_rule(rule: &ToolRule) -> String {
    let mut fields = vec![format!("name = {}", quoted(&rule.name))];
    fields.extend(rule.policy.map(|policy| format!("policy = {}", quoted(policy.name()))));
    fields.extend(rule.approve.then(|| "approve = true".to_string()));
    fields.extend(rule.timeout_ms.map(|ms| format!("timeout_ms = {ms}")));
    fields.extend(rule.output_bytes.map(|bytes| format!("output_bytes = {bytes}")));
    if fields.len() == 1 { quoted(&rule.name) } else { format!("{{ {} }}", fields.join(", ")) }
}

impl Policy {
    pub fn name(self) -> &'static str {
        match self {
            Policy::Idempotent => POLICIES[0],
            Policy::AtMostOnce => POLICIES[1],
            Policy::Ask => POLICIES[2],
        }
    }

    pub fn parse(text: &str) -> Option<Policy> {
        [Policy::Idempotent, Policy::AtMostOnce, Policy::Ask].into_iter().find(|it| it.name() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Definition;

    fn parse(text: &str) -> Result<Definition, String> {
        let text = format!("name = 'a'\nmodel = 'm'\n{text}");
        Definition::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_are_read_and_part_of_the_revision() {
        let text = "tools = ['files.*', { name = 'mail.send', policy = 'at_most_once', approve = true, timeout_ms = 9 }]\ntool_choice = 'required'\nconversation = true\n";
        let with = parse(text).unwrap();
        let agent = with.agent().unwrap();
        assert!(agent.tools[0].covers("files.read") && !agent.tools[0].covers("shell"));
        assert_eq!((agent.tools[1].policy, agent.tools[1].timeout_ms), (Some(Policy::AtMostOnce), Some(9)));
        assert_eq!((agent.tool_choice, agent.conversation), (ToolChoice::Required, true));
        assert_eq!(Definition::parse(&with.canonical()).unwrap(), with, "{}", with.canonical());
        let without = parse("").unwrap();
        assert_ne!(with.revision(), without.revision());
        assert!(!without.canonical().contains("tool"), "old revisions stay");
    }

    #[test]
    fn what_is_no_rule_is_refused_with_its_line() {
        let cases = [
            ("tools = 'shell'\n", "line 3: tools is of type string"),
            ("tools = [3]\n", "tools is of type integer"),
            ("tools = ['a b']\n", "tools.name \"a b\" is not allowed"),
            ("tools = ['*.x']\n", "has a * before its end"),
            ("tools = [{ policy = 'ask' }]\n", "tools.name is missing"),
            ("tools = [{ name = 'a', policy = 'often' }]\n", "tools.policy cannot be \"often\""),
            ("tools = [{ name = 'a', retries = 2 }]\n", "unknown key \"tools.retries\""),
            ("tools = [{ name = 'a', timeout_ms = 0 }]\n", "tools.timeout_ms is 0"),
            ("tool_choice = 'never'\n", "tool_choice cannot be \"never\""),
            ("conversation = 1\n", "conversation is of type integer"),
        ];
        for (text, words) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
