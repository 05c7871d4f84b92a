//! Mooncake's traces (`timestamp`, `input_length`, `output_length`, `hash_ids`): every request names the blocks of
//! its prompt, 512 tokens each, by numbers that stand for all tokens up to the block's end.
//!
//! Requests are served one after the other and take no time: what is measured is the choice of what is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;

use serde::Deserialize;

use super::lines::each_line;
use super::{ReplayError, Row};
use crate::blocks::{BlockId, Blocks};
use crate::evict::{Belady, Owner, POLICIES, Use};
use crate::prefix::Key;

/// Tokens of one of the trace's blocks.
const TRACE_BLOCK_TOKENS: u64 = 512;

/// The name of the policy that knows the future.
pub const ORACLE: &str = "belady";

#[derive(Debug, Clone, Deserialize)]
struct Request {
    timestamp: u64,
    input_length: u64,
    #[serde(default)]
    output_length: u64,
    hash_ids: Vec<u64>,
}

/// A trace in order of arrival.
#[derive(Debug, Clone)]
pub struct Trace {
    requests: Vec<Request>,
}

impl Trace {
    /// Reads one request a line; `what` names the source in errors.
    pub fn read(from: impl BufRead, what: &str) -> Result<Trace, ReplayError> {
        let mut requests: Vec<Request> = Vec::new();
        each_line(from, what, |_, text| {
            let request: Request = serde_json::from_str(text).map_err(|cause| cause.to_string())?;
            check(&request)?;
            requests.push(request);
            Ok(())
        })?;
        if requests.is_empty() {
            return Err(ReplayError::Empty { what: what.to_owned() });
        }
        requests.sort_by_key(|request| request.timestamp);
        Ok(Trace { requests })
    }

    /// Replays it with a pool of so many blocks under every policy, the oracle last.
    pub fn replay(&self, blocks: usize) -> Result<Vec<Row>, ReplayError> {
        let mut rows: Vec<Row> = POLICIES
            .iter()
            .map(|name| Ok(self.run(name, super::pool(name, blocks)?)))
            .collect::<Result<_, ReplayError>>()?;
        let policy = Box::new(Belady::new(&self.accesses()));
        rows.push(self.run(ORACLE, Blocks::with_policy(blocks, policy)));
        Ok(rows)
    }

    fn accesses(&self) -> Vec<Key> {
        self.requests.iter().flat_map(|request| request.hash_ids.iter().map(|&id| key(id))).collect()
    }

    fn run(&self, policy: &str, pool: Blocks) -> Row {
        let mut run =
            Run { pool, index: BTreeMap::new(), seen: BTreeSet::new(), found: 0, computed: 0, new: 0 };
        self.requests.iter().for_each(|request| run.serve(request));
        let asked: usize = self.requests.iter().map(|request| request.hash_ids.len()).sum();
        let mut row = Row {
            policy: policy.to_owned(),
            blocks: run.pool.total(),
            tiers: "none",
            requests: self.requests.len(),
            hit: run.found as f64 / (asked as f64).max(1.0),
            ..Row::default()
        };
        row.set_tokens(run.computed, run.new);
        row.count_evictions(run.pool.evictions());
        row
    }
}

/// The ids must fit the length, so that token counts are right.
fn check(request: &Request) -> Result<(), String> {
    let Request { input_length, hash_ids, .. } = request;
    let blocks = input_length.div_ceil(TRACE_BLOCK_TOKENS);
    if hash_ids.len() as u64 != blocks {
        let given = hash_ids.len();
        return Err(format!("input_length {input_length} makes {blocks} blocks, but hash_ids has {given}"));
    }
    Ok(())
}

fn key(id: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&id.to_le_bytes());
    Key(key)
}

struct Run {
    pool: Blocks,
    index: BTreeMap<Key, BlockId>,
    seen: BTreeSet<u64>,
    found: usize,
    computed: u64,
    new: u64,
}

impl Run {
    fn serve(&mut self, request: &Request) {
        self.pool.set_time(request.timestamp);
        let mut chain = self.hold_known(&request.hash_ids);
        self.found += chain.len();
        for (index, &id) in request.hash_ids.iter().enumerate().skip(chain.len()) {
            self.count(id, tokens_of(request, index));
            // A prompt larger than the pool is computed all the same; what has no room is not kept.
            if chain.len() == index {
                chain.extend(self.compute(id, chain.last().copied(), index));
            }
        }
        let all = request.hash_ids.len();
        for (index, &block) in chain.iter().enumerate().rev() {
            self.pool.release_after(block, &call(request, all - 1 - index));
        }
    }

    /// Holds the longest known beginning.
    fn hold_known(&mut self, ids: &[u64]) -> Vec<BlockId> {
        let known = ids.iter().map_while(|&id| self.index.get(&key(id)).copied());
        let chain: Vec<BlockId> = known.collect();
        chain.iter().for_each(|&block| self.pool.hold(block));
        chain
    }

    fn count(&mut self, id: u64, tokens: u64) {
        self.computed = self.computed.saturating_add(tokens);
        if self.seen.insert(id) {
            self.new = self.new.saturating_add(tokens);
        }
    }

    fn compute(&mut self, id: u64, parent: Option<BlockId>, depth: usize) -> Option<BlockId> {
        let taken = self.pool.take_for(Owner::default())?;
        if let Some(key) = taken.evicted {
            self.index.remove(&key);
        }
        let key = key(id);
        let is_new = !self.index.contains_key(&key);
        self.pool.seal_in_chain(taken.block, is_new.then_some(key), parent, depth as u32);
        if is_new {
            self.index.insert(key, taken.block);
        }
        Some(taken.block)
    }
}

fn tokens_of(request: &Request, block: usize) -> u64 {
    (request.input_length - block as u64 * TRACE_BLOCK_TOKENS).min(TRACE_BLOCK_TOKENS)
}

fn call(request: &Request, blocks_after: usize) -> Use {
    let small = |tokens: u64| u32::try_from(tokens).unwrap_or(u32::MAX);
    Use {
        prompt: small(request.input_length),
        answer: small(request.output_length),
        after: small(blocks_after as u64 * TRACE_BLOCK_TOKENS),
        hit: false,
    }
}
