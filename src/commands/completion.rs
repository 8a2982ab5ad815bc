//! `completion`: scripts for shells.

use clap::{Args, ValueEnum};
use clap_complete::{Shell, generate};

use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};

/// Print the completion script of a shell
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl-grpcmesh completion bash > ~/.local/share/bash-completion/completions/kubectl-grpcmesh
  kubectl-grpcmesh completion fish > ~/.config/fish/completions/kubectl-grpcmesh.fish")]
pub struct CompletionArgs {
    /// Shell
    shell: Kind,
}

/// Shells with a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// GNU Bash.
    Bash,
    /// Z shell.
    Zsh,
    /// Fish.
    Fish,
    /// PowerShell.
    Powershell,
}

impl Kind {
    /// The file under `completions/`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Bash => "kubectl-grpcmesh.bash",
            Self::Zsh => "_kubectl-grpcmesh",
            Self::Fish => "kubectl-grpcmesh.fish",
            Self::Powershell => "kubectl-grpcmesh.ps1",
        }
    }

    /// The script.
    pub fn script(self) -> Vec<u8> {
        let shell = match self {
            Self::Bash => Shell::Bash,
            Self::Zsh => Shell::Zsh,
            Self::Fish => Shell::Fish,
            Self::Powershell => Shell::PowerShell,
        };
        // Shells complete the program under its file's name.
        let mut definition = super::definition().bin_name("kubectl-grpcmesh");
        let mut script = Vec::new();
        generate(shell, &mut definition, "kubectl-grpcmesh", &mut script);
        script
    }
}

/// Runs the command.
pub(super) fn run(context: &mut Context<'_>, arguments: &CompletionArgs) -> Result<Outcome, Failure> {
    context.out.write_all(&arguments.shell.script())?;
    Ok(Outcome::Clean)
}
