//! The report as one page: no script, nothing from outside, every text escaped, light and dark by the reader's setting.

use super::{CallReport, Report, SegmentReport};
use crate::call::Call;
use crate::judge::Verdict;
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = "\
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5c6570;--line:#d5dae0;\
--essential:#7cc48d;--redundant-with:#7fb2e5;--inert:#d9dde2;--harmful:#ee8d84;--foreign-inert:#e8c37a;--blind:#c9b8e0}\
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e4e8ec;--dim:#98a2ad;--line:#343a42;\
--essential:#2f6f42;--redundant-with:#2c5d8f;--inert:#31363d;--harmful:#8f352d;--foreign-inert:#77581a;--blind:#503e70}}\
body{background:var(--bg);color:var(--fg);font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2.2rem}code,.digest{font-family:ui-monospace,monospace;overflow-wrap:anywhere}\
.dim{color:var(--dim)}.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}\
td,th{border-bottom:1px solid var(--line);padding:.25rem .6rem;text-align:left;vertical-align:top}td.n,th.n{text-align:right}\
.bar{display:flex;width:100%;overflow-x:auto;height:2.6rem;margin:.6rem 0;border:1px solid var(--line)}\
.bar a{display:block;min-width:2px;flex-basis:0;overflow:hidden;color:inherit;text-decoration:none;font-size:.75rem;\
padding:.15rem .2rem;box-sizing:border-box;border-right:1px solid var(--bg);white-space:nowrap}\
.mark{display:inline-block;padding:0 .4rem;border-radius:.2rem}tr:target{outline:2px solid var(--fg)}\
details{max-width:44rem}pre{white-space:pre-wrap;overflow-wrap:anywhere;max-height:24rem;overflow-y:auto;margin:.3rem 0}\
.essential{background:var(--essential)}.redundant-with{background:var(--redundant-with)}.inert{background:var(--inert)}\
.harmful{background:var(--harmful)}.foreign-inert{background:var(--foreign-inert)}.blind{background:var(--blind)}";

/// Should a text ever become markup, it still can't run, load or send anything.
const POLICY: &str = "script-src 'none'; connect-src 'none'; img-src 'none'; font-src 'none'; media-src 'none'; \
object-src 'none'; frame-src 'none'; base-uri 'none'; form-action 'none'";

/// Characters of a text that the page shows; the rest is counted.
const SHOWN: usize = 4000;

/// The page. `calls` are the calls that were evaluated, all of them, in their order: their texts are on the page.
pub fn html(report: &Report, calls: &[Call]) -> String {
    let mut page = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.push_str("<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n");
    let _ = writeln!(page, "<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">");
    let _ = write!(page, "<title>Context evaluation</title>\n<style>{STYLE}</style>\n</head>\n<body>\n");
    let digest = escape(&report.model_sha256);
    let _ = writeln!(
        page,
        "<h1>Context evaluation</h1>\n<p class=\"dim\">model <span class=\"digest\">{digest}</span></p>"
    );
    legend(&mut page);
    let everywhere = anchors(&report.calls);
    for call in &report.calls {
        section(&mut page, call, calls.get(call.index), &everywhere);
    }
    matrix(&mut page, report);
    skipped(&mut page, report);
    page.push_str("</body>\n</html>\n");
    page
}

/// Text that markup can't leave.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(c),
            // Control characters have no place in a page, and directions of writing must not leave their text.
            c if c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c) => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

fn legend(page: &mut String) {
    page.push_str("<p>");
    for verdict in Verdict::ALL {
        let name = verdict.name();
        let _ = write!(page, "<span class=\"mark {name}\">{name}</span> ");
    }
    page.push_str("</p>\n");
}

