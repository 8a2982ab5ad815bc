//! `tail`: what fails, who caused it, what to do.

mod diagnosis;
mod filter;
mod live;
mod saved;
mod sink;
mod targets;

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::accesslog::format::LogFormat;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::vocabulary::grpc_status;

/// Decode sidecar access logs: what failed, on whose side, and what to do
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
    /// Service, deploy/NAME, rs/, sts/, ds/, job/, rollout/, gateway/ or pod/NAME whose proxies are read (repeatable)
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Pods with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// The proxies of everybody who calls the Service, instead of its own
    #[arg(long)]
    callers: bool,
    /// Go on as logs grow; new pods join
    #[arg(short, long)]
    follow: bool,
    /// Only lines newer than this, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// Only lines after this time, RFC 3339
    #[arg(long, value_name = "TIME", conflicts_with = "since", value_parser = time)]
    since_time: Option<String>,
    /// Only so many lines from the end of each log
    #[arg(long = "tail", value_name = "LINES")]
    lines: Option<u64>,
    /// Logs of the containers before their last restart
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// Not the pods whose names contain this (repeatable)
    #[arg(long, value_name = "TEXT")]
    exclude: Vec<String>,
    /// How many logs may be open at once
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    max_log_requests: usize,
    /// Saved logs instead of a cluster's: files, folders, or - (repeatable; .gz too)
    #[arg(long, value_name = "PATH", conflicts_with_all = ["targets", "selector", "callers", "follow", "lines", "previous", "exclude"])]
    logs: Vec<String>,
    /// Pod that wrote them, as POD or NAMESPACE/POD (default: from the path)
    #[arg(long, value_name = "POD")]
    name: Option<String>,
    /// Format of the access log, as it was given to Envoy (default: Istio's formats, recognised)
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Calls that went well too
    #[arg(long)]
    all: bool,
    /// Show lines that are no access lines, on stderr
    #[arg(long)]
    raw: bool,
    /// Only calls with one of these flags (comma-separated)
    #[arg(long, value_name = "FLAG", value_delimiter = ',')]
    flag: Vec<String>,
    /// Only calls with one of these gRPC statuses, by number or name (comma-separated)
    #[arg(long, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    grpc_status: Vec<u8>,
    /// Only paths that contain this
    #[arg(long, value_name = "TEXT")]
    method: Option<String>,
    /// Only clusters or endpoints that contain this
    #[arg(long, value_name = "TEXT")]
    upstream: Option<String>,
    /// Only calls that took at least this long, such as 500ms
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    min_duration: Option<Duration>,
    /// Only lines of this side's proxies
    #[arg(long, value_name = "SIDE")]
    side: Option<SideArg>,
    /// Only calls for which this holds, in CEL over the fields of -o json
    #[arg(long = "where", value_name = "EXPR")]
    expression: Option<String>,
    /// Count instead of showing each call
    #[arg(long)]
    summary: bool,
    /// Show a table of what goes wrong that is drawn again each second (needs a terminal)
    #[arg(long, conflicts_with_all = ["summary", "output", "raw"])]
    top: bool,
    /// Bring the lines of a request together, of all proxies that saw it, by its request id
    #[arg(long, conflicts_with_all = ["summary", "top"])]
    join: bool,
    /// Exit 1 when more calls than this are faults, such as 1% or 0.01
    #[arg(long, value_name = "RATE", value_parser = rate)]
    fail_on: Option<f64>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: TailFormat,
    /// Names of addresses come from here: "demo", a snapshot, manifests, a directory
    #[arg(long, value_name = "SOURCE")]
    from: Vec<String>,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TailFormat {
    /// For people.
    #[value(alias = "table")]
    Text,
    /// One object a line.
    Json,
    /// One row a call.
    Csv,
}

/// Whose proxy wrote a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SideArg {
    /// The caller's.
    Client,
    /// The server's.
    Server,
}

fn status(text: &str) -> Result<u8, String> {
    grpc_status::parse(text.trim().as_bytes())
        .ok_or_else(|| "a number from 0 to 16 or a name such as UNAVAILABLE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::vocabulary::duration::parse(text).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<String, String> {
    let time = text.parse::<jiff::Timestamp>().map_err(|_| "a time such as 2026-11-21T09:00:00Z".to_owned())?;
    Ok(time.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let rate = number.trim().parse::<f64>().map_err(|_| "a share such as 1% or 0.01".to_owned())? / scale;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("between 0% and 100%".to_owned()) }
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: TailArgs) -> Result<CommandOutcome, Failure> {
    if (arguments.summary || arguments.join) && arguments.output == TailFormat::Csv {
        let what = if arguments.summary { "a summary has no rows" } else { "calls of --join have no rows" };
        return Err(Failure::usage(format!("{what}; use -o json")));
    }
    if arguments.top && !context.env.stdout_is_terminal {
        return Err(Failure::usage("--top draws on a terminal, and this is none").hint("use --summary in a pipe"));
    }
    let format = match &arguments.log_format {
        Some(text) => Some(LogFormat::compile(text).map_err(|error| {
            Failure::usage(format!("cannot use --log-format: {error}"))
                .hint("give it as Envoy got it: meshConfig.accessLogFormat, or the provider's logFormat")
        })?),
        None => None,
    };
    if arguments.logs.is_empty() {
        live::run(context, &arguments, format).await
    } else {
        saved::run(context, &arguments, format).await
    }
}
