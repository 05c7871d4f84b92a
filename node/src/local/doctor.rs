//! `doctor`: looks at this machine and this node, and says what is wrong.

use super::{daemon, home};
use crate::config::{self, Config, Exposure};
use crate::doctor::{self, Finding, State};
use crate::models::ModelStore;
use anyhow::bail;
use serde_json::json;
use std::path::{Path, PathBuf};

pub struct DoctorOptions {
    /// A node's configuration; none: the node of `quorate dev`.
    pub config: Option<PathBuf>,
    /// As it will be started with --insecure.
    pub insecure: bool,
    pub json: bool,
}

/// Fails when something is wrong; warnings alone are no failure.
pub fn doctor(options: &DoctorOptions) -> anyhow::Result<()> {
    let (origin, config) = match &options.config {
        Some(file) => {
            let exposure = if options.insecure { Exposure::Insecure } else { Exposure::LoopbackOnly };
            (file.display().to_string(), Config::load(file, exposure))
        }
        None => ("the node of `quorate dev`".to_string(), daemon::config_of_dev(&home()?.join("dev"))),
    };
    // A home that is not known is a finding of whoever names a model.
    let models = home().map_or_else(|_| PathBuf::from("models"), |home| config::models_dir(Path::new(&home)));
    let findings = doctor::judge(&doctor::look::look(&origin, config, ModelStore::open(models)));
    let worst = doctor::worst(&findings);
    if options.json {
        say!("{}", json!({ "ok": worst != State::Fail, "findings": findings }));
    } else {
        findings.iter().for_each(|finding| print!("{}", rows(finding)));
    }
    let failed = findings.iter().filter(|finding| finding.state == State::Fail).count();
    if worst == State::Fail {
        bail!("{failed} of {} checks failed; each says what to do next", findings.len());
    }
    Ok(())
}

fn rows(finding: &Finding) -> String {
    let Finding { check, state, what, why, next } = finding;
    let mut rows = format!("{:<5} {check:<12} {what}\n", state.name());
    for (name, text) in [("why", why), ("next", next)] {
        if !text.is_empty() {
            rows += &format!("{:<18} {name}: {text}\n", "");
        }
    }
    rows
}
