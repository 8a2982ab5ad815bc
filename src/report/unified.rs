//! Differences of texts as `diff -u` shows them.
//!
//! Of the library's ways to compare only the usual one (Myers) is used; through its front door all of them would be part
//! of the program, three times each.

use std::fmt::Write as _;

use similar::algorithms::{Capture, Compact, Replace, myers};
use similar::udiff::UnifiedHunkHeader;

/// The difference of two texts, with so many lines around each change; empty when there is none.
pub(crate) fn unified(before: &str, after: &str, around: usize) -> String {
    let (old, new) = (lines(before), lines(after));
    let mut found = Compact::new(Replace::new(Capture::new()), &old[..], &new[..]);
    let Ok(()) = myers::diff(&mut found, &old[..], 0..old.len(), &new[..], 0..new.len());
    let mut out = String::new();
    for group in similar::group_diff_ops(found.into_inner().into_inner().into_ops(), around) {
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
        /// The library's own front door says the same.
        #[test]
        fn as_the_library_shows_it(before in "([ab]\n){0,12}[ab]?", after in "([abc]\n){0,12}[ab]?", around in 0_usize..4) {
            let wanted = similar::TextDiff::from_lines(&before, &after).unified_diff().context_radius(around).to_string();
            prop_assert_eq!(unified(&before, &after, around), wanted);
        }
    }
}
