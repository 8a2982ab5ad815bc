//! Which rules of a mesh can be shifted, and which of them an argument selects.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::plan::{AddableBackends, DesiredWeights, PlanError, RulePlan, plan_rule};
use super::split::{RuleSplit, SplitBackend, rule_splits};
use crate::mesh::ids::{Host, ObjectRef};
use crate::mesh::service::Service;
use crate::mesh::{Mesh, host};
use crate::schema::Kind;
use crate::snapshot::Object;
use crate::vocabulary::share::Share;

/// The kinds of route objects whose rules can be shifted.
pub const ROUTE_KINDS: [Kind; 3] = [Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute];

/// A route object and its rules with backends.
#[derive(Debug)]
pub struct ShiftableObject<'m> {
    pub object: &'m Object,
    pub body: Value,
    pub rules: Vec<RuleSplit>,
}

/// All route objects that have rules with backends.
pub fn shiftable_objects<'m>(mesh: &Mesh<'m>) -> Vec<ShiftableObject<'m>> {
    let objects = ROUTE_KINDS.iter().flat_map(|kind| mesh.snapshot.of_kind(*kind));
    let with_rules = objects.filter_map(|object| {
        let body: Value = serde_json::from_str(object.body.get()).ok()?;
        let rules = rule_splits(object.key.kind, &body);
        (!rules.is_empty()).then_some(ShiftableObject { object, body, rules })
    });
    with_rules.collect()
}

impl ShiftableObject<'_> {
    /// `VirtualService shop/checkout`.
    pub fn title(&self) -> String {
        object_ref(self.object).to_string()
    }

    /// Whether a rule routes calls to a Service.
    pub fn routes_to(&self, mesh: &Mesh<'_>, rule: &RuleSplit, service: &Service) -> bool {
        let is_backend = |backend: &SplitBackend| full_host(mesh, self.object, backend) == service.host;
        let own_namespace = &*self.object.key.namespace;
        let is_parent = |parent: &Value| {
            let text = |field: &str| parent.get(field).and_then(Value::as_str);
            text("kind") == Some("Service")
                && text("name") == Some(&*service.object.name)
                && text("namespace").unwrap_or(own_namespace) == service.namespace().as_str()
        };
        let parents = self.body.pointer("/spec/parentRefs").and_then(Value::as_array);
        rule.backends.iter().any(is_backend) || parents.into_iter().flatten().any(is_parent)
    }

    /// Whether a rule sends calls to a host that starts with these labels.
    pub fn routes_to_prefix(&self, mesh: &Mesh<'_>, labels: &str) -> bool {
        let prefix = format!("{labels}.");
        let has_prefix = |backend: &SplitBackend| full_host(mesh, self.object, backend).as_str().starts_with(&prefix);
        self.rules.iter().any(|rule| rule.backends.iter().any(has_prefix))
    }
}

fn object_ref(object: &Object) -> ObjectRef {
    let (kind, namespace, name) = (object.key.kind, &*object.key.namespace, &*object.key.name);
    ObjectRef { kind, namespace: namespace.into(), name: name.into() }
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

/// A rule of another object that splits the same backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RepeatedSplit {
    /// Title of the object, and of the rule.
    pub title: String,
    /// The command that shifts it too.
    pub command: String,
}

impl fmt::Display for RepeatedSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} repeats this split; to shift it too: {}", self.title, self.command)
    }
}

/// Rules of other objects that split the same backends.
pub fn repeated_splits(mesh: &Mesh<'_>, target: &ObjectRef, plans: &[RulePlan]) -> Vec<RepeatedSplit> {
    let objects = shiftable_objects(mesh);
    let backends = |object: &Object, rule: &RuleSplit| -> BTreeSet<(Host, Option<String>)> {
        let backends = rule.backends.iter();
        backends.map(|backend| (full_host(mesh, object, backend), backend.subset.clone())).collect()
    };
    let Some(own) = objects.iter().find(|object| object_ref(object.object) == *target) else { return Vec::new() };
    let mut repeated = Vec::new();
    for plan in plans.iter().filter(|plan| plan.split.backends.len() > 1) {
        let ours = backends(own.object, &plan.split);
        for other in objects.iter().filter(|other| object_ref(other.object) != *target) {
            for rule in other.rules.iter().filter(|rule| backends(other.object, rule) == ours) {
                let command = format!(
                    "kubectl grpcmesh shift {} --rule {} --to {}",
                    object_argument(&object_ref(other.object)),
                    rule.rule,
                    planned_shares(plan)
                );
                repeated.push(RepeatedSplit { title: format!("{} {}", other.title(), rule.title()), command });
            }
        }
    }
    repeated
}

/// The planned shares as a value of `--to`: `v1=75,v2=25`.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
fn planned_shares(plan: &RulePlan) -> String {
    let share = |index: usize| {
        let planned = &plan.backends[index];
        let share = Share::from_ratio(planned.after, plan.total_after).to_string();
        format!("{}={}", planned.backend.label(), share.trim_end_matches('%'))
    };
    (0..plan.backends.len()).map(share).collect::<Vec<_>>().join(",")
}

/// A route object as an argument: `vs/checkout -n shop`.
pub fn object_argument(object: &ObjectRef) -> String {
    format!("{}/{} -n {}", object.kind.short_name(), object.name, object.namespace)
}

