//! Converts Gateway API routes to route configurations, as istiod does.
//!
//! Each match of each rule becomes one rule. All routes with the same parent and host are merged and sorted by the
//! specificity of their matches. CRD defaults are applied here too, since manifests lack them.
//!
//! Sources: `pilot/pkg/config/kube/gateway/conversion.go` and `route_collections.go` of istio/istio 1.31.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::gateway_api_parents::{self, Attachment};
use super::route_config::{ConfigRule, RouteConfig};
use crate::mesh::Mesh;
use crate::mesh::gateway_api::RouteObject;
use crate::mesh::host;
use crate::mesh::ids::{Host, Namespace};
use crate::mesh::service::Visibility;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::Kind;
use crate::schema::gateway_api::{
    ApiRouteMatch, ApiRouteRule, BackendRef, HeaderModifier, MethodMatch, RouteFilter, UrlRewrite, ValueMatch,
};
use crate::schema::virtual_service::{
    Destination, DirectResponse, HeaderOperations, Headers, HttpMatch, HttpMirror, HttpRetries, HttpRule, PercentValue,
    PortSelector, Redirect, RegexRewrite, Rewrite, RouteDestination, StringMatch,
};

/// Whether a rule is converted for the mesh or for gateways. Only at gateways do references to other namespaces need a
/// ReferenceGrant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteScope {
    Mesh,
    Gateway,
}

struct ConvertedRule {
    /// Index of the rule in the route object.
    index: usize,
    rule: HttpRule,
    backend_problems: Vec<String>,
}

/// Converts all Gateway API routes of the mesh.
pub(super) fn configs(mesh: &Mesh<'_>) -> Vec<RouteConfig> {
    let listeners = gateway_api_parents::listeners(mesh);
    let mut merged: BTreeMap<String, Vec<ConvertedPart<'_>>> = BTreeMap::new();
    // istiod numbers the results of an object and identifies them by namespace, name and number. So an HTTPRoute hides
    // a GRPCRoute of the same name (`NamespacedName` in `RouteWithKey.ResourceName`).
    let mut identities: HashSet<(Namespace, Arc<str>, usize)> = HashSet::new();
    let (http, grpc): (Vec<_>, Vec<_>) =
        mesh.route_objects.iter().partition(|object| object.object.kind == Kind::HttpRoute);
    for object in http.into_iter().chain(grpc) {
        let mut count = 0;
        let attachments = gateway_api_parents::attachments(mesh, &listeners, object);
        let rules: HashMap<bool, Option<Vec<ConvertedRule>>> = [RouteScope::Mesh, RouteScope::Gateway]
            .into_iter()
            .map(|scope| (scope == RouteScope::Mesh, convert_rules(mesh, object, scope)))
            .collect();
        for attachment in attachments {
            let in_mesh = matches!(attachment, Attachment::Service { .. });
            let Some(Some(rules)) = rules.get(&in_mesh) else { continue };
            if rules.is_empty() {
                continue;
            }
            let port = match &attachment {
                Attachment::Service { port, .. } => *port,
                Attachment::Listener { .. } => None,
            };
            for host in attachment.hosts(object) {
                let identity = (object.object.namespace.clone(), Arc::clone(&object.object.name), count);
                count += 1;
                if !identities.insert(identity) {
                    continue;
                }
                let key = format!("{}/{host}", attachment.key(object));
                merged.entry(key).or_default().push(ConvertedPart {
                    object,
                    attachment: attachment.clone(),
                    host,
                    port,
                });
            }
        }
    }
    let mut configs = Vec::new();
    for (key, mut parts) in merged {
        parts.sort_by(|a, b| {
            let name =
                |part: &ConvertedPart<'_>| (part.object.object.namespace.clone(), part.object.object.name.clone());
            a.object.created.cmp(&b.object.created).then_with(|| name(a).cmp(&name(b)))
        });
        configs.extend(merge(mesh, &key, &parts));
    }
    configs
}

/// The contribution of one route object to one parent and host.
struct ConvertedPart<'m> {
    object: &'m RouteObject,
    attachment: Attachment,
    host: String,
    port: Option<u16>,
}

