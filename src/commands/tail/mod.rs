//! `tail`: reads access logs and reports failed calls with their cause and the next step.

mod filter;
mod live;
mod logging_check;
mod saved;
mod sink;
mod targets;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::accesslog::format::LogFormat;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::vocabulary::grpc_status;

/// Decode sidecar access logs: what failed, on which side, and what to do next
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh tail checkout -n shop -f
  kubectl grpcmesh tail checkout -n shop --callers --since 10m --summary
  kubectl logs -n shop deploy/checkout -c istio-proxy | kubectl grpcmesh tail --logs -
  kubectl grpcmesh tail --logs /var/log/pods --summary
  kubectl grpcmesh tail checkout cart -n shop,web -f --top
  kubectl grpcmesh tail --logs checkout.log.gz --flag UF,UH -o json
  kubectl grpcmesh tail --logs web.log --logs checkout.log --join
  kubectl grpcmesh tail --logs checkout.log --where 'grpc_status == 14 && duration_ms > 500'
  kubectl grpcmesh tail --logs checkout.log --summary --fail-on 1%")]
pub struct TailArgs {
    /// Read the proxies of this Service, deploy/NAME, rs/, sts/, ds/, job/, rollout/, gateway/ or pod/NAME (repeatable)
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Read the proxies of pods with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Read the proxies of the Service's callers instead of its own
    #[arg(long)]
    callers: bool,
    /// Keep reading as logs grow, and include new pods
    #[arg(short, long)]
    follow: bool,
    /// Only calls newer than this duration, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only calls after this time (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "since", value_parser = time)]
    since_time: Option<String>,
    /// Only this number of lines from the end of each log
    #[arg(long = "tail", value_name = "LINES")]
    lines: Option<u64>,
    /// Read the logs of the previous container instances
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Exclude pods whose names contain this text (repeatable)
    #[arg(long, value_name = "TEXT")]
    exclude: Vec<String>,
    /// Maximum number of logs to read at the same time
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    max_log_requests: usize,
    /// Read saved logs instead of a cluster: files, directories, archives, or - for stdin (repeatable)
    #[arg(long, value_name = "PATH", conflicts_with_all = ["targets", "selector", "callers", "follow", "lines", "previous", "exclude"])]
    logs: Vec<String>,
    /// Pod that wrote the logs, as POD or NAMESPACE/POD (default: taken from the path)
    #[arg(long, value_name = "POD")]
    name: Option<String>,
    /// Access log format, as configured for Envoy (default: Istio's formats, detected automatically)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Include successful calls
    #[arg(long)]
    all: bool,
    /// Print lines that are not access log lines to stderr
    #[arg(long)]
    raw: bool,
    /// Only calls with one of these response flags (comma-separated)
    #[arg(long, value_name = "FLAG", value_delimiter = ',')]
    flag: Vec<String>,
    /// Only calls with one of these gRPC statuses, by number or name (comma-separated)
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    grpc_status: Vec<u8>,
    /// Only calls whose path contains this text
    #[arg(long, value_name = "TEXT")]
    method: Option<String>,
    /// Only calls whose upstream cluster or endpoint contains this text
    #[arg(long, value_name = "TEXT")]
    upstream: Option<String>,
    /// Only calls that took at least this long, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_duration: Option<Duration>,
    /// Only lines of the client's or of the server's proxies
    #[arg(long, value_name = "SIDE")]
    side: Option<SideArg>,
    /// Only calls that match this CEL expression over the fields of -o json
    #[arg(long = "where", value_name = "EXPR")]
    expression: Option<String>,
    /// Print aggregated counts and latencies instead of each call
    #[arg(long)]
    summary: bool,
    /// Show a table of failures that is refreshed every second (needs a terminal)
    #[arg(long, conflicts_with_all = ["summary", "output", "raw"])]
    top: bool,
    /// Group the lines that several proxies wrote for one request, by request id
    #[arg(long, conflicts_with_all = ["summary", "top"])]
    join: bool,
    /// Exit with code 1 if the share of faults is higher than this, such as 1% or 0.01
    #[arg(long, value_name = "RATE", value_parser = ratio)]
    fail_on: Option<f64>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: TailFormat,
    /// Resolve addresses to names from "demo", a snapshot, manifests, or a directory
    #[arg(long, value_name = "SOURCE")]
    from: Vec<String>,
    /// Largest archive to read, by the size of its logs when decompressed, such as 2Gi (default: 512Mi)
    #[arg(long, value_name = "SIZE", value_parser = crate::cli::global::byte_size)]
    max_source_size: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TailFormat {
    /// Text for people.
    #[value(alias = "table")]
    Text,
    /// One JSON object per line.
    Json,
    /// One CSV row per call.
    Csv,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SideArg {
    /// The client's proxies.
    Client,
    /// The server's proxies.
    Server,
}

/// Compiles an expression of `--where`, and evaluates it for an empty line.
pub(crate) fn evaluate_where(text: &str) {
    filter::evaluate(text);
}

impl TailArgs {
    /// Whether the command handles Ctrl-C: it follows logs, or has to restore the screen.
    pub(super) fn ends_itself(&self) -> bool {
        self.logs.is_empty() || self.top
    }
}

fn status(text: &str) -> Result<u8, String> {
    grpc_status::parse(text.trim().as_bytes())
        .ok_or_else(|| "expected a number from 0 to 16 or a name such as UNAVAILABLE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::vocabulary::duration::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<String, String> {
    let time =
        text.parse::<jiff::Timestamp>().map_err(|_| "expected a time such as 2026-11-21T09:00:00Z".to_owned())?;
    Ok(time.to_string())
}

fn ratio(text: &str) -> Result<f64, String> {
    let (number, divisor) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let ratio = number.trim().parse::<f64>().map_err(|_| "expected a share such as 1% or 0.01".to_owned())? / divisor;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("expected a share from 0% to 100%".to_owned()) }
}

pub(super) async fn run(context: &mut Context<'_>, arguments: TailArgs) -> Result<CommandOutcome, Failure> {
    if (arguments.summary || arguments.join) && arguments.output == TailFormat::Csv {
        let flag = if arguments.summary { "--summary" } else { "--join" };
        return Err(Failure::usage(format!("cannot combine {flag} with -o csv")).hint(format!("use {flag} -o json")));
    }
    if arguments.top && !context.env.stdout_is_terminal {
        return Err(Failure::usage("--top needs a terminal").hint("use --summary when stdout is a pipe or a file"));
    }
    let format = match &arguments.log_format {
        Some(text) => Some(LogFormat::compile(text).map_err(|error| {
            Failure::usage(format!("cannot use --log-format: {error}"))
                .hint("pass the format as configured in meshConfig.accessLogFormat or in the provider's logFormat")
        })?),
        None => None,
    };
    if arguments.logs.is_empty() {
        live::run(context, &arguments, format).await
    } else {
        saved::run(context, &arguments, format).await
    }
}
