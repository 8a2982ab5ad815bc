//! `tail` as text and as CSV.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::table::{self, Column};
use super::text::{count, paragraph, safe};
use crate::report::page::show_millis;
use crate::report::tail::TailLine;
use crate::report::tail_join::TailCall;
use crate::report::tail_summary::TailSummary;
use crate::vocabulary::grpc_status;

/// Writes one call: a line that says what, and under it why and what next.
///
/// # Errors
/// Those of `out`.
pub fn line(line: &TailLine, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let time = line.time.as_deref().and_then(|time| time.get(11..23)).unwrap_or("--:--:--.---");
    let dash = |text: &Option<String>| text.as_deref().map_or("-".to_owned(), |text| safe(text).into_owned());
    let subset = line.subset.as_ref().map(|subset| format!(" {}", safe(subset))).unwrap_or_default();
    let role = match (line.verdict.fault, line.verdict.side) {
        (true, _) => TextRole::Error,
        (false, "nobody") => TextRole::Faint,
        (false, _) => TextRole::Warning,
    };
    let flags = if line.flags.is_empty() { String::new() } else { format!("   {}", safe(&line.flags.join(","))) };
    let duration = line.duration_ms.map(|millis| format!("   {}", show_millis(millis))).unwrap_or_default();
    let status = status(line);
    writeln!(
        out,
        "{}  {} → {}{subset}   {}{}{}{duration}",
        style.paint(TextRole::Faint, time),
        dash(&line.source),
        dash(&line.destination),
        dash(&line.method),
        if status.is_empty() { String::new() } else { format!("   {}", style.paint(role, &status)) },
        style.paint(role, &flags),
    )?;
    let indent = "              ";
    let side = if line.verdict.side == "nobody" { String::new() } else { format!(" · {} side", line.verdict.side) };
    let mark = if line.ambiguous { " · a client's text made this line ambiguous" } else { "" };
    let what = format!("{}{side}{mark}", safe(&line.verdict.what));
    write!(out, "{}", paragraph(style, indent, indent, &what))?;
    for next in &line.verdict.next {
        write!(out, "{}", paragraph(style, &format!("{indent}→ "), &format!("{indent}  "), &safe(next)))?;
    }
    Ok(())
}

/// Writes one request as all proxies saw it: the first line as always, the others under it.
///
/// # Errors
/// Those of `out`.
pub fn call(call: &TailCall, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let Some((first, others)) = call.lines.split_first() else { return Ok(()) };
    line(first, style, out)?;
    for other in others {
        let status = status(other);
        let flags = if other.flags.is_empty() { "-".to_owned() } else { other.flags.join(",") };
        let side = other.side.map(|side| format!(", {side} side")).unwrap_or_default();
        let pod = other.pod.as_deref().unwrap_or("-");
        let duration = other.duration_ms.map(show_millis).unwrap_or_default();
        let said = format!("{pod}{side}: {status} {flags} {duration}: {}", other.verdict.what);
        let indent = "              ";
        write!(out, "{}", paragraph(style, &format!("{indent}└ "), &format!("{indent}  "), &safe(&said)))?;
    }
    Ok(())
}

/// Draws what goes wrong into so many lines, most frequent first.
///
/// # Errors
/// Those of `out`.
pub fn top(report: &TailSummary, rows: usize, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let columns = [
        Column::whole("CALLS"),
        Column::whole("FLAGS"),
        Column::whole("STATUS"),
        Column::whole("METHOD"),
        Column::whole("UPSTREAM"),
        Column::whole("P50"),
        Column::whole("P99"),
    ];
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { safe(text).into_owned() };
    let mut groups: Vec<_> = report.groups.iter().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.calls));
    // Two lines stand above the table and one below it.
    let room = rows.saturating_sub(4).max(1);
    let hidden = groups.len().saturating_sub(room);
    let cells = groups.into_iter().take(room).map(|group| {
        let role = if group.grade == "fault" { TextRole::Error } else { TextRole::Warning };
        vec![
            group.calls.to_string(),
            style.paint(role, &dash(&group.flags)),
            dash(&group.grpc_status),
            dash(&group.method),
            dash(&group.destination),
            show_millis(group.p50_ms),
            show_millis(group.p99_ms),
        ]
    });
    let calls = report.calls.max(1) as f64;
    let totals = format!(
        "{} calls, {} faults ({:.2}%), {} notices; p50 {}, p99 {}. Ctrl-C ends.",
        report.calls,
        report.faults,
        report.faults as f64 * 100.0 / calls,
        report.notices,
        show_millis(report.p50_ms),
        show_millis(report.p99_ms),
    );
    writeln!(out, "{}\n", style.paint(TextRole::Heading, &totals))?;
    // What does not fit is cut, so that the picture stays still.
    let plain = Style { width: None, ..*style };
    for line in table::render(&plain, &columns, cells.collect(), 0).lines() {
        writeln!(out, "{}", cut(line, style.width.unwrap_or(usize::MAX)))?;
    }
    if hidden > 0 {
        write!(out, "{}", style.paint(TextRole::Faint, &format!("{hidden} more")))?;
    }
    Ok(())
}

