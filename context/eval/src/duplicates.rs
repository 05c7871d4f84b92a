//! Which segments say the same, without a model: equal token ids by hash, long common runs by winnowing.
//!
//! Winnowing (Schleimer, Wilkerson, Aiken 2003) keeps the least hash of every window of consecutive k-grams, so two
//! texts that share a run of `GRAM + WINDOW - 1` tokens always share a fingerprint, wherever it stands.

use crate::call::Call;
use crate::scorer::Tokenised;
use std::collections::BTreeMap;
use types::Hash;

/// Tokens of one k-gram: shorter runs are phrases that everybody uses.
pub(crate) const GRAM: usize = 8;
/// K-grams of one window; a common run of 15 tokens is always seen.
pub(crate) const WINDOW: usize = 8;
/// Two segments are near when they share this part of the smaller one's fingerprints…
const SHARED_PERCENT: usize = 50;
/// …and at least so many: one may be a form that both fill in.
const SHARED_LEAST: usize = 2;
/// A fingerprint in more segments than this is a form, and joins nobody. Bounds the work as well.
const COMMON: usize = 64;

/// Where a segment stands: its call, and its place in the chain.
pub type Place = (usize, usize);

/// Clusters of segments over all calls that say the same.
#[derive(Debug, Default)]
pub struct Duplicates {
    /// What cluster a place belongs to; clusters are numbered by their first place.
    cluster: BTreeMap<Place, usize>,
    /// The first place of each distinct segment, by cluster, the earliest first.
    members: Vec<Vec<Place>>,
    /// The distinct segment that a place holds, as its first place.
    first: BTreeMap<Place, Place>,
    /// The first place that a call has of a cluster.
    leads: BTreeMap<(usize, usize), usize>,
}

impl Duplicates {
    /// Finds them over all calls' chains. The same id with the same text in several calls is one segment that was
    /// sent again, not a duplicate.
    pub fn find(calls: &[Call], tokens: &[Tokenised]) -> Duplicates {
        let (distinct, first) = distinct(calls, tokens);
        let ids: Vec<&[u32]> =
            distinct.iter().map(|&(call, at)| tokens[call].segments[at].as_slice()).collect();
        let groups = groups(&ids);
        let mut found = Duplicates { first, ..Duplicates::default() };
        found.members =
            groups.iter().map(|group| group.iter().map(|&index| distinct[index]).collect()).collect();
        let owners: BTreeMap<Place, usize> = found
            .members
            .iter()
            .enumerate()
            .flat_map(|(cluster, members)| members.iter().map(move |&place| (place, cluster)))
            .collect();
        let placed = found.first.iter();
        found.cluster =
            placed.filter_map(|(&place, first)| owners.get(first).map(|&cluster| (place, cluster))).collect();
        for (&(call, at), &cluster) in &found.cluster {
            found.leads.entry((call, cluster)).or_insert(at);
        }
        found
    }

    /// What a segment repeats: the first of its cluster in the same call, else over all calls. None for firsts.
    pub fn repeats(&self, place: Place) -> Option<Place> {
        let cluster = *self.cluster.get(&place)?;
        let here = self.leads[&(place.0, cluster)];
        let everywhere = self.members[cluster][0];
        (here != place.1)
            .then_some((place.0, here))
            .or_else(|| (self.first[&place] != everywhere).then_some(everywhere))
    }

    /// Clusters with at least two segments in one call, as places of its chain.
    pub fn clusters(&self, call: usize) -> Vec<Vec<usize>> {
        let mut by_cluster: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (&(_, at), &cluster) in self.cluster.range((call, 0)..(call + 1, 0)) {
            by_cluster.entry(cluster).or_default().push(at);
        }
        let mut clusters: Vec<Vec<usize>> = by_cluster.into_values().filter(|c| c.len() > 1).collect();
        clusters.sort();
        clusters
    }
}

