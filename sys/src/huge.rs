//! Huge pages: less address translation under big memory that is read from end to end.

/// Huge pages on x86-64 are 2 MiB; smaller memory gains nothing from the advice.
const HUGE_PAGE: usize = 2 << 20;

/// Asks for huge pages under `bytes`, best before they are first written. It never changes their content.
/// True when the kernel accepted the advice.
pub fn advise_huge(bytes: &[u8]) -> bool {
    let start = bytes.as_ptr() as usize;
    let first = start.next_multiple_of(HUGE_PAGE);
    let last = (start + bytes.len()) / HUGE_PAGE * HUGE_PAGE;
    if last <= first {
        return false;
    }
    let inner = &bytes[first - start..last - start];
    // SAFETY: the range lies inside `bytes`, which is borrowed for the whole call, and this advice changes
    // which physical pages back it, never its content or its protection.
    unsafe { libc::madvise(inner.as_ptr().cast_mut().cast(), inner.len(), libc::MADV_HUGEPAGE) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_leaves_the_bytes_alone() {
        let bytes = vec![7_u8; 9 << 20];
        let _depends_on_the_kernel = advise_huge(&bytes);
        assert!(bytes.iter().all(|&byte| byte == 7));
    }

    #[test]
    fn small_memory_takes_no_advice() {
        assert!(!advise_huge(&[0; 100]));
    }
}
