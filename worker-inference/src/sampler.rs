//! From logits to a token. The draw depends on (seed, position) and the logits alone, so a result never
//! depends on the batch, on preemption or on what other sequences drew.

use std::collections::BTreeMap;

use kernels::Cpu;

/// How to choose a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 takes the likeliest token (the lowest id among equals).
    pub temperature: f32,
    /// Only the k likeliest; 0 means all.
    pub top_k: u32,
    /// Only the likeliest tokens that together reach this probability; 1 means all.
    pub top_p: f32,
    /// Only tokens at least this fraction as likely as the likeliest; 0 means all.
    pub min_p: f32,
    /// Taken off a token's logit for each time the answer has it already.
    pub frequency_penalty: f32,
    /// Taken off a token's logit once the answer has it.
    pub presence_penalty: f32,
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// What is wrong with it, if anything.
    pub fn check(&self) -> Result<(), &'static str> {
        if !self.temperature.is_finite() || self.temperature < 0.0 {
            return Err("temperature must be 0 or more");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err("top_p must be above 0 and at most 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Err("min_p must be from 0 to 1");
        }
        if !self.frequency_penalty.is_finite() || !self.presence_penalty.is_finite() {
            return Err("penalties must be numbers");
        }
        Ok(())
    }

    pub(crate) fn has_penalties(&self) -> bool {
        self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }

    /// Takes the penalties off the logits of the tokens that an answer has already.
    pub(crate) fn penalise(&self, logits: &mut [f32], answer: &[u32]) {
        let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
        answer.iter().for_each(|&token| *counts.entry(token).or_default() += 1);
        for (token, count) in counts {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -= count as f32 * self.frequency_penalty + self.presence_penalty;
            }
        }
    }
}

/// Chooses the token for `position`.
pub fn sample(cpu: &Cpu, logits: &[f32], sampling: &Sampling, position: usize) -> u32 {
    if sampling.temperature == 0.0 {
        return cpu.argmax(logits) as u32;
    }
    let candidates = candidates(logits, sampling);
    let likeliest = candidates.iter().map(|&token| logits[token as usize]).fold(f32::NEG_INFINITY, f32::max);
    let weight =
        |&token: &u32| exp(f64::from(logits[token as usize] - likeliest) / f64::from(sampling.temperature));
    let mut weights: Vec<f64> = candidates.iter().map(weight).collect();
    // The likeliest token weighs exactly 1.
    weights.iter_mut().filter(|weight| **weight < f64::from(sampling.min_p)).for_each(|weight| *weight = 0.0);
    let kept = nucleus(&weights, f64::from(sampling.top_p));
    let drawn = draw(&weights[..kept], uniform(sampling.seed, position));
    candidates[drawn]
}

/// Token ids to choose from: likeliest first when a limit needs the order, else all as they are.
fn candidates(logits: &[f32], sampling: &Sampling) -> Vec<u32> {
    let limit = sampling.top_k as usize;
    match limit > 0 || sampling.top_p < 1.0 {
        true => likeliest(logits, if limit > 0 { limit } else { logits.len() }),
        false => (0..logits.len() as u32).collect(),
    }
}

/// The `most` likeliest tokens, likeliest first, the lower id first among equals.
pub(crate) fn likeliest(logits: &[f32], most: usize) -> Vec<u32> {
    let mut tokens: Vec<u32> = (0..logits.len() as u32).collect();
    let order = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if most > 0 && most < tokens.len() {
        tokens.select_nth_unstable_by(most - 1, order);
        tokens.truncate(most);
    }
    tokens.sort_unstable_by(order);
    tokens
}

/// How many of the weights, from the front, reach the share `top_p` of their sum; at least one.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    if top_p >= 1.0 {
        return weights.len();
    }
    let goal = weights.iter().sum::<f64>() * top_p;
    let mut sum = 0.0;
    let reached = weights.iter().position(|weight| {
        sum += weight;
        sum >= goal
    });
    reached.map_or(weights.len(), |index| index + 1)
}

/// The index under the point `at` (0 to 1) of the weights laid end to end.
fn draw(weights: &[f64], at: f64) -> usize {
    let goal = weights.iter().sum::<f64>() * at;
    let mut sum = 0.0;
    let under = weights.iter().position(|weight| {
        sum += weight;
        sum > goal
    });
    under.unwrap_or_else(|| weights.iter().rposition(|&weight| weight > 0.0).unwrap_or(0))
}

/// A number from 0 (included) to 1 (excluded) that depends on nothing but its arguments.
fn uniform(seed: u64, position: usize) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("quorate v1 sampling");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(position as u64).to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
}

