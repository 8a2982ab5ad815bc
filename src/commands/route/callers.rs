//! Resolves the caller of a call to a proxy, and lists the caller classes that may get different answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cli::failure::Failure;
use crate::mesh::GATEWAY_NAME_LABEL;
use crate::mesh::Mesh;
use crate::mesh::authorization::AuthorizationPolicy;
use crate::mesh::ids::{Labels, Namespace, WorkloadId};
use crate::mesh::service::{Resolution, Service};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::mesh::xds::{Call, CallOutcome, Caller, CallerKind, ProxyConfig, SharedDecisions};
use crate::report::route::{CallerName, RouteReport, caller_name};
use crate::schema::Kind;
use crate::snapshot::SourceKind;
use crate::vocabulary::nearest_name;

/// Rules that do not match, in the answers for all caller classes. All of them are listed for a single caller.
const MAX_TRIED: usize = 20;

/// A caller that `--caller`, a call or a test names.
#[derive(Debug, Clone)]
pub(super) struct NamedCaller {
    pub(super) name: CallerName,
    pub(super) caller: Caller,
    pub(super) class: CallerKey,
}

/// The properties that distinguish callers: kind, namespace, the labels that some object selects by, and the workload if the
/// answer depends on its addresses.
pub(super) type CallerKey = (CallerKind, Namespace, Vec<(String, String)>, Option<WorkloadId>);

/// The callers resolved so far, and one compiled proxy configuration for each class.
pub(super) struct ProxyConfigs<'m> {
    mesh: &'m Mesh<'m>,
    callers: HashMap<String, NamedCaller>,
    by_class: HashMap<CallerKey, ProxyConfig<'m>>,
}

impl<'m> ProxyConfigs<'m> {
    pub(super) fn new(mesh: &'m Mesh<'m>) -> Self {
        Self { mesh, callers: HashMap::new(), by_class: HashMap::new() }
    }

    /// Resolves a caller.
    ///
    /// # Errors
    /// If the mesh has no such caller.
    #[expect(clippy::indexing_slicing, reason = "the caller was just added")]
    pub(super) fn resolve(&mut self, text: &str) -> Result<&NamedCaller, Failure> {
        if !self.callers.contains_key(text) {
            let (name, caller) = parse(self.mesh, text)?;
            let class = self.class_of(&caller);
            self.callers.insert(text.to_owned(), NamedCaller { name, caller, class });
        }
        Ok(&self.callers[text])
    }

    /// Resolves a caller, and returns the proxy configuration of its class.
    ///
    /// # Errors
    /// If the mesh has no such caller.
    #[expect(clippy::indexing_slicing, reason = "the caller was just added")]
    pub(super) fn proxy_of(&mut self, text: &str) -> Result<(&NamedCaller, &ProxyConfig<'m>), Failure> {
        self.resolve(text)?;
        let caller = &self.callers[text];
        let proxy = self
            .by_class
            .entry(caller.class.clone())
            .or_insert_with(|| ProxyConfig::new(self.mesh, caller.caller.clone()));
        Ok((caller, proxy))
    }

    fn class_of(&self, caller: &Caller) -> CallerKey {
        let has_pod_addresses =
            |service: &Service| matches!(&service.resolution, Resolution::Headless | Resolution::ServiceEntry(_));
        let depends_on_pod = |id: &WorkloadId| {
            caller.kind == CallerKind::Gateway || self.mesh.services_selecting(*id).any(has_pod_addresses)
        };
        let labels = selected_labels(&caller.labels, self.mesh.caller_label_keys());
        (caller.kind, caller.namespace.clone(), labels, caller.workload.filter(depends_on_pod))
    }
}

