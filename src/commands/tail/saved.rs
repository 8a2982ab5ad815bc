//! `tail --logs`: reads saved logs.

use std::sync::Arc;

use super::TailArgs;
use super::sink::LineSink;
use crate::accesslog::format::LogFormat;
use crate::accesslog::settings::LogSettings;
use crate::accesslog::{AccessEntry, LogReader};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::log_files::{self, LogFile};
use crate::mesh::{Mesh, resolve};
use crate::render;
use crate::report::tail::AddressNames;
use crate::report::tail_summary::SummaryCounter;

pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<CommandOutcome, Failure> {
    if arguments.logs.iter().filter(|path| *path == "-").count() > 1 {
        return Err(Failure::usage("cannot read standard input (-) more than once"));
    }
    let (names, source_formats) = read_source(context, &arguments.from).await?;
    let mut logs = log_files::open(&arguments.logs, arguments.name.as_deref())?;
    if let Some(namespace) = context.scope.namespace.as_deref().filter(|_| !context.scope.all_namespaces) {
        // Logs whose path does not contain their namespace are kept.
        logs.retain(|log| log.origin.namespace.as_deref().is_none_or(|other| other == namespace));
        if logs.is_empty() {
            let message = format!("none of the logs belongs to namespace {}", render::text::safe(namespace));
            return Err(Failure::unavailable(message).hint("omit -n, or pass other files with --logs"));
        }
    }
    let formats: Arc<[LogFormat]> = format.map_or(source_formats, |format| vec![format]).into();
    let new_reader = || LogReader::with_formats(Arc::clone(&formats));
    let from_ms = range_start_ms(context, arguments)?;
    let mut sink = LineSink::new(context, arguments, names)?;
    sink.filter.from_ms = from_ms;
    let mut failed_logs = FailedLogs::default();
    if arguments.summary && !arguments.raw {
        for log in &mut logs {
            let result = count_lines(log, &new_reader, &mut sink);
            failed_logs.record(result, log);
        }
    } else if logs.len() == 1 {
        for log in &mut logs {
            let mut reader = new_reader();
            let origin = log.origin.clone();
            loop {
                match log.next_line() {
                    Ok(Some(line)) => sink.process(&mut reader, line, &origin)?,
                    Ok(None) => break,
                    Err(error) => {
                        failed_logs.record(Err(error), log);
                        break;
                    }
                }
            }
        }
    } else {
        merge_by_time(&mut logs, &new_reader, &mut sink, &mut failed_logs)?;
    }
    let FailedLogs(failed_logs) = failed_logs;
    if let [(message, error), ..] = &failed_logs[..]
        && failed_logs.len() == logs.len()
        && !sink.has_lines()
    {
        return Err(Failure::unavailable(message).cause(error).hint("check that the file is complete"));
    }
    for (message, error) in &failed_logs {
        sink.context.messages.warning(&format!("{message}: {error}"));
    }
    let truncated_lines: u64 = logs.iter().map(|log| log.truncated_lines).sum();
    let no_lines_hint = "check that these are logs of istio-proxy containers and that access logging is enabled";
    match sink.finish(truncated_lines, Some(no_lines_hint))? {
        CommandOutcome::Clean if !failed_logs.is_empty() => Ok(CommandOutcome::Partial),
        outcome => Ok(outcome),
    }
}

/// Logs that could not be read to their end, with a message and the cause. The lines before the error count.
#[derive(Default)]
struct FailedLogs(Vec<(String, std::io::Error)>);

impl FailedLogs {
    fn record(&mut self, result: std::io::Result<()>, log: &LogFile) {
        let name = log.origin.pod.as_deref().unwrap_or("-");
        let message = || format!("cannot read the log of {} to its end", render::text::safe(name));
        self.0.extend(result.err().map(|error| (message(), error)));
    }
}

/// The start of the range of `--since` or `--since-time`, in milliseconds since 1970.
fn range_start_ms(context: &Context<'_>, arguments: &TailArgs) -> Result<Option<i64>, Failure> {
    let parse = |text: &str| {
        text.parse::<jiff::Timestamp>()
            .map_err(|error| Failure::usage(format!("\"{text}\" is not a valid time: {error}")))
    };
    if let Some(time) = &arguments.since_time {
        return Ok(Some(parse(time)?.as_millisecond()));
    }
    let Some(since) = arguments.since else { return Ok(None) };
    let now = parse(&context.env.now)?.as_millisecond();
    Ok(Some(now.saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))))
}

