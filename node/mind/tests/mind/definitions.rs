//! What users write, and what they are told when it is wrong.

use crate::harness::{AGENT, TEAM};
use context::Visibility;
use mind::{AgentDefinition, Compaction, Definition, Limits, TeamDefinition, ToolChoice, ToolRule};
use proptest::prelude::*;

fn error(text: &str) -> mind::DefinitionError {
    Definition::parse(text).expect_err(text)
}

#[test]
fn defaults_are_filled_in() {
    let Ok(Definition::Agent(agent)) = Definition::parse("name = \"a\"\nmodel = \"m\"") else { panic!() };
    let defaults = types::limits::DEFAULT_MAX_TOKENS;
    assert_eq!((agent.max_tokens, agent.max_steps), (defaults, types::limits::DEFAULT_MAX_STEPS));
    assert_eq!((agent.temperature_milli, agent.seed, agent.visibility), (0, None, Visibility::Task));
    assert_eq!((agent.system.as_str(), agent.limits), ("", Limits::default()));
}

#[test]
fn every_key_is_read() {
    let text = "name = \"a\"\nmodel = \"m\"\nsystem = \"s\"\nmax_steps = 2\nmax_tokens = 300\ntemperature = 0.7\nseed = 5\n\
                tools = []\nlimits = { min_tokens = 128, max_tokens_total = 1_000 }\nmemory = \"none\"\nvisibility = \"project\"";
    let Ok(Definition::Agent(agent)) = Definition::parse(text) else { panic!() };
    assert_eq!(
        (agent.max_steps, agent.max_tokens, agent.temperature_milli, agent.seed),
        (2, 300, 700, Some(5))
    );
    assert_eq!(agent.limits, Limits { min_tokens: 128, max_tokens_total: Some(1000) });
    assert_eq!(agent.visibility, Visibility::Project);
    let Ok(Definition::Team(team)) = Definition::parse(TEAM) else { panic!() };
    assert_eq!((team.fan_out.as_str(), team.then.as_str()), ("reader", "writer"));
    assert_eq!(team.background, "House style.");
}

#[test]
fn errors_name_the_key_the_line_and_the_next_step() {
    let cases: [(&str, &str, Option<usize>, &str); 16] = [
        ("name = \"a\"\nmodel = \"m\"\nmax_token = 3", "max_token", Some(3), "max_tokens"),
        ("name = \"a\"\nmodel = \"m\"\n[limits]\nmin = 3", "limits.min", Some(4), "min_tokens"),
        ("name = \"a\"", "model", None, "add model"),
        ("model = \"m\"", "name", None, "add name"),
        ("name = \"a b\"\nmodel = \"m\"", "name", Some(1), "letters"),
        ("name = \"a\"\nmodel = 3", "model", Some(2), "text in quotes"),
        ("name = \"a\"\nmodel = \"m\"\nmax_tokens = 0", "max_tokens", Some(3), "from 1"),
        ("name = \"a\"\nmodel = \"m\"\nmax_tokens = 99999999999999999999", "max_tokens", Some(3), "from 1"),
        ("name = \"a\"\nmodel = \"m\"\ntemperature = nan", "temperature", Some(3), "from 0 to 2"),
        ("name = \"a\"\nmodel = \"m\"\n\ntools = [\"a web\"]", "tools.name", Some(4), "letters, digits"),
        ("name = \"a\"\nmodel = \"m\"\nvisibility = \"all\"", "visibility", Some(3), "task, agent, project"),
        ("name = \"a\"\nmodel = \"m\"\nmemory = \"agent\"", "memory", Some(3), "none"),
        (
            "name = \"a\"\nmodel = \"m\"\nmax_tokens = 8\n[limits]\nmin_tokens = 9",
            "limits.min_tokens",
            Some(5),
            "raise",
        ),
        ("name = \"t\"\n[fan_out]\nover = \"inputs\"\nagent = \"r\"", "then", None, "[then]"),
        (
            "name = \"t\"\n[fan_out]\nover = \"files\"\nagent = \"r\"\n[then]\nagent = \"w\"",
            "fan_out.over",
            Some(3),
            "inputs",
        ),
        ("name = \"t\"\nmodel = \"m\"\n[then]\nagent = \"w\"", "model", Some(2), "fan_out"),
    ];
    for (text, key, line, next) in cases {
        let error = error(text);
        assert_eq!((error.key.as_str(), error.line), (key, line), "{text}\n{error}");
        assert!(error.next.contains(next), "{text}\n{error}");
    }
    let tool = error("name = \"a\"\nmodel = \"m\"\ntools = [\"a web\"]");
    assert!(tool.message.contains("tools.name \"a web\" is not allowed"), "{tool}");
    let broken = error("name = \"a\"\nmodel = ");
    assert_eq!(broken.line, Some(2), "{broken}");
}

