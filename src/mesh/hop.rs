//! One hop of a call: the TLS that the caller's proxy uses, against what the proxy of the server accepts.
//!
//! Sources: `buildUpstreamTLSSettings` and `applyUpstreamTLSSettings` in `pilot/pkg/networking/core/cluster_tls.go`,
//! `pilot/pkg/xds/endpoints/mtls_checker.go`, `BestEffortInferServiceMTLSMode` in `pilot/pkg/model/push_context.go`,
//! and the filter chain matches in `pilot/pkg/networking/core/filterchain_options.go` of istio/istio 1.31.

use super::Mesh;
use super::destination_rule::PolicyBlock;
use super::ids::{ObjectRef, WorkloadId};
use super::protocol::ProtocolFamily;
use super::security::MtlsMode;
use super::service::{Resolution, Service, TargetPort};
use super::traffic_exclusion::ExclusionEffect;
use super::workload::{ProxyKind, Workload};
use super::xds::{BackendState, Caller, CallerKind, CompiledBackend};
use crate::schema::Kind;
use crate::schema::meta::StringMap;

/// Label with which injection, or a user, says whether a pod accepts mTLS.
pub(super) const TLS_MODE_LABEL: &str = "security.istio.io/tlsMode";
/// Port of plaintext HTTP.
const HTTP_PORT: u16 = 80;
/// Label of pods that accept connections from ztunnel.
const TUNNEL_LABEL: &str = "networking.istio.io/tunnel";

/// TLS on a connection from the caller's side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerTls {
    Plaintext,
    /// Istio's mTLS, with the identity of the caller.
    Mtls,
    /// TLS without the identity of the mesh: `SIMPLE` or `MUTUAL` of a DestinationRule.
    Tls,
    /// TLS that the application itself starts, inside the connection of its proxy.
    Application,
}

/// The TLS settings of a DestinationRule for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenTls {
    /// `DISABLE`, `SIMPLE`, `MUTUAL` or `ISTIO_MUTUAL`.
    pub mode: String,
    /// The DestinationRule.
    pub object: ObjectRef,
    /// Path of the `tls` block in it.
    pub field: String,
    /// Whether istiod ignores the block in a sidecar, which then uses no TLS: it names a credential, and the rule has no
    /// `workloadSelector`.
    pub is_ignored: bool,
}

impl WrittenTls {
    /// Path of the field to change: the mode, or what a BackendTLSPolicy validates.
    pub fn mode_field(&self) -> String {
        if self.object.kind == Kind::BackendTlsPolicy { self.field.clone() } else { format!("{}.mode", self.field) }
    }

    /// What to remove so that the proxy does not start this TLS.
    pub fn removal(&self) -> &'static str {
        if self.object.kind == Kind::BackendTlsPolicy {
            "remove the Service from targetRefs of the BackendTLSPolicy"
        } else {
            "remove tls from the DestinationRule"
        }
    }

    /// Whether the proxy starts TLS without the mesh's identity.
    pub fn originates(&self) -> bool {
        matches!(self.mode.as_str(), "SIMPLE" | "MUTUAL") && !self.is_ignored
    }

    fn caller_tls(&self) -> CallerTls {
        match self.mode.as_str() {
            "ISTIO_MUTUAL" => CallerTls::Mtls,
            "SIMPLE" | "MUTUAL" if !self.is_ignored => CallerTls::Tls,
            _ => CallerTls::Plaintext,
        }
    }
}

/// How the proxy of a server handles connections to one port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboundClass {
    Http,
    /// Detected for each connection.
    Auto,
    Tcp,
}

/// The server's side of a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerSide {
    /// A proxy accepts the connection.
    Proxy {
        mode: MtlsMode,
        /// The PeerAuthentication that sets the mode; `None` for the default.
        decided_by: Option<ObjectRef>,
        class: InboundClass,
    },
    /// The application itself accepts the connection: no proxy, or the port is excluded from it.
    Application {
        /// Whether it is known to speak plaintext: gRPC probes are in plaintext.
        is_plaintext: bool,
    },
    /// Proxyless gRPC: the library in the application accepts what istiod tells it, mTLS included.
    GrpcLibrary,
}

/// The filter chain that a connection reaches in the server's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboundChain {
    /// Whether the proxy reads the calls in the connection.
    pub is_http: bool,
    /// Whether the proxy knows the caller's identity.
    pub is_mtls: bool,
}

/// Why a connection fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HopFailure {
    /// Plaintext to a proxy that accepts only mTLS.
    PlaintextToStrict,
    /// mTLS to a proxy that accepts only plaintext.
    MtlsToDisabled,
    /// mTLS to a pod without a proxy.
    MtlsToApplication,
    /// TLS without a certificate of the mesh to a proxy that accepts only mTLS.
    TlsToStrict,
    /// TLS without a certificate of the mesh to a proxy that reads the calls in plaintext or mTLS.
    TlsToProxy,
    /// TLS to a server that speaks plaintext.
    TlsToPlaintext,
}

