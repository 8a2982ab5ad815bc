//! Generated files are committed and equal to what the code makes. `GOLDEN=1` writes them.

use std::path::Path;
use std::process::Command;

use grpcmesh::commands::completion::CompletionTarget;

#[track_caller]
fn golden(path: &str, expected: &[u8]) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    #[expect(clippy::disallowed_methods, reason = "a test is asked this way to write")]
    let writes = std::env::var_os("GOLDEN").is_some();
    if writes {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, expected).unwrap();
    }
    let have = std::fs::read(&file).unwrap_or_default();
    assert!(have == expected, "{path} is out of date: GOLDEN=1 cargo test --test golden");
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

/// What the program writes on a terminal of `columns` columns.
fn output(arguments: &[&str], columns: &str) -> String {
    let answer = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
        .args(arguments)
        .env_clear()
        .env("COLUMNS", columns)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    String::from_utf8(answer.stdout).unwrap()
}

#[test]
fn what_people_read_is_up_to_date() {
    let pages: [(&str, &[&str], &str); 8] = [
        ("overview-80", &["inspect", "--from", "demo"], "80"),
        ("overview-120", &["inspect", "--from", "demo"], "120"),
        ("overview-wide", &["inspect", "--from", "demo", "-o", "wide", "--only", "GM1"], "1000"),
        ("overview-color", &["inspect", "--from", "demo", "--color", "always", "--only", "GM2"], "120"),
        ("page-80", &["inspect", "--from", "demo", "checkout"], "80"),
        ("page-120", &["inspect", "--from", "demo", "checkout", "catalog"], "120"),
        ("file-100", &["inspect", "--from", "src/demo/shop.yaml", "--only", "GM203,GM305"], "100"),
        ("explain-80", &["explain", "GM305"], "80"),
    ];
    for (name, arguments, columns) in pages {
        let text = output(arguments, columns);
        golden(&format!("tests/golden/{name}.txt"), text.as_bytes());
        let width: usize = columns.parse().unwrap();
        // Examples in documentation are code, which is not wrapped.
        let is_wrapped =
            |line: &str| !(line.contains('\u{1b}') || name.starts_with("explain") && line.starts_with("    "));
        let beyond = text.lines().filter(|line| is_wrapped(line) && line.chars().count() > width);
        assert_eq!(beyond.collect::<Vec<_>>(), [""; 0], "{name} is wider than {columns}");
    }
}

/// Every console block of the README is what the program says.
#[test]
fn the_readme_shows_real_output() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut out = String::new();
    let mut rest = text.as_str();
    let mut blocks = 0;
    while let Some((before, block)) = rest.split_once("```console\n$ kubectl grpcmesh ") {
        let (block, after) = block.split_once("```\n").expect("a block has an end");
        let command = block.lines().next().unwrap_or_default();
        let answer = output(&command.split_whitespace().collect::<Vec<_>>(), "110");
        out.push_str(&format!("{before}```console\n$ kubectl grpcmesh {command}\n{answer}```\n"));
        rest = after;
        blocks += 1;
    }
    assert!(blocks >= 3, "the README shows the program at work");
    out.push_str(rest);
    golden("README.md", out.as_bytes());
}

#[test]
fn pages_of_findings_are_up_to_date() {
    let mut index = "# Findings\n\nMade from the rules themselves; `kubectl grpcmesh explain CODE` shows the same.\n\n\
                     | Code | Name | Severity | In a sentence |\n|---|---|---|---|\n"
        .to_owned();
    for rule in grpcmesh::rules::RULES {
        let (code, name, severity) = (rule.code, rule.name, rule.severity.as_str());
        index += &format!("| [{code}]({code}.md) | {name} | {severity} | {} |\n", rule.summary.replace('|', "\\|"));
        let istio = rule.istio_code.map(|code| format!("; Istio's {code}")).unwrap_or_default();
        let page = format!("# {code} {name}\n\n{} ({severity}{istio})\n\n{}", rule.summary, rule.docs);
        golden(&format!("docs/findings/{code}.md"), page.as_bytes());
    }
    golden("docs/findings/README.md", index.as_bytes());
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
