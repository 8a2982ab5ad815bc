//! Logs of a cluster's proxies, as they come.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::TailArgs;
use super::sink::Sink;
use crate::accesslog::Reader;
use crate::accesslog::format::Format as LogFormat;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::cluster::client::Server;
use crate::cluster::logs::{Event, ProxyPod, Selection, Span};
use crate::report::tail::{Names, Origin};
use crate::snapshot::yaml;

/// How often new pods are looked for.
const LOOK: Duration = Duration::from_secs(3);
/// Lines that may wait before the servers are slowed down.
const WAITING: usize = 1024;

/// Reads them until they end, or until the user ends it.
pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<Outcome, Failure> {
    if arguments.targets.is_empty() && arguments.selector.is_none() {
        return Err(Failure::usage("tail needs a Service, a workload, a pod, labels (-l) or saved logs (--logs)")
            .hint("kubectl grpcmesh tail SERVICE -n NAMESPACE -f"));
    }
    let server = context.connection.connection(&context.env).connect().await?;
    let namespace = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
    let place = if context.scope.all_namespaces { None } else { Some(namespace.clone()) };
    let (selections, host) = selections(&server, arguments, &namespace, place).await?;
    let format = match format {
        Some(format) => Some(format),
        None => mesh_format(context, &server).await?,
    };
    let span = Span {
        follow: arguments.follow,
        since_seconds: arguments.since.map(|since| since.as_secs().max(1)),
        since_time: arguments.since_time.clone(),
        lines: arguments.lines,
        previous: arguments.previous,
    };
    let names = names(&server).await;
    let mut sink = Sink::new(context, arguments, names)?;
    sink.only = host;
    let server = Arc::new(server);
    let (sender, events) = mpsc::channel(WAITING);
    let mut tail = Tail {
        server,
        arguments,
        selections,
        span,
        format,
        sender: Some(sender),
        pods: Vec::new(),
        known: BTreeSet::new(),
        open: BTreeSet::new(),
        failed: BTreeSet::new(),
        lines: 0,
    };
    let interrupted = tail.run(&mut sink, events).await?;
    if tail.lines == 0 && !tail.failed.is_empty() && tail.failed.len() == tail.pods.len() {
        return Err(Failure::source("no log could be read")
            .hint("reading logs needs get on pods/log: kubectl auth can-i get pods --subresource=log -n NAMESPACE"));
    }
    let outcome = sink.finish(0)?;
    match (interrupted, outcome) {
        (true, _) => Err(Failure::interrupted()),
        (false, Outcome::Clean) if !tail.failed.is_empty() => Ok(Outcome::Partial),
        (false, outcome) => Ok(outcome),
    }
}

/// Pods by what the user named, and the host to which calls are wanted with `--callers`.
async fn selections(
    server: &Server,
    arguments: &TailArgs,
    namespace: &str,
    place: Option<String>,
) -> Result<(Vec<Selection>, Option<String>), Failure> {
    let mut selections = Vec::new();
    if let Some(labels) = &arguments.selector {
        selections.push(Selection { namespace: place.clone(), labels: labels.clone(), name: None });
    }
    let mut host = None;
    for word in &arguments.targets {
        let (kind, name) = word.split_once('/').unwrap_or(("svc", word));
        // `checkout.shop` names its namespace.
        let (name, namespace) = match name.split_once('.') {
            Some((name, rest)) if kind.starts_with('s') || kind == "service" => {
                (name, rest.split('.').next().unwrap_or(namespace))
            }
            _ => (name, namespace),
        };
        let plural = match kind.to_ascii_lowercase().as_str() {
            "svc" | "service" | "services" => "services",
            "deploy" | "deployment" | "deployments" => "deployments",
            "sts" | "statefulset" | "statefulsets" => "statefulsets",
            "ds" | "daemonset" | "daemonsets" => "daemonsets",
            "po" | "pod" | "pods" => {
                let (namespace, name) = (Some(namespace.to_owned()), Some(name.to_owned()));
                selections.push(Selection { namespace, labels: String::new(), name });
                continue;
            }
            other => {
                return Err(Failure::usage(format!("\"{other}\" is not a kind with pods"))
                    .hint("one of svc, deploy, sts, ds, pod"));
            }
        };
        let labels = server.selector(namespace, plural, name).await?;
        if arguments.callers {
            if plural != "services" || host.is_some() {
                return Err(Failure::usage("--callers needs one Service"));
            }
            host = Some(format!("{name}.{namespace}.svc.cluster.local"));
            selections.push(Selection { namespace: None, labels: String::new(), name: None });
        } else {
            selections.push(Selection { namespace: Some(namespace.to_owned()), labels, name: None });
        }
    }
    Ok((selections, host))
}

