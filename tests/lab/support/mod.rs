//! The running lab as tests see it: objects, callers, access logs and processes.

pub(crate) mod cut;
pub(crate) mod mesh;
pub(crate) mod scenario;

pub(crate) use mesh::{Lab, Pod};
pub(crate) use scenario::Scenario;