fn section(page: &mut String, call: &CallReport, texts: Option<&Call>, everywhere: &Anchors) {
    let (name, reader) = (escape(&call.call), escape(&call.reader));
    let _ = writeln!(page, "<h2>Call {name}, read by {reader}</h2>\n<p>{}</p>", state(call));
    bar(page, call);
    page.push_str("<div class=\"scroll\"><table>\n<tr><th>segment</th><th>owner</th><th>kind</th>");
    for head in ["tokens", "attention", "bits", "needed", "enough", "cluster"] {
        let _ = write!(page, "<th class=\"n\">{head}</th>");
    }
    page.push_str("<th>verdict</th></tr>\n");
    let links = Links { here: anchors(std::slice::from_ref(call)), everywhere };
    for (at, segment) in call.segments.iter().enumerate() {
        let text = texts.and_then(|call| call.segments.get(at)).map(|segment| segment.text.as_str());
        row(page, call, at, segment, text, &links);
    }
    page.push_str("</table></div>\n");
    extras(page, call);
    if let Some(texts) = texts {
        asked(page, "probe", &texts.probe);
        asked(page, "action", &texts.action);
    }
}

fn state(call: &CallReport) -> String {
    let gain = call.gain_nats;
    let spent = call.tokens_spent;
    let other = call.answer_based_tokens();
    let said = match call.tau {
        None => format!("Blind here: the context is worth {gain:.2} nats only."),
        Some(tau) => format!("The context is worth {gain:.2} nats; threshold {tau:.2}."),
    };
    let removable = call.removable_tokens.map_or(String::new(), |tokens| {
        format!(" Removable at 0.5 nat: {tokens} of {} tokens.", call.context_tokens())
    });
    let audit = call.audit_max_nats.map_or(String::new(), |most| {
        format!(" Audit: {most:.2} nats at most, {} tokens.", call.costs.audit)
    });
    format!("{said}{removable}{audit} Spent {spent} tokens; an answer-based evaluation: {other}.")
}

fn bar(page: &mut String, call: &CallReport) {
    page.push_str("<div class=\"bar\">");
    for (at, segment) in call.segments.iter().enumerate().filter(|(_, segment)| segment.tokens > 0) {
        let (id, name) = (escape(&segment.id), segment.verdict.name());
        let (anchor, tokens) = (anchor(call, at), segment.tokens);
        let _ = write!(
            page,
            "<a class=\"{name}\" style=\"flex-grow:{tokens}\" href=\"#{anchor}\" title=\"{id}: {tokens} tokens, {name}\">{id}</a>"
        );
    }
    page.push_str("</div>\n");
}

fn anchor(call: &CallReport, at: usize) -> String {
    format!("c{}s{at}", call.index)
}

/// Where on the page a segment is, by its id, and by `CALL/ID`; the first that has it.
type Anchors = BTreeMap<String, String>;

fn anchors(calls: &[CallReport]) -> Anchors {
    let mut anchors = Anchors::new();
    for call in calls {
        for (at, segment) in call.segments.iter().enumerate() {
            anchors.entry(segment.id.clone()).or_insert_with(|| anchor(call, at));
            anchors.entry(format!("{}/{}", call.call, segment.id)).or_insert_with(|| anchor(call, at));
        }
    }
    anchors
}

/// What an id leads to: the segment of the same call, else the first of another.
struct Links<'a> {
    here: Anchors,
    everywhere: &'a Anchors,
}

impl Links<'_> {
    fn to(&self, id: &str) -> String {
        match self.here.get(id).or_else(|| self.everywhere.get(id)) {
            Some(anchor) => format!("<a href=\"#{anchor}\">{}</a>", escape(id)),
            None => escape(id),
        }
    }
}

