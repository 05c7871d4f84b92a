//! Which children of a call are scored: what each keeps, how it is made, and what it costs.

use crate::scorer::Tokenised;
use context::ChainHash;

/// One call in so many is audited, chosen by its chain's hash.
pub const AUDITED: u64 = 20;
/// Segments whose removal an audit repeats exactly: the first by necessity, and as many others by hash.
pub(crate) const AUDIT_TOP: usize = 2;
/// Segments that could stand for each other and are looked at in pairs: 15 children at most.
pub(crate) const PAIRED: usize = 6;

/// How a child comes about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// From the KV of the whole chain, with the keys of what is not kept left out; positions stay as they were.
    Masked,
    /// Computed from what is kept alone, closed up, as if the rest had never been there.
    Exact,
}

/// What a child means for the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning {
    /// The whole chain.
    Full,
    /// No segment at all: what the probe alone is worth.
    None,
    /// All but this segment: its necessity.
    Without(usize),
    /// This segment and no other: its sufficiency.
    Alone(usize),
    /// All but the members of this cluster.
    WithoutCluster(usize),
    /// All but these two, which could stand for each other.
    WithoutPair(usize, usize),
    /// All but those that could stand for each other.
    WithoutCandidates,
    /// All but this segment, computed exactly.
    Audit(usize),
    /// The chain and this withheld segment.
    Inserted(usize),
    /// The chain with the originals in place of this summary.
    Originals(usize),
    /// The chain without this summary.
    WithoutSummary(usize),
    /// The chain without what seems to be for nothing.
    Trimmed,
}

/// Which pieces a child has. A piece is a segment of the chain by place, and from their count on a withheld one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pieces {
    /// All segments of the chain but those, ascending.
    AllBut(Vec<usize>),
    /// Those, in this order; a masked child has only segments, ascending.
    Only(Vec<usize>),
}

/// One context to score the action in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    pub meaning: Meaning,
    pub how: How,
    pub pieces: Pieces,
}

impl Child {
    /// Masked: all segments but those.
    pub fn without(meaning: Meaning, mut omitted: Vec<usize>) -> Child {
        omitted.sort_unstable();
        Child { meaning, how: How::Masked, pieces: Pieces::AllBut(omitted) }
    }

    /// Masked: those segments and no other.
    pub fn only(meaning: Meaning, kept: Vec<usize>) -> Child {
        Child { meaning, how: How::Masked, pieces: Pieces::Only(kept) }
    }

    pub fn exact(self) -> Child {
        Child { how: How::Exact, ..self }
    }

    /// What it keeps of a chain of `n` segments, in order.
    pub fn kept(&self, n: usize) -> Vec<usize> {
        match &self.pieces {
            Pieces::Only(kept) => kept.clone(),
            Pieces::AllBut(omitted) => (0..n).filter(|at| omitted.binary_search(at).is_err()).collect(),
        }
    }

    /// What it leaves out of a chain of `n` segments, ascending.
    pub fn omitted(&self, n: usize) -> Vec<usize> {
        match &self.pieces {
            Pieces::AllBut(omitted) => omitted.clone(),
            Pieces::Only(kept) => {
                let kept: std::collections::BTreeSet<usize> = kept.iter().copied().collect();
                (0..n).filter(|at| !kept.contains(at)).collect()
            }
        }
    }

    /// Tokens that it computes while the KV of the whole chain is there: probe and action, and for an exact child
    /// all that stands behind the first difference. A rule, not a reading: the same for a cold cache.
    pub fn tokens(&self, call: &Tokenised) -> u64 {
        let fresh = match self.how {
            How::Masked => 0,
            How::Exact => {
                let n = call.segments.len();
                let kept = self.kept(n);
                let same = |(place, piece): &(usize, &usize)| place == *piece && **piece < n;
                let shared = kept.iter().enumerate().take_while(same).count();
                kept[shared..].iter().map(|&at| call.piece(at).len() as u64).sum()
            }
        };
        fresh + call.probe_tokens()
    }
}

/// The two children that decide whether anything can be said.
pub(crate) fn gate() -> Vec<Child> {
    vec![Child::without(Meaning::Full, Vec::new()), Child::only(Meaning::None, Vec::new())]
}

