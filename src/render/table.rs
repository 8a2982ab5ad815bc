//! Tables that fit the terminal: names and numbers stay whole, flexible columns wrap at words.

use tabled::builder::Builder;
use tabled::settings::{Padding, Style as Borders};
use unicode_width::UnicodeWidthStr as _;

use super::style::{Style, TextRole};

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

/// A space at which no cell is wrapped.
pub(super) const STICKY: char = '\u{a0}';

/// Space between columns.
const GAP: usize = 2;

/// Renders rows under headings. Cells may be painted; they must be safe already.
pub(super) fn render(style: &Style, columns: &[Column], mut rows: Vec<Vec<String>>, indent: usize) -> String {
    if let Some(width) = style.width {
        fit(columns, &mut rows, width.saturating_sub(indent));
    }
    let mut builder = Builder::with_capacity(rows.len() + 1, columns.len());
    if style.headers {
        builder.push_record(columns.iter().map(|column| style.paint(TextRole::Heading, column.heading)));
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
        out.push_str(&line.trim_end().replace(STICKY, " "));
        out.push('\n');
    }
    out
}

/// Wraps the cells of flexible columns, the widest first, until the table fits or nothing more can give way.
fn fit(columns: &[Column], rows: &mut [Vec<String>], width: usize) {
    let widest = |at: usize, measure: fn(&str) -> usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| measure(cell));
        cells.max().unwrap_or_default().max(columns[at].heading.width())
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(|at| widest(at, visible_width)).collect();
    let least: Vec<usize> =
        (0..columns.len()).map(|at| if columns[at].flexible { widest(at, longest_word) } else { widths[at] }).collect();
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
        let giving = (0..columns.len()).filter(|at| widths[*at] > least[*at]);
        let Some(at) = giving.max_by_key(|at| widths[*at]).filter(|_| total > width) else { break };
        widths[at] -= 1;
    }
    for row in rows {
        for (at, cell) in row.iter_mut().enumerate().filter(|(at, _)| columns[*at].flexible) {
            if visible_width(cell) > widths[at] {
                let options = textwrap::Options::new(widths[at])
                    .word_separator(textwrap::WordSeparator::AsciiSpace)
                    .word_splitter(textwrap::WordSplitter::NoHyphenation)
                    .break_words(false);
                *cell = textwrap::wrap(cell, options).join("\n");
            }
        }
    }
}

fn longest_word(cell: &str) -> usize {
    cell.split(' ').map(visible_width).max().unwrap_or_default()
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
            let widest = table.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width.max("a-name-that-people-copy  default  three".len()), "{width}:\n{table}");
        }
    }
}
