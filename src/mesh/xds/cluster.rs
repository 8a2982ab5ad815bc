//! The clusters that istiod builds for one proxy: whether a cluster exists, its upstream protocol and its endpoints.
//!
//! Sources: `buildOutboundClusters`, `buildCluster` and `setUpstreamProtocol` in `pilot/pkg/networking/core/cluster.go`
//! and `cluster_builder.go`, `shouldH2Upgrade` in `cluster_traffic_policy.go` of istio/istio 1.31.

use super::scope::VisibleService;
use super::{BackendState, Caller, CallerKind, CompiledBackend, ProxyConfig, UpstreamProtocol};
use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{Host, Labels, ServiceId, SubsetName, WorkloadId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{PodCount, Resolution, Service, ServicePort};
use crate::schema::meta::StringMap;
use crate::schema::virtual_service::Destination;

/// How a cluster discovers its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterDiscovery {
    /// istiod sends them (Envoy's `EDS`).
    Eds,
    /// Envoy resolves host names. istiod builds no cluster without at least one name.
    Dns,
    /// The proxy uses the address that the client dialed (Envoy's `ORIGINAL_DST`).
    OriginalDestination,
}

pub(super) fn cluster_name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// Builds the clusters of one caller's proxy.
pub(super) struct ClusterBuilder<'a, 'm> {
    pub(super) mesh: &'a Mesh<'m>,
    pub(super) caller: &'a Caller,
}

impl ProxyConfig<'_> {
    /// Compiles a destination whose host is already a full name. `port` applies when the destination names none.
    pub(super) fn backend(
        &self,
        host: &Host,
        destination: &Destination,
        port: u32,
        weight: Option<i64>,
    ) -> CompiledBackend {
        let clusters = ClusterBuilder { mesh: self.mesh, caller: &self.caller };
        clusters.backend(self.scope.find(host.as_str()), host, destination, port, weight)
    }

    /// The workloads that serve a backend, ready or not; empty when the backend has no cluster.
    pub fn backend_workloads(&self, backend: &CompiledBackend) -> Vec<WorkloadId> {
        self.mesh.backend_workloads(&self.caller, backend)
    }
}

impl ClusterBuilder<'_, '_> {
    /// The DestinationRules that apply to a Service for this proxy.
    pub(super) fn rules_for(&self, service: &Service) -> AppliedRules {
        self.mesh.destination_rules.applied(
            &self.caller.namespace,
            Some(&self.caller.labels),
            &service.host,
            service.namespace(),
            &self.mesh.root_namespace,
        )
    }

    /// Compiles a destination. `visible` is the Service that the host resolves to for the proxy; without it the proxy
    /// has no cluster for the destination.
    pub(super) fn backend(
        &self,
        visible: Option<&VisibleService>,
        host: &Host,
        destination: &Destination,
        port: u32,
        weight: Option<i64>,
    ) -> CompiledBackend {
        let subset = destination.subset.as_deref().filter(|name| !name.is_empty());
        let port = destination.port.as_ref().map_or(port, |port| port.number);
        if host.as_str().is_empty() {
            return CompiledBackend { cluster: "UnknownService".to_owned(), weight, ..CompiledBackend::default() };
        }
        let mut backend = CompiledBackend {
            cluster: cluster_name(port, subset.unwrap_or_default(), host.as_str()),
            host: Some(host.clone()),
            port: Some(port),
            subset: subset.map(SubsetName::from),
            weight,
            ..CompiledBackend::default()
        };
        let Some(visible) = visible else { return backend };
        let number = u16::try_from(port).unwrap_or(0);
        let service = self.mesh.service(visible.service);
        let Some(service_port) = visible.port(self.mesh, number) else { return backend };
        if service_port.protocol == Protocol::Udp || Mesh::is_alias(service) {
            return backend;
        }
        let rules = self.rules_for(service);
        let labels = match subset {
            None => None,
            Some(name) => match self.mesh.destination_rules.subset(&rules, &name.into()) {
                None => return backend,
                Some((_, subset)) => Some(&subset.labels),
            },
        };
        let service = self.mesh.service(visible.entry_for_port(number));
        let mut discovery = self.discovery(service);
        let pods = self.endpoints(service, labels);
        if discovery == ClusterDiscovery::Dns && pods.total == 0 {
            return backend;
        }
        let policy = self.mesh.destination_rules.policy(&rules, number, backend.subset.as_ref());
        if policy.load_balancer.as_ref().is_some_and(|setting| setting.value.simple.as_deref() == Some("PASSTHROUGH")) {
            discovery = ClusterDiscovery::OriginalDestination;
        }
        backend.service = Some(visible.service);
        backend.upstream_protocol = Some(self.upstream_protocol(service_port, &policy));
        let merged = || rules.0.iter().map(|id| self.mesh.destination_rules.get(*id));
        backend.destination_rule = merged().find(|rule| !rule.is_converted()).map(|rule| rule.object.clone());
        backend.backend_tls_policy = merged().find(|rule| rule.is_converted()).map(|rule| rule.object.clone());
        backend.tls = policy.tls.as_ref().and_then(|tls| tls.value.mode.clone());
        backend.max_requests = policy.http_pool().and_then(|http| http.http2_max_requests);
        backend.hash_policy =
            policy.load_balancer.as_ref().and_then(|balancer| balancer.value.consistent_hash.as_ref()).map(
                |hash| match (&hash.http_header_name, &hash.http_query_parameter_name, hash.use_source_ip) {
                    (Some(header), ..) => format!("header {header}"),
                    (None, Some(parameter), _) => format!("query parameter {parameter}"),
                    (None, None, Some(true)) => "source address".to_owned(),
                    (None, None, _) => "cookie".to_owned(),
                },
            );
        let has_endpoint_data = self.has_endpoint_data(service);
        backend.endpoints = (discovery != ClusterDiscovery::OriginalDestination && has_endpoint_data).then_some(pods);
        backend.state = match discovery {
            ClusterDiscovery::Eds if has_endpoint_data && !pods.may_serve() => BackendState::NoEndpoints,
            ClusterDiscovery::Eds | ClusterDiscovery::Dns | ClusterDiscovery::OriginalDestination => BackendState::Ok,
        };
        backend
    }

