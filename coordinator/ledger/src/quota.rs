//! The quota tree: what is used on every ancestor of a project, what is free, and who wakes when something is.
//!
//! A use counts at `cluster` and at every prefix of the project's name, whether a limit is set there or not, so a
//! limit set later is right from its first moment. Grants are all or nothing over the ancestors. A cut takes
//! nothing back: what is over it finishes, and nothing new is granted until use is below the limit again.
//!
//! `tokens_minute` is a bucket that holds one minute's worth, in milli-tokens. It fills in grains of 60 ms, in which
//! a limit of N tokens a minute gives exactly N milli-tokens, so no rounding adds up. It is filled when it is looked
//! at. When the limit moves, the level moves by the same amount: what was used of the minute stays used.

use crate::agents::check_etag;
use crate::change::{Change, check_text, invalid};
use crate::command::RequestKey;
use crate::reply::{Refusal, Reply};
use crate::requests::Memory;
use crate::rows::{QuotaKey, QuotaRow};
use crate::state::State;
use std::collections::{BTreeMap, BTreeSet};
use types::{ProjectName, TaskState, TaskUid, limits};

pub(crate) const TOKENS_TOTAL: &str = "tokens_total";
pub(crate) const TOKENS_MINUTE: &str = "tokens_minute";
pub(crate) const RUNNING: &str = "running";

/// In one grain a bucket gets as many milli-tokens as its limit has tokens.
const GRAIN_MS: u64 = 60;
/// How long a woken task counts as about to spend what it asked for, so that others are not woken for the same.
const PROMISE_MS: u64 = 10_000;
/// Tasks woken by one command, to bound the time it takes.
pub(crate) const WAKES_PER_COMMAND: usize = limits::BATCH_COMMANDS;

/// What is free of one resource at one place of the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub path: String,
    pub resource: &'static str,
    pub available: u64,
    pub limit: u64,
}

/// `cluster`, then the project's prefixes from the shortest on.
pub(crate) fn ancestors(project: &ProjectName) -> Vec<String> {
    let name = project.as_str();
    let cuts = name.match_indices('/').map(|(cut, _)| cut).chain([name.len()]);
    std::iter::once("cluster".to_string())
        .chain(cuts.map(|cut| format!("projects/{}", &name[..cut])))
        .collect()
}

/// Accepts `cluster` and `projects/NAME`.
pub(crate) fn check_path(path: &str) -> Result<(), Refusal> {
    let project = path.strip_prefix("projects/").map(ProjectName::parse);
    match project {
        Some(Ok(_)) => Ok(()),
        None if path == "cluster" => Ok(()),
        Some(Err(error)) => Err(invalid("quota path", error.to_string())),
        None => {
            let shown: String = path.chars().take(80).collect();
            Err(invalid("quota path", format!("{shown:?} is neither `cluster` nor `projects/NAME`")))
        }
    }
}

/// A row without limits and without use.
pub(crate) fn blank(path: &str) -> QuotaRow {
    QuotaRow {
        path: path.to_string(),
        running: None,
        tokens_minute: None,
        tokens_total: None,
        running_used: 0,
        tokens_settled: 0,
        tokens_reserved: 0,
        bucket_millitokens: 0,
        bucket_ms: 0,
        etag: 0,
        reason: String::new(),
        author: String::new(),
        updated_ms: 0,
    }
}

/// Brings the bucket up to the time given.
pub(crate) fn refill(row: &mut QuotaRow, ledger_ms: u64) {
    let Some(limit) = row.tokens_minute else { return };
    let grains = ledger_ms.saturating_sub(row.bucket_ms) / GRAIN_MS;
    let level = row.bucket_millitokens.saturating_add(grains.saturating_mul(limit));
    row.bucket_millitokens = level.min(limit.saturating_mul(1000));
    row.bucket_ms += grains * GRAIN_MS;
}

