//! Whose calls a rule decides, and whose it does not, and why.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::cohorts::Cohorts;
use crate::mesh::Mesh;
use crate::mesh::ids::{ObjectRef, WorkloadId};
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{BackendState, Caller, CompiledBackend, ProxyConfig, RuleInUse};
use crate::schema::Kind;

/// Callers that nothing tells apart.
#[derive(Debug, Clone)]
pub struct AffectedClass {
    /// Their name, as everywhere.
    pub name: String,
    /// Their pods.
    pub pods: Vec<WorkloadId>,
    /// Whether calls of theirs go by one of the rules.
    pub obeys: bool,
    /// Why they do not; where they do, nothing.
    pub why_not: String,
    /// Hosts under which they use the rules.
    pub hosts: Vec<String>,
    /// Where each rule sends their calls.
    pub backends: BTreeMap<usize, Vec<CompiledBackend>>,
    /// Whether other rules of theirs send to the same clusters.
    pub shares_backends: bool,
    /// Who serves them, by cluster.
    pub servers: BTreeMap<String, Vec<WorkloadId>>,
}

/// What a plan calls a backend: its subset, else the first label of its host.
pub fn label(backend: &CompiledBackend) -> String {
    let host = || backend.host.as_ref().map(|host| host.as_str().split('.').next().unwrap_or_default().to_owned());
    backend.subset.as_ref().map(ToString::to_string).or_else(host).unwrap_or_default()
}

/// All callers with a proxy, against rules of an object that lead to `host`.
pub fn classes(mesh: &Mesh<'_>, object: &ObjectRef, rules: &[usize], host: &str) -> Vec<AffectedClass> {
    let mut members: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    for id in mesh.workload_ids() {
        let workload = mesh.workload(id);
        if workload.object.kind == Kind::Pod && matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::Gateway(_))
        {
            members.entry(Caller::of_workload(mesh, id).class(mesh)).or_default().push(id);
        }
    }
    let made = members.into_iter().filter_map(|(name, pods)| {
        let outbound = ProxyConfig::new(mesh, Caller::of_workload(mesh, *pods.first()?));
        let all = outbound.rules_in_use(&|_| true);
        let is_ours = |one: &&RuleInUse| one.object.as_ref() == Some(object) && rules.contains(&one.rule);
        let ours: Vec<&RuleInUse> = all.iter().filter(is_ours).collect();
        let mut hosts: Vec<String> = ours.iter().map(|one| one.host.clone()).collect();
        hosts.sort();
        hosts.dedup();
        // A rule without ports stands on port 80 too, whether or not the Service has it: what arrives is what counts.
        let arrives = |one: &RuleInUse| one.backends.iter().filter(|one| one.state != BackendState::NoCluster).count();
        let best = |rule: usize| ours.iter().rev().filter(|one| one.rule == rule).max_by_key(|one| arrives(one));
        let backends: BTreeMap<usize, Vec<CompiledBackend>> =
            rules.iter().filter_map(|rule| Some((*rule, best(*rule)?.backends.clone()))).collect();
        let clusters: BTreeSet<&str> = ours.iter().flat_map(|one| &one.backends).map(|one| &*one.cluster).collect();
        let mut others = all.iter().filter(|one| !is_ours(one)).flat_map(|one| &one.backends);
        let shares_backends = others.any(|one| clusters.contains(&*one.cluster));
        let servers =
            backends.values().flatten().map(|one| (one.cluster.clone(), outbound.workloads_behind(one))).collect();
        let why_not = if ours.is_empty() { why_not(&all, object, host) } else { String::new() };
        Some(AffectedClass { name, pods, obeys: !ours.is_empty(), why_not, hosts, backends, shares_backends, servers })
    });
    made.collect()
}

/// Takes in what callers have now. `rises` says whether a backend, by its label, is the canary's.
pub fn update_cohorts(cohorts: &mut Cohorts, mesh: &Mesh<'_>, classes: &[AffectedClass], rises: &dyn Fn(&str) -> bool) {
    cohorts.obeying.clear();
    cohorts.callers.clear();
    cohorts.shared = classes.iter().any(|class| class.obeys && class.shares_backends);
    for class in classes.iter().filter(|class| class.obeys) {
        cohorts.hosts.extend(class.hosts.iter().cloned());
        for id in &class.pods {
            let workload = mesh.workload(*id);
            cohorts.obeying.insert(workload.telemetry_name());
            cohorts.callers.insert((workload.namespace().to_string(), workload.object.name.to_string()));
        }
        for backend in class.backends.values().flatten() {
            let Some(host) = &backend.host else { continue };
            let side = if rises(&label(backend)) { &mut cohorts.canary } else { &mut cohorts.baseline };
            let subset = backend.subset.as_ref().map(ToString::to_string).unwrap_or_default();
            side.destinations.insert((subset, host.to_string()));
            let servers = class.servers.get(&backend.cluster).into_iter().flatten();
            side.workloads.extend(servers.map(|id| mesh.workload(*id).telemetry_name()));
            cohorts.hosts.insert(host.to_string());
        }
    }
}

fn why_not(all: &[RuleInUse], object: &ObjectRef, host: &str) -> String {
    let of_host: Vec<&RuleInUse> = all.iter().filter(|one| one.host == host).collect();
    if of_host.is_empty() {
        return format!("{host} is not among the hosts that it knows");
    }
    let others: Vec<String> = of_host.iter().filter_map(|one| one.object.as_ref()).map(ToString::to_string).collect();
    match others.first() {
        Some(other) if *other == object.to_string() => format!("other rules of {object} take its calls"),
        Some(other) => format!("its calls go by {other}"),
        None => "its calls go by Istio's default route: the object is not exported there, or only meant for gateways"
            .to_owned(),
    }
}
