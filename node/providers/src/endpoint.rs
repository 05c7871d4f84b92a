//! What an operator writes about one model at one provider: an entry of `[[provider]]`.
//!
//! ```toml
//! [[provider]]
//! name = "gpt"                             # the model's name for agents
//! kind = "openai"                          # or "anthropic"
//! url = "https://api.openai.com/v1"        # without /chat/completions or /messages
//! model = "gpt-4.1-mini"                   # its name at the provider
//! key_file = "/etc/quorate/openai.key"     # or key_env = "OPENAI_API_KEY"; neither: no key is sent
//! window = 1000000                         # tokens of prompt and answer together
//! max_output = 32768                       # tokens of one answer at most
//! ```

use crate::bounds::{CONCURRENCY, HEADERS};
use crate::key::KeySource;
use crate::setup::SetupError;
use reqwest::Url;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One model at one provider.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// The model's name for agents.
    pub name: String,
    pub kind: Kind,
    /// Up to and with `/v1`.
    pub url: String,
    /// The model's name at the provider.
    pub model: String,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    #[serde(default)]
    pub key_env: Option<String>,
    /// Tokens of prompt and answer together.
    pub window: u64,
    /// Tokens of one answer at most.
    pub max_output: u32,
    /// Whether the model calls tools.
    #[serde(default = "yes")]
    pub tools: bool,
    /// Ask for answers piece by piece.
    #[serde(default = "yes")]
    pub stream: bool,
    /// `max_completion_tokens` instead of `max_tokens`: what OpenAI's models that think want.
    #[serde(default)]
    pub max_completion_tokens: bool,
    /// Ask Anthropic to keep prompts. Writing them costs more than plain input: price `input` accordingly.
    #[serde(default)]
    pub prompt_cache: bool,
    #[serde(default)]
    pub timeouts: Timeouts,
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Sent with every request. Values are treated as secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// PEM file of the only authorities to trust; else the machine's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy; the environment's is not used.
    #[serde(default)]
    pub proxy: Option<String>,
    /// Send the key without encryption beyond this machine.
    #[serde(default)]
    pub plaintext: bool,
    #[serde(default)]
    pub cassette: Option<Cassette>,
}

/// Which API is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `POST /chat/completions`, as many servers offer it.
    OpenAi,
    /// `POST /messages`.
    Anthropic,
}

/// How long is waited. All of it ends at the call's deadline, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    pub connect_ms: u64,
    /// Until the first piece of an answer; the provider's queue is in it.
    pub first_ms: u64,
    /// Between two pieces. Comments and pings are none.
    pub idle_ms: u64,
    /// One exchange from beginning to end.
    pub total_ms: u64,
}

/// Calls at the same time to one destination. It adapts between one and `most`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Concurrency {
    pub start: u32,
    pub most: u32,
}

/// Answers from files instead of the provider.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassette {
    pub mode: CassetteMode,
    pub folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CassetteMode {
    /// Ask the provider, and keep its answers.
    Record,
    /// Never ask the provider.
    Replay,
}

fn yes() -> bool {
    true
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect_ms: 5_000, first_ms: 120_000, idle_ms: 30_000, total_ms: 600_000 }
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Concurrency { start: 8, most: 64 }
    }
}

impl Endpoint {
    pub fn key_source(&self) -> KeySource {
        match (&self.key_file, &self.key_env) {
            (Some(path), _) => KeySource::File(path.clone()),
            (None, Some(name)) => KeySource::Env(name.clone()),
            (None, None) => KeySource::None,
        }
    }

    /// Makes paths that a configuration file names relative to its folder.
    pub fn relative_to(&mut self, folder: &std::path::Path) {
        let cassette = self.cassette.as_mut().map(|cassette| &mut cassette.folder);
        for path in [self.key_file.as_mut(), self.ca_file.as_mut(), cassette].into_iter().flatten() {
            *path = folder.join(&*path);
        }
    }

    /// What calls share that go to the same place: scheme, host and port.
    pub fn destination(&self) -> Result<String, SetupError> {
        Ok(self.base()?.origin().ascii_serialization())
    }

