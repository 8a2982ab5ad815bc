//! Plans as JSON Patch (RFC 6902): first what must still be so, then the weights and the record, and nothing else.

use serde_json::{Value, json};

use super::plan::{PlannedBackend, RulePlan};
use super::record::{ANNOTATION, LostControl, RollbackTarget, ShiftEntry, ShiftRecord};
use super::split::{RuleSplit, backends_field, rule_pointer};
use crate::schema::Kind;

/// The weight that a backend has afterwards, as it is written. What acts the same without being written stays so.
pub(super) fn written(one: &PlannedBackend) -> Option<u64> {
    if one.before == Some(one.after) && one.backend.weight.is_none() { None } else { Some(one.after) }
}

/// The patch for plans, with the record.
pub fn shift(object: &Value, plans: &[RulePlan], record: &ShiftRecord) -> Vec<Value> {
    let mut operations = preconditions(object);
    for plan in plans {
        operations.extend(rule_tests(object, &plan.split));
        let pointer = plan.split.pointer();
        for (at, one) in plan.backends.iter().enumerate() {
            match (one.before, written(one)) {
                (Some(_), Some(weight)) if one.backend.weight != Some(weight) => {
                    operations.push(json!({"op": "add", "path": format!("{pointer}/{at}/weight"), "value": weight}));
                }
                (Some(_), _) => {}
                (None, _) => {
                    operations
                        .push(json!({"op": "add", "path": format!("{pointer}/-"), "value": body(&plan.split, one)}));
                }
            }
        }
    }
    operations.extend(put(object, record));
    operations
}

/// The patch that gives the rules of an entry exactly the weights from before it, or before its last step.
///
/// # Errors
/// When the weights are not those that the entry wrote.
pub fn back(
    kind: Kind,
    object: &Value,
    entry: &ShiftEntry,
    to: RollbackTarget,
    record: &ShiftRecord,
) -> Result<Vec<Value>, LostControl> {
    let mut operations = preconditions(object);
    for rule in &entry.rules {
        let split = rule.find(kind, object)?;
        operations.extend(rule_tests(object, &split));
        operations.extend(rule_back(&split, rule.weights(to), &rule.wrote));
    }
    operations.extend(put(object, record));
    Ok(operations)
}

fn rule_back(split: &RuleSplit, weights: &[Option<u64>], wrote: &[Option<u64>]) -> Vec<Value> {
    let pointer = split.pointer();
    let mut operations = Vec::new();
    for (at, (weight, wrote)) in weights.iter().zip(wrote).enumerate() {
        let path = format!("{pointer}/{at}/weight");
        match (weight, wrote) {
            (weight, wrote) if weight == wrote => {}
            (Some(weight), _) => operations.push(json!({"op": "add", "path": path, "value": weight})),
            (None, _) => operations.push(json!({"op": "remove", "path": path})),
        }
    }
    for at in (weights.len()..wrote.len()).rev() {
        operations.push(json!({"op": "remove", "path": format!("{pointer}/{at}")}));
    }
    operations
}

/// The patch that only writes the record, where the weights are those of its first entry.
///
/// # Errors
/// When they are not.
pub fn note(kind: Kind, object: &Value, record: &ShiftRecord) -> Result<Vec<Value>, LostControl> {
    let mut operations = preconditions(object);
    for rule in record.entries.first().into_iter().flat_map(|entry| &entry.rules) {
        let split = rule.find(kind, object)?;
        operations.extend(rule_tests(object, &split));
    }
    operations.extend(put(object, record));
    Ok(operations)
}

/// It is the same object, and nobody wrote to it.
fn preconditions(object: &Value) -> Vec<Value> {
    let test =
        |field: &str| json!({"op": "test", "path": format!("/metadata/{field}"), "value": object["metadata"][field]});
    vec![test("uid"), test("resourceVersion")]
}

/// The rule is the one that was looked at, with these backends and weights.
fn rule_tests(object: &Value, split: &RuleSplit) -> Vec<Value> {
    let rule = rule_pointer(split.kind, split.rule);
    let fields = ["name", "match", "matches", backends_field(split.kind)];
    let there = fields.iter().filter_map(|field| {
        let path = format!("{rule}/{field}");
        let value = object.pointer(&path)?;
        Some(json!({"op": "test", "path": path, "value": value}))
    });
    there.collect()
}

