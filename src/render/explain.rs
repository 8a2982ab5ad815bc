//! Writes `explain` as text.

use std::io::{self, Write};

use super::style::{Style, TextRole};
use super::table::Column;
use super::text::safe;
use super::{table, text};
use crate::report::explain::ExplainReport;

/// Writes the full text of each item.
///
/// # Errors
/// Errors of `out`.
pub fn explain(report: &ExplainReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    for (index, item) in report.items.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        let istio = item.istio_code.map(|code| format!(", Istio's {code}")).unwrap_or_default();
        let title = safe(&format!("{} {}", item.key, item.title)).into_owned();
        let grade = match item.severity {
            Some(severity) => style.paint(severity.into(), severity.as_str()),
            None => item.topic.as_str().to_owned(),
        };
        writeln!(out, "{} ({grade}{istio})", style.paint(TextRole::Heading, &title))?;
        for block in blocks(&item.docs) {
            match block {
                DocBlock::Heading(text) => writeln!(out, "\n{}", style.paint(TextRole::Heading, text))?,
                DocBlock::Code(line) => writeln!(out, "    {line}")?,
                DocBlock::Text(text) => write!(out, "{}", text::paragraph(style, "  ", "  ", &safe(&text)))?,
                DocBlock::Item(text) => write!(out, "{}", text::paragraph(style, "  - ", "    ", &text))?,
            }
        }
    }
    Ok(())
}

/// Writes a table with one row per item.
///
/// # Errors
/// Errors of `out`.
pub fn list(report: &ExplainReport, style: &Style, out: &mut dyn Write) -> io::Result<()> {
    let rows = report.items.iter().map(|item| {
        let grade = match item.severity {
            Some(severity) => style.paint(severity.into(), severity.as_str()),
            None => item.topic.as_str().to_owned(),
        };
        vec![item.key.clone(), grade, item.title.clone(), item.summary.clone()]
    });
    write!(
        out,
        "{}",
        table::render(
            style,
            &[Column::whole("CODE"), Column::whole("TYPE"), Column::whole("NAME"), Column::flexible("MEANING"),],
            rows.collect(),
            0
        )
    )
}

/// A block of Markdown. Lines of one paragraph are joined, because the terminal decides where they break.
enum DocBlock<'a> {
    Heading(&'a str),
    Code(&'a str),
    Text(String),
    Item(String),
}

fn blocks(docs: &str) -> Vec<DocBlock<'_>> {
    let mut blocks: Vec<DocBlock<'_>> = Vec::new();
    let mut in_code = false;
    let mut joins = false;
    for line in docs.lines() {
        let next = match line {
            _ if line.starts_with("```") => {
                in_code = !in_code;
                joins = false;
                continue;
            }
            _ if in_code => DocBlock::Code(line),
            "" => {
                joins = false;
                continue;
            }
            _ => match (line.strip_prefix("## "), line.strip_prefix("- ")) {
                (Some(heading), _) => DocBlock::Heading(heading),
                (None, Some(item)) => DocBlock::Item(item.to_owned()),
                (None, None) => match blocks.last_mut() {
                    Some(DocBlock::Text(text) | DocBlock::Item(text)) if joins => {
                        text.push(' ');
                        text.push_str(line.trim_start());
                        continue;
                    }
                    _ => DocBlock::Text(line.to_owned()),
                },
            },
        };
        joins = matches!(next, DocBlock::Text(_) | DocBlock::Item(_));
        blocks.push(next);
    }
    blocks
}
