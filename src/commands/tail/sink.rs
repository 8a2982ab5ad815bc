//! Processes each line: filters, counts and prints it.

use std::borrow::Cow;

use super::filter::CallFilter;
use super::{TailArgs, TailFormat};
use crate::accesslog::{AccessEntry, LineReader, OtherLine, PodNames, ReadLine, lead_for};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::diagnosis::{CallDiagnosis, FaultLevel, diagnose};
use crate::render;
use crate::render::tail::count_of;
use crate::report::tail::{AddressNames, LogOrigin, TailLine};
use crate::report::tail_join::{CallJoiner, TailCall};
use crate::report::tail_summary::{SummaryCounter, TailSummary};

/// As much of a line as is needed to see what it looks like.
const LEAD_BYTES: usize = 16 << 10;

/// Processes lines as the flags request.
pub(super) struct LineSink<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    arguments: &'a TailArgs,
    counter: SummaryCounter,
    pub(super) names: AddressNames,
    csv: Option<csv::Writer<Vec<u8>>>,
    pub(super) filter: CallFilter,
    joiner: Option<CallJoiner>,
    /// Whether output waits in the buffer of stdout.
    has_pending_output: bool,
    /// What the first unrecognized lines look like.
    lead: Option<String>,
    /// Whether `--top` has switched to the alternate screen.
    is_alternate_screen: bool,
}

impl<'a, 'w> LineSink<'a, 'w> {
    pub(super) fn new(
        context: &'a mut Context<'w>,
        arguments: &'a TailArgs,
        names: AddressNames,
    ) -> Result<Self, Failure> {
        let mut csv = (arguments.output == TailFormat::Csv).then(|| csv::Writer::from_writer(Vec::new()));
        if let Some(csv) = csv.as_mut().filter(|_| context.style.headers) {
            csv.write_record(render::tail::CSV_COLUMNS).map_err(|error| Failure::unavailable(error.to_string()))?;
        }
        let filter = CallFilter::new(arguments)?;
        let joiner = arguments.join.then(CallJoiner::default);
        let counter = SummaryCounter::default();
        Ok(Self {
            context,
            arguments,
            counter,
            names,
            csv,
            filter,
            joiner,
            has_pending_output: false,
            lead: None,
            is_alternate_screen: false,
        })
    }

    /// Processes a line of a file or of a container. It may contain several lines of proxies.
    pub(super) fn process(&mut self, reader: &mut LineReader, line: &[u8], origin: &LogOrigin) -> Result<(), Failure> {
        reader.read(line, &mut |text, read| self.process_read(text, &read, origin))
    }

    /// Processes what is left of an incomplete record at the end of a log.
    pub(super) fn finish_log(&mut self, reader: &mut LineReader, origin: &LogOrigin) -> Result<(), Failure> {
        reader.finish(&mut |text, read| self.process_read(text, &read, origin))
    }

    fn process_read(&mut self, text: &[u8], read: &ReadLine<'_, '_>, origin: &LogOrigin) -> Result<(), Failure> {
        match read {
            ReadLine::Access(access, names) => self.process_call(access, &with_names(origin, *names)),
            ReadLine::Other(kind) => {
                self.count_other_line(*kind, text);
                Ok(())
            }
        }
    }

    /// Processes one call.
    pub(super) fn process_call(&mut self, access: &AccessEntry<'_>, origin: &LogOrigin) -> Result<(), Failure> {
        if !self.filter.is_in_namespace(origin) {
            return Ok(());
        }
        let diagnosis = diagnose(access);
        let is_in_range = count_by_time(&mut self.counter, &self.filter, access, &diagnosis);
        let passes = is_in_range
            && self.filter.passes(access, &diagnosis, || TailLine::new(access, &diagnosis, origin, &self.names));
        if passes {
            self.counter.add(access, &diagnosis);
        }
        let is_selected = passes && (diagnosis.level != FaultLevel::Normal || self.includes_successful_calls());
        if self.arguments.summary || self.arguments.top || (!is_selected && self.joiner.is_none()) {
            return Ok(());
        }
        let line = TailLine::new(access, &diagnosis, origin, &self.names);
        match &mut self.joiner {
            Some(joiner) => {
                let calls = joiner.add(line, access.start_ms.unwrap_or_default(), is_selected);
                calls.iter().try_for_each(|call| self.print_call(call))
            }
            None => self.print_line(&line),
        }
    }

