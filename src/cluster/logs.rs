//! Logs of proxies through the API server: which pods there are, and their lines as they come.
//!
//! A stream that ends is opened again from the second of the last line; lines that were told already are left out by
//! their time and a hash. Lines wait in a bounded channel, so a slow reader slows the servers down instead of filling
//! memory.

use std::collections::{BTreeMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use futures::AsyncBufReadExt as _;
use http::Request;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use crate::schema::core::{PROXY_CONTAINER, Pod};
use crate::schema::meta::{ObjectMeta, StringMap};

/// Limit for lists and objects.
const ANSWER: Duration = Duration::from_secs(30);
/// Pause before a stream is opened again, doubled each time it fails.
const PAUSE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// A line that is longer is cut.
const LINE_MAX: usize = 1 << 20;

/// Pods by namespace and labels, or one by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSelection {
    /// Namespace; `None` is all of them.
    pub namespace: Option<String>,
    /// Label selector as kubectl takes it; empty is all pods.
    pub labels: String,
    /// Name of one pod.
    pub name: Option<String>,
}

/// A pod with a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProxyPod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Identity: a pod of the same name is another one.
    pub uid: String,
    /// Address.
    pub ip: Option<String>,
    /// How often the proxy was restarted.
    pub restarts: i64,
    /// Labels.
    pub labels: StringMap,
}

/// Which part of a log is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogRange {
    /// Go on as the log grows.
    pub follow: bool,
    /// Only lines of the last so many seconds.
    pub since_seconds: Option<u64>,
    /// Only lines after this time, RFC 3339.
    pub since_time: Option<String>,
    /// Only so many lines from the end.
    pub lines: Option<u64>,
    /// The log of the container before its last restart.
    pub previous: bool,
}

/// What a follower tells.
#[derive(Debug)]
pub enum LogEvent {
    /// A line of a pod's proxy, without line break and time.
    Line(usize, Vec<u8>),
    /// A stream broke, and was opened again or given up.
    Trouble(usize, String),
    /// The log ended.
    End(usize),
}

impl ApiServer {
    /// The label selector of an object: a Service, a workload, an Istio Gateway. `group` is the path of its API, such as
    /// `/apis/apps/v1`.
    ///
    /// # Errors
    /// When the object is not there or may not be read.
    pub async fn selector(
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
        let text = self.get(&format!("{group}/namespaces/{namespace}/{plural}/{name}"), ANSWER).await;
        let text = text.map_err(|error| match error.trouble {
            ClusterErrorKind::NotFound => {
                error.hint(format!("see which there are: kubectl get {plural} -n {namespace}"))
            }
            _ => error,
        })?;
        let object: Object = serde_json::from_str(&text).map_err(|error| self.odd(&error))?;
        let labels = object.spec.selector.get("matchLabels").unwrap_or(&object.spec.selector);
        let labels: BTreeMap<String, String> = serde_json::from_value(labels.clone()).unwrap_or_default();
        if labels.is_empty() {
            let message = format!("{plural}/{name} in {namespace} selects no pods by labels");
            return Err(
                ClusterError::new(ClusterErrorKind::NotFound, message).hint("name its pods, or select them with -l")
            );
        }
        Ok(labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
    }

    /// The pods of a selection that run a proxy.
    ///
    /// # Errors
    /// Those of listing pods.
    pub async fn proxies(&self, selection: &PodSelection) -> Result<Vec<ProxyPod>, ClusterError> {
        let root = match &selection.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/pods"),
            None => "/api/v1/pods".to_owned(),
        };
        let mut query = "fieldSelector=status.phase%21%3DPending".to_owned();
        if let Some(name) = &selection.name {
            query.push_str(&format!("%2Cmetadata.name%3D{name}"));
        }
        if !selection.labels.is_empty() {
            query.push_str(&format!("&labelSelector={}", super::request::encode(&selection.labels)));
        }
        let mut found = Vec::new();
        let mut next = String::new();
        loop {
            let text = self.get(&format!("{root}?limit=500&{query}{next}"), ANSWER).await?;
            let page: PodPage = serde_json::from_str(&text).map_err(|error| self.odd(&error))?;
            found.extend(page.items.into_iter().filter_map(with_proxy));
            match page.metadata.next.filter(|token| !token.is_empty()) {
                Some(token) => next = format!("&continue={}", super::request::encode(&token)),
                None => return Ok(found),
            }
        }
    }

