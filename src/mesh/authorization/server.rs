//! The requests that the servers of a call see, and what their policies say about it.

use std::net::IpAddr;

use super::request::{HttpRequest, Known, PeerIdentity, ServerRequest, SpiffeIdentity};
use super::truth::UnknownFact;
use super::{AuthorizationDecision, AuthorizationPolicy, AuthorizationVerdict, PolicySet};
use crate::mesh::Mesh;
use crate::mesh::hop::{CallerTls, HopFailure, HopResult, InboundChain, ServerSide};
use crate::mesh::ids::{Namespace, ServiceId, WorkloadId};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, CallProtocol, Caller, CallerKind, CompiledBackend,
};
use crate::schema::Kind;

/// How one server pod receives a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAccess {
    pub server: WorkloadId,
    /// Port of the pod.
    pub port: u16,
    /// `Err`: the connection fails before the server reads a call.
    pub result: Result<AuthorizationDecision, HopFailure>,
    /// Whether the server's proxy reads calls. On a TCP filter chain it closes connections instead of answering.
    pub is_http: bool,
}

/// The servers of one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendAuthorization {
    /// The decision for all calls to the backend; `None` when no connection succeeds.
    pub decision: Option<AuthorizationDecision>,
    /// The pods that get the calls; empty when the source has none.
    pub servers: Vec<ServerAccess>,
}

/// Authorization of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallAuthorization {
    /// The decision of the gateway itself, for calls that enter through one.
    pub gateway: Option<AuthorizationDecision>,
    /// One entry for each backend of the call, in order.
    pub backends: Vec<BackendAuthorization>,
}

impl BackendAuthorization {
    fn without_servers(decision: Option<AuthorizationDecision>) -> Self {
        Self { decision, servers: Vec::new() }
    }

    /// The share of the backend's calls, from 0 to 1, to servers for which `predicate` holds.
    pub fn ratio(&self, mesh: &Mesh<'_>, predicate: impl Fn(&ServerAccess) -> bool) -> f64 {
        let pods = |access: &&ServerAccess| f64::from(mesh.workload(access.server).pod_count.max(1));
        let total: f64 = self.servers.iter().map(|access| pods(&access)).sum();
        let matching: f64 = self.servers.iter().filter(|access| predicate(access)).map(|access| pods(&access)).sum();
        if total > 0.0 { matching / total } else { 0.0 }
    }
}

impl CallAuthorization {
    /// The decision for the whole call, if all backends that get calls have the same one.
    ///
    /// `None`: the backends differ, or there is nothing to decide about.
    pub fn common_decision(&self, backends: &[CompiledBackend]) -> Option<&AuthorizationDecision> {
        if let Some(gateway) = self.gateway.as_ref().filter(|decision| decision.decides_alone()) {
            return Some(gateway);
        }
        let is_used = |backend: &CompiledBackend| backends.len() == 1 || backend.weight.unwrap_or(0) > 0;
        let used = self.backends.iter().zip(backends).filter(|(_, backend)| is_used(backend));
        let mut decisions = used.map(|(own, _)| own.decision.as_ref());
        let first = decisions.next()??;
        let is_same = |other: Option<&AuthorizationDecision>| {
            other.is_some_and(|other| (other.verdict, &other.rule) == (first.verdict, &first.rule))
        };
        decisions.all(is_same).then_some(first)
    }

    /// The worst verdict at any backend that gets calls.
    pub fn worst_verdict(&self, backends: &[CompiledBackend]) -> AuthorizationVerdict {
        let is_used = |backend: &CompiledBackend| backends.len() == 1 || backend.weight.unwrap_or(0) > 0;
        let used = self.backends.iter().zip(backends).filter(|(_, backend)| is_used(backend));
        let verdicts = used.flat_map(|(own, _)| {
            let of_servers = own.servers.iter().filter_map(|access| access.result.as_ref().ok());
            own.decision.iter().chain(of_servers).map(|decision| decision.verdict)
        });
        let gateway = self.gateway.as_ref().map(|decision| decision.verdict);
        verdicts.chain(gateway).max().unwrap_or(AuthorizationVerdict::None)
    }
}

