//! Writes a synthetic mesh to stdout: `cargo run --release --example generate -- SERVICES PODS_PER_SERVICE`.

use std::io::Write as _;

#[path = "../benches/generated.rs"]
mod generated;

fn main() -> std::io::Result<()> {
    let mut numbers = std::env::args().skip(1).map(|argument| argument.parse::<usize>());
    let (Some(Ok(services)), Some(Ok(pods))) = (numbers.next(), numbers.next()) else {
        writeln!(std::io::stderr(), "usage: generate SERVICES PODS_PER_SERVICE")?;
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    std::io::stdout().lock().write_all(generated::manifests(services, pods).as_bytes())
}
