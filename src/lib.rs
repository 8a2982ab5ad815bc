//! `kubectl-grpcmesh`, a kubectl plugin for gRPC services in an Istio mesh.
//!
//! Commands read all input into a [`snapshot::Snapshot`], resolve it into a [`mesh::Mesh`], and print a report:
//!
//! ```text
//! API ----- cluster::collect --+
//!                              +-> Snapshot -> mesh::resolve -> Mesh -> rules -> report -> render -> stdout
//! files --- snapshot::manifest-+
//! ```
//!
//! | Layer | Modules | May use |
//! |---|---|---|
//! | CORE | [`vocabulary`], [`schema`], [`accesslog`], [`diagnosis`], [`envoy`], [`snapshot`], [`mesh`], [`dataplane`], `analysis`, `compare`, [`rules`], `shift`, `doctor` | values only: no files, cluster, terminal, environment or clock |
//! | VIEW | [`report`], [`render`] | CORE, and the writer that the caller passes |
//! | EDGE | [`cluster`], `terminal` | CORE, VIEW and the outside world, but no flags or commands |
//! | TOP | [`cli`], [`commands`] | everything |
//!
//! `tests/tidy.rs` enforces the layers, and `ARCHITECTURE.md` explains them. No module may slice text or
//! index lists, except in audited places with a reason.

#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod accesslog;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub(crate) mod analysis;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod cli;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod cluster;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod commands;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub(crate) mod compare;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod dataplane;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod diagnosis;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub(crate) mod doctor;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod envoy;
#[doc(hidden)]
pub mod fuzzing;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod mesh;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod render;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod report;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod rules;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod schema;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub(crate) mod shift;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod snapshot;
pub(crate) mod terminal;
#[cfg_attr(not(test), warn(clippy::string_slice, clippy::indexing_slicing))]
pub mod vocabulary;
