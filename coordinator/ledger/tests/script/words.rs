//! The words of a line, and the commands that they alone make.

use ledger::command::{Command, RequestKey, Route, SliceTurn, Spare, Wanted};
use ledger::keys::{Amounts, Holding};
use ledger::reply::SliceAnswer;
use ledger::rows::{CallId, QuotaKey, Role, Want};
use std::collections::BTreeMap;
use types::{Hash, NodeId, ProjectName};

/// The words after the verb.
pub(super) struct Words<'a> {
    pub(super) plain: Vec<&'a str>,
    pub(super) named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> (&'a str, Words<'a>) {
        let mut words = line.split_whitespace();
        let verb = words.next().unwrap_or_default();
        let (named, plain): (Vec<_>, Vec<_>) = words.partition(|word| word.contains('='));
        (verb, Words { plain, named: named.into_iter().filter_map(|word| word.split_once('=')).collect() })
    }

    pub(super) fn plain(&self, at: usize) -> Result<&'a str, String> {
        self.plain.get(at).copied().ok_or_else(|| format!("word {at} is missing"))
    }

    pub(super) fn text(&self, key: &str) -> Option<&'a str> {
        self.named.get(key).copied()
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.named.iter().map(|(key, value)| (*key, *value))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, String> {
        self.text(key).map(|text| text.parse().map_err(|_| format!("{key}={text} is no number"))).transpose()
    }

    pub(super) fn number_or(&self, key: &str, default: u64) -> Result<u64, String> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    pub(super) fn project(&self) -> Result<ProjectName, String> {
        ProjectName::parse(self.text("in").unwrap_or(ProjectName::DEFAULT)).map_err(|error| error.to_string())
    }

    pub(super) fn nodes(&self, key: &str) -> Result<Option<Vec<NodeId>>, String> {
        let ids = |text: &str| text.split(',').filter(|id| !id.is_empty()).map(node).collect();
        self.text(key).map(ids).transpose()
    }

    pub(super) fn request(&self) -> RequestKey {
        RequestKey {
            author: self.text("by").unwrap_or("ann").to_string(),
            request_id: self.text("request").unwrap_or_default().to_string(),
            body: Hash::of(self.text("body").unwrap_or_default().as_bytes()),
        }
    }
}

