//! Writes findings: grouped by object, or with the lines of their file and a caret.

use std::fmt::Write as _;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use unicode_width::UnicodeWidthStr as _;

use super::style::{Style, TextRole};
use super::text::{paragraph, safe, safe_lines, safe_same_length};
use crate::report::finding::FindingReport;
use crate::report::inspect::InspectReport;
use crate::rules::Severity;

/// The findings in their order, under a heading per object.
pub(super) fn findings(report: &InspectReport, style: &Style) -> String {
    let mut out = String::new();
    let mut last_object = None;
    for finding in &report.findings {
        if finding.excerpt.is_some() {
            let _ = write!(out, "\n{}", excerpt(finding, style));
            last_object = None;
            continue;
        }
        if last_object != Some(&finding.object) {
            let _ = writeln!(out, "\n{}", style.paint(TextRole::Heading, &safe(&finding.object.to_string())));
            last_object = Some(&finding.object);
        }
        let title = format!("{} {} {}", finding.severity.as_str(), finding.code, finding.name);
        let field = safe(&finding.field);
        let fits_one_line = style.width.is_none_or(|width| title.width() + field.width() + 4 <= width);
        let title = style.paint(finding.severity.into(), &title);
        if fits_one_line {
            let _ = writeln!(out, "  {title}  {}", style.paint(TextRole::Faint, &field));
        } else {
            let _ = writeln!(out, "  {title}\n    at {}", style.paint(TextRole::Faint, &field));
        }
        for (label, text) in notes(finding) {
            out.push_str(&paragraph(style, &format!("    {label:<9} "), "              ", &safe_lines(&text)));
        }
    }
    out
}

/// The labeled parts of a finding.
fn notes(finding: &FindingReport) -> Vec<(&'static str, String)> {
    let mut notes = vec![("problem", finding.message.clone()), ("impact", finding.impact.clone())];
    if !finding.callers.is_empty() {
        notes.push(("callers", format!("in {}", finding.callers.join(", "))));
    }
    notes.extend(finding.evidence.iter().map(|evidence| ("evidence", evidence.clone())));
    notes.push(("fix", finding.fix.clone()));
    notes
}

/// A finding with the lines of its file and a caret.
fn excerpt(finding: &FindingReport, style: &Style) -> String {
    let Some(excerpt) = &finding.excerpt else { return String::new() };
    // Only the lines around the position, because the renderer scans the whole text that it gets.
    let (bytes, text) = (excerpt.bytes.clone(), excerpt.text.text.as_str());
    let Some((before, after)) = text.split_at_checked(bytes.start) else { return String::new() };
    let from = before.rmatch_indices('\n').nth(2).map_or(0, |(index, _)| index + 1);
    let to = after.match_indices('\n').nth(2).map_or(text.len(), |(index, _)| bytes.start + index);
    let field_line = finding.position.as_ref().map_or(1, |position| position.line);
    let first_line = field_line.saturating_sub(before.get(from..).unwrap_or_default().matches('\n').count());
    let lines = safe_same_length(text.get(from..to).unwrap_or_default());
    let span = bytes.start - from..bytes.end.min(to) - from;
    let level = match finding.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Info => Level::INFO,
    };
    let path = safe(&excerpt.text.path);
    let snippet = Snippet::source(lines.as_ref())
        .line_start(first_line)
        .path(path.as_ref())
        .annotation(AnnotationKind::Primary.span(span));
    // The renderer puts `warning[GM203]: ` before the title and `    = ` before notes, and does not wrap.
    let wrapped = |text: &str, indent: usize| match style.width {
        Some(width) => paragraph(&Style { width: Some(width.saturating_sub(indent)), ..*style }, "", "", text),
        None => text.to_owned(),
    };
    let message = wrapped(&safe(&finding.message), 16);
    let rule = ("rule", format!("{}, {}", finding.name, finding.object));
    let notes: Vec<String> = notes(finding)
        .into_iter()
        .skip(1)
        .chain([rule])
        .map(|(label, text)| wrapped(&format!("{label}: {}", safe_lines(&text)), 6))
        .chain(
            finding
                .position
                .as_ref()
                .and_then(|position| position.template.as_ref())
                .map(|template| format!("template: {}", safe(template))),
        )
        .collect();
    let mut group = level.primary_title(message.trim_end()).id(finding.code).element(snippet);
    for note in &notes {
        group = group.element(Level::NOTE.no_name().message(note.trim_end()));
    }
    let renderer = if style.color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(style.width.unwrap_or(1000));
    format!("{}\n", renderer.render(&[group]))
}
