//! `route --live`: the caller's own Envoy beside the answer.

use std::time::Duration;

use super::super::proxy_states::pods;
use super::RouteArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::dataplane::endpoints::SliceEndpoints;
use crate::dataplane::proxy::{ComparedProxy, ProxyState, judge};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::mesh::Mesh;
use crate::mesh::xds::Caller;
use crate::report::diff::DiffProxyReport;
use crate::report::route::{RouteLiveReport, RouteReport};

/// Limit for one proxy's answers.
const ANSWER: Duration = Duration::from_secs(10);

/// Asks the Envoy of each answer's caller; of a class, the one that stands for it. What a snapshot holds is as good.
pub(super) async fn ask(
    context: &mut Context<'_>,
    mesh: &Mesh<'_>,
    arguments: &RouteArgs,
    answers: Vec<(RouteReport, Caller)>,
) -> Result<Vec<RouteReport>, Failure> {
    let saved = ProxyComparisons::new(mesh);
    if saved.is_none() && !arguments.source.from.is_empty() {
        return Err(Failure::usage("the source does not hold what Envoys run")
            .hint("save it with: kubectl grpcmesh snapshot --proxies -o FILE"));
    }
    let live = match &saved {
        Some(_) => None,
        None => {
            let server = context.connect().await?;
            let sync = server.sync_state(&context.scope.istio_namespace).await;
            Some((server, sync))
        }
    };
    let slices = SliceEndpoints::new(mesh);
    let mut reports = Vec::with_capacity(answers.len());
    for (mut report, caller) in answers {
        let Some(id) = caller.workload else {
            return Err(Failure::usage(format!("{} is no pod: it has no Envoy to ask", report.caller))
                .hint("name one: --caller NS/POD or NS/deploy/NAME"));
        };
        // What the call meets: its virtual host, and the backends that it may go to.
        let own = report.virtual_host.as_deref().and_then(|name| name.rsplit_once(':')).map(|(host, _)| host);
        let backends = report.backends.iter().filter_map(|one| one.host.as_deref());
        let mut hosts: Vec<String> = own.into_iter().chain(backends).map(str::to_owned).collect();
        if hosts.is_empty() {
            hosts.push(report.authority.rsplit_once(':').map_or(&*report.authority, |(host, _)| host).to_owned());
        }
        let judged = match (&live, &saved) {
            (Some((server, sync)), _) => {
                let asked = pods(mesh, &[id]);
                let Some(pod) = asked.first() else { continue };
                match server.running(pod, arguments.via.into(), ANSWER).await {
                    Ok(running) => judge(mesh, &caller, &running, &sync.of(pod), slices.as_ref(), &hosts),
                    Err(error) => ComparedProxy::without(ProxyState::Unreachable, error.message),
                }
            }
            (None, saved) => {
                let judged = saved.as_ref().and_then(|proxies| proxies.judge(id, &hosts));
                let why = "the snapshot does not hold what it runs".to_owned();
                judged.unwrap_or_else(|| ComparedProxy::without(ProxyState::NotCompared, why))
            }
        };
        let one = DiffProxyReport::new(mesh, id, judged);
        report.live = Some(RouteLiveReport {
            pod: format!("{}/{}", one.namespace, one.pod),
            state: one.state,
            evidence: one.evidence,
            differences: one.differences,
        });
        reports.push(report);
    }
    Ok(reports)
}
