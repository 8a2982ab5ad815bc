//! GM705: Envoys that do not follow: they have not accepted for a minute what istiod sent, or get nothing.

use std::collections::BTreeMap;

use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::names;
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
    summary: "Live: an Envoy does not follow: it has not accepted for a minute what istiod sent, or it gets nothing",
    docs: "\
## What it looks for
With `--live`: a proxy that runs something else than the objects say, and either has not acknowledged what istiod sent
more than a minute before (STALE), or is connected to no istiod, or no istiod answers. istiod gives up a connection whose
other side is silent within a minute, so a proxy that hangs is first the one and then the other.

## Why it matters for gRPC
The proxy routes by what it has: by old weights, to old endpoints. Calls to pods that are gone fail with UNAVAILABLE.

## Example
```text
web-7d9f  late: istiod sent configuration (route) at 14:02:11, not accepted yet
```

## Repair
See whether the proxy has time and memory (`kubectl top pod --containers`), and what its agent says
(`kubectl logs POD -c istio-proxy`). Restarting the pod makes it connect anew.

## References
- `sent`, `acked` and `sentTime` of istiod's `/debug/syncz` (`pilot/pkg/xds/statusgen.go`).
- Seen on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

/// A proxy answers in moments; what takes longer than this does not come by itself.
const PATIENCE: jiff::SignedDuration = jiff::SignedDuration::from_secs(60);

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let Some(live) = &mesh.snapshot.live else { return };
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let asked = time(&live.asked);
    let is_old = |judged: &ComparedProxy| {
        let sent = judged.since.as_deref().and_then(time);
        asked.zip(sent).is_some_and(|(asked, sent)| asked.duration_since(sent) >= PATIENCE)
    };
    let mut alike: BTreeMap<String, (Option<String>, Vec<WorkloadId>)> = BTreeMap::new();
    for (id, judged) in out.proxies().iter() {
        if judged.state == ProxyState::NotSent || (judged.state == ProxyState::Late && is_old(judged)) {
            // Each was sent to at a time of its own.
            let at = judged.since.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
            let words = judged.evidence.replace(&at, "");
            let (since, ids) = alike.entry(words).or_insert_with(|| (judged.since.clone(), Vec::new()));
            *since = since.take().into_iter().chain(judged.since.clone()).min();
            ids.push(*id);
        }
    }
    for (why, (since, ids)) in alike {
        let Some(first) = ids.first() else { continue };
        let object = &mesh.workload(*first).object;
        let finding = Finding::new(&RULE, object, "status")
            .also(ids.iter().skip(1).map(|id| mesh.workload(*id).object.clone()))
            .message(format!("its proxy does not follow: {why}"))
            .impact("it routes by what it has: by old weights, and to endpoints that may be gone")
            .evidence([format!("so stand the proxies of {}", names(mesh, &ids))])
            .evidence(since.map(|since| format!("the first since {since}")))
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<std::collections::BTreeSet<_>>())
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
    use crate::rules::testing::{LiveCase, check_live, live_mesh};

    #[test]
    fn a_minute_is_waited_for() {
        // Asked at 09:00:00.
        let sent = |at: &'static str| {
            move |pod: &str, proxy: &mut LiveCase| {
                if pod == "b-v1" {
                    proxy.running.clusters.clear();
                    let waiting = vec![("cluster".to_owned(), Some(at.to_owned()))];
                    proxy.sync = XdsSyncState::Connected(XdsConnection { waiting, refused: None });
                }
            }
        };
        check_live(&RULE, &live_mesh(), sent("2026-11-21T08:58:00Z"), &["warning Pod shop/b-v1 status"]);
        check_live(&RULE, &live_mesh(), sent("2026-11-21T08:59:30Z"), &[]);
        check_live(&RULE, &live_mesh(), |_, _| {}, &[]);
    }

    #[test]
    fn one_that_is_connected_to_no_istiod_gets_nothing() {
        let lost = |lacks: bool| {
            move |_: &str, proxy: &mut LiveCase| {
                if lacks {
                    proxy.running.clusters.clear();
                }
                proxy.sync = XdsSyncState::NotConnected;
            }
        };
        check_live(&RULE, &live_mesh(), lost(true), &["warning Pod shop/a-v1 status"]);
        // As long as it has all that it should, nothing is late.
        check_live(&RULE, &live_mesh(), lost(false), &[]);
    }
}
