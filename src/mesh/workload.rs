//! Workloads: Pods, or pod templates in place of Pods that the source lacks, and their proxies.
//!
//! Sources: `pkg/kube/inject/inject.go`, `webhook.go` and the injection template of istio/istio 1.31; the labels and
//! annotations of istio/api.

use std::fmt;
use std::sync::Arc;

use super::ids::{Interner, Labels, Namespace, ObjectRef};
use super::traffic_exclusion::{TrafficExclusion, exclusions};
use super::version::IstioVersion;
use crate::schema::core::{Container, PROXY_CONTAINER, Pod, PodSpec, PodTemplate};
use crate::schema::meta::{ObjectMeta, StringMap};

/// One Pod, all pods of a template, or a WorkloadEntry.
#[derive(Debug)]
pub struct Workload {
    /// The Pod or WorkloadEntry, or the Deployment or other kind that holds the template.
    pub object: ObjectRef,
    /// Kind and name of the workload that owns the pods, such as `Deployment checkout`.
    pub owner: Option<(Arc<str>, Arc<str>)>,
    pub labels: Labels,
    /// Number of pods: 1 for a Pod, `spec.replicas` for a template.
    pub pod_count: u32,
    pub readiness: Readiness,
    pub proxy: ProxyKind,
    pub ports: Vec<ContainerPort>,
    /// Pod ports with a gRPC probe.
    pub grpc_probes: Vec<u16>,
    /// Annotations that exclude traffic from the proxy.
    pub exclusions: Vec<TrafficExclusion>,
    /// Pod IP.
    pub ip: Option<Arc<str>>,
    /// Name of the ServiceAccount. `None`: the source does not contain it, or a WorkloadEntry without a proxy.
    pub service_account: Option<Arc<str>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The `Ready` condition is true.
    Ready,
    /// The `Ready` condition is false or missing, or the Pod is being deleted.
    NotReady,
    /// The source has no status, as for a template.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    pub name: Option<Arc<str>>,
    pub number: u16,
    /// Whether the proxy container declares the port.
    pub is_proxy_port: bool,
}

/// The proxy of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyKind {
    /// No proxy, and the reason.
    None(NoProxyReason),
    /// A template whose pods get a sidecar when they are created.
    WillBeInjected,
    /// Undetermined: a template without its Namespace in the source, or a WorkloadEntry.
    Unknown,
    /// Envoy in the pod of the application.
    Sidecar(EnvoyProxy),
    Gateway(EnvoyProxy),
    Waypoint(EnvoyProxy),
    /// Proxyless gRPC: the gRPC library is the xDS client. There is no Envoy.
    Proxyless,
    /// Ambient mode: ztunnel on the node handles connections (L4) only.
    Ambient,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoProxyReason {
    /// Neither the Namespace nor the pod requests injection.
    NotRequested,
    /// Injection is requested, but the pod has no proxy: it is older than the label, or the webhook was unavailable.
    NotInjected,
    /// `sidecar.istio.io/inject: "false"`
    Disabled,
    /// The pod uses the host network.
    HostNetwork,
}

/// An Envoy that istiod configures: a sidecar, a gateway or a waypoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvoyProxy {
    /// Whether the container is a native sidecar: an init container with `restartPolicy: Always`.
    pub is_native: bool,
    /// Version in the tag of the image.
    pub version: Option<IstioVersion>,
    /// Readiness of the container; `None` for templates.
    pub is_ready: Option<bool>,
}

impl ProxyKind {
    pub fn envoy(&self) -> Option<&EnvoyProxy> {
        match self {
            Self::Sidecar(envoy) | Self::Gateway(envoy) | Self::Waypoint(envoy) => Some(envoy),
            Self::None(_) | Self::WillBeInjected | Self::Unknown | Self::Proxyless | Self::Ambient => None,
        }
    }

