//! A weight group unpacked once for all panels that meet it, where that costs less than unpacking it for each. Without
//! the formats whose halves of a unit have factors.

use super::unit::{Blocks, Weights, bytes};
use crate::matrix::GROUP;
use crate::matrix::packing::{UnitWeights, VECTOR};
use crate::quant::BLOCK;
use crate::simd::Vector;

/// 16 weight rows, unit by unit.
pub(super) struct Unpacked {
    pub(super) weights: Vec<UnitWeights>,
    pub(super) scales: Vec<Lanes>,
    pub(super) leasts: Vec<Lanes>,
}

/// A number for each of 16 weight rows, in one cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; GROUP]);

/// How a weight is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// As stored: not below zero.
    Stored,
    /// As what it stands for: a signed byte.
    Signed,
}

impl Unpacked {
    pub(super) fn new(units: usize) -> Unpacked {
        let zero = Lanes([0.0; GROUP]);
        Unpacked {
            weights: vec![UnitWeights([[0; VECTOR]; BLOCK / 4]); units],
            scales: vec![zero; units],
            leasts: vec![zero; units],
        }
    }

    #[inline(always)]
    pub(super) fn fill<V: Vector, B: Blocks>(&mut self, weights: &Weights<'_>, form: As) {
        assert!(weights.count == self.weights.len());
        for unit in 0..weights.count {
            weights.ask_ahead::<V, B>(unit);
            for lane in (0..GROUP).step_by(V::LANES) {
                // SAFETY: one of the units, and lanes inside the group.
                unsafe { self.fill_lanes::<V, B>(weights, unit, lane, form) };
            }
        }
    }

    /// # Safety
    /// `unit < count`, `lane + LANES <= 16`.
    #[inline(always)]
    unsafe fn fill_lanes<V: Vector, B: Blocks>(
        &mut self,
        weights: &Weights<'_>,
        unit: usize,
        lane: usize,
        form: As,
    ) {
        let zero = if form == As::Signed { B::FORMAT.zero() as u8 } else { 0 };
        // SAFETY: the caller's promise; a vector has four bytes a lane.
        unsafe {
            let w = bytes::<V, B>(weights.values.as_ptr().add(unit * B::UNIT + lane * 4));
            for (to, w) in self.weights[unit].0.iter_mut().zip(w) {
                let w = if zero == 0 { w } else { V::sub_bytes(w, zero) };
                V::store_bytes(to.as_mut_ptr().add(lane * 4), w);
            }
            let (scale, least) = weights.scale_and_least::<V, B>(unit, lane);
            V::store(self.scales[unit].0.as_mut_ptr().add(lane), scale);
            V::store(self.leasts[unit].0.as_mut_ptr().add(lane), least);
        }
    }
}
