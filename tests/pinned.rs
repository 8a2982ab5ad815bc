//! Behaviour of istiod and Envoy that surprises, one row each. Every row was seen by feeding its case to istiod's own
//! code (1.31) and replaying the choice of the route through Envoy 1.39.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

const CART: &str = "cart.shop:8080";

/// One behaviour: a mesh beside [`base`], a call, and what the answer must hold, by JSON pointer.
struct Row {
    what: &'static str,
    mesh: String,
    call: Value,
    want: Vec<(&'static str, Value)>,
}

fn row(what: &'static str, mesh: impl Into<String>, call: Value, want: &[(&'static str, Value)]) -> Row {
    Row { what, mesh: mesh.into(), call, want: want.to_vec() }
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

/// An object of Istio, of age `age`: higher is younger.
fn istio(kind: &str, namespace: &str, name: &str, age: u8, spec: &str) -> String {
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
fn vs(rules: &str) -> String {
    istio("VirtualService", "shop", "r", 1, &format!("hosts: [cart], http: [{rules}]"))
}

/// One destination.
fn to(host: &str) -> String {
    format!("route: [{{destination: {{host: {host}}}}}]")
}

/// Services cart and ledger in shop, a caller in web and one in shop, and a gateway in edge on 80.
fn base() -> String {
    service("shop", "cart", "clusterIP: 10.96.0.1, ports: [{name: grpc, port: 8080}]")
        + &service("shop", "ledger", "clusterIP: 10.96.0.2, ports: [{name: grpc, port: 50051}]")
        + &service("edge", "gw", "clusterIP: 10.96.0.3, ports: [{name: http, port: 80, targetPort: 8080}]")
        + &pod("shop", "cart", "10.0.0.1", "sidecar")
        + &pod("shop", "ledger", "10.0.0.2", "sidecar")
        + &pod("web", "client", "10.0.0.3", "sidecar")
        + &pod("edge", "gw", "10.0.0.4", "router")
        + &istio(
            "Gateway",
            "edge",
            "gw",
            1,
            "selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]",
        )
}

/// A call of a pod in `web`.
fn call(authority: &str, path: &str) -> Value {
    json!({"caller": "web/client", "authority": authority, "path": path})
}

/// A call through the gateway.
fn outside(path: &str) -> Value {
    json!({"caller": "gateway/edge/gw", "authority": "api.example.com", "port": 80, "path": path})
}

fn at_gateway(rules: &str) -> String {
    istio(
        "VirtualService",
        "shop",
        "api",
        1,
        &format!("hosts: [api.example.com], gateways: [edge/gw], http: [{rules}]"),
    )
}

#[track_caller]
fn check(rows: &[Row]) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pinned");
    std::fs::create_dir_all(&folder).unwrap();
    for (at, Row { what, mesh, call, want }) in rows.iter().enumerate() {
        let stem = format!("{}-{at}", rows[0].what.chars().filter(|c| c.is_alphanumeric()).collect::<String>());
        let (manifest, calls) = (folder.join(format!("{stem}.yaml")), folder.join(format!("{stem}.jsonl")));
        std::fs::write(&manifest, base() + mesh).unwrap();
        std::fs::write(&calls, call.to_string()).unwrap();
        let answer = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
            .args(["route", "-o", "json", "--from", manifest.to_str().unwrap(), "--calls", calls.to_str().unwrap()])
            .env_clear()
            .env("HOME", "/nonexistent")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&answer.stdout);
        let answer: Value = serde_json::from_str(out.trim())
            .unwrap_or_else(|error| panic!("{what}: {error}: {}", String::from_utf8_lossy(&answer.stderr)));
        for (pointer, wanted) in want {
            let given = answer.pointer(pointer).cloned().unwrap_or(Value::Null);
            assert_eq!(given, *wanted, "{what}: {pointer} of\n{answer:#}");
        }
    }
}

const CLUSTER: &str = "/backends/0/cluster";
const STATE: &str = "/backends/0/state";
const OUTCOME: &str = "/outcome";
const RULE: &str = "/rule/name";
const INDEX: &str = "/rule/index";
const STATUS: &str = "/client_sees/grpc_status";