fn merge(mesh: &Mesh<'_>, key: &str, parts: &[ConvertedPart<'_>]) -> Option<RouteConfig> {
    let first = parts.first()?;
    let mut rules = Vec::new();
    for part in parts {
        let scope = match part.attachment {
            Attachment::Service { .. } => RouteScope::Mesh,
            Attachment::Listener { .. } => RouteScope::Gateway,
        };
        for ConvertedRule { index, mut rule, backend_problems } in convert_rules(mesh, part.object, scope)? {
            if let Some(port) = part.port {
                if rule.matches.is_empty() {
                    rule.matches.0.push(HttpMatch::default());
                }
                rule.matches.0.iter_mut().for_each(|conditions| conditions.port = Some(u32::from(port)));
            }
            rules.push(ConfigRule::generated(part.object.object.clone(), index, rule, Vec::new(), backend_problems));
        }
    }
    sort_by_specificity(&mut rules);
    let namespace = first.object.object.namespace.clone();
    let export_to = Visibility::new(&[], &mesh.config.default_virtual_service_export_to, &namespace);
    let mut objects: Vec<_> = parts.iter().map(|part| part.object.object.clone()).collect();
    objects.dedup();
    Some(RouteConfig {
        namespace,
        name: key.replace('/', "~").as_str().into(),
        created: first.object.created.as_ref().map(Arc::clone),
        hosts: vec![Host::from(first.host.as_str())],
        gateways: vec![first.attachment.gateway()],
        export_to,
        is_gateway_api: true,
        rules,
        virtual_service: None,
        objects,
    })
}

/// Sorts exact paths before prefixes before regular expressions, longer paths before shorter ones, then by method and
/// the number of headers and query parameters. Each rule has at most one match.
fn sort_by_specificity(rules: &mut [ConfigRule]) {
    type Rank = (i8, usize, bool, usize, usize);
    let rank = |rule: &ConfigRule| -> Option<Rank> {
        let conditions = rule.generated_rule()?.matches.first()?;
        let (kind, length) = match &conditions.uri {
            None => (-1, 0),
            Some(StringMatch { exact: Some(text), .. }) => (3, text.len()),
            Some(StringMatch { prefix: Some(text), .. }) => (2, text.len()),
            Some(StringMatch { regex: Some(text), .. }) => (1, text.len()),
            Some(_) => (-1, 0),
        };
        let count = |map: &Option<BTreeMap<String, StringMatch>>| map.as_ref().map_or(0, BTreeMap::len);
        let (headers, parameters) = (count(&conditions.headers), count(&conditions.query_params));
        Some((kind, length, conditions.method.is_some(), headers, parameters))
    };
    // A rule without conditions has no rank and comes last.
    rules.sort_by_key(|rule| std::cmp::Reverse(rank(rule)));
}

/// Converts the rules of a route object; `None` when one of them is invalid, since istiod then drops the whole object.
fn convert_rules(mesh: &Mesh<'_>, object: &RouteObject, scope: RouteScope) -> Option<Vec<ConvertedRule>> {
    let mut converted = Vec::new();
    for (index, rule) in object.route.spec.rules.iter().enumerate() {
        let no_match = [None];
        let matches: Vec<Option<&ApiRouteMatch>> =
            if rule.matches.is_empty() { no_match.to_vec() } else { rule.matches.iter().map(Some).collect() };
        for written_match in matches {
            let mut backend_problems = Vec::new();
            let mut http_rule = convert_action(mesh, object, rule, scope, &mut backend_problems)?;
            http_rule.name = Some(
                rule.name
                    .clone()
                    .unwrap_or_else(|| format!("{}.{}.{index}", object.object.namespace, object.object.name)),
            );
            if let Some(conditions) = convert_match(object, written_match)? {
                http_rule.matches.0.push(conditions);
            }
            converted.push(ConvertedRule { index, rule: http_rule, backend_problems });
        }
    }
    Some(converted)
}

