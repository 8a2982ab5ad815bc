//! Which proxies are asked: one of each class of callers in turn, so that a part of them stands for all.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cluster::proxies::{PodName, Via};
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::mesh::workload::Proxy;
use crate::report::diff::class;
use crate::schema::{self, Kind};

/// How proxies are asked.
#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// Ask only so many proxies, spread over the classes of callers
    #[arg(long, value_name = "N")]
    pub(super) proxies: Option<usize>,
    /// Proxies that are asked at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) parallel: usize,
    /// How to reach a proxy's admin port
    #[arg(long, value_name = "WAY", default_value = "port-forward")]
    pub(super) via: Way,
    /// Limit for one proxy's answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = schema::duration::parse)]
    pub(super) proxy_timeout: Duration,
}

/// Ways to an admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Way {
    /// The API server's port-forward: needs create on pods/portforward.
    PortForward,
    /// A command in the proxy's container: needs create on pods/exec.
    Exec,
}

impl From<Way> for Via {
    fn from(way: Way) -> Self {
        match way {
            Way::PortForward => Self::PortForward,
            Way::Exec => Self::Exec,
        }
    }
}

/// The proxies to ask, and those that are left out with the reason. `most` bounds them.
pub(super) fn choose(
    mesh: &Mesh<'_>,
    in_scope: impl Fn(&str) -> bool,
    most: Option<usize>,
) -> (Vec<WorkloadId>, Vec<(WorkloadId, String)>) {
    let mut classes: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    let mut others = Vec::new();
    for id in mesh.workload_ids() {
        let workload = mesh.workload(id);
        if workload.object.kind != Kind::Pod || !in_scope(workload.namespace().as_str()) {
            continue;
        }
        match workload.proxy {
            Proxy::Sidecar(_) | Proxy::Gateway(_) => classes.entry(class(mesh, id)).or_default().push(id),
            Proxy::Waypoint(_) => others.push((id, "waypoints are not compared".to_owned())),
            _ => {}
        }
    }
    let most = most.unwrap_or(usize::MAX);
    let mut chosen = Vec::new();
    let longest = classes.values().map(Vec::len).max().unwrap_or(0);
    for at in 0..longest {
        for members in classes.values() {
            let Some(id) = members.get(at) else { continue };
            if chosen.len() < most {
                chosen.push(*id);
            } else {
                others.push((*id, format!("not asked: --proxies {most}")));
            }
        }
    }
    (chosen, others)
}

/// The pods of workloads.
pub(super) fn pods(mesh: &Mesh<'_>, ids: &[WorkloadId]) -> Vec<PodName> {
    let pods = ids.iter().map(|id| mesh.workload(*id));
    pods.map(|one| PodName { namespace: one.namespace().to_string(), pod: one.object.name.to_string() }).collect()
}
