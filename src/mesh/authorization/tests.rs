//! Decisions about single requests: facts about istiod and Envoy that surprise.

use std::sync::Arc;

use serde_json::json;

use super::AuthorizationVerdict::{Allowed, Denied, None as NoPolicy, Undecided};
use super::request::{HttpRequest, Known, PeerIdentity, ServerRequest, SpiffeIdentity};
use super::{AuthorizationDecision, AuthorizationPolicy, AuthorizationVerdict, PolicySet};
use crate::mesh::ids::ObjectRef;
use crate::schema::Kind;
use crate::schema::security::AuthorizationPolicySpec;

fn policy(namespace: &str, name: &str, spec: serde_json::Value) -> AuthorizationPolicy {
    let object = ObjectRef { kind: Kind::AuthorizationPolicy, namespace: namespace.into(), name: Arc::from(name) };
    let dry_run = spec["dryRun"].as_bool().unwrap_or_default();
    let spec: AuthorizationPolicySpec = serde_json::from_value(spec).unwrap();
    AuthorizationPolicy::new(object, None, dry_run.then_some("true"), &spec)
}

fn domains() -> Vec<String> {
    vec!["cluster.local".to_owned()]
}

/// A call of `web/frontend` to `/shop.Cart/Get`, over mTLS.
fn request(domains: &[String]) -> ServerRequest<'_> {
    ServerRequest {
        peer: PeerIdentity::Spiffe(SpiffeIdentity {
            trust_domain: domains[0].clone(),
            namespace: "web".to_owned(),
            service_account: Some("frontend".to_owned()),
        }),
        trust_domains: domains,
        source_ip: Known::Is([10, 0, 0, 1].into()),
        remote_ip: Known::Is([192, 0, 2, 9].into()),
        destination_ip: Known::Is([10, 0, 0, 2].into()),
        port: 50051,
        server_name: Known::Is("outbound_.80_._.cart.shop.svc.cluster.local".to_owned()),
        http: Some(HttpRequest {
            authorities: vec!["cart.shop:80".to_owned()],
            path: "/shop.Cart/Get?x=1".to_owned(),
            headers: vec![(":method".to_owned(), "POST".to_owned()), ("x-role".to_owned(), "admin".to_owned())],
            may_have_other_headers: false,
        }),
        reads_tokens: false,
    }
}

fn decide(policies: &[AuthorizationPolicy], request: &ServerRequest<'_>) -> AuthorizationDecision {
    let providers = [("ext".to_owned(), false)];
    PolicySet::new(policies.iter().collect(), &providers).decide(request)
}

/// The verdict of one ALLOW policy of namespace `shop` with a single rule.
#[track_caller]
fn assert_rule(rule: serde_json::Value, expected: AuthorizationVerdict) {
    let domains = domains();
    let decision = decide(&[policy("shop", "p", json!({ "rules": [rule.clone()] }))], &request(&domains));
    assert_eq!(decision.verdict, expected, "{rule}: {}", decision.reason);
}

#[test]
fn identities_match_as_istiod_writes_them() {
    let source = |field: &str, value: &str| json!({"from": [{"source": {field: [value]}}]});
    for (field, value, expected) in [
        ("principals", "cluster.local/ns/web/sa/frontend", Allowed),
        ("principals", "spiffe://cluster.local/ns/web/sa/frontend", Denied),
        ("principals", "*/sa/frontend", Allowed),
        ("principals", "cluster.local/ns/web/*", Allowed),
        ("principals", "other.domain/ns/web/sa/frontend", Denied),
        ("principals", "*", Allowed),
        ("namespaces", "web", Allowed),
        ("namespaces", "we*", Allowed),
        ("namespaces", "we", Denied),
        // The namespace of the policy applies to a name without one.
        ("serviceAccounts", "frontend", Denied),
        ("serviceAccounts", "web/frontend", Allowed),
        ("trustDomains", "cluster.local", Allowed),
        ("notPrincipals", "cluster.local/ns/web/sa/frontend", Denied),
        ("ipBlocks", "10.0.0.0/8", Allowed),
        ("remoteIpBlocks", "10.0.0.0/8", Denied),
        ("requestPrincipals", "*", Denied),
        ("notRequestPrincipals", "*", Allowed),
    ] {
        assert_rule(source(field, value), expected);
    }
}

#[test]
fn callers_without_identity_meet_excluded_identities() {
    let domains = domains();
    let plain = ServerRequest { peer: PeerIdentity::None, ..request(&domains) };
    let rule = |field: &str| json!({"rules": [{"from": [{"source": {field: ["web", "x/y"]}}]}]});
    for (field, expected) in
        [("notNamespaces", Allowed), ("notPrincipals", Allowed), ("namespaces", Denied), ("principals", Denied)]
    {
        assert_eq!(decide(&[policy("shop", "p", rule(field))], &plain).verdict, expected, "{field}");
    }
}

#[test]
fn operations_match_the_port_of_the_pod_and_the_whole_authority() {
    let operation = |field: &str, value: &str| json!({"to": [{"operation": {field: [value]}}]});
    for (field, value, expected) in [
        ("ports", "50051", Allowed),
        ("ports", "80", Denied),
        ("hosts", "cart.shop", Denied),
        ("hosts", "CART.shop:80", Allowed),
        ("hosts", "cart.*", Allowed),
        ("paths", "/shop.Cart/Get", Allowed),
        ("paths", "/shop.Cart/{*}", Allowed),
        ("methods", "post", Denied),
        ("notPaths", "/shop.Cart/*", Denied),
    ] {
        assert_rule(operation(field, value), expected);
    }
    let when = |key: &str, field: &str, value: &str| json!({"when": [{"key": key, field: [value]}]});
    assert_rule(when("request.headers[x-role]", "values", "adm*"), Allowed);
    assert_rule(when("request.headers[x-tenant]", "notValues", "acme"), Allowed);
    assert_rule(when("request.headers[x-tenant]", "values", "acme"), Denied);
    assert_rule(when("connection.sni", "values", "*cart.shop.svc.cluster.local"), Allowed);
    assert_rule(when("destination.port", "values", "50051"), Allowed);
    // istiod skips a rule with an unknown key.
    assert_rule(when("source.unknown", "values", "x"), Denied);
}

