//! The actor of one lease: drives a [`Course`], never waits in a handler.

use super::Shared;
use super::counters::Aside;
use super::course::{Act, Course, Outcome, WorkId};
use super::hands::{Hands, Lease};
use super::roster::Tell;
use super::vigil::{Pulse, Vigil};
use crate::telemetry::names;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How often an agent that waits for the node's lease looks at it.
const LOOK_MS: u64 = 50;

/// Something for an agent, and when it was sent.
#[derive(Debug)]
pub(crate) struct ToAgent {
    sent: Instant,
    heard: Heard,
}

impl From<Heard> for ToAgent {
    fn from(heard: Heard) -> ToAgent {
        ToAgent { sent: Instant::now(), heard }
    }
}

/// What can reach an agent.
#[derive(Debug)]
pub(crate) enum Heard {
    /// Its supervisor heard something about the lease.
    Told(Tell),
    /// A piece of its own work ended.
    Ended(WorkId, Outcome),
    /// It waits for the node's lease: look again.
    LookAtLease,
    /// Its supervisor wants to know whether it lives.
    Beat,
}

/// The agent's work hangs.
#[derive(Debug, thiserror::Error)]
#[error("{0}; the agent is started anew from its journal")]
pub(crate) struct Stuck(String);

/// What an agent shares with its supervisor.
#[derive(Clone, Default)]
pub(crate) struct Sign {
    /// Beats that it has answered.
    answered: Arc<AtomicU64>,
    /// Ends all its work, whatever the actor does.
    pub(crate) gone: CancellationToken,
}

impl Sign {
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }
}

pub(crate) struct Agent;

pub(crate) struct Running {
    shared: Arc<Shared>,
    course: Course,
    hands: Arc<Hands>,
    stops: BTreeMap<WorkId, Stops>,
    vigil: Vigil,
    pulse: Arc<Pulse>,
    sign: Sign,
    /// Fires when the actor is gone, however it went: no work outlives it.
    gone: CancellationToken,
    _gone_guard: DropGuard,
    /// Counted while its slot is for others.
    aside: Option<Aside>,
}

/// The two ways to end a piece of work from outside.
struct Stops {
    interrupt: CancellationToken,
    abandon: CancellationToken,
}

impl Actor for Agent {
    type Msg = ToAgent;
    type State = Running;
    type Arguments = (Arc<Shared>, Lease, Sign);

    async fn pre_start(
        &self,
        me: ActorRef<ToAgent>,
        (shared, lease, sign): Self::Arguments,
    ) -> Result<Running, ActorProcessingErr> {
        let (gone, pulse) = (sign.gone.clone(), Arc::new(Pulse::default()));
        let mut running = Running {
            course: Course::new(shared.seams.ledger.lease_valid()),
            hands: Arc::new(Hands::new(shared.clone(), lease, pulse.clone())),
            shared,
            stops: BTreeMap::new(),
            vigil: Vigil::default(),
            pulse,
            sign,
            _gone_guard: gone.clone().drop_guard(),
            gone,
            aside: None,
        };
        let acts = running.course.begin();
        running.perform(&me, acts)?;
        Ok(running)
    }

    async fn handle(
        &self,
        me: ActorRef<ToAgent>,
        ToAgent { sent, heard }: ToAgent,
        running: &mut Running,
    ) -> Result<(), ActorProcessingErr> {
        let valid = running.shared.seams.ledger.lease_valid();
        running.course.look_at_lease(valid);
        let acts = match heard {
            Heard::Told(tell) => running.course.told(tell),
            Heard::Ended(id, outcome) => running.ended(id, outcome),
            Heard::LookAtLease => running.course.told(Tell::Lease { valid }),
            Heard::Beat => return running.beat(valid),
        };
        running.perform(&me, acts)?;
        metrics::histogram!(names::AGENT_EVENT_SECONDS).record(sent.elapsed().as_secs_f64());
        running.count_aside();
        running.look_again_later(&me);
        Ok(())
    }
}

