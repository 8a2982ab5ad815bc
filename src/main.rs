//! Entry point: captures the environment, runs the command and returns its exit code.

use std::io::{BufWriter, stdout};
use std::process::ExitCode;

use grpcmesh::cli::env::Env;

fn main() -> ExitCode {
    // rustls cannot choose between several crypto providers, so the choice is explicit. The call fails only if a
    // provider is installed already, which is fine.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut out = BufWriter::new(stdout());
    ExitCode::from(grpcmesh::commands::run(std::env::args_os(), Env::capture(), &mut out))
}
