//! GM201: a route to a host that no Service or ServiceEntry has.

use crate::mesh::Mesh;
use crate::mesh::host;
use crate::mesh::ids::{Host, Namespace, ObjectRef};
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::xds::{DestinationUse, MissingCluster, MissingClusterCause};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM201",
    name: "destination-host-unknown",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: Some("IST0101"),
    summary: "A route to a host that no Service or ServiceEntry has",
    docs: "\
## What it looks for
A destination or mirror of a VirtualService whose host is neither a Service nor a host of a ServiceEntry, or is one that
is not exported to the proxies that use the route.

## Why it matters for gRPC
istiod and Envoy accept the route, but its cluster does not exist: every call on the route fails with UNAVAILABLE,
response flag `NC`, while the access log shows HTTP status 200. Three mistakes are common: Istio reads a name with a dot
(`checkout.shop`) as a full name; it resolves a short name in the namespace of the VirtualService, not of the caller;
and the cluster domain is written twice.

## Example
```yaml
metadata: {namespace: web}
spec:
  hosts: [checkout.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: checkout.shop}    # read as a full name, which does not exist
```

## Fix
```yaml
    - destination: {host: checkout.shop.svc.cluster.local}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM201.yaml`.
- Istio source: `pilot/pkg/model/config.go` (ResolveShortnameToFQDN); `cluster_not_found_response_code` is 503.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let mut destinations: Vec<(String, &str)> = Vec::new();
        for (index, rule) in object.spec.http.iter().enumerate() {
            for (position, route) in rule.route.iter().enumerate() {
                if let Some(destination) = &route.destination {
                    destinations
                        .push((format!("spec.http[{index}].route[{position}].destination.host"), &destination.host));
                }
            }
            if let Some(mirror) = &rule.mirror {
                destinations.push((format!("spec.http[{index}].mirror.host"), &mirror.host));
            }
            for (position, mirror) in rule.mirrors.iter().enumerate() {
                if let Some(destination) = &mirror.destination {
                    destinations
                        .push((format!("spec.http[{index}].mirrors[{position}].destination.host"), &destination.host));
                }
            }
        }
        for (kind, rules) in [("tls", &object.spec.tls), ("tcp", &object.spec.tcp)] {
            for (index, rule) in rules.iter().enumerate() {
                for (position, route) in rule.route.iter().enumerate() {
                    if let Some(destination) = &route.destination {
                        destinations.push((
                            format!("spec.{kind}[{index}].route[{position}].destination.host"),
                            &destination.host,
                        ));
                    }
                }
            }
        }
        for (field, written) in destinations {
            check_host(mesh, object, &field, written, out);
        }
    }
    for missing in mesh.missing_clusters() {
        if let MissingClusterCause::NotExported { service } = &missing.cause {
            report_not_exported(mesh, missing, service, out);
        }
    }
}

