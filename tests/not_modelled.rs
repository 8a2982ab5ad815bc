//! Answers name what acts on the call and is not modelled, and routes name the listeners that do not accept them.

mod support;

use serde_json::Value;
use support::TestEnv;

const MESH: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, clusterIP: 10.0.0.1, ports: [{name: grpc, port: 50051}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: app, image: x}, {name: istio-proxy, image: x, args: [proxy, sidecar]}]}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: web, labels: {app: web}}
spec: {containers: [{name: app, image: x}, {name: istio-proxy, image: x, args: [proxy, sidecar]}]}
status: {phase: Running, podIP: 10.1.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: web}
spec: {selector: {app: ingress}, clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-1, namespace: web, labels: {app: ingress, gateway.networking.k8s.io/gateway-name: edge}}
spec: {containers: [{name: istio-proxy, image: x, args: [proxy, router], ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}
";

/// `not_modelled` of a call to the cart.
fn notes(objects: &str, host: &str, caller: &str) -> String {
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", format!("{MESH}---\n{objects}"));
    let run = env.run(&["route", host, "/a.B/C", "--from", &file, "--caller", caller, "-o", "json"]);
    let answer: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    answer["not_modelled"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

fn from_web(objects: &str) -> String {
    notes(objects, "cart.shop:50051", "web/web-1")
}

#[test]
fn fields_that_the_model_does_not_read_are_named() {
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\nspec: \
                {host: cart, trafficPolicy: {tunnel: {targetHost: a, targetPort: 1}}}\n";
    assert!(from_web(rule).contains("spec.trafficPolicy.tunnel of DestinationRule shop/cart"), "{}", from_web(rule));
    // A rule for another host does not act on the call.
    assert_eq!(from_web(&rule.replace("host: cart", "host: other")), "");
    let sidecar = |namespace: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {{name: own, namespace: {namespace}}}\nspec: \
             {{ingress: [{{port: {{number: 50051, protocol: GRPC, name: grpc}}, defaultEndpoint: '127.0.0.1:1'}}]}}\n"
        )
    };
    assert!(from_web(&sidecar("shop")).contains("spec.ingress of Sidecar shop/own"), "{}", from_web(&sidecar("shop")));
    assert_eq!(from_web(&sidecar("other")), "");
}

#[test]
fn only_the_rule_that_matches_counts() {
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\nspec:\n  \
                 hosts: [cart]\n  http:\n  - match: [{uri: {prefix: /x.Y/}}]\n    retries: {attempts: 1, \
                 retryIgnorePreviousHosts: false}\n    route: [{destination: {host: cart}}]\n  - route: [{destination: \
                 {host: cart}}]\n";
    assert_eq!(from_web(route), "");
    let first = route.replace("/x.Y/", "/a.B/");
    assert!(from_web(&first).contains("spec.http[0].retries.retryIgnorePreviousHosts"), "{}", from_web(&first));
}

#[test]
fn objects_of_kinds_that_are_not_modelled_are_named() {
    let extension = |scope: &str| {
        format!(
            "apiVersion: extensions.istio.io/v1alpha1\nkind: TrafficExtension\nmetadata: {{name: x, namespace: web}}\nspec: \
             {{{scope}wasm: {{url: 'oci://x'}}}}\n"
        )
    };
    assert!(from_web(&extension("")).contains("TrafficExtension web/x acts on the caller's proxy"));
    assert_eq!(from_web(&extension("selector: {matchLabels: {app: other}}, ")), "");
    // One that is attached to a Gateway applies to its pods only.
    let attached = extension("targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}], ");
    assert_eq!(from_web(&attached), "");
    let policy = "apiVersion: gateway.networking.x-k8s.io/v1alpha1\nkind: XBackendTrafficPolicy\nmetadata: {name: p, \
                  namespace: shop}\nspec: {targetRefs: [{group: '', kind: Service, name: cart}], retryConstraint: \
                  {budget: {percent: 10}}}\n";
    assert!(from_web(policy).contains("XBackendTrafficPolicy shop/p acts on calls to Service shop/cart"));
    assert_eq!(from_web(&policy.replace("name: cart", "name: other")), "");
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\nspec: \
                 {parentRefs: [{group: '', kind: Service, name: cart}], rules: [{backendRefs: [{group: \
                 inference.networking.k8s.io, kind: InferencePool, name: pool}]}]}\n";
    assert!(from_web(route).contains("InferencePool pool"), "{}", from_web(route));
}

/// A Gateway with a listener, a ListenerSet with another, and a route that attaches to the ListenerSet.
fn listener_set(allowed: &str, listener: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: web}}\nspec: \
         {{gatewayClassName: istio, addresses: [{{type: Hostname, value: ingress}}], {allowed}listeners: [{{name: own, \
         port: 80, protocol: HTTP, hostname: own.example.com}}]}}\n---\n\
         apiVersion: v1\nkind: Namespace\nmetadata: {{name: shop, labels: {{team: a}}}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: ListenerSet\nmetadata: {{name: extra, namespace: shop}}\nspec: \
         {{parentRef: {{name: edge, namespace: web}}, listeners: [{listener}]}}\n---\n\
         apiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\nmetadata: {{name: cart, namespace: shop}}\nspec: \
         {{parentRefs: [{{kind: ListenerSet, name: extra}}], rules: [{{backendRefs: [{{name: cart, port: 50051}}]}}]}}\n"
    )
}

