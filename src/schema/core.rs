//! Kubernetes' own kinds. Pods, EndpointSlices and workloads are kept in a snapshot in exactly these shapes.

use serde::{Deserialize, Serialize};

use super::list::NullableList;
use super::meta::{ObjectMeta, StringMap, string_map};

/// Name of the container in which istiod's proxy runs, as a container or a native sidecar.
pub const PROXY_CONTAINER: &str = "istio-proxy";

/// A Namespace: only its metadata matters.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    /// Labels decide injection and the data plane.
    pub metadata: ObjectMeta,
}

/// A Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: ServiceSpec,
}

/// `spec` of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`; absent is `ClusterIP`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `None` marks a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: Option<String>,
    /// All addresses of a dual-stack Service.
    #[serde(rename = "clusterIPs")]
    pub cluster_ips: NullableList<String>,
    /// Target of an `ExternalName` Service.
    pub external_name: Option<String>,
    /// Labels of the pods behind it; empty means that somebody else writes the endpoints.
    #[serde(deserialize_with = "string_map")]
    pub selector: StringMap,
    /// Ports.
    pub ports: NullableList<ServicePortSpec>,
    /// Whether pods count before they are ready.
    pub publish_not_ready_addresses: Option<bool>,
    /// `Cluster` (default) or `Local`: callers get endpoints of their own node only.
    pub internal_traffic_policy: Option<String>,
}

/// One port of a Service.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortSpec {
    /// Name; may be absent when there is one port only.
    pub name: Option<String>,
    /// The port that callers use.
    pub port: i64,
    /// Port number or name in the pods; absent means the same as `port`.
    pub target_port: Option<IntOrString>,
    /// `TCP` (default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// The application protocol. Present but empty differs from absent (see `mesh::protocol`).
    pub app_protocol: Option<String>,
}

/// A number or a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i64),
    /// A name, or a number in quotes.
    Text(String),
}

impl IntOrString {
    /// The number, also when it was written in quotes.
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::Int(number) => u16::try_from(*number).ok(),
            Self::Text(text) => text.parse().ok(),
        }
    }
}

/// A Pod, reduced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Metadata; annotations are only those of [`keeps_annotation`].
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: PodSpec,
    /// Status.
    #[serde(skip_serializing_if = "PodStatus::is_empty")]
    pub status: PodStatus,
}

/// Whether the reduced form of a Pod keeps this annotation.
pub fn keeps_annotation(key: &str) -> bool {
    key == "grpcmesh.io/ignore"
        || key.split_once('/').is_some_and(|(domain, _)| domain == "istio.io" || domain.ends_with(".istio.io"))
}

/// `spec` of a Pod, reduced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// Containers.
    pub containers: NullableList<Container>,
    /// Init containers; native sidecars are among them.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub init_containers: NullableList<Container>,
    /// Pods of the host's network are never injected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
    /// Identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
}

/// A container, reduced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Image; its tag hints at the proxy's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only of istiod's own containers, and only the words of [`keeps_args`].
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub args: NullableList<String>,
    /// Declared ports.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub ports: NullableList<ContainerPortSpec>,
    /// `Always` makes an init container a native sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Only a gRPC probe is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Only a gRPC probe is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// Only a gRPC probe is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
}

/// The arguments worth keeping of istiod's own containers: the proxy's role and istiod's cluster domain.
///
/// Arguments of other containers are never kept, since people put passwords there.
pub fn keeps_args(container: &str, args: &[String]) -> Vec<String> {
    match container {
        PROXY_CONTAINER => {
            args.iter().filter(|a| matches!(a.as_str(), "proxy" | "sidecar" | "router" | "waypoint")).cloned().collect()
        }
        "discovery" => {
            let mut kept = Vec::new();
            let mut words = args.iter();
            while let Some(word) = words.next() {
                if word == "--domain" {
                    kept.push(word.clone());
                    kept.extend(words.next().cloned());
                } else if word.starts_with("--domain=") {
                    kept.push(word.clone());
                }
            }
            kept
        }
        _ => Vec::new(),
    }
}

/// A declared container port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPortSpec {
    /// Name, which a Service's `targetPort` may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number.
    pub container_port: i64,
    /// `TCP` when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
}

/// A probe; only its gRPC form matters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Set for a gRPC health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
}

/// A gRPC health check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcProbe {
    /// Port that is probed.
    pub port: i64,
}

/// `status` of a Pod, reduced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed`, `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// First address.
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// All conditions; only `Ready` is read.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub conditions: NullableList<StatusCondition>,
    /// Of containers.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub container_statuses: NullableList<ContainerStatus>,
    /// Of init containers, native sidecars among them.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub init_container_statuses: NullableList<ContainerStatus>,
}

impl PodStatus {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A status condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCondition {
    /// Name of the condition.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False`, `Unknown`.
    pub status: String,
    /// One word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Generation of the spec that the condition is about (Gateway API).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

/// Status of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Container's name.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// How often it was restarted.
    pub restart_count: i64,
}

/// An EndpointSlice, reduced.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// The label `kubernetes.io/service-name` names the Service.
    pub metadata: ObjectMeta,
    /// `IPv4`, `IPv6` or `FQDN`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_type: Option<String>,
    /// Endpoints.
    pub endpoints: NullableList<Endpoint>,
    /// Ports that all endpoints have.
    pub ports: NullableList<EndpointPort>,
}

impl EndpointSlice {
    /// Whether its addresses are of IPv6. Of a dual-stack Service the same pods stand in slices of both families.
    pub fn is_ipv6(&self) -> bool {
        self.address_type.as_deref() == Some("IPv6")
    }
}

/// One endpoint of an EndpointSlice.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses of one pod.
    pub addresses: NullableList<String>,
    /// Readiness.
    pub conditions: EndpointConditions,
    /// The pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<EndpointTarget>,
}

/// Readiness of an endpoint; an absent `ready` counts as ready.
/// Source: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions>
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Takes new calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Whether new calls go to it. Source: the API's documentation of `EndpointConditions`: absent means ready.
    pub fn takes_calls(&self) -> bool {
        self.ready.unwrap_or(true) && self.terminating != Some(true)
    }
}

/// The object behind an endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointTarget {
    /// `Pod`.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// One port of an EndpointSlice.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number in the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// A workload reduced to its pod template.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadObject {
    /// Metadata; annotations as for Pods.
    pub metadata: ObjectMeta,
    /// Spec.
    pub spec: WorkloadSpec,
}

/// `spec` of a workload, reduced. A CronJob's `jobTemplate.spec` is lifted here.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// Wanted pods; absent means one, and nothing for a DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    /// What each pod looks like.
    pub template: PodTemplate,
    /// Only as it arrives: a CronJob has its template one level deeper.
    #[serde(skip_serializing)]
    pub job_template: Option<JobTemplate>,
}

/// `spec.jobTemplate` of a CronJob.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobTemplate {
    /// Its `template` is the pod template.
    pub spec: JobSpec,
}

/// `spec.jobTemplate.spec` of a CronJob.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    /// The pod template.
    pub template: PodTemplate,
}

/// A pod template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    pub metadata: ObjectMeta,
    /// Spec of the pods.
    pub spec: PodSpec,
}

/// A ConfigMap that holds a mesh configuration, reduced to it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshConfigMap {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// `data`.
    pub data: MeshConfigData,
}

/// `data` of a mesh configuration's ConfigMap.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshConfigData {
    /// YAML text of the MeshConfig.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}
