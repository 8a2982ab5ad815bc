//! `balance`: is load really spread per call, or pinned to a few connections?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use regex::Regex;

use super::proxies::{ProxyArgs, choose, pods};
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::SourceArgs;
use crate::cli::target;
use crate::cluster::client::Server;
use crate::cluster::proxies::PodName;
use crate::compare::balance::{Evenness, Spread};
use crate::envoy::endpoint::show;
use crate::mesh::protocol::Family;
use crate::mesh::service::{Resolution, Service, ServicePort};
use crate::mesh::workload::Readiness;
use crate::mesh::{self, Mesh};
use crate::report::balance::{BalanceReport, EndpointReport, PatternReport};
use crate::{render, schema};

/// Show how calls spread over the pods of a Service
///
/// The callers' Envoys count what they send to each endpoint. Two readings of these counters, summed over all callers,
/// tell whether calls are balanced one by one, or pinned to a few connections, and the objects tell why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh balance checkout.shop                 half a minute of what all callers send
  kubectl grpcmesh balance checkout --for 5m -o json
  kubectl grpcmesh balance checkout --log-pattern 'server=(\\S+)'   count server ids in the callers' own logs")]
pub struct BalanceArgs {
    /// Service: checkout, checkout.shop
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Time between the two readings
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = schema::duration::parse)]
    window: Duration,
    /// Only this port of the Service
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Count what this expression (its first group) finds in the callers' application logs in the same time
    #[arg(long, value_name = "REGEX")]
    log_pattern: Option<Regex>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
    #[command(flatten)]
    asking: ProxyArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: BalanceArgs) -> Result<Outcome, Failure> {
    let source = SourceArgs::default();
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let found = target::services(&mesh, &arguments.service, &read.namespaces)?;
    let [id] = found[..] else {
        return Err(Failure::usage(format!("{} means {} Services", arguments.service, found.len()))
            .hint("name one: checkout.shop, or with -n"));
    };
    let service = mesh.service(id);
    let host = service.host.as_str().to_owned();
    let wanted = |cluster: &str| {
        let mut parts = cluster.splitn(4, '|');
        let outbound = parts.next() == Some("outbound");
        let port = parts.next().and_then(|port| port.parse().ok());
        outbound && arguments.port.is_none_or(|only| port == Some(only)) && parts.nth(1) == Some(&*host)
    };
    // Callers may be anywhere.
    let (callers, others) = choose(&mesh, |_| true, arguments.asking.proxies);
    let pods = pods(&mesh, &callers);
    if pods.is_empty() {
        return Err(Failure::source("no pod here has a sidecar: nobody counts calls")
            .hint("why, is told by: kubectl grpcmesh inspect -A"));
    }
    let server = context.connection.connection(&context.env).connect().await?;
    let ProxyArgs { via, parallel, proxy_timeout, .. } = arguments.asking;
    let ask = || server.all_counters(&pods, via.into(), parallel, proxy_timeout, &wanted);
    let start = Instant::now();
    let before = ask().await;
    wait(context, arguments.window).await;
    let after = ask().await;
    let seconds = start.elapsed().as_secs_f64();
    let mut pairs = Vec::new();
    let mut unreachable: Vec<String> = others
        .into_iter()
        .filter(|(_, why)| why.starts_with("not asked"))
        .map(|(id, why)| format!("{}: {why}", mesh.workload(id).object.path()))
        .collect();
    for ((pod, before), after) in pods.iter().zip(before).zip(after) {
        match (before, after) {
            (Ok(before), Ok(after)) => pairs.push((before, after)),
            (Err(error), _) | (_, Err(error)) => {
                unreachable.push(format!("{}/{}: {}", pod.namespace, pod.pod, error.message));
            }
        }
    }
    if pairs.is_empty() {
        let why = unreachable.first().cloned().unwrap_or_default();
        return Err(Failure::source(format!("no caller's proxy could be asked: {why}"))
            .hint("it needs create on pods/portforward (docs/rbac/live-reader.yaml), or --via exec"));
    }
    let mut spread = Spread::new(&pairs);
    if service.resolution == Resolution::Headless {
        spread.over_all(addresses(&mesh, service, &arguments, &spread));
    }
    let log_pattern = match &arguments.log_pattern {
        Some(pattern) => Some(count_in_logs(&server, &pods, pattern, seconds).await),
        None => None,
    };
    let report = report(&mesh, service, &arguments, &spread, seconds, log_pattern, unreachable);
    match arguments.output {
        Format::Text => render::balance::balance(&report, &context.style, context.out)?,
        Format::Json => render::json(&report, context.out)?,
        Format::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(match (spread.evenness(is_tcp(service, &arguments)), report.unreachable.is_empty()) {
        (Evenness::Uneven | Evenness::Pinned, _) => Outcome::Found,
        (_, false) => Outcome::Partial,
        (Evenness::Even | Evenness::TooFew, true) => Outcome::Clean,
    })
}

/// Waits, with progress by the second.
async fn wait(context: &Context<'_>, window: Duration) {
    let bar = context.messages.bar("counting calls");
    bar.set_length(window.as_secs().max(1));
    let end = tokio::time::Instant::now() + window;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + Duration::from_secs(1))).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// Addresses of ready pods, with the ports that were seen.
