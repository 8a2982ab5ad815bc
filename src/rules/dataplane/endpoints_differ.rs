//! GM706: an Envoy whose endpoints differ from the EndpointSlices.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::pod_names;
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
    summary: "With --live: the endpoints of an Envoy differ from the EndpointSlices",
    docs: "\
## What it looks for
With `--live`: an Envoy that has an address that no EndpointSlice contains, or lacks the address of a ready endpoint.
Proxies with a pending update from istiod are skipped. If the sync state of istiod cannot be read, the finding is a
warning and says why.

## Why it matters for gRPC
A proxy that still has the endpoint of a deleted pod fails calls to it with UNAVAILABLE (`UF`, `UC`). A new pod whose
endpoint the proxy lacks gets no calls from it.

## Example
```text
endpoints of outbound|50051||checkout.shop.svc.cluster.local: Envoy has 10.0.3.9:50051, which no EndpointSlice contains
```

## Fix
Check that istiod is running and that the proxy is connected to it. `kubectl grpcmesh diff` shows the state of each
proxy.

## References
- Verified on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

/// Maximum number of differences in the evidence of one finding.
const MAX_DIFFERENCES: usize = 5;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_host: BTreeMap<String, BTreeMap<String, Vec<WorkloadId>>> = BTreeMap::new();
    // Hosts for which the sync state is unknown: the update may be on its way.
    let mut sync_unknown: BTreeMap<String, String> = BTreeMap::new();
    for (id, compared) in out.proxies().iter() {
        if !matches!(compared.state, ProxyState::Different | ProxyState::NotSent) {
            continue;
        }
        for difference in &compared.endpoints {
            let Some(host) = difference.host.clone() else { continue };
            let missing = (!difference.desired.is_empty()).then(|| format!("missing {}", difference.desired));
            let extra = (!difference.live.is_empty()).then(|| format!("{} is in no EndpointSlice", difference.live));
            let text = missing.into_iter().chain(extra).collect::<Vec<_>>().join(", ");
            let port = difference.what.split('|').nth(1).unwrap_or_default();
            if compared.is_sync_unknown {
                sync_unknown.insert(host.clone(), compared.evidence.clone());
            }
            by_host.entry(host).or_default().entry(format!("port {port}: {text}")).or_default().push(*id);
        }
    }
    for (host, differences) in by_host {
        let Some(id) = mesh.find_host(&host) else { continue };
        let service = mesh.service(id);
        let proxies: BTreeSet<WorkloadId> = differences.values().flatten().copied().collect();
        let evidence =
            differences.iter().take(MAX_DIFFERENCES).map(|(text, ids)| format!("{}: {text}", pod_names(mesh, ids)));
        let unknown_reason = sync_unknown.remove(&host);
        let severity = if unknown_reason.is_some() { Severity::Warning } else { RULE.severity };
        let finding = Finding::new(&RULE, &service.object, "spec.ports")
            .severity(severity)
            .message(format!(
                "the endpoints of {} in {} proxies differ from its EndpointSlices",
                service.object,
                proxies.len()
            ))
            .impact("calls to deleted pods fail with UNAVAILABLE (flag UF or UC), and new pods get no calls")
            .evidence(evidence)
            .evidence(unknown_reason)
            .callers(proxies.iter().map(|id| mesh.workload(*id).namespace()).collect::<BTreeSet<_>>())
            .fix(format!("kubectl grpcmesh diff {}", mesh.short_host(&service.host)));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{LiveCase, assert_live_findings, live_mesh};

    #[test]
    fn reports_extra_and_missing_endpoints() {
        let add = |pod: &str, proxy: &mut LiveCase| {
            if pod == "b-v1" {
                for assignment in &mut proxy.running.endpoints {
                    assignment.healthy.insert("10.0.9.9:50051".to_owned());
                }
            }
        };
        assert_live_findings(
            &RULE,
            &live_mesh(),
            add,
            &["error Service shop/a spec.ports", "error Service shop/b spec.ports"],
        );
        let remove = |_: &str, proxy: &mut LiveCase| {
            proxy.running.endpoints.retain(|assignment| !assignment.cluster.ends_with("|a.shop.svc.cluster.local"));
        };
        assert_live_findings(&RULE, &live_mesh(), remove, &["error Service shop/a spec.ports"]);
        assert_live_findings(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
