//! Questions on a terminal, each on a thread of its own: so a signal ends the waiting, and the ground is watched while
//! somebody thinks.

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

/// Shares that are offered.
const PRESETS: [&str; 6] = ["0", "5", "10", "25", "50", "100"];

/// Asks aside.
pub(super) fn aside<T: Send + 'static>(
    question: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> oneshot::Receiver<io::Result<T>> {
    let (sender, answer) = oneshot::channel();
    std::thread::spawn(move || sender.send(question()));
    answer
}

/// Waits for an answer.
pub(super) async fn answered<T>(answer: oneshot::Receiver<io::Result<T>>) -> Result<T, Failure> {
    match answer.await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Err(Failure::interrupted()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(Failure::source("the question could not be asked").hint("to shift without a question: --yes")),
    }
}

/// What can be shifted for a Service.
struct ShiftCandidate {
    service: String,
    target: ShiftTarget,
    split: RuleSplit,
}

/// Asks for what the command line does not say: Service, rule, backend and share.
pub(super) async fn complete(context: &mut Context<'_>, arguments: &mut ShiftArgs) -> Result<(), Failure> {
    let source = SourceArgs::default();
    let read = source.read(context).await?;
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let in_scope =
        |service: &Service| read.namespaces.is_empty() || read.namespaces.contains(service.namespace().as_str());
    let mut choices: Vec<ShiftCandidate> = Vec::new();
    match &arguments.target {
        Some(word) => {
            let found = target::find(&mesh, word, &read.namespaces)?;
            let of_target = target::all_rules(&mesh).into_iter().filter(|(object, ..)| object.key == found.key);
            choices.extend(of_target.flat_map(|(_, _, splits)| splits).map(|split| ShiftCandidate {
                service: word.clone(),
                target: found.clone(),
                split,
            }));
        }
        None => {
            let rules = target::all_rules(&mesh);
            for service in mesh.services.iter().filter(|service| in_scope(service)) {
                choices.extend(rules_of(&mesh, &rules, service));
            }
        }
    }
    // A rule with one backend can be split only where another can stand beside it; what the command line says decides.
    let several = choices.iter().any(|one| one.split.backends.len() > 1);
    choices.retain(|one| !several || one.split.backends.len() > 1);
    if let Some(word) = &arguments.rule {
        choices.retain(|one| one.split.name.as_deref() == Some(word) || word.parse() == Ok(one.split.rule));
    }
    drop(mesh);
    if choices.is_empty() {
        return Err(Failure::source("no rule here splits calls between backends")
            .hint("see what there is: kubectl grpcmesh inspect; other namespaces: -n or -A"));
    }
    let mut services: Vec<String> = choices.iter().map(|one| one.service.clone()).collect();
    services.dedup();
    let service = choose(context, "Which Service?", services).await?;
    choices.retain(|one| one.service == service);
    let title = |one: &ShiftCandidate| format!("{} {} ({})", one.target.title(), one.split.title(), shares(&one.split));
    let titles: Vec<String> = choices.iter().map(title).collect();
    let chosen = choose(context, "Which rule?", titles.clone()).await?;
    let at = titles.iter().position(|one| *one == chosen).unwrap_or(0);
    let ShiftCandidate { target, split, .. } = choices.swap_remove(at);
    let total: u64 = split.acting().iter().sum();
    let shown =
        |at: usize, weight: u64| format!("#{} {} {}", at + 1, split.backends[at].label(), Share::of(weight, total));
    let backends: Vec<String> = split.acting().into_iter().enumerate().map(|(at, weight)| shown(at, weight)).collect();
    let backend = choose(context, "Whose share?", backends.clone()).await?;
    let at = backends.iter().position(|one| *one == backend).unwrap_or(0);
    let mut presets: Vec<String> = PRESETS.iter().map(|share| format!("{share}%")).collect();
    presets.push("another".to_owned());
    let question = format!("Share of {}?", split.backends[at].label());
    let mut share = choose(context, &question, presets).await?;
    if share == "another" {
        let messages = context.messages;
        let check = |text: &str| text.trim().parse::<Share>().map(drop).map_err(|error| error.to_string());
        share = answered(aside(move || messages.ask_for("Percent", check))).await?;
    }
    let share: Share = share.trim().parse().map_err(|_| Failure::usage(format!("\"{share}\" is no share")))?;
    arguments.rule = Some(split.rule.to_string());
    arguments.to = Some(DesiredWeights(vec![(format!("#{}", at + 1), share)]));
    arguments.target = Some(format!("{}/{}.{}", target.kind_word(), target.key.name, target.key.namespace));
    Ok(())
}

fn rules_of<'a>(
    mesh: &'a Mesh<'_>,
    rules: &'a [(&Object, Value, Vec<RuleSplit>)],
    service: &'a Service,
) -> impl Iterator<Item = ShiftCandidate> + 'a {
    rules.iter().flat_map(move |(object, body, splits)| {
        let ours = splits.iter().filter(move |split| target::leads_to(mesh, object, body, split, service));
        ours.map(move |split| ShiftCandidate {
            service: mesh.short_host(&service.host).to_owned(),
            target: ShiftTarget::of(object),
            split: split.clone(),
        })
    })
}

/// Lets choose; the only one is taken without a question.
async fn choose(context: &Context<'_>, question: &str, items: Vec<String>) -> Result<String, Failure> {
    if let [only] = &items[..] {
        context.messages.hint(&format!("{question} Only {only} is there"));
        return Ok(only.clone());
    }
    let (messages, question, shown) = (context.messages, question.to_owned(), items.clone());
    let at = answered(aside(move || messages.choose(&question, &shown))).await?;
    match at.and_then(|at| items.get(at).cloned()) {
        Some(item) => Ok(item),
        None => Err(Failure::interrupted()),
    }
}

/// `v1 90%, v2 10%`.
fn shares(split: &RuleSplit) -> String {
    let total: u64 = split.acting().iter().sum();
    let one = |(at, weight): (usize, u64)| format!("{} {}", split.backends[at].label(), Share::of(weight, total));
    split.acting().into_iter().enumerate().map(one).collect::<Vec<_>>().join(", ")
}