/// Converts everything in a rule except its matches.
fn convert_action(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    rule: &ApiRouteRule,
    scope: RouteScope,
    problems: &mut Vec<String>,
) -> Option<HttpRule> {
    let mut converted = HttpRule::default();
    for filter in &rule.filters {
        apply_filter(mesh, object, filter, scope, &mut converted, problems)?;
    }
    if let Some(retry) = &rule.retry {
        let mut retry_on: Vec<String> = ["connect-failure", "refused-stream", "unavailable", "cancelled"]
            .iter()
            .map(|&condition| condition.to_owned())
            .collect();
        retry_on.extend(retry.codes.iter().map(ToString::to_string));
        let attempts = retry.attempts.unwrap_or(2);
        converted.retries = Some(HttpRetries {
            attempts: Some(attempts),
            retry_on: (attempts != 0).then(|| retry_on.join(",")),
            backoff: retry.backoff.clone(),
            ..HttpRetries::default()
        });
    }
    if let Some(timeouts) = &rule.timeouts {
        let positive = |text: &Option<String>| {
            text.clone().filter(|text| crate::vocabulary::duration::parse(text).is_ok_and(|limit| !limit.is_zero()))
        };
        converted.timeout = positive(&timeouts.request);
        if let Some(limit) = positive(&timeouts.backend_request) {
            match &mut converted.retries {
                Some(retries) => retries.per_try_timeout = Some(limit),
                None => converted.timeout = Some(limit),
            }
        }
    }
    let weight = |backend: &BackendRef| backend.weight.unwrap_or(1);
    if rule.backend_refs.iter().map(weight).sum::<i64>() == 0 && converted.redirect.is_none() {
        converted.direct_response = Some(DirectResponse { status: 500 });
        return Some(converted);
    }
    let used: Vec<&BackendRef> = rule.backend_refs.iter().filter(|backend| weight(backend) != 0).collect();
    for backend in &used {
        let destination = convert_backend(mesh, object, backend, scope, problems)?;
        // istiod sets no weight for a single backend.
        let weight = if used.len() == 1 { 0 } else { weight(backend) };
        converted.route.0.push(RouteDestination {
            destination: Some(destination),
            weight: Some(weight),
            headers: None,
        });
    }
    Some(converted)
}

fn apply_filter(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    filter: &RouteFilter,
    scope: RouteScope,
    rule: &mut HttpRule,
    problems: &mut Vec<String>,
) -> Option<()> {
    let is_http = !object.is_grpc();
    match (filter.kind.as_str(), is_http) {
        ("RequestHeaderModifier", _) => {
            rule.headers.get_or_insert_default().request = filter.request_header_modifier.as_ref().map(convert_headers);
        }
        ("ResponseHeaderModifier", _) => {
            rule.headers.get_or_insert_default().response =
                filter.response_header_modifier.as_ref().map(convert_headers);
        }
        ("RequestMirror", _) => {
            let Some(mirror) = &filter.request_mirror else { return Some(()) };
            let previous = problems.len();
            let destination = convert_backend(mesh, object, &mirror.backend_ref, scope, problems);
            if problems.len() > previous || destination.is_none() {
                // For an invalid mirror istiod drops the whole GRPCRoute, but only the mirror of an HTTPRoute.
                return is_http.then_some(());
            }
            let percent = match (&mirror.fraction, mirror.percent) {
                (Some(fraction), _) => {
                    Some(100.0 * f64::from(fraction.numerator) / f64::from(fraction.denominator.unwrap_or(100)))
                }
                (None, Some(percent)) => i32::try_from(percent).ok().map(f64::from),
                (None, None) => None,
            };
            let percentage = percent.map(|value| PercentValue { value });
            rule.mirrors.0.push(HttpMirror { destination, percentage });
        }
        ("RequestRedirect", true) => {
            let redirect = filter.request_redirect.clone().unwrap_or_default();
            rule.redirect = Some(Redirect {
                uri: None,
                authority: redirect.hostname,
                scheme: redirect.scheme,
                redirect_code: Some(redirect.status_code.unwrap_or(302)),
            });
        }
        ("URLRewrite", true) => rule.rewrite = filter.url_rewrite.as_ref().and_then(convert_rewrite),
        ("CORS", true) => {}
        _ => {
            problems.push(format!("filter {} is not supported", filter.kind));
            return None;
        }
    }
    if rule.headers.as_ref().is_some_and(|headers: &Headers| headers.request.is_none() && headers.response.is_none()) {
        rule.headers = None;
    }
    Some(())
}