    /// Shows what was printed so far. Call it before waiting for input: a reader must not wait for a full buffer.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.has_pending_output) {
            self.context.out.flush()?;
        }
        Ok(())
    }

    pub(super) fn has_pending_output(&self) -> bool {
        self.has_pending_output
    }

    fn print_line(&mut self, line: &TailLine) -> Result<(), Failure> {
        self.has_pending_output = true;
        match self.arguments.output {
            TailFormat::Text => render::tail::line(line, &self.context.style, self.context.out)?,
            TailFormat::Json => self.print_json(line)?,
            TailFormat::Csv => {
                if let Some(csv) = &mut self.csv {
                    csv.write_record(render::tail::csv(line))
                        .map_err(|error| Failure::unavailable(error.to_string()))?;
                    self.drain_csv()?;
                }
            }
        }
        Ok(())
    }

    fn print_call(&mut self, call: &TailCall) -> Result<(), Failure> {
        self.has_pending_output = true;
        match self.arguments.output {
            TailFormat::Text => render::tail::call(call, &self.context.style, self.context.out)?,
            TailFormat::Json => self.print_json(call)?,
            TailFormat::Csv => call.lines.iter().try_for_each(|line| self.print_line(line))?,
        }
        Ok(())
    }

    fn print_json(&mut self, report: &impl serde::Serialize) -> Result<(), Failure> {
        Ok(render::json_line(report, self.context.out)?)
    }

    /// Redraws the table of `--top`.
    pub(super) fn draw(&mut self) -> Result<(), Failure> {
        if self.arguments.top {
            let enter = if self.is_alternate_screen { "" } else { "\x1b[?1049h\x1b[?25l" };
            self.is_alternate_screen = true;
            write!(self.context.out, "{enter}\x1b[H\x1b[J")?;
            let rows = self.context.env.height.unwrap_or(24);
            render::tail::top(&self.counter.report(), rows, &self.context.style, self.context.out)?;
            self.context.out.flush()?;
        }
        Ok(())
    }

    fn leave_alternate_screen(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.is_alternate_screen) {
            write!(self.context.out, "\x1b[?25h\x1b[?1049l")?;
        }
        Ok(())
    }

    /// The parts that other threads need to count lines.
    pub(super) fn counting_sink(&self) -> CountingSink<'_> {
        CountingSink { filter: &self.filter, names: &self.names }
    }

    /// Whether to print successful calls: with `--all`, and with a filter that selects by the outcome or the duration.
    fn includes_successful_calls(&self) -> bool {
        let TailArgs { all, grpc_status, flag, min_duration, expression, .. } = self.arguments;
        *all || !grpc_status.is_empty() || !flag.is_empty() || min_duration.is_some() || expression.is_some()
    }

    /// Adds the counts of another thread.
    pub(super) fn merge_counts(&mut self, counter: SummaryCounter) {
        self.counter.merge(counter);
    }

    /// Counts a line that is not an access log line, and prints it with `--raw`.
    pub(super) fn count_other_line(&mut self, kind: OtherLine, line: &[u8]) {
        self.counter.count_other_line(kind);
        if self.lead.is_none() && matches!(kind, OtherLine::Unknown | OtherLine::UnknownJson) {
            self.lead = lead_for(line.get(..LEAD_BYTES).unwrap_or(line));
        }
        if self.arguments.raw {
            self.context.messages.detail(&String::from_utf8_lossy(line));
        }
    }

    fn drain_csv(&mut self) -> Result<(), Failure> {
        let Some(writer) = self.csv.take() else { return Ok(()) };
        let mut bytes = writer.into_inner().map_err(|error| Failure::unavailable(error.to_string()))?;
        self.context.out.write_all(&bytes)?;
        bytes.clear();
        self.csv = Some(csv::Writer::from_writer(bytes));
        Ok(())
    }

    /// Whether any line was read.
    pub(super) fn has_lines(&self) -> bool {
        self.counter.has_lines()
    }

    /// Prints pending calls, the summary, and warnings. `no_lines_hint` explains a run without access log lines.
    pub(super) fn finish(
        mut self,
        truncated_lines: u64,
        no_lines_hint: Option<&str>,
    ) -> Result<CommandOutcome, Failure> {
        let pending = self.joiner.as_mut().map(CallJoiner::finish).unwrap_or_default();
        pending.iter().try_for_each(|call| self.print_call(call))?;
        self.drain_csv()?;
        self.leave_alternate_screen()?;
        let report = self.counter.report();
        self.print_totals(&report)?;
        let messages = &self.context.messages;
        if truncated_lines > 0 {
            messages.warning(&format!("{truncated_lines} lines were longer than 4 MiB and were truncated"));
        }
        self.warn_without_calls(&report, no_lines_hint);
        let (in_range, without_status) = (self.counter.in_range(), self.counter.without_logged_status());
        if !self.arguments.grpc_status.is_empty() && without_status > 0 {
            messages.hint(&format!(
                "the log does not contain the gRPC status of {without_status} of {in_range} calls; it is inferred where \
                 possible. To log it, add %GRPC_STATUS_NUMBER% to the access log format"
            ));
        }
        let Some(limit) = self.arguments.fail_on else { return Ok(CommandOutcome::Clean) };
        if in_range == 0 {
            let range = if self.counter.out_of_range() > 0 { " in the requested time range" } else { "" };
            return Err(Failure::unavailable(format!("cannot evaluate --fail-on: the logs contain no calls{range}")));
        }
        Ok(if self.counter.fault_ratio() > limit { CommandOutcome::Found } else { CommandOutcome::Clean })
    }

    /// Prints the summary, or the totals as a hint.
    fn print_totals(&mut self, report: &TailSummary) -> Result<(), Failure> {
        match (self.arguments.summary || self.arguments.top, self.arguments.output) {
            (true, TailFormat::Json) => render::json(report, self.context.out)?,
            (true, _) => render::tail::summary(report, &self.context.style, self.context.out)?,
            (false, _) => {
                let counts: Vec<String> =
                    report.other_lines.iter().map(|(kind, count)| format!("{count} {}", kind.as_str())).collect();
                let other_lines =
                    if counts.is_empty() { String::new() } else { format!("; other lines: {}", counts.join(", ")) };
                self.context.messages.hint(&format!(
                    "{}, {}, {}{other_lines}",
                    count_of(report.calls, "call"),
                    count_of(report.faults, "fault"),
                    count_of(report.notices, "notice"),
                ));
            }
        }
        Ok(())
    }

    /// Explains a run that selected no calls.
    fn warn_without_calls(&self, report: &TailSummary, no_lines_hint: Option<&str>) {
        if self.counter.calls() > 0 {
            return;
        }
        let messages = &self.context.messages;
        let (in_range, out_of_range) = (self.counter.in_range(), self.counter.out_of_range());
        if in_range > 0 {
            messages.warning(&format!("none of the {in_range} calls matches the filters"));
            return;
        }
        if out_of_range > 0 {
            messages.warning(&format!(
                "none of the {out_of_range} calls started in the time range of --since or --since-time"
            ));
            let without_time = self.counter.without_time();
            if without_time > 0 {
                messages.hint(&format!(
                    "{without_time} calls have no start time, or one that is not in the form 2026-11-21T09:00:00.123Z"
                ));
            }
            return;
        }
        messages.warning("no access log lines found");
        let has_unknown_lines =
            [OtherLine::Unknown, OtherLine::UnknownJson].iter().any(|kind| report.other_lines.contains_key(kind));
        if has_unknown_lines && self.arguments.log_format.is_some() {
            messages.hint("the lines do not match --log-format: compare it with the format configured for Envoy");
        } else if let Some(lead) = self.lead.as_ref().filter(|_| has_unknown_lines) {
            messages.hint(lead);
        } else if has_unknown_lines {
            messages.hint("if the log uses a custom format, pass it with --log-format");
        } else if let Some(hint) = no_lines_hint {
            messages.hint(hint);
        }
    }
}

