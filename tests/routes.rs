//! `route` and `inspect` against the answers of istiod's own code: see `fixtures/routes/README.md`.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use grpcmesh::mesh::protocol::ProtocolFamily;
use grpcmesh::mesh::service::Resolution;
use grpcmesh::mesh::xds::{Call, CallOutcome, ProxyConfig, RouteOwner};
use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::snapshot::manifest::{self, OnMalformed};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};
use serde_json::{Value, json};

/// Runs the program on a saved mesh and gives its output.
fn run(arguments: &[&str], mesh: &Path) -> String {
    let answer = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
        .args(arguments)
        .args(["-o", "json", "--from"])
        .arg(mesh)
        .env_clear()
        .env("HOME", "/nonexistent")
        .output()
        .unwrap();
    let code = answer.status.code();
    assert!(matches!(code, Some(0 | 1 | 4)), "{code:?}: {}", String::from_utf8_lossy(&answer.stderr));
    String::from_utf8(answer.stdout).unwrap()
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routes/cases.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes the mesh of a case where commands find it.
fn saved(case: &Value, purpose: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(purpose);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{}.yaml", case["id"].as_str().unwrap()));
    std::fs::write(&file, case["mesh"].as_str().unwrap()).unwrap();
    file
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Backends that get calls, by host, port and subset, with their share.
fn shares(backends: &[Value]) -> Value {
    let total: f64 = backends.iter().filter_map(|one| one["weight"].as_f64()).sum();
    let mut found: BTreeMap<(String, u64, String), f64> = BTreeMap::new();
    for one in backends {
        let key = (text(&one["host"]), one["port"].as_u64().unwrap_or(0), text(&one["subset"]));
        let alone = backends.len() == 1 || total == 0.0;
        *found.entry(key).or_default() += if alone { 1.0 } else { one["weight"].as_f64().unwrap_or(0.0) / total };
    }
    let rounded = |share: f64| (share * 1e4).round() / 1e4;
    let shown = found.into_iter().filter(|(_, share)| *share > 0.0);
    shown.map(|((host, port, subset), share)| json!([host, port, subset, rounded(share)])).collect()
}

fn distinct(mut values: Vec<Value>) -> Value {
    values.sort_by_key(ToString::to_string);
    values.dedup();
    Value::Array(values)
}

/// One answer in the words of the fixtures.
fn view(answer: &Value, field: &str) -> Value {
    let none = Vec::new();
    let backends = answer["backends"].as_array().unwrap_or(&none);
    let used = backends.iter().filter(|one| backends.len() == 1 || one["weight"].as_u64().unwrap_or(0) > 0);
    match field {
        "owner" => match &answer["rule"] {
            Value::Null => json!(""),
            rule => json!(format!("{}/{}/{}", text(&rule["kind"]), text(&rule["namespace"]), text(&rule["name"]))),
        },
        "rule" => answer["rule"]["index"].clone(),
        "match" => answer["rule"]["match"].clone(),
        "mirrors" => distinct(answer["mirrors"].as_array().unwrap().iter().map(|one| one["cluster"].clone()).collect()),
        "backends" => shares(backends),
        "state" => distinct(used.map(|one| json!([text(&one["host"]), text(&one["subset"]), one["state"]])).collect()),
        "policy" => {
            let exists = used.filter(|one| one["state"] != "no-cluster");
            let policy = |one: &Value| {
                json!([one["host"], text(&one["subset"]), one["upstream_protocol"], text(&one["destination_rule"])])
            };
            distinct(exists.map(policy).collect())
        }
        "retries" => {
            let policy = &answer["retries"];
            if policy["attempts"].as_u64().unwrap_or(0) == 0 {
                return Value::Null;
            }
            json!({
                "on": distinct(policy["retry_on"].as_array().unwrap().iter().filter(|word| *word != "retriable-status-codes").cloned().collect()),
                "attempts": policy["attempts"],
                "per_try_timeout_ms": policy["per_try_timeout_ms"],
                "status_codes": distinct(policy["status_codes"].as_array().unwrap().clone()),
            })
        }
        "timeout_ms" | "max_grpc_timeout_ms" => json!(answer[field].as_u64().unwrap_or(0)),
        _ => answer[field].clone(),
    }
}

/// Lists are compared without regard to their order.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.clone();
            items.sort_by_key(ToString::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), sorted(value))).collect(),
        _ => value.clone(),
    }
}

