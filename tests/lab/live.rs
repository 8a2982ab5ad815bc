//! `inspect --live` and `snapshot --proxies`: what Envoys run, read live and from a saved snapshot.

use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, REJECTED_BY_ENVOY, Scenario};

fn json(lab: &Lab, arguments: &[&str]) -> (i32, Value) {
    let output = lab.grpcmesh(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let report = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap(), report)
}

fn findings_with_code<'r>(report: &'r Value, code: &str) -> Vec<&'r Value> {
    report["findings"].as_array().unwrap().iter().filter(|finding| finding["code"] == code).collect()
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_saved_snapshot_gives_the_same_answers_as_the_proxies() {
    let lab = Lab::connect();
    let client = lab.client("web");
    client.call(&["--count", "60", "--parallel", "3", "echo.shop.svc.cluster.local:7070"]);
    let file = std::env::temp_dir().join(format!("grpcmesh-lab-live-{}.json.gz", std::process::id()));
    let path = file.to_str().unwrap();
    let output = lab.grpcmesh(&["snapshot", "--proxies", "-o", path]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let (code, diff) = json(&lab, &["diff", "--from", path, "-o", "json"]);
    let all = diff["proxies"].as_array().unwrap().len();
    assert_eq!((code, &diff["counts"]["proxies"]), (0, &serde_json::json!({"synced": all})), "{diff:#}");
    assert!(all >= 8, "{diff:#}");

    let caller = format!("web/{}", client.name);
    let route = ["route", "echo.shop:7070", "/lab.Echo/Unary", "--live", "--caller", &caller, "-o", "json"];
    let (live, saved) = (json(&lab, &route), json(&lab, &[&route[..], &["--from", path]].concat()));
    assert_eq!(live, saved);
    assert_eq!(saved.1["live"]["state"], "synced", "{saved:?}");

    let (code, page) = json(&lab, &["inspect", "echo.shop", "--live", "--from", path, "-o", "json"]);
    assert_eq!((code, &page["live"]["proxies"]), (0, &serde_json::json!({"synced": all})));
    let live = &page["services"][0]["live"];
    assert_eq!(live["proxies"].as_array().unwrap().len(), all);
    assert!(live["distribution"]["calls"].as_u64() >= Some(60), "{live:#}");
    assert_eq!(live["distribution"]["verdict"], "even", "{live:#}");
    std::fs::remove_file(file).unwrap();
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_a_rejection_and_pinned_calls_as_findings() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let objects = Scenario::apply(
        &lab,
        "
apiVersion: v1
kind: Service
metadata: {name: fx, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: api, port: 7070, appProtocol: tcp}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: fx, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [fx.example.com]
  rules:
  - backendRefs: [{name: fx, port: 7070}]
",
    );
    client.call(&["--count", "200", "fx.shop.svc.cluster.local:7070"]);
    let (_, report) = json(&lab, &["inspect", "-A", "--live", "-o", "json"]);
    let pinned = findings_with_code(&report, "GM714");
    assert_eq!(pinned.len(), 1, "{report:#}");
    assert_eq!(pinned[0]["object"]["name"], "fx");
    assert!(pinned[0]["evidence"].to_string().contains("treated as TCP"), "{pinned:#?}");
    assert_eq!(json(&lab, &["inspect", "-A", "-o", "json"]).1["live"], Value::Null, "only with --live");
    drop(objects);

    let objects = Scenario::apply_without_waiting(&lab, REJECTED_BY_ENVOY);
    std::thread::sleep(Duration::from_secs(2));
    let (code, report) = json(&lab, &["inspect", "-A", "--live", "-o", "json"]);
    let rejections = findings_with_code(&report, "GM704");
    assert_eq!((code, rejections.len()), (1, 1), "{report:#}");
    assert_eq!(rejections[0]["object"]["name"], client.name.as_str());
    assert!(rejections[0]["message"].as_str().unwrap().contains("istio.stats"), "{rejections:#?}");
    drop(objects);
    lab.wait_until("the proxy accepts the next configuration", Duration::from_secs(20), || {
        lab.grpcmesh(&["diff", "-A"]).status.success()
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_reports_an_unresponsive_proxy_as_a_finding() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let objects = Scenario::apply_without_waiting(
        &lab,
        "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: fx, namespace: shop}
spec:
  host: ledger
  trafficPolicy: {connectionPool: {http: {http2MaxRequests: 7}}}
",
    );
    let early = json(&lab, &["inspect", "-A", "--live", "-o", "json"]).1;
    std::thread::sleep(Duration::from_secs(62));
    let stale = json(&lab, &["inspect", "-A", "--live", "-o", "json"]).1;
    client.signal(agent, "-CONT");
    drop(objects);
    assert!(findings_with_code(&early, "GM705").is_empty(), "{early:#}");
    assert_eq!(findings_with_code(&stale, "GM705").len(), 1, "{stale:#}");
    lab.wait_until("the proxy catches up", Duration::from_secs(40), || lab.grpcmesh(&["diff", "-A"]).status.success());
}
