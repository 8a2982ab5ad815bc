//! GM226: a route or DestinationRule for an ExternalName Service, which is an alias without a cluster.

use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::ids::{Host, Namespace};
use crate::mesh::service::Resolution;
use crate::mesh::xds::{DestinationUse, MissingCluster, MissingClusterCause};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM226",
    name: "external-name-destination",
    severity: Severity::Error,
    needs: &[Kind::Service, Kind::ServiceEntry],
    istio_code: None,
    summary: "A route or DestinationRule for an ExternalName Service, which has no cluster",
    docs: "\
## What it looks for
A route destination, a mirror or the host of a DestinationRule that is an ExternalName Service, unless the name that it
stands for is itself a host of the registry.

## Why it matters for gRPC
Since Istio 1.21 an ExternalName Service is an alias: calls to it use the routes and the cluster of the host that it
names, and it has no cluster of its own. A route to it fails with UNAVAILABLE, response flag `NC`. A DestinationRule for
it has no effect: connections are opened without its TLS settings and limits.

## Example
```yaml
kind: Service
metadata: {name: search, namespace: web}
spec: {type: ExternalName, externalName: search.partner.example}
---
kind: VirtualService
spec: {hosts: [finder], http: [{route: [{destination: {host: search, port: {number: 443}}}]}]}
```

## Fix
Describe the external host with a ServiceEntry, and use its host:
```yaml
kind: ServiceEntry
spec:
  hosts: [search.partner.example]
  location: MESH_EXTERNAL
  resolution: DNS
  ports: [{number: 443, name: grpc, protocol: GRPC}]
```

## References
- Istio 1.21 release notes: `external-name-on`.
- Istio source: `pilot/pkg/networking/core/cluster.go` (buildOutboundClusters), `pilot/pkg/model/sidecar.go` (aliases).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    if !mesh.has_behavior(IstiodBehavior::ExternalNameAliases) {
        return;
    }
    for missing in mesh.missing_clusters() {
        if let MissingClusterCause::Alias { target } = &missing.cause {
            report_destination(mesh, missing, target, out);
        }
    }
    for rule in mesh.destination_rules.iter() {
        let Some(service) = mesh.find_host(rule.host.as_str()).map(|id| mesh.service(id)) else { continue };
        let Resolution::ExternalName(target) = &service.resolution else { continue };
        let finding = Finding::new(&RULE, &rule.object, "spec.host")
            .severity(Severity::Warning)
            .message(format!("{} is an ExternalName Service, to which no DestinationRule applies", service.object))
            .impact("its TLS settings, limits, subsets and outlier detection have no effect")
            .evidence([format!("the Service is an alias of {target}")])
            .depends_on([service.namespace()])
            .fix(fix(mesh, target));
        out.add(&RULE, finding);
    }
}

fn report_destination(mesh: &Mesh<'_>, missing: &MissingCluster, target: &Host, out: &mut Findings<'_>) {
    let MissingCluster { object, field, host, use_of_calls, callers, .. } = missing;
    let (severity, impact) = match use_of_calls {
        DestinationUse::Calls => {
            (Severity::Error, "calls on this route fail with UNAVAILABLE (flag NC, cluster not found)")
        }
        DestinationUse::Copies => (Severity::Warning, "mirrored calls are lost; callers are not affected"),
        DestinationUse::Nothing => (
            Severity::Warning,
            "none at weight 0; with a weight above 0, that share of the calls fails with UNAVAILABLE (flag NC)",
        ),
    };
    let field = if object.kind == Kind::VirtualService { format!("{field}.host") } else { field.clone() };
    let finding = Finding::new(&RULE, object, field)
        .severity(severity)
        .message(format!("the destination {} is an ExternalName Service, which has no cluster", mesh.short_host(host)))
        .impact(impact)
        .callers(callers.iter().map(Namespace::as_str))
        .evidence([format!("the Service is an alias of {target}, which is not in the registry")])
        .depends_on(mesh.namespace_of_host(host).as_ref())
        .fix(fix(mesh, target));
    out.add(&RULE, finding);
}

fn fix(mesh: &Mesh<'_>, target: &Host) -> String {
    if mesh.has_host(target.as_str()) {
        return format!("host: {target}");
    }
    format!(
        "# use the host of a ServiceEntry\nkind: ServiceEntry\nspec:\n  hosts: [{target}]\n  location: MESH_EXTERNAL\n  \
         resolution: DNS\n  ports: [{{number: 443, name: grpc, protocol: GRPC}}]"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    const ALIAS: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: alias}\nspec: {type: ExternalName, externalName: api.example.com, ports: [{name: grpc, port: 443}]}\n";

    fn route() -> String {
        service("a", "{name: grpc, port: 1}")
            + ALIAS
            + &istio(
                "VirtualService",
                "r",
                "{hosts: [a], http: [{route: [{destination: {host: alias, port: {number: 443}}}]}]}",
            )
    }

    #[test]
    fn reports_routes_and_destination_rules_for_an_alias() {
        assert_findings(&RULE, &route(), &["error VirtualService shop/r spec.http[0].route[0].destination.host"]);
        assert_undecided_on_gap(&RULE, &route());
        let rule = istio("DestinationRule", "d", "{host: alias, trafficPolicy: {tls: {mode: SIMPLE}}}");
        assert_findings(&RULE, &(ALIAS.to_owned() + &rule), &["warning DestinationRule shop/d spec.host"]);
    }

    #[test]
    fn is_silent_when_the_target_is_in_the_registry() {
        let entry = istio(
            "ServiceEntry",
            "e",
            "{hosts: [api.example.com], resolution: DNS, ports: [{number: 443, name: grpc, protocol: GRPC}]}",
        );
        assert_findings(&RULE, &(route() + &entry), &[]);
    }
}
