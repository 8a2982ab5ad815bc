//! Canary analysis of `shift`: its flags, and how it counts calls.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use http::{HeaderName, HeaderValue};
use tokio::sync::mpsc;

use super::FailureAction;
use super::session::ShiftSession;
use crate::accesslog::format::LogFormat;
use crate::accesslog::{LogLine, LogReader};
use crate::analysis::access_logs::LoggedCalls;
use crate::analysis::cohorts::Cohorts;
use crate::analysis::verdict::AnalysisLimits;
use crate::analysis::window::{CallCounts, DEFAULT_FAILURE_STATUSES, FailureCriteria, Window};
use crate::analysis::{AnalysisSource, counters, prometheus};
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cluster::logs::{LogEvent, LogRange, PodSelection};
use crate::cluster::prometheus::{PrometheusAddress, PrometheusClient};
use crate::cluster::proxies::PodName;
use crate::envoy::counters::EndpointCounters;
use crate::vocabulary::response_flags;

/// How long the access logs of one window may be read.
const LOG_READ_TIMEOUT: Duration = Duration::from_mins(1);
/// Log lines that may wait to be counted.
const LOG_CHANNEL_CAPACITY: usize = 1024;

/// Source and limits of the canary analysis.
#[derive(Debug, Args)]
#[command(next_help_heading = "Canary analysis (with --steps or --watch)")]
pub(super) struct AnalysisArgs {
    /// Length of a window; each step lasts at least one window
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) interval: Duration,
    /// Keep analyzing for this long after the last step (default: one window)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "0s",
          value_parser = crate::vocabulary::duration::parse)]
    pub(super) watch: Option<Duration>,
    /// Source of the counted calls (default: prometheus with --prometheus, else envoy, else logs)
    #[arg(long, value_name = "SOURCE")]
    pub(super) analysis: Option<AnalysisMode>,
    /// URL of Prometheus, or NAMESPACE/SERVICE[:PORT] to reach it through the API server
    #[arg(long, value_name = "ADDRESS")]
    pub(super) prometheus: Option<String>,
    /// File with HTTP headers for the URL of Prometheus, one per line, such as Authorization: Bearer …
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub(super) prometheus_header_file: Option<PathBuf>,
    /// Calls to the canary that a verdict needs
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) min_requests: u64,
    /// Allowed failed calls to the canary, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = parse_percent)]
    pub(super) max_error_rate: f64,
    /// Allowed 99th percentile of the canary's latency (prometheus and logs)
    #[arg(long, value_name = "DURATION", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_p99: Option<Duration>,
    /// gRPC statuses that count as failed (prometheus and logs; default: 2,4,8,12,13,14,15)
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', value_parser = parse_status)]
    pub(super) error_status: Option<Vec<u8>>,
    /// Response flags that count as failed whatever the status, such as UF,UO (prometheus and logs)
    #[arg(long, value_name = "FLAG,...", value_delimiter = ',')]
    pub(super) error_flags: Vec<String>,
    /// Allowed difference between the observed split and the weights, in percentage points
    #[arg(long, value_name = "POINTS", default_value = "10", value_parser = parse_percent)]
    pub(super) split_tolerance: f64,
    /// Consecutive bad windows that cause a rollback
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) bad_windows: u32,
    /// How long a step waits for a good or bad verdict
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_wait: Duration,
    /// Action when a step gets no good or bad verdict in time
    #[arg(long, value_name = "ACTION", default_value = "hold")]
    pub(super) on_stall: FailureAction,
}

/// Value of `--analysis`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AnalysisMode {
    /// Prometheus, with Istio's standard metrics.
    Prometheus,
    /// Per-endpoint counters of the callers' Envoys; needs no setup.
    Envoy,
    /// Access logs of the callers' Envoys.
    Logs,
    /// No analysis: each step takes one interval.
    None,
}

impl AnalysisArgs {
    /// The address of Prometheus. clap does not parse it, since its errors would show a password in the URL.
    pub(super) fn prometheus_address(&self) -> Result<Option<PrometheusAddress>, Failure> {
        self.prometheus.as_deref().map(parse_prometheus_address).transpose()
    }

