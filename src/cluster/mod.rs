//! Access to a cluster: connecting, listing objects, streaming logs, and querying admin ports and Prometheus.
//!
//! EDGE. Returns CORE types, and depends neither on flags nor on a terminal. Only `write` changes objects in a cluster.

pub(crate) mod admin;
pub mod client;
pub mod collect;
mod discovery;
mod error;
pub(crate) mod http_proxy;
pub(crate) mod log_settings;
pub(crate) mod logs;
pub(crate) mod prometheus;
pub(crate) mod proxies;
pub(crate) mod request;
pub(crate) mod review;
pub(crate) mod write;

pub use error::{ClusterError, ClusterErrorKind};
