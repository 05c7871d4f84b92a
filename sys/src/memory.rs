//! How much memory there is, and how much of it is ours.

/// Bytes of physical memory in this machine; a cgroup may allow less. None when the kernel won't say.
pub fn total_memory() -> Option<u64> {
    let pages = configuration(libc::_SC_PHYS_PAGES)?;
    pages.checked_mul(configuration(libc::_SC_PAGESIZE)?)
}

/// Bytes of this process that are in memory now (RSS). None where `/proc` is missing.
pub fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(configuration(libc::_SC_PAGESIZE)?)
}

fn configuration(name: libc::c_int) -> Option<u64> {
    // SAFETY: sysconf only reads; no memory is involved.
    let answer = unsafe { libc::sysconf(name) };
    u64::try_from(answer).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_plausible() {
        let total = total_memory().expect("total memory");
        let resident = resident_bytes().expect("resident memory");
        assert!(total > 64 << 20, "{total}");
        assert!(resident > 0 && resident < total, "{resident} of {total}");
    }
}
