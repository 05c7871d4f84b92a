use super::*;

const MINIMAL: &str = "name = \"a\"\nroles = [\"coordinator\", \"worker\"]\ndata_dir = \"data\"\n";

fn parse(more: &str) -> Result<Config, ConfigError> {
    Config::parse("node.toml", &format!("{MINIMAL}{more}"), Exposure::LoopbackOnly)
}

fn error(more: &str) -> String {
    parse(more).expect_err(more).to_string()
}

#[test]
fn three_keys_are_enough() {
    let config = parse("").unwrap();
    assert_eq!(config.listen.clients, "127.0.0.1:7400".parse().unwrap());
    assert_eq!(config.internal_address(), "127.0.0.1:7401");
    assert_eq!((config.worker.slots, config.engine.kv_bytes), (8, 256 << 20));
    assert_eq!(config.engine.models, ["smollm2"]);
    assert_eq!(
        config.timings,
        Timings { heartbeat_ms: 100, election_ms: 400, lease_ms: 3000, renew_ms: 500 }
    );
    assert!(config.has(Role::Worker) && config.has(Role::Coordinator) && config.join.is_empty());
}

#[test]
fn a_strategy_is_one_of_four_words() {
    let strategy =
        |word: &str| parse(&format!("[queue]\nstrategy = {word:?}")).map(|config| config.queue.strategy);
    assert_eq!(parse("").unwrap().queue.strategy, Strategy::Llm);
    assert_eq!(strategy("storage").unwrap(), Strategy::Storage);
    let why = error("[queue]\nstrategy = \"fair\"");
    assert!(why.contains("compute") && why.contains("fair"), "{why}");
}

#[test]
fn a_collector_elsewhere_needs_certificates() {
    parse("[traces]\notlp_endpoint = \"http://127.0.0.1:4317\"").unwrap();
    for (more, says) in [
        ("https://collector:4317\"", "otlp_ca"),
        ("https://collector:4317\"\notlp_ca = \"/no/such/file\"", "/no/such/file"),
        ("collector:4317\"", "https://HOST:PORT"),
    ] {
        let why = error(&format!("[traces]\notlp_endpoint = \"{more}"));
        assert!(why.contains(says) && why.contains("traces.otlp_endpoint"), "{why}");
    }
}

#[test]
fn defaults_agree_with_the_limits() {
    let timings = parse("").unwrap().timings;
    assert_eq!(timings.lease_ms, types::limits::NODE_LEASE_MS);
    assert_eq!(timings.renew_ms, types::limits::NODE_RENEW_MS);
}

#[test]
fn what_the_file_says_wins_and_the_rest_stays() {
    let config = parse(
        "join = [\"127.0.0.1:7401\"]\n[listen]\nclients = \"127.0.0.1:7410\"\n[engine]\nmodels = []\n\
         [[provider]]\nname = \"script\"\nkind = \"scripted\"\nfile = \"replies.toml\"\n[log]\nformat = \"json\"\n",
    )
    .unwrap();
    assert_eq!(config.client_address(), "127.0.0.1:7410");
    assert_eq!(config.listen.http, "127.0.0.1:7480".parse().unwrap());
    assert!(config.engine.models.is_empty());
    assert!(matches!(&config.provider[0], Provider::Scripted(script) if script.name == "script"));
    assert_eq!((config.log.format, config.log.level.as_str()), (LogFormat::Json, "info"));
}

#[test]
fn unknown_keys_are_named_with_their_line_and_the_known_ones() {
    let top = error("nmae = 1\n");
    assert!(top.contains("unknown key nmae (line 4: nmae = 1)") && top.contains("data_dir"), "{top}");
    let nested = error("[worker]\nslot = 1\n");
    assert!(nested.contains("unknown key slot (line 5: slot = 1)") && nested.contains("slots"), "{nested}");
    let section = error("[wroker]\nslots = 1\n");
    assert!(section.contains("unknown key wroker (line 4: [wroker])"), "{section}");
    let provider = error("[[provider]]\nname = \"x\"\nkind = \"scripted\"\nfile = \"f\"\nurl = \"u\"\n");
    assert!(provider.contains("unknown key url"), "{provider}");
}

#[test]
fn missing_and_wrong_values_are_named() {
    let missing = Config::parse("node.toml", "name = \"a\"", Exposure::LoopbackOnly).unwrap_err().to_string();
    assert!(missing.contains("node.toml: roles is missing"), "{missing}");
    for (text, parts) in [
        ("[worker]\nslots = \"many\"\n", ["worker.slots", "line 5: slots = \"many\""]),
        ("[listen]\nclients = \"nowhere\"\n", ["clients", "socket address"]),
        ("[log]\nformat = \"xml\"\n", ["xml", "human"]),
        ("[worker\n", ["is not valid TOML", "4"]),
    ] {
        let said = error(text);
        assert!(parts.iter().all(|part| said.contains(part)), "{said}");
    }
}

