//! `shift --edit FILE`: the weights are written into a manifest, and nothing into a cluster.

use std::path::Path;

use super::target;
use super::{ShiftArgs, ShiftFormat};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::mesh;
use crate::render;
use crate::report::shift::ShiftEvent;
use crate::report::unified::unified;
use crate::shift::edit;
use crate::shift::plan::RulePlan;

/// Edits it.
pub(super) async fn run(
    context: &mut Context<'_>,
    arguments: &ShiftArgs,
    path: &Path,
) -> Result<CommandOutcome, Failure> {
    let shown = path.display();
    let (Some(word), Some(wish)) = (&arguments.target, &arguments.to) else {
        return Err(Failure::usage("--edit needs a target and --to BACKEND=SHARE"));
    };
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::source(format!("cannot read {shown}")).cause(error))?;
    let source = SourceArgs { from: vec![shown.to_string()], ..SourceArgs::default() };
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    // A manifest seldom holds the Service: its name leads to the rules that send to it all the same.
    let found = target::find(&mesh, word, &read.namespaces)
        .or_else(|failure| if word.contains('/') { Err(failure) } else { target::by_host(&mesh, word) })?;
    let key = found.key.clone();
    let document = edit::find(&text, key.kind, &key.namespace, &key.name)
        .ok_or_else(|| Failure::source(format!("{} is no document of its own in {shown}", found.title())))?;
    let plans = target::plans(&mesh, &found, &document.1, wish, arguments)?;
    drop(mesh);
    let edited = edit::edit(&text, &document, &plans)
        .map_err(|error| Failure::source(format!("{shown} is not changed: {error}")))?;
    let is_idle = plans.iter().all(RulePlan::is_idle);
    if !is_idle && arguments.dry_run.is_none() {
        std::fs::write(path, &edited).map_err(|error| Failure::source(format!("cannot write {shown}")).cause(error))?;
    }
    let what = match (is_idle, arguments.dry_run) {
        (true, _) => "the shares are as wished already: nothing is changed".to_owned(),
        (false, Some(_)) => "a dry run: nothing is changed".to_owned(),
        (false, None) => format!("{shown} is edited; nothing is written to a cluster"),
    };
    match arguments.output {
        ShiftFormat::Json => {
            let event = ShiftEvent {
                kind: "ShiftEvent",
                version: 1,
                seq: 1,
                time: crate::cli::env::Env::clock(),
                event: "done",
                step: 1,
                weights: crate::report::shift::weights(&plans),
                message: what,
                ..ShiftEvent::default()
            };
            render::json_line(&event, context.out)?;
        }
        ShiftFormat::Text => {
            let patch = unified(&text, &edited, 2);
            render::shift::patch(&patch, &context.style, context.out)?;
            context.messages.hint(&what);
        }
    }
    Ok(CommandOutcome::Clean)
}
