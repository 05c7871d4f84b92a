//! The rules that types cannot express.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use tonic::transport::{Certificate, ClientTlsConfig, Endpoint};
use types::limits;

use super::{Config, ConfigError, Context, Exposure, Provider, Role, Tools, Traces};

/// After a leader dies: its lease and one election at the slowest, and what a busy machine adds.
const ELECTION_SLACK_MS: u64 = 300;
/// Between the new leader and the renewals it has to hear.
const LEASE_SLACK_MS: u64 = 500;
/// A heartbeat must come several times in one election timeout, or one lost packet is an election.
const HEARTBEATS_PER_ELECTION: u64 = 3;
/// The smallest useful cache: one window of a small model.
const KV_BYTES_MIN: u64 = 16 << 20;
const SLOTS_MAX: u32 = 4096;
const THREADS_MAX: u32 = 1024;
/// No timing beyond it makes sense, and sums below stay far from overflow.
const TIMING_MAX_MS: u64 = 3_600_000;

pub(super) fn check(config: &Config, exposure: Exposure) -> Result<(), ConfigError> {
    check_who(config)?;
    check_addresses(config, exposure)?;
    check_worker(config)?;
    check_tools(config)?;
    check_context(config)?;
    check_timings(config)?;
    check_log(config)?;
    collector(&config.traces).map(|_| ())
}

/// The collector of traces, where one is named.
pub(crate) fn collector(traces: &Traces) -> Result<Option<Endpoint>, ConfigError> {
    let Some(endpoint) = &traces.otlp_endpoint else { return Ok(None) };
    let refused = |why: &str, next: &str| ConfigError::Refused {
        key: "traces.otlp_endpoint",
        value: format!("{endpoint:?}"),
        why: why.into(),
        next: next.into(),
    };
    if !cfg!(feature = "otlp") {
        let next = "leave it out, or build with the feature otlp";
        return Err(refused("this build tells no traces", next));
    }
    let parsed = Endpoint::from_shared(endpoint.clone()).ok();
    match parsed.as_ref().and_then(|parsed| parsed.uri().scheme_str()) {
        Some("http") => Ok(parsed),
        Some("https") => over_tls(parsed, traces.otlp_ca.as_deref(), refused),
        _ => {
            let next =
                "write http://HOST:PORT or https://HOST:PORT of a collector, such as http://127.0.0.1:4317";
            Err(refused("it is no address of that form", next))
        }
    }
}

/// Whom to believe is said, not guessed: the machine's own list is a file like any other.
fn over_tls(
    endpoint: Option<Endpoint>,
    ca: Option<&Path>,
    refused: impl Fn(&str, &str) -> ConfigError,
) -> Result<Option<Endpoint>, ConfigError> {
    const NEXT: &str =
        "name certificates in PEM form in traces.otlp_ca, such as /etc/ssl/certs/ca-certificates.crt";
    let ca = ca.ok_or_else(|| refused("nothing says by which certificates it is known", NEXT))?;
    let pem = std::fs::read(ca).map_err(|error| refused(&format!("{}: {error}", ca.display()), NEXT))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    let secured = endpoint.map(|endpoint| endpoint.tls_config(tls)).transpose();
    secured.map_err(|error| refused(&format!("{} is of no use: {error}", ca.display()), NEXT))
}

/// A month.
const AWAY_MAX_MS: u64 = 30 * 86_400_000;

/// A chunk of a megabyte takes four seconds at this bound; a receiver waits twenty.
const LINK_BYTES_SECOND_MIN: u64 = 1 << 18;

/// A task is created some seconds after its inputs are stored.
const SWEEP_AFTER_MIN_MS: u64 = 2_000;

fn check_context(config: &Config) -> Result<(), ConfigError> {
    let Context { repair_after_ms, sweep_after_ms, .. } = config.context;
    if repair_after_ms == 0 || repair_after_ms > AWAY_MAX_MS {
        let next = format!("write 1 to {AWAY_MAX_MS}; a restart takes some seconds");
        return refuse("context.repair_after_ms", repair_after_ms, "it is no time that a node is away", next);
    }
    if sweep_after_ms != 0 && !(SWEEP_AFTER_MIN_MS..=AWAY_MAX_MS).contains(&sweep_after_ms) {
        let next = format!("write 0 for never, or {SWEEP_AFTER_MIN_MS} to {AWAY_MAX_MS}");
        let why = "what was stored a moment ago would go before it is named";
        return refuse("context.sweep_after_ms", sweep_after_ms, why, next);
    }
    match config.context.link_bytes_second {
        0 | LINK_BYTES_SECOND_MIN.. => Ok(()),
        given => {
            let next = format!("write 0 for no bound, or at least {LINK_BYTES_SECOND_MIN}");
            refuse("context.link_bytes_second", given, "transfers would time out", next)
        }
    }
}

