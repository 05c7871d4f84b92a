//! Requests and answers of evaluations as messages: the door of any node and the plane of the node that computes
//! speak the same ones.

use super::{BUDGET_TOKENS, CALLS, Evaluated, Failed, Order, Suggested};
use crate::accounts::NotBegun;
use crate::door::status;
use evaluate::{Audit, Call, Flaw, Over, Segment, Settings};
use proto::v1 as pb;
use proto::v1::evaluate_context_request::Of;
use tonic::{Code, Status};
use types::ProjectName;

/// The order in a request that has its calls in it.
pub(crate) fn order(
    request: pb::EvaluateContextRequest,
    project: ProjectName,
    author: String,
) -> Result<Order, Status> {
    let Some(Of::Calls(recorded)) = request.of else {
        return Err(status::invalid("of", "name a task, or give recorded calls"));
    };
    let calls: Vec<Call> = recorded.calls.into_iter().enumerate().map(call).collect();
    check(&calls)?;
    let audit = if request.audit_all { Audit::All } else { Audit::Some };
    let budget = if request.budget_tokens == 0 { BUDGET_TOKENS } else { request.budget_tokens };
    let settings = Settings { audit, budget_tokens: Some(budget), ..Settings::default() };
    Ok(Order {
        model: request.model,
        project,
        calls,
        settings,
        suggest: request.suggest,
        author: Some(author),
    })
}

fn check(calls: &[Call]) -> Result<(), Status> {
    if calls.is_empty() {
        return Err(status::invalid("calls", "there is none; give at least one recorded call"));
    }
    if calls.len() > CALLS {
        let why = format!("{} given, at most {CALLS}; evaluate them in parts", calls.len());
        return Err(status::invalid("calls", &why));
    }
    let flawed = |(at, call): (usize, &Call)| call.check().map_err(|flaw| flaw_at(at, &flaw));
    calls.iter().enumerate().try_for_each(flawed)
}

fn flaw_at(at: usize, flaw: &Flaw) -> Status {
    status::invalid(&format!("calls[{at}].{}", flaw.field), &flaw.what)
}

fn call((at, call): (usize, pb::RecordedCall)) -> Call {
    let segments = |all: Vec<pb::RecordedSegment>| all.into_iter().map(segment).collect::<Vec<_>>();
    let withheld = (!call.withheld.is_empty()).then(|| segments(call.withheld));
    Call {
        name: if call.name.is_empty() { (at + 1).to_string() } else { call.name },
        segments: segments(call.segments),
        reader: call.reader,
        probe: call.probe,
        action: call.action,
        withheld,
    }
}

fn segment(it: pb::RecordedSegment) -> Segment {
    Segment { replaces: it.replaces, ..Segment::new(it.id, it.owner, it.kind, it.text) }
}

/// Calls of a journal, on their way to the node that has the engine.
pub(crate) fn recorded(calls: Vec<Call>) -> Of {
    let segment = |it: Segment| pb::RecordedSegment {
        id: it.id,
        owner: it.owner,
        kind: it.kind,
        text: it.text,
        replaces: it.replaces,
    };
    let call = |it: Call| pb::RecordedCall {
        name: it.name,
        segments: it.segments.into_iter().map(segment).collect(),
        reader: it.reader,
        probe: it.probe,
        action: it.action,
        withheld: it.withheld.unwrap_or_default().into_iter().map(segment).collect(),
    };
    Of::Calls(pb::RecordedCalls { calls: calls.into_iter().map(call).collect() })
}

/// What is answered. `page`: with the texts of the calls, as HTML.
pub(crate) fn answer(done: &Evaluated, model: String, page: bool) -> pb::EvaluateContextResponse {
    let report = &done.report;
    let evaluated = || report.calls.iter().map(|call| done.calls[call.index].clone()).collect::<Vec<_>>();
    let suggestions = done.suggestions.iter().map(|found| match found {
        Ok(found) => serde_json::to_string(found).unwrap_or_default(),
        Err((call, why)) => serde_json::json!({ "call": call, "none": why.to_string() }).to_string(),
    });
    pb::EvaluateContextResponse {
        report: report.json(),
        suggestions: suggestions.collect(),
        table: evaluate::table(report),
        suggested: done.suggestions.iter().map(lines).collect(),
        page: if page { evaluate::html(report, &evaluated()) } else { String::new() },
        model,
        node: String::new(),
        tokens_spent: done.tokens_spent(),
    }
}

fn lines(found: &Suggested) -> String {
    match found {
        Ok(found) => found.lines(),
        Err((call, why)) => format!("call {call}: {why}\n"),
    }
}

/// What failed, in the words of the API.
pub(crate) fn refused(failed: Failed) -> Status {
    let text = failed.to_string();
    let error = |code, reason, next| status::error(code, reason, &text, next);
    match failed {
        Failed::NoModel { .. } => error(
            Code::FailedPrecondition,
            "NO_SUCH_MODEL",
            "`quorate model list --cluster` shows what is loaded; name one of them",
        ),
        Failed::NotBegun(NotBegun::Refused(refusal)) => status::from_refusal(refusal),
        Failed::NotBegun(NotBegun::Unheard(failed)) => status::from_client(failed),
        Failed::NotBegun(NotBegun::Odd(_)) => error(Code::Unavailable, "NOT_RESERVED", "try again"),
        Failed::Short { .. } => error(
            Code::ResourceExhausted,
            "QUOTA_EXCEEDED",
            "raise the limit with `quorate quota set`, or wait",
        ),
        Failed::Busy => error(Code::Unavailable, "EVALUATOR_BUSY", "wait until one of them has ended"),
        Failed::Nothing { over: Over::Window, .. } => error(
            Code::FailedPrecondition,
            "CONTEXT_TOO_LONG",
            "name a loaded model with a longer window, or give shorter calls",
        ),
        Failed::Nothing { over: Over::Budget, .. } => {
            error(Code::ResourceExhausted, "EVALUATION_BUDGET", "raise `budget_tokens`, or give fewer calls")
        }
        Failed::Refused(_) => error(
            Code::FailedPrecondition,
            "MASKING_UNFIT",
            "evaluate with another model, or without this call",
        ),
        Failed::Engine(_) => error(Code::Unavailable, "NO_SCORES", "try again; the node's log says more"),
    }
}
