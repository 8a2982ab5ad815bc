//! Compares all proxies of a snapshot with the objects.

use super::endpoints::SliceEndpoints;
use super::proxy::{ComparedProxy, ProxyState, compare_proxy};
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::mesh::xds::Caller;
use crate::schema::Kind;
use crate::snapshot::live::{LiveProxy, LiveState, ProxyResponse};
use crate::vocabulary::name_list::abbreviate;

/// The proxies of a mesh's snapshot and what they are compared with.
#[derive(Debug)]
pub struct ProxyComparisons<'m> {
    mesh: &'m Mesh<'m>,
    live: &'m LiveState,
    slices: Option<SliceEndpoints>,
}

/// Maximum number of pod names in one text.
const MAX_NAMES: usize = 3;

/// Lists pods as `namespace/name`: the first few, and the number of the others.
pub fn pod_names(mesh: &Mesh<'_>, ids: &[WorkloadId]) -> String {
    let path = |id: &WorkloadId| {
        let workload = mesh.workload(*id);
        format!("{}/{}", workload.namespace(), workload.object.name)
    };
    abbreviate(ids.iter().map(path), MAX_NAMES)
}

impl<'m> ProxyComparisons<'m> {
    /// Returns `None` if the snapshot contains no proxies.
    pub fn new(mesh: &'m Mesh<'m>) -> Option<Self> {
        let live = mesh.snapshot.live.as_ref()?;
        Some(Self { mesh, live, slices: SliceEndpoints::new(mesh) })
    }

    /// Pods whose proxy is part of the snapshot.
    pub fn proxies(&self) -> impl Iterator<Item = (WorkloadId, &'m LiveProxy)> {
        let pods = self.mesh.workload_ids().filter(|id| self.mesh.workload(*id).object.kind == Kind::Pod);
        pods.filter_map(|id| Some((id, self.proxy(id)?)))
    }

    fn proxy(&self, id: WorkloadId) -> Option<&'m LiveProxy> {
        let workload = self.mesh.workload(id);
        self.live.proxy(workload.namespace().as_str(), &workload.object.name)
    }

    /// Compares one proxy; `None` if it is not part of the snapshot. A non-empty `hosts` limits the comparison to the
    /// configuration for these hosts.
    pub fn compare(&self, id: WorkloadId, hosts: &[String]) -> Option<ComparedProxy> {
        let proxy = self.proxy(id)?;
        Some(match &proxy.response {
            ProxyResponse::Running(parts) => {
                let caller = Caller::of_workload(self.mesh, id);
                let running = self.live.running_config(parts);
                let compared = compare_proxy(self.mesh, &caller, &running, &proxy.sync, self.slices.as_ref(), hosts);
                compared.without_transient(&proxy.transient)
            }
            ProxyResponse::Unreachable(reason) => ComparedProxy::with_state(ProxyState::Unreachable, reason.clone()),
            ProxyResponse::NotQueried(reason) => ComparedProxy::with_state(ProxyState::NotCompared, reason.clone()),
        })
    }

    /// Compares all proxies, sorted by namespace and name. For `hosts` see [`Self::compare`].
    pub fn compare_all(&self, hosts: &[String]) -> Vec<(WorkloadId, ComparedProxy)> {
        self.proxies().filter_map(|(id, _)| Some((id, self.compare(id, hosts)?))).collect()
    }
}
