//! `shift --edit FILE`: writes the weights into a manifest instead of the cluster.

use std::io::Write as _;

use super::super::args::{EditJob, ShiftFormat};
use super::super::target;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::replace_file::{FileAccess, replace_file};
use crate::mesh;
use crate::render;
use crate::report::shift::ShiftEvent;
use crate::report::unified::unified;
use crate::shift::edit;
use crate::shift::notice::ShiftEventType;
use crate::shift::plan::RulePlan;

pub(in super::super) async fn edit_file(context: &mut Context<'_>, job: EditJob) -> Result<CommandOutcome, Failure> {
    let (path, argument, desired) = (&job.path, &job.target, &job.desired);
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::unavailable(format!("cannot read {shown}")).cause(error))?;
    let source = SourceArgs { from: vec![shown.to_string()], ..SourceArgs::default() };
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    // A manifest seldom holds the Service, so its name is also searched in the hosts of the rules.
    let target = target::find(&mesh, argument, &read.namespaces)
        .or_else(|failure| if argument.contains('/') { Err(failure) } else { target::find_by_host(&mesh, argument) })?;
    let key = target.key.clone();
    let cannot_edit = |error: edit::EditError| {
        Failure::unavailable(format!("cannot edit {} in {shown}", target.title())).cause(error)
    };
    let document = edit::find_document(&text, key.kind, &key.namespace, &key.name)
        .ok_or_else(|| cannot_edit(edit::EditError::ObjectNotFound))?;
    let plans = target::plan_rules(&mesh, &target, &document.1, desired, &job.rules)?;
    drop(mesh);
    let edited = edit::set_weights(&text, &document, &plans).map_err(cannot_edit)?;
    let is_noop = plans.iter().all(RulePlan::is_noop);
    if !is_noop && !job.is_dry_run {
        replace_file(path, FileAccess::Kept, |file| file.write_all(edited.as_bytes()))
            .map_err(|error| Failure::unavailable(format!("cannot write {shown}")).cause(error))?;
    }
    let message = match (is_noop, job.is_dry_run) {
        (true, _) => "the weights already match: nothing to do".to_owned(),
        (false, true) => format!("dry run: {shown} was not changed"),
        (false, false) => format!("{shown} was changed; the cluster was not"),
    };
    match job.output {
        ShiftFormat::Json => {
            let event = ShiftEvent {
                time: crate::cli::env::Env::clock(),
                weights: crate::report::shift::weights_after(&plans),
                ..ShiftEvent::new(ShiftEventType::Done, message)
            };
            render::json_line(&event, context.out)?;
        }
        ShiftFormat::Text => {
            let patch = unified(&text, &edited, 2);
            render::shift::patch(&patch, &context.style, context.out)?;
            context.messages.hint(&message);
        }
    }
    Ok(CommandOutcome::Clean)
}
