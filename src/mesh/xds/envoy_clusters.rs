//! The clusters of a proxy in Envoy's words, to hold beside what an Envoy says that it runs.
//!
//! Sources: `buildOutboundClusters` in `pilot/pkg/networking/core/cluster.go`, `applyConnectionPool`,
//! `applyLoadBalancer` and `applyOutlierDetection` in `cluster_traffic_policy.go`, `cluster_tls.go` of istio/istio 1.31.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{self, ClusterBuilder};
use super::scope::VisibleService;
use super::{BackendState, CompiledBackend, ProxyConfig, UpstreamProtocol};
use crate::envoy::cluster::{ClusterSetting, EnvoyCluster, OutlierSettings, limit};
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{Labels, ServiceId, SubsetName};
use crate::mesh::security::MtlsMode;
use crate::mesh::service::{Resolution, Service};
use crate::schema::destination_rule::OutlierDetection;
use crate::schema::meta::StringMap;
use crate::schema::virtual_service::{Destination, PortSelector};
use crate::vocabulary::duration;

/// A cluster as it should be, and what stands behind it.
#[derive(Debug)]
pub struct CompiledCluster {
    /// As Envoy has it.
    pub cluster: EnvoyCluster,
    /// The Service.
    pub service: ServiceId,
    /// Its port.
    pub port: u16,
    /// Labels of the subset, if it is one's.
    pub subset_labels: Option<StringMap>,
    /// Whether istiod sends its endpoints.
    pub has_endpoints: bool,
}

