//! Weights written into the text of a manifest, for those who shift through git: nothing but numbers changes, so that
//! comments, order and layout stay.

use std::ops::Range;

use serde_json::Value;

use super::patch::written;
use super::plan::RulePlan;
use super::split::{RuleSplit, backends_field, rules_field};
use crate::schema::Kind;
use crate::schema::path::{PathSegment, parse_path};
use crate::snapshot::position;
use crate::snapshot::{manifest, yaml};

/// Why a text is not edited.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The object is not a document of its own in it.
    #[error("the object is no document of its own there")]
    NotThere,
    /// A destination would have to be added.
    #[error("{0} is not written there: add it by hand with weight 0 first, since nothing but weights is changed")]
    Added(String),
    /// The text has something, such as an anchor that is used twice, that a number in place would change elsewhere.
    #[error("its weights cannot be changed without changing something else, such as what an alias refers to")]
    Entangled,
}

/// The object as a document of a text: its bytes, and what it says.
pub fn find(text: &str, kind: Kind, namespace: &str, name: &str) -> Option<(Range<usize>, Value)> {
    let mut found = manifest::documents(text).into_iter().filter_map(|bytes| {
        let json = yaml::to_json(&text[bytes.clone()]).ok()?.json?;
        let object: Value = serde_json::from_str(json.get()).ok()?;
        let own = object["metadata"]["namespace"].as_str();
        let is_it = object["kind"] == kind.name()
            && object["metadata"]["name"] == name
            && own.is_none_or(|own| own == namespace);
        is_it.then_some((bytes, object))
    });
    found.next()
}

/// The text with the weights of plans, which were made of the object that [`find`] gives.
///
/// # Errors
/// When more than numbers would have to change.
pub fn edit(text: &str, (bytes, object): &(Range<usize>, Value), plans: &[RulePlan]) -> Result<String, EditError> {
    let document = &text[bytes.clone()];
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    let mut wanted = object.clone();
    for plan in plans {
        for (at, one) in plan.backends.iter().enumerate() {
            if one.before.is_none() {
                return Err(EditError::Added(one.backend.label()));
            }
            let Some(weight) = written(one).filter(|weight| one.backend.weight != Some(*weight)) else { continue };
            changes.push(change(document, &plan.split, at, weight).ok_or(EditError::Entangled)?);
            let pointer = format!("{}/{at}", plan.split.pointer());
            wanted.pointer_mut(&pointer).ok_or(EditError::NotThere)?["weight"] = weight.into();
        }
    }
    changes.sort_by_key(|(bytes, _)| std::cmp::Reverse(bytes.start));
    let mut edited = document.to_owned();
    for (bytes, number) in changes {
        edited.replace_range(bytes, &number);
    }
    let read = yaml::to_json(&edited).ok().and_then(|converted| converted.json);
    let now: Option<Value> = read.and_then(|json| serde_json::from_str(json.get()).ok());
    if now.as_ref() != Some(&wanted) {
        return Err(EditError::Entangled);
    }
    Ok(format!("{}{edited}{}", &text[..bytes.start], &text[bytes.end..]))
}

/// What is put in place of which bytes of a document, so that a backend has a weight.
fn change(document: &str, split: &RuleSplit, at: usize, weight: u64) -> Option<(Range<usize>, String)> {
    let (rules, backends) = (rules_field(split.kind), backends_field(split.kind));
    let mut path = parse_path(&format!("spec.{rules}[{}].{backends}[{at}]", split.rule));
    let backend = position::find(document, &path)?;
    path.push(PathSegment::Field("weight".to_owned()));
    let found = position::find(document, &path)?;
    let there = &document[found.bytes.clone()];
    let digits = there.len() - there.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    if there.trim_start_matches(['"', '\'']).starts_with("weight") && digits > 0 {
        return Some((found.bytes.end - digits..found.bytes.end, weight.to_string()));
    }
    // There is none: it goes before the first field.
    let start = backend.bytes.start;
    let text = if document[start..].starts_with('{') {
        return Some((start + 1..start + 1, format!("weight: {weight}, ")));
    } else {
        format!("weight: {weight}\n{}", " ".repeat(backend.at.column.saturating_sub(1)))
    };
    Some((start..start, text))
}

#[cfg(test)]
mod tests {
    use super::super::plan::{AddableBackend, plan};
    use super::super::split::splits;
    use super::*;

    fn edited(text: &str, kind: Kind, wish: &str) -> Result<String, EditError> {
        let found = find(text, kind, "shop", "pay").ok_or(EditError::NotThere)?;
        let plans: Vec<RulePlan> = splits(kind, &found.1)
            .iter()
            .map(|split| plan(split, &wish.parse().unwrap(), &AddableBackend::default()).unwrap())
            .collect();
        edit(text, &found, &plans)
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
    fn nothing_but_numbers_changes() {
        let text = edited(BLOCK, Kind::VirtualService, "v2=25").unwrap();
        assert_eq!(text, BLOCK.replace("weight: 90 ", "weight: 75 ").replace("weight: 10\n", "weight: 25\n"));
        let flow = "{kind: GRPCRoute, metadata: {name: pay, namespace: shop}, spec: {rules: [{backendRefs: [{name: a, \"weight\": 1}, {name: b}]}]}}";
        let text = edited(flow, Kind::GrpcRoute, "b=75").unwrap();
        assert_eq!(text, flow.replace("\"weight\": 1", "\"weight\": 25").replace("{name: b}", "{weight: 75, name: b}"));
        let unwritten =
            "kind: HTTPRoute\nmetadata: {name: pay}\nspec:\n  rules:\n  - backendRefs:\n    - name: a\n    - name: b\n";
        let text = edited(unwritten, Kind::HttpRoute, "b=75").unwrap();
        assert_eq!(
            text,
            unwritten
                .replace("- name: a", "- weight: 25\n      name: a")
                .replace("- name: b", "- weight: 75\n      name: b")
        );
    }

    #[test]
    fn what_is_entangled_is_left_alone() {
        let alias = "kind: GRPCRoute\nmetadata: {name: pay}\nspec:\n  rules:\n  - backendRefs: &all\n    - {name: a, weight: 90}\n    - {name: b, weight: 10}\n  - backendRefs: *all\n";
        let found = find(alias, Kind::GrpcRoute, "shop", "pay").unwrap();
        let first =
            plan(&splits(Kind::GrpcRoute, &found.1)[0], &"b=50".parse().unwrap(), &AddableBackend::default()).unwrap();
        assert_eq!(edit(alias, &found, &[first]), Err(EditError::Entangled));
        assert!(find(BLOCK, Kind::VirtualService, "shop", "other").is_none());
    }
}
