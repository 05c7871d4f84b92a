//! Scopes that are open, few of them: the one that was used longest ago is closed first.

use super::Place;
use super::opened::Opened;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::OwnedMutexGuard;

/// Scopes that are open at the same time.
const OPEN: usize = 64;
/// Bytes of their indexes together; one alone may have more.
const BYTES: usize = 256 << 20;

#[derive(Default)]
pub(super) struct Cache {
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    uses: u64,
    by_place: BTreeMap<Place, Slot>,
}

#[derive(Clone, Default)]
struct Slot {
    used: u64,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    opened: Arc<tokio::sync::Mutex<Option<Opened>>>,
    bytes: std::sync::atomic::AtomicUsize,
}

/// One scope, for one user at a time.
pub(super) struct Held {
    opened: OwnedMutexGuard<Option<Opened>>,
    shared: Arc<Shared>,
}

impl Cache {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().expect("no panic while held")
    }

    /// Waits for the scope's turn.
    pub(super) async fn hold(&self, place: &Place) -> Held {
        let shared = self.slots().touch(place);
        Held { opened: shared.opened.clone().lock_owned().await, shared }
    }

    /// Closes scopes. One that is in use stays with its user, and is nobody's afterwards.
    pub(super) fn close(&self, which: impl Fn(&Place) -> bool) {
        self.slots().by_place.retain(|place, _| !which(place));
    }
}

impl Slots {
    fn touch(&mut self, place: &Place) -> Arc<Shared> {
        self.uses += 1;
        let slot = self.by_place.entry(place.clone()).or_default();
        slot.used = self.uses;
        let shared = slot.shared.clone();
        while self.by_place.len() > 1 && (self.by_place.len() > OPEN || self.bytes() > BYTES) {
            let oldest = self.by_place.iter().min_by_key(|(_, slot)| slot.used);
            let Some(oldest) = oldest.map(|(place, _)| place.clone()) else { break };
            self.by_place.remove(&oldest);
        }
        shared
    }

    fn bytes(&self) -> usize {
        let bytes = |slot: &Slot| slot.shared.bytes.load(std::sync::atomic::Ordering::Relaxed);
        self.by_place.values().map(bytes).sum()
    }
}

impl Held {
    pub(super) fn get(&mut self) -> Option<&mut Opened> {
        self.opened.as_mut()
    }

    pub(super) fn take(&mut self) -> Option<Opened> {
        self.opened.take()
    }

    pub(super) fn put(&mut self, opened: Opened) -> &mut Opened {
        self.shared.bytes.store(opened.index.bytes(), std::sync::atomic::Ordering::Relaxed);
        self.opened.insert(opened)
    }
}