/// The first places of distinct segments, in order, and which of them every place holds. Empty segments are none.
fn distinct(calls: &[Call], tokens: &[Tokenised]) -> (Vec<Place>, BTreeMap<Place, Place>) {
    let mut known: BTreeMap<(&str, Hash), Place> = BTreeMap::new();
    let (mut order, mut first) = (Vec::new(), BTreeMap::new());
    for (c, call) in calls.iter().enumerate() {
        for (at, segment) in call.segments.iter().enumerate() {
            let Some(ids) = tokens[c].segments.get(at).filter(|ids| !ids.is_empty()) else { continue };
            let place = *known.entry((&segment.id, hash_of(ids))).or_insert_with(|| {
                order.push((c, at));
                (c, at)
            });
            first.insert((c, at), place);
        }
    }
    (order, first)
}

fn hash_of(ids: &[u32]) -> Hash {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Hash::of(&bytes)
}

/// Groups of two and more texts that say the same, as sorted indices, ordered by their first.
pub fn groups(texts: &[&[u32]]) -> Vec<Vec<usize>> {
    let mut joined = Joined::new(texts.len());
    let mut same: BTreeMap<Hash, usize> = BTreeMap::new();
    let mut prints: Vec<Vec<u64>> = vec![Vec::new(); texts.len()];
    for (index, text) in texts.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
        match same.get(&hash_of(text)) {
            Some(&first) => joined.join(first, index),
            None => {
                same.insert(hash_of(text), index);
                prints[index] = fingerprints(text);
            }
        }
    }
    for ((one, other), shared) in shared(&prints) {
        let smaller = prints[one].len().min(prints[other].len());
        if shared >= SHARED_LEAST && shared * 100 >= smaller * SHARED_PERCENT {
            joined.join(one, other);
        }
    }
    joined.groups()
}

/// How many fingerprints each pair has in common.
fn shared(prints: &[Vec<u64>]) -> BTreeMap<(usize, usize), usize> {
    let mut holders: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, print) in prints.iter().enumerate() {
        for hash in print {
            holders.entry(*hash).or_default().push(index);
        }
    }
    let mut pairs = BTreeMap::new();
    for holders in holders.values().filter(|holders| holders.len() <= COMMON) {
        for (at, &one) in holders.iter().enumerate() {
            for &other in &holders[at + 1..] {
                *pairs.entry((one, other)).or_insert(0) += 1;
            }
        }
    }
    pairs
}

/// The fingerprints of a text, each once, sorted. A text shorter than a window has the least of what it has.
pub fn fingerprints(ids: &[u32]) -> Vec<u64> {
    let grams: Vec<u64> = ids.windows(GRAM).map(gram).collect();
    let mut least: Vec<u64> = match grams.len() {
        0 => Vec::new(),
        short if short < WINDOW => grams.iter().min().copied().into_iter().collect(),
        _ => grams.windows(WINDOW).filter_map(|window| window.iter().min().copied()).collect(),
    };
    least.sort_unstable();
    least.dedup();
    least
}

/// FNV-1a over ids, with a last mix, so that the least hash is a fair choice.
fn gram(ids: &[u32]) -> u64 {
    let hash = ids.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &id| {
        (hash ^ u64::from(id)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Disjoint sets; the least index leads.
struct Joined(Vec<usize>);

impl Joined {
    fn new(count: usize) -> Self {
        Joined((0..count).collect())
    }

    fn leader(&mut self, mut of: usize) -> usize {
        while self.0[of] != of {
            self.0[of] = self.0[self.0[of]];
            of = self.0[of];
        }
        of
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.leader(one), self.leader(other));
        self.0[one.max(other)] = one.min(other);
    }

    fn groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in 0..self.0.len() {
            groups.entry(self.leader(index)).or_default().push(index);
        }
        groups.into_values().filter(|group| group.len() > 1).collect()
    }
}

/// Groups of indices from pairs that belong together.
pub(crate) fn joined(count: usize, pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<Vec<usize>> {
    let mut sets = Joined::new(count);
    pairs.into_iter().for_each(|(one, other)| sets.join(one, other));
    sets.groups()
}
