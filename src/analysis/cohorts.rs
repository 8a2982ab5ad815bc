//! Which clusters, workloads and callers belong to the canary, to the baseline, or to neither.

use std::collections::BTreeSet;

/// A workload or pod: namespace and name.
pub type WorkloadName = (String, String);

/// Backends that are judged together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohort {
    /// Subset (empty for none) and host of the clusters, on any port.
    pub destinations: BTreeSet<(String, String)>,
    /// Workloads whose pods serve the clusters, named as in `destination_workload`.
    pub workloads: BTreeSet<WorkloadName>,
}

impl Cohort {
    /// Whether an Envoy cluster name such as `outbound|50051|v2|checkout.shop.svc.cluster.local` belongs to it.
    pub fn contains_cluster(&self, cluster: &str) -> bool {
        let mut parts = cluster.splitn(4, '|').skip(2);
        let (Some(subset), Some(host)) = (parts.next(), parts.next()) else { return false };
        self.contains_destination(subset, host)
    }

    /// Whether a subset (empty for none) of a host belongs to it.
    pub fn contains_destination(&self, subset: &str, host: &str) -> bool {
        self.destinations.iter().any(|(own_subset, own_host)| own_subset == subset && own_host == host)
    }
}

/// Canary, baseline and callers of a shift. It only grows: a backend with weight 0 is in no Envoy's routes, so it first
/// appears once the shift gives it a share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cohorts {
    /// Backends whose share rises.
    pub canary: Cohort,
    /// The other backends of the same rules.
    pub baseline: Cohort,
    /// Hosts that calls name: those of the rules and of their backends.
    pub hosts: BTreeSet<String>,
    /// Workloads of the affected proxies.
    pub affected_workloads: BTreeSet<WorkloadName>,
    /// Whether other rules send calls to the same backends. The observed split then says nothing about the weights.
    pub has_shared_backends: bool,
    /// Pods of the affected proxies.
    pub caller_pods: BTreeSet<WorkloadName>,
}

impl Cohorts {
    /// A workload that serves canary and baseline: metrics by workload cannot separate the two.
    pub fn common_workload(&self) -> Option<&WorkloadName> {
        self.canary.workloads.intersection(&self.baseline.workloads).next()
    }
}
