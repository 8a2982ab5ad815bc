//! `tail`: what fails, who caused it, what to do; from logs that were saved.

use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::accesslog::format::Format as LogFormat;
use crate::accesslog::{Access, Direction, Kind, Line, Reader, prefix};
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::SourceArgs;
use crate::cli::logs::{self, Log};
use crate::mesh::{Mesh, resolve};
use crate::render;
use crate::report::tail::{Counter, Names, Origin, TailLine};
use crate::verdict::{Grade, Verdict, grpc, judge};

/// Decode sidecar access logs: what failed, on whose side, and what to do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl logs -n shop deploy/checkout -c istio-proxy | kubectl grpcmesh tail --logs -
  kubectl grpcmesh tail --logs /var/log/pods --summary
  kubectl grpcmesh tail --logs checkout.log.gz --flag UF,UH -o json
  kubectl grpcmesh tail --logs checkout.log --summary --fail-on 1%")]
pub struct TailArgs {
    /// Logs to read: files, folders, or - (repeatable; .gz too)
    #[arg(long, value_name = "PATH", required = true)]
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
    side: Option<Side>,
    /// Count instead of showing each call
    #[arg(long)]
    summary: bool,
    /// Exit 1 when more calls than this are faults, such as 1% or 0.01
    #[arg(long, value_name = "RATE", value_parser = rate)]
    fail_on: Option<f64>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: Output,
    /// Names of addresses come from here: "demo", a snapshot, manifests, a directory
    #[arg(long, value_name = "SOURCE")]
    from: Vec<String>,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
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
enum Side {
    /// The caller's.
    Client,
    /// The server's.
    Server,
}

fn status(text: &str) -> Result<u8, String> {
    grpc::parse(text.trim().as_bytes()).ok_or_else(|| "a number from 0 to 16 or a name such as UNAVAILABLE".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::schema::duration::parse(text).map_err(|error| error.to_string())
}

fn rate(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |number| (number, 100.0));
    let rate = number.trim().parse::<f64>().map_err(|_| "a share such as 1% or 0.01".to_owned())? / scale;
    if (0.0..=1.0).contains(&rate) { Ok(rate) } else { Err("between 0% and 100%".to_owned()) }
}

/// What is done with each line.
struct Sink<'a, 'w> {
    context: &'a mut Context<'w>,
    arguments: &'a TailArgs,
    counter: Counter,
    names: Names,
    csv: Option<csv::Writer<Vec<u8>>>,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: TailArgs) -> Result<Outcome, Failure> {
    if arguments.logs.iter().filter(|word| *word == "-").count() > 1 {
        return Err(Failure::usage("standard input (-) can be read only once"));
    }
    if arguments.summary && arguments.output == Output::Csv {
        return Err(Failure::usage("a summary has no rows; use -o json"));
    }
    let format = match &arguments.log_format {
        Some(text) => Some(LogFormat::compile(text).map_err(|error| {
            Failure::usage(format!("cannot use --log-format: {error}"))
                .hint("give it as Envoy got it: meshConfig.accessLogFormat, or the provider's logFormat")
        })?),
        None => None,
    };
    let names = names(context, &arguments.from).await?;
    let mut logs = logs::open(&arguments.logs, arguments.name.as_deref())?;
    let reader = || format.clone().map_or_else(Reader::default, Reader::with_format);
    let csv = (arguments.output == Output::Csv).then(|| csv::Writer::from_writer(Vec::new()));
    let mut sink = Sink { context, arguments: &arguments, counter: Counter::default(), names, csv };
    if let Some(csv) = &mut sink.csv {
        csv.write_record(render::tail::CSV_COLUMNS).map_err(|error| Failure::source(error.to_string()))?;
    }
    if arguments.summary || logs.len() == 1 {
        for log in &mut logs {
            let mut reader = reader();
            let mut buffer = Vec::with_capacity(4096);
            while log.next(&mut buffer).map_err(|error| unreadable(log, &error))? {
                sink.take(&mut reader, &buffer, &log.origin)?;
            }
        }
    } else {
        merge(&mut logs, &reader, &mut sink)?;
    }
    let cut: u64 = logs.iter().map(|log| log.cut).sum();
    sink.finish(cut)
}

/// Who has which address, from a source.
async fn names(context: &mut Context<'_>, from: &[String]) -> Result<Names, Failure> {
    if from.is_empty() {
        return Ok(Names::default());
    }
    let source = SourceArgs { from: from.to_vec(), ..SourceArgs::default() };
    let read = source.read(context).await?;
    let mesh: Mesh<'_> = resolve(&read.snapshot, &source.options(&context.scope));
    let of_pods = mesh.workloads.iter().filter_map(|workload| {
        let owner = workload.owner.as_ref().map_or(&*workload.object.name, |(_, name)| name);
        Some((workload.ip.as_deref()?.to_owned(), format!("{owner}.{}", workload.namespace())))
    });
    let of_services = mesh.services.iter().flat_map(|service| {
        let name = mesh.short_host(&service.host).to_owned();
        service.addresses.iter().map(move |address| (address.to_string(), name.clone()))
    });
    Ok(Names(of_services.chain(of_pods).collect()))
}

/// Several logs in the order of time. Lines of one log keep their order, which is nearly that of time.
fn merge(logs: &mut [Log], reader: &dyn Fn() -> Reader, sink: &mut Sink<'_, '_>) -> Result<(), Failure> {
    struct Head {
        reader: Reader,
        line: Vec<u8>,
        start: i64,
    }
    let mut heads: Vec<Option<Head>> =
        logs.iter().map(|_| Some(Head { reader: reader(), line: Vec::new(), start: i64::MIN })).collect();
    // Moves on to the next access line; everything before it is counted at once.
    let advance = |log: &mut Log, head: &mut Option<Head>, sink: &mut Sink<'_, '_>| -> Result<(), Failure> {
        let Some(mut now) = head.take() else { return Ok(()) };
        while log.next(&mut now.line).map_err(|error| unreadable(log, &error))? {
            match now.reader.read(prefix::strip(&now.line).line) {
                Line::Access(access) => {
                    now.start = access.start.unwrap_or(now.start);
                    drop(access);
                    *head = Some(now);
                    return Ok(());
                }
                Line::Other(kind) => sink.other(kind, &now.line),
            }
        }
        Ok(())
    };
    for (log, head) in logs.iter_mut().zip(&mut heads) {
        advance(log, head, sink)?;
    }
    while let Some(at) =
        (0..heads.len()).filter(|at| heads[*at].is_some()).min_by_key(|at| heads[*at].as_ref().map(|head| head.start))
    {
        if let Some(head) = &mut heads[at] {
            let line = std::mem::take(&mut head.line);
            sink.take(&mut head.reader, &line, &logs[at].origin)?;
            head.line = line;
        }
        advance(&mut logs[at], &mut heads[at], sink)?;
    }
    Ok(())
}

fn unreadable(log: &Log, error: &std::io::Error) -> Failure {
    let name = log.origin.pod.as_deref().unwrap_or("-");
    Failure::source(format!("cannot read the log of {}", render::text::safe(name)))
        .cause(error)
        .hint("is the file whole?")
}

impl Sink<'_, '_> {
    fn take(&mut self, reader: &mut Reader, line: &[u8], origin: &Origin) -> Result<(), Failure> {
        let stripped = prefix::strip(line);
        let access = match reader.read(stripped.line) {
            Line::Access(access) => access,
            Line::Other(kind) => {
                self.other(kind, line);
                return Ok(());
            }
        };
        let verdict = judge(&access);
        if !self.passes(&access, &verdict) {
            return Ok(());
        }
        self.counter.add(&access, &verdict);
        if self.arguments.summary || (verdict.grade == Grade::Normal && !self.shows_normal()) {
            return Ok(());
        }
        let named;
        let origin = match stripped.pod {
            Some(pod) => {
                named = Origin { pod: Some(pod.to_owned()), namespace: origin.namespace.clone() };
                &named
            }
            None => origin,
        };
        let line = TailLine::new(&access, &verdict, origin, &self.names);
        match self.arguments.output {
            Output::Text => render::tail::line(&line, &self.context.style, self.context.out)?,
            Output::Json => {
                serde_json::to_writer(&mut *self.context.out, &line).map_err(std::io::Error::from)?;
                writeln!(self.context.out)?;
            }
            Output::Csv => {
                if let Some(csv) = &mut self.csv {
                    csv.write_record(render::tail::csv(&line)).map_err(|error| Failure::source(error.to_string()))?;
                    self.drain_csv()?;
                }
            }
        }
        Ok(())
    }

