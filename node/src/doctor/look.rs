//! Reads the facts from the machine: thin, and without an opinion.

mod access;
mod cluster;
mod folder;
mod machine;

use super::Facts;
use super::facts::{ClusterFacts, ConfigFacts};
use crate::config::{Config, ConfigError, Role};
use crate::models::ModelStore;
use crate::security::now_s;
use crate::store::identity::Identity;

/// Looks at everything that this configuration touches. `origin` names it; `models` is where models are when it
/// doesn't say.
pub fn look(origin: &str, config: Result<Config, ConfigError>, models: ModelStore) -> Facts {
    let config = match config {
        Ok(config) => config,
        Err(why) => return unread(why.to_string()),
    };
    let identity = folder::identity(&config.data_dir);
    let folder = folder::look(&config.data_dir, &identity);
    let member = identity
        .ok()
        .flatten()
        .and_then(|identity: Identity| identity.member.map(|it| (it, identity.disk_id)));
    let (cluster, digests) = cluster::look(&config, member, folder.used_by.is_some());
    Facts {
        now_s: now_s(),
        machine: machine::look(config.tools.shell.enabled.then_some(config.tools.shell.require.as_str())),
        ports: access::ports(&config.listen),
        tls: config.tls.as_ref().map(access::tls),
        keys: config.keys.as_deref().map(access::keys),
        models: if config.has(Role::Worker) {
            cluster::models(&config, &models, &digests)
        } else {
            Vec::new()
        },
        cluster,
        folder: Some(folder),
        config: Ok(asked(origin, &config)),
    }
}

fn unread(why: String) -> Facts {
    Facts {
        now_s: now_s(),
        config: Err(why),
        machine: machine::look(None),
        folder: None,
        ports: Vec::new(),
        tls: None,
        keys: None,
        models: Vec::new(),
        cluster: ClusterFacts::Alone,
    }
}

fn asked(origin: &str, config: &Config) -> ConfigFacts {
    let host = |address: String| {
        address.rsplit_once(':').map_or(address.clone(), |(host, _)| host.trim_matches(['[', ']']).into())
    };
    let mut hosts = vec![host(config.client_address()), host(config.internal_address())];
    hosts.dedup();
    ConfigFacts {
        origin: origin.into(),
        name: config.name.clone(),
        roles: config.roles.iter().map(|role| role.name()).collect(),
        worker: config.has(Role::Worker),
        join: config.join.clone(),
        election_ms: config.timings.election_ms,
        threads: config.engine.threads,
        kv_bytes_per_model: config.engine.kv_bytes.saturating_add(config.engine.host_kv_bytes),
        advertised_hosts: hosts,
        shell_requires: config.tools.shell.enabled.then(|| config.tools.shell.require.clone()),
    }
}
