//! Surprising behavior of istiod and Envoy, one case each. Every case was verified by feeding it to istiod's own code
//! (1.31) and replaying the route selection in Envoy 1.39. Numbers in titles group related cases.

mod support;

use serde_json::{Value, json};
use support::TestEnv;

const CART: &str = "cart.shop:8080";

/// One behavior: objects added to [`base`], a call, and the expected values in the report, by JSON pointer.
struct Case {
    title: &'static str,
    mesh: String,
    call: Value,
    expected: Vec<(&'static str, Value)>,
}

fn case(title: &'static str, mesh: impl Into<String>, call: Value, expected: &[(&'static str, Value)]) -> Case {
    Case { title, mesh: mesh.into(), call, expected: expected.to_vec() }
}

fn service(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{namespace: {namespace}, name: {name}}}\nspec: {{selector: {{app: {name}}}, {spec}}}\n"
    )
}

fn pod(namespace: &str, name: &str, ip: &str, args: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{namespace: {namespace}, name: {name}, labels: {{app: {name}, version: v1}}}}\n\
         spec: {{containers: [{{name: istio-proxy, image: 'proxyv2:1.31.0', args: [proxy, {args}]}}]}}\n\
         status: {{phase: Running, podIP: {ip}, conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

/// An Istio object. A higher `age` means a later creation time.
fn istio_object(kind: &str, namespace: &str, name: &str, age: u8, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: {kind}\n\
         metadata: {{namespace: {namespace}, name: {name}, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}\nspec: {{{spec}}}\n"
    )
}

fn grpc_route(namespace: &str, age: u8, parent: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GRPCRoute\n\
         metadata: {{namespace: {namespace}, name: g, creationTimestamp: '2026-01-0{age}T00:00:00Z'}}\n\
         spec: {{parentRefs: [{{group: '', kind: Service, namespace: shop, {parent}}}], rules: [{rules}]}}\n"
    )
}

/// A VirtualService for `cart` with these rules.
fn virtual_service(rules: &str) -> String {
    istio_object("VirtualService", "shop", "r", 1, &format!("hosts: [cart], http: [{rules}]"))
}

/// A route with one destination.
fn route_to(host: &str) -> String {
    format!("route: [{{destination: {{host: {host}}}}}]")
}

/// Services `cart` and `ledger` in `shop`, callers in `web` and `shop`, and a gateway in `edge` on port 80.
fn base() -> String {
    service("shop", "cart", "clusterIP: 10.96.0.1, ports: [{name: grpc, port: 8080}]")
        + &service("shop", "ledger", "clusterIP: 10.96.0.2, ports: [{name: grpc, port: 50051}]")
        + &service("edge", "gw", "clusterIP: 10.96.0.3, ports: [{name: http, port: 80, targetPort: 8080}]")
        + &pod("shop", "cart", "10.0.0.1", "sidecar")
        + &pod("shop", "ledger", "10.0.0.2", "sidecar")
        + &pod("web", "client", "10.0.0.3", "sidecar")
        + &pod("edge", "gw", "10.0.0.4", "router")
        + &istio_object(
            "Gateway",
            "edge",
            "gw",
            1,
            "selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]",
        )
}

/// A call from a pod in `web`.
fn call(authority: &str, path: &str) -> Value {
    json!({"caller": "web/client", "authority": authority, "path": path})
}

/// A call through the gateway.
fn gateway_call(path: &str) -> Value {
    json!({"caller": "gateway/edge/gw", "authority": "api.example.com", "port": 80, "path": path})
}

fn gateway_virtual_service(rules: &str) -> String {
    istio_object(
        "VirtualService",
        "shop",
        "api",
        1,
        &format!("hosts: [api.example.com], gateways: [edge/gw], http: [{rules}]"),
    )
}

#[track_caller]
fn check(cases: &[Case]) {
    let env = TestEnv::new();
    for (index, Case { title, mesh, call, expected }) in cases.iter().enumerate() {
        let stem = format!("{}-{index}", cases[0].title.chars().filter(|c| c.is_alphanumeric()).collect::<String>());
        let manifest = env.write(&format!("{stem}.yaml"), base() + mesh);
        let calls = env.write(&format!("{stem}.jsonl"), call.to_string());
        let report = env.run(&["route", "-o", "json", "--from", &manifest, "--calls", &calls]).json();
        for (pointer, expected) in expected {
            let actual = report.pointer(pointer).cloned().unwrap_or(Value::Null);
            assert_eq!(actual, *expected, "{title}: {pointer} of\n{report:#}");
        }
    }
}

const CLUSTER: &str = "/backends/0/cluster";
const STATE: &str = "/backends/0/state";
const OUTCOME: &str = "/outcome";
const RULE: &str = "/rule/name";
const INDEX: &str = "/rule/index";
const STATUS: &str = "/client_sees/0/grpc_status";

fn cluster(port: u16, host: &str) -> Value {
    json!(format!("outbound|{port}||{host}.svc.cluster.local"))
}

#[test]
fn resolves_destinations_and_their_weights() {
    check(&[
        case(
            "1: a destination without a port uses the dialed port",
            virtual_service(&format!("{{{}}}", route_to("ledger"))),
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "ledger.shop")), (STATE, json!("no-cluster")), (STATUS, json!("UNAVAILABLE"))],
        ),
        case(
            "1: at a gateway it uses the Service's only port",
            gateway_virtual_service(&format!("{{{}}}", route_to("ledger"))),
            gateway_call("/a.B/C"),
            &[(CLUSTER, cluster(50051, "ledger.shop")), (STATE, json!("ok"))],
        ),
        case(
            "2: a destination host with a dot is a full name",
            virtual_service(&format!("{{{}}}", route_to("cart.shop"))),
            call(CART, "/a.B/C"),
            &[(CLUSTER, json!("outbound|8080||cart.shop")), (STATE, json!("no-cluster"))],
        ),
        case(
            "2: hosts are case-insensitive",
            virtual_service(&format!("{{{}}}", route_to("cart"))).replace("hosts: [cart]", "hosts: [CART]"),
            call(CART, "/a.B/C"),
            &[(RULE, json!("r"))],
        ),
        case(
            "3: a single destination with weight 0 gets all calls",
            virtual_service("{route: [{destination: {host: cart}, weight: 0}]}"),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
        case(
            "3: Envoy rejects two destinations without any weight",
            virtual_service("{route: [{destination: {host: cart}}, {destination: {host: ledger}, weight: 0}]}"),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("rejected"))],
        ),
        case(
            "3: a missing weight is 0",
            virtual_service("{route: [{destination: {host: cart}, weight: 80}, {destination: {host: ledger}}]}"),
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "cart.shop")), ("/backends/1", Value::Null)],
        ),
        case(
            "4: a route to a missing subset stays",
            virtual_service("{route: [{destination: {host: cart, subset: v9}}]}"),
            call(CART, "/a.B/C"),
            &[(RULE, json!("r")), ("/client_sees/0/http_status", json!(503)), ("/client_sees/0/flag", json!("NC"))],
        ),
        case(
            "4: a missing backend of a GRPCRoute responds with 500",
            grpc_route("shop", 1, "name: cart, port: 8080", "{backendRefs: [{name: missing, port: 1}]}"),
            call(CART, "/a.B/C"),
            &[("/client_sees/0/http_status", json!(500)), (STATUS, json!("UNKNOWN"))],
        ),
        case(
            "5: VirtualServices do not chain",
            gateway_virtual_service(&format!("{{{}}}", route_to("cart")))
                + &virtual_service("{directResponse: {status: 503}}"),
            gateway_call("/a.B/C"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
    ]);
}

