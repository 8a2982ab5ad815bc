//! Checks before weights are applied: which proxies are affected, whether their calls will reach pods, who else manages
//! the object, and what the API server says to the exact patch.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ShiftArgs;
use super::target::{ShiftTarget, repeated_splits};
use crate::cli::failure::Failure;
use crate::cluster::client::ApiServer;
use crate::compare::weight_owner_notes;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::{BackendState, CompiledBackend};
use crate::mesh::{self, Mesh, ResolveOptions};
use crate::rules::{self, Finding, Severity};
use crate::schema::Kind;
use crate::shift::affected::{CallerClassUsage, backend_label, caller_class_usage};
use crate::shift::plan::RulePlan;
use crate::snapshot::{Object, Snapshot};

/// The flag that lets a shift continue despite a failed check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OverrideFlag {
    Force,
    ForceOwner,
}

impl OverrideFlag {
    fn as_str(self) -> &'static str {
        match self {
            Self::Force => "--force",
            Self::ForceOwner => "--force-owner",
        }
    }

    fn is_given(self, arguments: &ShiftArgs) -> bool {
        match self {
            Self::Force => arguments.force,
            Self::ForceOwner => arguments.force_owner,
        }
    }
}

/// A failed check. An error stops the shift unless its flag is given; a warning does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PreflightCheck {
    pub(super) severity: Severity,
    pub(super) text: String,
    override_flag: OverrideFlag,
}

impl PreflightCheck {
    fn error(text: impl Into<String>, override_flag: OverrideFlag) -> Self {
        Self { severity: Severity::Error, text: text.into(), override_flag }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, text: text.into(), override_flag: OverrideFlag::Force }
    }
}

/// The result of all checks.
#[derive(Debug, Default)]
pub(super) struct Preflight {
    /// Failed checks, worst first.
    pub(super) checks: Vec<PreflightCheck>,
    /// All caller classes, affected or not.
    pub(super) classes: Vec<CallerClassUsage>,
}

impl Preflight {
    /// Fails if a check failed that no flag overrides.
    pub(super) fn ensure_passed(&self, arguments: &ShiftArgs) -> Result<(), Failure> {
        let blocking = self
            .checks
            .iter()
            .find(|check| check.severity == Severity::Error && !check.override_flag.is_given(arguments));
        match blocking {
            Some(check) => Err(Failure::unavailable("cannot shift: a preflight check failed")
                .hint(format!("nothing was applied; to continue anyway: {}", check.override_flag.as_str()))),
            None => Ok(()),
        }
    }
}

/// Checks the mesh before and after the patch. `after` is the object as the API server would store it; the snapshot
/// holds it afterwards.
pub(super) fn run_checks(
    snapshot: &mut Snapshot,
    options: &ResolveOptions,
    target: &ShiftTarget,
    object: &Value,
    after: &Value,
    plans: &[RulePlan],
) -> Preflight {
    let mut preflight = Preflight::default();
    let findings = |snapshot: &Snapshot| -> Vec<Finding> {
        let mesh = mesh::resolve(snapshot, options);
        rules::run(&mesh, &rules::select::FindingSelection::default()).findings
    };
    let findings_before = findings(snapshot);
    if replace_object(snapshot, target, after).is_none() {
        let text = format!("the patched object is not a valid {}", target.key.kind.name());
        preflight.checks.push(PreflightCheck::error(text, OverrideFlag::Force));
        return preflight;
    }
    let findings_after = findings(snapshot);
    preflight.checks.extend(check_findings(target, &findings_before, &findings_after));
    let mesh = mesh::resolve(snapshot, options);
    let rules: Vec<usize> = plans.iter().map(|plan| plan.split.rule).collect();
    preflight.classes = caller_class_usage(&mesh, &target.object_ref(), &rules, &route_host(&mesh, target, object));
    check_callers(&mesh, &mut preflight, plans);
    preflight.checks.extend(repeated_splits(&mesh, target, plans).into_iter().map(PreflightCheck::warning));
    let owners = weight_owner_notes(object);
    preflight.checks.extend(owners.into_iter().map(|text| PreflightCheck::error(text, OverrideFlag::ForceOwner)));
    preflight.checks.extend(check_helm(object));
    preflight.checks.extend(check_route_status(target.key.kind, object));
    preflight.checks.sort_by_key(|check| check.severity);
    preflight.checks.dedup();
    preflight
}

