//! Access to a cluster: connecting, listing objects, streaming logs, and querying admin ports and Prometheus.
//!
//! EDGE. Returns CORE types, and depends neither on flags nor on a terminal. Only `write` changes objects in a cluster.

pub(crate) mod admin;
pub mod client;
pub mod collect;
mod credential_plugin;
mod discovery;
mod error;
pub(crate) mod http_proxy;
pub(crate) mod log_settings;
pub(crate) mod logs;
pub(crate) mod prometheus;
pub(crate) mod proxies;
pub(crate) mod request;
pub(crate) mod review;
#[expect(clippy::indexing_slicing, reason = "reads fields of a JSON value, which never panics")]
pub(crate) mod write;

pub use error::{ClusterError, ClusterErrorKind};