#[test]
fn sidecars_hide_only_direct_calls_and_aliases_use_their_targets_routes() {
    let data = service("data", "store", "clusterIP: 10.96.0.9, ports: [{name: grpc, port: 8080}]")
        + &pod("data", "store", "10.0.0.9", "sidecar");
    let narrow = istio_object("Sidecar", "web", "default", 1, "egress: [{hosts: [shop/*]}]");
    let to_data = virtual_service(&format!("{{{}}}", route_to("store.data.svc.cluster.local")));
    let alias = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: web, name: alias}\n\
                 spec: {type: ExternalName, externalName: cart.shop.svc.cluster.local, ports: [{name: grpc, port: 8080}]}\n";
    check(&[
        case(
            "6: a Sidecar does not hide the destinations of imported routes",
            data.clone() + &narrow + &to_data,
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "store.data")), (STATE, json!("ok"))],
        ),
        case(
            "6, 31: a Sidecar turns direct calls to hidden hosts into passthrough",
            data + &narrow,
            call("store.data:8080", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        case(
            "7: an alias uses its target's routes",
            alias.to_owned() + &virtual_service(&format!("{{{}}}", route_to("cart"))),
            call("alias.web:8080", "/a.B/C"),
            &[(RULE, json!("r")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
    ]);
}

#[test]
fn selects_the_route_object_that_owns_the_host() {
    let cart_object = |namespace: &str, name: &str, age, rest: &str| {
        istio_object("VirtualService", namespace, name, age, &format!("hosts: [cart.shop.svc.cluster.local], {rest}"))
    };
    let plain = |extra: &str| format!("{extra}http: [{{{}}}]", route_to("cart.shop.svc.cluster.local"));
    let route = grpc_route("shop", 9, "name: cart, port: 8080", "{backendRefs: [{name: cart, port: 8080}]}");
    let consumer =
        grpc_route("web", 1, "name: cart, port: 8080", "{backendRefs: [{name: cart, namespace: shop, port: 8080}]}");
    let shop_call = json!({"caller": "shop/ledger", "authority": CART, "path": "/a.B/C"});
    check(&[
        case(
            "8: a younger private object takes precedence over an older public one",
            cart_object("web", "own", 9, &plain("exportTo: [.], ")) + &cart_object("shop", "old", 1, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("own"))],
        ),
        case(
            "8: among objects of one visibility class the oldest owns the host",
            cart_object("shop", "young", 2, &plain("")) + &cart_object("shop", "old", 1, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("old"))],
        ),
        case(
            "9: an object without rules for the port leaves the host to the next",
            cart_object("shop", "old", 1, "http: [{match: [{port: 1}], redirect: {uri: /}}]")
                + &cart_object("shop", "next", 2, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("next"))],
        ),
        case(
            "9: an object whose rules do not match keeps the host",
            cart_object("shop", "old", 1, "http: [{match: [{uri: {exact: /x}}], redirect: {uri: /}}]")
                + &cart_object("shop", "next", 2, &plain("")),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("no-route")), (STATUS, json!("UNIMPLEMENTED"))],
        ),
        case(
            "10: an exact host takes precedence over a wildcard of any age",
            istio_object(
                "VirtualService",
                "shop",
                "wild",
                1,
                &format!("hosts: ['*.shop.svc.cluster.local'], {}", plain("")),
            ) + &cart_object("shop", "exact", 9, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("exact"))],
        ),
        case(
            "11: a Gateway API route takes precedence over older objects for callers in its own namespace",
            cart_object("shop", "old", 1, &plain("")) + &route,
            shop_call.clone(),
            &[("/rule/kind", json!("GRPCRoute"))],
        ),
        case(
            "11: for other callers the oldest object owns the host",
            cart_object("shop", "old", 1, &plain("")) + &route,
            call(CART, "/a.B/C"),
            &[("/rule/kind", json!("VirtualService"))],
        ),
        case(
            "12: a consumer route applies to callers in its own namespace",
            consumer.clone(),
            call(CART, "/a.B/C"),
            &[("/rule/kind", json!("GRPCRoute")), (STATE, json!("ok"))],
        ),
        case(
            "12: a consumer route does not apply to other callers",
            consumer,
            shop_call,
            &[("/rule", Value::Null), (OUTCOME, json!("forward"))],
        ),
        case(
            "13: a host with a dot that is not a full name has routes on port 80 only",
            virtual_service("{redirect: {uri: /}}").replace("hosts: [cart]", "hosts: [cart.shop]"),
            call(CART, "/a.B/C"),
            &[("/rule", Value::Null), (OUTCOME, json!("forward"))],
        ),
        case(
            "14: rules for gateways do not apply to sidecars",
            virtual_service("{redirect: {uri: /}}").replace("hosts:", "gateways: [edge/gw], hosts:"),
            call(CART, "/a.B/C"),
            &[("/rule", Value::Null), (OUTCOME, json!("forward"))],
        ),
    ]);
}