/// The result of a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HopResult {
    /// The server's proxy accepts the connection.
    Chain(InboundChain),
    /// The application accepts the connection.
    Direct,
    Fails(HopFailure),
}

impl ServerSide {
    /// The outcome of a connection with this TLS. `carries_calls`: the caller's proxy, or the client without one, speaks
    /// HTTP on it. Otherwise it is a TCP stream for both proxies.
    pub fn accept(&self, tls: CallerTls, carries_calls: bool) -> HopResult {
        let (mode, class) = match self {
            Self::GrpcLibrary => return HopResult::Direct,
            Self::Application { is_plaintext } => {
                return match tls {
                    CallerTls::Mtls => HopResult::Fails(HopFailure::MtlsToApplication),
                    CallerTls::Tls | CallerTls::Application if *is_plaintext => {
                        HopResult::Fails(HopFailure::TlsToPlaintext)
                    }
                    _ => HopResult::Direct,
                };
            }
            Self::Proxy { mode, class, .. } => (mode, class),
        };
        let is_http = match class {
            InboundClass::Http => true,
            InboundClass::Auto => carries_calls,
            InboundClass::Tcp => false,
        };
        let chain = |is_http, is_mtls| HopResult::Chain(InboundChain { is_http, is_mtls });
        match (tls, mode) {
            (CallerTls::Plaintext, MtlsMode::Strict) => HopResult::Fails(HopFailure::PlaintextToStrict),
            (CallerTls::Plaintext, MtlsMode::Permissive | MtlsMode::Disable) => chain(is_http, false),
            (CallerTls::Mtls, MtlsMode::Disable) => HopResult::Fails(HopFailure::MtlsToDisabled),
            (CallerTls::Mtls, MtlsMode::Permissive | MtlsMode::Strict) => chain(is_http, true),
            (CallerTls::Tls | CallerTls::Application, MtlsMode::Strict) => HopResult::Fails(HopFailure::TlsToStrict),
            // A permissive port of a TCP protocol, or a detected one, passes TLS on to the application.
            (CallerTls::Tls | CallerTls::Application, MtlsMode::Permissive) if *class != InboundClass::Http => {
                chain(false, false)
            }
            (CallerTls::Tls | CallerTls::Application, MtlsMode::Permissive | MtlsMode::Disable) => {
                HopResult::Fails(HopFailure::TlsToProxy)
            }
        }
    }
}

