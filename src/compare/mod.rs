//! One object against another: what changes in it, said in sentences.
//!
//! What the server adds, and an order that means nothing, are no differences. Weights are compared as shares.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// How two objects stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectState {
    /// They are the same.
    Same,
    /// They differ.
    Differs,
    /// The second side lacks it.
    Missing,
    /// The first side lacks it.
    Extra,
}

impl ObjectState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs => "differs",
            Self::Missing => "missing",
            Self::Extra => "extra",
        }
    }
}

/// What was found of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedObject {
    /// `Kind namespace/name`.
    pub object: String,
    /// How the two stand to each other.
    pub state: ObjectState,
    /// A sentence for each change, from the second side to the first.
    pub changes: Vec<String>,
    /// The second side as YAML, without what the server manages.
    pub before: String,
    /// The first side.
    pub after: String,
    /// Something about how it was compared, or who else writes it.
    pub notes: Vec<String>,
}

/// Compares what is wanted with what there is.
pub fn compare(object: String, wanted: Option<&Value>, have: Option<&Value>) -> ComparedObject {
    let (wanted, have) = (wanted.map(plain), have.map(plain));
    let yaml = |value: &Option<Value>| {
        value.as_ref().and_then(|value| serde_saphyr::to_string(value).ok()).unwrap_or_default()
    };
    let (state, changes) = match (&wanted, &have) {
        (Some(_), None) => (ObjectState::Missing, vec!["it would be made".to_owned()]),
        (None, Some(_)) => (ObjectState::Extra, vec!["it is only on the second side".to_owned()]),
        (None, None) => (ObjectState::Same, Vec::new()),
        (Some(wanted), Some(have)) => {
            let mut changes = Vec::new();
            walk("", have, wanted, &mut changes);
            (if changes.is_empty() { ObjectState::Same } else { ObjectState::Differs }, changes)
        }
    };
    ComparedObject {
        object,
        state,
        changes,
        before: yaml(&have),
        after: yaml(&wanted),
        notes: have.as_ref().map(controllers).unwrap_or_default(),
    }
}

/// What applying a file would make of an object, without a server: the file's fields over those there. A field that the
/// last applied file had and this one has not goes.
pub fn merged(have: &Value, file: &Value) -> Value {
    let last = have
        .pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration")
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    over(have, file, last.as_ref())
}

fn over(have: &Value, file: &Value, last: Option<&Value>) -> Value {
    match (have, file) {
        (Value::Object(have), Value::Object(file)) => {
            let mut made = have.clone();
            for (key, value) in file {
                let before = have.get(key).unwrap_or(&Value::Null);
                made.insert(key.clone(), over(before, value, last.and_then(|last| last.get(key))));
            }
            for key in last.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                if !file.contains_key(key) {
                    made.remove(key);
                }
            }
            Value::Object(made)
        }
        // A list is replaced; what the server filled in of an element stays.
        (Value::Array(have), Value::Array(file)) if have.len() == file.len() => {
            Value::Array(have.iter().zip(file).map(|(have, file)| with_defaults(have, file)).collect())
        }
        (_, file) => file.clone(),
    }
}

/// Fields that servers fill in where a file leaves them out: of Services' ports, and of Gateway API's references and
/// matches.
const FILLED_IN: [&str; 8] = ["group", "kind", "weight", "type", "protocol", "targetPort", "nodePort", "appProtocol"];

/// An element of a file, with what the server filled in of the one in its place.
fn with_defaults(have: &Value, file: &Value) -> Value {
    match (have, file) {
        (Value::Object(have), Value::Object(file)) => {
            let mut made = Map::new();
            for (key, value) in file {
                made.insert(
                    key.clone(),
                    have.get(key).map_or_else(|| value.clone(), |have| with_defaults(have, value)),
                );
            }
            for (key, value) in have.iter().filter(|(key, _)| FILLED_IN.contains(&key.as_str())) {
                made.entry(key.clone()).or_insert_with(|| value.clone());
            }
            Value::Object(made)
        }
        (Value::Array(have), Value::Array(file)) if have.len() == file.len() => {
            Value::Array(have.iter().zip(file).map(|(have, file)| with_defaults(have, file)).collect())
        }
        (_, file) => file.clone(),
    }
}