/// Counts the lines of a log, of a large file on all cores. Lines before an error count. Where a file is split, the
/// further lines of a record of several lines may be counted as unknown.
fn count_lines(
    log: &mut LogFile,
    new_reader: &(dyn Fn() -> LogReader + Sync),
    sink: &mut LineSink<'_, '_>,
) -> std::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let counting = sink.counting_sink();
    let count = |log: &mut LogFile| {
        let (mut counter, mut reader) = (SummaryCounter::default(), new_reader());
        let origin = log.origin.clone();
        let result = loop {
            match log.next_line() {
                Ok(Some(line)) => counting.count(&mut counter, &mut reader, line, &origin),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (counter, result)
    };
    let Some(mut parts) = log.split(cores)? else {
        let (counter, result) = count(log);
        sink.merge_counts(counter);
        return result;
    };
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts.iter_mut().map(|part| scope.spawn(|| count(part))).collect();
        let failed = || (SummaryCounter::default(), Err(std::io::Error::other("a reader thread panicked")));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
    });
    log.truncated_lines = parts.iter().map(|part| part.truncated_lines).sum();
    let mut first_error = Ok(());
    for (counter, result) in results {
        sink.merge_counts(counter);
        first_error = first_error.and(result);
    }
    first_error
}

/// Names of addresses, and the log formats of the mesh, from `--from`.
async fn read_source(context: &mut Context<'_>, from: &[String]) -> Result<(AddressNames, Vec<LogFormat>), Failure> {
    if from.is_empty() {
        return Ok((AddressNames::default(), Vec::new()));
    }
    let source = SourceArgs { from: from.to_vec(), ..SourceArgs::default() };
    let read = source.read(context).await?;
    let mesh: Mesh<'_> = resolve(&read.snapshot, &source.options(&context.scope));
    let pods = mesh.workloads.iter().filter_map(|workload| {
        let owner = workload.owner.as_ref().map_or(&*workload.object.name, |(_, name)| name);
        Some((workload.ip.as_deref()?.to_owned(), format!("{owner}.{}", workload.namespace())))
    });
    let services = mesh.services.iter().flat_map(|service| {
        let name = mesh.short_host(&service.host).to_owned();
        service.addresses.iter().map(move |address| (address.to_string(), name.clone()))
    });
    let names = AddressNames(services.chain(pods).collect());
    let (formats, invalid) = LogSettings { mesh: mesh.config.clone(), ..LogSettings::default() }.custom_formats();
    for (setting, error) in invalid {
        context.messages.warning(&format!("cannot use {setting} to parse lines: {error}"));
    }
    Ok((names, formats))
}

/// Processes several logs in the order of start times. Lines of one log keep their order, which is nearly sorted.
#[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
fn merge_by_time(
    logs: &mut [LogFile],
    new_reader: &dyn Fn() -> LogReader,
    sink: &mut LineSink<'_, '_>,
    failed_logs: &mut FailedLogs,
) -> Result<(), Failure> {
    struct Head {
        reader: LogReader,
        line: Vec<u8>,
        start_ms: i64,
    }
    let mut heads: Vec<Option<Head>> =
        logs.iter().map(|_| Some(Head { reader: new_reader(), line: Vec::new(), start_ms: i64::MIN })).collect();
    // Advances to the next access log line, and counts the other lines before it.
    let mut advance = |log: &mut LogFile, head: &mut Option<Head>, sink: &mut LineSink<'_, '_>| {
        let Some(mut current) = head.take() else { return };
        loop {
            let line = match log.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(error) => return failed_logs.record(Err(error), log),
            };
            let mut access = AccessEntry::default();
            match current.reader.read_into(line, &mut access) {
                Ok(_) => {
                    current.start_ms = access.start_ms.unwrap_or(current.start_ms);
                    current.line.clear();
                    current.line.extend_from_slice(line);
                    *head = Some(current);
                    return;
                }
                Err(kind) => sink.count_other_line(kind, line),
            }
        }
    };
    for (log, head) in logs.iter_mut().zip(&mut heads) {
        advance(log, head, sink);
    }
    while let Some(earliest) = (0..heads.len())
        .filter(|index| heads[*index].is_some())
        .min_by_key(|index| heads[*index].as_ref().map(|head| head.start_ms))
    {
        if let Some(head) = &mut heads[earliest] {
            let line = std::mem::take(&mut head.line);
            sink.process(&mut head.reader, &line, &logs[earliest].origin)?;
            head.line = line;
        }
        advance(&mut logs[earliest], &mut heads[earliest], sink);
    }
    Ok(())
}
