//! A small fuzzer: bent copies of good inputs, and those that brought a new answer are bent further. Answers should
//! be few: the kind of an error, a size.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Of input that is bent further.
const CORPUS_MAX: usize = 4096;
/// Of one input.
const BYTES_MAX: usize = 1 << 16;
/// Longest time of one input, on a busy machine without optimisations.
const INPUT_TIME: Duration = Duration::from_secs(20);
/// What the readers may ask for beyond what a good file takes.
const MEMORY_MAX: u64 = 256 << 20;

/// Numbers on which arithmetic likes to break.
const ODD: [u64; 12] =
    [0, 1, 15, 16, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, 1 << 63, u64::MAX];

pub(crate) struct Fuzz {
    name: &'static str,
    seed: u64,
    corpus: Vec<Vec<u8>>,
    /// Pieces that inputs of this kind are made of.
    words: &'static [&'static str],
    seen: BTreeSet<String>,
}

impl Fuzz {
    pub(crate) fn new(name: &'static str, corpus: Vec<Vec<u8>>) -> Fuzz {
        let seed = match std::env::var("FUZZ_SEED") {
            Ok(text) if text == "time" => since_1970().as_nanos() as u64,
            Ok(text) => text.parse().expect("FUZZ_SEED is a number, or `time`"),
            Err(_) => 1,
        };
        Fuzz { name, seed, corpus, words: &[], seen: BTreeSet::new() }
    }

    /// Also puts these into inputs.
    pub(crate) fn with_words(self, words: &'static [&'static str]) -> Fuzz {
        Fuzz { words, ..self }
    }

    /// Bends inputs for the set time and gives them to `target`, which tells what became of each.
    pub(crate) fn run(mut self, target: &dyn Fn(&[u8]) -> String) {
        let seconds =
            std::env::var("FUZZ_SECONDS").map_or(2, |text| text.parse().expect("FUZZ_SECONDS is a number"));
        let first_seed = self.seed;
        for input in self.corpus.clone() {
            self.seen.insert(self.answer(&input, target));
        }
        let (until, before) = (Instant::now() + Duration::from_secs(seconds), most_bytes());
        let mut inputs = 0_u64;
        while Instant::now() < until {
            let input = self.bend();
            let answer = self.answer(&input, target);
            inputs += 1;
            if self.seen.insert(answer) && self.corpus.len() < CORPUS_MAX {
                self.corpus.push(input);
            }
        }
        let grown = most_bytes() - before;
        println!("figure fuzz_{}_inputs {inputs}", self.name);
        println!("figure fuzz_{}_answers {}", self.name, self.seen.len());
        println!("figure fuzz_{}_mib {}", self.name, grown >> 20);
        assert!(grown < MEMORY_MAX, "{}: {grown} bytes were asked for, seed {first_seed}", self.name);
        assert!(inputs > 20 && self.seen.len() > 3, "{}: {inputs} inputs, {:?}", self.name, self.seen);
    }

    fn answer(&self, input: &[u8], target: &dyn Fn(&[u8]) -> String) -> String {
        let start = Instant::now();
        let answer = catch_unwind(AssertUnwindSafe(|| target(input)));
        let slow = start.elapsed() > INPUT_TIME;
        match answer {
            Ok(answer) if !slow => answer,
            ended => {
                let path = self.keep(input);
                let what = if slow { "took too long" } else { "panicked" };
                panic!(
                    "{} {what} ({:?}); the input is kept in {}",
                    self.name,
                    ended.err().is_some(),
                    path.display()
                );
            }
        }
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fuzz-{}-{}", self.name, since_1970().as_millis()));
        std::fs::write(&path, input).expect("the temporary folder is writable");
        path
    }

    fn bend(&mut self) -> Vec<u8> {
        let mut input = self.any_input();
        for _ in 0..1 + self.below(6) {
            self.bend_once(&mut input);
        }
        input.truncate(BYTES_MAX);
        input
    }

    fn any_input(&mut self) -> Vec<u8> {
        let which = self.below(self.corpus.len());
        self.corpus[which].clone()
    }

    fn bend_once(&mut self, input: &mut Vec<u8>) {
        let len = input.len();
        if len == 0 {
            return input.push(random(&mut self.seed) as u8);
        }
        let at = self.below(len);
        match self.below(if self.words.is_empty() { 8 } else { 12 }) {
            0 => input[at] ^= 1 << self.below(8),
            1 => input[at] = random(&mut self.seed) as u8,
            2 => self.write_number(input, at),
            3 => input.truncate(at),
            4 => {
                let end = (at + 1 + self.below(64)).min(len);
                input.drain(at..end);
            }
            5 => {
                let end = (at + 1 + self.below(64)).min(len);
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            6 => {
                let other = self.any_input();
                let from = self.below(other.len().max(1)).min(other.len());
                let end = (from + 1 + self.below(256)).min(other.len());
                input.splice(at..(at + end - from).min(len), other[from..end].iter().copied());
            }
            8.. => {
                let word = self.words[self.below(self.words.len())];
                let end = (at + self.below(12)).min(len);
                input.splice(at..end, word.bytes());
            }
            _ => {
                let bytes: Vec<u8> = (0..1 + self.below(8)).map(|_| random(&mut self.seed) as u8).collect();
                input.splice(at..at, bytes);
            }
        }
    }

    /// An odd number over four or eight bytes, or what is there and a little more or less.
    fn write_number(&mut self, input: &mut [u8], at: usize) {
        let width = if self.below(2) == 0 { 4 } else { 8 };
        let end = (at + width).min(input.len());
        let mut old = [0; 8];
        old[..end - at].copy_from_slice(&input[at..end]);
        let number = match self.below(3) {
            0 => u64::from_le_bytes(old).wrapping_add(self.below(5) as u64).wrapping_sub(2),
            _ => ODD[self.below(ODD.len())],
        };
        input[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
    }

    fn below(&mut self, bound: usize) -> usize {
        (random(&mut self.seed) % bound.max(1) as u64) as usize
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970")
}

/// The largest address space so far, in bytes: it grows by what is asked for, touched or not.
pub(crate) fn most_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = text.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("the kernel tells it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib * 1024
}

/// splitmix64.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}
