//! Serde types of the Kubernetes, Istio and Gateway API objects that this program reads: the *written* stage of a route.
//!
//! A type lists only the fields that the program uses (`tests/schema_fields.rs` checks that). Enums are strings, and an
//! absent or `null` field reads as its default, so that one unexpected value does not lose an object. The types are for
//! reading only: no object is ever written back from them. Whether a field exists at all is decided by [`fields`], a table
//! generated from the published CRDs.
//!
//! CORE: no files, no clock, no cluster.

pub(crate) mod core;
pub(crate) mod destination_rule;
pub(crate) mod fields;
pub(crate) mod gateway;
pub(crate) mod gateway_api;
pub mod kind;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod mesh_config;
pub(crate) mod meta;
pub mod not_modelled;
pub(crate) mod path;
pub(crate) mod re2;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod telemetry;
pub(crate) mod virtual_service;

pub use kind::Kind;
pub use list::NullableList;
