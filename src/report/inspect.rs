//! `inspect`: Services with their ports, routes and proxies, findings, and gaps.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::balance::DistributionReport;
use super::diff::DiffProxyReport;
use super::finding::FindingReport;
use super::{GapReport, ObjectReport};
use crate::dataplane::balance::{HostReadings, lately_or_ever, readings_by_host};
use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::ids::{ObjectRef, ServiceId};
use crate::rules::RulesOutcome;
use crate::schema::Kind;

/// Answer of `inspect`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Inspect")]
pub struct InspectReport {
    /// Always `Inspect`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// Istio version whose behaviour is assumed.
    pub istio_version: String,
    /// Services.
    pub services: Vec<ServiceReport>,
    /// Findings, worst first.
    pub findings: Vec<FindingReport>,
    /// Findings that an annotation, `--skip` or an ignore file left out.
    pub ignored: usize,
    /// Claims that gaps left undecided, by code.
    pub undecided: BTreeMap<&'static str, usize>,
    /// What could not be read.
    pub gaps: Vec<GapReport>,
    /// What Envoys say, when they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveReport>,
}

/// What Envoys say.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LiveReport {
    /// When they were asked, RFC 3339.
    pub asked: String,
    /// How many proxies there are in each state, named as in `diff`.
    pub proxies: BTreeMap<&'static str, usize>,
}

/// What Envoys say of one Service.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LiveServiceReport {
    /// Callers' proxies, and what each has for this host.
    pub proxies: Vec<DiffProxyReport>,
    /// How calls spread, if any proxy counted some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<DistributionReport>,
}

/// A Service, or a host of a ServiceEntry.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ServiceReport {
    /// Namespace.
    pub namespace: String,
    /// Name of the Service: the object's, or the one in the host of a ServiceEntry that adds a host to the cluster domain.
    pub name: String,
    /// Kind of the object: `Service` or `ServiceEntry`.
    pub kind: String,
    /// Full host name.
    pub host: String,
    /// `ClusterIP`, `Headless`, `ExternalName …`, or a ServiceEntry's resolution.
    pub resolution: String,
    /// Ports.
    pub ports: Vec<PortReport>,
    /// Pods behind it.
    pub pods: PodsReport,
    /// Pods that have a proxy.
    pub proxies: ProxiesReport,
    /// Routes that callers without a view of their own get, in the order Envoy tries them. Empty is Istio's default
    /// route to all pods.
    pub routes: Vec<RuleReport>,
    /// Views of callers that differ.
    pub callers: Vec<CallerClassReport>,
    /// DestinationRules that callers without a view of their own get.
    pub destination_rules: Vec<ObjectReport>,
    /// What the policies say, by port and subset.
    pub policies: Vec<PolicyReport>,
    /// Workloads behind it.
    pub workloads: Vec<WorkloadReport>,
    /// TLS that the server's proxies ask for, by pod port.
    pub tls: Vec<TlsReport>,
    /// Authorization that names gRPC methods, or selects the pods.
    pub authorization: Vec<AuthorizationReport>,
    /// Gateways that lead here.
    pub gateways: Vec<GatewayReport>,
    /// What may be wrong here because objects could not be read.
    pub unread: Vec<String>,
    /// What acts here and is not part of the model.
    pub not_modelled: Vec<String>,
    /// What Envoys say of it, on a page of its own and when they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live: Option<LiveServiceReport>,
    /// Findings that touch the Service, by severity word.
    pub finding_counts: BTreeMap<&'static str, usize>,
    /// Whether any port shows signs of gRPC.
    #[serde(skip)]
    #[schemars(skip)]
    pub has_grpc: bool,
}

/// A port.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PortReport {
    /// Number that callers use.
    pub number: u16,
    /// Name; empty when it has none.
    pub name: String,
    /// `appProtocol` as written.
    pub app_protocol: Option<String>,
    /// Istio's own word.
    pub protocol: &'static str,
    /// The word for people.
    #[serde(skip)]
    #[schemars(skip)]
    pub protocol_label: &'static str,
    /// Who decided it.
    pub decided_by: String,
    /// Signs that it is used for gRPC.
    pub evidence: Vec<String>,
    /// Port in the pods: a number or a name.
    pub target_port: String,
    /// What the server's proxy makes of it.
    pub inbound: String,
    /// What callers' sidecars make of it.
    pub outbound: String,
    /// What gateways make of it.
    pub gateway: String,
}

/// Counts of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct PodsReport {
    /// Ready.
    pub ready: u32,
    /// All.
    pub total: u32,
    /// Of unknown readiness: pod templates.
    pub unknown: u32,
    /// Whether the source can tell at all.
    pub known: bool,
}

