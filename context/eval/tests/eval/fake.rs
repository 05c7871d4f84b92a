//! A scorer that follows a rule: an action is likelier by so many nats where certain words stand in the context.

use evaluate::{Call, Child, How, Observed, Scorer, Segment, Tokenised};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use types::Hash;

/// Worth `nats` when all words of one of the sets are there.
pub(crate) struct Fact {
    pub(crate) any: Vec<Vec<&'static str>>,
    pub(crate) nats: f64,
}

pub(crate) fn fact(any: &[&[&'static str]], nats: f64) -> Fact {
    Fact { any: any.iter().map(|words| words.to_vec()).collect(), nats }
}

pub(crate) struct Fake {
    pub(crate) facts: Vec<Fact>,
    pub(crate) words: BTreeMap<String, u32>,
    pub(crate) seed: u64,
    /// Random, the same for the same kept segments; half of this to either side.
    pub(crate) noise_nats: f64,
    /// Added to masked children that leave out something.
    pub(crate) mask_error_nats: f64,
    /// Sabotage: the segments are taken for others.
    pub(crate) rotate: usize,
    pub(crate) window: usize,
    pub(crate) asked: Vec<Child>,
    /// Tokens that an engine with the whole chain in its cache computes.
    pub(crate) computed: u64,
}

impl Fake {
    pub(crate) fn new(facts: Vec<Fact>) -> Fake {
        Fake {
            facts,
            words: BTreeMap::new(),
            seed: 0,
            noise_nats: 0.0,
            mask_error_nats: 0.0,
            rotate: 0,
            window: 100_000,
            asked: Vec::new(),
            computed: 0,
        }
    }

    pub(crate) fn noisy(facts: Vec<Fact>, seed: u64, noise_nats: f64) -> Fake {
        Fake { seed, noise_nats, ..Fake::new(facts) }
    }

    fn ids(&mut self, text: &str) -> Vec<u32> {
        let words = text.split_whitespace();
        words
            .map(|word| {
                let next = self.words.len() as u32;
                *self.words.entry(word.to_string()).or_insert(next)
            })
            .collect()
    }

    fn pieces(&self, call: &Tokenised, child: &Child) -> Vec<usize> {
        let n = call.segments.len();
        let turned = |at: usize| if at < n { (at + self.rotate) % n } else { at };
        child.kept(n).into_iter().map(turned).collect()
    }

    fn one(&self, call: &Tokenised, child: &Child) -> f64 {
        let kept = self.pieces(call, child);
        let ids: BTreeSet<u32> = kept.iter().flat_map(|&at| call.piece(at).iter().copied()).collect();
        let there = |word: &&str| self.words.get(*word).is_some_and(|id| ids.contains(id));
        let told = |fact: &&Fact| fact.any.iter().any(|words| words.iter().all(&there));
        let worth: f64 = self.facts.iter().filter(told).map(|fact| fact.nats).sum();
        let masked = child.how == How::Masked && !child.omitted(call.segments.len()).is_empty();
        worth - 20.0 + self.noise(&ids) + if masked { self.mask_error_nats } else { 0.0 }
    }

    fn noise(&self, ids: &BTreeSet<u32>) -> f64 {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        let hash = Hash::of_parts(&[&self.seed.to_le_bytes(), &bytes]);
        (f64::from(hash.0[0]) / 255.0 - 0.5) * self.noise_nats
    }
}

impl Scorer for Fake {
    type Error = Infallible;

    fn model_sha256(&self) -> String {
        "00".repeat(32)
    }

    fn window(&self) -> usize {
        self.window
    }

    fn tokenise(&mut self, call: &Call) -> Result<Tokenised, Infallible> {
        let segments = call.segments.iter().map(|segment| self.ids(&segment.text)).collect();
        let withheld = call.withheld().iter().map(|segment| self.ids(&segment.text)).collect();
        Ok(Tokenised { segments, withheld, probe: self.ids(&call.probe), action: self.ids(&call.action) })
    }

    fn score(&mut self, call: &Tokenised, children: &[Child]) -> Result<Vec<f64>, Infallible> {
        self.asked.extend_from_slice(children);
        self.computed += children.iter().map(|child| fresh(call, child)).sum::<u64>();
        Ok(children.iter().map(|child| self.one(call, child)).collect())
    }

    fn observe(&mut self, call: &Tokenised) -> Result<Observed, Infallible> {
        let shares = vec![1.0 / call.segments.len().max(1) as f64; call.segments.len()];
        Ok(Observed { attention: Some(shares), bits: None })
    }
}

/// What must be computed for a child beside a cache of the whole chain: counted from the ids, not from the plan.
fn fresh(call: &Tokenised, child: &Child) -> u64 {
    let probe = (call.probe.len() + call.action.len()) as u64;
    if child.how == How::Masked {
        return probe;
    }
    let whole = call.segments.concat();
    let kept: Vec<u32> =
        child.kept(call.segments.len()).iter().flat_map(|&at| call.piece(at).to_vec()).collect();
    let shared = whole.iter().zip(&kept).take_while(|(one, other)| one == other).count();
    (kept.len() - shared) as u64 + probe
}

/// Words that nothing depends on, different for each name.
pub(crate) fn trivia(name: &str, words: usize) -> String {
    let words: Vec<String> = (0..words).map(|at| format!("{name}-{at}")).collect();
    words.join(" ")
}

pub(crate) fn segment(id: &str, owner: &str, text: &str) -> Segment {
    Segment::new(id, owner, "message", text)
}

/// A call of the agent `reader`.
pub(crate) fn call(segments: Vec<Segment>) -> Call {
    Call {
        name: "1".into(),
        segments,
        reader: "reader".into(),
        probe: "what is the code ?".into(),
        action: "the code is 4711".into(),
        withheld: None,
    }
}

/// `n` segments of which those at the given places hold given texts.
pub(crate) fn among(n: usize, planted: &[(usize, &str)]) -> Vec<Segment> {
    let text =
        |at: usize| planted.iter().find(|(place, _)| *place == at).map(|(_, text)| (*text).to_string());
    let filled = (0..n).map(|at| text(at).unwrap_or_else(|| trivia(&format!("filler{at}"), 20)));
    filled.enumerate().map(|(at, text)| segment(&format!("s{at}"), "writer", &text)).collect()
}
