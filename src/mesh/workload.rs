//! Pods, or the pod templates that stand for them, and the proxies beside them.
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

/// A Pod, or all pods of a template.
#[derive(Debug)]
pub struct Workload {
    /// The Pod, or the workload whose template this is.
    pub object: ObjectRef,
    /// The workload that made the Pod, such as `Deployment checkout`; a template's own workload.
    pub owner: Option<(Arc<str>, Arc<str>)>,
    /// Labels of the pods.
    pub labels: Labels,
    /// How many pods this stands for: 1 for a Pod.
    pub count: u32,
    /// Readiness.
    pub readiness: Readiness,
    /// What stands beside the application.
    pub proxy: ProxyKind,
    /// Declared container ports.
    pub ports: Vec<ContainerPort>,
    /// Ports that a gRPC probe asks.
    pub grpc_probes: Vec<u16>,
    /// Traffic that goes round the proxy.
    pub exclusions: Vec<TrafficExclusion>,
    /// Address.
    pub ip: Option<Arc<str>>,
}

/// Whether a pod takes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The Ready condition is true.
    Ready,
    /// It is not.
    NotReady,
    /// The source does not say: a template.
    Unknown,
}

/// A declared container port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Name.
    pub name: Option<Arc<str>>,
    /// Number.
    pub number: u16,
    /// Whether the proxy container declares it.
    pub of_proxy: bool,
}

/// What stands beside an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProxyKind {
    /// Nothing, and nothing is expected.
    None(NoProxyReason),
    /// A template that will get a sidecar when its pods are made.
    WillBeInjected,
    /// A template, and the labels of its namespace are not in the source.
    Unknown,
    /// An Envoy beside the application.
    Sidecar(SidecarProxy),
    /// The pod is a gateway.
    Gateway(SidecarProxy),
    /// The pod is a waypoint.
    Waypoint(SidecarProxy),
    /// gRPC's own xDS client with istiod's agent: no Envoy.
    Proxyless,
    /// Ambient: a node proxy that sees connections only.
    Ambient,
}

/// Why a pod has no proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NoProxyReason {
    /// Neither its namespace nor its labels ask for one.
    NotAsked,
    /// Labels ask for one, yet the pod has none: made before the label, or the webhook was away.
    Missed,
    /// `sidecar.istio.io/inject: "false"`.
    SwitchedOff,
    /// The host's network.
    HostNetwork,
}

/// An Envoy that istiod configures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SidecarProxy {
    /// Whether it is a native sidecar, that is, a restarting init container.
    pub native: bool,
    /// Version by its image's tag.
    pub version: Option<IstioVersion>,
    /// Whether its container is ready; unknown in templates.
    pub ready: Option<bool>,
}

impl ProxyKind {
    /// The Envoy, if there is one.
    pub fn envoy(&self) -> Option<&SidecarProxy> {
        match self {
            Self::Sidecar(envoy) | Self::Gateway(envoy) | Self::Waypoint(envoy) => Some(envoy),
            Self::None(_) | Self::WillBeInjected | Self::Unknown | Self::Proxyless | Self::Ambient => None,
        }
    }

    /// Whether calls from here are balanced and routed by an Envoy; `None` when that is unknown.
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
            Self::None(NoProxyReason::NotAsked) => return f.write_str("no proxy"),
            Self::None(NoProxyReason::Missed) => return f.write_str("no proxy (asked for, not injected)"),
            Self::None(NoProxyReason::SwitchedOff) => return f.write_str("no proxy (injection switched off)"),
            Self::None(NoProxyReason::HostNetwork) => return f.write_str("no proxy (host network)"),
            Self::WillBeInjected => return f.write_str("sidecar (when the pods are made)"),
            Self::Unknown => return f.write_str("unknown"),
            Self::Proxyless => return f.write_str("proxyless gRPC"),
            Self::Ambient => return f.write_str("ambient (connections only)"),
            Self::Sidecar(envoy) if envoy.native => ("native sidecar", envoy),
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

/// What a namespace's labels ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamespaceInjection {
    /// Sidecars for pods that do not say otherwise.
    pub inject: bool,
    /// Ambient.
    pub ambient: bool,
}

