//! GM708: a Sidecar that hides a host from callers that are known to use it.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::xds::{Caller, RouteOwner};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM708",
    name: "sidecar-hides-host",
    severity: Severity::Warning,
    needs: &[Kind::Sidecar, Kind::Service],
    istio_code: None,
    summary: "A Sidecar that hides a gRPC Service from a namespace which is named as its caller",
    docs: "\
## What it looks for
A namespace that is named as a caller of a gRPC Service, by an AuthorizationPolicy that lets it in or by a rule with its
`sourceNamespace`, while the Sidecar object of that namespace does not list the Service's host.

## Why it matters for gRPC
The callers' proxy has no route and no cluster for the host. Calls go to the Service's address as plain connections: no
balancing per call, no retries, no mTLS, or they are refused (`REGISTRY_ONLY`, or a server with strict mTLS).

## Example
```yaml
kind: Sidecar
metadata: {namespace: web}
spec: {egress: [{hosts: [./*, istio-system/*]}]}      # web calls checkout.shop
```

## Repair
```yaml
spec: {egress: [{hosts: [./*, istio-system/*, shop/checkout.shop.svc.cluster.local]}]}
```

## References
- From Istio's code: `pilot/pkg/model/sidecar.go`; pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    if mesh.sidecars.is_empty() {
        return;
    }
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        if !service.has_grpc() {
            continue;
        }
        for (namespace, why) in named_callers(mesh, id) {
            let caller = Caller::in_namespace(namespace.clone());
            let exported = service.export_to.reaches(&namespace, service.namespace());
            let hidden = mesh.route_owner(&caller, id, service.main_port()) == RouteOwner::Hidden;
            let Some(sidecar) = mesh.sidecar_for(&caller).filter(|_| exported && hidden) else { continue };
            let finding = Finding::new(&RULE, &sidecar.object, "spec.egress")
                .message(format!("{} is hidden from callers in {namespace}", mesh.short_host(&service.host)))
                .impact("their calls go out as plain connections: no balancing, no retries, no mTLS; or they fail (UNAVAILABLE)")
                .callers([&namespace])
                .evidence([why])
                .rests_on([service.namespace()])
                .fix(format!("egress:\n- hosts:\n  - {}/{}", service.namespace(), service.host));
            out.add(&RULE, finding);
        }
    }
}

/// Namespaces that some object names as callers of a Service, with what names them.
fn named_callers(mesh: &Mesh<'_>, id: ServiceId) -> BTreeMap<Namespace, String> {
    let service = mesh.service(id);
    let mut found = BTreeMap::new();
    for object in mesh.virtual_services.covering(&service.host) {
        let matches = object.spec.http.iter().flat_map(|rule| &rule.matches);
        for namespace in matches.filter_map(|one| one.source_namespace.as_deref()).filter(|name| !name.is_empty()) {
            found.entry(namespace.into()).or_insert_with(|| format!("{} has a rule for them", object.object));
        }
    }
    for workload in mesh.workloads_of(service) {
        for policy in mesh.security.authorization(workload, &mesh.root) {
            if policy.spec.action.as_deref().unwrap_or("ALLOW") != "ALLOW" {
                continue;
            }
            let sources = policy.spec.rules.iter().flat_map(|rule| &rule.from).filter_map(|from| from.source.as_ref());
            for source in sources {
                let by_name = source.namespaces.iter().map(String::as_str);
                // `cluster.local/ns/web/sa/web`
                let of_identity = |principal: &String| {
                    principal.split_once("/ns/").map(|(_, rest)| rest.split('/').next().unwrap_or(rest).to_owned())
                };
                let by_identity: Vec<String> = source.principals.iter().filter_map(of_identity).collect();
                for namespace in
                    by_name.chain(by_identity.iter().map(String::as_str)).filter(|name| !name.contains('*'))
                {
                    found.entry(namespace.into()).or_insert_with(|| format!("{} lets them in", policy.object));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, pod, service};

    fn mesh(hosts: &str) -> String {
        let sidecar = istio("Sidecar", "default", &format!("{{egress: [{{hosts: [{hosts}]}}]}}"));
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &sidecar.replacen("metadata: {", "metadata: {namespace: web, ", 1)
            + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: let-web}\n\
               spec: {selector: {matchLabels: {app: a}}, rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/web]}}]}]}\n"
    }

    #[test]
    fn a_caller_that_is_let_in_and_sees_nothing_is_told() {
        check(&RULE, &mesh("./*"), &["warning Sidecar web/default spec.egress"]);
        assert_eq!(findings(&RULE, &mesh("./*"))[0].callers, ["web"]);
        check_gap(&RULE, &mesh("./*"));
    }

    #[test]
    fn listed_hosts_and_other_namespaces_are_silent() {
        check(&RULE, &mesh("./*, shop/*"), &[]);
        check(&RULE, &mesh("./*").replace("ns/web/sa", "ns/ops/sa"), &[]);
    }
}
