//! Asking many proxies: which of them, one of each class of callers in turn, so that a part of them stands for all, and
//! how often, since istiod may be about to send what differs.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::cluster::ClusterError;
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::{AdminAccess, PodName};
use crate::dataplane::Difference;
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::mesh::ids::WorkloadId;
use crate::mesh::xds::Caller;
use crate::mesh::{self, Mesh, workload};
use crate::schema::Kind;
use crate::snapshot::live::{LiveProxy, LiveState, ProxyResponse};

/// Which proxies are asked, and how.
#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// Ask only so many proxies, spread over the classes of callers
    #[arg(long, value_name = "N")]
    pub(super) proxies: Option<usize>,
    #[command(flatten)]
    pub(super) reach: AdminAccessArgs,
}

/// How proxies are asked.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct AdminAccessArgs {
    /// Proxies that are asked at a time
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) parallel: usize,
    /// How to reach a proxy's admin port
    #[arg(long, value_name = "WAY", default_value = "port-forward")]
    pub(super) via: AdminAccessMode,
    /// Limit for one proxy's answers
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = crate::vocabulary::duration::parse)]
    pub(super) proxy_timeout: Duration,
}

/// Ways to an admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AdminAccessMode {
    /// The API server's port-forward: needs create on pods/portforward.
    PortForward,
    /// A command in the proxy's container: needs create on pods/exec.
    Exec,
}

impl From<AdminAccessMode> for AdminAccess {
    fn from(way: AdminAccessMode) -> Self {
        match way {
            AdminAccessMode::PortForward => Self::PortForward,
            AdminAccessMode::Exec => Self::Exec,
        }
    }
}

/// The proxies to ask, and those that are left out with the reason. `most` bounds them.
pub(super) fn choose(
    mesh: &Mesh<'_>,
    in_scope: impl Fn(&workload::Workload) -> bool,
    most: Option<usize>,
) -> (Vec<WorkloadId>, Vec<(WorkloadId, String)>) {
    let mut classes: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    let mut others = Vec::new();
    for id in mesh.workload_ids() {
        let one = mesh.workload(id);
        if one.object.kind != Kind::Pod || !in_scope(one) {
            continue;
        }
        match one.proxy {
            workload::ProxyKind::Sidecar(_) | workload::ProxyKind::Gateway(_) => {
                classes.entry(Caller::of_workload(mesh, id).class(mesh)).or_default().push(id);
            }
            workload::ProxyKind::Waypoint(_) => others.push((id, "waypoints are not compared".to_owned())),
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

/// istiod waits for changes to settle before it sends: `PILOT_DEBOUNCE_AFTER` is 100 ms, and proxies answer in moments.
pub(super) const SETTLE: Duration = Duration::from_millis(1500);
/// Times that what differs is looked at before it counts.
pub(super) const LOOKS: u32 = 3;

/// Which proxies are asked, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProxyQuery<'a> {
    /// Ask proxies everywhere, and not only those in the namespaces that are shown.
    pub(super) everywhere: bool,
    /// Only these pods, as `namespace/name`.
    pub(super) only: Option<&'a HashSet<String>>,
    /// Most proxies that are asked.
    pub(super) most: Option<usize>,
    /// How they are asked.
    pub(super) reach: AdminAccessArgs,
}

impl ProxyQuery<'_> {
    /// Those that are chosen, and those that are left out.
    fn choose(&self, mesh: &Mesh<'_>, read: &ScopedSnapshot) -> (Vec<WorkloadId>, Vec<(WorkloadId, String)>) {
        let in_scope = |pod: &workload::Workload| {
            let namespace = pod.namespace().as_str();
            let is_shown = self.everywhere || read.namespaces.is_empty() || read.namespaces.contains(namespace);
            is_shown && self.only.is_none_or(|only| only.contains(&pod.object.path()))
        };
        choose(mesh, in_scope, self.most)
    }
}

/// Asks the proxies of what was read, once, and puts what they run beside the objects.
pub(super) async fn ask(
    context: &Context<'_>,
    server: &ApiServer,
    source: &SourceArgs,
    read: &mut ScopedSnapshot,
    question: ProxyQuery<'_>,
) {
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let (chosen, others) = question.choose(&mesh, read);
    let pods = pods(&mesh, &chosen);
    let AdminAccessArgs { via, parallel, proxy_timeout } = question.reach;
    let bar = context.messages.bar("asking proxies");
    bar.set_length(pods.len() as u64);
    let live = RefCell::new(LiveState::new(Env::clock()));
    let sync = server.sync_state(&context.scope.istio_namespace).await;
    let take = |_: usize, running: Result<RunningConfig, ClusterError>| {
        bar.inc(1);
        match running {
            Ok(running) => live.borrow_mut().keep(running),
            Err(error) => ProxyResponse::Silent(match error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message,
            }),
        }
    };
    let answers = server.all_running(&pods, via.into(), parallel, proxy_timeout, &take).await;
    bar.finish_and_clear();
    let mut live = live.into_inner();
    for (pod, answer) in pods.iter().zip(answers) {
        let proxy = LiveProxy { sync: sync.of(pod), answer, counted: (None, None), passing: Vec::new() };
        live.insert(pod.namespace.clone(), pod.pod.clone(), proxy);
    }
    for (id, why) in others {
        let workload = mesh.workload(id);
        let name = PodName { namespace: workload.namespace().to_string(), pod: workload.object.name.to_string() };
        let (sync, answer) = (sync.of(&name), ProxyResponse::NotAsked(why));
        let proxy = LiveProxy { sync, answer, counted: (None, None), passing: Vec::new() };
        live.insert(workload.namespace().to_string(), workload.object.name.to_string(), proxy);
    }
    drop(mesh);
    read.snapshot.live = Some(live);
}

