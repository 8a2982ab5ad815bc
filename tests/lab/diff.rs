//! `diff` on the mesh: in step when it is, late when it lags, and every state with its cause.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Pod, REFUSED, Scenario};

fn diff(lab: &Lab, arguments: &[&str]) -> (i32, Value) {
    let output = lab.grpcmesh(&[&["diff", "-A", "-o", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

/// The report of one pod's proxy.
fn of_pod<'r>(report: &'r Value, pod: &Pod) -> &'r Value {
    let proxies = report["proxies"].as_array().unwrap();
    proxies.iter().find(|one| one["pod"] == pod.name.as_str()).unwrap_or_else(|| panic!("{} is not there", pod.name))
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_healthy_mesh_is_in_step_by_both_ways() {
    let lab = Lab::connect();
    for way in ["port-forward", "exec"] {
        let (code, report) = diff(&lab, &["--via", way]);
        assert_eq!(code, 0, "{way}: {report:#}");
        assert!(report["counts"]["in-step"].as_u64().unwrap() >= 8, "{way}: {report:#}");
    }
    let (code, report) = diff(&lab, &["--proxies", "3"]);
    assert_eq!((code, &report["counts"]["in-step"]), (4, &Value::from(3)), "the others are not compared: {report:#}");
}

/// A small generator of numbers; the same ones in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.roll(words.len() as u64)).unwrap();
        words[at]
    }
}

/// A Service of its own with routes, policies and a Gateway API route, all chosen by the dice.
fn change(dice: &mut Dice) -> String {
    let (v1, v2) = (dice.roll(100) + 1, dice.roll(100));
    let timeout = dice.pick(&["", "timeout: 2s, ", "timeout: 0.35s, ", "timeout: 90s, "]);
    let retries = dice.pick(&[
        "",
        "retries: {attempts: 0}, ",
        "retries: {attempts: 3, retryOn: 'unavailable,503', perTryTimeout: 1s}, ",
        "retries: {attempts: 1}, ",
    ]);
    let condition = dice.pick(&[
        "uri: {prefix: /lab.Echo/}",
        "uri: {regex: '/lab[.].*'}",
        "headers: {x-canary: {exact: 'yes'}}",
        "withoutHeaders: {x-old: {}}, sourceNamespace: web",
        "headers: {x-user: {regex: '^u[0-9]+$'}}, ignoreUriCase: true, uri: {exact: /lab.Echo/Unary}",
        "sourceLabels: {app: client}, port: 7070",
    ]);
    let action = dice.pick(&[
        "route: [{destination: {host: fx, subset: v2}}]",
        "directResponse: {status: 503}",
        "route: [{destination: {host: echo}}], mirror: {host: fx, subset: v2}, mirrorPercentage: {value: 12.5}",
        "redirect: {uri: /other, redirectCode: 307}",
    ]);
    let policy = dice.pick(&[
        "{connectionPool: {http: {http2MaxRequests: 50, maxRequestsPerConnection: 9}}}",
        "{loadBalancer: {simple: ROUND_ROBIN}, outlierDetection: {consecutive5xxErrors: 3, baseEjectionTime: 1m}}",
        "{tls: {mode: ISTIO_MUTUAL}, connectionPool: {tcp: {maxConnections: 4, connectTimeout: 2s}}}",
        "{loadBalancer: {consistentHash: {httpHeaderName: x-user}}}",
        "{connectionPool: {http: {maxConcurrentStreams: 20, h2UpgradePolicy: UPGRADE}}}",
    ]);
    let port = dice.pick(&["grpc", "http", "api", "tcp-x", "grpc-web"]);
    let export = dice.pick(&["'*'", ".", "web"]);
    let kind = dice.pick(&["GRPCRoute", "HTTPRoute"]);
    let gateway_match = if kind == "GRPCRoute" {
        dice.pick(&[
            "method: {service: lab.Echo}",
            "headers: [{name: x-a, value: b}]",
            "method: {service: lab.Echo, method: Unary}",
        ])
    } else {
        dice.pick(&["path: {type: PathPrefix, value: /lab.Echo}", "path: {type: Exact, value: /lab.Echo/Unary}"])
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

/// Changes the mesh again and again; each time the proxies get there, and none is ever called different for good.
fn changes(count: usize, seed: u64) {
    let lab = Lab::connect();
    let mut dice = Dice(seed);
    let mut objects = None;
    for at in 0..count {
        let yaml = change(&mut dice);
        // What another kind leaves behind is taken away by the scenario before.
        drop(objects.take());
        objects = Some(Scenario::apply_without_waiting(&lab, &yaml));
        let (code, report) = diff(&lab, &["--wait=30s"]);
        assert_eq!(code, 0, "change {at}:\n{yaml}\n{report:#}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn changes_arrive_and_are_in_step() {
    changes(6, 1);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_two_hundred_changes_arrive_and_are_in_step() {
    changes(200, 7);
}

const MORE: &str = "
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
fn proxies_that_lag_or_do_not_answer_are_named() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let objects = Scenario::apply_without_waiting(&lab, MORE);
    let late = diff(&lab, &[]);
    client.signal(agent, "-CONT");
    let (code, report) = late;
    let one = of_pod(&report, &client);
    assert_eq!((code, &one["state"]), (1, &Value::from("late")), "{one:#}");
    assert!(one["evidence"].as_str().unwrap().contains("not accepted yet"), "{one:#}");
    assert!(one["differences"].as_array().unwrap().iter().any(|one| one["what"].as_str().unwrap().contains("fx.shop")));
    let (code, report) = diff(&lab, &["--wait=40s"]);
    assert_eq!(code, 0, "it catches up: {report:#}");
    drop(objects);

    let envoy = client.envoy();
    client.signal(envoy, "-STOP");
    let silent = diff(&lab, &["--proxy-timeout", "2s"]);
    client.signal(envoy, "-CONT");
    let (code, report) = silent;
    assert_eq!((code, &of_pod(&report, &client)["state"]), (4, &Value::from("unreachable")), "{report:#}");
    assert_eq!(report["counts"]["unreachable"], 1, "the others are compared: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_an_istiod_that_stands_still_is_named() {
    let lab = Lab::connect();
    let istiod = lab.process("istiod");
    let signal = |word: &str| assert!(Command::new("kill").args([word, &istiod]).status().unwrap().success());
    signal("-STOP");
    // A Service: Istio's own objects would wait for istiod's webhook.
    let objects = Scenario::apply_without_waiting(&lab, MORE);
    let (code, report) = diff(&lab, &[]);
    signal("-CONT");
    drop(objects);
    assert_eq!((code, &report["counts"]["not-sent"]), (1, &report["counts"]["proxies"]), "{report:#}");
    assert!(report["proxies"][0]["evidence"].as_str().unwrap().contains("no istiod answers"), "{report:#}");
    let (code, report) = diff(&lab, &["--wait=40s"]);
    assert_eq!(code, 0, "it goes on: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn what_envoy_refuses_is_told_with_its_words() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let refused = Scenario::apply_without_waiting(&lab, REFUSED);
    std::thread::sleep(Duration::from_secs(2));
    let (code, last) = diff(&lab, &[]);
    assert_eq!((code, &of_pod(&last, &client)["state"]), (1, &Value::from("refused")), "{last:#}");
    assert!(of_pod(&last, &client)["evidence"].as_str().unwrap().contains("istio.stats"), "{last:#}");
    drop(refused);
    lab.wait("it takes the next ones", Duration::from_secs(20), || diff(&lab, &[]).0 == 0);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_certificate_that_a_gateway_waits_for_is_named() {
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
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=fx.example.com", "-keyout"])
        .args([key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output();
    assert!(made.unwrap().status.success());
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
    // istiod remembers for a minute who may not read secrets, so that it is allowed first.
    let there = Scenario::apply_without_waiting(&lab, &format!("{secret}---{gateway}"));
    let (code, report) = diff(&lab, &["--wait=20s"]);
    assert_eq!(code, 0, "{report:#}");
    drop(there);

    let _waits =
        Scenario::apply_without_waiting(&lab, &gateway.replace("credentialName: fx", "credentialName: fx-none"));
    let (code, report) = diff(&lab, &[]);
    assert_eq!((code, &report["counts"]["different"]), (1, &Value::from(1)), "{report:#}");
    assert!(report["proxies"].to_string().contains("certificate kubernetes://fx-none"), "{report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn patched_parts_are_not_compared_and_the_rest_is() {
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
    let one = of_pod(&report, &client);
    assert_eq!(code, 4, "{report:#}");
    assert_eq!(one["state"], "in-step", "its clusters are compared: {one:#}");
    assert!(one["not_compared"][0].as_str().unwrap().contains("EnvoyFilter web/fx"), "{one:#}");
    let others = report["proxies"].as_array().unwrap().iter().filter(|one| one["not_compared"].is_array());
    assert_eq!(others.count(), 1, "the filter for metrics leaves routes and clusters alone: {report:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn files_are_tried_on_the_server() {
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
    let object = |name: &str| {
        let all = report["objects"].as_array().unwrap();
        all.iter().find(|one| one["object"] == name).unwrap_or_else(|| panic!("{name}: {report:#}")).clone()
    };
    assert_eq!(code, 1);
    assert_eq!(object("DestinationRule shop/echo")["state"], "differs");
    // Defaults are the server's own.
    assert_eq!(object("Service shop/ledger")["state"], "same");
    let refused = object("VirtualService shop/fx");
    assert!(refused["notes"][0].as_str().unwrap().contains("not a valid retryOn policy"), "{refused:#}");
    assert!(
        lab.kubectl_raw(&["get", "virtualservice", "-n", "shop", "fx"], "").status.code() != Some(0),
        "nothing is stored"
    );
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn without_the_right_to_try_files_are_laid_over() {
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
    let file = std::env::temp_dir().join("grpcmesh-lab-laid-over.yaml");
    let yaml = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: echo, namespace: shop}, spec: {host: ledger}}";
    std::fs::write(&file, yaml).unwrap();
    let user = "system:serviceaccount:legacy:fx-reader";
    let (code, report) = diff(&lab, &["--no-proxies", "-f", file.to_str().unwrap(), "--as", user]);
    assert_eq!((code, &report["objects"][0]["state"]), (1, &Value::from("differs")), "{report:#}");
    let notes = report["objects"][0]["notes"].to_string();
    assert!(notes.contains("patch"), "the missing right is named: {notes}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn route_live_says_what_the_callers_envoy_runs() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let caller = format!("web/{}", client.name);
    let route = |lab: &Lab| -> (i32, Value) {
        let words = ["route", "echo.shop:7070", "/lab.Echo/Unary", "--live", "--caller", &caller, "-o", "json"];
        let output = lab.grpcmesh(&words);
        let text = String::from_utf8_lossy(&output.stdout);
        let report = serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
        (output.status.code().unwrap(), report)
    };
    let (code, report) = route(&lab);
    assert_eq!((code, &report["live"]["state"]), (0, &Value::from("in-step")), "{report:#}");

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
    let late = route(&lab);
    client.signal(agent, "-CONT");
    let (code, report) = late;
    assert_eq!((code, &report["live"]["state"]), (1, &Value::from("late")), "{report:#}");
    let what = report["live"]["differences"].to_string();
    assert!(what.contains("backends of echo.shop") && what.contains("timeout of echo.shop"), "{what}");
    drop(objects);
    lab.wait("it catches up", Duration::from_secs(40), || route(&lab).0 == 0);
}
