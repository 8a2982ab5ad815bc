//! Finds the route object to shift, and plans its rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ShiftArgs;
use crate::cli::failure::Failure;
use crate::cli::target::{self, ROUTE_KINDS, Target};
use crate::mesh::ids::{Host, ObjectRef};
use crate::mesh::service::Service;
use crate::mesh::{Mesh, host};
use crate::schema::Kind;
use crate::shift::plan::{AddableBackends, DesiredWeights, PlanError, RulePlan, plan_rule};
use crate::shift::split::{RuleSplit, SplitBackend, rule_splits};
use crate::snapshot::{Object, ObjectKey};
use crate::vocabulary::share::Share;

/// The object to shift.
#[derive(Debug, Clone)]
pub(super) struct ShiftTarget {
    pub(super) key: ObjectKey,
    pub(super) api_version: String,
}

impl ShiftTarget {
    pub(super) fn from_object(object: &Object) -> Self {
        Self { key: object.key.clone(), api_version: object.api_version.to_string() }
    }

    /// `VirtualService shop/checkout`.
    pub(super) fn title(&self) -> String {
        format!("{} {}/{}", self.key.kind.name(), self.key.namespace, self.key.name)
    }

    pub(super) fn object_ref(&self) -> ObjectRef {
        ObjectRef { kind: self.key.kind, namespace: (&*self.key.namespace).into(), name: (&*self.key.name).into() }
    }

    /// `vs/checkout -n shop`.
    pub(super) fn argument(&self) -> String {
        format!("{}/{} -n {}", self.key.kind.short_name(), self.key.name, self.key.namespace)
    }
}

/// Finds the object that an argument names: the object itself, or the one that splits the calls to a Service.
pub(super) fn find(mesh: &Mesh<'_>, argument: &str, namespaces: &BTreeSet<String>) -> Result<ShiftTarget, Failure> {
    let route = Target::parse(argument).ok().and_then(|target| {
        let kind = target.kind.filter(|kind| ROUTE_KINDS.contains(kind))?;
        Some((kind, target))
    });
    let Some((kind, target)) = route else { return find_for_service(mesh, argument, namespaces) };
    let mut matches: Vec<&Object> = Vec::new();
    for (name, namespace) in target.interpretations() {
        let is_match = |object: &&Object| {
            let own_namespace = &*object.key.namespace;
            let in_scope = || namespaces.is_empty() || namespaces.contains(own_namespace);
            *object.key.name == *name && namespace.map_or_else(in_scope, |namespace| namespace == own_namespace)
        };
        matches = mesh.snapshot.of_kind(kind).filter(is_match).collect();
        if !matches.is_empty() {
            break;
        }
    }
    exactly_one(&matches, argument, &format!("{} {} not found", kind.name(), target.full_name))
}

fn exactly_one(objects: &[&Object], argument: &str, not_found: &str) -> Result<ShiftTarget, Failure> {
    match objects {
        [] => Err(Failure::unavailable(not_found).hint("list services and routes: kubectl grpcmesh inspect")),
        [object] => Ok(ShiftTarget::from_object(object)),
        several => {
            let names = several.iter().map(|object| ShiftTarget::from_object(object).argument());
            let names = names.collect::<Vec<_>>().join(", ");
            Err(Failure::usage(format!("{argument} matches {} route objects", several.len()))
                .hint(format!("select one of: {names}")))
        }
    }
}

fn find_for_service(mesh: &Mesh<'_>, argument: &str, namespaces: &BTreeSet<String>) -> Result<ShiftTarget, Failure> {
    let service = mesh.service(target::single_service(mesh, argument, namespaces)?);
    let mut candidates: Vec<(&Object, [bool; 2])> = Vec::new();
    for (object, body, splits) in all_rules(mesh) {
        let ours: Vec<&RuleSplit> =
            splits.iter().filter(|split| routes_to(mesh, object, &body, split, service)).collect();
        if !ours.is_empty() {
            let has_several_backends = ours.iter().any(|split| split.backends.len() > 1);
            candidates.push((
                object,
                [has_several_backends, mesh.acts_in_mesh(&ShiftTarget::from_object(object).object_ref())],
            ));
        }
    }
    // Prefer objects that split already over those with one backend, then objects for callers in the mesh over those
    // for gateways only. Other objects with the same split are reported as warnings.
    for preference in 0..2 {
        if candidates.iter().any(|(_, preferences)| preferences[preference]) {
            candidates.retain(|(_, preferences)| preferences[preference]);
        }
    }
    let objects: Vec<&Object> = candidates.into_iter().map(|(object, _)| object).collect();
    let host = mesh.short_host(&service.host);
    exactly_one(&objects, argument, &format!("no VirtualService, HTTPRoute or GRPCRoute has a rule for {host}"))
}

