//! One run of a shift: what it works on, what it tells, and what it asks.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::apply::forbidden;
use super::preflight::Preflight;
use super::prompts::{answered, aside};
use super::target::ShiftTarget;
use super::{PatchOutcome, ShiftArgs, ShiftFormat, compared};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cluster::client::ApiServer;
use crate::render;
use crate::report::shift::{ShiftEvent, weights};
use crate::rules::Severity;
use crate::shift::plan::RulePlan;
use crate::shift::record::{RuleRecord, ShiftEntry, ShiftRecord, ShiftState};

/// A run.
pub(super) struct ShiftSession<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    pub(super) arguments: &'a ShiftArgs,
    pub(super) server: ApiServer,
    pub(super) target: ShiftTarget,
    pub(super) source: SourceArgs,
    pub(super) id: String,
    seq: u32,
    /// The step that is told of, from 1; 0 is before the first.
    pub(super) step: u32,
    /// Whether it has steps, or is watched: then each of its steps may take long.
    pub(super) is_long: bool,
    /// Whether weights are written: from then on nobody who does not read any more keeps us from ending it well.
    pub(super) is_written: bool,
    /// How often the program was asked to end.
    signals: watch::Receiver<u32>,
}

impl<'a, 'w> ShiftSession<'a, 'w> {
    pub(super) fn new(
        context: &'a mut Context<'w>,
        arguments: &'a ShiftArgs,
        server: ApiServer,
        target: ShiftTarget,
        source: SourceArgs,
        signals: watch::Receiver<u32>,
    ) -> Self {
        Self {
            is_long: !arguments.steps.is_empty() || arguments.guard.watch.is_some(),
            context,
            arguments,
            server,
            target,
            source,
            id: Env::unique(),
            seq: 0,
            step: 1,
            is_written: false,
            signals,
        }
    }

    /// Whether the way back was asked for.
    pub(super) fn undoes(&self) -> bool {
        self.arguments.undo
    }

    /// Whether another run's time may be cut short.
    pub(super) fn takes_over(&self) -> bool {
        self.arguments.takeover
    }

