//! Which system calls the command may make. What is not named here is answered as a kernel would that does not know
//! it (ENOSYS), so that calls of later kernels are closed, and the 32-bit and x32 forms with them; what is dangerous
//! is refused (EPERM).

mod list;

use list::{ALLOWED, ALLOWED_BY_ARCHITECTURE, REFUSED};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Sockets that a command without a network may still make: they lead nowhere, or to itself. vsock, netlink, packet
/// and the kernel's own families are not among them; vsock is not bound by a network namespace.
const FAMILIES: [libc::c_int; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
const NEW_NAMESPACES: [libc::c_int; 8] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
    // CLONE_NEWTIME
    0x80,
];
/// Typing into a terminal, and selecting on a console.
const TERMINAL_REQUESTS: [u64; 2] = [libc::TIOCSTI, 0x541C];
/// Asks for the present personality.
const SAME_PERSONALITY: u64 = 0xffff_ffff;

pub(crate) fn count() -> usize {
    ALLOWED.len() + ALLOWED_BY_ARCHITECTURE.len()
}

/// Restricts this process and all that it starts, for good. Needs `no_new_privs`.
pub(crate) fn install() -> Result<(), String> {
    let architecture =
        TargetArch::try_from(std::env::consts::ARCH).map_err(|error| format!("seccomp: {error}"))?;
    let errno = |number: libc::c_int| SeccompAction::Errno(number.unsigned_abs());
    // Of several filters the strictest answer counts, and of equal ones the last: so the refusals come last.
    for (rules, otherwise, matched) in [
        (known(), errno(libc::ENOSYS), SeccompAction::Allow),
        (absent(), SeccompAction::Allow, errno(libc::ENOSYS)),
        (refused()?, SeccompAction::Allow, errno(libc::EPERM)),
    ] {
        let filter = SeccompFilter::new(rules, otherwise, matched, architecture);
        let program: BpfProgram =
            filter.and_then(BpfProgram::try_from).map_err(|error| format!("seccomp: {error}"))?;
        seccompiler::apply_filter(&program).map_err(|error| format!("seccomp: {error}"))?;
    }
    Ok(())
}

fn known() -> Rules {
    let all = ALLOWED.iter().chain(ALLOWED_BY_ARCHITECTURE).chain(REFUSED);
    all.chain(&[libc::SYS_clone3]).map(|call| (*call, Vec::new())).collect()
}

/// Its flags are in memory, where no filter can look; libraries then use `clone`.
fn absent() -> Rules {
    BTreeMap::from([(libc::SYS_clone3, Vec::new())])
}

fn refused() -> Result<Rules, String> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let mut add = |call, conditions| -> Result<(), String> {
        let rule = SeccompRule::new(conditions).map_err(|error| format!("seccomp: {error}"))?;
        rules.entry(call).or_default().push(rule);
        Ok(())
    };
    for flag in NEW_NAMESPACES.map(|flag| u64::from(flag.unsigned_abs())) {
        add(libc::SYS_clone, vec![condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])?;
    }
    for request in TERMINAL_REQUESTS {
        add(libc::SYS_ioctl, vec![condition(1, SeccompCmpOp::Eq, request)?])?;
    }
    let other =
        FAMILIES.iter().map(|family| condition(0, SeccompCmpOp::Ne, u64::from(family.unsigned_abs())));
    let other = other.collect::<Result<Vec<_>, _>>()?;
    add(libc::SYS_socket, other.clone())?;
    add(libc::SYS_socketpair, other)?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        let raw = condition(1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_RAW as u64)?;
        add(libc::SYS_socket, vec![condition(0, SeccompCmpOp::Eq, family as u64)?, raw])?;
    }
    add(libc::SYS_personality, vec![condition(0, SeccompCmpOp::Ne, SAME_PERSONALITY)?])?;
    Ok(rules)
}

/// All these arguments are 32 bits wide for the kernel; what is above is ignored by it and by us.
fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .map_err(|error| format!("seccomp: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_allowed_and_refused() {
        let allowed: Vec<_> = ALLOWED.iter().chain(ALLOWED_BY_ARCHITECTURE).collect();
        for call in REFUSED {
            assert!(!allowed.contains(&call), "{call} is in both lists");
        }
        let mut once = allowed.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), allowed.len(), "a call is named twice");
    }

    #[test]
    fn filters_fit_the_kernel() {
        let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("known");
        for rules in [known(), refused().expect("rules")] {
            let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Trap, architecture);
            let program = BpfProgram::try_from(filter.expect("a filter")).expect("a program");
            assert!(program.len() < 4096, "{}", program.len());
        }
    }
}
