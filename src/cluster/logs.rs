//! Logs of proxies through the API server: finding the pods, and streaming their lines.
//!
//! A stream that ends is reopened from the second of its last line. Lines that were emitted before are skipped by their time
//! and a hash. Lines wait in a bounded channel, so that a slow reader slows the servers down instead of filling memory.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use http::Request;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::client::ApiServer;
use super::collect::PageCount;
use super::error::{ClusterError, ClusterErrorKind};
use super::request::percent_encode;
use crate::schema::core::{PROXY_CONTAINER, Pod};
use crate::schema::meta::{ObjectMeta, StringMap};

/// Limit of a list, an object, or opening a stream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause before a stream is reopened. It doubles with each failure, up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Longer lines are truncated.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Selects pods by namespace and labels, or one pod by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSelection {
    /// `None` means all namespaces.
    pub namespace: Option<String>,
    /// Label selector in kubectl's syntax; empty means all pods.
    pub labels: String,
    /// Limits the selection to one pod.
    pub name: Option<String>,
}

/// A pod that runs a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyPod {
    pub namespace: String,
    pub name: String,
    /// Tells apart pods that reuse a name.
    pub uid: String,
    pub ip: Option<String>,
    /// Restarts of the proxy container.
    pub restarts: i64,
    pub labels: StringMap,
}

/// The part of a log to read, as in `kubectl logs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Continue as the log grows.
    pub follow: bool,
    /// Only lines of the last seconds.
    pub since_seconds: Option<u64>,
    /// Only lines after this time, RFC 3339.
    pub since_time: Option<String>,
    /// Only this number of lines from the end.
    pub tail_lines: Option<u64>,
    /// The log of the container instance before the last restart.
    pub previous: bool,
}

/// An event of a log stream. The number is the one passed to [`ApiServer::stream_log`].
#[derive(Debug)]
pub enum LogEvent {
    /// A log line, without the line break and the API server's timestamp.
    Line(usize, Vec<u8>),
    /// The stream failed. It is reopened unless [`LogEvent::End`] follows.
    StreamError(usize, String),
    /// The log ended.
    End(usize),
}

impl ApiServer {
    /// Gets the label selector of a Service, a workload or an Istio Gateway. `group` is the path of its API, such as
    /// `/apis/apps/v1`.
    ///
    /// # Errors
    /// The object does not exist, selects no pods by labels, or may not be read.
    pub async fn pod_selector_of(
        &self,
        namespace: &str,
        group: &str,
        plural: &str,
        name: &str,
    ) -> Result<String, ClusterError> {
        #[derive(Deserialize)]
        struct Object {
            spec: Spec,
        }
        #[derive(Deserialize)]
        struct Spec {
            #[serde(default)]
            selector: serde_json::Value,
        }
        let text = self.get(&format!("{group}/namespaces/{namespace}/{plural}/{name}"), REQUEST_TIMEOUT).await;
        let text = text.map_err(|error| match error.kind {
            ClusterErrorKind::NotFound => error.hint(format!("list them with: kubectl get {plural} -n {namespace}")),
            _ => error,
        })?;
        let object: Object = serde_json::from_str(&text).map_err(|error| self.unexpected_response(&error))?;
        let labels = object.spec.selector.get("matchLabels").unwrap_or(&object.spec.selector);
        let labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap_or_default();
        if labels.is_empty() {
            let message = format!("cannot find the pods of {plural}/{name} in {namespace}: it has no label selector");
            return Err(ClusterError::new(ClusterErrorKind::NotFound, message)
                .hint("name the pods instead (pod/NAME), or select them with -l"));
        }
        Ok(labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
    }

    /// Lists the pods of a selection that run a proxy. Pending pods are excluded: they have no log yet.
    ///
    /// # Errors
    /// The list fails.
    pub async fn list_proxy_pods(&self, selection: &PodSelection) -> Result<Vec<ProxyPod>, ClusterError> {
        let root = match &selection.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
            None => "/api/v1/pods".to_owned(),
        };
        let mut query = "fieldSelector=status.phase%21%3DPending".to_owned();
        if let Some(name) = &selection.name {
            query.push_str(&format!("%2Cmetadata.name%3D{name}"));
        }
        if !selection.labels.is_empty() {
            query.push_str(&format!("&labelSelector={}", percent_encode(&selection.labels)));
        }
        let mut pods = Vec::new();
        let mut next = String::new();
        let mut pages = PageCount::default();
        loop {
            let text = self.get(&format!("{root}?limit=500&{query}{next}"), REQUEST_TIMEOUT).await?;
            let page: PodPage = serde_json::from_str(&text).map_err(|error| self.unexpected_response(&error))?;
            pods.extend(page.items.into_iter().filter_map(proxy_pod));
            match page.metadata.next.filter(|token| !token.is_empty()) {
                Some(token) => {
                    pages.follow(&token, "pods")?;
                    next = format!("&continue={}", percent_encode(&token));
                }
                None => return Ok(pods),
            }
        }
    }

