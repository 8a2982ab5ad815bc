//! GM709: EnvoyFilters on the proxies of gRPC Services.

use std::collections::BTreeSet;

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::string_list::few;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM709",
    name: "envoy-filter-in-path",
    severity: Severity::Info,
    needs: &[Kind::EnvoyFilter],
    istio_code: None,
    summary: "An EnvoyFilter acts on proxies of gRPC Services: what is shown here may be incomplete",
    docs: "\
## What it looks for
An EnvoyFilter that selects proxies of pods behind a gRPC Service.

## Why it matters for gRPC
It patches what istiod generates, after istiod has generated it: routes, timeouts, filters and clusters may differ from
everything that objects say, and from what this tool shows. Patches often break on upgrades of Envoy.

## Example
```yaml
kind: EnvoyFilter
spec: {configPatches: [{applyTo: HTTP_ROUTE, …}]}
```

## Repair
Compare with what the proxies really run: `kubectl grpcmesh diff`; what is patched is named and left out there.

## References
- From Istio's code: `pilot/pkg/networking/core/envoyfilter/`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for extension in mesh.extensions.iter().filter(|extension| extension.object.kind == Kind::EnvoyFilter) {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for service in mesh.services.iter().filter(|service| service.has_grpc()) {
            let mut proxies = mesh.workloads_of(service).filter(|workload| workload.proxy.is_meshed() != Some(false));
            if proxies.any(|workload| mesh.extensions_for(workload).any(|one| one.object == extension.object)) {
                names.insert(mesh.short_host(&service.host));
            }
        }
        if names.is_empty() {
            continue;
        }
        let patches: Vec<&str> = extension.patches().into_iter().collect();
        let finding = Finding::new(&RULE, &extension.object, "spec.configPatches")
            .message(format!("it acts on the proxies of {}", few(&names, 4)))
            .impact("what these proxies do may differ from what objects say and from what is shown here")
            .evidence((!patches.is_empty()).then(|| format!("it patches {}", patches.join(", "))))
            .fix("compare with what the proxies run: kubectl grpcmesh diff");
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, istio, pod, service};

    fn mesh(selector: &str) -> String {
        let filter = istio("EnvoyFilter", "f", &format!("{{{selector}configPatches: [{{applyTo: HTTP_ROUTE}}]}}"));
        service("a", "{name: grpc, port: 1}") + &pod("a", "v1") + &filter.replace("/v1\n", "/v1alpha3\n")
    }

    #[test]
    fn a_filter_on_grpc_is_told() {
        check(&RULE, &mesh(""), &["info EnvoyFilter shop/f spec.configPatches"]);
        check(&RULE, &mesh("workloadSelector: {labels: {app: a}}, "), &["info EnvoyFilter shop/f spec.configPatches"]);
        check_gap(&RULE, &mesh(""));
    }

    #[test]
    fn a_filter_on_others_is_silent() {
        check(&RULE, &mesh("workloadSelector: {labels: {app: b}}, "), &[]);
    }
}
