//! Transcripts: event lines, and below each the effects it has. `UPDATE=1` rewrites the effects.
//!
//! A file begins with the definition, a line `--- inputs NAME...`, and then events. `restart` is a new life that
//! replays what was committed; `loaded` answers with what the store has.

use crate::harness::{Store, facts, generated, outcome, uid};
use context::{Kind, Part, Segment, Visibility};
use mind::{
    CallOutcome, Decision, Effect, Event, Finish, Measured, Mind, NextMove, Signal, SignalKind, TaskFacts,
};
use std::collections::BTreeMap;
use types::{Hash, TaskState};

struct Stage {
    facts: TaskFacts,
    mind: Mind,
    store: Store,
    proposed: Option<Hash>,
    wanted: Vec<Hash>,
    /// The kinds of the chain that the model was called with last.
    called: Vec<Kind>,
    names: BTreeMap<Hash, String>,
}

#[test]
fn transcripts() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mind/transcripts");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 6, "the transcripts are part of the repository");
    for path in files {
        let text = std::fs::read_to_string(&path).unwrap();
        let played = play(&text);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &played).unwrap();
        } else {
            assert!(text == played, "{} differs; it plays as:\n{played}", path.display());
        }
    }
}

fn play(text: &str) -> String {
    let at = text.find("--- inputs").expect("a line with the inputs");
    let (definition, rest) = text.split_at(at);
    let (header, events) = rest.split_once('\n').expect("events");
    let inputs: Vec<&str> = header.split_whitespace().skip(2).collect();
    let mut stage = Stage::new(facts(definition, &inputs));
    let mut played = format!("{definition}{header}\n");
    for line in events.lines().filter(|line| !line.starts_with("  ")) {
        played += &format!("{line}\n");
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        for effect in stage.line(line) {
            played += &format!("  {}\n", stage.describe(&effect));
        }
    }
    played
}

impl Stage {
    fn new(facts: TaskFacts) -> Stage {
        let named = facts.inputs.iter().map(|(name, hash)| (*hash, name.clone()));
        let results = (0..9_000)
            .map(uid)
            .map(|child| (Hash::of(child.to_string().as_bytes()), format!("result of {}", child.index)));
        let names = named.chain(results).collect();
        let mind = Mind::new(facts.clone());
        Stage {
            facts,
            mind,
            store: Store::default(),
            proposed: None,
            wanted: Vec::new(),
            called: Vec::new(),
            names,
        }
    }

