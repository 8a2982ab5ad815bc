//! Meshes whose cost once grew faster than their size, each generated for a number of elements.

use std::fmt::Write as _;

/// A shape: the arguments that examine it, and how to generate it.
pub struct Shape {
    pub name: &'static str,
    /// Arguments around the path of the generated file.
    pub before: &'static [&'static str],
    pub after: &'static [&'static str],
    /// Number of elements of the small and of the large input is this and its double.
    pub size: usize,
    pub generate: fn(usize) -> String,
}

const INSPECT: &[&str] = &["inspect", "-o", "json", "--from"];
const ROUTE: &[&str] = &["route", "s0.n0.svc.cluster.local:50051", "/a.B/C", "-o", "json", "--from"];

const fn inspect(name: &'static str, size: usize, generate: fn(usize) -> String) -> Shape {
    Shape { name, before: INSPECT, after: &[], size, generate }
}

const fn route(name: &'static str, size: usize, generate: fn(usize) -> String) -> Shape {
    Shape { name, before: ROUTE, after: &[], size, generate }
}

pub const SHAPES: &[Shape] = &[
    inspect("findings in one List", 400, findings_in_one_list),
    inspect("findings in one object", 400, findings_in_one_object),
    inspect("Sidecars with selectors, one namespace", 400, sidecars_with_selectors),
    inspect("delegate matches x root matches", 240, delegate_matches),
    inspect("letters of an unknown name", 50_000, unknown_name),
    inspect("keys under <<", 20_000, merge_keys),
    inspect("nested anchors", 32, nested_anchors),
    inspect("packed document markers", 500_000, document_markers),
    inspect("ExternalName chain", 400, external_name_chain),
    inspect("backends of one rule", 250, backends_of_one_rule),
    inspect("ports of one Service", 400, ports_of_one_service),
    inspect("hosts of one VirtualService", 1_000, hosts_of_one_virtual_service),
    inspect("subsets x routes", 200, subsets_and_routes),
    inspect("exportTo lists of 20", 800, export_to_lists),
    inspect("Gateways with 10 listeners", 400, gateways_with_listeners),
    inspect("EnvoyFilters", 3_200, envoy_filters),
    inspect("GRPCRoutes of one Service", 1_600, grpc_routes_of_one_service),
    route("DestinationRule per namespace", 400, destination_rule_per_namespace),
    route("Sidecar */* per namespace", 400, sidecar_per_namespace),
    route("Services, 100 a namespace", 1_600, services_100_a_namespace),
    route("sourceLabels x pods", 400, source_labels_and_pods),
];

