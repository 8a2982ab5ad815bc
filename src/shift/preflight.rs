//! Checks before weights are applied: which proxies are affected, whether their calls will reach pods, and who else
//! manages the object.
//!
//! The input is the mesh as it would be after the patch, and a few facts that the mesh does not contain. The result is a
//! list of typed checks that failed.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::affected::{CallerClassUsage, backend_label, caller_class_usage};
use super::plan::RulePlan;
use super::selection::{RepeatedSplit, repeated_splits};
use crate::mesh::ids::ObjectRef;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{BackendState, CompiledBackend};
use crate::mesh::{self, Mesh};
use crate::schema::Kind;

/// The flag that lets a shift continue despite a failed check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OverrideFlag {
    Force,
    ForceOwner,
}

impl OverrideFlag {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Force => "--force",
            Self::ForceOwner => "--force-owner",
        }
    }
}

/// A failed check.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PreflightCheck {
    /// The patched object cannot be decoded.
    InvalidObject { kind: &'static str },
    /// A finding that the mesh does not have without the shift.
    IntroducesFinding { is_error: bool, text: String },
    /// A finding of the object itself.
    OpenFinding { text: String },
    /// No proxy uses the rule.
    NoAffectedProxy,
    /// The mesh has waypoints, which the model does not cover.
    Waypoints { count: usize },
    /// Callers cannot reach a backend. Only a rising share makes that worse.
    UnreachableBackend { class: String, cluster: String, problem: &'static str, is_rising: bool },
    /// A connection pool limit of a backend that gets more calls.
    PoolLimit { backend: String, max_requests: i64, destination_rule: String },
    /// A hash pins calls to pods.
    ConsistentHash { hash: String },
    /// A share that is much larger than the share of ready pods.
    FewPods { backend: String, percent: String, pods: u64, total: u64 },
    /// A rule of another object splits the same backends.
    RepeatedSplit(RepeatedSplit),
    /// A controller sets the weights.
    Owner { note: String },
    /// Helm manages the object.
    Helm,
    /// A condition of a Gateway API route is not true.
    RouteCondition { condition: String, message: String },
    /// istiod has not seen the last change of a Gateway API route.
    NotObserved,
    /// An autoscaler of a workload that gets more calls.
    Autoscaler { namespace: String, name: String, target: String, max_replicas: String },
}

impl PreflightCheck {
    /// Whether it stops the shift unless its flag is given.
    pub fn is_error(&self) -> bool {
        match self {
            Self::InvalidObject { .. } | Self::NoAffectedProxy | Self::Owner { .. } | Self::RouteCondition { .. } => {
                true
            }
            Self::IntroducesFinding { is_error, .. } => *is_error,
            Self::UnreachableBackend { is_rising, .. } => *is_rising,
            Self::OpenFinding { .. }
            | Self::Waypoints { .. }
            | Self::PoolLimit { .. }
            | Self::ConsistentHash { .. }
            | Self::FewPods { .. }
            | Self::RepeatedSplit(_)
            | Self::Helm
            | Self::NotObserved
            | Self::Autoscaler { .. } => false,
        }
    }

    pub fn override_flag(&self) -> OverrideFlag {
        if matches!(self, Self::Owner { .. }) { OverrideFlag::ForceOwner } else { OverrideFlag::Force }
    }
}

impl fmt::Display for PreflightCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidObject { kind } => write!(f, "the patched object is not a valid {kind}"),
            Self::IntroducesFinding { text, .. } => write!(f, "the shift introduces {text}"),
            Self::OpenFinding { text } => f.write_str(text),
            Self::NoAffectedProxy => f.write_str("no sidecar or gateway uses this rule: the shift would move no calls"),
            Self::Waypoints { count } => write!(
                f,
                "the mesh has {count} waypoints, which may use this rule; shift neither checks them nor waits for them"
            ),
            Self::UnreachableBackend { class, cluster, problem, .. } => {
                write!(f, "for callers in {class} the backend {cluster} {problem}: calls to it fail")
            }
            Self::PoolLimit { backend, max_requests, destination_rule } => write!(
                f,
                "each proxy sends {backend} at most {max_requests} concurrent calls (http2MaxRequests in \
                 {destination_rule}); further calls fail with UNAVAILABLE (UO)"
            ),
            Self::ConsistentHash { hash } => {
                write!(f, "consistent hashing by {hash} pins calls to pods: the weights split hash keys, not calls")
            }
            Self::FewPods { backend, percent, pods, total } => {
                write!(f, "{backend} gets {percent}% of the calls but has {pods} of {total} ready pods")
            }
            Self::RepeatedSplit(split) => write!(f, "{split}"),
            Self::Owner { note } => f.write_str(note),
            Self::Helm => f.write_str("Helm manages this object: the next upgrade overwrites the weights"),
            Self::RouteCondition { condition, message } => {
                write!(f, "condition {condition} of the route is not True: {message}")
            }
            Self::NotObserved => f.write_str("istiod has not observed the last change of the route yet"),
            Self::Autoscaler { namespace, name, target, max_replicas } => write!(
                f,
                "HorizontalPodAutoscaler {namespace}/{name} scales {target} up to {max_replicas} pods: additional calls \
                 may wait until new pods are ready"
            ),
        }
    }
}

