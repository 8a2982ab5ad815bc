//! GM709: an EnvoyFilter that patches the proxies of a gRPC Service.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::name_list::abbreviate;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM709",
    name: "envoy-filter-in-path",
    severity: Severity::Info,
    needs: &[Kind::EnvoyFilter],
    istio_code: None,
    summary: "An EnvoyFilter patches the proxies of gRPC Services, and the results shown here may be incomplete",
    docs: "\
## What it looks for
An EnvoyFilter that selects the proxies of pods of a gRPC Service.

## Why it matters for gRPC
An EnvoyFilter patches the configuration after istiod has generated it. Routes, timeouts, filters and clusters may
differ from the Istio objects and from what this tool shows. Patches often break when Envoy is upgraded.

## Example
```yaml
kind: EnvoyFilter
spec: {configPatches: [{applyTo: HTTP_ROUTE, …}]}
```

## Fix
Compare with the live proxies: `kubectl grpcmesh diff`. It lists the patched parts and does not compare them.

## References
- Istio source: `pilot/pkg/networking/core/envoyfilter/`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut names_by_filter: BTreeMap<&ObjectRef, BTreeSet<&str>> = BTreeMap::new();
    for service in mesh.services.iter().filter(|service| service.has_grpc_evidence()) {
        for workload in mesh.workloads_of(service).filter(|workload| workload.proxy.is_meshed() != Some(false)) {
            for extension in mesh.extensions_for(workload) {
                names_by_filter.entry(&extension.object).or_default().insert(mesh.short_host(&service.host));
            }
        }
    }
    for extension in mesh.extensions.iter().filter(|extension| extension.object.kind == Kind::EnvoyFilter) {
        let Some(service_names) = names_by_filter.get(&extension.object) else { continue };
        let patches: Vec<&str> = extension.patches().into_iter().collect();
        let finding = Finding::new(&RULE, &extension.object, "spec.configPatches")
            .message(format!("{} patches the proxies of {}", extension.object, abbreviate(service_names, 4)))
            .impact(
                "calls through these proxies may behave differently from the Istio objects and from \
                 what is shown here",
            )
            .evidence((!patches.is_empty()).then(|| format!("patched parts: {}", patches.join(", "))))
            .fix("kubectl grpcmesh diff");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, pod, service};

    fn mesh(selector: &str) -> String {
        let filter = istio("EnvoyFilter", "f", &format!("{{{selector}configPatches: [{{applyTo: HTTP_ROUTE}}]}}"));
        service("a", "{name: grpc, port: 1}") + &pod("a", "v1") + &filter.replace("/v1\n", "/v1alpha3\n")
    }

    #[test]
    fn reports_a_filter_on_proxies_of_a_grpc_service() {
        assert_findings(&RULE, &mesh(""), &["info EnvoyFilter shop/f spec.configPatches"]);
        assert_findings(
            &RULE,
            &mesh("workloadSelector: {labels: {app: a}}, "),
            &["info EnvoyFilter shop/f spec.configPatches"],
        );
        assert_undecided_on_gap(&RULE, &mesh(""));
    }

    #[test]
    fn ignores_a_filter_on_other_proxies() {
        assert_findings(&RULE, &mesh("workloadSelector: {labels: {app: b}}, "), &[]);
    }
}