impl AuthorizationDecision {
    /// Whether a gateway with this decision lets no call pass for sure.
    fn decides_alone(&self) -> bool {
        matches!(self.verdict, AuthorizationVerdict::Denied | AuthorizationVerdict::Undecided)
    }
}

impl Mesh<'_> {
    /// What the policies at the servers of a routed call say about it.
    pub fn authorize(&self, caller: &Caller, call: &Call, decision: &CallDecision) -> CallAuthorization {
        let has_calls = matches!(decision.outcome, CallOutcome::Forward | CallOutcome::Tcp);
        let view = CallView { mesh: self, caller, call, decision };
        let at_backend = |backend: &CompiledBackend| {
            if has_calls { view.at_backend(backend) } else { BackendAuthorization::without_servers(None) }
        };
        CallAuthorization { gateway: view.at_gateway(), backends: decision.backends.iter().map(at_backend).collect() }
    }

    /// The policies that apply to a workload's proxy.
    pub fn policies_for<'a>(&'a self, workload: &'a Workload) -> PolicySet<'a> {
        let policies = self.security_policies.authorization_policies(workload, &self.root_namespace);
        PolicySet::new(policies.collect(), &self.authorizers)
    }

    /// Why the policies at a server cannot be decided: the kind that could not be read. `None`: all were read.
    pub(super) fn unread_policies(&self, namespace: &Namespace, has_policies: bool) -> Option<String> {
        let unread = |kind: Kind| {
            let mut namespaces = [namespace, &self.root_namespace].into_iter();
            namespaces.find(|namespace| !self.coverage.covers(kind, namespace)).map(|namespace| (kind, namespace))
        };
        let also = has_policies.then(|| unread(Kind::PeerAuthentication)).flatten();
        let (kind, namespace) = unread(Kind::AuthorizationPolicy).or(also)?;
        Some(format!("{}s of namespace {namespace} could not be read", kind.name()))
    }

    /// The identity that a caller presents with mTLS.
    pub(super) fn identity_of(&self, caller: &Caller) -> SpiffeIdentity {
        let workload = caller.workload.map(|id| self.workload(id));
        SpiffeIdentity {
            trust_domain: self.trust_domains.first().cloned().unwrap_or_default(),
            namespace: caller.namespace.to_string(),
            service_account: workload.and_then(|workload| workload.service_account.as_deref().map(str::to_owned)),
        }
    }

    /// Whether the proxy of a workload reads tokens: a RequestAuthentication with rules applies to it.
    pub(super) fn reads_tokens(&self, workload: &Workload) -> bool {
        let namespaces = [workload.namespace(), &self.root_namespace];
        self.security_policies.has_request_authentication(workload, &self.root_namespace)
            || namespaces.iter().any(|namespace| !self.coverage.covers(Kind::RequestAuthentication, namespace))
    }
}

/// A call with its routing decision.
struct CallView<'a, 'm> {
    mesh: &'a Mesh<'m>,
    caller: &'a Caller,
    call: &'a Call,
    decision: &'a CallDecision,
}

impl CallView<'_, '_> {
    /// The proxy of the caller's pod, if the source contains it.
    fn caller_proxy(&self) -> Option<&ProxyKind> {
        self.caller.workload.map(|id| &self.mesh.workload(id).proxy)
    }

    /// Without an Envoy or the gRPC library in its place, no route applies: the connection goes to a pod of the dialed
    /// Service.
    fn bypasses_routes(&self) -> bool {
        let has_no_routes = |proxy: &ProxyKind| proxy.is_meshed() == Some(false) && *proxy != ProxyKind::Proxyless;
        self.caller_proxy().is_some_and(has_no_routes)
    }