/// The beginning of a line that fits; escape codes take no room.
fn cut(line: &str, width: usize) -> String {
    let mut out = String::new();
    let (mut used, mut in_code) = (0, false);
    for c in line.chars() {
        in_code |= c == '\x1b';
        if !in_code {
            used += unicode_width::UnicodeWidthChar::width(c).unwrap_or(0);
            if used > width {
                continue;
            }
        }
        out.push(c);
        in_code &= c != 'm';
    }
    out
}

/// `~14 UNAVAILABLE` for an inferred one; `status not logged` for a gRPC call without any.
fn status(line: &TailLine) -> String {
    match (line.grpc_status, line.grpc_status_from, line.http_status) {
        (Some(code), Some("inferred"), _) => format!("~{code} {}", grpc_status::name(code)),
        (Some(code), _, _) => format!("{code} {}", grpc_status::name(code)),
        (None, _, Some(code)) if code != 200 => format!("HTTP {code}"),
        (None, ..) => String::new(),
    }
}

/// Writes the summary.
///
/// # Errors
/// Those of `out`.
pub fn summary(report: &TailSummary, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let columns = [
        Column::whole("CALLS"),
        Column::whole("FLAGS"),
        Column::whole("STATUS"),
        Column::flexible("DESTINATION"),
        Column::flexible("METHOD"),
        Column::whole("P50"),
        Column::whole("P99"),
        Column::flexible("WHAT"),
    ];
    let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { safe(text).into_owned() };
    let rows: Vec<Vec<String>> = report
        .groups
        .iter()
        .map(|group| {
            let role = if group.grade == "fault" { TextRole::Error } else { TextRole::Warning };
            vec![
                group.calls.to_string(),
                style.paint(role, &dash(&group.flags)),
                dash(&group.grpc_status),
                dash(&group.destination),
                dash(&group.method),
                show_millis(group.p50_ms),
                show_millis(group.p99_ms),
                dash(&group.what),
            ]
        })
        .collect();
    if !rows.is_empty() {
        writeln!(out, "{}", table::render(style, &columns, rows, 0))?;
    }
    for group in &report.groups {
        if let Some(text) = &group.consistent_with {
            let what = format!("{} {}: {text}", dash(&group.flags), dash(&group.destination));
            write!(out, "{}", paragraph(style, "", "  ", &what))?;
        }
    }
    let calls = report.calls.max(1) as f64;
    let faults = count(usize::try_from(report.faults).unwrap_or(usize::MAX), "fault");
    let role = if report.faults > 0 { TextRole::Error } else { TextRole::Good };
    let span = match (&report.from, &report.to) {
        (Some(from), Some(to)) => format!(", {from} to {to}"),
        _ => String::new(),
    };
    let totals = format!(
        "{}: {} ({:.2}%), {} that the caller ended or that the log cannot judge; p50 {}, p99 {}{span}",
        count(usize::try_from(report.calls).unwrap_or(usize::MAX), "call"),
        style.paint(role, &faults),
        report.faults as f64 * 100.0 / calls,
        report.notices,
        show_millis(report.p50_ms),
        show_millis(report.p99_ms),
    );
    write!(out, "{}", paragraph(style, "", "  ", &totals))?;
    let mut asides: Vec<String> = report.other_lines.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    if report.ambiguous > 0 {
        asides.push(format!("ambiguous {}", report.ambiguous));
    }
    if report.beyond > 0 {
        asides.push(format!("without their kind {}", report.beyond));
    }
    if !asides.is_empty() {
        write!(out, "{}", paragraph(style, "other lines: ", "  ", &asides.join(", ")))?;
    }
    Ok(())
}

/// Names of the columns of [`csv()`].
pub const CSV_COLUMNS: [&str; 20] = [
    "time",
    "pod",
    "namespace",
    "side",
    "source",
    "destination",
    "method",
    "grpc_status",
    "grpc_status_from",
    "http_status",
    "flags",
    "details",
    "transport_failure",
    "duration_ms",
    "upstream_host",
    "upstream_cluster",
    "subset",
    "request_id",
    "route",
    "verdict",
];

/// One call as the values of [`CSV_COLUMNS`].
pub fn csv(line: &TailLine) -> Vec<String> {
    let text = |value: &Option<String>| value.as_deref().map(safe).unwrap_or_default().into_owned();
    let number = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    vec![
        text(&line.time),
        text(&line.pod),
        text(&line.namespace),
        line.side.unwrap_or_default().to_owned(),
        text(&line.source),
        text(&line.destination),
        text(&line.method),
        number(line.grpc_status.map(u64::from)),
        line.grpc_status_from.unwrap_or_default().to_owned(),
        number(line.http_status.map(u64::from)),
        safe(&line.flags.join(",")).into_owned(),
        text(&line.details),
        text(&line.transport_failure),
        number(line.duration_ms),
        text(&line.upstream_host),
        text(&line.upstream_cluster),
        text(&line.subset),
        text(&line.request_id),
        text(&line.route),
        safe(&line.verdict.what).into_owned(),
    ]
}
