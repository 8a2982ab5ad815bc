//! Cost per doubling of the input, for shapes whose cost once grew faster than their size.
//!
//! The unit tests of each function assert bounds by counting. This table takes minutes, so it runs on demand:
//! `cargo test --test hostile -- --ignored --nocapture scaling`, or `just scaling`.

use super::shapes::{SHAPES, Shape};
use super::support::TestEnv;

/// Largest cost of twice the input, in multiples.
const MAX_RATIO: f64 = 2.2;

/// The processor time of this process and of its children that ended, in clock ticks of 10 ms.
fn ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..15].iter().map(|field| field.parse::<f64>().unwrap()).sum()
}

/// Processor seconds of one run, with the peak memory in MiB.
fn cost(shape: &Shape, count: usize) -> f64 {
    let env = TestEnv::new();
    let file = env.write("shape.yaml", (shape.generate)(count));
    let arguments: Vec<&str> =
        shape.before.iter().copied().chain([file.as_str()]).chain(shape.after.iter().copied()).collect();
    let before = ticks();
    let output = env.command(&arguments).output().unwrap();
    let seconds = (ticks() - before) / 100.0;
    let code = output.status.code();
    assert!(matches!(code, Some(0..=3)), "{}: {code:?} {}", shape.name, String::from_utf8_lossy(&output.stderr));
    seconds
}

#[test]
#[ignore = "takes minutes; run it alone"]
fn scaling_table() {
    let base = cost(&SHAPES[SHAPES.len() - 1], 1);
    let mut too_steep = Vec::new();
    println!("{:<42} {:>8} {:>8} {:>8} {:>6}", "shape", "N", "N: s", "2N: s", "ratio");
    for shape in SHAPES {
        let best = |count: usize| (0..2).map(|_| cost(shape, count)).fold(f64::INFINITY, f64::min);
        let (small, large) = (best(shape.size), best(2 * shape.size));
        // What the program needs for an empty mesh does not double.
        let ratio = (large - base).max(0.01) / (small - base).max(0.01);
        println!("{:<42} {:>8} {small:>8.2} {large:>8.2} {ratio:>6.1}", shape.name, shape.size);
        // Below a tenth of a second the clock is too coarse to tell.
        if large > 0.1 && ratio > MAX_RATIO {
            too_steep.push(shape.name);
        }
    }
    assert!(too_steep.is_empty(), "{too_steep:?}");
}
