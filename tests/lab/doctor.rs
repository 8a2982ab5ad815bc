//! `doctor` on the mesh, for users with different permissions.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::mesh::PROMETHEUS;
use crate::support::{Lab, Scenario};

/// Runs `doctor`. Returns the exit code, and state and fix by check.
fn doctor(lab: &Lab, arguments: &[&str]) -> (i32, BTreeMap<String, (String, String)>) {
    let output = lab.grpcmesh(&[&["doctor", "-o", "json"], arguments].concat());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"));
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let checks = checks.map(|check| (text(check, "id"), (text(check, "state"), text(check, "fix"))));
    (output.status.code().unwrap(), checks.collect())
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reports_what_works_in_the_cluster() {
    let lab = Lab::connect();
    lab.client("web").call(&["--count", "20", "echo.shop.svc.cluster.local:7070"]);
    let arguments = ["-n", "shop", "--prometheus", PROMETHEUS];
    lab.wait_until("Prometheus has recorded calls", std::time::Duration::from_secs(30), || {
        doctor(&lab, &arguments).1["prometheus"].0 == "ok"
    });
    let (code, checks) = doctor(&lab, &arguments);
    let ids = [
        "cluster",
        "istio/version",
        "proxies/version",
        "gateway-api/version",
        "rights/reader",
        "rights/live-reader",
        "rights/shifter",
        "logs/shop",
        "istiod/reach",
        "proxies/reach",
        "prometheus",
    ];
    for id in ids {
        assert_eq!(checks.get(id).map(|check| check.0.as_str()), Some("ok"), "{id}: {checks:#?}");
    }
    assert_eq!(code, 0, "a plugin that is not on PATH is a warning: {checks:#?}");
    let (code, checks) = doctor(&lab, &["--prometheus", "http://127.0.0.1:9"]);
    assert_eq!((code, checks["prometheus"].0.as_str()), (1, "failed"));
    let off = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: fx, namespace: shop}
spec:
  accessLogging:
  - disabled: true
";
    let _objects = Scenario::apply(&lab, off);
    let (_, checks) = doctor(&lab, &["-n", "shop"]);
    let (state, fix) = &checks["logs/shop"];
    assert!(state == "warning" && fix.contains("name: fx"), "{checks:#?}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn printed_roles_are_sufficient() {
    let lab = Lab::connect();
    let account = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: fx-doctor, namespace: legacy}
";
    let _objects = Scenario::apply(&lab, account);
    let user = "system:serviceaccount:legacy:fx-doctor";
    let (code, checks) = doctor(&lab, &["--as", user, "-n", "shop"]);
    assert_eq!(code, 1);
    let mut printed = String::new();
    for name in ["reader", "live-reader", "shifter"] {
        let (state, fix) = &checks[&format!("rights/{name}")];
        assert_eq!(state, "failed", "{name}");
        printed += &format!(
            "{fix}---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: fx-{name}, namespace: shop}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: grpcmesh-{name}}}
subjects: [{{kind: ServiceAccount, name: fx-doctor, namespace: legacy}}]
---
"
        );
    }
    // Permissions on cluster-scoped resources are printed as a ClusterRole.
    printed += "apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: fx-cluster-scoped}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-reader}
subjects: [{kind: ServiceAccount, name: fx-doctor, namespace: legacy}]
";
    let _roles = Scenario::apply(&lab, &printed);
    let (_, checks) = doctor(&lab, &["--as", user, "-n", "shop"]);
    for name in ["reader", "live-reader", "shifter"] {
        let (state, fix) = &checks[&format!("rights/{name}")];
        assert_eq!(state, "warning", "all permissions in this namespace: {checks:#?}");
        assert!(fix.contains("ClusterRoleBinding"), "{fix}");
    }
}
