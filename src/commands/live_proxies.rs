//! Selects proxies, and reads what they run.
//!
//! A sample takes proxies from each caller class in turn, so that it represents all of them. While proxies differ from the
//! objects, they are read again, because istiod may be about to send an update.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
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

/// Flags that limit the proxies and select the access to them.
#[derive(Debug, Args)]
pub(super) struct ProxyArgs {
    /// Maximum number of proxies to read, from each caller class in turn (default: all)
    #[arg(long, value_name = "N")]
    pub(super) proxies: Option<usize>,
    #[command(flatten)]
    pub(super) access: AdminAccessArgs,
}

/// Flags for the access to the admin ports of proxies.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct AdminAccessArgs {
    /// Number of proxies to read concurrently
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub(super) parallel: usize,
    /// How to reach the admin ports of the proxies
    #[arg(long, value_name = "MODE", default_value = "port-forward")]
    pub(super) via: AdminAccessMode,
    /// Timeout for each proxy
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = crate::vocabulary::duration::parse)]
    pub(super) proxy_timeout: Duration,
}

/// The values of `--via`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AdminAccessMode {
    /// Port-forward through the API server; requires create on pods/portforward
    PortForward,
    /// Run a command in the proxy container; requires create on pods/exec
    Exec,
}

impl From<AdminAccessMode> for AdminAccess {
    fn from(mode: AdminAccessMode) -> Self {
        match mode {
            AdminAccessMode::PortForward => Self::PortForward,
            AdminAccessMode::Exec => Self::Exec,
        }
    }
}

/// Why a proxy in scope is not queried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SkipReason {
    /// The model does not cover waypoints.
    Waypoint,
    /// `--proxies` limits the number of proxies.
    Limit(usize),
}

impl fmt::Display for SkipReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waypoint => f.write_str("waypoints are not compared"),
            Self::Limit(limit) => write!(f, "skipped because of --proxies {limit}"),
        }
    }
}

/// The proxies to read and those to skip.
pub(super) struct ProxySample {
    pub(super) selected: Vec<WorkloadId>,
    pub(super) skipped: Vec<(WorkloadId, SkipReason)>,
}

/// Selects the proxies to read: at most `limit` of those in scope, from each caller class in turn.
pub(super) fn sample_proxies(
    mesh: &Mesh<'_>,
    in_scope: impl Fn(&workload::Workload) -> bool,
    limit: Option<usize>,
) -> ProxySample {
    let mut classes: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for id in mesh.workload_ids() {
        let pod = mesh.workload(id);
        if pod.object.kind != Kind::Pod || !in_scope(pod) {
            continue;
        }
        match pod.proxy {
            workload::ProxyKind::Sidecar(_) | workload::ProxyKind::Gateway(_) => {
                classes.entry(Caller::of_workload(mesh, id).class_name(mesh)).or_default().push(id);
            }
            workload::ProxyKind::Waypoint(_) => skipped.push((id, SkipReason::Waypoint)),
            _ => {}
        }
    }
    let limit = limit.unwrap_or(usize::MAX);
    let mut selected = Vec::new();
    let largest_class = classes.values().map(Vec::len).max().unwrap_or(0);
    for index in 0..largest_class {
        for id in classes.values().filter_map(|members| members.get(index)) {
            if selected.len() < limit {
                selected.push(*id);
            } else {
                skipped.push((*id, SkipReason::Limit(limit)));
            }
        }
    }
    ProxySample { selected, skipped }
}

pub(super) fn pod_names(mesh: &Mesh<'_>, ids: &[WorkloadId]) -> Vec<PodName> {
    ids.iter().map(|id| pod_name(mesh, *id)).collect()
}

fn pod_name(mesh: &Mesh<'_>, id: WorkloadId) -> PodName {
    let pod = mesh.workload(id);
    PodName { namespace: pod.namespace().to_string(), pod: pod.object.name.to_string() }
}

/// Time between two readings, much more than the 100 ms for which istiod debounces changes (`PILOT_DEBOUNCE_AFTER`).
pub(super) const SETTLE_TIME: Duration = Duration::from_millis(1500);
/// Number of readings after which a remaining difference is reported.
pub(super) const ATTEMPTS: u32 = 3;

