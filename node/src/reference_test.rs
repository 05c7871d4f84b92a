//! The pages of `docs/reference/` are made from the code, and compared with it by `make test`. `UPDATE=1 cargo nextest run
//! -p node reference` writes them anew; read the difference before you keep it.

use crate::config::{Config, DEFAULTS, Exposure};
use crate::telemetry::names::{ALL, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const MADE: &str = "<!-- Made by a test: UPDATE=1 cargo nextest run -p node reference -->\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn compare(name: &str, text: &str) {
    let file = root().join("docs/reference").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        return std::fs::write(&file, text).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "docs/reference/{name} is not what the code says: UPDATE=1 cargo nextest run -p node reference"
    );
}

#[test]
fn every_metric_has_its_row() {
    let mut text = format!(
        "{MADE}\n# Every metric\n\n`http://HOST:7480/metrics`. What they mean together: [metrics](../metrics.md); what to wake somebody for: \
         [alerts](../alerts.md). Histograms have `_bucket` with the label `le`, `_sum` and `_count`.\n\n\
         | name | kind | labels | meaning |\n|---|---|---|---|\n"
    );
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let labels = if metric.labels.is_empty() { "–".to_string() } else { metric.labels.join(", ") };
        text += &format!("| `{}` | {kind} | {labels} | {} |\n", metric.name, metric.help);
    }
    compare("metrics.md", &text);
}

/// Where the keys of a section are: its name in the file, the source, the struct.
const SECTIONS: &[(&str, &str, &str)] = &[
    ("", "node/src/config.rs", "Config"),
    ("[tls]", "node/src/config.rs", "TlsFiles"),
    ("[listen]", "node/src/config.rs", "Listen"),
    ("[advertise]", "node/src/config.rs", "Advertise"),
    ("[worker]", "node/src/config.rs", "Worker"),
    ("[engine]", "node/src/config.rs", "Engine"),
    ("[memory]", "node/src/config.rs", "Memory"),
    ("[context]", "node/src/config.rs", "Context"),
    ("[timings]", "node/src/config.rs", "Timings"),
    ("[queue]", "node/src/config.rs", "Queue"),
    ("[log]", "node/src/config.rs", "Log"),
    ("[traces]", "node/src/config.rs", "Traces"),
    ("[tools]", "node/src/config.rs", "Tools"),
    ("[tools.shell]", "node/src/config.rs", "Shell"),
    ("[tools.http]", "node/tools/src/config.rs", "HttpConfig"),
    ("[tools.files]", "node/tools/src/config.rs", "FilesConfig"),
    ("[tools.mcp.NAME]", "node/tools/src/config.rs", "McpConfig"),
    ("[tools.mcp.NAME.restart]", "node/tools/src/config.rs", "RestartConfig"),
    ("[[provider]] of kind scripted", "node/src/config.rs", "Script"),
    ("[[provider]] of kind openai or anthropic", "node/providers/src/endpoint.rs", "Endpoint"),
    ("[provider.timeouts]", "node/providers/src/endpoint.rs", "Timeouts"),
];

/// For keys whose names say nearly all.
const PLAIN: &[(&str, &str)] = &[
    ("timeout_ms", "How long one call may take"),
    ("output_bytes", "How much of a result is kept; the rest is cut, and the model is told"),
    ("concurrent", "Calls that run at once; more wait within their own time"),
    ("enabled", "Whether agents have it"),
    ("command", "The program and its arguments"),
    ("url", "Where it is reached over HTTP, instead of `command`"),
    ("restart", "How a server that ended is started again"),
    ("first_ms", "The first pause before another start"),
    ("most_ms", "The longest pause"),
    ("connect_ms", "Until a connection is there"),
    ("kind", "`openai` or `anthropic`: which API is spoken"),
    ("key_file", "A file with the key and nothing else"),
    ("key_env", "The variable of the node's environment that holds the key"),
    ("timeouts", "How long is waited"),
    ("concurrency", "How many calls run at once"),
    ("cassette", "Records exchanges, or answers from recorded ones"),
    ("http", "HTTP calls"),
    ("files", "Files of the task's own folder"),
    ("shell", "Commands in a sandbox"),
    ("listen", "Addresses"),
    ("advertise", "What others are told"),
    ("worker", "The worker's part"),
    ("engine", "The local engine"),
    ("provider", "Models that are not computed here"),
    ("tools", "What agents can call here"),
    ("memory", "What agents remember"),
    ("context", "Segments between nodes"),
    ("timings", "How fast failures are noticed"),
    ("queue", "How a leader gives out places"),
    ("log", "What is written to standard error"),
    ("traces", "Where traces of tasks go"),
    ("roles", "`coordinator` (votes, and may lead), `worker` (runs agents and models), or both"),
    ("strategy", "How projects take turns: `llm`, `compute`, `api` or `storage`"),
    ("format", "`human`, or `json`: one object a line"),
    ("name", "The model's name for agents"),
    ("file", "The replies"),
    ("pids", "Processes of one command at most"),
    ("cpu_milli", "Thousandths of a core for each command; an agent's `[needs]` may say less"),
    ("memory_bytes", "Memory of each command"),
    ("disk_bytes", "What each command may write"),
    ("key", "This node's key"),
    ("clients", "For clients, where it differs from `listen.clients`"),
    ("internal", "For other nodes, where it differs from `listen.internal`"),
];