#[test]
fn selects_the_destination_rule_that_applies_to_the_caller() {
    let subset = "host: cart.shop.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]";
    let service_rule = istio_object("DestinationRule", "shop", "own", 1, subset);
    let client_rule =
        istio_object("DestinationRule", "web", "all", 1, "host: '*.svc.cluster.local', trafficPolicy: {}");
    let root_rule = istio_object(
        "DestinationRule",
        "istio-system",
        "all",
        1,
        "host: cart.shop.svc.cluster.local, trafficPolicy: {}",
    );
    let root_gateway = pod("istio-system", "ingress", "10.0.0.8", "router")
        + &istio_object(
            "Gateway",
            "istio-system",
            "ingress",
            1,
            "selector: {app: ingress}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]",
        )
        + &gateway_virtual_service("{route: [{destination: {host: cart, subset: v1}}]}")
            .replace("edge/gw", "istio-system/ingress");
    let root_gateway_call =
        json!({"caller": "gateway/istio-system/ingress", "authority": "api.example.com", "port": 80, "path": "/a.B/C"});
    let to_subset = virtual_service("{route: [{destination: {host: cart, subset: v1}}]}");
    check(&[
        case(
            "15: at gateways of the root namespace its public rules do not take precedence",
            service_rule.clone() + &root_rule + &root_gateway,
            root_gateway_call,
            &[(STATE, json!("ok")), ("/backends/0/destination_rule", json!("shop/own"))],
        ),
        case(
            "33: a rule in the client's namespace hides the subsets of the Service's own rule",
            service_rule.clone() + &client_rule + &to_subset,
            call(CART, "/a.B/C"),
            &[(STATE, json!("no-cluster"))],
        ),
        case(
            "33: the Service's own rule takes precedence over the root namespace's",
            service_rule + &root_rule + &to_subset,
            call(CART, "/a.B/C"),
            &[(STATE, json!("ok")), ("/backends/0/destination_rule", json!("shop/own"))],
        ),
    ]);
}

