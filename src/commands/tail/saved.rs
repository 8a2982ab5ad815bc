//! `tail --logs`: reads saved logs.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::super::termination_signal;
use super::TailArgs;
use super::live::REDRAW_INTERVAL;
use super::sink::{LineSink, with_names};
use crate::accesslog::format::LogFormat;
use crate::accesslog::settings::LogSettings;
use crate::accesslog::{AccessEntry, LineReader, LogReader, ReadLine};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::log_files::{self, LogFile, LogSource};
use crate::mesh::{Mesh, resolve};
use crate::render;
use crate::report::tail::{AddressNames, LogOrigin};
use crate::report::tail_summary::SummaryCounter;
use crate::snapshot::codec::DEFAULT_DECOMPRESSED_BYTES;

/// Limits for lines that wait between the thread that reads them and the table of `--top`.
const BATCHES_MAX: usize = 16;
const BATCH_LINES: usize = 1_000;

pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<CommandOutcome, Failure> {
    if arguments.logs.iter().filter(|path| *path == "-").count() > 1 {
        return Err(Failure::usage("cannot read standard input (-) more than once"));
    }
    if arguments.logs.iter().any(|path| path == "-") && context.env.stdin_is_terminal {
        context.messages.hint("reading logs from the terminal: paste lines and end with Ctrl-D");
    }
    let (names, source_formats) = read_source(context, arguments).await?;
    let mut logs = log_files::open(LogSource {
        paths: &arguments.logs,
        pod_name: arguments.name.as_deref(),
        max_size: arguments.max_source_size.unwrap_or(DEFAULT_DECOMPRESSED_BYTES),
    })?;
    let namespaces = context.scope.namespace.as_deref().filter(|_| !context.scope.all_namespaces).unwrap_or_default();
    let namespaces: Vec<String> =
        namespaces.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if !namespaces.is_empty() {
        // Logs whose path does not contain their namespace are kept: their lines may name it.
        logs.retain(|log| log.origin.namespace.as_ref().is_none_or(|other| namespaces.contains(other)));
        if logs.is_empty() {
            let names = namespaces.join(", ");
            let message = format!("none of the logs belongs to namespace {}", render::text::safe(&names));
            return Err(Failure::unavailable(message).hint("omit -n, or pass other files with --logs"));
        }
    }
    let formats: Arc<[LogFormat]> = format.map_or(source_formats, |format| vec![format]).into();
    let new_reader = || LineReader::new(LogReader::with_formats(Arc::clone(&formats)));
    let from_ms = range_start_ms(context, arguments)?;
    let mut sink = LineSink::new(context, arguments, names)?;
    (sink.filter.from_ms, sink.filter.namespaces) = (from_ms, namespaces);
    let mut failed_logs = FailedLogs::default();
    let mut is_interrupted = false;
    if arguments.top {
        (logs, is_interrupted) = watch(logs, new_reader(), &mut sink, &mut failed_logs).await?;
    } else if arguments.summary && !arguments.raw {
        for log in &mut logs {
            let result = count_lines(log, &new_reader, &mut sink);
            failed_logs.record(result, log);
        }
    } else if logs.len() == 1 {
        for log in &mut logs {
            let mut reader = new_reader();
            let origin = log.origin.clone();
            loop {
                if sink.has_pending_output() && log.may_wait() {
                    sink.flush()?;
                }
                match log.next_line() {
                    Ok(Some(line)) => sink.process(&mut reader, line, &origin)?,
                    Ok(None) => break,
                    Err(error) => {
                        failed_logs.record(Err(error), log);
                        break;
                    }
                }
            }
            sink.finish_log(&mut reader, &origin)?;
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
        _ if is_interrupted => Err(Failure::interrupted()),
        CommandOutcome::Clean if !failed_logs.is_empty() => Ok(CommandOutcome::Partial),
        outcome => Ok(outcome),
    }
}

/// Lines of one log that a thread has read, or why it ended.
type LogBatch = (usize, std::io::Result<Vec<Vec<u8>>>);

/// Redraws `--top` by the clock while a thread waits for lines. Returns the logs, and whether the user interrupted.
async fn watch(
    logs: Vec<LogFile>,
    mut reader: LineReader,
    sink: &mut LineSink<'_, '_>,
    failed_logs: &mut FailedLogs,
) -> Result<(Vec<LogFile>, bool), Failure> {
    let origins: Vec<LogOrigin> = logs.iter().map(|log| log.origin.clone()).collect();
    let (sender, mut batches) = mpsc::channel(BATCHES_MAX);
    let thread = std::thread::spawn(move || read_batches(logs, &sender));
    let mut redraw = tokio::time::interval(REDRAW_INTERVAL);
    let mut interrupted = std::pin::pin!(termination_signal());
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return Ok((Vec::new(), true)),
            _ = redraw.tick() => sink.draw()?,
            batch = batches.recv() => match batch {
                Some((number, Ok(lines))) => {
                    let Some(origin) = origins.get(number) else { continue };
                    lines.iter().try_for_each(|line| sink.process(&mut reader, line, origin))?;
                }
                Some((number, Err(error))) => {
                    let name = origins.get(number).and_then(|origin| origin.pod.clone()).unwrap_or_default();
                    failed_logs.record_named(error, &name);
                }
                None => break,
            },
        }
    }
    Ok((thread.join().unwrap_or_default(), false))
}

