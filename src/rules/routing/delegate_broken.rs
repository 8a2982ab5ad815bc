//! GM214: a rule whose delegate is missing, hidden, nested or in contradiction.

use crate::mesh::Mesh;
use crate::mesh::ids::{Namespace, VirtualServiceId};
use crate::mesh::virtual_service::VirtualService;
use crate::mesh::xds::find_delegate;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::virtual_service::Delegate;
use crate::snapshot::SourceKind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM214",
    name: "delegate-broken",
    severity: Severity::Error,
    needs: &[Kind::VirtualService],
    istio_code: None,
    summary: "A rule whose delegate is missing, hidden, nested or in contradiction to it",
    docs: "\
## What it looks for
A rule with `delegate` whose VirtualService does not exist, has hosts of its own, is not exported to the root's
namespace, delegates again, or has rules whose conditions contradict the root's.

## Why it matters for gRPC
istiod leaves the rule away without a word: its calls fall to later rules, or get 404, UNIMPLEMENTED to the client.

## Example
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]
  delegate: {name: cart}                # its rule matches /shop.Orders/: left out
```

## Repair
Give the delegate conditions that lie inside the root's, no `hosts`, and `exportTo` for the root's namespace.

## References
- Seen on a real mesh: `tests/lab/effects/GM214.yaml`.
- From Istio's code: `pilot/pkg/model/virtualservice.go` (`MergeHTTPRoutes`); pinned with istiod's own code.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else { continue };
            let own = &object.object.namespace;
            let namespace = delegate
                .namespace
                .as_deref()
                .filter(|name| !name.is_empty())
                .map_or_else(|| own.clone(), Namespace::from);
            let path = format!("{namespace}/{}", delegate.name);
            let Some((what, fix)) = fault(mesh, (id, object), index, delegate, &namespace, &path) else { continue };
            // Manifests that never mention the delegate's namespace cannot tell.
            let is_missing = mesh.virtual_services.named(&namespace, &delegate.name).is_none();
            let described = namespace == *own || mesh.coverage.describes(&namespace);
            if is_missing && mesh.snapshot.source == SourceKind::Manifests && !described {
                out.undecided(&RULE);
                continue;
            }
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].delegate"))
                .message(what)
                .impact("the rule is left away: its calls fall to later rules, or get 404 (UNIMPLEMENTED)")
                .rests_on([&namespace])
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

/// What is wrong with a delegate, and the repair.
fn fault(
    mesh: &Mesh<'_>,
    (id, object): (VirtualServiceId, &VirtualService),
    index: usize,
    delegate: &Delegate,
    namespace: &Namespace,
    path: &str,
) -> Option<(String, String)> {
    if object.hosts.is_empty() {
        let what = format!("{} is a delegate itself and delegates again to {path}", object.object);
        return Some((what, "write the rules here: delegates are one level deep".to_owned()));
    }
    let Some(found) = mesh.virtual_services.named(namespace, &delegate.name) else {
        return Some((format!("there is no VirtualService {path}"), "create it, or mend the name".to_owned()));
    };
    if !found.spec.hosts.is_empty() {
        return Some((
            format!("{path} has hosts of its own, so it is no delegate"),
            format!("remove spec.hosts of {path}"),
        ));
    }
    if find_delegate(mesh, object, delegate).is_none() {
        let own = &object.object.namespace;
        return Some((
            format!("{path} is not exported to {own}"),
            format!("spec:\n  exportTo: [., {own}]   # of {path}"),
        ));
    }
    let configs = mesh.route_configs();
    let config = configs.iter().map(|(_, config)| config).find(|config| config.virtual_service == Some(id))?;
    let merged = config.rules.iter().filter(|rule| rule.index == index && rule.object == object.object).count();
    let lost = found.spec.http.len().saturating_sub(merged);
    (lost > 0).then(|| {
        let what = format!(
            "{lost} of {} rules of {path} contradict this rule's conditions and are left out",
            found.spec.http.len()
        );
        (what, "give the delegate's rules conditions that lie inside the root's".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio, service};

    fn mesh(delegate: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "root",
                "{hosts: [a], http: [{match: [{uri: {prefix: /shop.Cart/}}], delegate: {name: d}}]}",
            )
            + &istio("VirtualService", "d", delegate)
    }

    const FOUND: &[&str] = &["error VirtualService shop/root spec.http[0].delegate"];

    #[test]
    fn each_fault_is_told() {
        for (delegate, word) in [
            ("{hosts: [a], http: [{route: [{destination: {host: a}}]}]}", "hosts of its own"),
            ("{http: [{match: [{uri: {prefix: /shop.Orders/}}], route: [{destination: {host: a}}]}]}", "1 of 1 rules"),
        ] {
            check(&RULE, &mesh(delegate), FOUND);
            assert!(findings(&RULE, &mesh(delegate))[0].message.contains(word));
        }
        let missing = mesh("{http: []}").replace("name: d}}", "name: e}}");
        check(&RULE, &missing, FOUND);
        check_gap(&RULE, &missing);
        let hidden = mesh("{exportTo: [web], http: [{route: [{destination: {host: a}}]}]}");
        assert!(findings(&RULE, &hidden)[0].message.contains("not exported"));
    }

    #[test]
    fn a_fitting_delegate_is_silent() {
        check(
            &RULE,
            &mesh("{http: [{match: [{uri: {prefix: /shop.Cart/Get}}], route: [{destination: {host: a}}]}]}"),
            &[],
        );
    }
}
