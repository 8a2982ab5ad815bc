//! Tables that fit the terminal: names and numbers never wrap, flexible columns wrap between words.

use tabled::builder::Builder;
use tabled::settings::{Padding, Style as Borders};
use unicode_width::UnicodeWidthStr as _;

use super::style::{Style, TextRole};

#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    heading: &'static str,
    flexible: bool,
}

impl Column {
    /// A column of names or numbers, which never wrap because people copy them.
    pub(super) const fn whole(heading: &'static str) -> Self {
        Self { heading, flexible: false }
    }

    /// A column of text, which may wrap.
    pub(super) const fn flexible(heading: &'static str) -> Self {
        Self { heading, flexible: true }
    }
}

/// A space at which cells never wrap.
pub(super) const STICKY: char = '\u{a0}';

/// Spaces between columns.
const GAP: usize = 2;

/// Renders rows under headings. Cells may contain color codes; their data must be escaped already.
pub(super) fn render(style: &Style, columns: &[Column], mut rows: Vec<Vec<String>>, indent: usize) -> String {
    if let Some(width) = style.width {
        wrap_to_width(columns, &mut rows, width.saturating_sub(indent));
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

/// Narrows the flexible columns, the widest first, until the table fits or every column is as narrow as its longest word.
#[expect(clippy::indexing_slicing, reason = "every row and every list of widths has one entry for each column")]
fn wrap_to_width(columns: &[Column], rows: &mut [Vec<String>], width: usize) {
    let widest = |column: usize, measure: fn(&str) -> usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| measure(cell));
        cells.max().unwrap_or_default().max(columns[column].heading.width())
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(|column| widest(column, visible_width)).collect();
    let minimum = |column: usize| if columns[column].flexible { widest(column, longest_word) } else { widths[column] };
    let minimums: Vec<usize> = (0..columns.len()).map(minimum).collect();
    loop {
        let total: usize = widths.iter().sum::<usize>() + GAP * columns.len().saturating_sub(1);
        let shrinkable = (0..columns.len()).filter(|column| widths[*column] > minimums[*column]);
        let Some(column) = shrinkable.max_by_key(|column| widths[*column]).filter(|_| total > width) else { break };
        widths[column] -= 1;
    }
    for row in rows {
        for (column, cell) in row.iter_mut().enumerate().filter(|(column, _)| columns[*column].flexible) {
            if visible_width(cell) > widths[column] {
                let options = textwrap::Options::new(widths[column])
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

/// Width on the terminal, without color codes.
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
    fn text_wraps_and_names_stay_whole() {
        for width in [20, 40, 60, 80, 200] {
            let table = table(width);
            assert!(table.contains("a-name-that-people-copy"), "{table}");
            let widest = table.lines().map(unicode_width::UnicodeWidthStr::width).max().unwrap();
            assert!(widest <= width.max("a-name-that-people-copy  default  three".len()), "{width}:\n{table}");
        }
    }
}