    fn line(&mut self, line: &str) -> Vec<Effect> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        if word == "restart" {
            self.mind = self.store.revive(&self.facts, self.store.journal.len());
            return Vec::new();
        }
        let event = self.event(word, rest);
        let before = self.mind.observe().step;
        let effects = self.mind.on(event);
        if self.mind.observe().step > before {
            self.store.journal.extend(self.proposed.take());
        }
        effects.iter().for_each(|effect| self.keep(effect));
        effects
    }

    fn event(&self, word: &str, rest: &str) -> Event {
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "begin" => Event::Begin,
            "loaded" => self.loaded(),
            "budget" => Event::BudgetRefused,
            "no-calls" => Event::CallsRefused,
            "fenced" => Event::Fenced,
            "checked" => Event::Checked { wrong: rest.to_string() },
            "committed" => Event::Committed { step: words[0].parse().unwrap() },
            "spawned" => {
                Event::Spawned { children: words.iter().map(|it| uid(it.parse().unwrap())).collect() }
            }
            "children" => Event::Children(words.iter().map(|it| child(it)).collect()),
            "failed" => Event::ModelFailed {
                reason: words[0].to_string(),
                message: words[2..].join(" "),
                retriable: words[1] == "retriable",
            },
            // `full 100 5 60 20`: the window, and the tokens of each piece.
            "full" => {
                let numbers: Vec<u64> = words.iter().map(|word| word.parse().unwrap()).collect();
                assert_eq!(
                    numbers.len() - 1,
                    self.called.len(),
                    "a number for each piece: {:?}",
                    self.called
                );
                let measured = |(kind, tokens): (&Kind, &u64)| Measured { kind: *kind, tokens: *tokens };
                let pieces = self.called.iter().zip(&numbers[1..]).map(measured).collect();
                Event::NearlyFull { window_tokens: numbers[0], pieces }
            }
            "tools" => Event::Tools { specs: rest.to_string() },
            "ended" => ended(&words),
            "said" => Event::Signals(vec![signal(&words)]),
            "generated" => generated(&words[2..].join(" "), words[1].parse().unwrap(), finish(words[0])),
            other => panic!("no such event: {other}"),
        }
    }

    /// Inputs and results of children are in no store here; their texts are their names.
    fn loaded(&self) -> Event {
        let text = |hash: &Hash| match self.store.segments.contains_key(hash) {
            true => self.store.segment(*hash),
            false => Segment::new(Kind::Message, "someone", Visibility::Project, self.name(hash)),
        };
        Event::Loaded { segments: self.wanted.iter().map(|hash| (*hash, text(hash))).collect() }
    }

    fn keep(&mut self, effect: &Effect) {
        self.store.keep(effect);
        match effect {
            Effect::Load { hashes } => self.wanted = hashes.clone(),
            Effect::Commit { head, segments, .. } => {
                self.proposed = Some(*head);
                self.learn(&segments[..segments.len() - 1]);
            }
            Effect::Spawn { new_segments, .. } => self.learn(new_segments),
            Effect::Infer { fresh, chain, .. } => {
                self.names.extend(fresh.iter().map(|(hash, it)| (*hash, described(it))));
                let kind = |hash: &Hash| {
                    let new = fresh.iter().find(|(known, _)| known == hash).map(|(_, it)| it.kind);
                    let stored =
                        || self.store.segments.contains_key(hash).then(|| self.store.segment(*hash).kind);
                    new.or_else(stored).unwrap_or(Kind::Message)
                };
                self.called = chain.iter().map(|item| kind(&item.hash)).collect();
            }
            Effect::ListTools { .. }
            | Effect::CallTool { .. }
            | Effect::CutShort
            | Effect::AskChildren
            | Effect::CheckResult { .. }
            | Effect::Stop => {}
        }
    }

    fn learn(&mut self, segments: &[(Hash, Vec<u8>)]) {
        for (hash, _) in segments {
            let text = described(&self.store.segment(*hash));
            self.names.insert(*hash, text);
        }
    }

    fn name(&self, hash: &Hash) -> &str {
        self.names.get(hash).map_or("a person's text", String::as_str)
    }

    fn names(&self, hashes: impl IntoIterator<Item = Hash>) -> String {
        let names: Vec<&str> = hashes.into_iter().map(|hash| self.name(&hash)).collect();
        format!("[{}]", names.join(", "))
    }

    fn describe(&self, effect: &Effect) -> String {
        match effect {
            Effect::Load { hashes } => format!("load {}", self.names(hashes.iter().copied())),
            Effect::ListTools { patterns } => format!("list tools {}", patterns.join(" ")),
            Effect::CallTool { step, index, tool, arguments, attempt, timeout_ms, .. } => {
                let timeout = timeout_ms.map_or(String::new(), |ms| format!(" timeout={ms}"));
                format!("call {step}.{index} {tool} {arguments} attempt={attempt}{timeout}")
            }
            Effect::CutShort => "cut short".to_string(),
            Effect::Infer {
                step,
                call,
                chain,
                known_tokens,
                max_tokens,
                min_tokens,
                wait_ms,
                choice,
                full_at_milli,
                summary,
                ..
            } => {
                let parts: Vec<String> = chain
                    .iter()
                    .map(|item| format!("{}:{}", part(item.part), self.name(&item.hash)))
                    .collect();
                let choice = match choice {
                    mind::ToolChoice::None => String::new(),
                    choice => format!(" tools={choice:?}"),
                };
                let infer = if *summary { "summarise" } else { "infer" };
                let full = full_at_milli.map_or(String::new(), |milli| format!(" full={milli}"));
                format!(
                    "{infer} {step}.{call} max={max_tokens} min={min_tokens} known={known_tokens} wait={wait_ms}{choice}{full} [{}]",
                    parts.join(", ")
                )
            }
            Effect::Spawn { step, children, .. } => {
                let one = |plan: &mind::ChildPlan| {
                    let inputs: Vec<String> = plan
                        .inputs
                        .iter()
                        .map(|(name, hash)| format!("{name}={}", self.name(hash)))
                        .collect();
                    let priority = plan.priority.map_or(String::new(), |it| format!(" at priority {it}"));
                    format!(
                        "{}{priority} on {} with {}",
                        plan.agent,
                        inputs.join(" "),
                        self.names(plan.background.iter().copied())
                    )
                };
                format!("spawn {step} {}", children.iter().map(one).collect::<Vec<_>>().join("; "))
            }
            Effect::AskChildren => "ask children".to_string(),
            Effect::CheckResult { schema, text } => format!("check {text:?} against {schema}"),
            Effect::Commit { step, record, billed_tokens, next, .. } => {
                let decision = decided(&record.decision);
                let added = self.names(record.added.iter().copied());
                format!(
                    "commit {step} {decision} added={added} billed={billed_tokens} -> {}",
                    self.moved(next)
                )
            }
            Effect::Stop => "stop".to_string(),
        }
    }

    fn asked(&self, asks: &[mind::Ask]) -> String {
        let one = |ask: &mind::Ask| {
            let text = ask.text.as_ref().map_or("", |hash| self.name(hash));
            format!("{} {:?} {} {text}", ask.id, ask.kind, ask.tool)
        };
        asks.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    fn moved(&self, next: &NextMove) -> String {
        match next {
            NextMove::Continue => "continue".to_string(),
            NextMove::WaitChildren => "wait for children".to_string(),
            NextMove::Done { result, bytes } => format!("done {} ({bytes} bytes)", self.name(result)),
            NextMove::Failed { reason, message } => format!("failed {reason}: {}", self.name(message)),
            NextMove::PausedError { reason, message } => format!("paused {reason}: {}", self.name(message)),
            NextMove::GoOn { heard } => format!("go on, heard {heard}"),
            NextMove::WaitTool { heard, asks, begun } => {
                let begun = if *begun > 0 { format!(" of {begun} calls") } else { String::new() };
                format!("wait for tools{begun}, heard {heard}, asking [{}]", self.asked(asks))
            }
            NextMove::WaitInput { heard, asks } => {
                format!("wait for people, heard {heard}, asking [{}]", self.asked(asks))
            }
            NextMove::WaitBudget { heard, calls } => {
                format!("wait for a budget of {calls} calls, heard {heard}")
            }
            NextMove::WaitFor { heard, ms } => format!("wait for {ms} ms, heard {heard}"),
        }
    }
}