#[test]
fn evaluates_match_conditions_as_envoy_does() {
    let first_rule = |condition: &str| {
        virtual_service(&format!("{{match: [{condition}], {0}}}, {{name: rest, {0}}}", route_to("cart")))
    };
    let call_with_header = |name: &str, value: &str| json!({"caller": "web/client", "authority": CART, "path": "/a.B/C", "headers": {name: value}});
    let plain_call = call(CART, "/a.B/C");
    let rule_index = |index: u8| [(INDEX, json!(index))];
    let by_regex = r"{matches: [{method: {type: RegularExpression, service: 'a\..*', method: 'C|D'}}], backendRefs: [{name: cart, port: 8080}]}";
    let by_service = "{matches: [{method: {service: a.B}}], backendRefs: [{name: cart, port: 8080}]}";
    let two_ports =
        service("shop", "two", "clusterIP: 10.96.0.7, ports: [{name: grpc, port: 8080}, {name: grpc-b, port: 9090}]")
            + &pod("shop", "two", "10.0.0.7", "sidecar");
    check(&[
        case(
            "16: an exact authority does not match one with a port",
            first_rule("{authority: {exact: cart.shop}}"),
            plain_call.clone(),
            &rule_index(1),
        ),
        case(
            "16: an exact authority with the port matches",
            first_rule("{authority: {exact: 'cart.shop:8080'}}"),
            plain_call.clone(),
            &rule_index(0),
        ),
        case(
            "17: a regex must match the whole path",
            first_rule("{uri: {regex: '/a.B'}}"),
            plain_call.clone(),
            &rule_index(1),
        ),
        case(
            "17: the regex * matches any present header",
            first_rule("{headers: {x-env: {regex: '*'}}}"),
            call_with_header("x-env", ""),
            &rule_index(0),
        ),
        case(
            "17: an empty exact value does not match an absent header",
            first_rule("{headers: {x-env: {exact: ''}}}"),
            plain_call.clone(),
            &rule_index(1),
        ),
        case(
            "18: withoutHeaders with an exact value matches when the header is absent",
            first_rule("{withoutHeaders: {x-env: {exact: prod}}}"),
            plain_call.clone(),
            &rule_index(0),
        ),
        case(
            "18: withoutHeaders with .* never matches, since an absent header counts as empty",
            first_rule("{withoutHeaders: {x-env: {regex: '.*'}}}"),
            plain_call.clone(),
            &rule_index(1),
        ),
        case(
            "19: ignoreUriCase does not apply to a regex",
            first_rule("{ignoreUriCase: true, uri: {regex: '/A.B/C'}}"),
            plain_call.clone(),
            &rule_index(1),
        ),
        case(
            "19: ignoreUriCase applies to a prefix",
            first_rule("{ignoreUriCase: true, uri: {prefix: /A.B/}}"),
            plain_call.clone(),
            &rule_index(0),
        ),
        case("19: an empty match matches every call", first_rule("{}"), plain_call.clone(), &rule_index(0)),
        case(
            "20: istiod skips the matches after one that matches every call",
            first_rule("{uri: {prefix: /}}, {uri: {exact: /a.B/C}}"),
            plain_call.clone(),
            &[("/rule/match", json!(0))],
        ),
        case(
            "20: gateways in a match disable sourceLabels",
            first_rule("{gateways: [mesh], sourceLabels: {app: other}}"),
            plain_call.clone(),
            &rule_index(0),
        ),
        case(
            "21: at a gateway a match's port is the server's port",
            gateway_virtual_service(&format!("{{match: [{{port: 80}}], {0}}}, {{{0}}}", route_to("cart"))),
            gateway_call("/a.B/C"),
            &rule_index(0),
        ),
        case(
            "21: at a gateway a match's port is not the pod's port",
            gateway_virtual_service(&format!("{{match: [{{port: 8080}}], {0}}}, {{{0}}}", route_to("cart"))),
            gateway_call("/a.B/C"),
            &rule_index(1),
        ),
        case(
            "22: istiod adds no brackets around regexes of a GRPCRoute",
            grpc_route("shop", 1, "name: cart, port: 8080", by_regex),
            call(CART, "/a.B/D"),
            &[(OUTCOME, json!("no-route"))],
        ),
        case(
            "22: a prefix of a VirtualService matches parts of a path segment",
            first_rule("{uri: {prefix: /a.B}}"),
            call(CART, "/a.BX/C"),
            &rule_index(0),
        ),
        // Observed in the lab. The cause is `RouteWithKey.ResourceName` in istiod.
        case(
            "an HTTPRoute hides a GRPCRoute of the same name",
            grpc_route("shop", 1, "name: cart, port: 8080", by_service)
                + &grpc_route(
                    "shop",
                    2,
                    "name: cart, port: 8080",
                    "{matches: [{path: {type: Exact, value: /other.S/M}}], backendRefs: [{name: cart, port: 8080}]}",
                )
                .replace("kind: GRPCRoute", "kind: HTTPRoute"),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("no-route"))],
        ),
        case(
            "23: a GRPCRoute removes the default route",
            grpc_route("shop", 1, "name: cart, port: 8080", by_service),
            call(CART, "/other.S/M"),
            &[(OUTCOME, json!("no-route"))],
        ),
        case(
            "23: a GRPCRoute without a port removes the default route on all ports",
            two_ports + &grpc_route("shop", 1, "name: two", &by_service.replace("cart", "two")),
            call("two.shop:9090", "/other.S/M"),
            &[(OUTCOME, json!("no-route"))],
        ),
    ]);
}

