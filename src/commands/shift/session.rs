//! One run of a shift: events, the question, writing with preconditions, and seeing that the proxies follow.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use serde_json::Value;

use super::super::proxies::{Question, ask};
use super::preflight::{Preflight, replace};
use super::target::Target;
use super::{Ack, Format, Patched, ShiftArgs, Then, compared};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::SourceArgs;
use crate::cluster::client::Server;
use crate::compare::live::Proxies;
use crate::compare::proxy::State as ProxyState;
use crate::mesh::outbound::BackendState;
use crate::mesh::workload::Readiness;
use crate::mesh::{self};
use crate::render;
use crate::report::shift::{ProxyCounts, ShiftEvent, weights};
use crate::rules::Severity;
use crate::shift::obey::classes;
use crate::shift::patch;
use crate::shift::plan::RulePlan;
use crate::shift::record::{Entry, LostControl, Record, RuleRecord, State};
use crate::shift::split::splits;

/// Times that a write is tried again after somebody else's.
const TRIES: u32 = 5;
/// Proxies that are all asked.
const ALL: usize = 50;
/// Pause between two looks at the proxies.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// A run.
pub(super) struct Session<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    arguments: &'a ShiftArgs,
    pub(super) server: Server,
    pub(super) target: Target,
    source: SourceArgs,
    id: String,
    seq: u32,
}

/// What came of looking at the proxies.
pub(super) enum Followed {
    /// All that could be asked run the new weights.
    Yes(ProxyCounts),
    /// Some do not.
    No(ProxyCounts, String),
    /// Somebody else has the weights now.
    Lost(String),
    /// The user, or a signal, ended it.
    Interrupted,
}