    /// What went well is shown when it was asked for, by `--all` or by a filter that names it.
    fn shows_normal(&self) -> bool {
        self.arguments.all || !self.arguments.grpc_status.is_empty() || self.arguments.min_duration.is_some()
    }

    fn passes(&self, access: &Access<'_>, verdict: &Verdict) -> bool {
        let arguments = self.arguments;
        let contains = |value: &crate::accesslog::Value<'_>, wanted: &str| {
            value.as_deref().is_some_and(|value| memchr::memmem::find(value, wanted.as_bytes()).is_some())
        };
        let status = verdict.status.and_then(|status| status.code);
        let long = |limit: &Duration| u128::from(access.duration.unwrap_or(0)) >= limit.as_millis();
        let side = |side: &Side| match side {
            Side::Client => access.direction() == Some(Direction::Outbound),
            Side::Server => access.direction() == Some(Direction::Inbound),
        };
        (arguments.flag.is_empty() || arguments.flag.iter().any(|flag| access.flags.has(&flag.to_ascii_uppercase())))
            && (arguments.grpc_status.is_empty() || status.is_some_and(|code| arguments.grpc_status.contains(&code)))
            && arguments.method.as_deref().is_none_or(|wanted| contains(&access.path, wanted))
            && arguments
                .upstream
                .as_deref()
                .is_none_or(|wanted| contains(&access.cluster, wanted) || contains(&access.upstream_host, wanted))
            && arguments.min_duration.as_ref().is_none_or(long)
            && arguments.side.as_ref().is_none_or(side)
    }

