//! Cost per doubling of the input, for shapes whose cost once grew faster than their size.
//!
//! The unit tests of each function assert bounds by counting. This table takes minutes, so it runs on demand:
//! `cargo test --test hostile -- --ignored --nocapture scaling`, or `just scaling`. It counts instructions where valgrind is
//! installed, so that other work on the machine changes nothing, and else measures processor time.

use std::process::Command;

use super::shapes::{SHAPES, Shape};
use super::support::TestEnv;

/// Largest cost of twice the input, in multiples.
const MAX_RATIO: f64 = 2.2;

/// Both the caller classes and the rules double here, and each class has rules of its own: a fraction of the cost is
/// comparing each class with each rule.
const CLASSES_TIMES_RULES: (&str, f64) = ("sourceLabels x pods", 3.2);

/// How the cost of a run is measured.
#[derive(Clone, Copy, PartialEq)]
enum Unit {
    /// Millions of instructions, which valgrind counts. Runs take fifty times as long, so the inputs are half as large.
    Instructions,
    /// Seconds of the processor, the best of three runs.
    Seconds,
}

impl Unit {
    fn available() -> Self {
        let valgrind = Command::new("valgrind").arg("--version").output();
        if valgrind.is_ok_and(|output| output.status.success()) { Self::Instructions } else { Self::Seconds }
    }

    fn cost(self, shape: &Shape, count: usize) -> f64 {
        match self {
            Self::Instructions => instructions(shape, count),
            Self::Seconds => (0..3).map(|_| seconds(shape, count)).fold(f64::INFINITY, f64::min),
        }
    }
}

/// The processor time of this process and of its children that ended, in clock ticks of 10 ms.
fn ticks() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11..15].iter().map(|field| field.parse::<f64>().unwrap()).sum()
}

fn seconds(shape: &Shape, count: usize) -> f64 {
    let before = ticks();
    run(shape, count, |command| command);
    (ticks() - before) / 100.0
}

fn instructions(shape: &Shape, count: usize) -> f64 {
    let stderr = run(shape, count, |command| {
        let mut counting = Command::new("valgrind");
        counting.args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]);
        counting.arg(command.get_program()).args(command.get_args());
        counting
    });
    let count = stderr.lines().rev().find_map(|line| line.split_once("refs:")).expect("valgrind counts").1;
    count.trim().replace(',', "").parse::<f64>().unwrap() / 1e6
}

/// Runs a command on a generated file, and returns its messages.
fn run(shape: &Shape, count: usize, wrap: impl Fn(Command) -> Command) -> String {
    let env = TestEnv::new();
    let file = env.write("shape.yaml", (shape.generate)(count));
    let arguments: Vec<&str> =
        shape.before.iter().copied().chain([file.as_str()]).chain(shape.after.iter().copied()).collect();
    let output = wrap(env.command(&arguments)).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let code = output.status.code();
    assert!(matches!(code, Some(0..=3)), "{}: {code:?} {stderr}", shape.name);
    stderr
}

#[test]
#[ignore = "takes minutes; run it alone"]
fn scaling_table() {
    let unit = Unit::available();
    let (divisor, word, least) = match unit {
        Unit::Instructions => (2, "Mi", 0.0),
        // Below a tenth of a second the clock is too coarse to tell.
        Unit::Seconds => (1, "s", 0.1),
    };
    let base = unit.cost(&SHAPES[SHAPES.len() - 1], 1);
    let mut too_steep = Vec::new();
    println!("{:<42} {:>8} {:>9} {:>9} {:>6}", "shape", "N", format!("N: {word}"), format!("2N: {word}"), "ratio");
    for shape in SHAPES {
        let size = shape.size / divisor;
        let (small, large) = (unit.cost(shape, size), unit.cost(shape, 2 * size));
        // What the program needs for an empty mesh does not double.
        let ratio = (large - base).max(0.01) / (small - base).max(0.01);
        println!("{:<42} {size:>8} {small:>9.2} {large:>9.2} {ratio:>6.2}", shape.name);
        let (name, max_ratio) = CLASSES_TIMES_RULES;
        if large > least && ratio > if shape.name == name { max_ratio } else { MAX_RATIO } {
            too_steep.push(shape.name);
        }
    }
    assert!(too_steep.is_empty(), "{too_steep:?}");
}