impl ProxyConfig<'_> {
    /// The clusters that istiod makes for this proxy's calls.
    pub fn clusters(&self) -> Vec<CompiledCluster> {
        let clusters = ClusterBuilder { mesh: self.mesh, caller: &self.caller };
        let mut found = Vec::new();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for seen in &self.scope.services {
            let service = self.mesh.service(seen.service);
            let rules = clusters.rules_for(service);
            let subsets: Vec<&str> = self.mesh.destination_rules.subset_names(&rules).collect();
            for port in seen.ports(self.mesh) {
                for subset in std::iter::once(None).chain(subsets.iter().copied().map(Some)) {
                    let name = cluster::name(u32::from(port.number), subset.unwrap_or_default(), service.host.as_str());
                    if !names.insert(name) {
                        continue;
                    }
                    found.extend(self.intended(&clusters, seen, port.number, subset));
                }
            }
        }
        found
    }

    fn intended(
        &self,
        clusters: &ClusterBuilder<'_, '_>,
        seen: &VisibleService,
        port: u16,
        subset: Option<&str>,
    ) -> Option<CompiledCluster> {
        let service = self.mesh.service(seen.service);
        let destination = Destination {
            host: service.host.as_str().to_owned(),
            subset: subset.map(str::to_owned),
            port: Some(PortSelector { number: u32::from(port) }),
        };
        let backend = clusters.backend(Some(seen), &service.host, &destination, u32::from(port), None);
        if backend.state == BackendState::NoCluster {
            return None;
        }
        let rules = clusters.rules_for(service);
        let name = subset.map(Into::into);
        let policy = self.mesh.destination_rules.policy(&rules, port, name.as_ref());
        let discovery = clusters.discovery_in(seen, port, &policy);
        let settings = self.settings(&backend, discovery, &rules, &policy, seen.entry_of(port));
        Some(CompiledCluster {
            cluster: EnvoyCluster { name: backend.cluster, settings },
            service: seen.entry_of(port),
            port,
            subset_labels: name.as_ref().and_then(|name| {
                let (_, written) = self.mesh.destination_rules.subset(&rules, name)?;
                Some(written.labels.clone())
            }),
            has_endpoints: discovery == "EDS",
        })
    }

    fn settings(
        &self,
        backend: &CompiledBackend,
        discovery: &str,
        rules: &AppliedRules,
        policy: &EffectivePolicy<'_>,
        service: ServiceId,
    ) -> BTreeMap<ClusterSetting, String> {
        let pool = policy.pool();
        let (tcp, http) = (pool.and_then(|pool| pool.tcp.as_ref()), pool.and_then(|pool| pool.http.as_ref()));
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
        let connect =
            tcp.and_then(|tcp| tcp.connect_timeout.as_deref()).or(self.mesh.config.connect_timeout.as_deref());
        let connect = connect.and_then(|text| duration::parse(text).ok()).filter(|limit| !limit.is_zero());
        let connect = connect.unwrap_or(std::time::Duration::from_secs(10));
        let is_http2 = backend.upstream_protocol == Some(UpstreamProtocol::Http2);
        let default = self.mesh.config.default_traffic_policy.as_ref();
        let outlier = policy.outlier_detection.as_ref().map(|one| one.value);
        let outlier = outlier.or(default.and_then(|policy| policy.outlier_detection.as_ref()));
        BTreeMap::from([
            (ClusterSetting::Discovery, discovery.to_owned()),
            (ClusterSetting::Balancing, Self::balancing(discovery, policy).to_owned()),
            (
                ClusterSetting::Protocol,
                match backend.upstream_protocol {
                    Some(UpstreamProtocol::Http2) => "HTTP/2",
                    Some(UpstreamProtocol::Downstream) => "as the caller's",
                    Some(UpstreamProtocol::Http1) | None => "HTTP/1.1",
                }
                .to_owned(),
            ),
            (
                ClusterSetting::Tls,
                self.encryption(discovery, rules, backend.subset.as_ref().map(SubsetName::as_str), policy, service)
                    .to_owned(),
            ),
            (ClusterSetting::MaxConnections, limit(number(tcp.and_then(|tcp| tcp.max_connections)))),
            (ClusterSetting::MaxPendingRequests, limit(number(http.and_then(|http| http.http1_max_pending_requests)))),
            (ClusterSetting::MaxRequests, limit(number(http.and_then(|http| http.http2_max_requests)))),
            (ClusterSetting::MaxRetries, limit(number(http.and_then(|http| http.max_retries)))),
            (ClusterSetting::ConnectTimeout, duration::show(connect)),
            (
                ClusterSetting::MaxConcurrentStreams,
                limit(number(http.and_then(|http| http.max_concurrent_streams)).filter(|_| is_http2)),
            ),
            (
                ClusterSetting::MaxRequestsPerConnection,
                limit(number(http.and_then(|http| http.max_requests_per_connection))),
            ),
            (ClusterSetting::OutlierDetection, outlier.map_or("none".to_owned(), |one| ejection(one).words())),
        ])
    }

    fn balancing(discovery: &str, policy: &EffectivePolicy<'_>) -> &'static str {
        if discovery == "ORIGINAL_DST" {
            return "CLUSTER_PROVIDED";
        }
        let Some(balancer) = policy.load_balancer.as_ref().map(|one| one.value) else {
            return "LEAST_REQUEST";
        };
        if balancer.consistent_hash.is_some() {
            return "consistent hash";
        }
        match balancer.simple.as_deref() {
            Some("ROUND_ROBIN") => "ROUND_ROBIN",
            Some("RANDOM") => "RANDOM",
            _ => "LEAST_REQUEST",
        }
    }

    /// Source: `buildUpstreamTLSSettings` in `cluster_tls.go`, `BestEffortInferServiceMTLSMode` in
    /// `pilot/pkg/model/push_context.go`.
    fn encryption(
        &self,
        discovery: &str,
        rules: &AppliedRules,
        subset: Option<&str>,
        policy: &EffectivePolicy<'_>,
        service: ServiceId,
    ) -> &'static str {
        let service = self.mesh.service(service);
        match policy.tls.as_ref().map(|tls| tls.value.mode.as_deref().unwrap_or("DISABLE")) {
            Some("DISABLE") => return "plain text",
            // A sidecar takes credentials by name only from a rule that selects it.
            Some("SIMPLE" | "MUTUAL") if self.ignores_credential(policy) => return "plain text",
            Some(_) => return "TLS",
            None => {}
        }
        let off = self.mesh.config.enable_auto_mtls == Some(false)
            || service.is_external
            || self.mesh.security.of_namespace(service.namespace(), &self.mesh.root) == Some(MtlsMode::Disable);
        // Asked of what the rule, or the subset, says itself: not of its ports, and not merged.
        let all = &self.mesh.destination_rules;
        let written = match subset {
            Some(name) => all.subset(rules, &name.into()).and_then(|(_, subset)| subset.traffic_policy.as_ref()),
            None => rules.0.iter().find_map(|id| all.get(*id).spec.traffic_policy.as_ref()),
        };
        let balancer = written.and_then(|policy| policy.load_balancer.as_ref());
        let to_pods = balancer.is_some_and(|one| one.simple.as_deref() == Some("PASSTHROUGH"))
            || super::listener::is_passed_through(service);
        if off || (to_pods && !self.all_have_proxies(service)) {
            "plain text"
        } else if discovery == "ORIGINAL_DST" {
            "TLS"
        } else {
            "chosen for each endpoint"
        }
    }

    /// Whether a rule names credentials that this proxy does not take from it: then istiod writes no TLS.
    fn ignores_credential(&self, policy: &EffectivePolicy<'_>) -> bool {
        let Some(tls) = &policy.tls else { return false };
        let all = &self.mesh.destination_rules;
        let selects = all.iter().any(|rule| rule.object == *tls.object && rule.selector.is_some());
        !self.is_gateway() && tls.value.credential_name.as_ref().is_some_and(|name| !name.is_empty()) && !selects
    }

    /// Whether every endpoint of a Service takes the mesh's mTLS.
    fn all_have_proxies(&self, service: &Service) -> bool {
        let mut workloads = self.mesh.workloads_of(service).peekable();
        let labelled = |labels: &Labels| labels.get("security.istio.io/tlsMode") == Some("istio");
        let fixed = &service.fixed_endpoints;
        (workloads.peek().is_some() || !fixed.is_empty())
            && workloads.all(|workload| labelled(&workload.labels))
            && fixed.iter().all(labelled)
    }
}

