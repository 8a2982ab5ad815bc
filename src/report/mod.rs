//! What each command shows, as plain serialisable structs: the output contract.
//!
//! VIEW. Fields are only ever added within a version. A JSON Schema for each report stands under `schemas/` and is
//! checked against these types. Nothing here prints; see [`crate::render`].

pub mod balance;
pub mod diff;
pub mod doctor;
mod durations;
pub mod explain;
pub(crate) mod finding;
pub mod inspect;
pub(crate) mod page;
mod policy;
pub mod route;
mod route_client;
mod route_notes;
pub mod route_test;
mod server_side;
pub mod shift;
pub mod tail;
pub mod tail_join;
pub mod tail_summary;
pub(crate) mod unified;

use schemars::JsonSchema;
use serde::Serialize;

use crate::snapshot::{Gap, GapKind};

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct GapReport {
    /// What is missing.
    pub what: String,
    /// Why, and the right that is missing if that is it.
    pub why: String,
    /// `forbidden`, `failed`, `malformed`, `not-installed` or `not-in-source`.
    pub reason: GapKind,
    /// Whether answers may be wrong because it could not be read: then the exit code is 4.
    pub touches_answers: bool,
}

impl From<&Gap> for GapReport {
    fn from(gap: &Gap) -> Self {
        Self {
            what: gap.what.clone(),
            why: gap.why.clone(),
            reason: gap.reason,
            touches_answers: gap.touches_answers(),
        }
    }
}

/// An object by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
pub struct ObjectReport {
    /// Kind.
    pub kind: String,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl From<&crate::mesh::ids::ObjectRef> for ObjectReport {
    fn from(object: &crate::mesh::ids::ObjectRef) -> Self {
        Self {
            kind: object.kind.name().to_owned(),
            namespace: object.namespace.to_string(),
            name: object.name.to_string(),
        }
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