/// The mesh's own format, if it has one.
async fn mesh_format(context: &Context<'_>, server: &Server) -> Result<Option<LogFormat>, Failure> {
    let map = match context.scope.revision.as_deref() {
        Some(revision) if revision != "default" => format!("istio-{revision}"),
        _ => "istio".to_owned(),
    };
    let Some(text) = server.config_value(&context.scope.istio_namespace, &map, "mesh").await else { return Ok(None) };
    let config = yaml::to_json(&text).ok().and_then(|converted| converted.json);
    let config: serde_json::Value = config.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default();
    let written = config["accessLogFormat"].as_str().filter(|format| !format.trim().is_empty());
    match written.map(LogFormat::compile) {
        None => Ok(None),
        Some(Ok(format)) => Ok(Some(format)),
        Some(Err(error)) => {
            context.messages.warning(&format!("the mesh's accessLogFormat cannot be read: {error}"));
            Ok(None)
        }
    }
}

/// Who has which address: pods with a proxy, as far as they may be listed.
async fn names(server: &Server) -> Names {
    let everything = Selection { namespace: None, labels: String::new(), name: None };
    let pods = server.proxies(&everything).await.unwrap_or_default();
    let named = pods.into_iter().filter_map(|pod| Some((pod.ip?, format!("{}.{}", pod.name, pod.namespace))));
    Names(named.collect::<HashMap<_, _>>())
}

struct Tail<'a> {
    server: Arc<Server>,
    arguments: &'a TailArgs,
    selections: Vec<Selection>,
    span: Span,
    format: Option<LogFormat>,
    /// Dropped when no more pods are looked for, so that the end of the last log is the end.
    sender: Option<mpsc::Sender<Event>>,
    /// All that were ever read, by their number.
    pods: Vec<(Origin, Reader)>,
    /// Identities of pods that are there and were read: none is begun twice.
    known: BTreeSet<String>,
    /// Numbers of those that are read now.
    open: BTreeSet<usize>,
    /// Numbers of those that could not be read.
    failed: BTreeSet<usize>,
    /// Lines that came.
    lines: u64,
}

impl Tail<'_> {
    /// Says whether the user ended it.
    async fn run(&mut self, sink: &mut Sink<'_, '_>, mut events: mpsc::Receiver<Event>) -> Result<bool, Failure> {
        self.look(sink, true).await?;
        if !self.arguments.follow {
            self.sender = None;
        }
        let mut again = tokio::time::interval(LOOK);
        again.tick().await;
        // One future for the whole time: a signal between two turns of the loop must not be lost, and comes first.
        let mut ended = std::pin::pin!(tokio::signal::ctrl_c());
        loop {
            tokio::select! {
                biased;
                _ = &mut ended => return Ok(true),
                event = events.recv() => match event {
                    Some(event) => self.take(event, sink)?,
                    None => return Ok(false),
                },
                _ = again.tick(), if self.arguments.follow => self.look(sink, false).await?,
            }
        }
    }

    fn take(&mut self, event: Event, sink: &mut Sink<'_, '_>) -> Result<(), Failure> {
        match event {
            Event::Line(number, line) => {
                self.lines += 1;
                self.failed.remove(&number);
                if let Some((origin, reader)) = self.pods.get_mut(number) {
                    sink.take(reader, &line, origin)?;
                }
                // What is shown as it comes must not wait in a buffer.
                if self.arguments.follow && !self.arguments.summary {
                    sink.context.out.flush()?;
                }
            }
            Event::Trouble(number, why) => {
                self.failed.insert(number);
                let name = self.pods.get(number).and_then(|(origin, _)| origin.pod.clone()).unwrap_or_default();
                sink.context.messages.warning(&format!("{name}: {why}"));
            }
            Event::End(number) => {
                self.open.remove(&number);
            }
        }
        Ok(())
    }

    /// Looks for pods that are not read yet.
    async fn look(&mut self, sink: &mut Sink<'_, '_>, first: bool) -> Result<(), Failure> {
        let Some(sender) = self.sender.clone() else { return Ok(()) };
        let mut found: BTreeSet<ProxyPod> = BTreeSet::new();
        for selection in &self.selections {
            match self.server.proxies(selection).await {
                Ok(pods) => found.extend(pods),
                Err(error) if first => return Err(error.into()),
                Err(error) => {
                    sink.context.messages.warning(&format!("cannot look for new pods: {}", error.message));
                    return Ok(());
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
                Origin { pod: Some(pod.name.clone()), namespace: Some(pod.namespace.clone()), ip: pod.ip.clone() };
            if !first {
                sink.context.messages.hint(&format!("{}/{} joins", pod.namespace, pod.name));
            }
            if let Some(ip) = &pod.ip {
                sink.names.0.insert(ip.clone(), format!("{}.{}", pod.name, pod.namespace));
            }
            self.pods.push((origin, self.format.clone().map_or_else(Reader::default, Reader::with_format)));
            self.known.insert(pod.uid.clone());
            self.open.insert(number);
            // A pod that joins is read from its beginning.
            let span = if first { self.span.clone() } else { Span { follow: true, ..Span::default() } };
            let (server, sender) = (Arc::clone(&self.server), sender.clone());
            tokio::spawn(async move { server.follow(number, &pod, &span, sender).await });
        }
        Ok(())
    }
}
