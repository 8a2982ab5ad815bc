//! One Service from the mesh to its report.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::inspect::{
    AuthorizationReport, BackendReport, CallerReport, GatewayReport, PodsReport, PolicyReport, PortReport,
    ProxiesReport, RetriesReport, RouteReport, ServiceReport, TlsReport, WorkloadReport,
};
use crate::mesh::Mesh;
use crate::mesh::destination_rule::{AppliedRules, Policy};
use crate::mesh::ids::{ObjectRef, ServiceId};
use crate::mesh::protocol::{Family, Protocol};
use crate::mesh::route::{Action, Backend, BackendState, RouteRule};
use crate::mesh::service::{PodCount, Resolution, Service, ServicePort, TargetPort};
use crate::mesh::views::{CallerClass, RouteOwner};
use crate::mesh::{RouteUse, version::IstioVersion};
use crate::schema::Kind;
use crate::schema::duration;

/// The objects whose findings touch a Service: itself, what routes to it, what applies to it, its pods.
pub(super) fn related(mesh: &Mesh<'_>, id: ServiceId) -> BTreeSet<ObjectRef> {
    let service = mesh.service(id);
    let mut objects = BTreeSet::from([service.object.clone()]);
    objects.extend(mesh.virtual_services.covering(&service.host).map(|object| object.object.clone()));
    objects.extend(mesh.destination_rules.covering(service.host.as_str()).map(|(_, rule)| rule.object.clone()));
    objects.extend(mesh.attached_routes(id).iter().map(|route| mesh.route_object(*route).object.clone()));
    for user in mesh.users_of(id) {
        match *user {
            RouteUse::VirtualService(object, _) => {
                objects.insert(mesh.virtual_services.get(object).object.clone());
            }
            RouteUse::RouteObject(route, _) => {
                objects.insert(mesh.route_object(route).object.clone());
            }
        }
    }
    objects.extend(mesh.exposures(id).into_iter().map(|exposure| exposure.gateway));
    objects.extend(mesh.workloads_of(service).map(|workload| workload.object.clone()));
    objects
}

/// Everything about one Service.
pub(super) fn service(mesh: &Mesh<'_>, id: ServiceId, finding_counts: BTreeMap<&'static str, usize>) -> ServiceReport {
    let service = mesh.service(id);
    let views = mesh.views(id);
    let everybody = &views[0];
    let known = mesh.knows_pods_of(service);
    let routes = routes(mesh, everybody);
    ServiceReport {
        namespace: service.namespace().to_string(),
        name: service.object.name.to_string(),
        kind: service.object.kind.name().to_owned(),
        host: service.host.to_string(),
        resolution: match &service.resolution {
            Resolution::ClusterIp => "ClusterIP".to_owned(),
            Resolution::Headless => "Headless".to_owned(),
            Resolution::ExternalName(target) => format!("ExternalName {target}"),
            Resolution::Entry(word) => word.to_string(),
        },
        ports: service.ports.iter().map(|port| self::port(mesh, service, port, everybody)).collect(),
        pods: pods(service.endpoints, known),
        proxies: proxies(mesh, service),
        callers: views[1..].iter().map(|view| caller(mesh, view, everybody, &routes)).collect(),
        routes,
        destination_rules: objects(mesh, &everybody.rules),
        policies: policies(mesh, service, everybody),
        workloads: workloads(mesh, service),
        tls: tls(mesh, service),
        authorization: authorization(mesh, service),
        gateways: mesh
            .exposures(id)
            .into_iter()
            .map(|exposure| GatewayReport {
                gateway: (&exposure.gateway).into(),
                known: exposure.known,
                port: exposure.port,
                protocol: exposure.protocol,
                tls: exposure.tls.to_string(),
                hosts: exposure.hosts,
                route: (&exposure.route).into(),
            })
            .collect(),
        not_modelled: not_modelled(mesh, service, everybody),
        has_grpc: service.has_grpc(),
        finding_counts,
    }
}

fn pods(count: PodCount, known: bool) -> PodsReport {
    PodsReport { ready: count.ready, total: count.total, unknown: count.unknown, known }
}

fn proxies(mesh: &Mesh<'_>, service: &Service) -> ProxiesReport {
    let mut count = ProxiesReport::default();
    for workload in mesh.workloads_of(service) {
        count.total += workload.count;
        match workload.proxy.is_meshed() {
            Some(true) => count.with += workload.count,
            Some(false) => {}
            None => count.unknown += workload.count,
        }
    }
    count
}