#[test]
fn values_that_do_not_fit_together_are_refused_with_what_to_do() {
    for (text, parts) in [
        ("[timings]\nlease_ms = 2499\n", ["timings.lease_ms = 2499", "2500 or more"]),
        ("[timings]\nelection_ms = 600\n", ["timings.lease_ms = 3000", "3100 or more"]),
        ("[timings]\nheartbeat_ms = 200\n", ["timings.election_ms = 400", "600 or more"]),
        ("[timings]\nrenew_ms = 0\n", ["timings.renew_ms = 0", "possible"]),
        ("[timings]\nheartbeat_ms = 18446744073709551615\n", ["heartbeat_ms", "node.toml"]),
        ("[listen]\ninternal = \"127.0.0.1:7400\"\n", ["listen.internal", "its own port"]),
        ("[listen]\nclients = \"0.0.0.0:7400\"\n", ["listen.clients = 0.0.0.0:7400", "--insecure"]),
        ("[worker]\nslots = 0\n", ["worker.slots = 0", "leave the role"]),
        ("[engine]\nkv_bytes = 1000\n", ["engine.kv_bytes = 1000", "268435456"]),
        ("[engine]\nmodels = [\"a\", \"a\"]\n", ["\"a\"", "twice"]),
        ("[engine]\nmodels = [\"../a\"]\n", ["../a", "not a name"]),
        ("join = [\"nohost\"]\n", ["join = \"nohost\"", "host:port"]),
        ("[log]\nlevel = \"loud=x=y\"\n", ["log.level", "directives"]),
    ] {
        let said = error(text);
        assert!(parts.iter().all(|part| said.contains(part)), "{text} gives {said}");
    }
    assert!(parse("[timings]\nlease_ms = 2500\n").is_ok());
    let nobody = Config::parse("x", "name = \"a\"\nroles = []\ndata_dir = \"d\"\n", Exposure::LoopbackOnly);
    assert!(nobody.unwrap_err().to_string().contains("roles = []"));
}

#[test]
fn insecure_listens_everywhere_but_must_say_where_it_is() {
    let open = "[listen]\nclients = \"0.0.0.0:7400\"\ninternal = \"0.0.0.0:7401\"\nhttp = \"0.0.0.0:7480\"\n";
    let parse = |more: &str| Config::parse("x", &format!("{MINIMAL}{open}{more}"), Exposure::Insecure);
    let said = parse("").unwrap_err().to_string();
    assert!(said.contains("advertise.clients") && said.contains("cannot connect"), "{said}");
    let config = parse("[advertise]\nclients = \"10.0.0.5:7400\"\ninternal = \"10.0.0.5:7401\"\n").unwrap();
    assert_eq!(config.internal_address(), "10.0.0.5:7401");
}

const TLS: &str = "[tls]\nca = \"ca.crt\"\ncert = \"n1.crt\"\nkey = \"/keys/n1.key\"\n";

#[test]
fn certificates_open_listeners_and_exclude_insecure() {
    let open = "[listen]\nclients = \"10.0.0.5:7400\"\ninternal = \"10.0.0.5:7401\"\n";
    assert!(error(open).contains("[tls]"));
    let config = parse(&format!("keys = \"keys.toml\"\n{open}{TLS}")).unwrap();
    assert_eq!(config.keys.as_deref(), Some(Path::new("keys.toml")));
    let both = Config::parse("x", &format!("{MINIMAL}{TLS}"), Exposure::Insecure).unwrap_err().to_string();
    assert!(both.contains("--insecure") && both.contains("certificates"), "{both}");
    let half = error("[tls]\nca = \"ca.crt\"\n");
    assert!(half.contains("cert is missing"), "{half}");
}

#[test]
fn files_of_certificates_and_keys_are_meant_from_the_files_folder() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, format!("{MINIMAL}keys = \"keys.toml\"\n{TLS}")).unwrap();
    let config = Config::load(&file, Exposure::LoopbackOnly).unwrap();
    let tls = config.tls.unwrap();
    assert_eq!((tls.ca, tls.cert), (dir.path().join("ca.crt"), dir.path().join("n1.crt")));
    assert_eq!(tls.key, Path::new("/keys/n1.key"));
    assert_eq!(config.keys, Some(dir.path().join("keys.toml")));
}

#[test]
fn paths_are_meant_from_the_files_folder() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("node.toml");
    std::fs::write(&file, MINIMAL).unwrap();
    assert_eq!(Config::load(&file, Exposure::LoopbackOnly).unwrap().data_dir, dir.path().join("data"));
    let absent = Config::load(&dir.path().join("no.toml"), Exposure::LoopbackOnly).unwrap_err().to_string();
    assert!(absent.contains("no.toml") && absent.contains("deploy/config"), "{absent}");
}

#[test]
fn the_files_in_deploy_are_complete() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/config");
    for name in ["coordinator.toml", "worker.toml", "dev.toml"] {
        let config = Config::load(&folder.join(name), Exposure::LoopbackOnly).unwrap();
        assert!(!config.roles.is_empty(), "{name}");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        for key in keys(&toml::from_str(DEFAULTS).unwrap()) {
            assert!(text.contains(&key), "{name} does not show {key}");
        }
    }
}

/// The last part of every key in a table.
fn keys(table: &toml::Table) -> Vec<String> {
    let nested = |(key, value): (&String, &toml::Value)| match value {
        toml::Value::Table(table) => keys(table),
        _ => vec![key.clone()],
    };
    table.iter().flat_map(nested).collect()
}

#[test]
fn home_follows_the_environment() {
    let home_of = |pairs: &'static [(&str, &str)]| {
        home(move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value)))
    };
    assert_eq!(home_of(&[("QUORATE_HOME", "/q"), ("HOME", "/h")]).unwrap(), Path::new("/q"));
    assert_eq!(home_of(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]).unwrap(), Path::new("/x/quorate"));
    assert_eq!(
        home_of(&[("QUORATE_HOME", ""), ("HOME", "/h")]).unwrap(),
        Path::new("/h/.local/share/quorate")
    );
    assert!(home_of(&[]).unwrap_err().to_string().contains("QUORATE_HOME"));
}