    /// The decision of the gateway about its client, which has no identity of the mesh.
    fn at_gateway(&self) -> Option<AuthorizationDecision> {
        let id = self.caller.workload.filter(|_| self.caller.kind == CallerKind::Gateway)?;
        let workload = self.mesh.workload(id);
        let policies = self.mesh.policies_for(workload);
        if policies.is_empty() {
            return None;
        }
        let is_http = self.decision.outcome != CallOutcome::Tcp;
        let request = ServerRequest {
            peer: PeerIdentity::None,
            trust_domains: &self.mesh.trust_domains,
            source_ip: Known::Unknown(UnknownFact::ClientAddress),
            remote_ip: Known::Unknown(UnknownFact::ClientAddress),
            destination_ip: address_of(workload, UnknownFact::ServerAddress),
            port: self.call.port,
            server_name: Known::Unknown(UnknownFact::Authority),
            http: is_http.then(|| http_request(self.call, self.call.authority.clone(), self.call.path.clone(), &[])),
            reads_tokens: self.mesh.reads_tokens(workload),
        };
        let decision = policies.decide(&request);
        Some(AuthorizationDecision { reason: format!("at the gateway: {}", decision.reason), ..decision })
    }

    /// The Service that the client dials; `default` if the host is no Kubernetes Service.
    fn dialed_service(&self, default: ServiceId) -> ServiceId {
        let host = self.call.dial.as_deref().unwrap_or(&self.call.authority);
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let mut parts = host.split('.');
        let name = parts.next().unwrap_or_default();
        let namespace = parts.next().unwrap_or(self.caller.namespace.as_str());
        self.mesh.find_service(namespace, name).unwrap_or(default)
    }

    fn at_backend(&self, backend: &CompiledBackend) -> BackendAuthorization {
        let Some(service_id) = backend.service.filter(|_| backend.state == BackendState::Ok) else {
            return BackendAuthorization::without_servers(None);
        };
        let mesh = self.mesh;
        let service = mesh.service(service_id);
        let dialed = self.dialed_service(service_id);
        let whole_service = CompiledBackend {
            service: Some(dialed),
            host: Some(mesh.service(dialed).host.clone()),
            port: Some(u32::from(self.call.port)),
            subset: None,
            ..backend.clone()
        };
        let reached = if self.bypasses_routes() { &whole_service } else { backend };
        let servers = mesh.backend_servers(self.caller, reached);
        if servers.is_empty() {
            return BackendAuthorization::without_servers(Some(self.without_pods(service_id)));
        }
        let has_policies = |id: WorkloadId| !mesh.policies_for(mesh.workload(id)).is_empty();
        let has_any = servers.iter().any(|(id, _)| has_policies(*id));
        if let Some(reason) = mesh.unread_policies(service.namespace(), has_any) {
            return BackendAuthorization::without_servers(Some(AuthorizationDecision::undecided(reason)));
        }
        let servers: Vec<ServerAccess> =
            servers.into_iter().map(|(id, port)| self.at_server(reached, id, port)).collect();
        let decision = self.waypoint_decision(service_id).or_else(|| self.combine(&servers));
        BackendAuthorization { decision, servers }
    }

    /// A Service without pods in the source: undecided as soon as a policy may apply to them.
    fn without_pods(&self, id: ServiceId) -> AuthorizationDecision {
        let service = self.mesh.service(id);
        if service.is_external && service.selector.is_empty() {
            return AuthorizationDecision::no_policy();
        }
        let namespaces = [service.namespace(), &self.mesh.root_namespace];
        let may_apply = self.mesh.security_policies.policies_in(&namespaces).any(AuthorizationPolicy::is_enforced);
        if let Some(reason) = self.mesh.unread_policies(service.namespace(), false) {
            return AuthorizationDecision::undecided(reason);
        }
        if may_apply {
            let reason =
                format!("the source has no pods of {}, whose labels decide which policies apply", service.object);
            return AuthorizationDecision::undecided(reason);
        }
        AuthorizationDecision::no_policy()
    }

