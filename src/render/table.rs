//! Tables that fit the terminal: names and numbers stay whole, flexible columns wrap at words.

use tabled::builder::Builder;
use tabled::settings::{Padding, Style as Borders};
use unicode_width::UnicodeWidthStr as _;

use super::style::{Role, Style};

/// What a column is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    flexible: bool,
}

impl Column {
    /// Names and numbers: people copy them, so they are never broken.
    pub(super) const fn whole(heading: &'static str) -> Self {
        Self { heading, flexible: false }
    }

    /// Words, which may wrap.
    pub(super) const fn flexible(heading: &'static str) -> Self {
        Self { heading, flexible: true }
    }
}

/// Space between columns.
const GAP: usize = 2;
/// A flexible column is never narrower than this.
const NARROWEST: usize = 12;

/// Renders rows under headings. Cells may be painted; they must be safe already.
pub(super) fn render(style: &Style, columns: &[Column], mut rows: Vec<Vec<String>>, indent: usize) -> String {
    if let Some(width) = style.width {
        fit(columns, &mut rows, width.saturating_sub(indent));
    }
    let mut builder = Builder::with_capacity(rows.len() + 1, columns.len());
    if style.headers {
        builder.push_record(columns.iter().map(|column| style.paint(Role::Heading, column.heading)));
    }
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table.with(Borders::empty()).with(Padding::new(0, GAP, 0, 0));
    let space = " ".repeat(indent);
    let mut out = String::new();
    for line in table.to_string().lines() {
        out.push_str(&space);
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Wraps the cells of flexible columns, the widest first, until the table fits or nothing more can give way.
fn fit(columns: &[Column], rows: &mut [Vec<String>], width: usize) {
    let mut widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| visible_width(cell));
            cells.max().unwrap_or_default().max(column.heading.width())
        })
        .collect();
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
        let over = total.saturating_sub(width);
        let flexible = (0..columns.len()).filter(|at| columns[*at].flexible && widths[*at] > NARROWEST);
        let Some(widest) = flexible.max_by_key(|at| widths[*at]).filter(|_| over > 0) else { break };
        let next = (0..columns.len()).filter(|at| *at != widest && columns[*at].flexible).map(|at| widths[at]).max();
        // Down to the next widest, so that several share what is missing.
        let step = widths[widest] - next.unwrap_or_default().clamp(NARROWEST, widths[widest] - 1);
        widths[widest] -= step.min(over);
    }
    for row in rows {
        for (at, cell) in row.iter_mut().enumerate().filter(|(at, _)| columns[*at].flexible) {
            if visible_width(cell) > widths[at] {
                let options = textwrap::Options::new(widths[at])
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                *cell = textwrap::wrap(cell, options).join("\n");
            }
        }
    }
}

/// Width on the terminal, color codes left out.
fn visible_width(cell: &str) -> usize {
    textwrap::core::display_width(cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(width: usize) -> String {
        let style = Style { color: false, width: Some(width), headers: true, wide: false };
        let columns = [Column::whole("NAME"), Column::flexible("WORDS"), Column::flexible("MORE")];
        let rows = vec![
            vec![
                "a-name-that-people-copy".to_owned(),
                "v1 90%  v2 10%".to_owned(),
                "one two three four five six".to_owned(),
            ],
            vec!["b".to_owned(), "default".to_owned(), "none".to_owned()],
        ];
        render(&style, &columns, rows, 0)
    }

    #[test]
    fn words_wrap_and_names_stay_whole() {
        for width in [20, 40, 60, 80, 200] {
            let table = table(width);
            assert!(table.contains("a-name-that-people-copy"), "{table}");
            let widest = table.lines().map(|line| line.width()).max().unwrap();
            assert!(widest <= width.max(23 + 2 * (GAP + NARROWEST)), "{width}:\n{table}");
        }
    }
}
