//! GM705: an Envoy with an outdated configuration.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::pod_names;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM705",
    name: "proxy-stale",
    severity: Severity::Warning,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "With --live: an Envoy has not acknowledged an update from istiod for a minute, or gets no updates",
    docs: "\
## What it looks for
With `--live`: a proxy whose configuration differs from the objects and that has not acknowledged an update from istiod
for more than a minute (STALE), or is not connected to istiod, or whose istiod does not respond. istiod closes the
connection of an unresponsive proxy within a minute, so a proxy that hangs is stale first and not connected afterwards.

## Why it matters for gRPC
The proxy routes calls with outdated weights and to outdated endpoints. Calls to deleted pods fail with UNAVAILABLE.

## Example
```text
web-7d9f  stale: istiod sent configuration (route) at 14:02:11, which the proxy has not acknowledged yet
```

## Fix
Check the CPU and memory usage of the proxy (`kubectl top pod --containers`) and the log of its agent (`kubectl logs
POD -c istio-proxy`). Restarting the pod makes the proxy reconnect.

## References
- `sent`, `acked` and `sentTime` of istiod's `/debug/syncz` (`pilot/pkg/xds/statusgen.go`).
- Verified on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

/// Proxies acknowledge within moments. After this time the update is not expected to arrive any more.
const MAX_ACK_DELAY: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let Some(live) = &mesh.snapshot.live else { return };
    let parse_time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let recorded_at = parse_time(&live.recorded_at);
    let is_overdue = |compared: &ComparedProxy| {
        let sent = compared.since.as_deref().and_then(parse_time);
        recorded_at.zip(sent).is_some_and(|(recorded_at, sent)| recorded_at.duration_since(sent) >= MAX_ACK_DELAY)
    };
    let mut by_reason: BTreeMap<String, (Option<String>, Vec<WorkloadId>)> = BTreeMap::new();
    for (id, compared) in out.proxies().iter() {
        if compared.state == ProxyState::NotSent || (compared.state == ProxyState::Stale && is_overdue(compared)) {
            // Drop the time, which differs between proxies, to group them by reason.
            let time = compared.since.as_ref().map(|since| format!(" at {since}")).unwrap_or_default();
            let reason = compared.evidence.replace(&time, "");
            let (since, ids) = by_reason.entry(reason).or_insert_with(|| (compared.since.clone(), Vec::new()));
            *since = since.take().into_iter().chain(compared.since.clone()).min();
            ids.push(*id);
        }
    }
    for (reason, (since, ids)) in by_reason {
        let Some(first) = ids.first() else { continue };
        let object = &mesh.workload(*first).object;
        let finding = Finding::new(&RULE, object, "status")
            .other_objects(ids.iter().skip(1).map(|id| mesh.workload(*id).object.clone()))
            .message(format!("the proxy of {object} has an outdated configuration: {reason}"))
            .impact("its calls use outdated weights, and calls to deleted endpoints fail with UNAVAILABLE")
            .evidence([format!("affected proxies: {}", pod_names(mesh, &ids))])
            .evidence(since.map(|since| format!("oldest unacknowledged update: {since}")))
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<BTreeSet<_>>())
            .fix(format!(
                "kubectl logs -n {ns} {pod} -c istio-proxy; kubectl top pod -n {ns} {pod} --containers",
                ns = object.namespace,
                pod = object.name
            ));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::sync::{XdsConnection, XdsSyncState};
    use crate::rules::testing::{LiveCase, assert_live_findings, live_mesh};

    #[test]
    fn reports_an_update_that_is_unacknowledged_for_a_minute() {
        // The proxies were read at 09:00:00.
        let sent = |time: &'static str| {
            move |pod: &str, proxy: &mut LiveCase| {
                if pod == "b-v1" {
                    proxy.running.clusters.clear();
                    let waiting = vec![("cluster".to_owned(), Some(time.to_owned()))];
                    proxy.sync = XdsSyncState::Connected(XdsConnection { unacknowledged: waiting, rejection: None });
                }
            }
        };
        assert_live_findings(&RULE, &live_mesh(), sent("2026-11-21T08:58:00Z"), &["warning Pod shop/b-v1 status"]);
        assert_live_findings(&RULE, &live_mesh(), sent("2026-11-21T08:59:30Z"), &[]);
        assert_live_findings(&RULE, &live_mesh(), |_, _| {}, &[]);
    }

    #[test]
    fn reports_a_disconnected_proxy_with_missing_configuration() {
        let disconnected = |lacks_clusters: bool| {
            move |_: &str, proxy: &mut LiveCase| {
                if lacks_clusters {
                    proxy.running.clusters.clear();
                }
                proxy.sync = XdsSyncState::NotConnected;
            }
        };
        assert_live_findings(&RULE, &live_mesh(), disconnected(true), &["warning Pod shop/a-v1 status"]);
        // A disconnected proxy with the desired configuration is not outdated.
        assert_live_findings(&RULE, &live_mesh(), disconnected(false), &[]);
    }
}
