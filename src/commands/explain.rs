//! `explain`: what a finding's code means.

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::render;
use crate::report::explain::ExplainReport;
use crate::rules::{self, RULES};

/// Explain a finding: what it looks for, why it matters for gRPC, the repair
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh explain GM203
  kubectl grpcmesh explain subset-undefined,GM101
  kubectl grpcmesh explain --list")]
pub struct ExplainArgs {
    /// Codes or names, such as GM203 or subset-undefined (comma-separated)
    #[arg(value_name = "CODE", value_delimiter = ',', required_unless_present = "list")]
    codes: Vec<String>,
    /// List all codes
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Format,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
}

/// Runs the command.
pub(super) fn run(context: &mut Context<'_>, arguments: &ExplainArgs) -> Result<Outcome, Failure> {
    let mut rules = Vec::new();
    if arguments.list {
        rules.extend(RULES.iter().copied());
    } else {
        for word in arguments.codes.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
            rules.push(rules::find(word).ok_or_else(|| unknown(word))?);
        }
    }
    let report = ExplainReport::new(rules.into_iter());
    match arguments.output {
        Format::Text if arguments.list => render::explain::list(&report, &context.style, context.out)?,
        Format::Text => render::explain::explain(&report, &context.style, context.out)?,
        Format::Json => render::json(&report, context.out)?,
        Format::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(Outcome::Clean)
}

fn unknown(word: &str) -> Failure {
    let near = RULES
        .iter()
        .flat_map(|rule| [rule.code, rule.name])
        .map(|name| (strsim::damerau_levenshtein(&name.to_lowercase(), &word.to_lowercase()), name))
        .min()
        .filter(|(distance, name)| *distance <= (name.len() / 4).max(1));
    let failure = Failure::usage(format!("no finding is called \"{word}\""));
    match near {
        Some((_, name)) => failure.hint(format!("did you mean {name}?")),
        None => failure.hint("list them with: kubectl grpcmesh explain --list"),
    }
}