/// Whether a rule routes calls to a Service.
pub(super) fn routes_to(mesh: &Mesh<'_>, object: &Object, body: &Value, split: &RuleSplit, service: &Service) -> bool {
    let is_backend = |backend: &SplitBackend| full_host(mesh, object, backend) == service.host;
    let own_namespace = &*object.key.namespace;
    let is_parent = |parent: &Value| {
        let namespace = parent["namespace"].as_str().unwrap_or(own_namespace);
        parent["kind"] == "Service"
            && parent["name"].as_str() == Some(&*service.object.name)
            && namespace == service.namespace().as_str()
    };
    let parents = body["spec"]["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    split.backends.iter().any(is_backend) || parents.iter().any(is_parent)
}

/// The full host of a backend, resolved in the namespace of its object.
fn full_host(mesh: &Mesh<'_>, object: &Object, backend: &SplitBackend) -> Host {
    let own_namespace = &*object.key.namespace;
    match object.key.kind {
        Kind::VirtualService => host::to_fqdn(&backend.host, &own_namespace.into(), &mesh.cluster_domain),
        _ => {
            let namespace = backend.namespace.as_deref().unwrap_or(own_namespace);
            host::service_host(&backend.host, &namespace.into(), &mesh.cluster_domain)
        }
    }
}

/// All route objects that have rules with backends.
pub(super) fn all_rules<'m>(mesh: &Mesh<'m>) -> Vec<(&'m Object, Value, Vec<RuleSplit>)> {
    let objects = ROUTE_KINDS.iter().flat_map(|kind| mesh.snapshot.of_kind(*kind));
    let with_rules = objects.filter_map(|object| {
        let body: Value = serde_json::from_str(object.body.get()).ok()?;
        let splits = rule_splits(object.key.kind, &body);
        (!splits.is_empty()).then_some((object, body, splits))
    });
    with_rules.collect()
}

/// Finds the object with a rule that sends calls to a host, by the first labels of the host.
pub(super) fn find_by_host(mesh: &Mesh<'_>, argument: &str) -> Result<ShiftTarget, Failure> {
    let prefix = format!("{argument}.");
    let mut matches: Vec<&Object> = Vec::new();
    for (object, _, splits) in all_rules(mesh) {
        let has_prefix = |backend: &SplitBackend| full_host(mesh, object, backend).as_str().starts_with(&prefix);
        if splits.iter().any(|split| split.backends.iter().any(has_prefix)) {
            matches.push(object);
        }
    }
    exactly_one(&matches, argument, &format!("no VirtualService, HTTPRoute or GRPCRoute has a rule for {argument}"))
}

/// Rules of other objects that split the same backends, each with the command that shifts it too.
pub(super) fn repeated_splits(mesh: &Mesh<'_>, target: &ShiftTarget, plans: &[RulePlan]) -> Vec<String> {
    let rules = all_rules(mesh);
    let backends = |object: &Object, split: &RuleSplit| -> BTreeSet<(Host, Option<String>)> {
        let backends = split.backends.iter();
        backends.map(|backend| (full_host(mesh, object, backend), backend.subset.clone())).collect()
    };
    let Some((own, ..)) = rules.iter().find(|(object, ..)| object.key == target.key) else { return Vec::new() };
    let mut messages = Vec::new();
    for plan in plans.iter().filter(|plan| plan.split.backends.len() > 1) {
        let ours = backends(own, &plan.split);
        for (object, _, splits) in rules.iter().filter(|(object, ..)| object.key != target.key) {
            let share_argument = |index: usize| {
                let share = Share::from_ratio(plan.backends[index].after, plan.total_after);
                format!("{}={}", plan.backends[index].backend.label(), share.to_string().trim_end_matches('%'))
            };
            for split in splits.iter().filter(|split| backends(object, split) == ours) {
                let shares = (0..plan.backends.len()).map(share_argument).collect::<Vec<_>>().join(",");
                let other = ShiftTarget::from_object(object);
                messages.push(format!(
                    "{} {} repeats this split; to shift it too: kubectl grpcmesh shift {} --rule {} --to {shares}",
                    other.title(),
                    split.title(),
                    other.argument(),
                    split.rule
                ));
            }
        }
    }
    messages
}

