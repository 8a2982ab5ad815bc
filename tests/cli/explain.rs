//! `explain`, `version` and `completion`.

use super::{assert_rejected, assert_run, run};

#[test]
fn explains_findings_flags_statuses_and_details() {
    assert_run("explain-finding", "explain GM203");
    assert_run("explain-flags", "explain UF,URX");
    assert_run("explain-status", "explain 14 ABC");
    assert_run("explain-json", "explain GM203 UF -o json");
    assert_run("explain-yaml", "explain UF -o yaml");
    assert_run("explain-list", "explain --list");
}

#[test]
fn suggests_the_nearest_name() {
    assert_rejected("explain-rejected", &["explain subset-undefind", "explain nothing-like-this"]);
}

#[test]
fn prints_versions_without_a_cluster() {
    assert_run("version-client", "version --client");
    assert_run("version-json", "version --client -o json");
    assert_run("version-demo", "version --from demo");
}

#[test]
fn prints_a_completion_script_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let run = run(&format!("completion {shell}"));
        assert_eq!(run.code(), 0);
        assert!(run.stdout.contains("kubectl-grpcmesh") && run.stderr.is_empty(), "{run}");
    }
}
