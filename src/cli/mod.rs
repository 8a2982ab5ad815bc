//! From words on the command line to values: flags, environment, sources, failures.
//!
//! TOP: knows everything below; nothing below knows it.

pub(crate) mod context;
pub mod env;
pub(crate) mod failure;
pub(crate) mod global;
mod input_lines;
pub(crate) mod log_files;
pub(crate) mod source;
pub(crate) mod target;
