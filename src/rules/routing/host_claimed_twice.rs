//! GM208: two mesh VirtualServices for one host that reach the same callers.

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
    summary: "Two VirtualServices of the mesh for one host reach the same callers: one is ignored",
    docs: "\
## What it looks for
Two or more VirtualServices with gateway `mesh` (or without gateways) that name the same host and that the same
callers see.

## Why it matters for gRPC
On sidecars VirtualServices for one host are not merged. For each caller one object owns the host: a private one
(`exportTo: [.]`) before one exported to the caller's namespace before a public one, then the oldest. The other
object's routes, weights, timeouts and retries do nothing, and nobody says so.

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

## Repair
Put the rules into one object, the more specific ones first; or use `delegate`.

## References
- Istio: `pilot/pkg/model/push_context.go`, `pilot/pkg/networking/core/httproute.go` (metric `pilot_vservice_dup_domain`).
- Seen on a real mesh: `tests/lab/effects/GM208.yaml`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let mut hosts: Vec<_> = mesh.virtual_services.claimed_hosts().filter(|(_, ids)| ids.len() > 1).collect();
    hosts.sort();
    let mut lost: BTreeMap<VirtualServiceId, Vec<Loss<'_>>> = BTreeMap::new();
    for (host, ids) in hosts {
        for (loser, loss) in losses(mesh, host, ids) {
            lost.entry(loser).or_default().push(loss);
        }
    }
    for (loser, losses) in lost {
        for loss in losses {
            report(mesh, mesh.virtual_services.get(loser), &loss, out);
        }
    }
}

/// A host that an object does not get.
struct Loss<'m> {
    host: &'m Host,
    /// Who gets it instead, and for callers of which namespaces; none stands for everybody.
    winners: BTreeMap<VirtualServiceId, BTreeSet<Namespace>>,
}

/// The objects among `ids` that lose the host for some callers: they have rules for a port that another one takes.
fn losses<'m>(mesh: &'m Mesh<'_>, host: &'m Host, ids: &[VirtualServiceId]) -> Vec<(VirtualServiceId, Loss<'m>)> {
    // A namespace that no object names stands for everybody else.
    let outsider = Namespace::from("");
    let mut callers: BTreeSet<Namespace> = BTreeSet::from([outsider]);
    let mut ports: BTreeSet<u16> = BTreeSet::new();
    for id in ids {
        let object = mesh.virtual_services.get(*id);
        match &object.export_to {
            Visibility::Private => {
                callers.insert(object.object.namespace.clone());
            }
            Visibility::Namespaces(namespaces) => callers.extend(namespaces.iter().cloned()),
            Visibility::Public | Visibility::Nobody => {}
        }
        let matches = object.spec.http.iter().flat_map(|rule| &rule.matches);
        ports.extend(matches.filter_map(|one| one.port.and_then(|port| u16::try_from(port).ok())));
    }
    let service = mesh.find_host(host.as_str()).map(|id| mesh.service(id));
    ports.extend(service.into_iter().flat_map(|service| &service.ports).map(|port| port.number));
    // A port that no object names stands for the others.
    ports.insert(0);
    let of_service = service.map(|service| service.namespace().clone());
    let of_service = of_service.or_else(|| mesh.namespace_of_host(host)).unwrap_or_else(|| Namespace::from(""));
    let configs = mesh.route_configs();
    let mut lost: BTreeMap<VirtualServiceId, Loss<'m>> = BTreeMap::new();
    for caller in &callers {
        let proxy = Caller::in_namespace(caller.clone());
        for port in &ports {
            let owner = mesh.owner_of_host(&proxy, host, &of_service, *port);
            let Some(winner) = owner.and_then(|owner| configs.get(owner).virtual_service) else { continue };
            if !ids.contains(&winner) {
                continue;
            }
            let others = configs.of_host(host).filter(|config| configs.is_seen(*config, caller));
            for config in others.filter(|config| mesh.gives_rules(configs.get(*config), &proxy, &of_service, *port)) {
                let Some(id) = configs.get(config).virtual_service.filter(|id| *id != winner) else { continue };
                let loss = lost.entry(id).or_insert_with(|| Loss { host, winners: BTreeMap::new() });
                loss.winners.entry(winner).or_default().insert(caller.clone());
            }
        }
    }
    lost.into_iter().collect()
}

