//! One session of `shift`: its inputs, its events and its prompts.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::apply::forbidden_failure;
use super::preflight::Preflight;
use super::prompts::{spawn_prompt, wait_for_answer};
use super::target::ShiftTarget;
use super::{PatchOutcome, ShiftArgs, ShiftFormat, compare_object};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::cluster::client::ApiServer;
use crate::render;
use crate::report::shift::{ShiftEvent, ShiftEventType, weights_after};
use crate::rules::Severity;
use crate::shift::plan::RulePlan;
use crate::shift::record::{RuleRecord, ShiftEntry, ShiftRecord, ShiftState};

pub(super) struct ShiftSession<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    pub(super) arguments: &'a ShiftArgs,
    pub(super) server: ApiServer,
    pub(super) target: ShiftTarget,
    pub(super) source: SourceArgs,
    pub(super) id: String,
    seq: u32,
    /// The step of the next events, from 1; 0 is the window before the first step.
    pub(super) step: u32,
    /// Whether the shift has steps or is watched, so that each step may take long.
    pub(super) is_long: bool,
    /// Set once the weights are applied. From then on a closed stdout no longer aborts the shift.
    pub(super) is_applied: bool,
    /// Number of signals to end that the process has received.
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
            is_long: !arguments.steps.is_empty() || arguments.analysis.watch.is_some(),
            context,
            arguments,
            server,
            target,
            source,
            id: Env::unique_id(),
            seq: 0,
            step: 1,
            is_applied: false,
            signals,
        }
    }

    /// Emits an event; `add_details` sets its optional fields.
    pub(super) fn emit(
        &mut self,
        event_type: ShiftEventType,
        message: &str,
        add_details: impl FnOnce(&mut ShiftEvent),
    ) -> Result<(), Failure> {
        self.seq += 1;
        let mut event = ShiftEvent {
            session: self.id.clone(),
            seq: self.seq,
            time: Env::clock(),
            step: self.step,
            ..ShiftEvent::new(event_type, message)
        };
        add_details(&mut event);
        let result = match self.arguments.output {
            ShiftFormat::Json => render::json_line(&event, self.context.out),
            ShiftFormat::Text => render::shift::event(&event, &self.context.style, self.context.out),
        };
        match result.and_then(|()| self.context.out.flush()) {
            Err(error) if !self.is_applied => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn is_interrupted(&self) -> bool {
        *self.signals.borrow() > 0
    }

    /// The longest time that a step may take.
    pub(super) fn max_step_duration(&self) -> Duration {
        let arguments = &self.arguments.analysis;
        let analysis =
            arguments.interval * (arguments.bad_windows + 2) + arguments.max_wait + arguments.watch.unwrap_or_default();
        self.arguments.ack_timeout + if self.is_long { analysis } else { Duration::ZERO }
    }

    /// Completes once more than `ignored` signals to end were received.
    pub(super) fn wait_for_signal(&self, ignored: u32) -> impl Future<Output = ()> + use<> {
        let mut signals = self.signals.clone();
        async move {
            if signals.wait_for(|count| *count > ignored).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Fails if another session has an open shift of this object. An open shift whose weights another client changed
    /// does not count: its session stops as soon as it notices.
    pub(super) fn ensure_no_open_shift(&self, record: &ShiftRecord, object: &Value) -> Result<(), Failure> {
        let kind = self.target.key.kind;
        let owns_weights = |open: &&ShiftEntry| open.rules.iter().all(|rule| rule.find_unchanged(kind, object).is_ok());
        let open = record.open_entry().filter(owns_weights).filter(|_| !self.arguments.takeover);
        let Some(open) = open else { return Ok(()) };
        let deadline = open.deadline.clone().unwrap_or_default();
        let target = self.target.argument();
        Err(Failure::unavailable(format!("cannot shift {}: another shift is in progress", self.target.title()))
            .cause(format!(
                "session {} of {} started at {} and may run until {deadline}",
                open.session, open.user, open.started_at
            ))
            .hint(format!("show it: kubectl grpcmesh shift {target} --status"))
            .hint(format!(
                "after {deadline} use --resume or --undo; to take over now: kubectl grpcmesh shift {target} --resume --takeover"
            )))
    }

    /// A record entry for plans that are about to be applied.
    pub(super) async fn new_entry(&self, plans: &[RulePlan]) -> ShiftEntry {
        ShiftEntry {
            number: 0,
            session: self.id.clone(),
            user: self.server.current_user().await.unwrap_or_else(|_| "unknown".to_owned()),
            started_at: Env::clock(),
            reason: self.arguments.reason.clone(),
            deadline: Some(Env::clock_after(self.max_step_duration())),
            hosts: Vec::new(),
            plan: Vec::new(),
            step: 1,
            analysis: None,
            verdicts: Vec::new(),
            abort_requested_by: None,
            state: ShiftState::Open,
            message: String::new(),
            rules: plans.iter().map(RuleRecord::new).collect(),
        }
    }

    /// The object as the API server would store it after a patch.
    pub(super) async fn server_dry_run(&self, operations: &[Value]) -> Result<Value, Failure> {
        match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            PatchOutcome::Accepted(after) => Ok(after),
            PatchOutcome::Conflict => Err(Failure::unavailable(format!(
                "cannot patch {}: another client is changing it",
                self.target.title()
            ))
            .hint("run the command again")),
            PatchOutcome::Rejected(reason) => Err(self.rejected_failure(&reason)),
            PatchOutcome::Forbidden(reason) => Err(forbidden_failure(&reason)),
        }
    }

    pub(super) fn rejected_failure(&self, reason: &str) -> Failure {
        Failure::unavailable(format!("cannot patch {}: the API server rejected the patch", self.target.title()))
            .cause(reason)
            .hint("nothing was applied")
    }

    /// Emits the planned weights, the affected proxies and the results of the checks.
    pub(super) fn show_plan(
        &mut self,
        plans: &[RulePlan],
        object: &Value,
        after: Option<&Value>,
        preflight: &Preflight,
    ) -> Result<(), Failure> {
        let title = self.target.title();
        let changes = plans.iter().map(|plan| format!("{title} {}: {}", plan.split.title(), describe_change(plan)));
        let changes = changes.collect::<Vec<_>>().join("; ");
        self.emit(ShiftEventType::Plan, &changes, |event| event.weights = weights_after(plans))?;
        if let Some(after) = after.filter(|_| self.arguments.output == ShiftFormat::Text) {
            let report = compare_object(&self.target, object, after);
            render::shift::patch(&report.patch, &self.context.style, self.context.out)?;
        }
        if after.is_none() {
            return Ok(());
        }
        let count = |uses_rule: bool| {
            let classes = preflight.classes.iter().filter(|class| class.uses_rule == uses_rule);
            classes.map(|class| class.pods.len()).sum::<usize>()
        };
        let affected: Vec<String> = preflight
            .classes
            .iter()
            .filter(|class| class.uses_rule)
            .map(|class| format!("{} ({})", class.name, class.pods.len()))
            .collect();
        let mut message = match count(true) {
            1 => format!("1 affected proxy: {}", affected.join(", ")),
            proxies => format!("{proxies} affected proxies: {}", affected.join(", ")),
        };
        if count(false) > 0 {
            message += &format!("; {} not affected", count(false));
        }
        self.emit(ShiftEventType::Preflight, &message, |_| {})?;
        if self.arguments.output == ShiftFormat::Text {
            render::shift::unaffected(&preflight.classes, &self.context.style, self.context.out)?;
        }
        self.show_checks(preflight);
        Ok(())
    }

    /// Prints the failed checks.
    pub(super) fn show_checks(&self, preflight: &Preflight) {
        for check in &preflight.checks {
            match check.severity {
                Severity::Error => self.context.messages.error(&check.text),
                Severity::Warning | Severity::Info => self.context.messages.warning(&check.text),
            }
        }
    }

    /// Asks for confirmation, unless `--yes` is given.
    pub(super) async fn confirm(&mut self) -> Result<bool, Failure> {
        if self.arguments.yes {
            return Ok(true);
        }
        if !self.context.env.stderr_is_terminal || self.arguments.output == ShiftFormat::Json {
            return Err(Failure::usage("cannot ask for confirmation without a terminal or with -o json")
                .hint("to apply without a prompt: --yes"));
        }
        self.context.out.flush()?;
        let messages = self.context.messages;
        wait_for_answer(spawn_prompt(move || messages.confirm("Apply these weights?"))).await
    }
}

/// `v1 90% → 75%, v2 10% → 25%`, and the total of the weights if it changes.
fn describe_change(plan: &RulePlan) -> String {
    let percent = |ratio: f64| crate::vocabulary::share::format_percent(ratio * 100.0);
    let change = |index: usize| {
        let label = plan.backends[index].backend.label();
        let before = match plan.backends[index].before {
            Some(_) => percent(plan.share_before(index)),
            None => "new".to_owned(),
        };
        format!("{label} {before} → {}", percent(plan.share_after(index)))
    };
    let shares = (0..plan.backends.len()).map(change).collect::<Vec<_>>().join(", ");
    if plan.is_scaled() {
        format!("{shares} (total weight {} → {})", plan.total_before, plan.total_after)
    } else {
        shares
    }
}