fn addresses(mesh: &Mesh<'_>, service: &Service, arguments: &BalanceArgs, spread: &Spread) -> Vec<String> {
    let seen: Vec<u16> =
        spread.endpoints.keys().filter_map(|address| address.rsplit(':').next()?.parse().ok()).collect();
    let port = seen.first().copied().or(arguments.port).unwrap_or_else(|| service.main_port());
    let ready = mesh.workloads_of(service).filter(|workload| workload.readiness != Readiness::NotReady);
    ready.filter_map(|workload| workload.ip.as_deref().map(|ip| show(ip, port))).collect()
}

fn report(
    mesh: &Mesh<'_>,
    service: &Service,
    arguments: &BalanceArgs,
    spread: &Spread,
    seconds: f64,
    log_pattern: Option<PatternReport>,
    unreachable: Vec<String>,
) -> BalanceReport {
    let calls = spread.calls();
    let pod_of = |address: &str| {
        let ip = address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_matches(['[', ']']);
        mesh.workloads.iter().find(|one| one.ip.as_deref() == Some(ip)).map(|one| one.object.name.to_string())
    };
    let mut endpoints: Vec<EndpointReport> = spread
        .endpoints
        .iter()
        .map(|(address, got)| EndpointReport {
            pod: pod_of(address),
            address: address.clone(),
            subset: (!got.subsets.is_empty())
                .then(|| got.subsets.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
            calls: got.calls,
            errors: got.errors,
            share: if calls == 0 { 0.0 } else { got.calls as f64 / calls as f64 },
        })
        .collect();
    endpoints.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.address.cmp(&b.address)));
    BalanceReport {
        kind: "Balance",
        version: 1,
        service: service.host.to_string(),
        seconds,
        callers: spread.callers,
        endpoints,
        calls,
        effective_servers: spread.effective_servers(),
        jain: spread.jain(),
        verdict: spread.evenness(is_tcp(service, arguments)).word(),
        cause: cause(mesh, service, arguments, spread),
        log_pattern,
        unreachable,
    }
}

/// What objects and counters say about the verdict.
fn cause(mesh: &Mesh<'_>, service: &Service, arguments: &BalanceArgs, spread: &Spread) -> String {
    let tcp = is_tcp(service, arguments);
    let evenness = spread.evenness(tcp);
    if spread.calls() == 0 {
        return "no caller with a sidecar sent anything: calls of pods without one are not counted".to_owned();
    }
    if evenness == Evenness::TooFew {
        return format!(
            "{} calls are too few for {} endpoints: wait longer (--for)",
            spread.calls(),
            spread.endpoints.len()
        );
    }
    if evenness == Evenness::Even {
        return String::new();
    }
    if tcp && spread.nothing_ended {
        let named: Vec<String> = ports(service, arguments).map(ServicePort::title).collect();
        let named = format!(" (port {})", named.join(", "));
        return format!(
            "the callers' proxies count connections, not calls{named}: the port is treated as TCP, so every call of a \
             connection goes to one pod; name it grpc-…, or set appProtocol: grpc"
        );
    }
    if service.resolution == Resolution::Headless {
        return "the Service is headless: each caller's proxy keeps to the pod that its client dialled".to_owned();
    }
    let rules = mesh
        .destination_rules
        .iter()
        .filter(|rule| mesh.find_host(rule.host.as_str()).is_some_and(|id| std::ptr::eq(mesh.service(id), service)));
    for rule in rules {
        let policy = rule.spec.traffic_policy.as_ref();
        let balancers =
            policy.into_iter().chain(rule.spec.subsets.iter().filter_map(|one| one.traffic_policy.as_ref()));
        if balancers.filter_map(|one| one.load_balancer.as_ref()).any(|one| one.consistent_hash.is_some()) {
            return format!("{} asks for a consistent hash: calls with one key go to one pod, as meant", rule.object);
        }
    }
    let out: Vec<&str> =
        spread.endpoints.iter().filter(|(_, got)| got.ejected).map(|(address, _)| address.as_str()).collect();
    if !out.is_empty() {
        return format!("outlier detection has {} out", out.join(", "));
    }
    if spread.callers == 1 {
        return "one caller only: with few calls at a time LEAST_REQUEST may stay with few pods; locality may prefer some"
            .to_owned();
    }
    "no object explains it: look at locality, at pods that came lately, and at streams that last long".to_owned()
}

/// The ports that are looked at.
fn ports<'s>(service: &'s Service, arguments: &BalanceArgs) -> impl Iterator<Item = &'s ServicePort> {
    let only = arguments.port;
    service.ports.iter().filter(move |port| only.is_none_or(|only| port.number == only))
}

/// Whether all of them are treated as TCP.
fn is_tcp(service: &Service, arguments: &BalanceArgs) -> bool {
    ports(service, arguments).all(|port| port.protocol.family() == Family::Tcp)
}

/// Counts what a pattern finds in the logs of the callers' applications.
async fn count_in_logs(server: &Server, pods: &[PodName], pattern: &Regex, seconds: f64) -> PatternReport {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for pod in pods {
        for text in server.application_logs(pod, seconds).await {
            for line in text.lines() {
                if let Some(found) = pattern.captures(line) {
                    let text = found.get(1).or_else(|| found.get(0)).map_or("", |one| one.as_str());
                    *counts.entry(text.to_owned()).or_default() += 1;
                }
            }
        }
    }
    PatternReport { distinct: counts.len(), counts }
}
