//! `inspect`.

use super::support::TestEnv;
use super::{HEALTHY, assert_rejected, assert_run};

#[test]
fn prints_the_overview_in_every_format() {
    assert_run("inspect-table", "inspect --from demo");
    assert_run("inspect-wide", "inspect --from demo -o wide --only GM1");
    assert_run("inspect-json", "inspect --from demo -o json --only GM203,GM205");
    assert_run("inspect-yaml", "inspect --from demo -o yaml --only GM203");
    assert_run("inspect-name", "inspect --from demo -o name");
    assert_run("inspect-color", "inspect --from demo --color always --only GM2");
}

#[test]
fn prints_a_page_for_each_target() {
    assert_run("inspect-page", "inspect --from demo checkout catalog");
    assert_run("inspect-page-json", "inspect --from demo checkout -o json");
}

#[test]
fn output_fits_the_terminal() {
    for columns in [80, 120] {
        for (name, arguments) in [
            ("overview", &["inspect", "--from", "demo"][..]),
            ("page", &["inspect", "--from", "demo", "checkout"]),
            ("explain", &["explain", "GM305"]),
        ] {
            let run = TestEnv::with_columns(columns).run(arguments);
            // Examples in documentation are code, which is not wrapped.
            let is_code = |line: &str| name == "explain" && line.starts_with("    ");
            let too_wide: Vec<&str> =
                run.stdout.lines().filter(|line| line.chars().count() > columns && !is_code(line)).collect();
            assert_eq!(too_wide, [""; 0], "{name} at {columns} columns");
            insta::assert_snapshot!(format!("inspect-{name}-{columns}"), run);
        }
    }
}

#[test]
fn exit_codes_follow_fail_on_and_selection() {
    let code = |command: &str| super::run(command).code();
    assert_eq!(code("inspect --from demo"), 1);
    assert_eq!(code("inspect --from demo --exit-zero"), 0);
    assert_eq!(code("inspect --from demo --only GM111"), 0, "an info finding does not fail by default");
    assert_eq!(code("inspect --from demo --only GM111 --fail-on info"), 1);
    assert_run("inspect-healthy", &format!("inspect --from {HEALTHY}"));
}

#[test]
fn findings_from_files_show_their_lines() {
    assert_run("inspect-file", "inspect --from src/demo/shop.yaml --only GM203,GM305");
}

#[test]
fn rejects_sources_and_names_that_do_not_exist() {
    assert_rejected(
        "inspect-rejected",
        &[
            "inspect --from /nonexistent.yaml",
            "inspect --from Cargo.toml",
            "inspect --from demo chekout",
            "inspect --from demo -n shp",
            "inspect --from demo --only GM999",
            "inspect",
            "inspect --kubeconfig /nonexistent",
        ],
    );
}

#[test]
fn a_page_shows_who_may_call_which_method() {
    assert_run("inspect-access", "inspect --from tests/fixtures/authorization/shop.yaml checkout.shop");
}