fn cluster(port: u16, host: &str) -> Value {
    json!(format!("outbound|{port}||{host}.svc.cluster.local"))
}

#[test]
fn destinations() {
    check(&[
        row(
            "1: a destination without a port has the port that was dialled",
            vs(&format!("{{{}}}", to("ledger"))),
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "ledger.shop")), (STATE, json!("no-cluster")), (STATUS, json!("UNAVAILABLE"))],
        ),
        row(
            "1: at a gateway the only port of the Service is taken",
            at_gateway(&format!("{{{}}}", to("ledger"))),
            outside("/a.B/C"),
            &[(CLUSTER, cluster(50051, "ledger.shop")), (STATE, json!("ok"))],
        ),
        row(
            "2: a destination with a dot is a full name",
            vs(&format!("{{{}}}", to("cart.shop"))),
            call(CART, "/a.B/C"),
            &[(CLUSTER, json!("outbound|8080||cart.shop")), (STATE, json!("no-cluster"))],
        ),
        row(
            "2: hosts are folded",
            vs(&format!("{{{}}}", to("cart"))).replace("hosts: [cart]", "hosts: [CART]"),
            call(CART, "/a.B/C"),
            &[(RULE, json!("r"))],
        ),
        row(
            "3: one destination with weight 0 gets everything",
            vs("{route: [{destination: {host: cart}, weight: 0}]}"),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
        row(
            "3: two without any weight are refused",
            vs("{route: [{destination: {host: cart}}, {destination: {host: ledger}, weight: 0}]}"),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("rejected"))],
        ),
        row(
            "3: a missing weight is none",
            vs("{route: [{destination: {host: cart}, weight: 80}, {destination: {host: ledger}}]}"),
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "cart.shop")), ("/backends/1", Value::Null)],
        ),
        row(
            "4: a missing subset keeps its route",
            vs("{route: [{destination: {host: cart, subset: v9}}]}"),
            call(CART, "/a.B/C"),
            &[(RULE, json!("r")), ("/client_sees/http_status", json!(503)), ("/client_sees/flag", json!("NC"))],
        ),
        row(
            "4: a missing backend of a GRPCRoute is a 500",
            grpc_route("shop", 1, "name: cart, port: 8080", "{backendRefs: [{name: nobody, port: 1}]}"),
            call(CART, "/a.B/C"),
            &[("/client_sees/http_status", json!(500)), (STATUS, json!("UNKNOWN"))],
        ),
        row(
            "5: routes do not chain",
            at_gateway(&format!("{{{}}}", to("cart"))) + &vs("{directResponse: {status: 503}}"),
            outside("/a.B/C"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
    ]);
}

