//! Which object is shifted, and which of its rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ShiftArgs;
use crate::cli::failure::Failure;
use crate::cli::target;
use crate::mesh::ids::{Host, ObjectRef};
use crate::mesh::service::Service;
use crate::mesh::{Mesh, host};
use crate::schema::Kind;
use crate::shift::plan::{AddableBackend, DesiredWeights, PlanError, RulePlan, plan};
use crate::shift::split::{RuleSplit, SplitBackend, splits};
use crate::snapshot::{Object, ObjectKey};
use crate::vocabulary::share::Share;

/// Kinds that split calls by weight.
const KINDS: [Kind; 3] = [Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute];

/// What is shifted.
#[derive(Debug, Clone)]
pub(super) struct ShiftTarget {
    pub(super) key: ObjectKey,
    pub(super) api_version: String,
}

impl ShiftTarget {
    pub(super) fn of(object: &Object) -> Self {
        Self { key: object.key.clone(), api_version: object.api_version.to_string() }
    }

    /// `VirtualService shop/checkout`.
    pub(super) fn title(&self) -> String {
        format!("{} {}/{}", self.key.kind.name(), self.key.namespace, self.key.name)
    }

    /// The object as the model names it.
    pub(super) fn object(&self) -> ObjectRef {
        ObjectRef { kind: self.key.kind, namespace: (&*self.key.namespace).into(), name: (&*self.key.name).into() }
    }

    /// As it is written on the command line.
    pub(super) fn word(&self) -> String {
        format!("{}/{} -n {}", self.kind_word(), self.key.name, self.key.namespace)
    }

    /// Its kind, as it is written there.
    pub(super) fn kind_word(&self) -> &'static str {
        match self.key.kind {
            Kind::VirtualService => "vs",
            Kind::HttpRoute => "httproute",
            _ => "grpcroute",
        }
    }
}

/// The object that a word means: itself, or the one that splits a Service's calls.
pub(super) fn find(mesh: &Mesh<'_>, word: &str, namespaces: &BTreeSet<String>) -> Result<ShiftTarget, Failure> {
    let (kind, name) = word.split_once('/').unwrap_or(("svc", word));
    let kind = match kind.to_ascii_lowercase().as_str() {
        "vs" | "virtualservice" | "virtualservices" => Kind::VirtualService,
        "httproute" | "httproutes" => Kind::HttpRoute,
        "grpcroute" | "grpcroutes" => Kind::GrpcRoute,
        _ => return of_service(mesh, word, namespaces),
    };
    // Names may have dots: the whole word first, then with the namespace at its end.
    let halves = name.rsplit_once('.').map(|(name, namespace)| (name, Some(namespace)));
    let mut found: Vec<&Object> = Vec::new();
    for (name, namespace) in [Some((name, None)), halves].into_iter().flatten() {
        let in_scope = |object: &&Object| {
            let place = &*object.key.namespace;
            *object.key.name == *name
                && namespace
                    .map_or_else(|| namespaces.is_empty() || namespaces.contains(place), |wanted| wanted == place)
        };
        found = mesh.snapshot.of_kind(kind).filter(in_scope).collect();
        if !found.is_empty() {
            break;
        }
    }
    one(&found, word, &format!("there is no {} {name} here", kind.name()))
}

fn one(found: &[&Object], word: &str, none: &str) -> Result<ShiftTarget, Failure> {
    match found {
        [] => Err(Failure::source(none).hint("see what there is: kubectl grpcmesh inspect")),
        [object] => Ok(ShiftTarget::of(object)),
        several => {
            let words = several.iter().map(|object| ShiftTarget::of(object).word()).collect::<Vec<_>>().join(", or ");
            Err(Failure::usage(format!("{word} is split by {} objects", several.len()))
                .hint(format!("name one: {words}")))
        }
    }
}

fn of_service(mesh: &Mesh<'_>, word: &str, namespaces: &BTreeSet<String>) -> Result<ShiftTarget, Failure> {
    let ids = target::services(mesh, word, namespaces)?;
    let [id] = ids[..] else {
        return Err(
            Failure::usage(format!("{word} means {} Services", ids.len())).hint("name one: checkout.shop, or with -n")
        );
    };
    let service = mesh.service(id);
    let mut found: Vec<(&Object, [bool; 2])> = Vec::new();
    for (object, body, splits) in all_rules(mesh) {
        let ours: Vec<&RuleSplit> =
            splits.iter().filter(|split| leads_to(mesh, object, &body, split, service)).collect();
        if !ours.is_empty() {
            found.push((object, [ours.iter().any(|split| split.backends.len() > 1), acts_in_mesh(object, &body)]));
        }
    }
    // Where some object splits already, that is meant, and not one that sends everything to one place; of several the
    // one for callers in the mesh. What a gateway repeats is told later.
    for merit in 0..2 {
        if found.iter().any(|(_, merits)| merits[merit]) {
            found.retain(|(_, merits)| merits[merit]);
        }
    }
    let found: Vec<&Object> = found.into_iter().map(|(object, _)| object).collect();
    let none = format!("no VirtualService, HTTPRoute or GRPCRoute has a rule for {}", mesh.short_host(&service.host));
    one(&found, word, &none)
}

