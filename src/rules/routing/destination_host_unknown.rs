//! GM201: a route leads to a host that nobody knows.

use crate::mesh::Mesh;
use crate::mesh::host;
use crate::mesh::ids::Host;
use crate::mesh::virtual_service::VirtualService;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM201",
    name: "destination-host-unknown",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: Some("IST0101"),
    summary: "A route leads to a host that no Service or ServiceEntry has",
    docs: "\
## What it looks for
A destination or mirror of a VirtualService whose host is neither a Service nor a host of a ServiceEntry.

## Why it matters for gRPC
The route is accepted, but its cluster does not exist: each call that takes it fails with UNAVAILABLE, flag `NC`, while
the log's response code is 200. Three slips are common: a name with one dot (`checkout.shop`) is taken as a full name;
a short name belongs to the VirtualService's own namespace, not to the caller's; and the cluster domain written twice.

## Example
```yaml
metadata: {namespace: web}
spec:
  hosts: [checkout.shop.svc.cluster.local]
  http:
  - route:
    - destination: {host: checkout.shop}    # taken as it is: no such host
```

## Repair
```yaml
    - destination: {host: checkout.shop.svc.cluster.local}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM201.yaml`.
- Istio: `pilot/pkg/model/config.go` (ResolveShortnameToFQDN); `cluster_not_found_response_code` is 503.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let mut seen: Vec<(String, &str)> = Vec::new();
        for (index, rule) in object.spec.http.iter().enumerate() {
            for (at, route) in rule.route.iter().enumerate() {
                if let Some(destination) = &route.destination {
                    seen.push((format!("spec.http[{index}].route[{at}].destination.host"), &destination.host));
                }
            }
            if let Some(mirror) = &rule.mirror {
                seen.push((format!("spec.http[{index}].mirror.host"), &mirror.host));
            }
            for (at, mirror) in rule.mirrors.iter().enumerate() {
                if let Some(destination) = &mirror.destination {
                    seen.push((format!("spec.http[{index}].mirrors[{at}].destination.host"), &destination.host));
                }
            }
        }
        for (kind, rules) in [("tls", &object.spec.tls), ("tcp", &object.spec.tcp)] {
            for (index, rule) in rules.iter().enumerate() {
                for (at, route) in rule.route.iter().enumerate() {
                    if let Some(destination) = &route.destination {
                        seen.push((format!("spec.{kind}[{index}].route[{at}].destination.host"), &destination.host));
                    }
                }
            }
        }
        for (field, written) in seen {
            judge(mesh, object, &field, written, out);
        }
    }
}

fn judge(mesh: &Mesh<'_>, object: &VirtualService, field: &str, written: &str, out: &mut Findings<'_>) {
    let own = &object.object.namespace;
    let full = host::resolve(written, own, &mesh.cluster_domain);
    if written.is_empty() || written == "*" || mesh.knows_host(full.as_str()) {
        return;
    }
    if !mesh.is_absent(&full) {
        out.undecided(&RULE);
        return;
    }
    let (explanation, fix) = explain(mesh, written, &full, own.as_str());
    let is_mirror = field.contains(".mirror");
    let effect = if is_mirror {
        "the copies are lost; callers see nothing of it".to_owned()
    } else {
        "calls that take this route fail with UNAVAILABLE (flag NC, no such cluster)".to_owned()
    };
    let target = mesh.namespace_of_host(&full);
    let finding = Finding::new(&RULE, &object.object, field)
        .severity(if is_mirror { Severity::Warning } else { Severity::Error })
        .message(format!("no Service or ServiceEntry has the host \"{}\"", full.as_str()))
        .impact(effect)
        .evidence(explanation)
        .rests_on(target.as_ref())
        .fix(fix);
    out.add(&RULE, finding);
}

