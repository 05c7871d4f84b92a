//! What a node's lease is worth on the node's own clock.
//!
//! The lease counts from the moment a beat was *sent*, not from its answer: whatever the network did in between,
//! the leader cannot have started counting earlier. So this node always stops first.

use super::News;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// Time as an argument.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds that never go back, from any origin. They pass while the process is stopped.
    fn now_ms(&self) -> u64;
    /// Unix milliseconds.
    fn wall_ms(&self) -> u64;
}

/// The machine's clocks.
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }

    fn wall_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}

/// Beats that were sent and not answered: a minute's worth at the default pace, then the oldest is forgotten.
const UNANSWERED_BEATS: usize = 128;

/// The node's lease. Clones read the same one.
#[derive(Clone)]
pub struct LeaseClock {
    clock: Arc<dyn Clock>,
    sent: Arc<Mutex<BTreeMap<u64, u64>>>,
    /// In force while now is below this.
    until_ms: Arc<watch::Sender<u64>>,
}

impl LeaseClock {
    /// No lease yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        LeaseClock { clock, sent: Arc::default(), until_ms: Arc::new(watch::Sender::new(0)) }
    }

    /// Whether anything new may start now.
    pub fn valid(&self) -> bool {
        self.left_ms() > 0
    }

    /// Milliseconds until the lease ends; 0 when it has ended.
    pub fn left_ms(&self) -> u64 {
        self.until_ms.borrow().saturating_sub(self.clock.now_ms())
    }

    /// Notes the moment a beat leaves.
    pub fn beat_sent(&self, sequence: u64) {
        let mut sent = self.lock();
        sent.insert(sequence, self.clock.now_ms());
        if sent.len() > UNANSWERED_BEATS {
            sent.pop_first();
        }
    }

    /// The leader renewed the lease for `lease_ms`, counted from when that beat was sent. An answer to no beat of
    /// ours, or to one that a newer answer overtook, changes nothing.
    pub fn beat_answered(&self, sequence: u64, lease_ms: u64) {
        let mut sent = self.lock();
        let Some(sent_ms) = sent.remove(&sequence) else { return };
        *sent = sent.split_off(&sequence);
        drop(sent);
        let until_ms = sent_ms.saturating_add(lease_ms);
        self.until_ms.send_if_modified(|now| {
            let longer = until_ms > *now;
            *now = until_ms.max(*now);
            longer
        });
    }

    /// A new stream: answers to beats of the old one cannot come any more.
    pub fn forget_beats(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u64, u64>> {
        self.sent.lock().expect("nothing panics while it holds the beats")
    }
}

/// Says when the lease ends and when it is back.
pub(super) async fn watch_lease(lease: LeaseClock, news: mpsc::Sender<News>) {
    let mut renewals = lease.until_ms.subscribe();
    let mut was_valid = false;
    loop {
        renewals.borrow_and_update();
        let valid = lease.valid();
        if valid != was_valid {
            was_valid = valid;
            let told = news.send(if valid { News::LeaseBack } else { News::LeaseEnded }).await;
            if told.is_err() {
                return;
            }
        }
        let end = async {
            match lease.left_ms() {
                0 => std::future::pending().await,
                left => tokio::time::sleep(Duration::from_millis(left)).await,
            }
        };
        tokio::select! {
            () = end => {}
            changed = renewals.changed() => if changed.is_err() { return },
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A clock that a test turns by hand.
    #[derive(Default)]
    pub(crate) struct HandClock(pub(crate) AtomicU64);

    impl Clock for HandClock {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::SeqCst)
        }
        fn wall_ms(&self) -> u64 {
            1_700_000_000_000 + self.now_ms()
        }
    }

    fn at(clock: &HandClock, now_ms: u64) {
        clock.0.store(now_ms, Ordering::SeqCst);
    }

    #[test]
    fn the_lease_counts_from_sending() {
        let clock = Arc::new(HandClock::default());
        let lease = LeaseClock::new(clock.clone());
        assert!(!lease.valid(), "no beat was ever answered");
        at(&clock, 1_000);
        lease.beat_sent(1);
        at(&clock, 3_500);
        lease.beat_answered(1, 3_000);
        assert_eq!(lease.left_ms(), 500, "2.5 s of the 3 s passed on the way");
        at(&clock, 3_999);
        assert!(lease.valid());
        at(&clock, 4_000);
        assert!(!lease.valid());
    }

    #[test]
    fn a_freeze_ends_the_lease_and_an_old_answer_does_not_bring_it_back() {
        let clock = Arc::new(HandClock::default());
        let lease = LeaseClock::new(clock.clone());
        lease.beat_sent(1);
        lease.beat_answered(1, 3_000);
        at(&clock, 500);
        lease.beat_sent(2);
        at(&clock, 10_000);
        lease.beat_answered(2, 3_000);
        assert!(!lease.valid(), "the answer waited in a socket while the process stood still");
    }

    #[test]
    fn answers_are_used_once_in_order_and_never_shorten() {
        let clock = Arc::new(HandClock::default());
        let lease = LeaseClock::new(clock.clone());
        lease.beat_sent(1);
        at(&clock, 400);
        lease.beat_sent(2);
        lease.beat_answered(2, 3_000);
        assert_eq!(lease.left_ms(), 3_000);
        lease.beat_answered(1, 9_000);
        lease.beat_answered(2, 9_000);
        lease.beat_answered(77, 9_000);
        assert_eq!(lease.left_ms(), 3_000, "overtaken, repeated and invented answers change nothing");
        lease.beat_sent(3);
        lease.forget_beats();
        lease.beat_answered(3, 9_000);
        assert_eq!(lease.left_ms(), 3_000);
    }
}
