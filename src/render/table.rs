//! Tables that fit the terminal: cells wrap at words, the widest column first.

use tabled::builder::Builder;
use tabled::settings::peaker::Priority;
use tabled::settings::{Padding, Style as Borders, Width};

use super::style::{Role, Style};

/// Renders rows under headings. Cells may be painted; they must be safe already.
pub(super) fn render(style: &Style, headings: &[&str], rows: Vec<Vec<String>>, indent: usize) -> String {
    let mut builder = Builder::with_capacity(rows.len() + 1, headings.len());
    if style.headers {
        builder.push_record(headings.iter().map(|heading| style.paint(Role::Heading, heading)));
    }
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table.with(Borders::empty()).with(Padding::new(0, 2, 0, 0));
    if let Some(width) = style.width {
        // Two columns of padding at the right end may stick out: they are blank.
        table.with(
            Width::wrap((width + 2).saturating_sub(indent).max(40)).keep_words(true).priority(Priority::max(true)),
        );
    }
    let space = " ".repeat(indent);
    let mut out = String::new();
    for line in table.to_string().lines() {
        out.push_str(&space);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}
