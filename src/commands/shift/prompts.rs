//! Prompts on a terminal. Each runs on its own thread, so that signals and the monitoring of the object go on while the
//! user thinks.

use std::io;

use serde_json::Value;
use tokio::sync::oneshot;

use super::ShiftArgs;
use super::target::{self, ShiftTarget};
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::global::SourceArgs;
use crate::mesh::service::Service;
use crate::mesh::{self, Mesh};
use crate::shift::plan::DesiredWeights;
use crate::shift::split::RuleSplit;
use crate::snapshot::Object;
use crate::vocabulary::share::Share;

/// Shares to select from, in percent.
const PRESETS: [&str; 6] = ["0", "5", "10", "25", "50", "100"];
/// The item for a share that is not a preset.
const OTHER_SHARE: &str = "other";

/// Starts a prompt on its own thread.
pub(super) fn spawn_prompt<T: Send + 'static>(
    prompt: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> oneshot::Receiver<io::Result<T>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(prompt()));
    receiver
}

pub(super) async fn wait_for_answer<T>(answer: oneshot::Receiver<io::Result<T>>) -> Result<T, Failure> {
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::interrupted()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::unavailable("cannot show the prompt").hint("to apply without a prompt: --yes")),
    }
}

/// A rule that can be shifted.
struct ShiftCandidate {
    service: String,
    target: ShiftTarget,
    split: RuleSplit,
}

/// Asks for the arguments that are missing: Service, rule, backend and share.
pub(super) async fn ask_for_arguments(context: &mut Context<'_>, arguments: &mut ShiftArgs) -> Result<(), Failure> {
    let source = SourceArgs::default();
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let in_scope =
        |service: &Service| read.namespaces.is_empty() || read.namespaces.contains(service.namespace().as_str());
    let mut candidates: Vec<ShiftCandidate> = Vec::new();
    match &arguments.target {
        Some(argument) => {
            let target = target::find(&mesh, argument, &read.namespaces)?;
            let of_target = target::all_rules(&mesh).into_iter().filter(|(object, ..)| object.key == target.key);
            candidates.extend(of_target.flat_map(|(_, _, splits)| splits).map(|split| ShiftCandidate {
                service: argument.clone(),
                target: target.clone(),
                split,
            }));
        }
        None => {
            let rules = target::all_rules(&mesh);
            for service in mesh.services.iter().filter(|service| in_scope(service)) {
                candidates.extend(candidates_for(&mesh, &rules, service));
            }
        }
    }
    // Offer rules with one backend only if no rule has several.
    let has_split = candidates.iter().any(|candidate| candidate.split.backends.len() > 1);
    candidates.retain(|candidate| !has_split || candidate.split.backends.len() > 1);
    if let Some(rule) = &arguments.rule {
        candidates.retain(|candidate| {
            candidate.split.name.as_deref() == Some(rule) || rule.parse() == Ok(candidate.split.rule)
        });
    }
    drop(mesh);
    if candidates.is_empty() {
        return Err(Failure::unavailable("no route rule with backends found")
            .hint("list services and their routes: kubectl grpcmesh inspect")
            .hint("search other namespaces with -n NAMESPACE or -A"));
    }
    let mut services: Vec<String> = candidates.iter().map(|candidate| candidate.service.clone()).collect();
    services.dedup();
    let service = select(context, "Which Service?", "Service", services).await?;
    candidates.retain(|candidate| candidate.service == service);
    let title = |candidate: &ShiftCandidate| {
        format!("{} {} ({})", candidate.target.title(), candidate.split.title(), format_shares(&candidate.split))
    };
    let titles: Vec<String> = candidates.iter().map(title).collect();
    let selected = select(context, "Which rule?", "rule", titles.clone()).await?;
    let index = titles.iter().position(|title| *title == selected).unwrap_or(0);
    let ShiftCandidate { target, split, .. } = candidates.swap_remove(index);
    let (backend, share) = ask_for_share(context, &split).await?;
    arguments.rule = Some(split.rule.to_string());
    arguments.to = Some(DesiredWeights(vec![(format!("#{}", backend + 1), share)]));
    arguments.target = Some(format!("{}/{}.{}", target.key.kind.short_name(), target.key.name, target.key.namespace));
    Ok(())
}

/// Asks for a backend of a rule, by index, and its share.
async fn ask_for_share(context: &Context<'_>, split: &RuleSplit) -> Result<(usize, Share), Failure> {
    let weights = split.effective_weights();
    let total: u64 = weights.iter().sum();
    let describe = |(index, weight): (usize, &u64)| {
        format!("#{} {} {}", index + 1, split.backends[index].label(), Share::from_ratio(*weight, total))
    };
    let backends: Vec<String> = weights.iter().enumerate().map(describe).collect();
    let selected = select(context, "Which backend?", "backend", backends.clone()).await?;
    let index = backends.iter().position(|backend| *backend == selected).unwrap_or(0);
    let mut shares: Vec<String> = PRESETS.iter().map(|share| format!("{share}%")).collect();
    shares.push(OTHER_SHARE.to_owned());
    let question = format!("New share of {}?", split.backends[index].label());
    let mut share = select(context, &question, "share", shares).await?;
    if share == OTHER_SHARE {
        let messages = context.messages;
        let check = |text: &str| text.trim().parse::<Share>().map(drop).map_err(|error| error.to_string());
        share = wait_for_answer(spawn_prompt(move || messages.prompt_line("Share in percent", check))).await?;
    }
    let share = share.trim().parse::<Share>().map_err(|error| Failure::usage(error.to_string()))?;
    Ok((index, share))
}

fn candidates_for<'a>(
    mesh: &'a Mesh<'_>,
    rules: &'a [(&Object, Value, Vec<RuleSplit>)],
    service: &'a Service,
) -> impl Iterator<Item = ShiftCandidate> + 'a {
    rules.iter().flat_map(move |(object, body, splits)| {
        let ours = splits.iter().filter(move |split| target::routes_to(mesh, object, body, split, service));
        ours.map(move |split| ShiftCandidate {
            service: mesh.short_host(&service.host).to_owned(),
            target: ShiftTarget::from_object(object),
            split: split.clone(),
        })
    })
}

/// Asks the user to select an item. A single item is selected without a prompt.
async fn select(context: &Context<'_>, question: &str, noun: &str, items: Vec<String>) -> Result<String, Failure> {
    if let [only] = &items[..] {
        context.messages.hint(&format!("using the only {noun}: {only}"));
        return Ok(only.clone());
    }
    let (messages, question, shown) = (context.messages, question.to_owned(), items.clone());
    let index = wait_for_answer(spawn_prompt(move || messages.choose(&question, &shown))).await?;
    match index.and_then(|index| items.get(index).cloned()) {
        Some(item) => Ok(item),
        None => Err(Failure::interrupted()),
    }
}

/// `v1 90%, v2 10%`.
fn format_shares(split: &RuleSplit) -> String {
    let total: u64 = split.effective_weights().iter().sum();
    let format = |(index, weight): (usize, u64)| {
        format!("{} {}", split.backends[index].label(), Share::from_ratio(weight, total))
    };
    split.effective_weights().into_iter().enumerate().map(format).collect::<Vec<_>>().join(", ")
}
