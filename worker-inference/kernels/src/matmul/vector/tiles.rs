//! Block formats on tile registers, for panels of 16 rows: the integer sums of 16 x 16 outputs come out of one
//! instruction; scales enter as everywhere else.
//!
//! Scaling takes longer than the products, and near a tile instruction a processor has one port instead of two for
//! multiplications of this width. Hence a unit is multiplied while another is scaled, and integers become floats by
//! additions, which have two ports still.
//!
//! A weight group is unpacked once for all panels that meet it.

use super::blocks::blocks;
use super::unit::{Blocks, Weights};
use super::unpacked::{As, Lanes, Unpacked};
use super::{Sums, write};
use crate::activations::{PANEL, Panel};
use crate::matmul::Multiply;
use crate::matrix::GROUP;
use crate::matrix::packing::UnitWeights;
use crate::quant::{BLOCK, Factors};
use crate::simd::Vector;
use crate::simd::amx::{TileSums, Tiles};
use std::arch::asm;
use std::arch::x86_64::*;

/// Panels multiplied with a weight group before the next: a prompt's, which a processor with tiles has room for in its
/// second-level cache.
const PANELS_AT_ONCE: usize = 32;

/// Units that are multiplied ahead of the one that is scaled.
const AHEAD: usize = 2;

/// Sums that are not yet scaled, those of unit `unit` at `unit % ROOM`.
type Done = [TileSums; ROOM];
const ROOM: usize = 2 * AHEAD;

/// Whether [`all`] can multiply this format. The two sums that Q6_K needs for a unit would keep the tile registers
/// half empty.
pub(super) const fn fits<V: Vector, B: Blocks>() -> bool {
    V::LANES == GROUP && !matches!(B::FACTORS, Factors::Halves)
}

#[inline(always)]
pub(super) fn all<V: Vector, B: Blocks>(tiles: &Tiles, product: &Multiply<'_>) {
    let units = product.matrix.cols() / BLOCK;
    let mut weights = Unpacked::new(units);
    let mut done = [TileSums([[0; GROUP]; PANEL]); ROOM];
    let mut sums: Sums = [[0.0; GROUP]; PANEL];
    for (group, panels) in product.parts(PANELS_AT_ONCE) {
        weights.fill::<V, B>(&Weights::of::<B>(product, group), As::Signed);
        for panel in panels {
            let input = product.activations.panel(panel);
            if input.width < PANEL {
                blocks::<V, B>(product, group, panel, &mut sums);
                continue;
            }
            let whole = (group + 1) * GROUP <= product.matrix.rows();
            let (to, apart) = if whole {
                product.place(group, panel)
            } else {
                (sums.as_flattened_mut().as_mut_ptr(), GROUP)
            };
            let run = Run::new(&weights, &input, to, apart);
            // SAFETY: a CPU with tiles has AVX-512, and each row of input has room for 16 outputs.
            unsafe { run.multiply::<B>(tiles, &mut done) };
            if !whole {
                for (row, lanes) in sums.iter().enumerate() {
                    write::<V>(product.outputs(group, panel, row), lanes);
                }
            }
        }
    }
}

/// A whole panel and a weight group: pointers at `units` units of both.
struct Run {
    units: usize,
    x: *const i8,
    weights: *const UnitWeights,
    scale_w: *const Lanes,
    least: *const Lanes,
    scales: *const f32,
    totals: *const f32,
    /// Where the outputs go: 16 numbers for each row of input, `apart` numbers apart.
    to: *mut f32,
    apart: usize,
}

impl Run {
    #[inline(always)]
    fn new(weights: &Unpacked, input: &Panel<'_>, to: *mut f32, apart: usize) -> Run {
        let units = weights.weights.len();
        assert!(weights.scales.len() == units && weights.leasts.len() == units);
        assert!(input.scales.len() == units * PANEL && input.bytes.len() == units * PANEL * BLOCK);
        assert!(input.sums.len() == input.scales.len());
        Run {
            units,
            x: input.bytes.as_ptr(),
            weights: weights.weights.as_ptr(),
            scale_w: weights.scales.as_ptr(),
            least: weights.leasts.as_ptr(),
            scales: input.scales.as_ptr(),
            totals: input.sums.as_ptr(),
            to,
            apart,
        }
    }

    /// # Safety
    /// What the pointers are from is still there, and `to` has room.
    #[target_feature(enable = "avx512f")]
    unsafe fn multiply<B: Blocks>(&self, tiles: &Tiles, done: &mut Done) {
        let mut out = [_mm512_setzero_ps(); PANEL];
        // SAFETY: the caller's promise; all units are below `units`.
        unsafe {
            for unit in 0..AHEAD.min(self.units) {
                self.product::<0>(tiles, unit);
                tiles.store::<0>(&mut done[unit]);
            }
            let mut unit = 0;
            // Two registers take turns: sums are stored when a second product and half of the scaling are under way.
            while unit + AHEAD + 1 < self.units {
                self.product::<0>(tiles, unit + AHEAD);
                self.scale::<B>(unit, &done[unit % ROOM], &mut out);
                self.product::<1>(tiles, unit + AHEAD + 1);
                tiles.store::<0>(&mut done[(unit + AHEAD) % ROOM]);
                self.scale::<B>(unit + 1, &done[(unit + 1) % ROOM], &mut out);
                tiles.store::<1>(&mut done[(unit + AHEAD + 1) % ROOM]);
                unit += 2;
            }
            while unit < self.units {
                if unit + AHEAD < self.units {
                    self.product::<0>(tiles, unit + AHEAD);
                    tiles.store::<0>(&mut done[(unit + AHEAD) % ROOM]);
                }
                self.scale::<B>(unit, &done[unit % ROOM], &mut out);
                unit += 1;
            }
            for (row, lanes) in out.into_iter().enumerate() {
                _mm512_storeu_ps(self.to.add(row * self.apart), lanes);
            }
        }
    }

