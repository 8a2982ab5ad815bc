//! One run of a shift: events, the question, writing with preconditions, and seeing that the proxies follow.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;

use super::preflight::Preflight;
use super::target::Target;
use super::{Format, Patched, ShiftArgs, compared};
use crate::cli::context::Context;
use crate::cli::env::Env;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::global::SourceArgs;
use crate::cluster::client::Server;
use crate::render;
use crate::report::shift::{ShiftEvent, weights};
use crate::rules::Severity;
use crate::schema::Kind;
use crate::shift::patch;
use crate::shift::plan::RulePlan;
use crate::shift::record::{Entry, LostControl, Record, RuleRecord, State};

/// Times that a write is tried again after somebody else's.
const TRIES: u32 = 5;
/// Pause before something is tried again.
const AGAIN: Duration = Duration::from_millis(300);

/// A run.
pub(super) struct Session<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    pub(super) arguments: &'a ShiftArgs,
    pub(super) server: Server,
    pub(super) target: Target,
    pub(super) source: SourceArgs,
    id: String,
    seq: u32,
    /// Whether weights are written: from then on nobody who does not read any more keeps us from ending it well.
    is_written: bool,
    /// How often the program was asked to end.
    signals: watch::Receiver<u32>,
}

impl<'a, 'w> Session<'a, 'w> {
    pub(super) fn new(
        context: &'a mut Context<'w>,
        arguments: &'a ShiftArgs,
        server: Server,
        target: Target,
        source: SourceArgs,
        signals: watch::Receiver<u32>,
    ) -> Self {
        Self { context, arguments, server, target, source, id: Env::unique(), seq: 0, is_written: false, signals }
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
        let shown = match self.arguments.output {
            Format::Json => render::json_line(&told, self.context.out),
            Format::Text => render::shift::event(&told, &self.context.style, self.context.out),
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

    /// Until it is asked to end once more than so many times.
    pub(super) fn asked_to_end(&self, times: u32) -> impl Future<Output = ()> + use<> {
        let mut signals = self.signals.clone();
        async move {
            if signals.wait_for(|count| *count > times).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
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
    pub(super) async fn entry(&self, plans: &[RulePlan]) -> Entry {
        Entry {
            number: 0,
            session: self.id.clone(),
            by: self.server.who_am_i().await.unwrap_or_else(|_| "unknown".to_owned()),
            at: Env::clock(),
            reason: self.arguments.reason.clone(),
            until: Some(Env::clock_in(self.arguments.ack_timeout)),
            state: State::Open,
            message: String::new(),
            rules: plans.iter().map(RuleRecord::new).collect(),
        }
    }

    /// What the server would make of a patch.
    pub(super) async fn try_it(&self, operations: &[Value]) -> Result<Value, Failure> {
        match self.server.patch(&self.target.key, &self.target.api_version, operations, false).await? {
            Patched::Stored(after) => Ok(after),
            Patched::Conflict => Err(Failure::source("somebody writes the object right now").hint("try again")),
            Patched::Refused(why) => {
                Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"))
            }
            Patched::Forbidden(why) => Err(forbidden(&why)),
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
        if !self.context.env.stderr_is_terminal || self.arguments.output == Format::Json {
            return Err(Failure::usage("nobody can be asked here").hint("to shift without a question: --yes"));
        }
        self.context.out.flush()?;
        // On a thread of its own, so that a signal ends the waiting and the terminal is given back.
        let (sender, answer) = tokio::sync::oneshot::channel();
        let messages = self.context.messages;
        std::thread::spawn(move || sender.send(messages.confirm("Write these weights?")));
        match answer.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => Err(Failure::interrupted()),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                Err(Failure::source("the question could not be asked").hint("to shift without a question: --yes"))
            }
        }
    }

    /// Writes, and sees that the proxies follow; if they do not, what was asked for in that case.
    pub(super) async fn write_and_follow(
        &mut self,
        plans: &[RulePlan],
        object: Value,
        mut entry: Entry,
    ) -> Result<Outcome, Failure> {
        self.write(plans, object, &mut entry).await?;
        self.is_written = true;
        self.tell("written", &format!("session {} by {}", entry.session, entry.by), |event| {
            event.weights = weights(plans);
        })?;
        self.follow_to_the_end(&entry).await
    }

    /// Writes plans; what somebody else wrote in between that is not about the weights is no reason to stop.
    async fn write(&mut self, plans: &[RulePlan], first: Value, entry: &mut Entry) -> Result<(), Failure> {
        let mut object = first.clone();
        for _ in 0..TRIES {
            if self.is_interrupted() {
                return Err(Failure::interrupted().hint("nothing is written"));
            }
            let mut record = self.record(&object)?;
            if let Some(open) = record.entries.first_mut().filter(|one| one.state == State::Open) {
                (open.state, open.until) = (State::Held, None);
                open.message = format!("taken over by session {}", entry.session);
            }
            (entry.number, entry.at) = (record.next_number(), Env::clock());
            entry.until = Some(Env::clock_in(self.arguments.ack_timeout));
            record.push(entry.clone());
            let operations = patch::shift(&object, plans, &record);
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(_)) => return Ok(()),
                Ok(Patched::Refused(why)) => {
                    return Err(Failure::source(format!("the server refuses it: {why}")).hint("nothing is written"));
                }
                Ok(Patched::Forbidden(why)) => return Err(forbidden(&why)),
                Ok(Patched::Conflict) => {}
                // Whether it was stored is seen below.
                Err(error) => self.context.messages.warning(&error.message),
            }
            object = self.look().await.map_err(|failure| {
                let word = self.target.word();
                failure.hint(format!(
                    "the weights may be written: kubectl grpcmesh shift {word} --history, then --resume or --undo"
                ))
            })?;
            if self.record(&object)?.of_run(&entry.session).is_some() {
                return Ok(());
            }
            let same = |part: &str| first.pointer(part) == object.pointer(part);
            let record = "/metadata/annotations/grpcmesh.io~1shift";
            if !(same("/spec") && same("/metadata/labels") && same("/metadata/uid") && same(record)) {
                let who = last_writer(&object);
                return Err(Failure::source(format!("{who} changed {} in the meantime", self.target.title()))
                    .hint("nothing is written; look at it and shift again"));
            }
        }
        Err(Failure::source(format!("{} could not be written: {TRIES} tries failed", self.target.title()))
            .hint("nothing is written; try again"))
    }

    /// The object as it is; an API server that is away for a moment is asked again.
    pub(super) async fn look(&self) -> Result<Value, Failure> {
        let mut tries = 0;
        loop {
            match self.server.object(&self.target.key, &self.target.api_version).await {
                Ok(Some(object)) => return Ok(object),
                Ok(None) => return Err(Failure::source(format!("{} is gone", self.target.title()))),
                Err(error) if tries == TRIES => return Err(error.into()),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
            tries += 1;
        }
    }

    /// The record of an object; one that cannot be read is nothing to write over.
    fn record(&self, object: &Value) -> Result<Record, Failure> {
        Record::of(object).map_err(|error| {
            Failure::source(format!("the record of {} cannot be read", self.target.title())).cause(error)
        })
    }

    /// Notes how our shift stands. Where it is not ours any more, or cannot be noted, that is said and is no failure: the
    /// weights are what they are.
    pub(super) async fn end(&mut self, entry: &Entry, state: State, message: &str) {
        for _ in 0..TRIES {
            let Ok(object) = self.look().await else { break };
            let Ok(mut record) = Record::of(&object) else { break };
            let Some(ours) = record.of_run(&entry.session) else { break };
            (ours.state, ours.until) = (state, None);
            message.clone_into(&mut ours.message);
            let Ok(operations) = patch::note(self.target.key.kind, &object, &record) else { break };
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(_)) => return,
                Ok(Patched::Conflict) | Err(_) => tokio::time::sleep(AGAIN).await,
                Ok(Patched::Refused(_) | Patched::Forbidden(_)) => break,
            }
        }
        let word = self.target.word();
        self.context
            .messages
            .warning(&format!("the record could not be ended: kubectl grpcmesh shift {word} --history"));
    }

