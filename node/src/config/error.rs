//! What is wrong with a configuration: which key, which value, why, and what to do.

use std::path::PathBuf;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "cannot read the configuration {file}: {cause}; give the path of a file like deploy/config/dev.toml"
    )]
    Unreadable { file: PathBuf, cause: std::io::Error },
    #[error("{origin} is not valid TOML: {why}")]
    Syntax { origin: String, why: String },
    #[error("{origin}: unknown key {key}{line}; {allowed}; remove it or correct the spelling")]
    UnknownKey { origin: String, key: String, line: String, allowed: String },
    #[error("{origin}: {key} is missing; add it, see deploy/config/dev.toml for an example")]
    MissingKey { origin: String, key: String },
    #[error("{origin}: {key}{line}: {why}; see deploy/config/dev.toml for what is expected")]
    WrongValue { origin: String, key: String, line: String, why: String },
    #[error("{key} = {value}: {why}; {next}")]
    Refused { key: &'static str, value: String, why: String, next: String },
    #[error("there is no home folder to keep data in; set QUORATE_HOME to a folder")]
    NoHome,
}

/// Turns what the layers say into what the user wrote.
pub(super) fn explain(origin: &str, text: &str, cause: ::config::ConfigError) -> ConfigError {
    let origin = origin.to_string();
    // A broken file is explained by its own parser, which knows line and column.
    if let Err(error) = toml::from_str::<toml::Table>(text) {
        return ConfigError::Syntax { origin, why: error.to_string().trim_end().to_string() };
    }
    let said = cause.to_string();
    if let Some(rest) = after(&said, "unknown field `") {
        let (key, rest) = rest.split_once('`').unwrap_or((rest, ""));
        let allowed =
            rest.trim_start_matches(", ").split(" for key").next().unwrap_or("").trim().replace('`', "");
        return ConfigError::UnknownKey { origin, key: key.to_string(), line: line_of(text, key), allowed };
    }
    if let Some(rest) =
        after(&said, "missing field `").or_else(|| after(&said, "missing configuration field \""))
    {
        let key = rest.split(['`', '"']).next().unwrap_or(rest).to_string();
        return ConfigError::MissingKey { origin, key };
    }
    let key = after(&said, "for key `").and_then(|rest| rest.split('`').next()).unwrap_or("a value");
    let why = said.split(" for key `").next().unwrap_or(&said).to_string();
    let last = key.rsplit('.').next().unwrap_or(key);
    ConfigError::WrongValue { origin, key: key.to_string(), line: line_of(text, last), why }
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.find(mark).map(|at| &text[at + mark.len()..])
}

/// Where a key is set, as ` (line 7: slots = "x")`; empty when that is not clear.
fn line_of(text: &str, key: &str) -> String {
    let sets = |line: &str| {
        let line = line.trim_start().trim_start_matches('[');
        line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(['=', ']', '.']))
    };
    let mut lines = text.lines().enumerate().filter(|(_, line)| sets(line));
    match (lines.next(), lines.next()) {
        (Some((index, line)), None) => {
            format!(" (line {}: {})", index + 1, line.trim().chars().take(80).collect::<String>())
        }
        _ => String::new(),
    }
}