/// Each segment left out, each alone, each cluster of duplicates left out: one batch. Empty segments need no child.
pub(crate) fn children(call: &Tokenised, clusters: &[Vec<usize>]) -> Vec<Child> {
    let filled = || (0..call.segments.len()).filter(|&at| !call.segments[at].is_empty());
    let necessity = filled().map(|at| Child::without(Meaning::Without(at), vec![at]));
    let sufficiency = filled().map(|at| Child::only(Meaning::Alone(at), vec![at]));
    let clusters = clusters.iter().enumerate();
    let clusters = clusters.map(|(at, members)| Child::without(Meaning::WithoutCluster(at), members.clone()));
    necessity.chain(sufficiency).chain(clusters).collect()
}

/// All segments left out together that could stand for each other.
pub(crate) fn candidates(candidates: &[usize]) -> Vec<Child> {
    let some = candidates.len() > 1;
    some.then(|| Child::without(Meaning::WithoutCandidates, candidates.to_vec())).into_iter().collect()
}

/// Every two of the first [`PAIRED`] candidates left out; with two candidates nothing is left to ask.
pub(crate) fn pairs(candidates: &[usize]) -> Vec<Child> {
    let few = if candidates.len() > 2 { &candidates[..candidates.len().min(PAIRED)] } else { &[] };
    let pairs =
        few.iter().enumerate().flat_map(|(i, &one)| few[i + 1..].iter().map(move |&other| (one, other)));
    pairs.map(|(one, other)| Child::without(Meaning::WithoutPair(one, other), vec![one, other])).collect()
}

/// What is inserted or put back, where the call says what its reader did not get. `originals` has for a summary's place
/// the withheld segments that it stands for.
pub(crate) fn withheld(call: &Tokenised, originals: &[(usize, Vec<usize>)]) -> Vec<Child> {
    let n = call.segments.len();
    let compacted: std::collections::BTreeSet<usize> =
        originals.iter().flat_map(|(_, of)| of.iter().copied()).collect();
    let missing =
        (0..call.withheld.len()).filter(|at| !compacted.contains(at) && !call.withheld[*at].is_empty());
    let inserted =
        missing.map(|at| Child::only(Meaning::Inserted(at), (0..n).chain([n + at]).collect()).exact());
    inserted.chain(originals.iter().flat_map(|(summary, of)| put_back(n, *summary, of))).collect()
}

fn put_back(n: usize, summary: usize, originals: &[usize]) -> [Child; 2] {
    let restored = (0..summary).chain(originals.iter().map(|at| n + at)).chain(summary + 1..n).collect();
    [
        Child::only(Meaning::Originals(summary), restored).exact(),
        Child::without(Meaning::WithoutSummary(summary), vec![summary]).exact(),
    ]
}

/// Which calls an audit looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Audit {
    /// One in [`AUDITED`], by chain hash.
    #[default]
    Some,
    All,
    /// Every segment of every call: exact leave-one-out beside masking. Costs what masking saves, so nothing is refused:
    /// both figures are in the report.
    Every,
}

impl Audit {
    pub fn covers(self, chain: ChainHash) -> bool {
        self != Audit::Some || number(chain, 0).is_multiple_of(AUDITED)
    }
}

/// Exact removals: the first two of `ranked` segments (by necessity), and two of the rest that the chain's hash picks.
pub(crate) fn audit(chain: ChainHash, ranked: &[usize], every: bool) -> Vec<Child> {
    let chosen = if every { ranked.to_vec() } else { chosen(chain, ranked) };
    chosen.into_iter().map(|at| Child::without(Meaning::Audit(at), vec![at]).exact()).collect()
}

fn chosen(chain: ChainHash, ranked: &[usize]) -> Vec<usize> {
    let mut rest = ranked.to_vec();
    let mut chosen: Vec<usize> = rest.drain(..AUDIT_TOP.min(ranked.len())).collect();
    rest.sort_unstable();
    for turn in 1..=AUDIT_TOP {
        if !rest.is_empty() {
            chosen.push(rest.remove((number(chain, turn) % rest.len() as u64) as usize));
        }
    }
    chosen
}

/// The eight bytes of a hash that stand at `turn`.
fn number(chain: ChainHash, turn: usize) -> u64 {
    let bytes = &chain.0.0[turn * 8..turn * 8 + 8];
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
