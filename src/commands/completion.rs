//! `completion`: prints completion scripts for shells, and installs the link through which kubectl completes this plugin.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::doctor::plugin_path::{COMPLETER, PROGRAM};

/// Print a shell completion script, or install completion for kubectl grpcmesh
///
/// The scripts complete the command kubectl-grpcmesh. For kubectl grpcmesh, kubectl runs the program
/// kubectl_complete-grpcmesh on PATH, which install creates as a link to this program.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh completion install
  kubectl-grpcmesh completion bash > ~/.local/share/bash-completion/completions/kubectl-grpcmesh
  kubectl-grpcmesh completion fish > ~/.config/fish/completions/kubectl-grpcmesh.fish")]
pub struct CompletionArgs {
    /// Shell to print the script for, or the action to run
    target: CompletionTarget,
    /// Directory of PATH for install and uninstall (default: the directory of kubectl-grpcmesh)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Shells with a script, and actions for kubectl.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionTarget {
    /// Print the script for bash
    Bash,
    /// Print the script for zsh
    Zsh,
    /// Print the script for fish
    Fish,
    /// Print the script for PowerShell
    Powershell,
    /// Create kubectl_complete-grpcmesh in a directory of PATH
    Install,
    /// Remove kubectl_complete-grpcmesh
    Uninstall,
}

impl CompletionTarget {
    /// File name under `completions/`. `None` for actions.
    pub fn file(self) -> Option<&'static str> {
        match self {
            Self::Bash => Some("kubectl-grpcmesh.bash"),
            Self::Zsh => Some("_kubectl-grpcmesh"),
            Self::Fish => Some("kubectl-grpcmesh.fish"),
            Self::Powershell => Some("kubectl-grpcmesh.ps1"),
            Self::Install | Self::Uninstall => None,
        }
    }

    /// The completion script, which runs this program. `None` for actions.
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

pub(super) fn run(context: &mut Context<'_>, arguments: &CompletionArgs) -> Result<CommandOutcome, Failure> {
    if let Some(script) = arguments.target.script() {
        context.out.write_all(&script)?;
        return Ok(CommandOutcome::Clean);
    }
    let folder = match &arguments.dir {
        Some(folder) => folder.clone(),
        None => context.env.path.iter().find(|folder| program_in(folder).exists()).cloned().ok_or_else(|| {
            Failure::unavailable(format!("{PROGRAM} not found on PATH"))
                .hint("select a directory of PATH, such as --dir ~/.local/bin")
        })?,
    };
    let file = folder.join(format!("{COMPLETER}{}", std::env::consts::EXE_SUFFIX));
    let message =
        if arguments.target == CompletionTarget::Install { install(&folder, &file)? } else { uninstall(&file)? };
    writeln!(context.out, "{message}")?;
    if arguments.target == CompletionTarget::Install && !context.env.path.contains(&folder) {
        context.messages.warning(&format!("{} is not on PATH, so kubectl cannot find the program", folder.display()));
    }
    Ok(CommandOutcome::Clean)
}

fn program_in(folder: &Path) -> PathBuf {
    folder.join(format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX))
}

/// Creates the link to the program in the same folder, so that it survives upgrades, or to the running program.
fn install(folder: &Path, file: &Path) -> Result<String, Failure> {
    let displayed = file.display();
    if file.symlink_metadata().is_ok() && !is_ours(file) {
        return Err(Failure::unavailable(format!(
            "cannot create {displayed}: it exists, and this program did not create it"
        ))
        .hint("remove it, or select another directory with --dir"));
    }
    let program = program_in(folder);
    let target = if program.exists() {
        program.file_name().map(PathBuf::from).unwrap_or(program)
    } else {
        std::env::current_exe()
            .map_err(|error| Failure::unavailable("cannot determine the path of this program").cause(error))?
    };
    let _ = std::fs::remove_file(file);
    link(&target, file, folder)
        .map_err(|error| Failure::unavailable(format!("cannot create {displayed}")).cause(error))?;
    Ok(format!(
        "created {displayed} -> {}; kubectl grpcmesh now completes in every shell where kubectl does",
        target.display()
    ))
}

fn uninstall(file: &Path) -> Result<String, Failure> {
    let displayed = file.display();
    if file.symlink_metadata().is_err() {
        return Ok(format!("{displayed} does not exist: nothing to do"));
    }
    if !is_ours(file) {
        return Err(Failure::unavailable(format!("cannot remove {displayed}: this program did not create it")));
    }
    std::fs::remove_file(file)
        .map_err(|error| Failure::unavailable(format!("cannot remove {displayed}")).cause(error))?;
    Ok(format!("removed {displayed}"))
}

/// Whether `install` created a file: a link to this program, or a copy on Windows.
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
