//! Results with a form: an answer has to fit the schema that the agent's definition names.
//!
//! The node checks it. An answer that does not fit stays in the chain with what is wrong, and the model answers again;
//! after a few times the task fails and says why.

use crate::agent::{self, Generated};
use crate::draft::{Doing, Draft, Move, Trouble};
use crate::{AgentDefinition, Decision, Finish, Mind, NextMove};
use context::{Kind, Segment, Visibility};

/// Answers of one task that may be off the schema.
const TRIES: u32 = 3;

/// An answer that is being checked.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    answer: Generated,
    whole: Segment,
    call: u32,
}

/// What the model is told of the form, behind its instruction.
pub(crate) fn instruction(system: &str, schema: Option<&str>) -> String {
    let Some(schema) = schema else { return system.to_string() };
    let told =
        format!("Your final answer has to be JSON, and nothing else, that fits this schema:\n{schema}");
    if system.is_empty() { told } else { format!("{system}\n\n{told}") }
}

/// Asks for the check, where the agent's results have a form.
pub(crate) fn check(mind: &mut Mind, schema: &str, answer: Generated, mut whole: Segment, call: u32) -> Move {
    let text = bare(&whole.text).to_string();
    if text != whole.text {
        // The ids were of the whole text.
        (whole.text, whole.tokens) = (text.clone(), None);
    }
    mind.candidate = Some(Box::new(Candidate { answer, whole, call }));
    Move::Do(Doing::Check { schema: schema.to_string(), text })
}

/// The node has looked: `wrong` is empty where the answer fits.
pub(crate) fn checked(mind: &mut Mind, agent: &AgentDefinition, wrong: String) -> Move {
    let Some(candidate) = mind.candidate.take() else { return Move::Nothing };
    let Candidate { answer, whole, call } = *candidate;
    if wrong.is_empty() {
        return agent::finished(mind, answer, whole, call);
    }
    let wrong_so_far = mind.journal.off_schema + 1;
    if wrong_so_far >= TRIES || mind.journal.turns + 1 >= agent.max_steps {
        let message = format!(
            "{wrong_so_far} answers don't fit the agent's result_schema; the last: {wrong}. Make the schema simpler, say more \
             about it in the agent's system text, or give the agent more steps or a better model"
        );
        let draft = agent::failed(mind, Trouble::last("OFF_SCHEMA", message), answer.spent.generated_tokens);
        return agent::commit(Draft { added: vec![mind.seal(&said(mind, &answer))], ..draft }, answer);
    }
    let finish = if answer.finish == Finish::Budget { Finish::Length } else { answer.finish };
    let generated_tokens = answer.spent.generated_tokens;
    let note = format!("error: the answer does not fit the schema: {wrong}. Answer again, with JSON alone.");
    let note = mind.segment(Kind::ToolResult, Visibility::Agent, note);
    let added = vec![mind.seal(&said(mind, &answer)), mind.seal(&note)];
    let draft = mind.draft(Decision::OffSchema { finish, call, generated_tokens }, NextMove::Continue);
    agent::commit(Draft { added, ..draft }, answer)
}

fn said(mind: &Mind, answer: &Generated) -> Segment {
    agent::part(mind, answer, false)
}

/// Models like to put JSON between fences.
fn bare(text: &str) -> &str {
    let text = text.trim();
    let Some(inner) = text.strip_prefix("```").and_then(|text| text.strip_suffix("```")) else { return text };
    inner.strip_prefix("json").unwrap_or(inner).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_between_fences() {
        for text in ["{\"a\":1}", " {\"a\":1}\n", "```json\n{\"a\":1}\n```", "```\n{\"a\":1}\n```\n"] {
            assert_eq!(bare(text), "{\"a\":1}", "{text}");
        }
        assert_eq!(bare("```"), "```");
        assert_eq!(bare("words ```{}```"), "words ```{}```");
    }
}