/// Counts of proxies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
pub struct ProxiesReport {
    /// Pods with an Envoy.
    pub with: u32,
    /// Pods of which that is not known.
    pub unknown: u32,
    /// All pods.
    pub total: u32,
}

/// A route rule.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RuleReport {
    /// The object it comes from.
    pub object: ObjectReport,
    /// Position in the object's rules.
    pub index: usize,
    /// Name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Alternatives; empty matches every call.
    pub matches: Vec<String>,
    /// `forward`, `redirect`, `direct-response` or `delegate`.
    pub action: String,
    /// Backends with their shares.
    pub backends: Vec<BackendReport>,
    /// Limit of the whole call and cap of the client's deadline, in milliseconds; 0 is none.
    pub timeout_ms: u64,
    /// Retries in force.
    pub retries: RetriesReport,
    /// Injected faults.
    pub faults: Vec<String>,
    /// Copies of the traffic.
    pub mirrors: Vec<String>,
    /// Changes of path or authority.
    pub rewrites: Vec<String>,
}

/// A backend of a route.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BackendReport {
    /// Host.
    pub host: String,
    /// Short form of the host.
    #[serde(skip)]
    #[schemars(skip)]
    pub short: String,
    /// Port, if the route names one.
    pub port: Option<u32>,
    /// Subset, if the route names one.
    pub subset: Option<String>,
    /// Weight as written.
    pub weight: Option<i64>,
    /// Share of the calls in percent.
    pub share: f64,
    /// `ok`, `no-cluster`, `no-endpoints` or `unknown`.
    pub state: &'static str,
    /// Pods behind it.
    pub pods: PodsReport,
}

/// Retries in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RetriesReport {
    /// Retries after the first try; 0 is off.
    pub attempts: u32,
    /// Conditions.
    pub retry_on: Vec<String>,
    /// HTTP status codes that are retried.
    pub status_codes: Vec<u16>,
    /// Limit of one try in milliseconds; 0 is none.
    pub per_try_timeout_ms: u64,
    /// The rule's object, `mesh default` or `istio default`.
    pub owner: String,
}

/// Callers whose view differs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallerClassReport {
    /// Their namespaces.
    pub namespaces: Vec<String>,
    /// Labels of the pods there, when only some are meant: `app=web`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// DestinationRules that they get.
    pub destination_rules: Vec<ObjectReport>,
    /// Their routes, if these differ; absent when they are the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<RuleReport>>,
    /// What differs, in sentences.
    pub differs: Vec<String>,
}

/// What DestinationRules say for a port and subset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PolicyReport {
    /// Port.
    pub port: u16,
    /// Subset; absent for the host as a whole.
    pub subset: Option<String>,
    /// Limits with what they mean.
    pub connection_pool: Vec<String>,
    /// Balancing.
    pub load_balancing: String,
    /// Ejection.
    pub outlier_detection: String,
    /// TLS of callers.
    pub tls: String,
}

/// Pods of one workload that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkloadReport {
    /// Kind and name, such as `deployment checkout`.
    pub name: String,
    /// Value of the label `version`.
    pub version: Option<String>,
    /// Pods.
    pub pods: PodsReport,
    /// What stands beside the application.
    pub proxy: String,
    /// Traffic that goes round the proxy.
    pub exclusions: Vec<String>,
}

/// TLS in force on a pod port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TlsReport {
    /// Pod port.
    pub port: u16,
    /// What the server's proxy accepts.
    pub mode: String,
    /// The PeerAuthentication that says so, or `default`.
    pub decided_by: String,
}

/// A policy that selects the pods.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuthorizationReport {
    /// The policy.
    pub object: ObjectReport,
    /// `ALLOW`, `DENY`, `AUDIT` or `CUSTOM`.
    pub action: String,
    /// Method paths that it names.
    pub paths: Vec<String>,
}

/// A way in from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GatewayReport {
    /// The Gateway.
    pub gateway: ObjectReport,
    /// Whether it is in the source.
    pub known: bool,
    /// Port.
    pub port: u32,
    /// Protocol word of the server.
    pub protocol: String,
    /// What becomes of TLS.
    pub tls: String,
    /// Hosts that clients call.
    pub hosts: Vec<String>,
    /// The route that leads here.
    pub route: ObjectReport,
}

/// What `inspect` was asked for.
#[derive(Debug, Clone, Default)]
pub struct InspectRequest {
    /// Only these Services; empty is an overview.
    pub targets: Vec<ServiceId>,
    /// Only these, in an overview; absent is all.
    pub selected: Option<BTreeSet<ServiceId>>,
    /// Only these namespaces; empty is all.
    pub namespaces: BTreeSet<String>,
    /// Services without signs of gRPC too.
    pub all_services: bool,
}