    /// Whether an Envoy routes and balances the calls of the pod. `None`: undetermined.
    pub fn is_meshed(&self) -> Option<bool> {
        match self {
            Self::Sidecar(_) | Self::Gateway(_) | Self::Waypoint(_) | Self::WillBeInjected => Some(true),
            Self::None(_) | Self::Proxyless | Self::Ambient => Some(false),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for ProxyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, envoy) = match self {
            Self::None(NoProxyReason::NotRequested) => return f.write_str("no proxy"),
            Self::None(NoProxyReason::NotInjected) => return f.write_str("no proxy (requested, not injected)"),
            Self::None(NoProxyReason::Disabled) => return f.write_str("no proxy (injection disabled)"),
            Self::None(NoProxyReason::HostNetwork) => return f.write_str("no proxy (host network)"),
            Self::WillBeInjected => return f.write_str("sidecar (injected when pods are created)"),
            Self::Unknown => return f.write_str("unknown"),
            Self::Proxyless => return f.write_str("proxyless gRPC"),
            Self::Ambient => return f.write_str("ambient (L4 only)"),
            Self::Sidecar(envoy) if envoy.is_native => ("native sidecar", envoy),
            Self::Sidecar(envoy) => ("sidecar", envoy),
            Self::Gateway(envoy) => ("gateway", envoy),
            Self::Waypoint(envoy) => ("waypoint", envoy),
        };
        f.write_str(name)?;
        if let Some(version) = envoy.version {
            write!(f, " {version}")?;
        }
        Ok(())
    }
}

/// Data plane mode that the labels of a Namespace request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInjection {
    /// Sidecars, unless a pod opts out.
    pub injects_sidecars: bool,
    /// Ambient mode, unless a pod opts out.
    pub is_ambient: bool,
}

impl NamespaceInjection {
    /// Reads the labels of a Namespace. `istio-injection` takes precedence over `istio.io/rev`.
    pub fn new(labels: &StringMap) -> Self {
        let injects_sidecars = match labels.get("istio-injection").map(String::as_str) {
            Some("enabled") => true,
            Some(_) => false,
            None => labels.contains_key("istio.io/rev"),
        };
        let is_ambient = labels.get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient");
        Self { injects_sidecars, is_ambient }
    }
}

