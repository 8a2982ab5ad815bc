//! Logs of a cluster's proxies, as they come.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::super::end_signal;
use super::filter::CallCondition;
use super::sink::LineSink;
use super::{TailArgs, diagnosis, targets};
use crate::accesslog::format::LogFormat;
use crate::accesslog::{AccessEntry, LogReader, OtherLine};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cluster::client::ApiServer;
use crate::cluster::logs::{LogEvent, LogRange, PodSelection, ProxyPod};
use crate::envoy::{self, LISTENERS_WITH_LOGS};
use crate::report::tail::{AddressNames, LogOrigin};

/// How often new pods are looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Lines that may wait before the servers are slowed down.
const WAITING: usize = 1024;
/// How often the table of `--top` is drawn.
const REDRAW: Duration = Duration::from_secs(1);
/// Limit for asking a proxy.
const ASK: Duration = Duration::from_secs(5);
/// Proxies that are asked for their format: those of a mesh seldom have more.
const ASKED_MAX: usize = 5;

/// Reads them until they end, or until the user ends it.
pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<CommandOutcome, Failure> {
    if arguments.targets.is_empty() && arguments.selector.is_none() {
        return Err(Failure::usage("tail needs a Service, a workload, a pod, labels (-l) or saved logs (--logs)")
            .hint("kubectl grpcmesh tail SERVICE -n NAMESPACE -f"));
    }
    let server = context.connect().await?;
    let places: Option<Vec<String>> = (!context.scope.all_namespaces).then(|| {
        let named = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
        named.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
    });
    let targets = targets::find(&server, arguments, places.as_deref()).await?;
    let span = LogRange {
        follow: arguments.follow || arguments.top,
        since_seconds: arguments.since.map(|since| since.as_secs().max(1)),
        since_time: arguments.since_time.clone(),
        lines: arguments.lines,
        previous: arguments.previous,
    };
    let names = names(&server).await;
    let mut sink = LineSink::new(context, arguments, names)?;
    if !targets.hosts.is_empty() {
        sink.filter.add(CallCondition::Host(targets.hosts));
    }
    let (sender, events) = mpsc::channel(WAITING);
    let mut tail = LiveTail {
        server: Arc::new(server),
        arguments,
        selections: targets.selections,
        span,
        formats: KnownFormats { list: format.iter().cloned().collect(), fixed: format.is_some(), asked: 0 },
        sender: Some(sender),
        pods: Vec::new(),
        known: BTreeSet::new(),
        open: BTreeSet::new(),
        failed: BTreeSet::new(),
        lines: 0,
    };
    let first = tail.find(&mut sink, true).await?;
    let why_none = tail.settings(&mut sink, &first).await;
    tail.open(&mut sink, first, true)?;
    let interrupted = tail.run(&mut sink, events).await?;
    if tail.lines == 0 && !tail.failed.is_empty() && tail.failed.len() == tail.pods.len() {
        return Err(Failure::source("no log could be read")
            .hint("reading logs needs get on pods/log: kubectl auth can-i get pods --subresource=log -n NAMESPACE"));
    }
    let outcome = sink.finish(0, why_none.as_deref())?;
    match (interrupted, outcome) {
        (true, _) => Err(Failure::interrupted()),
        (false, CommandOutcome::Clean) if !tail.failed.is_empty() => Ok(CommandOutcome::Partial),
        (false, outcome) => Ok(outcome),
    }
}

/// Who has which address: pods with a proxy, as far as they may be listed.
async fn names(server: &ApiServer) -> AddressNames {
    let everything = PodSelection { namespace: None, labels: String::new(), name: None };
    let pods = server.proxies(&everything).await.unwrap_or_default();
    let named = pods.into_iter().filter_map(|pod| Some((pod.ip?, format!("{}.{}", pod.name, pod.namespace))));
    AddressNames(named.collect::<HashMap<_, _>>())
}

/// Custom formats, as far as they are known.
struct KnownFormats {
    list: Arc<[LogFormat]>,
    /// Whether the user gave the format: then nobody is asked.
    fixed: bool,
    /// Proxies that were asked.
    asked: usize,
}

/// A pod whose log is read.
struct FollowedPod {
    origin: LogOrigin,
    reader: LogReader,
    /// Whether its proxy was asked for its formats.
    asked: bool,
}

