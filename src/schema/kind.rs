//! The kinds of objects that this program reads, and where the API serves them.

use crate::vocabulary::nearest_name;
use serde::{Deserialize, Serialize};

/// A kind of object that is read.
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
    /// The ConfigMaps that hold the mesh configuration; no other ConfigMap is read.
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
}

/// How much of an object a snapshot keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// The object as it came, without managed fields' bodies and the last-applied annotation.
    Whole,
    /// As `Whole`, without what an extension is configured with: it may hold passwords.
    WithoutSettings,
    /// The listed fields of [`super::core::Pod`].
    Pod,
    /// The listed fields of [`super::core::EndpointSlice`].
    EndpointSlice,
    /// Metadata, replica count and the pod template, reduced as a Pod.
    PodTemplate,
    /// Metadata and `data.mesh`.
    MeshConfig,
    /// Metadata only.
    Metadata,
}

/// Where and how one kind is served.
#[derive(Debug)]
pub struct KindInfo {
    /// The kind.
    pub kind: Kind,
    /// The `kind` text of its objects.
    pub name: &'static str,
    /// API group; empty for the core group.
    pub group: &'static str,
    /// Versions that are or were served, best first.
    pub versions: &'static [&'static str],
    /// The resource in URLs.
    pub plural: &'static str,
    /// Whether objects live in a namespace.
    pub namespaced: bool,
    /// What a snapshot keeps.
    pub keep: Reduction,
}

const V1: &[&str] = &["v1"];
const NETWORKING: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const SECURITY: &[&str] = &["v1", "v1beta1"];
const ISTIO: &str = "networking.istio.io";
const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// Every kind that is read, in reading order.
///
/// Sources: `manifests/charts/base/files/crd-all.gen.yaml` of istio/istio 1.31; `config/crd` of
/// kubernetes-sigs/gateway-api v1.6.0, earlier versions from its releases.
pub static KINDS: &[KindInfo] = {
    const fn info(
        kind: Kind,
        name: &'static str,
        group: &'static str,
        versions: &'static [&'static str],
        plural: &'static str,
        keep: Reduction,
    ) -> KindInfo {
        let namespaced = !matches!(kind, Kind::Namespace);
        KindInfo { kind, name, group, versions, plural, namespaced, keep }
    }
    &[
        info(Kind::Namespace, "Namespace", "", V1, "namespaces", Reduction::Metadata),
        info(Kind::Service, "Service", "", V1, "services", Reduction::Whole),
        info(Kind::Pod, "Pod", "", V1, "pods", Reduction::Pod),
        info(
            Kind::EndpointSlice,
            "EndpointSlice",
            "discovery.k8s.io",
            &["v1", "v1beta1"],
            "endpointslices",
            Reduction::EndpointSlice,
        ),
        info(Kind::Deployment, "Deployment", "apps", V1, "deployments", Reduction::PodTemplate),
        info(Kind::StatefulSet, "StatefulSet", "apps", V1, "statefulsets", Reduction::PodTemplate),
        info(Kind::DaemonSet, "DaemonSet", "apps", V1, "daemonsets", Reduction::PodTemplate),
        info(Kind::ReplicaSet, "ReplicaSet", "apps", V1, "replicasets", Reduction::PodTemplate),
        info(Kind::Rollout, "Rollout", "argoproj.io", &["v1alpha1"], "rollouts", Reduction::PodTemplate),
        info(Kind::Job, "Job", "batch", V1, "jobs", Reduction::PodTemplate),
        info(Kind::CronJob, "CronJob", "batch", &["v1", "v1beta1"], "cronjobs", Reduction::PodTemplate),
        info(Kind::ConfigMap, "ConfigMap", "", V1, "configmaps", Reduction::MeshConfig),
        info(Kind::VirtualService, "VirtualService", ISTIO, NETWORKING, "virtualservices", Reduction::Whole),
        info(Kind::DestinationRule, "DestinationRule", ISTIO, NETWORKING, "destinationrules", Reduction::Whole),
        info(Kind::IstioGateway, "Gateway", ISTIO, NETWORKING, "gateways", Reduction::Whole),
        info(Kind::ServiceEntry, "ServiceEntry", ISTIO, NETWORKING, "serviceentries", Reduction::Whole),
        info(Kind::WorkloadEntry, "WorkloadEntry", ISTIO, NETWORKING, "workloadentries", Reduction::Whole),
        info(Kind::Sidecar, "Sidecar", ISTIO, NETWORKING, "sidecars", Reduction::Whole),
        info(Kind::EnvoyFilter, "EnvoyFilter", ISTIO, &["v1alpha3"], "envoyfilters", Reduction::WithoutSettings),
        info(Kind::ProxyConfig, "ProxyConfig", ISTIO, &["v1beta1"], "proxyconfigs", Reduction::Whole),
        info(
            Kind::PeerAuthentication,
            "PeerAuthentication",
            "security.istio.io",
            SECURITY,
            "peerauthentications",
            Reduction::Whole,
        ),
        info(
            Kind::AuthorizationPolicy,
            "AuthorizationPolicy",
            "security.istio.io",
            SECURITY,
            "authorizationpolicies",
            Reduction::Whole,
        ),
        info(Kind::Telemetry, "Telemetry", "telemetry.istio.io", &["v1", "v1alpha1"], "telemetries", Reduction::Whole),
        info(
            Kind::WasmPlugin,
            "WasmPlugin",
            "extensions.istio.io",
            &["v1alpha1"],
            "wasmplugins",
            Reduction::WithoutSettings,
        ),
        info(Kind::Gateway, "Gateway", GATEWAY_API, &["v1", "v1beta1", "v1alpha2"], "gateways", Reduction::Whole),
        info(Kind::HttpRoute, "HTTPRoute", GATEWAY_API, &["v1", "v1beta1", "v1alpha2"], "httproutes", Reduction::Whole),
        info(Kind::GrpcRoute, "GRPCRoute", GATEWAY_API, &["v1", "v1alpha2"], "grpcroutes", Reduction::Whole),
        info(
            Kind::ReferenceGrant,
            "ReferenceGrant",
            GATEWAY_API,
            &["v1", "v1beta1", "v1alpha2"],
            "referencegrants",
            Reduction::Whole,
        ),
    ]
};

