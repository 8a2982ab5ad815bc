//! Generated files are committed, and equal what the code generates. `GOLDEN=1` writes them.

mod support;

use grpcmesh::commands::completion::CompletionTarget;
use support::{TestEnv, repository};

/// Asserts that a committed file has this content, or writes it.
#[track_caller]
fn golden(path: &str, expected: &[u8]) {
    let file = repository().join(path);
    #[expect(clippy::disallowed_methods, reason = "the environment tells this test to write")]
    let is_update = std::env::var_os("GOLDEN").is_some();
    if is_update {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let committed = std::fs::read(&file).unwrap_or_default();
    assert!(committed == expected, "{path} is out of date: GOLDEN=1 cargo test --test golden");
}

#[test]
fn completions_are_up_to_date() {
    for kind in [CompletionTarget::Bash, CompletionTarget::Zsh, CompletionTarget::Fish, CompletionTarget::Powershell] {
        golden(&format!("completions/{}", kind.file().unwrap()), &kind.script().unwrap());
    }
}

#[test]
fn schemas_are_up_to_date() {
    let schemas = [
        ("inspect", schemars::schema_for!(grpcmesh::report::inspect::InspectReport)),
        ("route", schemars::schema_for!(grpcmesh::report::route::RouteReport)),
        ("balance", schemars::schema_for!(grpcmesh::report::balance::BalanceReport)),
        ("diff", schemars::schema_for!(grpcmesh::report::diff::DiffReport)),
        ("route-tests", schemars::schema_for!(grpcmesh::report::route_test::RouteTestsReport)),
        ("shift-event", schemars::schema_for!(grpcmesh::report::shift::ShiftEvent)),
        ("doctor", schemars::schema_for!(grpcmesh::report::doctor::DoctorReport)),
        ("shift-status", schemars::schema_for!(grpcmesh::report::shift::ShiftStatusReport)),
        ("shift-history", schemars::schema_for!(grpcmesh::report::shift::ShiftHistoryReport)),
        ("explain", schemars::schema_for!(grpcmesh::report::explain::ExplainReport)),
        ("tail", schemars::schema_for!(grpcmesh::report::tail::TailLine)),
        ("tail-call", schemars::schema_for!(grpcmesh::report::tail_join::TailCall)),
        ("tail-summary", schemars::schema_for!(grpcmesh::report::tail_summary::TailSummary)),
        ("snapshot", schemars::schema_for!(grpcmesh::snapshot::codec::SnapshotFile<'static>)),
    ];
    for (name, schema) in schemas {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        golden(&format!("schemas/{name}.v1.json"), text.as_bytes());
    }
}

/// Replaces the output in each console block with what the program prints now.
#[test]
fn the_readme_shows_real_output() {
    let text = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let env = TestEnv::new();
    let mut readme = String::new();
    let mut rest = text.as_str();
    let mut blocks = 0;
    while let Some((before, block)) = rest.split_once("```console\n$ kubectl grpcmesh ") {
        let (block, after) = block.split_once("```\n").expect("a block has an end");
        let command = block.lines().next().unwrap_or_default();
        let output = env.run(&command.split_whitespace().collect::<Vec<_>>()).output.stdout;
        let output = String::from_utf8(output).unwrap();
        readme.push_str(&format!("{before}```console\n$ kubectl grpcmesh {command}\n{output}```\n"));
        rest = after;
        blocks += 1;
    }
    assert!(blocks >= 3, "the README shows the program at work");
    readme.push_str(rest);
    golden("README.md", readme.as_bytes());
}

#[test]
fn pages_of_findings_are_up_to_date() {
    let mut index = "# Findings\n\nGenerated from the rules; `kubectl grpcmesh explain CODE` prints the same text.\n\n\
                     | Code | Name | Severity | Summary |\n|---|---|---|---|\n"
        .to_owned();
    for rule in grpcmesh::rules::RULES {
        let (code, name, severity) = (rule.code, rule.name, rule.severity.as_str());
        index += &format!("| [{code}]({code}.md) | {name} | {severity} | {} |\n", rule.summary.replace('|', "\\|"));
        let istio = rule.istio_code.map(|code| format!("; Istio {code}")).unwrap_or_default();
        let page = format!("# {code} {name}\n\n{} ({severity}{istio})\n\n{}", rule.summary, rule.docs);
        golden(&format!("docs/findings/{code}.md"), page.as_bytes());
    }
    golden("docs/findings/README.md", index.as_bytes());
    golden("docs/what-is-modelled.md", grpcmesh::schema::not_modelled::documentation().as_bytes());
    golden("docs/istio-versions.md", grpcmesh::mesh::behavior::documentation().as_bytes());
}

#[test]
fn manual_pages_are_up_to_date() {
    let mut definition = grpcmesh::commands::definition().bin_name("kubectl-grpcmesh");
    definition.build();
    let page = |command: clap::Command, name: &str| {
        let mut text = Vec::new();
        clap_mangen::Man::new(command).title(name).render(&mut text).unwrap();
        golden(&format!("man/{name}.1"), &text);
    };
    for command in definition.get_subcommands().filter(|command| command.get_name() != "help") {
        let name = format!("kubectl-grpcmesh-{}", command.get_name());
        page(command.clone(), &name);
    }
    page(definition.clone(), "kubectl-grpcmesh");
}
