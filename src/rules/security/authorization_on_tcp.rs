//! GM603: HTTP conditions of an AuthorizationPolicy at a port that the server's proxy handles as TCP.

use std::collections::BTreeMap;

use crate::mesh::Mesh;
use crate::mesh::authorization::{AuthorizationPolicy, PolicyAction, PolicyAttribute, PolicyCondition, PolicyRule};
use crate::mesh::hop::{InboundClass, ServerSide};
use crate::mesh::ids::{Namespace, ObjectRef};
use crate::mesh::service::{Service, ServicePort};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::name_list::abbreviate;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM603",
    name: "authorization-on-tcp",
    severity: Severity::Error,
    needs: &[Kind::Service],
    istio_code: None,
    summary: "HTTP conditions in an AuthorizationPolicy for a port that is handled as TCP",
    docs: "\
## What it looks for
Conditions on paths, methods, hosts, headers or tokens in an AuthorizationPolicy, at a pod port that the server's proxy
handles as TCP: an ALLOW rule at a port with gRPC evidence, and a DENY or CUSTOM rule at any port.

## Why it matters for gRPC
On a TCP port the proxy sees connections, not calls. istiod drops an ALLOW rule with an HTTP condition as a whole, so
that it allows nothing. In a DENY rule it drops only the HTTP conditions, so that the rule denies every connection that
meets the others. The proxy closes a denied connection, which gRPC clients see as UNAVAILABLE.

## Example
```yaml
kind: Service
spec: {ports: [{name: tcp-api, port: 50051}]}
---
kind: AuthorizationPolicy
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/shop.Checkout/Refund]}}]     # denies all methods
```

## Fix
Declare the port as gRPC:
```yaml
ports: [{name: grpc, port: 50051}]
```
For a port that does not carry gRPC, limit the rule to the other ports with `ports`.

## References
- Istio source: `checkError` in `pilot/pkg/security/authz/model/model.go`.
- Compared with a real Envoy: `tests/authorization.rs`.
",
    check,
};

/// A pod port that the proxy handles as TCP.
struct TcpPort<'m> {
    service: &'m Service,
    port: &'m ServicePort,
    /// Port of the pods.
    number: u16,
}

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    if mesh.security_policies.all_policies().next().is_none() {
        return;
    }
    let mut ports: BTreeMap<(ObjectRef, usize), Vec<TcpPort<'_>>> = BTreeMap::new();
    for service in &mesh.services {
        for port in &service.ports {
            collect(mesh, service, port, &mut ports);
        }
    }
    let policies: BTreeMap<&ObjectRef, &AuthorizationPolicy> =
        mesh.security_policies.all_policies().map(|policy| (&policy.object, policy)).collect();
    for ((object, index), ports) in &ports {
        let Some(policy) = policies.get(object) else { continue };
        let rule = policy.rules.get(*index).and_then(Option::as_ref);
        if let Some(condition) = rule.and_then(http_condition) {
            report(policy, *index, condition, ports, out);
        }
    }
}

/// Adds the rules with HTTP conditions that act at a port.
fn collect<'m>(
    mesh: &'m Mesh<'_>,
    service: &'m Service,
    port: &'m ServicePort,
    ports: &mut BTreeMap<(ObjectRef, usize), Vec<TcpPort<'m>>>,
) {
    for id in &service.workloads {
        let workload = mesh.workload(*id);
        let Some(number) = port.target.number_in(workload) else { continue };
        let policies = mesh.security_policies.authorization_policies(workload, &mesh.root_namespace);
        let policies: Vec<_> = policies.filter(|policy| policy.is_enforced()).collect();
        if policies.is_empty() {
            continue;
        }
        if !matches!(mesh.server_side(*id, number), ServerSide::Proxy { class: InboundClass::Tcp, .. }) {
            continue;
        }
        for policy in policies {
            // A rule for methods is not meant for a port without gRPC, and allows nothing there either way.
            if policy.action == Some(PolicyAction::Allow) && port.evidence.is_empty() {
                continue;
            }
            for (index, rule) in policy.rules() {
                if http_condition(rule).is_none() || !may_act_at(rule, number) {
                    continue;
                }
                let list = ports.entry((policy.object.clone(), index)).or_default();
                if !list.iter().any(|known| std::ptr::eq(known.port, port)) {
                    list.push(TcpPort { service, port, number });
                }
            }
        }
    }
}

