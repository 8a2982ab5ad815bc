//! `explain`: describes findings, response flags, response code details and gRPC statuses.

use clap::Args;

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::ReportFormat;
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
  kubectl grpcmesh explain UC --details upstream_reset_before_response_started
  kubectl grpcmesh explain 14 DEADLINE_EXCEEDED
  kubectl grpcmesh explain --list")]
pub struct ExplainArgs {
    /// Findings such as GM203, response flags such as UF,URX, or gRPC statuses such as 14 or UNAVAILABLE
    #[arg(value_name = "NAME", value_delimiter = ',', required_unless_present_any = ["list", "details"])]
    names: Vec<String>,
    /// Response code details of a log line, explained together with its flags
    #[arg(long, value_name = "TEXT")]
    details: Option<String>,
    /// List all findings, flags, details and statuses
    #[arg(long)]
    list: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ReportFormat,
}

pub(super) fn run(context: &mut Context<'_>, arguments: &ExplainArgs) -> Result<CommandOutcome, Failure> {
    let report = if arguments.list { ExplainReport::all() } else { ExplainReport::new(items(arguments)?) };
    match arguments.output {
        ReportFormat::Text if arguments.list => render::explain::list(&report, &context.style, context.out)?,
        ReportFormat::Text => render::explain::explain(&report, &context.style, context.out)?,
        ReportFormat::Json => render::json(&report, context.out)?,
        ReportFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

#[expect(clippy::indexing_slicing, reason = "the table has an entry for each status that the parser returns")]
fn items(arguments: &ExplainArgs) -> Result<Vec<ExplainItem>, Failure> {
    let mut items = Vec::new();
    let mut flags: Vec<&str> = Vec::new();
    for name in arguments.names.iter().map(|name| name.trim()).filter(|name| !name.is_empty()) {
        if name == "-" {
            if arguments.details.is_none() {
                return Err(Failure::usage(
                    "cannot explain \"-\": in a log line, it means that no response flag is set",
                )
                .hint("explain the details instead: kubectl grpcmesh explain --details via_upstream"));
            }
        } else if let Some(rule) = rules::find(name) {
            items.push(ExplainItem::of_rule(rule));
        } else if let Some(flag) = response_flags::find(name) {
            flags.push(flag.code);
            items.push(ExplainItem::of_flag(flag));
        } else if let Some(code) = grpc_status::parse(name.as_bytes()) {
            items.push(ExplainItem::of_status(&grpc_status::STATUSES[usize::from(code)]));
        } else if let Some(detail) = response_code_details::find_by_prefix(response_code_details::DETAILS, name) {
            items.push(ExplainItem::of_details(detail));
        } else if has_flag_form(name) && nearest(name).is_none() {
            flags.push(name);
            items.push(ExplainItem::of_unknown_flag(name));
        } else {
            return Err(unknown(name));
        }
    }
    // Flags and details of one log line together narrow down the cause.
    if flags.len() > 1 || arguments.details.is_some() {
        items.insert(0, ExplainItem::of_line(&flags.join(","), arguments.details.as_deref().unwrap_or_default()));
    }
    Ok(items)
}

/// Accepts unknown flags, because extensions of Envoy may register their own.
fn has_flag_form(name: &str) -> bool {
    (2..=8).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn nearest(name: &str) -> Option<&'static str> {
    let findings = RULES.iter().flat_map(|rule| [rule.code, rule.name]);
    let names = findings
        .chain(response_flags::FLAGS.iter().map(|flag| flag.name))
        .chain(grpc_status::STATUSES.iter().map(|status| status.name));
    nearest_name::nearest(name, names)
}

fn unknown(name: &str) -> Failure {
    let failure = Failure::usage(format!(
        "cannot explain \"{name}\": not a finding, response flag, gRPC status or response code detail"
    ));
    match nearest(name) {
        Some(nearest) => failure.hint(format!("did you mean {nearest}?")),
        None => failure.hint("list them with: kubectl grpcmesh explain --list"),
    }
}
