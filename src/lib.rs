//! `kubectl-grpcmesh`: gRPC services in an Istio mesh, inspected from one terminal.
//!
//! One road for data, in reading order:
//!
//! ```text
//! API ----- cluster::collect --+
//!                              +-> Snapshot -> mesh::resolve -> Mesh -> rules -> report -> render -> stdout
//! files --- snapshot::manifest-+
//! ```
//!
//! | Layer | Modules | Knows |
//! |---|---|---|
//! | CORE | [`schema`], [`snapshot`], [`mesh`], [`rules`], [`accesslog`], [`verdict`], [`envoy`], [`compare`], [`shift`], [`guard`], [`doctor`] | plain values: no files, cluster, terminal, clock |
//! | VIEW | [`report`], [`render`] | CORE, and a writer that it is handed |
//! | EDGE | [`cluster`], [`terminal`] | the outside; not flags or commands |
//! | TOP | [`cli`], [`commands`] | everything |
//!
//! `tests/tidy.rs` holds these walls; `ARCHITECTURE.md` says why they stand where they stand.

pub mod accesslog;
pub(crate) mod analysis;
pub mod cli;
pub mod cluster;
pub mod commands;
pub(crate) mod compare;
pub mod dataplane;
pub mod diagnosis;
pub(crate) mod doctor;
pub mod envoy;
pub mod mesh;
pub mod render;
pub mod report;
pub mod rules;
pub mod schema;
pub(crate) mod shift;
pub mod snapshot;
pub(crate) mod terminal;
pub mod vocabulary;