    /// Policies with `targetRefs` apply at the Service's waypoint, which is not modelled.
    fn waypoint_decision(&self, id: ServiceId) -> Option<AuthorizationDecision> {
        let service = self.mesh.service(id);
        let waypoint = self.mesh.waypoint_in_path(self.caller, service)?;
        let namespaces = [service.namespace(), &self.mesh.root_namespace];
        let mut policies = self.mesh.security_policies.policies_in(&namespaces);
        let policy = policies.find(|policy| policy.is_enforced() && !policy.scope.targets.is_empty())?;
        let reason = format!(
            "{} may apply at the waypoint {waypoint} of {}, which is not modelled",
            policy.object, service.object
        );
        Some(AuthorizationDecision::undecided(reason))
    }

    fn at_server(&self, backend: &CompiledBackend, id: WorkloadId, port: u16) -> ServerAccess {
        let mesh = self.mesh;
        let workload = mesh.workload(id);
        let policies = mesh.policies_for(workload);
        let result = |result, is_http| ServerAccess { server: id, port, result, is_http };
        let evaluator = match workload.proxy {
            ProxyKind::Ambient => Some("ztunnel evaluates the policies of ambient pods"),
            ProxyKind::Proxyless => Some("the gRPC library of the server evaluates its policies"),
            _ => None,
        };
        if let Some(evaluator) = evaluator.filter(|_| !policies.is_empty()) {
            let reason = format!("{evaluator}, which is not modelled");
            return result(Ok(AuthorizationDecision::undecided(reason)), false);
        }
        let own_tls = mesh.caller_tls(self.caller, backend, id, port);
        let is_tcp = self.decision.outcome == CallOutcome::Tcp && !self.bypasses_routes();
        let is_application_tls = self.call.protocol == CallProtocol::GrpcTls;
        // Application TLS reaches the server's proxy only where the caller's side adds none of its own.
        let tls = match own_tls {
            CallerTls::Plaintext if is_application_tls && self.caller.kind == CallerKind::Sidecar => {
                CallerTls::Application
            }
            tls => tls,
        };
        let side = mesh.server_side(id, port);
        match side.accept(tls, !is_tcp && !is_application_tls) {
            HopResult::Direct => result(Ok(AuthorizationDecision::no_policy()), true),
            HopResult::Fails(failure) => result(Err(failure), matches!(side, ServerSide::Proxy { .. })),
            HopResult::Chain(chain) => {
                let request = self.request(workload, backend, port, chain);
                result(Ok(policies.decide(&request)), chain.is_http)
            }
        }
    }

