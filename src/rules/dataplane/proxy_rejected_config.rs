//! GM704: Envoys that refuse what istiod sends.

use std::collections::BTreeMap;

use crate::dataplane::proxy::ProxyState;
use crate::dataplane::proxy_comparisons::names;
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
    summary: "Live: an Envoy refuses what istiod sends, and runs what it had before",
    docs: "\
## What it looks for
With `--live`: an error that a proxy's admin port, or istiod, tells of configuration that the Envoy refused.

## Why it matters for gRPC
A refused route table or cluster stays what it was. New subsets, weights and timeouts never arrive at that proxy, while
others have them: a shift of weights seems to work and does not, for these callers.

## Example
```yaml
kind: Telemetry
spec: {accessLogging: [{filter: {expression: \"not CEL\"}}]}
```

## Repair
Envoy's words name the part. Mend the object that it is made of, then see that all proxies follow:
`kubectl grpcmesh diff --wait`.

## References
- `error_state` in `envoy/admin/v3/config_dump_shared.proto`; `lastError` of istiod's `/debug/syncz`.
- Seen on a real mesh: `tests/lab/diff.rs`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut alike: BTreeMap<String, Vec<WorkloadId>> = BTreeMap::new();
    for (id, judged) in out.proxies().iter().filter(|(_, judged)| judged.state == ProxyState::Refused) {
        alike.entry(judged.evidence.clone()).or_default().push(*id);
    }
    for (why, ids) in alike {
        let Some(first) = ids.first() else { continue };
        let finding = Finding::new(&RULE, &mesh.workload(*first).object, "status")
            .also(ids.iter().skip(1).map(|id| mesh.workload(*id).object.clone()))
            .message(why)
            .impact("it runs what it had before: changes do not arrive there, while other proxies have them")
            .evidence([format!("so say the proxies of {}", names(mesh, &ids))])
            .callers(ids.iter().map(|id| mesh.workload(*id).namespace()).collect::<std::collections::BTreeSet<_>>())
            .fix("mend the object that the refused part is made of, then: kubectl grpcmesh diff --wait");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check_live, live_mesh};

    #[test]
    fn a_refusal_is_told_once_for_all_that_refuse_the_same() {
        let refuse = |proxy: &mut crate::envoy::config_dump::RunningConfig| {
            proxy.refused.push(("outbound|50051||a.shop.svc.cluster.local".to_owned(), "bad threshold".to_owned()));
        };
        check_live(&RULE, &live_mesh(), |_, proxy| refuse(&mut proxy.running), &["error Pod shop/a-v1 status"]);
        let first = |pod: &str, proxy: &mut crate::rules::testing::LiveCase| {
            if pod == "b-v1" {
                refuse(&mut proxy.running);
            }
        };
        check_live(&RULE, &live_mesh(), first, &["error Pod shop/b-v1 status"]);
        check_live(&RULE, &live_mesh(), |_, _| {}, &[]);
    }
}
