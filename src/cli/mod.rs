//! From words on the command line to values: flags, environment, sources, failures.
//!
//! TOP: knows everything below; nothing below knows it.

pub mod context;
pub mod env;
pub mod failure;
pub mod global;
mod input_lines;
pub mod log_files;
pub mod source;
pub mod target;
