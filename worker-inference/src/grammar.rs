//! Answers that must have a form: a JSON schema becomes a machine that says, before each token, which ones may come.
//!
//! The machine is llguidance's; it is fed from our own vocabulary. It is compiled where a request is taken in, not
//! where the engine steps, so a schema that can't be met is refused before anything runs. A request without a grammar
//! never comes near it.

mod vocabulary;

use std::fmt;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{InferenceCapabilities, SimpleVob};
use llguidance::{JsonCompileOptions, Matcher, ParserFactory};

use crate::tokenizer::Tokenizer;

/// Bytes of a schema.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Symbols of a grammar; large published schemas have 200,000.
const GRAMMAR_SIZE_MAX: usize = 200_000;
/// States that the recogniser of one answer may grow to, at 1 to 2 kB each.
const STATES_MAX: usize = 16_384;

/// Why there is no grammar for a schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    #[error("the JSON schema has {bytes} bytes, {SCHEMA_BYTES_MAX} are possible; make it smaller")]
    TooLarge { bytes: usize },
    #[error("the JSON schema is no JSON object: {0}")]
    NotJson(String),
    #[error("no answer can follow the JSON schema: {0}; change the schema")]
    Schema(String),
    #[error("this model's vocabulary can't be constrained: {0}; use another model or leave the schema out")]
    Vocabulary(String),
}

/// Compiles grammars for one vocabulary. Making it takes tens of milliseconds; share it.
pub struct Grammars {
    factory: ParserFactory,
}

/// A compiled form with the state of one answer.
pub struct Grammar {
    schema: String,
    matcher: Matcher,
}

impl Grammars {
    /// For a tokenizer, whose model gives `vocabulary` logits.
    pub fn new(tokenizer: &Tokenizer, vocabulary: usize) -> Result<Grammars, GrammarError> {
        let environment = vocabulary::environment(tokenizer, vocabulary)?;
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let caps = InferenceCapabilities {
            ff_tokens: false,
            conditional_ff_tokens: false,
            backtrack: false,
            fork: false,
        };
        let mut factory = ParserFactory::new(&environment, caps, &slices)
            .map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.max_grammar_size = GRAMMAR_SIZE_MAX;
        limits.max_lexer_states = STATES_MAX;
        limits.verbose_errors = false;
        Ok(Grammars { factory })
    }

    /// A grammar whose answers are JSON without needless white space that fits `schema`, a JSON object as text.
    pub fn schema(&self, schema: &str) -> Result<Grammar, GrammarError> {
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(GrammarError::TooLarge { bytes: schema.len() });
        }
        let mut value: serde_json::Value =
            serde_json::from_str(schema).map_err(|error| GrammarError::NotJson(error.to_string()))?;
        if !value.is_object() {
            return Err(GrammarError::NotJson("it must begin with {".into()));
        }
        // One space where people put one: models were trained on it. Free white space lets small ones go on for ever.
        let options = JsonCompileOptions {
            item_separator: ", ".into(),
            key_separator: ": ".into(),
            whitespace_flexible: false,
            ..JsonCompileOptions::default()
        };
        options.apply_to(&mut value);
        let compile = || Matcher::new(self.factory.create_parser(TopLevelGrammar::from_json_schema(value)));
        // What a stranger sends must not end the process, even where the library is wrong.
        let matcher = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile))
            .map_err(|_| GrammarError::Schema("it can't be compiled".into()))?;
        match matcher.get_error() {
            Some(error) => Err(GrammarError::Schema(first_line(&error))),
            None => Ok(Grammar { schema: schema.to_owned(), matcher }),
        }
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grammars")
    }
}

/// What may come next.
pub(crate) enum Next {
    /// These tokens.
    Some(SimpleVob),
    /// Nothing: the grammar grew too complex.
    Stuck,
}

impl Grammar {
    /// The tokens that may come next; the model's ends are among them where the answer may end.
    pub(crate) fn next(&mut self) -> Next {
        self.matcher.compute_mask_or_eos().map_or(Next::Stuck, Next::Some)
    }

    /// Takes a token that was allowed. False when the grammar can't go on from here.
    pub fn take(&mut self, token: u32) -> bool {
        self.matcher.consume_token(token).is_ok()
    }

    /// The answer is whole and nothing can follow.
    pub(crate) fn is_over(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }
}

impl Clone for Grammar {
    /// The clone goes its own way from here.
    fn clone(&self) -> Self {
        Grammar { schema: self.schema.clone(), matcher: self.matcher.deep_clone() }
    }
}

impl PartialEq for Grammar {
    /// The same form asked for.
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grammar").field("schema", &self.schema).finish_non_exhaustive()
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}