/// What an object's `apiVersion` and `kind` say it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecognizedKind {
    /// A kind that is read, under a version that is or was served.
    Known(Kind),
    /// A kind that Istio or Gateway API defines, under a group or version that nobody serves.
    Misplaced(Kind),
    /// Some other kind: not ours.
    Other,
}

impl Kind {
    /// Where this kind is served.
    pub fn info(self) -> &'static KindInfo {
        // The table is in the order of the enum, which a test holds.
        &KINDS[self as usize]
    }

    /// The `kind` text of its objects; `Gateway` for both kinds of gateway.
    pub fn name(self) -> &'static str {
        self.info().name
    }

    /// `apiVersion` of the best version.
    pub fn api_version(self) -> String {
        let info = self.info();
        if info.group.is_empty() { info.versions[0].to_owned() } else { format!("{}/{}", info.group, info.versions[0]) }
    }

    /// True for the kinds whose pod template may stand for Pods.
    pub fn is_workload(self) -> bool {
        self.info().keep == Reduction::PodTemplate
    }

    /// True when Istio or Gateway API defines the kind.
    pub fn is_mesh_kind(self) -> bool {
        let group = self.info().group;
        group.ends_with("istio.io") || group == GATEWAY_API
    }

    /// Recognises an object by its `apiVersion` and `kind`.
    ///
    /// A kind such as `DestinationRule` belongs to nobody else, so a wrong group is a mistake. `Gateway` and
    /// `Sidecar` are common words: they count only under a group that looks like Istio's or Gateway API's.
    pub fn recognise(api_version: &str, kind: &str) -> RecognizedKind {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let mut misplaced = None;
        for info in KINDS.iter().filter(|info| info.name == kind) {
            if info.group == group {
                if info.versions.contains(&version) {
                    return RecognizedKind::Known(info.kind);
                }
                if info.kind.is_mesh_kind() {
                    return RecognizedKind::Misplaced(info.kind);
                }
                return RecognizedKind::Other;
            }
            if info.kind.is_mesh_kind() && (unmistakable(info.kind) || looks_like(group, info.group)) {
                misplaced.get_or_insert(info.kind);
            }
        }
        misplaced.map_or(RecognizedKind::Other, RecognizedKind::Misplaced)
    }
}

/// Kinds whose names no other project uses.
fn unmistakable(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::VirtualService
            | Kind::DestinationRule
            | Kind::ServiceEntry
            | Kind::WorkloadEntry
            | Kind::EnvoyFilter
            | Kind::PeerAuthentication
            | Kind::GrpcRoute
    )
}

/// Whether `group` is a likely slip for `right`: part of it, or a few letters away.
fn looks_like(group: &str, right: &str) -> bool {
    const OTHERS: [&str; 4] = ["traefik", "gloo", "solo.io", "kong"];
    if OTHERS.iter().any(|other| group.contains(other)) {
        return false;
    }
    group.contains("istio") && right.contains("istio")
        || group == "networking.io"
        || (right == GATEWAY_API && (group.contains("gateway") || group == "networking.k8s.io"))
        || nearest_name::edits(group, right) <= 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, info) in KINDS.iter().enumerate() {
            assert_eq!(info.kind as usize, index, "{}", info.name);
        }
    }

    #[test]
    fn old_versions_are_known_and_wrong_groups_are_misplaced() {
        use RecognizedKind::{Known, Misplaced, Other};
        for (api_version, kind, expected) in [
            ("networking.istio.io/v1alpha3", "VirtualService", Known(Kind::VirtualService)),
            ("gateway.networking.k8s.io/v1beta1", "HTTPRoute", Known(Kind::HttpRoute)),
            ("networking.istio.io/v1", "Gateway", Known(Kind::IstioGateway)),
            ("gateway.networking.k8s.io/v1", "Gateway", Known(Kind::Gateway)),
            ("networking.io/v1", "DestinationRule", Misplaced(Kind::DestinationRule)),
            ("networking.io/v1", "Gateway", Misplaced(Kind::IstioGateway)),
            ("networking.istio.io/v2", "VirtualService", Misplaced(Kind::VirtualService)),
            ("security.istio.io/v1", "DestinationRule", Misplaced(Kind::DestinationRule)),
            ("gateway.networking.k8s.io/v1alpha3", "GRPCRoute", Misplaced(Kind::GrpcRoute)),
            ("networking.k8s.io/v1", "HTTPRoute", Misplaced(Kind::HttpRoute)),
            ("gateway.solo.io/v1", "Gateway", Other),
            ("example.com/v1", "Sidecar", Other),
            ("apps/v1beta1", "Deployment", Other),
            ("v1", "Secret", Other),
        ] {
            assert_eq!(Kind::recognise(api_version, kind), expected, "{api_version} {kind}");
        }
    }
}