fn signal(words: &[&str]) -> Signal {
    let kind = match words[1] {
        "approve" => SignalKind::Approve,
        "reject" => SignalKind::Reject,
        "answer" => SignalKind::Answer,
        "repeat" => SignalKind::Repeat,
        "message" => SignalKind::Message,
        "interrupt" => SignalKind::Interrupt,
        "rollback" => SignalKind::Rollback,
        other => panic!("no such signal: {other}"),
    };
    let of_call = words.get(2).filter(|word| word.contains('.'));
    Signal {
        number: words[0].parse().unwrap(),
        kind,
        ask: of_call.copied().unwrap_or_default().to_string(),
        text: words.last().filter(|word| !word.contains('.')).map(|word| Hash::of(word.as_bytes())),
        author: "ann".to_string(),
    }
}

/// `ended 1.0 answered text`
fn ended(words: &[&str]) -> Event {
    let (step, index) = words[0].split_once('.').expect("calls are written 1.0");
    let text = words[2..].join(" ");
    let outcome = match words[1] {
        "answered" => CallOutcome::Answered { text, is_error: false },
        "error" => CallOutcome::Answered { text, is_error: true },
        "refused" => CallOutcome::Refused { reason: "INVALID_ARGUMENTS".into(), message: text },
        "unknown" => CallOutcome::Unknown { reason: "TOOL_TIMEOUT".into(), message: text },
        other => panic!("no such outcome: {other}"),
    };
    Event::CallEnded { step: step.parse().unwrap(), index: index.parse().unwrap(), outcome }
}