#[test]
fn the_revision_depends_on_meaning_alone() {
    let revision = |text: &str| Definition::parse(text).unwrap().revision();
    let spaced = format!("# a comment\n{}", AGENT.replace(" = ", "   =  "));
    assert_eq!(revision(AGENT), revision(&spaced));
    assert_eq!(revision(AGENT), revision(&format!("{AGENT}max_tokens = 256\n")), "a default written out");
    assert_ne!(revision(AGENT), revision(&format!("{AGENT}max_tokens = 255\n")));
    assert_ne!(revision(TEAM), revision(&TEAM.replace("House", "Other")));
}

#[test]
fn oversized_and_deeply_nested_definitions_are_refused() {
    assert!(error(&"a".repeat(2 << 20)).message.contains("bytes"));
    let deep = format!("name = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(Definition::parse(&deep).is_err());
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.-]{1,20}"
}

fn definition() -> impl Strategy<Value = Definition> {
    let agent = (
        (name(), name(), any::<String>(), 1u32..4096, 1u32..131_072, 0u32..=2000),
        (proptest::option::of(0u64..=i64::MAX as u64), proptest::option::of(131_072u64..1 << 40), 0u8..3),
    );
    let agent = agent.prop_map(
        |((name, model, system, max_steps, max_tokens, temperature_milli), (seed, total, who))| {
            let limits = Limits { min_tokens: max_tokens / 2, max_tokens_total: total };
            let visibility = [Visibility::Agent, Visibility::Task, Visibility::Project][usize::from(who)];
            Definition::Agent(AgentDefinition {
                needs: vec![],
                name,
                model,
                others: vec![],
                system,
                max_steps,
                max_tokens,
                temperature_milli,
                seed,
                limits,
                visibility,
                tools: if who > 0 {
                    vec![rule("files.*"), ToolRule { approve: true, ..rule("mail.send") }]
                } else {
                    vec![]
                },
                tool_choice: if who > 1 { ToolChoice::Required } else { ToolChoice::Auto },
                conversation: who == 1,
                result_schema: (who == 2).then(|| "{\"type\":\"object\"}".to_string()),
                compaction: (who > 0).then(|| Compaction {
                    at_milli: 500 + u32::from(who),
                    until_milli: 250,
                    keep_steps: 3,
                    max_tokens: 100,
                    agent: (who > 1).then(|| "summary".to_string()),
                }),
            })
        },
    );
    let team = (name(), any::<String>(), name(), any::<bool>(), name());
    let team = team.prop_map(|(name, background, fan_out, together, then)| {
        Definition::Team(TeamDefinition { name, background, fan_out, together, then })
    });
    prop_oneof![agent, team]
}

fn rule(name: &str) -> ToolRule {
    ToolRule { name: name.into(), policy: None, approve: false, timeout_ms: None, output_bytes: None }
}

proptest! {
    #[test]
    fn the_canonical_text_means_the_same(definition in definition()) {
        let again = Definition::parse(&definition.canonical()).unwrap();
        prop_assert_eq!(again.revision(), definition.revision());
        prop_assert_eq!(again, definition);
    }

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = Definition::parse(&text);
    }

    #[test]
    fn damaged_definitions_are_read_or_refused(at in 0usize..80, byte in 32u8..127) {
        for good in [AGENT, TEAM] {
            let mut bytes = good.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = Definition::parse(std::str::from_utf8(&bytes).unwrap());
        }
    }
}