impl NamespaceInjection {
    /// Reads a namespace's labels. `istio-injection` beats `istio.io/rev`.
    pub fn new(labels: &StringMap) -> Self {
        let inject = match labels.get("istio-injection").map(String::as_str) {
            Some("enabled") => true,
            Some(_) => false,
            None => labels.contains_key("istio.io/rev"),
        };
        let ambient = labels.get("istio.io/dataplane-mode").is_some_and(|mode| mode == "ambient");
        Self { inject, ambient }
    }
}

impl Workload {
    /// Makes one from a Pod. `None` for pods that have ended.
    pub fn of_pod(
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
            // A Pod in a manifest has no status at all; one that was just made has a phase without conditions.
            None if phase.is_none() => Readiness::Unknown,
            None => Readiness::NotReady,
        };
        let owner = pod.metadata.owner_references.iter().find(|owner| owner.controller == Some(true));
        let owner = owner.map(|owner| workload_of(owner, &pod.metadata, names));
        let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
        let proxy_ready = statuses.filter(|status| status.name == PROXY_CONTAINER).map(|status| status.ready).next();
        let made = if phase.is_some() || readiness != Readiness::Unknown { PodOrigin::Yes } else { PodOrigin::NotYet };
        Some(Self::new(
            object,
            owner,
            &pod.metadata,
            &pod.spec,
            AdmissionContext { count: 1, readiness, proxy_ready, made },
            namespace,
            names,
        ))
    }

    /// Makes one from a workload's pod template.
    pub fn of_template(
        object: ObjectRef,
        template: &PodTemplate,
        replicas: u32,
        namespace: Option<NamespaceInjection>,
        names: &mut Interner,
    ) -> Self {
        let owner = Some((names.intern(object.kind.name()), Arc::clone(&object.name)));
        let seen = AdmissionContext {
            count: replicas,
            readiness: Readiness::Unknown,
            proxy_ready: None,
            made: PodOrigin::NotYet,
        };
        Self::new(object, owner, &template.metadata, &template.spec, seen, namespace, names)
    }

    /// A machine outside the cluster, by its WorkloadEntry. Whether a proxy runs there is not written in it.
    pub fn of_entry(object: ObjectRef, labels: Labels, ip: Option<Arc<str>>) -> Self {
        Self {
            object,
            owner: None,
            labels,
            count: 1,
            readiness: Readiness::Ready,
            proxy: ProxyKind::Unknown,
            ports: Vec::new(),
            grpc_probes: Vec::new(),
            exclusions: Vec::new(),
            ip,
        }
    }

    fn new(
        object: ObjectRef,
        owner: Option<(Arc<str>, Arc<str>)>,
        meta: &ObjectMeta,
        spec: &PodSpec,
        seen: AdmissionContext,
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
                        of_proxy,
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
            proxy: proxy(meta, spec, seen, namespace),
            exclusions: exclusions(&meta.annotations, names),
            labels: Labels::new(&meta.labels, names),
            ip: None,
            count: seen.count,
            readiness: seen.readiness,
            object,
            owner,
            ports,
            grpc_probes,
        }
    }

    /// What telemetry calls it: its namespace, and the name of the workload that made it, else its own.
    pub fn telemetry_name(&self) -> (String, String) {
        let name = self.owner.as_ref().map_or(&*self.object.name, |(_, name)| name);
        (self.namespace().to_string(), name.to_owned())
    }

    /// Namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.object.namespace
    }

    /// What made it, `deployment checkout`, or the Pod itself.
    pub fn title(&self) -> String {
        match &self.owner {
            Some((kind, name)) => format!("{} {name}", kind.to_lowercase()),
            None => format!("pod {}", self.object.name),
        }
    }
}

/// What the caller of `new` already knows.
#[derive(Clone, Copy)]
struct AdmissionContext {
    count: u32,
    readiness: Readiness,
    proxy_ready: Option<bool>,
    made: PodOrigin,
}

/// Whether admission has already run, so that a missing proxy is really missing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PodOrigin {
    Yes,
    NotYet,
}

