//! Object metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Labels, annotations and selectors.
pub type StringMap = BTreeMap<String, String>;

/// Deserializes a map of strings. `null` reads as empty; numbers and booleans become text.
///
/// The API server rejects values that are not strings, so this leniency only matters for manifests.
///
/// # Errors
/// The value is not a map.
pub fn string_map<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StringMap, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Scalar {
        Text(String),
        Other(serde_json::Value),
    }
    let map: Option<BTreeMap<String, Scalar>> = Option::deserialize(deserializer)?;
    Ok(map
        .unwrap_or_default()
        .into_iter()
        .map(|(key, value)| {
            let text = match value {
                Scalar::Text(text) => text,
                Scalar::Other(serde_json::Value::Null) => String::new(),
                Scalar::Other(other) => other.to_string(),
            };
            (key, text)
        })
        .collect())
}

/// `metadata` of an object, reduced to the fields in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Empty only in a malformed object.
    pub name: String,
    /// Absent for cluster-scoped kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// RFC 3339 in UTC, so that text order is time order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Counts the changes of the spec; conditions in the status name the generation that they are about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Set while the object is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    #[serde(deserialize_with = "string_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    #[serde(deserialize_with = "string_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: StringMap,
    #[serde(skip_serializing_if = "super::NullableList::is_empty")]
    pub owner_references: super::NullableList<OwnerReference>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    pub kind: String,
    pub name: String,
    /// Whether the owner is the managing controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
}

/// A custom resource: metadata and the `spec` of its kind.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, bound(deserialize = "S: Deserialize<'de> + Default"))]
pub struct Resource<S> {
    pub metadata: ObjectMeta,
    /// Absent reads as empty.
    pub spec: S,
}
