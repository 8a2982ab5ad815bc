//! The kinds of objects that this program reads, with their API groups, versions and short names.

use crate::vocabulary::nearest_name;
use serde::{Deserialize, Serialize};

/// A kind of object that this program reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `v1` Namespace.
    Namespace,
    /// `v1` Service.
    Service,
    /// `v1` Pod, reduced.
    Pod,
    /// `discovery.k8s.io` EndpointSlice, reduced.
    EndpointSlice,
    /// `apps/v1` Deployment, reduced to its pod template.
    Deployment,
    /// `apps/v1` StatefulSet, reduced to its pod template.
    StatefulSet,
    /// `apps/v1` DaemonSet, reduced to its pod template.
    DaemonSet,
    /// `apps/v1` ReplicaSet, reduced to its pod template.
    ReplicaSet,
    /// Argo Rollout, reduced to its pod template.
    Rollout,
    /// `batch/v1` Job, reduced to its pod template.
    Job,
    /// `batch/v1` CronJob, reduced to its pod template.
    CronJob,
    /// `v1` ConfigMap; only those that hold a mesh configuration are read.
    ConfigMap,
    /// Istio VirtualService.
    VirtualService,
    /// Istio DestinationRule.
    DestinationRule,
    /// Istio Gateway (`networking.istio.io`).
    IstioGateway,
    /// Istio ServiceEntry.
    ServiceEntry,
    /// Istio WorkloadEntry.
    WorkloadEntry,
    /// Istio Sidecar.
    Sidecar,
    /// Istio EnvoyFilter.
    EnvoyFilter,
    /// Istio ProxyConfig.
    ProxyConfig,
    /// Istio PeerAuthentication.
    PeerAuthentication,
    /// Istio RequestAuthentication.
    RequestAuthentication,
    /// Istio AuthorizationPolicy.
    AuthorizationPolicy,
    /// Istio Telemetry.
    Telemetry,
    /// Istio WasmPlugin.
    WasmPlugin,
    /// Gateway API Gateway (`gateway.networking.k8s.io`).
    Gateway,
    /// Gateway API HTTPRoute.
    HttpRoute,
    /// Gateway API GRPCRoute.
    GrpcRoute,
    /// Gateway API ReferenceGrant.
    ReferenceGrant,
    /// Gateway API ListenerSet: further listeners of a Gateway.
    ListenerSet,
    /// Gateway API BackendTLSPolicy.
    BackendTlsPolicy,
    /// Istio TrafficExtension.
    TrafficExtension,
    /// Gateway API XBackendTrafficPolicy, experimental.
    XBackendTrafficPolicy,
}

/// The part of an object that a snapshot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The whole object except the bodies of managed fields and the last-applied annotation.
    Whole,
    /// Like `Whole`, without the settings of extensions, which may hold passwords.
    WithoutSettings,
    /// The fields of [`super::core::Pod`].
    Pod,
    /// The fields of [`super::core::EndpointSlice`].
    EndpointSlice,
    /// Metadata, replica count and the pod template, which is reduced like a Pod.
    PodTemplate,
    /// Metadata and `data.mesh`.
    MeshConfig,
    /// Metadata only.
    Metadata,
}

/// How the API serves one kind.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The `kind` field of its objects.
    pub name: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Versions that are or were served, preferred version first.
    pub versions: &'static [&'static str],
    /// The resource name in URLs.
    pub plural: &'static str,
    /// Names for arguments besides the singular and the plural. Messages use the first.
    pub short_names: &'static [&'static str],
    /// Whether the kind is namespaced.
    pub namespaced: bool,
    /// The part that a snapshot keeps.
    pub reduction: Reduction,
}

const V1: &[&str] = &["v1"];
const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];
const ISTIO: &str = "networking.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";
const GATEWAY_API_EXPERIMENTAL: &str = "gateway.networking.x-k8s.io";

