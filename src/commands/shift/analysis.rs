//! The guard: where callers' calls are counted, and what is allowed.

use std::collections::{BTreeMap, HashMap};
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
use crate::analysis::calls::LoggedCalls;
use crate::analysis::cohorts::Cohorts;
use crate::analysis::verdict::AnalysisLimits;
use crate::analysis::window::{CallCounts, FAULTS, FailureCriteria, Window};
use crate::analysis::{counters, prometheus};
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cluster::logs::{LogEvent, LogRange, PodSelection};
use crate::cluster::prometheus::{PrometheusAddress, PrometheusClient};
use crate::cluster::proxies::PodName;
use crate::envoy::counters::EndpointCounters;
use crate::vocabulary::response_flags;

/// How long the callers' logs of a window may be read.
const LOGS: Duration = Duration::from_mins(1);
/// Lines of access logs that may wait.
const WAITING: usize = 1024;

/// Who judges the canary, and by what.
#[derive(Debug, Args)]
#[command(next_help_heading = "Guard (with --steps or --watch)")]
pub(super) struct AnalysisArgs {
    /// Time of a window; each step lasts at least one
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) interval: Duration,
    /// After the last step, go on judging for so long (default: one window)
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "0s",
          value_parser = crate::vocabulary::duration::parse)]
    pub(super) watch: Option<Duration>,
    /// Who counts calls (default: Prometheus where it is given, else counters, else logs)
    #[arg(long, value_name = "SOURCE")]
    pub(super) guard: Option<AnalysisSource>,
    /// Prometheus: an address, or NAMESPACE/SERVICE[:PORT] to go through the API server
    #[arg(long, value_name = "PLACE")]
    pub(super) prometheus: Option<String>,
    /// A file with headers for its address, one a line: Authorization: Bearer …
    #[arg(long, value_name = "FILE", requires = "prometheus")]
    pub(super) prometheus_header_file: Option<PathBuf>,
    /// Calls to the canary below which nothing is said
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) min_requests: u64,
    /// Failed calls to the canary that are allowed, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = percent)]
    pub(super) max_error_rate: f64,
    /// 99th percentile of the canary's latency that is allowed (Prometheus and logs)
    #[arg(long, value_name = "TIME", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_p99: Option<Duration>,
    /// gRPC statuses that count as failed (Prometheus and logs; default: 2,4,8,12,13,14,15)
    #[arg(long, value_name = "STATUS,...", value_delimiter = ',', value_parser = status)]
    pub(super) error_status: Option<Vec<u8>>,
    /// Response flags that count as failed, whatever the status, such as UF,UO (Prometheus and logs)
    #[arg(long, value_name = "FLAG,...", value_delimiter = ',')]
    pub(super) error_flags: Vec<String>,
    /// By how many percentage points the calls may be split otherwise than the weights say
    #[arg(long, value_name = "POINTS", default_value = "10", value_parser = percent)]
    pub(super) split_tolerance: f64,
    /// Bad windows in a row that take the weights back
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(super) bad_windows: u32,
    /// How long a step waits for a good or a bad window
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = crate::vocabulary::duration::parse)]
    pub(super) max_wait: Duration,
    /// When there is none in that time
    #[arg(long, value_name = "WHAT", default_value = "hold")]
    pub(super) on_stall: FailureAction,
}

/// Who counts calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum AnalysisSource {
    /// Prometheus, with Istio's standard metrics.
    Prometheus,
    /// The callers' Envoys: tries for each endpoint; no set-up.
    Counters,
    /// The callers' access logs.
    Logs,
    /// Nobody: steps go by time.
    None,
}

impl AnalysisArgs {
    /// Where Prometheus is. It is not read by the command line's own parser, which would show a password in it.
    pub(super) fn place(&self) -> Result<Option<PrometheusAddress>, Failure> {
        self.prometheus.as_deref().map(prometheus_at).transpose()
    }

    /// Refuses what would have no effect.
    fn check(&self, has_steps: bool) -> Result<(), Failure> {
        let is_asked = self.guard.is_some_and(|source| source != AnalysisSource::None)
            || self.prometheus.is_some()
            || self.max_p99.is_some()
            || self.error_status.is_some()
            || !self.error_flags.is_empty();
        if is_asked && !has_steps && self.watch.is_none() {
            return Err(Failure::usage("a guard is asked for, and nothing that it would judge")
                .hint("add --watch for one step, or --steps 5,25,50"));
        }
        if self.watch.is_some() && self.guard == Some(AnalysisSource::None) {
            return Err(Failure::usage("--watch judges, and --guard none judges nothing"));
        }
        if self.prometheus_header_file.is_some() && matches!(self.place()?, Some(PrometheusAddress::Service(..))) {
            return Err(Failure::usage("headers go to an address; through the API server none are sent")
                .hint("give Prometheus's address: --prometheus https://…"));
        }
        Ok(())
    }
}

