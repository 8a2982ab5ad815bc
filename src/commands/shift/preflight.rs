//! What is looked at before anything is written: whose calls the rule decides, whether they will arrive, who else
//! writes the object, and what the server says to the very patch.

use std::collections::BTreeSet;

use serde_json::Value;

use super::target::{ShiftTarget, repeated};
use crate::cluster::client::ApiServer;
use crate::compare::controllers;
use crate::mesh::workload::ProxyKind;
use crate::mesh::xds::BackendState;
use crate::mesh::{self, Mesh, ResolveOptions};
use crate::rules::{self, Finding, Severity};
use crate::schema::Kind;
use crate::shift::affected::{AffectedClass, classes, label};
use crate::shift::plan::RulePlan;
use crate::snapshot::{Object, Snapshot};

/// Something that speaks against a shift, or for looking twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PreflightCheck {
    /// An error stops, unless a flag says otherwise.
    pub(super) severity: Severity,
    pub(super) text: String,
    /// The flag that lets the shift go on all the same.
    pub(super) flag: Option<&'static str>,
}

impl PreflightCheck {
    fn error(text: impl Into<String>, flag: &'static str) -> Self {
        Self { severity: Severity::Error, text: text.into(), flag: Some(flag) }
    }

    fn warning(text: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, text: text.into(), flag: None }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Preflight {
    pub(super) checks: Vec<PreflightCheck>,
    /// All callers, those that obey and those that do not.
    pub(super) classes: Vec<AffectedClass>,
}

/// Looks at the mesh as it is and as it will be: `after` is the object as the server would store it.
pub(super) fn look(
    snapshot: &mut Snapshot,
    options: &ResolveOptions,
    target: &ShiftTarget,
    object: &Value,
    after: &Value,
    plans: &[RulePlan],
) -> Preflight {
    let mut found = Preflight::default();
    let findings = |snapshot: &Snapshot| -> Vec<Finding> {
        let mesh = mesh::resolve(snapshot, options);
        rules::run(&mesh, &rules::select::FindingSelection::default()).findings
    };
    let before = findings(snapshot);
    if replace(snapshot, target, after).is_none() {
        found.checks.push(PreflightCheck::error("the object would not be one of its kind any more", "--force"));
        return found;
    }
    let now = findings(snapshot);
    for one in now.iter().filter(|one| one.severity != Severity::Info) {
        let text = format!("{} {}: {}", one.code, one.object, one.message);
        let is_new =
            !before.iter().any(|old| (old.code, &old.object, &old.field) == (one.code, &one.object, &one.field));
        match (is_new, one.severity) {
            (true, Severity::Error) => {
                found.checks.push(PreflightCheck::error(format!("it would make {text}"), "--force"))
            }
            (true, _) => found.checks.push(PreflightCheck::warning(format!("it would make {text}"))),
            (false, _) if one.object == target.object() => found.checks.push(PreflightCheck::warning(text)),
            (false, _) => {}
        }
    }
    let mesh = mesh::resolve(snapshot, options);
    let rules: Vec<usize> = plans.iter().map(|plan| plan.split.rule).collect();
    found.classes = classes(&mesh, &target.object(), &rules, &host(&mesh, target, object));
    callers(&mesh, &mut found, plans);
    found.checks.extend(repeated(&mesh, target, plans).into_iter().map(PreflightCheck::warning));
    let writers = controllers(object);
    found.checks.extend(writers.into_iter().map(|text| PreflightCheck::error(text, "--force-owner")));
    found.checks.extend(helm(object));
    found.checks.extend(status(target.key.kind, object));
    found.checks.sort_by_key(|check| check.severity);
    found.checks.dedup();
    found
}

/// The host that an object's rules are for, in full.
fn host(mesh: &Mesh<'_>, target: &ShiftTarget, object: &Value) -> String {
    let own = &*target.key.namespace;
    if let Some(host) = object["spec"]["hosts"][0].as_str() {
        return mesh::host::resolve(host, &own.into(), &mesh.cluster_domain).to_string();
    }
    let parents = object["spec"]["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let service = parents.iter().find(|parent| parent["kind"] == "Service");
    let name = service.and_then(|parent| Some((parent["name"].as_str()?, parent["namespace"].as_str().unwrap_or(own))));
    let full = |(name, namespace): (&str, &str)| {
        mesh::host::of_service(name, &namespace.into(), &mesh.cluster_domain).to_string()
    };
    name.map(full).unwrap_or_default()
}

/// Puts an object as the server has it into a snapshot.
pub(super) fn replace(snapshot: &mut Snapshot, target: &ShiftTarget, object: &Value) -> Option<()> {
    let body = serde_json::value::to_raw_value(object).ok()?;
    let made =
        Object::new(target.key.kind, &target.api_version, &target.key.namespace, &target.key.name, &body).ok()?;
    snapshot.insert(made);
    Some(())
}

fn callers(mesh: &Mesh<'_>, found: &mut Preflight, plans: &[RulePlan]) {
    let obeying: Vec<&AffectedClass> = found.classes.iter().filter(|class| class.obeys).collect();
    let mut checks = Vec::new();
    let waypoints = mesh.workloads.iter().filter(|one| matches!(one.proxy, ProxyKind::Waypoint(_))).count();
    if waypoints > 0 {
        checks.push(PreflightCheck::warning(format!(
            "{waypoints} waypoints may obey too: they are neither looked at nor waited for"
        )));
    }
    if obeying.is_empty() {
        checks.push(PreflightCheck::error(
            "no sidecar's or gateway's calls go by this rule: the shift would move nothing",
            "--force",
        ));
    }
    for plan in plans {
        let rises = |label: &str| {
            let at = plan.backends.iter().position(|one| one.backend.label() == label);
            at.is_none_or(|at| plan.share_after(at) > plan.share_before(at))
        };
        for class in &obeying {
            let Some(backends) = class.backends.get(&plan.split.rule) else { continue };
            for backend in backends {
                let why = match backend.state {
                    BackendState::Ok => continue,
                    BackendState::NoCluster => "does not exist for it",
                    BackendState::NoEndpoints => "has no ready pod",
                };
                let text = format!("{}: the backend {} {why}, calls to it fail", class.name, backend.cluster);
                // Less for one that is down is a way out.
                let check = if rises(&label(backend)) {
                    PreflightCheck::error(text, "--force")
                } else {
                    PreflightCheck::warning(text)
                };
                checks.push(check);
            }
            for backend in backends.iter().filter(|one| rises(&label(one))) {
                let Some(most) = backend.max_requests else { continue };
                let rule = backend.destination_rule.as_ref().map(ToString::to_string).unwrap_or_default();
                checks.push(PreflightCheck::warning(format!(
                    "{} takes {most} calls at a time of each proxy (http2MaxRequests, {rule}): more fail with UO",
                    label(backend)
                )));
            }
            if let Some(hash) = backends.iter().find_map(|one| one.hash.as_ref()) {
                checks.push(PreflightCheck::warning(format!(
                    "calls are pinned by {hash}: shares hold for keys, not for calls"
                )));
            }
        }
        // Pods against shares, where pods are known.
        let Some(backends) = obeying.first().and_then(|class| class.backends.get(&plan.split.rule)) else { continue };
        let ready = backends.iter().filter_map(|one| Some((label(one), u64::from(one.endpoints?.ready))));
        let ready: Vec<(String, u64)> = ready.collect();
        let all: u64 = ready.iter().map(|(_, count)| count).sum();
        for (at, one) in plan.backends.iter().enumerate() {
            let Some((_, pods)) = ready.iter().find(|(label, _)| *label == one.backend.label()) else { continue };
            let (share, of_pods) = (plan.share_after(at), *pods as f64 / all.max(1) as f64);
            if *pods > 0 && share > plan.share_before(at) && share > of_pods * 1.5 {
                let (label, percent) = (one.backend.label(), share * 100.0);
                checks.push(PreflightCheck::warning(format!(
                    "{label} gets {percent:.0}% of the calls with {pods} of {all} ready pods"
                )));
            }
        }
    }
    found.checks.extend(checks);
}

/// Autoscalers of the workloads that are to get more calls. Who may not list them is told nothing.
pub(super) async fn autoscalers(
    server: &ApiServer,
    mesh: &Mesh<'_>,
    found: &Preflight,
    plans: &[RulePlan],
) -> Vec<PreflightCheck> {
    let rises = |name: &str| {
        plans.iter().any(|plan| {
            let at = plan.backends.iter().position(|one| one.backend.label() == name);
            at.is_some_and(|at| plan.share_after(at) > plan.share_before(at))
        })
    };
    let mut workloads = BTreeSet::new();
    for class in found.classes.iter().filter(|class| class.obeys) {
        for backend in class.backends.values().flatten().filter(|one| rises(&label(one))) {
            let servers = class.servers.get(&backend.cluster).into_iter().flatten();
            workloads.extend(servers.map(|id| mesh.workload(*id).telemetry_name()));
        }
    }
    let namespaces: BTreeSet<&String> = workloads.iter().map(|(namespace, _)| namespace).collect();
    let mut checks = Vec::new();
    for namespace in namespaces {
        let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
        let Ok(text) = server.get(&path, server.timeout).await else { continue };
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        for one in list["items"].as_array().into_iter().flatten() {
            let (name, spec) = (one["metadata"]["name"].as_str().unwrap_or_default(), &one["spec"]);
            let target = spec["scaleTargetRef"]["name"].as_str().unwrap_or_default();
            if workloads.contains(&(namespace.clone(), target.to_owned())) {
                checks.push(PreflightCheck::warning(format!(
                    "HorizontalPodAutoscaler {namespace}/{name} scales {target} up to {} pods: more calls wait until more \
                     pods are there",
                    spec["maxReplicas"]
                )));
            }
        }
    }
    checks
}

fn helm(object: &Value) -> Option<PreflightCheck> {
    let by_helm = object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm";
    by_helm.then(|| PreflightCheck::warning("Helm wrote this object: its next upgrade writes its own weights"))
}

/// What the controller of Gateway API says of a route as it is.
fn status(kind: Kind, object: &Value) -> Vec<PreflightCheck> {
    if kind == Kind::VirtualService {
        return Vec::new();
    }
    let generation = object["metadata"]["generation"].as_i64();
    let parents = object["status"]["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let conditions = parents.iter().flat_map(|parent| parent["conditions"].as_array().into_iter().flatten());
    let mut checks = Vec::new();
    for one in conditions {
        let word = one["type"].as_str().unwrap_or_default();
        if matches!(word, "Accepted" | "ResolvedRefs") && one["status"] != "True" {
            let why = one["message"].as_str().unwrap_or_default();
            checks.push(PreflightCheck::error(format!("the route is not {word} now: {why}"), "--force"));
        } else if word == "Accepted" && one["observedGeneration"].as_i64() < generation {
            checks.push(PreflightCheck::warning("istiod has not looked at the last change of the route yet"));
        }
    }
    checks
}
