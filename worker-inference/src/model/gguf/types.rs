//! Tensor types by their number in the file. Knowing a layout is not the same as having kernels for it:
//! here it only serves to check extents and to name the type in an error.

use std::fmt;

/// The type number of a tensor as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeId(pub u32);

/// Values and bytes of one block of a type.
pub struct Layout {
    pub block_len: u64,
    pub block_bytes: u64,
}

impl TypeId {
    pub const F32: TypeId = TypeId(0);
    pub const F16: TypeId = TypeId(1);
    pub const Q4_1: TypeId = TypeId(3);
    pub const Q8_0: TypeId = TypeId(8);

    /// Name, values per block, bytes per block; None for a number that we don't know.
    fn row(self) -> Option<(&'static str, u64, u64)> {
        Some(match self.0 {
            0 => ("F32", 1, 4),
            1 => ("F16", 1, 2),
            2 => ("Q4_0", 32, 18),
            3 => ("Q4_1", 32, 20),
            6 => ("Q5_0", 32, 22),
            7 => ("Q5_1", 32, 24),
            8 => ("Q8_0", 32, 34),
            9 => ("Q8_1", 32, 36),
            10 => ("Q2_K", 256, 84),
            11 => ("Q3_K", 256, 110),
            12 => ("Q4_K", 256, 144),
            13 => ("Q5_K", 256, 176),
            14 => ("Q6_K", 256, 210),
            15 => ("Q8_K", 256, 292),
            24 => ("I8", 1, 1),
            25 => ("I16", 1, 2),
            26 => ("I32", 1, 4),
            27 => ("I64", 1, 8),
            28 => ("F64", 1, 8),
            30 => ("BF16", 1, 2),
            _ => return None,
        })
    }

    /// Its layout, when we know the type.
    pub fn layout(self) -> Option<Layout> {
        self.row().map(|(_, block_len, block_bytes)| Layout { block_len, block_bytes })
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some((name, _, _)) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}
