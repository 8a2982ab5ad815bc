//! Built-in Kubernetes kinds. Snapshots keep Pods, EndpointSlices and workloads in exactly these shapes.

use serde::{Deserialize, Serialize};

use super::list::NullableList;
use super::meta::{ObjectMeta, StringMap, string_map};

/// Name of the container that runs istiod's proxy, as a container or as a native sidecar.
pub const PROXY_CONTAINER: &str = "istio-proxy";

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    /// Labels decide about injection and the data plane mode.
    pub metadata: ObjectMeta,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
    pub metadata: ObjectMeta,
    pub spec: ServiceSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP` (the default), `NodePort`, `LoadBalancer` or `ExternalName`.
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
    /// Labels of the pods; empty means that another client manages the endpoints.
    #[serde(deserialize_with = "string_map")]
    pub selector: StringMap,
    pub ports: NullableList<ServicePortSpec>,
    /// Whether unready pods count as endpoints.
    pub publish_not_ready_addresses: Option<bool>,
    /// `Cluster` (the default), or `Local`: callers get only endpoints on their own node.
    pub internal_traffic_policy: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePortSpec {
    /// Optional when the Service has a single port.
    pub name: Option<String>,
    /// The port that callers use.
    pub port: i64,
    /// Number or name of a container port; absent means the same as `port`.
    pub target_port: Option<IntOrString>,
    /// `TCP` (the default), `UDP` or `SCTP`.
    pub protocol: Option<String>,
    /// Present but empty differs from absent (see `mesh::protocol`).
    pub app_protocol: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    Int(i64),
    /// A name, or a number in quotes.
    Text(String),
}

impl IntOrString {
    /// The port number, also when it is written in quotes.
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
    /// Only annotations that [`retains_annotation`] accepts.
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
    #[serde(skip_serializing_if = "PodStatus::is_empty")]
    pub status: PodStatus,
}

/// Reports whether a reduced Pod keeps this annotation.
pub fn retains_annotation(key: &str) -> bool {
    key == "grpcmesh.io/ignore"
        || key.split_once('/').is_some_and(|(domain, _)| domain == "istio.io" || domain.ends_with(".istio.io"))
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    pub containers: NullableList<Container>,
    /// Native sidecars are among them.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub init_containers: NullableList<Container>,
    /// The identity of the pods; absent in manifests means `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account_name: Option<String>,
    /// The older name of `service_account_name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Istio does not inject pods on the host network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_network: Option<bool>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    pub name: String,
    /// The tag hints at the proxy's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Only the arguments that [`retained_args`] returns.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub args: NullableList<String>,
    /// Only the variables that [`retains_variable`] names.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub env: NullableList<EnvironmentVariable>,
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub ports: NullableList<ContainerPortSpec>,
    /// `Always` makes an init container a native sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart_policy: Option<String>,
    /// Kept only when it is a gRPC probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Kept only when it is a gRPC probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// Kept only when it is a gRPC probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
}

/// A variable of a container's environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EnvironmentVariable {
    pub name: String,
    /// Absent for a value from another object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The container of istiod.
pub const ISTIOD_CONTAINER: &str = "discovery";

/// Variables of istiod that change how calls are routed.
pub const ISTIOD_VARIABLES: [&str; 8] = [
    "ENABLE_EXTERNAL_NAME_ALIAS",
    "VERIFY_CERTIFICATE_AT_CLIENT",
    "EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY",
    "ENABLE_ENHANCED_DESTINATIONRULE_MERGE",
    "PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE",
    "PILOT_ENABLE_STRICT_GATEWAY_MERGING",
    "PILOT_SCOPE_GATEWAY_TO_NAMESPACE",
    "PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES",
];

/// Reports whether a reduced Pod keeps this variable. Others are dropped, because they may hold passwords.
pub fn retains_variable(container: &str, name: &str) -> bool {
    container == ISTIOD_CONTAINER && ISTIOD_VARIABLES.contains(&name)
}

/// Selects the arguments of Istio's own containers that a snapshot keeps: the proxy's role and istiod's cluster
/// domain.
///
/// Arguments of other containers are always dropped, because they may hold passwords.
pub fn retained_args(container: &str, args: &[String]) -> Vec<String> {
    match container {
        PROXY_CONTAINER => {
            let is_role = |arg: &&String| matches!(arg.as_str(), "proxy" | "sidecar" | "router" | "waypoint");
            args.iter().filter(is_role).cloned().collect()
        }
        ISTIOD_CONTAINER => {
            let mut retained = Vec::new();
            let mut args = args.iter();
            while let Some(arg) = args.next() {
                if arg == "--domain" {
                    retained.push(arg.clone());
                    retained.extend(args.next().cloned());
                } else if arg.starts_with("--domain=") {
                    retained.push(arg.clone());
                }
            }
            retained
        }
        _ => Vec::new(),
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPortSpec {
    /// A Service's `targetPort` may use it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub container_port: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Probe {
    /// Set for a gRPC health check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc: Option<GrpcProbe>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct GrpcProbe {
    pub port: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    #[serde(rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,
    /// Only `Ready` is in use.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub conditions: NullableList<StatusCondition>,
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub container_statuses: NullableList<ContainerStatus>,
    /// Native sidecars are among them.
    #[serde(skip_serializing_if = "NullableList::is_empty")]
    pub init_container_statuses: NullableList<ContainerStatus>,
}

impl PodStatus {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StatusCondition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    pub name: String,
    pub ready: bool,
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
    pub endpoints: NullableList<Endpoint>,
    /// Ports that all endpoints share.
    pub ports: NullableList<EndpointPort>,
}

impl EndpointSlice {
    /// Reports whether the addresses are IPv6. The pods of a dual-stack Service appear in slices of both families.
    pub fn is_ipv6(&self) -> bool {
        self.address_type.as_deref() == Some("IPv6")
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses of one pod.
    pub addresses: NullableList<String>,
    pub conditions: EndpointConditions,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<EndpointTarget>,
}

/// Source: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/#conditions>
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointConditions {
    /// Absent means ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminating: Option<bool>,
}

impl EndpointConditions {
    /// Reports whether the endpoint receives new calls.
    pub fn accepts_calls(&self) -> bool {
        self.ready.unwrap_or(true) && self.terminating != Some(true)
    }
}

/// The Pod of an endpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EndpointTarget {
    pub name: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// Name of the Service port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Number of the container port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
}

/// A workload, reduced to its pod template.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct WorkloadObject {
    /// Only annotations that a reduced Pod keeps.
    pub metadata: ObjectMeta,
    pub spec: WorkloadSpec,
}

/// `spec` of a workload, reduced. A CronJob's `jobTemplate.spec.template` moves to `template`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSpec {
    /// Desired pods; absent means 1, and has no meaning for a DaemonSet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i64>,
    pub template: PodTemplate,
    /// Only on input: a CronJob nests its pod template one level deeper.
    #[serde(skip_serializing)]
    pub job_template: Option<JobTemplate>,
}

/// `spec.jobTemplate` of a CronJob.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobTemplate {
    pub spec: JobSpec,
}

/// `spec.jobTemplate.spec` of a CronJob.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct JobSpec {
    pub template: PodTemplate,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodTemplate {
    pub metadata: ObjectMeta,
    pub spec: PodSpec,
}

/// A ConfigMap with a mesh configuration.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshConfigMap {
    pub metadata: ObjectMeta,
    pub data: MeshConfigData,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MeshConfigData {
    /// The MeshConfig as YAML text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh: Option<String>,
}
