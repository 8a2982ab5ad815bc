//! Writes reports as text, JSON and YAML.
//!
//! VIEW. Rendering is the last step: it writes a finished report to the given writer and makes no decisions.

pub(crate) mod balance;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod explain;
mod finding;
pub(crate) mod inspect;
mod json;
mod page;
pub(crate) mod route;
pub(crate) mod route_test;
pub(crate) mod shift;
#[cfg(test)]
mod snapshot_tests;
pub mod style;
mod table;
pub mod tail;
pub(crate) mod text;
pub(crate) mod yaml;

pub use json::{EscapingWriter, json, json_line};
