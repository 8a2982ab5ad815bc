//! Command lines that no command accepts, and help.

use super::{assert_rejected, assert_run};

#[test]
fn rejects_unknown_commands_and_flags() {
    assert_rejected("usage-rejected", &["nope", "inspect --nope", "inspect --from demo -o nope"]);
}

#[test]
fn every_command_has_help() {
    assert_run("help", "--help");
    for command in [
        "inspect",
        "route",
        "diff",
        "shift",
        "tail",
        "balance",
        "explain",
        "doctor",
        "snapshot",
        "completion",
        "version",
    ] {
        assert_run(&format!("help-{command}"), &format!("{command} --help"));
    }
}