fn convert_headers(modifier: &HeaderModifier) -> HeaderOperations {
    let map = |list: &[ValueMatch]| {
        let headers = list.iter();
        headers
            .map(|header| (header.name.clone().unwrap_or_default(), header.value.clone().unwrap_or_default()))
            .collect()
    };
    HeaderOperations { set: map(&modifier.set), add: map(&modifier.add), remove: modifier.remove.clone() }
}

fn convert_rewrite(filter: &UrlRewrite) -> Option<Rewrite> {
    let mut rewrite = Rewrite { authority: filter.hostname.clone(), ..Rewrite::default() };
    if let Some(path) = &filter.path {
        match (path.kind.as_str(), &path.replace_prefix_match, &path.replace_full_path) {
            ("ReplacePrefixMatch", Some(prefix), _) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                rewrite.uri = Some(if prefix.is_empty() { "/" } else { prefix }.to_owned());
            }
            ("ReplaceFullPath", _, Some(path)) => {
                rewrite.uri_regex_rewrite = Some(RegexRewrite { matches: "/.*".to_owned(), rewrite: path.clone() });
            }
            _ => {}
        }
    }
    (rewrite != Rewrite::default()).then_some(rewrite)
}

/// Converts a backend. A backend that is not allowed keeps its weight and loses its host; a missing one keeps both.
/// `None` means that istiod drops the whole route object.
fn convert_backend(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    backend: &BackendRef,
    scope: RouteScope,
    problems: &mut Vec<String>,
) -> Option<Destination> {
    let own_namespace = &object.object.namespace;
    let group = backend.group.as_deref().unwrap_or_default();
    let kind = backend.kind.as_deref().unwrap_or("Service");
    let namespace: Namespace = backend.namespace.as_deref().map_or_else(|| own_namespace.clone(), Into::into);
    if scope == RouteScope::Gateway
        && namespace != *own_namespace
        && !is_granted(mesh, object, group, kind, &backend.name, &namespace)
    {
        problems.push(format!(
            "backend {}/{} needs a ReferenceGrant in {namespace} for {} of {own_namespace}",
            namespace,
            backend.name,
            object.object.kind.name()
        ));
        return Some(Destination::default());
    }
    let host = match (group, kind) {
        ("" | "core", "Service") if backend.name.contains('.') => return None,
        ("" | "core", "Service") | ("multicluster.x-k8s.io", "ServiceImport") => {
            if mesh.find_service(namespace.as_str(), &backend.name).is_none() {
                problems.push(format!("backend {namespace}/{} does not exist", backend.name));
            }
            host::service_host(&backend.name, &namespace, &mesh.cluster_domain)
        }
        ("networking.istio.io", "Hostname") => {
            if backend.namespace.is_some() {
                return None;
            }
            if mesh.find_host(&backend.name).is_none() {
                problems.push(format!("backend {} is not a host of the registry", backend.name));
            }
            backend.name.as_str().into()
        }
        _ => {
            problems.push(format!("backend {}: Istio does not support {group} {kind} as a backend", backend.name));
            return Some(Destination::default());
        }
    };
    let number = u32::try_from(backend.port?).ok()?;
    Some(Destination { host: host.as_str().to_owned(), subset: None, port: Some(PortSelector { number }) })
}