    fn odd(&self, error: &serde_json::Error) -> ClusterError {
        ClusterError::new(ClusterErrorKind::Server, format!("{} answered something odd: {error}", self.server))
    }

    /// Reads one pod's log into `events` until it ends; with `span.follow` until the pod is gone.
    pub async fn follow(&self, number: usize, pod: &ProxyPod, span: &LogRange, events: mpsc::Sender<LogEvent>) {
        let mut told = SeenLines::default();
        let mut pause = PAUSE.0;
        loop {
            let outcome = self.read(number, pod, span, &mut told, &events).await;
            if events.is_closed() {
                return;
            }
            match outcome {
                Ok(progress) => {
                    if !span.follow {
                        break;
                    }
                    pause = if progress { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
                }
                // The pod is gone, or its container has no log yet.
                Err(error) if error.trouble == ClusterErrorKind::NotFound => break,
                Err(error) => {
                    let _ = events.send(LogEvent::Trouble(number, error.message.clone())).await;
                    let lasting = matches!(
                        error.trouble,
                        ClusterErrorKind::Forbidden | ClusterErrorKind::Unauthorized | ClusterErrorKind::Config
                    );
                    if lasting || !span.follow {
                        break;
                    }
                    pause = (pause * 2).min(PAUSE.1);
                }
            }
            tokio::time::sleep(pause).await;
        }
        let _ = events.send(LogEvent::End(number)).await;
    }

    /// One stream; says whether anything new came.
    async fn read(
        &self,
        number: usize,
        pod: &ProxyPod,
        span: &LogRange,
        told: &mut SeenLines,
        events: &mpsc::Sender<LogEvent>,
    ) -> Result<bool, ClusterError> {
        let ProxyPod { namespace, name, .. } = pod;
        let mut url =
            format!("/api/v1/namespaces/{namespace}/pods/{name}/log?container={PROXY_CONTAINER}&timestamps=true");
        if span.follow {
            url.push_str("&follow=true");
        }
        if span.previous {
            url.push_str("&previous=true");
        }
        match (told.second(), &span.since_time, span.since_seconds) {
            (Some(second), ..) => url.push_str(&format!("&sinceTime={}", super::request::encode(&second))),
            (None, Some(time), _) => url.push_str(&format!("&sinceTime={}", super::request::encode(time))),
            (None, None, Some(seconds)) => url.push_str(&format!("&sinceSeconds={seconds}")),
            (None, None, None) => {}
        }
        if let (None, Some(lines)) = (told.second(), span.lines) {
            url.push_str(&format!("&tailLines={lines}"));
        }
        let request = Request::get(url)
            .body(Vec::new())
            .map_err(|error| ClusterError::new(ClusterErrorKind::Config, format!("cannot ask for a log: {error}")))?;
        let opened = tokio::time::timeout(ANSWER, self.client.request_stream(request)).await;
        let stream = opened.map_err(|_| ClusterError::timeout(ANSWER, &self.server))?;
        let mut stream = std::pin::pin!(stream.map_err(|error| ClusterError::of_log(&error, &self.server))?);
        told.reopened();
        let mut line = Vec::new();
        let mut progress = false;
        loop {
            line.clear();
            let whole = match next_line(&mut stream, &mut line).await {
                Ok(Some(whole)) => whole,
                Ok(None) => return Ok(progress),
                Err(error) => {
                    return Err(ClusterError::new(
                        ClusterErrorKind::Unreachable,
                        format!("the log of {namespace}/{name} broke off: {error}"),
                    ));
                }
            };
            // Half a line comes again, whole, when the stream is opened anew.
            if !whole && span.follow {
                return Ok(progress);
            }
            let Some(text) = told.take(&line) else { continue };
            progress = true;
            if events.send(LogEvent::Line(number, text.to_vec())).await.is_err() {
                return Ok(true);
            }
        }
    }
}

/// Reads a line without its break; says whether the break was there, `None` at the end. What is longer than allowed is
/// read past and not kept.
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
        let part = &available[..end.unwrap_or(available.len())];
        let room = LINE_MAX.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(&part[..room]);
        let used = part.len() + usize::from(end.is_some());
        stream.consume_unpin(used);
        if end.is_some() {
            return Ok(Some(true));
        }
    }
}

