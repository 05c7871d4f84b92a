//! A cache of blocks that forgets the one not used for longest. Of a prompt the end goes before the beginning.

use std::collections::BTreeMap;

#[derive(Clone, Debug)]
pub struct Cache {
    blocks_max: usize,
    used: BTreeMap<u64, u64>,
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

impl Cache {
    pub fn new(blocks_max: usize) -> Cache {
        Cache { blocks_max, used: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0 }
    }

    /// Blocks at the beginning of the prompt that are here.
    pub fn matched(&self, blocks: &[u64]) -> usize {
        blocks.iter().take_while(|block| self.used.contains_key(block)).count()
    }

    /// Computes what is missing and keeps what fits; answers how many blocks were here.
    pub fn serve(&mut self, blocks: &[u64]) -> usize {
        let matched = self.matched(blocks);
        for block in blocks.iter().take(self.blocks_max).rev() {
            self.touch(*block);
        }
        while self.used.len() > self.blocks_max {
            let oldest = self.by_use.pop_first().map(|(_, block)| block);
            oldest.map(|block| self.used.remove(&block));
        }
        matched
    }

    fn touch(&mut self, block: u64) {
        self.uses += 1;
        if let Some(before) = self.used.insert(block, self.uses) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(self.uses, block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_go_before_beginnings_and_the_oldest_first() {
        let mut cache = Cache::new(4);
        assert_eq!(cache.serve(&[1, 2, 3]), 0);
        assert_eq!(cache.serve(&[1, 2, 3]), 3);
        assert_eq!(cache.serve(&[1, 7]), 1);
        assert_eq!(cache.matched(&[1, 2, 3]), 3);
        assert_eq!(cache.serve(&[8]), 0);
        assert_eq!(cache.matched(&[1, 2, 3]), 2, "3 was the oldest end");
        assert_eq!(cache.serve(&[11, 12, 13, 14, 15]), 0);
        assert_eq!(cache.matched(&[11, 12, 13, 14, 15]), 4, "what does not fit is not kept");
    }
}