/// The first check that stops a shift with these flags.
pub fn blocking_check(checks: &[PreflightCheck], force: bool, force_owner: bool) -> Option<&PreflightCheck> {
    checks.iter().find(|check| {
        let is_overridden = match check.override_flag() {
            OverrideFlag::Force => force,
            OverrideFlag::ForceOwner => force_owner,
        };
        check.is_error() && !is_overridden
    })
}

/// Facts about a shift that the mesh does not contain.
#[derive(Debug, Clone, Default)]
pub struct PreflightFacts {
    /// Controllers that set the weights, each in a sentence.
    pub owners: Vec<String>,
    /// Findings of the mesh before and after the patch, as failed checks.
    pub findings: Vec<PreflightCheck>,
    /// HorizontalPodAutoscalers of the namespaces of rising workloads.
    pub autoscalers: Vec<Value>,
}

/// The result of all checks.
#[derive(Debug, Clone, Default)]
pub struct Preflight {
    /// Failed checks, errors first.
    pub checks: Vec<PreflightCheck>,
    /// All caller classes, affected or not.
    pub classes: Vec<CallerClassUsage>,
}

impl Preflight {
    /// The hosts whose calls the rules route, sorted.
    pub fn hosts(&self) -> Vec<String> {
        let hosts: BTreeSet<&String> = self.classes.iter().flat_map(|class| &class.hosts).collect();
        hosts.into_iter().cloned().collect()
    }
}

/// The namespaces of the workloads that get more calls.
pub fn rising_namespaces(mesh: &Mesh<'_>, classes: &[CallerClassUsage], plans: &[RulePlan]) -> BTreeSet<String> {
    rising_workloads(mesh, classes, plans).into_iter().map(|(namespace, _)| namespace).collect()
}

/// Checks a mesh that contains the patched object. `object` is the object as it is stored now.
pub fn check(
    mesh: &Mesh<'_>,
    target: &ObjectRef,
    object: &Value,
    plans: &[RulePlan],
    classes: Vec<CallerClassUsage>,
    facts: &PreflightFacts,
) -> Preflight {
    let mut checks = facts.findings.clone();
    checks.extend(check_callers(mesh, &classes, plans));
    checks.extend(repeated_splits(mesh, target, plans).into_iter().map(PreflightCheck::RepeatedSplit));
    checks.extend(facts.owners.iter().map(|note| PreflightCheck::Owner { note: note.clone() }));
    if object.pointer("/metadata/labels/app.kubernetes.io~1managed-by").and_then(Value::as_str) == Some("Helm") {
        checks.push(PreflightCheck::Helm);
    }
    checks.extend(check_route_status(target.kind, object));
    checks.extend(check_autoscalers(mesh, &classes, plans, &facts.autoscalers));
    checks.sort_by_key(|check| !check.is_error());
    checks.dedup();
    Preflight { checks, classes }
}