    /// Rejects flags that would have no effect.
    fn validate(&self, has_steps: bool) -> Result<(), Failure> {
        let is_requested = self.analysis.is_some_and(|mode| mode != AnalysisMode::None)
            || self.prometheus.is_some()
            || self.max_p99.is_some()
            || self.error_status.is_some()
            || !self.error_flags.is_empty();
        if is_requested && !has_steps && self.watch.is_none() {
            return Err(Failure::usage("canary analysis needs --steps or --watch")
                .hint("add --watch for a shift in one step, or --steps 5,25,50"));
        }
        if self.watch.is_some() && self.analysis == Some(AnalysisMode::None) {
            return Err(Failure::usage("--watch cannot be used with --analysis none"));
        }
        let is_service =
            || Ok::<_, Failure>(matches!(self.prometheus_address()?, Some(PrometheusAddress::Service(..))));
        if self.prometheus_header_file.is_some() && is_service()? {
            return Err(Failure::usage("--prometheus-header-file needs a URL: the API server forwards no headers")
                .hint("pass the URL of Prometheus: --prometheus https://…"));
        }
        Ok(())
    }

    /// Flags that per-endpoint counters cannot answer.
    fn flags_beyond_counters(&self) -> Vec<&'static str> {
        [
            (self.max_p99.is_some(), "--max-p99"),
            (self.error_status.is_some(), "--error-status"),
            (!self.error_flags.is_empty(), "--error-flags"),
        ]
        .into_iter()
        .filter_map(|(is_given, flag)| is_given.then_some(flag))
        .collect()
    }

    fn failure_criteria(&self) -> FailureCriteria {
        let statuses = self.error_status.clone().unwrap_or_else(|| DEFAULT_FAILURE_STATUSES.to_vec());
        FailureCriteria {
            statuses: statuses.into_iter().collect(),
            flags: self.error_flags.iter().map(|flag| response_flags::canonical_code(flag.trim())).collect(),
        }
    }

    fn limits(&self) -> AnalysisLimits {
        AnalysisLimits {
            min_requests: self.min_requests,
            max_error_ratio: self.max_error_rate,
            max_p99_ms: self.max_p99.map(|limit| limit.as_secs_f64() * 1000.0),
            split_tolerance: Some(self.split_tolerance),
        }
    }
}

/// Parses a percentage into a ratio, 0 to 1.
fn parse_percent(text: &str) -> Result<f64, String> {
    let invalid = || format!("\"{text}\" is not a valid percentage: expected a number from 0 to 100");
    let percent: f64 = text.trim_end_matches('%').parse().map_err(|_| invalid())?;
    if (0.0..=100.0).contains(&percent) { Ok(percent / 100.0) } else { Err(invalid()) }
}

fn parse_status(text: &str) -> Result<u8, String> {
    crate::vocabulary::grpc_status::parse(text.trim().as_bytes()).ok_or_else(|| {
        format!("\"{text}\" is not a gRPC status: expected a number from 0 to 16 or a name such as UNAVAILABLE")
    })
}

/// A source that is ready to be read.
enum MetricsSource {
    Prometheus(Box<PrometheusClient>),
    Envoy,
    Logs(Arc<[LogFormat]>),
}

/// The state of a source at one moment.
pub(super) enum MetricsReading {
    Series(prometheus::SeriesValues),
    Counters(CountersByCaller),
    /// The time from which logs are read at the end of the window, RFC 3339.
    LogsSince(String),
}

/// Counters of the callers' Envoys, by namespace and name of their pods.
type CountersByCaller = HashMap<(String, String), Vec<EndpointCounters>>;

/// The first reading of a window, and when it was taken.
pub(super) type WindowStart = (MetricsReading, Instant);

pub(super) struct CanaryAnalysis {
    metrics: MetricsSource,
    pub(super) limits: AnalysisLimits,
    criteria: FailureCriteria,
    pub(super) cohorts: Cohorts,
    /// Calls to all backends before the shift.
    pub(super) before_shift: CallCounts,
    /// Why callers cannot reach a backend of the baseline; then no verdict is good.
    pub(super) unreachable_baseline: Option<String>,
    /// Callers missing in the last window, with the reason.
    pub(super) unread_callers: Vec<String>,
}

