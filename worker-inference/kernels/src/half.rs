//! 16-bit floats (IEEE binary16) by hand: what the conversion instructions do, in plain Rust.

/// The exact value of a half float. Signalling NaNs become quiet, as in hardware.
pub(crate) fn to_f32(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half & 0x3ff);
    let magnitude = match (exponent, fraction) {
        (0, _) => (fraction as f32 * (1.0 / (1 << 24) as f32)).to_bits(),
        (0x1f, 0) => 0x7f80_0000,
        (0x1f, _) => 0x7fc0_0000 | fraction << 13,
        (_, _) => (exponent + 112) << 23 | fraction << 13,
    };
    f32::from_bits(sign | magnitude)
}

/// The exact value of a bfloat16, which is the upper half of an f32.
#[inline(always)]
pub(crate) fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest half float, ties to even; too large becomes infinity.
pub(crate) fn from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    sign | magnitude_from(bits & 0x7fff_ffff)
}

fn magnitude_from(bits: u32) -> u16 {
    const INFINITY: u32 = 0x7f80_0000;
    const SMALLEST_NORMAL: u32 = 113 << 23;
    if bits > INFINITY {
        return 0x7e00 | (bits >> 13 & 0x1ff) as u16;
    }
    if bits >= 143 << 23 {
        return 0x7c00;
    }
    if bits < SMALLEST_NORMAL {
        // Steps of 2^-24: that is the last bit of an f32 from 0.5 on, so adding 0.5 lets the adder round.
        let shifted = f32::from_bits(bits) + 0.5;
        return (shifted.to_bits() - 0.5f32.to_bits()) as u16;
    }
    let odd = bits >> 13 & 1;
    ((bits - (112 << 23) + 0xfff + odd) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_halves_survive_the_round_trip() {
        for half in 0..=u16::MAX {
            let value = to_f32(half);
            let quiet = if value.is_nan() { half | 0x200 } else { half };
            assert_eq!(from_f32(value), quiet, "{half:#06x} = {value}");
        }
    }

    #[test]
    fn values_between_two_halves_go_to_the_nearest_and_ties_to_even() {
        for half in 0..0x7bffu16 {
            let (low, high) = (f64::from(to_f32(half)), f64::from(to_f32(half + 1)));
            let middle = (low + high) / 2.0;
            let even = if half % 2 == 0 { half } else { half + 1 };
            assert_eq!(from_f32(middle as f32), even);
            assert_eq!(from_f32((middle as f32).next_down()), half);
            assert_eq!(from_f32((middle as f32).next_up()), half + 1);
        }
    }

    #[test]
    fn the_largest_values() {
        assert_eq!(from_f32(65504.0), 0x7bff);
        assert_eq!(from_f32(65519.996), 0x7bff);
        assert_eq!(from_f32(65520.0), 0x7c00);
        assert_eq!(from_f32(f32::MAX), 0x7c00);
        assert_eq!(from_f32(f32::NEG_INFINITY), 0xfc00);
    }
}
