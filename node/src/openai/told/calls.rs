//! Calls of tools inside a model's text, in the ways that the known families write them: JSON between
//! `<tool_call>` marks (Hermes, Qwen, SmolLM2), or an answer that is nothing but JSON (Llama 3).

use serde::Deserialize;
use serde_json::value::RawValue;

const OPEN: &str = "<tool_call>";
const CLOSE: &str = "</tool_call>";
/// Calls of one answer.
const CALLS_MAX: usize = 64;

/// One call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) name: String,
    /// A JSON object.
    pub(super) arguments: String,
}

#[derive(Deserialize)]
struct Written<'a> {
    name: String,
    #[serde(borrow, alias = "parameters")]
    arguments: Option<&'a RawValue>,
}

impl From<Written<'_>> for Call {
    fn from(written: Written<'_>) -> Call {
        let arguments = written.arguments.map_or("{}", RawValue::get);
        // Some models write the arguments as a text that holds JSON, as OpenAI's protocol does.
        let inner: Option<String> = serde_json::from_str(arguments).ok();
        Call { name: written.name, arguments: inner.unwrap_or_else(|| arguments.to_owned()) }
    }
}

/// How much of a text that is still growing is sure not to belong to a call.
pub(super) fn text_before(text: &str) -> usize {
    if is_json(text) || text.trim_start().is_empty() {
        return 0;
    }
    match text.find(OPEN) {
        Some(at) => at,
        None => text.len() - (1..OPEN.len()).rev().find(|&len| text.ends_with(&OPEN[..len])).unwrap_or(0),
    }
}

/// The text of a whole answer that is not calls, and its calls. Marks with something else inside stay text.
pub(super) fn find(text: &str) -> (&str, Vec<Call>) {
    if is_json(text) {
        let calls = read(text);
        return if calls.is_empty() { (text, calls) } else { ("", calls) };
    }
    let Some(at) = text.find(OPEN) else { return (text, Vec::new()) };
    let inside = text[at..].split(OPEN).skip(1).map(|part| part.split(CLOSE).next().unwrap_or(part));
    let calls: Vec<Call> = inside.flat_map(read).take(CALLS_MAX).collect();
    if calls.is_empty() { (text, calls) } else { (&text[..at], calls) }
}

/// The one call that a whole answer is; text where it was cut off.
pub(super) fn only(text: &str) -> (&str, Vec<Call>) {
    match read(text) {
        calls if calls.is_empty() => (text, calls),
        calls => ("", calls),
    }
}

fn is_json(text: &str) -> bool {
    text.trim_start().starts_with(['{', '['])
}

/// One call, or an array of calls.
fn read(json: &str) -> Vec<Call> {
    let one: Result<Written<'_>, _> = serde_json::from_str(json.trim());
    match one {
        Ok(call) => vec![call.into()],
        Err(_) => {
            let several: Vec<Written<'_>> = serde_json::from_str(json.trim()).unwrap_or_default();
            several.into_iter().take(CALLS_MAX).map(Call::from).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, arguments: &str) -> Call {
        Call { name: name.into(), arguments: arguments.into() }
    }

    #[test]
    fn calls_are_found_in_the_known_ways() {
        let marked =
            "Let me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": {\"at\": 1}}\n</tool_call>";
        assert_eq!(find(marked), ("Let me see.\n", vec![call("look", "{\"at\": 1}")]));
        let two = "<tool_call>[{\"name\": \"a\"}, {\"name\": \"b\", \"arguments\": {}}]</tool_call>";
        assert_eq!(find(two), ("", vec![call("a", "{}"), call("b", "{}")]));
        let cut = "<tool_call>{\"name\": \"a\"}</tool_call><tool_call>{\"name\": \"b\"";
        assert_eq!(find(cut).1, vec![call("a", "{}")]);
        let bare = "{\"name\": \"look\", \"parameters\": {\"at\": [2]}}";
        assert_eq!(find(bare), ("", vec![call("look", "{\"at\": [2]}")]));
        assert_eq!(only("{\"name\":\"a\",\"arguments\":\"{\\\"x\\\":1}\"}").1, vec![call("a", "{\"x\":1}")]);
    }

    #[test]
    fn everything_else_stays_text() {
        for text in
            ["", "plain", "{\"a\": 1}", "[1, 2]", "<tool_call>nothing</tool_call>", "a < b", "{{{{", "ü<tool"]
        {
            assert_eq!(find(text), (text, Vec::new()), "{text}");
        }
        assert_eq!(only("{\"name\": \"lo"), ("{\"name\": \"lo", Vec::new()));
    }

    #[test]
    fn text_is_held_back_only_where_a_call_may_begin() {
        assert_eq!(text_before("one two"), 7);
        assert_eq!(text_before("one <tool_"), 4);
        assert_eq!(text_before("one <tool_call>{"), 4);
        assert_eq!(text_before("one <toolbox"), 12);
        assert_eq!(text_before("  {\"a\""), 0);
        assert_eq!(text_before(""), 0);
    }
}
