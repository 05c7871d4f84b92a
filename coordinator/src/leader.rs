//! What only a leader does: gives work to nodes, notices lost ones, lets time pass, follows the membership.
//!
//! Every duty can be repeated: a duty that did not go through is done again at the next tick.

mod call;
mod members;

pub(crate) use members::voters;

use crate::clock::OfficeClock;
use crate::coordinator::Coordinator;
use crate::link;
use crate::machine::Committed;
use crate::schedule::next_time;
use ledger::command::Command;
use ledger::effect::Effect;
use ledger::placement;
use ledger::plan::plan;
use ledger::rows::{EventKind, HeadRow, Role, ScheduleRow};
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::mpsc;
use types::{NodeId, limits};

/// How often leases are looked at. A lost node is found this much later at the most.
const LOOK: Duration = Duration::from_millis(50);
/// How often the leader asks whether something in the ledger waits for time, and plans again to be sure.
const TICK_MS: u64 = 200;
/// How often members that are not attached are called. Not at once: most attach by themselves.
const CALL_MS: u64 = 500;
/// How often memories and boards are looked for whose task is gone.
const OUTLIVED_MS: u64 = 5_000;
/// How often, at most, slices are recalled that stand in the way of tasks.
const RECALL_MS: u64 = 50;
/// How often attached nodes hear again everything they hold.
const TELL_MS: u64 = 5_000;
/// Pauses between tries to make consensus follow the members.
const FOLLOW_AGAIN: Duration = Duration::from_millis(200);
const FOLLOW_AGAIN_MOST: Duration = Duration::from_secs(5);
/// Assignments proposed together.
const PLAN_MAX: usize = 64;

pub(crate) struct Office {
    coordinator: Coordinator,
    /// First log index of this office; effects of earlier entries are dropped.
    first_index: Option<u64>,
    /// Leader id and term this office belongs to.
    term: u64,
    ticked_ms: u64,
    called_ms: u64,
    told_ms: u64,
    outlived_ms: u64,
    recalled_ms: u64,
    plan_wanted: bool,
}