    /// The request that the server's proxy sees.
    fn request(
        &self,
        server: &Workload,
        backend: &CompiledBackend,
        port: u16,
        chain: InboundChain,
    ) -> ServerRequest<'_> {
        let mesh = self.mesh;
        let is_gateway = self.caller.kind == CallerKind::Gateway;
        let source_ip = match self.caller.workload {
            Some(id) => address_of(mesh.workload(id), UnknownFact::CallerAddress),
            None => Known::Unknown(UnknownFact::CallerAddress),
        };
        let http = chain.is_http.then(|| self.http_at_server(backend));
        let forwarded = http.as_ref().and_then(|http| last_forwarded_address(&http.headers));
        let remote_ip = match (is_gateway, forwarded) {
            // A gateway appends the address of its client.
            (true, _) => Known::Unknown(UnknownFact::ClientAddress),
            (false, Some(address)) => Known::Is(address),
            (false, None) => source_ip.clone(),
        };
        let peer = match self.caller_proxy() {
            _ if !chain.is_mtls => PeerIdentity::None,
            Some(ProxyKind::Proxyless) => PeerIdentity::Unknown,
            _ => PeerIdentity::Spiffe(mesh.identity_of(self.caller)),
        };
        ServerRequest {
            peer,
            trust_domains: &mesh.trust_domains,
            source_ip,
            remote_ip,
            destination_ip: address_of(server, UnknownFact::ServerAddress),
            port,
            server_name: Known::Is(if chain.is_mtls { mesh.server_name(self.caller, backend) } else { String::new() }),
            http,
            reads_tokens: mesh.reads_tokens(server),
        }
    }

    /// The call after the rewrites of the matching rule.
    fn http_at_server(&self, backend: &CompiledBackend) -> HttpRequest {
        let rule = self.decision.rule.as_ref().filter(|_| !self.bypasses_routes());
        let Some(rule) = rule else {
            return http_request(self.call, self.call.authority.clone(), self.call.path.clone(), &[]);
        };
        let http = &rule.http_rule;
        let rewrite = http.rewrite.as_ref();
        let own = http.route.iter().find(|destination| {
            let destination = destination.destination.as_ref();
            let subset =
                destination.and_then(|destination| destination.subset.as_deref()).filter(|name| !name.is_empty());
            subset == backend.subset.as_ref().map(crate::mesh::ids::SubsetName::as_str)
        });
        let changes: Vec<_> = http.headers.iter().chain(own.and_then(|route| route.headers.as_ref())).collect();
        let authority = rewrite.and_then(|rewrite| rewrite.authority.clone()).filter(|text| !text.is_empty());
        let set_authority = changes.iter().find_map(|headers| {
            let set = &headers.request.as_ref()?.set;
            set.iter().find(|(name, _)| matches!(name.to_ascii_lowercase().as_str(), "host" | ":authority"))
        });
        let authority = authority.or(set_authority.map(|(_, value)| value.clone()));
        let authority = authority.unwrap_or_else(|| self.call.authority.clone());
        http_request(self.call, authority, rewritten_path(&self.call.path, rule), &changes)
    }

    /// One decision for all servers of a backend. `None`: no connection succeeds.
    fn combine(&self, servers: &[ServerAccess]) -> Option<AuthorizationDecision> {
        let decisions: Vec<&AuthorizationDecision> =
            servers.iter().filter_map(|access| access.result.as_ref().ok()).collect();
        let first = *decisions.first()?;
        let key = |decision: &AuthorizationDecision| (decision.verdict, decision.rule.clone());
        if decisions.iter().all(|decision| key(decision) == key(first)) {
            return Some(first.clone());
        }
        if decisions.iter().all(|decision| decision.verdict == first.verdict) {
            return Some(AuthorizationDecision { rule: None, ..first.clone() });
        }
        let mut verdicts: Vec<String> = servers
            .iter()
            .filter_map(|access| {
                let decision = access.result.as_ref().ok()?;
                let name = &self.mesh.workload(access.server).object;
                Some(format!("{} {}", name.path(), decision.verdict.as_str()))
            })
            .collect();
        verdicts.dedup();
        let list = crate::vocabulary::name_list::abbreviate(&verdicts, super::MAX_LISTED);
        Some(AuthorizationDecision::undecided(format!("the pods decide differently: {list}")))
    }
}

impl Mesh<'_> {
    /// The SNI name of an mTLS connection: that of the DestinationRule, else one that istiod builds.
    fn server_name(&self, caller: &Caller, backend: &CompiledBackend) -> String {
        let (Some(host), Some(port)) = (&backend.host, backend.port) else { return String::new() };
        let written = backend.service.and_then(|id| {
            let rules = self.applied_rules(caller, self.service(id));
            let policy =
                self.destination_rules.policy(&rules, u16::try_from(port).unwrap_or(0), backend.subset.as_ref());
            policy.tls.and_then(|tls| tls.value.sni.clone()).filter(|sni| !sni.is_empty())
        });
        let subset = backend.subset.as_ref().map(ToString::to_string).unwrap_or_default();
        written.unwrap_or_else(|| format!("outbound_.{port}_.{subset}_.{host}"))
    }
}

