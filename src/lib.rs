//! grpcmesh

pub mod mesh;
pub mod schema;
pub mod snapshot;