/// Counts lines for `--summary` without printing them.
pub(super) struct CountingSink<'s> {
    filter: &'s CallFilter,
    names: &'s AddressNames,
}

impl CountingSink<'_> {
    pub(super) fn count(&self, counter: &mut SummaryCounter, reader: &mut LineReader, line: &[u8], origin: &LogOrigin) {
        let Ok(()) = reader.read(line, &mut |_, read| self.count_read(counter, &read, origin));
    }

    /// Counts what is left of an incomplete record at the end of a log.
    pub(super) fn finish_log(&self, counter: &mut SummaryCounter, reader: &mut LineReader, origin: &LogOrigin) {
        let Ok(()) = reader.finish(&mut |_, read| self.count_read(counter, &read, origin));
    }

    #[inline]
    fn count_read(
        &self,
        counter: &mut SummaryCounter,
        read: &ReadLine<'_, '_>,
        origin: &LogOrigin,
    ) -> Result<(), std::convert::Infallible> {
        match read {
            ReadLine::Access(access, names) => {
                let origin = with_names(origin, *names);
                if self.filter.is_in_namespace(&origin) {
                    let diagnosis = diagnose(access);
                    let line = || TailLine::new(access, &diagnosis, &origin, self.names);
                    let is_in_range = count_by_time(counter, self.filter, access, &diagnosis);
                    if is_in_range && self.filter.passes(access, &diagnosis, line) {
                        counter.add(access, &diagnosis);
                    }
                }
            }
            ReadLine::Other(kind) => counter.count_other_line(*kind),
        }
        Ok(())
    }
}

/// Counts a call inside or outside of the requested time range; `true` if it is inside.
fn count_by_time(
    counter: &mut SummaryCounter,
    filter: &CallFilter,
    access: &AccessEntry<'_>,
    diagnosis: &CallDiagnosis,
) -> bool {
    let is_in_range = filter.is_in_range(access);
    if is_in_range {
        counter.count_in_range(diagnosis);
    } else {
        counter.count_out_of_range(access);
    }
    is_in_range
}

/// The origin of a line. Names next to the line are more precise than the name of the file.
pub(super) fn with_names<'o>(origin: &'o LogOrigin, names: PodNames<'_>) -> Cow<'o, LogOrigin> {
    if names == PodNames::default() {
        return Cow::Borrowed(origin);
    }
    let owned = |name: Option<&str>, default: &Option<String>| name.map(str::to_owned).or_else(|| default.clone());
    Cow::Owned(LogOrigin {
        pod: owned(names.pod, &origin.pod),
        namespace: owned(names.namespace, &origin.namespace),
        container: owned(names.container, &origin.container),
        ip: origin.ip.clone().filter(|_| names.pod.is_none()),
    })
}
