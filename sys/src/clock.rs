//! What the kernel thinks of its own clock.

/// Whether a time service keeps the wall clock; None where the kernel does not say. Reads only.
pub fn clock_is_kept() -> Option<bool> {
    // SAFETY: every field of `timex` is a number, for which zero is a value; no mode bit is set, so that the call only
    // fills the struct, which lives over the call.
    let (state, status) = unsafe {
        let mut now: libc::timex = std::mem::zeroed();
        (libc::adjtimex(&mut now), now.status)
    };
    (state >= 0).then_some(status & libc::STA_UNSYNC == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asking_twice_gives_the_same() {
        assert_eq!(clock_is_kept(), clock_is_kept());
    }
}