fn is_granted(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    group: &str,
    kind: &str,
    name: &str,
    namespace: &Namespace,
) -> bool {
    let route = object.object.kind.name();
    let own_namespace = object.object.namespace.as_str();
    let group = if group == "core" { "" } else { group };
    mesh.reference_grants.iter().filter(|grant| grant.object.namespace == *namespace).any(|grant| {
        let from = grant.spec.from.iter().any(|from| {
            from.group == "gateway.networking.k8s.io" && from.kind == route && from.namespace == own_namespace
        });
        let to = grant.spec.to.iter().any(|to| {
            let to_group = if to.group == "core" { "" } else { &to.group };
            let has_name = to.name.as_deref().is_none_or(|allowed| allowed.is_empty() || allowed == name);
            to_group == group && to.kind == kind && has_name
        });
        from && to
    })
}

/// Converts one match; `Some(None)` when it has no conditions, `None` when it is invalid.
#[expect(clippy::option_option, reason = "no conditions and invalid conditions differ")]
fn convert_match(object: &RouteObject, written: Option<&ApiRouteMatch>) -> Option<Option<HttpMatch>> {
    let exact = |text: &str| StringMatch { exact: Some(text.to_owned()), ..StringMatch::default() };
    let prefix = |text: &str| StringMatch { prefix: Some(text.to_owned()), ..StringMatch::default() };
    let regex = |text: String| StringMatch { regex: Some(text), ..StringMatch::default() };
    let mut converted = HttpMatch::default();
    let Some(ApiRouteMatch { path, method, headers, query_params }) = written else {
        // The CRD of HTTPRoute sets a default match for `/`; that of GRPCRoute sets none.
        converted.uri = Some(prefix("/"));
        return Some((!object.is_grpc()).then_some(converted));
    };
    if !object.is_grpc() {
        let kind = path.as_ref().and_then(|path| path.kind.as_deref()).unwrap_or("PathPrefix");
        let value = path.as_ref().and_then(|path| path.value.as_deref()).unwrap_or("/");
        converted.uri = Some(match kind {
            "PathPrefix" if value == "/" => prefix("/"),
            "PathPrefix" => prefix(value.strip_suffix('/').unwrap_or(value)),
            "Exact" => exact(value),
            "RegularExpression" => regex(value.to_owned()),
            _ => return None,
        });
    }
    match method {
        Some(MethodMatch::Http(method)) => converted.method = Some(exact(method)),
        Some(MethodMatch::Grpc(method)) => {
            let by_regex = match method.kind.as_deref().unwrap_or("Exact") {
                "Exact" => false,
                "RegularExpression" => true,
                _ => return None,
            };
            converted.uri = Some(match (method.service.as_deref(), method.method.as_deref(), by_regex) {
                (None, None, _) => return None,
                (None, Some(method), _) => regex(format!("/[^/]+/{method}")),
                (Some(service), None, false) => prefix(&format!("/{service}/")),
                (Some(service), None, true) => regex(format!("/{service}/.+")),
                (Some(service), Some(method), false) => exact(&format!("/{service}/{method}")),
                // istiod sets no brackets around the parts, so `a|b` is an alternative of the whole expression.
                (Some(service), Some(method), true) => regex(format!("/{service}/{method}")),
            });
        }
        None => {}
    }
    let texts = |list: &[ValueMatch]| -> Option<Option<BTreeMap<String, StringMatch>>> {
        let mut map = BTreeMap::new();
        for condition in list {
            let value = condition.value.clone().unwrap_or_default();
            let text = match condition.kind.as_deref().unwrap_or("Exact") {
                "Exact" => exact(&value),
                "RegularExpression" => regex(value),
                _ => return None,
            };
            map.insert(condition.name.clone().unwrap_or_default(), text);
        }
        Some((!map.is_empty()).then_some(map))
    };
    converted.headers = texts(headers)?;
    converted.query_params = texts(query_params)?;
    Some(Some(converted))
}

/// The name of the Istio Gateway that istiod generates for a listener of a Gateway API Gateway.
pub(super) fn listener_gateway(namespace: &Namespace, gateway: &str, listener: &str) -> GatewayName {
    let name = format!("{gateway}~istio-autogenerated-k8s-gateway~{listener}");
    GatewayName::Named { namespace: namespace.clone(), name: name.as_str().into() }
}
