//! `tail` on a cluster: streams the logs of proxies and includes new pods.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::termination_signal;
use super::filter::CallCondition;
use super::sink::LineSink;
use super::{TailArgs, logging_check, targets};
use crate::accesslog::format::LogFormat;
use crate::accesslog::{LineReader, LogReader, OtherLine};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cluster::client::ApiServer;
use crate::cluster::logs::{LogEvent, LogRange, PodSelection, ProxyPod};
use crate::envoy::{self, ACCESS_LOG_LISTENERS_PATH};
use crate::report::tail::{AddressNames, LogOrigin};

/// Interval for discovering new pods.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(3);
/// Capacity of the line channel. A full channel slows the servers down.
const CHANNEL_CAPACITY: usize = 1024;
/// Refresh interval of `--top`.
pub(super) const REDRAW_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of a request to a proxy's admin port.
const ADMIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for proxies whose configuration is queried for log formats: a mesh rarely has more formats.
const FORMAT_QUERIES_MAX: usize = 5;

/// Reads logs until they end or the user interrupts the command.
pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<CommandOutcome, Failure> {
    if arguments.targets.is_empty() && arguments.selector.is_none() {
        return Err(Failure::usage("no target given: name a Service, a workload or a pod, or use -l or --logs")
            .hint("for example: kubectl grpcmesh tail SERVICE -n NAMESPACE -f"));
    }
    let server = context.connect().await?;
    let namespaces: Option<Vec<String>> = (!context.scope.all_namespaces).then(|| {
        let names = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    });
    let targets = targets::resolve_targets(&server, arguments, namespaces.as_deref()).await?;
    let range = LogRange {
        follow: arguments.follow || arguments.top,
        since_seconds: arguments.since.map(|since| since.as_secs().max(1)),
        since_time: arguments.since_time.clone(),
        tail_lines: arguments.lines,
        previous: arguments.previous,
    };
    let names = address_names(&server).await;
    let mut sink = LineSink::new(context, arguments, names)?;
    if !targets.hosts.is_empty() {
        sink.filter.add(CallCondition::Host(targets.hosts));
    }
    let (sender, events) = mpsc::channel(CHANNEL_CAPACITY);
    let mut tail = LiveTail {
        server: Arc::new(server),
        arguments,
        selections: targets.selections,
        range,
        formats: LogFormats {
            list: format.iter().cloned().collect(),
            is_set_by_user: format.is_some(),
            queried_proxies: 0,
        },
        sender: Some(sender),
        pods: Vec::new(),
        known_uids: BTreeSet::new(),
        open: BTreeSet::new(),
        failed: BTreeSet::new(),
        line_count: 0,
    };
    let pods = tail.discover_pods(&mut sink, true).await?;
    let no_lines_hint = tail.load_log_settings(&mut sink, &pods).await;
    tail.open_logs(&mut sink, pods, true)?;
    let is_interrupted = tail.run(&mut sink, events).await?;
    if tail.line_count == 0 && !tail.failed.is_empty() && tail.failed.len() == tail.pods.len() {
        return Err(Failure::unavailable("cannot read any of the logs")
            .hint("check the permission to get pods/log: kubectl auth can-i get pods --subresource=log -n NAMESPACE"));
    }
    let outcome = sink.finish(0, no_lines_hint.as_deref())?;
    match (is_interrupted, outcome) {
        (true, _) => Err(Failure::interrupted()),
        (false, CommandOutcome::Clean) if !tail.failed.is_empty() => Ok(CommandOutcome::Partial),
        (false, outcome) => Ok(outcome),
    }
}

/// Addresses of all pods with a proxy; empty if they cannot be listed.
async fn address_names(server: &ApiServer) -> AddressNames {
    let everything = PodSelection { namespace: None, labels: String::new(), name: None };
    let pods = server.list_proxy_pods(&everything).await.unwrap_or_default();
    let named = pods.into_iter().filter_map(|pod| Some((pod.ip?, format!("{}.{}", pod.name, pod.namespace))));
    AddressNames(named.collect::<HashMap<_, _>>())
}

/// The custom formats found so far.
struct LogFormats {
    list: Arc<[LogFormat]>,
    /// With `--log-format` no proxy is queried.
    is_set_by_user: bool,
    queried_proxies: usize,
}

/// A pod whose log is read.
struct FollowedPod {
    origin: LogOrigin,
    reader: LineReader,
    /// Whether its proxy was queried for its formats.
    is_queried: bool,
}