fn row(
    page: &mut String,
    call: &CallReport,
    at: usize,
    segment: &SegmentReport,
    text: Option<&str>,
    links: &Links<'_>,
) {
    let number =
        |value: Option<f64>, places: usize| value.map_or(String::new(), |value| format!("{value:.places$}"));
    let (anchor, id, owner) = (anchor(call, at), escape(&segment.id), escape(&segment.owner));
    let _ = write!(page, "<tr id=\"{anchor}\"><td><code>{id}</code>");
    if let Some(original) = &segment.dup_of {
        let _ = write!(page, " <span class=\"dim\">repeats</span> {}", links.to(original));
    }
    text.into_iter().for_each(|text| details(page, "text", text));
    let _ = write!(
        page,
        "</td><td>{owner}</td><td>{}</td><td class=\"n\">{}</td>",
        escape(&segment.kind),
        segment.tokens
    );
    let nats = [segment.necessity, segment.sufficiency, segment.cluster_out].map(|value| number(value, 2));
    let free = [number(segment.attention, 3), number(segment.bits, 0)];
    for figure in free.iter().chain(&nats) {
        let _ = write!(page, "<td class=\"n\">{figure}</td>");
    }
    let name = segment.verdict.name();
    let with: Vec<String> = segment.redundant_with.iter().map(|id| links.to(id)).collect();
    let _ = writeln!(page, "<td><span class=\"mark {name}\">{name}</span> {}</td></tr>", with.join(" "));
}

fn details(page: &mut String, name: &str, text: &str) {
    let shown: String = text.chars().take(SHOWN).collect();
    let rest = text.chars().count().saturating_sub(SHOWN);
    let more = if rest > 0 { format!("\n… and {rest} characters more") } else { String::new() };
    let _ = write!(
        page,
        "<details><summary class=\"dim\">{name}</summary><pre>{}{more}</pre></details>",
        escape(&shown)
    );
}

fn asked(page: &mut String, name: &str, text: &str) {
    details(page, name, text);
    page.push('\n');
}

fn extras(page: &mut String, call: &CallReport) {
    for withheld in call.withheld.iter().filter(|withheld| withheld.mattered) {
        let (id, owner) = (escape(&withheld.id), escape(&withheld.owner));
        let _ = writeln!(
            page,
            "<p>Missing: <code>{id}</code> of {owner}, worth {:.2} nats.</p>",
            withheld.gain_nats
        );
    }
    for summary in &call.summaries {
        let kept =
            summary.retention.map_or("blind here".into(), |kept| format!("{:.0} % kept", kept * 100.0));
        let _ = writeln!(
            page,
            "<p>Summary <code>{}</code>: {kept}, {} tokens.</p>",
            escape(&summary.id),
            summary.tokens
        );
    }
}

/// Who gave whom: precision and recall of each pair.
fn matrix(page: &mut String, report: &Report) {
    if report.pairs.is_empty() {
        return;
    }
    let names = |name: fn(&super::Pair) -> &str| -> std::collections::BTreeSet<&str> {
        report.pairs.iter().map(name).collect()
    };
    let (from, to) = (names(|pair| &pair.from), names(|pair| &pair.to));
    page.push_str("<h2>Sharing</h2>\n<p class=\"dim\">Rows give, columns read: precision / recall.</p>\n<div class=\"scroll\"><table>\n<tr><th></th>");
    to.iter().for_each(|name| {
        let _ = write!(page, "<th class=\"n\">{}</th>", escape(name));
    });
    page.push_str("</tr>\n");
    for giver in from {
        let _ = write!(page, "<tr><th>{}</th>", escape(giver));
        for reader in &to {
            let pair = report.pairs.iter().find(|pair| pair.from == giver && pair.to == *reader);
            let _ = write!(page, "<td class=\"n\">{}</td>", pair.map_or(String::new(), shares));
        }
        page.push_str("</tr>\n");
    }
    page.push_str("</table></div>\n");
}

fn shares(pair: &super::Pair) -> String {
    let share = |value: Option<f64>| value.map_or("–".into(), |value| format!("{:.0} %", value * 100.0));
    format!("{} / {}", share(pair.precision), share(pair.recall))
}

fn skipped(page: &mut String, report: &Report) {
    if report.skipped.is_empty() {
        return;
    }
    page.push_str("<h2>Skipped</h2>\n<ul>\n");
    for skipped in &report.skipped {
        let _ = writeln!(page, "<li>Call {}: {}</li>", escape(&skipped.call), escape(&skipped.why));
    }
    page.push_str("</ul>\n");
}
