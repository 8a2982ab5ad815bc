//! Counts the calls of a canary analysis, from Prometheus, the callers' Envoys, or their access logs.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::Instant;

use futures::StreamExt as _;

use super::super::live_proxies::AdminAccessArgs;
use super::analysis_args::{AnalysisArgs, AnalysisMode};
use super::world::{Clock, Proxies};
use crate::accesslog::format::LogFormat;
use crate::accesslog::{LogLine, LogReader};
use crate::analysis::access_logs::LoggedCalls;
use crate::analysis::cohorts::Cohorts;
use crate::analysis::window::{FailureCriteria, Window};
use crate::analysis::{AnalysisSource, counters, prometheus};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cluster::client::ApiServer;
use crate::cluster::logs::{LogEvent, LogRange, PodSelection, ProxyPod};
use crate::cluster::prometheus::PrometheusClient;
use crate::cluster::proxies::PodName;
use crate::envoy::counters::EndpointCounters;
use crate::shift::machine::WindowResult;

/// How long the access logs of one window may be read.
const LOG_READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Log lines that may wait to be counted.
const LOG_CHANNEL_CAPACITY: usize = 1024;

/// A source that is ready to be read.
enum MetricsSource {
    Prometheus(Box<PrometheusClient>),
    Envoy,
    Logs(Arc<[LogFormat]>),
}

/// The state of a source at one moment.
enum MetricsReading {
    Series(prometheus::SeriesValues),
    Counters(CountersByCaller),
    /// The time from which logs are read at the end of the window, RFC 3339.
    LogsSince(String),
}

/// Counters of the callers' Envoys, by namespace and name of their pods.
type CountersByCaller = HashMap<(String, String), Vec<EndpointCounters>>;

/// Where the settings of access logs are.
#[derive(Debug, Clone)]
pub(super) struct LogSettingsScope {
    pub(super) istio_namespace: String,
    pub(super) revision: Option<String>,
    pub(super) namespace: String,
}

/// A source of call counts, and what it counts.
pub(super) struct Metrics {
    source: MetricsSource,
    criteria: FailureCriteria,
    max_p99: Option<Duration>,
    access: AdminAccessArgs,
    logs: LogSettingsScope,
    pub(super) cohorts: Cohorts,
    /// The first reading of the window, and when it was taken.
    start: Option<(MetricsReading, Instant)>,
    /// Callers missing in the last reading, with the reason.
    unread_callers: Vec<String>,
}

/// What a reading needs.
#[derive(Clone, Copy)]
pub(super) struct MetricsAccess<'a> {
    pub(super) server: &'a ApiServer,
    pub(super) proxies: &'a dyn Proxies,
    pub(super) clock: &'a dyn Clock,
}

impl Metrics {
    /// The source that the flags ask for; `None` if they ask for no analysis.
    ///
    /// # Errors
    /// Flags that the source cannot answer, or a source that cannot be used.
    pub(super) async fn new(
        context: &Context<'_>,
        server: &ApiServer,
        arguments: &AnalysisArgs,
        access: AdminAccessArgs,
        logs: LogSettingsScope,
    ) -> Result<Option<Self>, Failure> {
        let source = match arguments.mode() {
            AnalysisMode::Prometheus => {
                MetricsSource::Prometheus(Box::new(prometheus_client(context, server, arguments)?))
            }
            AnalysisMode::Envoy => MetricsSource::Envoy,
            AnalysisMode::Logs => {
                MetricsSource::Logs(log_formats(server, &logs).await.ok_or_else(logs_without_status)?)
            }
            AnalysisMode::None => return Ok(None),
        };
        let beyond_counters = arguments.flags_beyond_counters();
        if matches!(source, MetricsSource::Envoy) && !beyond_counters.is_empty() {
            return Err(Failure::usage(format!(
                "{} cannot be used with --analysis envoy: Envoy's counters have no latencies and a fixed set of errors",
                beyond_counters.join(" and ")
            ))
            .hint("use --prometheus ADDRESS or --analysis logs"));
        }
        Ok(Some(Self {
            source,
            criteria: arguments.failure_criteria(),
            max_p99: arguments.max_p99,
            access,
            logs,
            cohorts: Cohorts::default(),
            start: None,
            unread_callers: Vec::new(),
        }))
    }

    pub(super) fn source(&self) -> AnalysisSource {
        match self.source {
            MetricsSource::Prometheus(_) => AnalysisSource::Prometheus,
            MetricsSource::Envoy => AnalysisSource::Envoy,
            MetricsSource::Logs(_) => AnalysisSource::Logs,
        }
    }

    /// Reads access logs from now on. Returns whether their format contains the gRPC status.
    pub(super) async fn switch_to_logs(&mut self, access: MetricsAccess<'_>) -> bool {
        let Some(formats) = log_formats(access.server, &self.logs).await else { return false };
        self.source = MetricsSource::Logs(formats);
        true
    }

