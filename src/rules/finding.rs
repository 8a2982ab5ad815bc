//! A finding: a fault with a stable code, its place, its evidence and its repair.

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

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Calls fail, or what was written has no effect.
    Error,
    /// Calls fail in some situations.
    Warning,
    /// Good to know.
    Info,
}

impl Severity {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A fault that a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Stable code, such as `GM203`.
    pub code: &'static str,
    /// Name of the rule, such as `subset-undefined`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object to mend.
    pub object: ObjectRef,
    /// Others of which the same is to be said.
    pub also: Vec<ObjectRef>,
    /// Field path in it.
    pub field: String,
    /// What is wrong, in one sentence.
    pub message: String,
    /// What callers will see.
    pub impact: String,
    /// Namespaces of the callers it touches; empty means all.
    pub callers: Vec<String>,
    /// What makes us say so.
    pub evidence: Vec<String>,
    /// The repair: YAML, or a command.
    pub fix: String,
    /// Istio's own code for it.
    pub istio_code: Option<&'static str>,
    /// Namespaces whose objects the claim rests on.
    rests_on: Vec<Namespace>,
}

impl Finding {
    /// A finding of `rule` about `field` of `object`.
    pub fn new(rule: &'static Rule, object: &ObjectRef, field: impl Into<String>) -> Self {
        Self {
            code: rule.code,
            name: rule.name,
            severity: rule.severity,
            object: object.clone(),
            also: Vec::new(),
            field: field.into(),
            message: String::new(),
            impact: String::new(),
            callers: Vec::new(),
            evidence: Vec::new(),
            fix: String::new(),
            istio_code: rule.istio_code,
            rests_on: vec![object.namespace.clone()],
        }
    }

    /// Says the same of other objects.
    #[must_use]
    pub fn also(mut self, objects: impl IntoIterator<Item = ObjectRef>) -> Self {
        self.also.extend(objects);
        self
    }

    /// All objects that it is about.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        std::iter::once(&self.object).chain(&self.also)
    }

    /// Another severity than the rule's usual one.
    #[must_use]
    pub fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// What is wrong.
    #[must_use]
    pub fn message(self, message: impl Into<String>) -> Self {
        Self { message: message.into(), ..self }
    }

    /// What callers will see.
    #[must_use]
    pub fn impact(self, effect: impl Into<String>) -> Self {
        Self { impact: effect.into(), ..self }
    }

    /// What makes us say so.
    #[must_use]
    pub fn evidence(mut self, evidence: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.evidence.extend(evidence.into_iter().map(|one| one.to_string()));
        self
    }

    /// Whom it touches.
    #[must_use]
    pub fn callers(mut self, namespaces: impl IntoIterator<Item = impl fmt::Display>) -> Self {
        self.callers.extend(namespaces.into_iter().map(|one| one.to_string()));
        self
    }

    /// The repair.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// The claim also rests on the objects of these namespaces.
    #[must_use]
    pub fn rests_on<'a>(mut self, namespaces: impl IntoIterator<Item = &'a Namespace>) -> Self {
        self.rests_on.extend(namespaces.into_iter().cloned());
        self
    }
}

/// Where rules put what they find.
#[derive(Debug)]
pub struct Findings<'m> {
    mesh: &'m Mesh<'m>,
    found: Vec<Finding>,
    /// Claims that a gap left undecided, by code: how many.
    undecided: BTreeMap<&'static str, usize>,
    /// How the proxies stand, once a rule asked.
    proxies: Option<Rc<[(WorkloadId, ComparedProxy)]>>,
}

impl<'m> Findings<'m> {
    /// None yet.
    pub fn new(mesh: &'m Mesh<'m>) -> Self {
        Self { mesh, found: Vec::new(), undecided: BTreeMap::new(), proxies: None }
    }

    /// How the proxies stand that were asked; none when nobody was.
    pub fn proxies(&mut self) -> Rc<[(WorkloadId, ComparedProxy)]> {
        let mesh = self.mesh;
        let judged = || ProxyComparisons::new(mesh).map(|proxies| proxies.judge_all(&[])).unwrap_or_default().into();
        Rc::clone(self.proxies.get_or_insert_with(judged))
    }

    /// Takes a finding, unless what it rests on could not be read: then it is counted as undecided.
    pub fn add(&mut self, rule: &'static Rule, finding: Finding) {
        let known = rule.needs.iter().all(|kind| {
            finding
                .rests_on
                .iter()
                .all(|namespace| namespace.as_str().is_empty() || self.mesh.coverage.knows(*kind, namespace))
        });
        if known {
            self.found.push(finding);
        } else {
            self.undecided(rule);
        }
    }

    /// Counts a claim that the source is too thin for.
    pub fn undecided(&mut self, rule: &'static Rule) {
        *self.undecided.entry(rule.code).or_default() += 1;
    }

    /// The findings, and the undecided claims by code.
    pub fn into_parts(self) -> (Vec<Finding>, BTreeMap<&'static str, usize>) {
        (self.found, self.undecided)
    }
}
