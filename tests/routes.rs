//! Compares `route` and `inspect` with the output of istiod's own code: see `fixtures/routes/README.md`.

mod support;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpcmesh::mesh::protocol::ProtocolFamily;
use grpcmesh::mesh::service::Resolution;
use grpcmesh::mesh::xds::{Call, CallOutcome, ProxyConfig, RouteOwner};
use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::snapshot::manifest::{self, OnMalformed};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};
use serde_json::{Value, json};
use support::TestEnv;

/// Runs the program on a mesh in a file and returns stdout.
fn run(arguments: &[&str], mesh: &Path) -> String {
    let run = TestEnv::new().run(&[arguments, &["-o", "json", "--from", mesh.to_str().unwrap()]].concat());
    assert!([0, 1, 4].contains(&run.code()), "{run}");
    String::from_utf8(run.output.stdout).unwrap()
}

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/routes/cases.jsonl.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Writes the mesh of a case to a file and returns its path.
fn write_mesh(case: &Value, purpose: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(purpose);
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{}.yaml", case["id"].as_str().unwrap()));
    std::fs::write(&file, case["mesh"].as_str().unwrap()).unwrap();
    file
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The backends that get calls, as `[host, port, subset, share]`.
fn shares(backends: &[Value]) -> Value {
    let total: f64 = backends.iter().filter_map(|backend| backend["weight"].as_f64()).sum();
    let mut shares: BTreeMap<(String, u64, String), f64> = BTreeMap::new();
    for backend in backends {
        let key = (text(&backend["host"]), backend["port"].as_u64().unwrap_or(0), text(&backend["subset"]));
        let is_only = backends.len() == 1 || total == 0.0;
        let share = if is_only { 1.0 } else { backend["weight"].as_f64().unwrap_or(0.0) / total };
        *shares.entry(key).or_default() += share;
    }
    let rounded = |share: f64| (share * 1e4).round() / 1e4;
    let used = shares.into_iter().filter(|(_, share)| *share > 0.0);
    used.map(|((host, port, subset), share)| json!([host, port, subset, rounded(share)])).collect()
}

fn distinct(mut values: Vec<Value>) -> Value {
    values.sort_by_key(ToString::to_string);
    values.dedup();
    Value::Array(values)
}

/// One field of a route report in the form that the fixtures use.
fn fixture_field(report: &Value, field: &str) -> Value {
    let no_backends = Vec::new();
    let backends = report["backends"].as_array().unwrap_or(&no_backends);
    let used = backends.iter().filter(|backend| backends.len() == 1 || backend["weight"].as_u64().unwrap_or(0) > 0);
    match field {
        "owner" => match &report["rule"] {
            Value::Null => json!(""),
            rule => json!(format!("{}/{}/{}", text(&rule["kind"]), text(&rule["namespace"]), text(&rule["name"]))),
        },
        "rule" => report["rule"]["index"].clone(),
        "match" => report["rule"]["match"].clone(),
        "mirrors" => {
            let mirrors = report["mirrors"].as_array().unwrap().iter();
            distinct(mirrors.map(|mirror| mirror["cluster"].clone()).collect())
        }
        "backends" => shares(backends),
        "state" => distinct(
            used.map(|backend| json!([text(&backend["host"]), text(&backend["subset"]), backend["state"]])).collect(),
        ),
        "policy" => {
            let existing = used.filter(|backend| backend["state"] != "no-cluster");
            let policy = |backend: &Value| {
                json!([
                    backend["host"],
                    text(&backend["subset"]),
                    backend["upstream_protocol"],
                    text(&backend["destination_rule"])
                ])
            };
            distinct(existing.map(policy).collect())
        }
        "retries" => {
            let policy = &report["retries"];
            if policy["attempts"].as_u64().unwrap_or(0) == 0 {
                return Value::Null;
            }
            let conditions = policy["retry_on"].as_array().unwrap().iter();
            let conditions = conditions.filter(|condition| *condition != "retriable-status-codes").cloned().collect();
            json!({
                "on": distinct(conditions),
                "attempts": policy["attempts"],
                "per_try_timeout_ms": policy["per_try_timeout_ms"],
                "status_codes": distinct(policy["status_codes"].as_array().unwrap().clone()),
            })
        }
        "timeout_ms" | "max_grpc_timeout_ms" => json!(report[field].as_u64().unwrap_or(0)),
        _ => report[field].clone(),
    }
}

/// Sorts all lists in a value, since their order is not compared.
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
fn decides_calls_as_istiod_and_envoy_do() {
    let mut differences = Vec::new();
    let mut compared = 0;
    for case in cases() {
        let mesh = write_mesh(&case, "calls");
        let calls = mesh.with_extension("calls.jsonl");
        let lines: Vec<String> =
            case["calls"].as_array().unwrap().iter().map(|expected| expected["call"].to_string()).collect();
        std::fs::write(&calls, lines.join("\n")).unwrap();
        let reports: BTreeMap<String, Value> = run(&["route", "--calls", calls.to_str().unwrap()], &mesh)
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap())
            .map(|report| (text(&report["id"]), report))
            .collect();
        for expected in case["calls"].as_array().unwrap() {
            let id = text(&expected["call"]["id"]);
            let report = &reports[&id];
            compared += 1;
            for (field, expected) in expected["want"].as_object().unwrap() {
                let (expected, actual) = (sorted(expected), sorted(&fixture_field(report, field)));
                if expected != actual {
                    differences.push(format!("{} {id} {field}: istiod {expected}, route {actual}", text(&case["id"])));
                }
            }
        }
    }
    assert!(compared > 1000);
    assert!(differences.is_empty(), "{} differences of {compared}:\n{}", differences.len(), differences.join("\n"));
}

