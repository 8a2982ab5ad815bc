//! GM208: two mesh VirtualServices for one host that apply to the same callers.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::mesh::ids::{Host, Namespace, VirtualServiceId};
use crate::mesh::service::Visibility;
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::xds::Caller;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM208",
    name: "host-claimed-twice",
    severity: Severity::Error,
    needs: &[Kind::VirtualService],
    istio_code: Some("IST0109"),
    summary: "Two mesh VirtualServices for one host apply to the same callers: Istio ignores one of them",
    docs: "\
## What it looks for
Two or more VirtualServices with gateway `mesh` (or without gateways) that list the same host and are visible to the
same callers.

## Why it matters for gRPC
For sidecars, Istio does not merge VirtualServices of one host. For each caller it uses one object: a private one
(`exportTo: [.]`) before one that is exported to the caller's namespace, before a public one; then the oldest. The
routes, weights, timeouts and retries of the other object have no effect, and Istio sets no status on it.

## Example
```yaml
kind: VirtualService
metadata: {name: checkout}
spec: {hosts: [checkout], http: [{route: […]}]}
---
kind: VirtualService
metadata: {name: checkout-canary}
spec: {hosts: [checkout], http: [{match: […], route: […]}]}
```

## Fix
Move the rules into one object, the more specific ones first, or use `delegate`:
```yaml
kind: VirtualService
metadata: {name: checkout}
spec: {hosts: [checkout], http: [{match: […], route: […]}, {route: […]}]}
```

## References
- Istio source: `pilot/pkg/model/push_context.go`, `pilot/pkg/networking/core/httproute.go` (metric
  `pilot_vservice_dup_domain`).
