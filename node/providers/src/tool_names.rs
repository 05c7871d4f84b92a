//! Tool names on the wire: both forms allow letters, digits, `_` and `-` only, 64 of them.
//!
//! `time.get_current_time` travels as `time__get_current_time` and comes back by the table of the tools that were offered,
//! so that a tool with `__` in its own name keeps it.

use crate::answer::{Failure, Reason};
use crate::bounds::WIRE_NAME_BYTES;
use crate::request::Tool;
use std::collections::BTreeMap;
use types::Hash;

const DOT: &str = "__";
/// Hexadecimal digits of a name's hash that keep shortened names apart.
const TAIL: usize = 8;

/// The names of one request's tools, by their names on the wire.
#[derive(Debug, Clone, Default)]
pub(crate) struct ToolNames(BTreeMap<String, String>);

impl ToolNames {
    pub(crate) fn of(tools: &[Tool]) -> Result<ToolNames, Failure> {
        let mut names = BTreeMap::new();
        for tool in tools {
            let wire = to_wire(&tool.name);
            if let Some(other) = names.insert(wire.clone(), tool.name.clone()) {
                let message = format!(
                    "the tools {other:?} and {:?} are both {wire:?} for the provider, so that a call could mean either; rename one",
                    tool.name
                );
                return Err(Failure::lasting(Reason::BadRequest, message));
            }
        }
        Ok(ToolNames(names))
    }

    /// The tool's own name. A name that was not offered is told as well as it can be: whoever calls refuses it.
    pub(crate) fn own_name(&self, wire: &str) -> String {
        self.0.get(wire).cloned().unwrap_or_else(|| wire.replace(DOT, "."))
    }
}

/// The name as it travels; the same for the same name always, also in the history.
pub(crate) fn to_wire(name: &str) -> String {
    let mut wire = String::with_capacity(name.len() + DOT.len());
    for letter in name.chars() {
        match letter {
            '.' => wire.push_str(DOT),
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => wire.push(letter),
            _ => wire.push('_'),
        }
    }
    if wire.len() > WIRE_NAME_BYTES {
        wire.truncate(WIRE_NAME_BYTES - TAIL - 1);
        wire = format!("{wire}_{}", &Hash::of(name.as_bytes()).to_string()[..TAIL]);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tools: &[&str]) -> Result<ToolNames, Failure> {
        let tool = |name: &&str| Tool {
            name: name.to_string(),
            description: String::new(),
            schema: serde_json::json!({}),
        };
        ToolNames::of(&tools.iter().map(tool).collect::<Vec<_>>())
    }

    #[test]
    fn dots_travel_as_two_lines_and_come_back() {
        assert_eq!(to_wire("time.get_current_time"), "time__get_current_time");
        let known = names(&["time.get_current_time", "odd__name", "shell"]).expect("distinct");
        assert_eq!(known.own_name("time__get_current_time"), "time.get_current_time");
        assert_eq!(known.own_name("odd__name"), "odd__name");
        assert_eq!(known.own_name("never__offered"), "never.offered");
    }

    #[test]
    fn long_and_strange_names_fit_and_stay_apart() {
        let long = |end: &str| to_wire(&format!("server.{}{end}", "tool".repeat(30)));
        assert_eq!(long("a").len(), WIRE_NAME_BYTES);
        assert_ne!(long("a"), long("b"));
        assert_eq!(to_wire("übel/x y"), "_bel_x_y");
    }

    #[test]
    fn two_tools_with_one_name_on_the_wire_are_refused() {
        let failure = names(&["a.b", "a__b"]).expect_err("refused");
        assert!(failure.message.contains("rename one") && !failure.retriable);
    }
}