#[test]
fn calls_go_where_istiod_and_envoy_send_them() {
    let mut differences = Vec::new();
    let mut compared = 0;
    for case in cases() {
        let mesh = saved(&case, "calls");
        let calls = mesh.with_extension("calls.jsonl");
        let lines: Vec<String> = case["calls"].as_array().unwrap().iter().map(|one| one["call"].to_string()).collect();
        std::fs::write(&calls, lines.join("\n")).unwrap();
        let answers: BTreeMap<String, Value> = run(&["route", "--calls", calls.to_str().unwrap()], &mesh)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|answer| (text(&answer["id"]), answer))
            .collect();
        for one in case["calls"].as_array().unwrap() {
            let id = text(&one["call"]["id"]);
            let answer = &answers[&id];
            compared += 1;
            for (field, wanted) in one["want"].as_object().unwrap() {
                let (wanted, given) = (sorted(wanted), sorted(&view(answer, field)));
                if wanted != given {
                    differences.push(format!("{} {id} {field}: istiod {wanted}, route {given}", text(&case["id"])));
                }
            }
        }
    }
    assert!(compared > 1000);
    assert!(differences.is_empty(), "{} differences of {compared}:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn ports_have_the_protocol_that_istiod_gives_them() {
    let mut compared = 0;
    for case in cases() {
        let ports = case["ports"].as_array().unwrap();
        if ports.is_empty() {
            continue;
        }
        let report: Value =
            serde_json::from_str(&run(&["inspect", "-A", "--all-services"], &saved(&case, "ports"))).unwrap();
        let mut found: BTreeMap<(String, u64, String), String> = BTreeMap::new();
        for service in report["services"].as_array().unwrap() {
            for port in service["ports"].as_array().unwrap() {
                let key = (text(&service["host"]), port["number"].as_u64().unwrap(), text(&port["name"]));
                found.insert(key, text(&port["protocol"]).to_lowercase());
            }
        }
        for port in ports {
            let key = (text(&port[0]), port[1].as_u64().unwrap(), text(&port[2]));
            assert_eq!(found.get(&key), Some(&text(&port[3])), "{} {key:?}", text(&case["id"]));
            compared += 1;
        }
    }
    assert!(compared > 50);
}

/// Pages group callers and find the owner of a host without making a route table: what they say must be what a call of
/// one of these callers gets.
#[test]
fn pages_say_what_calls_get() {
    let mut compared = 0;
    let mut differences = Vec::new();
    for case in cases() {
        let mut snapshot = Snapshot::new(SourceKind::Demo);
        let snapshot_id = text(&case["id"]);
        let text = Arc::new(SourceText { path: text(&case["id"]), text: text(&case["mesh"]) });
        manifest::read(&mut snapshot, text, "default", OnMalformed::Stop).unwrap();
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        for id in mesh.service_ids() {
            let service = mesh.service(id);
            let port = service.main_port();
            let http = service.port(port).is_some_and(|port| port.protocol.family() == ProtocolFamily::Http);
            // An alias has its target's routes; of several entries for one host, the address decides which one is met.
            let is_alias = matches!(service.resolution, Resolution::ExternalName(_));
            let alone = mesh.services_named(service.host.as_str()).len() == 1;
            if !http || is_alias || !alone || service.host.as_str().starts_with('*') {
                continue;
            }
            for view in mesh.caller_classes(id) {
                let call = Call {
                    authority: format!("{}:{port}", service.host),
                    port,
                    path: "/".to_owned(),
                    ..Call::default()
                };
                let answer = ProxyConfig::new(&mesh, view.sample.clone()).answer(&call);
                let taken_by = answer.rule.as_ref().map(|rule| &rule.object);
                let agrees = match (view.owner, answer.outcome) {
                    (_, CallOutcome::Rejected | CallOutcome::Unresolved | CallOutcome::Closed | CallOutcome::Tcp) => {
                        continue;
                    }
                    (RouteOwner::Hidden, outcome) => matches!(outcome, CallOutcome::Passthrough | CallOutcome::Blocked),
                    (RouteOwner::Default, outcome) => outcome == CallOutcome::Forward && taken_by.is_none(),
                    (RouteOwner::Config(_), CallOutcome::NoRoute) => true,
                    (RouteOwner::Config(owner), _) => {
                        taken_by.is_some_and(|object| mesh.route_configs().get(owner).objects.contains(object))
                    }
                };
                compared += 1;
                if !agrees {
                    differences.push(format!(
                        "{} {} for {:?} {:?}: page {:?}, call {:?} by {taken_by:?}",
                        snapshot_id, service.host, view.namespaces, view.pods, view.owner, answer.outcome
                    ));
                }
            }
        }
    }
    assert!(compared > 400, "{compared}");
    assert!(differences.is_empty(), "{} differences of {compared}:\n{}", differences.len(), differences.join("\n"));
}
