//! What many Envoys run, and what istiod says of them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::AttachParams;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::envoy::ADMIN_PORT;
use crate::envoy::config_dump::{QUESTIONS, RunningConfig};
use crate::envoy::counters::{self, EndpointCounters};
use crate::envoy::sync::{self, XdsConnection, XdsSyncState};
use crate::schema::core::PROXY_CONTAINER;

/// istiod's port for its own state; asked from its own loopback it wants no token.
const ISTIOD_PORT: u16 = 15014;
/// Limit for one answer of istiod or of the API server.
const ANSWER: Duration = Duration::from_secs(10);

/// Largest answer of a command in a container.
const EXEC_LARGEST: u64 = 256 << 20;

/// A way to a proxy's admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAccess {
    /// The API server's port-forward: `create` on `pods/portforward`.
    PortForward,
    /// The agent's own client in the proxy's container: `create` on `pods/exec`.
    Exec,
}

/// A pod to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub pod: String,
}

/// What all istiods together say.
#[derive(Debug)]
pub enum SyncState {
    /// The proxies that are connected, by `pod.namespace`, and why some istiod is not among those that told.
    Known(BTreeMap<String, XdsConnection>, Option<String>),
    /// None answers.
    NoAnswer(String),
    /// They may not be asked, or are elsewhere.
    Unknown(String),
}

impl SyncState {
    /// What is said of one proxy.
    pub fn of(&self, pod: &PodName) -> XdsSyncState {
        match self {
            Self::Known(proxies, missing) => match (proxies.get(&format!("{}.{}", pod.pod, pod.namespace)), missing) {
                (Some(sync), _) => XdsSyncState::Connected(sync.clone()),
                // It may be connected to the one that did not answer.
                (None, Some(why)) => XdsSyncState::Unknown(why.clone()),
                (None, None) => XdsSyncState::NotConnected,
            },
            Self::NoAnswer(why) => XdsSyncState::NoAnswer(why.clone()),
            Self::Unknown(why) => XdsSyncState::Unknown(why.clone()),
        }
    }
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<crate::schema::core::Pod>,
}

impl ApiServer {
    /// What one Envoy runs.
    ///
    /// # Errors
    /// No right, no answer within `limit`, or an answer that is not Envoy's.
    pub async fn running(
        &self,
        pod: &PodName,
        via: AdminAccess,
        limit: Duration,
    ) -> Result<RunningConfig, ClusterError> {
        let answers = self.answers(pod, via, &QUESTIONS, limit).await?;
        RunningConfig::read(&answers).map_err(|why| ClusterError::new(ClusterErrorKind::Server, why))
    }

