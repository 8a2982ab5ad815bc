//! Interprets the command line: flags, environment, sources and failures.
//!
//! TOP: may use every layer below; no layer below uses it.

pub(crate) mod context;
pub mod env;
pub(crate) mod failure;
pub(crate) mod global;
mod input_lines;
pub(crate) mod log_files;
mod log_input;
pub(crate) mod replace_file;
pub(crate) mod source;
pub(crate) mod target;