/// e^x for x <= 0 with the same bits on every machine (the system's maths library may differ): x is cut
/// into a power of two and a rest below 0.35, whose series of 14 terms is exact to the last places.
fn exp(x: f64) -> f64 {
    if x.is_nan() || x < -700.0 {
        return 0.0;
    }
    let power = (x * std::f64::consts::LOG2_E).round();
    // ln 2 in two parts, so that the product with a small whole number loses nothing.
    let rest = (x - power * 0.693_147_180_369_123_8) - power * 1.908_214_929_270_587_7e-10;
    let series = (1..=14_u32).rev().fold(1.0, |sum, term| 1.0 + rest / f64::from(term) * sum);
    series * f64::from_bits(((1023.0 + power) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu() -> Cpu {
        Cpu::new(kernels::Isa::Scalar, 1, |_| {})
    }

    #[test]
    fn our_exp_is_an_exp() {
        for step in 0..70_000 {
            let x = -f64::from(step) / 100.0;
            let error = (exp(x) / x.exp() - 1.0).abs();
            assert!(error < 1e-14, "{x}: {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
    }

    #[test]
    fn temperature_zero_takes_the_likeliest_and_lowest() {
        let greedy = Sampling::default();
        assert_eq!(sample(&cpu(), &[0.0, 3.0, 3.0, 1.0], &greedy, 5), 1);
    }

    #[test]
    fn limits_are_kept() {
        let logits = [1.0, 2.0, 3.0, 4.0, 0.5];
        let cpu = cpu();
        let drawn = |sampling: &Sampling| -> std::collections::BTreeSet<u32> {
            (0..2000).map(|position| sample(&cpu, &logits, sampling, position)).collect()
        };
        let base = Sampling { temperature: 1.0, seed: 7, ..Sampling::default() };
        assert_eq!(drawn(&base).len(), 5);
        assert_eq!(drawn(&Sampling { top_k: 2, ..base.clone() }), [2, 3].into());
        assert_eq!(drawn(&Sampling { top_p: 0.6, ..base.clone() }), [3].into());
        assert_eq!(drawn(&Sampling { top_p: 0.7, ..base.clone() }), [2, 3].into());
        assert_eq!(drawn(&Sampling { min_p: 0.13, ..base.clone() }), [2, 3, 1].into());
        assert_eq!(drawn(&Sampling { min_p: 1.0, ..base.clone() }), [3].into());
        assert_eq!(drawn(&Sampling { temperature: 0.01, ..base }), [3].into());
    }

    #[test]
    fn penalties_count_what_the_answer_has() {
        let sampling = Sampling { frequency_penalty: 0.5, presence_penalty: 1.0, ..Sampling::default() };
        let mut logits = [1.0, 2.0, 3.0];
        sampling.penalise(&mut logits, &[2, 0, 2, 99]);
        assert_eq!(logits, [-0.5, 2.0, 1.0]);
        assert!(sampling.has_penalties() && !Sampling::default().has_penalties());
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let cpu = cpu();
        let logits = [0.0, 2.0_f32.ln(), 7.0_f32.ln()];
        let sampling = Sampling { temperature: 1.0, seed: 1, ..Sampling::default() };
        let mut counts = [0_u32; 3];
        (0..20_000).for_each(|position| counts[sample(&cpu, &logits, &sampling, position) as usize] += 1);
        let expected = [2_000.0, 4_000.0, 14_000.0];
        for (count, expected) in counts.iter().zip(expected) {
            assert!((f64::from(*count) - expected).abs() < 200.0, "{counts:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_seed_and_position_alone() {
        let draws: Vec<f64> = (0..4).map(|position| uniform(9, position)).collect();
        assert_eq!(draws, (0..4).map(|position| uniform(9, position)).collect::<Vec<f64>>());
        assert_ne!(uniform(9, 1), uniform(10, 1));
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
    }

    #[test]
    fn nonsense_is_refused() {
        let bad =
            |temperature, top_p| Sampling { temperature, top_p, ..Sampling::default() }.check().is_err();
        assert!(bad(-1.0, 1.0) && bad(f32::NAN, 1.0) && bad(1.0, 0.0) && bad(1.0, 1.5) && bad(1.0, f32::NAN));
        assert!(Sampling { min_p: -0.1, ..Sampling::default() }.check().is_err());
        assert!(Sampling { presence_penalty: f32::INFINITY, ..Sampling::default() }.check().is_err());
        assert!(Sampling::default().check().is_ok());
    }
}
