//! `inspect` and `snapshot` against a real API server.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Lab, Scenario};

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_snapshot_gives_the_same_answer_as_the_cluster() {
    let lab = Lab::connect();
    let file = std::env::temp_dir().join(format!("grpcmesh-lab-{}.json.gz", std::process::id()));
    let path = file.to_str().unwrap();
    let saved = lab.grpcmesh(&["snapshot", "-A", "-o", path]);
    assert_eq!(saved.status.code(), Some(0), "{}", String::from_utf8_lossy(&saved.stderr));
    let live = lab.inspect(&["-A"]);
    let offline = lab.inspect(&["-A", "--from", path]);
    std::fs::remove_file(file).unwrap();
    assert_eq!(live, offline);
    let services = live["services"].as_array().unwrap();
    let names: Vec<_> = services.iter().map(|service| service["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["outside", "echo", "echo-headless", "ledger"], "gateways and istiod are not gRPC Services");
    let faults = live["findings"].as_array().unwrap().iter().filter(|finding| finding["severity"] != "info").count();
    assert_eq!(faults, 0, "the mesh of the lab is healthy: {:#?}", live["findings"]);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_documented_reader_role_suffices_and_missing_permissions_become_gaps() {
    let lab = Lab::connect();
    let role = include_str!("../../docs/rbac/reader.yaml");
    let accounts = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: reader, namespace: legacy}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: narrow, namespace: legacy}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: lab-reader}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-reader}