    /// What many Envoys run, `parallel` at a time. `made` makes something of each as it comes, with its place in `pods`;
    /// that is given in the order of `pods`.
    pub async fn all_running<T>(
        &self,
        pods: &[PodName],
        via: AdminAccess,
        parallel: usize,
        limit: Duration,
        made: &dyn Fn(usize, Result<RunningConfig, ClusterError>) -> T,
    ) -> Vec<T> {
        let asked = stream::iter(pods.iter().enumerate())
            .map(|(at, pod)| async move { (at, made(at, self.running(pod, via, limit).await)) })
            .buffer_unordered(parallel.max(1));
        let mut found: Vec<(usize, T)> = asked.collect().await;
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, one)| one).collect()
    }

    /// What many Envoys counted for the endpoints of clusters that `wanted` takes, `parallel` at a time, in the order of
    /// `pods`. `kept` chooses from each proxy's readings as they come.
    pub async fn all_counters(
        &self,
        pods: &[PodName],
        via: AdminAccess,
        parallel: usize,
        limit: Duration,
        wanted: &dyn Fn(&str) -> bool,
        kept: &dyn Fn(Vec<EndpointCounters>) -> Vec<EndpointCounters>,
    ) -> Vec<Result<Vec<EndpointCounters>, ClusterError>> {
        let asked = stream::iter(pods.iter().enumerate())
            .map(|(at, pod)| async move {
                let answers = self.answers(pod, via, &[counters::QUESTION], limit).await;
                let read = answers.and_then(|mut answers| {
                    let body = answers.pop().flatten().unwrap_or_else(|| b"{}".to_vec());
                    counters::read(&body, wanted)
                        .map_err(|error| ClusterError::new(ClusterErrorKind::Server, format!("{}: {error}", pod.pod)))
                });
                (at, read.map(kept))
            })
            .buffer_unordered(parallel.max(1));
        let mut answers: Vec<_> = asked.collect().await;
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// The answers of an admin port to questions, one after another; `None` where there is nothing.
    async fn answers(
        &self,
        pod: &PodName,
        via: AdminAccess,
        questions: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Vec<u8>>>, ClusterError> {
        let PodName { namespace, pod } = pod;
        match via {
            AdminAccess::PortForward => {
                let answers = self.forwarded(namespace, pod, ADMIN_PORT, questions, limit).await?;
                Ok(answers.into_iter().map(|answer| answer.map(Vec::from)).collect())
            }
            AdminAccess::Exec => self.answers_by_exec(namespace, pod, questions, limit).await,
        }
    }

    async fn answers_by_exec(
        &self,
        namespace: &str,
        pod: &str,
        questions: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Vec<u8>>>, ClusterError> {
        let silent = || {
            ClusterError::new(
                ClusterErrorKind::Silent,
                format!("{namespace}/{pod} did not answer in {} s", limit.as_secs_f32()),
            )
        };
        tokio::time::timeout(limit, async {
            let mut answers = Vec::with_capacity(questions.len());
            for path in questions {
                answers.push(self.ask_by_exec(namespace, pod, path).await?);
            }
            Ok(answers)
        })
        .await
        .map_err(|_| silent())?
    }

    async fn ask_by_exec(&self, namespace: &str, pod: &str, path: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let words = ["pilot-agent", "request", "GET", path.trim_start_matches('/')];
        let parameters = AttachParams::default().container(PROXY_CONTAINER).stdout(true).stderr(false);
        let mut attached = api.exec(pod, words, &parameters).await.map_err(|error| {
            let text = error.to_string();
            if text.contains("403 Forbidden") || matches!(&error, kube::Error::Api(status) if status.code == 403) {
                return ClusterError::new(ClusterErrorKind::Forbidden, "the right to run commands in pods is missing")
                    .hint("it is create on pods/exec; the default way, --via port-forward, needs pods/portforward");
            }
            ClusterError::new(
                ClusterErrorKind::Unreachable,
                format!("no command can be run in {namespace}/{pod}: {text}"),
            )
        })?;
        let mut answer = Vec::new();
        if let Some(output) = attached.stdout() {
            output
                .take(EXEC_LARGEST)
                .read_to_end(&mut answer)
                .await
                .map_err(|error| ClusterError::new(ClusterErrorKind::Unreachable, error.to_string()))?;
        }
        if answer.starts_with(b"{") {
            return Ok(Some(answer));
        }
        // The agent prints what Envoy answers, also when there is nothing of what was asked for.
        let text = String::from_utf8_lossy(&answer[..answer.len().min(200)]).trim().to_owned();
        if text.contains("not found in config dump") {
            return Ok(None);
        }
        let text = if text.is_empty() { "the agent printed nothing".to_owned() } else { text };
        Err(ClusterError::new(
            ClusterErrorKind::Unreachable,
            format!("the proxy of {namespace}/{pod} cannot be asked: {text}"),
        ))
    }

    /// What the containers of a pod besides its proxy logged in the last seconds; what cannot be read is left out.
    pub async fn application_logs(&self, pod: &PodName, seconds: f64) -> Vec<String> {
        let PodName { namespace, pod } = pod;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let Ok(text) = self.get(&path, ANSWER).await else { return Vec::new() };
        let Ok(object) = serde_json::from_str::<crate::schema::core::Pod>(&text) else { return Vec::new() };
        let mut logs = Vec::new();
        for container in object.spec.containers.iter().filter(|one| one.name != PROXY_CONTAINER) {
            let path = format!("{path}/log?container={}&sinceSeconds={:.0}", container.name, seconds.ceil().max(1.0));
            logs.extend(self.get(&path, ANSWER).await.ok());
        }
        logs
    }

    /// What all istiods together say of their proxies.
    pub async fn sync_state(&self, istio_namespace: &str) -> SyncState {
        let path = format!("/api/v1/namespaces/{istio_namespace}/pods?labelSelector=app%3Distiod&limit=100");
        let pods = match self.get(&path, ANSWER).await {
            Ok(text) => match serde_json::from_str::<Pods>(&text) {
                Ok(pods) => pods.items,
                Err(error) => return SyncState::NoAnswer(error.to_string()),
            },
            Err(error) if error.trouble == ClusterErrorKind::Forbidden => return SyncState::Unknown(error.message),
            Err(error) => return SyncState::NoAnswer(error.message),
        };
        let runs = |pod: &&crate::schema::core::Pod| pod.status.phase.as_deref() == Some("Running");
        let running: Vec<&str> = pods.iter().filter(runs).map(|pod| pod.metadata.name.as_str()).collect();
        if pods.is_empty() {
            return SyncState::Unknown(format!("there is no istiod in {istio_namespace}"));
        }
        if running.is_empty() {
            return SyncState::NoAnswer(format!("no istiod in {istio_namespace} runs"));
        }
        let asked = running.iter().map(|name| async move {
            let paths = ["/debug/syncz"];
            let answers = self.forwarded(istio_namespace, name, ISTIOD_PORT, &paths, ANSWER).await?;
            let Some(body) = answers.into_iter().next().flatten() else {
                return Err(ClusterError::new(ClusterErrorKind::Forbidden, format!("{name} has no /debug/syncz")));
            };
            sync::read(&body).map_err(|error| ClusterError::new(ClusterErrorKind::Server, error.to_string()))
        });
        let (mut known, mut trouble) = (None, None);
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(proxies) => known.get_or_insert_with(BTreeMap::new).extend(proxies),
                Err(error) => trouble = Some((error.trouble, error.message)),
            }
        }
        match (known, trouble) {
            (Some(known), trouble) => SyncState::Known(known, trouble.map(|(_, why)| why)),
            (None, Some((ClusterErrorKind::Forbidden, why))) => SyncState::Unknown(why),
            (None, Some((_, why))) => SyncState::NoAnswer(why),
            (None, None) => SyncState::Unknown("no istiod was asked".to_owned()),
        }
    }
}
