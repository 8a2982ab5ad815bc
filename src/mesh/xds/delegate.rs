//! Merges the rules of a delegate VirtualService into a rule of its root.
//!
//! istiod drops a delegate's rule whose conditions conflict with the root's, and reports it in no status.
//!
//! Source: `MergeHTTPRoutes` and its helpers in `pilot/pkg/model/virtualservice.go` of istio/istio 1.31.

use std::collections::BTreeMap;

use crate::schema::virtual_service::{HttpMatch, HttpRule, StringMatch};

/// Merged conditions, with the index of the root's match that they come from.
struct MergedMatch {
    conditions: HttpMatch,
    root_index: Option<usize>,
}

/// Merges a delegate's rule into a root's rule; `None` if they conflict. Returns with each of the merged matches the
/// index of the root's match.
pub(super) fn merge(root: &HttpRule, delegate: &HttpRule) -> Option<(HttpRule, Vec<Option<usize>>)> {
    let matches = merge_matches(&root.matches, &delegate.matches)?;
    let mut merged = delegate.clone();
    let root_indexes = matches.iter().map(|merged| merged.root_index).collect();
    merged.matches.0 = matches.into_iter().map(|merged| merged.conditions).collect();
    merged.name = join_names(root.name.as_deref(), delegate.name.as_deref());
    let HttpRule {
        rewrite,
        direct_response,
        timeout,
        retries,
        fault,
        mirror,
        mirror_percent,
        mirror_percentage,
        mirrors,
        headers,
        name: _,
        matches: _,
        route: _,
        redirect: _,
        delegate: _,
    } = root;
    merged.rewrite = merged.rewrite.or_else(|| rewrite.clone());
    merged.direct_response = merged.direct_response.or_else(|| direct_response.clone());
    merged.timeout = merged.timeout.or_else(|| timeout.clone());
    merged.retries = merged.retries.or_else(|| retries.clone());
    merged.fault = merged.fault.or_else(|| fault.clone());
    merged.mirror = merged.mirror.or_else(|| mirror.clone());
    merged.mirror_percent = merged.mirror_percent.or(*mirror_percent);
    merged.mirror_percentage = merged.mirror_percentage.or_else(|| mirror_percentage.clone());
    if merged.mirrors.is_empty() {
        merged.mirrors = mirrors.clone();
    }
    merged.headers = merged.headers.or_else(|| headers.clone());
    merged.delegate = None;
    Some((merged, root_indexes))
}

fn join_names(root: Option<&str>, delegate: Option<&str>) -> Option<String> {
    match (root.filter(|name| !name.is_empty()), delegate.filter(|name| !name.is_empty())) {
        (Some(root), Some(delegate)) => Some(format!("{root}-{delegate}")),
        (name, None) | (None, name) => name.map(str::to_owned),
    }
}

fn merge_matches(root: &[HttpMatch], delegate: &[HttpMatch]) -> Option<Vec<MergedMatch>> {
    let unmerged = |conditions: &HttpMatch, root_index| MergedMatch { conditions: conditions.clone(), root_index };
    if root.is_empty() {
        return Some(delegate.iter().map(|conditions| unmerged(conditions, None)).collect());
    }
    if delegate.is_empty() {
        let root = root.iter().enumerate();
        return Some(root.map(|(index, conditions)| unmerged(conditions, Some(index))).collect());
    }
    let mut merged = Vec::new();
    for inner in delegate {
        let previous = merged.len();
        for (index, outer) in root.iter().enumerate().filter(|(_, outer)| !matches_conflict(outer, inner)) {
            merged.push(MergedMatch { conditions: merge_conditions(outer, inner), root_index: Some(index) });
        }
        if merged.len() == previous {
            return None;
        }
    }
    Some(merged)
}

fn merge_conditions(root: &HttpMatch, delegate: &HttpMatch) -> HttpMatch {
    let HttpMatch {
        name,
        uri,
        scheme,
        method,
        authority,
        headers,
        without_headers,
        query_params,
        port,
        source_labels,
        source_namespace,
        gateways,
        ignore_uri_case,
    } = delegate.clone();
    HttpMatch {
        name: join_names(root.name.as_deref(), name.as_deref()),
        uri: uri.or_else(|| root.uri.clone()),
        scheme: scheme.or_else(|| root.scheme.clone()),
        method: method.or_else(|| root.method.clone()),
        authority: authority.or_else(|| root.authority.clone()),
        headers: union_of_headers(root.headers.as_ref(), headers),
        without_headers: union_of_headers(root.without_headers.as_ref(), without_headers),
        query_params: union_of_headers(root.query_params.as_ref(), query_params),
        port: port.filter(|port| *port != 0).or(root.port),
        source_labels: root.source_labels.clone().into_iter().chain(source_labels).collect(),
        source_namespace: source_namespace
            .filter(|namespace| !namespace.is_empty())
            .or_else(|| root.source_namespace.clone()),
        gateways: if gateways.is_empty() { root.gateways.clone() } else { gateways },
        ignore_uri_case,
    }
}