/// The fields of a struct with what their comments say.
fn fields(source: &str, name: &str) -> Vec<(String, String)> {
    let body =
        source.split(&format!("pub struct {name} {{\n")).nth(1).unwrap_or_else(|| panic!("no struct {name}"));
    let mut fields = Vec::new();
    let mut said: Vec<&str> = Vec::new();
    for line in body.split("\n}").next().unwrap().lines().map(str::trim) {
        match (line.strip_prefix("/// "), line.strip_prefix("pub ").and_then(|rest| rest.split_once(':'))) {
            (Some(words), _) => said.push(words),
            (None, Some((key, _))) => fields.push((key.to_string(), std::mem::take(&mut said).join(" "))),
            _ => {}
        }
    }
    fields
}

fn meaning(key: &str, said: String) -> String {
    match PLAIN.iter().find(|(name, _)| *name == key && said.is_empty()) {
        Some((_, plain)) => plain.to_string(),
        None => said.trim_end_matches('.').replace('|', "\\|"),
    }
}

/// What a node takes where the file says nothing.
fn default(section: &str, key: &str, defaults: &toml::Table) -> String {
    let inner = section.trim_matches(['[', ']']);
    let table =
        if inner.is_empty() { Some(defaults) } else { defaults.get(inner).and_then(toml::Value::as_table) };
    match table.and_then(|table| table.get(key)) {
        None | Some(toml::Value::Table(_)) => "–".into(),
        Some(value) => format!("`{value}`"),
    }
}

#[test]
fn every_key_of_the_configuration_has_its_row() {
    let defaults: toml::Table = toml::from_str(DEFAULTS).unwrap();
    let mut text = format!(
        "{MADE}\n# Every key of the configuration\n\nOf `quorate start --config FILE`. Rules between keys, and examples: \
         [configuration](../config.md); files with every common key and a comment: `deploy/config/`. `–`: none, or the tool's own \
         ([tools](../tools.md), [providers](../providers.md)). `quorate config check FILE` judges a file.\n"
    );
    for (section, source, name) in SECTIONS {
        let source = std::fs::read_to_string(root().join(source)).unwrap();
        let title = if section.is_empty() { "Above the first section" } else { section };
        text += &format!("\n## {title}\n\n| key | default | meaning |\n|---|---|---|\n");
        for (key, said) in fields(&source, name) {
            let said = meaning(&key, said);
            assert!(!said.is_empty(), "{section} {key} has no comment, and no words in PLAIN");
            text += &format!("| `{key}` | {} | {said} |\n", default(section, &key, &defaults));
        }
    }
    compare("config.md", &text);
}

/// The reader itself names the keys that it takes when it meets another: none may be missing in the page.
#[test]
fn the_page_has_the_keys_that_the_reader_takes() {
    let minimal = "name = \"a\"\nroles = [\"coordinator\"]\ndata_dir = \"d\"\n";
    let remote = "name = \"m\"\nkind = \"openai\"\n";
    let cases = BTreeMap::from([
        ("", "zz = 1\n".to_string()),
        ("[tls]", "[tls]\nzz = 1\n".to_string()),
        ("[worker]", "[worker]\nzz = 1\n".to_string()),
        ("[engine]", "[engine]\nzz = 1\n".to_string()),
        ("[timings]", "[timings]\nzz = 1\n".to_string()),
        ("[log]", "[log]\nzz = 1\n".to_string()),
        ("[memory]", "[memory]\nzz = 1\n".to_string()),
        ("[tools]", "[tools]\nzz = 1\n".to_string()),
        ("[tools.shell]", "[tools.shell]\nzz = 1\n".to_string()),
        ("[tools.http]", "[tools.http]\nzz = 1\n".to_string()),
        ("[tools.files]", "[tools.files]\nzz = 1\n".to_string()),
        ("[tools.mcp.NAME]", "[tools.mcp.x]\nzz = 1\n".to_string()),
        ("[[provider]] of kind openai or anthropic", format!("[[provider]]\n{remote}zz = 1\n")),
    ]);
    for (section, wrong) in cases {
        let said =
            Config::parse("x", &format!("{minimal}{wrong}"), Exposure::LoopbackOnly).unwrap_err().to_string();
        let allowed = said.split("expected ").nth(1).unwrap_or_else(|| panic!("{section}: {said}"));
        let allowed = allowed.split([';', '\n']).next().unwrap().trim_start_matches("one of ");
        let word = |word: &str| word.trim_matches([' ', '`', '"']).to_string();
        let taken: BTreeSet<String> =
            allowed.split([',']).flat_map(|part| part.split(" or ")).map(word).collect();
        let (_, source, name) = SECTIONS.iter().find(|(it, ..)| *it == section).unwrap();
        let source = std::fs::read_to_string(root().join(source)).unwrap();
        let shown: BTreeSet<String> = fields(&source, name).into_iter().map(|(key, _)| key).collect();
        assert_eq!(taken, shown, "{section}: {said}");
    }
}

