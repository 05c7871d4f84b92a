//! What a call occupies: blocks of the KV cache, for as long as it takes. Before the call by the pace of earlier ones,
//! after it by its own time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Tokens of one block; the unit of the budget, whatever an engine's own blocks are.
const BLOCK_TOKENS: u64 = 16;
/// Before anything is measured: ten tokens a second, slower than any engine one would use.
const UNKNOWN_MICROS: u64 = 100_000;
/// A new measurement counts an eighth.
const OLD_SHARE: u64 = 7;

/// Blocks of a chain times seconds, both rounded up.
pub(super) fn kv_block_seconds(chain_tokens: u64, micros: u64) -> u64 {
    chain_tokens.div_ceil(BLOCK_TOKENS).saturating_mul(micros.div_ceil(1_000_000))
}

/// How long a new token takes, by model. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Paces {
    micros_a_token: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Paces {
    pub(super) fn micros_a_token(&self, model: &str) -> u64 {
        self.table().get(model).copied().unwrap_or(UNKNOWN_MICROS)
    }

    pub(super) fn learn(&self, model: &str, micros: u64, new_tokens: u64) {
        let Some(measured) = micros.checked_div(new_tokens) else { return };
        let mut table = self.table();
        match table.get_mut(model) {
            Some(mean) => *mean = (mean.saturating_mul(OLD_SHARE).saturating_add(measured)) / (OLD_SHARE + 1),
            None => drop(table.insert(model.to_string(), measured)),
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, u64>> {
        self.micros_a_token.lock().expect("nothing panics while it holds the paces")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_and_seconds_are_rounded_up() {
        assert_eq!(kv_block_seconds(0, 5_000_000), 0);
        assert_eq!(kv_block_seconds(1, 1), 1);
        assert_eq!(kv_block_seconds(16, 1_000_000), 1);
        assert_eq!(kv_block_seconds(17, 1_000_001), 4);
        assert_eq!(kv_block_seconds(u64::MAX, u64::MAX), u64::MAX);
    }

    #[test]
    fn the_pace_is_stated_then_measured_then_follows() {
        let paces = Paces::default();
        assert_eq!(paces.micros_a_token("m"), UNKNOWN_MICROS);
        paces.learn("m", 8_000, 0);
        assert_eq!(paces.micros_a_token("m"), UNKNOWN_MICROS, "nothing was said");
        paces.learn("m", 8_000, 10);
        assert_eq!(paces.micros_a_token("m"), 800);
        paces.learn("m", 16_000, 10);
        assert_eq!(paces.micros_a_token("m"), 900);
        assert_eq!(paces.micros_a_token("other"), UNKNOWN_MICROS);
    }
}