impl Workload {
    /// `None` for a Pod that has terminated.
    pub fn from_pod(
        object: ObjectRef,
        pod: &Pod,
        namespace: Option<NamespaceInjection>,
        names: &mut Interner,
    ) -> Option<Self> {
        let phase = pod.status.phase.as_deref();
        if matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        let condition = pod.status.conditions.iter().find(|condition| condition.kind == "Ready");
        let readiness = match condition {
            Some(_) if pod.metadata.deletion_timestamp.is_some() => Readiness::NotReady,
            Some(condition) if condition.status == "True" => Readiness::Ready,
            Some(_) => Readiness::NotReady,
            // A Pod in a manifest has no status. A Pod that was just created has a phase but no conditions.
            None if phase.is_none() => Readiness::Unknown,
            None => Readiness::NotReady,
        };
        let owner = pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| owner_workload(owner, &pod.metadata, names));
        let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let proxy_ready = statuses.filter(|status| status.name == PROXY_CONTAINER).map(|status| status.ready).next();
        let is_admitted = phase.is_some() || readiness != Readiness::Unknown;
        Some(Self::new(
            object,
            owner,
            &pod.metadata,
            &pod.spec,
            PodContext { count: 1, readiness, proxy_ready, is_admitted },
            namespace,
            names,
        ))
    }

    pub fn from_template(
        object: ObjectRef,
        template: &PodTemplate,
        replicas: u32,
        namespace: Option<NamespaceInjection>,
        names: &mut Interner,
    ) -> Self {
        let owner = Some((names.intern(object.kind.name()), Arc::clone(&object.name)));
        let context =
            PodContext { count: replicas, readiness: Readiness::Unknown, proxy_ready: None, is_admitted: false };
        Self::new(object, owner, &template.metadata, &template.spec, context, namespace, names)
    }

    /// A machine outside the cluster. A WorkloadEntry does not say whether a proxy runs on it.
    pub fn from_workload_entry(
        object: ObjectRef,
        labels: Labels,
        ip: Option<Arc<str>>,
        service_account: Option<Arc<str>>,
    ) -> Self {
        Self {
            object,
            owner: None,
            labels,
            pod_count: 1,
            readiness: Readiness::Ready,
            proxy: ProxyKind::Unknown,
            ports: Vec::new(),
            grpc_probes: Vec::new(),
            exclusions: Vec::new(),
            ip,
            service_account,
        }
    }

    fn new(
        object: ObjectRef,
        owner: Option<(Arc<str>, Arc<str>)>,
        meta: &ObjectMeta,
        spec: &PodSpec,
        context: PodContext,
        namespace: Option<NamespaceInjection>,
        names: &mut Interner,
    ) -> Self {
        let containers = || spec.containers.iter().chain(spec.init_containers.iter());
        let mut ports = Vec::new();
        let mut grpc_probes = Vec::new();
        for container in containers() {
            let of_proxy = container.name == PROXY_CONTAINER;
            for port in &container.ports {
                if let Ok(number) = u16::try_from(port.container_port) {
                    ports.push(ContainerPort {
                        name: port.name.as_deref().map(|name| names.intern(name)),
                        number,
                        is_proxy_port: of_proxy,
                    });
                }
            }
            let probes = [&container.readiness_probe, &container.liveness_probe, &container.startup_probe];
            for probe in probes.into_iter().flatten().filter_map(|probe| probe.grpc.as_ref()) {
                if let Ok(port) = u16::try_from(probe.port)
                    && !grpc_probes.contains(&port)
                {
                    grpc_probes.push(port);
                }
            }
        }
        Self {
            proxy: infer_proxy_kind(meta, spec, context, namespace),
            exclusions: exclusions(&meta.annotations, names),
            labels: Labels::new(&meta.labels, names),
            ip: None,
            service_account: spec
                .service_account_name
                .as_deref()
                .or(spec.service_account.as_deref())
                .filter(|name| !name.is_empty())
                .map(|name| names.intern(name)),
            pod_count: context.count,
            readiness: context.readiness,
            object,
            owner,
            ports,
            grpc_probes,
        }
    }

    /// Namespace and name under which Istio telemetry reports the workload: `destination_workload_namespace` and
    /// `destination_workload`.
    pub fn telemetry_name(&self) -> (String, String) {
        let name = self.owner.as_ref().map_or(&*self.object.name, |(_, name)| name);
        (self.namespace().to_string(), name.to_owned())
    }

    pub fn namespace(&self) -> &Namespace {
        &self.object.namespace
    }

    /// Owner for display, such as `deployment checkout`, or `pod NAME` without an owner.
    pub fn title(&self) -> String {
        match &self.owner {
            Some((kind, name)) => format!("{} {name}", kind.to_lowercase()),
            None => format!("pod {}", self.object.name),
        }
    }
}

/// Properties that differ between Pods and templates.
#[derive(Clone, Copy)]
struct PodContext {
    count: u32,
    readiness: Readiness,
    proxy_ready: Option<bool>,
    /// Whether admission has run, so that a missing proxy was not injected.
    is_admitted: bool,
}

/// The workload that owns a Pod: the Deployment or Argo Rollout of a ReplicaSet, else the controller itself.
fn owner_workload(
    owner: &crate::schema::meta::OwnerReference,
    meta: &ObjectMeta,
    names: &mut Interner,
) -> (Arc<str>, Arc<str>) {
    if owner.kind == "ReplicaSet" {
        if let Some(hash) = meta.labels.get("pod-template-hash")
            && let Some(name) = owner.name.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-'))
        {
            return (names.intern("Deployment"), names.intern(name));
        }
        if let Some(hash) = meta.labels.get("rollouts-pod-template-hash")
            && let Some(name) = owner.name.strip_suffix(hash.as_str()).and_then(|name| name.strip_suffix('-'))
        {
            return (names.intern("Rollout"), names.intern(name));
        }
    }
    (names.intern(&owner.kind), names.intern(&owner.name))
}

