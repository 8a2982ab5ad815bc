//! `route --live`: compares the answer with what the caller's Envoy runs.

use std::time::Duration;

use super::super::live_proxies::{no_saved_proxies, pod_names};
use super::RouteArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::dataplane::endpoints::SliceEndpoints;
use crate::dataplane::proxy::{ComparedProxy, ProxyState, compare_proxy};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::xds::Caller;
use crate::report::diff::DiffProxyReport;
use crate::report::route::{RouteLiveReport, RouteReport};

/// Timeout for one proxy.
const PROXY_TIMEOUT: Duration = Duration::from_secs(10);

/// Adds the state of the caller's Envoy to each answer. The answer of a caller class gets the state of its first pod. Proxies in a
/// snapshot take the place of those in the cluster.
///
/// # Errors
/// If a caller is not a pod, or a snapshot contains no proxies.
pub(super) async fn compare(
    context: &mut Context<'_>,
    mesh: &Mesh<'_>,
    arguments: &RouteArgs,
    answers: Vec<(RouteReport, Caller)>,
) -> Result<Vec<RouteReport>, Failure> {
    let saved = ProxyComparisons::new(mesh);
    if saved.is_none() && !arguments.source.from.is_empty() {
        return Err(no_saved_proxies());
    }
    let live = match &saved {
        Some(_) => None,
        None => {
            let server = context.connect().await?;
            let sync = server.istiod_sync_state(&context.scope.istio_namespace).await;
            Some((server, sync))
        }
    };
    let slices = SliceEndpoints::new(mesh);
    let mut reports = Vec::with_capacity(answers.len());
    for (mut report, caller) in answers {
        let Some(id) = caller.workload else {
            return Err(Failure::usage(format!("cannot read the Envoy of {}: it is not a pod", report.caller))
                .hint("select a pod with --caller NS/POD or --caller NS/deploy/NAME"));
        };
        let hosts = hosts_of(&report);
        let compared = match (&live, &saved) {
            (Some((server, sync)), _) => {
                let pods = pod_names(mesh, &[id]);
                let Some(pod) = pods.first() else { continue };
                match server.running_config(pod, arguments.via.into(), PROXY_TIMEOUT).await {
                    Ok(running) => compare_proxy(mesh, &caller, &running, &sync.of(pod), slices.as_ref(), &hosts),
                    Err(error) => ComparedProxy::with_state(ProxyState::Unreachable, error.message),
                }
            }
            (None, saved) => {
                let compared = saved.as_ref().and_then(|proxies| proxies.compare(id, &hosts));
                let evidence = "the snapshot does not contain the configuration of this proxy".to_owned();
                compared.unwrap_or_else(|| ComparedProxy::with_state(ProxyState::NotCompared, evidence))
            }
        };
        let proxy = DiffProxyReport::new(mesh, id, compared);
        report.live = Some(RouteLiveReport {
            namespace: proxy.namespace,
            pod: proxy.pod,
            state: proxy.state,
            evidence: proxy.evidence,
            differences: proxy.differences,
        });
        reports.push(report);
    }
    Ok(reports)
}

/// The hosts of the call: only their configuration affects the answer.
fn hosts_of(report: &RouteReport) -> Vec<String> {
    let without_port = |name: &str| name.rsplit_once(':').map(|(host, _)| host.to_owned());
    let virtual_host = report.virtual_host.as_deref().and_then(without_port);
    let backends = report.backends.iter().filter_map(|backend| backend.host.clone());
    let hosts: Vec<String> = virtual_host.into_iter().chain(backends).collect();
    if hosts.is_empty() {
        let authority = &report.authority;
        return vec![without_port(authority).unwrap_or_else(|| authority.clone())];
    }
    hosts
}