fn report(mesh: &Mesh<'_>, loser: &VirtualService, loss: &Loss<'_>, out: &mut Findings<'_>) {
    let index = loser.hosts.iter().position(|host| host == loss.host).unwrap_or_default();
    let everybody = loss.winners.values().any(|callers| callers.iter().any(|caller| caller.as_str().is_empty()));
    let winners: Vec<_> = loss.winners.keys().map(|id| mesh.virtual_services.get(*id)).collect();
    let named: Vec<_> = winners.iter().map(|winner| winner.object.path()).collect();
    let evidence = winners.iter().map(|winner| {
        let why = match (&winner.export_to, &loser.export_to) {
            (Visibility::Private, other) if *other != Visibility::Private => "it is private to the callers' namespace",
            (Visibility::Namespaces(_), Visibility::Public) => "it is exported to the callers' namespace by name",
            _ if winner.created.is_some() && loser.created.is_some() && winner.created != loser.created => {
                "it is older"
            }
            _ => "it comes first by name; ages are equal or not in the source",
        };
        format!("VirtualService {} wins: {why}", winner.object.path())
    });
    let callers = loss.winners.values().flatten().filter(|_| !everybody);
    let finding = Finding::new(&RULE, &loser.object, format!("spec.hosts[{index}]"))
        .message(format!(
            "{} is also claimed by VirtualService {}, which wins",
            mesh.short_host(loss.host),
            named.join(", ")
        ))
        .impact("this object's routes, weights, timeouts and retries do nothing for these callers")
        .callers(callers)
        .evidence(evidence)
        .rests_on(winners.iter().map(|winner| &winner.object.namespace))
        .fix(format!(
            "put the rules of both into VirtualService {}, the more specific ones first",
            named.first().map_or("", String::as_str)
        ));
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    const ROUTE: &str = "http: [{route: [{destination: {host: a}}]}]";

    fn two(first: &str, second: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio("VirtualService", "one", first)
            + &istio("VirtualService", "two", second)
    }

    #[test]
    fn the_second_claim_is_reported() {
        let yaml =
            two(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [b, a.shop.svc.cluster.local], {ROUTE}}}"));
        check(&RULE, &yaml, &["error VirtualService shop/two spec.hosts[1]"]);
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn a_private_claim_beats_an_older_public_one_for_its_namespace() {
        let yaml = two(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [a], exportTo: [.], {ROUTE}}}"));
        check(&RULE, &yaml, &["error VirtualService shop/one spec.hosts[0]"]);
        assert_eq!(findings(&RULE, &yaml)[0].callers, ["shop"]);
    }

    #[test]
    fn claims_that_do_not_meet_are_silent() {
        check(&RULE, &two(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [b], {ROUTE}}}")), &[]);
        check(
            &RULE,
            &two(&format!("{{hosts: [a], {ROUTE}}}"), &format!("{{hosts: [a], gateways: [gw], {ROUTE}}}")),
            &[],
        );
        let ports = |port| {
            format!("{{hosts: [a], http: [{{match: [{{port: {port}}}], route: [{{destination: {{host: a}}}}]}}]}}")
        };
        check(&RULE, &two(&ports(80), &ports(81)), &[]);
        let elsewhere = two(
            &format!("{{hosts: [a], exportTo: [.], {ROUTE}}}"),
            &format!("{{hosts: [a.shop.svc.cluster.local], exportTo: [.], {ROUTE}}}"),
        )
        .replace("name: two", "name: two, namespace: web");
        check(&RULE, &elsewhere, &[]);
    }
}