    /// Tells an event.
    pub(super) fn tell(
        &mut self,
        event: &'static str,
        message: &str,
        more: impl FnOnce(&mut ShiftEvent),
    ) -> Result<(), Failure> {
        self.seq += 1;
        let mut told = ShiftEvent {
            kind: "ShiftEvent",
            version: 1,
            session: self.id.clone(),
            seq: self.seq,
            time: Env::clock(),
            event,
            step: self.step,
            message: message.to_owned(),
            ..ShiftEvent::default()
        };
        more(&mut told);
        let shown = match self.arguments.output {
            ShiftFormat::Json => render::json_line(&told, self.context.out),
            ShiftFormat::Text => render::shift::event(&told, &self.context.style, self.context.out),
        };
        match shown.and_then(|()| self.context.out.flush()) {
            Err(error) if !self.is_written => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Whether the program was asked to end.
    pub(super) fn is_interrupted(&self) -> bool {
        *self.signals.borrow() > 0
    }

    /// How long a step may take, at most.
    pub(super) fn step_time(&self) -> Duration {
        let guard = &self.arguments.guard;
        let watching = guard.interval * (guard.bad_windows + 2) + guard.max_wait + guard.watch.unwrap_or_default();
        self.arguments.ack_timeout + if self.is_long { watching } else { Duration::ZERO }
    }

    /// Until it is asked to end once more than so many times.
    pub(super) fn asked_to_end(&self, times: u32) -> impl Future<Output = ()> + use<> {
        let mut signals = self.signals.clone();
        async move {
            if signals.wait_for(|count| *count > times).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Refuses beside a shift that is not ended. One whose weights somebody changed has ended by that: its run stops as
    /// soon as it sees them.
    pub(super) fn not_open(&self, record: &ShiftRecord, object: &Value) -> Result<(), Failure> {
        let kind = self.target.key.kind;
        let holds = |open: &&ShiftEntry| open.rules.iter().all(|rule| rule.find(kind, object).is_ok());
        let Some(open) = record.open().filter(holds).filter(|_| !self.arguments.takeover) else { return Ok(()) };
        let until = open.until.clone().unwrap_or_default();
        let word = self.target.word();
        Err(Failure::source(format!("{} by {} is not ended: session {} since {}, at it until {until}", self.target.title(), open.by, open.session, open.at))
            .hint(format!("see how it stands: kubectl grpcmesh shift {word} --history; end it: --resume or --undo after {until}, or with --takeover now")))
    }

    /// The record of what is about to be written.
    pub(super) async fn entry(&self, plans: &[RulePlan]) -> ShiftEntry {
        ShiftEntry {
            number: 0,
            session: self.id.clone(),
            by: self.server.who_am_i().await.unwrap_or_else(|_| "unknown".to_owned()),
            at: Env::clock(),
            reason: self.arguments.reason.clone(),
            until: Some(Env::clock_in(self.step_time())),
            hosts: Vec::new(),
            plan: Vec::new(),
            step: 1,
            guard: None,
            verdicts: Vec::new(),
            abort: None,
            state: ShiftState::Open,
            message: String::new(),
            rules: plans.iter().map(RuleRecord::new).collect(),
        }
    }

    /// What the server would make of a patch.
    pub(super) async fn try_it(&self, operations: &[Value]) -> Result<Value, Failure> {
        match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            PatchOutcome::Stored(after) => Ok(after),
            PatchOutcome::Conflict => Err(Failure::source("somebody writes the object right now").hint("try again")),
            PatchOutcome::Refused(why) => {
                Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"))
            }
            PatchOutcome::Forbidden(why) => Err(forbidden(&why)),
        }
    }

    /// Shows what is about to happen.
    pub(super) fn show_plan(
        &mut self,
        plans: &[RulePlan],
        object: &Value,
        after: Option<&Value>,
        found: &Preflight,
    ) -> Result<(), Failure> {
        let title = self.target.title();
        let changes = plans.iter().map(|plan| format!("{title} {}: {}", plan.split.title(), sentence(plan)));
        let changes = changes.collect::<Vec<_>>().join("; ");
        self.tell("plan", &changes, |event| event.weights = weights(plans))?;
        if let Some(after) = after.filter(|_| self.arguments.output == ShiftFormat::Text) {
            let report = compared(&self.target, object, after);
            render::shift::patch(&report.patch, &self.context.style, self.context.out)?;
        }
        if after.is_none() {
            return Ok(());
        }
        let count = |obeys: bool| {
            found.classes.iter().filter(|one| one.obeys == obeys).map(|one| one.pods.len()).sum::<usize>()
        };
        let obeying: Vec<String> = found
            .classes
            .iter()
            .filter(|one| one.obeys)
            .map(|one| format!("{} ({})", one.name, one.pods.len()))
            .collect();
        let mut message = format!("{} proxies obey: {}", count(true), obeying.join(", "));
        if count(false) > 0 {
            message += &format!("; {} do not", count(false));
        }
        self.tell("preflight", &message, |_| {})?;
        if self.arguments.output == ShiftFormat::Text {
            render::shift::others(&found.classes, &self.context.style, self.context.out)?;
        }
        self.show_checks(found);
        Ok(())
    }

    /// Shows what speaks against it.
    pub(super) fn show_checks(&self, found: &Preflight) {
        for check in &found.checks {
            match check.severity {
                Severity::Error => self.context.messages.error(&check.text),
                Severity::Warning | Severity::Info => self.context.messages.warning(&check.text),
            }
        }
    }

    /// Asks, on a terminal.
    pub(super) async fn is_agreed(&mut self) -> Result<bool, Failure> {
        if self.arguments.yes {
            return Ok(true);
        }
        if !self.context.env.stderr_is_terminal || self.arguments.output == ShiftFormat::Json {
            return Err(Failure::usage("nobody can be asked here").hint("to shift without a question: --yes"));
        }
        self.context.out.flush()?;
        let messages = self.context.messages;
        answered(aside(move || messages.confirm("Write these weights?"))).await
    }
}

/// `v1 90% → 75%, v2 10% → 25%`, and how the weights are written where that is new.
fn sentence(plan: &RulePlan) -> String {
    let show = |share: f64| crate::vocabulary::share::format_percent(share * 100.0);
    let one = |at: usize| {
        let label = plan.backends[at].backend.label();
        let before = match plan.backends[at].before {
            Some(_) => show(plan.share_before(at)),
            None => "new".to_owned(),
        };
        format!("{label} {before} → {}", show(plan.share_after(at)))
    };
    let shares = (0..plan.backends.len()).map(one).collect::<Vec<_>>().join(", ");
    if plan.is_scaled() {
        format!("{shares} (weights of {} in all, {} before)", plan.total, plan.total_before)
    } else {
        shares
    }
}
