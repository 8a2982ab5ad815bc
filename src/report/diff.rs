//! The report of `diff`: desired objects against those of the cluster, and those against what each Envoy runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::unified::unified;
use super::{GapReport, ObjectReport};
use crate::compare::{ComparedObject, ObjectState};
use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::mesh::xds::Caller;

/// Differences between two sources, and between objects and Envoys.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Diff")]
pub struct DiffReport {
    /// Always `Diff`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// The two sides of the object comparison: `files` and `cluster`, or the names of sources. Absent when no objects
    /// were compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sides: Option<[String; 2]>,
    /// The compared objects.
    pub objects: Vec<DiffObjectReport>,
    /// The proxies, those that differ first.
    pub proxies: Vec<DiffProxyReport>,
    /// Numbers of objects and proxies by state.
    pub counts: DiffCounts,
    /// Inputs that could not be read.
    pub gaps: Vec<GapReport>,
}

/// Numbers by state; states that do not occur are absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DiffCounts {
    /// Objects by state.
    #[schemars(extend("propertyNames" = {"$ref": "#/$defs/ObjectState"}))]
    pub objects: BTreeMap<ObjectState, usize>,
    /// Proxies by state.
    #[schemars(extend("propertyNames" = {"$ref": "#/$defs/ProxyState"}))]
    pub proxies: BTreeMap<ProxyState, usize>,
}

/// One object on both sides.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffObjectReport {
    /// The object.
    pub object: ObjectReport,
    /// `missing`: the second side lacks it. `extra`: the first side lacks it.
    pub state: ObjectState,
    /// One sentence per change.
    pub changes: Vec<String>,
    /// The unified diff of the YAML, from the second side to the first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub patch: String,
    /// Limits of the comparison, and controllers that write the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One proxy.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DiffProxyReport {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// The class of callers that get the same configuration.
    pub caller_class: String,
    /// The state of the proxy.
    pub state: ProxyState,
    /// The evidence for the state.
    pub evidence: String,
    /// Start of the state, RFC 3339, if available.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The differences between desired and live configuration.
    pub differences: Vec<DifferenceReport>,
    /// Parts that are not compared, each with the EnvoyFilter that patches it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_compared: Vec<String>,
    /// EnvoyFilters that add filters, loggers or listeners, which are never compared.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub other_patches: Vec<String>,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DifferenceReport {
    /// The part of the configuration that differs.
    pub what: String,
    /// Its value according to the objects; empty when the objects do not have it.
    pub desired: String,
    /// Its value in Envoy; empty when Envoy does not have it.
    pub live: String,
}

impl DiffReport {
    /// Sorts the proxies by state and counts the states.
    pub fn new(
        sides: Option<[String; 2]>,
        objects: Vec<ComparedObject>,
        mut proxies: Vec<DiffProxyReport>,
        gaps: Vec<GapReport>,
    ) -> Self {
        let rank = |proxy: &DiffProxyReport| (proxy.state == ProxyState::Synced, proxy.state);
        proxies.sort_by(|a, b| (rank(a), &a.namespace, &a.pod).cmp(&(rank(b), &b.namespace, &b.pod)));
        let mut counts = DiffCounts::default();
        for proxy in &proxies {
            *counts.proxies.entry(proxy.state).or_default() += 1;
        }
        for object in &objects {
            *counts.objects.entry(object.state).or_default() += 1;
        }
        let objects = objects.into_iter().map(DiffObjectReport::from).collect();
        Self { kind: "Diff", version: 1, sides, objects, proxies, counts, gaps }
    }

    /// Whether an object or a compared proxy differs.
    pub fn differs(&self) -> bool {
        self.objects.iter().any(|object| object.state != ObjectState::Same)
            || self.proxies.iter().any(|proxy| proxy.state.differs())
    }

    /// Whether something could not be compared.
    pub fn is_partial(&self) -> bool {
        self.proxies.iter().any(|proxy| !proxy.state.is_compared() || !proxy.not_compared.is_empty())
            || self.gaps.iter().any(|gap| gap.touches_answers)
    }
}

impl From<ComparedObject> for DiffObjectReport {
    fn from(compared: ComparedObject) -> Self {
        let ComparedObject { object, state, changes, before, after, notes } = compared;
        let patch = if state == ObjectState::Same { String::new() } else { unified(&before, &after, 3) };
        Self { object: (&object).into(), state, changes, patch, notes }
    }
}

/// The states of all proxies that the snapshot holds; empty when it holds none. `hosts` restricts the comparison to
/// what calls to these hosts use; empty means all.
pub fn proxy_reports(mesh: &Mesh<'_>, hosts: &[String]) -> Vec<DiffProxyReport> {
    let compared = ProxyComparisons::new(mesh).map(|proxies| proxies.compare_all(hosts)).unwrap_or_default();
    compared.into_iter().map(|(id, proxy)| DiffProxyReport::new(mesh, id, proxy)).collect()
}

impl DiffProxyReport {
    /// Reports the comparison of one proxy.
    pub fn new(mesh: &Mesh<'_>, id: WorkloadId, compared: ComparedProxy) -> Self {
        let ComparedProxy {
            state,
            evidence,
            since,
            is_sync_unknown: _,
            skips_routes: _,
            differences,
            endpoints,
            not_compared,
            other_patches,
        } = compared;
        let workload = mesh.workload(id);
        let differences = differences
            .into_iter()
            .chain(endpoints)
            .map(|difference| DifferenceReport {
                what: difference.what,
                desired: difference.desired,
                live: difference.live,
            })
            .collect();
        Self {
            namespace: workload.namespace().to_string(),
            pod: workload.object.name.to_string(),
            caller_class: Caller::of_workload(mesh, id).class_name(mesh),
            state,
            evidence,
            since,
            differences,
            not_compared,
            other_patches,
        }
    }
}