fn infer_proxy_kind(
    meta: &ObjectMeta,
    spec: &PodSpec,
    context: PodContext,
    namespace: Option<NamespaceInjection>,
) -> ProxyKind {
    let templates = meta.annotations.get("inject.istio.io/templates").map(String::as_str).unwrap_or_default();
    let has_template = |name: &str| templates.split(',').any(|template| template.trim() == name);
    if has_template("grpc-agent") || has_template("grpc-simple") {
        return ProxyKind::Proxyless;
    }
    let container = spec.containers.iter().find(|container| container.name == PROXY_CONTAINER).map(|c| (c, false));
    let native = spec
        .init_containers
        .iter()
        .find(|container| container.name == PROXY_CONTAINER && container.restart_policy.as_deref() == Some("Always"))
        .map(|c| (c, true));
    if let Some((container, is_native)) = container.or(native) {
        let version = container.image.as_deref().and_then(IstioVersion::from_image);
        let envoy = EnvoyProxy { is_native, version, is_ready: context.proxy_ready };
        // The manifest of a gateway contains the container, and injection adds its arguments.
        if has_template("gateway") && !container.args.iter().any(|argument| argument == "sidecar") {
            return ProxyKind::Gateway(envoy);
        }
        return proxy_of_role(container, meta, envoy);
    }
    if has_template("gateway") {
        // Injection adds the whole container.
        return ProxyKind::Gateway(EnvoyProxy { is_native: false, version: None, is_ready: context.proxy_ready });
    }
    if meta.annotations.get("ambient.istio.io/redirection").is_some_and(|state| state == "enabled") {
        return ProxyKind::Ambient;
    }
    if spec.host_network == Some(true) {
        return ProxyKind::None(NoProxyReason::HostNetwork);
    }
    let inject = meta
        .labels
        .get("sidecar.istio.io/inject")
        .or_else(|| meta.annotations.get("sidecar.istio.io/inject"))
        .map(String::as_str);
    let requests_injection = match inject {
        Some("false") => return ProxyKind::None(NoProxyReason::Disabled),
        Some("true") => Some(true),
        _ if meta.labels.contains_key("istio.io/rev") => Some(true),
        _ => namespace.map(|labels| labels.injects_sidecars),
    };
    let mode = meta.labels.get("istio.io/dataplane-mode").map(String::as_str);
    let is_ambient = match mode {
        Some(mode) => mode == "ambient",
        None => namespace.is_some_and(|labels| labels.is_ambient),
    };
    match (requests_injection, context.is_admitted) {
        (Some(true), false) => ProxyKind::WillBeInjected,
        (Some(true), true) => ProxyKind::None(NoProxyReason::NotInjected),
        (_, _) if is_ambient => ProxyKind::Ambient,
        (Some(false), _) => ProxyKind::None(NoProxyReason::NotRequested),
        (None, true) => ProxyKind::None(NoProxyReason::NotRequested),
        (None, false) => ProxyKind::Unknown,
    }
}

/// Determines the role of a proxy from its arguments, else from the labels that istiod sets on Gateway API deployments.
fn proxy_of_role(container: &Container, meta: &ObjectMeta, envoy: EnvoyProxy) -> ProxyKind {
    let has_argument = |name: &str| container.args.iter().any(|argument| argument == name);
    if has_argument("waypoint") {
        return ProxyKind::Waypoint(envoy);
    }
    if has_argument("router") {
        return ProxyKind::Gateway(envoy);
    }
    if meta
        .labels
        .get("gateway.istio.io/managed")
        .is_some_and(|controller| controller.contains("waypoint") || controller.contains("mesh-controller"))
    {
        return ProxyKind::Waypoint(envoy);
    }
    let is_gateway = meta.labels.contains_key(super::GATEWAY_NAME_LABEL)
        || (!has_argument("sidecar") && meta.labels.get("istio").is_some_and(|role| role.ends_with("gateway")));
    if is_gateway { ProxyKind::Gateway(envoy) } else { ProxyKind::Sidecar(envoy) }
}