impl ClusterBuilder<'_, '_> {
    /// How endpoints of a cluster are found, in Envoy's word.
    fn discovery_in(&self, seen: &VisibleService, port: u16, policy: &EffectivePolicy<'_>) -> &'static str {
        let service = self.mesh.service(seen.entry_of(port));
        if policy.load_balancer.as_ref().is_some_and(|one| one.value.simple.as_deref() == Some("PASSTHROUGH")) {
            return "ORIGINAL_DST";
        }
        match self.discovery(service) {
            cluster::ClusterDiscovery::Endpoints => "EDS",
            cluster::ClusterDiscovery::OriginalAddress => "ORIGINAL_DST",
            cluster::ClusterDiscovery::Names => match &service.resolution {
                Resolution::Entry(word) if &**word == "DNS_ROUND_ROBIN" => "LOGICAL_DNS",
                _ => "STRICT_DNS",
            },
        }
    }
}

fn ejection(written: &OutlierDetection) -> OutlierSettings {
    let default = OutlierSettings::default();
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let time = |text: &Option<String>, default| {
        let parsed = text.as_deref().and_then(|text| duration::parse(text).ok());
        parsed.filter(|time| !time.is_zero()).unwrap_or(default)
    };
    OutlierSettings {
        errors: number(written.consecutive_5xx_errors).map_or(default.errors, |count| (count > 0).then_some(count)),
        gateway_errors: number(written.consecutive_gateway_errors).filter(|count| *count > 0),
        interval: time(&written.interval, default.interval),
        out: time(&written.base_ejection_time, default.out),
        percent: number(written.max_ejection_percent).filter(|share| *share > 0).unwrap_or(default.percent),
    }
}
