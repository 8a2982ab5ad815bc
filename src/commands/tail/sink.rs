//! What is done with each line: filters, output and counts.

use std::time::Duration;

use super::{Output, Side, TailArgs};
use crate::accesslog::{Access, Direction, Kind, Line, Reader};
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Outcome};
use crate::render;
use crate::report::tail::{Names, Origin, TailLine};
use crate::report::tail_summary::Counter;
use crate::verdict::{Grade, Verdict, judge};

/// What is done with each line.
pub(super) struct Sink<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    arguments: &'a TailArgs,
    counter: Counter,
    /// Names of addresses.
    pub(super) names: Names,
    csv: Option<csv::Writer<Vec<u8>>>,
    /// Only calls to this host.
    pub(super) only: Option<String>,
}

impl<'a, 'w> Sink<'a, 'w> {
    /// Ready to take lines.
    pub(super) fn new(context: &'a mut Context<'w>, arguments: &'a TailArgs, names: Names) -> Result<Self, Failure> {
        let mut csv = (arguments.output == Output::Csv).then(|| csv::Writer::from_writer(Vec::new()));
        if let Some(csv) = &mut csv {
            csv.write_record(render::tail::CSV_COLUMNS).map_err(|error| Failure::source(error.to_string()))?;
        }
        Ok(Self { context, arguments, counter: Counter::default(), names, csv, only: None })
    }

    /// Takes a line of a log.
    pub(super) fn take(&mut self, reader: &mut Reader, line: &[u8], origin: &Origin) -> Result<(), Failure> {
        let (read, pod) = reader.read_prefixed(line);
        let access = match read {
            Line::Access(access) => access,
            Line::Other(kind) => {
                self.other(kind, line);
                return Ok(());
            }
        };
        let verdict = judge(&access);
        self.counter.see();
        let elsewhere = |host: &String| !access.goes_to(host);
        if !passes(self.arguments, &access, &verdict) || self.only.as_ref().is_some_and(elsewhere) {
            return Ok(());
        }
        self.counter.add(&access, &verdict);
        if self.arguments.summary || (verdict.grade == Grade::Normal && !self.shows_normal()) {
            return Ok(());
        }
        let named;
        let origin = match pod {
            Some(pod) => {
                named = Origin { pod: Some(pod.to_owned()), namespace: origin.namespace.clone(), ip: None };
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

    /// Takes in what was counted elsewhere.
    pub(super) fn counted(&mut self, counter: Counter) {
        self.counter.merge(counter);
    }

    /// Counts a line that is no access line.
    pub(super) fn other(&mut self, kind: Kind, line: &[u8]) {
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

    /// Writes what stands at the end.
    pub(super) fn finish(mut self, cut: u64) -> Result<Outcome, Failure> {
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
        if self.counter.calls() == 0 && self.counter.seen() > 0 {
            self.context.messages.warning(&format!("none of the {} calls passes the filters", self.counter.seen()));
        } else if self.counter.calls() == 0 {
            self.context.messages.warning("no access line was found");
            let unknown = ["unknown", "unknown-json"].iter().any(|kind| report.other_lines.contains_key(*kind));
            self.context.messages.hint(if unknown {
                "is it a custom format? give it with --log-format"
            } else {
                "is access logging on? This turns it on for a namespace (kubectl apply -f -):\napiVersion: \
                 telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: access-log, namespace: NAMESPACE}\nspec: \
                 {accessLogging: [{providers: [{name: envoy}]}]}"
            });
        }
        let too_many = self.arguments.fail_on.is_some_and(|limit| self.counter.fault_rate() > limit);
        Ok(if too_many { Outcome::Found } else { Outcome::Clean })
    }
}

/// Whether the filters let a call through.
fn passes(arguments: &TailArgs, access: &Access<'_>, verdict: &Verdict) -> bool {
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

/// Counts a line and does nothing else with it, for those who only want the summary.
pub(super) fn count(arguments: &TailArgs, counter: &mut Counter, reader: &mut Reader, line: &[u8]) {
    match reader.read_prefixed(line).0 {
        Line::Access(access) => {
            let verdict = judge(&access);
            counter.see();
            if passes(arguments, &access, &verdict) {
                counter.add(&access, &verdict);
            }
        }
        Line::Other(kind) => counter.other(kind),
    }
}
