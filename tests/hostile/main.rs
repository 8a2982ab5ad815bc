//! Hostile and unlucky input: nothing panics, hangs, leaks, steers a terminal or grows without bound.
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "long runs and the scaling table print their results")]
#![expect(clippy::disallowed_methods, reason = "variables and the clock choose the seeds of long runs")]

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod faults;
mod mutate;
mod scaling;
mod servers;
mod shapes;
