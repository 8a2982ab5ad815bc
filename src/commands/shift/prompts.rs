//! The wizard: asks for the Service, the rule, the backend and the share that the arguments do not name.

use std::io;

use super::args::Request;
use super::mesh_view::SHIFT_KINDS;
use super::target::{self, ShiftTarget};
use super::world::{PendingAnswer, World};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::mesh::service::Service;
use crate::mesh::{self, Mesh};
use crate::shift::plan::DesiredWeights;
use crate::shift::selection::{RuleSelection, ShiftableObject, object_argument, shiftable_objects};
use crate::shift::split::RuleSplit;
use crate::vocabulary::share::Share;

/// Shares to select from, in percent.
const PRESETS: [&str; 6] = ["0", "5", "10", "25", "50", "100"];
/// The item for a share that is not a preset.
const OTHER_SHARE: &str = "other";

/// Waits for an answer. A cancelled prompt ends the command.
async fn wait_for<T>(answer: PendingAnswer<T>) -> Result<T, Failure> {
    match answer.await {
        Ok(Some(answer)) => Ok(answer),
        Ok(None) => Err(Failure::interrupted()),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::interrupted()),
        Err(error) => Err(error.into()),
    }
}

/// A rule that can be shifted.
struct ShiftCandidate {
    service: String,
    target: ShiftTarget,
    split: RuleSplit,
}

/// Asks for what a request lacks: Service, rule, backend and share.
pub(super) async fn ask_for_request(
    context: &mut Context<'_>,
    world: &World,
    request: &mut Request,
) -> Result<(), Failure> {
    let source = SourceArgs { kinds: SHIFT_KINDS.to_vec(), ..SourceArgs::default() };
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let in_scope =
        |service: &Service| read.namespaces.is_empty() || read.namespaces.contains(service.namespace().as_str());
    let objects = shiftable_objects(&mesh);
    let mut candidates: Vec<ShiftCandidate> = Vec::new();
    match &request.target {
        Some(argument) => {
            let target = target::find(&mesh, argument, &read.namespaces)?;
            let of_target = objects.into_iter().filter(|object| object.object.key == target.key);
            candidates.extend(of_target.flat_map(|object| object.rules).map(|split| ShiftCandidate {
                service: argument.clone(),
                target: target.clone(),
                split,
            }));
        }
        None => {
            for service in mesh.services.iter().filter(|service| in_scope(service)) {
                candidates.extend(candidates_for(&mesh, &objects, service));
            }
        }
    }
    drop(mesh);
    // Offer rules with one backend only if no rule has several.
    let has_split = candidates.iter().any(|candidate| candidate.split.backends.len() > 1);
    candidates.retain(|candidate| !has_split || candidate.split.backends.len() > 1);
    candidates.retain(|candidate| request.rules.includes(&candidate.split));
    let Some(ShiftCandidate { target, split, .. }) = choose_rule(context, world, candidates).await? else {
        return Err(Failure::unavailable("no route rule with backends found")
            .hint("list services and their routes: kubectl grpcmesh inspect")
            .hint("search other namespaces with -n NAMESPACE or -A"));
    };
    let (backend, share) = ask_for_share(context, world, &split).await?;
    request.rules = RuleSelection::Named(split.rule.to_string());
    request.desired = Some(DesiredWeights(vec![(format!("#{}", backend + 1), share)]));
    // Without `-n`, since the namespace is part of the name.
    let argument = object_argument(&target.object_ref());
    let name = argument.split(' ').next().unwrap_or_default();
    request.target = Some(format!("{name}.{}", target.key.namespace));
    Ok(())
}

/// Asks for the Service and its rule; `None` without candidates.
async fn choose_rule(
    context: &Context<'_>,
    world: &World,
    mut candidates: Vec<ShiftCandidate>,
) -> Result<Option<ShiftCandidate>, Failure> {
    if candidates.is_empty() {
        return Ok(None);
    }
    let mut services: Vec<String> = candidates.iter().map(|candidate| candidate.service.clone()).collect();
    services.dedup();
    let service = select(context, world, "Which Service?", "Service", services).await?;
    candidates.retain(|candidate| candidate.service == service);
    let title = |candidate: &ShiftCandidate| {
        format!("{} {} ({})", candidate.target.title(), candidate.split.title(), format_shares(&candidate.split))
    };
    let titles: Vec<String> = candidates.iter().map(title).collect();
    let selected = select(context, world, "Which rule?", "rule", titles.clone()).await?;
    let index = titles.iter().position(|title| *title == selected).unwrap_or(0);
    Ok(Some(candidates.swap_remove(index)))
}

/// Asks for a backend of a rule, by index, and its share.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
async fn ask_for_share(context: &Context<'_>, world: &World, split: &RuleSplit) -> Result<(usize, Share), Failure> {
    let weights = split.effective_weights();
    let total: u64 = weights.iter().sum();
    let describe = |(index, weight): (usize, &u64)| {
        format!("#{} {} {}", index + 1, split.backends[index].label(), Share::from_ratio(*weight, total))
    };
    let backends: Vec<String> = weights.iter().enumerate().map(describe).collect();
    let selected = select(context, world, "Which backend?", "backend", backends.clone()).await?;
    let index = backends.iter().position(|backend| *backend == selected).unwrap_or(0);
    let mut shares: Vec<String> = PRESETS.iter().map(|share| format!("{share}%")).collect();
    shares.push(OTHER_SHARE.to_owned());
    let question = format!("New share of {}?", split.backends[index].label());
    let mut share = select(context, world, &question, "share", shares).await?;
    if share == OTHER_SHARE {
        let check = |text: &str| text.trim().parse::<Share>().map(drop).map_err(|error| error.to_string());
        share = wait_for(world.prompter.line("Share in percent".to_owned(), check)).await?;
    }
    let share = share.trim().parse::<Share>().map_err(|error| Failure::usage(error.to_string()))?;
    Ok((index, share))
}

fn candidates_for<'a>(
    mesh: &'a Mesh<'_>,
    objects: &'a [ShiftableObject<'_>],
    service: &'a Service,
) -> impl Iterator<Item = ShiftCandidate> + 'a {
    objects.iter().flat_map(move |object| {
        let ours = object.rules.iter().filter(move |rule| object.routes_to(mesh, rule, service));
        ours.map(move |split| ShiftCandidate {
            service: mesh.short_host(&service.host).to_owned(),
            target: ShiftTarget::from_object(object.object),
            split: split.clone(),
        })
    })
}

/// Asks the user to select an item. A single item is selected without a prompt.
async fn select(
    context: &Context<'_>,
    world: &World,
    question: &str,
    noun: &str,
    items: Vec<String>,
) -> Result<String, Failure> {
    if let [only] = &items[..] {
        context.messages.hint(&format!("using the only {noun}: {only}"));
        return Ok(only.clone());
    }
    let index = wait_for(world.prompter.choose(question.to_owned(), items.clone())).await?;
    items.get(index).cloned().ok_or_else(Failure::interrupted)
}

/// `v1 90%, v2 10%`.
#[expect(clippy::indexing_slicing, reason = "the indexes are positions of the rule's own backends")]
fn format_shares(split: &RuleSplit) -> String {
    let total: u64 = split.effective_weights().iter().sum();
    let format = |(index, weight): (usize, u64)| {
        format!("{} {}", split.backends[index].label(), Share::from_ratio(weight, total))
    };
    split.effective_weights().into_iter().enumerate().map(format).collect::<Vec<_>>().join(", ")
}
