//! How host names with wildcards relate. Source: `pkg/config/host/name.go` and `names.go` of istio/istio 1.31.

use std::cmp::Ordering;

/// Whether two names have hosts in common; either may be a wildcard.
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

/// What both lists have, each time the narrower of two names.
pub(super) fn intersection(a: &[String], b: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for one in a {
        for other in b {
            let narrower = if is_subset(one, other) {
                one.as_str()
            } else if is_subset(other, one) {
                other
            } else {
                continue;
            };
            if !found.iter().any(|have| have == narrower) {
                found.push(narrower.to_owned());
            }
        }
    }
    found
}

/// Exact names before wildcards, longer before shorter, then by the alphabet.
pub(super) fn by_precision(a: &str, b: &str) -> Ordering {
    let key = |name: &str| (name.starts_with('*'), std::cmp::Reverse(name.len()));
    key(a).cmp(&key(b)).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_meet() {
        for (a, b, both, inside) in [
            ("foo.com", "foo.com", true, true),
            ("*.com", "foo.com", true, false),
            ("foo.com", "*.com", true, true),
            ("*.foo.com", "foo.com", false, false),
            ("*", "*.com", true, false),
            ("*.a.com", "*.com", true, true),
            ("*.a.com", "*.b.com", false, false),
        ] {
            assert_eq!((overlap(a, b), is_subset(a, b)), (both, inside), "{a} {b}");
        }
        let list = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(intersection(&list(&["foo.com", "*.net"]), &["*.com", "bar.net"]), ["foo.com", "bar.net"]);
        let mut names = list(&["*", "*.com", "a.com", "ab.com", "b.com"]);
        names.sort_by(|a, b| by_precision(a, b));
        assert_eq!(names, ["ab.com", "a.com", "b.com", "*.com", "*"]);
    }
}
