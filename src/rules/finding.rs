//! A finding: a fault in one object, with its impact, evidence and fix.

use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

use schemars::JsonSchema;
use serde::Serialize;

use super::Rule;
use crate::dataplane::proxy::ComparedProxy;
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, ObjectRef, WorkloadId};

/// Severity of a finding, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum Severity {
    /// Calls fail, or the written configuration has no effect.
    Error,
    /// Calls fail in some situations.
    Warning,
    /// A fact worth knowing; no call fails because of it.
    Info,
}

impl Severity {
    /// The value of `--fail-on` and of the JSON reports.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A fault that a rule reports about one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code, such as `GM203`.
    pub code: &'static str,
    /// Name of the rule, such as `subset-undefined`.
    pub name: &'static str,
    /// Severity, usually that of the rule.
    pub severity: Severity,
    /// The object to change.
    pub object: ObjectRef,
    /// Further objects with the same fault.
    pub other_objects: Vec<ObjectRef>,
    /// Field path in the object, such as `spec.http[0].route[1].weight`.
    pub field: String,
    /// One sentence that names the fault.
    pub message: String,
    /// The effect on callers: gRPC status and response flag where calls fail.
    pub impact: String,
    /// Namespaces of the affected callers; empty means all callers.
    pub callers: Vec<String>,
    /// Facts from the objects or the proxies that prove the fault.
    pub evidence: Vec<String>,
    /// The fix: YAML or a command.
    pub fix: String,
    /// Code of the matching `istioctl analyze` message.
    pub istio_code: Option<&'static str>,
    /// Namespaces whose objects decide whether the fault exists.
    depends_on: Vec<Namespace>,
}

impl Finding {
    /// Creates a finding of `rule` about `field` of `object`; it depends on the object's namespace.
    pub fn new(rule: &'static Rule, object: &ObjectRef, field: impl Into<String>) -> Self {
        Self {
            code: rule.code,
            name: rule.name,
            severity: rule.severity,
            object: object.clone(),
            other_objects: Vec::new(),
            field: field.into(),
            message: String::new(),
            impact: String::new(),
            callers: Vec::new(),
            evidence: Vec::new(),
            fix: String::new(),
            istio_code: rule.istio_code,
            depends_on: vec![object.namespace.clone()],
        }
    }

    /// Adds further objects with the same fault.
    #[must_use]
    pub fn other_objects(mut self, objects: impl IntoIterator<Item = ObjectRef>) -> Self {
        self.other_objects.extend(objects);
        self
    }

    /// The object of the finding, and the further objects with the same fault.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        std::iter::once(&self.object).chain(&self.other_objects)
    }

    /// Overrides the severity of the rule.
    #[must_use]
    pub fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// Sets the one-sentence message.
    #[must_use]
    pub fn message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// Sets what callers see.
    #[must_use]
    pub fn impact(self, impact: impl Into<String>) -> Self {
        Self { impact: impact.into(), ..self }
    }

    /// Appends facts.
    #[must_use]
    pub fn evidence(mut self, facts: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.evidence.extend(facts.into_iter().map(|fact| fact.to_string()));
        self
    }

    /// Appends namespaces of affected callers.
    #[must_use]
    pub fn callers(mut self, namespaces: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.callers.extend(namespaces.into_iter().map(|namespace| namespace.to_string()));
        self
    }

    /// Sets the fix: YAML or a command.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// Adds namespaces whose objects decide whether the fault exists.
    #[must_use]
    pub fn depends_on<'a>(mut self, namespaces: impl IntoIterator<Item = &'a Namespace>) -> Self {
        self.depends_on.extend(namespaces.into_iter().cloned());
        self
    }
}

/// Collects the findings of all rules, and counts those that gaps leave undecided.
#[derive(Debug)]
pub struct Findings<'m> {
    mesh: &'m Mesh<'m>,
    findings: Vec<Finding>,
    /// Number of possible findings that a gap leaves undecided, by code.
    undecided: BTreeMap<&'static str, usize>,
    /// Compared once, when the first rule needs the proxies.
    proxies: Option<Rc<[(WorkloadId, ComparedProxy)]>>,
}

impl<'m> Findings<'m> {
    /// Creates an empty collection.
    pub fn new(mesh: &'m Mesh<'m>) -> Self {
        Self { mesh, findings: Vec::new(), undecided: BTreeMap::new(), proxies: None }
    }

    /// The proxies of the live state, each compared with its desired configuration; empty without a live state.
    pub fn proxies(&mut self) -> Rc<[(WorkloadId, ComparedProxy)]> {
        let mesh = self.mesh;
        let compare = || ProxyComparisons::new(mesh).map(|proxies| proxies.compare_all(&[])).unwrap_or_default().into();
        Rc::clone(self.proxies.get_or_insert_with(compare))
    }

    /// Adds a finding, or counts it as undecided when an object that it depends on could not be read.
    pub fn add(&mut self, rule: &'static Rule, finding: Finding) {
        let is_decided = rule.needs.iter().all(|kind| {
            finding
                .depends_on
                .iter()
                .all(|namespace| namespace.as_str().is_empty() || self.mesh.coverage.covers(*kind, namespace))
        });
        if is_decided {
            self.findings.push(finding);
        } else {
            self.add_undecided(rule);
        }
    }

    /// Counts a possible finding that the source does not decide.
    pub fn add_undecided(&mut self, rule: &'static Rule) {
        *self.undecided.entry(rule.code).or_default() += 1;
    }

    /// Returns the findings, and the number of undecided ones by code.
    pub fn into_parts(self) -> (Vec<Finding>, BTreeMap<&'static str, usize>) {
        (self.findings, self.undecided)
    }
}
