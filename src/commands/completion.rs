//! `completion`: scripts for shells, and the file by which kubectl finds this program.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::doctor::plugin_path::{COMPLETER, PROGRAM};

/// Print the completion script of a shell, or make `kubectl grpcmesh` complete
///
/// The scripts complete kubectl-grpcmesh by itself. For kubectl grpcmesh, kubectl asks a program of another name on PATH:
/// install puts it there, as a link to this one.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh completion install
  kubectl-grpcmesh completion bash > ~/.local/share/bash-completion/completions/kubectl-grpcmesh
  kubectl-grpcmesh completion fish > ~/.config/fish/completions/kubectl-grpcmesh.fish")]
pub struct CompletionArgs {
    /// Shell, or install or uninstall
    what: CompletionTarget,
    /// Folder of PATH for install and uninstall (default: the one with kubectl-grpcmesh)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Shells with a script, and what is done for kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionTarget {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Fish.
    Fish,
    /// PowerShell.
    Powershell,
    /// Put kubectl_complete-grpcmesh on PATH.
    Install,
    /// Take it away.
    Uninstall,
}

impl CompletionTarget {
    /// The file under `completions/`; of no shell there is none.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Bash => Some("kubectl-grpcmesh.bash"),
            Self::Zsh => Some("_kubectl-grpcmesh"),
            Self::Fish => Some("kubectl-grpcmesh.fish"),
            Self::Powershell => Some("kubectl-grpcmesh.ps1"),
            Self::Install | Self::Uninstall => None,
        }
    }

    /// The script, which asks this program what there is.
    pub fn script(self) -> Option<Vec<u8>> {
        let shell = match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
            Self::Powershell => "powershell",
            Self::Install | Self::Uninstall => return None,
        };
        Some(super::complete::script(shell))
    }
}

/// Runs the command.
pub(super) fn run(context: &mut Context<'_>, arguments: &CompletionArgs) -> Result<CommandOutcome, Failure> {
    if let Some(script) = arguments.what.script() {
        context.out.write_all(&script)?;
        return Ok(CommandOutcome::Clean);
    }
    let folder = match &arguments.dir {
        Some(folder) => folder.clone(),
        None => context.env.path.iter().find(|folder| program(folder).exists()).cloned().ok_or_else(|| {
            Failure::source(format!("{PROGRAM} is on no folder of PATH"))
                .hint("say into which folder of PATH: --dir ~/.local/bin")
        })?,
    };
    let file = folder.join(format!("{COMPLETER}{}", std::env::consts::EXE_SUFFIX));
    let said = if arguments.what == CompletionTarget::Install { install(&folder, &file)? } else { uninstall(&file)? };
    writeln!(context.out, "{said}")?;
    if arguments.what == CompletionTarget::Install && !context.env.path.contains(&folder) {
        context.messages.warning(&format!("{} is not on PATH: kubectl does not look there", folder.display()));
    }
    Ok(CommandOutcome::Clean)
}

fn program(folder: &Path) -> PathBuf {
    folder.join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX))
}

/// Links to the program beside it, which an upgrade replaces, else to this very file.
fn install(folder: &Path, file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    if file.symlink_metadata().is_ok() && !is_ours(file) {
        return Err(Failure::source(format!("{shown} is there, and is not ours"))
            .hint("take it away, or choose another folder with --dir"));
    }
    let beside = program(folder);
    let target = if beside.exists() {
        beside.file_name().map(PathBuf::from).unwrap_or(beside)
    } else {
        std::env::current_exe().map_err(|error| Failure::source("where this program is, is not known").cause(error))?
    };
    let _ = std::fs::remove_file(file);
    link(&target, file, folder).map_err(|error| Failure::source(format!("cannot make {shown}")).cause(error))?;
    Ok(format!("made {shown} -> {}; kubectl grpcmesh completes now, where kubectl itself does", target.display()))
}

fn uninstall(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    if file.symlink_metadata().is_err() {
        return Ok(format!("{shown} is not there: nothing was done"));
    }
    if !is_ours(file) {
        return Err(Failure::source(format!("{shown} is not ours: it was left alone")));
    }
    std::fs::remove_file(file).map_err(|error| Failure::source(format!("cannot remove {shown}")).cause(error))?;
    Ok(format!("removed {shown}"))
}

/// Whether a file is what install makes: a link to a file of our name, or, where there are no links, a copy.
fn is_ours(file: &Path) -> bool {
    match std::fs::read_link(file) {
        Ok(target) => target.file_stem().is_some_and(|name| name == PROGRAM),
        Err(_) => cfg!(windows),
    }
}

#[cfg(unix)]
fn link(target: &Path, file: &Path, _: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, file)
}

#[cfg(not(unix))]
fn link(target: &Path, file: &Path, folder: &Path) -> std::io::Result<()> {
    std::fs::copy(folder.join(target), file).map(drop)
}