#[test]
fn hidden_hosts_and_aliases() {
    let data = service("data", "store", "clusterIP: 10.96.0.9, ports: [{name: grpc, port: 8080}]")
        + &pod("data", "store", "10.0.0.9", "sidecar");
    let narrow = istio("Sidecar", "web", "default", 1, "egress: [{hosts: [shop/*]}]");
    let to_data = vs(&format!("{{{}}}", to("store.data.svc.cluster.local")));
    let alias = "---\napiVersion: v1\nkind: Service\nmetadata: {namespace: web, name: alias}\n\
                 spec: {type: ExternalName, externalName: cart.shop.svc.cluster.local, ports: [{name: grpc, port: 8080}]}\n";
    check(&[
        row(
            "6: a Sidecar does not hide what a route leads to",
            data.clone() + &narrow + &to_data,
            call(CART, "/a.B/C"),
            &[(CLUSTER, cluster(8080, "store.data")), (STATE, json!("ok"))],
        ),
        row(
            "6, 31: it hides direct calls, silently",
            data + &narrow,
            call("store.data:8080", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        row(
            "7: an alias has its target's routes",
            alias.to_owned() + &vs(&format!("{{{}}}", to("cart"))),
            call("alias.web:8080", "/a.B/C"),
            &[(RULE, json!("r")), (CLUSTER, cluster(8080, "cart.shop"))],
        ),
    ]);
}

#[test]
fn which_virtual_service() {
    let named = |namespace: &str, name: &str, age, rest: &str| {
        istio("VirtualService", namespace, name, age, &format!("hosts: [cart.shop.svc.cluster.local], {rest}"))
    };
    let plain = |extra: &str| format!("{extra}http: [{{{}}}]", to("cart.shop.svc.cluster.local"));
    let route = grpc_route("shop", 9, "name: cart, port: 8080", "{backendRefs: [{name: cart, port: 8080}]}");
    let consumer =
        grpc_route("web", 1, "name: cart, port: 8080", "{backendRefs: [{name: cart, namespace: shop, port: 8080}]}");
    let from_shop = json!({"caller": "shop/ledger", "authority": CART, "path": "/a.B/C"});
    check(&[
        row(
            "8: a younger private object goes before an older public one",
            named("web", "own", 9, &plain("exportTo: [.], ")) + &named("shop", "old", 1, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("own"))],
        ),
        row(
            "8: of one class the oldest has the host",
            named("shop", "young", 2, &plain("")) + &named("shop", "old", 1, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("old"))],
        ),
        row(
            "9: one without rules for the port steps aside",
            named("shop", "old", 1, "http: [{match: [{port: 1}], redirect: {uri: /}}]")
                + &named("shop", "next", 2, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("next"))],
        ),
        row(
            "9: one whose rules do not fit keeps the host",
            named("shop", "old", 1, "http: [{match: [{uri: {exact: /x}}], redirect: {uri: /}}]")
                + &named("shop", "next", 2, &plain("")),
            call(CART, "/a.B/C"),
            &[(OUTCOME, json!("no-route")), (STATUS, json!("UNIMPLEMENTED"))],
        ),
        row(
            "10: an exact host goes before a wildcard of any age",
            istio("VirtualService", "shop", "wild", 1, &format!("hosts: ['*.shop.svc.cluster.local'], {}", plain("")))
                + &named("shop", "exact", 9, &plain("")),
            call(CART, "/a.B/C"),
            &[(RULE, json!("exact"))],
        ),
        row(
            "11: a route goes before older objects for its own namespace",
            named("shop", "old", 1, &plain("")) + &route,
            from_shop.clone(),
            &[("/rule/kind", json!("GRPCRoute"))],
        ),
        row(
            "11: for others the older one has the host",
            named("shop", "old", 1, &plain("")) + &route,
            call(CART, "/a.B/C"),
            &[("/rule/kind", json!("VirtualService"))],
        ),
        row(
            "12: a consumer's route is for its own namespace",
            consumer.clone(),
            call(CART, "/a.B/C"),
            &[("/rule/kind", json!("GRPCRoute")), (STATE, json!("ok"))],
        ),
        row("12: and for no other", consumer, from_shop, &[("/rule", Value::Null), (OUTCOME, json!("forward"))]),
        row(
            "13: a host with a dot that is no full name acts on port 80 only",
            vs("{redirect: {uri: /}}").replace("hosts: [cart]", "hosts: [cart.shop]"),
            call(CART, "/a.B/C"),
            &[("/rule", Value::Null), (OUTCOME, json!("forward"))],
        ),
        row(
            "14: rules of gateways leave sidecars alone",
            vs("{redirect: {uri: /}}").replace("hosts:", "gateways: [edge/gw], hosts:"),
            call(CART, "/a.B/C"),
            &[("/rule", Value::Null), (OUTCOME, json!("forward"))],
        ),
    ]);
}

