//! Equal buffers for block bytes. Each is allocated when it is first needed and then handed around for ever:
//! from the host tier to the thread that writes, from the thread that reads to the host tier. No block is
//! copied on such a way, and nothing is allocated once traffic has reached its size.

/// The bytes of one block.
pub(super) type Buffer = Box<[u8]>;

#[derive(Debug)]
pub(super) struct Buffers {
    block_bytes: usize,
    free: Vec<Buffer>,
    made: usize,
    most: usize,
}

impl Buffers {
    /// At most `most` buffers of `block_bytes` will ever exist.
    pub(super) fn new(block_bytes: usize, most: usize) -> Buffers {
        Buffers { block_bytes, free: Vec::new(), made: 0, most }
    }

    /// A buffer with whatever bytes it had before.
    pub(super) fn take(&mut self) -> Option<Buffer> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        if self.made == self.most {
            return None;
        }
        self.made += 1;
        Some(vec![0; self.block_bytes].into_boxed_slice())
    }

    pub(super) fn give(&mut self, buffer: Buffer) {
        debug_assert_eq!(buffer.len(), self.block_bytes);
        self.free.push(buffer);
    }

    /// Buffers that somebody has.
    #[cfg(test)]
    pub(super) fn in_use(&self) -> usize {
        self.made - self.free.len()
    }

    /// Bytes allocated, in use or not.
    pub(super) fn bytes(&self) -> usize {
        self.made * self.block_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_bounded_and_come_back() {
        let mut buffers = Buffers::new(8, 2);
        let (first, second) = (buffers.take().unwrap(), buffers.take().unwrap());
        assert!(buffers.take().is_none());
        let address = second.as_ptr();
        buffers.give(second);
        let again = buffers.take().unwrap();
        assert_eq!(again.as_ptr(), address);
        assert_eq!((buffers.bytes(), first.len()), (16, 8));
    }
}
