//! One run in virtual time: what happens next is always the earliest of arrivals, finished work and ticks.

use super::{Outcome, Setup, class_of, deadline_ms, door_percent};
use crate::dice::Dice;
use crate::ledger_box::{LedgerBox, NewTask};
use crate::trace::Call;
use ledger::command::{Command, Next, Release};
use ledger::effect::Effect;
use ledger::plan::plan;
use ledger::reply::Reply;
use ledger::rows::QuotaKey;
use ledger::{Applied, Soft};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use types::{Class, Epoch, Hash, NodeId, ProjectName, Spent, TaskState, TaskUid};

/// As the leader does it: assignments in one entry, and how often it looks at the clock.
const PLAN_MAX: usize = 64;
const TICK_MS: u64 = 200;

const ONLINE: &str = "online";
const OFFLINE: &str = "offline";
const SPARE: &str = "offline/spare";

pub(super) struct Run<'a> {
    calls: &'a [Call],
    setup: Setup,
    speed_milli: u64,
    ledger: LedgerBox,
    soft: Soft,
    /// Draws by request: the same at every speed.
    classes: Vec<Class>,
    /// Work that ends, by time.
    ends: BTreeSet<(u64, TaskUid, Epoch)>,
    open: BTreeMap<TaskUid, Open>,
    /// The last request comes then.
    last_ms: u64,
    plan_wanted: bool,
    outcome: Outcome,
}

struct Open {
    call: usize,
    class: Class,
    came_ms: u64,
    started: bool,
}

