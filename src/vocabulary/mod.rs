//! Domain vocabulary that several modules share: gRPC statuses, Envoy's response flags and response code details,
//! traffic shares, Go durations, lists of names, and spelling suggestions.
//!
//! CORE. The lowest layer: no module here depends on Kubernetes objects, logs or the mesh.

pub(crate) mod duration;
pub(crate) mod go_bool;
pub mod grpc_status;
pub(crate) mod name_list;
pub(crate) mod nearest_name;
pub(crate) mod response_code_details;
pub(crate) mod response_flags;
pub(crate) mod share;
