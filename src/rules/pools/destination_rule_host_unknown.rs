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
    summary: "A DestinationRule whose host no Service or ServiceEntry has",
    docs: "\
## What it looks for
A DestinationRule whose `host` is no Service, no host of a ServiceEntry, and covers none.

## Why it matters for gRPC
The rule does nothing: its subsets do not exist for any caller, its limits, balancing and TLS settings are not applied.
A name with one dot (`checkout.shop`) is a full name to Istio, and a short name belongs to the rule's own namespace.

## Example
```yaml
kind: DestinationRule
metadata: {namespace: web}
spec: {host: checkout}        # means checkout.web.svc.cluster.local
```

## Repair
```yaml
spec: {host: checkout.shop.svc.cluster.local}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM409.yaml`.
- Istio: `pilot/pkg/model/config.go` (ResolveShortnameToFQDN).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let full = &rule.host;
        if full.as_str().is_empty() || mesh.knows_host(full.as_str()) {
            continue;
        }
        let own = &rule.object.namespace;
        let certain = if full.as_str().starts_with('*') { mesh.coverage.describes(own) } else { mesh.is_absent(full) };
        if !certain {
            out.undecided(&RULE);
            continue;
        }
        let written = rule.spec.host.as_str();
        let mut parts = written.split('.');
        let (name, namespace) = (parts.next().unwrap_or_default(), parts.next());
        let meant = namespace.and_then(|namespace| mesh.find_service(namespace, name)).map(|id| mesh.service(id));
        let elsewhere = mesh.directory.named(name).first().filter(|_| namespace.is_none()).map(|id| mesh.service(*id));
        let similar = mesh.directory.similar(own.as_str(), name);
        let (evidence, fix) = match (meant, elsewhere, similar.first()) {
            (Some(service), ..) => (
                Some(format!(
                    "a host with a dot is taken as a full name; {} is {}",
                    service.object,
                    service.host.as_str()
                )),
                format!("host: {}", service.host.as_str()),
            ),
            (None, Some(service), _) => (
                Some(format!(
                    "a short name belongs to the rule's namespace ({own}); a Service of that name is in {}",
                    service.namespace()
                )),
                format!("host: {}", service.host.as_str()),
            ),
            (None, None, Some(nearest)) => {
                let (name, namespace) = nearest.split_once('.').unwrap_or((nearest, own.as_str()));
                let right = host::of_service(name, &namespace.into(), &mesh.cluster_domain);
                (
                    Some(format!("Services of a similar name: {}", similar.join(", "))),
                    format!("host: {}", right.as_str()),
                )
            }
            (None, None, None) => (None, "remove the rule, or create the Service or ServiceEntry".to_owned()),
        };
        let target = mesh.namespace_of_host(full);
        let finding = Finding::new(&RULE, &rule.object, "spec.host")
            .message(format!("no Service or ServiceEntry has the host \"{}\"", full.as_str()))
            .impact("the rule does nothing: its subsets, limits and TLS settings exist for no caller")
            .evidence(evidence)
            .rests_on(target.as_ref())
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    fn mesh(host: &str) -> String {
        service("checkout", "{name: grpc, port: 1}")
            + &istio("DestinationRule", "d", &format!("{{host: '{host}', trafficPolicy: {{}}}}"))
    }

    #[test]
    fn hosts_that_match_nothing_are_reported() {
        for host in ["chekout", "checkout.shop", "*.web.svc.cluster.local", "api.example.com"] {
            check(&RULE, &mesh(host), &["warning DestinationRule shop/d spec.host"]);
        }
        check_gap(&RULE, &mesh("chekout"));
        assert_eq!(findings(&RULE, &mesh("chekout"))[0].fix, "host: checkout.shop.svc.cluster.local");
    }

    #[test]
    fn hosts_and_wildcards_that_match_are_silent() {
        for host in ["checkout", "checkout.shop.svc.cluster.local", "*.shop.svc.cluster.local", "*.local", "*"] {
            check(&RULE, &mesh(host), &[]);
        }
    }
}