impl CanaryAnalysis {
    /// The analysis that the flags ask for; `None` without steps and `--watch`, or with `--analysis none`.
    pub(super) async fn new(session: &mut ShiftSession<'_, '_>, has_steps: bool) -> Result<Option<Self>, Failure> {
        let arguments = &session.arguments.analysis;
        arguments.validate(has_steps)?;
        if !has_steps && arguments.watch.is_none() {
            return Ok(None);
        }
        let mode = match arguments.analysis {
            None if arguments.prometheus.is_some() => AnalysisMode::Prometheus,
            None => AnalysisMode::Envoy,
            Some(mode) => mode,
        };
        let metrics = match mode {
            AnalysisMode::Prometheus => MetricsSource::Prometheus(Box::new(prometheus_client(session)?)),
            AnalysisMode::Envoy => MetricsSource::Envoy,
            AnalysisMode::Logs => MetricsSource::Logs(log_formats(session).await.ok_or_else(logs_without_status)?),
            AnalysisMode::None => return Ok(None),
        };
        let beyond_counters = arguments.flags_beyond_counters();
        if matches!(metrics, MetricsSource::Envoy) && !beyond_counters.is_empty() {
            return Err(Failure::usage(format!(
                "{} cannot be used with --analysis envoy: Envoy's counters have no latencies and a fixed set of errors",
                beyond_counters.join(" and ")
            ))
            .hint("use --prometheus ADDRESS or --analysis logs"));
        }
        Ok(Some(Self {
            metrics,
            limits: arguments.limits(),
            criteria: arguments.failure_criteria(),
            cohorts: Cohorts::default(),
            before_shift: CallCounts::default(),
            unreachable_baseline: None,
            unread_callers: Vec::new(),
        }))
    }

    /// The limits, without the check of the split if other rules use the same backends.
    pub(super) fn effective_limits(&self) -> AnalysisLimits {
        let split_tolerance = self.limits.split_tolerance.filter(|_| !self.cohorts.has_shared_backends);
        AnalysisLimits { split_tolerance, ..self.limits }
    }

    pub(super) fn source(&self) -> AnalysisSource {
        match self.metrics {
            MetricsSource::Prometheus(_) => AnalysisSource::Prometheus,
            MetricsSource::Envoy => AnalysisSource::Envoy,
            MetricsSource::Logs(_) => AnalysisSource::Logs,
        }
    }

    /// Switches to access logs if the callers' Envoys cannot be queried and no source was requested.
    pub(super) async fn fall_back_to_logs(&mut self, session: &mut ShiftSession<'_, '_>) -> bool {
        let may_switch = matches!(self.metrics, MetricsSource::Envoy) && session.arguments.analysis.analysis.is_none();
        let formats = if may_switch { log_formats(session).await } else { None };
        let Some(formats) = formats else { return false };
        session.context.messages.warning("the callers' Envoys cannot be queried: reading their access logs instead");
        self.metrics = MetricsSource::Logs(formats);
        true
    }

    /// Starts a window. The error is a sentence about the source.
    pub(super) async fn start_window(&mut self, session: &ShiftSession<'_, '_>) -> Result<WindowStart, String> {
        let now = Instant::now();
        if let (MetricsSource::Prometheus(_), Some((namespace, name))) = (&self.metrics, self.cohorts.common_workload())
        {
            return Err(format!(
                "workload {namespace}/{name} serves canary and baseline: Prometheus cannot separate them"
            ));
        }
        Ok((self.read(session).await?, now))
    }

    async fn read(&mut self, session: &ShiftSession<'_, '_>) -> Result<MetricsReading, String> {
        match &self.metrics {
            MetricsSource::Prometheus(client) => {
                let query = prometheus::calls_query(&self.cohorts.hosts);
                let text = client.query(&query).await.map_err(|error| format!("Prometheus: {error}"))?;
                prometheus::parse_response(&text).map(MetricsReading::Series)
            }
            MetricsSource::Envoy => {
                let (counters, unread) = self.read_counters(session).await?;
                self.unread_callers = unread;
                Ok(MetricsReading::Counters(counters))
            }
            MetricsSource::Logs(_) => Ok(MetricsReading::LogsSince(Env::clock())),
        }
    }

    /// Counts the calls since the start of a window, which can be continued. Callers that its first reading did not
    /// have count from now on.
    pub(super) async fn finish_window(
        &mut self,
        session: &ShiftSession<'_, '_>,
        start: &mut WindowStart,
    ) -> Result<Window, String> {
        let window = self.count_since(session, start).await?;
        let (unread, callers) = (self.unread_callers.len(), self.cohorts.caller_pods.len());
        if unread * 2 > callers {
            return Err(format!("{unread} of {callers} callers could not be read, such as {}", self.unread_callers[0]));
        }
        Ok(window)
    }

