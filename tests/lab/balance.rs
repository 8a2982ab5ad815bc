//! `balance` on the mesh: its numbers equal those that the client counted itself.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Scenario};

/// Sends calls while `balance` runs. Returns the report, the exit code, and the client's own count by server.
fn measure(lab: &Lab, service: &str, calls: &[&str], arguments: &[&str]) -> (Value, i32, BTreeMap<String, u64>) {
    let client = lab.client("web");
    // Warm up before the first reading.
    client.call(&["--count", "1", calls[calls.len() - 1]]);
    let (output, counts) = std::thread::scope(|scope| {
        let arguments = [&["balance", service, "--for", "8s", "-o", "json"], arguments].concat();
        let balance = scope.spawn(move || lab.grpcmesh(&arguments));
        std::thread::sleep(Duration::from_secs(3));
        let results = client.call(calls);
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for result in &results {
            assert_eq!(result.code, 0, "{result:?}");
            *counts.entry(result.server.clone()).or_default() += 1;
        }
        (balance.join().unwrap(), counts)
    });
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (report, output.status.code().unwrap(), counts)
}

/// The calls of a report by pod, without pods that got none.
fn calls_by_pod(report: &Value) -> BTreeMap<String, u64> {
    let endpoints = report["endpoints"].as_array().unwrap().iter();
    let calls = endpoints
        .map(|endpoint| (endpoint["pod"].as_str().unwrap_or("?").to_owned(), endpoint["calls"].as_u64().unwrap()));
    calls.filter(|(_, calls)| *calls > 0).collect()
}

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: fx, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: tcp-fx, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: fx-headless, namespace: shop}
spec:
  clusterIP: None
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: fx-hash, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: fx-hash, namespace: shop}
spec:
  host: fx-hash
  trafficPolicy: {loadBalancer: {consistentHash: {httpHeaderName: x-user}}}
";

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_even_pinned_headless_hashed_and_too_few_calls() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, SERVICES);
    let many = |address: &'static str| vec!["--count", "90", "--parallel", "3", address];

    let (report, code, counts) = measure(&lab, "echo.shop", &many("echo.shop.svc.cluster.local:7070"), &[]);
    assert_eq!((&report["verdict"], code), (&Value::from("even"), 0), "{report:#}");
    assert_eq!((calls_by_pod(&report), report["calls"].as_u64()), (counts, Some(90)), "{report:#}");
    assert_eq!(report["callers"], 1, "{report:#}");

    let (report, code, counts) = measure(&lab, "fx.shop", &many("fx.shop.svc.cluster.local:7070"), &[]);
    assert_eq!((&report["verdict"], code), (&Value::from("pinned"), 1), "{report:#}");
    assert!(report["cause"].as_str().unwrap().contains("treated as TCP"), "{report:#}");
    assert_eq!(counts.len(), 1, "one connection, one server: {counts:?}");
    assert_eq!(calls_by_pod(&report).keys().collect::<Vec<_>>(), counts.keys().collect::<Vec<_>>());

    let (report, code, counts) =
        measure(&lab, "fx-headless.shop", &many("fx-headless.shop.svc.cluster.local:7070"), &[]);
    assert_eq!((&report["verdict"], code), (&Value::from("pinned"), 1), "{report:#}");
    assert!(report["cause"].as_str().unwrap().contains("headless"), "{report:#}");
    assert_eq!(calls_by_pod(&report), counts, "{report:#}");

    let hashed = ["--count", "60", "--header", "x-user=u1", "fx-hash.shop.svc.cluster.local:7070"];
    let (report, _, counts) = measure(&lab, "fx-hash.shop", &hashed, &["--via", "exec"]);
    assert_eq!(report["verdict"], "pinned", "{report:#}");
    assert!(report["cause"].as_str().unwrap().contains("consistent hash"), "{report:#}");
    assert_eq!(calls_by_pod(&report), counts, "{report:#}");

    let few = ["--count", "6", "echo.shop.svc.cluster.local:7070"];
    let (report, code, _) = measure(&lab, "echo.shop", &few, &[]);
    assert_eq!((&report["verdict"], code), (&Value::from("too-few-calls"), 0), "{report:#}");
}

/// A caller that logs the server of each call.
const LOGGING_CALLER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: talker, namespace: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: talker}}
  template:
    metadata: {labels: {app: talker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: labapp
        command: [sh, -c, 'while true; do labapp call --count 60 echo.shop.svc.cluster.local:7070; sleep 0.2; done']
";

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_server_ids_in_the_callers_logs_confirm_the_verdict() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, LOGGING_CALLER);
    let output = lab.grpcmesh(&[
        "balance",
        "echo.shop",
        "--for",
        "10s",
        "-o",
        "json",
        "--log-pattern",
        "\"server\": ?\"([^\"]+)\"",
    ]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "even", "{report:#}");
    assert_eq!(report["log_pattern"]["distinct"], 3, "{report:#}");
}