    /// The pods of a Service, for connections whose calls no proxy reads. Named `host:port`, because it has no cluster.
    pub(super) fn dialed_backend(&self, id: ServiceId, port: u16) -> CompiledBackend {
        let service = self.mesh.service(id);
        let has_endpoint_data = self.has_endpoint_data(service);
        let pods = self.endpoints(service, None);
        let is_dead = has_endpoint_data && !pods.may_serve() && !service.is_external;
        CompiledBackend {
            cluster: format!("{}:{port}", service.host),
            host: Some(service.host.clone()),
            port: Some(u32::from(port)),
            service: Some(id),
            state: if is_dead { BackendState::NoEndpoints } else { BackendState::Ok },
            endpoints: has_endpoint_data.then_some(pods),
            upstream_protocol: Some(UpstreamProtocol::Downstream),
            ..CompiledBackend::default()
        }
    }

    pub(super) fn discovery(&self, service: &Service) -> ClusterDiscovery {
        let is_gateway = self.caller.kind == CallerKind::Gateway;
        match &service.resolution {
            // A gateway's client dialed the gateway, so its destination address cannot be reused.
            Resolution::Headless if is_gateway => ClusterDiscovery::Eds,
            Resolution::Headless if self.mesh.has_behavior(IstiodBehavior::BalancedHeadlessServices) => {
                ClusterDiscovery::Eds
            }
            Resolution::Headless => ClusterDiscovery::OriginalDestination,
            Resolution::ClusterIp | Resolution::ExternalName(_) => ClusterDiscovery::Eds,
            Resolution::ServiceEntry(resolution) => match &**resolution {
                "DNS" | "DNS_ROUND_ROBIN" => ClusterDiscovery::Dns,
                "STATIC" => ClusterDiscovery::Eds,
                "NONE" if is_gateway => ClusterDiscovery::Eds,
                _ => ClusterDiscovery::OriginalDestination,
            },
        }
    }

    /// Whether the source contains what the endpoints are computed from.
    fn has_endpoint_data(&self, service: &Service) -> bool {
        match service.resolution {
            Resolution::ServiceEntry(_) => true,
            _ => self.mesh.covers_endpoints_of(service) || service.selector.is_empty(),
        }
    }

    /// Counts the endpoints with these labels: pods, and the `endpoints` of a ServiceEntry.
    fn endpoints(&self, service: &Service, labels: Option<&StringMap>) -> PodCount {
        let no_labels = StringMap::default();
        let labels = labels.unwrap_or(&no_labels);
        let Resolution::ServiceEntry(resolution) = &service.resolution else {
            // istiod sends no endpoints of a Service with `exportTo: ~`, even when a route names it:
            // `serviceNeedsPush` in `pilot/pkg/serviceregistry/kube/controller/endpointslice.go`.
            if service.export_to_values.iter().any(|namespace| namespace == "~") {
                return PodCount::default();
            }
            return if labels.is_empty() { service.endpoints } else { self.mesh.subset_pods(service, labels) };
        };
        let mut count = self.mesh.subset_pods(service, labels);
        let is_selected =
            |endpoint: &Labels| labels.iter().all(|(key, value)| endpoint.get(key) == Some(value.as_str()));
        let mut fixed = service.endpoint_labels.iter().filter(|endpoint| is_selected(endpoint)).count();
        let uses_dns = matches!(&**resolution, "DNS" | "DNS_ROUND_ROBIN");
        if uses_dns && service.endpoint_labels.is_empty() && service.selector.is_empty() && labels.is_empty() {
            // Envoy resolves the host itself.
            fixed = 1;
        }
        let fixed = u32::try_from(fixed).unwrap_or(u32::MAX);
        count.ready += fixed;
        count.total += fixed;
        count
    }

    fn upstream_protocol(&self, port: &ServicePort, policy: &EffectivePolicy<'_>) -> UpstreamProtocol {
        let http = policy.http_pool();
        if http.is_some_and(|http| http.use_client_protocol == Some(true)) {
            return UpstreamProtocol::Downstream;
        }
        if port.protocol.is_http2() {
            return UpstreamProtocol::Http2;
        }
        // A sidecar uses the caller's protocol before any upgrade applies. For a gateway nothing is set at this point.
        let is_detected = port.protocol == Protocol::Auto && self.caller.kind == CallerKind::Sidecar;
        if is_detected && self.mesh.has_behavior(IstiodBehavior::UpgradedStreamLimits) {
            return UpstreamProtocol::Downstream;
        }
        let mesh_upgrades = self.mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE");
        let upgrades = match http.and_then(|http| http.h2_upgrade_policy.as_deref()) {
            Some("UPGRADE") => true,
            Some("DO_NOT_UPGRADE") => false,
            _ => mesh_upgrades && port.protocol.family() == ProtocolFamily::Http,
        };
        match (upgrades, is_detected) {
            (true, _) => UpstreamProtocol::Http2,
            (false, true) => UpstreamProtocol::Downstream,
            (false, false) => UpstreamProtocol::Http1,
        }
    }
}
