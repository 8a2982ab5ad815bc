//! Clusters as one proxy has them: whether one exists, what it speaks, how many endpoints it has.
//!
//! Sources: `buildOutboundClusters`, `buildCluster` and `setUpstreamProtocol` in `pilot/pkg/networking/core/cluster.go`
//! and `cluster_builder.go`, `shouldH2Upgrade` in `cluster_traffic_policy.go` of istio/istio 1.31.

use super::scope::VisibleService;
use super::{BackendState, Caller, CallerKind, CompiledBackend, ProxyConfig, UpstreamProtocol};
use crate::mesh::Mesh;
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{Host, Labels, SubsetName, WorkloadId};
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::mesh::service::{PodCount, Resolution, Service, ServicePort};
use crate::schema::meta::StringMap;
use crate::schema::virtual_service::Destination;

/// How a cluster finds its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClusterDiscovery {
    /// istiod sends endpoints.
    Endpoints,
    /// Envoy resolves names; without any to resolve there is no cluster.
    Names,
    /// Where the client dialled.
    OriginalAddress,
}

/// The name of a cluster.
pub(super) fn name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// The clusters of one caller's proxy.
pub(super) struct ClusterBuilder<'a, 'm> {
    pub(super) mesh: &'a Mesh<'m>,
    pub(super) caller: &'a Caller,
}

impl ProxyConfig<'_> {
    /// A destination as the proxy gets it, its host completed. `port` is used where the destination names none.
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

    /// The workloads whose pods serve a backend, ready or not.
    pub fn workloads_behind(&self, backend: &CompiledBackend) -> Vec<WorkloadId> {
        let Some(service) = backend.service.map(|id| self.mesh.service(id)) else { return Vec::new() };
        let clusters = ClusterBuilder { mesh: self.mesh, caller: &self.caller };
        let none = StringMap::default();
        let labels = match &backend.subset {
            None => &none,
            Some(name) => match self.mesh.destination_rules.subset(&clusters.rules_for(service), name) {
                None => return Vec::new(),
                Some((_, subset)) => &subset.labels,
            },
        };
        self.mesh.subset_workloads(service, labels).collect()
    }
}

impl ClusterBuilder<'_, '_> {
    /// The DestinationRules that the proxy gets for a Service.
    pub(super) fn rules_for(&self, service: &Service) -> AppliedRules {
        self.mesh.destination_rules.applied(
            &self.caller.namespace,
            Some(&self.caller.labels),
            &service.host,
            service.namespace(),
            &self.mesh.root,
        )
    }

