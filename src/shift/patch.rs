//! Plans as JSON Patch (RFC 6902): tests of the preconditions first, then the weights and the record, and nothing else.

use serde_json::{Value, json};

use super::plan::{PlannedBackend, RulePlan};
use super::record::{LostControl, RECORD_ANNOTATION, RollbackTarget, ShiftEntry, ShiftRecord};
use super::split::{RuleSplit, backends_field, rule_pointer};
use crate::schema::Kind;

/// The weight to write for a backend. `None` leaves an absent weight absent when its effective value does not change.
pub(super) fn weight_to_write(planned: &PlannedBackend) -> Option<u64> {
    if planned.before == Some(planned.after) && planned.backend.weight.is_none() { None } else { Some(planned.after) }
}

/// The patch that writes plans and the record.
pub fn shift_patch(object: &Value, plans: &[RulePlan], record: &ShiftRecord) -> Vec<Value> {
    let mut operations = object_tests(object);
    for plan in plans {
        operations.extend(rule_tests(object, &plan.split));
        let pointer = plan.split.pointer();
        for (index, planned) in plan.backends.iter().enumerate() {
            match (planned.before, weight_to_write(planned)) {
                (Some(_), Some(weight)) if planned.backend.weight != Some(weight) => {
                    operations.push(json!({"op": "add", "path": format!("{pointer}/{index}/weight"), "value": weight}));
                }
                (Some(_), _) => {}
                (None, _) => {
                    let value = backend_body(&plan.split, planned);
                    operations.push(json!({"op": "add", "path": format!("{pointer}/-"), "value": value}));
                }
            }
        }
    }
    operations.extend(record_operations(object, record));
    operations
}

/// The patch that restores the exact weights from before an entry, or from before its last step.
///
/// # Errors
/// When the weights are not those that the entry applied.
pub fn rollback_patch(
    kind: Kind,
    object: &Value,
    entry: &ShiftEntry,
    target: RollbackTarget,
    record: &ShiftRecord,
) -> Result<Vec<Value>, LostControl> {
    let mut operations = object_tests(object);
    for rule in &entry.rules {
        let split = rule.find_unchanged(kind, object)?;
        operations.extend(rule_tests(object, &split));
        operations.extend(rule_rollback(&split, rule.weights_at(target), &rule.applied));
    }
    operations.extend(record_operations(object, record));
    Ok(operations)
}

fn rule_rollback(split: &RuleSplit, weights: &[Option<u64>], applied: &[Option<u64>]) -> Vec<Value> {
    let pointer = split.pointer();
    let mut operations = Vec::new();
    for (index, (weight, applied)) in weights.iter().zip(applied).enumerate() {
        let path = format!("{pointer}/{index}/weight");
        match (weight, applied) {
            (weight, applied) if weight == applied => {}
            (Some(weight), _) => operations.push(json!({"op": "add", "path": path, "value": weight})),
            (None, _) => operations.push(json!({"op": "remove", "path": path})),
        }
    }
    for index in (weights.len()..applied.len()).rev() {
        operations.push(json!({"op": "remove", "path": format!("{pointer}/{index}")}));
    }
    operations
}

/// The object as a rollback would leave it, with the record as it is; `None` when the weights are not those that the
/// entry applied.
pub fn rolled_back(kind: Kind, object: &Value, entry: &ShiftEntry, target: RollbackTarget) -> Option<Value> {
    let mut restored = object.clone();
    for rule in &entry.rules {
        let split = rule.find_unchanged(kind, object).ok()?;
        let weights = rule.weights_at(target);
        let backends = restored.pointer_mut(&split.pointer())?.as_array_mut()?;
        backends.truncate(weights.len());
        for (backend, weight) in backends.iter_mut().zip(weights) {
            let backend = backend.as_object_mut()?;
            match weight {
                Some(weight) => drop(backend.insert("weight".to_owned(), json!(weight))),
                None => drop(backend.remove("weight")),
            }
        }
    }
    Some(restored)
}

/// The patch that only writes the record.
///
/// # Errors
/// When the weights are not those of the newest entry of the record.
pub fn record_patch(kind: Kind, object: &Value, record: &ShiftRecord) -> Result<Vec<Value>, LostControl> {
    let mut operations = object_tests(object);
    for rule in record.entries.first().into_iter().flat_map(|entry| &entry.rules) {
        let split = rule.find_unchanged(kind, object)?;
        operations.extend(rule_tests(object, &split));
    }
    operations.extend(record_operations(object, record));
    Ok(operations)
}

/// Tests that it is the same object, unchanged since it was read, with the same record. A JSON Patch cannot test that an
/// object has no record; the resource version covers that.
fn object_tests(object: &Value) -> Vec<Value> {
    let record = record_pointer();
    let pointers = ["/metadata/uid", "/metadata/resourceVersion", &record];
    let tests = pointers.into_iter().filter_map(|pointer| {
        let value = object.pointer(pointer)?;
        Some(json!({"op": "test", "path": pointer, "value": value}))
    });
    tests.collect()
}

