//! Completion of command lines.
//!
//! A shell requests completions with a variable (`COMPLETE=bash`); kubectl runs the program as `kubectl_complete-grpcmesh` or
//! with the hidden argument `__complete`. clap completes commands and flags; [`names`] completes names from the kubeconfig, the
//! cluster, or the source on the command line. Completion prints nothing to stderr, because it would appear in the prompt.
//!
//! Source of kubectl's protocol: `pkg/cmd/plugin/plugin_completion.go` of kubernetes/kubectl.

mod names;

use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::sync::Arc;

use clap::{Arg, ArgMatches, Command, FromArgMatches as _, ValueHint};
use clap_complete::CompleteEnv;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _, complete};

use crate::cli::env::Env;
use crate::cli::global::{ConnectionArgs, ScopeArgs};
use crate::doctor::plugin_path::{COMPLETER, PROGRAM};
use crate::render::text::{is_harmful, safe};
use names::{NameKind, NameSource};

/// The hidden first argument that requests completions for kubectl.
const HIDDEN_ARGUMENT: &str = "__complete";
/// The end of the zsh script. zsh loads the script from `fpath` as a function, which must complete at its first call too.
const ZSH_AUTOLOAD: &str = r#"
if [[ "$funcstack[1]" == _kubectl-grpcmesh ]]; then
    _clap_dynamic_completer_kubectl_grpcmesh "$@"
fi
"#;
/// Directive of kubectl's protocol: do not offer files in addition.
const NO_FILE_COMPLETION: u32 = 4;

/// Prints completions and returns the exit code. `None` if the program was not run to complete a command line.
pub(super) fn respond(arguments: &[OsString], env: &Env, out: &mut dyn Write) -> Option<u8> {
    let name = arguments.first().map(std::path::Path::new).and_then(|path| path.file_stem()?.to_str());
    let arguments_after_name = arguments.get(1..).unwrap_or_default();
    if name == Some(COMPLETER) {
        return Some(respond_to_kubectl(arguments_after_name, env, out));
    }
    if let [first, rest @ ..] = arguments_after_name
        && first == HIDDEN_ARGUMENT
    {
        return Some(respond_to_kubectl(rest, env, out));
    }
    // The arguments to complete follow `--` and the program name.
    let separator = arguments_after_name.iter().position(|argument| argument == "--");
    let typed = separator.and_then(|index| arguments_after_name.get(index + 2..)).unwrap_or_default();
    let factory = || definition(NameSource::new(env, &without_last(typed)), PathCompletion::Program);
    match CompleteEnv::with_factory(factory).bin(PROGRAM).try_complete(arguments.to_vec(), None) {
        Ok(true) | Err(_) if env.completes => Some(0),
        _ => None,
    }
}

/// The script with which a shell runs this program for completions.
pub(super) fn script(shell: &str) -> Vec<u8> {
    let shells = clap_complete::env::Shells::builtins();
    let mut script = Vec::new();
    if let Some(shell) = shells.completer(shell) {
        // Writing to memory cannot fail.
        let _ = shell.write_registration("COMPLETE", PROGRAM, PROGRAM, PROGRAM, &mut script);
    }
    if shell == "zsh" {
        script.extend_from_slice(ZSH_AUTOLOAD.as_bytes());
    }
    script
}

/// The arguments before the one to complete.
fn without_last(arguments: &[OsString]) -> Vec<OsString> {
    arguments.split_last().map(|(_, rest)| rest.to_vec()).unwrap_or_default()
}

fn respond_to_kubectl(arguments: &[OsString], env: &Env, out: &mut dyn Write) -> u8 {
    let mut command_line = vec![OsString::from(PROGRAM)];
    command_line.extend(arguments.iter().cloned());
    if arguments.is_empty() {
        command_line.push(OsString::new());
    }
    let cursor = command_line.len() - 1;
    let mut command = definition(NameSource::new(env, &without_last(arguments)), PathCompletion::Shell);
    let candidates = complete(&mut command, command_line, cursor, None).unwrap_or_default();
    let needs_files = candidates.is_empty();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        // An escaped name would not be the name, and a raw one could control the terminal.
        if value.contains(is_harmful) {
            continue;
        }
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        let help = safe(help);
        let tab = if help.is_empty() { "" } else { "\t" };
        let _ = writeln!(out, "{value}{tab}{help}");
    }
    let _ = writeln!(out, ":{}", if needs_files { 0 } else { NO_FILE_COMPLETION });
    let _ = out.flush();
    0
}