    /// Takes the first reading of a window. The error is a sentence about the source.
    pub(super) async fn start_window(&mut self, access: MetricsAccess<'_>) -> Result<(), String> {
        self.start = None;
        let now = Instant::now();
        if let (MetricsSource::Prometheus(_), Some((namespace, name))) = (&self.source, self.cohorts.common_workload())
        {
            return Err(format!(
                "workload {namespace}/{name} serves canary and baseline: Prometheus cannot separate them"
            ));
        }
        self.start = Some((self.read(access).await?, now));
        Ok(())
    }

    /// Counts the calls since the first reading. The window can be continued; callers that its first reading did not have
    /// count from now on.
    pub(super) async fn count_window(&mut self, access: MetricsAccess<'_>) -> WindowResult {
        let window = self.count(access).await;
        WindowResult {
            window,
            source: self.source(),
            unread_callers: self.unread_callers.clone(),
            has_shared_backends: self.cohorts.has_shared_backends,
        }
    }

    async fn count(&mut self, access: MetricsAccess<'_>) -> Result<Window, String> {
        let Some((mut first, started)) = self.start.take() else { return Err("no window is open".to_owned()) };
        let window = self.count_since(access, &mut first, started).await;
        self.start = Some((first, started));
        let window = window?;
        let (unread, callers) = (self.unread_callers.len(), self.cohorts.caller_pods.len());
        match self.unread_callers.first() {
            Some(example) if unread * 2 > callers => {
                Err(format!("{unread} of {callers} callers could not be read, such as {example}"))
            }
            _ => Ok(window),
        }
    }

    async fn count_since(
        &mut self,
        access: MetricsAccess<'_>,
        first: &mut MetricsReading,
        started: Instant,
    ) -> Result<Window, String> {
        if let (MetricsSource::Logs(formats), MetricsReading::LogsSince(time)) = (&self.source, &*first) {
            let (formats, time) = (Arc::clone(formats), time.clone());
            let result =
                tokio::time::timeout(LOG_READ_TIMEOUT, self.count_logged_calls(access.server, &formats, &time)).await;
            let (window, unread) =
                result.map_err(|_| "the callers' access logs could not be read in time".to_owned())??;
            self.unread_callers = unread;
            return Ok(window);
        }
        match (self.read(access).await?, first) {
            (MetricsReading::Series(after), MetricsReading::Series(before)) => {
                let mut window = prometheus::window_between(&self.cohorts, &self.criteria, before, &after);
                prometheus::add_new_processes(before, &after);
                if let (MetricsSource::Prometheus(client), Some(_)) = (&self.source, self.max_p99) {
                    let query = prometheus::p99_query(&self.cohorts, started.elapsed().as_secs().max(1));
                    let text = client.query(&query).await.map_err(|error| format!("Prometheus: {error}"))?;
                    window.p99_ms = prometheus::scalar_value(&prometheus::parse_response(&text)?);
                }
                Ok(window)
            }
            (MetricsReading::Counters(after), MetricsReading::Counters(before)) => {
                let pairs: Vec<_> =
                    after.iter().filter_map(|(pod, after)| Some((before.get(pod)?.clone(), after.clone()))).collect();
                for (pod, after) in after {
                    before.entry(pod).or_insert(after);
                }
                Ok(counters::window_between(&self.cohorts, &pairs))
            }
            _ => Err("the source of the calls changed during the window".to_owned()),
        }
    }

    async fn read(&mut self, access: MetricsAccess<'_>) -> Result<MetricsReading, String> {
        match &self.source {
            MetricsSource::Prometheus(client) => {
                let query = prometheus::calls_query(&self.cohorts.hosts);
                let text = client.query(&query).await.map_err(|error| format!("Prometheus: {error}"))?;
                prometheus::parse_response(&text).map(MetricsReading::Series)
            }
            MetricsSource::Envoy => {
                let (counters, unread) = self.read_counters(access).await?;
                self.unread_callers = unread;
                Ok(MetricsReading::Counters(counters))
            }
            MetricsSource::Logs(_) => {
                Ok(MetricsReading::LogsSince(access.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()))
            }
        }
    }

    /// Reads the counters of the callers' Envoys, and lists those that do not answer. Fails if none does.
    async fn read_counters(&self, access: MetricsAccess<'_>) -> Result<(CountersByCaller, Vec<String>), String> {
        let names: Vec<(String, String)> = self.cohorts.caller_pods.iter().cloned().collect();
        let pods = names.iter().map(|(namespace, pod)| PodName { namespace: namespace.clone(), pod: pod.clone() });
        let pods: Vec<PodName> = pods.collect();
        let is_relevant = |cluster: &str| {
            self.cohorts.canary.contains_cluster(cluster) || self.cohorts.baseline.contains_cluster(cluster)
        };
        let results = access.proxies.read_counters(access.server, &pods, self.access, &is_relevant).await;
        let (mut counters, mut unread) = (HashMap::new(), Vec::new());
        for (name, result) in names.into_iter().zip(results) {
            match result {
                Ok(endpoints) => drop(counters.insert(name, endpoints)),
                Err(error) => unread.push(format!("{}/{}: {}", name.0, name.1, error.message)),
            }
        }
        if counters.is_empty() {
            let reason = unread.first().map_or("no proxy uses the rule", String::as_str);
            return Err(format!("no caller's Envoy could be queried: {reason}"));
        }
        Ok((counters, unread))
    }