    fn unexpected_response(&self, error: &serde_json::Error) -> ClusterError {
        ClusterError::new(ClusterErrorKind::Server, format!("cannot decode the response of {}: {error}", self.server))
    }

    /// Sends one pod's log to `events` until it ends, or with `range.follow` until the pod is deleted. `number` identifies the
    /// pod in the events.
    pub async fn stream_log(&self, number: usize, pod: &ProxyPod, range: &LogRange, events: mpsc::Sender<LogEvent>) {
        let mut emitted = EmittedLines::default();
        let mut pause = MIN_PAUSE;
        loop {
            let outcome = self.read_stream(number, pod, range, &mut emitted, &events).await;
            if events.is_closed() {
                return;
            }
            match outcome {
                Ok(has_new_lines) => {
                    if !range.follow {
                        break;
                    }
                    pause = if has_new_lines { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
                }
                // The pod was deleted, or its container has no log yet.
                Err(error) if error.kind == ClusterErrorKind::NotFound => break,
                Err(error) => {
                    let _ = events.send(LogEvent::StreamError(number, error.message.clone())).await;
                    let is_permanent = matches!(
                        error.kind,
                        ClusterErrorKind::Forbidden | ClusterErrorKind::Unauthorized | ClusterErrorKind::Config
                    );
                    if is_permanent || !range.follow {
                        break;
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
            tokio::time::sleep(pause).await;
        }
        let _ = events.send(LogEvent::End(number)).await;
    }

    /// Reads one stream to its end. Returns whether it had new lines.
    async fn read_stream(
        &self,
        number: usize,
        pod: &ProxyPod,
        range: &LogRange,
        emitted: &mut EmittedLines,
        events: &mpsc::Sender<LogEvent>,
    ) -> Result<bool, ClusterError> {
        let ProxyPod { namespace, name, .. } = pod;
        let mut url =
            format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={PROXY_CONTAINER}&timestamps=true");
        if range.follow {
            url.push_str("&follow=true");
        }
        if range.previous {
            url.push_str("&previous=true");
        }
        match (emitted.last_second(), &range.since_time, range.since_seconds) {
            (Some(second), ..) => url.push_str(&format!("&sinceTime={}", percent_encode(&second))),
            (None, Some(time), _) => url.push_str(&format!("&sinceTime={}", percent_encode(time))),
            (None, None, Some(seconds)) => url.push_str(&format!("&sinceSeconds={seconds}")),
            (None, None, None) => {}
        }
        if let (None, Some(lines)) = (emitted.last_second(), range.tail_lines) {
            url.push_str(&format!("&tailLines={lines}"));
        }
        let request = Request::get(url).body(Vec::new()).map_err(|error| {
            ClusterError::new(
                ClusterErrorKind::Config,
                format!("cannot request the log of {namespace}/{name}: {error}"),
            )
        })?;
        let limit = self.limit(REQUEST_TIMEOUT);
        let opened = tokio::time::timeout(limit, self.client.request_stream(request)).await;
        let stream = opened.map_err(|_| ClusterError::timeout(limit, &self.server))?;
        let mut stream = std::pin::pin!(stream.map_err(|error| ClusterError::from_log_request(&error, &self.server))?);
        emitted.mark_reopened();
        let mut line = Vec::new();
        let mut has_new_lines = false;
        loop {
            line.clear();
            let is_complete = match next_line(&mut stream, &mut line).await {
                Ok(Some(is_complete)) => is_complete,
                Ok(None) => return Ok(has_new_lines),
                Err(error) => {
                    return Err(ClusterError::new(
                        ClusterErrorKind::Unreachable,
                        format!("cannot read the log of {namespace}/{name}: {error}"),
                    ));
                }
            };
            // The reopened stream repeats an incomplete line as a whole.
            if !is_complete && range.follow {
                return Ok(has_new_lines);
            }
            let Some(text) = emitted.strip_timestamp_if_new(&line) else { continue };
            has_new_lines = true;
            if events.send(LogEvent::Line(number, text.to_vec())).await.is_err() {
                return Ok(true);
            }
        }
    }
}

/// Reads a line without its break. Returns whether it ended in a break, or `None` at the end of the stream. Bytes beyond
/// [`MAX_LINE_BYTES`] are dropped.
async fn next_line(
    stream: &mut (impl futures::AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
) -> std::io::Result<Option<bool>> {
    loop {
        let available = stream.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(false));
        }
        let end = memchr::memchr(b'\n', available);
        let part = available.get(..end.unwrap_or(available.len())).unwrap_or_default();
        let copied = MAX_LINE_BYTES.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..copied).unwrap_or_default());
        let consumed = part.len() + usize::from(end.is_some());
        stream.consume_unpin(consumed);
        if end.is_some() {
            return Ok(Some(true));
        }
    }
}

/// The emitted lines that a reopened stream could repeat.
#[derive(Debug, Default)]
struct EmittedLines {
    /// Timestamp of the last line, as text.
    last_time: String,
    /// Hashes of the lines of the last second.
    hashes: HashSet<u64>,
    /// Whether the stream may still repeat emitted lines.
    is_catching_up: bool,
}

impl EmittedLines {
    /// The second from which a reopened stream starts.
    fn last_second(&self) -> Option<String> {
        self.last_time.get(..19).map(|second| format!("{second}Z"))
    }

