//! Serde views of the Kubernetes, Istio and Gateway API objects that this program reads.
//!
//! A view names only the fields that something here uses, takes every enum as a string and every absent or
//! `null` field as its default, so one surprising value never loses an object. Views are for reading: nothing
//! is ever written back from them. Whether a field *exists* is not decided here but by [`fields`], the table
//! made from the published schemas.
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
pub(crate) mod path;
pub(crate) mod re2;
pub(crate) mod security;
pub(crate) mod service_entry;
pub(crate) mod sidecar;
pub(crate) mod string_list;
pub(crate) mod telemetry;
pub(crate) mod virtual_service;

pub use kind::Kind;
pub use list::NullableList;
