//! Serde views of the Kubernetes, Istio and Gateway API objects that this program reads.
//!
//! A view names only the fields that something here uses, takes every enum as a string and every absent or
//! `null` field as its default, so one surprising value never loses an object. Views are for reading: nothing
//! is ever written back from them. Whether a field *exists* is not decided here but by [`fields`], the table
//! made from the published schemas.
//!
//! CORE: no files, no clock, no cluster.

pub mod core;
pub mod destination_rule;
pub mod duration;
pub mod fields;
pub mod gateway;
pub mod gateway_api;
pub mod kind;
pub mod limits;
pub mod list;
pub mod mesh_config;
pub mod meta;
pub mod path;
pub mod re2;
pub mod security;
pub mod service_entry;
pub mod sidecar;
pub mod string_list;
pub mod telemetry;
pub mod virtual_service;

pub use kind::Kind;
pub use list::NullableList;