/// What the author probably meant.
fn explain(mesh: &Mesh<'_>, written: &str, full: &Host, own: &str) -> (Option<String>, String) {
    let domain = &mesh.cluster_domain;
    let say = |host: &str| format!("host: {host}");
    // `checkout.shop` and `checkout.shop.svc`: full names to Istio, short names to people.
    let mut parts = written.split('.');
    if let (Some(name), Some(namespace)) = (parts.next(), parts.next())
        && let Some(id) = mesh.find_service(namespace, name)
    {
        let right = mesh.service(id).host.as_str().to_owned();
        let why = if written.starts_with(right.as_str()) {
            format!("the cluster domain \"{domain}\" is written twice")
        } else {
            format!("a host with a dot is taken as a full name; {name} in {namespace} is {right}")
        };
        return (Some(why), say(&right));
    }
    if !written.contains('.')
        && let Some(id) = mesh.directory.named(written).first()
    {
        let service = mesh.service(*id);
        let why = if service.namespace().as_str() == own {
            "hosts of destinations are compared with regard to case".to_owned()
        } else {
            format!(
                "a short name belongs to the namespace of the VirtualService ({own}); a Service of that name is in {}",
                service.namespace()
            )
        };
        return (Some(why), say(service.host.as_str()));
    }
    let inner = mesh.short_host(full);
    let (name, namespace) = inner.split_once('.').unwrap_or((inner, own));
    let similar = mesh.directory.similar(namespace, name);
    match similar.first() {
        Some(nearest) => {
            let (name, namespace) = nearest.split_once('.').unwrap_or((nearest, own));
            let right = if namespace == own { name.to_owned() } else { format!("{name}.{namespace}.svc.{domain}") };
            (Some(format!("Services of a similar name: {}", similar.join(", "))), say(&right))
        }
        None => (None, "create the Service, or add a ServiceEntry for a host outside the mesh".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    fn route(host: &str) -> String {
        service("checkout", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                &format!("{{hosts: [checkout], http: [{{route: [{{destination: {{host: '{host}'}}}}]}}]}}"),
            )
    }

    #[test]
    fn hosts_that_nobody_has_are_reported() {
        for host in [
            "chekout",
            "checkout.shop",
            "checkout.shop.svc",
            "checkout.shop.svc.cluster.local.svc.cluster.local",
            "Checkout",
        ] {
            check(&RULE, &route(host), &["error VirtualService shop/r spec.http[0].route[0].destination.host"]);
        }
        check_gap(&RULE, &route("chekout"));
    }

    #[test]
    fn the_slip_is_explained() {
        let first = |host: &str| findings(&RULE, &route(host)).remove(0);
        assert_eq!(first("chekout").evidence, ["Services of a similar name: checkout.shop"]);
        assert_eq!(first("chekout").fix, "host: checkout");
        assert_eq!(
            first("checkout.shop").evidence,
            ["a host with a dot is taken as a full name; checkout in shop is checkout.shop.svc.cluster.local"]
        );
        let elsewhere = route("x")
            + &istio("VirtualService", "w", "{hosts: [a.b], http: [{route: [{destination: {host: checkout}}]}]}")
                .replace("name: w", "name: w, namespace: web");
        let found = findings(&RULE, &elsewhere);
        assert!(
            found
                .iter()
                .any(|f| f.evidence.iter().any(|e| e.contains("belongs to the namespace of the VirtualService (web)")))
        );
    }

    #[test]
    fn mirrors_and_tcp_rules_are_read_too() {
        let yaml = service("a", "{name: tcp, port: 1}")
            + &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{route: [{destination: {host: a}}], mirror: {host: nope}}], tcp: [{route: [{destination: {host: nope}}]}]}",
            );
        check(
            &RULE,
            &yaml,
            &[
                "warning VirtualService shop/r spec.http[0].mirror.host",
                "error VirtualService shop/r spec.tcp[0].route[0].destination.host",
            ],
        );
    }

    #[test]
    fn known_hosts_are_silent() {
        check(&RULE, &route("checkout"), &[]);
        check(&RULE, &route("checkout.shop.svc.cluster.local"), &[]);
        let entry =
            istio("ServiceEntry", "e", "{hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}]}");
        check(&RULE, &(route("api.example.com") + &entry), &[]);
    }
}
