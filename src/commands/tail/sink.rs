//! What is done with each line: filters, output and counts.

use std::borrow::Cow;

use super::filter::CallFilter;
use super::{TailArgs, TailFormat};
use crate::accesslog::{AccessEntry, LogReader, OtherLine};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::diagnosis::{CallDiagnosis, FaultLevel, diagnose};
use crate::render;
use crate::report::tail::{AddressNames, LogOrigin, TailLine};
use crate::report::tail_join::{CallJoiner, TailCall};
use crate::report::tail_summary::SummaryCounter;

/// What is done with each line.
pub(super) struct LineSink<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    arguments: &'a TailArgs,
    counter: SummaryCounter,
    /// Names of addresses.
    pub(super) names: AddressNames,
    csv: Option<csv::Writer<Vec<u8>>>,
    /// Which calls are wanted.
    pub(super) filter: CallFilter,
    join: Option<CallJoiner>,
    /// Whether `--top` has taken the screen.
    has_screen: bool,
}

impl<'a, 'w> LineSink<'a, 'w> {
    /// Ready to take lines.
    pub(super) fn new(
        context: &'a mut Context<'w>,
        arguments: &'a TailArgs,
        names: AddressNames,
    ) -> Result<Self, Failure> {
        let mut csv = (arguments.output == TailFormat::Csv).then(|| csv::Writer::from_writer(Vec::new()));
        if let Some(csv) = csv.as_mut().filter(|_| context.style.headers) {
            csv.write_record(render::tail::CSV_COLUMNS).map_err(|error| Failure::source(error.to_string()))?;
        }
        let filter = CallFilter::new(arguments)?;
        let join = arguments.join.then(CallJoiner::default);
        Ok(Self { context, arguments, counter: SummaryCounter::default(), names, csv, filter, join, has_screen: false })
    }

    /// Takes a line of a log.
    pub(super) fn take(&mut self, reader: &mut LogReader, line: &[u8], origin: &LogOrigin) -> Result<(), Failure> {
        let mut access = AccessEntry::default();
        let pod = match reader.fill(line, &mut access) {
            Ok(pod) => pod,
            Err(kind) => {
                self.other(kind, line);
                return Ok(());
            }
        };
        let verdict = diagnose(&access);
        let origin = &*named(origin, pod);
        let is_in_time = note(&mut self.counter, &self.filter, &access, &verdict);
        let passes = is_in_time
            && self.filter.passes(&access, &verdict, || TailLine::new(&access, &verdict, origin, &self.names));
        if passes {
            self.counter.add(&access, &verdict);
        }
        let shown = passes && (verdict.grade != FaultLevel::Normal || self.shows_normal());
        if self.arguments.summary || self.arguments.top || (!shown && self.join.is_none()) {
            return Ok(());
        }
        let line = TailLine::new(&access, &verdict, origin, &self.names);
        match &mut self.join {
            Some(join) => {
                let calls = join.add(line, access.start.unwrap_or_default(), shown);
                calls.iter().try_for_each(|call| self.show_call(call))
            }
            None => self.show(&line),
        }
    }

    fn show(&mut self, line: &TailLine) -> Result<(), Failure> {
        match self.arguments.output {
            TailFormat::Text => render::tail::line(line, &self.context.style, self.context.out)?,
            TailFormat::Json => self.show_json(line)?,
            TailFormat::Csv => {
                if let Some(csv) = &mut self.csv {
                    csv.write_record(render::tail::csv(line)).map_err(|error| Failure::source(error.to_string()))?;
                    self.drain_csv()?;
                }
            }
        }
        Ok(())
    }

    fn show_call(&mut self, call: &TailCall) -> Result<(), Failure> {
        match self.arguments.output {
            TailFormat::Text => render::tail::call(call, &self.context.style, self.context.out)?,
            TailFormat::Json => self.show_json(call)?,
            TailFormat::Csv => call.lines.iter().try_for_each(|line| self.show(line))?,
        }
        Ok(())
    }

    fn show_json(&mut self, report: &impl serde::Serialize) -> Result<(), Failure> {
        Ok(render::json_line(report, self.context.out)?)
    }

    /// Draws the table of `--top` again.
    pub(super) fn draw(&mut self) -> Result<(), Failure> {
        if self.arguments.top {
            let screen = if self.has_screen { "" } else { "\x1b[?1049h\x1b[?25l" };
            self.has_screen = true;
            write!(self.context.out, "{screen}\x1b[H\x1b[J")?;
            let rows = self.context.env.height.unwrap_or(24);
            render::tail::top(&self.counter.report(), rows, &self.context.style, self.context.out)?;
            self.context.out.flush()?;
        }
        Ok(())
    }

    /// Gives the screen back.
    fn leave_screen(&mut self) -> Result<(), Failure> {
        if std::mem::take(&mut self.has_screen) {
            write!(self.context.out, "\x1b[?25h\x1b[?1049l")?;
        }
        Ok(())
    }

