//! `diff`: what is wanted against what the cluster has, and what the cluster has against what every Envoy runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::GapReport;
use super::unified::unified;
use crate::compare::{ComparedObject, ObjectState};
use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::mesh::xds::Caller;

/// Differences.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Diff")]
pub struct DiffReport {
    /// Always `Diff`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// What is compared with what: `files` and `cluster`, or the names of sources. Absent without objects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<[String; 2]>,
    /// Objects that were compared.
    pub objects: Vec<DiffObjectReport>,
    /// Proxies, those that are not in step first.
    pub proxies: Vec<DiffProxyReport>,
    /// How many proxies are in each state, and how many objects.
    pub counts: BTreeMap<String, usize>,
    /// What could not be read.
    pub gaps: Vec<GapReport>,
}

/// An object.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffObjectReport {
    /// `Kind namespace/name`.
    pub object: String,
    /// `same`, `differs`, `missing` (the second side lacks it) or `extra` (the first side lacks it).
    pub state: &'static str,
    /// A sentence for each change.
    pub changes: Vec<String>,
    /// The difference of the two as YAML, unified.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patch: String,
    /// Something about how it was compared, or who else writes it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// A proxy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffProxyReport {
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Callers that no object tells apart.
    pub caller_class: String,
    /// `in-step`, `not-sent`, `late`, `refused`, `different`, `unreachable` or `not-compared`.
    pub state: &'static str,
    /// Why that is said.
    pub evidence: String,
    /// Since when, if known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What differs.
    pub differences: Vec<DifferenceReport>,
    /// Parts that were left out, with what patches them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
    /// EnvoyFilters that add something which is compared nowhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beside: Vec<String>,
}

/// Something that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DifferenceReport {
    /// What.
    pub what: String,
    /// As the objects have it; empty when they do not have it.
    pub intent: String,
    /// As the Envoy has it; empty when it does not have it.
    pub live: String,
}

impl DiffReport {
    /// Puts the report together.
    pub fn new(
        sides: Option<[String; 2]>,
        objects: Vec<ComparedObject>,
        proxies: Vec<DiffProxyReport>,
        gaps: Vec<GapReport>,
    ) -> Self {
        let mut proxies = proxies;
        let rank = |one: &DiffProxyReport| (one.state == ProxyState::InStep.as_str(), one.state);
        proxies.sort_by(|a, b| (rank(a), &a.namespace, &a.pod).cmp(&(rank(b), &b.namespace, &b.pod)));
        let mut counts = BTreeMap::from([("objects".to_owned(), objects.len()), ("proxies".to_owned(), proxies.len())]);
        for proxy in &proxies {
            *counts.entry(proxy.state.to_owned()).or_default() += 1;
        }
        for object in &objects {
            *counts.entry(format!("objects-{}", object.state.as_str())).or_default() += 1;
        }
        let objects = objects.into_iter().map(DiffObjectReport::from).collect();
        Self { kind: "Diff", version: 1, sides, objects, proxies, counts, gaps }
    }

    /// Whether anything is not as wanted.
    pub fn differs(&self) -> bool {
        let objects = self.objects.iter().any(|one| one.state != ObjectState::Same.as_str());
        objects || self.proxies.iter().any(|one| matches!(one.state, "refused" | "different" | "late" | "not-sent"))
    }

    /// Whether something could not be compared.
    pub fn is_partial(&self) -> bool {
        let out =
            |one: &DiffProxyReport| matches!(one.state, "unreachable" | "not-compared") || !one.not_compared.is_empty();
        self.proxies.iter().any(out) || self.gaps.iter().any(|gap| gap.touches_answers)
    }
}

impl From<ComparedObject> for DiffObjectReport {
    fn from(compared: ComparedObject) -> Self {
        let ComparedObject { object, state, changes, before, after, notes } = compared;
        let patch = if state == ObjectState::Same { String::new() } else { unified(&before, &after, 3) };
        Self { object, state: state.as_str(), changes, patch, notes }
    }
}

/// How the proxies of a mesh's snapshot stand; none when nobody was asked. With hosts in `only`, just what leads there.
pub fn proxies(mesh: &Mesh<'_>, only: &[String]) -> Vec<DiffProxyReport> {
    let judged = ProxyComparisons::new(mesh).map(|proxies| proxies.judge_all(only)).unwrap_or_default();
    judged.into_iter().map(|(id, judged)| DiffProxyReport::new(mesh, id, judged)).collect()
}

impl DiffProxyReport {
    /// A proxy.
    pub fn new(mesh: &Mesh<'_>, id: WorkloadId, judged: ComparedProxy) -> Self {
        let ComparedProxy {
            state,
            evidence,
            since,
            is_doubtful: _,
            skips_routes: _,
            differences,
            endpoints,
            not_compared,
            beside,
        } = judged;
        let workload = mesh.workload(id);
        let differences = differences
            .into_iter()
            .chain(endpoints)
            .map(|one| DifferenceReport { what: one.what, intent: one.desired, live: one.live })
            .collect();
        Self {
            namespace: workload.namespace().to_string(),
            pod: workload.object.name.to_string(),
            caller_class: Caller::of_workload(mesh, id).class(mesh),
            state: state.as_str(),
            evidence,
            since,
            differences,
            not_compared,
            beside,
        }
    }
}
