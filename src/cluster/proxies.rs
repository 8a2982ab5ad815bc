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

use super::client::Server;
use super::error::{ClusterError, Trouble};
use crate::compare::proxy::SyncView;
use crate::envoy::ADMIN_PORT;
use crate::envoy::counters::{self, Counted};
use crate::envoy::running::{QUESTIONS, Running};
use crate::envoy::sync::{self, Sync};

/// istiod's port for its own state; asked from its own loopback it wants no token.
const ISTIOD_PORT: u16 = 15014;
/// Limit for what istiod is asked.
const ISTIOD_ANSWER: Duration = Duration::from_secs(10);

/// A way to a proxy's admin port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
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
    /// The proxies that are connected, by `pod.namespace`.
    Known(BTreeMap<String, Sync>),
    /// None answers.
    NoAnswer(String),
    /// They may not be asked.
    Forbidden(String),
}

impl SyncState {
    /// What is said of one proxy.
    pub fn of(&self, pod: &PodName) -> SyncView {
        match self {
            Self::Known(proxies) => {
                let found = proxies.get(&format!("{}.{}", pod.pod, pod.namespace));
                found.map_or(SyncView::NotConnected, |sync| SyncView::Connected(sync.clone()))
            }
            Self::NoAnswer(why) => SyncView::NoAnswer(why.clone()),
            Self::Forbidden(why) => SyncView::Unknown(why.clone()),
        }
    }
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<crate::schema::core::Pod>,
}

impl Server {
    /// What one Envoy runs.
    ///
    /// # Errors
    /// No right, no answer within `limit`, or an answer that is not Envoy's.
    pub async fn running(&self, pod: &PodName, via: Via, limit: Duration) -> Result<Running, ClusterError> {
        let answers = self.answers(pod, via, &QUESTIONS, limit).await?;
        Running::read(&answers).map_err(|why| ClusterError::new(Trouble::Server, why))
    }

