//! `diff` on the mesh: proxies without changes are synced, and every other state has its cause.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Pod, REJECTED_BY_ENVOY, Scenario};

fn diff(lab: &Lab, arguments: &[&str]) -> (i32, Value) {
    let output = lab.grpcmesh(&[&["diff", "-A", "-o", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// The part of a report for the proxy of one pod.
fn proxy_of<'r>(report: &'r Value, pod: &Pod) -> &'r Value {
    let proxies = report["proxies"].as_array().unwrap();
    proxies.iter().find(|proxy| proxy["pod"] == pod.name.as_str()).unwrap_or_else(|| panic!("no proxy {}", pod.name))
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_healthy_mesh_is_synced_through_port_forward_and_exec() {
    let lab = Lab::connect();
    for access in ["port-forward", "exec"] {
        let (code, report) = diff(&lab, &["--via", access]);
        assert_eq!(code, 0, "{access}: {report:#}");
        assert!(report["counts"]["proxies"]["synced"].as_u64().unwrap() >= 8, "{access}: {report:#}");
    }
    let (code, report) = diff(&lab, &["--proxies", "3"]);
    assert_eq!(
        (code, &report["counts"]["proxies"]["synced"]),
        (4, &Value::from(3)),
        "the others are not compared: {report:#}"
    );
}

/// A random number generator with a fixed seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap();
        choices[index]
    }
}

/// Manifests of a Service with random routes, policies and a Gateway API route.
fn random_objects(random: &mut Random) -> String {
    let (v1, v2) = (random.below(100) + 1, random.below(100));
    let timeout = random.pick(&["", "timeout: 2s, ", "timeout: 0.35s, ", "timeout: 90s, "]);
    let retries = random.pick(&[
        "",
        "retries: {attempts: 0}, ",
        "retries: {attempts: 3, retryOn: 'unavailable,503', perTryTimeout: 1s}, ",
        "retries: {attempts: 1}, ",
    ]);
    let condition = random.pick(&[
        "uri: {prefix: /lab.Echo/}",
        "uri: {regex: '/lab[.].*'}",
        "headers: {x-canary: {exact: 'yes'}}",
        "withoutHeaders: {x-old: {}}, sourceNamespace: web",
        "headers: {x-user: {regex: '^u[0-9]+$'}}, ignoreUriCase: true, uri: {exact: /lab.Echo/Unary}",
        "sourceLabels: {app: client}, port: 7070",
    ]);
    let action = random.pick(&[
        "route: [{destination: {host: fx, subset: v2}}]",
        "directResponse: {status: 503}",
        "route: [{destination: {host: echo}}], mirror: {host: fx, subset: v2}, mirrorPercentage: {value: 12.5}",
        "redirect: {uri: /other, redirectCode: 307}",
    ]);
    let policy = random.pick(&[
        "{connectionPool: {http: {http2MaxRequests: 50, maxRequestsPerConnection: 9}}}",
        "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 1m}}",
        "{tls: {mode: ISTIO_MUTUAL}, connectionPool: {tcp: {maxConnections: 4, connectTimeout: 2s}}}",
        "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}",
        "{connectionPool: {http: {maxConcurrentStreams: 20, h2UpgradePolicy: UPGRADE}}}",
    ]);
    let port = random.pick(&["grpc", "http", "api", "tcp-x", "grpc-web"]);
    let export = random.pick(&["'*'", ".", "web"]);
    let kind = random.pick(&["GRPCRoute", "HTTPRoute"]);
    let gateway_match = if kind == "GRPCRoute" {
        random.pick(&[
            "method: {service: lab.Echo}",
            "headers: [{name: x-a, value: b}]",
            "method: {service: lab.Echo, method: Unary}",
        ])
    } else {
        random.pick(&["path: {type: PathPrefix, value: /lab.Echo}", "path: {type: Exact, value: /lab.Echo/Unary}"])
    };
    format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: fx, namespace: shop}}
spec:
  selector: {{app: echo}}
  ports:
  - {{name: {port}, port: 7070}}
  - {{name: grpc-more, port: 7090, targetPort: grpc}}