fn port(mesh: &Mesh<'_>, service: &Service, port: &ServicePort, view: &CallerClass) -> PortReport {
    let policy = mesh.destination_rules.policy(&view.rules, port.number, None);
    PortReport {
        number: port.number,
        name: port.name.as_deref().unwrap_or_default().to_owned(),
        app_protocol: port.app_protocol.as_deref().map(str::to_owned),
        protocol: port.protocol.word(),
        protocol_label: port.protocol.label(),
        decided_by: port.decided_by.to_string(),
        evidence: port.evidence.iter().map(ToString::to_string).collect(),
        target_port: match &port.target {
            TargetPort::Number(number) => number.to_string(),
            TargetPort::Name(name) => name.to_string(),
        },
        inbound: inbound(port.protocol).to_owned(),
        outbound: outbound(mesh, service, port.protocol, &policy),
        gateway: gateway(mesh, port.protocol, &policy),
    }
}

/// What the server's proxy makes of a protocol.
fn inbound(protocol: Protocol) -> &'static str {
    match protocol.family() {
        Family::Http => "calls are seen one by one",
        Family::Auto => "HTTP/2 is detected, other bytes pass",
        Family::Tcp => "bytes only",
        Family::Nothing => "no listener",
    }
}

fn outbound(mesh: &Mesh<'_>, service: &Service, protocol: Protocol, policy: &Policy<'_>) -> String {
    let upstream = match protocol.family() {
        Family::Nothing => return "no listener".to_owned(),
        Family::Tcp => return "one connection goes to one pod; no routes, no retries".to_owned(),
        Family::Http | Family::Auto if policy.uses_client_protocol() => "the caller's protocol to the server",
        Family::Http if protocol.is_http2() => "HTTP/2 to the server",
        Family::Http if upgraded(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        Family::Http => "HTTP/1.1 to the server",
        Family::Auto => "the caller's protocol to the server, by detection",
    };
    if service.resolution == Resolution::Headless {
        return format!("routed per call, to the pod that was dialled; {upstream}");
    }
    format!("balanced per call; {upstream}")
}

fn gateway(mesh: &Mesh<'_>, protocol: Protocol, policy: &Policy<'_>) -> String {
    match protocol.family() {
        Family::Nothing => "no listener",
        Family::Tcp => "bytes only",
        Family::Http | Family::Auto if policy.uses_client_protocol() => "the client's protocol to the server",
        Family::Http if protocol.is_http2() => "HTTP/2 to the server",
        Family::Http if upgraded(mesh, protocol, policy) => "HTTP/2 to the server (upgraded)",
        Family::Auto if policy.h2_upgrade() == Some("UPGRADE") => "HTTP/2 to the server (upgraded)",
        Family::Http | Family::Auto => "HTTP/1.1 to the server: gRPC fails",
    }
    .to_owned()
}

fn upgraded(mesh: &Mesh<'_>, protocol: Protocol, policy: &Policy<'_>) -> bool {
    match policy.h2_upgrade() {
        Some("UPGRADE") => true,
        Some("DO_NOT_UPGRADE") => false,
        _ => protocol.family() == Family::Http && mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE"),
    }
}

fn routes(mesh: &Mesh<'_>, view: &CallerClass) -> Vec<RouteReport> {
    mesh.rules_of(&view.owner).iter().map(|rule| route(mesh, view, rule)).collect()
}

fn route(mesh: &Mesh<'_>, view: &CallerClass, rule: &RouteRule) -> RouteReport {
    let absent = if rule.object.kind == Kind::VirtualService { 0 } else { 1 };
    let (action, backends) = match &rule.action {
        Action::Forward(targets) => ("forward".to_owned(), mesh.backends(&view.sample, targets, absent)),
        Action::Redirect => ("redirect".to_owned(), Vec::new()),
        Action::DirectResponse(status) => (format!("direct-response {status}"), Vec::new()),
        Action::Delegate { object } => (format!("delegate {}", object.path()), Vec::new()),
    };
    RouteReport {
        object: (&rule.object).into(),
        index: rule.index,
        name: rule.name.clone(),
        matches: rule.matches.iter().map(ToString::to_string).collect(),
        action,
        backends: backends.iter().map(|backend| self::backend(mesh, backend)).collect(),
        timeout_ms: rule.timeout.map_or(0, millis),
        retries: RetriesReport {
            attempts: rule.retries.attempts,
            retry_on: rule.retries.retry_on.clone(),
            status_codes: rule.retries.status_codes.clone(),
            per_try_timeout_ms: rule.retries.per_try_timeout.map_or(0, millis),
            owner: rule.retries.owner.to_string(),
        },
        faults: rule.faults.clone(),
        mirrors: rule
            .mirrors
            .iter()
            .map(|mirror| {
                let subset = mirror.subset.as_ref().map(|subset| format!(" {subset}")).unwrap_or_default();
                let share = crate::mesh::route::show_share(mirror.percent);
                format!("{share} to {}{subset}", mesh.short_host(&mirror.host))
            })
            .collect(),
        rewrites: rule.rewrites.clone(),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn backend(mesh: &Mesh<'_>, backend: &Backend) -> BackendReport {
    let target = &backend.target;
    BackendReport {
        host: target.host.to_string(),
        short: mesh.short_host(&target.host).to_owned(),
        port: target.port,
        subset: target.subset.as_ref().map(ToString::to_string),
        weight: target.weight,
        share: (backend.share * 100.0).round() / 100.0,
        state: match backend.state {
            BackendState::Ok => "ok",
            BackendState::HostUnknown | BackendState::SubsetUnknown => "no-cluster",
            BackendState::NoEndpoints => "no-endpoints",
            BackendState::Unknown => "unknown",
        },
        pods: pods(backend.pods, backend.state != BackendState::Unknown),
    }
}

fn objects(mesh: &Mesh<'_>, rules: &AppliedRules) -> Vec<super::ObjectReport> {
    rules.0.iter().map(|id| (&mesh.destination_rules.get(*id).object).into()).collect()
}

fn caller(mesh: &Mesh<'_>, view: &CallerClass, everybody: &CallerClass, usual: &[RouteReport]) -> CallerReport {
    let own = routes(mesh, view);
    let mut differs = Vec::new();
    let destination_rules = objects(mesh, &view.rules);
    if view.rules != everybody.rules {
        let names: Vec<_> = destination_rules.iter().map(|o| format!("{}/{}", o.namespace, o.name)).collect();
        let names = if names.is_empty() {
            "no DestinationRule".to_owned()
        } else {
            format!("DestinationRule {}", names.join(", "))
        };
        let have: BTreeSet<&str> = mesh.destination_rules.subset_names(&view.rules).collect();
        let lost: Vec<_> =
            mesh.destination_rules.subset_names(&everybody.rules).filter(|name| !have.contains(name)).collect();
        differs.push(format!("use {names}"));
        if !lost.is_empty() {
            let (noun, verb) = if lost.len() == 1 { ("subset", "does") } else { ("subsets", "do") };
            differs.push(format!("{noun} {} {verb} not exist for them", lost.join(", ")));
        }
    }
    if view.owner != everybody.owner {
        differs.push(match &view.owner {
            RouteOwner::Default => "get Istio's default route".to_owned(),
            RouteOwner::VirtualService(id) => format!("are routed by {}", mesh.virtual_services.get(*id).object),
            RouteOwner::RouteObjects(ids) => {
                let names: Vec<_> = ids.iter().map(|id| mesh.route_object(*id).object.to_string()).collect();
                format!("are routed by {}", names.join(", "))
            }
        });
    }
    CallerReport {
        namespaces: view.namespaces.iter().map(ToString::to_string).collect(),
        destination_rules,
        routes: (own != usual).then_some(own),
        differs,
    }
}

/// Policies of the gRPC ports, for the host and for each subset that changes something.
fn policies(mesh: &Mesh<'_>, service: &Service, view: &CallerClass) -> Vec<PolicyReport> {
    let mut reports = Vec::new();
    let ports = service.ports.iter().filter(|port| !port.evidence.is_empty() || port.protocol.is_http2());
    for port in ports {
        let general = policy(mesh, service, port, view, None);
        let mut subsets = Vec::new();
        for name in mesh.destination_rules.subset_names(&view.rules) {
            let own = policy(mesh, service, port, view, Some(name));
            if (PolicyReport { subset: None, ..own.clone() }) != general && !subsets.contains(&own) {
                subsets.push(own);
            }
        }
        reports.push(general);
        reports.extend(subsets);
    }
    reports
}

fn policy(
    mesh: &Mesh<'_>,
    service: &Service,
    port: &ServicePort,
    view: &CallerClass,
    subset: Option<&str>,
) -> PolicyReport {
    let name = subset.map(Into::into);
    let policy = mesh.destination_rules.policy(&view.rules, port.number, name.as_ref());
    PolicyReport {
        port: port.number,
        subset: subset.map(str::to_owned),
        connection_pool: connection_pool(mesh, port.protocol, &policy),
        load_balancing: load_balancing(service, &policy),
        outlier_detection: outlier_detection(service, &policy),
        tls: match &policy.tls {
            Some(tls) => format!("{} ({})", tls.value.mode.as_deref().unwrap_or("DISABLE"), tls.object),
            None if mesh.config.enable_auto_mtls == Some(false) => "plaintext (auto mTLS is off)".to_owned(),
            None => "auto: mTLS where the server's pod has a proxy".to_owned(),
        },
    }
}

/// Limits in numbers, with what they mean for calls.
fn connection_pool(mesh: &Mesh<'_>, protocol: Protocol, policy: &Policy<'_>) -> Vec<String> {
    let Some(pool) = &policy.connection_pool else {
        return vec!["no limits (Istio's defaults)".to_owned()];
    };
    let positive = |limit: Option<i64>| limit.filter(|limit| *limit > 0);
    let tcp = pool.value.tcp.as_ref();
    let http = pool.value.http.as_ref();
    let connections = positive(tcp.and_then(|tcp| tcp.max_connections));
    let explicit_h2 = !policy.uses_client_protocol()
        && (protocol.is_http2()
            || (upgraded(mesh, protocol, policy) && mesh.version >= IstioVersion { major: 1, minor: 28 }));
    let streams = positive(http.and_then(|http| http.max_concurrent_streams)).filter(|_| explicit_h2);
    let mut lines = Vec::new();
    if let (Some(connections), Some(streams)) = (connections, streams) {
        lines.push(format!(
            "{connections} connections × {streams} streams = {} calls in flight per caller; more wait, then fail with UNAVAILABLE (UO)",
            connections.saturating_mul(streams)
        ));
    } else if let Some(connections) = connections {
        lines.push(format!("{connections} connections per caller; HTTP/2 puts all calls on few of them"));
    } else if let Some(streams) = streams {
        lines.push(format!("{streams} streams per connection; more calls open more connections"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.http2_max_requests)) {
        lines.push(format!("{limit} calls in flight per caller; more fail with UNAVAILABLE (UO)"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.http1_max_pending_requests)) {
        lines.push(format!("{limit} calls waiting for a connection per caller; more fail with UNAVAILABLE (UO)"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.max_requests_per_connection)) {
        lines.push(format!("a new connection after {limit} calls"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.max_retries)) {
        lines.push(format!("{limit} retries in flight per caller"));
    }
    let idle = http.and_then(|http| http.idle_timeout.as_deref()).or(tcp.and_then(|tcp| tcp.idle_timeout.as_deref()));
    if let Some(idle) = idle {
        lines.push(format!("idle connections are closed after {idle}"));
    }
    if let Some(limit) = tcp.and_then(|tcp| tcp.connect_timeout.as_deref()) {
        lines.push(format!("connecting takes at most {limit}"));
    }
    if let Some(age) = tcp.and_then(|tcp| tcp.max_connection_duration.as_deref()) {
        lines.push(format!("connections are closed after {age}"));
    }
    if lines.is_empty() {
        lines.push("no limits".to_owned());
    }
    lines.push(format!("from {}", pool.object));
    lines
}

fn load_balancing(service: &Service, policy: &Policy<'_>) -> String {
    if service.resolution == Resolution::Headless {
        return "none: the pod that was dialled (gateways: LEAST_REQUEST)".to_owned();
    }
    let Some(balancer) = &policy.load_balancer else { return "LEAST_REQUEST (default)".to_owned() };
    let value = balancer.value;
    let text = match (&value.consistent_hash, &value.simple) {
        (Some(hash), _) => {
            let by = if let Some(header) = &hash.http_header_name {
                format!("header {header}")
            } else if hash.http_cookie.is_some() {
                "a cookie".to_owned()
            } else if hash.use_source_ip == Some(true) {
                "the caller's address".to_owned()
            } else if let Some(parameter) = &hash.http_query_parameter_name {
                format!("query parameter {parameter}, which gRPC calls do not have")
            } else {
                "nothing".to_owned()
            };
            format!("consistent hash by {by}")
        }
        (None, Some(simple)) => simple.clone(),
        (None, None) => "LEAST_REQUEST".to_owned(),
    };
    format!("{text} ({})", balancer.object)
}

fn outlier_detection(service: &Service, policy: &Policy<'_>) -> String {
    let Some(outlier) = &policy.outlier_detection else { return "off".to_owned() };
    let value = outlier.value;
    let errors = value.consecutive_5xx_errors.unwrap_or(5);
    let base = value.base_ejection_time.as_deref().unwrap_or("30s");
    let percent = value.max_ejection_percent.unwrap_or(10);
    let total = i64::from(service.endpoints.total);
    // Envoy always allows one ejection when the share allows any.
    let most = if percent == 0 { 0 } else { (total * percent / 100).max(1).min(total.max(1)) };
    format!(
        "after {errors} errors in a row, for {base}, at most {most} of {total} pods ({percent}%); statuses in trailers do not count ({})",
        outlier.object
    )
}

fn workloads(mesh: &Mesh<'_>, service: &Service) -> Vec<WorkloadReport> {
    type Alike = (String, Option<String>, String, Vec<String>);
    let mut groups: BTreeMap<Alike, PodCount> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        let exclusions = workload.exclusions.iter().map(|one| format!("{}: {}", one.annotation, one.value)).collect();
        let proxy = match workload.proxy.envoy().and_then(|envoy| envoy.ready) {
            Some(false) => format!("{} (not ready)", workload.proxy),
            Some(true) | None => workload.proxy.to_string(),
        };
        let key = (workload.title(), workload.labels.get("version").map(str::to_owned), proxy, exclusions);
        groups.entry(key).or_default().add(workload, service.publishes_not_ready);
    }
    groups
        .into_iter()
        .map(|((name, version, proxy, exclusions), count)| WorkloadReport {
            name,
            version,
            pods: pods(count, true),
            proxy,
            exclusions,
        })
        .collect()
}

fn tls(mesh: &Mesh<'_>, service: &Service) -> Vec<TlsReport> {
    let mut reports: Vec<TlsReport> = Vec::new();
    for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
        for workload in mesh.workloads_of(service) {
            if workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let Some(number) = port.target.number_in(workload) else { continue };
            let (mode, object) = mesh.security.mtls(workload, number, &mesh.root);
            let report = TlsReport {
                port: number,
                mode: mode.to_string(),
                decided_by: object.map_or_else(|| "default".to_owned(), ToString::to_string),
            };
            if !reports.contains(&report) {
                reports.push(report);
            }
        }
    }
    reports
}

fn authorization(mesh: &Mesh<'_>, service: &Service) -> Vec<AuthorizationReport> {
    let mut reports: BTreeMap<ObjectRef, AuthorizationReport> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        for policy in mesh.security.authorization(workload, &mesh.root) {
            let operations = policy.spec.rules.iter().flat_map(|rule| &rule.to).filter_map(|to| to.operation.as_ref());
            let paths = operations.flat_map(|operation| operation.paths.iter().chain(&operation.not_paths)).cloned();
            let paths: BTreeSet<String> = paths.collect();
            reports.entry(policy.object.clone()).or_insert_with(|| AuthorizationReport {
                object: (&policy.object).into(),
                action: policy.spec.action.clone().unwrap_or_else(|| "ALLOW".to_owned()),
                paths: paths.into_iter().collect(),
            });
        }
    }
    reports.into_values().collect()
}

/// What acts on the Service's proxies or callers without being part of the model.
fn not_modelled(mesh: &Mesh<'_>, service: &Service, view: &CallerClass) -> Vec<String> {
    let mut texts = BTreeSet::new();
    for workload in mesh.workloads_of(service) {
        for extension in mesh.extensions_for(workload) {
            let patches: BTreeSet<&str> =
                extension.spec.config_patches.iter().filter_map(|patch| patch.apply_to.as_deref()).collect();
            let patches = if patches.is_empty() {
                String::new()
            } else {
                format!(" (patches {})", patches.into_iter().collect::<Vec<_>>().join(", "))
            };
            texts.insert(format!("{}{patches} acts on its proxies", extension.object));
        }
    }
    let narrowed: Vec<_> = mesh.sidecars.keys().map(ToString::to_string).collect();
    if !narrowed.is_empty() {
        texts.insert(format!("Sidecar objects in {} may narrow what callers there see", narrowed.join(", ")));
    }
    let selective = mesh.destination_rules.covering(service.host.as_str()).filter(|(_, rule)| rule.selector.is_some());
    for (_, rule) in selective {
        texts.insert(format!("{} acts only on callers that its workloadSelector picks", rule.object));
    }
    if let RouteOwner::VirtualService(id) = view.owner
        && mesh.virtual_services.get(id).spec.http.iter().any(|rule| rule.delegate.is_some())
    {
        texts.insert("rules of delegates are not shown here".to_owned());
    }
    texts.into_iter().collect()
}

/// Writes milliseconds as a duration.
pub(crate) fn show_millis(millis: u64) -> String {
    duration::show(Duration::from_millis(millis))
}