/// All kinds, in the order of [`Kind`], which is also the reading order.
///
/// Source: `manifests/charts/base/files/crd-all.gen.yaml` of istio/istio 1.31; `config/crd` of
/// kubernetes-sigs/gateway-api v1.6.0 and its earlier releases.
pub static KINDS: &[KindInfo] = {
    const fn info(
        kind: Kind,
        name: &'static str,
        group: &'static str,
        versions: &'static [&'static str],
        plural: &'static str,
        short_names: &'static [&'static str],
        keep: Reduction,
    ) -> KindInfo {
        let namespaced = !matches!(kind, Kind::Namespace);
        KindInfo { kind, name, group, versions, plural, short_names, namespaced, reduction: keep }
    }
    &[
        info(Kind::Namespace, "Namespace", "", V1, "namespaces", &["ns"], Reduction::Metadata),
        info(Kind::Service, "Service", "", V1, "services", &["svc"], Reduction::Whole),
        info(Kind::Pod, "Pod", "", V1, "pods", &["pod", "po"], Reduction::Pod),
        info(
            Kind::EndpointSlice,
            "EndpointSlice",
            "discovery.k8s.io",
            &["v1", "v1beta1"],
            "endpointslices",
            &["endpointslice"],
            Reduction::EndpointSlice,
        ),
        info(Kind::Deployment, "Deployment", "apps", V1, "deployments", &["deploy"], Reduction::PodTemplate),
        info(Kind::StatefulSet, "StatefulSet", "apps", V1, "statefulsets", &["sts"], Reduction::PodTemplate),
        info(Kind::DaemonSet, "DaemonSet", "apps", V1, "daemonsets", &["ds"], Reduction::PodTemplate),
        info(Kind::ReplicaSet, "ReplicaSet", "apps", V1, "replicasets", &["rs"], Reduction::PodTemplate),
        info(
            Kind::Rollout,
            "Rollout",
            "argoproj.io",
            &["v1alpha1"],
            "rollouts",
            &["rollout", "ro"],
            Reduction::PodTemplate,
        ),
        info(Kind::Job, "Job", "batch", V1, "jobs", &["job"], Reduction::PodTemplate),
        info(
            Kind::CronJob,
            "CronJob",
            "batch",
            &["v1", "v1beta1"],
            "cronjobs",
            &["cronjob", "cj"],
            Reduction::PodTemplate,
        ),
        info(Kind::ConfigMap, "ConfigMap", "", V1, "configmaps", &["cm"], Reduction::MeshConfig),
        info(Kind::VirtualService, "VirtualService", ISTIO, NETWORKING, "virtualservices", &["vs"], Reduction::Whole),
        info(
            Kind::DestinationRule,
            "DestinationRule",
            ISTIO,
            NETWORKING,
            "destinationrules",
            &["dr"],
            Reduction::Whole,
        ),
        info(Kind::IstioGateway, "Gateway", ISTIO, NETWORKING, "gateways", &["gateway", "gw"], Reduction::Whole),
        info(Kind::ServiceEntry, "ServiceEntry", ISTIO, NETWORKING, "serviceentries", &["se"], Reduction::Whole),
        info(Kind::WorkloadEntry, "WorkloadEntry", ISTIO, NETWORKING, "workloadentries", &["we"], Reduction::Whole),
        info(Kind::Sidecar, "Sidecar", ISTIO, NETWORKING, "sidecars", &["sidecar"], Reduction::Whole),
        info(
            Kind::EnvoyFilter,
            "EnvoyFilter",
            ISTIO,
            &["v1alpha3"],
            "envoyfilters",
            &["envoyfilter"],
            Reduction::WithoutSettings,
        ),
        info(Kind::ProxyConfig, "ProxyConfig", ISTIO, &["v1beta1"], "proxyconfigs", &["proxyconfig"], Reduction::Whole),
        info(
            Kind::PeerAuthentication,
            "PeerAuthentication",
            "security.istio.io",
            SECURITY,
            "peerauthentications",
            &["pa"],
            Reduction::Whole,
        ),
        info(
            Kind::RequestAuthentication,
            "RequestAuthentication",
            "security.istio.io",
            SECURITY,
            "requestauthentications",
            &["ra"],
            Reduction::Whole,
        ),
        info(
            Kind::AuthorizationPolicy,
            "AuthorizationPolicy",
            "security.istio.io",
            SECURITY,
            "authorizationpolicies",
            &["ap"],
            Reduction::Whole,
        ),
        info(
            Kind::Telemetry,
            "Telemetry",
            "telemetry.istio.io",
            &["v1", "v1alpha1"],
            "telemetries",
            &["telemetry"],
            Reduction::Whole,
        ),
        info(
            Kind::WasmPlugin,
            "WasmPlugin",
            "extensions.istio.io",
            &["v1alpha1"],
            "wasmplugins",
            &["wasmplugin"],
            Reduction::WithoutSettings,
        ),
        info(
            Kind::Gateway,
            "Gateway",
            GATEWAY_API,
            &["v1", "v1beta1", "v1alpha2"],
            "gateways",
            &["gateway", "gtw"],
            Reduction::Whole,
        ),
        info(
            Kind::HttpRoute,
            "HTTPRoute",
            GATEWAY_API,
            &["v1", "v1beta1", "v1alpha2"],
            "httproutes",
            &["httproute"],
            Reduction::Whole,
        ),
        info(
            Kind::GrpcRoute,
            "GRPCRoute",
            GATEWAY_API,
            &["v1", "v1alpha2"],
            "grpcroutes",
            &["grpcroute"],
            Reduction::Whole,
        ),
        info(
            Kind::ReferenceGrant,
            "ReferenceGrant",
            GATEWAY_API,
            &["v1", "v1beta1", "v1alpha2"],
            "referencegrants",
            &["referencegrant", "refgrant"],
            Reduction::Whole,
        ),
        info(
            Kind::ListenerSet,
            "ListenerSet",
            GATEWAY_API,
            &["v1"],
            "listenersets",
            &["listenerset", "lset"],
            Reduction::Whole,
        ),
        info(
            Kind::BackendTlsPolicy,
            "BackendTLSPolicy",
            GATEWAY_API,
            &["v1", "v1alpha3", "v1alpha2"],
            "backendtlspolicies",
            &["backendtlspolicy", "btlspolicy"],
            Reduction::Whole,
        ),
        info(
            Kind::TrafficExtension,
            "TrafficExtension",
            "extensions.istio.io",
            &["v1alpha1"],
            "trafficextensions",
            &["trafficextension"],
            Reduction::WithoutSettings,
        ),
        info(
            Kind::XBackendTrafficPolicy,
            "XBackendTrafficPolicy",
            GATEWAY_API_EXPERIMENTAL,
            &["v1alpha1"],
            "xbackendtrafficpolicies",
            &["xbackendtrafficpolicy", "xbtrafficpolicy"],
            Reduction::Whole,
        ),
    ]
};

