//! `context eval` and `context suggest`: recorded calls scored by an engine of this process, without a cluster.

use super::engine::load;
use crate::evaluating::{EngineScorer, PartsScorer, ScoreFailure, sha256};
use anyhow::Context;
use evaluate::{Audit, Call, Form, Report, Scorer, Settings};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// Where recorded calls are, and what scores them.
pub struct Recorded {
    pub model: String,
    pub file: PathBuf,
    /// The file has OpenAI's chat logs.
    pub openai: bool,
    /// Engine threads; 0 lets the engine choose.
    pub threads: usize,
    /// Every call is audited, not one in twenty.
    pub audit_all: bool,
    /// Every segment of every call is.
    pub exact: bool,
    /// Segments are read each by itself, and so many tokens of each once more behind all before it.
    pub independent: Option<usize>,
    /// At most so many computed tokens.
    pub budget_tokens: Option<u64>,
    pub json: bool,
}

impl Recorded {
    fn calls(&self) -> anyhow::Result<Vec<Call>> {
        let form = if self.openai { Form::OpenAi } else { Form::Calls };
        let file = File::open(&self.file).with_context(|| format!("opening {}", self.file.display()))?;
        evaluate::read(BufReader::new(file), form).with_context(|| format!("reading {}", self.file.display()))
    }

    fn settings(&self) -> Settings {
        let audit = match (self.exact, self.audit_all) {
            (true, _) => Audit::Every,
            (false, true) => Audit::All,
            (false, false) => Audit::Some,
        };
        Settings { audit, budget_tokens: self.budget_tokens, ..Settings::default() }
    }

    fn scorer(&self) -> anyhow::Result<Box<dyn Scorer<Error = ScoreFailure>>> {
        let path = super::model_path(&self.model)?;
        let sha256 = sha256(&path).with_context(|| format!("reading {}", path.display()))?;
        let engine = load(&self.model, self.threads)?;
        Ok(match self.independent {
            Some(again) => Box::new(PartsScorer::own(engine, sha256, again)?),
            None => Box::new(EngineScorer::own(engine, sha256)?),
        })
    }
}

/// Prints what of each call's context mattered, and writes a page of it where one is wanted.
pub fn context_eval(recorded: &Recorded, html: Option<&Path>) -> anyhow::Result<()> {
    let calls = recorded.calls()?;
    let report = evaluate::evaluate(&calls, &recorded.settings(), &mut recorded.scorer()?)?;
    if let Some(file) = html {
        let page = evaluate::html(&report, &evaluated(&calls, &report));
        std::fs::write(file, page).with_context(|| format!("writing {}", file.display()))?;
        eprintln!("the page is in {}", file.display());
    }
    print!("{}", if recorded.json { report.json() } else { evaluate::table(&report) });
    Ok(())
}

/// The calls that the report is about, in its order.
fn evaluated(calls: &[Call], report: &Report) -> Vec<Call> {
    report.calls.iter().map(|call| calls[call.index].clone()).collect()
}

/// Prints what each call could have done without, and the rules that would give it.
pub fn context_suggest(recorded: &Recorded) -> anyhow::Result<()> {
    let calls = recorded.calls()?;
    let (settings, mut scorer) = (recorded.settings(), recorded.scorer()?);
    for call in &calls {
        match evaluate::suggest(call, &settings, &mut scorer)? {
            Ok(found) if recorded.json => say!("{}", serde_json::to_string(&found)?),
            Ok(found) => print!("{}", found.lines()),
            Err(why) if recorded.json => {
                say!("{}", serde_json::json!({ "call": call.name, "none": why.to_string() }));
            }
            Err(why) => say!("call {}: {why}", call.name),
        }
    }
    Ok(())
}
