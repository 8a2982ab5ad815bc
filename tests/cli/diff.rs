//! `diff` of two sources. Proxies need a cluster or a snapshot with proxies; their reports are rendered in unit tests.

use super::{HEALTHY, assert_rejected, assert_run, run};

#[test]
fn compares_two_sources_in_every_format() {
    for format in ["text", "json", "yaml", "markdown", "github"] {
        assert_run(&format!("diff-{format}"), &format!("diff --from demo --against {HEALTHY} -o {format}"));
    }
    assert_run("diff-summary", &format!("diff --from demo --against {HEALTHY} --summary"));
    assert_run("diff-full", &format!("diff --from demo --against {HEALTHY} --full"));
    assert_run("diff-same", "diff --from demo --against demo");
}

#[test]
fn markdown_fences_stand_on_their_own_lines() {
    let text = run(&format!("diff --from demo --against {HEALTHY} -o markdown")).stdout;
    let fences = text.lines().filter(|line| line.contains("```")).collect::<Vec<_>>();
    assert!(fences.len() >= 4 && fences.iter().all(|line| line.starts_with("```")), "{fences:?}");
    assert!(fences.iter().skip(1).step_by(2).all(|line| *line == "```"), "{fences:?}");
}

#[test]
fn rejects_flags_that_would_have_no_effect() {
    assert_rejected(
        "diff-rejected",
        &[
            &format!("diff --from demo --against {HEALTHY} checkout.shop"),
            "diff --from demo",
            "diff --from demo --wait",
        ],
    );
}
