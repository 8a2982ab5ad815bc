//! GM708: a Sidecar that hides a host from its callers.

use std::collections::BTreeMap;

use crate::mesh::authorization::{PolicyAction, PolicyAttribute};
use crate::mesh::ids::{Namespace, ServiceId};
use crate::mesh::service::Visibility;
use crate::mesh::xds::{Caller, RouteOwner};
use crate::mesh::{Mesh, SidecarObject};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM708",
    name: "sidecar-hides-host",
    severity: Severity::Warning,
    needs: &[Kind::Sidecar, Kind::Service],
    istio_code: None,
    summary: "A Sidecar hides a gRPC Service from a namespace that other objects name as its caller",
    docs: "\
## What it looks for
A namespace that is named as a caller of a gRPC Service, while the Sidecar object of that namespace does not list the
host of the Service. A namespace is named by an AuthorizationPolicy that allows it, by a route rule with its
`sourceNamespace`, and by a VirtualService in it with rules for a host of another namespace.

## Why it matters for gRPC
The proxies of these callers have no route and no cluster for the host. Their calls leave as plain connections without
load balancing per call, retries and mTLS, or they fail (`REGISTRY_ONLY`, or a server with strict mTLS).

## Example
```yaml
kind: Sidecar
metadata: {namespace: web}
spec: {egress: [{hosts: [./*, istio-system/*]}]}      # web calls checkout.shop
```

## Fix
```yaml
spec: {egress: [{hosts: [./*, istio-system/*, shop/checkout.shop.svc.cluster.local]}]}
```

## References
- Istio source: `pilot/pkg/model/sidecar.go`. Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    if mesh.sidecars.is_empty() {
        return;
    }
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        if !service.has_grpc_evidence() {
            continue;
        }
        for (namespace, evidence) in namespaces_named_as_callers(mesh, id) {
            let caller = Caller::in_namespace(namespace.clone());
            let is_exported = service.export_to.includes(&namespace, service.namespace());
            let is_hidden = mesh.route_owner(&caller, id, service.main_port()) == RouteOwner::Hidden;
            let Some(sidecar) = mesh.sidecar_for(&caller).filter(|_| is_exported && is_hidden) else { continue };
            let finding = Finding::new(&RULE, &sidecar.object, "spec.egress")
                .message(format!("{} hides {} from callers in namespace {namespace}", sidecar.object, service.object))
                .impact("their calls bypass load balancing, retries and mTLS, or fail with UNAVAILABLE")
                .callers([&namespace])
                .evidence([evidence])
                .depends_on([service.namespace()])
                .fix(with_host(sidecar, &format!("{}/{}", service.namespace(), service.host)));
            out.add(&RULE, finding);
        }
    }
}

/// The hosts of the Sidecar's first egress listener with one added: callers keep the hosts that they have.
fn with_host(sidecar: &SidecarObject, added: &str) -> String {
    let listed = sidecar.spec.egress.first().into_iter().flat_map(|egress| egress.hosts.iter().map(String::as_str));
    let hosts: Vec<String> = listed.chain([added]).map(|host| format!("\"{host}\"")).collect();
    format!("egress:\n- hosts: [{}]", hosts.join(", "))
}

/// Namespaces that an object names as callers of a Service, each with the evidence.
fn namespaces_named_as_callers(mesh: &Mesh<'_>, id: ServiceId) -> BTreeMap<Namespace, String> {
    let service = mesh.service(id);
    let mut callers = BTreeMap::new();
    for object in mesh.virtual_services.covering(&service.host) {
        // Rules in another namespace than the host's are for the callers there.
        let own_namespace = &object.object.namespace;
        if own_namespace != service.namespace() || object.export_to == Visibility::Private {
            callers
                .entry(own_namespace.clone())
                .or_insert_with(|| format!("{} in this namespace has rules for the host", object.object));
        }
        let matches = object.spec.http.iter().flat_map(|rule| &rule.matches);
        for namespace in
            matches.filter_map(|route_match| route_match.source_namespace.as_deref()).filter(|name| !name.is_empty())
        {
            callers
                .entry(namespace.into())
                .or_insert_with(|| format!("{} has a rule for this namespace", object.object));
        }
    }
    for workload in mesh.workloads_of(service) {
        for policy in mesh.security_policies.authorization_policies(workload, &mesh.root_namespace) {
            if policy.action != Some(PolicyAction::Allow) {
                continue;
            }
            let sources = policy.rules().flat_map(|(_, rule)| rule.sources.iter().flatten());
            for source in sources {
                let values = |attribute: PolicyAttribute| {
                    if source.attribute == attribute { source.values.as_slice() } else { &[] }
                };
                let by_namespace = values(PolicyAttribute::SourceNamespace).iter().map(String::as_str);
                // `cluster.local/ns/web/sa/web`
                let namespace_of_principal = |principal: &String| {
                    principal.split_once("/ns/").map(|(_, rest)| rest.split('/').next().unwrap_or(rest).to_owned())
                };
                let principals = values(PolicyAttribute::Principal).iter();
                let by_principal: Vec<String> = principals.filter_map(namespace_of_principal).collect();
                for namespace in
                    by_namespace.chain(by_principal.iter().map(String::as_str)).filter(|name| !name.contains('*'))
                {
                    callers
                        .entry(namespace.into())
                        .or_insert_with(|| format!("{} allows this namespace", policy.object));
                }
            }
        }
    }
    callers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, pod, service};

    fn mesh(hosts: &str) -> String {
        let sidecar = istio("Sidecar", "default", &format!("{{egress: [{{hosts: [{hosts}]}}]}}"));
        service("a", "{name: grpc, port: 1}")
            + &pod("a", "v1")
            + &sidecar.replacen("metadata: {", "metadata: {namespace: web, ", 1)
            + "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: let-web}\n\
               spec: {selector: {matchLabels: {app: a}}, rules: [{from: [{source: {principals: [cluster.local/ns/web/sa/web]}}]}]}\n"
    }

    #[test]
    fn reports_a_host_that_is_hidden_from_an_allowed_caller() {
        assert_findings(&RULE, &mesh("./*"), &["warning Sidecar web/default spec.egress"]);
        assert_eq!(findings(&RULE, &mesh("./*"))[0].callers, ["web"]);
        assert_undecided_on_gap(&RULE, &mesh("./*"));
    }

    #[test]
    fn accepts_listed_hosts_and_other_namespaces() {
        assert_findings(&RULE, &mesh("./*, shop/*"), &[]);
        assert_findings(&RULE, &mesh("./*").replace("ns/web/sa", "ns/ops/sa"), &[]);
    }
}
