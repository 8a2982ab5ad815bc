//! `diff` as text: the verdict first, then what differs.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::text::{paragraph, safe, safe_lines};
use crate::report::diff::{DiffObjectReport, DiffProxyReport, DiffReport, DifferenceReport};
use crate::schema::string_list::few;

/// How much is shown of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffDetail {
    /// Sentences only.
    Summary,
    /// Sentences, then the difference as YAML.
    Normal,
    /// Objects that are the same, and proxies that are in step, too.
    Full,
}

/// Pods that are named of those that stand alike.
const NAMED: usize = 3;

/// Writes the report.
///
/// # Errors
/// Those of `out`.
pub fn diff(report: &DiffReport, detail: DiffDetail, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    verdict(report, style, out)?;
    objects(report, detail, style, out)?;
    proxies(&report.proxies, detail, style, out)?;
    for gap in report.gaps.iter().filter(|gap| gap.touches_answers) {
        let text = format!("{}: {}", safe(&gap.what), safe(&gap.why));
        write!(out, "\n{}", paragraph(style, &style.paint(TextRole::Warning, "gap "), "    ", &text))?;
    }
    Ok(())
}

fn verdict(report: &DiffReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let count = |name: &str| report.counts.get(name).copied().unwrap_or(0);
    if let Some([first, second]) = &report.sides {
        let (all, same) = (count("objects"), count("objects-same"));
        let (role, text) = match all - same {
            0 => (TextRole::Good, format!("{} the same", how_many(all, "object"))),
            differ => (TextRole::Warning, format!("{differ} of {} {}", how_many(all, "object"), verb(differ))),
        };
        let sides = format!("{} → {}", safe(first), safe(second));
        writeln!(out, "{sides:<18}  {}", style.paint(role, &text))?;
    }
    if count("proxies") > 0 {
        let (all, in_step) = (count("proxies"), count("in-step"));
        let role = if all == in_step { TextRole::Good } else { TextRole::Warning };
        let mut text =
            format!("{in_step} of {} in step", if all == 1 { "1 proxy".to_owned() } else { format!("{all} proxies") });
        for state in ["refused", "different", "late", "not-sent", "unreachable", "not-compared"] {
            if count(state) > 0 {
                text += &format!(", {} {state}", count(state));
            }
        }
        writeln!(out, "{:<18}  {}", "cluster → Envoy", style.paint(role, &text))?;
    }
    Ok(())
}

fn verb(count: usize) -> &'static str {
    if count == 1 { "differs" } else { "differ" }
}

