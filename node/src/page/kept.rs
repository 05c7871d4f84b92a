//! One answer for many watchers: what is costly to make is made at most once a second for each key, less often where it takes
//! long, and not at all while nothing changed. Nobody watches: nothing is made, and after a minute the next request lets
//! it go.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tonic::Status;

/// Younger answers are given again.
const FRESH: Duration = Duration::from_secs(1);
/// Making answers takes at most this share of the time: one part in so many.
const SHARE: u32 = 20;
/// Answers that nobody asked for so long are forgotten.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// Answers kept at the same time.
const KEYS: usize = 16;

pub(crate) struct Kept<K, T> {
    cells: Mutex<HashMap<K, Cell<T>>>,
}

struct Cell<T> {
    made: Arc<tokio::sync::Mutex<Option<Made<T>>>>,
    asked: Instant,
}

struct Made<T> {
    value: Arc<T>,
    /// The state that it was made of.
    index: u64,
    at: Instant,
    took: Duration,
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Kept { cells: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq + Clone, T> Kept<K, T> {
    /// The answer for a key. `index` says how far the state is, `make` makes the answer anew; each only if it must.
    pub(crate) async fn get(
        &self,
        key: &K,
        index: impl Future<Output = Result<u64, Status>>,
        make: impl Future<Output = Result<T, Status>>,
    ) -> Result<Arc<T>, Status> {
        let cell = self.cell(key);
        // Others who ask for the same wait here, and get what the first one made.
        let mut made = cell.lock().await;
        if let Some(made) = made.as_ref().filter(|made| !is_due(made.at.elapsed(), made.took)) {
            return Ok(made.value.clone());
        }
        let index = index.await?;
        if let Some(made) = made.as_mut().filter(|made| made.index == index) {
            made.at = Instant::now();
            return Ok(made.value.clone());
        }
        let begun = Instant::now();
        let value = Arc::new(make.await?);
        *made = Some(Made { value: value.clone(), index, at: Instant::now(), took: begun.elapsed() });
        Ok(value)
    }

    /// The next answer is made anew: its reader has just changed something.
    pub(crate) fn forget(&self, key: &K) {
        self.cells.lock().expect("no panic while held").remove(key);
    }

    fn cell(&self, key: &K) -> Arc<tokio::sync::Mutex<Option<Made<T>>>> {
        let now = Instant::now();
        let mut cells = self.cells.lock().expect("no panic while held");
        cells.retain(|known, cell| known == key || now.duration_since(cell.asked) < FORGOTTEN);
        if cells.len() >= KEYS && !cells.contains_key(key) {
            let oldest = cells.iter().min_by_key(|(_, cell)| cell.asked).map(|(known, _)| known.clone());
            oldest.map(|known| cells.remove(&known));
        }
        let cell = cells.entry(key.clone()).or_insert_with(|| Cell { made: Arc::default(), asked: now });
        cell.asked = now;
        cell.made.clone()
    }
}

fn is_due(age: Duration, took: Duration) -> bool {
    age >= FRESH.max(took * SHARE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_long_is_made_less_often() {
        let ms = Duration::from_millis;
        assert!(!is_due(ms(999), ms(1)) && is_due(ms(1000), ms(1)));
        assert!(!is_due(ms(1999), ms(100)) && is_due(ms(2000), ms(100)));
    }

    #[tokio::test]
    async fn many_readers_share_one_answer_and_old_ones_leave() {
        let kept: Kept<u32, u32> = Kept::default();
        let first = kept.get(&1, async { Ok(7) }, async { Ok(10) }).await.unwrap();
        let again = kept.get(&1, async { panic!("asked too early") }, async { panic!("made twice") }).await;
        assert_eq!((*first, *again.unwrap()), (10, 10));
        kept.forget(&1);
        assert_eq!(*kept.get(&1, async { Ok(7) }, async { Ok(11) }).await.unwrap(), 11);
        for key in 0..40 {
            kept.get(&key, async { Ok(1) }, async { Ok(key) }).await.unwrap();
        }
        assert_eq!(kept.cells.lock().unwrap().len(), KEYS);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let kept: Kept<u32, u32> = Kept::default();
        assert!(kept.get(&1, async { Err(Status::unavailable("x")) }, async { Ok(1) }).await.is_err());
        assert_eq!(*kept.get(&1, async { Ok(1) }, async { Ok(2) }).await.unwrap(), 2);
    }
}
