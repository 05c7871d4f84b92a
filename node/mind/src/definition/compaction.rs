//! `[compaction]`: what happens before the model's window is full.

use super::DefinitionError;
use super::quoted;
use super::read::Table;

const KEYS: [&str; 5] = ["at", "until", "keep_steps", "max_tokens", "agent"];
const MOST_KEPT_STEPS: u64 = 1_000;
/// A summary is a page.
const MOST_TOKENS: u64 = 16_384;

/// When old messages are summarised, how far, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// Thousandths of the window above which it begins.
    pub at_milli: u32,
    /// What the chain is to take afterwards.
    pub until_milli: u32,
    /// Model calls whose messages stay as they are.
    pub keep_steps: u32,
    /// Tokens of a summary.
    pub max_tokens: u32,
    /// The agent that writes it, as a child task; none: the agent's own model.
    pub agent: Option<String>,
}

pub(super) fn read(table: &mut Table<'_>) -> Result<Option<Compaction>, DefinitionError> {
    let Some(mut inner) = table.table("compaction")? else { return Ok(None) };
    inner.only("compaction", &KEYS)?;
    let at_milli = inner.milli("at", 1_000)?.unwrap_or(750);
    let until_milli = inner.milli("until", 1_000)?.unwrap_or(400);
    if !(100..=950).contains(&at_milli) || until_milli * 10 > at_milli * 9 {
        let message =
            format!("compaction begins at {} and goes down to {}", decimal(at_milli), decimal(until_milli));
        let next = "write at from 0.1 to 0.95, and until at most nine tenths of it";
        return Err(inner.error("at", message, next));
    }
    Ok(Some(Compaction {
        at_milli,
        until_milli,
        keep_steps: super::fitted(inner.whole("keep_steps", 1, MOST_KEPT_STEPS)?.unwrap_or(4)),
        max_tokens: super::fitted(inner.whole("max_tokens", 16, MOST_TOKENS)?.unwrap_or(512)),
        agent: if inner.has("agent") { Some(inner.name("agent")?) } else { None },
    }))
}

pub(super) fn canonical(rules: Option<&Compaction>) -> String {
    let Some(rules) = rules else { return String::new() };
    let (at, until) = (decimal(rules.at_milli), decimal(rules.until_milli));
    let (keep, most) = (rules.keep_steps, rules.max_tokens);
    let agent = rules.agent.as_ref().map(|name| format!("agent = {}\n", quoted(name))).unwrap_or_default();
    format!("\n[compaction]\nat = {at}\nuntil = {until}\nkeep_steps = {keep}\nmax_tokens = {most}\n{agent}")
}

fn decimal(milli: u32) -> String {
    format!("{}.{:03}", milli / 1000, milli % 1000)
}

#[cfg(test)]
mod tests {
    use crate::Definition;

    fn parse(text: &str) -> Result<Definition, String> {
        let text = format!("name = 'a'\nmodel = 'm'\n{text}");
        Definition::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_rules_are_read_and_part_of_the_revision() {
        let plain = parse("[compaction]\n").unwrap();
        let rules = plain.agent().unwrap().compaction.clone().unwrap();
        assert_eq!((rules.at_milli, rules.until_milli, rules.keep_steps), (750, 400, 4));
        assert_eq!((rules.max_tokens, rules.agent.clone()), (512, None));
        let own =
            parse("[compaction]\nat = 0.6\nuntil = 0.25\nkeep_steps = 2\nmax_tokens = 100\nagent = 's'\n");
        for definition in [plain.clone(), own.unwrap()] {
            assert_eq!(Definition::parse(&definition.canonical()).unwrap(), definition);
        }
        let without = parse("").unwrap();
        assert_ne!(plain.revision(), without.revision());
        assert!(!without.canonical().contains("compaction"), "old revisions stay");
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        let cases = [
            ("at = 0.99\n", "compaction begins at 0.990"),
            ("at = 0.5\nuntil = 0.5\n", "nine tenths"),
            ("keep_steps = 0\n", "compaction.keep_steps is 0"),
            ("max_tokens = 3\n", "compaction.max_tokens is 3"),
            ("model = 'x'\n", "unknown key \"compaction.model\""),
            ("agent = ''\n", "compaction.agent \"\" is not allowed"),
        ];
        for (text, words) in cases {
            let error = parse(&format!("[compaction]\n{text}")).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
