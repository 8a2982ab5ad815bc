//! The metadata that every object has.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

/// Labels, annotations and selectors.
pub type StringMap = BTreeMap<String, String>;

/// Reads a map of strings; `null` for the map or for a value is empty, numbers and booleans are written out.
///
/// The API server refuses values that are not strings, so leniency only matters for manifests.
///
/// # Errors
/// A value that is no map of scalars.
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

/// `metadata` of an object, reduced to what is used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name; empty only in an object that is malformed.
    pub name: String,
    /// Namespace; absent for cluster-scoped kinds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Identity across re-creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// RFC 3339 time of creation. Compared as text, which orders times in UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub creation_timestamp: Option<String>,
    /// Present while the object is being deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_timestamp: Option<String>,
    /// Counts changes of the spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Labels.
    #[serde(deserialize_with = "string_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: StringMap,
    /// Annotations.
    #[serde(deserialize_with = "string_map", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: StringMap,
    /// Who owns the object.
    #[serde(skip_serializing_if = "super::NullableList::is_empty")]
    pub owner_references: super::NullableList<OwnerReference>,
}

/// One entry of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// Kind of the owner, for example `ReplicaSet`.
    pub kind: String,
    /// Name of the owner.
    pub name: String,
    /// Whether this owner is the managing controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<bool>,
}

/// An object with a `spec` of one kind: what every view of a custom resource is.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, bound(deserialize = "S: Deserialize<'de> + Default"))]
pub struct Resource<S> {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// The kind's own part. Absent reads as empty.
    pub spec: S,
}
