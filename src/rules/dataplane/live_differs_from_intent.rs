//! GM707: Envoys whose routes or clusters are not what the objects give.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::Difference;
use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::names;
use crate::mesh::Mesh;
use crate::mesh::ids::{ObjectRef, WorkloadId};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM707",
    name: "live-differs-from-intent",
    severity: Severity::Warning,
    needs: &[
        Kind::Service,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::ServiceEntry,
        Kind::Sidecar,
        Kind::HttpRoute,
        Kind::GrpcRoute,
        Kind::EnvoyFilter,
    ],
    istio_code: None,
    summary: "Live: an Envoy's route or cluster is not what the objects give",
    docs: "\
## What it looks for
With `--live`: a route or a cluster of an Envoy that is not what istiod makes of the objects for that caller, although
the proxy has accepted all that istiod sent, as far as istiod may be asked. Parts that an EnvoyFilter patches are left out.

## Why it matters for gRPC
Calls go by what the Envoy has. Weights, timeouts and retries that the objects show are then not those that calls meet.

## Example
```text
weights of checkout.shop.svc.cluster.local:50051: the objects say v1 90%, v2 10%; the Envoy has v1 100%
```

## Repair
`kubectl grpcmesh diff SERVICE` shows everything that differs. Another revision of istiod, a file that somebody edited in
the proxy, or a fault of this program are what is left.

## References
- Held beside istiod's own answers for thousands of proxies: `tests/diff.rs`.
",
    check,
};

/// Differences that are shown of one host.
const SHOWN: usize = 5;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut found: BTreeMap<ObjectRef, BTreeMap<String, Vec<WorkloadId>>> = BTreeMap::new();
    let mut doubts: BTreeMap<ObjectRef, String> = BTreeMap::new();
    for (id, judged) in out.proxies().iter().filter(|(_, judged)| judged.state == ProxyState::Different) {
        for one in &judged.differences {
            let service = one.host.as_deref().and_then(|host| mesh.find_host(host));
            // What gateways take, and whole tables, belong to no Service.
            let object = service.map_or(&mesh.workload(*id).object, |service| &mesh.service(service).object);
            if judged.is_doubtful {
                doubts.insert(object.clone(), judged.evidence.clone());
            }
            found.entry(object.clone()).or_default().entry(sentence(one)).or_default().push(*id);
        }
    }
    for (object, differences) in found {
        let ids: BTreeSet<WorkloadId> = differences.values().flatten().copied().collect();
        let more = differences.len() - 1;
        let first = differences.keys().next().cloned().unwrap_or_default();
        let message = if more == 0 { first } else { format!("{first}; {more} more") };
        let evidence = differences.iter().take(SHOWN).map(|(text, ids)| format!("{}: {text}", names(mesh, ids)));
        let finding = Finding::new(&RULE, &object, "spec")
            .message(message)
            .impact("calls of these callers go by what their Envoys have")
            .evidence(evidence)
            .evidence(doubts.remove(&object))
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<BTreeSet<_>>())
            .rests_on(ids.iter().map(|id| mesh.workload(*id).namespace()))
            .fix(match object.kind {
                Kind::Pod => format!("kubectl grpcmesh diff -n {}", object.namespace),
                _ => format!("kubectl grpcmesh diff {}.{}", object.name, object.namespace),
            });
        out.add(&RULE, finding);
    }
}

fn sentence(one: &Difference) -> String {
    let side = |text: &str| if text.is_empty() { "nothing".to_owned() } else { text.to_owned() };
    format!("{}: the objects say {}, the Envoy has {}", one.what, side(&one.desired), side(&one.live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{LiveCase, check_live, live_mesh};

    #[test]
    fn routes_and_clusters_are_compared() {
        let cluster = |pod: &str, proxy: &mut LiveCase| {
            if pod == "b-v1" {
                proxy.running.clusters.retain(|one| !one.name.ends_with("|a.shop.svc.cluster.local"));
            }
        };
        check_live(&RULE, &live_mesh(), cluster, &["warning Service shop/a spec"]);
        let table = |_: &str, proxy: &mut LiveCase| proxy.running.routes.clear();
        check_live(&RULE, &live_mesh(), table, &["warning Pod shop/a-v1 spec", "warning Pod shop/b-v1 spec"]);
        check_live(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