fn check_tools(config: &Config) -> Result<(), ConfigError> {
    let Tools { mcp, http, files, shell } = config.tools.clone();
    if sandbox::Level::parse(&shell.require).is_none() {
        let why = "it is no level of a sandbox";
        return refuse(
            "tools.shell.require",
            format!("{:?}", shell.require),
            why,
            "write full, partial or none",
        );
    }
    match (::tools::Config { mcp, http, files }).check() {
        Ok(()) => Ok(()),
        Err(error) => refuse("tools", error.key, error.problem, "docs/tools.md shows every key"),
    }
}

fn refuse(
    key: &'static str,
    value: impl ToString,
    why: impl Into<String>,
    next: impl Into<String>,
) -> Result<(), ConfigError> {
    Err(ConfigError::Refused { key, value: value.to_string(), why: why.into(), next: next.into() })
}

/// Names of nodes and models: short, and safe in tables, labels and file names.
pub(crate) fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= limits::NAME_BYTES
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(good)
}

const NAME_RULE: &str = "use letters, digits, `-`, `_` and `.`, beginning with a letter or digit";

fn check_who(config: &Config) -> Result<(), ConfigError> {
    if !is_name(&config.name) {
        return refuse("name", format!("{:?}", config.name), "it is not a name", NAME_RULE);
    }
    let distinct: BTreeSet<Role> = config.roles.iter().copied().collect();
    if distinct.is_empty() || distinct.len() != config.roles.len() {
        let roles: Vec<&str> = config.roles.iter().map(|role| role.name()).collect();
        return refuse(
            "roles",
            format!("{roles:?}"),
            "a node has one or two different roles",
            "choose from \"coordinator\" and \"worker\"",
        );
    }
    if config.data_dir.as_os_str().is_empty() {
        return refuse("data_dir", "\"\"", "it is empty", "give the folder where this node keeps its data");
    }
    Ok(())
}

fn check_addresses(config: &Config, exposure: Exposure) -> Result<(), ConfigError> {
    let listen = &config.listen;
    let all = [
        ("listen.clients", listen.clients),
        ("listen.internal", listen.internal),
        ("listen.http", listen.http),
    ];
    for (index, (key, address)) in all.into_iter().enumerate() {
        check_exposure(key, address, exposure, config.tls.is_some())?;
        // Port 0 means: any free one. Two of those never collide.
        if address.port() != 0 && all[..index].iter().any(|(_, other)| *other == address) {
            return refuse(key, address, "two services cannot share an address", "give each its own port");
        }
    }
    if config.tls.is_some() && exposure == Exposure::Insecure {
        let why = "--insecure lets every caller in as the admin, and this node has certificates";
        return refuse("tls", "(set)", why, "start without --insecure, or without [tls]");
    }
    check_advertised("advertise.clients", config.advertise.clients.as_deref(), listen.clients)?;
    check_advertised("advertise.internal", config.advertise.internal.as_deref(), listen.internal)?;
    match config.join.iter().find(|address| !is_host_and_port(address)) {
        Some(bad) => refuse(
            "join",
            format!("{bad:?}"),
            "it is not host:port",
            "give internal addresses like 10.0.0.5:7401",
        ),
        None => Ok(()),
    }
}

fn check_exposure(
    key: &'static str,
    address: SocketAddr,
    exposure: Exposure,
    has_tls: bool,
) -> Result<(), ConfigError> {
    if address.ip().is_loopback() || exposure == Exposure::Insecure || has_tls {
        return Ok(());
    }
    refuse(
        key,
        address,
        "it can be reached from other machines, and this node has no TLS",
        "set [tls] (`quorate cert` makes the files), listen on 127.0.0.1, or start with --insecure in a closed network",
    )
}

/// Others cannot connect to "every address", so one of them must be named.
fn check_advertised(key: &'static str, given: Option<&str>, listen: SocketAddr) -> Result<(), ConfigError> {
    match given {
        Some(address) if !is_host_and_port(address) => {
            refuse(key, format!("{address:?}"), "it is not host:port", "give an address like 10.0.0.5:7401")
        }
        None if listen.ip().is_unspecified() => refuse(
            key,
            "(not set)",
            format!("the node listens on {listen}, which others cannot connect to"),
            "set it to this machine's address, like 10.0.0.5:7401",
        ),
        _ => Ok(()),
    }
}