/// Parses `NS/POD`, `NS/deploy/NAME`, `NS`, `gateway/NS/POD` or `gateway/NS/NAME`.
fn parse(mesh: &Mesh<'_>, text: &str) -> Result<(CallerName, Caller), Failure> {
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["gateway", namespace, name] => {
            let id = gateway_pod(mesh, namespace, name)
                .ok_or_else(|| not_found(mesh, text, &format!("gateway {namespace}/{name} has no pods")))?;
            let path = mesh.workload(id).object.path();
            let caller = Caller { kind: CallerKind::Gateway, ..Caller::of_workload(mesh, id) };
            Ok((caller_name(CallerKind::Gateway, &path), caller))
        }
        [namespace] if !namespace.is_empty() => {
            let namespaces = || mesh.snapshot.of_kind(Kind::Namespace).map(|object| &*object.key.name);
            // Manifests often omit Namespace objects.
            let has_all_namespaces = mesh.snapshot.source != SourceKind::Manifests && namespaces().next().is_some();
            if has_all_namespaces && namespaces().all(|name| name != *namespace) {
                let hint = match workloads(mesh).find(|(_, workload)| *workload.object.name == **namespace) {
                    Some((_, pod)) => format!("for the pod of that name, use --caller {}", pod.object.path()),
                    None => match nearest_name::nearest(namespace, namespaces()) {
                        Some(nearest) => format!("did you mean {nearest}?"),
                        None => CALLER_FORMS.to_owned(),
                    },
                };
                return Err(Failure::unavailable(format!("namespace {namespace} not found")).hint(hint));
            }
            let caller = Caller::in_namespace(Namespace::from(*namespace));
            Ok((CallerName((*namespace).to_owned()), caller))
        }
        [namespace, pod] => {
            let id = find_workload(mesh, namespace, |workload| *workload.object.name == **pod)
                .ok_or_else(|| not_found(mesh, text, &format!("pod {pod} not found in namespace {namespace}")))?;
            let caller = Caller::of_workload(mesh, id);
            Ok((caller_name(caller.kind, text), caller))
        }
        [namespace, kind, name] => {
            let kind = workload_kind(kind).ok_or_else(|| {
                Failure::unavailable(format!("\"{kind}\" is not a workload kind"))
                    .hint("use one of deploy, sts, ds, job, rollout, pod")
            })?;
            let is_owned = |workload: &Workload| match &workload.owner {
                Some((owner_kind, owner)) => **owner_kind == *kind && **owner == **name,
                None => workload.object.kind.name() == kind && *workload.object.name == **name,
            };
            let id = find_workload(mesh, namespace, is_owned).ok_or_else(|| {
                not_found(mesh, text, &format!("{kind} {namespace}/{name} not found or without pods"))
            })?;
            let caller = Caller::of_workload(mesh, id);
            Ok((caller_name(caller.kind, text), caller))
        }
        _ => Err(Failure::unavailable(format!("\"{text}\" is not a valid caller")).hint(CALLER_FORMS)),
    }
}

const CALLER_FORMS: &str = "use NS/POD, NS/deploy/NAME, NS, gateway/NS/POD or gateway/NS/NAME";

/// A caller that does not exist; the hint lists the callers with the nearest names, in the form of `requested`.
fn not_found(mesh: &Mesh<'_>, requested: &str, message: &str) -> Failure {
    let by_owner = requested.split('/').count() == 3 && !requested.starts_with("gateway/");
    let name = |workload: &Workload| {
        if requested.starts_with("gateway/") {
            let is_gateway = matches!(workload.proxy, ProxyKind::Gateway(_));
            return is_gateway.then(|| format!("gateway/{}", workload.object.path()));
        }
        match &workload.owner {
            Some((kind, owner)) if by_owner => {
                Some(format!("{}/{}/{owner}", workload.namespace(), kind.to_lowercase()))
            }
            _ => Some(workload.object.path()),
        }
    };
    let meshed = mesh.workloads.iter().filter(|workload| workload.proxy.is_meshed() != Some(false));
    let names: BTreeSet<String> = meshed.filter_map(name).collect();
    let nearest = nearest_name::closest(requested, names.iter().map(String::as_str), 3);
    let failure = Failure::unavailable(message);
    if nearest.is_empty() {
        failure.hint("the source contains no such pods: use a namespace as the caller")
    } else {
        failure.hint(format!("callers with similar names: {}", nearest.join(", ")))
    }
}

