//! What a shift prints: one event per line, as text or JSON.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::args::ShiftFormat;
use super::operations::LastCheck;
use super::target::ShiftTarget;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::compare;
use crate::render;
use crate::report::diff::DiffObjectReport;
use crate::report::shift::{ShiftEvent, describe_affected, describe_change, weights_after};
use crate::shift::notice::{Notice, NoticeDetails, ShiftEventType};
use crate::shift::plan::RulePlan;
use crate::shift::preflight::PreflightCheck;

/// Writes the events of a session.
pub(super) struct Output {
    pub(super) format: ShiftFormat,
    pub(super) session: String,
    /// Number of the last event.
    seq: u32,
    /// Set once the weights are applied. From then on a closed stdout no longer ends the shift.
    pub(super) is_applied: bool,
}

impl Output {
    pub(super) fn new(format: ShiftFormat, session: String) -> Self {
        Self { format, session, seq: 0, is_applied: false }
    }

    /// Writes an event.
    ///
    /// # Errors
    /// stdout is closed, and nothing is applied yet.
    pub(super) fn emit(&mut self, context: &mut Context<'_>, notice: Notice, now: Timestamp) -> Result<(), Failure> {
        self.seq += 1;
        let time = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let event = ShiftEvent { session: self.session.clone(), seq: self.seq, time, ..ShiftEvent::from(notice) };
        let result = match self.format {
            ShiftFormat::Json => render::json_line(&event, context.out),
            ShiftFormat::Text => render::shift::event(&event, &context.style, context.out),
        };
        match result.and_then(|()| context.out.flush()) {
            Err(error) if !self.is_applied => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Writes an event of the plan.
    pub(super) fn emit_plain(
        &mut self,
        context: &mut Context<'_>,
        event: ShiftEventType,
        message: impl Into<String>,
        now: Timestamp,
    ) -> Result<(), Failure> {
        self.emit(context, Notice { event, step: 1, message: message.into(), details: NoticeDetails::None }, now)
    }

    /// Writes the planned weights.
    pub(super) fn show_weights(
        &mut self,
        context: &mut Context<'_>,
        target: &ShiftTarget,
        plans: &[RulePlan],
        now: Timestamp,
    ) -> Result<(), Failure> {
        let title = target.title();
        let changes = plans.iter().map(|plan| format!("{title} {}: {}", plan.split.title(), describe_change(plan)));
        let message = changes.collect::<Vec<_>>().join("; ");
        let details = NoticeDetails::Weights(weights_after(plans));
        self.emit(context, Notice { event: ShiftEventType::Plan, step: 1, message, details }, now)
    }

    /// Writes the planned weights, the changed lines, the affected proxies and the failed checks.
    pub(super) fn show_plan(
        &mut self,
        context: &mut Context<'_>,
        target: &ShiftTarget,
        check: &LastCheck,
        steps: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Failure> {
        self.show_weights(context, target, &check.plans, now)?;
        if self.format == ShiftFormat::Text {
            let report = compare_object(target, &check.object, &check.after);
            render::shift::patch(&report.patch, &context.style, context.out)?;
        }
        let classes = &check.preflight.classes;
        self.emit_plain(context, ShiftEventType::Preflight, describe_affected(classes), now)?;
        if self.format == ShiftFormat::Text {
            render::shift::unaffected(classes, &context.style, context.out)?;
        }
        show_checks(context, &check.preflight.checks);
        match steps {
            Some(steps) => self.emit_plain(context, ShiftEventType::Plan, steps, now),
            None => Ok(()),
        }
    }
}

/// Prints the failed checks.
pub(super) fn show_checks(context: &Context<'_>, checks: &[PreflightCheck]) {
    for check in checks {
        if check.is_error() {
            context.messages.error(&check.to_string());
        } else {
            context.messages.warning(&check.to_string());
        }
    }
}

/// The change of the object, as `diff` reports it.
fn compare_object(target: &ShiftTarget, object: &Arc<Value>, after: &Value) -> DiffObjectReport {
    DiffObjectReport::from(compare::compare_objects(target.key.clone(), Some(after), Some(object)))
}