/// Which proxies to read, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProxyQuery<'a> {
    /// Read proxies in all namespaces, not only in those in scope.
    pub(super) all_namespaces: bool,
    /// Read only these pods, as `namespace/name`.
    pub(super) only: Option<&'a HashSet<String>>,
    /// Maximum number of proxies.
    pub(super) limit: Option<usize>,
    pub(super) access: AdminAccessArgs,
}

impl ProxyQuery<'_> {
    fn sample(&self, mesh: &Mesh<'_>, scoped: &ScopedSnapshot) -> ProxySample {
        let in_scope = |pod: &workload::Workload| {
            let namespace = pod.namespace().as_str();
            let is_in_namespaces =
                self.all_namespaces || scoped.namespaces.is_empty() || scoped.namespaces.contains(namespace);
            is_in_namespaces && self.only.is_none_or(|only| only.contains(&pod.object.path()))
        };
        sample_proxies(mesh, in_scope, self.limit)
    }
}

/// Reads the configuration of the proxies once, and stores it in the snapshot.
pub(super) async fn read_proxies(
    context: &Context<'_>,
    server: &ApiServer,
    source: &SourceArgs,
    scoped: &mut ScopedSnapshot,
    query: ProxyQuery<'_>,
) {
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let ProxySample { selected, skipped } = query.sample(&mesh, scoped);
    let pods = pod_names(&mesh, &selected);
    let skipped: Vec<(PodName, SkipReason)> =
        skipped.into_iter().map(|(id, reason)| (pod_name(&mesh, id), reason)).collect();
    drop(mesh);
    let AdminAccessArgs { via, parallel, proxy_timeout } = query.access;
    let bar = context.messages.progress_bar("reading proxies");
    bar.set_length(pods.len() as u64);
    let live = RefCell::new(LiveState::new(Env::clock()));
    let sync = server.istiod_sync_state(&context.scope.istio_namespace).await;
    // Each configuration is stored as it arrives, so that equal parts are in memory only once.
    let record = |_: usize, running: Result<RunningConfig, ClusterError>| {
        bar.inc(1);
        match running {
            Ok(running) => live.borrow_mut().record_config(running),
            Err(error) => ProxyResponse::Unreachable(match error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message,
            }),
        }
    };
    let responses = server.running_configs(&pods, via.into(), parallel, proxy_timeout, &record).await;
    bar.finish_and_clear();
    let mut live = live.into_inner();
    let skipped = skipped.into_iter().map(|(pod, reason)| (pod, ProxyResponse::NotQueried(reason.to_string())));
    for (pod, response) in pods.into_iter().zip(responses).chain(skipped) {
        let proxy = LiveProxy { sync: sync.of(&pod), response, counters: (None, None), transient: Vec::new() };
        live.insert(pod.namespace, pod.pod, proxy);
    }
    scoped.snapshot.live = Some(live);
}

/// Reads the proxies, and repeats that with fresh objects while istiod may be about to send an update. A difference that only the
/// last reading shows is transient, because in a large mesh some pods are always starting or stopping.
///
/// # Errors
/// If the cluster cannot be read.
pub(super) async fn read_settled_proxies(
    context: &mut Context<'_>,
    source: &SourceArgs,
    mut scoped: ScopedSnapshot,
    query: ProxyQuery<'_>,
) -> Result<ScopedSnapshot, Failure> {
    let server = context.connect().await?;
    let mut previous: HashMap<String, HashSet<String>> = HashMap::new();
    for attempt in 1..=ATTEMPTS {
        read_proxies(context, &server, source, &mut scoped, query).await;
        let current = pending_differences(context, source, &scoped);
        if current.is_empty() {
            break;
        }
        if attempt == ATTEMPTS {
            mark_transient(&mut scoped, &previous, current);
            break;
        }
        previous = current;
        tokio::time::sleep(SETTLE_TIME).await;
        scoped = source.read(context).await?;
    }
    Ok(scoped)
}