#[test]
fn envoy_reports_the_first_rule_in_text_order() {
    let domains = domains();
    let mut rules = vec![json!({"to": [{"operation": {"paths": ["/none"]}}]}); 11];
    rules[2] = json!({});
    rules[10] = json!({});
    let deny = policy("shop", "p", json!({"action": "DENY", "rules": rules}));
    let decision = decide(&[deny], &request(&domains));
    assert_eq!(decision.rule.map(|(_, index)| index), Some(10));
}

#[test]
fn audit_and_dry_runs_decide_nothing() {
    let domains = domains();
    let audit = policy("shop", "a", json!({"action": "AUDIT", "rules": [{}]}));
    let dry_run = policy("shop", "d", json!({"dryRun": true, "action": "DENY", "rules": [{}]}));
    assert_eq!(decide(&[audit, dry_run], &request(&domains)).verdict, NoPolicy);
    let nothing = policy("shop", "n", json!({}));
    assert_eq!(decide(&[nothing], &request(&domains)).verdict, Denied);
}

#[test]
fn a_tcp_chain_drops_allow_rules_and_widens_deny_rules() {
    let domains = domains();
    let tcp = ServerRequest { http: None, ..request(&domains) };
    let rules = json!([{"to": [{"operation": {"paths": ["/other"]}}, {"operation": {"ports": ["50051"]}}]}]);
    let allow = policy("shop", "p", json!({ "rules": rules }));
    assert_eq!(decide(&[allow], &tcp).verdict, Denied);
    let deny = policy("shop", "p", json!({"action": "DENY", "rules": rules}));
    assert_eq!(decide(&[deny], &tcp).verdict, Denied);
    let other_port = json!([{"to": [{"operation": {"paths": ["/other"], "ports": ["80"]}}]}]);
    let deny = policy("shop", "p", json!({"action": "DENY", "rules": other_port}));
    assert_eq!(decide(&[deny], &tcp).verdict, Allowed);
}

#[test]
fn tokens_and_authorizers_leave_calls_undecided() {
    let domains = domains();
    let with_tokens = ServerRequest { reads_tokens: true, ..request(&domains) };
    let claims = json!({"rules": [{"when": [{"key": "request.auth.claims[iss]", "values": ["x"]}]}]});
    assert_eq!(decide(&[policy("shop", "p", claims.clone())], &with_tokens).verdict, Undecided);
    // Without a RequestAuthentication, no claim has a value.
    assert_eq!(decide(&[policy("shop", "p", claims)], &request(&domains)).verdict, Denied);
    let custom =
        |name: &str| policy("shop", "c", json!({"action": "CUSTOM", "provider": {"name": name}, "rules": [{}]}));
    assert_eq!(decide(&[custom("ext")], &request(&domains)).verdict, Undecided);
    assert_eq!(decide(&[custom("missing")], &request(&domains)).verdict, Denied);
    // An HTTP authorizer is left out of TCP chains.
    let tcp = ServerRequest { http: None, ..request(&domains) };
    assert_eq!(decide(&[custom("ext")], &tcp).verdict, Allowed);
    // A denial does not wait for the authorizer.
    let deny = policy("shop", "d", json!({"action": "DENY", "rules": [{}]}));
    assert_eq!(decide(&[custom("ext"), deny], &request(&domains)).verdict, Denied);
}

#[test]
fn an_unknown_service_account_is_undecided_only_where_it_matters() {
    let domains = domains();
    let peer = PeerIdentity::Spiffe(SpiffeIdentity {
        trust_domain: "cluster.local".to_owned(),
        namespace: "web".to_owned(),
        service_account: None,
    });
    let request = ServerRequest { peer, ..request(&domains) };
    let source = |field: &str, value: &str| json!({"rules": [{"from": [{"source": {field: [value]}}]}]});
    for (field, value, expected) in [
        ("namespaces", "web", Allowed),
        ("principals", "cluster.local/ns/web/*", Allowed),
        ("principals", "cluster.local/ns/web/sa/frontend", Undecided),
        ("principals", "cluster.local/ns/other/sa/frontend", Denied),
        ("principals", "*/sa/frontend", Undecided),
        ("principals", "*/ns/other/sa/frontend", Denied),
        ("serviceAccounts", "web/frontend", Undecided),
        ("serviceAccounts", "other/frontend", Denied),
    ] {
        let decision = decide(&[policy("shop", "p", source(field, value))], &request);
        assert_eq!(decision.verdict, expected, "{field} {value}: {}", decision.reason);
    }
}

#[test]
fn cluster_local_stands_for_the_trust_domain_of_the_mesh() {
    let domains = vec!["td1.example".to_owned(), "td2.example".to_owned()];
    let request = request(&domains);
    let source = |value: &str| json!({"rules": [{"from": [{"source": {"principals": [value]}}]}]});
    for (value, expected) in [
        ("cluster.local/ns/web/sa/frontend", Allowed),
        ("td2.example/ns/web/sa/frontend", Allowed),
        // Only a principal with five parts is rewritten.
        ("cluster.local/ns/web/*", Denied),
        ("other.example/ns/web/sa/frontend", Denied),
    ] {
        assert_eq!(decide(&[policy("shop", "p", source(value))], &request).verdict, expected, "{value}");
    }
}
