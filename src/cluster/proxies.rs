//! The configuration and counters of many Envoys, and istiod's sync state of its proxies.

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
use crate::envoy::config_dump::{CONFIG_DUMP_PATHS, RunningConfig};
use crate::envoy::counters::{self, EndpointCounters};
use crate::envoy::sync::{self, XdsConnection, XdsSyncState};
use crate::schema::core::PROXY_CONTAINER;

/// istiod's debug port. Requests from its loopback address need no token.
const ISTIOD_PORT: u16 = 15014;
/// Limit of one request to istiod or the API server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest output of a command in a container.
const MAX_EXEC_BYTES: u64 = 256 << 20;

/// How a proxy's admin port is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminAccess {
    /// The API server's port-forward: `create` on `pods/portforward`.
    PortForward,
    /// `pilot-agent request` in the proxy's container: `create` on `pods/exec`.
    Exec,
}

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodName {
    pub namespace: String,
    pub pod: String,
}

/// The sync state that all istiod replicas report.
#[derive(Debug)]
pub enum IstiodSyncState {
    /// The connected proxies by `pod.namespace`, and the error of a replica that did not answer.
    Reported(BTreeMap<String, XdsConnection>, Option<String>),
    /// No replica answers, with the reason.
    NoAnswer(String),
    /// The replicas may not be queried, or run elsewhere, with the reason.
    Unknown(String),
}

impl IstiodSyncState {
    /// The sync state of one proxy.
    pub fn of(&self, pod: &PodName) -> XdsSyncState {
        match self {
            Self::Reported(proxies, missing) => match (proxies.get(&format!("{}.{}", pod.pod, pod.namespace)), missing)
            {
                (Some(sync), _) => XdsSyncState::Connected(sync.clone()),
                // The proxy may be connected to the replica that did not answer.
                (None, Some(reason)) => XdsSyncState::Unknown(reason.clone()),
                (None, None) => XdsSyncState::NotConnected,
            },
            Self::NoAnswer(reason) => XdsSyncState::IstiodUnreachable(reason.clone()),
            Self::Unknown(reason) => XdsSyncState::Unknown(reason.clone()),
        }
    }
}

#[derive(Deserialize)]
struct Pods {
    items: Vec<crate::schema::core::Pod>,
}

impl ApiServer {
    /// Gets the running configuration of one Envoy.
    ///
    /// # Errors
    /// The user lacks the permission, Envoy does not answer within `limit`, or the response is not a config dump.
    pub async fn running_config(
        &self,
        pod: &PodName,
        via: AdminAccess,
        limit: Duration,
    ) -> Result<RunningConfig, ClusterError> {
        let responses = self.get_admin_paths(pod, via, &CONFIG_DUMP_PATHS, limit).await?;
        RunningConfig::parse(&responses).map_err(|error| ClusterError::new(ClusterErrorKind::Server, error))
    }

    /// Gets the running configuration of many Envoys, `parallel` at a time. `convert` receives each result with its index in
    /// `pods` as soon as it arrives. The converted values are in the order of `pods`.
    pub async fn running_configs<T>(
        &self,
        pods: &[PodName],
        via: AdminAccess,
        parallel: usize,
        limit: Duration,
        convert: &dyn Fn(usize, Result<RunningConfig, ClusterError>) -> T,
    ) -> Vec<T> {
        let requests = stream::iter(pods.iter().enumerate())
            .map(|(index, pod)| async move { (index, convert(index, self.running_config(pod, via, limit).await)) })
            .buffer_unordered(parallel.max(1));
        let mut values: Vec<(usize, T)> = requests.collect().await;
        values.sort_by_key(|(index, _)| *index);
        values.into_iter().map(|(_, value)| value).collect()
    }