impl<'a> Run<'a> {
    pub(super) fn new(calls: &'a [Call], setup: Setup, speed_milli: u64) -> Run<'a> {
        let names: Vec<ProjectName> =
            [ONLINE, OFFLINE, SPARE].iter().map(|name| ProjectName::parse(name).expect("a name")).collect();
        let mut ledger = LedgerBox::new(setup.workers, &names);
        limit(&mut ledger, setup);
        let mut dice = Dice::new(setup.seed);
        let classes = calls.iter().map(|_| class_of(dice.roll(), setup.system_percent)).collect();
        let soft = ledger.soft(setup.slots);
        let came_in_ms = calls.last().map_or(0, |call| call.at_ms * 1000 / speed_milli);
        let outcome = Outcome { requests: calls.len(), came_in_ms, ..Outcome::default() };
        let last_ms = ledger.now_ms + came_in_ms;
        Run {
            calls,
            setup,
            speed_milli,
            ledger,
            soft,
            classes,
            ends: BTreeSet::new(),
            open: BTreeMap::new(),
            last_ms,
            plan_wanted: false,
            outcome,
        }
    }

    pub(super) fn play(mut self) -> anyhow::Result<Outcome> {
        let mut next_call = 0;
        let start_ms = self.ledger.now_ms;
        while next_call < self.calls.len() || !self.open.is_empty() {
            let comes_ms =
                self.calls.get(next_call).map(|call| start_ms + call.at_ms * 1000 / self.speed_milli);
            let ends_ms = self.ends.first().map(|(at_ms, ..)| *at_ms);
            let tick_ms = (self.ledger.now_ms / TICK_MS + 1) * TICK_MS;
            let now_ms = comes_ms.into_iter().chain(ends_ms).fold(tick_ms, u64::min);
            self.ledger.now_ms = now_ms.max(self.ledger.now_ms);
            self.soft.ledger_ms = self.ledger.now_ms;
            while self.ends.first().is_some_and(|(at_ms, ..)| *at_ms <= self.ledger.now_ms) {
                self.end_one()?;
            }
            if comes_ms.is_some_and(|at_ms| at_ms <= self.ledger.now_ms) {
                self.arrive(next_call)?;
                next_call += 1;
            }
            if self.ledger.now_ms == tick_ms {
                self.tick()?;
                self.plan_wanted = true;
            }
            if std::mem::take(&mut self.plan_wanted) {
                self.plan()?;
            }
            self.outcome.open_most = self.outcome.open_most.max(self.open.len());
            self.outcome.queue_most = self.outcome.queue_most.max(self.ledger.state.queue_len());
        }
        Ok(self.outcome)
    }

    fn arrive(&mut self, number: usize) -> anyhow::Result<()> {
        let class = self.classes[number];
        if self.open.len() * 100 >= self.setup.open_max * door_percent(class) {
            self.outcome.refused += 1;
            self.outcome.waited(class, deadline_ms(class));
            return Ok(());
        }
        let project = ProjectName::parse(project_of(class))?;
        let uid = self.ledger.create(&NewTask {
            project: &project,
            class,
            number: number as u64,
            input_bytes: self.calls[number].context_tokens * 4,
            deadline_ms: deadline_ms(class),
        })?;
        let came_ms = self.ledger.now_ms;
        self.open.insert(uid, Open { call: number, class, came_ms, started: false });
        self.plan_wanted = true;
        Ok(())
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        if self.ledger.state.tick_due(self.ledger.now_ms, self.ledger.wall_ms()) {
            let applied = self.ledger.apply(Command::Tick);
            self.perform(applied)?;
        }
        Ok(())
    }

    /// Until nothing more can start.
    fn plan(&mut self) -> anyhow::Result<()> {
        loop {
            let commands = plan(&self.ledger.state, &self.soft, PLAN_MAX);
            if commands.is_empty() {
                return Ok(());
            }
            for command in commands {
                let applied = self.ledger.apply(command);
                anyhow::ensure!(
                    matches!(applied.reply, Reply::Assigned(_)),
                    "planned, refused: {:?}",
                    applied.reply
                );
                self.perform(applied)?;
            }
        }
    }

    fn perform(&mut self, applied: Applied) -> anyhow::Result<()> {
        for effect in applied.effects {
            match effect {
                Effect::Assigned { task, node, epoch } => self.start(task, node, epoch)?,
                Effect::Stop { task, node, epoch, .. } => {
                    let stopped = Command::Release { task, epoch, node, why: Release::Stopped };
                    let applied = self.ledger.apply(stopped);
                    self.perform(applied)?;
                }
                Effect::Event { task, .. } => self.note_end(task),
                Effect::Replan => self.plan_wanted = true,
                Effect::Revoked { .. }
                | Effect::Signalled { .. }
                | Effect::Recall { .. }
                | Effect::Members => {}
            }
        }
        Ok(())
    }

    /// The worker reserves and begins. Out of budget, the ledger has paused the task.
    fn start(&mut self, task: TaskUid, node: NodeId, epoch: Epoch) -> anyhow::Result<()> {
        let Some(row) = self.ledger.state.task(task) else { return Ok(()) };
        let chain = ledger::routing::Chain::of_task(row);
        Arc::make_mut(&mut self.soft.routes).note(node, &chain, self.ledger.now_ms);
        let now_ms = self.ledger.now_ms;
        let Some(open) = self.open.get_mut(&task) else { anyhow::bail!("{task} runs after its end") };
        if !open.started {
            open.started = true;
            self.outcome.waited(open.class, now_ms - open.came_ms);
        }
        let call = self.calls[open.call];
        let tokens = call.context_tokens + call.generated_tokens;
        let (min_tokens, max_tokens) = (tokens, tokens);
        let wish =
            Command::Reserve { task, epoch, node, step: 1, min_tokens, max_tokens, want: None, route: None };
        match self.ledger.apply(wish).reply {
            Reply::Reserved(_) => {
                self.ends.insert((now_ms + self.service_ms(call), task, epoch));
            }
            Reply::Refused(_) => self.outcome.paused += 1,
            other => anyhow::bail!("a reservation was answered {other:?}"),
        }
        Ok(())
    }

    fn service_ms(&self, call: Call) -> u64 {
        let prefill_ms = call.context_tokens * 1000 / self.setup.prefill_speed;
        (prefill_ms + call.generated_tokens * 1000 / self.setup.decode_speed).max(1)
    }

    fn end_one(&mut self) -> anyhow::Result<()> {
        let Some((_, task, epoch)) = self.ends.pop_first() else { return Ok(()) };
        let Some(row) = self.ledger.state.task(task).filter(|row| row.epoch == Some(epoch)) else {
            return Ok(());
        };
        let (Some(node), Some(open)) = (row.node, self.open.get(&task)) else { return Ok(()) };
        let call = self.calls[open.call];
        let member = self.ledger.members().iter().position(|id| *id == node).unwrap_or(0);
        let tokens = call.context_tokens + call.generated_tokens;
        let head = Hash::of(&task.index.to_le_bytes());
        let commit = Command::CommitStep {
            task,
            epoch,
            node,
            step: 1,
            head,
            home: self.ledger.keepers(member),
            spent: Spent {
                prompt_tokens: call.context_tokens,
                cached_tokens: 0,
                generated_tokens: call.generated_tokens,
                micro_usd: 0,
            },
            billed_tokens: tokens,
            next: Next::Done { result: head, bytes: call.generated_tokens * 4 },
            extra: None,
        };
        let applied = self.ledger.apply(commit);
        anyhow::ensure!(applied.reply == Reply::Done, "a commit was answered {:?}", applied.reply);
        if self.ledger.now_ms <= self.last_ms {
            self.outcome.done_tokens += tokens;
            self.outcome.busy_ms += self.service_ms(call);
        }
        self.perform(applied)
    }

    fn note_end(&mut self, task: TaskUid) {
        let Some(state) = self.ledger.state.task(task).map(|row| row.state).filter(|state| state.is_final())
        else {
            return;
        };
        let Some(open) = self.open.remove(&task) else { return };
        self.outcome.done += usize::from(state == TaskState::Succeeded);
        self.outcome.expired += usize::from(state != TaskState::Succeeded);
        if !open.started {
            self.outcome.waited(open.class, deadline_ms(open.class));
        }
    }
}

/// What is urgent has no limit; what can wait leaves a quarter of the slots to it, and what is spare has a budget.
fn limit(ledger: &mut LedgerBox, setup: Setup) {
    let slots = setup.workers as u64 * u64::from(setup.slots);
    ledger.limit("projects/offline", QuotaKey::Running, (slots * 3 / 4).max(1));
    ledger.limit("projects/offline/spare", QuotaKey::Running, (slots / 4).max(1));
    ledger.limit("projects/offline/spare", QuotaKey::TokensMinute, 100_000);
}

fn project_of(class: Class) -> &'static str {
    match class {
        Class::System | Class::Interactive => ONLINE,
        Class::Batch => OFFLINE,
        Class::BestEffort => SPARE,
    }
}