    async fn count_since(
        &mut self,
        session: &ShiftSession<'_, '_>,
        (first, started): &mut WindowStart,
    ) -> Result<Window, String> {
        if let (MetricsSource::Logs(formats), MetricsReading::LogsSince(time)) = (&self.metrics, &*first) {
            let (formats, time) = (Arc::clone(formats), time.clone());
            let result =
                tokio::time::timeout(LOG_READ_TIMEOUT, self.count_logged_calls(session, &formats, &time)).await;
            let (window, unread) =
                result.map_err(|_| "the callers' access logs could not be read in time".to_owned())??;
            self.unread_callers = unread;
            return Ok(window);
        }
        match (self.read(session).await?, first) {
            (MetricsReading::Series(after), MetricsReading::Series(before)) => {
                let mut window = prometheus::window_between(&self.cohorts, &self.criteria, before, &after);
                prometheus::add_new_processes(before, &after);
                if let (MetricsSource::Prometheus(client), Some(_)) = (&self.metrics, self.limits.max_p99_ms) {
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

    /// Reads the counters of the callers' Envoys, and lists those that do not answer. Fails if none does.
    async fn read_counters(&self, session: &ShiftSession<'_, '_>) -> Result<(CountersByCaller, Vec<String>), String> {
        let names: Vec<(String, String)> = self.cohorts.caller_pods.iter().cloned().collect();
        let pods = names.iter().map(|(namespace, pod)| PodName { namespace: namespace.clone(), pod: pod.clone() });
        let pods: Vec<PodName> = pods.collect();
        let access = session.arguments.admin_access;
        let is_relevant = |cluster: &str| {
            self.cohorts.canary.contains_cluster(cluster) || self.cohorts.baseline.contains_cluster(cluster)
        };
        let results = session
            .server
            .endpoint_counters(&pods, access.via.into(), access.parallel, access.proxy_timeout, &is_relevant, &|all| {
                all
            })
            .await;
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
        session: &ShiftSession<'_, '_>,
        formats: &Arc<[LogFormat]>,
        since: &str,
    ) -> Result<(Window, Vec<String>), String> {
        let all_pods = PodSelection { namespace: None, labels: String::new(), name: None };
        let pods = session.server.list_proxy_pods(&all_pods).await.map_err(|error| error.message)?;
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|pod| self.cohorts.caller_pods.contains(&(pod.namespace.clone(), pod.name.clone())))
            .collect();
        let range = LogRange { since_time: Some(since.to_owned()), ..LogRange::default() };
        let (sender, mut events) = mpsc::channel(LOG_CHANNEL_CAPACITY);
        let read = async {
            let sender = sender;
            futures::stream::iter(pods.iter().enumerate())
                .for_each_concurrent(session.arguments.admin_access.parallel.max(1), |(index, pod)| {
                    session.server.stream_log(index, pod, &range, sender.clone())
                })
                .await;
        };
        let count = async {
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
                _ => Ok((calls.into_window(self.limits.max_p99_ms.is_some()), unread)),
            }
        };
        let ((), result) = tokio::join!(read, count);
        result
    }
}

fn prometheus_client(session: &ShiftSession<'_, '_>) -> Result<PrometheusClient, Failure> {
    let arguments = &session.arguments.analysis;
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
    Ok(PrometheusClient::new(&address, &session.server, headers, &session.context.env.proxy)?)
}

/// Parses the value of `--prometheus`.
pub(in crate::commands) fn parse_prometheus_address(text: &str) -> Result<PrometheusAddress, Failure> {
    text.parse().map_err(|error: String| Failure::usage(format!("invalid --prometheus value: {error}")))
}

fn logs_without_status() -> Failure {
    Failure::unavailable("the mesh's access logs have no gRPC status: a failing canary would look healthy").hint(
        "add %GRPC_STATUS(NUMBER)% to meshConfig.accessLogFormat, or use --prometheus ADDRESS or --analysis envoy",
    )
}

/// The access-log formats of the mesh, if they contain the gRPC status.
async fn log_formats(session: &ShiftSession<'_, '_>) -> Option<Arc<[LogFormat]>> {
    let scope = &session.context.scope;
    let namespaces: BTreeSet<&str> = [&*session.target.key.namespace].into();
    let read = session.server.read_log_settings(&scope.istio_namespace, scope.revision.as_deref(), &namespaces).await;
    read.settings.logs_grpc_status().then(|| read.settings.custom_formats().0.into())
}