/// A backend as it is written.
fn body(split: &RuleSplit, one: &PlannedBackend) -> Value {
    let backend = &one.backend;
    if split.kind == Kind::VirtualService {
        let mut destination = json!({"host": backend.host});
        if let Some(subset) = &backend.subset {
            destination["subset"] = json!(subset);
        }
        if let Some(port) = backend.port {
            destination["port"] = json!({"number": port});
        }
        return json!({"destination": destination, "weight": one.after});
    }
    let mut made = json!({"name": backend.host, "weight": one.after});
    if let Some(namespace) = &backend.namespace {
        made["namespace"] = json!(namespace);
    }
    if let Some(port) = backend.port {
        made["port"] = json!(port);
    }
    made
}

/// Writes the record.
fn put(object: &Value, record: &ShiftRecord) -> Vec<Value> {
    let escaped = ANNOTATION.replace('~', "~0").replace('/', "~1");
    let value = json!({"op": "add", "path": format!("/metadata/annotations/{escaped}"), "value": record.text()});
    if object["metadata"]["annotations"].is_object() {
        vec![value]
    } else {
        vec![json!({"op": "add", "path": "/metadata/annotations", "value": {}}), value]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::plan::{AddableBackend, plan};
    use super::super::record::{RuleRecord, ShiftState};
    use super::super::split::splits;
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
            by: "me".to_owned(),
            at: "2026-11-21T09:00:00Z".to_owned(),
            reason: None,
            until: None,
            hosts: Vec::new(),
            plan: Vec::new(),
            step: 1,
            guard: None,
            verdicts: Vec::new(),
            abort: None,
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

    /// Everything but the weights, the record and the backends that a patch may add.
    fn without_weights(object: &Value, kind: Kind) -> Value {
        let mut plain = object.clone();
        for split in splits(kind, object) {
            for at in 0..split.backends.len() {
                if let Some(one) = plain.pointer_mut(&format!("{}/{at}", split.pointer())) {
                    one.as_object_mut().unwrap().remove("weight");
                }
            }
        }
        plain["metadata"].as_object_mut().unwrap().remove("annotations");
        plain
    }

    /// A route object of any kind with fields that this program does not know.
    fn objects() -> impl Strategy<Value = (Kind, Value)> {
        let weights = prop::collection::vec(prop::option::of(0_u64..120), 1..5);
        let kinds = prop::sample::select(vec![Kind::VirtualService, Kind::HttpRoute, Kind::GrpcRoute]);
        (kinds, prop::collection::vec(weights, 1..4), any::<bool>(), any::<bool>()).prop_map(
            |(kind, rules, annotated, named)| {
                let of_istio = kind == Kind::VirtualService;
                let rules = rules.iter().enumerate().map(|(rule, weights)| {
                    let backends = weights.iter().enumerate().map(|(at, weight)| {
                        let mut one = if of_istio {
                            json!({"destination": {"host": "a", "subset": format!("v{at}")}, "headers": {"x": at}})
                        } else {
                            json!({"name": format!("a-v{at}"), "port": 1, "filters": [{"type": "x", "more": rule}]})
                        };
                        if let Some(weight) = weight {
                            one["weight"] = json!(weight);
                        }
                        one
                    });
                    let backends: Vec<Value> = backends.collect();
                    let mut body = if of_istio {
                        json!({"route": backends, "timeout": "2s"})
                    } else {
                        json!({"backendRefs": backends})
                    };
                    body["unknown"] = json!({"deep": [rule, null, 1.5]});
                    if named {
                        body["name"] = json!(format!("r{rule}"));
                    }
                    body
                });
                let rules: Vec<Value> = rules.collect();
                let field = if of_istio { "http" } else { "rules" };
                let mut object = json!({"metadata": {"uid": "u", "resourceVersion": "7", "name": "a"},
                    "spec": {field: rules, "other": {"kept": true}}, "status": {"x": 1}});
                if annotated {
                    object["metadata"]["annotations"] = json!({"a/b": "c"});
                }
                (kind, object)
            },
        )
    }

    proptest! {
        #[test]
        fn a_shift_and_the_way_back_are_nothing(
            (kind, object) in objects(), rule in 0_usize..3, backend in 1_usize..5, hundredths in 0_u32..=10_000,
        ) {
            let all = splits(kind, &object);
            let split = &all[rule % all.len()];
            let wish = format!("#{}={}.{:02}", 1 + backend % split.backends.len(), hundredths / 100, hundredths % 100);
            let Ok(made) = plan(split, &wish.parse().unwrap(), &AddableBackend::default()) else { return Ok(()) };
            let plans = [made];
            let entry = entry(&plans);
            let shifted = apply(&object, &shift(&object, &plans, &record(&entry))).unwrap();
            prop_assert_eq!(without_weights(&shifted, kind), without_weights(&object, kind));
            // The shares that act are those of the plan.
            let acting = splits(kind, &shifted)[rule % all.len()].acting();
            let planned: Vec<u64> = plans[0].backends.iter().map(|one| one.after).collect();
            if split.backends.len() > 1 || kind != Kind::VirtualService {
                prop_assert_eq!(acting, planned);
            }
            prop_assert_eq!(&ShiftRecord::of(&shifted).unwrap().entries[0], &entry);
            let undone = apply(&shifted, &back(kind, &shifted, &entry, RollbackTarget::Start, &ShiftRecord::default()).unwrap()).unwrap();
            let mut plain = undone;
            let annotations = plain["metadata"]["annotations"].as_object_mut().unwrap();
            annotations.remove(ANNOTATION);
            if annotations.is_empty() {
                plain["metadata"].as_object_mut().unwrap().remove("annotations");
            }
            prop_assert_eq!(plain, object);
        }

        #[test]
        fn what_somebody_else_changed_is_not_written_over(
            (kind, object) in objects(), backend in 1_usize..5, other in 0_u64..120,
        ) {
            let split = &splits(kind, &object)[0];
            let wish = format!("#{}=33", 1 + backend % split.backends.len());
            let Ok(made) = plan(split, &wish.parse().unwrap(), &AddableBackend::default()) else { return Ok(()) };
            let plans = [made];
            let entry = entry(&plans);
            let operations = shift(&object, &plans, &record(&entry));
            // Between reading and writing.
            let mut raced = object.clone();
            raced["metadata"]["resourceVersion"] = json!("8");
            prop_assert!(apply(&raced, &operations).is_err());
            // After writing.
            let shifted = apply(&object, &operations).unwrap();
            let mut taken = shifted.clone();
            let path = format!("{}/0", split.pointer());
            let before = taken.pointer(&path).unwrap()["weight"].clone();
            taken.pointer_mut(&path).unwrap()["weight"] = json!(other);
            let lost = matches!(back(kind, &taken, &entry, RollbackTarget::Start, &ShiftRecord::default()), Err(LostControl::Weights(_)));
            prop_assert_eq!(lost, before != json!(other));
        }
    }

    #[test]
    fn an_added_destination_goes_again() {
        let object = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "spec": {"http": [
            {"match": [{"uri": {"prefix": "/"}}], "route": [{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}}]}]}});
        let addable = AddableBackend { subsets: vec!["v2".to_owned()], services: Vec::new() };
        let plans = [plan(&splits(Kind::VirtualService, &object)[0], &"v2=10".parse().unwrap(), &addable).unwrap()];
        let entry = entry(&plans);
        let shifted = apply(&object, &shift(&object, &plans, &record(&entry))).unwrap();
        assert_eq!(
            shifted["spec"]["http"][0]["route"],
            json!([{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}, "weight": 90},
                   {"destination": {"host": "a", "subset": "v2", "port": {"number": 7}}, "weight": 10}])
        );
        let undone = apply(
            &shifted,
            &back(Kind::VirtualService, &shifted, &entry, RollbackTarget::Start, &ShiftRecord::default()).unwrap(),
        )
        .unwrap();
        assert_eq!(undone["spec"], object["spec"]);
    }

    #[test]
    fn the_record_is_bounded_and_numbered() {
        let mut record = ShiftRecord::default();
        for _ in 0..400 {
            let number = record.next_number();
            record.push(ShiftEntry { number, message: "x".repeat(500), ..entry(&[]) });
        }
        assert!(record.text().len() <= 33 << 10 && record.entries[0].number == 400, "{}", record.text().len());
    }
}
