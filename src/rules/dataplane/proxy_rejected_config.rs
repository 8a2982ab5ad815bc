//! GM704: an Envoy that rejects what istiod sends.

use std::collections::{BTreeMap, BTreeSet};

use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::pod_names;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM704",
    name: "proxy-rejected-config",
    severity: Severity::Error,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "With --live: an Envoy rejects configuration from istiod and keeps its previous one",
    docs: "\
## What it looks for
With `--live`: configuration that Envoy rejected (NACK), reported by the admin port of the proxy or by istiod.

## Why it matters for gRPC
Envoy keeps the previous version of a rejected route table or cluster. New subsets, weights and timeouts never reach
this proxy, while other proxies have them. A weight shift appears to work, but has no effect for these callers.

## Example
```yaml
kind: Telemetry
spec: {accessLogging: [{filter: {expression: \"not CEL\"}}]}
```

## Fix
The message from Envoy names the rejected part. Fix the object that it comes from, then wait for all proxies: `kubectl
grpcmesh diff --wait`.

## References
- `error_state` in `envoy/admin/v3/config_dump_shared.proto`; `lastError` of istiod's `/debug/syncz`.
- Verified on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut by_reason: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    for (id, compared) in out.proxies().iter().filter(|(_, compared)| compared.state == ProxyState::Rejected) {
        by_reason.entry(compared.evidence.clone()).or_default().push(*id);
    }
    for (reason, ids) in by_reason {
        let Some(first) = ids.first() else { continue };
        let object = &mesh.workload(*first).object;
        let finding = Finding::new(&RULE, object, "status")
            .other_objects(ids.iter().skip(1).map(|id| mesh.workload(*id).object.clone()))
            .message(format!("the proxy of {object} rejects configuration: {reason}"))
            .impact("its calls use the previous configuration, while other proxies have the new one")
            .evidence([format!("affected proxies: {}", pod_names(mesh, &ids))])
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<BTreeSet<_>>())
            .fix("fix the object that the rejected part comes from, then: kubectl grpcmesh diff --wait");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config_dump::RunningConfig;
    use crate::rules::testing::{LiveCase, assert_live_findings, live_mesh};

    #[test]
    fn reports_one_rejection_once_for_all_its_proxies() {
        let reject = |proxy: &mut RunningConfig| {
            proxy.rejected.push(("outbound|50051||a.shop.svc.cluster.local".to_owned(), "bad threshold".to_owned()));
        };
        assert_live_findings(
            &RULE,
            &live_mesh(),
            |_, proxy| reject(&mut proxy.running),
            &["error Pod shop/a-v1 status"],
        );
        let only_b = |pod: &str, proxy: &mut LiveCase| {
            if pod == "b-v1" {
                reject(&mut proxy.running);
            }
        };
        assert_live_findings(&RULE, &live_mesh(), only_b, &["error Pod shop/b-v1 status"]);
        assert_live_findings(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
