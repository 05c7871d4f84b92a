//! `config check`: what a start would say of a configuration, without a start.

use crate::config::{Config, Exposure};
use crate::security::Security;
use serde_json::json;
use std::path::Path;

/// Reads the file, and the certificates and keys that it names, as `start` does. Opens no port and no data folder.
pub fn config_check(file: &Path, insecure: bool, json: bool) -> anyhow::Result<()> {
    let exposure = if insecure { Exposure::Insecure } else { Exposure::LoopbackOnly };
    let config = Config::load(file, exposure)?;
    Security::load(&config)?;
    let roles: Vec<&str> = config.roles.iter().map(|role| role.name()).collect();
    if json {
        say!("{}", json!({"name": config.name, "roles": roles, "data_dir": config.data_dir}));
    } else {
        let (name, file) = (&config.name, file.display());
        say!(
            "{file}: {name} can start as {}, with its data in {}",
            roles.join(" and "),
            config.data_dir.display()
        );
    }
    Ok(())
}
