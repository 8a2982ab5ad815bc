//! What we call invalid against what a real API server with Istio's validation webhook refuses.
//!
//! `fixtures/validation.jsonl` holds 290 small objects with the answers of kube-apiserver 1.36.3 (CRDs of Istio 1.31)
//! and istiod 1.31.0, asked with `kubectl apply --dry-run=server` and `istioctl validate`.

use std::sync::Arc;

use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::rules;
use grpcmesh::rules::Severity;
use grpcmesh::rules::select::{FindingSelection, FindingSelector};
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};

#[derive(serde::Deserialize)]
struct Case {
    case: String,
    kind: String,
    spec: serde_json::Value,
    refused: bool,
    why: String,
}

/// Refused, and not judged by us: SNI hosts outside the VirtualService's hosts, and a Maglev table that is not prime.
const NOT_JUDGED: &[&str] = &["tls", "lbmaglev"];

/// Accepted, and an error all the same: the server has TLS settings and still serves in the clear (GM501).
const ACCEPTED_AND_WRONG: &[&str] = &["gwgrpccredonly", "gwhttppassthrough"];

fn complaints(case: &Case) -> Vec<String> {
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
fn what_the_server_refuses_is_an_error_and_nothing_else() {
    let text = include_str!("fixtures/validation.jsonl");
    let cases: Vec<Case> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(cases.len() > 250);
    let mut wrong = Vec::new();
    for case in &cases {
        let complaints = complaints(case);
        let name = case.case.as_str();
        let expected = (case.refused && !NOT_JUDGED.contains(&name)) || ACCEPTED_AND_WRONG.contains(&name);
        if complaints.is_empty() == expected {
            wrong.push(format!(
                "{} refused={} {}\n    {}\n    {complaints:?}",
                case.case, case.refused, case.why, case.spec
            ));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