    /// Gets the endpoint counters of many Envoys, `parallel` at a time, in the order of `pods`. Only clusters whose name
    /// `is_wanted_cluster` accepts are read. `select` reduces the counters of each proxy as soon as they arrive.
    pub async fn endpoint_counters(
        &self,
        pods: &[PodName],
        via: AdminAccess,
        parallel: usize,
        limit: Duration,
        is_wanted_cluster: &dyn Fn(&str) -> bool,
        select: &dyn Fn(Vec<EndpointCounters>) -> Vec<EndpointCounters>,
    ) -> Vec<Result<Vec<EndpointCounters>, ClusterError>> {
        let requests = stream::iter(pods.iter().enumerate())
            .map(|(index, pod)| async move {
                let responses = self.get_admin_paths(pod, via, &[counters::CLUSTERS_PATH], limit).await;
                let counters = responses.and_then(|mut responses| {
                    let body = responses.pop().flatten().unwrap_or_else(|| b"{}".to_vec());
                    counters::parse(&body, is_wanted_cluster).map_err(|error| {
                        ClusterError::new(
                            ClusterErrorKind::Server,
                            format!("cannot decode the counters of {}: {error}", pod.pod),
                        )
                    })
                });
                (index, counters.map(select))
            })
            .buffer_unordered(parallel.max(1));
        let mut results: Vec<_> = requests.collect().await;
        results.sort_by_key(|(index, _)| *index);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Gets paths of an admin port, one after another. The body is `None` for a path that is not found.
    async fn get_admin_paths(
        &self,
        pod: &PodName,
        via: AdminAccess,
        paths: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Vec<u8>>>, ClusterError> {
        let PodName { namespace, pod } = pod;
        match via {
            AdminAccess::PortForward => {
                let bodies = self.get_forwarded(namespace, pod, ADMIN_PORT, paths, limit).await?;
                Ok(bodies.into_iter().map(|body| body.map(Vec::from)).collect())
            }
            AdminAccess::Exec => self.get_admin_paths_by_exec(namespace, pod, paths, limit).await,
        }
    }

    async fn get_admin_paths_by_exec(
        &self,
        namespace: &str,
        pod: &str,
        paths: &[&str],
        limit: Duration,
    ) -> Result<Vec<Option<Vec<u8>>>, ClusterError> {
        let timeout = || {
            let seconds = limit.as_secs_f32();
            let message = format!("cannot reach the proxy of {namespace}/{pod}: it did not answer within {seconds} s");
            ClusterError::new(ClusterErrorKind::Timeout, message)
        };
        tokio::time::timeout(limit, async {
            let mut bodies = Vec::with_capacity(paths.len());
            for path in paths {
                bodies.push(self.get_admin_by_exec(namespace, pod, path).await?);
            }
            Ok(bodies)
        })
        .await
        .map_err(|_| timeout())?
    }

    async fn get_admin_by_exec(&self, namespace: &str, pod: &str, path: &str) -> Result<Option<Vec<u8>>, ClusterError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let command = ["pilot-agent", "request", "GET", path.trim_start_matches('/')];
        let parameters = AttachParams::default().container(PROXY_CONTAINER).stdout(true).stderr(false);
        let mut attached = api.exec(pod, command, &parameters).await.map_err(|error| {
            let text = error.to_string();
            if text.contains("403 Forbidden") || matches!(&error, kube::Error::Api(status) if status.code == 403) {
                return ClusterError::new(ClusterErrorKind::Forbidden, "cannot run commands in pods: forbidden").hint(
                    "grant create on pods/exec, or use --via port-forward, which needs create on pods/portforward",
                );
            }
            ClusterError::new(
                ClusterErrorKind::Unreachable,
                format!("cannot run a command in {namespace}/{pod}: {text}"),
            )
        })?;
        let mut body = Vec::new();
        if let Some(output) = attached.stdout() {
            output
                .take(MAX_EXEC_BYTES)
                .read_to_end(&mut body)
                .await
                .map_err(|error| ClusterError::new(ClusterErrorKind::Unreachable, error.to_string()))?;
        }
        if body.starts_with(b"{") {
            return Ok(Some(body));
        }
        // pilot-agent prints Envoy's response without its status code.
        let text = String::from_utf8_lossy(body.get(..200).unwrap_or(&body)).trim().to_owned();
        if text.contains("not found in config dump") {
            return Ok(None);
        }
        let text = if text.is_empty() { "pilot-agent printed no output".to_owned() } else { text };
        Err(ClusterError::new(
            ClusterErrorKind::Unreachable,
            format!("cannot reach the proxy of {namespace}/{pod}: {text}"),
        ))
    }

    /// Gets the logs of a pod's application containers for the last seconds. Logs that cannot be read are skipped.
    pub async fn application_logs(&self, pod: &PodName, seconds: f64) -> Vec<String> {
        let PodName { namespace, pod } = pod;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
        let Ok(text) = self.get(&path, REQUEST_TIMEOUT).await else { return Vec::new() };
        let Ok(object) = serde_json::from_str::<crate::schema::core::Pod>(&text) else { return Vec::new() };
        let mut logs = Vec::new();
        for container in object.spec.containers.iter().filter(|container| container.name != PROXY_CONTAINER) {
            let path = format!("{path}/log?container={}&sinceSeconds={:.0}", container.name, seconds.ceil().max(1.0));
            logs.extend(self.get(&path, REQUEST_TIMEOUT).await.ok());
        }
        logs
    }

    /// Gets the sync state of all proxies from every istiod replica.
    pub async fn istiod_sync_state(&self, istio_namespace: &str) -> IstiodSyncState {
        let path = format!("/api/v1/namespaces/{istio_namespace}/pods?labelSelector=app%3Distiod&limit=100");
        let pods = match self.get(&path, REQUEST_TIMEOUT).await {
            Ok(text) => match serde_json::from_str::<Pods>(&text) {
                Ok(pods) => pods.items,
                Err(error) => return IstiodSyncState::NoAnswer(error.to_string()),
            },
            Err(error) if error.kind == ClusterErrorKind::Forbidden => return IstiodSyncState::Unknown(error.message),
            Err(error) => return IstiodSyncState::NoAnswer(error.message),
        };
        let is_running = |pod: &&crate::schema::core::Pod| pod.status.phase.as_deref() == Some("Running");
        let running: Vec<&str> = pods.iter().filter(is_running).map(|pod| pod.metadata.name.as_str()).collect();
        if pods.is_empty() {
            return IstiodSyncState::Unknown(format!("no istiod pod found in namespace {istio_namespace}"));
        }
        if running.is_empty() {
            return IstiodSyncState::NoAnswer(format!("no istiod pod in namespace {istio_namespace} is running"));
        }
        let names =
            running.iter().map(|name| PodName { namespace: istio_namespace.to_owned(), pod: (*name).to_owned() });
        self.sync_state_of(&names.collect::<Vec<_>>(), REQUEST_TIMEOUT).await
    }

    /// Gets the sync state of all proxies from istiod pods, each within `limit`.
    pub async fn sync_state_of(&self, istiod: &[PodName], limit: Duration) -> IstiodSyncState {
        let requests = istiod.iter().map(|PodName { namespace, pod: name }| async move {
            let paths = ["/debug/syncz"];
            let answers = self.get_forwarded(namespace, name, ISTIOD_PORT, &paths, limit).await?;
            let Some(body) = answers.into_iter().next().flatten() else {
                return Err(ClusterError::new(
                    ClusterErrorKind::Forbidden,
                    format!("istiod pod {name} does not serve /debug/syncz"),
                ));
            };
            sync::parse(&body).map_err(|error| ClusterError::new(ClusterErrorKind::Server, error.to_string()))
        });
        let (mut reported, mut failure) = (None, None);
        for result in futures::future::join_all(requests).await {
            match result {
                Ok(proxies) => reported.get_or_insert_with(BTreeMap::new).extend(proxies),
                Err(error) => failure = Some((error.kind, error.message)),
            }
        }
        match (reported, failure) {
            (Some(reported), failure) => IstiodSyncState::Reported(reported, failure.map(|(_, reason)| reason)),
            (None, Some((ClusterErrorKind::Forbidden, reason))) => IstiodSyncState::Unknown(reason),
            (None, Some((_, reason))) => IstiodSyncState::NoAnswer(reason),
            (None, None) => IstiodSyncState::Unknown("no istiod pod was queried".to_owned()),
        }
    }
}