/// JSON Pointer to the record.
pub(super) fn record_pointer() -> String {
    format!("/metadata/annotations/{}", RECORD_ANNOTATION.replace('~', "~0").replace('/', "~1"))
}

/// Tests that the rule still has its name, conditions, backends and weights.
fn rule_tests(object: &Value, split: &RuleSplit) -> Vec<Value> {
    let rule = rule_pointer(split.kind, split.rule);
    let fields = ["name", "match", "matches", backends_field(split.kind)];
    let tests = fields.iter().filter_map(|field| {
        let path = format!("{rule}/{field}");
        let value = object.pointer(&path)?;
        Some(json!({"op": "test", "path": path, "value": value}))
    });
    tests.collect()
}

#[expect(clippy::indexing_slicing, reason = "the values are objects that this function builds")]
fn backend_body(split: &RuleSplit, planned: &PlannedBackend) -> Value {
    let backend = &planned.backend;
    if split.kind == Kind::VirtualService {
        let mut destination = json!({"host": backend.host});
        if let Some(subset) = &backend.subset {
            destination["subset"] = json!(subset);
        }
        if let Some(port) = backend.port {
            destination["port"] = json!({"number": port});
        }
        return json!({"destination": destination, "weight": planned.after});
    }
    let mut body = json!({"name": backend.host, "weight": planned.after});
    if let Some(namespace) = &backend.namespace {
        body["namespace"] = json!(namespace);
    }
    if let Some(port) = backend.port {
        body["port"] = json!(port);
    }
    body
}