    /// What many Envoys run, `parallel` at a time, in the order of `pods`. `done` hears of each that was asked.
    pub async fn all_running(
        &self,
        pods: &[PodName],
        via: Via,
        parallel: usize,
        limit: Duration,
        done: &dyn Fn(usize),
    ) -> Vec<Result<Running, ClusterError>> {
        let asked = stream::iter(pods.iter().enumerate())
            .map(|(at, pod)| async move { (at, self.running(pod, via, limit).await) })
            .buffer_unordered(parallel.max(1));
        let mut asked = std::pin::pin!(asked);
        let mut answers: Vec<(usize, Result<Running, ClusterError>)> = Vec::with_capacity(pods.len());
        while let Some(answer) = asked.next().await {
            answers.push(answer);
            done(answers.len());
        }
        answers.sort_by_key(|(at, _)| *at);
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    /// What many Envoys counted for the endpoints of clusters that `wanted` takes, `parallel` at a time, in the order of
    /// `pods`.
    pub async fn all_counters(
        &self,
        pods: &[PodName],
        via: Via,
        parallel: usize,
        limit: Duration,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Vec<Result<Vec<Counted>, ClusterError>> {
        let asked = stream::iter(pods.iter().enumerate())
            .map(|(at, pod)| async move {
                let answers = self.answers(pod, via, &[counters::QUESTION], limit).await;
                let read = answers.and_then(|mut answers| {
                    let body = answers.pop().flatten().unwrap_or_else(|| b"{}".to_vec());
                    counters::read(&body, wanted)
                        .map_err(|error| ClusterError::new(Trouble::Server, format!("{}: {error}", pod.pod)))
                });
                (at, read)
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
        via: Via,
        questions: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Vec<u8>>>, ClusterError> {
        let PodName { namespace, pod } = pod;
        match via {
            Via::PortForward => {
                let answers = self.forwarded(namespace, pod, ADMIN_PORT, questions, limit).await?;
                Ok(answers.into_iter().map(|answer| answer.map(Vec::from)).collect())
            }
            Via::Exec => self.answers_by_exec(namespace, pod, questions, limit).await,
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
            ClusterError::new(Trouble::Silent, format!("{namespace}/{pod} did not answer in {} s", limit.as_secs_f32()))
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
        let parameters = AttachParams::default().container("istio-proxy").stdout(true).stderr(false);
        let mut attached = api.exec(pod, words, &parameters).await.map_err(|error| {
            let text = error.to_string();
            if text.contains("403") {
                return ClusterError::new(Trouble::Forbidden, "the right to run commands in pods is missing")
                    .hint("it is create on pods/exec; the default way, --via port-forward, needs pods/portforward");
            }
            ClusterError::new(Trouble::Unreachable, format!("no command can be run in {namespace}/{pod}: {text}"))
        })?;
        let mut answer = Vec::new();
        if let Some(mut output) = attached.stdout() {
            output
                .read_to_end(&mut answer)
                .await
                .map_err(|error| ClusterError::new(Trouble::Unreachable, error.to_string()))?;
        }
        // The agent prints what Envoy answers, also when there is nothing of what was asked for.
        Ok(answer.starts_with(b"{").then_some(answer))
    }

    /// What the containers of a pod besides its proxy logged in the last seconds; what cannot be read is left out.
    pub async fn application_logs(&self, pod: &PodName, seconds: f64) -> Vec<String> {
        let PodName { namespace, pod } = pod;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let Ok(text) = self.get(&path, ISTIOD_ANSWER).await else { return Vec::new() };
        let Ok(object) = serde_json::from_str::<Pod>(&text) else { return Vec::new() };
        let containers = object.spec.map(|spec| spec.containers).unwrap_or_default();
        let mut logs = Vec::new();
        for container in containers.iter().filter(|one| one.name != "istio-proxy") {
            let path = format!("{path}/log?container={}&sinceSeconds={:.0}", container.name, seconds.ceil().max(1.0));
            logs.extend(self.get(&path, ISTIOD_ANSWER).await.ok());
        }
        logs
    }

    /// What all istiods together say of their proxies.
    pub async fn sync_state(&self, istio_namespace: &str) -> SyncState {
        let path = format!("/api/v1/namespaces/{istio_namespace}/pods?labelSelector=app%3Distiod&limit=100");
        let pods = match self.get(&path, ISTIOD_ANSWER).await {
            Ok(text) => match serde_json::from_str::<Pods>(&text) {
                Ok(pods) => pods.items,
                Err(error) => return SyncState::NoAnswer(error.to_string()),
            },
            Err(error) if error.trouble == Trouble::Forbidden => return SyncState::Forbidden(error.message),
            Err(error) => return SyncState::NoAnswer(error.message),
        };
        let mut known = BTreeMap::new();
        let mut trouble = None;
        let mut answered = false;
        for pod in &pods {
            let name = &pod.metadata.name;
            let asked = self.forwarded(istio_namespace, name, ISTIOD_PORT, &["/debug/syncz"], ISTIOD_ANSWER).await;
            match asked {
                Ok(answers) => match answers.into_iter().next().flatten().map(|body| sync::read(&body)) {
                    Some(Ok(proxies)) => {
                        known.extend(proxies);
                        answered = true;
                    }
                    Some(Err(error)) => trouble = Some((Trouble::Server, error.to_string())),
                    None => trouble = Some((Trouble::Forbidden, format!("{name} has no /debug/syncz"))),
                },
                Err(error) => trouble = Some((error.trouble, error.message)),
            }
        }
        match trouble {
            // A proxy of a silent istiod would look as if it were connected to none.
            None if answered => SyncState::Known(known),
            Some(_) if answered && !known.is_empty() => SyncState::Known(known),
            Some((Trouble::Forbidden, why)) => SyncState::Forbidden(why),
            Some((_, why)) => SyncState::NoAnswer(why),
            None => SyncState::NoAnswer(format!("there is no istiod in {istio_namespace}")),
        }
    }
}
