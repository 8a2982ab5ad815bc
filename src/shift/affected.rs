//! Which callers use the rules of a route object, and why the others do not.

use std::collections::{BTreeMap, BTreeSet};

use crate::analysis::cohorts::Cohorts;
use crate::mesh::Mesh;
use crate::mesh::ids::{ObjectRef, WorkloadId};
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{BackendState, Caller, CompiledBackend, ProxyConfig, RuleInUse};
use crate::schema::Kind;

/// A caller class and its use of the rules.
#[derive(Debug, Clone)]
pub struct CallerClassUsage {
    /// Name of the class.
    pub name: String,
    pub pods: Vec<WorkloadId>,
    /// Whether some of its calls match one of the rules.
    pub uses_rule: bool,
    /// Why it uses none of the rules; empty if it does.
    pub unaffected_reason: String,
    /// Hosts whose calls use the rules.
    pub hosts: Vec<String>,
    /// Backends of each rule, as this caller has them.
    pub backends: BTreeMap<usize, Vec<CompiledBackend>>,
    /// Whether other rules of this caller send calls to the same clusters.
    pub shares_backends: bool,
    /// Workloads of each cluster.
    pub workloads_by_cluster: BTreeMap<String, Vec<WorkloadId>>,
}

/// The name of a backend in plans: its subset, else the first label of its host.
pub fn backend_label(backend: &CompiledBackend) -> String {
    let host = || backend.host.as_ref().map(|host| host.as_str().split('.').next().unwrap_or_default().to_owned());
    backend.subset.as_ref().map(ToString::to_string).or_else(host).unwrap_or_default()
}

/// All caller classes with a proxy, and their use of some rules (by index) of an object. `host` only serves to explain
/// why a class is unaffected.
pub fn caller_class_usage(mesh: &Mesh<'_>, object: &ObjectRef, rules: &[usize], host: &str) -> Vec<CallerClassUsage> {
    let mut members: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    for id in mesh.workload_ids() {
        let workload = mesh.workload(id);
        if workload.object.kind == Kind::Pod && matches!(workload.proxy, ProxyKind::Sidecar(_) | ProxyKind::Gateway(_))
        {
            members.entry(Caller::of_workload(mesh, id).class_name(mesh)).or_default().push(id);
        }
    }
    let classes = members.into_iter().filter_map(|(name, pods)| {
        let proxy = ProxyConfig::new(mesh, Caller::of_workload(mesh, *pods.first()?));
        Some(class_usage(&proxy, name, pods, object, rules, host))
    });
    classes.collect()
}

fn class_usage(
    proxy: &ProxyConfig<'_>,
    name: String,
    pods: Vec<WorkloadId>,
    object: &ObjectRef,
    rules: &[usize],
    host: &str,
) -> CallerClassUsage {
    let all = proxy.rules_in_use(&|_| true);
    let is_ours = |used: &&RuleInUse| used.object.as_ref() == Some(object) && rules.contains(&used.rule);
    let ours: Vec<&RuleInUse> = all.iter().filter(is_ours).collect();
    let mut hosts: Vec<String> = ours.iter().map(|used| used.host.clone()).collect();
    hosts.sort();
    hosts.dedup();
    // A rule without a port also appears on port 80, even if the Service has no such port. Of several copies of a rule
    // the one with the most existing clusters is real.
    let existing_clusters =
        |used: &RuleInUse| used.backends.iter().filter(|backend| backend.state != BackendState::NoCluster).count();
    let best =
        |rule: usize| ours.iter().rev().filter(|used| used.rule == rule).max_by_key(|used| existing_clusters(used));
    let backends: BTreeMap<usize, Vec<CompiledBackend>> =
        rules.iter().filter_map(|rule| Some((*rule, best(*rule)?.backends.clone()))).collect();
    let clusters: BTreeSet<&str> =
        ours.iter().flat_map(|used| &used.backends).map(|backend| &*backend.cluster).collect();
    let mut others = all.iter().filter(|used| !is_ours(used)).flat_map(|used| &used.backends);
    let shares_backends = others.any(|backend| clusters.contains(&*backend.cluster));
    let workloads_by_cluster = backends
        .values()
        .flatten()
        .map(|backend| (backend.cluster.clone(), proxy.backend_workloads(backend)))
        .collect();
    let unaffected_reason = if ours.is_empty() { unaffected_reason(&all, object, host) } else { String::new() };
    let uses_rule = !ours.is_empty();
    CallerClassUsage {
        name,
        pods,
        uses_rule,
        unaffected_reason,
        hosts,
        backends,
        shares_backends,
        workloads_by_cluster,
    }
}

/// Updates the cohorts from the current caller classes. `is_canary` decides by the label of a backend.
pub fn update_cohorts(
    cohorts: &mut Cohorts,
    mesh: &Mesh<'_>,
    classes: &[CallerClassUsage],
    is_canary: &dyn Fn(&str) -> bool,
) {
    cohorts.affected_workloads.clear();
    cohorts.caller_pods.clear();
    cohorts.has_shared_backends = classes.iter().any(|class| class.uses_rule && class.shares_backends);
    for class in classes.iter().filter(|class| class.uses_rule) {
        cohorts.hosts.extend(class.hosts.iter().cloned());
        for id in &class.pods {
            let workload = mesh.workload(*id);
            cohorts.affected_workloads.insert(workload.telemetry_name());
            cohorts.caller_pods.insert((workload.namespace().to_string(), workload.object.name.to_string()));
        }
        for backend in class.backends.values().flatten() {
            let Some(host) = &backend.host else { continue };
            let is_canary = is_canary(&backend_label(backend));
            let cohort = if is_canary { &mut cohorts.canary } else { &mut cohorts.baseline };
            let subset = backend.subset.as_ref().map(ToString::to_string).unwrap_or_default();
            cohort.destinations.insert((subset, host.to_string()));
            let workloads = class.workloads_by_cluster.get(&backend.cluster).into_iter().flatten();
            cohort.workloads.extend(workloads.map(|id| mesh.workload(*id).telemetry_name()));
            cohorts.hosts.insert(host.to_string());
        }
    }
}

fn unaffected_reason(all: &[RuleInUse], object: &ObjectRef, host: &str) -> String {
    let of_host: Vec<&RuleInUse> = all.iter().filter(|used| used.host == host).collect();
    if of_host.is_empty() {
        return format!("its proxy has no routes for {host}");
    }
    let others: Vec<String> = of_host.iter().filter_map(|used| used.object.as_ref()).map(ToString::to_string).collect();
    match others.first() {
        Some(other) if *other == object.to_string() => format!("its calls match other rules of {object}"),
        Some(other) => format!("its calls are routed by {other}"),
        None => {
            "its calls use Istio's default route: the object is not exported to its namespace, or applies to gateways only"
                .to_owned()
        }
    }
}
