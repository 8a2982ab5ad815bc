//! From the fields of an access line to what happened, whose side it is, and what to do.
pub mod grpc;
