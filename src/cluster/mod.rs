//! The cluster: how to reach it, and what is read from it.
//!
//! EDGE. CORE types come out; flags and terminals are not known here. Of this folder only `write` changes something in a cluster.

pub mod admin;
pub mod client;
pub mod collect;
mod discovery;
mod error;
pub mod log_settings;
pub mod logs;
pub mod prometheus;
pub mod proxies;
pub mod proxy;
pub mod request;
pub mod review;
pub mod write;

pub use error::{ClusterError, ClusterErrorKind};
