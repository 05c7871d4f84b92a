//! What of an answer that is still growing can be told at once: a streaming face must not tell the beginning of a call
//! as text.

use super::CallFormat;

/// Bytes of a growing answer that are text, whatever follows; the rest may turn out to be calls.
pub fn text_before_calls(text: &str, format: CallFormat) -> usize {
    let begun = text.trim_start();
    if begun.is_empty() || may_be_calls_alone(begun, format) {
        return 0;
    }
    match format {
        CallFormat::Hermes => before_mark(text, "<tool_call>"),
        CallFormat::Mistral => before_mark(text, "[TOOL_CALLS]"),
        CallFormat::Gemma => before_mark(text, "```"),
        CallFormat::Llama3 => text.len(),
    }
}

/// Whether an answer that begins so may be nothing but calls.
fn may_be_calls_alone(begun: &str, format: CallFormat) -> bool {
    const LLAMA_MARK: &str = "<|python_tag|>";
    begun.starts_with(['{', '['])
        || match format {
            CallFormat::Hermes => false,
            CallFormat::Llama3 => LLAMA_MARK.starts_with(begun) || begun.starts_with(LLAMA_MARK),
            CallFormat::Mistral => is_name_before(begun, &["[ARGS]", "[CALL_ID]"]),
            CallFormat::Gemma => is_name_before(begun, &["("]),
        }
}

/// Whether a text begins, or may go on, as a name and one of these.
fn is_name_before(begun: &str, openings: &[&str]) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
    let rest = begun.trim_start_matches(is_part);
    rest.len() < begun.len()
        && openings.iter().any(|opening| opening.starts_with(rest) || rest.starts_with(opening))
}

/// Up to a mark, or to what may become one.
fn before_mark(text: &str, mark: &str) -> usize {
    let partial = || (1..mark.len()).rev().find(|&len| text.ends_with(&mark[..len])).unwrap_or(0);
    text.find(mark).unwrap_or_else(|| text.len() - partial())
}

#[cfg(test)]
mod tests {
    use super::super::tool_calls;
    use super::*;

    const ALL: [CallFormat; 4] =
        [CallFormat::Hermes, CallFormat::Llama3, CallFormat::Mistral, CallFormat::Gemma];
    const ANSWERS: [&str; 16] = [
        "plain words, nothing else",
        "  indented ",
        "",
        "ü < 3 and <tools> and [a list] and `code`",
        "I look.\n<tool_call>\n{\"name\": \"find\", \"arguments\": {}}\n</tool_call>",
        "<tool_call>{\"name\": \"a\"}</tool_call> <tool_call>{\"name\": \"b\"}</tool_call>",
        "<tool_call>nothing</tool_call>",
        "{\"name\": \"find\", \"parameters\": {\"q\": 1}}",
        "<|python_tag|>{\"name\": \"find\", \"parameters\": {\"q\": 1}}",
        "{\"a\": 1} is JSON",
        "Well.[TOOL_CALLS]find[ARGS]{\"q\": 1}",
        "find[ARGS]{\"q\": 1}",
        "[{\"name\": \"find\", \"arguments\": {}}]",
        "Sure:\n```json\n{\"name\": \"find\", \"parameters\": {\"q\": 1}}\n```",
        "find(q='x')",
        "print (this)",
    ];

    #[test]
    fn nothing_told_early_is_part_of_a_call() {
        for format in ALL {
            for answer in ANSWERS {
                let content = tool_calls(answer, format).0;
                for end in (0..=answer.len()).filter(|end| answer.is_char_boundary(*end)) {
                    let told = &answer[..text_before_calls(&answer[..end], format)];
                    let whole = if content == answer { told } else { told.trim() };
                    assert!(content.starts_with(whole), "{format:?} {answer:?}: {told:?} was told");
                }
            }
        }
    }

    #[test]
    fn text_is_held_back_only_where_a_call_may_begin() {
        let sure = |text| ALL.map(|format| text_before_calls(text, format));
        assert_eq!(sure("one two"), [7; 4]);
        assert_eq!(sure("one <tool_"), [4, 10, 10, 10]);
        assert_eq!(sure("one <toolbox"), [12; 4]);
        assert_eq!(sure("one [TOOL"), [9, 9, 4, 9]);
        assert_eq!(sure("one ```py"), [9, 9, 9, 4]);
        assert_eq!(sure("  {\"a\""), [0; 4]);
        assert_eq!(sure("find"), [4, 4, 0, 0]);
        assert_eq!(sure("find it"), [7; 4]);
    }
}