#[test]
fn destination_rules() {
    let subset = "host: cart.shop.svc.cluster.local, subsets: [{name: v1, labels: {version: v1}}]";
    let owner = istio("DestinationRule", "shop", "own", 1, subset);
    let of_clients = istio("DestinationRule", "web", "all", 1, "host: '*.svc.cluster.local', trafficPolicy: {}");
    let of_root =
        istio("DestinationRule", "istio-system", "all", 1, "host: cart.shop.svc.cluster.local, trafficPolicy: {}");
    let root_gateway = pod("istio-system", "ingress", "10.0.0.8", "router")
        + &istio(
            "Gateway",
            "istio-system",
            "ingress",
            1,
            "selector: {app: ingress}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]",
        )
        + &at_gateway("{route: [{destination: {host: cart, subset: v1}}]}").replace("edge/gw", "istio-system/ingress");
    let from_root =
        json!({"caller": "gateway/istio-system/ingress", "authority": "api.example.com", "port": 80, "path": "/a.B/C"});
    let to_subset = vs("{route: [{destination: {host: cart, subset: v1}}]}");
    check(&[
        row(
            "15: at gateways of the root namespace its public rules do not go first",
            owner.clone() + &of_root + &root_gateway,
            from_root,
            &[(STATE, json!("ok")), ("/backends/0/destination_rule", json!("shop/own"))],
        ),
        row(
            "33: a rule of the clients' namespace hides the owner's subsets",
            owner.clone() + &of_clients + &to_subset,
            call(CART, "/a.B/C"),
            &[(STATE, json!("no-cluster"))],
        ),
        row(
            "33: the root's rule loses to the owner's",
            owner + &of_root + &to_subset,
            call(CART, "/a.B/C"),
            &[(STATE, json!("ok")), ("/backends/0/destination_rule", json!("shop/own"))],
        ),
    ]);
}