impl Running {
    /// Answers, unless its own work hangs.
    fn beat(&mut self, valid: bool) -> Result<(), ActorProcessingErr> {
        self.sign.answered.fetch_add(1, Ordering::Relaxed);
        let now_ms = self.pulse.now_ms();
        if !valid {
            // Nobody has to answer a node that the leader does not hear.
            self.vigil.excuse(now_ms);
        }
        match self.vigil.overdue(self.pulse.last_ms(), now_ms) {
            None => Ok(()),
            Some(why) => Err(Box::new(Stuck(why))),
        }
    }

    fn ended(&mut self, id: WorkId, outcome: Outcome) -> Vec<Act> {
        self.stops.remove(&id);
        self.vigil.ended(id);
        if let Outcome::Corrupt(why) = &outcome {
            tracing::error!(task = %self.hands.lease.task, why, "the task's journal cannot be read");
        }
        self.course.ended(id, outcome)
    }

    fn perform(&mut self, me: &ActorRef<ToAgent>, acts: Vec<Act>) -> Result<(), ActorProcessingErr> {
        for act in acts {
            match act {
                Act::Load(id) => {
                    self.vigil.loads(id, &self.shared.config.silence, self.pulse.now_ms());
                    self.work(me, id, |hands, _| async move { hands.load().await });
                }
                Act::Perform(id, effect) => {
                    self.vigil.performs(id, &effect, &self.shared.config.silence, self.pulse.now_ms());
                    self.work(me, id, |hands, stop| async move { hands.perform(*effect, stop).await });
                }
                Act::Release(id, why) => {
                    self.work(me, id, move |hands, _| async move { hands.release(why).await })
                }
                Act::Interrupt(id) => self.stop(id, |stops| &stops.interrupt),
                Act::Abandon(id) => self.stop(id, |stops| &stops.abandon),
                Act::Fail(why) => return Err(why.into()),
                Act::End => me.stop(None),
            }
        }
        Ok(())
    }

    fn stop(&self, id: WorkId, which: impl Fn(&Stops) -> &CancellationToken) {
        if let Some(stops) = self.stops.get(&id) {
            which(stops).cancel();
        }
    }

    /// Spawns a piece of work. It answers with one message, whatever becomes of it.
    fn work<F>(
        &mut self,
        me: &ActorRef<ToAgent>,
        id: WorkId,
        work: impl FnOnce(Arc<Hands>, CancellationToken) -> F,
    ) where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let stops = Stops { interrupt: CancellationToken::new(), abandon: self.gone.child_token() };
        let abandon = stops.abandon.clone();
        let work = tokio::spawn({
            let work = work(self.hands.clone(), stops.interrupt.clone());
            async move { abandon.run_until_cancelled(work).await.unwrap_or(Outcome::Nothing) }
        });
        self.stops.insert(id, stops);
        let me = me.clone();
        tokio::spawn(async move {
            let outcome = work.await.unwrap_or_else(|failed| Outcome::Broke(panic_text(failed)));
            // The actor may be gone by now; then nobody waits for this.
            let _ = me.send_message(Heard::Ended(id, outcome).into());
        });
    }

    fn count_aside(&mut self) {
        match (self.course.is_aside(), self.aside.is_some()) {
            (true, false) => self.aside = Some(self.shared.counters.one_aside()),
            (false, true) => self.aside = None,
            (true, true) | (false, false) => {}
        }
    }

    fn look_again_later(&self, me: &ActorRef<ToAgent>) {
        if self.course.waits_for_lease() {
            me.send_after(Duration::from_millis(LOOK_MS), || Heard::LookAtLease.into());
        }
    }
}

fn panic_text(failed: tokio::task::JoinError) -> String {
    let Ok(panic) = failed.try_into_panic() else { return "the work was aborted".into() };
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".into())
}
