//! Envoys, prompts and a clock for the cluster in memory.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use jiff::Timestamp;

use super::super::super::live_proxies::AdminAccessArgs;
use super::super::world::{Clock, CounterResults, PendingAnswer, Prompter, Proxies, RecordConfig};
use super::fake_cluster::{Envoys, FakeCluster};
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::{IstiodSyncState, PodName};
use crate::cluster::{ClusterError, ClusterErrorKind};
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::envoy::sync::XdsConnection;
use crate::mesh::xds::{Caller, ProxyConfig};
use crate::mesh::{self, ResolveOptions};
use crate::schema::kind::KINDS;
use crate::snapshot::live::ProxyResponse;
use crate::snapshot::{Object, Snapshot, SourceKind};

/// Envoys that run what the objects of the cluster say.
pub(super) struct FakeProxies {
    pub(super) cluster: FakeCluster,
}

impl FakeProxies {
    /// The configuration of a pod's Envoy.
    fn running_config(&self, pod: &PodName) -> Result<RunningConfig, ClusterError> {
        let (objects, envoys) = {
            let cluster = self.cluster.lock();
            (cluster.objects_of_envoys(), cluster.envoys)
        };
        if envoys == Envoys::Unreachable {
            return Err(unreachable(pod));
        }
        let mut snapshot = Snapshot::new(SourceKind::Cluster);
        for object in &objects {
            let text = |pointer: &str| object.pointer(pointer).and_then(|value| value.as_str()).unwrap_or_default();
            let info = KINDS.iter().find(|info| info.name == text("/kind") && !info.group.contains("gateway")).unwrap();
            let body = serde_json::value::to_raw_value(object).unwrap();
            let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
            snapshot.insert(Object::new(info.kind, text("/apiVersion"), namespace, name, &body).unwrap());
        }
        let mesh = mesh::resolve(&snapshot, &ResolveOptions::default());
        let is_pod =
            |id: &mesh::ids::WorkloadId| mesh.workload(*id).object.path() == format!("{}/{}", pod.namespace, pod.pod);
        let id = mesh.workload_ids().find(is_pod).ok_or_else(|| unreachable(pod))?;
        let compiled = ProxyConfig::new(&mesh, Caller::of_workload(&mesh, id));
        let is_rejecting = envoys == Envoys::Reject && self.cluster.lock().weights() != [90, 10];
        let rejected = is_rejecting.then(|| ("50051".to_owned(), "the filter is unknown".to_owned()));
        Ok(RunningConfig {
            routes: compiled.route_tables().into_iter().map(|compiled| compiled.table).collect(),
            clusters: compiled.clusters().into_iter().map(|compiled| compiled.cluster).collect(),
            rejected: rejected.into_iter().collect(),
            ..RunningConfig::default()
        })
    }
}

fn unreachable(pod: &PodName) -> ClusterError {
    ClusterError::new(ClusterErrorKind::Unreachable, format!("cannot reach the proxy of {}/{}", pod.namespace, pod.pod))
}

impl Proxies for FakeProxies {
    fn read_configs<'a>(
        &'a self,
        _: &'a ApiServer,
        pods: &'a [PodName],
        _: AdminAccessArgs,
        record: &'a RecordConfig<'a>,
    ) -> LocalBoxFuture<'a, Vec<ProxyResponse>> {
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            pods.iter().enumerate().map(|(index, pod)| record(index, self.running_config(pod))).collect()
        }
        .boxed_local()
    }

    fn read_sync_state<'a>(
        &'a self,
        _: &'a ApiServer,
        istiod: &'a [PodName],
        limit: Duration,
    ) -> LocalBoxFuture<'a, IstiodSyncState> {
        async move {
            if self.cluster.lock().istiod_stopped {
                tokio::time::sleep(limit).await;
                return IstiodSyncState::NoAnswer(format!("it did not answer within {} s", limit.as_secs()));
            }
            assert_eq!(istiod.len(), 1, "the mesh has one istiod");
            let pods = ["checkout-v1-0.shop", "checkout-v2-0.shop", "web-0.web"];
            let synced = pods.map(|pod| (pod.to_owned(), XdsConnection::default()));
            IstiodSyncState::Reported(synced.into(), None)
        }
        .boxed_local()
    }

    fn read_counters<'a>(
        &'a self,
        _: &'a ApiServer,
        pods: &'a [PodName],
        _: AdminAccessArgs,
        is_wanted: &'a dyn Fn(&str) -> bool,
    ) -> LocalBoxFuture<'a, CounterResults> {
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut cluster = self.cluster.lock();
            let is_away = cluster.envoys == Envoys::Unreachable;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "counts are small and positive"
            )]
            let [v1, v1_errors, v2, v2_errors] = cluster.count_calls().map(|count| count as u64);
            let of = |pod: &PodName| {
                if is_away {
                    return Err(unreachable(pod));
                }
                if pod.pod != "web-0" {
                    return Ok(Vec::new());
                }
                let versions = [("v1", "10.0.0.1", v1, v1_errors), ("v2", "10.0.0.2", v2, v2_errors)];
                let counters = versions.map(|(subset, address, requests, errors)| EndpointCounters {
                    cluster: format!("outbound|50051|{subset}|checkout.shop.svc.cluster.local"),
                    address: format!("{address}:50051"),
                    requests,
                    successes: requests - errors,
                    errors,
                    is_healthy: true,
                    ..EndpointCounters::default()
                });
                Ok(counters.into_iter().filter(|endpoint| is_wanted(&endpoint.cluster)).collect())
            };
            pods.iter().map(of).collect()
        }
        .boxed_local()
    }
}

