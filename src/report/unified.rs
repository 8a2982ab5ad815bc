//! Differences between texts in the format of `diff -u`.
//!
//! This calls the Myers algorithm of `similar` directly. `TextDiff`, the usual entry point, links every algorithm of the
//! library three times into the binary.

use std::fmt::Write as _;

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;

/// The hunks between two texts, with `context` unchanged lines around each change; empty when the texts are equal.
pub(crate) fn unified(before: &str, after: &str, context: usize) -> String {
    let (old, new) = (lines(before), lines(after));
    let mut recorder = Compact::new(Replace::new(Capture::new()), &old[..], &new[..]);
    let Ok(()) = myers::diff(&mut recorder, &old[..], 0..old.len(), &new[..], 0..new.len());
    let mut out = String::new();
    for group in similar::group_diff_ops(recorder.into_inner().into_inner().into_ops(), context) {
        let _ = writeln!(out, "{}", UnifiedHunkHeader::new(&group));
        for change in group.iter().flat_map(|operation| operation.iter_changes(&old[..], &new[..])) {
            let line = change.value();
            let end = if line.ends_with('\n') { "" } else { "\n\\ No newline at end of file\n" };
            let _ = write!(out, "{}{line}{end}", change.tag());
        }
    }
    out
}

fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn produces_the_same_hunks_as_text_diff(
            before in "([ab]\n){0,12}[ab]?",
            after in "([abc]\n){0,12}[ab]?",
            context in 0_usize..4,
        ) {
            let expected = similar::TextDiff::from_lines(&before, &after).unified_diff().context_radius(context).to_string();
            prop_assert_eq!(unified(&before, &after, context), expected);
        }
    }
}
