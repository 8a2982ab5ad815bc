//! `balance`: is load really spread per call, or pinned to a few connections?

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use regex::Regex;

use super::proxy_states::{AdminAccessArgs, ProxyArgs, choose, pods};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::target;
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::PodName;
use crate::dataplane::balance::{BalanceVerdict, is_tcp, of_service};
use crate::mesh;
use crate::render;
use crate::report::balance::{BalanceReport, LogPatternReport};

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
    #[arg(long = "for", value_name = "TIME", default_value = "30s", value_parser = crate::vocabulary::duration::parse)]
    window: Duration,
    /// Only this port of the Service
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Count what this expression (its first group) finds in the callers' application logs in the same time
    #[arg(long, value_name = "REGEX")]
    log_pattern: Option<Regex>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: BalanceFormat,
    #[command(flatten)]
    asking: ProxyArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BalanceFormat {
    /// For people.
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: BalanceArgs) -> Result<CommandOutcome, Failure> {
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
    let server = context.connect().await?;
    let AdminAccessArgs { via, parallel, proxy_timeout } = arguments.asking.reach;
    let ask = || server.all_counters(&pods, via.into(), parallel, proxy_timeout, &wanted, &|all| all);
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
    let spread = of_service(&mesh, service, arguments.port, &pairs);
    let log_pattern = match &arguments.log_pattern {
        Some(pattern) => Some(count_in_logs(&server, &pods, pattern, seconds).await),
        None => None,
    };
    let report = BalanceReport {
        seconds,
        log_pattern,
        unreachable,
        ..BalanceReport::new(&mesh, service, arguments.port, &spread)
    };
    if spread.calls() > 0 && report.verdict == BalanceVerdict::TooFew.as_str() {
        context.messages.hint("count for longer: --for 2m");
    }
    match arguments.output {
        BalanceFormat::Text => render::balance::balance(&report, &context.style, context.out)?,
        BalanceFormat::Json => render::json(&report, context.out)?,
        BalanceFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(match (spread.evenness(is_tcp(service, arguments.port)), report.unreachable.is_empty()) {
        (BalanceVerdict::Uneven | BalanceVerdict::Pinned, _) => CommandOutcome::Found,
        (_, false) => CommandOutcome::Partial,
        (BalanceVerdict::Even | BalanceVerdict::TooFew, true) => CommandOutcome::Clean,
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

/// Counts what a pattern finds in the logs of the callers' applications.
async fn count_in_logs(server: &ApiServer, pods: &[PodName], pattern: &Regex, seconds: f64) -> LogPatternReport {
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
    LogPatternReport { distinct: counts.len(), counts }
}
