//! The compiled clusters of one proxy in the shape of Envoy's config dump, to compare them with the observed stage.
//!
//! Sources: `buildOutboundClusters` in `pilot/pkg/networking/core/cluster.go`, `applyConnectionPool`,
//! `applyLoadBalancer` and `applyOutlierDetection` in `cluster_traffic_policy.go`, `cluster_tls.go` of istio/istio 1.31.

use std::collections::{BTreeMap, BTreeSet};

use super::cluster::{self, ClusterBuilder};
use super::scope::VisibleService;
use super::{BackendState, CompiledBackend, ProxyConfig, UpstreamProtocol};
use crate::envoy::cluster::{ClusterSetting, EnvoyCluster, OutlierSettings, format_limit};
use crate::mesh::destination_rule::{AppliedRules, EffectivePolicy};
use crate::mesh::ids::{Labels, ServiceId, SubsetName};
use crate::mesh::security::MtlsMode;
use crate::mesh::service::{Resolution, Service};
use crate::schema::destination_rule::OutlierDetection;
use crate::schema::meta::StringMap;
use crate::schema::virtual_service::{Destination, PortSelector};
use crate::vocabulary::duration;

/// A cluster that istiod sends.
#[derive(Debug)]
pub struct CompiledCluster {
    /// Name and settings, in the form that is compared with an Envoy.
    pub cluster: EnvoyCluster,
    /// The Service that its endpoints come from.
    pub service: ServiceId,
    /// The Service's port.
    pub port: u16,
    /// Labels of the subset; `None` for the cluster of the whole Service.
    pub subset_labels: Option<StringMap>,
    /// Whether istiod sends its endpoints (`EDS`).
    pub has_endpoints: bool,
}

