//! GM707: an Envoy whose routes or clusters differ from the objects.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::Difference;
use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::pod_names;
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
    summary: "With --live: a route or cluster of an Envoy differs from what the objects define",
    docs: "\
## What it looks for
With `--live`: a route or cluster of an Envoy that differs from what istiod generates from the objects for this caller,
although the proxy has acknowledged everything that istiod sent (as far as the sync state of istiod can be read). Parts
that an EnvoyFilter patches are not compared.

## Why it matters for gRPC
Envoy routes calls by its own configuration. The weights, timeouts and retries of the objects do not apply to these
callers.

## Example
```text
backends of checkout.shop.svc.cluster.local:50051: desired v1 90, v2 10; live v1 100
```

## Fix
`kubectl grpcmesh diff SERVICE` shows all differences. Possible causes are another revision of istiod, a bootstrap
configuration that was changed in the proxy, or a bug in this tool.

## References
- Compared with istiod's own output for thousands of proxies: `tests/diff.rs`.
",
    check,
};

/// Maximum number of differences in the evidence of one finding.
const MAX_DIFFERENCES: usize = 5;

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_object: BTreeMap<ObjectRef, BTreeMap<String, Vec<WorkloadId>>> = BTreeMap::new();
    let mut sync_unknown: BTreeMap<ObjectRef, String> = BTreeMap::new();
    for (id, compared) in out.proxies().iter().filter(|(_, compared)| compared.state == ProxyState::Different) {
        for difference in &compared.differences {
            let service = difference.host.as_deref().and_then(|host| mesh.find_host(host));
            // Hosts of gateways and whole route tables belong to no Service: report the pod.
            let object = service.map_or(&mesh.workload(*id).object, |service| &mesh.service(service).object);
            if compared.is_sync_unknown {
                sync_unknown.insert(object.clone(), compared.evidence.clone());
            }
            by_object.entry(object.clone()).or_default().entry(describe_difference(difference)).or_default().push(*id);
        }
    }
    for (object, differences) in by_object {
        let ids: BTreeSet<WorkloadId> = differences.values().flatten().copied().collect();
        let first = differences.keys().next().cloned().unwrap_or_default();
        let message = match differences.len() {
            1 => format!("the Envoy configuration for {object} differs: {first}"),
            count => format!("the Envoy configuration for {object} has {count} differences, such as: {first}"),
        };
        let evidence =
            differences.iter().take(MAX_DIFFERENCES).map(|(text, ids)| format!("{}: {text}", pod_names(mesh, ids)));
        let finding = Finding::new(&RULE, &object, "spec")
            .message(message)
            .impact(
                "the calls of these callers use the live configuration of their Envoy, not the \
                     one that the objects define",
            )
            .evidence(evidence)
            .evidence(sync_unknown.remove(&object))
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<BTreeSet<_>>())
            .depends_on(ids.iter().map(|id| mesh.workload(*id).namespace()))
            .fix(match object.kind {
                Kind::Pod => format!("kubectl grpcmesh diff -n {}", object.namespace),
                _ => format!("kubectl grpcmesh diff {}.{}", object.name, object.namespace),
            });
        out.add(&RULE, finding);
    }
}

fn describe_difference(difference: &Difference) -> String {
    let value = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
    format!("{}: desired {}; live {}", difference.what, value(&difference.desired), value(&difference.live))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{LiveCase, assert_live_findings, live_mesh};

    #[test]
    fn reports_differences_of_routes_and_clusters() {
        let cluster = |pod: &str, proxy: &mut LiveCase| {
            if pod == "b-v1" {
                proxy.running.clusters.retain(|cluster| !cluster.name.ends_with("|a.shop.svc.cluster.local"));
            }
        };
        assert_live_findings(&RULE, &live_mesh(), cluster, &["warning Service shop/a spec"]);
        let table = |_: &str, proxy: &mut LiveCase| proxy.running.routes.clear();
        assert_live_findings(&RULE, &live_mesh(), table, &["warning Pod shop/a-v1 spec", "warning Pod shop/b-v1 spec"]);
        assert_live_findings(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