struct LiveTail<'a> {
    server: Arc<ApiServer>,
    arguments: &'a TailArgs,
    selections: Vec<PodSelection>,
    span: LogRange,
    formats: KnownFormats,
    /// Dropped when no more pods are looked for, so that the end of the last log is the end.
    sender: Option<mpsc::Sender<LogEvent>>,
    /// All that were ever read, by their number.
    pods: Vec<FollowedPod>,
    /// Identities of pods that are there and were read: none is begun twice.
    known: BTreeSet<String>,
    /// Numbers of those that are read now.
    open: BTreeSet<usize>,
    /// Numbers of those that could not be read.
    failed: BTreeSet<usize>,
    /// Lines that came.
    lines: u64,
}

impl LiveTail<'_> {
    /// Says whether the user ended it.
    async fn run(
        &mut self,
        sink: &mut LineSink<'_, '_>,
        mut events: mpsc::Receiver<LogEvent>,
    ) -> Result<bool, Failure> {
        if !self.span.follow {
            self.sender = None;
        }
        let mut again = tokio::time::interval(LOOK);
        again.tick().await;
        let mut redraw = tokio::time::interval(REDRAW);
        // One future for the whole time: a signal between two turns of the loop must not be lost, and comes first.
        let mut ended = std::pin::pin!(end_signal());
        loop {
            tokio::select! {
                biased;
                () = &mut ended => return Ok(true),
                _ = redraw.tick(), if self.arguments.top => sink.draw()?,
                _ = again.tick(), if self.span.follow => {
                    let new = self.find(sink, false).await?;
                    self.open(sink, new, false)?;
                }
                event = events.recv() => match event {
                    Some(event) => self.take(event, sink).await?,
                    None => return Ok(false),
                },
            }
        }
    }

    async fn take(&mut self, event: LogEvent, sink: &mut LineSink<'_, '_>) -> Result<(), Failure> {
        match event {
            LogEvent::Line(number, line) => {
                self.lines += 1;
                self.failed.remove(&number);
                self.learn(number, &line, sink).await;
                if let Some(FollowedPod { origin, reader, .. }) = self.pods.get_mut(number) {
                    sink.take(reader, &line, origin)?;
                }
                // What is shown as it comes must not wait in a buffer.
                if self.span.follow && !self.arguments.summary && !self.arguments.top {
                    sink.context.out.flush()?;
                }
            }
            LogEvent::Trouble(number, why) => {
                self.failed.insert(number);
                let name = self.pods.get(number).and_then(|one| one.origin.pod.clone()).unwrap_or_default();
                sink.context.messages.warning(&format!("{name}: {why}"));
            }
            LogEvent::End(number) => {
                self.open.remove(&number);
            }
        }
        Ok(())
    }

    /// Asks a pod's proxy for its format when its lines are not understood; what it says serves all pods.
    async fn learn(&mut self, number: usize, line: &[u8], sink: &LineSink<'_, '_>) {
        let Some(pod) = self.pods.get_mut(number).filter(|pod| !pod.asked) else { return };
        if self.formats.fixed || self.formats.asked == ASKED_MAX {
            return;
        }
        let read = pod.reader.clone().fill(line, &mut AccessEntry::default()).map(drop);
        if !matches!(read, Err(OtherLine::Unknown | OtherLine::UnknownJson)) {
            return;
        }
        pod.asked = true;
        self.formats.asked += 1;
        let (namespace, name) = (pod.origin.namespace.clone(), pod.origin.pod.clone());
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let messages = &sink.context.messages;
        let found = match self.server.admin(&namespace, &name, LISTENERS_WITH_LOGS, ASK).await {
            Ok(dump) => envoy::log_formats(&dump).map_err(|error| error.to_string()),
            Err(error) => Err(error.hint.map_or(error.message.clone(), |hint| format!("{} ({hint})", error.message))),
        };
        let (found, refused) = found.unwrap_or_else(|why| {
            let text = "has lines in a format of their own, and its proxy could not be asked for it";
            messages.warning(&format!("{namespace}/{name} {text}: {why}"));
            Default::default()
        });
        for error in refused {
            messages.warning(&format!("a format of {namespace}/{name} cannot be used: {error}"));
        }
        if !found.is_empty() {
            self.formats.list = self.formats.list.iter().cloned().chain(found).collect();
            for pod in &mut self.pods {
                pod.reader = LogReader::with_formats(Arc::clone(&self.formats.list));
            }
        }
    }

    /// Looks for pods that are not read yet.
    async fn find(&mut self, sink: &mut LineSink<'_, '_>, first: bool) -> Result<Vec<ProxyPod>, Failure> {
        let mut found: BTreeSet<ProxyPod> = BTreeSet::new();
        for selection in &self.selections {
            match self.server.proxies(selection).await {
                Ok(pods) => found.extend(pods),
                Err(error) if first => return Err(error.into()),
                Err(error) => {
                    sink.context.messages.warning(&format!("cannot look for new pods: {}", error.message));
                    return Ok(Vec::new());
                }
            }
        }
        found.retain(|pod| !self.arguments.exclude.iter().any(|text| pod.name.contains(text)));
        let there: BTreeSet<&str> = found.iter().map(|pod| pod.uid.as_str()).collect();
        self.known.retain(|uid| there.contains(uid.as_str()));
        let new: Vec<ProxyPod> = found.into_iter().filter(|pod| !self.known.contains(&pod.uid)).collect();
        if first && new.is_empty() {
            return Err(Failure::source("no pod with a proxy is selected")
                .hint("kubectl get pods --show-labels; does the namespace carry the injection label?"));
        }
        Ok(new)
    }

    /// Begins to read pods.
    fn open(&mut self, sink: &mut LineSink<'_, '_>, new: Vec<ProxyPod>, first: bool) -> Result<(), Failure> {
        let Some(sender) = self.sender.clone() else { return Ok(()) };
        let limit = self.arguments.max_log_requests;
        if self.open.len() + new.len() > limit {
            let count = self.open.len() + new.len();
            let message = format!("{count} logs would be open at once, and {limit} may be");
            if first {
                return Err(Failure::usage(message)
                    .hint(format!("raise it with --max-log-requests {count}, or select fewer pods")));
            }
            sink.context.messages.warning(&format!("{message}: new pods are left out (--max-log-requests)"));
            return Ok(());
        }
        for pod in new {
            let number = self.pods.len();
            let origin =
                LogOrigin { pod: Some(pod.name.clone()), namespace: Some(pod.namespace.clone()), ip: pod.ip.clone() };
            if !first {
                sink.context.messages.hint(&format!("{}/{} joins", pod.namespace, pod.name));
            }
            if let Some(ip) = &pod.ip {
                sink.names.0.insert(ip.clone(), format!("{}.{}", pod.name, pod.namespace));
            }
            let reader = LogReader::with_formats(Arc::clone(&self.formats.list));
            self.pods.push(FollowedPod { origin, reader, asked: false });
            self.known.insert(pod.uid.clone());
            self.open.insert(number);
            // A pod that joins is read from its beginning.
            let span = if first { self.span.clone() } else { LogRange { follow: true, ..LogRange::default() } };
            let (server, sender) = (Arc::clone(&self.server), sender.clone());
            tokio::spawn(async move { server.follow(number, &pod, &span, sender).await });
        }
        Ok(())
    }

    /// Reads what the mesh says about access logs: takes its formats, says which pods write none and why, and gives what
    /// is to be said if no line comes.
    async fn settings(&mut self, sink: &mut LineSink<'_, '_>, pods: &[ProxyPod]) -> Option<String> {
        let namespaces: BTreeSet<&str> = pods.iter().map(|pod| pod.namespace.as_str()).collect();
        let scope = &sink.context.scope;
        let read = self.server.log_settings(&scope.istio_namespace, scope.revision.as_deref(), &namespaces).await;
        let messages = &sink.context.messages;
        if !self.formats.fixed {
            let (formats, refused) = read.settings.formats();
            for (place, error) in refused {
                messages.warning(&format!("{place} cannot be used to read lines: {error}"));
            }
            self.formats.list = formats.into();
        }
        if !read.gaps.is_empty() {
            return Some(format!("whether access logging is on could not be read: {}", read.gaps.join("; ")));
        }
        let diagnosis = diagnosis::of(&read.settings, pods);
        if let Some(text) = &diagnosis.silent {
            messages.warning(text);
        }
        Some(diagnosis.if_nothing_comes)
    }
}