/// Asks them, and again with objects read anew while something may be about to arrive. What differs at the last look
/// and did not at the one before is on its way: a mesh in which pods come and go is never still.
pub(super) async fn settled(
    context: &mut Context<'_>,
    source: &SourceArgs,
    mut read: ScopedSnapshot,
    question: ProxyQuery<'_>,
) -> Result<ScopedSnapshot, Failure> {
    let server = context.connect().await?;
    let mut before: Option<HashMap<String, HashSet<String>>> = None;
    for look in 1.. {
        ask(context, &server, source, &mut read, question).await;
        let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
        let judged = ProxyComparisons::new(&mesh).map(|proxies| proxies.judge_all(&[])).unwrap_or_default();
        let waiting = judged.iter().filter(|(_, judged)| judged.may_settle());
        let now: HashMap<String, HashSet<String>> = waiting
            .map(|(id, judged)| {
                (mesh.workload(*id).object.path(), judged.all_differences().map(Difference::words).collect())
            })
            .collect();
        drop(mesh);
        if now.is_empty() {
            break;
        }
        if look == LOOKS {
            let before = before.unwrap_or_default();
            for (path, differences) in now {
                let old = before.get(&path);
                let passing = differences.into_iter().filter(|one| old.is_none_or(|old| !old.contains(one)));
                let Some((namespace, pod)) = path.split_once('/') else { continue };
                if let Some(proxy) = read.snapshot.live.as_mut().and_then(|live| live.proxy_mut(namespace, pod)) {
                    proxy.passing = passing.collect();
                }
            }
            break;
        }
        before = Some(now);
        tokio::time::sleep(SETTLE).await;
        read = source.read(context).await?;
    }
    Ok(read)
}

/// As [`settled`], and what the proxies counted before and after.
pub(super) async fn settled_with_counters(
    context: &mut Context<'_>,
    source: &SourceArgs,
    read: ScopedSnapshot,
    question: ProxyQuery<'_>,
) -> Result<ScopedSnapshot, Failure> {
    let first = counters(context, source, &read, question).await?;
    let mut read = settled(context, source, read, question).await?;
    let mut last = counters(context, source, &read, question).await?;
    let Some(live) = &mut read.snapshot.live else { return Ok(read) };
    for (pod, counted) in first {
        let last = last.remove(&pod).flatten();
        if let Some(proxy) = live.proxy_mut(&pod.0, &pod.1) {
            proxy.counted = (counted, last);
        }
    }
    for (pod, counted) in last {
        if let Some(proxy) = live.proxy_mut(&pod.0, &pod.1) {
            proxy.counted = (None, counted);
        }
    }
    Ok(read)
}

/// What the proxies counted for clusters that they ever used, by namespace and pod; `None` of those that do not answer.
async fn counters(
    context: &Context<'_>,
    source: &SourceArgs,
    read: &ScopedSnapshot,
    question: ProxyQuery<'_>,
) -> Result<HashMap<(String, String), Option<Vec<EndpointCounters>>>, Failure> {
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let (chosen, _) = question.choose(&mesh, read);
    let pods = pods(&mesh, &chosen);
    let server = context.connect().await?;
    let AdminAccessArgs { via, parallel, proxy_timeout } = question.reach;
    let wanted = |cluster: &str| cluster.starts_with("outbound|");
    let answers = server.all_counters(&pods, via.into(), parallel, proxy_timeout, &wanted, &used).await;
    Ok(pods.into_iter().map(|pod| (pod.namespace, pod.pod)).zip(answers.into_iter().map(Result::ok)).collect())
}

/// The clusters that were ever used.
fn used(counted: Vec<EndpointCounters>) -> Vec<EndpointCounters> {
    let clusters: HashSet<String> = counted.iter().filter(|one| one.total > 0).map(|one| one.cluster.clone()).collect();
    counted.into_iter().filter(|one| clusters.contains(&one.cluster)).collect()
}
