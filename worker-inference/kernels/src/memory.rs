//! Memory for weights, keys and values: zeroed by the system, touched late, aligned for vectors and, when big,
//! for huge pages.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;

/// One cache line, one 512-bit vector: every piece of memory begins on such a border.
pub(crate) const ALIGN: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// A zeroed allocation. Big ones begin on a huge-page border.
struct Region {
    allocated: NonNull<u8>,
    layout: Layout,
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a region is plain bytes, owned by nobody but the pieces cut from it.
unsafe impl Send for Region {}
// SAFETY: as above; pieces never overlap.
unsafe impl Sync for Region {}

impl Region {
    fn new(len: usize) -> Region {
        let border = if len >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        // A small alignment keeps the allocator on its lazily zeroed path; the border is found by hand.
        let layout = Layout::from_size_align(len.max(1).saturating_add(border), 16)
            .unwrap_or_else(|_| panic!("a region of {len} bytes is larger than any memory"));
        // SAFETY: the size is not zero.
        let allocated = unsafe { alloc_zeroed(layout) };
        let Some(allocated) = NonNull::new(allocated) else { handle_alloc_error(layout) };
        let skip = allocated.as_ptr().align_offset(border);
        assert!(skip <= border);
        // SAFETY: `skip <= border`, and the allocation has `border` bytes more than `len`.
        let start = unsafe { allocated.add(skip) };
        Region { allocated, layout, start, len }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` with this layout.
        unsafe { dealloc(self.allocated.as_ptr(), self.layout) }
    }
}

/// A piece of a region that nobody else holds.
pub(crate) struct Piece {
    region: Arc<Region>,
    offset: usize,
    len: usize,
}

impl Piece {
    /// A piece in memory of its own. `advise` sees the bytes before they are touched.
    pub(crate) fn new(len: usize, advise: impl FnOnce(&[u8])) -> Piece {
        let piece = Piece { region: Arc::new(Region::new(len)), offset: 0, len };
        advise(piece.bytes());
        piece
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies inside the region, which is initialised (zeroed), and this piece alone holds it.
        unsafe { std::slice::from_raw_parts(self.region.start.as_ptr().add(self.offset), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.region.start.as_ptr().add(self.offset), self.len) }
    }
}

/// One large region from which matrices are cut one after the other, so that a whole model lies in huge pages.
pub struct Arena {
    region: Arc<Region>,
    used: usize,
}

impl Arena {
    /// Reserves `bytes`, zeroed and not yet touched. `advise` is called once with them, to ask for huge pages.
    pub fn new(bytes: usize, advise: impl FnOnce(&[u8])) -> Arena {
        let piece = Piece::new(bytes.next_multiple_of(ALIGN), advise);
        Arena { region: piece.region, used: 0 }
    }

    /// Bytes not yet cut off.
    pub fn left(&self) -> usize {
        self.region.len - self.used
    }

    /// The next `len` bytes, or `None` when they do not fit.
    pub(crate) fn cut(&mut self, len: usize) -> Option<Piece> {
        let taken = len.checked_next_multiple_of(ALIGN)?;
        if taken > self.left() {
            return None;
        }
        let piece = Piece { region: self.region.clone(), offset: self.used, len };
        self.used += taken;
        Some(piece)
    }
}

/// A buffer of signed bytes that begins on a cache line, so that no vector of it lies in two.
#[derive(Default)]
pub(crate) struct Lines {
    lines: Vec<Line>,
    len: usize,
}

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i8; ALIGN]);

impl Lines {
    /// New bytes are zero.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(ALIGN), Line([0; ALIGN]));
        self.len = len;
    }
}

impl std::ops::Deref for Lines {
    type Target = [i8];

    fn deref(&self) -> &[i8] {
        // SAFETY: lines are bytes without gaps, and hold at least `len`.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl std::ops::DerefMut for Lines {
    fn deref_mut(&mut self) -> &mut [i8] {
        // SAFETY: as in `deref`; `&mut self` makes it exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Numbers for which every bit pattern is a value.
///
/// # Safety
/// Implementors have no padding, no invalid bit patterns and an alignment of at most `ALIGN`.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: plain numbers.
unsafe impl Plain for u16 {}
// SAFETY: plain numbers.
unsafe impl Plain for f32 {}

/// Bytes seen as numbers of the machine's byte order.
pub(crate) fn numbers<T: Plain>(bytes: &[u8]) -> &[T] {
    // SAFETY: `Plain` types take any bytes.
    let (head, numbers, tail) = unsafe { bytes.align_to::<T>() };
    assert!(head.is_empty() && tail.is_empty(), "bytes are not whole, aligned numbers");
    numbers
}

/// As [`numbers`], to be written.
pub(crate) fn numbers_mut<T: Plain>(bytes: &mut [u8]) -> &mut [T] {
    // SAFETY: `Plain` types take any bytes, and any of their values are fine bytes.
    let (head, numbers, tail) = unsafe { bytes.align_to_mut::<T>() };
    assert!(head.is_empty() && tail.is_empty(), "bytes are not whole, aligned numbers");
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_an_arena_are_aligned_zeroed_and_apart() {
        let mut arena = Arena::new(3 << 20, |bytes| assert_eq!(bytes.len(), 3 << 20));
        let mut first = arena.cut(100).unwrap();
        let second = arena.cut(1 << 20).unwrap();
        first.bytes_mut().fill(7);
        assert!(second.bytes().iter().all(|&byte| byte == 0));
        assert_eq!(first.bytes().as_ptr() as usize % HUGE_PAGE, 0);
        assert_eq!(second.bytes().as_ptr() as usize % ALIGN, 0);
        assert!(arena.cut(2 << 20).is_none());
        drop(arena);
        assert!(first.bytes().iter().all(|&byte| byte == 7));
    }

    #[test]
    fn an_empty_piece_is_fine() {
        assert!(Piece::new(0, |_| ()).bytes().is_empty());
    }
}
