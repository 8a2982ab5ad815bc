//! Finds the program that `kubectl grpcmesh …` runs.
//!
//! kubectl tries the longest name first: `kubectl grpcmesh inspect` looks for `kubectl-grpcmesh-inspect` before
//! `kubectl-grpcmesh`. For completion it runs `kubectl_complete-grpcmesh`. Source: `pkg/cmd/cmd.go` and
//! `pkg/cmd/plugin/plugin_completion.go` of kubernetes/kubectl.

use super::{CheckState, DoctorCheck};

pub const PROGRAM: &str = "kubectl-grpcmesh";
/// The program that kubectl runs for completion.
pub const COMPLETER: &str = "kubectl_complete-grpcmesh";

/// Checks the files on `PATH`. `files` holds folder and file name, in the order of `PATH`, of each file whose name starts
/// with the plugin's name. `commands` are the names of our commands.
pub fn checks(files: &[(String, String)], commands: &[&str]) -> Vec<DoctorCheck> {
    let stem = |name: &str| name.strip_suffix(".exe").unwrap_or(name).to_owned();
    let folders_with = |program: &str| -> Vec<&str> {
        files.iter().filter(|(_, name)| stem(name) == program).map(|(folder, _)| folder.as_str()).collect()
    };
    let mut checks = Vec::new();
    checks.push(match &folders_with(PROGRAM)[..] {
        [] => DoctorCheck::new(
            "plugin/path",
            CheckState::Warning,
            format!("kubectl cannot find {PROGRAM}: it is not on PATH"),
        )
        .with_fix("run kubectl krew install grpcmesh, or copy the program to a folder on PATH"),
        [only] => DoctorCheck::new("plugin/path", CheckState::Ok, format!("kubectl runs {only}/{PROGRAM}")),
        [first, others @ ..] => DoctorCheck::new(
            "plugin/path",
            CheckState::Warning,
            format!("kubectl runs {first}/{PROGRAM}, which hides the copy in {}", others.join(", ")),
        )
        .with_fix(format!("rm {}/{PROGRAM}", others.first().unwrap_or(first))),
    });
    let prefix = format!("{PROGRAM}-");
    for (folder, name) in files {
        let name = stem(name);
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let first = rest.split('-').next().unwrap_or(rest).replace('_', "-");
        let check = if commands.contains(&first.as_str()) {
            let reason = format!("kubectl runs {folder}/{name} instead of kubectl grpcmesh {}", rest.replace('-', " "));
            DoctorCheck::new(format!("plugin/{rest}"), CheckState::Failed, reason)
        } else {
            DoctorCheck::new(format!("plugin/{rest}"), CheckState::Ok, format!("{folder}/{name} adds its own command"))
        };
        let is_failed = check.state == CheckState::Failed;
        checks.push(if is_failed { check.with_fix(format!("rm {folder}/{name}")) } else { check });
    }
    checks.push(match &folders_with(COMPLETER)[..] {
        [] => DoctorCheck::new(
            "completion",
            CheckState::Warning,
            format!("kubectl cannot complete commands: {COMPLETER} is not on PATH"),
        )
        .with_fix("kubectl grpcmesh completion install"),
        [first, ..] => DoctorCheck::new("completion", CheckState::Ok, format!("kubectl runs {first}/{COMPLETER}")),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_missing_duplicate_and_shadowing_programs() {
        let files = |names: &[(&str, &str)]| -> Vec<(String, String)> {
            names.iter().map(|(folder, name)| ((*folder).to_owned(), (*name).to_owned())).collect()
        };
        let states = |names: &[(&str, &str)]| -> Vec<(String, CheckState)> {
            checks(&files(names), &["inspect", "shift"]).into_iter().map(|check| (check.id, check.state)).collect()
        };
        let expected = |id: &str, state| (id.to_owned(), state);
        assert_eq!(
            states(&[("/a", PROGRAM), ("/a", COMPLETER)]),
            [expected("plugin/path", CheckState::Ok), expected("completion", CheckState::Ok)]
        );
        assert_eq!(
            states(&[]),
            [expected("plugin/path", CheckState::Warning), expected("completion", CheckState::Warning)]
        );
        assert_eq!(
            states(&[
                ("/a", PROGRAM),
                ("/b", "kubectl-grpcmesh.exe"),
                ("/b", "kubectl-grpcmesh-inspect"),
                ("/c", "kubectl-grpcmesh-own")
            ]),
            [
                expected("plugin/path", CheckState::Warning),
                expected("plugin/inspect", CheckState::Failed),
                expected("plugin/own", CheckState::Ok),
                expected("completion", CheckState::Warning)
            ]
        );
    }
}
