//! A part of all steps, evaluated when nobody asked: behind all other work, into figures alone.
//!
//! Which steps is decided by a hash of their names, so that a step is looked at once, whoever ran it. What can't keep up
//! is passed over and counted: nothing waits for this.

use super::Evaluations;
use crate::telemetry::names;
use evaluate::{CallReport, Report, Verdict};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use types::{Hash, ProjectName, TaskUid};

/// Steps that wait to be looked at.
const WAITING: usize = 64;
/// Computed tokens of one step's evaluation.
pub(crate) const BUDGET_TOKENS: u64 = 200_000;
/// Teams with figures of their own; all others are `other`.
const TEAMS: usize = 64;

/// A committed step that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) task: TaskUid,
    pub(crate) step: u64,
}

/// Chooses steps as they are committed.
#[derive(Clone)]
pub(crate) struct Sampler {
    percent: u8,
    chosen: mpsc::Sender<Step>,
}

impl Sampler {
    /// With what it chooses.
    pub(crate) fn new(percent: u8) -> (Sampler, mpsc::Receiver<Step>) {
        let (chosen, steps) = mpsc::channel(WAITING);
        (Sampler { percent, chosen }, steps)
    }

    /// A step was committed. Never waits.
    pub(crate) fn committed(&self, step: Step) {
        if chooses(self.percent, step) && self.chosen.try_send(step).is_err() {
            count("passed-over");
        }
    }
}

/// Whether a step is among so many of a hundred.
fn chooses(percent: u8, Step { task, step }: Step) -> bool {
    let name = Hash::of_parts(&[task.to_string().as_bytes(), &step.to_le_bytes()]);
    let number = u16::from_le_bytes([name.0[0], name.0[1]]);
    u32::from(number) * 100 < u32::from(percent) * (1 << 16)
}

/// Where the calls of steps come from.
pub(crate) trait Past: Send + Sync + 'static {
    /// The step's call, as an order for a model of this node; none where it called no such model.
    fn call(&self, step: Step) -> impl Future<Output = Option<Sampled>> + Send;
}

/// A step's call, and whose it is.
pub(crate) struct Sampled {
    pub(crate) order: super::Order,
    /// Name of the team that the task belongs to, if any.
    pub(crate) team: Option<String>,
}

/// Evaluates what is chosen, one after the other, for the life of the node.
pub(crate) async fn follow(past: impl Past, evaluations: Evaluations, mut steps: mpsc::Receiver<Step>) {
    let teams = Teams::default();
    while let Some(step) = steps.recv().await {
        let Some(Sampled { order, team }) = past.call(step).await else { continue };
        let project = order.project.clone();
        match evaluations.run(order).await {
            Ok(done) => record(&done.report, &project, &teams.label(team)),
            Err(failed) => {
                tracing::debug!(task = %step.task, step = step.step, %failed, "a step was not evaluated");
                count("failed");
            }
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!(names::EVALUATED_STEPS_TOTAL, "outcome" => outcome).increment(1);
}

/// Names of teams that are labels.
#[derive(Clone, Default)]
struct Teams {
    known: Arc<Mutex<BTreeSet<String>>>,
}

impl Teams {
    fn label(&self, team: Option<String>) -> String {
        let Some(team) = team else { return "none".into() };
        let mut known = self.known.lock().expect("no panic while held");
        if known.contains(&team) || (known.len() < TEAMS && known.insert(team.clone())) {
            return team;
        }
        "other".into()
    }
}

fn record(report: &Report, project: &ProjectName, team: &str) {
    for call in &report.calls {
        count(if call.gated { "blind" } else { "judged" });
        for (what, tokens) in figures(call) {
            let labels =
                [("project", project.to_string()), ("team", team.to_string()), ("what", what.into())];
            metrics::counter!(names::EVALUATED_TOKENS_TOTAL, &labels).increment(tokens);
        }
    }
}

/// Tokens of a call's context: all, those that repeat others, and of calls that could be judged all, what was inert,
/// what others wrote, and what of that was of use.
fn figures(call: &CallReport) -> Vec<(&'static str, u64)> {
    let sum = |test: &dyn Fn(&evaluate::SegmentReport) -> bool| -> u64 {
        call.segments.iter().filter(|segment| test(segment)).map(|segment| segment.tokens).sum()
    };
    let mut found =
        vec![("read", call.context_tokens()), ("repeated", sum(&|segment| segment.dup_of.is_some()))];
    if !call.gated {
        let foreign = |segment: &evaluate::SegmentReport| segment.owner != call.reader;
        let inert = |verdict| matches!(verdict, Verdict::Inert | Verdict::ForeignInert);
        found.push(("judged", call.context_tokens()));
        found.push(("inert", sum(&|segment| inert(segment.verdict))));
        found.push(("received", sum(&foreign)));
        found.push(("useful", sum(&|segment| foreign(segment) && segment.verdict.mattered())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: u64) -> Step {
        Step { task: TaskUid::default(), step: n }
    }

    #[test]
    fn as_many_are_chosen_as_asked_and_always_the_same() {
        let chosen = |percent| (0..2_000).filter(|&n| chooses(percent, step(n))).count();
        assert_eq!((chosen(0), chosen(100)), (0, 2_000));
        let tenth = chosen(10);
        assert!((140..=260).contains(&tenth), "{tenth} of 2,000");
        assert!((0..2_000).all(|n| !chooses(5, step(n)) || chooses(10, step(n))), "more percent, more steps");
    }

    #[test]
    fn what_nobody_takes_is_passed_over() {
        let (sampler, mut steps) = Sampler::new(100);
        (0..WAITING as u64 + 5).for_each(|n| sampler.committed(step(n)));
        let mut taken = 0;
        while steps.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, WAITING);
    }

    #[test]
    fn labels_of_teams_are_bounded() {
        let teams = Teams::default();
        let label = |n: usize| teams.label(Some(format!("team-{n}")));
        assert!((0..TEAMS).all(|n| label(n) == format!("team-{n}")));
        assert_eq!((label(TEAMS), label(3)), ("other".into(), "team-3".into()));
        assert_eq!(teams.label(None), "none");
    }

    #[test]
    fn a_blind_call_says_nothing_of_inert_tokens() {
        let call = CallReport { gated: true, ..CallReport::default() };
        assert_eq!(figures(&call), [("read", 0), ("repeated", 0)]);
        let judged = CallReport { gated: false, ..CallReport::default() };
        assert_eq!(figures(&judged).len(), 6);
    }
}
