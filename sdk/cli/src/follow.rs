//! A task followed on the screen.

use crate::failure::{Failure, failed};
use crate::output::{Format, Out, printable};
use crate::task;
use quorate_sdk::data::{Event, EventKind, StepRoute};
use quorate_sdk::{Client, Code, Watch};

/// What is shown while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Text on stdout, the rest as notes: the end of stdout is the result.
    Text,
    /// Text and events on stdout.
    Everything,
    /// Events as JSON.
    Lines,
    Silent,
}

/// Follows until the final event. Ctrl-C stops the following, not the task.
pub(crate) async fn follow(
    client: &Client,
    id: &str,
    from: u64,
    style: Style,
    out: &mut Out<'_>,
) -> Result<Shown, Failure> {
    let mut watch = client.tasks().watch(id).from(from);
    if style == Style::Silent {
        watch = watch.without_tokens();
    }
    let mut shown = Shown::new(style);
    let done = until_the_end(&mut watch, id, &mut shown, out).await;
    if style == Style::Lines && out.format == Format::Json && (done.is_ok() || shown.events > 0) {
        // However it ended: what was printed is one JSON value.
        out.end_of_elements(shown.events == 0)?;
    }
    done.map(|()| shown)
}

async fn until_the_end(
    watch: &mut Watch,
    id: &str,
    shown: &mut Shown,
    out: &mut Out<'_>,
) -> Result<(), Failure> {
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        let event = tokio::select! {
            event = watch.next() => event,
            _ = &mut interrupted => return Err(detached(id, watch.next_sequence())),
        };
        match event {
            Ok(Some(event)) => shown.show(&event, out)?,
            Ok(None) => return Ok(()),
            Err(mut error) => {
                if error.code == Code::Unavailable {
                    error.next = Some(go_on(id, watch.next_sequence()));
                }
                return Err(error.into());
            }
        }
    }
}

fn go_on(id: &str, sequence: u64) -> String {
    format!("the task goes on without you; follow it again with `quorate task watch {id} --from {sequence}`")
}

fn detached(id: &str, sequence: u64) -> Failure {
    failed(Code::Cancelled, "INTERRUPTED", "stopped watching", &go_on(id, sequence))
}

/// What the screen has of a task.
pub(crate) struct Shown {
    style: Style,
    events: u64,
    step: u64,
    /// Text of the newest step, as it stands on stdout.
    text: String,
    /// The last line of stdout has no end yet.
    open_line: bool,
    /// A line was ended that the text did not end.
    interrupted: bool,
}

impl Shown {
    pub(crate) fn new(style: Style) -> Shown {
        Shown { style, events: 0, step: 0, text: String::new(), open_line: false, interrupted: false }
    }

    pub(crate) fn show(&mut self, event: &Event, out: &mut Out<'_>) -> Result<(), Failure> {
        let first = self.events == 0;
        self.events += 1;
        match self.style {
            Style::Silent => Ok(()),
            Style::Lines => out.element(event, first),
            Style::Text | Style::Everything => match &event.kind {
                EventKind::Token { step, text, .. } => self.on_text(*step, text, out),
                EventKind::Retract { .. } => {
                    // What comes next must not stand in one line with what is void.
                    self.end_line(out)?;
                    self.text.clear();
                    self.interrupted = false;
                    self.say(&words(event), out)
                }
                EventKind::State { .. } | EventKind::Step { .. } | EventKind::Gap { .. } => {
                    self.say(&words(event), out)
                }
            },
        }
    }

    /// Ends stdout with the result. What of it stands there already is not said again; live text may lack its end.
    pub(crate) fn finish(mut self, result: Option<&str>, out: &mut Out<'_>) -> Result<(), Failure> {
        let Some(result) = result else { return self.end_line(out) };
        let rest = result.trim_start().strip_prefix(self.text.trim_start());
        match rest {
            Some(rest) if rest.trim().is_empty() => self.end_line(out),
            Some(rest) if !self.interrupted => out.line(rest),
            Some(_) | None => {
                self.end_line(out)?;
                out.line(result)
            }
        }
    }

    fn on_text(&mut self, step: u64, text: &str, out: &mut Out<'_>) -> Result<(), Failure> {
        if step != self.step {
            self.end_line(out)?;
            self.text.clear();
            self.step = step;
        } else if self.interrupted {
            self.text.push('\n');
        }
        self.interrupted = false;
        self.text.push_str(text);
        self.open_line = !text.ends_with('\n');
        out.text(text)
    }