#[test]
fn matches() {
    let first = |condition: &str| vs(&format!("{{match: [{condition}], {0}}}, {{name: rest, {0}}}", to("cart")));
    let with = |name: &str, value: &str| json!({"caller": "web/client", "authority": CART, "path": "/a.B/C", "headers": {name: value}});
    let plain = call(CART, "/a.B/C");
    let took = |index: u8| [(INDEX, json!(index))];
    let by_regex = r"{matches: [{method: {type: RegularExpression, service: 'a\..*', method: 'C|D'}}], backendRefs: [{name: cart, port: 8080}]}";
    let by_service = "{matches: [{method: {service: a.B}}], backendRefs: [{name: cart, port: 8080}]}";
    let two_ports =
        service("shop", "two", "clusterIP: 10.96.0.7, ports: [{name: grpc, port: 8080}, {name: grpc-b, port: 9090}]")
            + &pod("shop", "two", "10.0.0.7", "sidecar");
    check(&[
        row(
            "16: an exact authority does not match one with a port",
            first("{authority: {exact: cart.shop}}"),
            plain.clone(),
            &took(1),
        ),
        row("16: one with the port does", first("{authority: {exact: 'cart.shop:8080'}}"), plain.clone(), &took(0)),
        row("17: an expression is a match of the whole", first("{uri: {regex: '/a.B'}}"), plain.clone(), &took(1)),
        row("17: regex * means present", first("{headers: {x-env: {regex: '*'}}}"), with("x-env", ""), &took(0)),
        row(
            "17: exact nothing does not match a missing header",
            first("{headers: {x-env: {exact: ''}}}"),
            plain.clone(),
            &took(1),
        ),
        row(
            "18: without a value, a missing header is no hindrance",
            first("{withoutHeaders: {x-env: {exact: prod}}}"),
            plain.clone(),
            &took(0),
        ),
        row(
            "18: without anything, it always is",
            first("{withoutHeaders: {x-env: {regex: '.*'}}}"),
            plain.clone(),
            &took(1),
        ),
        row(
            "19: case counts in an expression",
            first("{ignoreUriCase: true, uri: {regex: '/A.B/C'}}"),
            plain.clone(),
            &took(1),
        ),
        row("19: and not in a prefix", first("{ignoreUriCase: true, uri: {prefix: /A.B/}}"), plain.clone(), &took(0)),
        row("19: an empty match takes everything", first("{}"), plain.clone(), &took(0)),
        row(
            "20: what takes everything ends the object",
            first("{uri: {prefix: /}}, {uri: {exact: /a.B/C}}"),
            plain.clone(),
            &[("/rule/match", json!(0))],
        ),
        row(
            "20: gateways in a match switch the caller's labels off",
            first("{gateways: [mesh], sourceLabels: {app: nobody}}"),
            plain.clone(),
            &took(0),
        ),
        row(
            "21: at a gateway the port is the server's",
            at_gateway(&format!("{{match: [{{port: 80}}], {0}}}, {{{0}}}", to("cart"))),
            outside("/a.B/C"),
            &took(0),
        ),
        row(
            "21: and not the pod's",
            at_gateway(&format!("{{match: [{{port: 8080}}], {0}}}, {{{0}}}", to("cart"))),
            outside("/a.B/C"),
            &took(1),
        ),
        row(
            "22: expressions of a GRPCRoute get no brackets",
            grpc_route("shop", 1, "name: cart, port: 8080", by_regex),
            call(CART, "/a.B/D"),
            &[(OUTCOME, json!("no-route"))],
        ),
        row(
            "22: a prefix of a VirtualService is no path segment",
            first("{uri: {prefix: /a.B}}"),
            call(CART, "/a.BX/C"),
            &took(0),
        ),
        // Seen in the lab, and in `RouteWithKey.ResourceName` of istiod's code.
        row(
            "an HTTPRoute hides a GRPCRoute of its name",
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
        row(
            "23: a GRPCRoute takes the default route away",
            grpc_route("shop", 1, "name: cart, port: 8080", by_service),
            call(CART, "/other.S/M"),
            &[(OUTCOME, json!("no-route"))],
        ),
        row(
            "23: on other ports too when it names none",
            two_ports + &grpc_route("shop", 1, "name: two", &by_service.replace("cart", "two")),
            call("two.shop:9090", "/other.S/M"),
            &[(OUTCOME, json!("no-route"))],
        ),
    ]);
}

#[test]
fn retries_and_timeouts() {
    let rule = |extra: &str| vs(&format!("{{{extra}, {}}}", to("cart")));
    let plain = call(CART, "/a.B/C");
    let words = json!(["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"]);
    let off = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: istio-system, name: istio}\ndata: {mesh: 'defaultHttpRetryPolicy: {attempts: 0}'}\n";
    check(&[
        row(
            "24: two retries without any object",
            "",
            plain.clone(),
            &[("/retries/attempts", json!(2)), ("/retries/retry_on", words.clone())],
        ),
        row(
            "24: a number alone keeps the conditions",
            rule("retries: {attempts: 3}"),
            plain.clone(),
            &[("/retries/attempts", json!(3)), ("/retries/retry_on", words)],
        ),
        row("24: an empty block is none", rule("retries: {}"), plain.clone(), &[("/retries/attempts", json!(0))]),
        row(
            "24: a status loses the words of gRPC",
            rule("retries: {attempts: 2, retryOn: '503'}"),
            plain.clone(),
            &[("/retries/status_codes", json!([503])), ("/retries/retry_on", json!(["retriable-status-codes"]))],
        ),
        row("25: the mesh's default takes retries away", off, plain.clone(), &[("/retries/attempts", json!(0))]),
        row(
            "26: a timeout of 0s is none",
            rule("timeout: 0s"),
            plain.clone(),
            &[("/timeout_ms", json!(0)), ("/max_grpc_timeout_ms", json!(0))],
        ),
        row(
            "26: a timeout caps the client's deadline",
            rule("timeout: 2s"),
            plain,
            &[("/timeout_ms", json!(2000)), ("/max_grpc_timeout_ms", json!(2000))],
        ),
    ]);
}

