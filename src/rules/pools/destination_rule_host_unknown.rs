//! GM409: a DestinationRule whose host matches nothing.

use crate::mesh::Mesh;
use crate::mesh::host;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM409",
    name: "destination-rule-host-unknown",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: Some("IST0174"),
    summary: "A DestinationRule whose host matches no Service or ServiceEntry",
    docs: "\
## What it looks for
A DestinationRule whose `host` matches no Service and no host of a ServiceEntry.

## Why it matters for gRPC
The rule has no effect: no caller has its subsets, and its connection limits, load balancing and TLS settings are not
applied. Istio treats a name with a dot (`checkout.shop`) as a full name, and resolves a short name in the namespace of
the rule.

## Example
```yaml
kind: DestinationRule
metadata: {namespace: web}
spec: {host: checkout}        # resolves to checkout.web.svc.cluster.local
```

## Fix
```yaml
spec: {host: checkout.shop.svc.cluster.local}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM409.yaml`.
- Istio source: `pilot/pkg/model/config.go` (ResolveShortnameToFQDN).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let resolved = &rule.host;
        if resolved.as_str().is_empty() || mesh.has_host(resolved.as_str()) {
            continue;
        }
        let own_namespace = &rule.object.namespace;
        let is_certain = if resolved.as_str().starts_with('*') {
            mesh.coverage.covers_services_in(own_namespace)
        } else {
            mesh.is_host_absent(resolved)
        };
        if !is_certain {
            out.add_undecided(&RULE);
            continue;
        }
        let mut parts = rule.spec.host.split('.');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next());
        let by_dotted_name =
            namespace.and_then(|namespace| mesh.find_service(namespace, name)).map(|id| mesh.service(id));
        let in_other_namespace = mesh
            .name_index
            .find_in_any_namespace(name)
            .first()
            .filter(|_| namespace.is_none())
            .map(|id| mesh.service(*id));
        let similar = mesh.name_index.nearest_names(own_namespace.as_str(), name);
        let (evidence, fix) = match (by_dotted_name, in_other_namespace, similar.first()) {
            (Some(service), ..) => (
                Some(format!(
                    "Istio treats a host with a dot as a full name; the host of {} is {}",
                    service.object,
                    service.host.as_str()
                )),
                format!("host: {}", service.host.as_str()),
            ),
            (None, Some(service), _) => (
                Some(format!(
                    "Istio resolves a short name in the namespace of the rule ({own_namespace}); a Service of \
                     that name exists in {}",
                    service.namespace()
                )),
                format!("host: {}", service.host.as_str()),
            ),
            (None, None, Some(nearest)) => {
                let (name, namespace) = nearest.split_once('.').unwrap_or((nearest, own_namespace.as_str()));
                let host = host::service_host(name, &namespace.into(), &mesh.cluster_domain);
                (
                    Some(format!("Services with a similar name: {}", similar.join(", "))),
                    format!("host: {}", host.as_str()),
                )
            }
            (None, None, None) => (
                None,
                format!(
                    "create a Service or ServiceEntry for this host, or delete the rule: \
                     kubectl delete destinationrule -n {own_namespace} {}",
                    rule.object.name
                ),
            ),
        };
        let target = mesh.namespace_of_host(resolved);
        let finding = Finding::new(&RULE, &rule.object, "spec.host")
            .message(format!("host \"{}\" of {} matches no Service or ServiceEntry", resolved.as_str(), rule.object))
            .impact("the rule has no effect: no caller gets its subsets, connection limits or TLS settings")
            .evidence(evidence)
            .depends_on(target.as_ref())
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn mesh(host: &str) -> String {
        service("checkout", "{name: grpc, port: 1}")
            + &istio("DestinationRule", "d", &format!("{{host: '{host}', trafficPolicy: {{}}}}"))
    }

    #[test]
    fn reports_hosts_that_match_nothing() {
        for host in ["chekout", "checkout.shop", "*.web.svc.cluster.local", "api.example.com"] {
            assert_findings(&RULE, &mesh(host), &["warning DestinationRule shop/d spec.host"]);
        }
        assert_undecided_on_gap(&RULE, &mesh("chekout"));
        assert_eq!(findings(&RULE, &mesh("chekout"))[0].fix, "host: checkout.shop.svc.cluster.local");
    }

    #[test]
    fn accepts_matching_hosts_and_wildcards() {
        for host in ["checkout", "checkout.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*.local", "*"] {
            assert_findings(&RULE, &mesh(host), &[]);
        }
    }
}
