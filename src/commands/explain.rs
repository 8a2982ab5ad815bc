//! `explain`: what a code, a flag, details or a status means.

use clap::{Args, ValueEnum};

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::render;
use crate::report::explain::{ExplainItem, ExplainReport};
use crate::rules::{self, RULES};
use crate::vocabulary::nearest_name;
use crate::vocabulary::{grpc_status, response_code_details, response_flags};

/// Explain a finding, a response flag, response code details or a gRPC status
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh explain GM203
  kubectl grpcmesh explain UF,URX
  kubectl grpcmesh explain UC --details 'upstream_reset_before_response_started{connection_termination}'
  kubectl grpcmesh explain 14 DEADLINE_EXCEEDED
  kubectl grpcmesh explain --list")]
pub struct ExplainArgs {
    /// Codes or names such as GM203, flags such as UF,URX, statuses such as 14 or UNAVAILABLE
    #[arg(value_name = "WORD", value_delimiter = ',', required_unless_present_any = ["list", "details"])]
    words: Vec<String>,
    /// Response code details as they stand in the log, read together with the flags
    #[arg(long, value_name = "TEXT")]
    details: Option<String>,
    /// List everything that can be explained
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ExplainFormat,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ExplainFormat {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
}

/// Runs the command.
pub(super) fn run(context: &mut Context<'_>, arguments: &ExplainArgs) -> Result<CommandOutcome, Failure> {
    let report = if arguments.list { ExplainReport::everything() } else { ExplainReport::new(items(arguments)?) };
    match arguments.output {
        ExplainFormat::Text if arguments.list => render::explain::list(&report, &context.style, context.out)?,
        ExplainFormat::Text => render::explain::explain(&report, &context.style, context.out)?,
        ExplainFormat::Json => render::json(&report, context.out)?,
        ExplainFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

fn items(arguments: &ExplainArgs) -> Result<Vec<ExplainItem>, Failure> {
    let mut items = Vec::new();
    let mut flags: Vec<&str> = Vec::new();
    for word in arguments.words.iter().map(|word| word.trim()).filter(|word| !word.is_empty()) {
        if word == "-" {
            if arguments.details.is_none() {
                return Err(Failure::usage("- in a log means that no flag was raised")
                    .hint("what then happened, the details tell: kubectl grpcmesh explain --details via_upstream"));
            }
        } else if let Some(rule) = rules::find(word) {
            items.push(ExplainItem::of_rule(rule));
        } else if let Some(flag) = response_flags::find(word) {
            flags.push(flag.code);
            items.push(ExplainItem::of_flag(flag));
        } else if let Some(code) = grpc_status::parse(word.as_bytes()) {
            items.push(ExplainItem::of_status(&grpc_status::STATUSES[usize::from(code)]));
        } else if let Some(detail) = response_code_details::find(response_code_details::DETAILS, word) {
            items.push(ExplainItem::of_details(detail));
        } else if could_be_flag(word) && nearest(word).is_none() {
            flags.push(word);
            items.push(ExplainItem::of_unknown_flag(word));
        } else {
            return Err(unknown(word));
        }
    }
    // What two flags mean together is more than what each means alone.
    if flags.len() > 1 || arguments.details.is_some() {
        items.insert(0, ExplainItem::of_line(&flags.join(","), arguments.details.as_deref().unwrap_or_default()));
    }
    Ok(items)
}

/// The form of a flag: capitals, as extensions register them too.
fn could_be_flag(word: &str) -> bool {
    (2..=8).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn nearest(word: &str) -> Option<&'static str> {
    let findings = RULES.iter().flat_map(|rule| [rule.code, rule.name]);
    let words = findings
        .chain(response_flags::FLAGS.iter().map(|flag| flag.name))
        .chain(grpc_status::STATUSES.iter().map(|one| one.name));
    nearest_name::nearest(word, words)
}

fn unknown(word: &str) -> Failure {
    let failure = Failure::usage(format!("no finding, flag, status or details text is called \"{word}\""));
    match nearest(word) {
        Some(name) => failure.hint(format!("did you mean {name}?")),
        None => failure.hint("list them with: kubectl grpcmesh explain --list"),
    }
}