/// The merge patch (RFC 7386) that makes `to` of `from`.
pub fn merge_patch(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for (key, value) in to {
        match from.get(key) {
            Some(before) if before == value => {}
            Some(before) if before.is_object() && value.is_object() => {
                patch.insert(key.clone(), merge_patch(before, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in from.keys().filter(|key| !to.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// A file's object without what only a server writes: it would be refused, or taken for a precondition.
pub fn sendable(file: &Value) -> Value {
    let mut file = file.clone();
    if let Some(fields) = file.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in
                ["managedFields", "managers", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"]
            {
                metadata.remove(name);
            }
        }
    }
    file
}

/// An object without what the server manages, to be compared.
fn plain(object: &Value) -> Value {
    let mut object = sendable(object);
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
    }
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        && let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut)
    {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        annotations.remove("grpcmesh.io/shift");
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
    object
}

/// Lists whose order means nothing.
const UNORDERED: [&str; 8] =
    ["hosts", "gateways", "exportTo", "hostnames", "subsets", "ports", "addresses", "parentRefs"];

/// Changes from `before` to `after`.
fn walk(path: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
    if before == after {
        return;
    }
    let name = path.rsplit('.').next().unwrap_or_default();
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let none = Value::Null;
                walk(&path, before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none), changes);
            }
        }
        (Value::Array(before), Value::Array(after)) if matches!(name, "route" | "backendRefs") => {
            backends(path, before, after, changes);
        }
        (Value::Array(before), Value::Array(after)) => {
            let (mut before, mut after) = (before.clone(), after.clone());
            if UNORDERED.contains(&name) {
                before.sort_by_key(Value::to_string);
                after.sort_by_key(Value::to_string);
            }
            if before.len() == after.len() {
                for (at, (before, after)) in before.iter().zip(&after).enumerate() {
                    walk(&format!("{path}[{at}]"), before, after, changes);
                }
            } else {
                changes.push(format!("{path}: {} → {}", count(&before), count(&after)));
            }
        }
        // Nothing, and an empty thing, are the same to the server.
        (before, after) if is_empty(before) && is_empty(after) => {}
        (before, after) => changes.push(format!("{path}: {} → {}", shown(before), shown(after))),
    }
}

/// Backends with weights, which only mean something together.
fn backends(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<String>) {
    let names_after = names(after);
    // The order of backends means nothing.
    let mut before: Vec<Value> = before.to_vec();
    let place = |name: &String| names_after.iter().position(|one| one == name).unwrap_or(usize::MAX);
    let mut order: Vec<(usize, Value)> = names(&before).iter().map(place).zip(before.drain(..)).collect();
    order.sort_by_key(|(at, _)| *at);
    let before: Vec<Value> = order.into_iter().map(|(_, one)| one).collect();
    let names_before = names(&before);
    let same_backends = names_before == names_after;
    let (shares_before, shares_after) = (shares(&before), shares(after));
    if same_backends {
        let pairs = names_before.iter().zip(shares_before.iter().zip(&shares_after));
        let moved: Vec<String> = pairs
            .filter(|(_, (before, after))| (*before - *after).abs() > 0.005)
            .map(|(name, (before, after))| format!("{name} {}% → {}%", percent(*before), percent(*after)))
            .collect();
        if !moved.is_empty() {
            changes.push(format!("{path}: {}", moved.join(", ")));
        }
        for (at, (before, after)) in before.iter().zip(after).enumerate() {
            walk(&format!("{path}[{at}]"), &without_weight(before), &without_weight(after), changes);
        }
        return;
    }
    let list = |names: &[String], shares: &[f64]| {
        let all = names.iter().zip(shares).map(|(name, share)| format!("{name} {}%", percent(*share)));
        all.collect::<Vec<_>>().join(", ")
    };
    changes.push(format!("{path}: {} → {}", list(&names_before, &shares_before), list(&names_after, &shares_after)));
}

fn without_weight(backend: &Value) -> Value {
    let mut backend = backend.clone();
    if let Some(fields) = backend.as_object_mut() {
        fields.remove("weight");
    }
    backend
}

/// The shortest names that tell backends apart.
fn names(backends: &[Value]) -> Vec<String> {
    let one = |backend: &Value| {
        let destination = backend.get("destination").unwrap_or(backend);
        let text = |key: &str| destination.get(key).and_then(Value::as_str).unwrap_or_default();
        let host = if text("host").is_empty() { text("name") } else { text("host") };
        (host.to_owned(), text("subset").to_owned())
    };
    let all: Vec<(String, String)> = backends.iter().map(one).collect();
    let subsets: BTreeSet<&String> = all.iter().map(|(_, subset)| subset).collect();
    let by_subset = subsets.len() == all.len() && all.iter().all(|(_, subset)| !subset.is_empty());
    let name = |(host, subset): &(String, String)| match (by_subset, subset.is_empty()) {
        (true, _) => subset.clone(),
        (false, true) => host.clone(),
        (false, false) => format!("{host}/{subset}"),
    };
    all.iter().map(name).collect()
}

/// Shares in percent. A missing weight is 0 for a VirtualService with several destinations, and 1 in Gateway API.
fn shares(backends: &[Value]) -> Vec<f64> {
    let default =
        if backends.len() == 1 || backends.iter().any(|one| one.get("destination").is_none()) { 1.0 } else { 0.0 };
    let weight = |one: &Value| one.get("weight").and_then(Value::as_f64).unwrap_or(default);
    let weights: Vec<f64> = match backends {
        // Alone, a destination of a VirtualService has all calls; a backend of Gateway API may have none.
        [one] if one.get("destination").is_some() => vec![1.0],
        many => many.iter().map(weight).collect(),
    };
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| if sum > 0.0 { weight * 100.0 / sum } else { 0.0 }).collect()
}