fn address_of(workload: &Workload, unknown: UnknownFact) -> Known<IpAddr> {
    match workload.ip.as_deref().and_then(|ip| ip.parse().ok()) {
        Some(address) => Known::Is(address),
        None => Known::Unknown(unknown),
    }
}

/// The last address in `x-forwarded-for`, which a sidecar passes on unchanged.
fn last_forwarded_address(headers: &[(String, String)]) -> Option<IpAddr> {
    let (_, list) = headers.iter().rfind(|(name, _)| name == "x-forwarded-for")?;
    list.rsplit(',').next()?.trim().parse().ok()
}

/// A call as an HTTP request with the headers that every gRPC client sends, and with header changes applied in order.
fn http_request(
    call: &Call,
    authority: String,
    path: String,
    changes: &[&crate::schema::virtual_service::Headers],
) -> HttpRequest {
    let mut headers: Vec<(String, String)> = call.headers.clone();
    for name in [":method", ":scheme", "content-type", "te"] {
        if !headers.iter().any(|(given, _)| given == name)
            && let Some(value) = call.header(name)
        {
            headers.push((name.to_owned(), value));
        }
    }
    for operations in changes.iter().filter_map(|change| change.request.as_ref()) {
        for (name, value) in &operations.set {
            headers.retain(|(given, _)| !given.eq_ignore_ascii_case(name));
            headers.push((name.to_ascii_lowercase(), value.clone()));
        }
        headers.extend(operations.add.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        headers.retain(|(given, _)| !operations.remove.iter().any(|name| given.eq_ignore_ascii_case(name)));
    }
    headers.push((":path".to_owned(), path.clone()));
    HttpRequest { authorities: vec![authority], path, headers, may_have_other_headers: false }
}

/// The path after `rewrite.uri` or `rewrite.uriRegexRewrite` of the matching rule.
fn rewritten_path(path: &str, rule: &crate::mesh::xds::MatchedRule) -> String {
    let Some(rewrite) = &rule.http_rule.rewrite else { return path.to_owned() };
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        let compiled = crate::schema::re2::compile_search(&regex.matches);
        return compiled.map_or_else(
            |_| path.to_owned(),
            |compiled| compiled.replace_all(path, braced_groups(&regex.rewrite).as_str()).into_owned(),
        );
    }
    let Some(prefix) = rewrite.uri.as_deref().filter(|uri| !uri.is_empty()) else { return path.to_owned() };
    let matched = rule.match_index.and_then(|index| rule.http_rule.matches.get(index));
    let written = matched.and_then(|matched| matched.uri.as_ref());
    match written.and_then(|uri| uri.prefix.as_deref()) {
        Some(own) if path.starts_with(own) => format!("{prefix}{}", path.strip_prefix(own).unwrap_or_default()),
        _ if written.is_some_and(|uri| uri.exact.is_some() || uri.regex.is_some()) => prefix.to_owned(),
        // Without a condition on the path, the matched prefix is `/`.
        _ => format!("{prefix}{}", path.strip_prefix('/').unwrap_or(path)),
    }
}

/// Translates Envoy's references to groups, such as `\1`, to `${1}`.
fn braced_groups(substitution: &str) -> String {
    let mut text = String::new();
    let mut rest = substitution.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => text.push_str("$$"),
            '\\' => match rest.next() {
                Some(digit) if digit.is_ascii_digit() => text.push_str(&format!("${{{digit}}}")),
                Some(other) => text.push(other),
                None => {}
            },
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_references_keep_the_text_after_them() {
        assert_eq!(braced_groups(r"/v2\1x$"), "/v2${1}x$$");
    }

    #[test]
    fn the_last_forwarded_address_counts() {
        let headers = |text: &str| vec![("x-forwarded-for".to_owned(), text.to_owned())];
        assert_eq!(last_forwarded_address(&headers("1.1.1.1, 2.2.2.2")), "2.2.2.2".parse().ok());
        assert_eq!(last_forwarded_address(&headers("unknown")), None);
    }
}
