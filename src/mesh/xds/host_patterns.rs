//! Comparisons of host names with wildcards.
//!
//! Source: `pkg/config/host/name.go` and `names.go` of istio/istio 1.31.

use std::cmp::Ordering;

/// Whether two names, wildcards or not, have hosts in common.
pub(super) fn overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) if a.len() < b.len() => b.ends_with(a),
        (Some(a), Some(b)) => a.ends_with(b),
        (Some(a), None) => b.ends_with(a),
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// Whether all hosts of `a` are hosts of `b`.
pub(super) fn is_subset(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.len() >= b.len() && a.ends_with(b),
        (Some(_), None) => false,
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// The hosts that two lists have in common, each as the narrower of two names.
pub(super) fn intersection(a: &[String], b: &[&str]) -> Vec<String> {
    let mut common: Vec<String> = Vec::new();
    for left in a {
        for right in b {
            let narrower = if is_subset(left, right) {
                left.as_str()
            } else if is_subset(right, left) {
                right
            } else {
                continue;
            };
            if !common.iter().any(|name| name == narrower) {
                common.push(narrower.to_owned());
            }
        }
    }
    common
}

/// Orders names by specificity: exact names before wildcards, longer before shorter, then alphabetically.
pub(super) fn by_specificity(a: &str, b: &str) -> Ordering {
    let key = |name: &str| (name.starts_with('*'), std::cmp::Reverse(name.len()));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_exact_names_and_wildcards() {
        for (a, b, overlaps, is_inside) in [
            ("foo.com", "foo.com", true, true),
            ("*.com", "foo.com", true, false),
            ("foo.com", "*.com", true, true),
            ("*.foo.com", "foo.com", false, false),
            ("*", "*.com", true, false),
            ("*.a.com", "*.com", true, true),
            ("*.a.com", "*.b.com", false, false),
        ] {
            assert_eq!((overlap(a, b), is_subset(a, b)), (overlaps, is_inside), "{a} {b}");
        }
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(intersection(&list(&["foo.com", "*.net"]), &["*.com", "bar.net"]), ["foo.com", "bar.net"]);
        let mut names = list(&["*", "*.com", "a.com", "ab.com", "b.com"]);
        names.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(names, ["ab.com", "a.com", "b.com", "*.com", "*"]);
    }
}