/// The differences of proxies that may still converge, by pod.
fn pending_differences(
    context: &Context<'_>,
    source: &SourceArgs,
    scoped: &ScopedSnapshot,
) -> HashMap<String, HashSet<String>> {
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let compared = ProxyComparisons::new(&mesh).map(|proxies| proxies.compare_all(&[])).unwrap_or_default();
    let may_converge = compared.iter().filter(|(_, proxy)| proxy.may_converge());
    may_converge
        .map(|(id, proxy)| (mesh.workload(*id).object.path(), proxy.all_differences().map(Difference::key).collect()))
        .collect()
}

/// Marks the differences that the previous reading did not show.
fn mark_transient(
    scoped: &mut ScopedSnapshot,
    previous: &HashMap<String, HashSet<String>>,
    current: HashMap<String, HashSet<String>>,
) {
    for (path, differences) in current {
        let is_new = |difference: &String| previous.get(&path).is_none_or(|previous| !previous.contains(difference));
        let Some((namespace, pod)) = path.split_once('/') else { continue };
        if let Some(proxy) = scoped.snapshot.live.as_mut().and_then(|live| live.proxy_mut(namespace, pod)) {
            proxy.transient = differences.into_iter().filter(is_new).collect();
        }
    }
}

/// Like [`read_settled_proxies`], and also reads the endpoint counters before and after.
///
/// # Errors
/// If the cluster cannot be read.
pub(super) async fn read_settled_proxies_with_counters(
    context: &mut Context<'_>,
    source: &SourceArgs,
    scoped: ScopedSnapshot,
    query: ProxyQuery<'_>,
) -> Result<ScopedSnapshot, Failure> {
    let counters_before = read_counters(context, source, &scoped, query).await?;
    let mut scoped = read_settled_proxies(context, source, scoped, query).await?;
    let mut counters_after = read_counters(context, source, &scoped, query).await?;
    let Some(live) = &mut scoped.snapshot.live else { return Ok(scoped) };
    for ((namespace, pod), before) in counters_before {
        let after = counters_after.remove(&(namespace.clone(), pod.clone())).flatten();
        if let Some(proxy) = live.proxy_mut(&namespace, &pod) {
            proxy.counters = (before, after);
        }
    }
    // Pods that started in between.
    for ((namespace, pod), after) in counters_after {
        if let Some(proxy) = live.proxy_mut(&namespace, &pod) {
            proxy.counters = (None, after);
        }
    }
    Ok(scoped)
}

/// The counters of each proxy by namespace and pod, for clusters with at least one request. `None` for an unreachable proxy.
async fn read_counters(
    context: &Context<'_>,
    source: &SourceArgs,
    scoped: &ScopedSnapshot,
    query: ProxyQuery<'_>,
) -> Result<HashMap<(String, String), Option<Vec<EndpointCounters>>>, Failure> {
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let pods = pod_names(&mesh, &query.sample(&mesh, scoped).selected);
    let server = context.connect().await?;
    let AdminAccessArgs { via, parallel, proxy_timeout } = query.access;
    let is_outbound = |cluster: &str| cluster.starts_with("outbound|");
    let counters =
        server.endpoint_counters(&pods, via.into(), parallel, proxy_timeout, &is_outbound, &drop_idle_clusters).await;
    let pods = pods.into_iter().map(|pod| (pod.namespace, pod.pod));
    Ok(pods.zip(counters.into_iter().map(Result::ok)).collect())
}

fn drop_idle_clusters(counters: Vec<EndpointCounters>) -> Vec<EndpointCounters> {
    let used_endpoints = counters.iter().filter(|endpoint| endpoint.requests > 0);
    let used_clusters: HashSet<String> = used_endpoints.map(|endpoint| endpoint.cluster.clone()).collect();
    counters.into_iter().filter(|endpoint| used_clusters.contains(&endpoint.cluster)).collect()
}

/// The failure of a command that needs proxies, when a snapshot or manifests contain none.
pub(super) fn no_saved_proxies() -> Failure {
    Failure::usage("the source does not contain the configuration of proxies")
        .hint("save it with: kubectl grpcmesh snapshot --proxies -o FILE")
}