/// Which rules of an object are shifted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum RuleSelection {
    /// The only rule that has the backends.
    #[default]
    Only,
    /// The rule with this index or name.
    Named(String),
    /// All rules that have the backends.
    All,
}

impl RuleSelection {
    /// Whether it allows a rule.
    pub fn includes(&self, rule: &RuleSplit) -> bool {
        match self {
            Self::Only | Self::All => true,
            Self::Named(name) => rule.name.as_deref() == Some(name) || name.parse() == Ok(rule.rule),
        }
    }
}

/// Why no rule, or not exactly one, can be shifted. Its second part is a hint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    #[error("{object} has no rule {rule} with backends")]
    UnknownRule { object: String, rule: String, rules: String },
    #[error("{object} has no rule with backends")]
    NoRule { object: String },
    #[error("cannot shift {rule}: {error}")]
    Plan { rule: String, error: Box<PlanError>, object: String, rules: String },
    #[error("cannot shift {rule}: {error}")]
    OneOfAll { rule: String, error: PlanError },
    #[error("several rules of {object} have these backends: {rules}")]
    SeveralRules { object: String, rules: String },
}

impl SelectionError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownRule { rules, .. } => Some(format!("its rules are {rules}")),
            Self::NoRule { .. } => None,
            Self::Plan { object, rules, .. } => Some(format!("the rules of {object} are {rules}")),
            Self::OneOfAll { .. } => Some("select the rules one by one with --rule".to_owned()),
            Self::SeveralRules { .. } => Some("select one with --rule N or --rule NAME, or use --all-rules".to_owned()),
        }
    }
}

/// Plans the rules of an object that a selection picks.
///
/// # Errors
/// When no rule has the backends, or several have and none is selected.
pub fn plan_rules(
    mesh: &Mesh<'_>,
    target: &ObjectRef,
    object: &Value,
    desired: &DesiredWeights,
    selection: &RuleSelection,
) -> Result<Vec<RulePlan>, SelectionError> {
    let title = target.to_string();
    let all = rule_splits(target.kind, object);
    let rules: Vec<&RuleSplit> = all.iter().filter(|rule| selection.includes(rule)).collect();
    if rules.is_empty() {
        return Err(match selection {
            RuleSelection::Named(rule) => {
                SelectionError::UnknownRule { object: title, rule: rule.clone(), rules: describe_rules(&all) }
            }
            RuleSelection::Only | RuleSelection::All => SelectionError::NoRule { object: title },
        });
    }
    let results: Vec<_> =
        rules.iter().map(|rule| (*rule, plan_rule(rule, desired, &addable_backends(mesh, target, rule)))).collect();
    // With --all-rules, rules without the named backends are skipped; every other error counts.
    if *selection == RuleSelection::All
        && let Some((rule, Err(error))) = results
            .iter()
            .find(|(_, result)| result.as_ref().is_err_and(|error| !matches!(error, PlanError::UnknownBackend { .. })))
    {
        return Err(SelectionError::OneOfAll { rule: rule.title(), error: error.clone() });
    }
    let first_error = results.iter().find_map(|(rule, result)| Some((rule.title(), result.as_ref().err()?.clone())));
    let mut plans: Vec<RulePlan> = results.into_iter().filter_map(|(_, result)| result.ok()).collect();
    if plans.iter().any(|plan| plan.split.backends.len() > 1) {
        plans.retain(|plan| plan.split.backends.len() > 1);
    }
    if let (true, Some((rule, error))) = (plans.is_empty(), first_error) {
        return Err(SelectionError::Plan { rule, error: Box::new(error), object: title, rules: describe_rules(&all) });
    }
    if plans.len() > 1 && *selection != RuleSelection::All {
        let rules: Vec<RuleSplit> = plans.into_iter().map(|plan| plan.split).collect();
        return Err(SelectionError::SeveralRules { object: title, rules: describe_rules(&rules) });
    }
    Ok(plans)
}

/// `http[0] "canary" (v1 90, v2 10)`.
fn describe_rules(rules: &[RuleSplit]) -> String {
    let describe = |rule: &RuleSplit| {
        let backends = rule.backends.iter().zip(rule.effective_weights());
        let backends: Vec<String> = backends.map(|(backend, weight)| format!("{} {weight}", backend.label())).collect();
        format!("{} ({})", rule.title(), backends.join(", "))
    };
    rules.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// Backends that a shift may add to a rule with a single backend.
fn addable_backends(mesh: &Mesh<'_>, target: &ObjectRef, rule: &RuleSplit) -> AddableBackends {
    let [only] = &rule.backends[..] else { return AddableBackends::default() };
    if target.kind != Kind::VirtualService {
        let namespace = only.namespace.as_deref().unwrap_or(target.namespace.as_str());
        let services =
            mesh.services.iter().filter(|service| service.namespace().as_str() == namespace && service.is_kubernetes());
        return AddableBackends {
            services: services.map(|service| service.object.name.to_string()).collect(),
            ..AddableBackends::default()
        };
    }
    let full_host = host::to_fqdn(&only.host, &target.namespace, &mesh.cluster_domain);
    let rules = mesh.destination_rules.iter().filter(|rule| rule.host == full_host);
    let subsets = rules.flat_map(|rule| rule.spec.subsets.iter().map(|subset| subset.name.clone()));
    AddableBackends { subsets: subsets.collect(), ..AddableBackends::default() }
}
