//! The program: captures the environment, runs, and returns the exit code.

use std::io::{BufWriter, stdout};
use std::process::ExitCode;

use grpcmesh::cli::env::Env;

fn main() -> ExitCode {
    // Two TLS providers in one tree would make the choice ambiguous; this one is ours.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut out = BufWriter::new(stdout());
    ExitCode::from(grpcmesh::commands::run(std::env::args_os(), Env::capture(), &mut out))
}