/// New findings anywhere, and open findings of the object itself.
fn check_findings(target: &ShiftTarget, before: &[Finding], after: &[Finding]) -> Vec<PreflightCheck> {
    let mut checks = Vec::new();
    for finding in after.iter().filter(|finding| finding.severity != Severity::Info) {
        let text = format!("{} {}: {}", finding.code, finding.object, finding.message);
        let is_same =
            |old: &Finding| (old.code, &old.object, &old.field) == (finding.code, &finding.object, &finding.field);
        let is_new = !before.iter().any(is_same);
        match (is_new, finding.severity) {
            (true, Severity::Error) => {
                checks.push(PreflightCheck::error(format!("the shift introduces {text}"), OverrideFlag::Force));
            }
            (true, _) => checks.push(PreflightCheck::warning(format!("the shift introduces {text}"))),
            (false, _) if finding.object == target.object_ref() => checks.push(PreflightCheck::warning(text)),
            (false, _) => {}
        }
    }
    checks
}

/// The full host that an object's rules are for.
fn route_host(mesh: &Mesh<'_>, target: &ShiftTarget, object: &Value) -> String {
    let own_namespace = &*target.key.namespace;
    if let Some(host) = object["spec"]["hosts"][0].as_str() {
        return mesh::host::to_fqdn(host, &own_namespace.into(), &mesh.cluster_domain).to_string();
    }
    let parents = object["spec"]["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let service = parents.iter().find(|parent| parent["kind"] == "Service");
    let name = service
        .and_then(|parent| Some((parent["name"].as_str()?, parent["namespace"].as_str().unwrap_or(own_namespace))));
    let full_host = |(name, namespace): (&str, &str)| {
        mesh::host::service_host(name, &namespace.into(), &mesh.cluster_domain).to_string()
    };
    name.map(full_host).unwrap_or_default()
}

/// Replaces the target in a snapshot; `None` if the object cannot be decoded.
pub(super) fn replace_object(snapshot: &mut Snapshot, target: &ShiftTarget, object: &Value) -> Option<()> {
    let body = serde_json::value::to_raw_value(object).ok()?;
    let object =
        Object::new(target.key.kind, &target.api_version, &target.key.namespace, &target.key.name, &body).ok()?;
    snapshot.insert(object);
    Some(())
}

fn check_callers(mesh: &Mesh<'_>, preflight: &mut Preflight, plans: &[RulePlan]) {
    let affected: Vec<&CallerClassUsage> = preflight.classes.iter().filter(|class| class.uses_rule).collect();
    let mut checks = Vec::new();
    let waypoints = mesh.workloads.iter().filter(|workload| matches!(workload.proxy, ProxyKind::Waypoint(_))).count();
    if waypoints > 0 {
        checks.push(PreflightCheck::warning(format!(
            "the mesh has {waypoints} waypoints, which may use this rule; shift neither checks them nor waits for them"
        )));
    }
    if affected.is_empty() {
        checks.push(PreflightCheck::error(
            "no sidecar or gateway uses this rule: the shift would move no calls",
            OverrideFlag::Force,
        ));
    }
    for plan in plans {
        for class in &affected {
            if let Some(backends) = class.backends.get(&plan.split.rule) {
                checks.extend(check_backends(class, backends, plan));
            }
        }
        if let Some(backends) = affected.first().and_then(|class| class.backends.get(&plan.split.rule)) {
            checks.extend(check_capacity(backends, plan));
        }
    }
    preflight.checks.extend(checks);
}

/// Missing clusters and pods, connection pool limits and consistent hashing of a caller's backends.
fn check_backends(class: &CallerClassUsage, backends: &[CompiledBackend], plan: &RulePlan) -> Vec<PreflightCheck> {
    let is_rising = |label: &str| {
        let index = plan.backends.iter().position(|planned| planned.backend.label() == label);
        index.is_none_or(|index| plan.is_rising(index))
    };
    let mut checks = Vec::new();
    for backend in backends {
        let problem = match backend.state {
            BackendState::Ok | BackendState::Unknown => continue,
            BackendState::NoCluster => "does not exist",
            BackendState::NoEndpoints => "has no ready pod",
        };
        let text = format!("for callers in {} the backend {} {problem}: calls to it fail", class.name, backend.cluster);
        // A smaller share for a backend that is down is an improvement.
        let check = if is_rising(&backend_label(backend)) {
            PreflightCheck::error(text, OverrideFlag::Force)
        } else {
            PreflightCheck::warning(text)
        };
        checks.push(check);
    }
    for backend in backends.iter().filter(|backend| is_rising(&backend_label(backend))) {
        let Some(max_requests) = backend.max_requests else { continue };
        let rule = backend.destination_rule.as_ref().map(ToString::to_string).unwrap_or_default();
        checks.push(PreflightCheck::warning(format!(
            "each proxy sends {} at most {max_requests} concurrent calls (http2MaxRequests in {rule}); further calls fail with UNAVAILABLE (UO)",
            backend_label(backend)
        )));
    }
    if let Some(hash) = backends.iter().find_map(|backend| backend.hash_policy.as_ref()) {
        checks.push(PreflightCheck::warning(format!(
            "consistent hashing by {hash} pins calls to pods: the weights split hash keys, not calls"
        )));
    }
    checks
}

/// Compares rising shares with ready pods, where these are known.
fn check_capacity(backends: &[CompiledBackend], plan: &RulePlan) -> Vec<PreflightCheck> {
    let ready_pods =
        backends.iter().filter_map(|backend| Some((backend_label(backend), u64::from(backend.endpoints?.ready))));
    let ready_pods: Vec<(String, u64)> = ready_pods.collect();
    let total: u64 = ready_pods.iter().map(|(_, pods)| pods).sum();
    let mut checks = Vec::new();
    for (index, planned) in plan.backends.iter().enumerate() {
        let label = planned.backend.label();
        let Some((_, pods)) = ready_pods.iter().find(|(name, _)| *name == label) else { continue };
        let (share, share_of_pods) = (plan.share_after(index), *pods as f64 / total.max(1) as f64);
        if *pods > 0 && plan.is_rising(index) && share > share_of_pods * 1.5 {
            let percent = share * 100.0;
            checks.push(PreflightCheck::warning(format!(
                "{label} gets {percent:.0}% of the calls but has {pods} of {total} ready pods"
            )));
        }
    }
    checks
}

/// Autoscalers of the workloads that get more calls. Skipped without permission to list them.
pub(super) async fn check_autoscalers(
    server: &ApiServer,
    mesh: &Mesh<'_>,
    preflight: &Preflight,
    plans: &[RulePlan],
) -> Vec<PreflightCheck> {
    let is_rising = |label: &str| {
        plans.iter().any(|plan| {
            let index = plan.backends.iter().position(|planned| planned.backend.label() == label);
            index.is_some_and(|index| plan.is_rising(index))
        })
    };
    let mut workloads = BTreeSet::new();
    for class in preflight.classes.iter().filter(|class| class.uses_rule) {
        for backend in class.backends.values().flatten().filter(|backend| is_rising(&backend_label(backend))) {
            let ids = class.workloads_by_cluster.get(&backend.cluster).into_iter().flatten();
            workloads.extend(ids.map(|id| mesh.workload(*id).telemetry_name()));
        }
    }
    let namespaces: BTreeSet<&String> = workloads.iter().map(|(namespace, _)| namespace).collect();
    let mut checks = Vec::new();
    for namespace in namespaces {
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        let Ok(text) = server.get(&path, server.timeout).await else { continue };
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        for autoscaler in list["items"].as_array().into_iter().flatten() {
            let (name, spec) = (autoscaler["metadata"]["name"].as_str().unwrap_or_default(), &autoscaler["spec"]);
            let target = spec["scaleTargetRef"]["name"].as_str().unwrap_or_default();
            if workloads.contains(&(namespace.clone(), target.to_owned())) {
                checks.push(PreflightCheck::warning(format!(
                    "HorizontalPodAutoscaler {namespace}/{name} scales {target} up to {} pods: additional calls may wait \
                     until new pods are ready",
                    spec["maxReplicas"]
                )));
            }
        }
    }
    checks
}

fn check_helm(object: &Value) -> Option<PreflightCheck> {
    let is_managed = object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm";
    is_managed.then(|| PreflightCheck::warning("Helm manages this object: the next upgrade overwrites the weights"))
}

/// Conditions that the Gateway API controller reports for the route.
fn check_route_status(kind: Kind, object: &Value) -> Vec<PreflightCheck> {
    if kind == Kind::VirtualService {
        return Vec::new();
    }
    let generation = object["metadata"]["generation"].as_i64();
    let parents = object["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let conditions = parents.iter().flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    let mut checks = Vec::new();
    for condition in conditions {
        let condition_type = condition["type"].as_str().unwrap_or_default();
        if matches!(condition_type, "Accepted" | "ResolvedRefs") && condition["status"] != "True" {
            let message = condition["message"].as_str().unwrap_or_default();
            let text = format!("condition {condition_type} of the route is not True: {message}");
            checks.push(PreflightCheck::error(text, OverrideFlag::Force));
        } else if condition_type == "Accepted" && condition["observedGeneration"].as_i64() < generation {
            checks.push(PreflightCheck::warning("istiod has not observed the last change of the route yet"));
        }
    }
    checks
}
