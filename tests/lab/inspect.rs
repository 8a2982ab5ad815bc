//! `inspect` and `snapshot` against the real API server.

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
    let names: Vec<_> = live["services"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["outside", "echo", "echo-headless", "ledger"], "gateways and istiod are no gRPC Services");
    let bad = live["findings"].as_array().unwrap().iter().filter(|one| one["severity"] != "info").count();
    assert_eq!(bad, 0, "the lab's own mesh is healthy: {:#?}", live["findings"]);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_reader_with_the_documented_role_gets_the_same_answer_and_one_without_rights_gets_gaps() {
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
    assert!(services.iter().any(|one| one["name"] == "echo"), "{report:#}");
    let gaps: Vec<String> = report["gaps"].as_array().unwrap().iter().map(Value::to_string).collect();
    for kind in ["virtualservices", "destinationrules", "peerauthentications"] {
        assert!(gaps.iter().any(|gap| gap.contains(kind) && gap.contains("forbidden")), "{kind}: {gaps:#?}");
    }
    let affected = services[0]["affected_by_gaps"].to_string();
    assert!(affected.contains("VirtualService"), "the report lists the parts that gaps make incomplete: {affected}");

    let nobody = lab.grpcmesh(&["inspect", "-n", "legacy", "--as", &user("narrow")]);
    let stderr = String::from_utf8_lossy(&nobody.stderr);
    assert!(nobody.status.code() == Some(3) && stderr.contains("cannot list any object"), "{stderr}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn an_api_server_that_stops_is_given_up_in_time() {
    let lab = Lab::connect();
    let pid = std::fs::read_to_string(lab.path("pids/kube-apiserver")).unwrap();
    let pid = pid.split(' ').next().unwrap().to_owned();
    let signal =
        |name: &str| assert!(std::process::Command::new("kill").args([name, &pid]).status().unwrap().success());
    signal("-STOP");
    let start = Instant::now();
    let output = lab.grpcmesh(&["inspect", "-A", "--request-timeout", "2s"]);
    let took = start.elapsed();
    signal("-CONT");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("did not answer") && output.stdout.is_empty(), "{stderr}");
    assert!(took < Duration::from_secs(8), "{took:?}");
    lab.wait_until("the API server answers again", Duration::from_secs(30), || {
        lab.kubectl_output(&["get", "--raw", "/readyz"], "").status.success()
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_connection_that_is_cut_in_the_middle_of_a_list_is_an_error_or_a_gap_and_never_half_a_list() {
    let lab = Lab::connect();
    let whole = lab.inspect(&["-A"])["services"].as_array().unwrap().len();
    // Something between us and the server that passes so many bytes and then closes.
    for bytes in [2_000, 20_000, 60_000, 200_000] {
        let proxy = crate::support::byte_limited_proxy::ByteLimitedProxy::new(bytes);
        let url = format!("https://127.0.0.1:{}", proxy.port());
        let output = lab.grpcmesh(&["inspect", "-A", "-o", "json", "--exit-zero", "--server", &url]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(3) => assert!(output.stdout.is_empty() && stderr.contains("error:"), "{bytes}: {stderr}"),
            Some(0 | 4) => {
                let report: Value = serde_json::from_slice(&output.stdout).unwrap();
                let shown = report["services"].as_array().unwrap().len();
                let gaps = report["gaps"].to_string();
                assert!(
                    shown == whole || gaps.contains("\"services\"") || gaps.contains("services"),
                    "{bytes}: {gaps}"
                );
            }
            other => panic!("{bytes}: exit {other:?}: {stderr}"),
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_mesh_is_as_independent_witnesses_say() {
    let lab = Lab::connect();
    let status = lab.istioctl(&["proxy-status"]);
    assert_eq!(status.lines().count(), 9, "eight proxies: {status}");
    let client = lab.client("web");
    let seen = client.call(&["--count", "30", "echo.shop.svc.cluster.local:7070"]);
    let mut versions: Vec<_> = seen.iter().map(|one| one.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    assert_eq!(versions, ["v1", "v2"], "calls are balanced one by one");
    let routes =
        lab.istioctl(&["proxy-config", "routes", &format!("{}.{}", client.name, client.namespace), "--name", "7070"]);
    assert!(routes.contains("echo.shop"), "{routes}");
    let query = "/api/v1/query?query=sum(istio_requests_total{destination_service=%22echo.shop.svc.cluster.local%22})";
    lab.wait_until("Prometheus has counted the calls", Duration::from_secs(15), || {
        lab.http_get_literal(&format!("{}{query}", crate::support::mesh::PROMETHEUS)).contains("\"value\"")
    });
    assert!(client.admin("/server_info").contains("LIVE"));
}

/// One rule of the reader's role that is taken away, and what is named as missing then.
const WITHOUT: [(&str, &str); 8] = [
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
fn no_rule_of_the_documented_role_is_too_much() {
    let lab = Lab::connect();
    let role = include_str!("../../docs/rbac/reader.yaml");
    let account = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: fx-less, namespace: legacy}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fx-less}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-reader}
subjects: [{kind: ServiceAccount, name: fx-less, namespace: legacy}]
";
    let _objects = Scenario::apply(&lab, &format!("{role}---{account}"));
    let (head, rules) = role.split_once("rules:\n").unwrap();
    let rules: Vec<String> = rules.split("- apiGroups").skip(1).map(|rule| format!("- apiGroups{rule}")).collect();
    let mut taken = 0;
    for (mark, word) in WITHOUT {
        let is_verb = mark.starts_with("verbs");
        let less: String = if is_verb {
            rules.concat().replace(mark, "verbs: [get]")
        } else {
            rules.iter().filter(|rule| !rule.contains(mark)).cloned().collect()
        };
        taken += usize::from(!is_verb);
        let applied = lab.kubectl_output(&["apply", "-f", "-"], &format!("{head}rules:\n{less}"));
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        lab.wait_until(&format!("without {mark} {word} is missing"), std::time::Duration::from_secs(10), || {
            let output = lab.grpcmesh(&["inspect", "-A", "-o", "json", "--as", "system:serviceaccount:legacy:fx-less"]);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            let gaps = report["gaps"].to_string().to_lowercase();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            (gaps.contains("forbidden") && gaps.contains(word)) || said.contains("cannot list any object")
        });
    }
    // Argo's rollouts are not installed here: nothing of them can be missing.
    assert_eq!(taken + 1, rules.len(), "every rule but that for rollouts");
}