fn described(segment: &Segment) -> String {
    if segment.kind == Kind::Tools {
        return "tools".to_string();
    }
    let open = if segment.open { " (open)" } else { "" };
    format!("{}{open} {:?}", segment.kind.name(), segment.text)
}

fn part(part: Part) -> &'static str {
    match part {
        Part::System => "system",
        Part::Background => "background",
        Part::TaskState => "state",
        Part::Input => "input",
        Part::Private => "private",
    }
}

fn decided(decision: &Decision) -> String {
    match decision {
        Decision::Called { finish, call, generated_tokens } => {
            format!("called {finish:?} call={call} tokens={generated_tokens}")
        }
        Decision::Spawned { children, stage } => format!("spawned stage={stage} children={}", children.len()),
        Decision::Waited { stage } => format!("waited stage={stage}"),
        Decision::Finished { finish, .. } => format!("finished {finish:?}"),
        Decision::Failed { .. } => "failed".to_string(),
        Decision::Paused { calls, .. } => format!("paused calls={calls}"),
        Decision::Asked { calls, .. } => {
            let one = |call: &mind::ToolCall| {
                let begun = if call.begun { " begun" } else { "" };
                let refused = if call.refused.is_empty() { "" } else { " refused" };
                format!("{}{begun}{refused}", call.tool)
            };
            format!("asked for [{}]", calls.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Decision::Moved { begun, ended, spawned } => {
            let ended: Vec<String> = ended.iter().map(|end| format!("{} {:?}", end.index, end.how)).collect();
            let spawned: Vec<u32> = spawned.iter().map(|(index, _)| *index).collect();
            format!("moved begun={begun:?} ended=[{}] spawned={spawned:?}", ended.join(", "))
        }
        Decision::Heard { messages, rollback } => format!("heard {} rollback={rollback}", messages.len()),
        Decision::Answered { finish, .. } => format!("answered {finish:?}"),
        Decision::Rested => "rested".to_string(),
        Decision::OffSchema { finish, call, .. } => format!("off schema {finish:?} call={call}"),
        Decision::Condensing { from, count, tokens, .. } => {
            format!("condensing {count} from {from}, {tokens} tokens")
        }
        Decision::Condensed { from, count, summary: Some(_), generated_tokens, .. } => {
            format!("condensed {count} from {from} tokens={generated_tokens}")
        }
        Decision::Condensed { reason, .. } => format!("not condensed: {reason}"),
    }
}

fn finish(word: &str) -> Finish {
    match word {
        "stop" => Finish::Stop,
        "length" => Finish::Length,
        "budget" => Finish::Budget,
        other => panic!("no such finish: {other}"),
    }
}

fn child(word: &str) -> mind::ChildOutcome {
    let (index, state) = word.split_once('=').expect("children are written 1=succeeded");
    let state = match state {
        "succeeded" => TaskState::Succeeded,
        "failed" => TaskState::Failed,
        "cancelled" => TaskState::Cancelled,
        "running" => TaskState::Running,
        other => panic!("no such state: {other}"),
    };
    outcome(uid(index.parse().unwrap()), state)
}