/// The workload behind a controller: a Deployment for its ReplicaSet, an Argo Rollout likewise.
fn workload_of(
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

fn proxy(
    meta: &ObjectMeta,
    spec: &PodSpec,
    seen: AdmissionContext,
    namespace: Option<NamespaceInjection>,
) -> ProxyKind {
    let templates = meta.annotations.get("inject.istio.io/templates").map(String::as_str).unwrap_or_default();
    let has_template = |wanted: &str| templates.split(',').any(|template| template.trim() == wanted);
    if has_template("grpc-agent") || has_template("grpc-simple") {
        return ProxyKind::Proxyless;
    }
    let container = spec.containers.iter().find(|container| container.name == PROXY_CONTAINER).map(|c| (c, false));
    let native = spec
        .init_containers
        .iter()
        .find(|container| container.name == PROXY_CONTAINER && container.restart_policy.as_deref() == Some("Always"))
        .map(|c| (c, true));
    if let Some((container, native)) = container.or(native) {
        let version = container.image.as_deref().and_then(IstioVersion::of_image);
        let envoy = SidecarProxy { native, version, ready: seen.proxy_ready };
        // A gateway's own manifest names the container and leaves its arguments to injection.
        if has_template("gateway") && !container.args.iter().any(|argument| argument == "sidecar") {
            return ProxyKind::Gateway(envoy);
        }
        return role(container, meta, envoy);
    }
    if has_template("gateway") {
        // The container comes with injection altogether.
        return ProxyKind::Gateway(SidecarProxy { native: false, version: None, ready: seen.proxy_ready });
    }
    if meta.annotations.get("ambient.istio.io/redirection").is_some_and(|state| state == "enabled") {
        return ProxyKind::Ambient;
    }
    if spec.host_network == Some(true) {
        return ProxyKind::None(NoProxyReason::HostNetwork);
    }
    let own = meta
        .labels
        .get("sidecar.istio.io/inject")
        .or_else(|| meta.annotations.get("sidecar.istio.io/inject"))
        .map(String::as_str);
    let asked = match own {
        Some("false") => return ProxyKind::None(NoProxyReason::SwitchedOff),
        Some("true") => Some(true),
        _ if meta.labels.contains_key("istio.io/rev") => Some(true),
        _ => namespace.map(|labels| labels.inject),
    };
    let mode = meta.labels.get("istio.io/dataplane-mode").map(String::as_str);
    let ambient = match mode {
        Some(mode) => mode == "ambient",
        None => namespace.is_some_and(|labels| labels.ambient),
    };
    match (asked, seen.made) {
        (Some(true), PodOrigin::NotYet) => ProxyKind::WillBeInjected,
        (Some(true), PodOrigin::Yes) => ProxyKind::None(NoProxyReason::Missed),
        (_, _) if ambient => ProxyKind::Ambient,
        (Some(false), _) => ProxyKind::None(NoProxyReason::NotAsked),
        (None, PodOrigin::Yes) => ProxyKind::None(NoProxyReason::NotAsked),
        (None, PodOrigin::NotYet) => ProxyKind::Unknown,
    }
}

/// A proxy's role: by its arguments, else by the labels that Gateway API deployments carry.
fn role(container: &Container, meta: &ObjectMeta, envoy: SidecarProxy) -> ProxyKind {
    let has = |word: &str| container.args.iter().any(|argument| argument == word);
    if has("waypoint") {
        return ProxyKind::Waypoint(envoy);
    }
    if has("router") {
        return ProxyKind::Gateway(envoy);
    }
    if meta
        .labels
        .get("gateway.istio.io/managed")
        .is_some_and(|by| by.contains("waypoint") || by.contains("mesh-controller"))
    {
        return ProxyKind::Waypoint(envoy);
    }
    let gateway_label = meta.labels.contains_key("gateway.networking.k8s.io/gateway-name")
        || (!has("sidecar") && meta.labels.get("istio").is_some_and(|role| role.ends_with("gateway")));
    if gateway_label { ProxyKind::Gateway(envoy) } else { ProxyKind::Sidecar(envoy) }
}
