//! Completion: what could stand where the cursor is.
//!
//! The shells ask by a variable (`COMPLETE=bash`), kubectl by the name under which the program runs
//! (`kubectl_complete-grpcmesh`) or by the hidden word `__complete`. Words of clap's definition come from clap; names come
//! from [`names`]: kubeconfig, cluster, or the source that was typed. Nothing is ever said on stderr: it would land in the
//! user's prompt.
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
use names::{NameKind, NameSource};

/// The word by which a shim asks.
const HIDDEN: &str = "__complete";
/// Ends zsh's script.
const AUTOLOADED: &str = r#"
if [[ "$funcstack[1]" == _kubectl-grpcmesh ]]; then
    _clap_dynamic_completer_kubectl_grpcmesh "$@"
fi
"#;
/// kubectl's directive: candidates are all there is, and no files.
const NO_FILES: u32 = 4;

/// Answers, if the program was asked for completions; else nothing.
pub(super) fn answer(arguments: &[OsString], env: &Env, out: &mut dyn Write) -> Option<u8> {
    let name = arguments.first().map(std::path::Path::new).and_then(|path| path.file_stem()?.to_str());
    let words = arguments.get(1..).unwrap_or_default();
    if name == Some(COMPLETER) {
        return Some(for_kubectl(words, env, out));
    }
    if let [first, rest @ ..] = words
        && first == HIDDEN
    {
        return Some(for_kubectl(rest, env, out));
    }
    // The shell's words come after `--`; without a shell that asks, nothing happens.
    let typed =
        words.iter().position(|word| word == "--").map_or(&[][..], |at| words.get(at + 2..).unwrap_or_default());
    let factory = || definition(NameSource::new(env, &before(typed)), PathCompletion::Ours);
    match CompleteEnv::with_factory(factory).bin(PROGRAM).try_complete(arguments.to_vec(), None) {
        Ok(true) | Err(_) if env.completes => Some(0),
        _ => None,
    }
}

/// The script that makes a shell ask.
pub(super) fn script(shell: &str) -> Vec<u8> {
    let shells = clap_complete::env::Shells::builtins();
    let mut script = Vec::new();
    if let Some(shell) = shells.completer(shell) {
        // Into memory nothing fails.
        let _ = shell.write_registration("COMPLETE", PROGRAM, PROGRAM, PROGRAM, &mut script);
    }
    if shell == "zsh" {
        // Loaded by its name, from `fpath`, the file is the function: it answers the first time, too.
        script.extend_from_slice(AUTOLOADED.as_bytes());
    }
    script
}

/// The words before the one that is completed.
fn before(words: &[OsString]) -> Vec<OsString> {
    words.split_last().map(|(_, before)| before.to_vec()).unwrap_or_default()
}

fn for_kubectl(words: &[OsString], env: &Env, out: &mut dyn Write) -> u8 {
    let mut all = vec![OsString::from(PROGRAM)];
    all.extend(words.iter().cloned());
    if words.is_empty() {
        all.push(OsString::new());
    }
    let at = all.len() - 1;
    let mut definition = definition(NameSource::new(env, &before(words)), PathCompletion::OfShell);
    let candidates = complete(&mut definition, all, at, None).unwrap_or_default();
    let lists_files = candidates.is_empty();
    for candidate in candidates.iter().filter(|candidate| !candidate.is_hide_set()) {
        let value = candidate.get_value().to_string_lossy();
        let help = candidate.get_help().map(ToString::to_string).unwrap_or_default();
        let help = help.lines().next().unwrap_or_default();
        let tab = if help.is_empty() { "" } else { "\t" };
        let _ = writeln!(out, "{value}{tab}{help}");
    }
    let _ = writeln!(out, ":{}", if lists_files { 0 } else { NO_FILES });
    let _ = out.flush();
    0
}

/// Who completes paths.
#[derive(Clone, Copy, PartialEq, Eq)]
enum PathCompletion {
    Ours,
    /// kubectl lets the shell do it where there is no candidate.
    OfShell,
}

