//! GM214: a rule whose delegate is missing, not exported, nested or contradictory.

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
    summary: "A rule whose delegate is missing, not exported, nested or contradictory",
    docs: "\
## What it looks for
A rule with `delegate` whose VirtualService does not exist, has hosts of its own, is not exported to the namespace of
the root, delegates again, or has rules whose matches contradict the match of the root.

## Why it matters for gRPC
istiod drops the rule without an error. Its calls match later rules, or get HTTP 404, which the client sees as
UNIMPLEMENTED.

## Example
```yaml
http:
- match: [{uri: {prefix: /shop.Cart/}}]
  delegate: {name: cart}                # its rule matches /shop.Orders/ and is dropped
```

## Fix
Give the delegate matches that lie inside the match of the root, no `hosts`, and an `exportTo` that includes the
namespace of the root:
```yaml
kind: VirtualService
metadata: {name: cart}
spec: {http: [{match: [{uri: {prefix: /shop.Cart/}}], route: [{destination: {host: cart}}]}]}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM214.yaml`.
- Istio source: `pilot/pkg/model/virtualservice.go` (`MergeHTTPRoutes`). Verified against istiod's own output.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (id, object) in mesh.virtual_services.iter() {
        for (index, rule) in object.spec.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else { continue };
            let own_namespace = &object.object.namespace;
            let namespace = delegate
                .namespace
                .as_deref()
                .filter(|name| !name.is_empty())
                .map_or_else(|| own_namespace.clone(), Namespace::from);
            let path = format!("{namespace}/{}", delegate.name);
            let Some((message, fix)) = find_fault(mesh, (id, object), index, delegate, &namespace, &path) else {
                continue;
            };
            // Manifests without any object of the delegate's namespace do not show whether the delegate exists.
            let is_missing = mesh.virtual_services.find(&namespace, &delegate.name).is_none();
            let is_described = namespace == *own_namespace || mesh.coverage.covers_services_in(&namespace);
            if is_missing && mesh.snapshot.source == SourceKind::Manifests && !is_described {
                out.add_undecided(&RULE);
                continue;
            }
            let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].delegate"))
                .message(message)
                .impact("istiod drops the rule: its calls match later rules or fail with UNIMPLEMENTED (flag NR)")
                .depends_on([&namespace])
                .fix(fix);
            out.add(&RULE, finding);
        }
    }
}

/// The message and the fix for the first fault of a delegate.
fn find_fault(
    mesh: &Mesh<'_>,
    (id, object): (VirtualServiceId, &VirtualService),
    index: usize,
    delegate: &Delegate,
    namespace: &Namespace,
    path: &str,
) -> Option<(String, String)> {
    if object.hosts.is_empty() {
        let message = format!("{} is itself a delegate and cannot delegate to {path}", object.object);
        return Some((message, format!("move the rules of {path} into {}", object.object)));
    }
    let Some(target) = mesh.virtual_services.find(namespace, &delegate.name) else {
        let message = format!("VirtualService {path}, to which the rule delegates, does not exist");
        return Some((message, format!("create VirtualService {path}, or correct the name of the delegate")));
    };
    if !target.spec.hosts.is_empty() {
        return Some((
            format!("VirtualService {path} has hosts, so it cannot be a delegate"),
            format!("remove spec.hosts from VirtualService {path}"),
        ));
    }
    if find_delegate(mesh, object, delegate).is_none() {
        let own_namespace = &object.object.namespace;
        return Some((
            format!("VirtualService {path} is not exported to namespace {own_namespace}"),
            format!("# VirtualService {path}\nspec:\n  exportTo: [., {own_namespace}]"),
        ));
    }
    let configs = mesh.route_configs();
    let config = configs.iter().map(|(_, config)| config).find(|config| config.virtual_service == Some(id))?;
    let merged = config.rules.iter().filter(|rule| rule.index == index && rule.object == object.object).count();
    let total = target.spec.http.len();
    let dropped = total.saturating_sub(merged);
    (dropped > 0).then(|| {
        let message =
            format!("istiod drops {dropped} of {total} rules of {path} because they contradict this rule's match");
        (message, format!("narrow the matches of VirtualService {path} to the match of this rule"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio, service};

    fn mesh(delegate: &str) -> String {
        service("a", "{name: grpc, port: 1}")
            + &istio(
                "VirtualService",
                "root",
                "{hosts: [a], http: [{match: [{uri: {prefix: /shop.Cart/}}], delegate: {name: d}}]}",
            )
            + &istio("VirtualService", "d", delegate)
    }

    const EXPECTED: &[&str] = &["error VirtualService shop/root spec.http[0].delegate"];

    #[test]
    fn reports_delegates_with_hosts_contradictions_missing_and_hidden_delegates() {
        for (delegate, text) in [
            ("{hosts: [a], http: [{route: [{destination: {host: a}}]}]}", "has hosts"),
            ("{http: [{match: [{uri: {prefix: /shop.Orders/}}], route: [{destination: {host: a}}]}]}", "1 of 1 rules"),
        ] {
            assert_findings(&RULE, &mesh(delegate), EXPECTED);
            assert!(findings(&RULE, &mesh(delegate))[0].message.contains(text));
        }
        let missing = mesh("{http: []}").replace("name: d}}", "name: e}}");
        assert_findings(&RULE, &missing, EXPECTED);
        assert_undecided_on_gap(&RULE, &missing);
        let hidden = mesh("{exportTo: [web], http: [{route: [{destination: {host: a}}]}]}");
        assert!(findings(&RULE, &hidden)[0].message.contains("not exported"));
    }

    #[test]
    fn is_silent_on_a_delegate_with_a_narrower_match() {
        assert_findings(
            &RULE,
            &mesh("{http: [{match: [{uri: {prefix: /shop.Cart/Get}}], route: [{destination: {host: a}}]}]}"),
            &[],
        );
    }
}