/// Which lines were told, as far as a stream that is opened again could repeat them.
#[derive(Debug, Default)]
struct SeenLines {
    /// Time of the last line, as it was printed.
    last: String,
    /// Lines of the last second.
    seen: HashSet<u64>,
    /// Whether the stream may still repeat what was told.
    catching_up: bool,
}

impl SeenLines {
    /// The second from which to ask again.
    fn second(&self) -> Option<String> {
        self.last.get(..19).map(|second| format!("{second}Z"))
    }

    /// The stream was opened again.
    fn reopened(&mut self) {
        self.catching_up = !self.last.is_empty();
    }

    /// The line without its time, unless it was told before. A runtime's clock may go back: only a stream that was opened
    /// again repeats lines.
    fn take<'a>(&mut self, line: &'a [u8]) -> Option<&'a [u8]> {
        let space = line.iter().position(|byte| *byte == b' ').filter(|at| *at >= 20);
        let Some(space) = space else { return Some(line) };
        let time = std::str::from_utf8(&line[..space]).unwrap_or_default();
        let (second, last) = (time.get(..19).unwrap_or_default(), self.last.get(..19).unwrap_or_default());
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let hash = hasher.finish();
        if self.catching_up && (second < last || self.seen.contains(&hash)) {
            return None;
        }
        self.catching_up = false;
        if second != last {
            self.seen.clear();
        }
        self.seen.insert(hash);
        time.clone_into(&mut self.last);
        Some(&line[space + 1..])
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

/// The pod, if it runs a proxy: a container, or a restarting init container.
fn with_proxy(pod: Pod) -> Option<ProxyPod> {
    let Pod { metadata, spec, status } = pod;
    spec.containers.iter().chain(&spec.init_containers).find(|one| one.name == PROXY_CONTAINER)?;
    let statuses = status.container_statuses.iter().chain(&status.init_container_statuses);
    let restarts = statuses.filter(|one| one.name == PROXY_CONTAINER).map(|one| one.restart_count).sum();
    let ObjectMeta { name, namespace, uid, labels, .. } = metadata;
    let (namespace, uid) = (namespace.unwrap_or_default(), uid.unwrap_or_default());
    Some(ProxyPod { namespace, name, uid, ip: status.pod_ip, restarts, labels })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_that_is_opened_again_repeats_nothing_and_loses_nothing() {
        let mut told = SeenLines::default();
        let line = |nanos: u32, text: &str| format!("2026-11-21T09:00:01.{nanos:09}Z {text}").into_bytes();
        let first = [line(1, "a"), line(2, "b"), line(2, "c")];
        assert_eq!(first.iter().filter_map(|one| told.take(one)).count(), 3);
        assert_eq!(told.second().as_deref(), Some("2026-11-21T09:00:01Z"));
        told.reopened();
        let again = [line(1, "a"), line(2, "b"), line(2, "c"), line(2, "d"), line(900, "e")];
        let new: Vec<_> = again.iter().filter_map(|one| told.take(one)).collect();
        assert_eq!(new, [b"d", b"e"]);
        told.reopened();
        assert_eq!(told.take(b"2026-11-21T09:00:00.5Z old"), None);
        assert_eq!(told.take(b"2026-11-21T09:00:02.5Z new"), Some(&b"new"[..]));
        assert_eq!(told.take(b"no time"), Some(&b"no time"[..]));
        // A clock that goes back loses nothing.
        assert_eq!(told.take(b"2026-11-21T09:00:01.5Z back"), Some(&b"back"[..]));
    }
}