/// The caller classes of the rules of a shift.
pub fn caller_classes(
    mesh: &Mesh<'_>,
    target: &ObjectRef,
    object: &Value,
    plans: &[RulePlan],
) -> Vec<CallerClassUsage> {
    let rules: Vec<usize> = plans.iter().map(|plan| plan.split.rule).collect();
    caller_class_usage(mesh, target, &rules, &route_host(mesh, target, object))
}

/// The full host that an object's rules are for.
fn route_host(mesh: &Mesh<'_>, target: &ObjectRef, object: &Value) -> String {
    if let Some(host) = object.pointer("/spec/hosts/0").and_then(Value::as_str) {
        return mesh::host::to_fqdn(host, &target.namespace, &mesh.cluster_domain).to_string();
    }
    let parents = object.pointer("/spec/parentRefs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let text = |parent: &Value, field: &str| parent.get(field).and_then(Value::as_str).map(str::to_owned);
    let service = parents.iter().find(|parent| text(parent, "kind").as_deref() == Some("Service"));
    let Some((name, parent)) = service.and_then(|parent| Some((text(parent, "name")?, parent))) else {
        return String::new();
    };
    let namespace = text(parent, "namespace").map_or_else(|| target.namespace.clone(), |name| (&*name).into());
    mesh::host::service_host(&name, &namespace, &mesh.cluster_domain).to_string()
}

fn check_callers(mesh: &Mesh<'_>, classes: &[CallerClassUsage], plans: &[RulePlan]) -> Vec<PreflightCheck> {
    let affected: Vec<&CallerClassUsage> = classes.iter().filter(|class| class.uses_rule).collect();
    let mut checks = Vec::new();
    let waypoints = mesh.workloads.iter().filter(|workload| matches!(workload.proxy, ProxyKind::Waypoint(_))).count();
    if waypoints > 0 {
        checks.push(PreflightCheck::Waypoints { count: waypoints });
    }
    if affected.is_empty() {
        checks.push(PreflightCheck::NoAffectedProxy);
    }
    for plan in plans {
        let mut of_rule = affected.iter().filter_map(|class| Some((class, class.backends.get(&plan.split.rule)?)));
        if let Some((_, backends)) = of_rule.clone().next() {
            checks.extend(check_capacity(backends, plan));
        }
        checks.extend(of_rule.by_ref().flat_map(|(class, backends)| check_backends(class, backends, plan)));
    }
    checks
}

/// Whether a plan raises the share of a backend.
fn is_rising(plan: &RulePlan, label: &str) -> Option<bool> {
    let index = plan.backends.iter().position(|planned| planned.backend.label() == label)?;
    Some(plan.is_rising(index))
}

/// Missing clusters and pods, connection pool limits and consistent hashing of a caller's backends.
fn check_backends(class: &CallerClassUsage, backends: &[CompiledBackend], plan: &RulePlan) -> Vec<PreflightCheck> {
    let is_rising = |backend: &CompiledBackend| is_rising(plan, &backend_label(backend)).unwrap_or(true);
    let mut checks = Vec::new();
    for backend in backends {
        let problem = match backend.state {
            BackendState::Ok | BackendState::Unknown => continue,
            BackendState::NoCluster => "does not exist",
            BackendState::NoEndpoints => "has no ready pod",
        };
        let (class, cluster, is_rising) = (class.name.clone(), backend.cluster.clone(), is_rising(backend));
        checks.push(PreflightCheck::UnreachableBackend { class, cluster, problem, is_rising });
    }
    for backend in backends.iter().filter(|backend| is_rising(backend)) {
        let Some(max_requests) = backend.max_requests else { continue };
        let destination_rule = backend.destination_rule.as_ref().map(ToString::to_string).unwrap_or_default();
        checks.push(PreflightCheck::PoolLimit { backend: backend_label(backend), max_requests, destination_rule });
    }
    if let Some(hash) = backends.iter().find_map(|backend| backend.hash_policy.as_ref()) {
        checks.push(PreflightCheck::ConsistentHash { hash: hash.clone() });
    }
    checks
}

/// Compares rising shares with ready pods, where these are known.
fn check_capacity(backends: &[CompiledBackend], plan: &RulePlan) -> Vec<PreflightCheck> {
    let ready_pods: Vec<(String, u64)> = backends
        .iter()
        .filter_map(|backend| Some((backend_label(backend), u64::from(backend.endpoints?.ready))))
        .collect();
    let total: u64 = ready_pods.iter().map(|(_, pods)| pods).sum();
    let mut checks = Vec::new();
    for (index, planned) in plan.backends.iter().enumerate() {
        let backend = planned.backend.label();
        let Some((_, pods)) = ready_pods.iter().find(|(name, _)| *name == backend) else { continue };
        let (share, share_of_pods) = (plan.share_after(index), *pods as f64 / total.max(1) as f64);
        if *pods > 0 && plan.is_rising(index) && share > share_of_pods * 1.5 {
            let percent = format!("{:.0}", share * 100.0);
            checks.push(PreflightCheck::FewPods { backend, percent, pods: *pods, total });
        }
    }
    checks
}

/// Namespace and name of the workloads that get more calls.
fn rising_workloads(mesh: &Mesh<'_>, classes: &[CallerClassUsage], plans: &[RulePlan]) -> BTreeSet<(String, String)> {
    let is_rising = |label: &str| plans.iter().any(|plan| is_rising(plan, label) == Some(true));
    let mut workloads = BTreeSet::new();
    for class in classes.iter().filter(|class| class.uses_rule) {
        for backend in class.backends.values().flatten().filter(|backend| is_rising(&backend_label(backend))) {
            let ids = class.workloads_by_cluster.get(&backend.cluster).into_iter().flatten();
            workloads.extend(ids.map(|id| mesh.workload(*id).telemetry_name()));
        }
    }
    workloads
}

/// Autoscalers of the workloads that get more calls.
fn check_autoscalers(
    mesh: &Mesh<'_>,
    classes: &[CallerClassUsage],
    plans: &[RulePlan],
    autoscalers: &[Value],
) -> Vec<PreflightCheck> {
    let workloads = rising_workloads(mesh, classes, plans);
    let text = |autoscaler: &Value, pointer: &str| {
        autoscaler.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let checks = autoscalers.iter().filter_map(|autoscaler| {
        let namespace = text(autoscaler, "/metadata/namespace");
        let target = text(autoscaler, "/spec/scaleTargetRef/name");
        workloads.contains(&(namespace.clone(), target.clone())).then(|| PreflightCheck::Autoscaler {
            name: text(autoscaler, "/metadata/name"),
            max_replicas: autoscaler.pointer("/spec/maxReplicas").map(ToString::to_string).unwrap_or_default(),
            namespace,
            target,
        })
    });
    checks.collect()
}

/// Conditions that the Gateway API controller reports for the route.
fn check_route_status(kind: Kind, object: &Value) -> Vec<PreflightCheck> {
    if kind == Kind::VirtualService {
        return Vec::new();
    }
    let generation = object.pointer("/metadata/generation").and_then(Value::as_i64);
    let parents = object.pointer("/status/parents").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let conditions = parents.iter().filter_map(|parent| parent.get("conditions")?.as_array()).flatten();
    let text =
        |condition: &Value, field: &str| condition.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut checks = Vec::new();
    for condition in conditions {
        let condition_type = text(condition, "type");
        let observed = condition.get("observedGeneration").and_then(Value::as_i64);
        if matches!(&*condition_type, "Accepted" | "ResolvedRefs") && text(condition, "status") != "True" {
            let message = text(condition, "message");
            checks.push(PreflightCheck::RouteCondition { condition: condition_type, message });
        } else if condition_type == "Accepted" && observed < generation {
            checks.push(PreflightCheck::NotObserved);
        }
    }
    checks
}