- Verified on a real mesh: `tests/lab/effects/GM208.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut hosts: Vec<_> = mesh.virtual_services.claimed_hosts().filter(|(_, ids)| ids.len() > 1).collect();
    hosts.sort();
    let mut conflicts: BTreeMap<VirtualServiceId, Vec<HostConflict<'_>>> = BTreeMap::new();
    for (host, ids) in hosts {
        for (ignored, conflict) in find_conflicts(mesh, host, ids) {
            conflicts.entry(ignored).or_default().push(conflict);
        }
    }
    for (ignored, conflicts) in conflicts {
        for conflict in conflicts {
            report(mesh, mesh.virtual_services.get(ignored), &conflict, out);
        }
    }
}

/// A host for which Istio ignores an object.
struct HostConflict<'m> {
    host: &'m Host,
    /// The objects that Istio uses instead, with the namespaces of the callers. The empty namespace means all others.
    winners: BTreeMap<VirtualServiceId, BTreeSet<Namespace>>,
}

/// The objects among `ids` that Istio ignores for some callers and ports because another object owns the host there.
fn find_conflicts<'m>(
    mesh: &'m Mesh<'_>,
    host: &'m Host,
    ids: &[VirtualServiceId],
) -> Vec<(VirtualServiceId, HostConflict<'m>)> {
    // The empty namespace represents all namespaces that no object mentions.
    let mut callers: BTreeSet<Namespace> = BTreeSet::from([Namespace::from("")]);
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    for id in ids {
        let object = mesh.virtual_services.get(*id);
        match &object.export_to {
            Visibility::Private => {
                callers.insert(object.object.namespace.clone());
            }
            Visibility::Namespaces(namespaces) => callers.extend(namespaces.iter().cloned()),
            Visibility::Public | Visibility::NoNamespace => {}
        }
        let matches = object.spec.http.iter().flat_map(|rule| &rule.matches);
        ports.extend(matches.filter_map(|condition| condition.port.and_then(|port| u16::try_from(port).ok())));
    }
    let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
    ports.extend(service.into_iter().flat_map(|service| &service.ports).map(|port| port.number));
    // Port 0 represents all ports that no object mentions.
    ports.insert(0);
    let service_namespace = service.map(|service| service.namespace().clone());
    let service_namespace =
        service_namespace.or_else(|| mesh.namespace_of_host(host)).unwrap_or_else(|| Namespace::from(""));
    let configs = mesh.route_configs();
    let mut conflicts: BTreeMap<VirtualServiceId, HostConflict<'m>> = BTreeMap::new();
    for caller in &callers {
        let proxy = Caller::in_namespace(caller.clone());
        for port in &ports {
            let owner = mesh.owner_of_host(&proxy, host, &service_namespace, *port);
            let Some(winner) = owner.and_then(|owner| configs.get(owner).virtual_service) else { continue };
            if !ids.contains(&winner) {
                continue;
            }
            let others = configs.naming_host(host).filter(|config| configs.is_visible(*config, caller));
            for config in
                others.filter(|config| mesh.has_rules_for(configs.get(*config), &proxy, &service_namespace, *port))
            {
                let Some(id) = configs.get(config).virtual_service.filter(|id| *id != winner) else { continue };
                let conflict = conflicts.entry(id).or_insert_with(|| HostConflict { host, winners: BTreeMap::new() });
                conflict.winners.entry(winner).or_default().insert(caller.clone());
            }
        }
    }
    conflicts.into_iter().collect()
}

fn report(mesh: &Mesh<'_>, ignored: &VirtualService, conflict: &HostConflict<'_>, out: &mut Findings<'_>) {
    let index = ignored.hosts.iter().position(|host| host == conflict.host).unwrap_or_default();
    let affects_other_namespaces =
        conflict.winners.values().any(|callers| callers.iter().any(|caller| caller.as_str().is_empty()));
    let winners: Vec<_> = conflict.winners.keys().map(|id| mesh.virtual_services.get(*id)).collect();
    let winner_paths: Vec<_> = winners.iter().map(|winner| winner.object.path()).collect();
    let evidence = winners.iter().map(|winner| {
        let reason = match (&winner.export_to, &ignored.export_to) {
            (Visibility::Private, other) if *other != Visibility::Private => {
                "it is private to the namespace of the callers"
            }
            (Visibility::Namespaces(_), Visibility::Public) => "its exportTo lists the namespace of the callers",
            _ if winner.created.is_some() && ignored.created.is_some() && winner.created != ignored.created => {
                "it is older"
            }
            _ => "its name sorts first; the creation times are equal or not in the source",
        };
        format!("VirtualService {} takes precedence: {reason}", winner.object.path())
    });
    let callers = conflict.winners.values().flatten().filter(|_| !affects_other_namespaces);
    let finding = Finding::new(&RULE, &ignored.object, format!("spec.hosts[{index}]"))
        .message(format!(
            "host {} is also in VirtualService {}, which takes precedence",
            mesh.short_host(conflict.host),
            winner_paths.join(", ")
        ))
        .impact("the routes, weights, timeouts and retries of this object have no effect for these callers")
        .callers(callers)
        .evidence(evidence)
        .depends_on(winners.iter().map(|winner| &winner.object.namespace))
        .fix(format!(
            "move the rules of both objects into VirtualService {}, the more specific ones first",
            winner_paths.first().map_or("", String::as_str)
        ));
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    const ROUTE: &str = "http: [{route: [{destination: {host: a}}]}]";

    fn two_objects(first: &str, second: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "first", first)
            + &istio("VirtualService", "second", second)
    }

    #[test]
    fn reports_the_object_that_istio_ignores() {
        let yaml = two_objects(
            &format!("{{hosts: [a], {ROUTE}}}"),
            &format!("{{hosts: [b, a.shop.svc.cluster.local], {ROUTE}}}"),
        );
        assert_findings(&RULE, &yaml, &["error VirtualService shop/second spec.hosts[1]"]);
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn a_private_object_takes_precedence_over_an_older_public_one_in_its_namespace() {
        let yaml = two_objects(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [a], exportTo: [.], {ROUTE}}}"));
        assert_findings(&RULE, &yaml, &["error VirtualService shop/first spec.hosts[0]"]);
        assert_eq!(findings(&RULE, &yaml)[0].callers, ["shop"]);
    }

    #[test]
    fn is_silent_on_different_hosts_gateways_ports_and_namespaces() {
        assert_findings(
            &RULE,
            &two_objects(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [b], {ROUTE}}}")),
            &[],
        );
        assert_findings(
            &RULE,
            &two_objects(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [a], gateways: [gw], {ROUTE}}}")),
            &[],
        );
        let ports = |port| {
            format!("{{hosts: [a], http: [{{match: [{{port: {port}}}], route: [{{destination: {{host: a}}}}]}}]}}")
        };
        assert_findings(&RULE, &two_objects(&ports(80), &ports(81)), &[]);
        let elsewhere = two_objects(
            &format!("{{hosts: [a], exportTo: [.], {ROUTE}}}"),
            &format!("{{hosts: [a.shop.svc.cluster.local], exportTo: [.], {ROUTE}}}"),
        )
        .replace("name: second", "name: second, namespace: web");
        assert_findings(&RULE, &elsewhere, &[]);
    }
}