impl Office {
    /// Runs for the life of the coordinator; acts while this node leads.
    pub(crate) async fn run(
        coordinator: Coordinator,
        mut effects: mpsc::UnboundedReceiver<Committed>,
        mut wakes: mpsc::Receiver<()>,
    ) {
        let mut office = Office {
            coordinator,
            first_index: None,
            term: 0,
            ticked_ms: 0,
            called_ms: 0,
            told_ms: 0,
            outlived_ms: 0,
            recalled_ms: 0,
            plan_wanted: false,
        };
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                committed = effects.recv() => match committed {
                    Some(committed) => office.perform(committed),
                    None => return,
                },
                _ = wakes.recv() => office.plan_wanted = true,
                _ = look.tick() => office.look().await,
            }
            if office.plan_wanted {
                office.plan().await;
            }
        }
    }

    /// Enters or leaves the office, then does what time asks for.
    async fn look(&mut self) {
        let view = self.coordinator.raft().leader();
        let leads = self.coordinator.raft().is_leader();
        if view.leader.is_some() {
            let now_ms = self.coordinator.inner.clock.monotonic_ms();
            *self.coordinator.inner.leader_heard_ms.lock().expect("no panic while held") = now_ms;
        }
        match (leads, self.first_index) {
            (true, Some(_)) if self.term == view.term => self.on_time().await,
            (true, _) => self.enter(view.term).await,
            (false, Some(_)) => self.leave(),
            (false, None) => {}
        }
    }

    async fn enter(&mut self, term: u64) {
        let Ok(index) = self.coordinator.raft().read_barrier().await else { return };
        let inner = &self.coordinator.inner;
        let (ledger_ms, wall_ms, routes) = {
            let machine = self.coordinator.locked();
            let routes = placement::remembered(&machine.state);
            (machine.state.ledger_ms(), machine.state.wall_ms(), routes)
        };
        let clock = inner.clock.as_ref();
        *inner.office_clock.lock().expect("no panic while held") =
            OfficeClock::start(ledger_ms, wall_ms, clock);
        let ends_ms = clock.monotonic_ms() + inner.lease_ms + inner.lease_ms / 100 + 50;
        let workers = self.coordinator.nodes().into_iter().map(|row| row.id);
        inner.link.take_office(workers, routes, ends_ms);
        self.coordinator.forget_starts();
        self.first_index = Some(index);
        self.called_ms = clock.monotonic_ms();
        self.term = term;
        metrics::counter!("quorate_leader_changes_total").increment(1);
        tracing::info!(term, index, "this node leads now");
        self.follow_members();
        self.plan_wanted = true;
    }

    fn leave(&mut self) {
        let leader = self.coordinator.leader_address().unwrap_or_default();
        tracing::info!(term = self.term, %leader, "this node does not lead any more");
        self.coordinator.inner.link.leave_office(leader);
        self.first_index = None;
    }

    async fn on_time(&mut self) {
        let now_ms = self.coordinator.inner.clock.monotonic_ms();
        for node in self.coordinator.inner.link.take_lost(now_ms) {
            self.declare_lost(node, now_ms).await;
        }
        if now_ms.saturating_sub(self.called_ms) >= CALL_MS {
            self.called_ms = now_ms;
            call::call_absent(&self.coordinator);
        }
        if now_ms.saturating_sub(self.told_ms) >= TELL_MS {
            self.told_ms = now_ms;
            self.coordinator.inner.link.tell_full_sets(|node| self.coordinator.full_set(node));
        }
        if now_ms.saturating_sub(self.outlived_ms) >= OUTLIVED_MS {
            self.outlived_ms = now_ms;
            self.end_outlived().await;
        }
        if now_ms.saturating_sub(self.ticked_ms) >= TICK_MS {
            self.ticked_ms = now_ms;
            self.let_time_pass().await;
            self.plan_wanted = true;
        }
    }

    /// Writes a tick only when it would change something: an idle cluster writes nothing.
    async fn let_time_pass(&self) {
        let stamp = self.coordinator.stamp();
        let due = self.coordinator.locked().state.tick_due(stamp.ledger_ms, stamp.wall_ms);
        if due && let Err(error) = self.coordinator.propose(vec![Command::Tick]).await {
            tracing::debug!(%error, "tick not committed; the next one will be");
        }
        self.fire_schedules(stamp.wall_ms).await;
    }

    /// Times that were missed while nobody led are made up for once.
    async fn fire_schedules(&self, wall_ms: u64) {
        let due: Vec<Command> = {
            let locked = self.coordinator.locked();
            locked
                .state
                .schedules_due(wall_ms)
                .take(limits::BATCH_COMMANDS)
                .map(|row| fire(row, wall_ms))
                .collect()
        };
        if !due.is_empty()
            && let Err(error) = self.coordinator.propose(due).await
        {
            tracing::debug!(%error, "schedules not fired; they are due again at once");
        }
    }

    /// The memory of a task and the board of its tree end with its record. Not before the level that has the command: an
    /// older coordinator would not know it, and halt.
    async fn end_outlived(&self) {
        let outlived: Vec<Command> = {
            let locked = self.coordinator.locked();
            let most = if locked.state.moves_homes() { limits::BATCH_COMMANDS } else { 0 };
            locked.state.heads_outlived().take(most).map(drop_head).collect()
        };
        if !outlived.is_empty()
            && let Err(error) = self.coordinator.propose(outlived).await
        {
            tracing::debug!(%error, "chains of tasks that are gone not dropped; they are looked for again");
        }
    }

    async fn declare_lost(&mut self, node: NodeId, now_ms: u64) {
        let link = &self.coordinator.inner.link;
        if !self.coordinator.holds_something(node) {
            return link.lost_is_known(node);
        }
        tracing::warn!(%node, "the node's lease is over; its tasks go back to the queue");
        match self.coordinator.propose(vec![Command::NodeLost { node }]).await {
            Ok(_) => link.lost_is_known(node),
            Err(_) => link.still_lost(node, now_ms),
        }
        self.plan_wanted = true;
    }

    async fn plan(&mut self) {
        self.plan_wanted = false;
        if self.first_index.is_none() || !self.coordinator.raft().is_leader() {
            return;
        }
        let soft = self.coordinator.soft();
        let commands = plan(&self.coordinator.locked().state, &soft, PLAN_MAX);
        self.recall();
        if commands.is_empty() {
            return;
        }
        if let Err(error) = self.coordinator.propose(commands).await {
            tracing::debug!(%error, "assignments not committed; planned again at the next tick");
        }
    }

    /// Slices that are in somebody's way hear it, again and again: wake-ups may get lost.
    fn recall(&mut self) {
        let now_ms = self.coordinator.inner.clock.monotonic_ms();
        if now_ms.saturating_sub(self.recalled_ms) < RECALL_MS {
            return;
        }
        self.recalled_ms = now_ms;
        let recalls = self.coordinator.locked().state.recalls();
        for (node, answer) in recalls {
            self.coordinator.inner.link.send(node, link::recall(answer));
        }
    }

    fn perform(&mut self, committed: Committed) {
        let Some(first_index) = self.first_index else { return };
        if committed.index <= first_index {
            return;
        }
        for effect in committed.effects {
            self.perform_one(effect);
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        let link = &self.coordinator.inner.link;
        match effect {
            Effect::Assigned { task, node, epoch } => {
                let row = self.coordinator.task(task).filter(|row| row.epoch == Some(epoch));
                self.coordinator.note_start();
                if let Some(row) = row {
                    let ledger_ms = self.coordinator.locked().state.ledger_ms();
                    link.placed(&row, node, ledger_ms);
                    link.send(
                        node,
                        proto::internal::v1::leader_message::Body::Assignment(link::assignment(&row)),
                    );
                }
            }
            Effect::Stop { project, task, node, epoch } => link.send(node, link::stop(&project, task, epoch)),
            Effect::Revoked { project, task, node, epoch } => {
                link.send(node, link::revoke(&project, task, epoch));
            }
            // The whole row again: a lease that runs there already, with what was said to its task.
            Effect::Signalled { task, node, epoch } => {
                let row = self.coordinator.task(task).filter(|row| row.epoch == Some(epoch));
                if let Some(row) = row {
                    let assignment = link::assignment(&row);
                    link.send(node, proto::internal::v1::leader_message::Body::Assignment(assignment));
                }
            }
            Effect::Event { task, event } => {
                if let EventKind::Step { spent, .. } = event.kind {
                    link.stepped(task, spent.cached_tokens);
                }
            }
            Effect::Recall { node, answer } => link.send(node, link::recall(answer)),
            Effect::Replan => self.plan_wanted = true,
            Effect::Members => self.follow_members(),
        }
    }

    /// In the background, because it waits for new nodes to catch up; until it is done, this node leads no more, or
    /// members have changed again.
    fn follow_members(&self) {
        let coordinator = self.coordinator.clone();
        let turn = coordinator.inner.members_turn.fetch_add(1, Ordering::Relaxed) + 1;
        tokio::spawn(async move {
            let mut pause = FOLLOW_AGAIN;
            while let Err(error) = follow_members(&coordinator).await {
                tracing::info!(error, "consensus membership does not follow yet; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(FOLLOW_AGAIN_MOST);
                let newest = coordinator.inner.members_turn.load(Ordering::Relaxed) == turn;
                if !newest || !coordinator.raft().status().is_leader {
                    return;
                }
            }
        });
    }
}

/// Makes the consensus group what the members' roles ask for. Consensus takes one change at a time.
pub(crate) async fn follow_members(coordinator: &Coordinator) -> Result<(), String> {
    let _one_at_a_time = coordinator.inner.following.lock().await;
    let is_coordinator = |row: &ledger::rows::NodeRow| row.roles.contains(&Role::Coordinator);
    let members = coordinator.nodes().into_iter().filter(is_coordinator);
    let coordinators: Vec<(NodeId, String)> = members.map(|row| (row.id, row.internal_addr)).collect();
    members::follow(coordinator.raft(), &coordinators).await
}

fn drop_head(row: &HeadRow) -> Command {
    Command::DropHead { project: row.project.clone(), path: row.path.clone(), head: row.head }
}

fn fire(row: &ScheduleRow, wall_ms: u64) -> Command {
    // A pattern was checked when it was set; one that can't be read any more never fires again.
    let next_ms = next_time(&row.cron, wall_ms).ok().flatten().unwrap_or(0);
    Command::FireSchedule {
        project: row.project.clone(),
        name: row.name.clone(),
        due_ms: row.next_ms,
        next_ms,
    }
}
