//! How long a search takes, and what an index weighs, at 1,000, 10,000 and 100,000 items.
//!
//! ```sh
//! cargo run --release -p memory --example memory_bench [ITEMS ...]
//! ```
//!
//! Items have 60 words each of a vocabulary of 20,000, common ones more often, and a vector of 384 numbers; a question
//! has 8 words. All from one seed: two runs differ in time alone.

use std::time::{Duration, Instant};

use memory::{Encode, How, Index, Item, Query, Shelf};
use types::Hash;

const DIMS: usize = 384;
const WORDS: u64 = 20_000;
const SEARCHES: usize = 30;

/// Numbers that look random (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A few words stand everywhere, most are rare.
    fn text(&mut self, words: usize) -> String {
        let word = |share: f64| format!("w{}", (WORDS as f64 * share.powi(4)) as u64);
        (0..words).map(|_| word(self.share())).collect::<Vec<_>>().join(" ")
    }

    fn vector(&mut self) -> Vec<f32> {
        (0..DIMS).map(|_| self.share() as f32 - 0.5).collect()
    }
}

/// Says how long vectors are; the numbers come from the seed.
struct Seeded;

impl Encode for Seeded {
    fn id(&self) -> Hash {
        Hash::of(b"bench")
    }

    fn dims(&self) -> usize {
        DIMS
    }

    fn passages(&self, text: &str) -> Vec<Vec<f32>> {
        vec![self.question(text)]
    }

    fn question(&self, text: &str) -> Vec<f32> {
        let seed = Hash::of(text.as_bytes()).0;
        Numbers(u64::from_le_bytes(seed[..8].try_into().expect("8 bytes"))).vector()
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

fn searches(index: &Index, how: How) -> f64 {
    let mut numbers = Numbers(7);
    let once = |_| {
        let (text, vector) = (numbers.text(8), numbers.vector());
        let started = Instant::now();
        let query = Query { text: &text, vector: Some(&vector), how, tags: &[], most: 5 };
        assert_eq!(index.search(&query).len(), 5);
        started.elapsed()
    };
    median((0..SEARCHES).map(once).collect())
}

fn forgets(index: &mut Index, items: usize) -> f64 {
    let once = |n: usize| {
        let started = Instant::now();
        assert!(index.forget(&Hash::of(&(n * items / 20).to_le_bytes())));
        started.elapsed()
    };
    median((0..20).map(once).collect())
}

fn row(items: usize) {
    let (mut index, mut numbers) = (Index::new(Some(&Seeded)), Numbers(1));
    let started = Instant::now();
    for n in 0..items {
        let (hash, text) = (Hash::of(&n.to_le_bytes()), numbers.text(60));
        index.add(&Item { hash, n: n as u64, text: &text, note: None });
        index.add_vectors(&hash, &[numbers.vector()]);
    }
    let add_us = started.elapsed().as_secs_f64() * 1e6 / items as f64;
    let [words, vectors, both] = [How::Words, How::Vectors, How::Both].map(|how| searches(&index, how));
    let started = Instant::now();
    let bytes = index.to_bytes(&Shelf::default());
    let (saved, started) = (started.elapsed(), Instant::now());
    Index::from_bytes(&bytes, Some(Seeded.id())).expect("what was just written");
    let loaded = started.elapsed();
    println!(
        "{items:>7} {add_us:>8.1} {words:>9.2} {vectors:>9.2} {both:>9.2} {:>9.2} {:>9.1} {:>9.1} {:>8.0} {:>8.0}",
        forgets(&mut index, items),
        index.bytes() as f64 / 1e6,
        bytes.len() as f64 / 1e6,
        saved.as_secs_f64() * 1e3,
        loaded.as_secs_f64() * 1e3,
    );
}

fn main() {
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|size| size.parse().ok()).collect();
    println!("  items   add us  words ms  vector ms  both ms forget ms index MB  cache MB  save ms  load ms");
    let sizes = if sizes.is_empty() { vec![1_000, 10_000, 100_000] } else { sizes };
    sizes.into_iter().for_each(row);
}