/// What is free of the tokens at a row, by resource.
fn token_rooms(row: &QuotaRow, ledger_ms: u64) -> impl Iterator<Item = Room> + use<> {
    let used = row.tokens_settled.saturating_add(row.tokens_reserved);
    let total = row.tokens_total.map(|limit| (TOKENS_TOTAL, limit.saturating_sub(used), limit));
    let mut filled = row.clone();
    refill(&mut filled, ledger_ms);
    let minute = row.tokens_minute.map(|limit| (TOKENS_MINUTE, filled.bucket_millitokens / 1000, limit));
    let path = row.path.clone();
    let room = move |(resource, available, limit)| Room { path: path.clone(), resource, available, limit };
    [total, minute].into_iter().flatten().map(room)
}

impl State {
    /// Every token limit above a project, and what it leaves at that time.
    pub(crate) fn token_rooms(&self, project: &ProjectName, ledger_ms: u64) -> Vec<Room> {
        let rows = ancestors(project).into_iter().filter_map(|path| self.quotas.get(&path));
        rows.flat_map(|row| token_rooms(row, ledger_ms)).collect()
    }

    /// The token limit that leaves least; `None` where nothing is limited.
    pub(crate) fn scarcest(&self, project: &ProjectName) -> Option<Room> {
        self.token_rooms(project, self.ledger_ms()).into_iter().min_by_key(|room| room.available)
    }

    fn use_quota(&mut self, project: &ProjectName, change: impl Fn(&mut QuotaRow)) {
        let ledger_ms = self.ledger_ms();
        for path in ancestors(project) {
            if !self.quotas.contains(&path) {
                self.quotas.insert(path.clone(), blank(&path));
            }
            self.quotas.update(&path, |row| {
                refill(row, ledger_ms);
                change(row);
            });
        }
    }

    pub(crate) fn check_slot(&self, project: &ProjectName) -> Result<(), Refusal> {
        for row in ancestors(project).iter().filter_map(|path| self.quotas.get(path)) {
            if let Some(limit) = row.running.filter(|limit| row.running_used >= *limit) {
                return Err(Refusal::OverQuota {
                    path: row.path.clone(),
                    resource: RUNNING.to_string(),
                    requested: 1,
                    available: 0,
                    limit,
                });
            }
        }
        Ok(())
    }

    pub(crate) fn take_slot(&mut self, project: &ProjectName) {
        self.use_quota(project, |row| row.running_used += 1);
    }

    pub(crate) fn free_slot(&mut self, project: &ProjectName) {
        self.use_quota(project, |row| row.running_used -= 1);
    }

    pub(crate) fn set_aside(&mut self, project: &ProjectName, tokens: u64) {
        self.use_quota(project, |row| {
            row.tokens_reserved += tokens;
            row.bucket_millitokens = row.bucket_millitokens.saturating_sub(tokens * 1000);
        });
    }

    /// Ends a reservation: `billed` of it is spent, the rest is free again, in the bucket too.
    pub(crate) fn settle(&mut self, project: &ProjectName, reserved: u64, billed: u64) {
        self.use_quota(project, |row| {
            row.tokens_reserved -= reserved;
            row.tokens_settled += billed;
            if let Some(limit) = row.tokens_minute {
                let level = row.bucket_millitokens.saturating_add((reserved - billed) * 1000);
                row.bucket_millitokens = level.min(limit.saturating_mul(1000));
            }
        });
    }

    /// Tasks paused for lack of budget that fit now, in queue order, each beside the ones woken before it.
    pub(crate) fn wakes(&self, ledger_ms: u64) -> Vec<TaskUid> {
        let mut purse = Purse::new(self, ledger_ms);
        let mut woken = Vec::new();
        for key in &self.tasks.index().starved {
            if woken.len() == WAKES_PER_COMMAND {
                break;
            }
            let Some(row) = self.task(key.uid) else { continue };
            if purse.fits(&row.project, row.wanted_tokens) {
                purse.take(&row.project, row.wanted_tokens);
                woken.push(key.uid);
            }
        }
        woken
    }
}

/// What is left of the budgets while waking, and what was promised from them.
pub(crate) struct Purse<'a> {
    state: &'a State,
    ledger_ms: u64,
    promised: BTreeMap<String, u64>,
    /// Places whose limits are looked past.
    lifted: BTreeSet<String>,
}

