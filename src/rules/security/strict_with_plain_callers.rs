//! GM605: a server accepts only mTLS, and it has callers without a proxy.

use std::collections::{BTreeMap, BTreeSet};

use crate::mesh::Mesh;
use crate::mesh::authorization::{PolicyAction, PolicyAttribute};
use crate::mesh::hop::ServerSide;
use crate::mesh::ids::{Namespace, ObjectRef};
use crate::mesh::security::MtlsMode;
use crate::mesh::service::Service;
use crate::mesh::workload::{ProxyKind, Workload};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::name_list::abbreviate;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM605",
    name: "strict-with-plain-callers",
    severity: Severity::Warning,
    needs: &[Kind::Pod],
    istio_code: None,
    summary: "A server accepts only mTLS, and pods that are expected to call it have no proxy",
    docs: "\
## What it looks for
A gRPC port that a PeerAuthentication makes strict, and callers without a proxy: pods of the same namespace, or of a
namespace that a VirtualService or an ALLOW policy of the Service names as a caller.

## Why it matters for gRPC
A pod without a proxy calls in plaintext. The server's proxy has no filter chain for plaintext and closes the
connection, so that every call of such a pod fails with UNAVAILABLE. The server logs at most a line of the listener
with the flag NR, and the caller logs nothing.

## Example
```yaml
kind: PeerAuthentication
metadata: {name: default, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
kind: Deployment            # without a sidecar, in the same namespace
metadata: {name: batch, namespace: shop}
```

## Fix
Add a sidecar to the callers, or accept plaintext until they have one:
```yaml
spec: {mtls: {mode: PERMISSIVE}}
```

## References
- Istio source: `pilot/pkg/networking/core/filterchain_options.go`.
",
    check,
};

/// Servers behind one PeerAuthentication, with their callers.
#[derive(Default)]
struct StrictServers<'m> {
    services: BTreeSet<&'m ObjectRef>,
    callers: BTreeSet<(&'m Namespace, String)>,
    evidence: BTreeSet<String>,
}

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let sets_strict = mesh.security_policies.peer_authentications().any(|policy| {
        policy.mode == Some(MtlsMode::Strict) || policy.ports.values().any(|mode| *mode == MtlsMode::Strict)
    });
    if !sets_strict {
        return;
    }
    let plain: BTreeMap<&Namespace, Vec<&Workload>> = callers_without_proxy(mesh);
    if plain.is_empty() {
        return;
    }
    let mut by_policy: BTreeMap<ObjectRef, StrictServers<'_>> = BTreeMap::new();
    for service in mesh.services.iter().filter(|service| service.has_grpc_evidence()) {
        let Some(policy) = strict_policy(mesh, service) else { continue };
        for (namespace, reason) in caller_namespaces(mesh, service) {
            let Some((namespace, callers)) = plain.get_key_value(&namespace) else { continue };
            let is_own =
                |caller: &&&Workload| !service.selector.is_empty() && caller.labels.contains_all(&service.selector);
            let others: Vec<_> = callers.iter().filter(|caller| !is_own(caller)).collect();
            if others.is_empty() {
                continue;
            }
            let servers = by_policy.entry(policy.clone()).or_default();
            servers.services.insert(&service.object);
            servers.callers.extend(others.iter().map(|caller| (*namespace, caller.title())));
            servers.evidence.insert(format!("{}: {reason}", service.object));
        }
    }
    for (policy, servers) in by_policy {
        report(&policy, &servers, out);
    }
}

/// Pods that run and make calls without a proxy, by namespace. Pods of the control plane do not call Services of others.
fn callers_without_proxy<'m>(mesh: &'m Mesh<'_>) -> BTreeMap<&'m Namespace, Vec<&'m Workload>> {
    let mut callers: BTreeMap<&Namespace, Vec<&Workload>> = BTreeMap::new();
    for workload in &mesh.workloads {
        let is_control_plane = *workload.namespace() == mesh.root_namespace;
        if matches!(workload.proxy, ProxyKind::None(_)) && !is_control_plane {
            callers.entry(workload.namespace()).or_default().push(workload);
        }
    }
    callers
}