/// Reports a host that exists, but not for the proxies that use the route.
fn report_not_exported(mesh: &Mesh<'_>, missing: &MissingCluster, service: &ObjectRef, out: &mut Findings<'_>) {
    let MissingCluster { object, field, host, use_of_calls, callers, .. } = missing;
    let namespaces = callers.iter().map(Namespace::as_str).collect::<Vec<_>>().join(", ");
    let (severity, impact) = match use_of_calls {
        DestinationUse::Calls => {
            (Severity::Error, "their calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
        }
        DestinationUse::Copies => (Severity::Warning, "mirrored calls are lost; callers are not affected"),
        DestinationUse::Nothing => (
            Severity::Warning,
            "none at weight 0; with a weight above 0, that share of their calls fails with UNAVAILABLE (flag NC)",
        ),
    };
    let fix = if service.kind == Kind::Service {
        format!("# {service}\nmetadata:\n  annotations:\n    networking.istio.io/exportTo: \"{namespaces}\"")
    } else {
        format!("# {service}\nspec:\n  exportTo: [., {namespaces}]")
    };
    let field = if object.kind == Kind::VirtualService { format!("{field}.host") } else { field.clone() };
    let finding = Finding::new(&RULE, object, field)
        .severity(severity)
        .message(format!("{service} ({}) is not exported to callers in {namespaces}", mesh.short_host(host)))
        .impact(impact)
        .callers(callers)
        .evidence([format!("exportTo of {service} does not include {namespaces}")])
        .depends_on([&service.namespace])
        .fix(fix);
    out.add(&RULE, finding);
}

fn check_host(mesh: &Mesh<'_>, object: &VirtualService, field: &str, written: &str, out: &mut Findings<'_>) {
    let own_namespace = &object.object.namespace;
    let full = host::to_fqdn(written, own_namespace, &mesh.cluster_domain);
    if written.is_empty() || written == "*" || mesh.has_host(full.as_str()) {
        return;
    }
    if !mesh.is_host_absent(&full) {
        out.add_undecided(&RULE);
        return;
    }
    let (evidence, fix) = suggest_host(mesh, written, &full, own_namespace.as_str());
    let is_mirror = field.contains(".mirror");
    let impact = if is_mirror {
        "mirrored calls are lost; callers are not affected"
    } else {
        "calls on this route fail with UNAVAILABLE (flag NC, cluster not found)"
    };
    let namespace = mesh.namespace_of_host(&full);
    let finding = Finding::new(&RULE, &object.object, field)
        .severity(if is_mirror { Severity::Warning } else { Severity::Error })
        .message(format!("no Service or ServiceEntry has the host \"{}\"", full.as_str()))
        .impact(impact)
        .evidence(evidence)
        .depends_on(namespace.as_ref())
        .fix(fix);
    out.add(&RULE, finding);
}

/// The host that the author probably meant: evidence and fix.
fn suggest_host(mesh: &Mesh<'_>, written: &str, full: &Host, own_namespace: &str) -> (Option<String>, String) {
    let domain = &mesh.cluster_domain;
    let as_yaml = |host: &str| format!("host: {host}");
    // Istio reads `checkout.shop` and `checkout.shop.svc` as full names; authors mean them as short names.
    let mut parts = written.split('.');
    if let (Some(name), Some(namespace)) = (parts.next(), parts.next())
        && let Some(id) = mesh.find_service(namespace, name)
    {
        let host = mesh.service(id).host.as_str().to_owned();
        let explanation = if written.starts_with(host.as_str()) {
            format!("the host contains the cluster domain \"{domain}\" twice")
        } else {
            format!("Istio reads a host with a dot as a full name; the host of Service {namespace}/{name} is {host}")
        };
        return (Some(explanation), as_yaml(&host));
    }
    if !written.contains('.')
        && let Some(id) = mesh.name_index.find_in_any_namespace(written).first()
    {
        let service = mesh.service(*id);
        let explanation = if service.namespace().as_str() == own_namespace {
            "destination hosts are case-sensitive".to_owned()
        } else {
            format!(
                "Istio resolves a short name in the namespace of the VirtualService ({own_namespace}); the Service is in {}",
                service.namespace()
            )
        };
        return (Some(explanation), as_yaml(service.host.as_str()));
    }
    let short = mesh.short_host(full);
    let (name, namespace) = short.split_once('.').unwrap_or((short, own_namespace));
    let similar = mesh.name_index.nearest_names(namespace, name);
    match similar.first() {
        Some(nearest) => {
            let (name, namespace) = nearest.split_once('.').unwrap_or((nearest, own_namespace));
            let host =
                if namespace == own_namespace { name.to_owned() } else { format!("{name}.{namespace}.svc.{domain}") };
            (Some(format!("Services with a similar name: {}", similar.join(", "))), as_yaml(&host))
        }
        None => (None, "create the Service, or add a ServiceEntry if the host is outside the mesh".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn route(host: &str) -> String {
        service("checkout", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                &format!("{{hosts: [checkout], http: [{{route: [{{destination: {{host: '{host}'}}}}]}}]}}"),
            )
    }

    #[test]
    fn reports_hosts_without_a_service_or_service_entry() {
        for host in [
            "chekout",
            "checkout.shop",
            "checkout.shop.svc",
            "checkout.shop.svc.cluster.local.svc.cluster.local",
            "Checkout",
        ] {
            assert_findings(
                &RULE,
                &route(host),
                &["error VirtualService shop/r spec.http[0].route[0].destination.host"],
            );
        }
        assert_undecided_on_gap(&RULE, &route("chekout"));
    }

    #[test]
    fn suggests_the_host_that_was_probably_meant() {
        let first_finding = |host: &str| findings(&RULE, &route(host)).remove(0);
        assert_eq!(first_finding("chekout").evidence, ["Services with a similar name: checkout.shop"]);
        assert_eq!(first_finding("chekout").fix, "host: checkout");
        assert_eq!(
            first_finding("checkout.shop").evidence,
            [
                "Istio reads a host with a dot as a full name; the host of Service shop/checkout is checkout.shop.svc.cluster.local"
            ]
        );
        let elsewhere = route("x")
            + &istio("VirtualService", "w", "{hosts: [a.b], http: [{route: [{destination: {host: checkout}}]}]}")
                .replace("name: w", "name: w, namespace: web");
        let evidence: Vec<_> = findings(&RULE, &elsewhere).into_iter().flat_map(|finding| finding.evidence).collect();
        assert!(
            evidence.iter().any(|fact| fact.contains("in the namespace of the VirtualService (web)")),
            "{evidence:?}"
        );
    }

    #[test]
    fn reports_hosts_of_mirrors_and_tcp_rules() {
        let yaml = service("a", "{name: tcp, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{route: [{destination: {host: a}}], mirror: {host: nope}}], tcp: [{route: [{destination: {host: nope}}]}]}",
            );
        assert_findings(
            &RULE,
            &yaml,
            &[
                "warning VirtualService shop/r spec.http[0].mirror.host",
                "error VirtualService shop/r spec.tcp[0].route[0].destination.host",
            ],
        );
    }

    #[test]
    fn is_silent_on_hosts_of_services_and_service_entries() {
        assert_findings(&RULE, &route("checkout"), &[]);
        assert_findings(&RULE, &route("checkout.shop.svc.cluster.local"), &[]);
        let entry =
            istio("ServiceEntry", "e", "{hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}]}");
        assert_findings(&RULE, &(route("api.example.com") + &entry), &[]);
    }
}