    /// Counts the calls that callers logged since a time, and lists the callers whose logs could not be read.
    async fn count_logged_calls(
        &self,
        server: &ApiServer,
        formats: &Arc<[LogFormat]>,
        since: &str,
    ) -> Result<(Window, Vec<String>), String> {
        let all_pods = PodSelection { namespace: None, labels: String::new(), name: None };
        let pods = server.list_proxy_pods(&all_pods).await.map_err(|error| error.message)?;
        let is_caller = |pod: &ProxyPod| self.cohorts.caller_pods.contains(&(pod.namespace.clone(), pod.name.clone()));
        let pods: Vec<ProxyPod> = pods.into_iter().filter(is_caller).collect();
        let range = LogRange { since_time: Some(since.to_owned()), ..LogRange::default() };
        let (sender, events) = mpsc::channel(LOG_CHANNEL_CAPACITY);
        let read = async {
            let sender = sender;
            futures::stream::iter(pods.iter().enumerate())
                .for_each_concurrent(self.access.parallel.max(1), |(index, pod)| {
                    server.stream_log(index, pod, &range, sender.clone())
                })
                .await;
        };
        let ((), result) = tokio::join!(read, self.count_log_events(&pods, formats, events));
        result
    }

    async fn count_log_events(
        &self,
        pods: &[ProxyPod],
        formats: &Arc<[LogFormat]>,
        mut events: mpsc::Receiver<LogEvent>,
    ) -> Result<(Window, Vec<String>), String> {
        let mut calls = LoggedCalls::default();
        let mut readers: BTreeMap<usize, LogReader> = BTreeMap::new();
        let (mut lines, mut unread) = (0_u64, BTreeMap::new());
        while let Some(event) = events.recv().await {
            match event {
                LogEvent::Line(pod, line) => {
                    let reader = readers.entry(pod).or_insert_with(|| LogReader::with_formats(Arc::clone(formats)));
                    if let LogLine::Access(access) = reader.read(&line) {
                        lines += 1;
                        calls.add(&access, &self.cohorts, &self.criteria);
                    }
                }
                LogEvent::StreamError(pod, reason) => drop(unread.insert(pod, reason)),
                LogEvent::End(_) => {}
            }
        }
        let unread = unread.into_iter().filter_map(|(index, reason)| {
            let pod = pods.get(index)?;
            Some(format!("{}/{}: {reason}", pod.namespace, pod.name))
        });
        let unread: Vec<String> = unread.collect();
        match (lines, unread.first()) {
            (0, Some(reason)) => Err(format!("no caller's access log could be read: {reason}")),
            _ => Ok((calls.into_window(self.max_p99.is_some()), unread)),
        }
    }
}

fn prometheus_client(
    context: &Context<'_>,
    server: &ApiServer,
    arguments: &AnalysisArgs,
) -> Result<PrometheusClient, Failure> {
    let Some(address) = arguments.prometheus_address()? else {
        return Err(Failure::usage("--analysis prometheus needs the address of Prometheus")
            .hint("pass --prometheus URL or --prometheus NAMESPACE/SERVICE"));
    };
    let mut headers = Vec::new();
    if let Some(path) = &arguments.prometheus_header_file {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::unavailable(format!("cannot read {shown}")).cause(error))?;
        for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // The line is secret, so the error shows only its number.
            let header = line.split_once(':').and_then(|(name, value)| {
                let mut value = HeaderValue::from_str(value.trim()).ok()?;
                value.set_sensitive(true);
                Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
            });
            headers.push(header.ok_or_else(|| {
                Failure::usage(format!("line {} of {shown} is not an HTTP header", index + 1)).hint("write NAME: VALUE")
            })?);
        }
    }
    Ok(PrometheusClient::new(&address, server, headers, &context.env.proxy)?)
}

fn logs_without_status() -> Failure {
    Failure::unavailable("the mesh's access logs have no gRPC status: a failing canary would look healthy").hint(
        "add %GRPC_STATUS(NUMBER)% to meshConfig.accessLogFormat, or use --prometheus ADDRESS or --analysis envoy",
    )
}

/// The access-log formats of the mesh, if they contain the gRPC status.
async fn log_formats(server: &ApiServer, scope: &LogSettingsScope) -> Option<Arc<[LogFormat]>> {
    let namespaces: BTreeSet<&str> = [&*scope.namespace].into();
    let read = server.read_log_settings(&scope.istio_namespace, scope.revision.as_deref(), &namespaces).await;
    read.settings.logs_grpc_status().then(|| read.settings.custom_formats().0.into())
}
