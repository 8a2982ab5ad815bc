//! A fix removes its finding and adds none: the YAML of each fix is merged into the object of the finding, as
//! `kubectl apply` would do it, and the rules run again.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpcmesh::mesh::{ResolveOptions, resolve};
use grpcmesh::rules::select::FindingSelection;
use grpcmesh::rules::{self, Finding, Severity};
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Object, Snapshot, SourceKind, SourceText};
use serde_json::{Map, Value};

/// Findings whose fix is prose, a command, or YAML with values that only the author knows, such as a certificate.
const NOT_APPLIED: &[(&str, &str)] = &[
    ("GM108", "all ports of the pod port need the same protocol, and the fix shows one of them"),
    ("GM109", "the fix is another port number, by which the entries of a Service are identified"),
    ("GM209", "the fix selects between http, tls and tcp rules"),
    ("GM215", "`destination:` is a part of a list entry"),
    ("GM216", "`host:` and `port:` are parts of a list entry"),
    ("GM226", "the fix is an object more, and its use in the rule"),
    ("GM501", "the name of the certificate is the author's"),
    ("GM515", "the name of the certificate is the author's"),
];

fn snapshot_of(texts: &[(String, String)]) -> Snapshot {
    let mut snapshot = Snapshot::new(SourceKind::Demo);
    for (path, text) in texts {
        let text = Arc::new(SourceText { path: path.clone(), text: text.clone() });
        read(&mut snapshot, text, "default", OnMalformed::KeepGoing).unwrap_or_else(|error| panic!("{error}"));
    }
    snapshot
}

fn findings(snapshot: &Snapshot) -> Vec<Finding> {
    let mesh = resolve(snapshot, &ResolveOptions::default());
    rules::run(&mesh, &FindingSelection::default()).findings
}

/// The fix as a part of an object, if it is YAML with fields of the object or of its `spec`.
fn patch_of(finding: &Finding) -> Option<Value> {
    let text: String = finding.fix.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let json = grpcmesh::snapshot::yaml::to_json(&text).ok()?.json?;
    let patch: Value = serde_json::from_str(json.get()).ok()?;
    let fields = patch.as_object()?;
    let is_whole = fields.keys().all(|key| matches!(key.as_str(), "spec" | "metadata"));
    let is_spec =
        fields.keys().all(|key| matches!(key.as_str(), "ports" | "servers" | "exportTo" | "egress" | "hosts"));
    match (is_whole, is_spec) {
        (true, _) => Some(patch),
        (false, true) => Some(Value::Object(Map::from_iter([("spec".to_owned(), patch)]))),
        (false, false) => None,
    }
}

/// Merges a patch: maps by key, lists of maps by the field that identifies an entry, other lists as a whole.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (Value::Array(entries), Value::Array(patches)) if patches.iter().all(Value::is_object) => {
            for (index, patch) in patches.iter().enumerate() {
                let identity = |value: &Value| {
                    let number = value.pointer("/port/number").or_else(|| value.get("number"));
                    number.or_else(|| value.get("port")).or_else(|| value.get("name")).cloned()
                };
                let wanted = identity(patch);
                let known = entries.iter().position(|entry| wanted.is_some() && identity(entry) == wanted);
                // A Gateway's server without a port in the patch is the first one.
                let known = known.or((wanted.is_none() && index < entries.len()).then_some(index));
                match known {
                    Some(position) => merge(&mut entries[position], patch),
                    None => entries.push(patch.clone()),
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

/// Applies a fix to the object that its comment names, or else to the object of the finding.
fn apply(snapshot: &mut Snapshot, finding: &Finding, patch: &Value) {
    let named = finding.fix.lines().next().and_then(|line| line.strip_prefix("# "));
    let named = named.and_then(|name| {
        let mut keys = snapshot.objects.keys();
        keys.find(|key| format!("{} {}/{}", key.kind.name(), key.namespace, key.name) == name).cloned()
    });
    let key = named.unwrap_or_else(|| finding.object.key());
    let object: &mut Object = snapshot.objects.get_mut(&key).expect("the object is in the source");
    let mut body: Value = serde_json::from_str(object.body.get()).unwrap();
    merge(&mut body, patch);
    object.body = serde_json::value::to_raw_value(&body).unwrap();
}

fn title(finding: &Finding) -> String {
    format!("{} {} {}", finding.code, finding.object, finding.field)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Files with faults: each alone, or for the lab's effects with the lab's mesh.
fn cases() -> Vec<(String, Vec<(String, String)>)> {
    let read_file = |path: PathBuf| (path.display().to_string(), std::fs::read_to_string(&path).unwrap());
    let files = |folder: &str| {
        let entries = std::fs::read_dir(repository(folder)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let lab = read_file(repository("tests/lab/manifests/mesh.yaml"));
    let demo = read_file(repository("src/demo/shop.yaml"));
    let mut cases = vec![("demo".to_owned(), vec![demo])];
    for path in files("tests/fixtures/failures") {
        cases.push((path.display().to_string(), vec![read_file(path)]));
    }
    for path in files("tests/lab/effects") {
        cases.push((path.display().to_string(), vec![lab.clone(), read_file(path)]));
    }
    cases
}

#[test]
fn a_fix_removes_its_finding_and_adds_none() {
    let mut applied: BTreeSet<&'static str> = BTreeSet::new();
    let mut faults = Vec::new();
    for (name, texts) in cases() {
        let before = findings(&snapshot_of(&texts));
        let titles: BTreeSet<String> = before.iter().map(title).collect();
        for finding in before.iter().filter(|finding| finding.severity != Severity::Info) {
            let is_excluded = NOT_APPLIED.iter().any(|(code, _)| *code == finding.code);
            let Some(patch) = patch_of(finding).filter(|_| !is_excluded) else { continue };
            let mut snapshot = snapshot_of(&texts);
            apply(&mut snapshot, finding, &patch);
            applied.insert(finding.code);
            let after = findings(&snapshot);
            if after.iter().any(|other| title(other) == title(finding)) {
                faults.push(format!("{name}: {} remains after\n{}", title(finding), finding.fix));
            }
            for new in after.iter().filter(|other| other.severity != Severity::Info && !titles.contains(&title(other)))
            {
                faults.push(format!(
                    "{name}: the fix of {} adds {}: {}\n{}",
                    title(finding),
                    title(new),
                    new.message,
                    finding.fix
                ));
            }
        }
    }
    assert!(applied.len() >= 8, "{applied:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}