/// An answer to a prompt.
#[derive(Debug, Clone)]
pub(super) enum ScriptedAnswer {
    /// After a delay: yes, or the item with this index.
    Choose(Duration, usize),
    No,
    /// A line of text.
    Line(&'static str),
    /// The user presses Ctrl-C in the prompt.
    Cancel,
    /// The user never answers.
    Never,
}

/// Answers prompts in order, and adds the questions to stderr.
pub(super) struct FakePrompter {
    answers: RefCell<VecDeque<ScriptedAnswer>>,
    cluster: FakeCluster,
}

impl FakePrompter {
    pub(super) fn new(answers: Vec<ScriptedAnswer>, cluster: FakeCluster) -> Self {
        Self { answers: RefCell::new(answers.into()), cluster }
    }

    fn next(&self, question: &str) -> ScriptedAnswer {
        self.cluster.lock().requests.push(format!("ASK {question}"));
        self.answers.borrow_mut().pop_front().unwrap_or(ScriptedAnswer::Never)
    }
}

impl Prompter for FakePrompter {
    fn confirm(&self, question: String) -> PendingAnswer<bool> {
        let answer = self.next(&question);
        async move {
            match answer {
                ScriptedAnswer::Choose(delay, _) => {
                    tokio::time::sleep(delay).await;
                    Ok(Some(true))
                }
                ScriptedAnswer::No => Ok(Some(false)),
                ScriptedAnswer::Line(_) => panic!("a line is no answer to {question}"),
                ScriptedAnswer::Cancel => Err(io::ErrorKind::Interrupted.into()),
                ScriptedAnswer::Never => std::future::pending().await,
            }
        }
        .boxed_local()
    }

    fn choose(&self, question: String, items: Vec<String>) -> PendingAnswer<usize> {
        let answer = self.next(&format!("{question} {}", items.join(" | ")));
        async move {
            match answer {
                ScriptedAnswer::Choose(delay, index) => {
                    tokio::time::sleep(delay).await;
                    Ok(Some(index))
                }
                ScriptedAnswer::No => Ok(None),
                ScriptedAnswer::Line(_) => panic!("a line is no answer to {question}"),
                ScriptedAnswer::Cancel => Err(io::ErrorKind::Interrupted.into()),
                ScriptedAnswer::Never => std::future::pending().await,
            }
        }
        .boxed_local()
    }

    fn line(&self, question: String, check: fn(&str) -> Result<(), String>) -> PendingAnswer<String> {
        let answer = self.next(&question);
        async move {
            match answer {
                ScriptedAnswer::Line(text) => {
                    check(text).unwrap();
                    Ok(Some(text.to_owned()))
                }
                answer => panic!("{answer:?} is no answer to {question}"),
            }
        }
        .boxed_local()
    }

    fn restore(&self) {}
}

/// A wall clock that moves with the paused time.
pub(super) struct FakeClock {
    pub(super) cluster: FakeCluster,
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-11-30T12:00:00Z".parse().unwrap();
        start.checked_add(self.cluster.lock().start.elapsed()).unwrap()
    }

    fn unique_id(&self) -> String {
        let mut cluster = self.cluster.lock();
        cluster.sessions += 1;
        format!("session-{}", cluster.sessions)
    }
}