type HeaderMatches = BTreeMap<String, StringMatch>;

fn union_of_headers(root: Option<&HeaderMatches>, delegate: Option<HeaderMatches>) -> Option<HeaderMatches> {
    match (root, delegate) {
        (None, None) => None,
        (root, delegate) => Some(root.cloned().into_iter().flatten().chain(delegate.into_iter().flatten()).collect()),
    }
}

/// Whether a delegate's conditions are outside the root's.
fn matches_conflict(root: &HttpMatch, delegate: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &delegate.uri),
        (&root.scheme, &delegate.scheme),
        (&root.method, &delegate.method),
        (&root.authority, &delegate.authority),
    ];
    if texts.into_iter().any(|(root, delegate)| texts_conflict(root.as_ref(), delegate.as_ref())) {
        return true;
    }
    let maps = [
        (&root.headers, &delegate.headers),
        (&root.without_headers, &delegate.without_headers),
        (&root.query_params, &delegate.query_params),
    ];
    for (root, delegate) in maps {
        for (key, value) in delegate.iter().flatten() {
            if texts_conflict(root.as_ref().and_then(|root| root.get(key)), Some(value)) {
                return true;
            }
        }
    }
    let port = |conditions: &HttpMatch| conditions.port.filter(|port| *port != 0);
    let other_port = matches!((port(root), port(delegate)), (Some(a), Some(b)) if a != b);
    let namespace = |conditions: &HttpMatch| conditions.source_namespace.clone().unwrap_or_default();
    let other_namespace = !namespace(root).is_empty() && namespace(delegate) != namespace(root);
    let other_label = delegate
        .source_labels
        .iter()
        .any(|(key, value)| root.source_labels.get(key).is_some_and(|root_value| root_value != value));
    let more_gateways = !root.gateways.is_empty()
        && !delegate.gateways.is_empty()
        && (root.gateways.len() < delegate.gateways.len()
            || delegate.gateways.iter().any(|gateway| !root.gateways.contains(gateway)));
    root.ignore_uri_case != delegate.ignore_uri_case || other_port || other_namespace || other_label || more_gateways
}

fn texts_conflict(root: Option<&StringMatch>, delegate: Option<&StringMatch>) -> bool {
    let (Some(root), Some(delegate)) = (root, delegate) else { return false };
    let [root_exact, root_prefix, root_regex] = exact_prefix_regex(root);
    let [exact, prefix, regex] = exact_prefix_regex(delegate);
    let has_any = |parts: [&str; 3]| parts.iter().any(|part| !part.is_empty());
    if !root_regex.is_empty() && has_any([exact, prefix, regex]) {
        return true;
    }
    if !regex.is_empty() && has_any([root_exact, root_prefix, root_regex]) {
        return true;
    }
    if !root_exact.is_empty() {
        return !prefix.is_empty() || exact != root_exact;
    }
    if !root_prefix.is_empty() {
        if !prefix.is_empty() {
            return !prefix.starts_with(root_prefix);
        }
        if !exact.is_empty() {
            return !exact.starts_with(root_prefix);
        }
    }
    true
}

fn exact_prefix_regex(text: &StringMatch) -> [&str; 3] {
    [&text.exact, &text.prefix, &text.regex].map(|part| part.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(yaml: &str) -> HttpRule {
        let json = crate::snapshot::yaml::to_json(yaml).unwrap().json.unwrap();
        serde_json::from_str(json.get()).unwrap()
    }

    #[track_caller]
    fn merged(root: &str, delegate: &str) -> Option<(HttpRule, Vec<Option<usize>>)> {
        merge(&rule(root), &rule(delegate))
    }

    #[test]
    fn merges_only_delegate_rules_inside_the_roots_conditions() {
        let root = "{name: r, match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], timeout: 2s}";
        let (rule, indexes) =
            merged(root, "{name: d, match: [{uri: {prefix: /b/c}, headers: {x: {exact: '1'}}}]}").unwrap();
        assert_eq!((rule.name.as_deref(), rule.timeout.as_deref(), indexes), (Some("r-d"), Some("2s"), vec![Some(1)]));
        assert!(merged(root, "{match: [{uri: {prefix: /c}}]}").is_none());
        // A single match outside the root's conditions drops the whole rule.
        assert!(merged(root, "{match: [{uri: {exact: /a/x}}, {uri: {regex: /b.*}}]}").is_none());
        let (rule, indexes) = merged(root, "{}").unwrap();
        assert_eq!((rule.matches.len(), indexes), (2, vec![Some(0), Some(1)]));
        let (rule, indexes) = merged("{}", "{match: [{uri: {prefix: /c}}]}").unwrap();
        assert_eq!((rule.matches.len(), indexes), (1, vec![None]));
    }

    #[test]
    fn a_presence_match_conflicts_with_any_other_match_on_the_header() {
        let root = "{match: [{headers: {x: {}}}]}";
        assert!(merged(root, "{match: [{headers: {x: {exact: '1'}}}]}").is_none());
        assert!(merged(root, "{match: [{headers: {y: {exact: '1'}}}]}").is_some());
    }
}
