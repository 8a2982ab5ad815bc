//! Commands that the README, the documentation and the help show.

use std::path::PathBuf;

use super::run;
use super::support::repository;

/// Examples that work on the built-in demo, with their exit codes.
const OFFLINE: [(&str, i32); 5] = [
    ("inspect --from demo", 1),
    ("version --client", 0),
    ("version --from demo", 0),
    ("explain GM203", 0),
    ("explain UF,URX", 0),
];

/// Parses the command that a line shows. `None` for a line without a command.
fn parse(line: &str) -> Option<Result<String, String>> {
    let start = line.find("grpcmesh ")? + "grpcmesh ".len();
    // Two spaces or a number sign start a description.
    let command = line[start..].split("  ").next().unwrap_or_default();
    let command = command.split(" # ").next().unwrap_or_default().trim_end();
    let Some(mut arguments) = shlex::split(command) else { return Some(Err(line.to_owned())) };
    let end = arguments.iter().position(|argument| ["|", ">", "<", ";", "&&", "||"].contains(&argument.as_str()));
    arguments.truncate(end.unwrap_or(arguments.len()));
    arguments.insert(0, "kubectl-grpcmesh".to_owned());
    let parsed = grpcmesh::commands::definition().try_get_matches_from(&arguments);
    Some(parsed.map(|_| command.to_owned()).map_err(|error| format!("{line}\n{error}")))
}

/// The README, other top-level pages, and everything in docs.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<PathBuf> =
        ["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(|page| repository().join(page)).into();
    for folder in ["docs", "docs/commands", "docs/findings"] {
        let files = std::fs::read_dir(repository().join(folder)).unwrap().map(|file| file.unwrap().path());
        pages.extend(files.filter(|file| file.extension().is_some_and(|extension| extension == "md")));
    }
    pages
}

#[test]
fn the_program_accepts_every_documented_command() {
    let (mut commands, mut errors) = (0, Vec::new());
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap().replace("\\\n", " ");
        for line in text.lines() {
            let line = line.trim_start().trim_start_matches("$ ");
            // Code within a sentence may be a pattern.
            let inline = line.split('`').skip(1).step_by(2);
            let inline = inline.filter(|code| !code.contains(['…', '[']) && !code.contains("COMMAND"));
            for command in inline.chain([line]).filter(|code| code.starts_with("kubectl grpcmesh ")) {
                commands += 1;
                errors.extend(parse(command).and_then(Result::err).map(|error| format!("{}: {error}", page.display())));
            }
        }
    }
    assert!(commands > 60 && errors.is_empty(), "{commands}\n{}", errors.join("\n"));
}

#[test]
fn offline_commands_of_the_readme_work() {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let lines = readme.lines().filter_map(|line| line.strip_prefix("kubectl grpcmesh "));
    let mut runs = 0;
    for line in lines {
        let command = line.split('#').next().unwrap();
        let is_offline = command.contains("demo") || command.starts_with("explain") || command.starts_with("version");
        if is_offline {
            let run = run(command);
            assert!([0, 1].contains(&run.code()), "{run}");
            runs += 1;
        }
    }
    assert!(runs >= 3);
}

#[test]
fn the_help_of_every_command_ends_in_valid_examples() {
    let definition = grpcmesh::commands::definition();
    let mut examples = Vec::new();
    for command in definition.get_subcommands().filter(|command| command.get_name() != "help") {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(help.starts_with("Examples:"), "the help of {} ends in examples", command.get_name());
        for line in help.lines().skip(1) {
            examples.extend(parse(line).map(Result::unwrap));
        }
    }
    assert!(examples.len() > 40, "{examples:#?}");
    for (example, code) in OFFLINE {
        assert!(examples.iter().any(|shown| shown == example), "{example} is not an example any more");
        assert_eq!(run(example).code(), code, "{example}");
    }
}
