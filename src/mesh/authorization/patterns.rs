//! The forms of values in AuthorizationPolicies: exact, prefix, suffix, presence, path templates and address ranges.
//!
//! Sources: `pilot/pkg/security/authz/matcher` and `model/generator.go` of istio/istio 1.31; Envoy 1.39,
//! `extensions/path/uri_template_lib`.

use std::net::IpAddr;

use super::truth::{Truth, UnknownFact};
use crate::mesh::traffic_exclusion::IpRange;

/// Whether `text` matches a value with Istio's wildcard: `*`, `*suffix`, `prefix*`, or an exact text.
///
/// Only the first or the last character is a wildcard; a leading one wins. `*` needs a text that is not empty.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    if pattern == "*" {
        return !text.is_empty();
    }
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(suffix), _) => text.ends_with(suffix),
        (None, Some(prefix)) => text.starts_with(prefix),
        (None, None) => text == pattern,
    }
}

/// Like [`matches`] for texts whose case does not count, such as authorities.
pub(super) fn matches_ignoring_case(pattern: &str, text: &str) -> bool {
    matches(&pattern.to_ascii_lowercase(), &text.to_ascii_lowercase())
}

/// Whether `text` matches a glob in which each `*` stands for any text, also an empty one.
pub(super) fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        // An empty part, between two stars, matches at once.
        let Some((_, after)) = rest.find(part).and_then(|start| rest.split_at_checked(start + part.len())) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

/// Whether a path value is a template, with `{*}` for one segment or `{**}` for the rest of the path.
pub(super) fn is_path_template(value: &str) -> bool {
    value.contains("{*}") || value.contains("{**}")
}

/// Whether a path matches a template. `{*}` needs at least one character, `{**}` none.
///
/// An operator is a whole segment, and `{**}` is the last one: Istio's validation refuses other templates.
pub(super) fn matches_path_template(template: &str, path: &str) -> bool {
    let pattern: Vec<&str> = template.split('/').collect();
    let segments: Vec<&str> = path.split('/').collect();
    let matches_segment = |(pattern, segment): (&&str, &&str)| match *pattern {
        "{*}" => !segment.is_empty() && segment.chars().all(is_path_character),
        literal => literal == *segment,
    };
    let Some(position) = pattern.iter().position(|segment| *segment == "{**}") else {
        return pattern.len() == segments.len() && pattern.iter().zip(&segments).all(matches_segment);
    };
    let (head, tail) = pattern.split_at(position);
    let tail = tail.get(1..).unwrap_or_default();
    // The operator takes at least one segment, which may be empty.
    if segments.len() <= head.len() + tail.len() {
        return false;
    }
    let (taken, rest) = segments.split_at(segments.len() - tail.len());
    head.iter().zip(&segments).all(matches_segment)
        && taken.iter().skip(head.len()).all(|segment| segment.chars().all(is_path_character))
        && tail.iter().zip(rest).all(matches_segment)
}

/// The characters that Envoy's path templates accept in a segment (RFC 3986 `pchar`, without `*`).
fn is_path_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._~%!$&'()+,;:@=".contains(c)
}

/// The path as Envoy compares it: without query and fragment.
pub(super) fn without_query(path: &str) -> &str {
    path.split(['?', '#']).next().unwrap_or_default()
}

/// Whether an address is in a range such as `10.0.0.0/8`. `None`: the value is not a range.
pub(super) fn address_in(range: &str, address: Option<IpAddr>, unknown: UnknownFact) -> Option<Truth> {
    let range = IpRange::parse(range)?;
    Some(address.map_or(Truth::Unknown(unknown), |address| Truth::from(range.contains(address))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_or_last_star_is_a_wildcard() {
        for (pattern, text, expected) in [
            ("*", "a", true),
            ("*", "", false),
            ("/a.B/*", "/a.B/C", true),
            ("/a.B/*", "/a.BX/C", false),
            ("*/Send", "/a.B/Send", true),
            ("*/Send*", "/a.B/Send*", true),
            ("*/Send*", "/a.B/SendX", false),
            ("/a.*/Send", "/a.B/Send", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
        assert!(matches_ignoring_case("Checkout:*", "checkout:50051"));
    }

    #[test]
    fn globs_match_any_text_at_each_star() {
        for (pattern, text, expected) in [
            ("*/ns/web/*", "spiffe://td/ns/web/sa/x", true),
            ("*/ns/w*/*", "spiffe://td/ns/web/sa/x", true),
            ("*/ns/web/*", "spiffe://td/ns/web2/sa/x", false),
            ("*/ns/*ta/*", "spiffe://td/ns/data/sa/x", true),
            ("*/ns/*ta/*", "spiffe://td/ns/core/sa/beta", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(matches_glob(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn path_templates_match_segments() {
        for (template, path, expected) in [
            ("/a.B/{*}", "/a.B/C", true),
            ("/a.B/{*}", "/a.B/", false),
            ("/a.B/{*}", "/a.B/C/D", false),
            ("/{*}/Send", "/a.B/Send", true),
            ("/{*}/Send", "/a/b/Send", false),
            ("/a.B/{**}", "/a.B/C/D", true),
            ("/a.B/{**}", "/a.B/", true),
            ("/a.B/{**}", "/a.B", false),
            ("/{*}/{*}/x/{**}", "/1/2/x/3/4", true),
            ("/a/{**}/z", "/a/b/c/z", true),
            ("/a/{**}/z", "/a/z", false),
            ("/a.B/{*}", "/a.B/C*", false),
        ] {
            assert_eq!(matches_path_template(template, path), expected, "{template} {path}");
        }
    }
}