    /// What is needed to count lines on other threads.
    pub(super) fn counting(&self) -> CountingSink<'_> {
        CountingSink { filter: &self.filter, names: &self.names }
    }

    /// What went well is shown when it was asked for, by `--all` or by a filter that tells of the outcome.
    fn shows_normal(&self) -> bool {
        let TailArgs { all, grpc_status, flag, min_duration, expression, .. } = self.arguments;
        *all || !grpc_status.is_empty() || !flag.is_empty() || min_duration.is_some() || expression.is_some()
    }

    /// Takes in what was counted elsewhere.
    pub(super) fn counted(&mut self, counter: SummaryCounter) {
        self.counter.merge(counter);
    }

    /// Counts a line that is no access line.
    pub(super) fn other(&mut self, kind: OtherLine, line: &[u8]) {
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

    /// Whether there was a line.
    pub(super) fn has_read(&self) -> bool {
        self.counter.has_read()
    }

    /// Writes what stands at the end; `why_none` is said when there was no access line.
    pub(super) fn finish(mut self, cut: u64, why_none: Option<&str>) -> Result<CommandOutcome, Failure> {
        let rest = self.join.as_mut().map(CallJoiner::finish).unwrap_or_default();
        rest.iter().try_for_each(|call| self.show_call(call))?;
        self.drain_csv()?;
        self.leave_screen()?;
        let report = self.counter.report();
        match (self.arguments.summary || self.arguments.top, self.arguments.output) {
            (true, TailFormat::Json) => render::json(&report, self.context.out)?,
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
        let (seen, early) = (self.counter.seen(), self.counter.early());
        if seen == 0 && early > 0 {
            let messages = &self.context.messages;
            messages.warning(&format!("none of the {early} calls began when --since or --since-time asks"));
            let timeless = self.counter.timeless();
            if timeless > 0 {
                messages.hint(&format!(
                    "{timeless} of them have no start time, or one in another form than 2026-11-21T09:00:00.123Z"
                ));
            }
        } else if self.counter.calls() == 0 && seen > 0 {
            self.context.messages.warning(&format!("none of the {seen} calls passes the filters"));
        } else if self.counter.calls() == 0 {
            self.context.messages.warning("no access line was found");
            let unknown = ["unknown", "unknown-json"].iter().any(|kind| report.other_lines.contains_key(*kind));
            if unknown && self.arguments.log_format.is_some() {
                self.context.messages.hint("--log-format does not fit them: is it word for word what Envoy was given?");
            } else if unknown {
                self.context.messages.hint("is it a custom format? give it with --log-format");
            } else if let Some(why) = why_none {
                self.context.messages.hint(why);
            }
        }
        if !self.arguments.grpc_status.is_empty() && self.counter.without_status() > 0 {
            let without = self.counter.without_status();
            self.context.messages.hint(&format!(
                "the log does not have the gRPC status of {without} of {seen} calls, and it was inferred where that is possible; \
                 %GRPC_STATUS_NUMBER% in its format would tell"
            ));
        }
        if self.arguments.fail_on.is_some() && seen == 0 {
            let when = if early > 0 { " in that time" } else { "" };
            return Err(Failure::source(format!("--fail-on has nothing to judge: there was no access line{when}")));
        }
        let too_many = self.arguments.fail_on.is_some_and(|limit| self.counter.fault_rate() > limit);
        Ok(if too_many { CommandOutcome::Found } else { CommandOutcome::Clean })
    }
}

/// Counts lines and does nothing else with them, for those who only want the summary.
pub(super) struct CountingSink<'s> {
    filter: &'s CallFilter,
    names: &'s AddressNames,
}

impl CountingSink<'_> {
    /// Counts one.
    pub(super) fn count(&self, counter: &mut SummaryCounter, reader: &mut LogReader, line: &[u8], origin: &LogOrigin) {
        let mut access = AccessEntry::default();
        match reader.fill(line, &mut access) {
            Ok(pod) => {
                let verdict = diagnose(&access);
                let line = || TailLine::new(&access, &verdict, &named(origin, pod), self.names);
                let is_in_time = note(counter, self.filter, &access, &verdict);
                if is_in_time && self.filter.passes(&access, &verdict, line) {
                    counter.add(&access, &verdict);
                }
            }
            Err(kind) => counter.other(kind),
        }
    }
}

/// Notes that there was a call; says whether it began when it should.
fn note(counter: &mut SummaryCounter, filter: &CallFilter, access: &AccessEntry<'_>, verdict: &CallDiagnosis) -> bool {
    let is_in_time = filter.is_in_time(access);
    if is_in_time {
        counter.see(verdict);
    } else {
        counter.see_early(access);
    }
    is_in_time
}

/// Where a line comes from: a prefix of the line itself says it better than the file's name.
fn named<'o>(origin: &'o LogOrigin, pod: Option<&str>) -> Cow<'o, LogOrigin> {
    match pod {
        Some(pod) => Cow::Owned(LogOrigin { pod: Some(pod.to_owned()), namespace: origin.namespace.clone(), ip: None }),
        None => Cow::Borrowed(origin),
    }
}
