//! The proxies of a snapshot, judged: for each pod of which something is known, how it stands to the objects.

use super::endpoints::SliceEndpoints;
use super::proxy::{ComparedProxy, ProxyState, judge};
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::mesh::xds::Caller;
use crate::schema::Kind;
use crate::schema::string_list::few;
use crate::snapshot::live::{LiveProxy, LiveState, ProxyResponse};

/// Judges the proxies of one mesh.
#[derive(Debug)]
pub struct ProxyComparisons<'m> {
    mesh: &'m Mesh<'m>,
    live: &'m LiveState,
    slices: Option<SliceEndpoints>,
}

/// Pods that are named of those that stand alike.
const NAMED: usize = 3;

/// Names of pods: the first few, and how many more.
pub fn names(mesh: &Mesh<'_>, ids: &[WorkloadId]) -> String {
    let path = |id: &WorkloadId| {
        let one = mesh.workload(*id);
        format!("{}/{}", one.namespace(), one.object.name)
    };
    few(ids.iter().map(path), NAMED)
}

impl<'m> ProxyComparisons<'m> {
    /// Those of a mesh's snapshot; `None` when nobody was asked.
    pub fn new(mesh: &'m Mesh<'m>) -> Option<Self> {
        let live = mesh.snapshot.live.as_ref()?;
        Some(Self { mesh, live, slices: SliceEndpoints::new(mesh) })
    }

    /// Pods of which something is known, with that.
    pub fn known(&self) -> impl Iterator<Item = (WorkloadId, &'m LiveProxy)> {
        let pods = self.mesh.workload_ids().filter(|id| self.mesh.workload(*id).object.kind == Kind::Pod);
        pods.filter_map(|id| Some((id, self.proxy(id)?)))
    }

    fn proxy(&self, id: WorkloadId) -> Option<&'m LiveProxy> {
        let workload = self.mesh.workload(id);
        self.live.proxy(workload.namespace().as_str(), &workload.object.name)
    }

    /// How one stands; `None` when nothing is known of it. With hosts in `only`, just what leads to them.
    pub fn judge(&self, id: WorkloadId, only: &[String]) -> Option<ComparedProxy> {
        let proxy = self.proxy(id)?;
        Some(match &proxy.answer {
            ProxyResponse::Runs(parts) => {
                let caller = Caller::of_workload(self.mesh, id);
                let judged =
                    judge(self.mesh, &caller, &self.live.running(parts), &proxy.sync, self.slices.as_ref(), only);
                judged.without_passing(&proxy.passing)
            }
            ProxyResponse::Silent(why) => ComparedProxy::without(ProxyState::Unreachable, why.clone()),
            ProxyResponse::NotAsked(why) => ComparedProxy::without(ProxyState::NotCompared, why.clone()),
        })
    }

    /// How all of them stand, by namespace and name.
    pub fn judge_all(&self, only: &[String]) -> Vec<(WorkloadId, ComparedProxy)> {
        self.known().filter_map(|(id, _)| Some((id, self.judge(id, only)?))).collect()
    }
}