/// A percentage as a share of one.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').parse().map_err(|_| format!("\"{text}\" is no number of percent"))?;
    if (0.0..=100.0).contains(&number) { Ok(number / 100.0) } else { Err(format!("{text} is not between 0 and 100")) }
}

fn status(text: &str) -> Result<u8, String> {
    crate::vocabulary::grpc_status::parse(text.trim().as_bytes())
        .ok_or_else(|| format!("\"{text}\" is no gRPC status: a number from 0 to 16, or a name such as UNAVAILABLE"))
}

/// Where calls are counted.
enum MetricsSource {
    Prometheus(Box<PrometheusClient>),
    Counters,
    Logs(Arc<[LogFormat]>),
}

/// What a source told at one moment.
pub(super) enum MetricsReading {
    Series(prometheus::SeriesValues),
    Counters(CountersByCaller),
    /// Lines after this time are read at the end.
    Since(String),
}

/// What callers' Envoys counted, by namespace and name of their pods.
type CountersByCaller = HashMap<(String, String), Vec<EndpointCounters>>;

/// The first reading of a window, and when it was.
pub(super) type WindowStart = (MetricsReading, Instant);

/// A guard.
pub(super) struct CanaryAnalysis {
    source: MetricsSource,
    /// What is allowed.
    pub(super) limits: AnalysisLimits,
    faults: FailureCriteria,
    /// Who is who.
    pub(super) sides: Cohorts,
    /// What all backends did before the shift.
    pub(super) before: CallCounts,
    /// Why the ground is not firm enough for a verdict.
    pub(super) weak: Option<String>,
    /// Callers that the last window lacks, with the reason.
    pub(super) unread: Vec<String>,
}

impl CanaryAnalysis {
    /// The guard that is asked for, if one is. `has_steps` wants one, too.
    pub(super) async fn new(session: &mut ShiftSession<'_, '_>, has_steps: bool) -> Result<Option<Self>, Failure> {
        let arguments = &session.arguments.guard;
        arguments.check(has_steps)?;
        if (!has_steps && arguments.watch.is_none()) || arguments.guard == Some(AnalysisSource::None) {
            return Ok(None);
        }
        let wanted = match arguments.guard {
            None if arguments.prometheus.is_some() => AnalysisSource::Prometheus,
            None => AnalysisSource::Counters,
            Some(source) => source,
        };
        let source = match wanted {
            AnalysisSource::Prometheus => MetricsSource::Prometheus(Box::new(prometheus_of(session)?)),
            AnalysisSource::Counters | AnalysisSource::None => MetricsSource::Counters,
            AnalysisSource::Logs => MetricsSource::Logs(formats(session).await.ok_or_else(untold)?),
        };
        let beyond: Vec<&str> = [
            (arguments.max_p99.is_some(), "--max-p99"),
            (arguments.error_status.is_some(), "--error-status"),
            (!arguments.error_flags.is_empty(), "--error-flags"),
        ]
        .into_iter()
        .filter_map(|(is_asked, flag)| is_asked.then_some(flag))
        .collect();
        if matches!(source, MetricsSource::Counters) && !beyond.is_empty() {
            return Err(Failure::usage(format!(
                "the callers' counters cannot tell what {} asks for: they count tries and Envoy's own set of errors",
                beyond.join(" and ")
            ))
            .hint("these can: --prometheus PLACE, or --guard logs"));
        }
        let statuses = arguments.error_status.clone().unwrap_or_else(|| FAULTS.to_vec());
        Ok(Some(Self {
            source,
            limits: AnalysisLimits {
                min_requests: arguments.min_requests,
                max_error_rate: arguments.max_error_rate,
                max_p99: arguments.max_p99.map(|limit| limit.as_secs_f64() * 1000.0),
                tolerance: Some(arguments.split_tolerance),
            },
            faults: FailureCriteria {
                statuses: statuses.into_iter().collect(),
                flags: arguments.error_flags.iter().map(|flag| response_flags::code(flag.trim())).collect(),
            },
            sides: Cohorts::default(),
            before: CallCounts::default(),
            weak: None,
            unread: Vec::new(),
        }))
    }

