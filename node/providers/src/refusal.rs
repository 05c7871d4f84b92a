//! What a refusal by HTTP status means: whether to try again, whether it may have cost, what to do. Pure.
//!
//! An error answer is the provider's word that it did not work: the APIs do not bill it. The exceptions are 408, 502 and
//! 504: there a machine in between lost patience with one behind it that may still be working.

use crate::answer::{Failure, Reason};
use crate::bounds::QUOTED_BYTES;
use crate::json::text_at;
use serde_json::Value;

/// A refusal as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    pub(crate) status: u16,
    pub(crate) body: &'a str,
    pub(crate) retry_after_ms: Option<u64>,
    /// Scheme, host and port.
    pub(crate) destination: &'a str,
    /// The model's name at the provider.
    pub(crate) model: &'a str,
}

/// A provider's own words in its error's body.
struct Said {
    code: String,
    message: String,
}

impl Said {
    /// Both forms: `{"error": {"message", "code" or "type"}}`; some servers send `{"message"}`, `{"detail"}` or plain text.
    fn read(body: &str) -> Said {
        let json: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let first = |paths: &[&[&str]]| paths.iter().find_map(|path| text_at(&json, path)).map(String::from);
        let code = first(&[&["error", "code"], &["error", "type"], &["code"], &["type"]]).unwrap_or_default();
        let message = first(&[&["error", "message"], &["message"], &["detail"], &["error"]]);
        Said { code, message: message.unwrap_or_else(|| body.trim().to_string()) }
    }

    fn is_about_length(&self) -> bool {
        let words =
            ["context length", "context window", "context size", "prompt is too long", "too many tokens"];
        let message = self.message.to_lowercase();
        self.code.contains("context_length") || words.iter().any(|word| message.contains(word))
    }

    fn is_about_money(&self) -> bool {
        let message = self.message.to_lowercase();
        matches!(self.code.as_str(), "insufficient_quota" | "billing_error" | "billing_hard_limit_reached")
            || message.contains("credit balance")
    }
}

/// At most so many bytes of what somebody else wrote, in one line.
pub(crate) fn quoted(text: &str) -> String {
    let mut end = text.len().min(QUOTED_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let line = text[..end].split_whitespace().collect::<Vec<_>>().join(" ");
    if end < text.len() { format!("{line} …") } else { line }
}

impl Refused<'_> {
    pub(crate) fn failure(&self) -> Failure {
        let said = Said::read(self.body);
        let words = if said.message.is_empty() { "nothing".to_string() } else { quoted(&said.message) };
        let told = |what: &str, next: &str| {
            let Refused { status, destination, .. } = self;
            format!("{destination} answered {status}, {what}: {words:?}; {next}")
        };
        let lasting = |reason, what: &str, next: &str| Failure::lasting(reason, told(what, next));
        let passing = |reason, what: &str| {
            Failure::passing(reason, told(what, "the call may be made again")).after(self.retry_after_ms)
        };
        let model = self.model;
        match self.status {
            300..=399 => lasting(
                Reason::Redirected,
                "which points elsewhere",
                "nobody follows because the key would; write the final address as url of the provider",
            ),
            400 | 413 | 422 if said.is_about_length() => lasting(
                Reason::ContextTooLong,
                "the prompt is longer than its window",
                "give the agent less text, or correct window of the provider",
            ),
            _ if said.is_about_money() => lasting(
                Reason::NoCredit,
                "the account is out of money or quota",
                "pay or raise the limit at the provider, then resume the task",
            ),
            401 => lasting(
                Reason::KeyRefused,
                "it does not take the key",
                "write a valid key into key_file (or key_env) and send the node SIGHUP",
            ),
            402 => {
                lasting(Reason::NoCredit, "it wants to be paid", "pay at the provider, then resume the task")
            }
            403 => lasting(
                Reason::Forbidden,
                "the key may not do that",
                &format!("let it use the model {model:?} at the provider, or take another key"),
            ),
            404 | 405 => lasting(
                Reason::NoSuchModel,
                "there is no such model or address",
                &format!("check model = {model:?} and url (with /v1) of the provider"),
            ),
            408 | 502 | 504 => Failure::unknown(
                Reason::TimedOut,
                told(
                    "the machine behind it did not answer in time and may still work",
                    "the call is settled at what was set aside, and may be made again",
                ),
            )
            .after(self.retry_after_ms),
            429 => passing(Reason::RateLimited, "there are too many requests"),
            503 | 529 => passing(Reason::Overloaded, "it is overloaded"),
            409 | 425 => passing(Reason::ProviderError, "it can't do it now"),
            500..=599 => passing(Reason::ProviderError, "it failed"),
            _ => lasting(
                Reason::BadRequest,
                "it does not take the request",
                "see its words; a field that it does not know is switched in the provider's entry",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(status: u16, body: &str) -> Failure {
        let refused = Refused {
            status,
            body,
            retry_after_ms: Some(7),
            destination: "https://api.example.com",
            model: "m-1",
        };
        refused.failure()
    }

    #[test]
    fn each_status_says_whether_to_try_again_and_whether_it_may_have_cost() {
        use Reason::*;
        for (status, reason, retriable, unknown) in [
            (301, Redirected, false, false),
            (307, Redirected, false, false),
            (400, BadRequest, false, false),
            (401, KeyRefused, false, false),
            (402, NoCredit, false, false),
            (403, Forbidden, false, false),
            (404, NoSuchModel, false, false),
            (408, TimedOut, true, true),
            (418, BadRequest, false, false),
            (422, BadRequest, false, false),
            (429, RateLimited, true, false),
            (500, ProviderError, true, false),
            (502, TimedOut, true, true),
            (503, Overloaded, true, false),
            (504, TimedOut, true, true),
            (529, Overloaded, true, false),
        ] {
            let failure = failure(status, "{}");
            assert_eq!(
                (failure.reason, failure.retriable, failure.unknown),
                (reason, retriable, unknown),
                "{status}"
            );
            assert_eq!(failure.retry_after_ms, retriable.then_some(7), "{status}");
            assert!(failure.message.contains("https://api.example.com answered"), "{}", failure.message);
            assert!(failure.message.contains("; "), "what to do next: {}", failure.message);
        }
    }

    #[test]
    fn the_providers_words_decide_where_the_status_does_not() {
        let openai = r#"{"error":{"message":"This model's maximum context length is 8192","code":"context_length_exceeded"}}"#;
        assert_eq!(failure(400, openai).reason, Reason::ContextTooLong);
        let anthropic = r#"{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 9 > 8"}}"#;
        assert_eq!(failure(400, anthropic).reason, Reason::ContextTooLong);
        let broke = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        assert_eq!((failure(429, broke).reason, failure(429, broke).retriable), (Reason::NoCredit, false));
        assert!(failure(404, "nothing here").message.contains("model = \"m-1\""));
        assert!(failure(401, "").message.contains("SIGHUP"));
    }

    #[test]
    fn quotes_are_short_and_one_line() {
        assert_eq!(quoted("a\n  b"), "a b");
        let long = quoted(&"ü".repeat(1000));
        assert!(long.len() <= QUOTED_BYTES + 5 && long.ends_with('…'));
        assert!(failure(500, &"x".repeat(100_000)).message.len() < 600);
    }
}