    fn mark_reopened(&mut self) {
        self.is_catching_up = !self.last_time.is_empty();
    }

    /// Returns the line without its timestamp, or `None` when it was emitted before. Only a reopened stream repeats lines: an
    /// earlier timestamp alone does not show a repetition, since the clock of the node may be set back.
    fn strip_timestamp_if_new<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let space = line.iter().position(|byte| *byte == b' ').filter(|index| *index >= 20);
        let Some((time, text)) = space.and_then(|space| line.split_at_checked(space)) else { return Some(line) };
        let time = std::str::from_utf8(time).unwrap_or_default();
        let (second, last) = (time.get(..19).unwrap_or_default(), self.last_time.get(..19).unwrap_or_default());
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        if self.is_catching_up && (second < last || self.hashes.contains(&hash)) {
            return None;
        }
        self.is_catching_up = false;
        if second != last {
            self.hashes.clear();
        }
        self.hashes.insert(hash);
        time.clone_into(&mut self.last_time);
        Some(text.strip_prefix(b" ").unwrap_or(text))
    }
}

#[derive(Deserialize)]
struct PodPage {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct PageMeta {
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// Converts a pod that runs a proxy, as a container or as a native sidecar.
fn proxy_pod(pod: Pod) -> Option<ProxyPod> {
    let Pod { metadata, spec, status } = pod;
    spec.containers.iter().chain(&spec.init_containers).find(|container| container.name == PROXY_CONTAINER)?;
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
    let restarts = statuses.filter(|status| status.name == PROXY_CONTAINER).map(|status| status.restart_count).sum();
    let ObjectMeta { name, namespace, uid, labels, .. } = metadata;
    let (namespace, uid) = (namespace.unwrap_or_default(), uid.unwrap_or_default());
    Some(ProxyPod { namespace, name, uid, ip: status.pod_ip, restarts, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reopened_stream_neither_repeats_nor_loses_lines() {
        let mut emitted = EmittedLines::default();
        let line = |nanos: u32, text: &str| format!("2026-11-21T09:00:01.{nanos:09}Z {text}").into_bytes();
        let first = [line(1, "a"), line(2, "b"), line(2, "c")];
        assert_eq!(first.iter().filter_map(|line| emitted.strip_timestamp_if_new(line)).count(), 3);
        assert_eq!(emitted.last_second().as_deref(), Some("2026-11-21T09:00:01Z"));
        emitted.mark_reopened();
        let repeated = [line(1, "a"), line(2, "b"), line(2, "c"), line(2, "d"), line(900, "e")];
        let new: Vec<_> = repeated.iter().filter_map(|line| emitted.strip_timestamp_if_new(line)).collect();
        assert_eq!(new, [b"d", b"e"]);
        emitted.mark_reopened();
        assert_eq!(emitted.strip_timestamp_if_new(b"2026-11-21T09:00:00.5Z old"), None);
        assert_eq!(emitted.strip_timestamp_if_new(b"2026-11-21T09:00:02.5Z new"), Some(&b"new"[..]));
        assert_eq!(emitted.strip_timestamp_if_new(b"no time"), Some(&b"no time"[..]));
        // Lines of a clock that goes back are new.
        assert_eq!(emitted.strip_timestamp_if_new(b"2026-11-21T09:00:01.5Z back"), Some(&b"back"[..]));
    }
}