impl Mesh<'_> {
    /// The workloads that serve a backend as `caller` gets it; empty when the backend has no cluster.
    pub fn backend_workloads(&self, caller: &Caller, backend: &CompiledBackend) -> Vec<WorkloadId> {
        let Some(service) = backend.service.map(|id| self.service(id)) else { return Vec::new() };
        let no_labels = StringMap::default();
        let labels = match &backend.subset {
            None => &no_labels,
            Some(name) => match self.destination_rules.subset(&self.applied_rules(caller, service), name) {
                None => return Vec::new(),
                Some((_, subset)) => &subset.labels,
            },
        };
        self.subset_workloads(service, labels).collect()
    }

    /// The server's side of connections to a port of a pod.
    pub fn server_side(&self, id: WorkloadId, port: u16) -> ServerSide {
        let workload = self.workload(id);
        let is_excluded = workload.exclusions.iter().any(|exclusion| match &exclusion.effect {
            ExclusionEffect::Inbound(ports) => ports.contains(port),
            _ => false,
        });
        if workload.proxy == ProxyKind::Proxyless {
            return ServerSide::GrpcLibrary;
        }
        if workload.proxy.is_meshed() == Some(false) || is_excluded {
            return ServerSide::Application { is_plaintext: workload.grpc_probes.contains(&port) };
        }
        let (mode, decided_by) = self.security_policies.mtls_mode(workload, port, &self.root_namespace);
        ServerSide::Proxy { mode, decided_by: decided_by.cloned(), class: self.inbound_class(id, port) }
    }

    /// Whether a port of a ServiceEntry is the well-known port of plaintext HTTP, without another `targetPort`.
    pub fn is_plaintext_entry_port(&self, service: &Service, port: u16) -> bool {
        matches!(service.resolution, Resolution::ServiceEntry(_))
            && port == HTTP_PORT
            && service.port(port).is_some_and(|port| {
                port.target == TargetPort::Number(HTTP_PORT) && port.protocol.family() == ProtocolFamily::Http
            })
    }

    /// The protocol class of a pod's port: that of the oldest Service with this target port, and of its first such port.
    ///
    /// Source: `getFilterChainsByServicePort` in `listener_inbound.go`.
    fn inbound_class(&self, id: WorkloadId, port: u16) -> InboundClass {
        let workload = self.workload(id);
        let mut services: Vec<&Service> = self.services_selecting(id).collect();
        services.sort_by_key(|service| (service.created.clone(), service.host.clone()));
        let ports = services.iter().flat_map(|service| &service.ports);
        let mut families = ports
            .filter(|candidate| candidate.target.number_in(workload) == Some(port))
            .map(|candidate| candidate.protocol.family());
        match families.find(|family| *family != ProtocolFamily::NoListener) {
            Some(ProtocolFamily::Http) => InboundClass::Http,
            Some(ProtocolFamily::Tcp) => InboundClass::Tcp,
            Some(ProtocolFamily::Auto | ProtocolFamily::NoListener) | None => InboundClass::Auto,
        }
    }

    /// The TLS of a caller's connections to one pod of a backend.
    pub fn caller_tls(&self, caller: &Caller, backend: &CompiledBackend, server: WorkloadId, port: u16) -> CallerTls {
        let written = self.written_tls(caller, backend);
        if let Some(tls) = self.caller_tls_without_envoy(caller, server, written.as_ref()) {
            return tls;
        }
        let Some(service) = backend.service.map(|id| self.service(id)) else { return CallerTls::Plaintext };
        match written {
            Some(written) => written.caller_tls(),
            None if self.auto_mtls(caller, service, server, port) => CallerTls::Mtls,
            None => CallerTls::Plaintext,
        }
    }

    /// The TLS of a caller whose own proxy is no Envoy. `None`: an Envoy decides.
    fn caller_tls_without_envoy(
        &self,
        caller: &Caller,
        server: WorkloadId,
        written: Option<&WrittenTls>,
    ) -> Option<CallerTls> {
        let proxy = &self.workload(caller.workload?).proxy;
        // ztunnel connects in plaintext to pods that do not accept its tunnel.
        let has_tunnel = self.workload(server).labels.get(TUNNEL_LABEL) == Some("http");
        match proxy {
            ProxyKind::Ambient if has_tunnel => Some(CallerTls::Mtls),
            // The gRPC library starts mTLS only where a DestinationRule asks for it.
            ProxyKind::Proxyless => written.map_or(Some(CallerTls::Plaintext), |_| None),
            _ if proxy.is_meshed() == Some(false) => Some(CallerTls::Plaintext),
            _ => None,
        }
    }

    /// The TLS settings that a DestinationRule has for a backend. `None`: auto mTLS decides for each pod.
    pub fn written_tls(&self, caller: &Caller, backend: &CompiledBackend) -> Option<WrittenTls> {
        let service = self.service(backend.service?);
        let port = u16::try_from(backend.port?).ok()?;
        let rules = self.applied_rules(caller, service);
        let policy = self.destination_rules.policy(&rules, port, backend.subset.as_ref());
        let PolicyBlock { value, object, field } = policy.tls?;
        let has_selector = rules.0.iter().any(|id| self.destination_rules.get(*id).selector.is_some());
        Some(WrittenTls {
            mode: value.mode.clone().unwrap_or_else(|| "DISABLE".to_owned()),
            object: object.clone(),
            field,
            is_ignored: value.needs_secret() && !has_selector && caller.kind == CallerKind::Sidecar,
        })
    }

    /// Why a caller connects to a backend in plaintext, as the end of a sentence.
    pub fn plaintext_reason(&self, caller: &Caller, backend: &CompiledBackend) -> String {
        let proxy = caller.workload.map(|id| &self.workload(id).proxy);
        if proxy.is_some_and(|proxy| proxy.is_meshed() == Some(false) && *proxy != ProxyKind::Proxyless) {
            return "the caller has no proxy".to_owned();
        }
        let Some(service) = backend.service.map(|id| self.service(id)) else { return "no Service".to_owned() };
        let hint = self.security_policies.namespace_mtls_mode(service.namespace(), &self.root_namespace);
        match self.written_tls(caller, backend) {
            Some(written) if written.is_ignored => {
                format!("a sidecar ignores the credentialName of {}, and with it the TLS settings", written.object)
            }
            Some(written) => format!("{} sets mode {}", written.object, written.mode),
            None if self.config.enable_auto_mtls == Some(false) => {
                "auto mTLS is off in the mesh configuration".to_owned()
            }
            None if hint == Some(MtlsMode::Disable) => {
                format!("a PeerAuthentication for namespace {} disables mTLS", service.namespace())
            }
            None => "auto mTLS takes the pods for ones without a proxy".to_owned(),
        }
    }

    /// Whether auto mTLS uses TLS to a pod: the pod has a proxy, and no policy disables mTLS for it.
    fn auto_mtls(&self, caller: &Caller, service: &Service, server: WorkloadId, port: u16) -> bool {
        if self.config.enable_auto_mtls == Some(false) || service.is_external {
            return false;
        }
        // istiod leaves TLS out of the whole cluster where the namespace or the mesh disables it.
        let hint = self.security_policies.namespace_mtls_mode(service.namespace(), &self.root_namespace);
        if hint == Some(MtlsMode::Disable) {
            return false;
        }
        // A sidecar connects to the dialed pod of a headless Service, so istiod decides for the Service as a whole.
        if service.resolution == Resolution::Headless && caller.kind == CallerKind::Sidecar {
            return self.workloads_of(service).all(accepts_mtls);
        }
        let workload = self.workload(server);
        let (mode, _) = self.security_policies.mtls_mode(workload, port, &self.root_namespace);
        accepts_mtls(workload) && mode != MtlsMode::Disable
    }

    /// The pods of a backend that get its calls, with the port of each: the ready ones, if any is ready.
    pub fn backend_servers(&self, caller: &Caller, backend: &CompiledBackend) -> Vec<(WorkloadId, u16)> {
        if backend.state != BackendState::Ok {
            return Vec::new();
        }
        let servers = self.backend_workloads(caller, backend);
        let port = backend.service.zip(backend.port.and_then(|port| u16::try_from(port).ok()));
        let Some(port) = port.and_then(|(id, port)| self.service(id).port(port)) else { return Vec::new() };
        let is_ready = |id: &&WorkloadId| self.workload(**id).readiness != super::workload::Readiness::NotReady;
        let ready: Vec<WorkloadId> = servers.iter().filter(is_ready).copied().collect();
        let servers = if ready.is_empty() { servers } else { ready };
        servers.into_iter().filter_map(|id| Some((id, port.target.number_in(self.workload(id))?))).collect()
    }
}

