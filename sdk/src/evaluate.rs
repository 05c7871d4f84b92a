//! What of a context mattered: an engine of the cluster scores recorded calls, and generates nothing.

use crate::client::Client;
use crate::data::{Evaluation, RecordedCall};
use crate::error::Error;
use crate::retry::{Kind, Policy};
use proto::v1;
use proto::v1::evaluate_context_request::Of;
use std::time::Duration;

/// As long as an answer is waited for, where nobody says how long.
const PATIENCE: Duration = Duration::from_secs(3600);

/// An evaluation in the making. The same question has the same answer, so asking again does no harm but costs again.
#[derive(Clone, Debug)]
pub struct Evaluate<'a> {
    client: &'a Client,
    message: v1::EvaluateContextRequest,
    patience: Duration,
}

impl<'a> Evaluate<'a> {
    fn new(client: &'a Client, of: Of) -> Self {
        let project = client.project().to_string();
        let message = v1::EvaluateContextRequest { project, of: Some(of), ..Default::default() };
        Evaluate { client, message, patience: PATIENCE }
    }

    pub(crate) fn task(client: &'a Client, task: String) -> Self {
        Evaluate::new(client, Of::Task(v1::TaskCalls { task, ..Default::default() }))
    }

    pub(crate) fn calls(client: &'a Client, calls: Vec<RecordedCall>) -> Self {
        let calls = calls.into_iter().map(Into::into).collect();
        Evaluate::new(client, Of::Calls(v1::RecordedCalls { calls }))
    }

    /// The step that called the model, in place of the last one that did.
    pub fn step(mut self, step: u64) -> Self {
        if let Some(Of::Task(task)) = &mut self.message.of {
            task.step = step;
        }
        self
    }

    /// All calls of the task and of every task below it, and what readers did not get.
    pub fn team(mut self) -> Self {
        if let Some(Of::Task(task)) = &mut self.message.of {
            task.team = true;
        }
        self
    }

    /// A model that a node has loaded, in place of the task's own.
    pub fn model(mut self, model: impl Into<String>) -> Self {
        self.message.model = model.into();
        self
    }

    /// At most so many computed tokens; calls beyond are listed as skipped. One million where nothing is said.
    pub fn budget_tokens(mut self, tokens: u64) -> Self {
        self.message.budget_tokens = tokens;
        self
    }

    /// Audits every call by exact removal, not one in twenty.
    pub fn audit_all(mut self) -> Self {
        self.message.audit_all = true;
        self
    }

    /// Also the smallest context of each call.
    pub fn suggest(mut self) -> Self {
        self.message.suggest = true;
        self
    }

    /// Also a page of HTML. It holds the texts.
    pub fn page(mut self) -> Self {
        self.message.page = true;
        self
    }

    /// How long to wait for the answer; an hour where nothing is said. Giving up ends the work.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Asks, and waits.
    ///
    /// # Errors
    /// `NO_SUCH_MODEL` where no node has loaded the model, `CONTEXT_TOO_LONG` and `EVALUATION_BUDGET` where no call could be
    /// evaluated, `MASKING_UNFIT` where the report's own audit refuses it.
    pub async fn send(self) -> Result<Evaluation, Error> {
        let wait_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX / 2);
        let mut patient = self.client.clone();
        patient.policy = Policy { deadline_ms: wait_ms, attempt_ms: wait_ms, ..patient.policy };
        let call = patient.call(Kind::Repeatable, |via| {
            let message = self.message.clone();
            async move { via.context().evaluate_context(via.request(message)).await }
        });
        Ok(call.await?.into())
    }
}