---
apiVersion: v1
kind: Service
metadata: {{name: fx-two, namespace: shop}}
spec:
  selector: {{app: ledger}}
  ports:
  - {{name: grpc, port: 7070}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: fx, namespace: shop}}
spec:
  host: fx
  trafficPolicy: {policy}
  subsets:
  - {{name: v1, labels: {{version: v1}}}}
  - {{name: v2, labels: {{version: v2}}, trafficPolicy: {{connectionPool: {{http: {{http1MaxPendingRequests: 12}}}}}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: fx, namespace: shop}}
spec:
  hosts: [fx]
  exportTo: [{export}]
  http:
  - {{name: first, match: [{{{condition}}}], {action}}}
  - {{{timeout}{retries}route: [{{destination: {{host: fx, subset: v1}}, weight: {v1}}}, {{destination: {{host: fx, subset: v2}}, weight: {v2}}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: fx, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: fx-two, port: 7070}}]
  rules:
  - matches: [{{{gateway_match}}}]
    backendRefs:
    - {{name: fx-two, port: 7070, weight: {v2}}}
    - {{name: ledger, port: 7071, weight: {v1}}}
"
    )
}

/// Applies random changes one after another and expects that all proxies are synced after each of them.
fn apply_random_changes(count: usize, seed: u64) {
    let lab = Lab::connect();
    let mut random = Random(seed);
    let mut objects = None;
    for index in 0..count {
        let yaml = random_objects(&mut random);
        // The kind of the route may change: delete the previous objects first.
        drop(objects.take());
        objects = Some(Scenario::apply_without_waiting(&lab, &yaml));
        let (code, report) = diff(&lab, &["--wait=30s"]);
        assert_eq!(code, 0, "change {index}:\n{yaml}\n{report:#}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn proxies_are_synced_after_each_change() {
    apply_random_changes(6, 1);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_proxies_are_synced_after_two_hundred_changes() {
    apply_random_changes(200, 7);
}

const NEW_SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: fx, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070}
";

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_stale_and_unreachable_proxies() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let objects = Scenario::apply_without_waiting(&lab, NEW_SERVICE);
    let stale = diff(&lab, &[]);
    client.signal(agent, "-CONT");
    let (code, report) = stale;
    let proxy = proxy_of(&report, &client);
    assert_eq!((code, &proxy["state"]), (1, &Value::from("stale")), "{proxy:#}");
    assert!(proxy["evidence"].as_str().unwrap().contains("not acknowledged yet"), "{proxy:#}");
    let mut differences = proxy["differences"].as_array().unwrap().iter();
    assert!(differences.any(|difference| difference["what"].as_str().unwrap().contains("fx.shop")));
    let (code, report) = diff(&lab, &["--wait=40s"]);
    assert_eq!(code, 0, "the proxy catches up: {report:#}");
    drop(objects);

    let envoy = client.envoy_pid();
    client.signal(envoy, "-STOP");
    let unreachable = diff(&lab, &["--proxy-timeout", "2s"]);
    client.signal(envoy, "-CONT");
    let (code, report) = unreachable;
    assert_eq!((code, &proxy_of(&report, &client)["state"]), (4, &Value::from("unreachable")), "{report:#}");
    assert_eq!(report["counts"]["proxies"]["unreachable"], 1, "the others are compared: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_reports_an_istiod_that_does_not_respond() {
    let lab = Lab::connect();
    let istiod = lab.process_id("istiod");
    let signal = |name: &str| assert!(Command::new("kill").args([name, &istiod]).status().unwrap().success());
    signal("-STOP");
    // Apply a Service: Istio's own kinds would wait for the webhook of istiod.
    let objects = Scenario::apply_without_waiting(&lab, NEW_SERVICE);
    let (code, report) = diff(&lab, &[]);
    signal("-CONT");
    drop(objects);
    let all = report["proxies"].as_array().unwrap().len();
    assert_eq!((code, &report["counts"]["proxies"]["not-sent"]), (1, &Value::from(all)), "{report:#}");
    assert!(report["proxies"][0]["evidence"].as_str().unwrap().contains("istiod does not respond"), "{report:#}");
    let (code, report) = diff(&lab, &["--wait=40s"]);
    assert_eq!(code, 0, "istiod continues: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_a_rejection_with_the_message_of_envoy() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let objects = Scenario::apply_without_waiting(&lab, REJECTED_BY_ENVOY);
    std::thread::sleep(Duration::from_secs(2));
    let (code, report) = diff(&lab, &[]);
    assert_eq!((code, &proxy_of(&report, &client)["state"]), (1, &Value::from("rejected")), "{report:#}");
    assert!(proxy_of(&report, &client)["evidence"].as_str().unwrap().contains("istio.stats"), "{report:#}");
    drop(objects);
    lab.wait_until("the proxy accepts the next configuration", Duration::from_secs(20), || diff(&lab, &[]).0 == 0);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_a_missing_certificate_of_a_gateway() {
    let lab = Lab::connect();
    let gateway = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: fx, namespace: web}
spec:
  selector: {istio: ingress}
  servers:
  - {port: {number: 8443, name: https, protocol: HTTPS}, hosts: [fx.example.com], tls: {mode: SIMPLE, credentialName: fx}}
";
    let folder = std::env::temp_dir();
    let (key, certificate) = (folder.join("grpcmesh-lab-fx.key"), folder.join("grpcmesh-lab-fx.crt"));
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fx.example.com", "-keyout"])
        .args([key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output();
    assert!(output.unwrap().status.success());
    let indented = |path: &std::path::Path| std::fs::read_to_string(path).unwrap().replace('\n', "\n    ");
    let secret = format!(
        "---
apiVersion: v1
kind: Secret
metadata: {{name: fx, namespace: web}}
type: kubernetes.io/tls
stringData:
  tls.key: |
    {}
  tls.crt: |
    {}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {{name: fx, namespace: web}}
rules: [{{apiGroups: [''], resources: [secrets], verbs: [list]}}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: fx, namespace: web}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: fx}}
subjects: [{{kind: ServiceAccount, name: default, namespace: web}}]
",
        indented(&key),
        indented(&certificate)
    );
    for file in [key, certificate] {
        std::fs::remove_file(file).unwrap();
    }
    // istiod caches for a minute who may not read Secrets: allow it before the Gateway exists.
    let with_secret = Scenario::apply_without_waiting(&lab, &format!("{secret}---{gateway}"));
    let (code, report) = diff(&lab, &["--wait=20s"]);
    assert_eq!(code, 0, "{report:#}");
    drop(with_secret);

    let _without_secret =
        Scenario::apply_without_waiting(&lab, &gateway.replace("credentialName: fx", "credentialName: fx-none"));
    let (code, report) = diff(&lab, &[]);
    assert_eq!((code, &report["counts"]["proxies"]["different"]), (1, &Value::from(1)), "{report:#}");
    assert!(report["proxies"].to_string().contains("certificate kubernetes://fx-none"), "{report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn compares_everything_that_no_envoy_filter_patches() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let _objects = Scenario::apply(
        &lab,
        "
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: fx, namespace: web}
spec:
  workloadSelector: {labels: {app: client}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_OUTBOUND}
    patch: {operation: MERGE, value: {route: {timeout: 7s}}}
",
    );
    let (code, report) = diff(&lab, &[]);
    let proxy = proxy_of(&report, &client);
    assert_eq!(code, 4, "{report:#}");
    assert_eq!(proxy["state"], "synced", "its clusters are compared: {proxy:#}");
    assert!(proxy["not_compared"][0].as_str().unwrap().contains("EnvoyFilter web/fx"), "{proxy:#}");
    let others = report["proxies"].as_array().unwrap().iter().filter(|proxy| proxy["not_compared"].is_array());
    assert_eq!(others.count(), 1, "the EnvoyFilter for metrics patches neither routes nor clusters: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn files_are_compared_by_a_server_side_dry_run() {
    let lab = Lab::connect();
    let file = std::env::temp_dir().join("grpcmesh-lab-diff.yaml");
    let yaml = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: shop}
spec:
  host: echo
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fx, namespace: shop}
spec:
  hosts: [echo]
  http:
  - retries: {attempts: 1, retryOn: aborted}
    route:
    - {destination: {host: echo}}
---
apiVersion: v1
kind: Service
metadata: {name: ledger, namespace: shop}
spec:
  selector: {app: ledger}
  ports:
  - {name: grpc, port: 7071, targetPort: grpc}
";
    std::fs::write(&file, yaml).unwrap();
    let (code, report) = diff(&lab, &["--no-proxies", "-f", file.to_str().unwrap()]);
    let object = |kind: &str, name: &str| {
        let mut all = report["objects"].as_array().unwrap().iter();
        let is_named = |entry: &&Value| entry["object"]["kind"] == kind && entry["object"]["name"] == name;
        all.find(is_named).unwrap_or_else(|| panic!("{kind} {name}: {report:#}")).clone()
    };
    assert_eq!(code, 1);
    assert_eq!(object("DestinationRule", "echo")["state"], "differs");
    // Fields that the API server defaults are no difference.
    assert_eq!(object("Service", "ledger")["state"], "same");
    let rejected = object("VirtualService", "fx");
    assert!(rejected["notes"][0].as_str().unwrap().contains("not a valid retryOn policy"), "{rejected:#}");
    assert!(
        lab.kubectl_output(&["get", "virtualservice", "-n", "shop", "fx"], "").status.code() != Some(0),
        "nothing is stored"
    );
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn files_are_merged_offline_without_the_permission_to_patch() {
    let lab = Lab::connect();
    let role = include_str!("../../docs/rbac/reader.yaml");
    let account = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: fx-reader, namespace: legacy}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fx-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-reader}
subjects: [{kind: ServiceAccount, name: fx-reader, namespace: legacy}]
";
    let _objects = Scenario::apply_without_waiting(&lab, &format!("{role}---{account}"));
    let file = std::env::temp_dir().join("grpcmesh-lab-merged.yaml");
    let yaml = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: echo, namespace: shop}, spec: {host: ledger}}";
    std::fs::write(&file, yaml).unwrap();
    let user = "system:serviceaccount:legacy:fx-reader";
    let (code, report) = diff(&lab, &["--no-proxies", "-f", file.to_str().unwrap(), "--as", user]);
    assert_eq!((code, &report["objects"][0]["state"]), (1, &Value::from("differs")), "{report:#}");
    let notes = report["objects"][0]["notes"].to_string();
    assert!(notes.contains("patch"), "the missing permission is named: {notes}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn route_live_reports_differences_of_the_callers_envoy() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let caller = format!("web/{}", client.name);
    let route = |lab: &Lab| -> (i32, Value) {
        let arguments = ["route", "echo.shop:7070", "/lab.Echo/Unary", "--live", "--caller", &caller, "-o", "json"];
        let output = lab.grpcmesh(&arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    };
    let (code, report) = route(&lab);
    assert_eq!((code, &report["live"]["state"]), (0, &Value::from("synced")), "{report:#}");

    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let objects = Scenario::apply_without_waiting(
        &lab,
        "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fx, namespace: shop}
spec:
  hosts: [echo]
  http:
  - timeout: 3s
    route: [{destination: {host: echo, subset: v2}}]
",
    );
    std::thread::sleep(Duration::from_secs(2));
    let stale = route(&lab);
    client.signal(agent, "-CONT");
    let (code, report) = stale;
    assert_eq!((code, &report["live"]["state"]), (1, &Value::from("stale")), "{report:#}");
    let differences = report["live"]["differences"].to_string();
    assert!(
        differences.contains("backends of echo.shop") && differences.contains("timeout of echo.shop"),
        "{differences}"
    );
    drop(objects);
    lab.wait_until("the proxy catches up", Duration::from_secs(40), || route(&lab).0 == 0);
}