fn how_many(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

fn objects(report: &DiffReport, detail: DiffDetail, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for DiffObjectReport { object, state, changes, patch, notes } in &report.objects {
        if *state == "same" && detail != DiffDetail::Full {
            continue;
        }
        let word = if *state == "same" { TextRole::Good } else { TextRole::Warning };
        writeln!(out, "\n{}  {}", style.paint(TextRole::Heading, &safe(object)), style.paint(word, state))?;
        for change in changes.iter().chain(notes) {
            out.write_all(paragraph(style, "  ", "    ", &safe_lines(change)).as_bytes())?;
        }
        if detail == DiffDetail::Summary {
            continue;
        }
        for line in patch.lines() {
            let role = match line.as_bytes().first() {
                Some(b'+') => Some(TextRole::Good),
                Some(b'-') => Some(TextRole::Error),
                Some(b'@') => Some(TextRole::Faint),
                _ => None,
            };
            let line = safe(line);
            writeln!(out, "  {}", role.map_or_else(|| line.to_string(), |role| style.paint(role, &line)))?;
        }
    }
    Ok(())
}

/// Proxies that stand alike are told together.
pub(super) fn proxies(
    all: &[DiffProxyReport],
    detail: DiffDetail,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    type Alike<'r> = (&'r str, Vec<&'r DifferenceReport>, Vec<&'r String>, Option<&'r str>);
    let mut order: Vec<Alike<'_>> = Vec::new();
    let mut alike: BTreeMap<usize, Vec<&DiffProxyReport>> = BTreeMap::new();
    for proxy in all {
        if proxy.state == "in-step" && proxy.not_compared.is_empty() && detail != DiffDetail::Full {
            continue;
        }
        let words =
            matches!(proxy.state, "unreachable" | "refused" | "not-compared").then_some(proxy.evidence.as_str());
        let key = (proxy.state, proxy.differences.iter().collect(), proxy.not_compared.iter().collect(), words);
        let at = order.iter().position(|one| *one == key).unwrap_or_else(|| {
            order.push(key);
            order.len() - 1
        });
        alike.entry(at).or_default().push(proxy);
    }
    for (at, (state, differences, not_compared, _)) in order.iter().enumerate() {
        let members = &alike[&at];
        let Some(first) = members.first() else { continue };
        let names = few(members.iter().map(|one| format!("{}/{}", one.namespace, one.pod)), NAMED);
        let role = if *state == "in-step" { TextRole::Good } else { TextRole::Warning };
        let head = format!("{}  ", style.paint(role, state));
        write!(out, "\n{}", paragraph(style, &head, "  ", &safe(&names)))?;
        out.write_all(paragraph(style, "  ", "  ", &safe_lines(&first.evidence)).as_bytes())?;
        for part in not_compared {
            out.write_all(paragraph(style, "  not compared: ", "    ", &safe(part)).as_bytes())?;
        }
        let mut beside: Vec<&String> = members.iter().flat_map(|one| &one.beside).collect();
        beside.sort();
        beside.dedup();
        for text in beside.into_iter().filter(|_| detail == DiffDetail::Full) {
            let text = format!("{text}, which is compared nowhere");
            out.write_all(paragraph(style, "  beside: ", "    ", &safe(&text)).as_bytes())?;
        }
        for DifferenceReport { what, intent, live } in differences {
            out.write_all(paragraph(style, "  ", "    ", &style.paint(TextRole::Heading, &safe(what))).as_bytes())?;
            for (side, text) in [("intent", intent), ("Envoy ", live)] {
                let text = if text.is_empty() { "not there" } else { text };
                out.write_all(paragraph(style, &format!("    {side}  "), "            ", &safe(text)).as_bytes())?;
            }
        }
    }
    Ok(())
}

/// A report for a pull request.
///
/// # Errors
/// Those of `out`.
pub fn markdown(report: &DiffReport, out: &mut dyn Write) -> io::Result<()> {
    let plain = Style { color: false, width: None, headers: true, wide: false };
    let mut text = Vec::new();
    verdict(report, &plain, &mut text)?;
    writeln!(out, "### Routing\n\n```text\n{}\n```", String::from_utf8_lossy(&text).trim_end_matches('\n'))?;
    for DiffObjectReport { object, state, changes, patch, notes } in
        report.objects.iter().filter(|one| one.state != "same")
    {
        writeln!(out, "\n**{}**: {state}\n", safe(object))?;
        for change in changes.iter().chain(notes) {
            writeln!(out, "- {}", safe(change))?;
        }
        if !patch.is_empty() {
            writeln!(out, "\n```diff\n{}\n```", safe_lines(patch).trim_end_matches('\n'))?;
        }
    }
    let outside: Vec<&DiffProxyReport> = report.proxies.iter().filter(|one| one.state != "in-step").collect();
    if !outside.is_empty() {
        writeln!(out, "\n| Proxy | State | Evidence |\n|---|---|---|")?;
        for one in outside {
            let cell = |text: &str| safe(text).replace('|', "\\|");
            let (pod, evidence) = (format!("{}/{}", one.namespace, one.pod), cell(&one.evidence));
            writeln!(out, "| {} | {} | {evidence} |", cell(&pod), one.state)?;
        }
    }
    Ok(())
}

/// Annotations of a GitHub workflow.
///
/// # Errors
/// Those of `out`.
pub fn github(report: &DiffReport, out: &mut dyn Write) -> io::Result<()> {
    let value = |text: &str| safe(text).replace('%', "%25");
    for one in report.objects.iter().filter(|one| one.state != "same") {
        let text = format!("{} {}", one.state, one.changes.join("; "));
        writeln!(out, "::notice title={}::{}", value(&one.object).replace([':', ','], " "), value(&text))?;
    }
    for one in report.proxies.iter().filter(|one| one.state != "in-step") {
        let level = if matches!(one.state, "unreachable" | "not-compared") { "warning" } else { "error" };
        let what: Vec<&str> = one.differences.iter().map(|one| one.what.as_str()).collect();
        let text = format!("{}: {} {}", one.state, one.evidence, what.join("; "));
        writeln!(out, "::{level} title=proxy {}/{}::{}", value(&one.namespace), value(&one.pod), value(text.trim()))?;
    }
    Ok(())
}
