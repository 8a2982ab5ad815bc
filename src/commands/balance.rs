//! `balance`: measures how the calls to a Service spread over its pods.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use regex::Regex;

use super::live_proxies::{AdminAccessArgs, ProxyArgs, ProxySample, SkipReason, pod_names, sample_proxies};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::{ReportFormat, SourceArgs};
use crate::cli::target;
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::PodName;
use crate::dataplane::balance::{BalanceVerdict, CounterReadings, service_distribution};
use crate::mesh::service::Service;
use crate::mesh::{self, Mesh};
use crate::render;
use crate::report::GapReport;
use crate::report::balance::{BalanceReport, LogPatternReport};
use crate::snapshot::{Gap, GapKind};

/// Show how calls spread over the pods of a Service
///
/// Reads the per-endpoint counters of the callers' Envoys twice, and sums the calls between the readings. The verdict states
/// whether the calls spread evenly or are pinned to a few connections, and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh balance checkout.shop              the calls of all callers in 30 seconds
  kubectl grpcmesh balance checkout --for 5m -o json
  kubectl grpcmesh balance checkout --log-pattern 'server=(\\S+)'
                                                      count server IDs in the callers' logs")]
pub struct BalanceArgs {
    /// Service, such as checkout or checkout.shop
    #[arg(value_name = "SERVICE")]
    service: String,
    /// Time between the two readings
    #[arg(long = "for", value_name = "DURATION", default_value = "30s", value_parser = crate::vocabulary::duration::parse)]
    window: Duration,
    /// Count only calls to this port of the Service
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Also count the captures of this regular expression in the callers' application logs of that time
    #[arg(long, value_name = "REGEX")]
    log_pattern: Option<Regex>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ReportFormat,
    #[command(flatten)]
    proxies: ProxyArgs,
}

