//! Ages in powers of two: whether somebody comes back after 3 or 4 s matters as much as after 30 or 40.

/// The first age ends after 64 ms, every next one is as long as all before it; the last begins after 70 minutes.
pub(super) const AGES: usize = 18;

const FIRST_BITS: u32 = 6;

/// The age of what has rested so long.
pub(super) fn age(rested_ms: u64) -> usize {
    let bits = u64::BITS - rested_ms.leading_zeros();
    (bits.saturating_sub(FIRST_BITS) as usize).min(AGES - 1)
}

/// How long an age is, ms.
pub(super) fn width_ms(age: usize) -> f64 {
    let first = 1_u64 << FIRST_BITS;
    (if age == 0 { first } else { first << (age - 1) }) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_lie_end_to_end() {
        let mut end = 0;
        for number in 0..AGES {
            assert_eq!(age(end), number);
            end += width_ms(number) as u64;
            assert_eq!(age(end - 1), number);
        }
        assert_eq!(age(u64::MAX), AGES - 1);
    }
}