    /// A destination as the proxy gets it. `seen` is the Service that its host means to the proxy.
    pub(super) fn backend(
        &self,
        seen: Option<&VisibleService>,
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
            cluster: name(port, subset.unwrap_or_default(), host.as_str()),
            host: Some(host.clone()),
            port: Some(port),
            subset: subset.map(SubsetName::from),
            weight,
            ..CompiledBackend::default()
        };
        let Some(seen) = seen else { return backend };
        let number = u16::try_from(port).unwrap_or(0);
        let service = self.mesh.service(seen.service);
        let Some(service_port) = seen.port(self.mesh, number) else { return backend };
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
        let service = self.mesh.service(seen.entry_of(number));
        let mut discovery = self.discovery(service);
        let pods = self.endpoints(service, labels);
        if discovery == ClusterDiscovery::Names && pods.total == 0 {
            return backend;
        }
        let named: Option<SubsetName> = subset.map(SubsetName::from);
        let policy = self.mesh.destination_rules.policy(&rules, number, named.as_ref());
        if policy.load_balancer.as_ref().is_some_and(|one| one.value.simple.as_deref() == Some("PASSTHROUGH")) {
            discovery = ClusterDiscovery::OriginalAddress;
        }
        backend.service = Some(seen.service);
        backend.upstream_protocol = Some(self.upstream_protocol(service_port, &policy));
        backend.destination_rule = rules.0.first().map(|id| self.mesh.destination_rules.get(*id).object.clone());
        backend.tls = policy.tls.as_ref().and_then(|tls| tls.value.mode.clone());
        backend.max_requests = policy.http().and_then(|http| http.http2_max_requests);
        backend.hash = policy.load_balancer.as_ref().and_then(|balancer| balancer.value.consistent_hash.as_ref()).map(
            |hash| match (&hash.http_header_name, &hash.http_query_parameter_name, hash.use_source_ip) {
                (Some(header), ..) => format!("header {header}"),
                (None, Some(parameter), _) => format!("query parameter {parameter}"),
                (None, None, Some(true)) => "source address".to_owned(),
                (None, None, _) => "cookie".to_owned(),
            },
        );
        let known = self.knows_endpoints(service);
        backend.endpoints = (discovery != ClusterDiscovery::OriginalAddress && known).then_some(pods);
        backend.state = match discovery {
            ClusterDiscovery::Endpoints if known && !pods.may_serve() => BackendState::NoEndpoints,
            ClusterDiscovery::Endpoints | ClusterDiscovery::Names | ClusterDiscovery::OriginalAddress => {
                BackendState::Ok
            }
        };
        backend
    }

    pub(super) fn discovery(&self, service: &Service) -> ClusterDiscovery {
        let at_gateway = self.caller.kind == CallerKind::Gateway;
        match &service.resolution {
            // A gateway cannot pass on where its client dialled.
            Resolution::Headless if at_gateway => ClusterDiscovery::Endpoints,
            Resolution::Headless => ClusterDiscovery::OriginalAddress,
            Resolution::ClusterIp | Resolution::ExternalName(_) => ClusterDiscovery::Endpoints,
            Resolution::Entry(word) => match &**word {
                "DNS" | "DNS_ROUND_ROBIN" => ClusterDiscovery::Names,
                "STATIC" => ClusterDiscovery::Endpoints,
                "NONE" if at_gateway => ClusterDiscovery::Endpoints,
                _ => ClusterDiscovery::OriginalAddress,
            },
        }
    }

    fn knows_endpoints(&self, service: &Service) -> bool {
        match service.resolution {
            Resolution::Entry(_) => true,
            _ => self.mesh.knows_pods_of(service) || service.selector.is_empty(),
        }
    }

    /// Endpoints with these labels.
    fn endpoints(&self, service: &Service, labels: Option<&StringMap>) -> PodCount {
        let none = StringMap::default();
        let labels = labels.unwrap_or(&none);
        let Resolution::Entry(word) = &service.resolution else {
            // istiod sends no endpoints of a Service that is exported to nobody, even where a route names it:
            // `serviceNeedsPush` in `pilot/pkg/serviceregistry/kube/controller/endpointslice.go`.
            if service.export_words.iter().any(|word| word == "~") {
                return PodCount::default();
            }
            return if labels.is_empty() { service.endpoints } else { self.mesh.subset_pods(service, labels) };
        };
        let mut count = self.mesh.subset_pods(service, labels);
        let has = |of: &Labels| labels.iter().all(|(key, value)| of.get(key) == Some(value.as_str()));
        let mut fixed = service.fixed_endpoints.iter().filter(|of| has(of)).count();
        let resolves = matches!(&**word, "DNS" | "DNS_ROUND_ROBIN");
        if resolves && service.fixed_endpoints.is_empty() && service.selector.is_empty() && labels.is_empty() {
            // The host itself is resolved.
            fixed = 1;
        }
        let fixed = u32::try_from(fixed).unwrap_or(u32::MAX);
        count.ready += fixed;
        count.total += fixed;
        count
    }

    fn upstream_protocol(&self, port: &ServicePort, policy: &EffectivePolicy<'_>) -> UpstreamProtocol {
        let http = policy.http();
        if http.is_some_and(|http| http.use_client_protocol == Some(true)) {
            return UpstreamProtocol::Downstream;
        }
        if port.protocol.is_http2() {
            return UpstreamProtocol::Http2;
        }
        // For a sidecar, the caller's protocol goes before any upgrade; a gateway has nothing set yet.
        if port.protocol == Protocol::Auto && self.caller.kind == CallerKind::Sidecar {
            return UpstreamProtocol::Downstream;
        }
        let by_mesh = self.mesh.config.h2_upgrade_policy.as_deref() == Some("UPGRADE");
        let upgrades = match http.and_then(|http| http.h2_upgrade_policy.as_deref()) {
            Some("UPGRADE") => true,
            Some("DO_NOT_UPGRADE") => false,
            _ => by_mesh && port.protocol.family() == ProtocolFamily::Http,
        };
        if upgrades { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 }
    }
}