    /// Makes a shift that was cut off our own.
    pub(super) async fn take(&mut self, entry: &mut Entry) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let object = self.look().await?;
            let mut record = self.record(&object)?;
            let Some(open) = record.of_run(&entry.session) else { break };
            open.session.clone_from(&self.id);
            open.until = Some(Env::clock_in(self.arguments.ack_timeout));
            let taken = open.clone();
            let operations = patch::note(self.target.key.kind, &object, &record).map_err(|lost| self.lost(&lost))?;
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await? {
                Patched::Stored(_) => {
                    *entry = taken;
                    return Ok(());
                }
                Patched::Conflict => {}
                Patched::Refused(why) | Patched::Forbidden(why) => return Err(forbidden(&why)),
            }
        }
        Err(Failure::source("another run is at it").hint("see how it stands: --history"))
    }

    /// Writes the weights from before an entry, if they are still those that it wrote; gives the rules as they are then.
    /// With `only_ours` no other run may have come in between.
    pub(super) async fn roll_back(
        &mut self,
        entry: &Entry,
        why: &str,
        only_ours: bool,
    ) -> Result<Vec<RuleRecord>, Failure> {
        let mut was_away = false;
        for _ in 0..TRIES {
            let object = self.look().await?;
            let mut record = self.record(&object)?;
            let one = record.entries.first_mut().filter(|one| one.session == entry.session);
            let restored = restored(self.target.key.kind, &object, entry);
            let Some(one) = one.filter(|one| !only_ours || one.state == State::Open || was_away) else {
                return Err(Failure::source("lost control: another run has come in between").hint(format!(
                    "nothing is written over it: kubectl grpcmesh shift {} --history",
                    self.target.word()
                )));
            };
            // The answer to our patch was lost.
            if was_away && one.state == State::RolledBack {
                return Ok(restored);
            }
            (one.state, one.until) = (State::RolledBack, None);
            why.clone_into(&mut one.message);
            let operations =
                patch::back(self.target.key.kind, &object, entry, &record).map_err(|lost| self.lost(&lost))?;
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(_)) => {
                    self.tell("rolled-back", &format!("{why}; the weights are as before"), |event| {
                        event.weights = start(entry);
                    })?;
                    return Ok(restored);
                }
                Ok(Patched::Conflict) => {}
                Ok(Patched::Refused(why) | Patched::Forbidden(why)) => {
                    return Err(Failure::source(format!("the weights from before could not be written: {why}"))
                        .hint(format!("by hand: kubectl grpcmesh shift {} --undo", self.target.word())));
                }
                Err(error) => {
                    was_away = true;
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
        Err(Failure::source("the weights from before could not be written")
            .hint(format!("by hand: kubectl grpcmesh shift {} --undo", self.target.word())))
    }

    pub(super) fn lost(&self, lost: &LostControl) -> Failure {
        let word = self.target.word();
        Failure::source(format!("lost control: {lost}"))
            .hint(format!("nothing is written over it; what was there before: kubectl grpcmesh shift {word} --history"))
    }

    /// The command that undoes it.
    pub(super) fn way_back(&self) -> String {
        format!("the way back: kubectl grpcmesh shift {} --undo", self.target.word())
    }
}

fn forbidden(why: &str) -> Failure {
    Failure::source(format!("the right to shift is missing: {why}"))
        .hint("it is patch on the object: docs/rbac/shifter.yaml")
}

/// The rules of an entry as they are when its weights are taken back.
fn restored(kind: Kind, object: &Value, entry: &Entry) -> Vec<RuleRecord> {
    let back = |rule: &RuleRecord| {
        let mut split = rule.find(kind, object).ok()?;
        split.backends.truncate(rule.start.len());
        let backends = rule.backends.iter().take(rule.start.len()).cloned().collect();
        Some(RuleRecord {
            rule: split.rule,
            identity: split.identity(),
            backends,
            wrote: rule.start.clone(),
            start: rule.start.clone(),
        })
    };
    entry.rules.iter().filter_map(back).collect()
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
pub(super) fn last_writer(object: &Value) -> String {
    let fields = object["metadata"]["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = fields.iter().filter(|one| one["subresource"] != "status").max_by_key(|one| one["time"].as_str());
    last.map_or_else(
        || "somebody".to_owned(),
        |one| {
            format!("{} at {}", one["manager"].as_str().unwrap_or("somebody"), one["time"].as_str().unwrap_or_default())
        },
    )
}
