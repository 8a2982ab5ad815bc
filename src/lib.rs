//! grpcmesh

pub mod cluster;
pub mod mesh;
pub mod report;
pub mod rules;
pub mod schema;
pub mod snapshot;
