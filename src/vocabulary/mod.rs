//! Words of the field that several modules share: gRPC statuses, Envoy's response flags and response code details,
//! traffic shares, Go durations, and spelling suggestions.
//!
//! CORE. The bottom of the layers: nothing here knows about objects, logs or the mesh.

pub(crate) mod duration;
pub mod grpc_status;
pub(crate) mod nearest_name;
pub(crate) mod response_code_details;
pub(crate) mod response_flags;
pub(crate) mod share;