impl InspectRequest {
    fn in_scope(&self, namespace: &str) -> bool {
        self.namespaces.is_empty() || self.namespaces.contains(namespace)
    }
}

/// Looks at the proxies of a mesh for one Service after the other.
struct LiveReporter<'m> {
    proxies: ProxyComparisons<'m>,
    counted: BTreeMap<String, HostReadings>,
}

impl<'m> LiveReporter<'m> {
    fn new(mesh: &'m Mesh<'m>) -> Option<Self> {
        let counted = readings_by_host(mesh.snapshot.live.as_ref()?);
        Some(Self { proxies: ProxyComparisons::new(mesh)?, counted })
    }

    fn of(&self, mesh: &Mesh<'_>, id: ServiceId) -> LiveServiceReport {
        let service = mesh.service(id);
        let host = service.host.as_str().to_owned();
        let spread = self.counted.get(&host).map(|counted| {
            let (spread, counted) = lately_or_ever(mesh, service, counted);
            DistributionReport::new(mesh, service, &spread, counted)
        });
        let judged = self.proxies.judge_all(&[host]);
        let proxies = judged.into_iter().map(|(id, judged)| DiffProxyReport::new(mesh, id, judged)).collect();
        LiveServiceReport { proxies, spread }
    }
}

/// How many of the proxies in scope stand how; for a Service those of callers anywhere.
fn states(mesh: &Mesh<'_>, outcome: &RulesOutcome, request: &InspectRequest) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for (id, state) in &outcome.proxies {
        let namespace = mesh.workload(*id).namespace();
        if !request.targets.is_empty() || request.in_scope(namespace.as_str()) {
            *counts.entry(state.as_str()).or_default() += 1;
        }
    }
    counts
}

/// Makes the report.
pub fn inspect(mesh: &Mesh<'_>, outcome: &RulesOutcome, request: &InspectRequest) -> InspectReport {
    let mut by_object: HashMap<&ObjectRef, Vec<usize>> = HashMap::new();
    for (index, finding) in outcome.findings.iter().enumerate() {
        for object in finding.objects() {
            by_object.entry(object).or_default().push(index);
        }
    }
    let shown: Vec<ServiceId> = if request.targets.is_empty() {
        mesh.service_ids()
            .filter(|id| {
                let service = mesh.service(*id);
                request.in_scope(service.namespace().as_str())
                    && (request.all_services || service.has_grpc())
                    && request.selected.as_ref().is_none_or(|selected| selected.contains(id))
            })
            .collect()
    } else {
        request.targets.clone()
    };
    // Every proxy would be looked at for every Service: that is for pages only.
    let live = if request.targets.is_empty() { None } else { LiveReporter::new(mesh) };
    let mut wanted: BTreeSet<usize> = BTreeSet::new();
    let mut services = Vec::with_capacity(shown.len());
    for id in shown {
        let related: BTreeSet<usize> = super::page::related(mesh, id)
            .iter()
            .filter_map(|object| by_object.get(object))
            .flatten()
            .copied()
            .collect();
        let mut counts = BTreeMap::new();
        for index in &related {
            *counts.entry(outcome.findings[*index].severity.as_str()).or_insert(0) += 1;
        }
        wanted.extend(related);
        let live = live.as_ref().map(|live| live.of(mesh, id));
        // What keeps a caller from following touches the Service that it calls.
        let callers = live.iter().flat_map(|live| &live.proxies).filter(|one| one.state != ProxyState::InStep.as_str());
        for one in callers {
            let path = format!("{}/{}", one.namespace, one.pod);
            let of_pod = by_object.iter().filter(|(object, _)| object.kind == Kind::Pod && object.path() == path);
            wanted.extend(of_pod.flat_map(|(_, findings)| findings.iter().copied()));
        }
        services.push(ServiceReport { live, ..super::page::service(mesh, id, counts) });
    }
    if request.targets.is_empty() && request.selected.is_none() {
        let in_scope = outcome.findings.iter().enumerate().filter(|(_, finding)| {
            let mut namespaces = finding.objects().map(|object| object.namespace.as_str());
            namespaces.any(|namespace| namespace.is_empty() || request.in_scope(namespace))
        });
        wanted.extend(in_scope.map(|(index, _)| index));
    }
    InspectReport {
        kind: "Inspect",
        version: 1,
        istio_version: mesh.version.to_string(),
        services,
        findings: wanted.into_iter().map(|index| FindingReport::new(mesh, &outcome.findings[index])).collect(),
        ignored: outcome.ignored,
        undecided: outcome.undecided.clone(),
        gaps: mesh.snapshot.gaps.iter().map(GapReport::from).collect(),
        live: mesh
            .snapshot
            .live
            .as_ref()
            .map(|live| LiveReport { asked: live.asked.clone(), proxies: states(mesh, outcome, request) }),
    }
}