impl<'a> Purse<'a> {
    pub(crate) fn new(state: &'a State, ledger_ms: u64) -> Self {
        let mut purse = Purse { state, ledger_ms, promised: BTreeMap::new(), lifted: BTreeSet::new() };
        for row in state.tasks.index().hopeful.iter().filter_map(|uid| state.task(*uid)) {
            let fresh = row.queued_ms.saturating_add(PROMISE_MS) > ledger_ms;
            if fresh || row.state == TaskState::Running {
                purse.take(&row.project, row.wanted_tokens);
            }
        }
        purse
    }

    pub(crate) fn lift(&mut self, project: &ProjectName) {
        self.lifted.extend(ancestors(project));
    }

    pub(crate) fn promised(&self, path: &str) -> u64 {
        self.promised.get(path).copied().unwrap_or(0)
    }

    pub(crate) fn fits(&self, project: &ProjectName, wanted: u64) -> bool {
        let rooms = self.state.token_rooms(project, self.ledger_ms);
        rooms.into_iter().filter(|room| !self.lifted.contains(&room.path)).all(|room| {
            let promised = self.promised(&room.path);
            room.available >= promised.saturating_add(wanted)
        })
    }

    pub(crate) fn take(&mut self, project: &ProjectName, wanted: u64) {
        for path in ancestors(project) {
            *self.promised.entry(path).or_default() += wanted;
        }
    }
}

pub(crate) fn wake(change: &mut Change<'_>) {
    for uid in change.state.wakes(change.state.ledger_ms()) {
        change.enter(uid, TaskState::Pending, "budget");
    }
}

pub(crate) struct Cut<'a> {
    pub path: &'a str,
    pub changes: &'a [(QuotaKey, Option<u64>)],
    pub etag: Option<u64>,
    pub reason: &'a str,
    pub request: &'a RequestKey,
}

pub(crate) fn set(change: &mut Change<'_>, cut: &Cut<'_>) -> Result<Reply, Refusal> {
    check_path(cut.path)?;
    check_text("reason", cut.reason)?;
    if let Some(reply) = change.recall(cut.request, cut.path)? {
        return Ok(reply);
    }
    if cut.changes.is_empty() {
        return Err(invalid("changes", "none given; name running, tokens_minute or tokens_total"));
    }
    let mut row = change.state.quotas.get(&cut.path.to_string()).cloned().unwrap_or_else(|| blank(cut.path));
    check_etag(cut.etag, row.etag)?;
    let clock = change.state.clock();
    refill(&mut row, clock.ledger_ms);
    for (key, limit) in cut.changes {
        set_limit(&mut row, *key, *limit, clock.ledger_ms);
    }
    row.etag += 1;
    row.reason = cut.reason.to_string();
    row.author = cut.request.author.clone();
    row.updated_ms = clock.wall_ms;
    change.state.quotas.insert(row.path.clone(), row.clone());
    change.remember(cut.request, cut.path, Memory::Reply(Reply::Quota(row.clone())));
    wake(change);
    change.replan();
    Ok(Reply::Quota(row))
}

fn set_limit(row: &mut QuotaRow, key: QuotaKey, limit: Option<u64>, ledger_ms: u64) {
    match key {
        QuotaKey::Running => row.running = limit,
        QuotaKey::TokensTotal => row.tokens_total = limit,
        QuotaKey::TokensMinute => {
            row.bucket_millitokens = level_under(row, limit);
            row.bucket_ms = if row.tokens_minute.is_some() { row.bucket_ms } else { ledger_ms };
            row.tokens_minute = limit;
        }
    }
}

/// The bucket's level under a new limit: what was used of the minute stays used. A first limit counts what is set
/// aside at that moment as used, because it comes back into this bucket.
fn level_under(row: &QuotaRow, limit: Option<u64>) -> u64 {
    let Some(limit) = limit else { return 0 };
    let used = match row.tokens_minute {
        Some(old) => old.saturating_mul(1000).saturating_sub(row.bucket_millitokens),
        None => row.tokens_reserved.saturating_mul(1000),
    };
    limit.saturating_mul(1000).saturating_sub(used)
}
