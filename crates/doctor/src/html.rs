//! A report as one HTML file, with the handshake drawn as a ladder.

use std::fmt::Write;

use crate::observe::Event;
use crate::wire::Side;
use crate::{Evidence, Finding, Report, Severity};

/// One file without anything from elsewhere, for a colleague: verdicts, findings, the messages in
/// their order, and what was seen.
pub fn html(reports: &[(&Report, &[Event])]) -> String {
    let mut page = String::from(HEAD);
    for (report, events) in reports {
        section(&mut page, report, events);
    }
    page + "</main></body></html>\n"
}

const HEAD: &str = r#"<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Enclasp doctor</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 0; color: #1b1b1f; background: #fff }
main { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
section { margin-bottom: 4rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.1rem; margin-top: 2rem }
.finding { border-left: .3rem solid #777; padding: .1rem 1rem; margin: 1rem 0; background: #f6f6f8 }
.error { border-color: #b3261e } .warning { border-color: #b26a00 } .note { border-color: #3a6ea5 }
dt { font-weight: 600 } dd { margin: 0 0 .4rem 0; overflow-wrap: anywhere }
code { font-size: .9em; overflow-wrap: anywhere }
.ladder { width: 100%; border-collapse: collapse; font-size: .9rem }
.ladder td { padding: .2rem .4rem; vertical-align: top }
.ladder .time { color: #666; text-align: right; white-space: nowrap; width: 6rem }
.ladder .message { border-left: .15rem solid #1b1b1f; border-right: .15rem solid #1b1b1f }
.server { text-align: right } .alert { color: #b3261e; font-weight: 600 }
@media (prefers-color-scheme: dark) {
  body { color: #e4e4e8; background: #17171a } .finding { background: #222227 }
  .ladder .message { border-color: #e4e4e8 } .ladder .time { color: #999 } .alert { color: #ff8a80 }
}
</style></head><body><main>
"#;

fn section(page: &mut String, report: &Report, events: &[Event]) {
    let verdict = report.verdict().map_or("nothing is wrong", |finding| finding.title.as_str());
    page.push_str("<section>");
    tag(page, "p", &report.examined);
    tag(page, "h1", verdict);
    for finding in &report.findings {
        write_finding(page, finding);
    }
    if !events.is_empty() {
        page.push_str("<h2>The handshake</h2><table class=\"ladder\"><tr><td></td><td class=\"message\"><strong>client</strong><span style=\"float:right\"><strong>server</strong></span></td></tr>");
        events.iter().for_each(|event| write_event(page, event));
        page.push_str("</table>");
    }
    page.push_str("<h2>What was seen</h2><dl>");
    report.evidence.iter().for_each(|evidence| write_evidence(page, evidence));
    page.push_str("</dl></section>\n");
}

fn write_finding(page: &mut String, finding: &Finding) {
    let Finding { code, severity, title, why, fix, confidence, evidence } = finding;
    let class = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    };
    let _ = write!(page, "<div class=\"finding {class}\">");
    tag(page, "h2", &format!("{severity} {code}: {title}"));
    page.push_str("<dl>");
    for (name, text) in [("Why", why), ("What to do", fix), ("Confidence", &confidence.to_string())] {
        tag(page, "dt", name);
        tag(page, "dd", text);
    }
    evidence.iter().for_each(|evidence| write_evidence(page, evidence));
    page.push_str("</dl></div>");
}

fn write_evidence(page: &mut String, evidence: &Evidence) {
    tag(page, "dt", &evidence.what);
    page.push_str("<dd>");
    tag(page, "code", &evidence.value);
    page.push_str("</dd>");
}

/// A rung: client to the left, server to the right.
fn write_event(page: &mut String, event: &Event) {
    let (side, arrow) = match event.by {
        Side::Client => ("client", "→ "),
        Side::Server => ("server", "← "),
    };
    let class = if event.what.starts_with("alert") { " alert" } else { "" };
    let time = format!("{}.{:03} ms", event.at_us / 1000, event.at_us % 1000);
    let _ =
        write!(page, "<tr><td class=\"time\">{time}</td><td class=\"message\"><div class=\"{side}{class}\">");
    let detail = if event.detail.is_empty() { String::new() } else { format!(": {}", event.detail) };
    escape(page, &format!("{arrow}{}{detail}", event.what));
    page.push_str("</div></td></tr>");
}

fn tag(page: &mut String, name: &str, text: &str) {
    let _ = write!(page, "<{name}>");
    escape(page, text);
    let _ = write!(page, "</{name}>");
}

/// What peers sent is shown, never interpreted.
fn escape(page: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            '<' => page.push_str("&lt;"),
            '>' => page.push_str("&gt;"),
            '&' => page.push_str("&amp;"),
            '"' => page.push_str("&quot;"),
            '\'' => page.push_str("&#39;"),
            other => page.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code;

    /// A server name is the peer's to choose.
    #[test]
    fn what_a_peer_sent_is_escaped() {
        let hostile = "<script>alert('x')</script>";
        let finding = Finding::error(code::NAME_NOT_SERVED, hostile, hostile, hostile).with(hostile, hostile);
        let report = Report::new(hostile, vec![finding], vec![Evidence::new(hostile, hostile)]);
        let event = Event { at_us: 1, by: Side::Client, what: hostile.into(), detail: hostile.into() };
        let page = html(&[(&report, &[event])]);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;").count(), 11);
    }
}
