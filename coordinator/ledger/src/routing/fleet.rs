//! Where a prompt goes: what is computed anew there, weighed against how busy the node is.
//!
//! A node's price is in tokens: what it would have to compute, an eighth of the work it was given lately beyond the
//! least loaded node's, and what it would throw away to make room. Three bounds stand above the price. A node under
//! pressure comes last. A node is not chosen for its price when it runs `SPREAD` tasks more than the least loaded
//! one, or when its recent work is more than 9/8 of the mean: then the next node computes the prefix too, and a
//! prefix that is in demand is soon on as many nodes as it needs.
//!
//! Looked at are the nodes that hold most of the prompt, those that keep its segments, and the least loaded ones: a
//! bounded number, whatever the size of the fleet.

use super::{Chain, Routes, work_tokens};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use types::{NodeId, TaskUid};

/// Leases by which a node may be ahead of the least loaded one and still be preferred for what it holds.
const SPREAD: u64 = 2;
/// One token of recent work beyond the least loaded node's weighs an eighth of a token to compute.
const WORK_WEIGHT: u64 = 8;
/// Recent work that may always be ahead of the mean: a few long prompts.
const WORK_SLACK_TOKENS: u64 = 32_768;
/// Pulling segments from a keeper costs about as much as computing so many tokens.
const PULL_TOKENS: u64 = 64;
/// Prices that differ by less are equal.
const GRAIN_TOKENS: u64 = 64;
/// Nodes looked at for what they hold, and for being least loaded.
const HOLDERS: usize = 4;
const IDLEST: usize = 2;

/// A node that takes tasks, as far as routing cares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lot {
    pub slots: u64,
    pub used: u64,
    /// Under pressure: chosen when nothing else is open.
    pub pressed: bool,
    /// Room for new sequences without throwing anything away, and room at all; all 0 is not known.
    pub free_kv_tokens: u64,
    pub kv_tokens: u64,
}

/// A task to place.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'w> {
    pub chain: &'w Chain,
    /// The engine it needs; `None` runs anywhere.
    pub model: Option<&'w str>,
    /// Nodes that hold its segments.
    pub keepers: &'w [NodeId],
    /// Whose child it is.
    pub team: Option<TaskUid>,
}

/// One node as one task sees it, in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    pub node: NodeId,
    /// Of the prompt: what the node holds, and what it would have to compute.
    pub matched_tokens: u64,
    pub missing_tokens: u64,
    /// What it was given lately.
    pub work_tokens: u64,
    pub used: u64,
    pub slots: u64,
    /// Tasks of the same parent that it runs.
    pub siblings: u64,
    /// What choosing it costs in tokens, load counted in.
    pub price_tokens: u64,
    /// Empty for the node that is chosen.
    pub why_not: String,
}

/// The nodes that take tasks, what they hold, and what this plan gave them.
#[derive(Clone)]
pub struct Fleet<'a> {
    known: &'a Routes,
    /// What placements of this plan add to it.
    fresh: Routes,
    berths: BTreeMap<NodeId, Berth<'a>>,
    /// Open nodes, least loaded first, by model; all of them under `None`.
    lines: BTreeMap<Option<&'a str>, Line>,
    siblings: BTreeMap<(TaskUid, NodeId), u64>,
    free: u64,
    now_ms: u64,
}

#[derive(Clone)]
struct Berth<'a> {
    lot: Lot,
    models: Vec<&'a str>,
    work: u64,
    /// Open though all its slots are taken, for explanations.
    lifted: bool,
}

#[derive(Clone, Default)]
struct Line {
    order: BTreeSet<Standing>,
    work: u64,
}

/// A place in the order of load: pressure, the share of slots taken, recent work, room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    pressed: bool,
    used_milli: u64,
    work: u64,
    free_kv: Reverse<u64>,
    node: NodeId,
}

/// The order of choice: price, then spread, then load.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    grains: u64,
    siblings: u64,
    standing: Standing,
}

impl Berth<'_> {
    fn is_open(&self) -> bool {
        self.lifted || self.lot.used < self.lot.slots
    }

    fn standing(&self, node: NodeId) -> Standing {
        Standing {
            pressed: self.lot.pressed,
            used_milli: self.lot.used * 1000 / self.lot.slots.max(1),
            work: self.work,
            free_kv: Reverse(self.lot.free_kv_tokens),
            node,
        }
    }

    /// Within `SPREAD` tasks of the least loaded node, measured in this node's slots.
    fn is_calm(&self, node: NodeId, least: &Standing) -> bool {
        let spare_milli = SPREAD * 1000 / self.lot.slots.max(1);
        self.standing(node).used_milli <= least.used_milli + spare_milli
    }
}

impl Line {
    fn allowed_work(&self) -> u64 {
        let mean = self.work / (self.order.len() as u64).max(1);
        mean + mean / 8 + WORK_SLACK_TOKENS
    }
}

