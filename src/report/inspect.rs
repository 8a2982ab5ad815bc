//! The report of `inspect`: Services with their ports, routes and proxies, findings, and gaps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::balance::DistributionReport;
use super::diff::DiffProxyReport;
use super::finding::FindingReport;
use super::route::RetriesReport;
use super::server_side::access_reports;
use super::{GapReport, ObjectKind, ObjectReport, Percent};
use crate::dataplane::balance::{HostReadings, readings_by_host, recent_or_total};
use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::gateway::ServerTlsMode;
use crate::mesh::ids::{ObjectRef, ServiceId};
use crate::mesh::protocol::Protocol;
use crate::mesh::security::MtlsMode;
use crate::mesh::xds::BackendState;
use crate::rules::{RulesOutcome, Severity};
use crate::schema::Kind;

/// The answer of `inspect`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Inspect")]
pub struct InspectReport {
    /// Always `Inspect`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Istio version whose behavior is assumed.
    pub istio_version: String,
    /// Services.
    pub services: Vec<ServiceReport>,
    /// Findings, worst first.
    pub findings: Vec<FindingReport>,
    /// Number of findings dropped by an annotation, `--skip` or an ignore file.
    pub ignored: usize,
    /// Number of possible findings that gaps leave undecided, by code.
    pub undecided: BTreeMap<&'static str, usize>,
    /// Inputs that could not be read.
    pub gaps: Vec<GapReport>,
    /// The states of the proxies, with `--live`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveReport>,
}

/// The states of the proxies in scope.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LiveReport {
    /// Time of the query, RFC 3339.
    pub time: String,
    /// Number of proxies by state, as in `diff`; states that do not occur are absent.
    #[schemars(extend("propertyNames" = {"$ref": "#/$defs/ProxyState"}))]
    pub proxies: BTreeMap<ProxyState, usize>,
}

/// Envoy's view of one Service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LiveServiceReport {
    /// The callers' proxies, each compared for this host.
    pub proxies: Vec<DiffProxyReport>,
    /// How calls spread, if any proxy counted calls to this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distribution: Option<DistributionReport>,
}

/// A Service, or a host of a ServiceEntry.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServiceReport {
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object. For a ServiceEntry host in the cluster domain, the name in the host.
    pub name: String,
    /// Kind of the object: `Service` or `ServiceEntry`.
    pub kind: ObjectKind,
    /// Full host name.
    pub host: String,
    /// `ClusterIP`, `Headless`, `ExternalName`, or the resolution of a ServiceEntry.
    pub resolution: String,
    /// The host that an `ExternalName` Service is an alias of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_name: Option<String>,
    /// Ports.
    pub ports: Vec<PortReport>,
    /// Numbers of its pods.
    pub pods: PodsReport,
    /// Numbers of pods with a proxy.
    pub proxies: ProxiesReport,
    /// Routes of the default caller class, in the order Envoy tries them. Empty means Istio's default route to all
    /// pods.
    pub routes: Vec<RuleReport>,
    /// Caller classes whose configuration differs from the default.
    pub callers: Vec<CallerClassReport>,
    /// DestinationRules of the default caller class.
    pub destination_rules: Vec<ObjectReport>,
    /// Traffic policies by port and subset.
    pub policies: Vec<PolicyReport>,
    /// Its workloads.
    pub workloads: Vec<WorkloadReport>,
    /// TLS that the server's proxies accept, by pod port.
    pub tls: Vec<TlsReport>,
    /// Authorization policies that select the pods.
    pub authorization: Vec<AuthorizationReport>,
    /// Who may call which method; empty when no policy decides about a call.
    pub access: Vec<AccessReport>,
    /// Gateways that expose it.
    pub gateways: Vec<GatewayReport>,
    /// Parts of this report that gaps make incomplete, one sentence each.
    pub affected_by_gaps: Vec<String>,
    /// Objects that act on its calls and are not modelled, one sentence each.
    pub not_modelled: Vec<String>,
    /// Envoy's view, with `--live` and a target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveServiceReport>,
    /// Number of findings about the Service and the objects that affect it, by severity.
    #[schemars(extend("propertyNames" = {"$ref": "#/$defs/Severity"}))]
    pub finding_counts: BTreeMap<Severity, usize>,
    /// Whether any port shows evidence of gRPC.
    #[serde(skip)]
    #[schemars(skip)]
    pub has_grpc: bool,
}

