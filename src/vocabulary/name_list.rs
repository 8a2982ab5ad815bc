//! Lists of names in messages, shortened to a few names and a count.

use std::fmt::Display;

/// Joins the first `max` names and counts the rest: `a, b and 4 more`.
pub(crate) fn abbreviate<T: Display>(names: impl IntoIterator<Item = T>, max: usize) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut hidden = 0_usize;
    for name in names {
        if shown.len() < max {
            shown.push(name.to_string());
        } else {
            hidden += 1;
        }
    }
    if hidden == 0 { shown.join(", ") } else { format!("{} and {hidden} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::abbreviate;

    #[test]
    fn counts_the_names_beyond_the_maximum() {
        assert_eq!(abbreviate(["a", "b"], 2), "a, b");
        assert_eq!(abbreviate(["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(abbreviate::<&str>([], 2), "");
    }
}