/// The definition, with those who know names at the arguments that take some.
fn definition(names: NameSource, paths: PathCompletion) -> Command {
    let names = Arc::new(names);
    with_names(super::definition().bin_name(PROGRAM), &names, paths)
}

/// Files and folders, and `demo` where a source is named.
fn with_paths(argument: Arg, is_source: bool, paths: PathCompletion) -> Arg {
    argument.add(ArgValueCompleter::new(move |current: &OsStr| {
        let files = if paths == PathCompletion::Ours { PathCompleter::any().complete(current) } else { Vec::new() };
        // Before anything is typed kubectl's shell is to offer its files.
        let wants_demo = is_source && (paths == PathCompletion::Ours || !current.is_empty());
        let is_demo = wants_demo && current.to_str().is_some_and(|current| "demo".starts_with(current));
        let demo =
            is_demo.then(|| CompletionCandidate::new("demo").help(Some("a small shop with faults in it".into())));
        demo.into_iter().chain(files).collect()
    }))
}

fn with_names(command: Command, names: &Arc<NameSource>, paths: PathCompletion) -> Command {
    let name = command.get_name().to_owned();
    let command = command.mut_args(|argument| {
        let value = argument.get_value_names().and_then(|all| all.first()).map(ToString::to_string).unwrap_or_default();
        let long = argument.get_long().unwrap_or_default();
        let is_source = matches!(long, "from" | "against");
        let is_path =
            matches!(argument.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
        if is_source || is_path || matches!(long, "filename" | "logs") {
            return with_paths(argument, is_source, paths);
        }
        let what = match (long, &*value) {
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
            (_, "WORD") if name == "explain" => NameKind::Explained,
            _ => return argument,
        };
        let names = Arc::clone(names);
        argument.add(ArgValueCompleter::new(move |current: &OsStr| candidates(&names, what, current)))
    });
    let subcommands: Vec<String> = command.get_subcommands().map(|one| one.get_name().to_owned()).collect();
    subcommands
        .into_iter()
        .fold(command, |command, name| command.mut_subcommand(name, |one| with_names(one, names, paths)))
}

/// Names that begin as what is typed; of a list with commas the last counts.
fn candidates(names: &NameSource, what: NameKind, current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let (done, last) = match current.rfind(',') {
        Some(at) if what.is_list() => current.split_at(at + 1),
        _ => ("", &*current),
    };
    let found = names.find(what, last).into_iter().filter(|(name, _)| name.starts_with(last));
    let candidate = |(name, help): (String, String)| {
        let help = (!help.is_empty()).then(|| help.into());
        CompletionCandidate::new(format!("{done}{name}")).help(help)
    };
    found.map(candidate).collect()
}

/// What was typed so far of flags that decide where names come from.
#[derive(Debug, Clone, Default)]
struct TypedFlags {
    connection: ConnectionArgs,
    scope: ScopeArgs,
    from: Vec<String>,
    target: Option<String>,
}

impl TypedFlags {
    fn new(words: &[OsString]) -> Self {
        let mut all = vec![OsString::from(PROGRAM)];
        all.extend(words.iter().cloned());
        let Ok(matches) = super::definition().ignore_errors(true).try_get_matches_from(all) else {
            return Self::default();
        };
        let of_command: &ArgMatches = matches.subcommand().map_or(&matches, |(_, matches)| matches);
        let many = |id: &str| -> Vec<String> {
            let found = of_command.try_get_many::<String>(id).ok().flatten();
            found.map(|values| values.cloned().collect()).unwrap_or_default()
        };
        Self {
            connection: ConnectionArgs::from_arg_matches(of_command).unwrap_or_default(),
            scope: ScopeArgs::from_arg_matches(of_command).unwrap_or_default(),
            from: many("from"),
            target: many("target").into_iter().next(),
        }
    }
}