/// A port of a Service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PortReport {
    /// Number that callers use.
    pub number: u16,
    /// Name; empty when the port has none.
    pub name: String,
    /// `appProtocol` as written.
    pub app_protocol: Option<String>,
    /// Protocol in Istio's spelling; `Auto` means detected.
    pub protocol: Protocol,
    /// The field that decides the protocol.
    pub decided_by: String,
    /// Evidence that the port is used for gRPC.
    pub evidence: Vec<String>,
    /// Port of the pods: a number or a name.
    pub target_port: String,
    /// How the server's sidecar handles calls.
    pub inbound: String,
    /// How callers' sidecars handle calls.
    pub outbound: String,
    /// How gateways handle calls.
    pub gateway: String,
}

/// Numbers of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct PodsReport {
    /// Ready pods.
    pub ready: u32,
    /// All pods.
    pub total: u32,
    /// Pods of unknown readiness, which come from pod templates.
    pub unknown: u32,
    /// Whether the source contains the pods. If not, the numbers mean nothing.
    pub in_source: bool,
}

/// Numbers of pods with a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct ProxiesReport {
    /// Pods with an Envoy.
    pub present: u32,
    /// Pods that may have an Envoy.
    pub unknown: u32,
    /// All pods.
    pub total: u32,
}

/// A route rule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RuleReport {
    /// The object that holds the rule.
    pub object: ObjectReport,
    /// Index of the rule in the object.
    pub index: usize,
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Matches, one of which must hold; empty matches every call.
    pub matches: Vec<String>,
    /// The action on a matching call.
    pub action: RuleAction,
    /// HTTP status code of a direct response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u32>,
    /// The VirtualService that the rule delegates to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<ObjectReport>,
    /// Backends with their shares.
    pub backends: Vec<BackendReport>,
    /// Limit of the whole call, and cap on the client's deadline, in milliseconds; 0 means none.
    pub timeout_ms: u64,
    /// The retry policy.
    pub retries: RetriesReport,
    /// Injected faults, one sentence each.
    pub faults: Vec<String>,
    /// Mirrors, one sentence each.
    pub mirrors: Vec<String>,
    /// Changes of path or authority, one sentence each.
    pub rewrites: Vec<String>,
}

/// The action of a rule on a matching call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum RuleAction {
    /// It sends the call to a backend.
    Forward,
    /// It redirects the client, which gRPC clients do not follow.
    Redirect,
    /// It makes the proxy respond.
    DirectResponse,
    /// It leaves the decision to another VirtualService.
    Delegate,
}

impl RuleAction {
    /// The value in JSON reports, such as `direct-response`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BackendReport {
    /// Host.
    pub host: String,
    /// The host without the cluster domain, for the terminal.
    #[serde(skip)]
    #[schemars(skip)]
    pub short_host: String,
    /// Port, if the rule names one.
    pub port: Option<u32>,
    /// Subset, if the rule names one.
    pub subset: Option<String>,
    /// Weight as written.
    pub weight: Option<i64>,
    /// Share of the calls.
    pub share_percent: Percent,
    /// Whether calls to it can arrive.
    pub state: BackendState,
    /// Numbers of its pods.
    pub pods: PodsReport,
}

/// A caller class whose configuration differs from the default.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallerClassReport {
    /// Namespaces of the callers.
    pub namespaces: Vec<String>,
    /// Labels of the callers' pods, such as `app=web`, when only some pods are in the class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_labels: Option<String>,
    /// DestinationRules that apply to them.
    pub destination_rules: Vec<ObjectReport>,
    /// Their routes; absent when they are the default ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RuleReport>>,
    /// The differences, as sentences whose subject is the callers.
    pub differs: Vec<String>,
}