fn object(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    let api_version = match kind {
        "Service" | "Pod" => "v1",
        "GRPCRoute" => "gateway.networking.k8s.io/v1",
        _ => "networking.istio.io/v1",
    };
    format!(
        "apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: \"{name}\", namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

fn service(namespace: &str, name: &str) -> String {
    object(
        "Service",
        namespace,
        name,
        &format!("{{selector: {{app: \"{name}\"}}, ports: [{{name: grpc, port: 50051}}]}}"),
    )
}

fn pod(namespace: &str, name: &str, labels: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: \"{name}\", namespace: {namespace}, labels: {{{labels}}}}}\n\
         spec: {{containers: [{{name: app}}, {{name: istio-proxy, image: 'proxyv2:1.31.0'}}]}}\n\
         status: {{phase: Running, podIP: 10.0.0.1, conditions: [{{type: Ready, status: 'True'}}]}}\n---\n"
    )
}

fn each(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect()
}

fn listed(count: usize, part: impl Fn(usize) -> String) -> String {
    (0..count).map(part).collect::<Vec<_>>().join(", ")
}

fn findings_in_one_list(count: usize) -> String {
    let items = each(count, |number| {
        format!(
            "- apiVersion: networking.istio.io/v1\n  kind: VirtualService\n  metadata: {{name: v{number}, namespace: n0}}\n  \
             spec: {{hosts: [s0], http: [{{route: [{{destination: {{host: missing-{number}}}}}]}}]}}\n"
        )
    });
    format!("{}apiVersion: v1\nkind: List\nitems:\n{items}", service("n0", "s0"))
}

fn findings_in_one_object(count: usize) -> String {
    let rules = each(count, |number| {
        format!(
            "  - match: [{{uri: {{exact: /a.B/{number}}}}}]\n    route: [{{destination: {{host: missing-{number}}}}}]\n"
        )
    });
    let spec = format!("\n  hosts: [s0]\n  http:\n{rules}");
    service("n0", "s0") + &object("VirtualService", "n0", "v", &spec)
}

fn sidecars_with_selectors(count: usize) -> String {
    each(count, |number| {
        let spec = format!("{{workloadSelector: {{labels: {{app: a{number}}}}}, egress: [{{hosts: [./*]}}]}}");
        pod("n0", &format!("a{number}"), &format!("app: a{number}"))
            + &object("Sidecar", "n0", &format!("a{number}"), &spec)
    }) + &service("n0", "s0")
}

fn delegate_matches(count: usize) -> String {
    let matches = |header: &str| listed(count, |number| format!("{{headers: {{{header}: {{exact: \"{number}\"}}}}}}"));
    let root = format!("{{hosts: [s0], http: [{{match: [{}], delegate: {{name: inner}}}}]}}", matches("x-a"));
    let inner = format!("{{http: [{{match: [{}], route: [{{destination: {{host: s0}}}}]}}]}}", matches("x-b"));
    service("n0", "s0")
        + &object("VirtualService", "n0", "root", &root)
        + &object("VirtualService", "n0", "inner", &inner)
}

fn unknown_name(letters: usize) -> String {
    let spec = |host: &str| format!("{{hosts: [s0], http: [{{route: [{{destination: {{host: \"{host}\"}}}}]}}]}}");
    service("n0", &"b".repeat(letters))
        + &service("n0", "s0")
        + &object("VirtualService", "n0", "v", &spec(&"a".repeat(letters)))
}

fn merge_keys(count: usize) -> String {
    let keys = each(count, |number| format!("    k{number}: v\n"));
    let labels = format!(
        "base:\n  labels: &base\n{keys}metadata:\n  name: s0\n  namespace: n0\n  labels:\n    <<: *base\n    own: x\n"
    );
    format!("apiVersion: v1\nkind: Service\n{labels}spec: {{ports: [{{name: grpc, port: 50051}}]}}\n")
}

fn nested_anchors(depth: usize) -> String {
    let open: String = each(depth, |number| format!("&a{number} ["));
    let (texts, close) = ("x, ".repeat(10_000), "]".repeat(depth));
    format!("base: {open}{texts}{close}\nother: *a{}\n{}", depth - 1, service("n0", "s0"))
}

fn document_markers(count: usize) -> String {
    format!("{}{}", "---\n".repeat(count), service("n0", "s0"))
}

fn external_name_chain(count: usize) -> String {
    each(count, |number| {
        let spec = format!(
            "{{type: ExternalName, externalName: s{}.n0.svc.cluster.local, ports: [{{name: grpc, port: 50051}}]}}",
            number + 1
        );
        object("Service", "n0", &format!("s{number}"), &spec)
    }) + &service("n0", &format!("s{count}"))
}

fn backends_of_one_rule(count: usize) -> String {
    let route = listed(count, |number| format!("{{destination: {{host: s{number}}}, weight: 1}}"));
    each(count, |number| service("n0", &format!("s{number}")))
        + &object("VirtualService", "n0", "v", &format!("{{hosts: [s0], http: [{{route: [{route}]}}]}}"))
}

fn ports_of_one_service(count: usize) -> String {
    let ports = listed(count, |number| format!("{{name: grpc-{number}, port: {}}}", 1_000 + number));
    object("Service", "n0", "s0", &format!("{{selector: {{app: s0}}, ports: [{ports}]}}"))
}

fn hosts_of_one_virtual_service(count: usize) -> String {
    let hosts = listed(count, |number| format!("h{number}.example.com"));
    let spec = format!("{{hosts: [{hosts}], http: [{{route: [{{destination: {{host: s0}}}}]}}]}}");
    service("n0", "s0") + &object("VirtualService", "n0", "v", &spec)
}

fn subsets_and_routes(count: usize) -> String {
    let rules = listed(count, |number| {
        format!(
            "{{match: [{{uri: {{exact: /a.B/{number}}}}}], route: [{{destination: {{host: s0, subset: v{number}}}}}]}}"
        )
    });
    let subsets = listed(count, |number| format!("{{name: v{number}, labels: {{version: v{number}}}}}"));
    service("n0", "s0")
        + &object("VirtualService", "n0", "v", &format!("{{hosts: [s0], http: [{rules}]}}"))
        + &object("DestinationRule", "n0", "d", &format!("{{host: s0, subsets: [{subsets}]}}"))
}

fn export_to_lists(count: usize) -> String {
    each(count, |number| {
        let namespaces = listed(20, |other| format!("n{}", (number + other * 7) % count));
        let (namespace, name) = (format!("n{number}"), format!("s{number}"));
        let spec = format!("{{host: {name}, exportTo: [{namespaces}]}}");
        service(&namespace, &name) + &object("DestinationRule", &namespace, &name, &spec)
    })
}

fn gateways_with_listeners(count: usize) -> String {
    let gateways = each(count, |number| {
        let servers = listed(10, |port| {
            format!(
                "{{port: {{number: {}, name: http-{port}, protocol: HTTP}}, hosts: [\"h{number}-{port}.example.com\"]}}",
                8_000 + port
            )
        });
        object(
            "Gateway",
            "n0",
            &format!("g{number}"),
            &format!("{{selector: {{istio: ingressgateway}}, servers: [{servers}]}}"),
        )
    });
    gateways + &pod("n0", "gateway", "istio: ingressgateway") + &service("n0", "s0")
}

fn envoy_filters(count: usize) -> String {
    each(count, |number| {
        let spec = format!(
            "{{workloadSelector: {{labels: {{app: a{number}}}}}, configPatches: [{{applyTo: CLUSTER, patch: {{operation: MERGE}}}}]}}"
        );
        object("EnvoyFilter", "n0", &format!("f{number}"), &spec)
    }) + &service("n0", "s0")
}

fn grpc_routes_of_one_service(count: usize) -> String {
    each(count, |number| {
        let spec = format!(
            "{{parentRefs: [{{group: '', kind: Service, name: s0}}], rules: [{{matches: [{{method: {{service: a.B, method: M{number}}}}}], backendRefs: [{{name: s0, port: 50051}}]}}]}}"
        );
        object("GRPCRoute", "n0", &format!("r{number}"), &spec)
    }) + &service("n0", "s0")
}

fn destination_rule_per_namespace(count: usize) -> String {
    each(count, |number| {
        let (namespace, name) = (format!("n{number}"), format!("s{number}"));
        service(&namespace, &name) + &object("DestinationRule", &namespace, &name, &format!("{{host: {name}}}"))
    })
}

fn sidecar_per_namespace(count: usize) -> String {
    each(count, |number| {
        let (namespace, name) = (format!("n{number}"), format!("s{number}"));
        service(&namespace, &name) + &object("Sidecar", &namespace, "default", "{egress: [{hosts: ['*/*']}]}")
    })
}

fn services_100_a_namespace(count: usize) -> String {
    each(count, |number| service(&format!("n{}", number / 100), &format!("s{number}")))
}

fn source_labels_and_pods(count: usize) -> String {
    let rules = listed(count, |number| {
        format!("{{match: [{{sourceLabels: {{app: a{number}}}}}], route: [{{destination: {{host: s0}}}}]}}")
    });
    let pods = each(count, |number| pod("n0", &format!("a{number}"), &format!("app: a{number}")));
    let mut out = service("n0", "s0") + &pods;
    let _ = write!(out, "{}", object("VirtualService", "n0", "v", &format!("{{hosts: [s0], http: [{rules}]}}")));
    out
}
