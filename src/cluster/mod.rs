//! The cluster: how to reach it, and what is read from it.
//!
//! EDGE. CORE types come out; flags and terminals are not known here. Of this folder only `write` changes something in a cluster.

pub(crate) mod admin;
pub mod client;
pub mod collect;
mod discovery;
mod error;
pub(crate) mod log_settings;
pub(crate) mod logs;
pub(crate) mod prometheus;
pub(crate) mod proxies;
pub(crate) mod proxy;
pub(crate) mod request;
pub(crate) mod review;
pub(crate) mod write;

pub use error::{ClusterError, ClusterErrorKind};