/// The result of [`Kind::recognize`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecognizedKind {
    /// A kind that this program reads, under a version that is or was served.
    Served(Kind),
    /// A kind of Istio or Gateway API under a group or version that was never served.
    Unserved(Kind),
    /// A kind that this program does not read.
    Other,
}

impl Kind {
    /// How the API serves this kind.
    #[expect(clippy::indexing_slicing, reason = "the table of kinds is constant, and tests check it")]
    pub fn info(self) -> &'static KindInfo {
        // A test ensures that the table is in the order of the enum.
        &KINDS[self as usize]
    }

    /// The `kind` field of its objects. Istio's Gateway and Gateway API's Gateway share a name.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// The short name that arguments, hints and completion use: `svc`, `vs`, `deploy`, `pod`.
    #[expect(clippy::indexing_slicing, reason = "the table of kinds is constant, and tests check it")]
    pub fn short_name(self) -> &'static str {
        self.info().short_names[0]
    }

    /// Parses the kind in an argument such as `vs/checkout`: a short name, the singular or the plural, in any case.
    ///
    /// `gateway` means Istio's Gateway. Commands that accept Gateway API's as well must try both.
    pub fn parse(argument: &str) -> Option<Kind> {
        let name = argument.to_ascii_lowercase();
        let is_named = |info: &&KindInfo| {
            info.short_names.contains(&name.as_str()) || info.plural == name || info.name.eq_ignore_ascii_case(&name)
        };
        KINDS.iter().find(is_named).map(|info| info.kind)
    }

    /// `apiVersion` of the preferred version.
    #[expect(clippy::indexing_slicing, reason = "the table of kinds is constant, and tests check it")]
    pub fn api_version(self) -> String {
        let info = self.info();
        if info.group.is_empty() { info.versions[0].to_owned() } else { format!("{}/{}", info.group, info.versions[0]) }
    }

    /// Reports whether the kind has a pod template, which stands in for Pods when a source has none.
    pub fn is_workload(self) -> bool {
        self.info().reduction == Reduction::PodTemplate
    }

    /// Reports whether Istio or Gateway API defines the kind.
    pub fn is_mesh_kind(self) -> bool {
        let group = self.info().group;
        group.ends_with("istio.io") || [GATEWAY_API, GATEWAY_API_EXPERIMENTAL].contains(&group)
    }

    /// Recognizes an object by its `apiVersion` and `kind`.
    ///
    /// No other project uses a name like `DestinationRule`, so an unserved group is a mistake. `Gateway` and `Sidecar` are
    /// common names: an unserved group only counts as a mistake when it resembles Istio's or Gateway API's.
    pub fn recognize(api_version: &str, kind: &str) -> RecognizedKind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut unserved = None;
        for info in KINDS.iter().filter(|info| info.name == kind) {
            if info.group == group {
                if info.versions.contains(&version) {
                    return RecognizedKind::Served(info.kind);
                }
                if info.kind.is_mesh_kind() {
                    return RecognizedKind::Unserved(info.kind);
                }
                return RecognizedKind::Other;
            }
            if info.kind.is_mesh_kind() && (has_unique_name(info.kind) || resembles(group, info.group)) {
                unserved.get_or_insert(info.kind);
            }
        }
        unserved.map_or(RecognizedKind::Other, RecognizedKind::Unserved)
    }
}