fn http_condition(rule: &PolicyRule) -> Option<&PolicyCondition> {
    rule.operations.iter().chain(&rule.sources).flatten().find(|condition| condition.attribute.is_http_only())
}

/// Whether the conditions on the pod's port leave `number` in some operation with an HTTP condition, or one without.
fn may_act_at(rule: &PolicyRule, number: u16) -> bool {
    let is_number = |value: &String| value.parse() == Ok(number);
    let allows = |condition: &PolicyCondition| {
        condition.attribute != PolicyAttribute::DestinationPort
            || ((condition.values.is_empty() || condition.values.iter().any(is_number))
                && !condition.not_values.iter().any(is_number))
    };
    rule.operations.iter().any(|conditions| conditions.iter().all(allows))
}

fn report(
    policy: &AuthorizationPolicy,
    index: usize,
    condition: &PolicyCondition,
    ports: &[TcpPort<'_>],
    out: &mut Findings<'_>,
) {
    let Some(first) = ports.first() else { return };
    let names =
        abbreviate(ports.iter().map(|tcp| format!("{} port {}", tcp.service.object.path(), tcp.port.title())), 3);
    let attribute = condition.attribute.title();
    let is_allow = policy.action == Some(PolicyAction::Allow);
    let (effect, impact) = if is_allow {
        (
            "allows nothing there",
            "unless another rule allows them, the server's proxy closes the connections: calls fail with UNAVAILABLE",
        )
    } else {
        (
            "applies to every connection there",
            "the server's proxy closes connections that the rule is not meant for: calls fail with UNAVAILABLE",
        )
    };
    let has_evidence = ports.iter().find(|tcp| !tcp.port.evidence.is_empty());
    let fix = match has_evidence {
        Some(tcp) => format!("# {}\n{}", tcp.service.object, tcp.port.grpc_port_yaml()),
        None => {
            format!("add notPorts: ['{}'] to the operation, or ports with the gRPC ports of the pods", first.number)
        }
    };
    let protocols = ports.iter().map(|tcp| {
        format!(
            "{} port {}: {} (decided by {})",
            tcp.service.object, tcp.port.number, tcp.port.protocol, tcp.port.decided_by
        )
    });
    let namespaces: Vec<Namespace> = ports.iter().map(|tcp| tcp.service.namespace().clone()).collect();
    let finding = Finding::new(&RULE, &policy.object, format!("spec.rules[{index}].{}", condition.field))
        .message(format!(
            "the rule reads {attribute}, and the proxy handles {names} as TCP: the {} rule {effect}",
            policy.action.map_or("", PolicyAction::as_str)
        ))
        .impact(impact)
        .evidence(protocols)
        .fix(fix)
        .depends_on(&namespaces);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, policy, service};

    fn mesh(port: &str, action: &str, operation: &str) -> String {
        let rules = format!("rules: [{{to: [{{operation: {operation}}}]}}]");
        service("a", port)
            + &pod("a", "v1")
            + &policy("AuthorizationPolicy", "p", &format!("{{action: {action}, {rules}}}"))
    }

    const TCP_WITH_GRPC: &str = "{name: tcp-grpc, port: 50051}";

    #[test]
    fn reports_paths_at_a_tcp_port() {
        for action in ["ALLOW", "DENY"] {
            assert_findings(
                &RULE,
                &mesh(TCP_WITH_GRPC, action, "{paths: [/a.B/C]}"),
                &["error AuthorizationPolicy shop/p spec.rules[0].to[0].operation.paths"],
            );
        }
        assert_undecided_on_gap(&RULE, &mesh(TCP_WITH_GRPC, "DENY", "{methods: [POST]}"));
    }

    #[test]
    fn is_silent_where_the_rule_does_not_act_on_tcp() {
        assert_findings(&RULE, &mesh("{name: grpc, port: 50051}", "DENY", "{paths: [/a.B/C]}"), &[]);
        assert_findings(&RULE, &mesh(TCP_WITH_GRPC, "DENY", "{ports: ['50051']}"), &[]);
        assert_findings(&RULE, &mesh(TCP_WITH_GRPC, "DENY", "{paths: [/a.B/C], notPorts: ['50051']}"), &[]);
        // An ALLOW rule for the gRPC port of the pods is not meant for their database port.
        assert_findings(&RULE, &mesh("{name: tcp, port: 6379}", "ALLOW", "{paths: [/a.B/C]}"), &[]);
    }
}
