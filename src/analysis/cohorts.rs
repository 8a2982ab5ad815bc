//! To whom calls belong: the canary, the backends beside it, or neither.

use std::collections::BTreeSet;

/// Name of a workload, after its namespace.
pub type WorkloadName = (String, String);

/// Backends that are judged together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohort {
    /// Subset, or nothing, and host of the clusters; whatever the port.
    pub destinations: BTreeSet<(String, String)>,
    /// Workloads whose pods serve them, as telemetry calls them.
    pub workloads: BTreeSet<WorkloadName>,
}

impl Cohort {
    /// Whether a cluster is one of it.
    pub fn has_cluster(&self, cluster: &str) -> bool {
        let mut parts = cluster.splitn(4, '|').skip(2);
        let (Some(subset), Some(host)) = (parts.next(), parts.next()) else { return false };
        self.has(subset, host)
    }

    /// Whether a destination is one of it.
    pub fn has(&self, subset: &str, host: &str) -> bool {
        self.destinations.iter().any(|(own, name)| own == subset && name == host)
    }
}

/// Who is who in a shift. What is known of it grows: a backend without any weight is in no Envoy's routes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohorts {
    /// Backends whose share rises.
    pub canary: Cohort,
    /// The others of the same rules.
    pub baseline: Cohort,
    /// Services that calls name: hosts of the rules and of their backends.
    pub hosts: BTreeSet<String>,
    /// Workloads whose calls the rules decide.
    pub obeying: BTreeSet<WorkloadName>,
    /// Whether other rules send calls of theirs to the same backends: then the split of calls says nothing of weights.
    pub shared: bool,
    /// Their pods, as namespace and name.
    pub callers: BTreeSet<WorkloadName>,
}

impl Cohorts {
    /// A workload that serves both: telemetry by workload cannot tell them apart.
    pub fn shared_workload(&self) -> Option<&WorkloadName> {
        self.canary.workloads.intersection(&self.baseline.workloads).next()
    }
}
