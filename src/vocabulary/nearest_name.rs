//! Spelling suggestions: the existing name that a user most likely meant.

/// The candidate closest to `name`, ignoring case. `None` when every candidate differs by more than a third of its
/// letters (at least one edit is always allowed). Ties go to the name that sorts first.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let requested = name.to_lowercase();
    let within_limit = |(edits, candidate): &(usize, &str)| *edits <= max_edits(&requested).min(max_edits(candidate));
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&requested, candidate), candidate))
        .filter(within_limit)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The `count` candidates closest to `name`, closest first.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<&'a str> {
    let requested = name.to_lowercase();
    let mut names: Vec<&str> = candidates.into_iter().collect();
    names.sort_by_cached_key(|candidate| edit_distance(&requested, candidate));
    names.truncate(count);
    names
}

/// Longest name that is compared letter by letter, in bytes: a DNS name has at most 253. The cost grows with the product
/// of both lengths.
const MAX_COMPARED_BYTES: usize = 256;

/// Damerau-Levenshtein distance between a lower-case name and a candidate in any case. Names that are too long to compare
/// count as entirely different, unless they are equal.
pub fn edit_distance(requested: &str, candidate: &str) -> usize {
    let candidate = candidate.to_lowercase();
    if requested.len().max(candidate.len()) > MAX_COMPARED_BYTES {
        let is_same = requested == candidate;
        return if is_same { 0 } else { requested.chars().count().max(candidate.chars().count()) };
    }
    strsim::damerau_levenshtein(requested, &candidate)
}

/// The largest distance that still counts as a spelling mistake in a name of this length.
pub fn max_edits(name: &str) -> usize {
    (name.chars().count() / 3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_a_name_within_a_third_of_its_letters() {
        let names = ["unavailable", "cancelled", "v1", "v2"];
        for (name, expected) in [
            ("unavailble", Some("unavailable")),
            ("Canceled", Some("cancelled")),
            ("v3", Some("v1")),
            ("internal", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }

    #[test]
    fn names_of_any_length_are_compared_in_bounded_time() {
        let (long, other) = ("a".repeat(1 << 20), "b".repeat(1 << 20));
        assert_eq!(edit_distance(&long, &other), 1 << 20);
        assert_eq!(edit_distance(&long, &long), 0);
        assert_eq!(nearest(&long, [other.as_str(), "a"]), None);
        assert_eq!(closest(&long, [other.as_str(), "a"], 1).len(), 1);
    }

    #[test]
    fn lists_the_closest_names_first() {
        assert_eq!(closest("shp", ["web", "shop", "ship"], 2), ["shop", "ship"]);
    }
}