fn workload_kind(name: &str) -> Option<&'static str> {
    let kind = Kind::parse(name)?;
    let has_pods =
        matches!(kind, Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet | Kind::Job | Kind::Rollout | Kind::Pod);
    has_pods.then(|| kind.name())
}

fn find_workload(mesh: &Mesh<'_>, namespace: &str, predicate: impl Fn(&Workload) -> bool) -> Option<WorkloadId> {
    let mut workloads = workloads(mesh);
    workloads.find(|(_, workload)| workload.namespace().as_str() == namespace && predicate(workload)).map(|(id, _)| id)
}

fn workloads<'a>(mesh: &'a Mesh<'_>) -> impl Iterator<Item = (WorkloadId, &'a Workload)> {
    mesh.workload_ids().map(|id| (id, mesh.workload(id)))
}

/// A pod of a gateway, found by the name of the pod, its workload, the Gateway that selects it, or its Service.
fn gateway_pod(mesh: &Mesh<'_>, namespace: &str, name: &str) -> Option<WorkloadId> {
    let has_name = |workload: &Workload| {
        *workload.object.name == *name || workload.owner.as_ref().is_some_and(|(_, owner)| **owner == *name)
    };
    let has_label = |workload: &Workload| workload.labels.get(GATEWAY_NAME_LABEL) == Some(name);
    let selected = mesh
        .find_istio_gateway(&Namespace::from(namespace), name)
        .and_then(|gateway| gateway.workloads.first().copied());
    let of_service = || {
        let id = mesh.find_service(namespace, name)?;
        mesh.service(id).workloads.first().copied()
    };
    find_workload(mesh, namespace, has_name)
        .or_else(|| find_workload(mesh, namespace, has_label))
        .or(selected)
        .or_else(of_service)
}

/// One report for each caller class with a different answer. Each report lists its callers.
///
/// ServiceAccounts are listed separately only where an answer depends on them.
pub(super) fn report_by_class<'m>(mesh: &'m Mesh<'m>, call: &Call) -> Vec<(RouteReport, Caller)> {
    let mut decisions = SharedDecisions::new(mesh, call);
    let mut reports = DistinctReports::default();
    for CallerGroup { name, members } in representatives(mesh) {
        let mut answers: Vec<(CallerName, RouteReport, Caller)> = Vec::new();
        for (account, caller) in members {
            let mut answer = RouteReport::new(mesh, &caller, &name, call, &decisions.decide(&caller));
            answer.limit_tried(MAX_TRIED);
            // A gateway sends no calls to a host that it does not serve.
            let serves_host = !matches!(answer.outcome, CallOutcome::Closed | CallOutcome::NoRoute | CallOutcome::Tcp);
            if caller.kind == CallerKind::Gateway && !serves_host {
                continue;
            }
            answers.push((CallerName(format!("{} (ServiceAccount {account})", name.0)), answer, caller));
        }
        let is_same = answers.iter().all(|(_, answer, _)| answers.first().is_some_and(|(_, first, _)| first == answer));
        if is_same {
            answers.truncate(1);
        }
        for (own_name, answer, caller) in answers {
            let name = if is_same { name.clone() } else { own_name };
            reports.add(name, answer, caller);
        }
    }
    reports.reports
}

/// Reports with different answers. Each lists its callers.
#[derive(Default)]
struct DistinctReports {
    reports: Vec<(RouteReport, Caller)>,
    /// Positions of the reports by their text without callers.
    positions: HashMap<String, usize>,
}

