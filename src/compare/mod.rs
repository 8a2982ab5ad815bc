//! Compares two versions of an object and describes each change in one sentence.
//!
//! Fields that the API server manages and the order of unordered lists are ignored. Weights are compared as shares.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::snapshot::ObjectKey;

/// How two versions of an object compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ObjectState {
    /// Both sides have it without differences.
    Same,
    /// Both sides have it with differences.
    Differs,
    /// Only the first side, the desired one, has it.
    Missing,
    /// Only the second side, the live one, has it.
    Extra,
}

impl ObjectState {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The result of comparing the desired with the live version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedObject {
    pub object: ObjectKey,
    pub state: ObjectState,
    /// One sentence per change from the live to the desired version, such as `spec.http[0].timeout: 2s → none`.
    pub changes: Vec<String>,
    /// The live version as YAML, without the fields that the API server manages.
    pub before: String,
    /// The desired version as YAML, without the fields that the API server manages.
    pub after: String,
    /// Remarks on the comparison, and controllers that may manage the weights.
    pub notes: Vec<String>,
}

/// Compares the desired with the live version of an object; `None` if a side does not have it.
pub fn compare_objects(object: ObjectKey, desired: Option<&Value>, live: Option<&Value>) -> ComparedObject {
    let (desired, live) = (desired.map(without_ignored_fields), live.map(without_ignored_fields));
    let yaml = |value: &Option<Value>| {
        value.as_ref().and_then(|value| serde_saphyr::to_string(value).ok()).unwrap_or_default()
    };
    let (state, changes) = match (&desired, &live) {
        (Some(_), None) => (ObjectState::Missing, vec!["the object would be created".to_owned()]),
        (None, Some(_)) => (ObjectState::Extra, vec!["the object exists only in the second source".to_owned()]),
        (None, None) => (ObjectState::Same, Vec::new()),
        (Some(desired), Some(live)) => {
            let mut changes = Vec::new();
            collect_changes("", live, desired, &mut changes);
            (if changes.is_empty() { ObjectState::Same } else { ObjectState::Differs }, changes)
        }
    };
    ComparedObject {
        object,
        state,
        changes,
        before: yaml(&live),
        after: yaml(&desired),
        notes: live.as_ref().map(weight_owner_notes).unwrap_or_default(),
    }
}

/// Returns the object that `kubectl apply` of a file would store, computed without a server: the fields of the file
/// replace those of the live object, and fields of the last applied configuration that the file lacks are removed.
pub fn apply_offline(live: &Value, file: &Value) -> Value {
    let last_applied = live
        .pointer("/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration")
        .and_then(Value::as_str)
        .and_then(|text| serde_json::from_str::<Value>(text).ok());
    apply_fields(live, file, last_applied.as_ref())
}

fn apply_fields(live: &Value, file: &Value, last_applied: Option<&Value>) -> Value {
    match (live, file) {
        (Value::Object(live), Value::Object(file)) => {
            let mut applied = live.clone();
            for (key, value) in file {
                let before = live.get(key).unwrap_or(&Value::Null);
                let last_applied = last_applied.and_then(|fields| fields.get(key));
                applied.insert(key.clone(), apply_fields(before, value, last_applied));
            }
            for key in last_applied.and_then(Value::as_object).into_iter().flat_map(Map::keys) {
                if !file.contains_key(key) {
                    applied.remove(key);
                }
            }
            Value::Object(applied)
        }
        // Applying replaces lists, but the server fills in the same defaults again.
        (Value::Array(live), Value::Array(file)) if live.len() == file.len() => {
            Value::Array(live.iter().zip(file).map(|(live, file)| add_live_defaults(live, file)).collect())
        }
        (_, file) => file.clone(),
    }
}

/// Fields that the API server defaults: in ports of Services, and in references and matches of Gateway API routes.
const DEFAULTED_FIELDS: [&str; 8] =
    ["group", "kind", "weight", "type", "protocol", "targetPort", "nodePort", "appProtocol"];

/// A list element of a file with the defaults of the live element at the same index.
fn add_live_defaults(live: &Value, file: &Value) -> Value {
    match (live, file) {
        (Value::Object(live), Value::Object(file)) => {
            let mut merged = Map::new();
            for (key, value) in file {
                merged.insert(
                    key.clone(),
                    live.get(key).map_or_else(|| value.clone(), |live| add_live_defaults(live, value)),
                );
            }
            for (key, value) in live.iter().filter(|(key, _)| DEFAULTED_FIELDS.contains(&key.as_str())) {
                merged.entry(key.clone()).or_insert_with(|| value.clone());
            }
            Value::Object(merged)
        }
        (Value::Array(live), Value::Array(file)) if live.len() == file.len() => {
            Value::Array(live.iter().zip(file).map(|(live, file)| add_live_defaults(live, file)).collect())
        }
        (_, file) => file.clone(),
    }
}

/// Returns the JSON merge patch (RFC 7386) that turns `from` into `to`.
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

/// Removes the fields that only the API server sets: it rejects them or treats them as preconditions.
pub fn without_server_fields(file: &Value) -> Value {
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

/// Removes the fields that do not take part in a comparison.
fn without_ignored_fields(object: &Value) -> Value {
    let mut object = without_server_fields(object);
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

/// Lists whose order has no meaning.
const UNORDERED_LISTS: [&str; 8] =
    ["hosts", "gateways", "exportTo", "hostnames", "subsets", "ports", "addresses", "parentRefs"];

/// Adds the changes from `before` to `after`. `path` is empty or a field path.
fn collect_changes(path: &str, before: &Value, after: &Value, changes: &mut Vec<String>) {
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
                collect_changes(&path, before.get(key).unwrap_or(&none), after.get(key).unwrap_or(&none), changes);
            }
        }
        (Value::Array(before), Value::Array(after)) if matches!(name, "route" | "backendRefs") => {
            collect_backend_changes(path, before, after, changes);
        }
        (Value::Array(before), Value::Array(after)) => {
            let (mut before, mut after) = (before.clone(), after.clone());
            if UNORDERED_LISTS.contains(&name) {
                before.sort_by_key(Value::to_string);
                after.sort_by_key(Value::to_string);
            }
            if before.len() == after.len() {
                for (index, (before, after)) in before.iter().zip(&after).enumerate() {
                    collect_changes(&format!("{path}[{index}]"), before, after, changes);
                }
            } else {
                changes.push(format!("{path}: {} → {}", format_list(&before), format_list(&after)));
            }
        }
        // The API server treats absent and empty values alike.
        (before, after) if is_empty(before) && is_empty(after) => {}
        (before, after) => changes.push(format!("{path}: {} → {}", format_value(before), format_value(after))),
    }
}

