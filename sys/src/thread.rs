//! Where and how eagerly the calling thread runs.

/// The kernel refused a change to the calling thread.
#[derive(Debug, thiserror::Error)]
pub enum ThreadError {
    #[error("no core given; name at least one")]
    NoCore,
    #[error("core {core} is outside the set this process may use ({allowed:?}); check taskset or the cgroup")]
    NotAllowed { core: usize, allowed: Vec<usize> },
    #[error("cannot {what}: {cause}")]
    Refused { what: &'static str, cause: std::io::Error },
}

/// Cores that this process may run on, ascending. Empty when the kernel won't say.
pub fn allowed_cores() -> Vec<usize> {
    let mut set = empty_set();
    // SAFETY: `set` is a valid, writable cpu_set_t of the size we name.
    let answer = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if answer != 0 {
        return Vec::new();
    }
    // SAFETY: CPU_ISSET reads one bit of the set; the index is below its capacity.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Keeps the calling thread on these cores.
pub fn pin_to_cores(cores: &[usize]) -> Result<(), ThreadError> {
    if cores.is_empty() {
        return Err(ThreadError::NoCore);
    }
    let allowed = allowed_cores();
    if let Some(&core) = cores.iter().find(|core| !allowed.contains(core)) {
        return Err(ThreadError::NotAllowed { core, allowed });
    }
    let mut set = empty_set();
    for &core in cores {
        // SAFETY: `core` was found among the allowed cores, so it is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(core, &mut set) };
    }
    // SAFETY: pid 0 is the calling thread; `set` is a valid cpu_set_t of the size we name.
    let answer = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) };
    check(answer, "pin the thread to its cores")
}

/// Makes the calling thread give way: SCHED_BATCH and nice 10, so that a busy engine never delays the
/// threads that keep leases and heartbeats.
pub fn lower_priority() -> Result<(), ThreadError> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: pid 0 is the calling thread; `parameters` lives over the call.
    let answer = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &parameters) };
    check(answer, "set SCHED_BATCH")?;
    // SAFETY: no memory is involved; on Linux `who` 0 with PRIO_PROCESS names the calling thread alone.
    let answer = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    check(answer, "set nice 10")
}

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: cpu_set_t is a plain array of integers, for which all zeroes is the empty set.
    unsafe { std::mem::zeroed() }
}

fn check(answer: libc::c_int, what: &'static str) -> Result<(), ThreadError> {
    match answer {
        0 => Ok(()),
        _ => Err(ThreadError::Refused { what, cause: std::io::Error::last_os_error() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on_own_thread<T: Send + 'static>(work: fn() -> T) -> T {
        std::thread::spawn(work).join().expect("the thread ends well")
    }

    #[test]
    fn pins_only_the_calling_thread() {
        let before = allowed_cores();
        assert!(!before.is_empty());
        let inside = on_own_thread(|| {
            let first = allowed_cores()[0];
            pin_to_cores(&[first]).expect("pin");
            (first, allowed_cores())
        });
        assert_eq!(inside.1, vec![inside.0]);
        assert_eq!(allowed_cores(), before);
    }

    #[test]
    fn refuses_cores_that_are_not_ours() {
        assert!(matches!(pin_to_cores(&[]), Err(ThreadError::NoCore)));
        assert!(matches!(pin_to_cores(&[1_000_000]), Err(ThreadError::NotAllowed { core: 1_000_000, .. })));
    }

    #[test]
    fn lowers_only_the_calling_thread() {
        // SAFETY: reads a number; no memory is involved.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let inside = on_own_thread(|| {
            lower_priority().expect("lower");
            // SAFETY: as above.
            unsafe { (libc::getpriority(libc::PRIO_PROCESS, 0), libc::sched_getscheduler(0)) }
        });
        assert_eq!(inside, (10, libc::SCHED_BATCH));
        assert_eq!(nice(), before);
    }
}
