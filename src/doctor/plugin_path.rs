//! What kubectl runs when somebody says `kubectl grpcmesh …`.
//!
//! kubectl tries the longest name first: `kubectl grpcmesh inspect` looks for `kubectl-grpcmesh-inspect` before
//! `kubectl-grpcmesh`. Completion is asked of `kubectl_complete-grpcmesh`. Sources: `pkg/cmd/cmd.go`,
//! `pkg/cmd/plugin/plugin_completion.go` of kubernetes/kubectl.

use super::{CheckState, DoctorCheck};

/// The program.
pub const PROGRAM: &str = "kubectl-grpcmesh";
/// The program that kubectl asks for completions.
pub const COMPLETER: &str = "kubectl_complete-grpcmesh";

/// Checks of the files on `PATH`, in its order: folder and file name of each that begins like ours.
pub fn checks(files: &[(String, String)], commands: &[&str]) -> Vec<DoctorCheck> {
    let stem = |name: &str| name.strip_suffix(".exe").unwrap_or(name).to_owned();
    let of = |wanted: &str| -> Vec<&str> {
        files.iter().filter(|(_, name)| stem(name) == wanted).map(|(folder, _)| folder.as_str()).collect()
    };
    let mut checks = Vec::new();
    checks.push(match &of(PROGRAM)[..] {
        [] => DoctorCheck::new(
            "plugin/path",
            CheckState::Warning,
            format!("{PROGRAM} is not on PATH: kubectl does not find it"),
        )
        .fix("kubectl krew install grpcmesh, or put it into a folder of PATH"),
        [only] => DoctorCheck::new("plugin/path", CheckState::Ok, format!("kubectl runs {only}/{PROGRAM}")),
        [first, others @ ..] => DoctorCheck::new(
            "plugin/path",
            CheckState::Warning,
            format!("kubectl runs {first}/{PROGRAM}, and not the one in {}", others.join(", ")),
        )
        .fix(format!("rm {}/{PROGRAM}", others[0])),
    });
    let prefix = format!("{PROGRAM}-");
    for (folder, name) in files {
        let name = stem(name);
        let Some(rest) = name.strip_prefix(&prefix) else { continue };
        let first = rest.split('-').next().unwrap_or(rest).replace('_', "-");
        let check = if commands.contains(&first.as_str()) {
            let why = format!("{folder}/{name} is run instead of kubectl grpcmesh {}", rest.replace('-', " "));
            DoctorCheck::new(format!("plugin/{rest}"), CheckState::Failed, why)
        } else {
            DoctorCheck::new(
                format!("plugin/{rest}"),
                CheckState::Ok,
                format!("{folder}/{name} adds a command of its own"),
            )
        };
        let is_failed = check.state == CheckState::Failed;
        checks.push(if is_failed { check.fix(format!("rm {folder}/{name}")) } else { check });
    }
    checks.push(match &of(COMPLETER)[..] {
        [] => DoctorCheck::new(
            "completion",
            CheckState::Warning,
            format!("{COMPLETER} is not on PATH: kubectl completes nothing"),
        )
        .fix("kubectl grpcmesh completion install"),
        [first, ..] => DoctorCheck::new("completion", CheckState::Ok, format!("kubectl asks {first}/{COMPLETER}")),
    });
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubectl_would_run() {
        let files = |names: &[(&str, &str)]| -> Vec<(String, String)> {
            names.iter().map(|(folder, name)| ((*folder).to_owned(), (*name).to_owned())).collect()
        };
        let states = |names: &[(&str, &str)]| -> Vec<(String, CheckState)> {
            checks(&files(names), &["inspect", "shift"]).into_iter().map(|one| (one.id, one.state)).collect()
        };
        let id = |text: &str, state| (text.to_owned(), state);
        assert_eq!(
            states(&[("/a", PROGRAM), ("/a", COMPLETER)]),
            [id("plugin/path", CheckState::Ok), id("completion", CheckState::Ok)]
        );
        assert_eq!(states(&[]), [id("plugin/path", CheckState::Warning), id("completion", CheckState::Warning)]);
        assert_eq!(
            states(&[
                ("/a", PROGRAM),
                ("/b", "kubectl-grpcmesh.exe"),
                ("/b", "kubectl-grpcmesh-inspect"),
                ("/c", "kubectl-grpcmesh-own")
            ]),
            [
                id("plugin/path", CheckState::Warning),
                id("plugin/inspect", CheckState::Failed),
                id("plugin/own", CheckState::Ok),
                id("completion", CheckState::Warning)
            ]
        );
    }
}