/// The traffic policy for a port and subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PolicyReport {
    /// Port of the Service.
    pub port: u16,
    /// Subset; absent for the policy of the whole host.
    pub subset: Option<String>,
    /// Limits of the connection pool with their effect on calls, one sentence each.
    pub connection_pool: Vec<String>,
    /// Load balancing.
    pub load_balancing: String,
    /// Outlier detection.
    pub outlier_detection: String,
    /// TLS on connections to the server.
    pub tls: String,
}

/// Pods of one workload that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkloadReport {
    /// Kind and name, such as `deployment checkout`.
    pub name: String,
    /// Value of the label `version`.
    pub version: Option<String>,
    /// Numbers of pods.
    pub pods: PodsReport,
    /// The proxy of the pods.
    pub proxy: String,
    /// Annotations that exclude traffic from the proxy.
    pub exclusions: Vec<String>,
}

/// The effective TLS mode of a pod port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TlsReport {
    /// Port of the pod.
    pub port: u16,
    /// The mode that the server's proxy accepts, in Istio's spelling; absent when PeerAuthentications could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<MtlsMode>,
    /// The PeerAuthentication that decides it, or `default`.
    pub decided_by: String,
}

/// An AuthorizationPolicy that selects the pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuthorizationReport {
    /// The policy.
    pub object: ObjectReport,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`, as written.
    pub action: String,
    /// Whether the policy only records what it would do.
    pub is_dry_run: bool,
    /// Method paths that it names.
    pub paths: Vec<String>,
}

/// Who may call a method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AccessReport {
    /// Port of the Service.
    pub port: u16,
    /// `/pkg.Service/Method`, `/pkg.Service/*`, or `*` for every method that no policy names.
    pub method: String,
    /// Callers whose calls are allowed: `namespace/ServiceAccount`, or `callers without mTLS`.
    pub allowed: Vec<String>,
    /// Callers whose calls are denied.
    pub denied: Vec<String>,
    /// Callers for whom it depends on the call: an address, a header or a token.
    pub undecided: Vec<String>,
}

/// A gateway that exposes a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GatewayReport {
    /// The Gateway.
    pub object: ObjectReport,
    /// Whether the source contains the Gateway.
    pub in_source: bool,
    /// Port of the server or listener.
    pub port: u32,
    /// Protocol of the server or listener, as written.
    pub protocol: String,
    /// How the server handles TLS.
    pub tls: ServerTlsMode,
    /// Hosts that clients call.
    pub hosts: Vec<String>,
    /// The route object that leads to the Service.
    pub route: ObjectReport,
}

/// The scope of `inspect`.
#[derive(Debug, Clone, Default)]
pub struct InspectRequest {
    /// Services to report in detail; empty means an overview.
    pub targets: Vec<ServiceId>,
    /// Services that the overview is restricted to; absent means all.
    pub selected: Option<BTreeSet<ServiceId>>,
    /// Namespaces in scope; empty means all.
    pub namespaces: BTreeSet<String>,
    /// Whether the overview includes Services without evidence of gRPC.
    pub all_services: bool,
}

impl InspectRequest {
    fn in_scope(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Compares proxies and reads counters for one Service after another.
struct LiveReporter<'m> {
    proxies: ProxyComparisons<'m>,
    readings: BTreeMap<String, HostReadings>,
}

impl<'m> LiveReporter<'m> {
    fn new(mesh: &'m Mesh<'m>) -> Option<Self> {
        let readings = readings_by_host(mesh.snapshot.live.as_ref()?);
        Some(Self { proxies: ProxyComparisons::new(mesh)?, readings })
    }

    fn report(&self, mesh: &Mesh<'_>, id: ServiceId) -> LiveServiceReport {
        let service = mesh.service(id);
        let host = service.host.as_str().to_owned();
        let distribution = self.readings.get(&host).map(|readings| {
            let (distribution, period) = recent_or_total(mesh, service, readings);
            DistributionReport::new(mesh, service, &distribution, period)
        });
        let compared = self.proxies.compare_all(&[host]);
        let proxies = compared.into_iter().map(|(id, proxy)| DiffProxyReport::new(mesh, id, proxy)).collect();
        LiveServiceReport { proxies, distribution }
    }
}

/// Numbers of proxies by state: for a target, callers in all namespaces; else the proxies in scope.
fn count_states(mesh: &Mesh<'_>, outcome: &RulesOutcome, request: &InspectRequest) -> BTreeMap<ProxyState, usize> {
    let mut counts = BTreeMap::new();
    for (id, state) in &outcome.proxies {
        let namespace = mesh.workload(*id).namespace();
        if !request.targets.is_empty() || request.in_scope(namespace.as_str()) {
            *counts.entry(*state).or_default() += 1;
        }
    }
    counts
}

fn services_in_scope(mesh: &Mesh<'_>, request: &InspectRequest) -> Vec<ServiceId> {
    if !request.targets.is_empty() {
        return request.targets.clone();
    }
    mesh.service_ids()
        .filter(|id| {
            let service = mesh.service(*id);
            request.in_scope(service.namespace().as_str())
                && (request.all_services || service.has_grpc_evidence())
                && request.selected.as_ref().is_none_or(|selected| selected.contains(id))
        })
        .collect()
}

/// Reports the Services in scope with the findings about them.
#[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
pub fn inspect(mesh: &Mesh<'_>, outcome: &RulesOutcome, request: &InspectRequest) -> InspectReport {
    let mut by_object: HashMap<&ObjectRef, Vec<usize>> = HashMap::new();
    for (index, finding) in outcome.findings.iter().enumerate() {
        for object in finding.objects() {
            by_object.entry(object).or_default().push(index);
        }
    }
    let reported = services_in_scope(mesh, request);
    // An overview has no live part: it would compare every proxy once per Service.
    let live = if request.targets.is_empty() { None } else { LiveReporter::new(mesh) };
    let mut findings: BTreeSet<usize> = BTreeSet::new();
    let mut services = Vec::with_capacity(reported.len());
    for id in reported {
        let related: BTreeSet<usize> = super::page::related_objects(mesh, id)
            .iter()
            .filter_map(|object| by_object.get(object))
            .flatten()
            .copied()
            .collect();
        let mut counts = BTreeMap::new();
        for index in &related {
            *counts.entry(outcome.findings[*index].severity).or_default() += 1;
        }
        findings.extend(related);
        let live = live.as_ref().map(|live| live.report(mesh, id));
        // A finding about a caller's proxy that is not synced concerns the Services that it calls.
        let callers = live.iter().flat_map(|live| &live.proxies).filter(|proxy| proxy.state != ProxyState::Synced);
        for caller in callers {
            let path = format!("{}/{}", caller.namespace, caller.pod);
            let of_pod = by_object.iter().filter(|(object, _)| object.kind == Kind::Pod && object.path() == path);
            findings.extend(of_pod.flat_map(|(_, findings)| findings.iter().copied()));
        }
        // An overview has no table of callers and methods either: it grows with both.
        let access = if request.targets.is_empty() { Vec::new() } else { access_reports(mesh, id) };
        services.push(ServiceReport { access, live, ..super::page::service_report(mesh, id, counts) });
    }
    if request.targets.is_empty() && request.selected.is_none() {
        let in_scope = outcome.findings.iter().enumerate().filter(|(_, finding)| {
            let mut namespaces = finding.objects().map(|object| object.namespace.as_str());
            namespaces.any(|namespace| namespace.is_empty() || request.in_scope(namespace))
        });
        findings.extend(in_scope.map(|(index, _)| index));
    }
    InspectReport {
        kind: "Inspect",
        version: 1,
        istio_version: mesh.version.to_string(),
        services,
        findings: findings.into_iter().map(|index| FindingReport::new(mesh, &outcome.findings[index])).collect(),
        ignored: outcome.ignored,
        undecided: outcome.undecided.clone(),
        gaps: mesh
            .snapshot
            .gaps
            .iter()
            .map(GapReport::from)
            .chain(mesh.route_configs().gaps().map(|gap| GapReport::from(&gap)))
            .collect(),
        live: mesh
            .snapshot
            .live
            .as_ref()
            .map(|live| LiveReport { time: live.recorded_at.clone(), proxies: count_states(mesh, outcome, request) }),
    }
}