    /// Checks what the types cannot say; an error names the key and what to write.
    pub fn check(&self) -> Result<(), SetupError> {
        let base = self.base()?;
        if self.key_file.is_some() && self.key_env.is_some() {
            return Err(self.wrong("key_file and key_env", "there are two", "keep one of them"));
        }
        if self.model.is_empty() {
            return Err(self.wrong("model", "it is empty", "write the model's name at the provider"));
        }
        let has_key = self.key_source() != KeySource::None || !self.headers.is_empty();
        if base.scheme() == "http" && has_key && !self.plaintext && !is_loopback(&base) {
            let next = "use https, or write plaintext = true if the network between is yours";
            return Err(self.wrong("url", "the key would travel without encryption", next));
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), SetupError> {
        if self.max_output == 0 || u64::from(self.max_output) > self.window {
            return Err(self.wrong(
                "max_output",
                "it must be 1 to window",
                "see the provider's page of the model",
            ));
        }
        let Concurrency { start, most } = self.concurrency;
        if start == 0 || start > most || most > CONCURRENCY {
            let why = "1 <= start <= most <= 1024 does not hold";
            return Err(self.wrong("concurrency", why, "start low: it grows by itself"));
        }
        let Timeouts { connect_ms, first_ms, idle_ms, total_ms } = self.timeouts;
        if [connect_ms, first_ms, idle_ms, total_ms].contains(&0) {
            return Err(self.wrong("timeouts", "one is 0, so that every call would fail", "leave it out"));
        }
        if self.headers.len() > HEADERS {
            return Err(self.wrong("headers", "there are too many", "32 at most"));
        }
        Ok(())
    }

    fn base(&self) -> Result<Url, SetupError> {
        let wrong = |why| self.wrong("url", why, "write it like https://api.openai.com/v1");
        let url = Url::parse(&self.url).map_err(|_| wrong("it is not a URL"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong("it is not http or https"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(wrong("it holds a user, a password or a query; keys belong into key_file"));
        }
        Ok(url)
    }

    /// Where calls go.
    pub(crate) fn call_url(&self) -> Result<Url, SetupError> {
        let mut url = self.base()?;
        let path = match self.kind {
            Kind::OpenAi => "chat/completions",
            Kind::Anthropic => "messages",
        };
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        Ok(url)
    }

    pub(crate) fn wrong(&self, key: &'static str, why: &'static str, next: &'static str) -> SetupError {
        SetupError::Wrong { provider: self.name.clone(), key, why, next }
    }
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Header values and the URL's text stay out.
impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("destination", &self.destination().ok())
            .field("model", &self.model)
            .field("key", &self.key_source())
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: &str = "name = 'm'\nkind = 'openai'\nurl = 'https://api.example.com/v1/'\nmodel = 'x'\nwindow = 100\nmax_output = 50\n";

    fn endpoint(more: &str) -> Endpoint {
        toml::from_str(&format!("{SHORT}{more}")).expect("an endpoint")
    }

    fn refusal(change: impl Fn(&mut Endpoint)) -> String {
        let mut endpoint = endpoint("");
        change(&mut endpoint);
        endpoint.check().expect_err("refused").to_string()
    }

    #[test]
    fn a_short_entry_is_enough_and_unknown_keys_are_refused() {
        let short = endpoint("");
        short.check().expect("right");
        assert_eq!(short.call_url().expect("a url").as_str(), "https://api.example.com/v1/chat/completions");
        assert_eq!(short.destination().expect("a place"), "https://api.example.com");
        assert!(short.tools && short.stream && short.cassette.is_none());
        let unknown: Result<Endpoint, _> = toml::from_str(&format!("{SHORT}colour = 'red'"));
        assert!(unknown.unwrap_err().to_string().contains("unknown field `colour`"));
        let long = "key_env = 'K'\ntools = false\ncassette = { mode = 'replay', folder = 'tapes' }\n[concurrency]\nstart = 1\nmost = 2\n";
        let mut long = endpoint(&format!("{long}[timeouts]\nidle_ms = 5\n[headers]\nx-team = 'secret'\n"));
        long.check().expect("right");
        long.relative_to(std::path::Path::new("/etc/q"));
        assert_eq!(long.cassette.as_ref().expect("one").folder, PathBuf::from("/etc/q/tapes"));
        assert_eq!(long.timeouts.first_ms, 120_000);
        assert!(!format!("{long:?}").contains("secret"), "{long:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_next_step() {
        assert!(refusal(|e| e.url = "ftp://x".into()).contains("it is not http or https"));
        assert!(refusal(|e| e.url = "https://user:sesame@x/v1".into()).contains("keys belong into key_file"));
        assert!(!refusal(|e| e.url = "https://user:sesame@x/v1".into()).contains("sesame"));
        assert!(
            refusal(|e| (e.key_file, e.key_env) = (Some("a".into()), Some("B".into()))).contains("keep one")
        );
        assert!(refusal(|e| e.max_output = 101).contains("1 to window"));
        assert!(refusal(|e| e.concurrency.start = 65).contains("start low"));
        assert!(refusal(|e| e.timeouts.idle_ms = 0).contains("timeouts"));
        let plain = |url: &str| Endpoint { url: url.into(), key_env: Some("K".into()), ..endpoint("") };
        assert!(
            plain("http://gpu-box:8000/v1").check().unwrap_err().to_string().contains("plaintext = true")
        );
        Endpoint { plaintext: true, ..plain("http://gpu-box:8000/v1") }.check().expect("as it is written");
        for near in ["http://127.0.0.1:8000/v1", "http://[::1]:8000/v1", "http://localhost/v1"] {
            plain(near).check().expect("on this machine");
        }
    }
}
