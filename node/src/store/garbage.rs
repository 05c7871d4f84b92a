//! What nothing names any more, from when that was seen until it is swept or asked for again. Pure: the time is an
//! argument.

use std::collections::{BTreeMap, BTreeSet};
use types::{Hash, ProjectName};

#[derive(Default)]
pub(super) struct Garbage {
    /// Since when each is known to be garbage.
    doomed: BTreeMap<ProjectName, BTreeMap<Hash, u64>>,
    /// Being removed just now: as good as not held.
    going: BTreeSet<(ProjectName, Hash)>,
}

impl Garbage {
    /// These and no others are what nothing in a project names. What was known before keeps its time.
    pub(super) fn doom(
        &mut self,
        project: &ProjectName,
        hashes: impl IntoIterator<Item = Hash>,
        now_ms: u64,
    ) {
        let before = self.doomed.remove(project).unwrap_or_default();
        let since = |hash: Hash| (hash, before.get(&hash).copied().unwrap_or(now_ms));
        let doomed: BTreeMap<Hash, u64> = hashes.into_iter().map(since).collect();
        if !doomed.is_empty() {
            self.doomed.insert(project.clone(), doomed);
        }
    }

    /// Somebody counts on it: from now on it is no garbage.
    pub(super) fn spare(&mut self, project: &ProjectName, hash: &Hash) {
        if let Some(doomed) = self.doomed.get_mut(project) {
            doomed.remove(hash);
        }
    }

    /// Some of what is garbage since this time or longer; it goes now.
    pub(super) fn take(&mut self, project: &ProjectName, since_ms: u64, most: usize) -> Vec<Hash> {
        let Some(doomed) = self.doomed.get_mut(project) else { return Vec::new() };
        let old = doomed.iter().filter(|(_, since)| **since <= since_ms);
        let taken: Vec<Hash> = old.map(|(hash, _)| *hash).take(most).collect();
        for hash in &taken {
            doomed.remove(hash);
        }
        self.going.extend(taken.iter().map(|hash| (project.clone(), *hash)));
        taken
    }

    pub(super) fn is_going(&self, project: &ProjectName, hash: &Hash) -> bool {
        !self.going.is_empty() && self.going.contains(&(project.clone(), *hash))
    }

    /// What went is gone.
    pub(super) fn gone(&mut self) {
        self.going.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_garbage_all_the_time_goes() {
        let (mut garbage, a) = (Garbage::default(), ProjectName::parse("a").unwrap());
        let [old, asked, named, young] = [1, 2, 3, 4].map(|n| Hash([n; 32]));
        garbage.doom(&a, [old, asked, named], 10);
        garbage.spare(&a, &asked);
        garbage.doom(&a, [old, asked, young], 20);
        garbage.doom(&a, [old, asked, named, young], 30);
        assert_eq!(garbage.take(&a, 9, 9), []);
        assert_eq!(garbage.take(&a, 10, 9), [old]);
        assert!(garbage.is_going(&a, &old) && !garbage.is_going(&a, &asked));
        garbage.gone();
        assert!(!garbage.is_going(&a, &old));
        assert_eq!(garbage.take(&a, 20, 1), [asked]);
        assert_eq!(garbage.take(&a, 20, 9), [young]);
        assert_eq!(garbage.take(&a, 30, 9), [named], "it was named in between");
        assert_eq!(garbage.take(&ProjectName::parse("b").unwrap(), 30, 9), []);
    }
}