pub(super) fn node(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn admit(words: &Words<'_>) -> Result<Command, String> {
    let name = words.plain(0)?;
    let disk = Hash::of(words.text("disk").unwrap_or(name).as_bytes());
    let role = if words.plain.get(1) == Some(&"coordinator") { Role::Coordinator } else { Role::Worker };
    Ok(Command::AdmitNode {
        name: name.to_string(),
        roles: vec![role],
        client_addr: words.text("at").unwrap_or("127.0.0.1:7400").to_string(),
        internal_addr: "127.0.0.1:7401".to_string(),
        disk_id: disk.0[..16].try_into().map_err(|_| "16 bytes")?,
        version: "0.1.0".to_string(),
    })
}

/// `running=3`, `micro_usd_day=none`; `minute` and `total` are short for tokens.
pub(super) fn set_quota(words: &Words<'_>) -> Result<Command, String> {
    let mut changes = vec![];
    for (name, value) in words.pairs() {
        let key = match name {
            "minute" => QuotaKey::TokensMinute,
            "total" => QuotaKey::TokensTotal,
            name => match QuotaKey::parse(name) {
                Some(key) => key,
                None => continue,
            },
        };
        changes.push((key, if value == "none" { None } else { words.number(name)? }));
    }
    Ok(Command::SetQuota {
        path: words.plain(0)?.to_string(),
        changes,
        etag: words.number("etag")?,
        reason: words.text("reason").unwrap_or_default().to_string(),
        request: words.request(),
    })
}

pub(super) fn want(words: &Words<'_>) -> Result<Option<Want>, String> {
    let want = Want {
        fresh_tokens: words.number_or("fresh", 0)?,
        known_tokens: words.number_or("known", 0)?,
        extra: Amounts { tool_calls: words.number_or("calls", 0)?, ..Amounts::NONE },
    };
    Ok((want != Want::default()).then_some(want))
}

fn call_id(name: &str) -> CallId {
    let mut id = CallId::default();
    id.0.copy_from_slice(&Hash::of(name.as_bytes()).0[..16]);
    id
}

/// `call c1 n1 min=5 max=9 fresh=4`: a model call without a task.
pub(super) fn begin_call(words: &Words<'_>) -> Result<Command, String> {
    let cached_tokens = words.number_or("cached", 0)?;
    Ok(Command::BeginCall {
        call: call_id(words.plain(0)?),
        project: words.project()?,
        model: words.text("model").unwrap_or("m").to_string(),
        author: words.text("by").unwrap_or("ann").to_string(),
        node: node(words.plain(1)?)?,
        min_tokens: words.number_or("min", 1)?,
        max_tokens: words.number_or("max", 1)?,
        want: Want {
            fresh_tokens: words.number_or("fresh", 0)?,
            known_tokens: 0,
            extra: Amounts { cached_tokens, ..Amounts::NONE },
        },
        lives_ms: words.number_or("lives", 30_000)?,
        needs: words.text("to").map(|to| (Holding::Connections(to.into()), 1)).into_iter().collect(),
    })
}

pub(super) fn renew_call(words: &Words<'_>) -> Result<Command, String> {
    let calls = vec![(words.project()?, call_id(words.plain(0)?))];
    Ok(Command::RenewCalls {
        node: node(words.plain(1)?)?,
        calls,
        lives_ms: words.number_or("lives", 30_000)?,
    })
}

pub(super) fn end_call(words: &Words<'_>) -> Result<Command, String> {
    Ok(Command::EndCall {
        project: words.project()?,
        call: call_id(words.plain(0)?),
        fresh_tokens: words.number_or("fresh", 0)?,
        known_tokens: words.number_or("cached", 0)?,
        generated_tokens: words.number_or("said", 0)?,
        extra: Amounts::NONE,
    })
}

fn tokens(words: &Words<'_>, key: &str) -> Result<Amounts, String> {
    Ok(Amounts { tokens: words.number_or(key, 0)?, ..Amounts::NONE })
}

/// `slice s1 n1 seq=1 min=5 max=9 fresh=4 spare=3 at-once=1`; later `spent=7 drawn=2 keep=9 kept=1`.
pub(super) fn turn_slice(words: &Words<'_>) -> Result<Command, String> {
    let max_tokens = words.number_or("max", 0)?;
    let want = want(words)?.unwrap_or_default();
    let each = Wanted { min_tokens: words.number_or("min", 1)?, max_tokens, want };
    let spare = Spare { each, requests: words.number_or("spare", 0)?, slots: words.number_or("at-once", 0)? };
    Ok(Command::TurnSlice {
        turn: Box::new(SliceTurn {
            project: words.project()?,
            slice: call_id(words.plain(0)?),
            model: words.text("model").unwrap_or("m").to_string(),
            author: words.text("by").unwrap_or("ann").to_string(),
            node: node(words.plain(1)?)?,
            needs: words.text("to").map(|to| (Holding::Connections(to.into()), 1)).into_iter().collect(),
            seq: words.number_or("seq", 1)?,
            spent: tokens(words, "spent")?,
            drawn: words.number_or("drawn", 0)?,
            keep: tokens(words, "keep")?,
            keep_slots: words.number_or("kept", 0)?,
            want: (words.text("waits") != Some("no") && max_tokens > 0).then_some(each),
            recalled: words.text("recalled") == Some("yes"),
            spare: (spare.requests + spare.slots > 0).then_some(spare),
            lives_ms: words.number_or("lives", 30_000)?,
        }),
    })
}

pub(super) fn refund_slice(words: &Words<'_>) -> Result<Command, String> {
    let (project, slice, node) = (words.project()?, call_id(words.plain(0)?), node(words.plain(1)?)?);
    Ok(Command::RefundSlice { project, slice, node, spent: tokens(words, "spent")? })
}

pub(super) fn slice_answer(answer: &SliceAnswer) -> String {
    let mut text = format!("granted {}", answer.granted);
    for (says, word) in
        [(answer.spare, "spare"), (answer.retired, "retired"), (answer.recalled, "others recalled")]
    {
        text += &if says { format!(", {word}") } else { String::new() };
    }
    text + &answer.short.as_ref().map_or(String::new(), |short| format!(", short: {short}"))
}

pub(super) fn hold(words: &Words<'_>) -> Result<Command, String> {
    let models = words.plain[1..].iter().map(|name| {
        let digest = words.text("digest").unwrap_or("file");
        ((*name).to_string(), Hash::of(digest.as_bytes()), 100)
    });
    Ok(Command::HoldModels { node: node(words.plain(0)?)?, models: models.collect() })
}

/// The model of several that a call is for.
pub(super) fn route(words: &Words<'_>) -> Result<Option<Route>, String> {
    let Some(model) = words.text("model") else { return Ok(None) };
    let (model, reason) = (model.to_string(), words.text("why").unwrap_or("CHEAPER").to_string());
    let (turn, others) = (words.number_or("turn", 1)? as u32, words.text("others") == Some("yes"));
    Ok(Some(Route { model, reason, turn, others }))
}
