//! The output contract: one serializable struct per report.
//!
//! VIEW. Within a version, fields are only added. `schemas/` holds a JSON Schema for each report, generated from these
//! types and checked by a test. Nothing here prints; see [`crate::render`].

pub mod balance;
pub mod diff;
pub mod doctor;
mod durations;
pub mod explain;
pub(crate) mod finding;
pub mod inspect;
pub(crate) mod page;
mod policy;
mod proportion;
pub mod route;
mod route_client;
mod route_notes;
pub mod route_test;
#[cfg(test)]
pub(crate) mod samples;
mod server_side;
pub mod shift;
pub mod tail;
pub mod tail_join;
pub mod tail_summary;
pub(crate) mod unified;

use schemars::JsonSchema;
use serde::Serialize;

use crate::schema::Kind;
use crate::schema::kind::KINDS;
use crate::snapshot::{Gap, GapKind, ObjectKey};

pub use proportion::{Percent, Ratio};

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GapReport {
    /// The missing input.
    pub what: String,
    /// The cause in words, such as the permission that is missing.
    pub why: String,
    /// The kind of cause.
    pub reason: GapKind,
    /// Whether answers may be wrong because of the gap. The exit code is then 4.
    pub touches_answers: bool,
}

impl From<&Gap> for GapReport {
    fn from(gap: &Gap) -> Self {
        Self {
            what: gap.what.clone(),
            why: gap.why.clone(),
            reason: gap.reason,
            touches_answers: gap.affects_answers(),
        }
    }
}

/// A kind as Kubernetes spells it, such as `VirtualService`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKind(Kind);

impl ObjectKind {
    /// The value in JSON reports.
    pub fn as_str(self) -> &'static str {
        self.0.name()
    }
}

impl From<Kind> for ObjectKind {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

impl std::fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ObjectKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for ObjectKind {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ObjectKind".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // Istio and Gateway API both have a kind `Gateway`.
        let names: std::collections::BTreeSet<&str> = KINDS.iter().map(|info| info.name).collect();
        schemars::json_schema!({"type": "string", "enum": names})
    }
}

/// An object by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct ObjectReport {
    /// Kind of the object.
    pub kind: ObjectKind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

impl From<&ObjectKey> for ObjectReport {
    fn from(object: &ObjectKey) -> Self {
        Self { kind: object.kind.into(), namespace: object.namespace.to_string(), name: object.name.to_string() }
    }
}

impl From<&crate::mesh::ids::ObjectRef> for ObjectReport {
    fn from(object: &crate::mesh::ids::ObjectRef) -> Self {
        Self { kind: object.kind.into(), namespace: object.namespace.to_string(), name: object.name.to_string() }
    }
}

impl std::fmt::Display for ObjectReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}