/// Plans the rules of an object. A rule is selected by index or name, or because only it has the backends.
pub(super) fn plan_rules(
    mesh: &Mesh<'_>,
    target: &ShiftTarget,
    object: &Value,
    desired: &DesiredWeights,
    arguments: &ShiftArgs,
) -> Result<Vec<RulePlan>, Failure> {
    let mut splits = rule_splits(target.key.kind, object);
    if let Some(name) = &arguments.rule {
        splits.retain(|split| split.name.as_deref() == Some(name) || name.parse() == Ok(split.rule));
        if splits.is_empty() {
            return Err(Failure::usage(format!("{} has no rule {name} with backends", target.title()))
                .hint(format!("its rules are {}", describe_rules(&rule_splits(target.key.kind, object)))));
        }
    }
    if splits.is_empty() {
        return Err(Failure::usage(format!("{} has no rule with backends", target.title())));
    }
    let results: Vec<_> =
        splits.iter().map(|split| plan_rule(split, desired, &addable_backends(mesh, target, split))).collect();
    // --all-rules skips rules without the named backends; every other error counts.
    if arguments.all_rules
        && let Some((error, split)) = results.iter().zip(&splits).find_map(|(result, split)| {
            let error = result.as_ref().err().filter(|error| !matches!(error, PlanError::UnknownBackend { .. }))?;
            Some((error, split))
        })
    {
        return Err(Failure::usage(format!("cannot shift {}: {error}", split.title()))
            .hint("select the rules one by one with --rule"));
    }
    let first_error = results.iter().zip(&splits).find_map(|(result, split)| {
        let error = result.as_ref().err()?;
        Some(format!("cannot shift {}: {error}", split.title()))
    });
    let mut plans: Vec<RulePlan> = results.into_iter().filter_map(Result::ok).collect();
    if plans.iter().any(|plan| plan.split.backends.len() > 1) {
        plans.retain(|plan| plan.split.backends.len() > 1);
    }
    match (plans.len(), arguments.all_rules) {
        (0, _) => Err(Failure::usage(first_error.unwrap_or_default()).hint(format!(
            "the rules of {} are {}",
            target.title(),
            describe_rules(&splits)
        ))),
        (1, _) | (_, true) => Ok(plans),
        _ => {
            let rules: Vec<RuleSplit> = plans.into_iter().map(|plan| plan.split).collect();
            Err(Failure::usage(format!(
                "several rules of {} have these backends: {}",
                target.title(),
                describe_rules(&rules)
            ))
            .hint("select one with --rule N or --rule NAME, or use --all-rules"))
        }
    }
}

/// `http[0] "canary" (v1 90, v2 10)`.
fn describe_rules(rules: &[RuleSplit]) -> String {
    let describe = |split: &RuleSplit| {
        let backends = split.backends.iter().zip(split.effective_weights());
        let backends: Vec<String> = backends.map(|(backend, weight)| format!("{} {weight}", backend.label())).collect();
        format!("{} ({})", split.title(), backends.join(", "))
    };
    rules.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// Backends that a shift may add to a rule with a single backend.
fn addable_backends(mesh: &Mesh<'_>, target: &ShiftTarget, split: &RuleSplit) -> AddableBackends {
    let [only] = &split.backends[..] else { return AddableBackends::default() };
    let own_namespace = &*target.key.namespace;
    if target.key.kind != Kind::VirtualService {
        let namespace = only.namespace.as_deref().unwrap_or(own_namespace);
        let services =
            mesh.services.iter().filter(|service| service.namespace().as_str() == namespace && service.is_kubernetes());
        return AddableBackends {
            services: services.map(|service| service.object.name.to_string()).collect(),
            ..AddableBackends::default()
        };
    }
    let full_host = host::to_fqdn(&only.host, &own_namespace.into(), &mesh.cluster_domain);
    let rules = mesh.destination_rules.iter().filter(|rule| rule.host == full_host);
    let subsets = rules.flat_map(|rule| rule.spec.subsets.iter().map(|subset| subset.name.clone()));
    AddableBackends { subsets: subsets.collect(), ..AddableBackends::default() }
}
