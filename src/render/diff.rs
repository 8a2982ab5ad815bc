//! Writes `diff` as text, Markdown and GitHub annotations: the verdict first, then the differences.

use std::collections::BTreeMap;
use std::io::{self, Write};

use unicode_width::UnicodeWidthStr as _;

use super::style::{Style, TextRole};
use super::table::STICKY;
use super::text::{count, gap_lines, paragraph, safe, safe_lines};
use crate::compare::ObjectState;
use crate::dataplane::proxy::ProxyState;
use crate::report::GapReport;
use crate::report::diff::{DiffObjectReport, DiffProxyReport, DiffReport, DifferenceReport};
use crate::vocabulary::name_list::abbreviate;

/// How much of each object and proxy is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiffDetail {
    /// Sentences without the YAML diff.
    Summary,
    /// Sentences, then the YAML diff.
    Normal,
    /// Also equal objects and synced proxies.
    Full,
}

/// Number of pods named for each group of equal proxies.
const NAMED_PODS: usize = 3;

/// The states that the verdict lists after the synced proxies, worst first.
const OTHER_STATES: [ProxyState; 6] = [
    ProxyState::Rejected,
    ProxyState::Different,
    ProxyState::Stale,
    ProxyState::NotSent,
    ProxyState::Unreachable,
    ProxyState::NotCompared,
];

/// Writes the report.
///
/// # Errors
/// Errors of `out`.
pub fn diff(report: &DiffReport, detail: DiffDetail, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    verdict(report, style, out)?;
    objects(report, detail, style, out)?;
    proxies(&report.proxies, detail, style, out)?;
    let gaps = gap_lines(relevant_gaps(report), style);
    if !gaps.is_empty() {
        write!(out, "\n{gaps}")?;
    }
    Ok(())
}

/// The gaps that make the comparison incomplete.
fn relevant_gaps(report: &DiffReport) -> impl Iterator<Item = &GapReport> {
    report.gaps.iter().filter(|gap| gap.touches_answers)
}

/// One line for each comparison: its two sides, and how many objects or proxies differ.
fn verdict(report: &DiffReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let objects = report.sides.as_ref().map(|[first, second]| {
        let all = report.objects.len();
        let same = report.counts.objects.get(&ObjectState::Same).copied().unwrap_or(0);
        let (role, text) = match all - same {
            0 => (TextRole::Good, format!("{} the same", count(all, "object"))),
            1 => (TextRole::Warning, format!("1 of {} differs", count(all, "object"))),
            different => (TextRole::Warning, format!("{different} of {} differ", count(all, "object"))),
        };
        (format!("{} → {}", safe(first), safe(second)), style.paint(role, &text))
    });
    let proxies = (!report.proxies.is_empty()).then(|| {
        let number = |state: ProxyState| report.counts.proxies.get(&state).copied().unwrap_or(0);
        let (all, synced) = (report.proxies.len(), number(ProxyState::Synced));
        let proxies = if all == 1 { "1 proxy".to_owned() } else { format!("{all} proxies") };
        let (role, mut text) = match synced {
            synced if synced == all => (TextRole::Good, format!("{proxies} synced")),
            synced => (TextRole::Warning, format!("{synced} of {proxies} synced")),
        };
        for state in OTHER_STATES.into_iter().filter(|state| number(*state) > 0) {
            text += &format!(", {}{STICKY}{}", number(state), state.as_str());
        }
        ("cluster → Envoy".to_owned(), style.paint(role, &text))
    });
    let lines: Vec<(String, String)> = objects.into_iter().chain(proxies).collect();
    let head_width = lines.iter().map(|(head, _)| head.width()).max().unwrap_or(0);
    let indent = " ".repeat(head_width + 2);
    for (head, text) in lines {
        let padding = " ".repeat(head_width - head.width());
        write!(out, "{}", paragraph(style, &format!("{head}{padding}  "), &indent, &text))?;
    }
    Ok(())
}

