//! What `route` answers for callers in ambient mode, and for other callers of Services with a waypoint.

mod support;

use serde_json::Value;
use support::TestEnv;

const MESH: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}
---
apiVersion: v1
kind: Service
metadata: {name: checkout, namespace: shop}
spec: {selector: {app: checkout}, clusterIP: 10.0.0.1, ports: [{name: grpc, port: 50051}]}
---
apiVersion: v1
kind: Pod
metadata: {name: checkout-1, namespace: shop, labels: {app: checkout, version: v1}}
spec: {containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: app, image: x}]}
status: {phase: Running, podIP: 10.1.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: web, labels: {app: web}}
spec: {containers: [{name: app, image: x}, {name: istio-proxy, image: 'istio/proxyv2:1.31.0', args: [proxy, sidecar]}]}
status: {phase: Running, podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: web}
spec: {selector: {app: ingress}, clusterIP: 10.0.0.2, ports: [{name: http2, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-1, namespace: web, labels: {app: ingress}}
spec: {containers: [{name: istio-proxy, image: 'istio/proxyv2:1.31.0', args: [proxy, router]}]}
status: {phase: Running, podIP: 10.1.0.4, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: public, namespace: web}
spec: {selector: {app: ingress}, servers: [{port: {number: 80, name: http2, protocol: HTTP2}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: checkout, namespace: shop}
spec:
  hosts: [checkout, checkout.example.com]
  gateways: [mesh, web/public]
  http:
  - fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 100}}}
    retries: {attempts: 5}
    route: [{destination: {host: checkout}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: checkout, namespace: shop}
spec: {host: checkout, trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}}
";

const WAYPOINT: &str = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
";

fn answer(mesh: &str, host: &str, caller: &str) -> Value {
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", mesh);
    let run = env.run(&["route", host, "/a.B/C", "--from", &file, "--caller", caller, "-o", "json"]);
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}"))
}

fn not_modelled(answer: &Value) -> String {
    answer["not_modelled"].as_array().unwrap().iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n")
}

fn with_waypoint(labels: &str) -> String {
    let labels = format!("istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint{labels}");
    MESH.replace("istio.io/dataplane-mode: ambient", &labels) + WAYPOINT
}

#[test]
fn an_ambient_caller_without_a_waypoint_gets_one_pod_for_each_connection() {
    let answer = answer(MESH, "checkout.shop:50051", "shop/cart-1");
    assert_eq!(answer["outcome"], "tcp");
    assert_eq!(answer["backends"][0]["cluster"], "checkout.shop.svc.cluster.local:50051");
    // Neither the rule nor the DestinationRule acts.
    for part in ["rule", "retries", "fault", "timeout_ms", "virtual_host"] {
        assert_eq!(answer[part], Value::Null, "{part}");
    }
    assert_eq!(answer["backends"][0]["connection_pool"], Value::Null);
    assert_eq!(answer["client_sees"], Value::Array(Vec::new()));
    assert_eq!(not_modelled(&answer), "");
}

#[test]
fn an_ambient_caller_reaches_only_ports_and_pods_that_exist() {
    let without_pods = MESH.replace("labels: {app: checkout, version: v1}", "labels: {app: other}");
    let failing = answer(&without_pods, "checkout.shop:50051", "shop/cart-1");
    assert_eq!(failing["client_sees"][0]["reason"], "no-endpoints", "{failing}");
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", MESH);
    let run = env.run(&["route", "checkout.shop:1", "--from", &file, "--caller", "shop/cart-1"]);
    assert_eq!(run.code(), 3, "{run}");
}

#[test]
fn a_waypoint_in_the_path_is_named() {
    let mesh = with_waypoint("");
    let ambient = answer(&mesh, "checkout.shop:50051", "shop/cart-1");
    assert!(ambient["message"].as_str().unwrap().contains("the waypoint shop/waypoint"), "{ambient}");
    assert!(not_modelled(&ambient).contains("the waypoint shop/waypoint handles calls"), "{ambient}");
    // Sidecars connect to the pods.
    let sidecar = answer(&mesh, "checkout.shop:50051", "web/web-1");
    assert_eq!(sidecar["rule"]["name"], "checkout");
    assert!(not_modelled(&sidecar).contains("the caller does not use the waypoint shop/waypoint"), "{sidecar}");
    // Gateways use it only where a label says so.
    let gateway = |mesh: &str| not_modelled(&answer(mesh, "checkout.example.com:80", "gateway/web/ingress-1"));
    assert!(gateway(&mesh).contains("the gateway does not use the waypoint"), "{}", gateway(&mesh));
    let opted_in = with_waypoint(", istio.io/ingress-use-waypoint: 'true'");
    assert!(gateway(&opted_in).contains("handles calls to checkout.shop.svc.cluster.local after the gateway"));
}

#[test]
fn a_waypoint_that_does_not_exist_changes_nothing_and_is_a_finding() {
    let mesh = with_waypoint("").replace(WAYPOINT, "");
    let ambient = answer(&mesh, "checkout.shop:50051", "shop/cart-1");
    assert_eq!(not_modelled(&ambient), "");
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", mesh);
    let run = env.run(&["inspect", "--from", &file]);
    assert!(run.code() == 1 && run.stdout.contains("error[GM719]"), "{run}");
}

#[test]
fn ambient_callers_are_a_class_of_their_own() {
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", MESH);
    let run = env.run(&["route", "checkout.shop:50051", "/a.B/C", "--from", &file]);
    assert!(run.stdout.contains("caller        shop (ambient)"), "{run}");
    assert!(run.stdout.contains("caller        web"), "{run}");
}
