//! One plan over a long queue and many nodes.

use super::{create, micros, projects};
use crate::ledger_box::LedgerBox;
use ledger::Soft;
use ledger::plan::plan;
use ledger::rows::QuotaKey;
use serde::Serialize;
use std::time::Instant;

/// What the leader asks for at once.
const LEADER_MAX: usize = 64;
const TIMES: usize = 9;

/// One plan: the median of nine.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanRow {
    pub case: &'static str,
    pub pending: usize,
    pub nodes: usize,
    pub planned: usize,
    pub plan_ms: f64,
}

/// The same queue and nodes in several positions. The last ones change the quotas, so the order matters.
pub fn plans(tasks: u64, nodes: usize) -> anyhow::Result<Vec<PlanRow>> {
    let projects = projects(tasks)?;
    let mut ledger = LedgerBox::new(nodes, &projects);
    for number in 0..tasks {
        create(&mut ledger, &projects, number)?;
    }
    let four = ledger.soft(4);
    let mut full = four.clone();
    full.nodes.values_mut().for_each(|node| node.running = node.slots);
    let many = ledger.soft((tasks as usize).div_ceil(nodes) as u32);
    let mut rows = vec![
        measured("64 at most, as the leader asks; 4 slots a node", &ledger, &four, LEADER_MAX),
        measured("all that can start; 4 slots a node", &ledger, &four, usize::MAX),
        measured("all that can start; slots for every task", &ledger, &many, usize::MAX),
        measured("no slot is free", &ledger, &full, LEADER_MAX),
    ];
    for project in projects.iter().step_by(2) {
        ledger.limit(&format!("projects/{project}"), QuotaKey::Running, 0);
    }
    rows.push(measured("half of the projects at their limit", &ledger, &four, LEADER_MAX));
    ledger.limit("cluster", QuotaKey::Running, 0);
    rows.push(measured("every project at its limit", &ledger, &four, LEADER_MAX));
    Ok(rows)
}

fn measured(case: &'static str, ledger: &LedgerBox, soft: &Soft, max: usize) -> PlanRow {
    let mut times = Vec::new();
    let mut planned = 0;
    for _ in 0..TIMES {
        let started = Instant::now();
        planned = plan(&ledger.state, soft, max).len();
        times.push(micros(started) / 1000.0);
    }
    times.sort_by(f64::total_cmp);
    let (pending, nodes) = (ledger.state.queue_len(), soft.nodes.len());
    PlanRow { case, pending, nodes, planned, plan_ms: times[TIMES / 2] }
}