/// Whether an object is for callers in the mesh, and not only for gateways.
fn acts_in_mesh(object: &Object, body: &Value) -> bool {
    let list = |field: &str| body["spec"][field].as_array().map(Vec::as_slice).unwrap_or_default();
    match object.key.kind {
        Kind::VirtualService => list("gateways").is_empty() || list("gateways").iter().any(|one| one == "mesh"),
        _ => list("parentRefs").iter().any(|parent| parent["kind"] == "Service"),
    }
}

/// Whether a rule is about calls to a Service.
pub(super) fn leads_to(mesh: &Mesh<'_>, object: &Object, body: &Value, split: &RuleSplit, service: &Service) -> bool {
    let is_ours = |backend: &SplitBackend| full_host(mesh, object, backend) == service.host;
    let own = &*object.key.namespace;
    let is_parent = |parent: &Value| {
        let namespace = parent["namespace"].as_str().unwrap_or(own);
        parent["kind"] == "Service"
            && parent["name"].as_str() == Some(&*service.object.name)
            && namespace == service.namespace().as_str()
    };
    let parents = body["spec"]["parentRefs"].as_array().map(Vec::as_slice).unwrap_or_default();
    split.backends.iter().any(is_ours) || parents.iter().any(is_parent)
}

/// The host of a backend in full, as the object that it stands in means it.
fn full_host(mesh: &Mesh<'_>, object: &Object, backend: &SplitBackend) -> Host {
    let own = &*object.key.namespace;
    match object.key.kind {
        Kind::VirtualService => host::resolve(&backend.host, &own.into(), &mesh.cluster_domain),
        _ => {
            let namespace = backend.namespace.as_deref().unwrap_or(own);
            host::of_service(&backend.host, &namespace.into(), &mesh.cluster_domain)
        }
    }
}

/// All rules that have backends, with their objects.
pub(super) fn all_rules<'m>(mesh: &Mesh<'m>) -> Vec<(&'m Object, Value, Vec<RuleSplit>)> {
    let objects = KINDS.iter().flat_map(|kind| mesh.snapshot.of_kind(*kind));
    let read = objects.filter_map(|object| {
        let body: Value = serde_json::from_str(object.body.get()).ok()?;
        let splits = splits(object.key.kind, &body);
        (!splits.is_empty()).then_some((object, body, splits))
    });
    read.collect()
}

/// The object with a rule that sends to a host, by the first labels of it.
pub(super) fn by_host(mesh: &Mesh<'_>, word: &str) -> Result<ShiftTarget, Failure> {
    let beginning = format!("{word}.");
    let mut found: Vec<&Object> = Vec::new();
    for (object, _, splits) in all_rules(mesh) {
        let is_it = |backend: &SplitBackend| full_host(mesh, object, backend).as_str().starts_with(&beginning);
        if splits.iter().any(|split| split.backends.iter().any(is_it)) {
            found.push(object);
        }
    }
    one(&found, word, &format!("no VirtualService, HTTPRoute or GRPCRoute there has a rule for {word}"))
}

/// Rules of other objects that split the same backends, with the command that shifts them likewise.
pub(super) fn repeated(mesh: &Mesh<'_>, target: &ShiftTarget, plans: &[RulePlan]) -> Vec<String> {
    let rules = all_rules(mesh);
    let backends = |object: &Object, split: &RuleSplit| -> BTreeSet<(Host, Option<String>)> {
        split.backends.iter().map(|one| (full_host(mesh, object, one), one.subset.clone())).collect()
    };
    let Some((own, ..)) = rules.iter().find(|(object, ..)| object.key == target.key) else { return Vec::new() };
    let mut found = Vec::new();
    for plan in plans.iter().filter(|plan| plan.split.backends.len() > 1) {
        let ours = backends(own, &plan.split);
        for (object, _, splits) in rules.iter().filter(|(object, ..)| object.key != target.key) {
            let named = |at: usize| {
                let share = Share::of(plan.backends[at].after, plan.total);
                format!("{}={}", plan.backends[at].backend.label(), share.to_string().trim_end_matches('%'))
            };
            for split in splits.iter().filter(|split| backends(object, split) == ours) {
                let wish = (0..plan.backends.len()).map(named).collect::<Vec<_>>().join(",");
                let other = ShiftTarget::of(object);
                found.push(format!(
                    "{} {} repeats this split; to shift it too: kubectl grpcmesh shift {} --rule {} --to {wish}",
                    other.title(),
                    split.title(),
                    other.word(),
                    split.rule
                ));
            }
        }
    }
    found
}

