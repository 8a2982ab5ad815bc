//! `tail` with logging settings of the mesh, custom formats, joined calls and time limits.

use std::process::Output;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Scenario};

/// Proxies flush their access log once per second.
const FLUSH: Duration = Duration::from_millis(1500);

fn lines(output: &Output) -> Vec<Value> {
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A second access log whose format only the proxy's configuration contains.
const CUSTOM: &str = r#"
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: second-log, namespace: web}
spec:
  configPatches:
  - applyTo: NETWORK_FILTER
    match: {context: ANY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: MERGE
      value:
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: /dev/stdout
              log_format:
                json_format: {at: "%START_TIME%", raised: "%RESPONSE_FLAGS%", status: "%GRPC_STATUS(NUMBER)%",
                  path: "%REQ(:PATH)%", verb: "%REQ(:METHOD)%", to: "%UPSTREAM_CLUSTER_RAW%", id: "%REQ(X-REQUEST-ID)%"}
"#;

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn learns_a_format_from_the_configuration_of_the_proxy() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, CUSTOM);
    let client = lab.client("web");
    client.call(&["--count", "3", "--header", "x-status=5", "echo.shop.svc.cluster.local:7070"]);
    std::thread::sleep(FLUSH);
    let pod = format!("pod/{}", client.name);
    let output = lab.grpcmesh(&["tail", &pod, "-n", "web", "--tail", "6", "--all", "-o", "json"]);
    let lines = lines(&output);
    let logged = lines.iter().filter(|line| line["grpc_status"] == 5 && line["grpc_status_from"] == "logged").count();
    assert_eq!((lines.len(), logged), (6, 3), "{lines:#?}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn names_the_telemetry_that_disables_logging_and_prints_one_that_enables_it() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(
        &lab,
        "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: quiet, namespace: web}
spec:
  accessLogging:
  - providers: [{name: envoy}]
    disabled: true
",
    );
    let client = lab.client("web");
    let call = || {
        client.call(&["--count", "2", "echo.shop.svc.cluster.local:7070"]);
        std::thread::sleep(FLUSH);
    };
    let pod = format!("pod/{}", client.name);
    let tail = || lab.grpcmesh(&["tail", &pod, "-n", "web", "--since", "3s", "--all", "-o", "json"]);
    std::thread::sleep(Duration::from_secs(3));
    call();
    let output = tail();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(lines(&output).is_empty() && stderr.contains("Telemetry web/quiet disables it"), "{stderr}");
    let start = stderr.find("apiVersion:").unwrap();
    let end = stderr[start..].find("\nwarning:").map_or(stderr.len(), |offset| start + offset);
    let object = stderr[start..end].lines().filter(|line| !line.starts_with("hint")).collect::<Vec<_>>().join("\n");
    let _fix = Scenario::apply(&lab, &object);
    call();
    let output = tail();
    assert_eq!(lines(&output).len(), 2, "{object}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn joins_both_sides_of_a_call_across_namespaces() {
    let lab = Lab::connect();
    let client = lab.client("web");
    std::thread::sleep(FLUSH);
    client.call(&["--count", "3", "--header", "x-status=13", "echo.shop.svc.cluster.local:7070"]);
    std::thread::sleep(FLUSH);
    let arguments =
        ["tail", "-n", "web,shop", "-l", "app in (client,echo)", "--since", "2s", "--join", "--all", "-o", "json"];
    let calls = lines(&lab.grpcmesh(&arguments));
    let joined = calls.iter().filter(|call| {
        let sides: Vec<_> = call["lines"].as_array().unwrap().iter().map(|line| line["side"].as_str()).collect();
        sides == [Some("client"), Some("server")]
    });
    assert_eq!(joined.count(), 3, "{calls:#?}");
}

/// A server with a maximum connection age, and a route without retries.
const LIMITS: &str = "
apiVersion: v1
kind: Service
metadata: {name: aged, namespace: shop}
spec:
  selector: {app: aged}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: aged, namespace: shop}
spec:
  hosts: [aged]
  http:
  - retries: {attempts: 0}
    route:
    - destination: {host: aged}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: aged, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: aged}}
  template:
    metadata: {labels: {app: aged, version: v1}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: labapp
        command: [labapp, serve, --max-connection-age, 4s, --max-connection-age-grace, 2s]
        ports:
        - {name: grpc, containerPort: 7070}
        readinessProbe: {grpc: {port: 7070}}
";

const AGED: &str = "aged.shop.svc.cluster.local:7070";

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_summary_names_a_maximum_connection_age() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, LIMITS);
    let client = lab.client("web");
    // The first call opens the connection that carries all other calls, so they end together. The server varies the age
    // by 10%, and calls during its GOAWAY use another connection: then the test tries again.
    let mut report = Value::Null;
    let found = (0..4).any(|_| {
        client.call(&[AGED]);
        client.call(&["--count", "12", "--parallel", "12", "--header", "x-hang=12s", "--timeout", "15s", AGED]);
        std::thread::sleep(FLUSH);
        let output = lab.grpcmesh(&["tail", "deploy/aged", "-n", "shop", "--since", "6s", "--summary", "-o", "json"]);
        report = serde_json::from_slice(&output.stdout).unwrap();
        let groups = report["groups"].as_array().unwrap();
        groups.iter().any(|group| {
            group["flags"].as_array().unwrap().iter().any(|flag| ["UC", "UR", "UPE"].contains(&flag.as_str().unwrap()))
                && group["consistent_with"]
                    .as_str()
                    .is_some_and(|text| text.contains("closes connections at a maximum age"))
        })
    });
    assert!(found, "{report:#}");
}