    /// # Safety
    /// The pointers have this unit.
    #[inline(always)]
    unsafe fn product<const R: usize>(&self, tiles: &Tiles, unit: usize) {
        // SAFETY: the caller's promise; 16 rows of 32 bytes lie side by side.
        unsafe { tiles.multiply::<R>(self.x.add(unit * PANEL * BLOCK), &*self.weights.add(unit)) };
    }
}

type Outputs = [__m512; PANEL];

/// Instructions for one row: integers become floats by two additions, exact between -2^22 and 2^22.
macro_rules! add_row {
    ($row:literal) => {
        concat!(
            "vpaddd {sum}, {up}, zmmword ptr [{sums} + 64 * ",
            $row,
            "]\n",
            "vaddps {sum}, {sum}, {down}\n",
            "vmulps {scale}, {w}, dword ptr [{scales} + 4 * ",
            $row,
            "]{{1to16}}\n",
            "vfmadd231ps {r",
            $row,
            "}, {sum}, {scale}\n",
        )
    };
}

macro_rules! add_least {
    ($row:literal) => {
        concat!("vfmadd231ps {r", $row, "}, {w}, dword ptr [{scales} + 4 * ", $row, "]{{1to16}}\n")
    };
}

impl Run {
    /// Adds the scaled sums of a unit to the outputs. In assembly, because the compiler would begin with the conversions of all
    /// rows and then lack registers.
    ///
    /// # Safety
    /// `unit` is one of those of the pointers.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn scale<B: Blocks>(&self, unit: usize, sums: &TileSums, out: &mut Outputs) {
        const MIDDLE: f32 = (1 << 23 | 1 << 22) as f32;
        let [r0, r1, r2, r3, r4, r5, r6, r7, r8, r9, r10, r11, r12, r13, r14, r15] = out;
        let spare = _mm512_setzero_ps();
        // SAFETY: the caller's promise; nothing is written but registers.
        unsafe {
            asm!(
                add_row!("0"), add_row!("1"), add_row!("2"), add_row!("3"),
                add_row!("4"), add_row!("5"), add_row!("6"), add_row!("7"),
                add_row!("8"), add_row!("9"), add_row!("10"), add_row!("11"),
                add_row!("12"), add_row!("13"), add_row!("14"), add_row!("15"),
                r0 = inout(zmm_reg) *r0,
                r1 = inout(zmm_reg) *r1,
                r2 = inout(zmm_reg) *r2,
                r3 = inout(zmm_reg) *r3,
                r4 = inout(zmm_reg) *r4,
                r5 = inout(zmm_reg) *r5,
                r6 = inout(zmm_reg) *r6,
                r7 = inout(zmm_reg) *r7,
                r8 = inout(zmm_reg) *r8,
                r9 = inout(zmm_reg) *r9,
                r10 = inout(zmm_reg) *r10,
                r11 = inout(zmm_reg) *r11,
                r12 = inout(zmm_reg) *r12,
                r13 = inout(zmm_reg) *r13,
                r14 = inout(zmm_reg) *r14,
                r15 = inout(zmm_reg) *r15,
                w = in(zmm_reg) _mm512_load_ps(self.scale_w.add(unit).cast()),
                up = in(zmm_reg) _mm512_set1_epi32(MIDDLE.to_bits() as i32),
                down = in(zmm_reg) _mm512_set1_ps(-MIDDLE),
                sum = inout(zmm_reg) spare => _,
                scale = inout(zmm_reg) spare => _,
                sums = in(reg) sums,
                scales = in(reg) self.scales.add(unit * PANEL),
                options(nostack, preserves_flags, readonly),
            );
            if B::HAS_LEAST {
                asm!(
                    add_least!("0"), add_least!("1"), add_least!("2"), add_least!("3"),
                    add_least!("4"), add_least!("5"), add_least!("6"), add_least!("7"),
                    add_least!("8"), add_least!("9"), add_least!("10"), add_least!("11"),
                    add_least!("12"), add_least!("13"), add_least!("14"), add_least!("15"),
                    r0 = inout(zmm_reg) *r0,
                    r1 = inout(zmm_reg) *r1,
                    r2 = inout(zmm_reg) *r2,
                    r3 = inout(zmm_reg) *r3,
                    r4 = inout(zmm_reg) *r4,
                    r5 = inout(zmm_reg) *r5,
                    r6 = inout(zmm_reg) *r6,
                    r7 = inout(zmm_reg) *r7,
                    r8 = inout(zmm_reg) *r8,
                    r9 = inout(zmm_reg) *r9,
                    r10 = inout(zmm_reg) *r10,
                    r11 = inout(zmm_reg) *r11,
                    r12 = inout(zmm_reg) *r12,
                    r13 = inout(zmm_reg) *r13,
                    r14 = inout(zmm_reg) *r14,
                    r15 = inout(zmm_reg) *r15,
                    w = in(zmm_reg) _mm512_load_ps(self.least.add(unit).cast()),
                    scales = in(reg) self.totals.add(unit * PANEL),
                    options(nostack, preserves_flags, readonly),
                );
            }
        }
    }
}
