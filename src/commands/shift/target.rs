//! Finds the route object to shift, and plans its rules.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::cli::failure::Failure;
use crate::cli::target::{self, ROUTE_KINDS, Target};
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::shift::plan::{DesiredWeights, RulePlan};
use crate::shift::selection::{self, RuleSelection, object_argument, shiftable_objects};
use crate::shift::split::RuleSplit;
use crate::snapshot::{Object, ObjectKey};

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
        self.object_ref().to_string()
    }

    pub(super) fn object_ref(&self) -> ObjectRef {
        ObjectRef { kind: self.key.kind, namespace: (&*self.key.namespace).into(), name: (&*self.key.name).into() }
    }

    /// `vs/checkout -n shop`.
    pub(super) fn argument(&self) -> String {
        object_argument(&self.object_ref())
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
    for candidate in shiftable_objects(mesh) {
        let ours: Vec<&RuleSplit> =
            candidate.rules.iter().filter(|rule| candidate.routes_to(mesh, rule, service)).collect();
        if !ours.is_empty() {
            let has_several_backends = ours.iter().any(|rule| rule.backends.len() > 1);
            let object = candidate.object;
            let acts_in_mesh = mesh.acts_in_mesh(&ShiftTarget::from_object(object).object_ref());
            candidates.push((object, [has_several_backends, acts_in_mesh]));
        }
    }
    // Prefer objects that split already over those with one backend, then objects for callers in the mesh over those
    // for gateways only. Other objects with the same split are reported as warnings.
    let preferences: [fn(&[bool; 2]) -> bool; 2] = [|[several, _]| *several, |[_, in_mesh]| *in_mesh];
    for has_preference in preferences {
        if candidates.iter().any(|(_, preferences)| has_preference(preferences)) {
            candidates.retain(|(_, preferences)| has_preference(preferences));
        }
    }
    let objects: Vec<&Object> = candidates.into_iter().map(|(object, _)| object).collect();
    let host = mesh.short_host(&service.host);
    exactly_one(&objects, argument, &format!("no VirtualService, HTTPRoute or GRPCRoute has a rule for {host}"))
}

/// Finds the object with a rule that sends calls to a host, by the first labels of the host.
pub(super) fn find_by_host(mesh: &Mesh<'_>, argument: &str) -> Result<ShiftTarget, Failure> {
    let matches = shiftable_objects(mesh).into_iter().filter(|object| object.routes_to_prefix(mesh, argument));
    let matches: Vec<&Object> = matches.map(|object| object.object).collect();
    exactly_one(&matches, argument, &format!("no VirtualService, HTTPRoute or GRPCRoute has a rule for {argument}"))
}

/// Plans the rules of an object.
pub(super) fn plan_rules(
    mesh: &Mesh<'_>,
    target: &ShiftTarget,
    object: &Value,
    desired: &DesiredWeights,
    rules: &RuleSelection,
) -> Result<Vec<RulePlan>, Failure> {
    selection::plan_rules(mesh, &target.object_ref(), object, desired, rules).map_err(|error| {
        let failure = Failure::usage(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })
}