impl<'a> Fleet<'a> {
    /// Nobody yet; `now_ms` is the leader's reading of the ledger's clock.
    pub fn new(known: &'a Routes, now_ms: u64) -> Fleet<'a> {
        Fleet {
            known,
            fresh: Routes::default(),
            berths: BTreeMap::new(),
            lines: BTreeMap::from([(None, Line::default())]),
            siblings: BTreeMap::new(),
            free: 0,
            now_ms,
        }
    }

    pub fn add(&mut self, node: NodeId, lot: Lot, models: impl IntoIterator<Item = &'a str>) {
        self.free += lot.slots.saturating_sub(lot.used);
        let work = self.known.work(node, self.now_ms);
        self.berths.insert(node, Berth { lot, models: models.into_iter().collect(), work, lifted: false });
        self.stand(node);
    }

    /// The node runs this prompt already.
    pub fn learn(&mut self, node: NodeId, chain: &Chain, team: Option<TaskUid>) {
        if !self.known.knows(node) {
            self.fresh.learn(node, chain);
        }
        self.count_sibling(node, team);
    }

    /// Opens a node whatever it runs.
    pub fn lift(&mut self, node: NodeId) {
        self.step_out(node);
        if let Some(berth) = self.berths.get_mut(&node) {
            berth.lifted = true;
        }
        self.stand(node);
    }

    pub fn lot(&self, node: NodeId) -> Option<&Lot> {
        self.berths.get(&node).map(|berth| &berth.lot)
    }

    /// No node has a slot left.
    pub fn is_full(&self) -> bool {
        self.free == 0
    }

    /// The node for this task, if any is open to it.
    pub fn best(&self, wish: &Wish<'_>) -> Option<NodeId> {
        let line = self.lines.get(&wish.model)?;
        let least = line.order.first()?;
        let held = self.held(wish.chain);
        let mut seen: Vec<NodeId> = Vec::with_capacity(2 * HOLDERS + IDLEST);
        let mut best: Option<Rank> = None;
        for node in candidates(&held, line, wish) {
            let berth = self.berths.get(&node).filter(|_| !seen.contains(&node));
            seen.push(node);
            let Some(berth) = berth.filter(|berth| may_take(node, berth, line, least, wish)) else {
                continue;
            };
            let rank = self.rank(node, berth, held.tokens(node), least, wish);
            if best.as_ref().is_none_or(|other| rank < *other) {
                best = Some(rank);
            }
        }
        best.map(|rank| rank.standing.node)
    }

    /// The task goes there.
    pub fn take(&mut self, node: NodeId, wish: &Wish<'_>) {
        let matched = self.matched(node, wish.chain);
        self.step_out(node);
        let Some(berth) = self.berths.get_mut(&node) else { return };
        self.free -= u64::from(berth.lot.used < berth.lot.slots);
        berth.lot.used += 1;
        berth.work += work_tokens(wish.chain.tokens(), matched);
        let missing = wish.chain.tokens() - matched;
        berth.lot.free_kv_tokens = berth.lot.free_kv_tokens.saturating_sub(missing);
        self.fresh.learn(node, wish.chain);
        self.count_sibling(node, wish.team);
        self.stand(node);
    }

    /// Every node of the fleet as this task sees it, in order of their ids.
    pub fn views(&self, wish: &Wish<'_>) -> Vec<View> {
        let chosen = self.best(wish);
        let nodes: Vec<NodeId> = self.berths.keys().copied().collect();
        nodes.into_iter().map(|node| self.view(node, wish, chosen)).collect()
    }

    fn view(&self, node: NodeId, wish: &Wish<'_>, chosen: Option<NodeId>) -> View {
        let berth = &self.berths[&node];
        let matched = self.matched(node, wish.chain);
        let least = self.lines.get(&wish.model).and_then(|line| line.order.first()).copied();
        let least = least.unwrap_or_else(|| berth.standing(node));
        View {
            node,
            matched_tokens: matched,
            missing_tokens: wish.chain.tokens() - matched,
            work_tokens: berth.work,
            used: berth.lot.used,
            slots: berth.lot.slots,
            siblings: self.siblings_on(node, wish.team),
            price_tokens: self.price(node, berth, matched, &least, wish),
            why_not: if chosen == Some(node) { String::new() } else { self.why_not(node, wish, chosen) },
        }
    }

    fn why_not(&self, node: NodeId, wish: &Wish<'_>, chosen: Option<NodeId>) -> String {
        let berth = &self.berths[&node];
        if wish.model.is_some_and(|model| !berth.models.contains(&model)) {
            return format!("has not loaded the model {}", wish.model.unwrap_or_default());
        }
        if !berth.is_open() {
            return format!("all {} slots are taken", berth.lot.slots);
        }
        let (Some(line), Some(chosen)) = (self.lines.get(&wish.model), chosen) else { return String::new() };
        let least = line.order.first().copied().unwrap_or_else(|| berth.standing(node));
        if berth.lot.pressed && !least.pressed {
            return "is under pressure, others are not".to_string();
        }
        if !berth.is_calm(node, &least) {
            return format!(
                "runs {} of {} slots, too far ahead of {}",
                berth.lot.used, berth.lot.slots, least.node
            );
        }
        if berth.work > line.allowed_work() {
            return format!("was given {} tokens lately, its share is {}", berth.work, line.allowed_work());
        }
        let price =
            |id: NodeId| self.price(id, &self.berths[&id], self.matched(id, wish.chain), &least, wish);
        format!("costs {} tokens, {chosen} costs {}", price(node), price(chosen))
    }

    fn held<'s>(&'s self, chain: &'s Chain) -> Held<'s> {
        let found = |routes: &Routes| routes.holders(chain, HOLDERS);
        Held { chain, records: [self.known, &self.fresh].map(|routes| (routes, found(routes))) }
    }

    fn rank(&self, node: NodeId, berth: &Berth<'_>, matched: u64, least: &Standing, wish: &Wish<'_>) -> Rank {
        Rank {
            grains: self.price(node, berth, matched, least, wish) / GRAIN_TOKENS,
            siblings: self.siblings_on(node, wish.team),
            standing: berth.standing(node),
        }
    }

    fn price(&self, node: NodeId, berth: &Berth<'_>, matched: u64, least: &Standing, wish: &Wish<'_>) -> u64 {
        let missing = wish.chain.tokens().saturating_sub(matched);
        let pull = if wish.keepers.contains(&node) { 0 } else { PULL_TOKENS };
        let says = berth.lot.kv_tokens > 0;
        let thrown_away = if says { missing.saturating_sub(berth.lot.free_kv_tokens) } else { 0 };
        missing + pull + thrown_away + berth.work.saturating_sub(least.work) / WORK_WEIGHT
    }

    fn matched(&self, node: NodeId, chain: &Chain) -> u64 {
        self.known.matched(node, chain).max(self.fresh.matched(node, chain))
    }

    fn siblings_on(&self, node: NodeId, team: Option<TaskUid>) -> u64 {
        team.and_then(|team| self.siblings.get(&(team, node)).copied()).unwrap_or(0)
    }

    fn count_sibling(&mut self, node: NodeId, team: Option<TaskUid>) {
        if let Some(team) = team {
            *self.siblings.entry((team, node)).or_default() += 1;
        }
    }

    fn stand(&mut self, node: NodeId) {
        let Some(berth) = self.berths.get(&node).filter(|berth| berth.is_open()) else { return };
        let standing = berth.standing(node);
        for model in berth.models.iter().map(|model| Some(*model)).chain([None]) {
            let line = self.lines.entry(model).or_default();
            line.order.insert(standing);
            line.work += standing.work;
        }
    }

    fn step_out(&mut self, node: NodeId) {
        let Some(berth) = self.berths.get(&node).filter(|berth| berth.is_open()) else { return };
        let standing = berth.standing(node);
        for model in berth.models.iter().map(|model| Some(*model)).chain([None]) {
            if let Some(line) = self.lines.get_mut(&model) {
                line.order.remove(&standing);
                line.work -= standing.work;
            }
        }
    }
}

/// Who holds most of a prompt, by both records.
struct Held<'s> {
    chain: &'s Chain,
    records: [(&'s Routes, Vec<(NodeId, u64)>); 2],
}

impl Held<'_> {
    fn nodes(&self) -> impl Iterator<Item = NodeId> {
        self.records.iter().flat_map(|(_, found)| found.iter().map(|(node, _)| *node))
    }

    fn tokens(&self, node: NodeId) -> u64 {
        let by_record = self.records.iter().map(|(routes, found)| {
            let listed = found.iter().find(|(holder, _)| *holder == node).map(|(_, tokens)| *tokens);
            // A list that is not full names everyone who holds anything.
            listed.unwrap_or_else(|| if found.len() < HOLDERS { 0 } else { routes.matched(node, self.chain) })
        });
        by_record.max().unwrap_or(0)
    }
}

/// Nodes worth a look; one may come twice.
fn candidates<'s>(held: &'s Held<'s>, line: &'s Line, wish: &Wish<'s>) -> impl Iterator<Item = NodeId> + 's {
    let idle = line.order.iter().take(IDLEST).map(|standing| standing.node);
    held.nodes().chain(wish.keepers.iter().copied()).chain(idle)
}

/// Whether the price may decide for this node: able, open, calm, and within its share of the work.
fn may_take(node: NodeId, berth: &Berth<'_>, line: &Line, least: &Standing, wish: &Wish<'_>) -> bool {
    let able = wish.model.is_none_or(|model| berth.models.contains(&model));
    let calm = berth.lot.pressed == least.pressed && berth.is_calm(node, least);
    let within_share = node == least.node || berth.work <= line.allowed_work();
    able && berth.is_open() && calm && within_share
}