impl DistinctReports {
    /// Adds an answer, or its caller to the report with the same answer.
    fn add(&mut self, name: CallerName, mut answer: RouteReport, caller: Caller) {
        answer.caller.clear();
        answer.callers.clear();
        let Ok(text) = serde_json::to_string(&answer) else { return };
        let position = *self.positions.entry(text).or_insert(self.reports.len());
        match self.reports.get_mut(position) {
            Some((report, _)) => report.callers.push(name.0),
            None => {
                answer.caller.clone_from(&name.0);
                answer.callers = vec![name.0];
                self.reports.push((answer, caller));
            }
        }
    }
}

/// Callers that no object but an AuthorizationPolicy tells apart, one for each ServiceAccount.
struct CallerGroup {
    name: CallerName,
    members: Vec<(String, Caller)>,
}

/// A group for each namespace with meshed pods and each set of labels that some object selects by, one for the ambient pods
/// of each namespace, and the gateways.
fn representatives(mesh: &Mesh<'_>) -> Vec<CallerGroup> {
    type SidecarKey = (Namespace, Vec<(String, String)>);
    let keys = mesh.caller_label_keys();
    let reads_accounts = mesh.security_policies.all_policies().any(AuthorizationPolicy::is_enforced);
    let mut sidecars: BTreeMap<SidecarKey, BTreeMap<String, WorkloadId>> = BTreeMap::new();
    let mut ambient: BTreeMap<Namespace, BTreeMap<String, WorkloadId>> = BTreeMap::new();
    let mut gateways: BTreeMap<(Namespace, String), WorkloadId> = BTreeMap::new();
    let account_of = |workload: &Workload| {
        workload.service_account.as_deref().filter(|_| reads_accounts).unwrap_or_default().to_owned()
    };
    for (id, workload) in workloads(mesh) {
        let namespace = workload.namespace().clone();
        match workload.proxy {
            ProxyKind::Gateway(_) => {
                gateways.entry((namespace, workload.title())).or_insert(id);
            }
            ProxyKind::Ambient => {
                ambient.entry(namespace).or_default().entry(account_of(workload)).or_insert(id);
            }
            _ if workload.proxy.is_meshed() == Some(false) || workload.object.kind == Kind::WorkloadEntry => {}
            _ => {
                let group = sidecars.entry((namespace, selected_labels(&workload.labels, keys))).or_default();
                group.entry(account_of(workload)).or_insert(id);
            }
        }
    }
    let group = |name, members: BTreeMap<String, WorkloadId>| {
        let members = members.into_iter().map(|(account, id)| (account, Caller::of_workload(mesh, id))).collect();
        CallerGroup { name: CallerName(name), members }
    };
    let mut callers = Vec::new();
    for ((namespace, labels), members) in sidecars {
        let pairs: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = if pairs.is_empty() { namespace.to_string() } else { format!("{namespace} ({})", pairs.join(",")) };
        callers.push(group(name, members));
    }
    callers.extend(ambient.into_iter().map(|(namespace, members)| group(format!("{namespace} (ambient)"), members)));
    let single = |name, caller| CallerGroup { name, members: vec![(String::new(), caller)] };
    if callers.is_empty() {
        // Without pods, the namespaces of the Services represent the callers.
        let namespaces: BTreeSet<&Namespace> = mesh.services.iter().map(Service::namespace).collect();
        callers.extend(
            namespaces
                .into_iter()
                .map(|namespace| single(CallerName(namespace.to_string()), Caller::in_namespace(namespace.clone()))),
        );
    }
    callers.extend(gateways.values().map(|id| {
        let path = mesh.workload(*id).object.path();
        single(caller_name(CallerKind::Gateway, &path), Caller::of_workload(mesh, *id))
    }));
    callers
}

/// The labels with keys that some object selects by.
fn selected_labels(labels: &Labels, keys: &BTreeSet<String>) -> Vec<(String, String)> {
    let selected = keys.iter().filter_map(|key| labels.get(key).map(|value| (key.clone(), value.to_owned())));
    selected.collect()
}