/// Whether istiod's registry has the pod as one that accepts mTLS.
fn accepts_mtls(workload: &Workload) -> bool {
    match workload.labels.get(TLS_MODE_LABEL) {
        Some(mode) => mode == "istio",
        None if workload.object.kind == Kind::WorkloadEntry => workload.service_account.is_some(),
        // The source may hold a template, to whose pods injection adds the label.
        None => workload.proxy.is_meshed() != Some(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(mode: MtlsMode, class: InboundClass) -> ServerSide {
        ServerSide::Proxy { mode, decided_by: None, class }
    }

    #[test]
    fn plaintext_needs_a_server_that_is_not_strict() {
        let chain = |is_http, is_mtls| HopResult::Chain(InboundChain { is_http, is_mtls });
        for (mode, expected) in [
            (MtlsMode::Strict, HopResult::Fails(HopFailure::PlaintextToStrict)),
            (MtlsMode::Permissive, chain(true, false)),
            (MtlsMode::Disable, chain(true, false)),
        ] {
            assert_eq!(proxy(mode, InboundClass::Http).accept(CallerTls::Plaintext, true), expected, "{mode:?}");
        }
        assert_eq!(
            ServerSide::Application { is_plaintext: true }.accept(CallerTls::Plaintext, true),
            HopResult::Direct
        );
    }

    #[test]
    fn mtls_needs_a_proxy_that_accepts_it() {
        let accept = |server: ServerSide| server.accept(CallerTls::Mtls, true);
        assert_eq!(accept(proxy(MtlsMode::Disable, InboundClass::Http)), HopResult::Fails(HopFailure::MtlsToDisabled));
        assert_eq!(
            accept(ServerSide::Application { is_plaintext: false }),
            HopResult::Fails(HopFailure::MtlsToApplication)
        );
        let tcp = HopResult::Chain(InboundChain { is_http: false, is_mtls: true });
        assert_eq!(accept(proxy(MtlsMode::Strict, InboundClass::Tcp)), tcp);
    }

    #[test]
    fn tls_of_a_destination_rule_passes_only_permissive_tcp_ports() {
        let accept = |mode, class| proxy(mode, class).accept(CallerTls::Tls, true);
        let passes = HopResult::Chain(InboundChain { is_http: false, is_mtls: false });
        assert_eq!(accept(MtlsMode::Permissive, InboundClass::Auto), passes);
        assert_eq!(accept(MtlsMode::Permissive, InboundClass::Http), HopResult::Fails(HopFailure::TlsToProxy));
        assert_eq!(accept(MtlsMode::Strict, InboundClass::Tcp), HopResult::Fails(HopFailure::TlsToStrict));
        assert_eq!(accept(MtlsMode::Disable, InboundClass::Tcp), HopResult::Fails(HopFailure::TlsToProxy));
    }
}