    /// What is allowed, for backends as they are used.
    pub(super) fn allowed(&self) -> AnalysisLimits {
        AnalysisLimits { tolerance: self.limits.tolerance.filter(|_| !self.sides.shared), ..self.limits }
    }

    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        match self.source {
            MetricsSource::Prometheus(_) => "prometheus",
            MetricsSource::Counters => "counters",
            MetricsSource::Logs(_) => "logs",
        }
    }

    /// Where nobody may ask the callers' Envoys, their logs are read instead, unless counters were asked for.
    pub(super) async fn fall_back(&mut self, session: &mut ShiftSession<'_, '_>) -> bool {
        let may = matches!(self.source, MetricsSource::Counters) && session.arguments.guard.guard.is_none();
        let Some(formats) = (if may { formats(session).await } else { None }) else { return false };
        session.context.messages.warning("the callers' Envoys cannot be asked: their access logs are read instead");
        self.source = MetricsSource::Logs(formats);
        true
    }

    /// Reads the source; why it cannot be read, in a sentence.
    pub(super) async fn begin(&mut self, session: &ShiftSession<'_, '_>) -> Result<WindowStart, String> {
        let began = Instant::now();
        if let (MetricsSource::Prometheus(_), Some((namespace, name))) = (&self.source, self.sides.shared_workload()) {
            return Err(format!(
                "{namespace}/{name} serves the canary and the others: Prometheus cannot tell them apart"
            ));
        }
        Ok((self.read(session).await?, began))
    }

    async fn read(&mut self, session: &ShiftSession<'_, '_>) -> Result<MetricsReading, String> {
        match &self.source {
            MetricsSource::Prometheus(prometheus) => {
                let query = prometheus::calls_query(&self.sides.hosts);
                let text = prometheus.query(&query).await.map_err(|error| format!("Prometheus: {error}"))?;
                prometheus::read(&text).map(MetricsReading::Series)
            }
            MetricsSource::Counters => {
                let (read, unread) = self.count(session).await?;
                self.unread = unread;
                Ok(MetricsReading::Counters(read))
            }
            MetricsSource::Logs(_) => Ok(MetricsReading::Since(Env::clock())),
        }
    }

    /// What was counted since a first reading. Callers that were not in it are taken into it as they are now.
    pub(super) async fn window(
        &mut self,
        session: &ShiftSession<'_, '_>,
        begun: &mut WindowStart,
    ) -> Result<Window, String> {
        let window = self.count_since(session, begun).await?;
        let (missing, all) = (self.unread.len(), self.sides.callers.len());
        if missing * 2 > all {
            return Err(format!("{missing} of {all} callers could not be read, such as {}", self.unread[0]));
        }
        Ok(window)
    }

    async fn count_since(
        &mut self,
        session: &ShiftSession<'_, '_>,
        (first, began): &mut WindowStart,
    ) -> Result<Window, String> {
        if let (MetricsSource::Logs(formats), MetricsReading::Since(time)) = (&self.source, &*first) {
            let (formats, time) = (Arc::clone(formats), time.clone());
            let read = tokio::time::timeout(LOGS, self.window_of_logs(session, &formats, &time)).await;
            let (window, unread) = read.map_err(|_| "the callers' logs do not end".to_owned())??;
            self.unread = unread;
            return Ok(window);
        }
        match (self.read(session).await?, first) {
            (MetricsReading::Series(after), MetricsReading::Series(before)) => {
                let mut window = prometheus::window(&self.sides, &self.faults, before, &after);
                prometheus::adopt(before, &after);
                if let (MetricsSource::Prometheus(prometheus), Some(_)) = (&self.source, self.limits.max_p99) {
                    let query = prometheus::p99_query(&self.sides, began.elapsed().as_secs().max(1));
                    let text = prometheus.query(&query).await.map_err(|error| format!("Prometheus: {error}"))?;
                    window.p99 = prometheus::number(&prometheus::read(&text)?);
                }
                Ok(window)
            }
            (MetricsReading::Counters(after), MetricsReading::Counters(before)) => {
                let pairs: Vec<_> =
                    after.iter().filter_map(|(pod, after)| Some((before.get(pod)?.clone(), after.clone()))).collect();
                for (pod, after) in after {
                    before.entry(pod).or_insert(after);
                }
                Ok(counters::window(&self.sides, &pairs))
            }
            _ => Err("the source changed in between".to_owned()),
        }
    }

    /// What the callers' Envoys counted so far, and who does not answer, unless that are all.
    async fn count(&self, session: &ShiftSession<'_, '_>) -> Result<(CountersByCaller, Vec<String>), String> {
        let names: Vec<(String, String)> = self.sides.callers.iter().cloned().collect();
        let pods = names.iter().map(|(namespace, pod)| PodName { namespace: namespace.clone(), pod: pod.clone() });
        let pods: Vec<PodName> = pods.collect();
        let reach = session.arguments.reach;
        let wanted = |cluster: &str| self.sides.canary.has_cluster(cluster) || self.sides.baseline.has_cluster(cluster);
        let answers = session
            .server
            .all_counters(&pods, reach.via.into(), reach.parallel, reach.proxy_timeout, &wanted, &|all| all)
            .await;
        let (mut read, mut unread) = (HashMap::new(), Vec::new());
        for (name, answer) in names.into_iter().zip(answers) {
            match answer {
                Ok(counted) => drop(read.insert(name, counted)),
                Err(error) => unread.push(format!("{}/{}: {}", name.0, name.1, error.message)),
            }
        }
        if read.is_empty() {
            let why = unread.first().map_or("nobody obeys", String::as_str);
            return Err(format!("no caller's Envoy could be asked: {why}"));
        }
        Ok((read, unread))
    }

    /// Reads what the callers logged since a time.
    async fn window_of_logs(
        &self,
        session: &ShiftSession<'_, '_>,
        formats: &Arc<[LogFormat]>,
        since: &str,
    ) -> Result<(Window, Vec<String>), String> {
        let everything = PodSelection { namespace: None, labels: String::new(), name: None };
        let pods = session.server.proxies(&everything).await.map_err(|error| error.message)?;
        let pods: Vec<_> = pods
            .into_iter()
            .filter(|pod| self.sides.callers.contains(&(pod.namespace.clone(), pod.name.clone())))
            .collect();
        let span = LogRange { since_time: Some(since.to_owned()), ..LogRange::default() };
        let (sender, mut events) = mpsc::channel(WAITING);
        let follow = async {
            let sender = sender;
            futures::stream::iter(pods.iter().enumerate())
                .for_each_concurrent(session.arguments.reach.parallel.max(1), |(at, pod)| {
                    session.server.follow(at, pod, &span, sender.clone())
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
                            calls.count(&access, &self.sides, &self.faults);
                        }
                    }
                    LogEvent::Trouble(pod, why) => drop(unread.insert(pod, why)),
                    LogEvent::End(_) => {}
                }
            }
            let named = unread.into_iter().filter_map(|(pod, why)| {
                let pod = pods.get(pod)?;
                Some(format!("{}/{}: {why}", pod.namespace, pod.name))
            });
            let unread: Vec<String> = named.collect();
            match (lines, unread.first()) {
                (0, Some(why)) => Err(format!("no caller's log could be read: {why}")),
                _ => Ok((calls.window(self.limits.max_p99.is_some()), unread)),
            }
        };
        let ((), window) = tokio::join!(follow, count);
        window
    }
}