fn objects(report: &DiffReport, detail: DiffDetail, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for DiffObjectReport { object, state, changes, patch, notes } in &report.objects {
        if *state == ObjectState::Same && detail != DiffDetail::Full {
            continue;
        }
        let role = if *state == ObjectState::Same { TextRole::Good } else { TextRole::Warning };
        let title = style.paint(TextRole::Heading, &safe(&object.to_string()));
        writeln!(out, "\n{title}  {}", style.paint(role, state.as_str()))?;
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

/// Writes proxies in groups of equal state and differences.
pub(super) fn proxies(
    all: &[DiffProxyReport],
    detail: DiffDetail,
    style: &Style,
    out: &mut dyn Write,
) -> io::Result<()> {
    type GroupKey<'r> = (ProxyState, Vec<&'r DifferenceReport>, Vec<&'r String>, Option<&'r str>);
    let mut keys: Vec<GroupKey<'_>> = Vec::new();
    let mut groups: BTreeMap<usize, Vec<&DiffProxyReport>> = BTreeMap::new();
    for proxy in all {
        let is_clean = proxy.state == ProxyState::Synced && proxy.not_compared.is_empty();
        if is_clean && detail != DiffDetail::Full {
            continue;
        }
        // For these states the evidence is the cause, so that proxies with different causes are separate groups.
        let cause =
            (!proxy.state.is_compared() || proxy.state == ProxyState::Rejected).then_some(proxy.evidence.as_str());
        let key = (proxy.state, proxy.differences.iter().collect(), proxy.not_compared.iter().collect(), cause);
        let index = keys.iter().position(|existing| *existing == key).unwrap_or_else(|| {
            keys.push(key);
            keys.len() - 1
        });
        groups.entry(index).or_default().push(proxy);
    }
    for (index, (state, differences, not_compared, _)) in keys.iter().enumerate() {
        let Some((members, first)) = groups.get(&index).and_then(|members| Some((members, members.first()?))) else {
            continue;
        };
        let names = abbreviate(members.iter().map(|proxy| format!("{}/{}", proxy.namespace, proxy.pod)), NAMED_PODS);
        let role = if *state == ProxyState::Synced { TextRole::Good } else { TextRole::Warning };
        let head = format!("{}  ", style.paint(role, state.as_str()));
        write!(out, "\n{}", paragraph(style, &head, "  ", &safe(&names)))?;
        out.write_all(paragraph(style, "  ", "  ", &safe_lines(&first.evidence)).as_bytes())?;
        for part in not_compared {
            out.write_all(paragraph(style, "  not compared: ", "    ", &safe(part)).as_bytes())?;
        }
        if detail == DiffDetail::Full {
            let mut patches: Vec<&String> = members.iter().flat_map(|proxy| &proxy.other_patches).collect();
            patches.sort();
            patches.dedup();
            for patch in patches {
                out.write_all(paragraph(style, "  never compared: ", "    ", &safe(patch)).as_bytes())?;
            }
        }
        for DifferenceReport { what, desired, live } in differences {
            out.write_all(paragraph(style, "  ", "    ", &style.paint(TextRole::Heading, &safe(what))).as_bytes())?;
            for (side, text) in [("desired", desired), ("live   ", live)] {
                let text = if text.is_empty() { "missing".to_owned() } else { with_sticky_weights(text) };
                out.write_all(paragraph(style, &format!("    {side}  "), "             ", &safe(&text)).as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The text with a sticky space before each weight, so that `outbound|50051|v1|checkout.shop 25` stays on one line.
fn with_sticky_weights(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, word) in text.split(' ').enumerate() {
        if index > 0 {
            let is_weight = word.trim_end_matches([',', '%']).parse::<f64>().is_ok();
            out.push(if is_weight { STICKY } else { ' ' });
        }
        out.push_str(word);
    }
    out
}

/// Writes a report for a pull request.
///
/// # Errors
/// Errors of `out`.
pub fn markdown(report: &DiffReport, out: &mut dyn Write) -> io::Result<()> {
    let plain = Style { color: false, width: None, headers: true, wide: false };
    let mut text = Vec::new();
    verdict(report, &plain, &mut text)?;
    writeln!(out, "### Routing\n\n```text\n{}\n```", String::from_utf8_lossy(&text).trim_end_matches('\n'))?;
    let objects = report.objects.iter().filter(|object| object.state != ObjectState::Same);
    for DiffObjectReport { object, state, changes, patch, notes } in objects {
        writeln!(out, "\n**{}**: {}\n", safe(&object.to_string()), state.as_str())?;
        for change in changes.iter().chain(notes) {
            writeln!(out, "- {}", safe(change))?;
        }
        if !patch.is_empty() {
            writeln!(out, "\n```diff\n{}\n```", safe_lines(patch).trim_end_matches('\n'))?;
        }
    }
    let mut proxies = report.proxies.iter().filter(|proxy| proxy.state != ProxyState::Synced).peekable();
    if proxies.peek().is_some() {
        writeln!(out, "\n| Proxy | State | Evidence |\n|---|---|---|")?;
        let cell = |text: &str| safe(text).replace('|', "\\|");
        for proxy in proxies {
            let pod = cell(&format!("{}/{}", proxy.namespace, proxy.pod));
            writeln!(out, "| {pod} | {} | {} |", proxy.state.as_str(), cell(&proxy.evidence))?;
        }
    }
    markdown_differences(&report.proxies, out)?;
    let mut gaps = relevant_gaps(report).peekable();
    if gaps.peek().is_some() {
        writeln!(out, "\n**Gaps**\n")?;
    }
    gaps.try_for_each(|gap| writeln!(out, "- {}: {}", safe(&gap.what), safe(&gap.why)))
}

/// Lists each difference and each part that was not compared once, with its proxies.
fn markdown_differences(all: &[DiffProxyReport], out: &mut dyn Write) -> io::Result<()> {
    let value = |text: &str| if text.is_empty() { "missing".to_owned() } else { format!("`{}`", safe(text)) };
    let mut proxies_by_line: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for proxy in all {
        let differences = proxy.differences.iter().map(|DifferenceReport { what, desired, live }| {
            format!("{}: desired {}, live {}", safe(what), value(desired), value(live))
        });
        let not_compared = proxy.not_compared.iter().map(|part| format!("not compared: {}", safe(part)));
        for line in differences.chain(not_compared) {
            let name = safe(&format!("{}/{}", proxy.namespace, proxy.pod)).into_owned();
            proxies_by_line.entry(line).or_default().push(name);
        }
    }
    if !proxies_by_line.is_empty() {
        writeln!(out)?;
    }
    let mut lines = proxies_by_line.into_iter();
    lines.try_for_each(|(line, proxies)| writeln!(out, "- {line} ({})", abbreviate(proxies, NAMED_PODS)))
}

/// Writes annotations of a GitHub workflow.
///
/// # Errors
/// Errors of `out`.
pub fn github(report: &DiffReport, out: &mut dyn Write) -> io::Result<()> {
    let value = |text: &str| safe(text).replace('%', "%25");
    for object in report.objects.iter().filter(|object| object.state != ObjectState::Same) {
        let title = value(&object.object.to_string()).replace([':', ','], " ");
        let text = format!("{}: {}", object.state.as_str(), object.changes.join("; "));
        writeln!(out, "::notice title={title}::{}", value(&text))?;
    }
    for proxy in report.proxies.iter().filter(|proxy| proxy.state != ProxyState::Synced) {
        let level = if proxy.state.is_compared() { "error" } else { "warning" };
        let mut text = format!("{}: {}", proxy.state.as_str(), proxy.evidence);
        if !proxy.differences.is_empty() {
            let differences: Vec<&str> = proxy.differences.iter().map(|difference| difference.what.as_str()).collect();
            text += &format!("; differences: {}", differences.join("; "));
        }
        let (namespace, pod) = (value(&proxy.namespace), value(&proxy.pod));
        writeln!(out, "::{level} title=proxy {namespace}/{pod}::{}", value(&text))?;
    }
    for gap in relevant_gaps(report) {
        writeln!(out, "::warning title=gap::{}", value(&format!("{}: {}", gap.what, gap.why)))?;
    }
    Ok(())
}