    fn say(&mut self, line: &str, out: &mut Out<'_>) -> Result<(), Failure> {
        // Text ends anywhere in a line; where both share a screen, what is said about it begins a new one.
        if self.style == Style::Everything || out.is_terminal() {
            self.interrupted |= self.open_line;
            self.end_line(out)?;
        }
        if self.style == Style::Text {
            return out.note(line);
        }
        out.line(&crate::output::printable(line))
    }

    fn end_line(&mut self, out: &mut Out<'_>) -> Result<(), Failure> {
        if std::mem::take(&mut self.open_line) { out.line("") } else { Ok(()) }
    }
}

fn words(event: &Event) -> String {
    let number = event.sequence;
    match &event.kind {
        EventKind::State { state, reason, node, .. } => {
            let on = node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            let why = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
            format!("#{number} {}{on}{why}", state.name())
        }
        EventKind::Step { step, usage, route, .. } => {
            let by =
                |route: &StepRoute| format!(" by {} ({})", printable(&route.model), printable(&route.reason));
            let by = route.as_ref().map(by).unwrap_or_default();
            format!("#{number} step {step}{by}: {}", task::usage_words(usage))
        }
        EventKind::Token { text, .. } => text.clone(),
        EventKind::Retract { step, .. } => {
            format!(
                "the text of step {step} so far was not committed, its node lost the task: it starts again"
            )
        }
        EventKind::Gap { first, last } => format!("events {first} to {last} are no longer kept"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_sdk::data::{TaskState, Usage};

    fn event(sequence: u64, kind: EventKind) -> Event {
        Event { task: "t_1".into(), sequence, at_ms: 1, kind }
    }

    fn token(attempt: &str, text: &str) -> Event {
        let kind =
            EventKind::Token { step: 1, attempt: attempt.into(), offset: 0, tokens: 1, text: text.into() };
        event(0, kind)
    }

    fn state(sequence: u64, state: TaskState) -> Event {
        let node = Some("n4".to_string());
        event(sequence, EventKind::State { state, reason: String::new(), node, epoch: None })
    }

    /// A life with a lost node in it.
    fn life() -> Vec<Event> {
        let usage = Usage { prompt_tokens: 40, cached_tokens: 32, generated_tokens: 2, micro_usd: 0 };
        vec![
            state(1, TaskState::Running),
            token("a", "los"),
            event(0, EventKind::Retract { step: 1, attempt: "a".into() }),
            state(2, TaskState::Running),
            token("b", "kept "),
            token("b", "text"),
            event(3, EventKind::Step { step: 1, head: "h".into(), usage, route: None }),
            state(4, TaskState::Succeeded),
        ]
    }

    fn shown(style: Style, format: Format, result: Option<&str>) -> String {
        let (mut stdout, mut stderr) = (vec![], vec![]);
        let mut out = Out::new(format, &mut stdout, &mut stderr, false);
        let mut shown = Shown::new(style);
        life().iter().for_each(|event| shown.show(event, &mut out).unwrap());
        if format == Format::Json {
            out.end_of_elements(false).unwrap();
        } else {
            shown.finish(result, &mut out).unwrap();
        }
        let text = |bytes| String::from_utf8(bytes).unwrap();
        format!("--- stdout\n{}--- stderr\n{}", text(stdout), text(stderr))
    }

    #[test]
    fn a_run_ends_with_its_result_on_stdout() {
        insta::assert_snapshot!("run_table", shown(Style::Text, Format::Table, Some("kept text")));
        let other = shown(Style::Text, Format::Table, Some("another text"));
        assert!(other.contains("kept text\nanother text\n"), "{other}");
        let longer = shown(Style::Text, Format::Table, Some("kept text and its end"));
        assert!(longer.contains("\nkept text and its end\n---"), "{longer}");
    }

    #[test]
    fn a_watch_shows_everything_in_order() {
        insta::assert_snapshot!("watch_table", shown(Style::Everything, Format::Table, None));
        insta::assert_snapshot!("watch_jsonl", shown(Style::Lines, Format::Jsonl, None));
        insta::assert_snapshot!("watch_json", shown(Style::Lines, Format::Json, None));
    }
}