struct LiveTail<'a> {
    server: Arc<ApiServer>,
    arguments: &'a TailArgs,
    selections: Vec<PodSelection>,
    range: LogRange,
    formats: LogFormats,
    /// Dropped without `--follow`, so that the channel closes when the last log ends.
    sender: Option<mpsc::Sender<LogEvent>>,
    /// All pods that were ever read. The index is the number in [`LogEvent`].
    pods: Vec<FollowedPod>,
    /// UIDs of existing pods whose logs were opened: no log is opened twice.
    known_uids: BTreeSet<String>,
    /// Numbers of the pods whose logs are open.
    open: BTreeSet<usize>,
    /// Numbers of the pods whose logs cannot be read.
    failed: BTreeSet<usize>,
    line_count: u64,
}

impl LiveTail<'_> {
    /// Returns whether the user interrupted the command.
    async fn run(
        &mut self,
        sink: &mut LineSink<'_, '_>,
        mut events: mpsc::Receiver<LogEvent>,
    ) -> Result<bool, Failure> {
        if !self.range.follow {
            self.sender = None;
        }
        let mut discovery = tokio::time::interval(DISCOVERY_INTERVAL);
        discovery.tick().await;
        let mut redraw = tokio::time::interval(REDRAW_INTERVAL);
        // One future for the whole loop: a signal between two iterations must not be lost. Signals have priority.
        let mut interrupted = std::pin::pin!(termination_signal());
        loop {
            tokio::select! {
                biased;
                () = &mut interrupted => return Ok(true),
                _ = redraw.tick(), if self.arguments.top => sink.draw()?,
                _ = discovery.tick(), if self.range.follow => {
                    let new_pods = self.discover_pods(sink, false).await?;
                    self.open_logs(sink, new_pods, false)?;
                }
                event = events.recv() => match event {
                    Some(event) => self.handle(event, sink).await?,
                    None => return Ok(false),
                },
            }
        }
    }

    async fn handle(&mut self, event: LogEvent, sink: &mut LineSink<'_, '_>) -> Result<(), Failure> {
        match event {
            LogEvent::Line(number, line) => {
                self.line_count += 1;
                self.failed.remove(&number);
                self.learn_formats(number, &line, sink).await;
                if let Some(FollowedPod { origin, reader, .. }) = self.pods.get_mut(number) {
                    sink.process(reader, &line, origin)?;
                }
                // Lines that are followed must not wait in the output buffer.
                if self.range.follow {
                    sink.flush()?;
                }
            }
            LogEvent::StreamError(number, cause) => {
                self.failed.insert(number);
                let name = self.pods.get(number).and_then(|pod| pod.origin.pod.clone()).unwrap_or_default();
                sink.context.messages.warning(&format!("cannot read the log of {name}: {cause}"));
            }
            LogEvent::End(number) => {
                self.open.remove(&number);
            }
        }
        Ok(())
    }

    /// If a line cannot be parsed, queries the pod's proxy for its log formats and uses them for all pods.
    async fn learn_formats(&mut self, number: usize, line: &[u8], sink: &LineSink<'_, '_>) {
        let Some(pod) = self.pods.get_mut(number).filter(|pod| !pod.is_queried) else { return };
        if self.formats.is_set_by_user || self.formats.queried_proxies == FORMAT_QUERIES_MAX {
            return;
        }
        let result = pod.reader.clone().classify(line);
        if !matches!(result, Some(OtherLine::Unknown | OtherLine::UnknownJson)) {
            return;
        }
        pod.is_queried = true;
        self.formats.queried_proxies += 1;
        let (namespace, name) = (pod.origin.namespace.clone(), pod.origin.pod.clone());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let messages = &sink.context.messages;
        let response = match self.server.get_admin(&namespace, &name, ACCESS_LOG_LISTENERS_PATH, ADMIN_TIMEOUT).await {
            Ok(dump) => envoy::access_log_formats(&dump).map_err(|error| error.to_string()),
            Err(error) => Err(error.hint.map_or(error.message.clone(), |hint| format!("{} ({hint})", error.message))),
        };
        let (formats, invalid) = response.unwrap_or_else(|cause| {
            messages.warning(&format!("cannot get the access log format of {namespace}/{name}: {cause}"));
            Default::default()
        });
        for error in invalid {
            messages.warning(&format!("cannot use an access log format of {namespace}/{name}: {error}"));
        }
        if !formats.is_empty() {
            self.formats.list = self.formats.list.iter().cloned().chain(formats).collect();
            for pod in &mut self.pods {
                pod.reader = LineReader::new(LogReader::with_formats(Arc::clone(&self.formats.list)));
            }
        }
    }

    /// Lists the selected pods whose logs are not open yet.
    async fn discover_pods(&mut self, sink: &mut LineSink<'_, '_>, is_first: bool) -> Result<Vec<ProxyPod>, Failure> {
        let mut pods: BTreeSet<ProxyPod> = BTreeSet::new();
        for selection in &self.selections {
            match self.server.list_proxy_pods(selection).await {
                Ok(selected) => pods.extend(selected),
                Err(error) if is_first => return Err(error.into()),
                Err(error) => {
                    sink.context.messages.warning(&format!("cannot list new pods: {}", error.message));
                    return Ok(Vec::new());
                }
            }
        }
        pods.retain(|pod| !self.arguments.exclude.iter().any(|text| pod.name.contains(text)));
        let uids: BTreeSet<&str> = pods.iter().map(|pod| pod.uid.as_str()).collect();
        self.known_uids.retain(|uid| uids.contains(uid.as_str()));
        let new_pods: Vec<ProxyPod> = pods.into_iter().filter(|pod| !self.known_uids.contains(&pod.uid)).collect();
        if is_first && new_pods.is_empty() {
            return Err(Failure::unavailable("the selection contains no pods with a proxy").hint(
                "check labels and sidecars: kubectl get pods --show-labels; kubectl get namespace -L istio-injection",
            ));
        }
        Ok(new_pods)
    }

    /// Starts to read the logs of pods.
    fn open_logs(&mut self, sink: &mut LineSink<'_, '_>, pods: Vec<ProxyPod>, is_first: bool) -> Result<(), Failure> {
        let Some(sender) = self.sender.clone() else { return Ok(()) };
        let limit = self.arguments.max_log_requests;
        let count = self.open.len() + pods.len();
        if count > limit {
            let message = format!("cannot read {count} logs at the same time: the limit is {limit}");
            if is_first {
                return Err(Failure::usage(message)
                    .hint(format!("raise the limit with --max-log-requests {count}, or select fewer pods")));
            }
            sink.context.messages.warning(&format!("{message} (--max-log-requests); new pods are skipped"));
            return Ok(());
        }
        for pod in pods {
            let number = self.pods.len();
            let origin = LogOrigin {
                pod: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                container: None,
                ip: pod.ip.clone(),
            };
            if !is_first {
                sink.context.messages.hint(&format!("reading new pod {}/{}", pod.namespace, pod.name));
            }
            if let Some(ip) = &pod.ip {
                sink.names.0.insert(ip.clone(), format!("{}.{}", pod.name, pod.namespace));
            }
            let reader = LineReader::new(LogReader::with_formats(Arc::clone(&self.formats.list)));
            self.pods.push(FollowedPod { origin, reader, is_queried: false });
            self.known_uids.insert(pod.uid.clone());
            self.open.insert(number);
            // The log of a new pod is read from its start.
            let range = if is_first { self.range.clone() } else { LogRange { follow: true, ..LogRange::default() } };
            let (server, sender) = (Arc::clone(&self.server), sender.clone());
            tokio::spawn(async move { server.stream_log(number, &pod, &range, sender).await });
        }
        Ok(())
    }

    /// Reads the access logging settings of the mesh: adopts its formats, warns about pods that do not log, and returns
    /// the hint for a run without access log lines.
    async fn load_log_settings(&mut self, sink: &mut LineSink<'_, '_>, pods: &[ProxyPod]) -> Option<String> {
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
        let scope = &sink.context.scope;
        let log_settings =
            self.server.read_log_settings(&scope.istio_namespace, scope.revision.as_deref(), &namespaces).await;
        let messages = &sink.context.messages;
        if !self.formats.is_set_by_user {
            let (formats, invalid) = log_settings.settings.custom_formats();
            for (setting, error) in invalid {
                messages.warning(&format!("cannot use {setting} to parse lines: {error}"));
            }
            self.formats.list = formats.into();
        }
        if !log_settings.gaps.is_empty() {
            return Some(format!("cannot read whether access logging is enabled: {}", log_settings.gaps.join("; ")));
        }
        let check = logging_check::check_logging(&log_settings.settings, pods);
        if let Some(text) = &check.disabled_warning {
            messages.warning(text);
        }
        Some(check.no_lines_hint)
    }
}