/// Reports whether no other project uses the kind's name.
fn has_unique_name(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VirtualService
            | Kind::DestinationRule
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::EnvoyFilter
            | Kind::PeerAuthentication
            | Kind::RequestAuthentication
            | Kind::GrpcRoute
            | Kind::BackendTlsPolicy
            | Kind::ListenerSet
    )
}

/// Reports whether `group` is probably a misspelling of `expected`.
fn resembles(group: &str, expected: &str) -> bool {
    const OTHER_PROJECTS: [&str; 4] = ["traefik", "gloo", "solo.io", "kong"];
    if OTHER_PROJECTS.iter().any(|other| group.contains(other)) {
        return false;
    }
    group.contains("istio") && expected.contains("istio")
        || group == "networking.io"
        || (expected == GATEWAY_API && (group.contains("gateway") || group == "networking.k8s.io"))
        || nearest_name::edit_distance(group, expected) <= 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_enum() {
        for (index, info) in KINDS.iter().enumerate() {
            assert_eq!(info.kind as usize, index, "{}", info.name);
        }
    }

    #[test]
    fn arguments_accept_short_names_singulars_and_plurals() {
        for (argument, expected) in [
            ("svc", Some(Kind::Service)),
            ("VS", Some(Kind::VirtualService)),
            ("virtualservices", Some(Kind::VirtualService)),
            ("po", Some(Kind::Pod)),
            ("gw", Some(Kind::IstioGateway)),
            ("gateway", Some(Kind::IstioGateway)),
            ("grpcroute", Some(Kind::GrpcRoute)),
            ("secret", None),
            ("", None),
        ] {
            assert_eq!(Kind::parse(argument), expected, "{argument}");
        }
        for info in KINDS.iter().filter(|info| info.kind != Kind::Gateway) {
            assert_eq!(Kind::parse(info.kind.short_name()), Some(info.kind), "{}", info.name);
        }
    }

    #[test]
    fn recognizes_old_versions_and_reports_unserved_groups() {
        use RecognizedKind::{Other, Served, Unserved};
        for (api_version, kind, expected) in [
            ("networking.istio.io/v1alpha3", "VirtualService", Served(Kind::VirtualService)),
            ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", Served(Kind::HttpRoute)),
            ("networking.istio.io/v1", "Gateway", Served(Kind::IstioGateway)),
            ("gateway.networking.k8s.io/v1", "Gateway", Served(Kind::Gateway)),
            ("networking.io/v1", "DestinationRule", Unserved(Kind::DestinationRule)),
            ("networking.io/v1", "Gateway", Unserved(Kind::IstioGateway)),
            ("networking.istio.io/v2", "VirtualService", Unserved(Kind::VirtualService)),
            ("security.istio.io/v1", "DestinationRule", Unserved(Kind::DestinationRule)),
            ("gateway.networking.k8s.io/v1alpha3", "GRPCRoute", Unserved(Kind::GrpcRoute)),
            ("networking.k8s.io/v1", "HTTPRoute", Unserved(Kind::HttpRoute)),
            ("gateway.solo.io/v1", "Gateway", Other),
            ("example.com/v1", "Sidecar", Other),
            ("apps/v1beta1", "Deployment", Other),
            ("v1", "Secret", Other),
        ] {
            assert_eq!(Kind::recognize(api_version, kind), expected, "{api_version} {kind}");
        }
    }
}