impl<'a, 'w> Session<'a, 'w> {
    pub(super) fn new(
        context: &'a mut Context<'w>,
        arguments: &'a ShiftArgs,
        server: Server,
        target: Target,
        source: SourceArgs,
    ) -> Self {
        Self { context, arguments, server, target, source, id: Env::unique(), seq: 0 }
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
            step: 1,
            message: message.to_owned(),
            ..ShiftEvent::default()
        };
        more(&mut told);
        match self.arguments.output {
            Format::Json => render::json_line(&told, self.context.out)?,
            Format::Text => render::shift::event(&told, &self.context.style, self.context.out)?,
        }
        self.context.out.flush()?;
        Ok(())
    }

    /// Refuses beside a shift that is not ended.
    pub(super) fn not_open(&self, record: &Record) -> Result<(), Failure> {
        let Some(open) = record.open().filter(|_| !self.arguments.takeover) else { return Ok(()) };
        let until = open.until.clone().unwrap_or_default();
        let word = self.target.word();
        Err(Failure::source(format!("{} by {} is not ended: session {} since {}, at it until {until}", self.target.title(), open.by, open.session, open.at))
            .hint(format!("see how it stands: kubectl grpcmesh shift {word} --history; end it: --resume or --undo after {until}, or with --takeover now")))
    }

    /// The record of what is about to be written.
    pub(super) async fn entry(&self, record: &Record, plans: &[RulePlan]) -> Result<Entry, Failure> {
        Ok(Entry {
            number: record.next_number(),
            session: self.id.clone(),
            by: self.server.who_am_i().await.unwrap_or_else(|_| "unknown".to_owned()),
            at: Env::clock(),
            reason: self.arguments.reason.clone(),
            until: Some(Env::clock_in(self.arguments.ack_timeout)),
            state: State::Open,
            message: String::new(),
            rules: plans.iter().map(RuleRecord::new).collect(),
        })
    }

    /// What the server would make of a patch.
    pub(super) async fn try_it(&self, operations: &[Value]) -> Result<Value, Failure> {
        match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            Patched::Stored(after) => Ok(after),
            Patched::Conflict => Err(Failure::source("somebody writes the object right now").hint("try again")),
            Patched::Refused(why) => {
                Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"))
            }
            Patched::Forbidden(why) => Err(Failure::source(format!("the right to shift is missing: {why}"))
                .hint("it is patch on the object: docs/rbac/shifter.yaml")),
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
        if let Some(after) = after.filter(|_| self.arguments.output == Format::Text) {
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
        if self.arguments.output == Format::Text {
            render::shift::others(&found.classes, &self.context.style, self.context.out)?;
        }
        for check in &found.checks {
            match check.severity {
                Severity::Error => self.context.messages.error(&check.text),
                Severity::Warning | Severity::Info => self.context.messages.warning(&check.text),
            }
        }
        Ok(())
    }

    /// Asks, on a terminal.
    pub(super) async fn is_agreed(&mut self) -> Result<bool, Failure> {
        if self.arguments.yes {
            return Ok(true);
        }
        if !self.context.env.stderr_is_terminal || self.arguments.output == Format::Json {
            return Err(Failure::usage("nobody can be asked here").hint("to shift without a question: --yes"));
        }
        self.context.out.flush()?;
        // On a thread of its own, so that a signal ends the waiting and the terminal is given back.
        let (sender, answer) = tokio::sync::oneshot::channel();
        let messages = self.context.messages;
        std::thread::spawn(move || sender.send(messages.confirm("Write these weights?")));
        tokio::select! {
            biased;
            () = super::super::end_signal() => {
                messages.give_cursor_back();
                Err(Failure::interrupted())
            }
            answer = answer => match answer {
                Ok(answer) => Ok(answer?),
                Err(_) => Err(Failure::source("the question could not be asked").hint("to shift without a question: --yes")),
            },
        }
    }

    /// Writes, and sees that the proxies follow; if they do not, what was asked for in that case.
    pub(super) async fn write_and_follow(
        &mut self,
        plans: &[RulePlan],
        object: Value,
        mut entry: Entry,
        obeying: Vec<String>,
    ) -> Result<Outcome, Failure> {
        let written = self.write(plans, object, &mut entry).await?;
        self.tell("written", &format!("session {} by {}", entry.session, entry.by), |event| {
            event.weights = weights(plans);
        })?;
        drop(written);
        self.follow_to_the_end(&entry, obeying).await
    }

    /// Sees that the proxies follow an entry that is written, and ends it.
    pub(super) async fn follow_to_the_end(&mut self, entry: &Entry, obeying: Vec<String>) -> Result<Outcome, Failure> {
        if self.arguments.ack == Some(Ack::None) {
            self.end(entry, State::Held, "no proxy was asked (--ack none)").await?;
            self.tell("held", "the weights are written; no proxy was asked (--ack none)", |_| {})?;
            return Ok(Outcome::Clean);
        }
        match self.follow(entry, obeying).await? {
            Followed::Yes(counts) => {
                let message = format!("{} of {} proxies run the new weights", counts.in_step, counts.total);
                self.end(entry, State::Done, &message).await?;
                let partial = !counts.unreachable.is_empty();
                self.tell("acknowledged", &message, |event| event.proxies = Some(counts))?;
                self.tell("done", &self.ways(), |_| {})?;
                Ok(if partial { Outcome::Partial } else { Outcome::Clean })
            }
            Followed::No(counts, why) => {
                self.tell("acknowledged", &why, |event| event.proxies = Some(counts))?;
                self.give_up(entry, &why, self.arguments.on_failure).await?;
                Ok(match self.arguments.on_failure {
                    Then::Rollback => {
                        self.follow_back(entry).await?;
                        Outcome::Found
                    }
                    Then::Hold => Outcome::Partial,
                })
            }
            Followed::Lost(why) => {
                self.tell("lost-control", &why, |_| {})?;
                Err(Failure::source(format!("lost control: {why}"))
                    .hint("nothing more is written; see who did it: kubectl get -o yaml --show-managed-fields"))
            }
            Followed::Interrupted => {
                self.give_up(entry, "interrupted", self.arguments.on_interrupt).await?;
                Err(Failure::interrupted())
            }
        }
    }

    fn ways(&self) -> String {
        format!("the way back: kubectl grpcmesh shift {} --undo", self.target.word())
    }

    async fn give_up(&mut self, entry: &Entry, why: &str, then: Then) -> Result<(), Failure> {
        match then {
            Then::Rollback => self.roll_back(entry, why).await,
            Then::Hold => {
                self.end(entry, State::Held, why).await?;
                self.tell("held", &format!("{why}; the new weights stay. {}", self.ways()), |_| {})
            }
        }
    }

    /// Writes plans; what somebody else wrote in between that is not about the weights is no reason to stop.
    async fn write(&mut self, plans: &[RulePlan], first: Value, entry: &mut Entry) -> Result<Value, Failure> {
        let mut object = first.clone();
        for _ in 0..TRIES {
            let mut record = Record::of(&object).unwrap_or_default();
            entry.number = record.next_number();
            record.push(entry.clone());
            let operations = patch::shift(&object, plans, &record);
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(stored)) => return Ok(stored),
                Ok(Patched::Refused(why)) => {
                    return Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"));
                }
                Ok(Patched::Forbidden(why)) => {
                    return Err(Failure::source(format!("the right to shift is missing: {why}"))
                        .hint("it is patch on the object: docs/rbac/shifter.yaml"));
                }
                Ok(Patched::Conflict) => {}
                // Whether it was stored is seen below.
                Err(error) => self.context.messages.warning(&error.message),
            }
            object = self.look().await?;
            let is_ours =
                Record::of(&object).is_ok_and(|record| record.entries.iter().any(|one| one.session == entry.session));
            if is_ours {
                return Ok(object);
            }
            let same = |part: &str| first.pointer(part) == object.pointer(part);
            let record = "/metadata/annotations/grpcmesh.io~1shift";
            if !(same("/spec") && same("/metadata/labels") && same("/metadata/uid") && same(record)) {
                let who = last_writer(&object);
                return Err(Failure::source(format!("{who} changed {} in the meantime", self.target.title()))
                    .hint("nothing is written; look at it and shift again"));
            }
        }
        Err(Failure::source(format!("{} is written to all the time: {TRIES} tries failed", self.target.title()))
            .hint("nothing is written; try again when it is quiet"))
    }

    async fn look(&self) -> Result<Value, Failure> {
        let object = self.server.object(&self.target.key, &self.target.api_version).await?;
        object.ok_or_else(|| Failure::source(format!("{} is gone", self.target.title())))
    }

    /// Sees that the proxies follow the way back, too.
    pub(super) async fn follow_back(&mut self, entry: &Entry) -> Result<Outcome, Failure> {
        if self.arguments.ack == Some(Ack::None) {
            return Ok(Outcome::Clean);
        }
        let object = self.look().await?;
        let now = splits(self.target.key.kind, &object);
        let back = |rule: &RuleRecord| {
            let split = now.iter().find(|split| split.rule == rule.rule)?;
            let backends = rule.backends.iter().take(rule.start.len()).cloned().collect();
            let (identity, wrote) = (split.identity(), rule.start.clone());
            Some(RuleRecord { identity, backends, wrote, ..rule.clone() })
        };
        let rules = entry.rules.iter().filter_map(back).collect();
        match self.follow(&Entry { rules, ..entry.clone() }, Vec::new()).await? {
            Followed::Yes(counts) => {
                let message = format!("{} of {} proxies run the weights from before", counts.in_step, counts.total);
                let partial = !counts.unreachable.is_empty();
                self.tell("acknowledged", &message, |event| event.proxies = Some(counts))?;
                Ok(if partial { Outcome::Partial } else { Outcome::Clean })
            }
            Followed::No(counts, why) => {
                self.tell("acknowledged", &why, |event| event.proxies = Some(counts))?;
                Ok(Outcome::Partial)
            }
            Followed::Lost(why) => {
                self.tell("lost-control", &why, |_| {})?;
                Err(Failure::source(format!("lost control: {why}")))
            }
            Followed::Interrupted => Err(Failure::interrupted()),
        }
    }

    /// Notes how an entry stands. Weights are not touched; where they are somebody else's nothing is noted.
    async fn end(&mut self, entry: &Entry, state: State, message: &str) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let object = self.look().await?;
            let Ok(mut record) = Record::of(&object) else { break };
            let Some(first) = record.entries.first_mut().filter(|one| one.session == entry.session) else { break };
            first.state = state;
            first.until = None;
            message.clone_into(&mut first.message);
            let Ok(operations) = patch::note(self.target.key.kind, &object, &record) else { break };
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await? {
                Patched::Stored(_) => return Ok(()),
                Patched::Conflict => {}
                Patched::Refused(why) | Patched::Forbidden(why) => {
                    self.context.messages.warning(&format!("the record could not be ended: {why}"));
                    return Ok(());
                }
            }
        }
        self.context.messages.warning("the record could not be ended: somebody else writes the object");
        Ok(())
    }

    /// The weights from before an entry, if they are still those that it wrote.
    pub(super) async fn roll_back(&mut self, entry: &Entry, why: &str) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let object = self.look().await?;
            let mut record = Record::of(&object).unwrap_or_default();
            if let Some(one) = record.entries.iter_mut().find(|one| one.session == entry.session) {
                one.state = State::RolledBack;
                one.until = None;
                why.clone_into(&mut one.message);
            }
            let operations =
                patch::back(self.target.key.kind, &object, entry, &record).map_err(|lost| self.lost(&lost))?;
            self.may_go_back(entry, &operations).await?;
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(_)) => {
                    return self.tell("rolled-back", &format!("{why}; the weights are as before"), |event| {
                        event.weights = start(entry);
                    });
                }
                Ok(Patched::Conflict) => {}
                Ok(Patched::Refused(why) | Patched::Forbidden(why)) => {
                    return Err(Failure::source(format!("the weights from before could not be written: {why}"))
                        .hint(format!("by hand: kubectl grpcmesh shift {} --undo", self.target.word())));
                }
                Err(error) => self.context.messages.warning(&error.message),
            }
        }
        Err(Failure::source("the weights from before could not be written")
            .hint(format!("by hand: kubectl grpcmesh shift {} --undo", self.target.word())))
    }

    fn lost(&self, lost: &LostControl) -> Failure {
        Failure::source(format!("lost control: {lost}")).hint(format!(
            "nothing is written over it; what was there before: kubectl grpcmesh shift {} --history",
            self.target.word()
        ))
    }

    /// Never back onto backends without a ready pod.
    async fn may_go_back(&mut self, entry: &Entry, operations: &[Value]) -> Result<(), Failure> {
        if self.arguments.force {
            return Ok(());
        }
        let Ok(after) = self.try_it(operations).await else { return Ok(()) };
        let Ok(mut read) = self.source.read(self.context).await else { return Ok(()) };
        if replace(&mut read.snapshot, &self.target, &after).is_none() {
            return Ok(());
        }
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let rules: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let all = classes(&mesh, &self.target.object(), &rules, "");
        let dead = all.iter().flat_map(|class| &class.backends).find(|one| one.state == BackendState::NoEndpoints);
        let Some(dead) = dead else { return Ok(()) };
        let why = format!("the weights from before send calls to {}, which has no ready pod now", dead.cluster);
        self.tell("held", &why, |_| {})?;
        Err(Failure::source(format!("held: {why}"))
            .hint("the new weights stay; to go back all the same: --undo --force"))
    }

    /// Waits until the proxies run what was written.
    async fn follow(&mut self, entry: &Entry, obeying: Vec<String>) -> Result<Followed, Failure> {
        let end = Instant::now() + self.arguments.ack_timeout;
        let mut ended = std::pin::pin!(super::super::end_signal());
        let bar = self.context.messages.bar("proxies that follow");
        let mut last: Option<(ProxyCounts, String)> = None;
        let mut obeying: HashSet<String> = obeying.into_iter().collect();
        loop {
            let looked = tokio::select! {
                biased;
                () = &mut ended => return Ok(Followed::Interrupted),
                looked = self.look_at_proxies(entry, &mut obeying) => looked,
            };
            match looked {
                Ok(Ok(counts)) => {
                    bar.set_length(counts.total as u64);
                    bar.set_position(counts.in_step as u64);
                    if let Some(first) = counts.refused.first() {
                        bar.finish_and_clear();
                        let why = format!("refused by {first}");
                        return Ok(Followed::No(counts, why));
                    }
                    if counts.late.is_empty() && counts.in_step > 0 {
                        bar.finish_and_clear();
                        return Ok(Followed::Yes(counts));
                    }
                    let why = match counts.late.first() {
                        Some(first) => format!("{} of {} proxies do not run the new weights after {:?}, such as {first}", counts.late.len(), counts.total, self.arguments.ack_timeout),
                        None => "no proxy that obeys could be asked: it is not known whether they follow (--ack none leaves that out)".to_owned(),
                    };
                    last = Some((counts, why));
                }
                Ok(Err(lost)) => return Ok(Followed::Lost(lost)),
                // An API server that is away for a moment ends nothing.
                Err(failure) => self.context.messages.warning(&failure.message),
            }
            if Instant::now() >= end {
                bar.finish_and_clear();
                let (counts, why) =
                    last.unwrap_or_else(|| (ProxyCounts::default(), "the cluster did not answer".to_owned()));
                return Ok(Followed::No(counts, why));
            }
            tokio::select! {
                biased;
                () = &mut ended => return Ok(Followed::Interrupted),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// One look: whether the weights are still ours, and who runs them.
    async fn look_at_proxies(
        &mut self,
        entry: &Entry,
        obeying: &mut HashSet<String>,
    ) -> Result<Result<ProxyCounts, String>, Failure> {
        let object = self.look().await?;
        for rule in &entry.rules {
            if let Err(lost) = rule.find(self.target.key.kind, &object) {
                return Ok(Err(format!("{lost} ({})", last_writer(&object))));
            }
        }
        let mut read = self.source.read(self.context).await?;
        let options = self.source.options(&self.context.scope);
        let hosts: Vec<String> = {
            let mesh = mesh::resolve(&read.snapshot, &options);
            let rules: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
            let all = classes(&mesh, &self.target.object(), &rules, "");
            let obey: Vec<_> = all.into_iter().filter(|class| class.obeys).collect();
            // Pods come and go while one waits.
            let ready = obey
                .iter()
                .flat_map(|class| &class.pods)
                .filter(|id| mesh.workload(**id).readiness != Readiness::NotReady);
            let now: HashSet<String> = ready.map(|id| mesh.workload(*id).object.path()).collect();
            if !now.is_empty() {
                *obeying = now;
            }
            let mut hosts: Vec<String> = obey.into_iter().flat_map(|class| class.hosts).collect();
            hosts.sort();
            hosts.dedup();
            hosts
        };
        let sampled = match self.arguments.ack {
            Some(Ack::All) => None,
            Some(Ack::Sampled) => Some(ALL),
            _ => (obeying.len() > ALL).then_some(ALL),
        };
        let question = Question { everywhere: true, only: Some(obeying), most: sampled, reach: self.arguments.reach };
        ask(self.context, &self.server, &self.source, &mut read, question).await;
        let mesh = mesh::resolve(&read.snapshot, &options);
        let judged = Proxies::new(&mesh).map(|proxies| proxies.judge_all(&hosts)).unwrap_or_default();
        let mut counts = ProxyCounts::default();
        for (id, judged) in judged {
            let path = mesh.workload(id).object.path();
            if !obeying.contains(&path) {
                continue;
            }
            match judged.state {
                ProxyState::InStep => counts.in_step += 1,
                ProxyState::Refused => counts.refused.push(format!("{path}: {}", judged.evidence)),
                ProxyState::Unreachable => counts.unreachable.push(format!("{path}: {}", judged.evidence)),
                // Not part of the sample.
                ProxyState::NotCompared => continue,
                ProxyState::Late | ProxyState::NotSent | ProxyState::Different => {
                    counts.late.push(format!("{path}: {}", judged.evidence));
                }
            }
            counts.total += 1;
        }
        Ok(Ok(counts))
    }
}

/// `v1 90% → 75%, v2 10% → 25%`, and how the weights are written where that is new.
fn sentence(plan: &RulePlan) -> String {
    let show = |share: f64| crate::mesh::route::show_share(share * 100.0);
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

/// Weights from before an entry.
fn start(entry: &Entry) -> BTreeMap<String, u64> {
    let of = |rule: &RuleRecord| {
        rule.backends
            .iter()
            .cloned()
            .zip(rule.start.iter().copied())
            .filter_map(|(name, weight)| Some((name, weight?)))
            .collect::<Vec<_>>()
    };
    entry.rules.iter().flat_map(of).collect()
}

/// Who wrote last, as far as the object tells.
fn last_writer(object: &Value) -> String {
    let fields = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = fields.iter().filter(|one| one["subresource"] != "status").max_by_key(|one| one["time"].as_str());
    last.map_or_else(
        || "somebody".to_owned(),
        |one| {
            format!("{} at {}", one["manager"].as_str().unwrap_or("somebody"), one["time"].as_str().unwrap_or_default())
        },
    )
}