pub(super) async fn run(context: &mut Context<'_>, arguments: BalanceArgs) -> Result<CommandOutcome, Failure> {
    let source = SourceArgs::default();
    let scoped = source.read(context).await?;
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let service = mesh.service(target::single_service(&mesh, &arguments.service, &scoped.namespaces)?);
    // The callers of a Service may be in any namespace.
    let sample = sample_proxies(&mesh, |_| true, arguments.proxies.proxies);
    let pods = pod_names(&mesh, &sample.selected);
    if pods.is_empty() {
        return Err(Failure::unavailable("cannot count calls: no pod has a sidecar or is a gateway")
            .hint("check the injection of sidecars: kubectl grpcmesh inspect -A"));
    }
    let server = context.connect().await?;
    let measurement = measure(context, &server, &pods, service, &arguments).await;
    if measurement.readings.is_empty() {
        let reason = measurement.unreachable.first().map(|gap| format!("{}: {}", gap.what, gap.why));
        return Err(Failure::unavailable("cannot read the counters of any caller's proxy")
            .cause(reason.unwrap_or_default())
            .hint("this requires create on pods/portforward (docs/rbac/live-reader.yaml), or use --via exec"));
    }
    let distribution = service_distribution(&mesh, service, arguments.port, &measurement.readings);
    let log_pattern = match &arguments.log_pattern {
        Some(pattern) => Some(count_in_logs(&server, &pods, pattern, measurement.seconds).await),
        None => None,
    };
    let mut gaps = gaps_of_skipped(&mesh, &sample);
    gaps.extend(measurement.unreachable);
    let report = BalanceReport {
        seconds: measurement.seconds,
        log_pattern,
        gaps,
        ..BalanceReport::new(&mesh, service, arguments.port, &distribution)
    };
    match arguments.output {
        ReportFormat::Text => render::balance::balance(&report, &context.style, context.out)?,
        ReportFormat::Json => render::json(&report, context.out)?,
        ReportFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    if distribution.calls() > 0 && report.verdict == BalanceVerdict::TooFewCalls {
        context.messages.hint("use a longer window: --for 2m");
    }
    Ok(exit_outcome(&report))
}

fn exit_outcome(report: &BalanceReport) -> CommandOutcome {
    match (report.verdict, report.gaps.is_empty()) {
        (BalanceVerdict::Uneven | BalanceVerdict::Pinned, _) => CommandOutcome::Found,
        (_, false) => CommandOutcome::Partial,
        (BalanceVerdict::Even | BalanceVerdict::TooFewCalls, true) => CommandOutcome::Clean,
    }
}

/// The counters of the proxies before and after the window.
struct Measurement {
    readings: Vec<CounterReadings>,
    unreachable: Vec<GapReport>,
    /// Time between the readings.
    seconds: f64,
}

async fn measure(
    context: &Context<'_>,
    server: &ApiServer,
    pods: &[PodName],
    service: &Service,
    arguments: &BalanceArgs,
) -> Measurement {
    // Cluster names have the form outbound|PORT|SUBSET|HOST.
    let is_selected = |cluster: &str| {
        let mut parts = cluster.splitn(4, '|');
        let is_outbound = parts.next() == Some("outbound");
        let port = parts.next().and_then(|port| port.parse().ok());
        let is_selected_port = arguments.port.is_none_or(|selected| port == Some(selected));
        is_outbound && is_selected_port && parts.nth(1) == Some(service.host.as_str())
    };
    let AdminAccessArgs { via, parallel, proxy_timeout } = arguments.proxies.access;
    let read_counters =
        || server.endpoint_counters(pods, via.into(), parallel, proxy_timeout, &is_selected, &|counters| counters);
    let start = Instant::now();
    let before = read_counters().await;
    wait(context, arguments.window).await;
    let after = read_counters().await;
    let seconds = start.elapsed().as_secs_f64();
    let mut measurement = Measurement { readings: Vec::new(), unreachable: Vec::new(), seconds };
    for ((pod, before), after) in pods.iter().zip(before).zip(after) {
        match (before, after) {
            (Ok(before), Ok(after)) => measurement.readings.push((before, after)),
            (Err(error), _) | (_, Err(error)) => {
                measurement.unreachable.push(gap(format!("{}/{}", pod.namespace, pod.pod), error.message));
            }
        }
    }
    measurement
}

/// Gaps for the proxies that `--proxies` excludes. Waypoints do not count calls per endpoint, so they are not missing.
fn gaps_of_skipped(mesh: &Mesh<'_>, sample: &ProxySample) -> Vec<GapReport> {
    let limited = sample.skipped.iter().filter(|(_, reason)| matches!(reason, SkipReason::Limit(_)));
    limited.map(|(id, reason)| gap(mesh.workload(*id).object.path(), reason.to_string())).collect()
}

fn gap(proxy: String, reason: String) -> GapReport {
    GapReport::from(&Gap::new(proxy, reason, GapKind::Failed))
}

/// Waits for the end of the window, with a progress bar.
async fn wait(context: &Context<'_>, window: Duration) {
    let bar = context.messages.progress_bar("counting calls");
    bar.set_length(window.as_secs().max(1));
    let end = tokio::time::Instant::now() + window;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep_until(end.min(tokio::time::Instant::now() + Duration::from_secs(1))).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// Counts the captures of a pattern in the application logs of the callers.
async fn count_in_logs(server: &ApiServer, pods: &[PodName], pattern: &Regex, seconds: f64) -> LogPatternReport {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for pod in pods {
        for text in server.application_logs(pod, seconds).await {
            for line in text.lines() {
                if let Some(captures) = pattern.captures(line) {
                    let capture = captures.get(1).or_else(|| captures.get(0)).map_or("", |group| group.as_str());
                    *counts.entry(capture.to_owned()).or_default() += 1;
                }
            }
        }
    }
    LogPatternReport { distinct: counts.len(), counts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_exit_code_follows_the_verdict_and_the_gaps() {
        let with_gaps = BalanceReport { gaps: samples::balance_pinned().gaps, ..samples::balance_even() };
        for (report, outcome) in [
            (samples::balance_even(), CommandOutcome::Clean),
            (samples::balance_too_few(), CommandOutcome::Clean),
            (samples::balance_uneven(), CommandOutcome::Found),
            (samples::balance_pinned(), CommandOutcome::Found),
            (with_gaps, CommandOutcome::Partial),
        ] {
            assert_eq!(exit_outcome(&report), outcome, "{report:?}");
        }
    }
}
