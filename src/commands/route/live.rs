//! `route --live`: compares the answer with what the caller's Envoy runs.

use std::time::Duration;

use super::super::live_proxies::pod_names;
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

/// Adds the state of the caller's Envoy to each answer. For a caller class, one of its callers represents all. A snapshot with
/// proxies replaces the cluster.
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
        return Err(Failure::usage("the source does not contain the configuration of proxies")
            .hint("save it with: kubectl grpcmesh snapshot --proxies -o FILE"));
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
            return Err(Failure::usage(format!("{} is not a pod, so it has no Envoy", report.caller))
                .hint("select a pod with --caller NS/POD or --caller NS/deploy/NAME"));
        };
        // Only the virtual host and the backends of the call matter.
        let virtual_host = report.virtual_host.as_deref().and_then(|name| name.rsplit_once(':')).map(|(host, _)| host);
        let backends = report.backends.iter().filter_map(|backend| backend.host.as_deref());
        let mut hosts: Vec<String> = virtual_host.into_iter().chain(backends).map(str::to_owned).collect();
        if hosts.is_empty() {
            hosts.push(report.authority.rsplit_once(':').map_or(&*report.authority, |(host, _)| host).to_owned());
        }
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
                let evidence = "the snapshot does not contain its configuration".to_owned();
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
