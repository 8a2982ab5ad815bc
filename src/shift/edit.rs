//! Writes weights into the text of a manifest, for shifts that go through git. Only numbers change, so comments, order
//! and layout stay as they are.

#![cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]

use std::ops::Range;

use serde_json::Value;

use super::patch::weight_to_write;
use super::plan::RulePlan;
use super::split::{RuleSplit, backends_field, rules_field};
use crate::schema::Kind;
use crate::schema::path::{PathSegment, parse_path};
use crate::snapshot::position::PositionIndex;
use crate::snapshot::{manifest, yaml};

/// Why weights cannot be written into a manifest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("it has no YAML document with this object")]
    ObjectNotFound,
    /// The plan adds a destination.
    #[error("it has no backend {0}: add the backend with weight 0 first, because --edit only changes weights")]
    BackendNotFound(String),
    /// A backend is a text or a list, so it cannot have a weight. The field names it.
    #[error("{0} is not a mapping, so it cannot have a weight")]
    BackendNotMapping(String),
    /// The text has something, such as an anchor with several aliases, that makes one number count in several places.
    #[error("a change of these weights would change other values too, for example through a YAML alias")]
    NotIsolated,
}

/// The document of an object in a text: its byte range and its content.
pub fn find_document(text: &str, kind: Kind, namespace: &str, name: &str) -> Option<(Range<usize>, Value)> {
    let mut documents = manifest::documents(text).into_iter().filter_map(|bytes| {
        let json = yaml::to_json(text.get(bytes.clone())?).ok()?.json?;
        let object: Value = serde_json::from_str(json.get()).ok()?;
        let metadata = object.get("metadata")?;
        let own_namespace = metadata.get("namespace").and_then(Value::as_str);
        let matches = object.get("kind")? == kind.name()
            && metadata.get("name")? == name
            && own_namespace.is_none_or(|own| own == namespace);
        matches.then_some((bytes, object))
    });
    documents.next()
}

/// Returns the text with the weights of `plans`, which were computed from the object that [`find_document`] returned.
///
/// # Errors
/// When something other than a weight would have to change.
pub fn set_weights(
    text: &str,
    (bytes, object): &(Range<usize>, Value),
    plans: &[RulePlan],
) -> Result<String, EditError> {
    let (before, rest) = text.split_at_checked(bytes.start).ok_or(EditError::ObjectNotFound)?;
    let (document, after) = rest.split_at_checked(bytes.len()).ok_or(EditError::ObjectNotFound)?;
    let positions = PositionIndex::of(document);
    let mut edits: Vec<(Range<usize>, String)> = Vec::new();
    let mut expected = object.clone();
    for plan in plans {
        for (index, planned) in plan.backends.iter().enumerate() {
            if planned.before.is_none() {
                return Err(EditError::BackendNotFound(planned.backend.label()));
            }
            let weight = weight_to_write(planned).filter(|weight| planned.backend.weight != Some(*weight));
            let Some(weight) = weight else { continue };
            let path = backend_path(&plan.split, index);
            let pointer = format!("{}/{index}", plan.split.pointer());
            let backend = expected.pointer_mut(&pointer).ok_or(EditError::ObjectNotFound)?;
            let fields = backend.as_object_mut().ok_or_else(|| EditError::BackendNotMapping(path.clone()))?;
            fields.insert("weight".to_owned(), weight.into());
            edits.push(weight_edit(document, &positions, &path, weight).ok_or(EditError::NotIsolated)?);
        }
    }
    edits.sort_by_key(|(bytes, _)| std::cmp::Reverse(bytes.start));
    let mut edited = document.to_owned();
    for (bytes, number) in edits {
        edited.replace_range(bytes, &number);
    }
    let json = yaml::to_json(&edited).ok().and_then(|converted| converted.json);
    let result: Option<Value> = json.and_then(|json| serde_json::from_str(json.get()).ok());
    if result.as_ref() != Some(&expected) {
        return Err(EditError::NotIsolated);
    }
    Ok(format!("{before}{edited}{after}"))
}

/// `spec.http[0].route[1]`
fn backend_path(split: &RuleSplit, backend: usize) -> String {
    format!("spec.{}[{}].{}[{backend}]", rules_field(split.kind), split.rule, backends_field(split.kind))
}

/// Gives every backend of an object the same weight, for fuzzing.
pub fn set_every_weight(
    text: &str,
    document: &(Range<usize>, Value),
    kind: Kind,
    weight: u64,
) -> Result<String, EditError> {
    let plans = super::split::rule_splits(kind, &document.1).into_iter().map(|split| {
        let backend = |backend: &super::split::SplitBackend| super::plan::PlannedBackend {
            backend: backend.clone(),
            before: Some(backend.weight.unwrap_or(1)),
            after: weight,
        };
        let backends = split.backends.iter().map(backend).collect();
        RulePlan { total_before: 1, total_after: 1, backends, split }
    });
    set_weights(text, document, &plans.collect::<Vec<_>>())
}