/// The program that completes paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathCompletion {
    /// This program.
    Program,
    /// The shell: kubectl lets it complete files if this program prints no candidates.
    Shell,
}

/// The definition of the command line, with completers for names.
fn definition(names: NameSource, paths: PathCompletion) -> Command {
    let names = Arc::new(names);
    with_name_completers(super::definition().bin_name(PROGRAM), &names, paths)
}

/// Adds completion of files and folders, and of `demo` for sources.
fn with_path_completer(argument: Arg, is_source: bool, paths: PathCompletion) -> Arg {
    argument.add(ArgValueCompleter::new(move |current: &OsStr| {
        let files = if paths == PathCompletion::Program { PathCompleter::any().complete(current) } else { Vec::new() };
        // With a candidate for an empty argument, the shell would not offer its files.
        let offers_demo = is_source && (paths == PathCompletion::Program || !current.is_empty());
        let matches_demo = offers_demo && current.to_str().is_some_and(|current| "demo".starts_with(current));
        let demo =
            matches_demo.then(|| CompletionCandidate::new("demo").help(Some("a small shop mesh with faults".into())));
        demo.into_iter().chain(files).collect()
    }))
}

fn with_name_completers(command: Command, names: &Arc<NameSource>, paths: PathCompletion) -> Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| {
        let value =
            argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string).unwrap_or_default();
        let long = argument.get_long().unwrap_or_default();
        let is_source = matches!(long, "from" | "against");
        let is_path =
            matches!(argument.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
        if is_source || is_path || matches!(long, "filename" | "logs") {
            return with_path_completer(argument, is_source, paths);
        }
        let kind = match (long, &*value) {
            ("namespace" | "istio-namespace", _) => NameKind::Namespaces,
            ("context", _) => NameKind::Contexts,
            ("cluster", _) => NameKind::Clusters,
            ("user", _) => NameKind::Users,
            ("to", _) if name == "shift" => NameKind::Shares,
            ("rule", _) if name == "shift" => NameKind::Rules,
            ("caller", _) => NameKind::Pods,
            ("only" | "skip", "CODES") => NameKind::Codes,
            ("flag" | "error-flags", _) => NameKind::Flags,
            ("grpc-status" | "error-status", _) => NameKind::Statuses,
            (_, "TARGET" | "SERVICE" | "HOST[:PORT]") => NameKind::Targets,
            (_, "NAME") if name == "explain" => NameKind::Explained,
            _ => return argument,
        };
        let names = Arc::clone(names);
        argument.add(ArgValueCompleter::new(move |current: &OsStr| candidates(&names, kind, current)))
    });
    let subcommands: Vec<String> =
        command.get_subcommands().map(|subcommand| subcommand.get_name().to_owned()).collect();
    subcommands.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, |subcommand| with_name_completers(subcommand, names, paths))
    })
}

/// Names that start with the typed text. In a comma-separated list, the last element is completed.
fn candidates(names: &NameSource, kind: NameKind, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let (prefix, last) = match current.rfind(',') {
        Some(index) if kind.is_list() => current.split_at(index + 1),
        _ => ("", &*current),
    };
    let names = names.candidates(kind, last).into_iter().filter(|(name, _)| name.starts_with(last));
    let candidate = |(name, help): (String, String)| {
        let help = (!help.is_empty()).then(|| help.into());
        CompletionCandidate::new(format!("{prefix}{name}")).help(help)
    };
    names.map(candidate).collect()
}

/// The flags and the target on the command line, which decide where names come from.
#[derive(Debug, Clone, Default)]
struct TypedFlags {
    connection: ConnectionArgs,
    scope: ScopeArgs,
    from: Vec<String>,
    target: Option<String>,
}

impl TypedFlags {
    fn new(arguments: &[OsString]) -> Self {
        let mut command_line = vec![OsString::from(PROGRAM)];
        command_line.extend(arguments.iter().cloned());
        let Ok(matches) = super::definition().ignore_errors(true).try_get_matches_from(command_line) else {
            return Self::default();
        };
        let matches: &ArgMatches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        let values = |id: &str| -> Vec<String> {
            let values = matches.try_get_many::<String>(id).ok().flatten();
            values.map(|values| values.cloned().collect()).unwrap_or_default()
        };
        Self {
            connection: ConnectionArgs::from_arg_matches(matches).unwrap_or_default(),
            scope: ScopeArgs::from_arg_matches(matches).unwrap_or_default(),
            from: values("from"),
            target: values("target").into_iter().next(),
        }
    }
}