#[test]
fn merges_retries_and_timeouts_with_istios_defaults() {
    let rule = |extra: &str| virtual_service(&format!("{{{extra}, {}}}", route_to("cart")));
    let plain_call = call(CART, "/a.B/C");
    let default_conditions =
        json!(["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"]);
    let no_retries = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: istio-system, name: istio}\ndata: {mesh: 'defaultHttpRetryPolicy: {attempts: 0}'}\n";
    check(&[
        case(
            "24: Istio retries twice by default",
            "",
            plain_call.clone(),
            &[("/retries/attempts", json!(2)), ("/retries/retry_on", default_conditions.clone())],
        ),
        case(
            "24: attempts alone keep the default conditions",
            rule("retries: {attempts: 3}"),
            plain_call.clone(),
            &[("/retries/attempts", json!(3)), ("/retries/retry_on", default_conditions)],
        ),
        case(
            "24: an empty retries block disables retries",
            rule("retries: {}"),
            plain_call.clone(),
            &[("/retries/attempts", json!(0))],
        ),
        case(
            "24: a status code in retryOn replaces the gRPC conditions",
            rule("retries: {attempts: 2, retryOn: '503'}"),
            plain_call.clone(),
            &[("/retries/status_codes", json!([503])), ("/retries/retry_on", json!(["retriable-status-codes"]))],
        ),
        case(
            "25: the mesh configuration can disable retries",
            no_retries,
            plain_call.clone(),
            &[("/retries/attempts", json!(0))],
        ),
        case(
            "26: a timeout of 0s means no limit",
            rule("timeout: 0s"),
            plain_call.clone(),
            &[("/timeout_ms", json!(0)), ("/max_grpc_timeout_ms", json!(0))],
        ),
        case(
            "26: a timeout caps the client's deadline",
            rule("timeout: 2s"),
            plain_call,
            &[("/timeout_ms", json!(2000)), ("/max_grpc_timeout_ms", json!(2000))],
        ),
    ]);
}

