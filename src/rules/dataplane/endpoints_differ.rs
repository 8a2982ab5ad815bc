//! GM706: Envoys whose endpoints are not those of the EndpointSlices.

use std::collections::BTreeMap;

use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::names;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM706",
    name: "endpoints-differ",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::EndpointSlice, Kind::DestinationRule],
    istio_code: None,
    summary: "Live: an Envoy has other endpoints than the EndpointSlices say",
    docs: "\
## What it looks for
With `--live`: addresses that an Envoy sends calls to and no EndpointSlice has, and ready ones that it does not know.
Proxies to which istiod sent something a moment ago are left out: they may be about to follow. Where istiod cannot be
asked it is a warning, with the reason.

## Why it matters for gRPC
Connections stay open: a proxy that still has a pod that is gone fails calls with UNAVAILABLE (`UF`, `UC`) until its
endpoints are right, and a new pod that it does not know gets nothing.

## Example
```text
endpoints of outbound|50051||checkout.shop.svc.cluster.local: 10.0.3.9:50051 is gone, the Envoy still has it
```

## Repair
Is istiod up, and the proxy connected to it? `kubectl grpcmesh diff` tells for each proxy.

## References
- Seen on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

/// Differences that are shown of one host.
const SHOWN: usize = 5;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_host: BTreeMap<String, BTreeMap<String, Vec<WorkloadId>>> = BTreeMap::new();
    // Whether istiod could not be asked about some of them: they may be about to follow.
    let mut doubts: BTreeMap<String, String> = BTreeMap::new();
    for (id, judged) in out.proxies().iter() {
        if !matches!(judged.state, ProxyState::Different | ProxyState::NotSent) {
            continue;
        }
        for one in &judged.endpoints {
            let Some(host) = one.host.clone() else { continue };
            let missing = (!one.desired.is_empty()).then(|| format!("lack {}", one.desired));
            let more = (!one.live.is_empty()).then(|| format!("have {}, which no EndpointSlice has", one.live));
            let text = missing.into_iter().chain(more).collect::<Vec<_>>().join(" and ");
            let port = one.what.split('|').nth(1).unwrap_or_default();
            if judged.is_doubtful {
                doubts.insert(host.clone(), judged.evidence.clone());
            }
            by_host.entry(host).or_default().entry(format!("port {port}: they {text}")).or_default().push(*id);
        }
    }
    for (host, differences) in by_host {
        let Some(id) = mesh.find_host(&host) else { continue };
        let service = mesh.service(id);
        let mut all: Vec<WorkloadId> = differences.values().flatten().copied().collect();
        all.sort();
        all.dedup();
        let evidence = differences.iter().take(SHOWN).map(|(text, ids)| format!("{}: {text}", names(mesh, ids)));
        let doubt = doubts.remove(&host);
        let severity = if doubt.is_some() { Severity::Warning } else { RULE.severity };
        let finding = Finding::new(&RULE, &service.object, "spec.ports")
            .severity(severity)
            .message(format!("the endpoints of {} callers' proxies are not those of its EndpointSlices", all.len()))
            .impact("calls to pods that are gone fail with UNAVAILABLE; pods that proxies do not know get none")
            .evidence(evidence)
            .evidence(doubt)
            .callers(all.iter().map(|id| mesh.workload(*id).namespace()).collect::<std::collections::BTreeSet<_>>())
            .fix(format!("kubectl grpcmesh diff {}", mesh.short_host(&service.host)));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{LiveCase, check_live, live_mesh};

    #[test]
    fn endpoints_that_are_gone_and_new_ones_are_told() {
        let add = |pod: &str, proxy: &mut LiveCase| {
            if pod == "b-v1" {
                for one in &mut proxy.running.endpoints {
                    one.healthy.insert("10.0.9.9:50051".to_owned());
                }
            }
        };
        check_live(&RULE, &live_mesh(), add, &["error Service shop/a spec.ports", "error Service shop/b spec.ports"]);
        let lose = |_: &str, proxy: &mut LiveCase| {
            proxy.running.endpoints.retain(|one| !one.cluster.ends_with("|a.shop.svc.cluster.local"));
        };
        check_live(&RULE, &live_mesh(), lose, &["error Service shop/a spec.ports"]);
        check_live(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
