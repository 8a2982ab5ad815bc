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

/// Damerau-Levenshtein distance between a lower-case name and a candidate in any case.
pub fn edit_distance(requested: &str, candidate: &str) -> usize {
    strsim::damerau_levenshtein(requested, &candidate.to_lowercase())
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
    fn lists_the_closest_names_first() {
        assert_eq!(closest("shp", ["web", "shop", "ship"], 2), ["shop", "ship"]);
    }
}