fn record_operations(object: &Value, record: &ShiftRecord) -> Vec<Value> {
    let value = json!({"op": "add", "path": record_pointer(), "value": record.to_json()});
    if object.pointer("/metadata/annotations").is_some_and(Value::is_object) {
        vec![value]
    } else {
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": {}}), value]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plan::{AddableBackends, plan_rule};
    use super::super::record::{RuleRecord, ShiftState};
    use super::super::split::rule_splits;
    use super::*;

    fn apply(object: &Value, operations: &[Value]) -> Result<Value, String> {
        let patch: json_patch::Patch = serde_json::from_value(Value::from(operations.to_vec())).unwrap();
        let mut changed = object.clone();
        json_patch::patch(&mut changed, &patch).map_err(|error| error.to_string())?;
        Ok(changed)
    }

    fn entry(plans: &[RulePlan]) -> ShiftEntry {
        ShiftEntry {
            number: 1,
            session: "s".to_owned(),
            user: "me".to_owned(),
            started_at: "2026-11-21T09:00:00Z".to_owned(),
            reason: None,
            deadline: None,
            hosts: Vec::new(),
            plan: Vec::new(),
            step: 1,
            analysis: None,
            verdicts: Vec::new(),
            abort_requested_by: None,
            state: ShiftState::Open,
            message: String::new(),
            rules: plans.iter().map(RuleRecord::new).collect(),
        }
    }

    fn record(entry: &ShiftEntry) -> ShiftRecord {
        let mut record = ShiftRecord::default();
        record.push(entry.clone());
        record
    }

    /// The object without weights and annotations.
    fn without_weights(object: &Value, kind: Kind) -> Value {
        let mut plain = object.clone();
        for split in rule_splits(kind, object) {
            for index in 0..split.backends.len() {
                if let Some(backend) = plain.pointer_mut(&format!("{}/{index}", split.pointer())) {
                    backend.as_object_mut().unwrap().remove("weight");
                }
            }
        }
        plain["metadata"].as_object_mut().unwrap().remove("annotations");
        plain
    }

    /// Route objects of every kind, with fields that the schema does not have.
    fn objects() -> impl Strategy<Value = (Kind, Value)> {
        let weights = prop::collection::vec(prop::option::of(0_u64..120), 1..5);
        let kinds = prop::sample::select(vec![Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute]);
        (kinds, prop::collection::vec(weights, 1..4), any::<bool>(), any::<bool>()).prop_map(
            |(kind, rules, has_annotations, has_names)| {
                let is_virtual_service = kind == Kind::VirtualService;
                let rules = rules.iter().enumerate().map(|(rule, weights)| {
                    let backends = weights.iter().enumerate().map(|(index, weight)| {
                        let mut backend = if is_virtual_service {
                            json!({"destination": {"host": "a", "subset": format!("v{index}")}, "headers": {"x": index}})
                        } else {
                            json!({"name": format!("a-v{index}"), "port": 1, "filters": [{"type": "x", "more": rule}]})
                        };
                        if let Some(weight) = weight {
                            backend["weight"] = json!(weight);
                        }
                        backend
                    });
                    let backends: Vec<Value> = backends.collect();
                    let mut body = if is_virtual_service {
                        json!({"route": backends, "timeout": "2s"})
                    } else {
                        json!({"backendRefs": backends})
                    };
                    body["unknown"] = json!({"deep": [rule, null, 1.5]});
                    if has_names {
                        body["name"] = json!(format!("r{rule}"));
                    }
                    body
                });
                let rules: Vec<Value> = rules.collect();
                let field = if is_virtual_service { "http" } else { "rules" };
                let mut object = json!({"metadata": {"uid": "u", "resourceVersion": "7", "name": "a"},
                    "spec": {field: rules, "other": {"kept": true}}, "status": {"x": 1}});
                if has_annotations {
                    object["metadata"]["annotations"] = json!({"a/b": "c"});
                }
                (kind, object)
            },
        )
    }

    proptest! {
        #[test]
        fn a_rollback_restores_the_object_exactly(
            (kind, object) in objects(), rule in 0_usize..3, backend in 1_usize..5, hundredths in 0_u32..=10_000,
        ) {
            let all = rule_splits(kind, &object);
            let split = &all[rule % all.len()];
            let desired = format!("#{}={}.{:02}", 1 + backend % split.backends.len(), hundredths / 100, hundredths % 100);
            let Ok(planned) = plan_rule(split, &desired.parse().unwrap(), &AddableBackends::default()) else { return Ok(()) };
            let plans = [planned];
            let entry = entry(&plans);
            let shifted = apply(&object, &shift_patch(&object, &plans, &record(&entry))).unwrap();
            prop_assert_eq!(without_weights(&shifted, kind), without_weights(&object, kind));
            // The effective weights are those of the plan.
            let effective = rule_splits(kind, &shifted)[rule % all.len()].effective_weights();
            let planned: Vec<u64> = plans[0].backends.iter().map(|backend| backend.after).collect();
            if split.backends.len() > 1 || kind != Kind::VirtualService {
                prop_assert_eq!(effective, planned);
            }
            prop_assert_eq!(&ShiftRecord::from_object(&shifted).unwrap().entries[0], &entry);
            let rollback = rollback_patch(kind, &shifted, &entry, RollbackTarget::Start, &ShiftRecord::default()).unwrap();
            let mut plain = apply(&shifted, &rollback).unwrap();
            let restored = rolled_back(kind, &shifted, &entry, RollbackTarget::Start).unwrap();
            prop_assert_eq!(&restored["spec"], &plain["spec"]);
            let annotations = plain["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove(RECORD_ANNOTATION);
            if annotations.is_empty() {
                plain["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            prop_assert_eq!(plain, object);
        }

        #[test]
        fn a_change_by_another_client_is_never_overwritten(
            (kind, object) in objects(), backend in 1_usize..5, other in 0_u64..120,
        ) {
            let split = &rule_splits(kind, &object)[0];
            let desired = format!("#{}=33", 1 + backend % split.backends.len());
            let Ok(planned) = plan_rule(split, &desired.parse().unwrap(), &AddableBackends::default()) else { return Ok(()) };
            let plans = [planned];
            let entry = entry(&plans);
            let operations = shift_patch(&object, &plans, &record(&entry));
            // A change between read and write.
            let mut raced = object.clone();
            raced["metadata"]["resourceVersion"] = json!("8");
            prop_assert!(apply(&raced, &operations).is_err());
            // A change after the write.
            let shifted = apply(&object, &operations).unwrap();
            let mut changed = shifted.clone();
            let path = format!("{}/0", split.pointer());
            let before = changed.pointer(&path).unwrap()["weight"].clone();
            changed.pointer_mut(&path).unwrap()["weight"] = json!(other);
            let rollback = rollback_patch(kind, &changed, &entry, RollbackTarget::Start, &ShiftRecord::default());
            let lost = matches!(rollback, Err(LostControl::WeightsChanged(_)));
            prop_assert_eq!(lost, before != json!(other));
        }
    }

    #[test]
    fn a_rollback_removes_an_added_destination() {
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"http": [
            {"match": [{"uri": {"prefix": "/"}}], "route": [{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}}]}]}});
        let addable = AddableBackends { subsets: vec!["v2".to_owned()], services: Vec::new() };
        let plans =
            [plan_rule(&rule_splits(Kind::VirtualService, &object)[0], &"v2=10".parse().unwrap(), &addable).unwrap()];
        let entry = entry(&plans);
        let shifted = apply(&object, &shift_patch(&object, &plans, &record(&entry))).unwrap();
        assert_eq!(
            shifted["spec"]["http"][0]["route"],
            json!([{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}, "weight": 90},
                   {"destination": {"host": "a", "subset": "v2", "port": {"number": 7}}, "weight": 10}])
        );
        let none = ShiftRecord::default();
        let rollback = rollback_patch(Kind::VirtualService, &shifted, &entry, RollbackTarget::Start, &none).unwrap();
        assert_eq!(apply(&shifted, &rollback).unwrap()["spec"], object["spec"]);
    }

    #[test]
    fn the_record_drops_the_oldest_entries_and_keeps_counting() {
        let mut record = ShiftRecord::default();
        for _ in 0..400 {
            let number = record.next_number();
            record.push(ShiftEntry { number, message: "x".repeat(500), ..entry(&[]) });
        }
        assert!(record.to_json().len() <= 33 << 10 && record.entries[0].number == 400, "{}", record.to_json().len());
    }
}