/// The byte range to replace, and its new text, that give the backend at `path` this weight.
fn weight_edit(document: &str, positions: &PositionIndex, path: &str, weight: u64) -> Option<(Range<usize>, String)> {
    let mut path = parse_path(path);
    let item = positions.find(&path)?;
    path.push(PathSegment::Field("weight".to_owned()));
    let field = positions.find(&path)?;
    let field_text = document.get(field.bytes.clone())?;
    let digits = field_text.len() - field_text.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if field_text.trim_start_matches(['"', '\'']).starts_with("weight") && digits > 0 {
        return Some((field.bytes.end - digits..field.bytes.end, weight.to_string()));
    }
    // Without a weight field, insert one before the first field.
    let start = item.bytes.start;
    if document.get(start..)?.starts_with('{') {
        return Some((start + 1..start + 1, format!("weight: {weight}, ")));
    }
    let indent = " ".repeat(item.start.column.saturating_sub(1));
    Some((start..start, format!("weight: {weight}\n{indent}")))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{AddableBackends, plan_rule};
    use super::super::split::rule_splits;
    use super::*;

    fn edited(text: &str, kind: Kind, desired: &str) -> Result<String, EditError> {
        let document = find_document(text, kind, "shop", "pay").ok_or(EditError::ObjectNotFound)?;
        let plans: Vec<RulePlan> = rule_splits(kind, &document.1)
            .iter()
            .map(|split| plan_rule(split, &desired.parse().unwrap(), &AddableBackends::default()).unwrap())
            .collect();
        set_weights(text, &document, &plans)
    }

    const BLOCK: &str = "# ours
apiVersion: v1
kind: Service
metadata: {name: pay}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: pay   # the canary
spec:
  hosts: [pay]
  http:
  - route:
    # stable
    - destination: {host: pay, subset: v1}
      weight: 90   # most
    - weight: 10
      destination:
        host: pay
        subset: v2
---
kind: Other
";

    #[test]
    fn only_the_weights_of_a_manifest_change() {
        let text = edited(BLOCK, Kind::VirtualService, "v2=25").unwrap();
        assert_eq!(text, BLOCK.replace("weight: 90 ", "weight: 75 ").replace("weight: 10\n", "weight: 25\n"));
        let flow = "{kind: GRPCRoute, metadata: {name: pay, namespace: shop}, spec: {rules: [{backendRefs: [{name: a, \"weight\": 1}, {name: b}]}]}}";
        let text = edited(flow, Kind::GrpcRoute, "b=75").unwrap();
        assert_eq!(text, flow.replace("\"weight\": 1", "\"weight\": 25").replace("{name: b}", "{weight: 75, name: b}"));
        let without_weights =
            "kind: HTTPRoute\nmetadata: {name: pay}\nspec:\n  rules:\n  - backendRefs:\n    - name: a\n    - name: b\n";
        let text = edited(without_weights, Kind::HttpRoute, "b=75").unwrap();
        assert_eq!(
            text,
            without_weights
                .replace("- name: a", "- weight: 25\n      name: a")
                .replace("- name: b", "- weight: 75\n      name: b")
        );
    }

    #[test]
    fn rejects_a_manifest_whose_weights_share_an_alias() {
        let alias = "kind: GRPCRoute\nmetadata: {name: pay}\nspec:\n  rules:\n  - backendRefs: &all\n    - {name: a, weight: 90}\n    - {name: b, weight: 10}\n  - backendRefs: *all\n";
        let document = find_document(alias, Kind::GrpcRoute, "shop", "pay").unwrap();
        let split = &rule_splits(Kind::GrpcRoute, &document.1)[0];
        let first = plan_rule(split, &"b=50".parse().unwrap(), &AddableBackends::default()).unwrap();
        assert_eq!(set_weights(alias, &document, &[first]), Err(EditError::NotIsolated));
        assert!(find_document(BLOCK, Kind::VirtualService, "shop", "other").is_none());
    }

    #[test]
    fn keys_that_are_not_ascii_are_no_obstacle() {
        let text = "kind: GRPCRoute\nmetadata: {name: pay}\nspec:\n  rules:\n  - backendRefs:\n    - ключ: é\n      name: a\n    - {名: x, name: b}\n";
        let expected = text.replace("- ключ", "- weight: 25\n      ключ").replace("{名", "{weight: 75, 名");
        assert_eq!(edited(text, Kind::GrpcRoute, "b=75"), Ok(expected));
    }

    #[test]
    fn a_backend_that_is_no_mapping_is_an_error() {
        for backend in ["text", "[a, b]", "3", "null"] {
            let text = format!(
                "kind: VirtualService\nmetadata: {{name: pay}}\nspec: {{hosts: [pay], http: [{{route: [{{destination: {{host: a}}, weight: 100}}, {backend}]}}]}}\n"
            );
            let document = find_document(&text, Kind::VirtualService, "shop", "pay").unwrap();
            let split = &rule_splits(Kind::VirtualService, &document.1)[0];
            let mut plan = plan_rule(split, &"a=100".parse().unwrap(), &AddableBackends::default()).unwrap();
            let empty = plan.backends.iter_mut().find(|planned| planned.backend.host.is_empty()).unwrap();
            empty.after = 7;
            let error = set_weights(&text, &document, &[plan]).unwrap_err();
            assert_eq!(error, EditError::BackendNotMapping("spec.http[0].route[1]".to_owned()), "{backend}");
        }
    }
}
