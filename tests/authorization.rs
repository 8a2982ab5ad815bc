//! Compares the authorization decisions of `route` with those of Envoy: see `fixtures/authorization/README.md`.

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::TestEnv;

fn lines(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/authorization").join(name);
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes the objects of a mesh, with its mesh configuration as a ConfigMap, and its calls.
fn write_mesh(mesh: &Value) -> (PathBuf, PathBuf) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("authorization");
    std::fs::create_dir_all(&folder).unwrap();
    let id = mesh["id"].as_str().unwrap();
    let objects = folder.join(format!("{id}.yaml"));
    let config = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "istio", "namespace": "istio-system"}, "data": {"mesh": mesh["mesh"]},
    });
    std::fs::write(&objects, format!("{}\n---\n{config}\n", mesh["yaml"].as_str().unwrap())).unwrap();
    let calls: Vec<String> = mesh["calls"].as_array().unwrap().iter().map(|call| call_line(call).to_string()).collect();
    let file = folder.join(format!("{id}.calls.jsonl"));
    std::fs::write(&file, calls.join("\n")).unwrap();
    (objects, file)
}

fn call_line(call: &Value) -> Value {
    let from = &call["from"];
    let caller = format!("{}/{}", from["namespace"].as_str().unwrap(), from["pod"].as_str().unwrap());
    let mut line = json!({ "caller": caller });
    for field in ["id", "authority", "port", "path", "headers", "protocol"] {
        if let Some(value) = call.get(field) {
            line[field] = value.clone();
        }
    }
    line
}

/// The decision about a call: that of the answer, or that of all backends alike.
fn authorization(answer: &Value) -> Value {
    if !answer["authorization"].is_null() {
        return answer["authorization"].clone();
    }
    let backends = answer["backends"].as_array().cloned().unwrap_or_default();
    let mut decisions: Vec<&Value> = backends.iter().map(|backend| &backend["authorization"]).collect();
    decisions.dedup_by(|a, b| a["decision"] == b["decision"] && a["policy"] == b["policy"]);
    if let [decision] = decisions.as_slice() { (*decision).clone() } else { Value::Null }
}

/// What differs between the expected and the reported decision.
fn difference(expected: &Value, actual: &Value) -> Option<String> {
    let decision = actual["decision"].as_str().unwrap_or("nothing");
    if expected["decision"] == "closed" {
        let is_wrong = matches!(decision, "allowed" | "denied");
        return is_wrong.then(|| format!("the connection is closed, got {decision}"));
    }
    let is_accepted = match expected["accept"].as_array() {
        Some(accepted) => accepted.iter().any(|accepted| accepted == decision),
        None => expected["decision"] == decision,
    };
    if !is_accepted {
        return Some(format!("expected {}, got {decision} ({})", expected["decision"], actual["reason"]));
    }
    let compares_policy =
        expected["decision"] == "denied" && !expected["policy"].is_null() && expected["policy_unsure"].is_null();
    let rule = |value: &Value| format!("{} rule {}", value["policy"], value["rule"]);
    (compares_policy && rule(expected) != rule(actual)).then(|| format!("{}, got {}", rule(expected), rule(actual)))
}

#[test]
fn authorizes_calls_as_envoy_does() {
    let expected: BTreeMap<String, Value> =
        lines("decisions.jsonl.gz").into_iter().map(|line| (line["id"].as_str().unwrap().to_owned(), line)).collect();
    let mut differences = Vec::new();
    let mut compared = 0;
    for mesh in lines("meshes.jsonl.gz") {
        let id = mesh["id"].as_str().unwrap();
        let (objects, calls) = write_mesh(&mesh);
        let run = TestEnv::new().run(&[
            "route",
            "--calls",
            calls.to_str().unwrap(),
            "-o",
            "json",
            "--from",
            objects.to_str().unwrap(),
        ]);
        assert!([0, 1, 4].contains(&run.code()), "{run}");
        let answers = String::from_utf8(run.output.stdout).unwrap();
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        for want in expected[id]["calls"].as_array().unwrap() {
            let is_compared = want["compare"] != false || want["decision"] == "closed";
            if want["unstable"] == true || !is_compared {
                continue;
            }
            compared += 1;
            let answer = answers.iter().find(|answer| answer["id"] == want["id"]);
            let answer = answer.unwrap_or_else(|| panic!("{id} {}: no answer", want["id"]));
            if let Some(difference) = difference(want, &authorization(answer)) {
                differences.push(format!("{id} {}: {difference}", want["id"]));
            }
        }
    }
    assert!(compared >= 150, "{compared}");
    assert!(differences.is_empty(), "{} differences of {compared}:\n{}", differences.len(), differences.join("\n"));
}