fn prometheus_of(session: &ShiftSession<'_, '_>) -> Result<PrometheusClient, Failure> {
    let arguments = &session.arguments.guard;
    let Some(place) = arguments.place()? else {
        return Err(Failure::usage("where Prometheus is, is not said")
            .hint("say it: --prometheus URL, or --prometheus NAMESPACE/SERVICE"));
    };
    let mut headers = Vec::new();
    if let Some(path) = &arguments.prometheus_header_file {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::source(format!("cannot read {shown}")).cause(error))?;
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            // What stands there is secret: only the place is told.
            let header = line.split_once(':').and_then(|(name, value)| {
                let mut value = HeaderValue::from_str(value.trim()).ok()?;
                value.set_sensitive(true);
                Some((HeaderName::from_bytes(name.trim().as_bytes()).ok()?, value))
            });
            headers.push(header.ok_or_else(|| {
                Failure::usage(format!("line {} of {shown} is no header", at + 1)).hint("write NAME: VALUE")
            })?);
        }
    }
    Ok(PrometheusClient::new(&place, &session.server, headers, &session.context.env.proxy)?)
}

/// The place that a word means.
pub(in crate::commands) fn prometheus_at(word: &str) -> Result<PrometheusAddress, Failure> {
    word.parse().map_err(|why: String| Failure::usage(format!("--prometheus: {why}")))
}

/// Why logs cannot judge.
fn untold() -> Failure {
    Failure::source("the mesh's access logs do not tell the gRPC status: a canary that fails would look well")
        .hint("add %GRPC_STATUS(NUMBER)% to meshConfig.accessLogFormat; or --prometheus PLACE, or --guard counters")
}

/// The formats of access logs that the mesh defines, if one tells the gRPC status.
async fn formats(session: &ShiftSession<'_, '_>) -> Option<Arc<[LogFormat]>> {
    let scope = &session.context.scope;
    let places: std::collections::BTreeSet<&str> = [&*session.target.key.namespace].into();
    let read = session.server.log_settings(&scope.istio_namespace, scope.revision.as_deref(), &places).await;
    read.settings.tells_status().then(|| read.settings.formats().0.into())
}