/// The PeerAuthentication that makes some gRPC port of a Service strict.
fn strict_policy(mesh: &Mesh<'_>, service: &Service) -> Option<ObjectRef> {
    let ports = service.ports.iter().filter(|port| !port.evidence.is_empty());
    let mut servers = ports.flat_map(|port| {
        let ids = service.workloads.iter();
        ids.filter_map(move |id| Some((*id, port.target.number_in(mesh.workload(*id))?)))
    });
    servers.find_map(|(id, number)| match mesh.server_side(id, number) {
        ServerSide::Proxy { mode: MtlsMode::Strict, decided_by, .. } => decided_by,
        ServerSide::Proxy { .. } | ServerSide::Application { .. } | ServerSide::GrpcLibrary => None,
    })
}

/// The namespaces whose pods are expected to call a Service, each with the reason.
fn caller_namespaces(mesh: &Mesh<'_>, service: &Service) -> BTreeMap<Namespace, String> {
    let mut namespaces = BTreeMap::from([(service.namespace().clone(), "in its own namespace".to_owned())]);
    for object in mesh.virtual_services.covering(&service.host) {
        let matches = object.spec.http.iter().flat_map(|rule| &rule.matches);
        for name in
            matches.filter_map(|condition| condition.source_namespace.as_deref()).filter(|name| !name.is_empty())
        {
            namespaces.entry(name.into()).or_insert_with(|| format!("{} has a rule for {name}", object.object));
        }
    }
    for workload in mesh.workloads_of(service) {
        let policies = mesh.security_policies.authorization_policies(workload, &mesh.root_namespace);
        for policy in policies.filter(|policy| policy.action == Some(PolicyAction::Allow)) {
            let conditions = policy.rules().flat_map(|(_, rule)| rule.conditions());
            let named = conditions.filter(|condition| condition.attribute == PolicyAttribute::SourceNamespace);
            for name in named.flat_map(|condition| &condition.values).filter(|name| !name.contains('*')) {
                namespaces
                    .entry(name.as_str().into())
                    .or_insert_with(|| format!("{} allows namespace {name}", policy.object));
            }
        }
    }
    namespaces
}

fn report(policy: &ObjectRef, servers: &StrictServers<'_>, out: &mut Findings<'_>) {
    let titles: Vec<String> =
        servers.callers.iter().map(|(namespace, title)| format!("{title} in namespace {namespace}")).collect();
    let services = abbreviate(servers.services.iter().map(|service| service.path()), 3);
    let namespaces: BTreeSet<&Namespace> = servers.callers.iter().map(|(namespace, _)| *namespace).collect();
    let finding = Finding::new(&RULE, policy, "spec.mtls.mode")
        .message(format!("{services} accept only mTLS, and callers have no proxy: {}", abbreviate(&titles, 3)))
        .impact(
            "calls of pods without a proxy are in plaintext: the server's proxy closes the connection (UNAVAILABLE)",
        )
        .callers(namespaces.iter())
        .evidence(servers.evidence.iter().take(4))
        .fix("add a sidecar to the callers, or set\nspec:\n  mtls: {mode: PERMISSIVE}")
        .depends_on(namespaces);
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, pod, policy, service};

    fn plain_pod(namespace: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: batch, namespace: {namespace}, labels: {{app: batch}}}}\n\
             spec: {{containers: [{{name: app, image: i}}]}}\n\
             status: {{phase: Running, conditions: [{{type: Ready, status: 'True'}}]}}\n"
        )
    }

    fn mesh(mode: &str) -> String {
        service("a", "{name: grpc, port: 50051}")
            + &pod("a", "v1")
            + &policy("PeerAuthentication", "default", &format!("{{mtls: {{mode: {mode}}}}}"))
    }

    #[test]
    fn reports_pods_of_the_namespace_and_of_namespaces_that_a_policy_allows() {
        let expected = &["warning PeerAuthentication shop/default spec.mtls.mode"];
        assert_findings(&RULE, &(mesh("STRICT") + &plain_pod("shop")), expected);
        assert_undecided_on_gap(&RULE, &(mesh("STRICT") + &plain_pod("shop")));
        let allow = policy("AuthorizationPolicy", "p", "{rules: [{from: [{source: {namespaces: [jobs]}}]}]}");
        assert_findings(&RULE, &(mesh("STRICT") + &plain_pod("jobs") + &allow), expected);
    }

    #[test]
    fn is_silent_without_plain_callers_or_strict_mode() {
        assert_findings(&RULE, &mesh("STRICT"), &[]);
        assert_findings(&RULE, &(mesh("PERMISSIVE") + &plain_pod("shop")), &[]);
        // Nothing suggests that pods elsewhere call the Service.
        assert_findings(&RULE, &(mesh("STRICT") + &plain_pod("elsewhere")), &[]);
    }
}