#[test]
fn reports_the_port_protocols_that_istiod_selects() {
    let mut compared = 0;
    for case in cases() {
        let ports = case["ports"].as_array().unwrap();
        if ports.is_empty() {
            continue;
        }
        let report: Value =
            serde_json::from_str(&run(&["inspect", "-A", "--all-services"], &write_mesh(&case, "ports"))).unwrap();
        let mut protocols: BTreeMap<(String, u64, String), String> = BTreeMap::new();
        for service in report["services"].as_array().unwrap() {
            for port in service["ports"].as_array().unwrap() {
                let key = (text(&service["host"]), port["number"].as_u64().unwrap(), text(&port["name"]));
                protocols.insert(key, text(&port["protocol"]).to_lowercase());
            }
        }
        for port in ports {
            let key = (text(&port[0]), port[1].as_u64().unwrap(), text(&port[2]));
            assert_eq!(protocols.get(&key), Some(&text(&port[3])), "{} {key:?}", text(&case["id"]));
            compared += 1;
        }
    }
    assert!(compared > 50);
}

/// Pages group callers and find the owner of a host without building a route table. A call of one of these callers must
/// have the same owner.
#[test]
fn pages_and_calls_agree_on_the_route_owner() {
    let mut compared = 0;
    let mut differences = Vec::new();
    for case in cases() {
        let mut snapshot = Snapshot::new(SourceKind::Demo);
        let case_id = text(&case["id"]);
        let text = Arc::new(SourceText { path: text(&case["id"]), text: text(&case["mesh"]) });
        manifest::read(&mut snapshot, text, "default", OnMalformed::Stop).unwrap();
        let mesh = resolve(&snapshot, &ResolveOptions::default());
        for id in mesh.service_ids() {
            let service = mesh.service(id);
            let port = service.main_port();
            let is_http = service.port(port).is_some_and(|port| port.protocol.family() == ProtocolFamily::Http);
            // An alias uses its target's routes. With several entries for one host, the dialed address selects one.
            let is_alias = matches!(service.resolution, Resolution::ExternalName(_));
            let has_unique_host = mesh.services_named(service.host.as_str()).len() == 1;
            if !is_http || is_alias || !has_unique_host || service.host.as_str().starts_with('*') {
                continue;
            }
            for class in mesh.caller_classes(id) {
                let call = Call {
                    authority: format!("{}:{port}", service.host),
                    port,
                    path: "/".to_owned(),
                    ..Call::default()
                };
                let decision = ProxyConfig::new(&mesh, class.sample.clone()).decide(&call);
                let matched = decision.rule.as_ref().map(|rule| &rule.object);
                let agrees = match (class.route_owner, decision.outcome) {
                    (_, CallOutcome::Rejected | CallOutcome::Unresolved | CallOutcome::Closed | CallOutcome::Tcp) => {
                        continue;
                    }
                    (RouteOwner::Hidden, outcome) => matches!(outcome, CallOutcome::Passthrough | CallOutcome::Blocked),
                    (RouteOwner::Default, outcome) => outcome == CallOutcome::Forward && matched.is_none(),
                    (RouteOwner::Config(_), CallOutcome::NoRoute) => true,
                    (RouteOwner::Config(owner), _) => {
                        matched.is_some_and(|object| mesh.route_configs().get(owner).objects.contains(object))
                    }
                };
                compared += 1;
                if !agrees {
                    differences.push(format!(
                        "{} {} for {:?} {:?}: page {:?}, call {:?} by {matched:?}",
                        case_id, service.host, class.namespaces, class.pod_labels, class.route_owner, decision.outcome
                    ));
                }
            }
        }
    }
    assert!(compared > 400, "{compared}");
    assert!(differences.is_empty(), "{} differences of {compared}:\n{}", differences.len(), differences.join("\n"));
}
