//! The program as a user meets it. Snapshots compare the whole of stdout, stderr and the exit code; after a change,
//! review them with `cargo insta review` or `INSTA_UPDATE=always cargo test --test cli`.

#[path = "../support/mod.rs"]
mod support;

mod diff;
mod examples;
mod explain;
mod inspect;
mod route;
mod shift;
mod snapshot;
mod tail;
mod usage;

use support::TestEnv;

/// The access log of the fixtures in Istio's text format: 224 calls.
const ACCESS_LOG: &str = "tests/fixtures/accesslog/istio-text.log";
/// The demo with its faults fixed.
const HEALTHY: &str = "src/demo/healthy.yaml";

/// Runs the program with the words of a command line.
fn run(command: &str) -> support::Run {
    TestEnv::new().run(&shlex::split(command).unwrap().iter().map(String::as_str).collect::<Vec<_>>())
}

/// Asserts that a whole run equals the snapshot of this name.
#[track_caller]
fn assert_run(name: &str, command: &str) {
    insta::assert_snapshot!(name, run(command));
}

/// Asserts exit codes and whole messages: for input that is rejected. Nothing may appear on stdout.
#[track_caller]
fn assert_rejected(name: &str, commands: &[&str]) {
    let mut all = String::new();
    for command in commands {
        let run = run(command);
        assert!([2, 3].contains(&run.code()), "{run}");
        assert_eq!(run.stdout, "", "{run}");
        all += &format!("{run}\n");
    }
    insta::assert_snapshot!(name, all);
}
