//! Gateway API routes to route configurations, as istiod converts them.
//!
//! Sources: `pilot/pkg/config/kube/gateway/conversion.go` and `route_collections.go` of istio/istio 1.31. Each rule and
//! each alternative of it becomes one rule; all routes with one parent and host are merged and sorted by how precise
//! their paths are. Defaults that the CRDs set are set here too, since files lack them.

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
    Destination, DirectResponse, HeaderOperations, Headers, HttpMatch, HttpMirror, HttpRetries, HttpRule, Percent,
    PortSelector, Redirect, RegexRewrite, Rewrite, RouteDestination, StringMatch,
};

/// Where a rule will act: references across namespaces need a grant only at gateways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteScope {
    Mesh,
    Gateway,
}

/// A rule of a route object, converted.
struct ConvertedRule {
    index: usize,
    rule: HttpRule,
    problems: Vec<String>,
}

/// All route configurations that come of Gateway API routes.
pub(super) fn configs(mesh: &Mesh<'_>) -> Vec<RouteConfig> {
    let gateways = gateway_api_parents::listeners(mesh);
    let mut merged: BTreeMap<String, Vec<ConvertedPart<'_>>> = BTreeMap::new();
    // istiod numbers what comes of an object, and knows it by namespace, name and number: what comes of an HTTPRoute hides
    // what comes of a GRPCRoute of the same name (`NamespacedName` in `RouteWithKey.ResourceName`).
    let mut taken: HashSet<(Namespace, Arc<str>, usize)> = HashSet::new();
    let (http, grpc): (Vec<_>, Vec<_>) =
        mesh.route_objects.iter().partition(|object| object.object.kind == Kind::HttpRoute);
    for object in http.into_iter().chain(grpc) {
        let mut count = 0;
        let attached = gateway_api_parents::attachments(mesh, &gateways, object);
        let rules: HashMap<bool, Option<Vec<ConvertedRule>>> = [RouteScope::Mesh, RouteScope::Gateway]
            .into_iter()
            .map(|place| (place == RouteScope::Mesh, convert(mesh, object, place)))
            .collect();
        for attachment in attached {
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
                if !taken.insert(identity) {
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
    let mut found = Vec::new();
    for (key, mut parts) in merged {
        parts.sort_by(|a, b| {
            let name =
                |part: &ConvertedPart<'_>| (part.object.object.namespace.clone(), part.object.object.name.clone());
            a.object.created.cmp(&b.object.created).then_with(|| name(a).cmp(&name(b)))
        });
        found.extend(merge(mesh, &key, &parts));
    }
    found
}

/// What one route object adds for one parent and host.
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
        let place = match part.attachment {
            Attachment::Service { .. } => RouteScope::Mesh,
            Attachment::Listener { .. } => RouteScope::Gateway,
        };
        for ConvertedRule { index, mut rule, problems } in convert(mesh, part.object, place)? {
            if let Some(port) = part.port {
                if rule.matches.is_empty() {
                    rule.matches.0.push(HttpMatch::default());
                }
                rule.matches.0.iter_mut().for_each(|one| one.port = Some(u32::from(port)));
            }
            rules.push(ConfigRule::made(part.object.object.clone(), index, rule, Vec::new(), problems));
        }
    }
    sort(&mut rules);
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

/// Exact paths before prefixes before expressions, longer before shorter, then by method, headers and parameters.
/// Each rule has one alternative at most.
fn sort(rules: &mut [ConfigRule]) {
    type Rank = (i8, usize, bool, usize, usize);
    let rank = |rule: &ConfigRule| -> Option<Rank> {
        let one = rule.made_rule()?.matches.first()?;
        let (kind, length) = match &one.uri {
            None => (-1, 0),
            Some(StringMatch { exact: Some(text), .. }) => (3, text.len()),
            Some(StringMatch { prefix: Some(text), .. }) => (2, text.len()),
            Some(StringMatch { regex: Some(text), .. }) => (1, text.len()),
            Some(_) => (-1, 0),
        };
        let count = |map: &Option<BTreeMap<String, StringMatch>>| map.as_ref().map_or(0, BTreeMap::len);
        Some((kind, length, one.method.is_some(), count(&one.headers), count(&one.query_params)))
    };
    // `None`, a rule for every call, comes last.
    rules.sort_by_key(|rule| std::cmp::Reverse(rank(rule)));
}

/// The rules of a route object; `None` when one of them cannot be converted, which takes all of them away.
fn convert(mesh: &Mesh<'_>, object: &RouteObject, place: RouteScope) -> Option<Vec<ConvertedRule>> {
    let mut converted = Vec::new();
    for (index, rule) in object.route.spec.rules.iter().enumerate() {
        let none = [None];
        let alternatives: Vec<Option<&ApiRouteMatch>> =
            if rule.matches.is_empty() { none.to_vec() } else { rule.matches.iter().map(Some).collect() };
        for alternative in alternatives {
            let mut problems = Vec::new();
            let mut made = action(mesh, object, rule, place, &mut problems)?;
            made.name = Some(
                rule.name
                    .clone()
                    .unwrap_or_else(|| format!("{}.{}.{index}", object.object.namespace, object.object.name)),
            );
            if let Some(conditions) = conditions(object, alternative)? {
                made.matches.0.push(conditions);
            }
            converted.push(ConvertedRule { index, rule: made, problems });
        }
    }
    Some(converted)
}

fn action(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    rule: &ApiRouteRule,
    place: RouteScope,
    problems: &mut Vec<String>,
) -> Option<HttpRule> {
    let mut made = HttpRule::default();
    for filter in &rule.filters {
        apply(mesh, object, filter, place, &mut made, problems)?;
    }
    if let Some(retry) = &rule.retry {
        let mut words: Vec<String> = ["connect-failure", "refused-stream", "unavailable", "cancelled"]
            .iter()
            .map(|&word| word.to_owned())
            .collect();
        words.extend(retry.codes.iter().map(ToString::to_string));
        let attempts = retry.attempts.unwrap_or(2);
        made.retries = Some(HttpRetries {
            attempts: Some(attempts),
            retry_on: (attempts != 0).then(|| words.join(",")),
            backoff: retry.backoff.clone(),
            ..HttpRetries::default()
        });
    }
    if let Some(timeouts) = &rule.timeouts {
        let set = |text: &Option<String>| {
            text.clone().filter(|text| crate::vocabulary::duration::parse(text).is_ok_and(|limit| !limit.is_zero()))
        };
        made.timeout = set(&timeouts.request);
        if let Some(limit) = set(&timeouts.backend_request) {
            match &mut made.retries {
                Some(retries) => retries.per_try_timeout = Some(limit),
                None => made.timeout = Some(limit),
            }
        }
    }
    let weight = |backend: &BackendRef| backend.weight.unwrap_or(1);
    if rule.backend_refs.iter().map(weight).sum::<i64>() == 0 && made.redirect.is_none() {
        made.direct_response = Some(DirectResponse { status: 500 });
        return Some(made);
    }
    let used: Vec<&BackendRef> = rule.backend_refs.iter().filter(|backend| weight(backend) != 0).collect();
    for backend in &used {
        let destination = destination(mesh, object, backend, place, problems)?;
        // One backend alone has no weight.
        let weight = if used.len() == 1 { 0 } else { weight(backend) };
        made.route.0.push(RouteDestination { destination: Some(destination), weight: Some(weight), headers: None });
    }
    Some(made)
}

fn apply(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    filter: &RouteFilter,
    place: RouteScope,
    made: &mut HttpRule,
    problems: &mut Vec<String>,
) -> Option<()> {
    let http = !object.is_grpc();
    match (filter.kind.as_str(), http) {
        ("RequestHeaderModifier", _) => {
            made.headers.get_or_insert_default().request = filter.request_header_modifier.as_ref().map(headers);
        }
        ("ResponseHeaderModifier", _) => {
            made.headers.get_or_insert_default().response = filter.response_header_modifier.as_ref().map(headers);
        }
        ("RequestMirror", _) => {
            let Some(mirror) = &filter.request_mirror else { return Some(()) };
            let before = problems.len();
            let target = destination(mesh, object, &mirror.backend_ref, place, problems);
            if problems.len() > before || target.is_none() {
                // A mirror that leads nowhere takes a whole GRPCRoute away, and only itself from an HTTPRoute.
                return http.then_some(());
            }
            let share = match (&mirror.fraction, mirror.percent) {
                (Some(part), _) => Some(100.0 * f64::from(part.numerator) / f64::from(part.denominator.unwrap_or(100))),
                (None, Some(percent)) => i32::try_from(percent).ok().map(f64::from),
                (None, None) => None,
            };
            let percentage = share.map(|value| Percent { value });
            made.mirrors.0.push(HttpMirror { destination: target, percentage });
        }
        ("RequestRedirect", true) => {
            let redirect = filter.request_redirect.clone().unwrap_or_default();
            made.redirect = Some(Redirect {
                uri: None,
                authority: redirect.hostname,
                scheme: redirect.scheme,
                redirect_code: Some(redirect.status_code.unwrap_or(302)),
            });
        }
        ("URLRewrite", true) => made.rewrite = filter.url_rewrite.as_ref().and_then(rewrite),
        ("CORS", true) => {}
        _ => {
            problems.push(format!("filter {} is not supported", filter.kind));
            return None;
        }
    }
    if made.headers.as_ref().is_some_and(|headers: &Headers| headers.request.is_none() && headers.response.is_none()) {
        made.headers = None;
    }
    Some(())
}

fn headers(modifier: &HeaderModifier) -> HeaderOperations {
    let map = |list: &[ValueMatch]| {
        list.iter().map(|one| (one.name.clone().unwrap_or_default(), one.value.clone().unwrap_or_default())).collect()
    };
    HeaderOperations { set: map(&modifier.set), add: map(&modifier.add), remove: modifier.remove.clone() }
}

fn rewrite(filter: &UrlRewrite) -> Option<Rewrite> {
    let mut made = Rewrite { authority: filter.hostname.clone(), ..Rewrite::default() };
    if let Some(path) = &filter.path {
        match (path.kind.as_str(), &path.replace_prefix_match, &path.replace_full_path) {
            ("ReplacePrefixMatch", Some(prefix), _) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                made.uri = Some(if prefix.is_empty() { "/" } else { prefix }.to_owned());
            }
            ("ReplaceFullPath", _, Some(path)) => {
                made.uri_regex_rewrite = Some(RegexRewrite { matches: "/.*".to_owned(), rewrite: path.clone() });
            }
            _ => {}
        }
    }
    (made != Rewrite::default()).then_some(made)
}

/// A backend. One that may not be used keeps its share without a host; one that does not exist keeps its name too.
/// `None` takes the whole route object away.
fn destination(
    mesh: &Mesh<'_>,
    object: &RouteObject,
    backend: &BackendRef,
    place: RouteScope,
    problems: &mut Vec<String>,
) -> Option<Destination> {
    let own = &object.object.namespace;
    let group = backend.group.as_deref().unwrap_or_default();
    let kind = backend.kind.as_deref().unwrap_or("Service");
    let namespace: Namespace = backend.namespace.as_deref().map_or_else(|| own.clone(), Into::into);
    if place == RouteScope::Gateway
        && namespace != *own
        && !is_granted(mesh, object, group, kind, &backend.name, &namespace)
    {
        problems.push(format!(
            "backend {}/{} needs a ReferenceGrant in {namespace} for {} of {own}",
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
            host::of_service(&backend.name, &namespace, &mesh.cluster_domain)
        }
        ("networking.istio.io", "Hostname") => {
            if backend.namespace.is_some() {
                return None;
            }
            if mesh.find_host(&backend.name).is_none() {
                problems.push(format!("backend {} is no known host", backend.name));
            }
            backend.name.as_str().into()
        }
        _ => {
            problems.push(format!("backend {}: {group} {kind} is no kind that Istio sends to", backend.name));
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
    let own = object.object.namespace.as_str();
    let group = if group == "core" { "" } else { group };
    mesh.grants.iter().filter(|grant| grant.object.namespace == *namespace).any(|grant| {
        let from = grant
            .spec
            .from
            .iter()
            .any(|from| from.group == "gateway.networking.k8s.io" && from.kind == route && from.namespace == own);
        let to = grant.spec.to.iter().any(|to| {
            let to_group = if to.group == "core" { "" } else { &to.group };
            let every = to.name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
            to_group == group && to.kind == kind && every
        });
        from && to
    })
}

/// The conditions of one alternative; `Some(None)` when there are none, `None` when they cannot be converted.
#[expect(clippy::option_option, reason = "nothing to check, and nothing that can be checked, are two things")]
fn conditions(object: &RouteObject, written: Option<&ApiRouteMatch>) -> Option<Option<HttpMatch>> {
    let exact = |text: &str| StringMatch { exact: Some(text.to_owned()), ..StringMatch::default() };
    let prefix = |text: &str| StringMatch { prefix: Some(text.to_owned()), ..StringMatch::default() };
    let regex = |text: String| StringMatch { regex: Some(text), ..StringMatch::default() };
    let mut made = HttpMatch::default();
    let Some(ApiRouteMatch { path, method, headers, query_params }) = written else {
        // An HTTPRoute's rule gets a match for `/` from its CRD; a GRPCRoute's gets none.
        made.uri = Some(prefix("/"));
        return Some((!object.is_grpc()).then_some(made));
    };
    if !object.is_grpc() {
        let kind = path.as_ref().and_then(|path| path.kind.as_deref()).unwrap_or("PathPrefix");
        let value = path.as_ref().and_then(|path| path.value.as_deref()).unwrap_or("/");
        made.uri = Some(match kind {
            "PathPrefix" if value == "/" => prefix("/"),
            "PathPrefix" => prefix(value.strip_suffix('/').unwrap_or(value)),
            "Exact" => exact(value),
            "RegularExpression" => regex(value.to_owned()),
            _ => return None,
        });
    }
    match method {
        Some(MethodMatch::Http(method)) => made.method = Some(exact(method)),
        Some(MethodMatch::Grpc(method)) => {
            let by_regex = match method.kind.as_deref().unwrap_or("Exact") {
                "Exact" => false,
                "RegularExpression" => true,
                _ => return None,
            };
            made.uri = Some(match (method.service.as_deref(), method.method.as_deref(), by_regex) {
                (None, None, _) => return None,
                (None, Some(method), _) => regex(format!("/[^/]+/{method}")),
                (Some(service), None, false) => prefix(&format!("/{service}/")),
                (Some(service), None, true) => regex(format!("/{service}/.+")),
                (Some(service), Some(method), false) => exact(&format!("/{service}/{method}")),
                // Without brackets around the parts: `a|b` reaches further than it looks.
                (Some(service), Some(method), true) => regex(format!("/{service}/{method}")),
            });
        }
        None => {}
    }
    let texts = |list: &[ValueMatch]| -> Option<Option<BTreeMap<String, StringMatch>>> {
        let mut map = BTreeMap::new();
        for one in list {
            let value = one.value.clone().unwrap_or_default();
            let text = match one.kind.as_deref().unwrap_or("Exact") {
                "Exact" => exact(&value),
                "RegularExpression" => regex(value),
                _ => return None,
            };
            map.insert(one.name.clone().unwrap_or_default(), text);
        }
        Some((!map.is_empty()).then_some(map))
    };
    made.headers = texts(headers)?;
    made.query_params = texts(query_params)?;
    Some(Some(made))
}

/// The gateway that a parent is to istiod.
pub(super) fn listener_gateway(namespace: &Namespace, gateway: &str, listener: &str) -> GatewayName {
    let name = format!("{gateway}~istio-autogenerated-k8s-gateway~{listener}");
    GatewayName::Named { namespace: namespace.clone(), name: name.as_str().into() }
}
