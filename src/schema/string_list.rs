//! Words that rules, comparisons and what is shown share. CORE.

use std::fmt::Display;

/// The first few of some names, and how many more there are: `a, b and 4 more`.
pub fn few<T: Display>(names: impl IntoIterator<Item = T>, most: usize) -> String {
    let mut shown: Vec<String> = Vec::new();
    let mut more = 0_usize;
    for name in names {
        if shown.len() < most {
            shown.push(name.to_string());
        } else {
            more += 1;
        }
    }
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::few;

    #[test]
    fn the_rest_is_counted() {
        assert_eq!(few(["a", "b"], 2), "a, b");
        assert_eq!(few(["a", "b", "c", "d"], 2), "a, b and 2 more");
        assert_eq!(few::<&str>([], 2), "");
    }
}