/// What the rules of a wish become. One rule is chosen by name or number, or because only it has the backends.
pub(super) fn plans(
    mesh: &Mesh<'_>,
    target: &ShiftTarget,
    object: &Value,
    wish: &DesiredWeights,
    arguments: &ShiftArgs,
) -> Result<Vec<RulePlan>, Failure> {
    let mut all = splits(target.key.kind, object);
    if let Some(word) = &arguments.rule {
        all.retain(|split| split.name.as_deref() == Some(word) || word.parse() == Ok(split.rule));
        if all.is_empty() {
            return Err(Failure::usage(format!("{} has no rule {word} with backends", target.title()))
                .hint(format!("its rules are {}", titles(&splits(target.key.kind, object)))));
        }
    }
    if all.is_empty() {
        return Err(Failure::usage(format!("{} has no rule with backends", target.title())));
    }
    let planned: Vec<_> = all.iter().map(|split| plan(split, wish, &addable(mesh, target, split))).collect();
    // Of all rules those without the backends are not meant; what cannot be granted is said.
    if arguments.all_rules
        && let Some((refusal, split)) = planned.iter().zip(&all).find_map(|(one, split)| {
            let refusal = one.as_ref().err().filter(|refusal| !matches!(refusal, PlanError::Unknown { .. }))?;
            Some((refusal, split))
        })
    {
        return Err(Failure::usage(format!("{}: {refusal}", split.title())).hint("name the rules with --rule"));
    }
    let first_refusal = planned.iter().zip(&all).find_map(|(one, split)| {
        let refusal = one.as_ref().err()?;
        Some(format!("{}: {refusal}", split.title()))
    });
    let mut granted: Vec<RulePlan> = planned.into_iter().filter_map(Result::ok).collect();
    if granted.iter().any(|plan| plan.split.backends.len() > 1) {
        granted.retain(|plan| plan.split.backends.len() > 1);
    }
    match (granted.len(), arguments.all_rules) {
        (0, _) => {
            Err(Failure::usage(first_refusal.unwrap_or_default()).hint(format!("the rules are {}", titles(&all))))
        }
        (1, _) | (_, true) => Ok(granted),
        _ => {
            let rules: Vec<RuleSplit> = granted.into_iter().map(|plan| plan.split).collect();
            Err(Failure::usage(format!("several rules of {} have these backends: {}", target.title(), titles(&rules)))
                .hint("say which with --rule N or --rule NAME, or --all-rules"))
        }
    }
}

/// `http[0] "canary" (v1 90, v2 10)`.
fn titles(rules: &[RuleSplit]) -> String {
    let one = |split: &RuleSplit| {
        let backends = split.backends.iter().zip(split.acting());
        let backends: Vec<String> = backends.map(|(one, weight)| format!("{} {weight}", one.label())).collect();
        format!("{} ({})", split.title(), backends.join(", "))
    };
    rules.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What could stand beside the only backend of a rule.
fn addable(mesh: &Mesh<'_>, target: &ShiftTarget, split: &RuleSplit) -> AddableBackend {
    let [only] = &split.backends[..] else { return AddableBackend::default() };
    let own = &*target.key.namespace;
    if target.key.kind != Kind::VirtualService {
        let namespace = only.namespace.as_deref().unwrap_or(own);
        let services = mesh.services.iter().filter(|one| one.namespace().as_str() == namespace && one.is_kubernetes());
        return AddableBackend {
            services: services.map(|one| one.object.name.to_string()).collect(),
            ..AddableBackend::default()
        };
    }
    let full = host::resolve(&only.host, &own.into(), &mesh.cluster_domain);
    let rules = mesh.destination_rules.iter().filter(|rule| rule.host == full);
    let subsets = rules.flat_map(|rule| rule.spec.subsets.iter().map(|one| one.name.clone()));
    AddableBackend { subsets: subsets.collect(), ..AddableBackend::default() }
}