fn is_host_and_port(address: &str) -> bool {
    let Some((host, port)) = address.rsplit_once(':') else { return false };
    let host_ok = !host.is_empty() && !host.contains(['/', ' ', '@', '?', '#']);
    host_ok && port.parse::<u16>().is_ok_and(|port| port != 0)
}

fn check_worker(config: &Config) -> Result<(), ConfigError> {
    let (slots, engine) = (config.worker.slots, &config.engine);
    if config.has(Role::Worker) && !(1..=SLOTS_MAX).contains(&slots) {
        let next = "leave the role \"worker\" out of a node that shall run nothing";
        return refuse("worker.slots", slots, format!("1 to {SLOTS_MAX} are possible"), next);
    }
    if engine.kv_copies > 1 {
        let why = "blocks are copied to one other node at most";
        return refuse("engine.kv_copies", engine.kv_copies, why, "0 or 1");
    }
    if engine.kv_bytes < KV_BYTES_MIN {
        let why = format!("a KV cache below {KV_BYTES_MIN} bytes holds no conversation");
        return refuse("engine.kv_bytes", engine.kv_bytes, why, "268435456 (256 MiB) is the default");
    }
    if engine.evaluate_percent > 100 {
        return refuse(
            "engine.evaluate_percent",
            engine.evaluate_percent,
            "it is a part of a hundred",
            "choose a number from 0 to 100",
        );
    }
    if engine.threads > THREADS_MAX {
        return refuse(
            "engine.threads",
            engine.threads,
            "there are no such machines",
            "0 chooses from the cores",
        );
    }
    let names = engine.models.iter().chain(config.provider.iter().map(Provider::name));
    let mut seen = BTreeSet::new();
    for name in names {
        if !is_name(name) {
            return refuse(
                "engine.models or provider.name",
                format!("{name:?}"),
                "it is not a name",
                NAME_RULE,
            );
        }
        if !seen.insert(name) {
            let next = "give every model and provider its own name";
            return refuse("engine.models or provider.name", format!("{name:?}"), "it is there twice", next);
        }
    }
    for provider in &config.provider {
        if let Provider::Remote(endpoint) = provider
            && let Err(error) = endpoint.check()
        {
            return refuse(
                "provider",
                format!("{:?}", endpoint.name),
                error.to_string(),
                "see docs/providers.md",
            );
        }
    }
    Ok(())
}

fn check_timings(config: &Config) -> Result<(), ConfigError> {
    let timings = config.timings;
    for (key, value) in [
        ("timings.heartbeat_ms", timings.heartbeat_ms),
        ("timings.election_ms", timings.election_ms),
        ("timings.lease_ms", timings.lease_ms),
        ("timings.renew_ms", timings.renew_ms),
    ] {
        if !(1..=TIMING_MAX_MS).contains(&value) {
            let why = format!("1 to {TIMING_MAX_MS} ms are possible");
            return refuse(key, value, why, "leave it out for the default");
        }
    }
    if timings.election_ms < timings.heartbeat_ms * HEARTBEATS_PER_ELECTION {
        let least = timings.heartbeat_ms * HEARTBEATS_PER_ELECTION;
        let why = format!("one late heartbeat of {} ms would start an election", timings.heartbeat_ms);
        return refuse("timings.election_ms", timings.election_ms, why, format!("set it to {least} or more"));
    }
    let failover = failover_ms(timings.election_ms);
    let least = failover + timings.renew_ms + LEASE_SLACK_MS;
    if timings.lease_ms < least {
        let why = format!(
            "electing a leader may take {failover} ms, the next renewal {} ms more, and healthy nodes would lose \
             their tasks meanwhile",
            timings.renew_ms
        );
        return refuse("timings.lease_ms", timings.lease_ms, why, format!("set it to {least} or more"));
    }
    Ok(())
}

/// The longest silence when a leader dies: its lease, then the longest election timeout, one and a half times
/// the shortest each. 1,500 ms with the default of 400.
fn failover_ms(election_ms: u64) -> u64 {
    3 * election_ms + ELECTION_SLACK_MS
}

fn check_log(config: &Config) -> Result<(), ConfigError> {
    match crate::telemetry::check_level(&config.log.level) {
        Ok(()) => Ok(()),
        Err(why) => {
            let next = "use error, warn, info, debug or trace, or directives like info,node::link=debug";
            refuse("log.level", format!("{:?}", config.log.level), why, next)
        }
    }
}