/// The message of GM218, or an empty text.
fn rejection(objects: &str) -> String {
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", format!("{MESH}---\n{objects}"));
    let run = env.run(&["inspect", "-A", "--from", &file, "--only", "GM218", "-o", "json"]);
    let report: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
    report["findings"][0]["message"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn routes_to_a_listener_set_that_no_gateway_has_are_reported() {
    const ALL: &str = "allowedListeners: {namespaces: {from: All}}, ";
    const EXTRA: &str = "{name: extra, port: 80, protocol: HTTP, hostname: extra.example.com}";
    assert_eq!(rejection(&listener_set(ALL, EXTRA)), "");
    let selected = "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {team: a}}}}, ";
    assert_eq!(rejection(&listener_set(selected, EXTRA)), "");
    for (allowed, listener, reason) in [
        ("", EXTRA, "allowedListeners"),
        ("allowedListeners: {namespaces: {from: Same}}, ", EXTRA, "allowedListeners"),
        // The host of the Gateway's own listener on the same port, under this protocol and another.
        (ALL, "{name: extra, port: 80, protocol: HTTP, hostname: own.example.com}", "conflicts"),
        (ALL, "{name: extra, port: 80, protocol: TCP}", "conflicts"),
    ] {
        let message = rejection(&listener_set(allowed, listener));
        assert!(message.contains(reason), "{allowed}{listener}: {message}");
    }
    let missing = listener_set(ALL, EXTRA).replace("name: edge, namespace: web}, listeners", "name: gone}, listeners");
    assert!(rejection(&missing).contains("does not exist"), "{}", rejection(&missing));
}

#[test]
fn a_backend_tls_policy_merges_with_the_settings_of_a_port() {
    let objects = |tls: &str, section: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: cart, namespace: \
             shop}}\nspec: {{targetRefs: [{{group: '', kind: Service, name: cart{section}}}], validation: {{hostname: \
             cart.example.com, wellKnownCACertificates: System}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: shop}}\nspec: \
             {{host: cart, trafficPolicy: {{portLevelSettings: [{{port: {{number: 50051}}, loadBalancer: {{simple: \
             RANDOM}}{tls}}}]}}}}\n"
        )
    };
    let tls = |objects: &str| {
        let env = TestEnv::new();
        let file = env.write("mesh.yaml", format!("{MESH}---\n{objects}"));
        let run =
            env.run(&["route", "cart.shop:50051", "/a.B/C", "--from", &file, "--caller", "web/web-1", "-o", "json"]);
        let answer: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"));
        answer["backends"][0]["tls"].clone()
    };
    // Settings of a port replace those of all ports, so the policy has to name the port.
    assert_eq!(tls(&objects("", "")), "auto");
    assert_eq!(tls(&objects("", ", sectionName: grpc")), "tls");
    assert_eq!(tls(&objects(", tls: {mode: DISABLE}", ", sectionName: grpc")), "plain");
}
