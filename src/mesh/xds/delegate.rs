//! A root's rule and the rules of its delegate, as one.
//!
//! Source: `MergeHTTPRoutes` and its helpers in `pilot/pkg/model/virtualservice.go` of istio/istio 1.31. A delegate's
//! rule whose conditions do not lie inside the root's is left out, without a word in any status.

use std::collections::BTreeMap;

use crate::schema::virtual_service::{HttpMatch, HttpRule, StringMatch};

/// One alternative with its position in the root's rule.
#[derive(Debug, Clone)]
pub(super) struct MergedMatch {
    pub(super) conditions: HttpMatch,
    pub(super) of_root: Option<usize>,
}

/// The delegate's rule inside the root's; `None` when they contradict each other.
pub(super) fn merge(root: &HttpRule, delegate: &HttpRule) -> Option<(HttpRule, Vec<Option<usize>>)> {
    let alternatives = alternatives(&root.matches, &delegate.matches)?;
    let mut merged = delegate.clone();
    let positions = alternatives.iter().map(|one| one.of_root).collect();
    merged.matches.0 = alternatives.into_iter().map(|one| one.conditions).collect();
    merged.name = join(root.name.as_deref(), delegate.name.as_deref());
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
    Some((merged, positions))
}

fn join(root: Option<&str>, delegate: Option<&str>) -> Option<String> {
    match (root.filter(|name| !name.is_empty()), delegate.filter(|name| !name.is_empty())) {
        (Some(root), Some(delegate)) => Some(format!("{root}-{delegate}")),
        (name, None) | (None, name) => name.map(str::to_owned),
    }
}

fn alternatives(root: &[HttpMatch], delegate: &[HttpMatch]) -> Option<Vec<MergedMatch>> {
    if root.is_empty() {
        return Some(delegate.iter().map(|one| MergedMatch { conditions: one.clone(), of_root: None }).collect());
    }
    if delegate.is_empty() {
        let own = root.iter().enumerate();
        return Some(own.map(|(at, one)| MergedMatch { conditions: one.clone(), of_root: Some(at) }).collect());
    }
    let mut merged = Vec::new();
    for inner in delegate {
        let before = merged.len();
        for (at, outer) in root.iter().enumerate().filter(|(_, outer)| !contradict(outer, inner)) {
            merged.push(MergedMatch { conditions: both(outer, inner), of_root: Some(at) });
        }
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn both(root: &HttpMatch, delegate: &HttpMatch) -> HttpMatch {
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
        name: join(root.name.as_deref(), name.as_deref()),
        uri: uri.or_else(|| root.uri.clone()),
        scheme: scheme.or_else(|| root.scheme.clone()),
        method: method.or_else(|| root.method.clone()),
        authority: authority.or_else(|| root.authority.clone()),
        headers: union(root.headers.as_ref(), headers),
        without_headers: union(root.without_headers.as_ref(), without_headers),
        query_params: union(root.query_params.as_ref(), query_params),
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

fn union(root: Option<&HeaderMatches>, delegate: Option<HeaderMatches>) -> Option<HeaderMatches> {
    match (root, delegate) {
        (None, None) => None,
        (root, delegate) => Some(root.cloned().into_iter().flatten().chain(delegate.into_iter().flatten()).collect()),
    }
}

fn contradict(root: &HttpMatch, leaf: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    if texts.into_iter().any(|(root, leaf)| texts_contradict(root.as_ref(), leaf.as_ref())) {
        return true;
    }
    let maps = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query_params, &leaf.query_params),
    ];
    for (root, leaf) in maps {
        for (key, value) in leaf.iter().flatten() {
            if texts_contradict(root.as_ref().and_then(|root| root.get(key)), Some(value)) {
                return true;
            }
        }
    }
    let port = |one: &HttpMatch| one.port.filter(|port| *port != 0);
    let other_port = matches!((port(root), port(leaf)), (Some(a), Some(b)) if a != b);
    let namespace = |one: &HttpMatch| one.source_namespace.clone().unwrap_or_default();
    let other_namespace = !namespace(root).is_empty() && namespace(leaf) != namespace(root);
    let other_label = leaf
        .source_labels
        .iter()
        .any(|(key, value)| root.source_labels.get(key).is_some_and(|of_root| of_root != value));
    let more_gateways = !root.gateways.is_empty()
        && !leaf.gateways.is_empty()
        && (root.gateways.len() < leaf.gateways.len()
            || leaf.gateways.iter().any(|gateway| !root.gateways.contains(gateway)));
    root.ignore_uri_case != leaf.ignore_uri_case || other_port || other_namespace || other_label || more_gateways
}

fn texts_contradict(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    let (Some(root), Some(leaf)) = (root, leaf) else { return false };
    let [r_exact, r_prefix, r_regex] = parts(root);
    let [l_exact, l_prefix, l_regex] = parts(leaf);
    let any = |parts: [&str; 3]| parts.iter().any(|part| !part.is_empty());
    if !r_regex.is_empty() && any([l_exact, l_prefix, l_regex]) {
        return true;
    }
    if !l_regex.is_empty() && any([r_exact, r_prefix, r_regex]) {
        return true;
    }
    if !r_exact.is_empty() {
        return !l_prefix.is_empty() || l_exact != r_exact;
    }
    if !r_prefix.is_empty() {
        if !l_prefix.is_empty() {
            return !l_prefix.starts_with(r_prefix);
        }
        if !l_exact.is_empty() {
            return !l_exact.starts_with(r_prefix);
        }
    }
    true
}

fn parts(text: &StringMatch) -> [&str; 3] {
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
    fn conditions_of_a_delegate_lie_inside_the_roots() {
        let root = "{name: r, match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], timeout: 2s}";
        let (inside, at) =
            merged(root, "{name: d, match: [{uri: {prefix: /b/c}, headers: {x: {exact: '1'}}}]}").unwrap();
        assert_eq!((inside.name.as_deref(), inside.timeout.as_deref(), at), (Some("r-d"), Some("2s"), vec![Some(1)]));
        assert!(merged(root, "{match: [{uri: {prefix: /c}}]}").is_none());
        // One alternative outside takes the whole rule away.
        assert!(merged(root, "{match: [{uri: {exact: /a/x}}, {uri: {regex: /b.*}}]}").is_none());
        let (all, at) = merged(root, "{}").unwrap();
        assert_eq!((all.matches.len(), at), (2, vec![Some(0), Some(1)]));
        let (own, at) = merged("{}", "{match: [{uri: {prefix: /c}}]}").unwrap();
        assert_eq!((own.matches.len(), at), (1, vec![None]));
    }

    #[test]
    fn a_match_for_presence_contradicts_any_other() {
        let root = "{match: [{headers: {x: {}}}]}";
        assert!(merged(root, "{match: [{headers: {x: {exact: '1'}}}]}").is_none());
        assert!(merged(root, "{match: [{headers: {y: {exact: '1'}}}]}").is_some());
    }
}