/// Adds the changes of weighted backends, whose weights only have a meaning as shares of the sum.
fn collect_backend_changes(path: &str, before: &[Value], after: &[Value], changes: &mut Vec<String>) {
    let names_after = backend_names(after);
    // The order of backends has no meaning: sort them as on the other side.
    let mut before: Vec<Value> = before.to_vec();
    let position = |name: &String| names_after.iter().position(|other| other == name).unwrap_or(usize::MAX);
    let mut order: Vec<(usize, Value)> = backend_names(&before).iter().map(position).zip(before.drain(..)).collect();
    order.sort_by_key(|(position, _)| *position);
    let before: Vec<Value> = order.into_iter().map(|(_, backend)| backend).collect();
    let names_before = backend_names(&before);
    let (shares_before, shares_after) = (share_percents(&before), share_percents(after));
    if names_before == names_after {
        let pairs = names_before.iter().zip(shares_before.iter().zip(&shares_after));
        let moved: Vec<String> = pairs
            .filter(|(_, (before, after))| (*before - *after).abs() > 0.005)
            .map(|(name, (before, after))| format!("{name} {}% → {}%", format_percent(*before), format_percent(*after)))
            .collect();
        if !moved.is_empty() {
            changes.push(format!("{path}: {}", moved.join(", ")));
        }
        for (index, (before, after)) in before.iter().zip(after).enumerate() {
            collect_changes(&format!("{path}[{index}]"), &without_weight(before), &without_weight(after), changes);
        }
        return;
    }
    let list = |names: &[String], shares: &[f64]| {
        let backends = names.iter().zip(shares).map(|(name, share)| format!("{name} {}%", format_percent(*share)));
        backends.collect::<Vec<_>>().join(", ")
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

/// The shortest names that distinguish backends: subsets, hosts, or `host/subset`.
fn backend_names(backends: &[Value]) -> Vec<String> {
    let host_and_subset = |backend: &Value| {
        let destination = backend.get("destination").unwrap_or(backend);
        let text = |key: &str| destination.get(key).and_then(Value::as_str).unwrap_or_default();
        let host = if text("host").is_empty() { text("name") } else { text("host") };
        (host.to_owned(), text("subset").to_owned())
    };
    let backends: Vec<(String, String)> = backends.iter().map(host_and_subset).collect();
    let subsets: BTreeSet<&String> = backends.iter().map(|(_, subset)| subset).collect();
    let is_subset_unique = subsets.len() == backends.len() && backends.iter().all(|(_, subset)| !subset.is_empty());
    let name = |(host, subset): &(String, String)| match (is_subset_unique, subset.is_empty()) {
        (true, _) => subset.clone(),
        (false, true) => host.clone(),
        (false, false) => format!("{host}/{subset}"),
    };
    backends.iter().map(name).collect()
}

/// Shares in percent. A missing weight is 0 for a VirtualService with several destinations, and 1 in Gateway API.
fn share_percents(backends: &[Value]) -> Vec<f64> {
    let default = if backends.len() == 1 || backends.iter().any(|backend| backend.get("destination").is_none()) {
        1.0
    } else {
        0.0
    };
    let weight = |backend: &Value| backend.get("weight").and_then(Value::as_f64).unwrap_or(default);
    let weights: Vec<f64> = match backends {
        // A single destination of a VirtualService gets all calls. A single Gateway API backend with weight 0 gets
        // none.
        [backend] if backend.get("destination").is_some() => vec![1.0],
        backends => backends.iter().map(weight).collect(),
    };
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|weight| if sum > 0.0 { weight * 100.0 / sum } else { 0.0 }).collect()
}

fn format_percent(share: f64) -> String {
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

fn format_value(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => format!("{{{}}}", fields.keys().cloned().collect::<Vec<_>>().join(", ")),
        Value::Array(items) => format_list(items),
        other => other.to_string(),
    }
}

fn format_list(items: &[Value]) -> String {
    if items.iter().all(Value::is_string) {
        let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
        return format!("[{}]", texts.join(", "));
    }
    if items.len() == 1 { "1 entry".to_owned() } else { format!("{} entries", items.len()) }
}

/// Returns a note for each rollout or delivery controller that manages an object and may set its weights.
pub fn weight_owner_notes(object: &Value) -> Vec<String> {
    // Match names of managers, labels, annotations and owners, but no values: those are free text.
    let metadata = &object["metadata"];
    let managers =
        metadata["managedFields"].as_array().into_iter().flatten().filter_map(|entry| entry["manager"].as_str());
    let keys = ["labels", "annotations"].into_iter().filter_map(|field| metadata[field].as_object());
    let keys = keys.flat_map(|map| map.keys().map(String::as_str));
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let owners = owners.flat_map(|owner| [owner["apiVersion"].as_str(), owner["kind"].as_str()]).flatten();
    let identifiers: Vec<String> = managers.chain(keys).chain(owners).map(str::to_lowercase).collect();
    let controllers = [
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
    let mut notes: Vec<String> = controllers
        .iter()
        .filter(|(pattern, _)| identifiers.iter().any(|identifier| identifier.contains(pattern)))
        .map(|(_, name)| format!("{name} manages this object and may set its weights"))
        .collect();
    notes.dedup();
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Kind;
    use serde_json::json;

    fn key() -> ObjectKey {
        ObjectKey { kind: Kind::VirtualService, namespace: "shop".into(), name: "checkout".into() }
    }

    fn changes(before: &Value, after: &Value) -> Vec<String> {
        compare_objects(key(), Some(after), Some(before)).changes
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
        let mut single = routes([90, 10]);
        single["spec"]["http"][0]["route"] = json!([{"destination": {"host": "checkout", "subset": "v1"}}]);
        assert_eq!(changes(&single, &routes([90, 10])), ["spec.http[0].route: v1 100% → v1 90%, v2 10%"]);
    }

    #[test]
    fn a_single_backend_may_have_weight_zero_and_order_is_ignored() {
        let route = |weight: u32| json!({"spec": {"rules": [{"backendRefs": [{"name": "a", "weight": weight}]}]}});
        assert_eq!(changes(&route(1), &route(0)), ["spec.rules[0].backendRefs: a 100% → 0%"]);
        let mut reversed = routes([90, 10]);
        reversed["spec"]["http"][0]["route"].as_array_mut().unwrap().reverse();
        assert!(changes(&routes([90, 10]), &reversed).is_empty());
    }

    #[test]
    fn reports_added_removed_and_changed_fields() {
        let (before, mut after) = (routes([90, 10]), routes([90, 10]));
        after["spec"]["http"][0].as_object_mut().unwrap().remove("timeout");
        after["spec"]["exportTo"] = json!(["."]);
        assert_eq!(changes(&before, &after), ["spec.exportTo: none → [.]", "spec.http[0].timeout: 2s → none"]);
    }

    #[test]
    fn ignores_server_managed_fields_and_the_order_of_unordered_lists() {
        let before = json!({"metadata": {"name": "a", "uid": "1", "generation": 3}, "spec": {"hosts": ["a", "b"]}, "status": {}});
        let after = json!({"metadata": {"name": "a"}, "spec": {"hosts": ["b", "a"]}});
        assert!(changes(&before, &after).is_empty());
        assert_eq!(compare_objects(key(), Some(&after), None).state, ObjectState::Missing);
    }

    #[test]
    fn applying_a_file_merges_it_into_the_live_object() {
        let last_applied = r#"{"spec": {"hosts": ["a"], "gateways": ["mesh"]}}"#;
        let live = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/last-applied-configuration": last_applied}},
            "spec": {"hosts": ["a"], "gateways": ["mesh"], "http": [{"name": "x", "added": 1}], "unmanaged": true}});
        let file = json!({"spec": {"hosts": ["b"], "http": [{"name": "y"}]}});
        let applied = apply_offline(&live, &file);
        assert_eq!(applied["spec"], json!({"hosts": ["b"], "http": [{"name": "y"}], "unmanaged": true}));
        let patch = json!({"hosts": ["b"], "gateways": null, "http": [{"name": "y"}]});
        assert_eq!(merge_patch(&live, &applied)["spec"], patch);
        // Defaults of list elements stay.
        let live =
            json!({"spec": {"rules": [{"backendRefs": [{"group": "", "kind": "Service", "name": "a", "weight": 1}]}]}});
        let file = json!({"spec": {"rules": [{"backendRefs": [{"name": "a"}]}]}});
        assert_eq!(apply_offline(&live, &file), live);
    }

    #[test]
    fn names_the_controller_that_manages_an_object() {
        let live = json!({"metadata": {"labels": {"rollouts.argoproj.io/x": "y"}}});
        assert_eq!(compare_objects(key(), Some(&live), Some(&live)).notes.len(), 1);
    }
}