/// Where errors with a reason are made, for clients and by them.
const REASONS_IN: &[&str] = &["node/src/door", "sdk/src", "sdk/cli/src"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let below = |path: PathBuf| if path.is_dir() { sources(&path) } else { vec![path] };
    paths.into_iter().flat_map(below).filter(|path| path.extension().is_some_and(|end| end == "rs")).collect()
}

/// Each reason that follows a code in one call, with the last text of that call: the next step.
fn reasons(source: &str) -> Vec<(String, String, String)> {
    let body = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or("");
    let coded = body.match_indices("Code::").filter_map(|(at, _)| reason_at(&body[at + 6..]));
    let helped = HELPERS.iter().flat_map(|(call, code)| {
        body.match_indices(call)
            .filter_map(move |(at, _)| reason_at(&format!("{code},{}", &body[at + call.len()..])))
    });
    coded.chain(helped).collect()
}

/// Calls that know their code.
const HELPERS: &[(&str, &str)] = &[
    ("denied(", "PermissionDenied"),
    ("usage(", "InvalidArgument"),
    ("set_error_info(", "ResourceExhausted"),
];

fn reason_at(rest: &str) -> Option<(String, String, String)> {
    let (code, rest) = rest.split_once(',')?;
    let (before, rest) = rest.split_once('"')?;
    let (reason, rest) = rest.split_once('"')?;
    let is_reason = reason.len() > 3 && reason.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let is_code = !code.is_empty() && code.chars().all(|c| c.is_ascii_alphanumeric());
    (is_reason && is_code && before.trim().is_empty()).then(|| (reason.into(), code.into(), last_text(rest)))
}

/// The last literal before the call's closing parenthesis.
fn last_text(rest: &str) -> String {
    let (mut depth, mut last, mut characters) = (1, String::new(), rest.chars());
    while let Some(character) = characters.next() {
        match character {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '"' => last = literal(&mut characters),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    last
}

fn literal(characters: &mut std::str::Chars<'_>) -> String {
    let mut text = String::new();
    while let Some(character) = characters.next() {
        match character {
            '"' => break,
            '\\' => match characters.next() {
                Some('\n') => text.push(' '),
                Some('n') => text.push(' '),
                Some(escaped) => text.push(escaped),
                None => break,
            },
            plain => text.push(plain),
        }
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_reason_of_an_error_has_its_row() {
    let mut rows: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for file in REASONS_IN.iter().flat_map(|folder| sources(&root().join(folder))) {
        for (reason, code, next) in reasons(&std::fs::read_to_string(&file).unwrap()) {
            let row = rows.entry(reason).or_default();
            row.0.insert(code);
            // With a place for a value it is a message, not a step.
            if next.contains(' ') && !next.contains('{') {
                row.1.insert(next.replace('|', "\\|"));
            }
        }
    }
    for known in ["WRONG_ETAG", "NOT_FOUND", "NO_LEADER", "UNREACHABLE", "PROJECT_DENIED", "USAGE"] {
        assert!(rows.contains_key(known), "{known} was not found: {:?}", rows.keys());
    }
    let mut text = format!(
        "{MADE}\n# Every reason of an error\n\n`error.reason` with `-o json`, and the reason in the details of a gRPC status: stable words \
         for programs. The message says what happened; what is here is the next step. Exit codes: [the command line](../cli.md).\n\n\
         | reason | code | next |\n|---|---|---|\n"
    );
    for (reason, (codes, nexts)) in rows {
        let codes: Vec<String> = codes.into_iter().collect();
        let nexts: Vec<String> = nexts.into_iter().collect();
        let next = if nexts.is_empty() { "see the message".to_string() } else { nexts.join("; or: ") };
        text += &format!("| `{reason}` | {} | {next} |\n", codes.join(", "));
    }
    compare("errors.md", &text);
}

#[test]
fn reasons_are_read_out_of_sources() {
    let source = "error(\n    Code::Aborted,\n    \"WRONG_ETAG\",\n    &text(1),\n    \"read it (all) again, \\\n     and send it\",\n)";
    assert_eq!(
        reasons(source),
        [("WRONG_ETAG".into(), "Aborted".into(), "read it (all) again, and send it".into())]
    );
    assert_eq!(reasons("match code { Code::Ok => \"FINE\" }"), []);
}