impl ProxyConfig<'_> {
    /// The clusters that istiod sends for this proxy's calls.
    pub fn clusters(&self) -> Vec<CompiledCluster> {
        let clusters = ClusterBuilder { mesh: self.mesh, caller: &self.caller };
        let mut compiled = Vec::new();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for visible in &self.scope.services {
            let service = self.mesh.service(visible.service);
            let rules = clusters.rules_for(service);
            let subsets: Vec<&str> = self.mesh.destination_rules.subset_names(&rules).collect();
            for port in visible.ports(self.mesh) {
                for subset in std::iter::once(None).chain(subsets.iter().copied().map(Some)) {
                    let name = cluster::cluster_name(
                        u32::from(port.number),
                        subset.unwrap_or_default(),
                        service.host.as_str(),
                    );
                    if !names.insert(name) {
                        continue;
                    }
                    compiled.extend(self.compile_cluster(&clusters, visible, port.number, subset));
                }
            }
        }
        compiled
    }

    fn compile_cluster(
        &self,
        clusters: &ClusterBuilder<'_, '_>,
        visible: &VisibleService,
        port: u16,
        subset: Option<&str>,
    ) -> Option<CompiledCluster> {
        let service = self.mesh.service(visible.service);
        let destination = Destination {
            host: service.host.as_str().to_owned(),
            subset: subset.map(str::to_owned),
            port: Some(PortSelector { number: u32::from(port) }),
        };
        let backend = clusters.backend(Some(visible), &service.host, &destination, u32::from(port), None);
        if backend.state == BackendState::NoCluster {
            return None;
        }
        let rules = clusters.rules_for(service);
        let name = subset.map(Into::into);
        let policy = self.mesh.destination_rules.policy(&rules, port, name.as_ref());
        let discovery = clusters.discovery_type(visible, port, &policy);
        let settings = self.settings(&backend, discovery, &rules, &policy, visible.entry_for_port(port));
        Some(CompiledCluster {
            cluster: EnvoyCluster { name: backend.cluster, settings },
            service: visible.entry_for_port(port),
            port,
            subset_labels: name.as_ref().and_then(|name| {
                let (_, subset) = self.mesh.destination_rules.subset(&rules, name)?;
                Some(subset.labels.clone())
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
        let pool = policy.effective_pool();
        let (tcp, http) = (pool.and_then(|pool| pool.tcp.as_ref()), pool.and_then(|pool| pool.http.as_ref()));
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
        let connect =
            tcp.and_then(|tcp| tcp.connect_timeout.as_deref()).or(self.mesh.config.connect_timeout.as_deref());
        let connect = connect.and_then(|text| duration::parse(text).ok()).filter(|limit| !limit.is_zero());
        let connect = connect.unwrap_or(std::time::Duration::from_secs(10));
        let is_http2 = backend.upstream_protocol == Some(UpstreamProtocol::Http2);
        let default = self.mesh.config.default_traffic_policy.as_ref();
        let outlier = policy.outlier_detection.as_ref().map(|setting| setting.value);
        let outlier = outlier.or(default.and_then(|policy| policy.outlier_detection.as_ref()));
        BTreeMap::from([
            (ClusterSetting::Discovery, discovery.to_owned()),
            (ClusterSetting::Balancing, Self::load_balancing(discovery, policy).to_owned()),
            (
                ClusterSetting::Protocol,
                match backend.upstream_protocol {
                    Some(UpstreamProtocol::Http2) => "HTTP/2",
                    Some(UpstreamProtocol::Downstream) => "same as downstream",
                    Some(UpstreamProtocol::Http1) | None => "HTTP/1.1",
                }
                .to_owned(),
            ),
            (
                ClusterSetting::Tls,
                self.tls_setting(discovery, rules, backend.subset.as_ref().map(SubsetName::as_str), policy, service)
                    .to_owned(),
            ),
            (ClusterSetting::MaxConnections, format_limit(number(tcp.and_then(|tcp| tcp.max_connections)))),
            (
                ClusterSetting::MaxPendingRequests,
                format_limit(number(http.and_then(|http| http.http1_max_pending_requests))),
            ),
            (ClusterSetting::MaxRequests, format_limit(number(http.and_then(|http| http.http2_max_requests)))),
            (ClusterSetting::MaxRetries, format_limit(number(http.and_then(|http| http.max_retries)))),
            (ClusterSetting::ConnectTimeout, duration::format(connect)),
            (
                ClusterSetting::MaxConcurrentStreams,
                format_limit(number(http.and_then(|http| http.max_concurrent_streams)).filter(|_| is_http2)),
            ),
            (
                ClusterSetting::MaxRequestsPerConnection,
                format_limit(number(http.and_then(|http| http.max_requests_per_connection))),
            ),
            (
                ClusterSetting::OutlierDetection,
                outlier.map_or("none".to_owned(), |detection| outlier_settings(detection).summary()),
            ),
        ])
    }

    fn load_balancing(discovery: &str, policy: &EffectivePolicy<'_>) -> &'static str {
        if discovery == "ORIGINAL_DST" {
            return "CLUSTER_PROVIDED";
        }
        let Some(balancer) = policy.load_balancer.as_ref().map(|setting| setting.value) else {
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

    /// How connections to the endpoints are encrypted.
    ///
    /// Source: `buildUpstreamTLSSettings` in `cluster_tls.go`, `BestEffortInferServiceMTLSMode` in
    /// `pilot/pkg/model/push_context.go`.
    fn tls_setting(
        &self,
        discovery: &str,
        rules: &AppliedRules,
        subset: Option<&str>,
        policy: &EffectivePolicy<'_>,
        service: ServiceId,
    ) -> &'static str {
        let service = self.mesh.service(service);
        match policy.tls.as_ref().map(|tls| tls.value.mode.as_deref().unwrap_or("DISABLE")) {
            Some("DISABLE") => return "plaintext",
            // A sidecar uses a credential name only from a DestinationRule with a workload selector.
            Some("SIMPLE" | "MUTUAL") if self.ignores_credential(policy) => return "plaintext",
            Some(_) => return "TLS",
            None => {}
        }
        let is_off = self.mesh.config.enable_auto_mtls == Some(false)
            || service.is_external
            || self.mesh.security_policies.namespace_mtls_mode(service.namespace(), &self.mesh.root_namespace)
                == Some(MtlsMode::Disable);
        // istiod reads the policy of the rule or subset itself here: without port-level settings, and unmerged.
        let destination_rules = &self.mesh.destination_rules;
        let own_policy = match subset {
            Some(name) => {
                destination_rules.subset(rules, &name.into()).and_then(|(_, subset)| subset.traffic_policy.as_ref())
            }
            None => rules.0.iter().find_map(|id| destination_rules.get(*id).spec.traffic_policy.as_ref()),
        };
        let balancer = own_policy.and_then(|policy| policy.load_balancer.as_ref());
        let is_passthrough = balancer.is_some_and(|balancer| balancer.simple.as_deref() == Some("PASSTHROUGH"))
            || super::listener::has_passthrough_resolution(service);
        if is_off || (is_passthrough && !self.all_endpoints_accept_mtls(service)) {
            "plaintext"
        } else if discovery == "ORIGINAL_DST" {
            "TLS"
        } else {
            "per endpoint"
        }
    }

    /// Whether the TLS settings name a credential that this proxy ignores. istiod then configures no TLS.
    fn ignores_credential(&self, policy: &EffectivePolicy<'_>) -> bool {
        let Some(tls) = &policy.tls else { return false };
        let mut rules = self.mesh.destination_rules.iter();
        let has_selector = rules.any(|rule| rule.object == *tls.object && rule.selector.is_some());
        !self.is_gateway() && tls.value.credential_name.as_ref().is_some_and(|name| !name.is_empty()) && !has_selector
    }

    /// Whether every endpoint of a Service accepts Istio's mTLS.
    fn all_endpoints_accept_mtls(&self, service: &Service) -> bool {
        let mut workloads = self.mesh.workloads_of(service).peekable();
        let accepts_mtls = |labels: &Labels| labels.get("security.istio.io/tlsMode") == Some("istio");
        let fixed = &service.endpoint_labels;
        (workloads.peek().is_some() || !fixed.is_empty())
            && workloads.all(|workload| accepts_mtls(&workload.labels))
            && fixed.iter().all(accepts_mtls)
    }
}

impl ClusterBuilder<'_, '_> {
    /// Envoy's name of the cluster's discovery type.
    fn discovery_type(&self, visible: &VisibleService, port: u16, policy: &EffectivePolicy<'_>) -> &'static str {
        let service = self.mesh.service(visible.entry_for_port(port));
        if policy.load_balancer.as_ref().is_some_and(|setting| setting.value.simple.as_deref() == Some("PASSTHROUGH")) {
            return "ORIGINAL_DST";
        }
        match self.discovery(service) {
            cluster::ClusterDiscovery::Eds => "EDS",
            cluster::ClusterDiscovery::OriginalDestination => "ORIGINAL_DST",
            cluster::ClusterDiscovery::Dns => match &service.resolution {
                Resolution::ServiceEntry(resolution) if &**resolution == "DNS_ROUND_ROBIN" => "LOGICAL_DNS",
                _ => "STRICT_DNS",
            },
        }
    }
}

fn outlier_settings(written: &OutlierDetection) -> OutlierSettings {
    let default = OutlierSettings::default();
    let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
    let time = |text: &Option<String>, default| {
        let parsed = text.as_deref().and_then(|text| duration::parse(text).ok());
        parsed.filter(|time| !time.is_zero()).unwrap_or(default)
    };
    OutlierSettings {
        consecutive_errors: number(written.consecutive_5xx_errors)
            .map_or(default.consecutive_errors, |count| (count > 0).then_some(count)),
        consecutive_gateway_errors: number(written.consecutive_gateway_errors).filter(|count| *count > 0),
        interval: time(&written.interval, default.interval),
        base_ejection_time: time(&written.base_ejection_time, default.base_ejection_time),
        max_ejection_percent: number(written.max_ejection_percent)
            .filter(|share| *share > 0)
            .unwrap_or(default.max_ejection_percent),
    }
}