    fn other(&mut self, kind: Kind, line: &[u8]) {
        self.counter.other(kind);
        if self.arguments.raw {
            self.context.messages.detail(&String::from_utf8_lossy(line));
        }
    }

    fn drain_csv(&mut self) -> Result<(), Failure> {
        let Some(writer) = self.csv.take() else { return Ok(()) };
        let mut bytes = writer.into_inner().map_err(|error| Failure::source(error.to_string()))?;
        self.context.out.write_all(&bytes)?;
        bytes.clear();
        self.csv = Some(csv::Writer::from_writer(bytes));
        Ok(())
    }

    fn finish(mut self, cut: u64) -> Result<Outcome, Failure> {
        self.drain_csv()?;
        let report = self.counter.report();
        match (self.arguments.summary, self.arguments.output) {
            (true, Output::Json) => render::json(&report, self.context.out)?,
            (true, _) => render::tail::summary(&report, &self.context.style, self.context.out)?,
            (false, _) => {
                let lines: Vec<String> =
                    report.other_lines.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                let others =
                    if lines.is_empty() { String::new() } else { format!("; other lines: {}", lines.join(", ")) };
                let text =
                    format!("{} calls, {} faults, {} notices{others}", report.calls, report.faults, report.notices);
                self.context.messages.hint(&text);
            }
        }
        if cut > 0 {
            self.context.messages.warning(&format!("{cut} lines were longer than 4 MiB and were cut"));
        }
        if self.counter.calls() == 0 {
            self.context.messages.warning("no access line was found");
            let unknown = ["unknown", "unknown-json"].iter().any(|kind| report.other_lines.contains_key(*kind));
            self.context.messages.hint(if unknown {
                "is it a custom format? give it with --log-format"
            } else {
                "is access logging on? meshConfig.accessLogFile, or a Telemetry object with accessLogging"
            });
        }
        let too_many = self.arguments.fail_on.is_some_and(|limit| self.counter.fault_rate() > limit);
        Ok(if too_many { Outcome::Found } else { Outcome::Clean })
    }
}