#[test]
fn selects_listeners_by_protocol_and_dialed_address() {
    let other = |port: &str| {
        service("shop", "other", &format!("clusterIP: 10.96.0.6, ports: [{port}]"))
            + &pod("shop", "other", "10.0.0.6", "sidecar")
    };
    let call_other = |port: &str| call(&format!("other.shop:{port}"), "/a.B/C");
    let tls = |authority: &str| json!({"caller": "web/client", "authority": authority, "path": "/a.B/C", "protocol": "grpc-tls"});
    let call_dialing = |port: u16, dial: &str| json!({"caller": "web/client", "authority": format!("unknown.example.com:{port}"), "path": "/a.B/C", "dial": dial});
    check(&[
        case(
            "27: appProtocol takes precedence over the port name, even when unknown",
            other("{name: grpc, port: 9090, appProtocol: h2c}"),
            call_other("9090"),
            &[("/listener", json!("auto"))],
        ),
        case(
            "27: port 3306 is TCP unless its name or appProtocol sets a protocol",
            other("{name: api, port: 3306}"),
            call_other("3306"),
            &[("/listener", json!("tcp")), (OUTCOME, json!("tcp"))],
        ),
        case(
            "28: TLS started by the application passes an HTTP port unrouted",
            "",
            tls(CART),
            &[(OUTCOME, json!("passthrough"))],
        ),
        case(
            "28: on an auto-detected port it reaches the Service as a TCP stream",
            other("{name: api, port: 9090}"),
            tls("other.shop:9090"),
            &[(OUTCOME, json!("tcp")), (CLUSTER, cluster(9090, "other.shop"))],
        ),
        case(
            "29: an HTTP port is routed by the authority",
            "",
            call_dialing(8080, "cart.shop"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        case(
            "29: an auto-detected port is routed by the dialed address",
            other("{name: api, port: 9090}"),
            call_dialing(9090, "other.shop"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(9090, "other.shop"))],
        ),
        case(
            "30: no virtual host has a pod's address",
            "",
            call("10.0.0.1:8080", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        case(
            "31: a port that no Service has passes through",
            "",
            call("cart.shop:9999", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        case(
            "32: sidecars use the caller's protocol on an auto-detected port",
            other("{name: api, port: 9090}"),
            call_other("9090"),
            &[("/backends/0/upstream_protocol", json!("downstream"))],
        ),
        case(
            "32: gateways use HTTP/1.1 on an auto-detected port",
            other("{name: api, port: 9090}") + &gateway_virtual_service(&format!("{{{}}}", route_to("other"))),
            gateway_call("/a.B/C"),
            &[("/backends/0/upstream_protocol", json!("http1"))],
        ),
    ]);
}

/// Failures that no route shows, and gaps in the model.
#[test]
fn reports_failures_and_gaps_that_the_route_alone_does_not_show() {
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {namespace: shop, name: all}\nspec: {mtls: {mode: STRICT}}\n";
    let plain =
        istio_object("DestinationRule", "shop", "plain", 1, "host: cart, trafficPolicy: {tls: {mode: DISABLE}}");
    let headless = service("shop", "pods", "clusterIP: None, ports: [{name: grpc, port: 9090}]")
        + &pod("shop", "pods", "10.0.0.6", "sidecar");
    let undated = |name: &str| {
        istio_object("VirtualService", "shop", name, 1, &format!("hosts: [cart], http: [{{{}}}]", route_to("cart")))
            .replace(", creationTimestamp: '2026-01-01T00:00:00Z'", "")
    };
    let filter = istio_object("EnvoyFilter", "web", "f", 1, "configPatches: [{applyTo: HTTP_ROUTE}]")
        .replace("io/v1\n", "io/v1alpha3\n");
    check(&[
        case(
            "plain text against strict mTLS",
            strict.to_owned() + &plain,
            call(CART, "/a.B/C"),
            &[(STATUS, json!("UNAVAILABLE")), ("/client_sees/0/flag", json!("UC"))],
        ),
        case("mTLS against strict mTLS", strict, call(CART, "/a.B/C"), &[("/client_sees", json!([]))]),
        case(
            "a headless Service",
            headless,
            call("pods.shop:9090", "/a.B/C"),
            &[(
                "/not_modelled/0",
                json!(
                    "Service shop/pods is headless: calls go to the pod that the client dialed, whatever the weights"
                ),
            )],
        ),
        case(
            "objects without creation times",
            undated("one") + &undated("two"),
            call(CART, "/a.B/C"),
            &[
                (RULE, json!("one")),
                (
                    "/not_modelled/0",
                    json!(
                        "VirtualService shop/two names the same host; the older object takes effect, and the source has no creation times"
                    ),
                ),
            ],
        ),
        case(
            "an EnvoyFilter on the caller",
            filter,
            call(CART, "/a.B/C"),
            &[("/not_modelled/0", json!("EnvoyFilter web/f (patches HTTP_ROUTE) acts on the caller's proxy"))],
        ),
    ]);
}
