//! Landlock: a second wall of the kernel behind the mounts, and the only one for abstract sockets and signals.

use crate::report::Layer;
use crate::wire::Plan;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The newest form that is asked for. Older kernels give less, and the layers say so.
const WANTED: ABI = ABI::V6;

type Restrict = fn(&Plan) -> Result<RestrictionStatus, RulesetError>;

/// Restricts this process for good.
pub(super) fn restrict(plan: &Plan) -> Vec<Layer> {
    let names = ["landlock files", "landlock network", "landlock signals"];
    let apart: [Restrict; 3] = [files, network, scope];
    let kinds = ["paths", "no TCP", "no signal and no abstract socket leaves the sandbox"];
    names
        .into_iter()
        .zip(apart)
        .zip(kinds)
        .map(|((name, restrict), kind)| layer(name, kind, restrict(plan)))
        .collect()
}

fn layer(name: &str, kind: &str, done: Result<RestrictionStatus, RulesetError>) -> Layer {
    match done {
        Ok(status) if status.ruleset == RulesetStatus::FullyEnforced => Layer::holds(name, kind),
        Ok(status) if status.ruleset == RulesetStatus::PartiallyEnforced => {
            Layer::missing(name, format!("only in part: the kernel knows an older Landlock than {WANTED:?}"))
        }
        Ok(_) => Layer::missing(name, "the kernel knows no Landlock, or an older one, or it is turned off"),
        Err(error) => Layer::missing(name, error.to_string()),
    }
}

fn files(plan: &Plan) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(WANTED);
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::IoctlDev;
    let write = all & !(AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    let mut rules =
        Ruleset::default().set_compatibility(CompatLevel::BestEffort).handle_access(all)?.create()?;
    // Names alone: the root holds nothing but what is shown on purpose.
    rules = allow(rules, OsStr::new("/"), AccessFs::ReadDir.into())?;
    for path in ["/work", "/tmp", "/dev/shm"] {
        rules = allow(rules, OsStr::new(path), write)?;
    }
    for path in ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"] {
        rules = allow(rules, OsStr::new(path), device)?;
    }
    for path in ["/proc", "/etc", "/dev"] {
        rules = allow(rules, OsStr::new(path), AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    for path in &plan.readable {
        rules = allow(rules, OsStr::from_bytes(path), AccessFs::from_read(WANTED))?;
    }
    rules.restrict_self()
}

fn allow(
    rules: landlock::RulesetCreated,
    path: &OsStr,
    access: BitFlags<AccessFs>,
) -> Result<landlock::RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        // Rights of folders mean nothing for a file, and would count as refused.
        Ok(file) if Path::new(path).is_dir() => rules.add_rule(PathBeneath::new(file, access)),
        Ok(file) => rules.add_rule(PathBeneath::new(file, access & AccessFs::from_file(WANTED))),
        // What is not there needs no permission.
        Err(_) => Ok(rules),
    }
}

fn network(_: &Plan) -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessNet::BindTcp | AccessNet::ConnectTcp)?
        .create()?
        .restrict_self()
}

fn scope(_: &Plan) -> Result<RestrictionStatus, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .restrict_self()
}