fn percent(share: f64) -> String {
    let text = format!("{share:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => format!("{{{}}}", fields.keys().cloned().collect::<Vec<_>>().join(", ")),
        Value::Array(items) => count(items),
        other => other.to_string(),
    }
}

fn count(items: &[Value]) -> String {
    if items.iter().all(Value::is_string) {
        let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        return format!("[{}]", texts.join(", "));
    }
    if items.len() == 1 { "1 entry".to_owned() } else { format!("{} entries", items.len()) }
}

/// Controllers that write weights themselves, by what they leave on an object.
pub fn controllers(object: &Value) -> Vec<String> {
    // Names of managers, labels and annotations; never their texts, in which anything may stand.
    let metadata = &object["metadata"];
    let managers = metadata["managedFields"].as_array().into_iter().flatten().filter_map(|one| one["manager"].as_str());
    let keys = ["labels", "annotations"].into_iter().filter_map(|field| metadata[field].as_object());
    let keys = keys.flat_map(|map| map.keys().map(String::as_str));
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners = owners.flat_map(|one| [one["apiVersion"].as_str(), one["kind"].as_str()]).flatten();
    let signs: Vec<String> = managers.chain(keys).chain(owners).map(str::to_lowercase).collect();
    let known = [
        ("flagger", "Flagger"),
        ("rollouts.argoproj.io", "Argo Rollouts"),
        ("rollouts-controller", "Argo Rollouts"),
        ("argo-rollouts", "Argo Rollouts"),
        ("argocd.argoproj.io", "Argo CD"),
        ("argocd-controller", "Argo CD"),
        ("kustomize-controller", "Flux"),
        ("helm-controller", "Flux"),
        ("kustomize.toolkit.fluxcd.io", "Flux"),
        ("helm.toolkit.fluxcd.io", "Flux"),
    ];
    let mut found: Vec<String> = known
        .iter()
        .filter(|(sign, _)| signs.iter().any(|one| one.contains(sign)))
        .map(|(_, name)| format!("{name} writes this object: weights may be its own"))
        .collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn changes(before: &Value, after: &Value) -> Vec<String> {
        compare("x".to_owned(), Some(after), Some(before)).changes
    }

    fn routes(weights: [u32; 2]) -> Value {
        json!({"kind": "VirtualService", "spec": {"http": [{"timeout": "2s", "route": [
            {"destination": {"host": "checkout", "subset": "v1"}, "weight": weights[0]},
            {"destination": {"host": "checkout", "subset": "v2"}, "weight": weights[1]}]}]}})
    }

    #[test]
    fn weights_are_compared_as_shares() {
        assert_eq!(changes(&routes([90, 10]), &routes([75, 25])), ["spec.http[0].route: v1 90% → 75%, v2 10% → 25%"]);
        assert!(changes(&routes([90, 10]), &routes([9, 1])).is_empty());
        let mut one = routes([90, 10]);
        one["spec"]["http"][0]["route"] = json!([{"destination": {"host": "checkout", "subset": "v1"}}]);
        assert_eq!(changes(&one, &routes([90, 10])), ["spec.http[0].route: v1 100% → v1 90%, v2 10%"]);
    }

    #[test]
    fn one_backend_without_weight_and_another_order() {
        let route = |weight: u32| json!({"spec": {"rules": [{"backendRefs": [{"name": "a", "weight": weight}]}]}});
        assert_eq!(changes(&route(1), &route(0)), ["spec.rules[0].backendRefs: a 100% → 0%"]);
        let mut turned = routes([90, 10]);
        turned["spec"]["http"][0]["route"].as_array_mut().unwrap().reverse();
        assert!(changes(&routes([90, 10]), &turned).is_empty());
    }

    #[test]
    fn fields_that_go_come_and_change() {
        let (before, mut after) = (routes([90, 10]), routes([90, 10]));
        after["spec"]["http"][0].as_object_mut().unwrap().remove("timeout");
        after["spec"]["exportTo"] = json!(["."]);
        assert_eq!(changes(&before, &after), ["spec.exportTo: none → [.]", "spec.http[0].timeout: 2s → none"]);
    }

    #[test]
    fn what_the_server_manages_and_order_without_meaning_are_no_difference() {
        let before = json!({"metadata": {"name": "a", "uid": "1", "generation": 3}, "spec": {"hosts": ["a", "b"]}, "status": {}});
        let after = json!({"metadata": {"name": "a"}, "spec": {"hosts": ["b", "a"]}});
        assert!(changes(&before, &after).is_empty());
        assert_eq!(compare("x".to_owned(), Some(&after), None).state, ObjectState::Missing);
    }

    #[test]
    fn a_file_is_laid_over_what_is_there() {
        let last = r#"{"spec": {"hosts": ["a"], "gateways": ["mesh"]}}"#;
        let have = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": last}},
            "spec": {"hosts": ["a"], "gateways": ["mesh"], "http": [{"name": "x", "added": 1}], "kept": true}});
        let file = json!({"spec": {"hosts": ["b"], "http": [{"name": "y"}]}});
        let made = merged(&have, &file);
        assert_eq!(made["spec"], json!({"hosts": ["b"], "http": [{"name": "y"}], "kept": true}));
        let patch = json!({"hosts": ["b"], "gateways": null, "http": [{"name": "y"}]});
        assert_eq!(merge_patch(&have, &made)["spec"], patch);
        // What a server fills in of an element stays.
        let have =
            json!({"spec": {"rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": "a", "weight": 1}]}]}});
        let file = json!({"spec": {"rules": [{"backendRefs": [{"name": "a"}]}]}});
        assert_eq!(merged(&have, &file), have);
    }

    #[test]
    fn controllers_are_named() {
        let have = json!({"metadata": {"labels": {"rollouts.argoproj.io/x": "y"}}});
        assert_eq!(compare("x".to_owned(), Some(&have), Some(&have)).notes.len(), 1);
    }
}