subjects: [{kind: ServiceAccount, name: reader, namespace: legacy}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: lab-narrow, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: lab-narrow}
subjects: [{kind: ServiceAccount, name: narrow, namespace: legacy}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: lab-narrow}
rules:
- {apiGroups: [''], resources: [services, pods], verbs: [list]}
";
    let _objects = Scenario::apply(&lab, &format!("{role}---{accounts}"));
    let user = |name: &str| format!("system:serviceaccount:legacy:{name}");
    assert_eq!(lab.inspect(&["-A", "--as", &user("reader")]), lab.inspect(&["-A"]));

    let report = lab.inspect(&["-n", "shop", "--as", &user("narrow")]);
    let services = report["services"].as_array().unwrap();
    assert!(services.iter().any(|service| service["name"] == "echo"), "{report:#}");
    let gaps: Vec<String> = report["gaps"].as_array().unwrap().iter().map(Value::to_string).collect();
    for kind in ["virtualservices", "destinationrules", "peerauthentications"] {
        assert!(gaps.iter().any(|gap| gap.contains(kind) && gap.contains("forbidden")), "{kind}: {gaps:#?}");
    }
    let affected = services[0]["affected_by_gaps"].to_string();
    assert!(affected.contains("VirtualService"), "the report lists the parts that gaps make incomplete: {affected}");

    let forbidden = lab.grpcmesh(&["inspect", "-n", "legacy", "--as", &user("narrow")]);
    let stderr = String::from_utf8_lossy(&forbidden.stderr);
    assert!(forbidden.status.code() == Some(3) && stderr.contains("cannot list any object"), "{stderr}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_stopped_api_server_fails_the_command_within_the_request_timeout() {
    let lab = Lab::connect();
    let pid = std::fs::read_to_string(lab.path("pids/kube-apiserver")).unwrap();
    let pid = pid.split(' ').next().unwrap().to_owned();
    let signal =
        |name: &str| assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let start = Instant::now();
    let output = lab.grpcmesh(&["inspect", "-A", "--request-timeout", "2s"]);
    let duration = start.elapsed();
    signal("-CONT");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("did not answer") && output.stdout.is_empty(), "{stderr}");
    assert!(duration < Duration::from_secs(8), "{duration:?}");
    lab.wait_until("the API server answers again", Duration::from_secs(30), || {
        lab.kubectl_output(&["get", "--raw", "/readyz"], "").status.success()
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_connection_that_closes_within_a_list_causes_an_error_or_a_gap() {
    let lab = Lab::connect();
    let service_count = lab.inspect(&["-A"])["services"].as_array().unwrap().len();
    // A proxy in front of the server closes the connection after this number of bytes.
    for bytes in [2_000, 20_000, 60_000, 200_000] {
        let proxy = crate::support::byte_limited_proxy::ByteLimitedProxy::new(bytes);
        let url = format!("https://127.0.0.1:{}", proxy.port());
        let output = lab.grpcmesh(&["inspect", "-A", "-o", "json", "--exit-zero", "--server", &url]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(3) => assert!(output.stdout.is_empty() && stderr.contains("error:"), "{bytes}: {stderr}"),
            Some(0 | 4) => {
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                let is_complete = report["services"].as_array().unwrap().len() == service_count;
                let gaps = report["gaps"].to_string();
                assert!(is_complete || gaps.contains("services"), "{bytes}: {gaps}");
            }
            other => panic!("{bytes}: exit {other:?}: {stderr}"),
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_lab_mesh_works_according_to_istioctl_envoy_and_prometheus() {
    let lab = Lab::connect();
    let status = lab.istioctl(&["proxy-status"]);
    assert_eq!(status.lines().count(), 9, "eight proxies: {status}");
    let client = lab.client("web");
    let responses = client.call(&["--count", "30", "echo.shop.svc.cluster.local:7070"]);
    let mut versions: Vec<_> = responses.iter().map(|response| response.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, ["v1", "v2"], "each call is balanced, not each connection");
    let routes =
        lab.istioctl(&["proxy-config", "routes", &format!("{}.{}", client.name, client.namespace), "--name", "7070"]);
    assert!(routes.contains("echo.shop"), "{routes}");
    let query = "/api/v1/query?query=sum(istio_requests_total{destination_service=%22echo.shop.svc.cluster.local%22})";
    lab.wait_until("Prometheus has counted the calls", Duration::from_secs(15), || {
        lab.http_get_literal(&format!("{}{query}", crate::support::mesh::PROMETHEUS)).contains("\"value\"")
    });
    assert!(client.admin("/server_info").contains("LIVE"));
}

/// Text of a rule of the reader role, and a word of the gap that appears without that rule.
const GAPS_WITHOUT_RULE: [(&str, &str); 8] = [
    ("resources: [namespaces, services, pods]", "services"),
    ("resources: [configmaps]", "mesh"),
    ("resources: [deployments", "deployments"),
    ("resources: [jobs", "jobs"),
    ("resources: [endpointslices]", "endpointslices"),
    ("apiGroups: [networking.istio.io", "virtualservices"),
    ("apiGroups: [gateway.networking.k8s.io]", "grpcroutes"),
    ("verbs: [get, list]", "services"),
];

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn every_rule_of_the_documented_reader_role_is_necessary() {
    let lab = Lab::connect();
    let role = include_str!("../../docs/rbac/reader.yaml");
    let account = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: fx-reduced, namespace: legacy}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fx-reduced}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-reader}
subjects: [{kind: ServiceAccount, name: fx-reduced, namespace: legacy}]
";
    let _objects = Scenario::apply(&lab, &format!("{role}---{account}"));
    let (head, rules) = role.split_once("rules:\n").unwrap();
    let rules: Vec<String> = rules.split("- apiGroups").skip(1).map(|rule| format!("- apiGroups{rule}")).collect();
    let mut removed_rules = 0;
    for (rule_text, gap_text) in GAPS_WITHOUT_RULE {
        let is_verb = rule_text.starts_with("verbs");
        let remaining: String = if is_verb {
            rules.concat().replace(rule_text, "verbs: [get]")
        } else {
            rules.iter().filter(|rule| !rule.contains(rule_text)).cloned().collect()
        };
        removed_rules += usize::from(!is_verb);
        let applied = lab.kubectl_output(&["apply", "-f", "-"], &format!("{head}rules:\n{remaining}"));
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let user = "system:serviceaccount:legacy:fx-reduced";
        lab.wait_until(&format!("a gap for {gap_text} without {rule_text}"), Duration::from_secs(10), || {
            let output = lab.grpcmesh(&["inspect", "-A", "-o", "json", "--as", user]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let gaps = report["gaps"].to_string().to_lowercase();
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            (gaps.contains("forbidden") && gaps.contains(gap_text)) || stderr.contains("cannot list any object")
        });
    }
    // The lab has neither Argo Rollouts nor experimental kinds of Gateway API, so those rules cannot cause a gap.
    assert_eq!(removed_rules + 2, rules.len(), "every rule except those for rollouts and experimental kinds");
}
