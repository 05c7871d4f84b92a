//! Integer products of tiles (AMX): 16 rows of activations with 16 rows of weights in one instruction.
//!
//! Sums of integers are exact, so these give the very sums of the vector dot products. Intrinsics are not stable in
//! Rust yet, hence the assembly. The compiler never uses tile registers by itself.

use crate::matrix::packing::UnitWeights;
use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

/// Rows of a tile, and numbers in a row of sums.
pub(crate) const SIDE: usize = 16;
/// Bytes of a row of the first factor: the columns that are summed.
const DEPTH: usize = 32;

/// Sums of a tile: one row for each row of the first factor.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct TileSums(pub(crate) [[i32; SIDE]; SIDE]);

/// Whether the CPU has tiles and the system lets this process use them. Asks the system for it.
pub(crate) fn is_available() -> bool {
    cpu_has_tiles() && system_keeps_tiles() && system_permits_tiles()
}

/// Tiles and their int8 products.
fn cpu_has_tiles() -> bool {
    const WANTED: u32 = 1 << 24 | 1 << 25;
    is_x86_feature_detected!("xsave") && __cpuid_count(7, 0).edx & WANTED == WANTED
}

/// Whether tile registers survive a change of threads.
fn system_keeps_tiles() -> bool {
    const TILES: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn kept() -> u64 {
        // SAFETY: register 0 always exists.
        unsafe { _xgetbv(0) }
    }
    // SAFETY: `cpu_has_tiles` found XSAVE in use.
    unsafe { kept() & TILES == TILES }
}

/// Tile registers are large, so Linux keeps them only for processes that ask.
#[cfg(target_os = "linux")]
fn system_permits_tiles() -> bool {
    use std::ffi::c_long;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    const ARCH_PRCTL: c_long = 158;
    const REQUEST_PERMISSION: c_long = 0x1023;
    const TILE_DATA: c_long = 18;
    // SAFETY: asks for a feature, and has no other effect.
    unsafe { syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_permits_tiles() -> bool {
    false
}

/// Shapes of the tile registers.
#[repr(C, align(64))]
struct Shapes([u8; 64]);

impl Shapes {
    /// Registers 0 and 1 hold sums, 2 a first and 3 a second factor.
    const OURS: Shapes = {
        let rows_of_bytes = [(SIDE, 4 * SIDE), (SIDE, 4 * SIDE), (SIDE, DEPTH), (DEPTH / 4, 4 * SIDE)];
        let mut bytes = [0; 64];
        bytes[0] = 1;
        let mut register = 0;
        while register < rows_of_bytes.len() {
            let (rows, row_bytes) = rows_of_bytes[register];
            bytes[16 + 2 * register] = row_bytes as u8;
            bytes[48 + register] = rows as u8;
            register += 1;
        }
        Shapes(bytes)
    };
}

/// The tile registers of this thread, shaped for [`Tiles::multiply`] for as long as this lives.
pub(crate) struct Tiles(());

impl Tiles {
    /// # Safety
    /// [`is_available`] was true.
    pub(crate) unsafe fn new() -> Tiles {
        // SAFETY: a valid description; the CPU and the system allow it by the caller's promise.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &Shapes::OURS, options(nostack, readonly)) };
        Tiles(())
    }

    /// Lets register `R` of 2 have the sums over 32 columns of signed bytes: `x` has 16 rows of 32.
    ///
    /// # Safety
    /// `x` points at 512 bytes.
    #[inline(always)]
    pub(crate) unsafe fn multiply<const R: usize>(&self, x: *const i8, weights: &UnitWeights) {
        macro_rules! multiply {
            ($sums:literal) => {
                asm!(
                    concat!("tilezero ", $sums),
                    "tileloadd tmm2, [{x} + {narrow}]",
                    "tileloadd tmm3, [{weights} + {wide}]",
                    concat!("tdpbssd ", $sums, ", tmm2, tmm3"),
                    x = in(reg) x,
                    weights = in(reg) weights,
                    narrow = in(reg) DEPTH,
                    wide = in(reg) 4 * SIDE,
                    options(nostack, preserves_flags, readonly),
                )
            };
        }
        // SAFETY: the registers are shaped for it since `new`, and the memory is there by the caller's promise.
        unsafe { if const { R == 0 } { multiply!("tmm0") } else { multiply!("tmm1") } }
    }

    /// The sums in register `R`.
    #[inline(always)]
    pub(crate) fn store<const R: usize>(&self, sums: &mut TileSums) {
        macro_rules! store {
            ($sums:literal) => {
                asm!(
                    concat!("tilestored [{sums} + {wide}], ", $sums),
                    sums = in(reg) sums,
                    wide = in(reg) 4 * SIDE,
                    options(nostack, preserves_flags),
                )
            };
        }
        // SAFETY: the registers are shaped for it since `new`.
        unsafe { if const { R == 0 } { store!("tmm0") } else { store!("tmm1") } }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: the registers were in use since `new`.
        unsafe { asm!("tilerelease", options(nostack, nomem, preserves_flags)) };
    }
}