#[test]
fn ports_and_listeners() {
    let other = |port: &str| {
        service("shop", "other", &format!("clusterIP: 10.96.0.6, ports: [{port}]"))
            + &pod("shop", "other", "10.0.0.6", "sidecar")
    };
    let to_other = |port: &str| call(&format!("other.shop:{port}"), "/a.B/C");
    let tls = |authority: &str| json!({"caller": "web/client", "authority": authority, "path": "/a.B/C", "protocol": "grpc-tls"});
    let elsewhere = |port: u16, dial: &str| json!({"caller": "web/client", "authority": format!("nobody.example.com:{port}"), "path": "/a.B/C", "dial": dial});
    check(&[
        row(
            "27: appProtocol goes before the name, unknown too",
            other("{name: grpc, port: 9090, appProtocol: h2c}"),
            to_other("9090"),
            &[("/listener", json!("auto"))],
        ),
        row(
            "27: 3306 is bytes where nothing names it",
            other("{name: api, port: 3306}"),
            to_other("3306"),
            &[("/listener", json!("tcp")), (OUTCOME, json!("tcp"))],
        ),
        row("28: TLS of the application leaves a named port", "", tls(CART), &[(OUTCOME, json!("passthrough"))]),
        row(
            "28: on a detected port it reaches the Service as bytes",
            other("{name: api, port: 9090}"),
            tls("other.shop:9090"),
            &[(OUTCOME, json!("tcp")), (CLUSTER, cluster(9090, "other.shop"))],
        ),
        row(
            "29: a named port is routed by the authority",
            "",
            elsewhere(8080, "cart.shop"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        row(
            "29: a detected one by the address",
            other("{name: api, port: 9090}"),
            elsewhere(9090, "other.shop"),
            &[(OUTCOME, json!("forward")), (CLUSTER, cluster(9090, "other.shop"))],
        ),
        row(
            "30: a pod's address is nobody's authority",
            "",
            call("10.0.0.1:8080", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        row(
            "31: so is a port that no Service has",
            "",
            call("cart.shop:9999", "/a.B/C"),
            &[(OUTCOME, json!("passthrough"))],
        ),
        row(
            "32: sidecars speak to a detected port as the caller does",
            other("{name: api, port: 9090}"),
            to_other("9090"),
            &[("/backends/0/upstream_protocol", json!("downstream"))],
        ),
        row(
            "32: gateways speak HTTP/1.1 to it",
            other("{name: api, port: 9090}") + &at_gateway(&format!("{{{}}}", to("other"))),
            outside("/a.B/C"),
            &[("/backends/0/upstream_protocol", json!("http1"))],
        ),
    ]);
}

/// What stands beside the answer: failures that no route shows, and what is uncertain.
#[test]
fn what_a_route_alone_does_not_tell() {
    let strict = "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {namespace: shop, name: all}\nspec: {mtls: {mode: STRICT}}\n";
    let plain = istio("DestinationRule", "shop", "plain", 1, "host: cart, trafficPolicy: {tls: {mode: DISABLE}}");
    let headless = service("shop", "pods", "clusterIP: None, ports: [{name: grpc, port: 9090}]")
        + &pod("shop", "pods", "10.0.0.6", "sidecar");
    let undated = |name: &str| {
        istio("VirtualService", "shop", name, 1, &format!("hosts: [cart], http: [{{{}}}]", to("cart")))
            .replace(", creationTimestamp: '2026-01-01T00:00:00Z'", "")
    };
    let filter = istio("EnvoyFilter", "web", "f", 1, "configPatches: [{applyTo: HTTP_ROUTE}]")
        .replace("io/v1\n", "io/v1alpha3\n");
    check(&[
        row(
            "plain text against strict mTLS",
            strict.to_owned() + &plain,
            call(CART, "/a.B/C"),
            &[(STATUS, json!("UNAVAILABLE")), ("/client_sees/flag", json!("UC"))],
        ),
        row("mTLS against strict mTLS", strict, call(CART, "/a.B/C"), &[("/client_sees", Value::Null)]),
        row(
            "a headless Service",
            headless,
            call("pods.shop:9090", "/a.B/C"),
            &[(
                "/not_modelled/0",
                json!("Service shop/pods is headless: the pod that the client dialled answers, whatever the shares"),
            )],
        ),
        row(
            "ages that the source lacks",
            undated("one") + &undated("two"),
            call(CART, "/a.B/C"),
            &[
                (RULE, json!("one")),
                (
                    "/not_modelled/0",
                    json!(
                        "VirtualService shop/two claims the host too, and ages are not in the source: the older one has it"
                    ),
                ),
            ],
        ),
        row(
            "an EnvoyFilter on the caller",
            filter,
            call(CART, "/a.B/C"),
            &[("/not_modelled/0", json!("EnvoyFilter web/f (patches HTTP_ROUTE) acts on the caller's proxy"))],
        ),
    ]);
}
