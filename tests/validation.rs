//! Compares the findings about invalid values with a real API server and Istio's validation webhook.
//!
//! `fixtures/validation.jsonl` holds 290 small objects with the responses of kube-apiserver 1.36.3 (CRDs of Istio 1.31) and
//! istiod 1.31.0, recorded with `kubectl apply --dry-run=server` and `istioctl validate`.

use std::sync::Arc;

use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::rules;
use grpcmesh::rules::Severity;
use grpcmesh::rules::select::{FindingSelection, FindingSelector};
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};

#[derive(serde::Deserialize)]
struct ValidationCase {
    #[serde(rename = "case")]
    name: String,
    kind: String,
    spec: serde_json::Value,
    rejected: bool,
    reason: String,
}

/// Rejected by the server, but not checked here: SNI hosts outside the VirtualService's hosts, and a Maglev table size that
/// is not prime.
const NOT_CHECKED: &[&str] = &["tls", "lbmaglev"];

/// Accepted by the server, but an error here: the Gateway server has TLS settings and serves plaintext (GM501).
const ACCEPTED_BUT_WRONG: &[&str] = &["gwgrpccredonly", "gwhttppassthrough"];

fn errors(case: &ValidationCase) -> Vec<String> {
    let object = serde_json::json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": case.kind,
        "metadata": {"name": "x", "namespace": "shop"},
        "spec": case.spec,
    });
    let mut snapshot = Snapshot::new(SourceKind::Demo);
    let text = Arc::new(SourceText { path: "case".to_owned(), text: object.to_string() });
    read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
    let only = ["GM002", "GM003", "GM301", "GM302", "GM501", "GM502"];
    let only = only.iter().map(|code| FindingSelector::parse(code).unwrap()).collect();
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let outcome = rules::run(&mesh, &FindingSelection { only, skip: Vec::new() });
    outcome
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("{} {}: {}", finding.code, finding.field, finding.message))
        .collect()
}

#[test]
fn reports_errors_exactly_for_objects_that_the_server_rejects() {
    let text = include_str!("fixtures/validation.jsonl");
    let cases: Vec<ValidationCase> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 250);
    let mut mismatches = Vec::new();
    for case in &cases {
        let errors = errors(case);
        let name = case.name.as_str();
        let is_error_expected = (case.rejected && !NOT_CHECKED.contains(&name)) || ACCEPTED_BUT_WRONG.contains(&name);
        if errors.is_empty() == is_error_expected {
            mismatches.push(format!(
                "{} rejected={} {}\n    {}\n    {errors:?}",
                case.name, case.rejected, case.reason, case.spec
            ));
        }
    }
    assert!(mismatches.is_empty(), "{} of {} differ:\n{}", mismatches.len(), cases.len(), mismatches.join("\n"));
}
