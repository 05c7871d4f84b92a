//! Blocks that must not be found again, not even by somebody who reads the files.

use super::Tiers;
use super::meta::Gone;
use crate::prefix::{Key, Scope};

impl Tiers {
    /// Removes a block from every tier. Its bytes in memory are overwritten now; those on disk when
    /// [`super::Observed::erasing`] has come to 0, for which [`Tiers::flush`] waits. True when it was anywhere.
    ///
    /// When the disk tier was switched off, nobody knows what its files hold, and all of them are removed.
    pub fn forget(&mut self, key: &Key) -> bool {
        self.wanted.retain(|(wanted, _)| wanted != key);
        self.disk.forget_files();
        self.forget_one(key)
    }

    /// As `forget`, for all blocks of a project. Says how many there were.
    pub fn forget_project(&mut self, project: &Scope) -> usize {
        self.wanted.retain(|(_, meta)| meta.project != *project);
        self.disk.forget_files();
        let keys: std::collections::BTreeSet<Key> = self
            .host
            .keys()
            .chain(self.disk.keys())
            .filter(|(_, meta)| meta.project == *project)
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter(|key| self.forget_one(key)).count()
    }

    fn forget_one(&mut self, key: &Key) -> bool {
        if let Some(held) = self.host.item_mut(key) {
            held.bytes.fill(0);
        }
        let was_held = self.drop_held(key, Gone::Forgotten);
        // What arrived and was not told will not be there any more.
        let is_told = |fetched: &&mut super::Fetched| fetched.key == *key;
        self.fetched.iter_mut().filter(is_told).for_each(|fetched| fetched.arrived = false);
        let was_stored = self.disk.forget(key);
        self.settle();
        // One that had arrived is told once, whether it had been taken in or not.
        let mut told = false;
        self.fetched.retain(|fetched| fetched.key != *key || !std::mem::replace(&mut told, true));
        was_held || was_stored
    }
}
