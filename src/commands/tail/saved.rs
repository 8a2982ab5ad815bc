//! Logs that were saved.

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

/// Reads them.
pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &TailArgs,
    format: Option<LogFormat>,
) -> Result<CommandOutcome, Failure> {
    if arguments.logs.iter().filter(|word| *word == "-").count() > 1 {
        return Err(Failure::usage("standard input (-) can be read only once"));
    }
    let (names, learned) = from_source(context, &arguments.from).await?;
    let mut logs = log_files::open(&arguments.logs, arguments.name.as_deref())?;
    if let Some(namespace) = context.scope.namespace.as_deref().filter(|_| !context.scope.all_namespaces) {
        // Of which namespace a log is, not every path tells.
        logs.retain(|log| log.origin.namespace.as_deref().is_none_or(|other| other == namespace));
        if logs.is_empty() {
            let what = format!("none of the logs is of the namespace {}", render::text::safe(namespace));
            return Err(Failure::source(what).hint("leave out -n, or name other logs"));
        }
    }
    let formats: Arc<[LogFormat]> = format.map_or(learned, |format| vec![format]).into();
    let reader = || LogReader::with_formats(Arc::clone(&formats));
    let from = since(context, arguments)?;
    let mut sink = LineSink::new(context, arguments, names)?;
    sink.filter.from = from;
    let mut damaged = DamagedLogs::default();
    if arguments.summary && !arguments.raw {
        for log in &mut logs {
            let read = count_all(log, &reader, &mut sink);
            damaged.note(read, log);
        }
    } else if logs.len() == 1 {
        for log in &mut logs {
            let mut reader = reader();
            let origin = log.origin.clone();
            loop {
                match log.next_line() {
                    Ok(Some(line)) => sink.take(&mut reader, line, &origin)?,
                    Ok(None) => break,
                    Err(error) => {
                        damaged.note(Err(error), log);
                        break;
                    }
                }
            }
        }
    } else {
        merge(&mut logs, &reader, &mut sink, &mut damaged)?;
    }
    let DamagedLogs(damaged) = damaged;
    if let [(what, error), ..] = &damaged[..]
        && damaged.len() == logs.len()
        && !sink.has_read()
    {
        return Err(Failure::source(what).cause(error).hint("is the file whole?"));
    }
    for (what, error) in &damaged {
        sink.context.messages.warning(&format!("{what}: {error}"));
    }
    let cut: u64 = logs.iter().map(|log| log.cut).sum();
    match sink.finish(cut, Some("are these the logs of the istio-proxy containers, and is access logging on?"))? {
        CommandOutcome::Clean if !damaged.is_empty() => Ok(CommandOutcome::Partial),
        outcome => Ok(outcome),
    }
}

/// Logs that could not be read to their end, and why. What was read of them counts.
#[derive(Default)]
struct DamagedLogs(Vec<(String, std::io::Error)>);

impl DamagedLogs {
    fn note(&mut self, read: std::io::Result<()>, log: &LogFile) {
        let name = log.origin.pod.as_deref().unwrap_or("-");
        let what = || format!("cannot read the log of {} to its end", render::text::safe(name));
        self.0.extend(read.err().map(|error| (what(), error)));
    }
}

/// `--since` and `--since-time` in milliseconds since 1970.
fn since(context: &Context<'_>, arguments: &TailArgs) -> Result<Option<i64>, Failure> {
    let parse = |text: &str| {
        text.parse::<jiff::Timestamp>().map_err(|error| Failure::usage(format!("\"{text}\" is no time: {error}")))
    };
    if let Some(time) = &arguments.since_time {
        return Ok(Some(parse(time)?.as_millisecond()));
    }
    let Some(since) = arguments.since else { return Ok(None) };
    let now = parse(&context.env.now)?.as_millisecond();
    Ok(Some(now.saturating_sub(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))))
}

/// Counts a log, a large file on all cores; what was counted before an error counts. At the seams a record of several
/// lines may be counted as unknown.
fn count_all(
    log: &mut LogFile,
    reader: &(dyn Fn() -> LogReader + Sync),
    sink: &mut LineSink<'_, '_>,
) -> std::io::Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let counting = sink.counting();
    let count = |log: &mut LogFile| {
        let (mut counter, mut reader) = (SummaryCounter::default(), reader());
        let origin = log.origin.clone();
        let read = loop {
            match log.next_line() {
                Ok(Some(line)) => counting.count(&mut counter, &mut reader, line, &origin),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        (counter, read)
    };
    let Some(mut parts) = log.parts(cores)? else {
        let (counter, read) = count(log);
        sink.counted(counter);
        return read;
    };
    let counted: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = parts.iter_mut().map(|part| scope.spawn(|| count(part))).collect();
        let failed = || (SummaryCounter::default(), Err(std::io::Error::other("a reader failed")));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| failed())).collect()
    });
    log.cut = parts.iter().map(|part| part.cut).sum();
    let mut all = Ok(());
    for (counter, read) in counted {
        sink.counted(counter);
        all = all.and(read);
    }
    all
}

/// Who has which address, and in which formats proxies log, from a source.
async fn from_source(context: &mut Context<'_>, from: &[String]) -> Result<(AddressNames, Vec<LogFormat>), Failure> {
    if from.is_empty() {
        return Ok((AddressNames::default(), Vec::new()));
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
    let names = AddressNames(of_services.chain(of_pods).collect());
    let (formats, refused) = LogSettings { mesh: mesh.config.clone(), ..LogSettings::default() }.formats();
    for (place, error) in refused {
        context.messages.warning(&format!("{place} cannot be used to read lines: {error}"));
    }
    Ok((names, formats))
}

/// Several logs in the order of time. Lines of one log keep their order, which is nearly that of time.
fn merge(
    logs: &mut [LogFile],
    reader: &dyn Fn() -> LogReader,
    sink: &mut LineSink<'_, '_>,
    damaged: &mut DamagedLogs,
) -> Result<(), Failure> {
    struct Head {
        reader: LogReader,
        line: Vec<u8>,
        start: i64,
    }
    let mut heads: Vec<Option<Head>> =
        logs.iter().map(|_| Some(Head { reader: reader(), line: Vec::new(), start: i64::MIN })).collect();
    // Moves on to the next access line; everything before it is counted at once.
    let mut advance = |log: &mut LogFile, head: &mut Option<Head>, sink: &mut LineSink<'_, '_>| {
        let Some(mut now) = head.take() else { return };
        loop {
            let line = match log.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => return,
                Err(error) => return damaged.note(Err(error), log),
            };
            let mut access = AccessEntry::default();
            match now.reader.fill(line, &mut access) {
                Ok(_) => {
                    now.start = access.start.unwrap_or(now.start);
                    now.line.clear();
                    now.line.extend_from_slice(line);
                    *head = Some(now);
                    return;
                }
                Err(kind) => sink.other(kind, line),
            }
        }
    };
    for (log, head) in logs.iter_mut().zip(&mut heads) {
        advance(log, head, sink);
    }
    while let Some(at) =
        (0..heads.len()).filter(|at| heads[*at].is_some()).min_by_key(|at| heads[*at].as_ref().map(|head| head.start))
    {
        if let Some(head) = &mut heads[at] {
            let line = std::mem::take(&mut head.line);
            sink.take(&mut head.reader, &line, &logs[at].origin)?;
            head.line = line;
        }
        advance(&mut logs[at], &mut heads[at], sink);
    }
    Ok(())
}
