//! Hostile and unlucky input: nothing panics, hangs, leaks, steers a terminal or grows without bound.
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod contract;
mod faults;
mod mutate;
mod scaling;
mod servers;
mod shapes;