/// Sends the lines of all logs, as soon as the next one would have to be waited for.
fn read_batches(mut logs: Vec<LogFile>, sender: &mpsc::Sender<LogBatch>) -> Vec<LogFile> {
    for (number, log) in logs.iter_mut().enumerate() {
        let mut lines = Vec::new();
        loop {
            let next = log.next_line().map(|line| line.map(<[u8]>::to_vec));
            let has_more = matches!(next, Ok(Some(_)));
            match next {
                Ok(line) => lines.extend(line),
                Err(error) => drop(sender.blocking_send((number, Err(error)))),
            }
            if (!has_more || lines.len() >= BATCH_LINES || log.may_wait())
                && sender.blocking_send((number, Ok(std::mem::take(&mut lines)))).is_err()
            {
                return logs;
            }
            if !has_more {
                break;
            }
        }
    }
    logs
}

/// Logs that could not be read to their end, with a message and the cause. The lines before the error count.
#[derive(Default)]
struct FailedLogs(Vec<(String, std::io::Error)>);

impl FailedLogs {
    fn record(&mut self, result: std::io::Result<()>, log: &LogFile) {
        if let Err(error) = result {
            self.record_named(error, log.origin.pod.as_deref().unwrap_or("-"));
        }
    }

    fn record_named(&mut self, error: std::io::Error, name: &str) {
        self.0.push((format!("cannot read the log of {} to its end", render::text::safe(name)), error));
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
    new_reader: &(dyn Fn() -> LineReader + Sync),
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
        counting.finish_log(&mut counter, &mut reader, &origin);
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
async fn read_source(
    context: &mut Context<'_>,
    arguments: &TailArgs,
) -> Result<(AddressNames, Vec<LogFormat>), Failure> {
    let TailArgs { from, max_source_size, .. } = arguments;
    if from.is_empty() {
        return Ok((AddressNames::default(), Vec::new()));
    }
    let source = SourceArgs { from: from.clone(), max_source_size: *max_source_size, ..SourceArgs::default() };
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
fn merge_by_time(
    logs: &mut [LogFile],
    new_reader: &dyn Fn() -> LineReader,
    sink: &mut LineSink<'_, '_>,
    failed_logs: &mut FailedLogs,
) -> Result<(), Failure> {
    let mut heads: Vec<LogHead> = logs.iter().map(|_| LogHead::new(new_reader())).collect();
    for (log, head) in logs.iter_mut().zip(&mut heads) {
        head.advance(log, sink, failed_logs)?;
    }
    while let Some((index, head)) = heads
        .iter_mut()
        .enumerate()
        .filter(|(_, head)| !head.calls.is_empty())
        .min_by_key(|(_, head)| head.calls.front().map(|call| call.start_ms))
    {
        if let Some(call) = head.calls.pop_front() {
            let mut access = AccessEntry::default();
            // The line was parsed before, to get its time.
            if head.reader.reader().read_into(&call.line, &mut access).is_ok() {
                sink.process_call(&access, &call.origin)?;
            }
        }
        if head.calls.is_empty()
            && let Some(log) = logs.get_mut(index)
        {
            head.advance(log, sink, failed_logs)?;
        }
    }
    Ok(())
}

/// The next calls of a log: those in one line of the file.
struct LogHead {
    reader: LineReader,
    calls: VecDeque<HeldCall>,
    start_ms: i64,
    is_finished: bool,
}

struct HeldCall {
    line: Vec<u8>,
    origin: LogOrigin,
    start_ms: i64,
}

impl LogHead {
    fn new(reader: LineReader) -> Self {
        Self { reader, calls: VecDeque::new(), start_ms: i64::MIN, is_finished: false }
    }

    /// Reads up to the next line with calls, and counts the other lines before it.
    fn advance(
        &mut self,
        log: &mut LogFile,
        sink: &mut LineSink<'_, '_>,
        failed_logs: &mut FailedLogs,
    ) -> Result<(), Failure> {
        let Self { reader, calls, start_ms, is_finished } = self;
        let origin = log.origin.clone();
        while calls.is_empty() && !*is_finished {
            if sink.has_pending_output() && log.may_wait() {
                sink.flush()?;
            }
            let mut hold = |text: &[u8], read: ReadLine<'_, '_>| {
                match read {
                    ReadLine::Access(access, names) => {
                        *start_ms = access.start_ms.unwrap_or(*start_ms);
                        let origin = with_names(&origin, names).into_owned();
                        calls.push_back(HeldCall { line: text.to_vec(), origin, start_ms: *start_ms });
                    }
                    ReadLine::Other(kind) => sink.count_other_line(kind, text),
                }
                Ok::<(), Failure>(())
            };
            match log.next_line() {
                Ok(Some(line)) => reader.read(line, &mut hold)?,
                Ok(None) => {
                    *is_finished = true;
                    reader.finish(&mut hold)?;
                }
                Err(error) => {
                    *is_finished = true;
                    reader.finish(&mut hold)?;
                    failed_logs.record(Err(error), log);
                }
            }
        }
        Ok(())
    }
}
