//! `shift --emit FORMAT`: prints the change for another program to apply.

use serde_json::Value;

use super::super::args::{EmitFormat, EmitJob, no_target_weights};
use super::super::output::{Output, show_checks};
use super::super::target;
use super::super::world::World;
use super::{RunParts, Subject, complete_request, operations};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::compare;
use crate::render;
use crate::shift::machine::{CheckResult, Effect, Event};
use crate::shift::notice::ShiftEventType;
use crate::shift::patch;
use crate::shift::plan::RulePlan;
use crate::shift::preflight::blocking_check;
use crate::shift::record::{RuleRecord, ShiftEntry, ShiftState};

pub(in super::super) async fn emit(
    context: &mut Context<'_>,
    world: World,
    mut job: EmitJob,
) -> Result<CommandOutcome, Failure> {
    complete_request(context, &world, &mut job.request).await?;
    let (Some(argument), Some(desired)) = (&job.request.target, &job.request.desired) else {
        return Err(no_target_weights());
    };
    let subject = Subject::find(context, argument).await?;
    let plans = target::plan_rules(&subject.mesh(), &subject.target, &subject.object, desired, &job.request.rules)?;
    if plans.iter().all(RulePlan::is_noop) {
        let mut output = Output::new(job.run.output, world.clock.unique_id());
        let message = "the weights already match: nothing to do";
        output.emit_plain(context, ShiftEventType::Done, message, world.clock.now())?;
        return Ok(CommandOutcome::Clean);
    }
    let mut record = subject.record()?;
    let object = subject.object.clone();
    if let Some(open) = record.shift_in_progress(subject.target.key.kind, &object).filter(|_| !job.run.takeover) {
        let target = subject.target.argument();
        return Err(Failure::unavailable(format!(
            "cannot shift {}: another shift is in progress",
            subject.target.title()
        ))
        .cause(format!("session {} of {} started at {}", open.session, open.user, open.started_at))
        .hint(format!("show it: kubectl grpcmesh shift {target} --status")));
    }
    let (session, now) = (world.clock.unique_id(), world.clock.now());
    let parts = RunParts { flags: &job.run, metrics: None, is_long: false, steps: None };
    let mut operations = operations(context, world, subject, parts);
    let user = operations.server.current_user().await.unwrap_or_else(|_| "unknown".to_owned());
    let number = record.next_number();
    record.push(ShiftEntry { number, session, user, reason: job.reason.clone(), ..emitted_entry(&plans, now) });
    let operations_of_patch = patch::shift_patch(&object, &plans, &record);
    let check = Effect::Check { object, operations: operations_of_patch.clone(), plans };
    let checked = operations.perform(check, std::time::Duration::ZERO).await;
    let (Some(Event::Checked(CheckResult::Accepted { checks, .. })), Some(last)) = (&checked, &operations.last_check)
    else {
        return Err(check_failure(checked));
    };
    show_checks(context, checks);
    if let Some(blocking) = blocking_check(checks, job.run.force, job.run.force_owner) {
        let flag = blocking.override_flag().as_str();
        return Err(Failure::unavailable("cannot shift: a preflight check failed")
            .hint(format!("nothing was applied; to continue anyway: {flag}")));
    }
    match job.format {
        EmitFormat::Patch => render::json(&Value::from(operations_of_patch), context.out)?,
        EmitFormat::Yaml => render::yaml::yaml(&compare::without_server_fields(&last.after), context.out)?,
    }
    Ok(CommandOutcome::Clean)
}

/// The entry of a shift that another program applies: no session will close it.
fn emitted_entry(plans: &[RulePlan], now: jiff::Timestamp) -> ShiftEntry {
    ShiftEntry {
        number: 0,
        session: String::new(),
        user: String::new(),
        started_at: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        reason: None,
        deadline: None,
        hosts: Vec::new(),
        plan: Vec::new(),
        step: 1,
        analysis: None,
        verdicts: Vec::new(),
        abort_requested_by: None,
        state: ShiftState::Held,
        message: "emitted for another client to apply; acknowledgement by the proxies was not checked".to_owned(),
        rules: plans.iter().map(RuleRecord::new).collect(),
    }
}

/// Why the API server does not accept the change.
fn check_failure(checked: Option<Event>) -> Failure {
    let failure = Failure::unavailable("cannot validate the change");
    match checked {
        Some(Event::Checked(CheckResult::Rejected(reason))) => {
            failure.cause(format!("the API server rejected the patch: {reason}"))
        }
        Some(Event::Checked(CheckResult::Forbidden(reason))) => {
            failure.cause(reason).hint("shift needs the verb patch on it: kubectl apply -f docs/rbac/shifter.yaml")
        }
        Some(Event::Checked(CheckResult::Conflict)) => {
            failure.cause("another client is changing the object").hint("run the command again")
        }
        Some(Event::Checked(CheckResult::Failed { message, hint })) => {
            let failure = failure.cause(message);
            match hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        _ => failure,
    }
}
