//! Going through the steps of a shift: each is written, followed by the proxies, and judged, before the next.

use std::time::{Duration, Instant};

use super::ending::Slip;
use super::guard::{Begun, Guard};
use super::questions::aside;
use super::session::Session;
use super::writing::forbidden;
use super::{Ack, Format, Patched, Then, preflight, stopped};
use crate::cli::env::Env;
use crate::cli::failure::{Failure, Outcome};
use crate::guard::course::{Course, Next};
use crate::guard::judge::{Judged, Verdict, judge, judge_baseline};
use crate::guard::window::Window;
use crate::mesh;
use crate::mesh::outbound::BackendState;
use crate::report::shift::{WindowReport, weights};
use crate::shift::obey::{classes, label};
use crate::shift::patch;
use crate::shift::plan::{RulePlan, Wish};
use crate::shift::record::{Entry, Record, RuleRecord, State, StepVerdict};
use crate::shift::steps;

/// Pause between two looks at the object.
const LOOK: Duration = Duration::from_secs(1);
/// Pause between two looks at everything that calls depend on.
const SURVEY: Duration = Duration::from_secs(5);
/// Times that a step is tried again after somebody else's write.
const TRIES: u32 = 5;

/// What ended a wait.
enum Waited {
    /// The time.
    Over,
    /// The program was asked to end.
    Interrupted,
    /// The object is not ours any more.
    Slipped(Slip),
    /// Callers have no way to the canary.
    NoCanary(String),
}

/// What became of a step.
enum Step {
    /// It is done.
    Done,
    /// The shift ended with it.
    Ended(Outcome),
}

/// What is done between two steps.
enum Choice {
    GoOn,
    Hold,
    RollBack,
    Slipped(Slip),
    Interrupted,
}

impl Session<'_, '_> {
    /// Goes on from a step that is written, to the end.
    pub(super) async fn walk(&mut self, mut entry: Entry, mut guard: Option<Guard>) -> Result<Outcome, Failure> {
        let mut is_partial = false;
        loop {
            self.step = entry.step;
            let is_last = entry.step as usize >= entry.plan.len();
            if self.arguments.ack == Some(Ack::None) {
                if is_last && guard.is_none() {
                    return self.end_unasked(&entry).await;
                }
            } else {
                match self.acknowledge(&entry).await? {
                    Ok(counts) => {
                        is_partial |= counts.in_step < counts.total;
                        let message = format!("{} of {} proxies run the new weights", counts.in_step, counts.total);
                        self.tell("acknowledged", &message, |event| event.proxies = Some(counts.clone()))?;
                        if is_last && guard.is_none() {
                            self.end(&entry, State::Done, &message).await;
                        }
                    }
                    Err(outcome) => return Ok(outcome),
                }
            }
            let step = match &mut guard {
                Some(guard) => self.watch(&mut entry, guard, is_last).await?,
                None if is_last => Step::Done,
                None => self.rest(&entry).await?,
            };
            if let Step::Ended(outcome) = step {
                return Ok(outcome);
            }
            if is_last {
                if guard.is_some() {
                    let why = entry.verdicts.last().map(|one| one.why.clone()).unwrap_or_default();
                    self.end(&entry, State::Done, &why).await;
                }
                self.tell("done", &self.way_back(), |_| {})?;
                return Ok(if is_partial { Outcome::Partial } else { Outcome::Clean });
            }
            match self.choose(&entry).await? {
                Choice::GoOn => {}
                Choice::Hold => return self.hold(&entry, "held by choice").await,
                Choice::RollBack => return self.back_out(&entry, "taken back by choice").await,
                Choice::Slipped(slip) => return self.slipped(&entry, slip).await,
                Choice::Interrupted => return self.interrupted(&entry).await,
            }
            if let Step::Ended(outcome) = self.write_step(&mut entry).await? {
                return Ok(outcome);
            }
        }
    }

    async fn end_unasked(&mut self, entry: &Entry) -> Result<Outcome, Failure> {
        self.end(entry, State::Held, "no proxy was asked (--ack none)").await;
        let message = format!("the weights are written; no proxy was asked (--ack none). {}", self.way_back());
        self.tell("held", &message, |_| {})?;
        Ok(Outcome::Clean)
    }

    /// A step without a guard lasts its time.
    async fn rest(&mut self, entry: &Entry) -> Result<Step, Failure> {
        let waited = self.wait(entry, None, self.arguments.guard.interval, "this step lasts").await;
        self.waited(entry, waited).await.map(|ended| ended.map_or(Step::Done, Step::Ended))
    }

    /// What a wait that did not last its time leads to.
    async fn waited(&mut self, entry: &Entry, waited: Waited) -> Result<Option<Outcome>, Failure> {
        match waited {
            Waited::Over => Ok(None),
            Waited::Interrupted => self.interrupted(entry).await.map(Some),
            Waited::Slipped(slip) => self.slipped(entry, slip).await.map(Some),
            Waited::NoCanary(why) => {
                self.tell("verdict", &why, |event| event.verdict = Some(Verdict::Bad.word()))?;
                self.back_out(entry, &why).await.map(Some)
            }
        }
    }

    /// What callers see before anything is shifted. One that fails is no baseline.
    pub(super) async fn baseline(&mut self, entry: &mut Entry, guard: &mut Guard) -> Result<(), Failure> {
        self.step = 0;
        let stays = "nothing is written";
        let unknown = |why: String| Failure::source(format!("the guard's source does not answer: {why}")).hint(stays);
        let begun = match guard.begin(self).await {
            Ok(begun) => begun,
            Err(why) if guard.fall_back(self).await => guard.begin(self).await.map_err(|_| unknown(why))?,
            Err(why) => return Err(unknown(why)),
        };
        let bar = self.context.messages.bar("counting calls before the shift");
        let time = self.arguments.guard.interval;
        bar.set_length(time.as_secs().max(1));
        let start = Instant::now();
        while start.elapsed() < time {
            tokio::select! {
                biased;
                () = self.asked_to_end(0) => return Err(Failure::interrupted().hint(stays)),
                () = tokio::time::sleep(LOOK.min(time.saturating_sub(start.elapsed()))) => {}
            }
            bar.set_position(start.elapsed().as_secs());
        }
        bar.finish_and_clear();
        let window = guard.window(self, &begun).await.map_err(unknown)?;
        let judged = judge_baseline(&window, &guard.limits);
        guard.before = window.all();
        self.show_window(entry, &window, guard.name(), &judged)?;
        self.step = 1;
        match judged.verdict {
            Verdict::Bad => Err(Failure::source(format!("there is no baseline to compare with: {}", judged.why))
                .hint("nothing is written; see what fails: kubectl grpcmesh tail SERVICE --callers")),
            _ => Ok(()),
        }
    }

    fn show_window(
        &mut self,
        entry: &mut Entry,
        window: &Window,
        source: &'static str,
        judged: &Judged,
    ) -> Result<(), Failure> {
        let report = WindowReport::new(window, source);
        let sentence = report.sentence();
        self.tell("window", &sentence, |event| event.window = Some(report))?;
        self.show_verdict(entry, window, judged)
    }

    /// Tells a verdict, and keeps it as the last of its step.
    fn show_verdict(&mut self, entry: &mut Entry, window: &Window, judged: &Judged) -> Result<(), Failure> {
        let word = judged.verdict.word();
        entry.verdicts.retain(|one| one.step != self.step);
        entry.verdicts.push(StepVerdict {
            step: self.step,
            verdict: word.to_owned(),
            canary: window.canary,
            baseline: window.baseline,
            why: judged.why.clone(),
        });
        self.tell("verdict", &format!("{word}: {}", judged.why), |event| event.verdict = Some(word))
    }

    /// Judges windows until the step is done or the shift ends.
    async fn watch(&mut self, entry: &mut Entry, guard: &mut Guard, is_last: bool) -> Result<Step, Failure> {
        let arguments = &self.arguments.guard;
        let (interval, lasts) = (arguments.interval, arguments.watch.unwrap_or_default());
        let mut course = Course::new(arguments.bad_windows, arguments.max_wait);
        let start = Instant::now();
        let mut begun: Option<Begun> = None;
        let share = entry.rules.first().map_or(0.0, |rule| rule.rising(self.target.key.kind).1);
        loop {
            let mut trouble = None;
            if begun.is_none() {
                match guard.begin(self).await {
                    Ok(now) => begun = Some(now),
                    Err(why) => trouble = Some(why),
                }
            }
            let waited = self.wait(entry, Some(&mut *guard), interval, "counting calls").await;
            if let Some(outcome) = self.waited(entry, waited).await? {
                return Ok(Step::Ended(outcome));
            }
            let counted = match (&begun, trouble) {
                (Some(begun), _) => guard.window(self, begun).await,
                (None, trouble) => Err(trouble.unwrap_or_default()),
            };
            let judged = match counted {
                Ok(window) => {
                    let mut judged = judge(&window, guard.before, share, &guard.limits);
                    if let (Verdict::Good, Some(weak)) = (judged.verdict, &guard.weak) {
                        judged = Judged { verdict: Verdict::Unknown, why: weak.clone() };
                    }
                    self.show_window(entry, &window, guard.name(), &judged)?;
                    judged
                }
                Err(why) => {
                    let judged = Judged { verdict: Verdict::Unknown, why };
                    self.show_verdict(entry, &Window::default(), &judged)?;
                    judged
                }
            };
            match course.after(judged.verdict, start.elapsed()) {
                Next::GoOn if is_last && start.elapsed() < lasts => {
                    begun = None;
                    course = Course::new(arguments.bad_windows, start.elapsed() + arguments.max_wait);
                }
                Next::GoOn => return Ok(Step::Done),
                Next::Again { anew: true } => begun = None,
                Next::Again { anew: false } => {}
                Next::RollBack => return self.back_out(entry, &judged.why).await.map(Step::Ended),
                Next::Stall => {
                    let why =
                        format!("no verdict in {}: {}", crate::schema::duration::show(arguments.max_wait), judged.why);
                    let ended = match arguments.on_stall {
                        Then::Hold => self.hold(entry, &why).await?,
                        Then::Rollback => self.back_out(entry, &why).await?,
                    };
                    return Ok(Step::Ended(ended));
                }
            }
        }
    }

    /// Waits, and watches the ground: the object, and what callers get of the backends.
    async fn wait(
        &mut self,
        entry: &Entry,
        mut guard: Option<&mut Guard>,
        time: Duration,
        what: &'static str,
    ) -> Waited {
        let bar = self.context.messages.bar(what);
        bar.set_length(time.as_secs().max(1));
        // One bar at a time: what is read meanwhile shows none.
        let progress = std::mem::replace(&mut self.context.messages.progress, false);
        let start = Instant::now();
        let mut surveyed: Option<Instant> = None;
        let mut is_told = false;
        let waited = loop {
            bar.set_position(start.elapsed().as_secs());
            let is_due = surveyed.is_none_or(|last| last.elapsed() >= SURVEY);
            let ended = self.asked_to_end(0);
            let seen = async {
                let object = self.look().await.map_err(|failure| failure.message)?;
                match self.grip(&object, entry) {
                    Err(slip) => return Ok(Some(Waited::Slipped(slip))),
                    Ok(_) if !is_due => return Ok(None),
                    Ok(_) => {}
                }
                let no_canary = self.survey(entry, guard.as_deref_mut()).await.map_err(|failure| failure.message)?;
                Ok::<_, String>(no_canary.map(Waited::NoCanary))
            };
            let seen = tokio::select! {
                biased;
                () = ended => break Waited::Interrupted,
                seen = seen => seen,
            };
            match seen {
                Ok(Some(waited)) => break waited,
                Ok(None) if is_due => surveyed = Some(Instant::now()),
                Ok(None) => {}
                // An API server that is away for a moment ends nothing.
                Err(why) if !is_told => {
                    is_told = true;
                    self.context.messages.warning(&why);
                }
                Err(_) => {}
            }
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                break Waited::Over;
            }
            tokio::select! {
                biased;
                () = self.asked_to_end(0) => break Waited::Interrupted,
                () = tokio::time::sleep(LOOK.min(left)) => {}
            }
        };
        self.context.messages.progress = progress;
        bar.finish_and_clear();
        waited
    }

    /// Looks at the mesh: who obeys, and whether the backends are there for them. Says why callers cannot reach the
    /// canary, if they cannot.
    async fn survey(&mut self, entry: &Entry, guard: Option<&mut Guard>) -> Result<Option<String>, Failure> {
        let kind = self.target.key.kind;
        let read = self.source.read(self.context).await?;
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let places: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = classes(&mesh, &self.target.object(), &places, "");
        let rising: Vec<&str> = entry.rules.iter().flat_map(|rule| rule.rising(kind).0).collect();
        let rises = |label: &str| rising.contains(&label);
        let dead = |is_canary: bool| {
            let backends = classes
                .iter()
                .filter(|class| class.obeys)
                .flat_map(|class| class.backends.values().flatten().map(move |backend| (class, backend)));
            let mut dead = backends.filter_map(|(class, backend)| {
                let why = match backend.state {
                    BackendState::Ok => return None,
                    BackendState::NoCluster => "does not exist for it any more",
                    BackendState::NoEndpoints => "has no ready pod any more",
                };
                (rises(&label(backend)) == is_canary).then(|| format!("{}: {} {why}", class.name, backend.cluster))
            });
            dead.next()
        };
        let canary = dead(true);
        if let Some(guard) = guard {
            guard.weak = dead(false);
            guard.sides.learn(&mesh, &classes, &rises);
        }
        Ok(canary)
    }

    /// Learns who is who before the first window: of the mesh as it is, and as it will be.
    pub(super) fn learn(&self, guard: &mut Guard, mesh: &mesh::Mesh<'_>, entry: &Entry) {
        let kind = self.target.key.kind;
        let rising: Vec<&str> = entry.rules.iter().flat_map(|rule| rule.rising(kind).0).collect();
        let places: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = classes(mesh, &self.target.object(), &places, "");
        guard.sides.learn(mesh, &classes, &|label| rising.contains(&label));
    }

    /// Asks what to do after a good step, where somebody can be asked; with `--yes` it goes on.
    async fn choose(&mut self, entry: &Entry) -> Result<Choice, Failure> {
        if self.arguments.yes || self.arguments.output == Format::Json {
            return Ok(Choice::GoOn);
        }
        self.context.out.flush()?;
        let next = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let items = vec![format!("go on to {next}"), "hold here".to_owned(), "roll back".to_owned()];
        let question = format!("Step {} of {} is done. What now?", entry.step, entry.plan.len());
        let messages = self.context.messages;
        let mut answer = aside(move || messages.choose(&question, &items));
        // The ground is watched while somebody thinks.
        loop {
            let object = tokio::select! {
                biased;
                () = self.asked_to_end(0) => {
                    messages.give_cursor_back();
                    return Ok(Choice::Interrupted);
                }
                answer = &mut answer => {
                    return match answer {
                        Ok(Ok(Some(0))) => Ok(Choice::GoOn),
                        Ok(Ok(Some(1) | None)) => Ok(Choice::Hold),
                        Ok(Ok(Some(_))) => Ok(Choice::RollBack),
                        Ok(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => Ok(Choice::Interrupted),
                        Ok(Err(_)) | Err(_) => Ok(Choice::Hold),
                    };
                }
                object = async {
                    tokio::time::sleep(LOOK).await;
                    self.look().await
                } => object,
            };
            if let Ok(object) = object
                && let Err(slip) = self.grip(&object, entry)
            {
                messages.give_cursor_back();
                return Ok(Choice::Slipped(slip));
            }
        }
    }

    /// Writes the next step, after everything was looked at again.
    async fn write_step(&mut self, entry: &mut Entry) -> Result<Step, Failure> {
        let wish = entry.plan.get(entry.step as usize).cloned().unwrap_or_default();
        let Ok(wish) = wish.parse::<Wish>() else {
            return self.hold(entry, &format!("\"{wish}\" in the record is no step")).await.map(Step::Ended);
        };
        self.step = entry.step + 1;
        for _ in 0..TRIES {
            let object = self.look().await?;
            if self.is_interrupted() {
                return self.interrupted(entry).await.map(Step::Ended);
            }
            let mut record = Record::of(&object).unwrap_or_default();
            if record.of_run(&entry.session).is_some_and(|ours| ours.step == self.step) {
                // The answer to our patch was lost.
                let ours = record.of_run(&entry.session).cloned();
                *entry = ours.unwrap_or_else(|| entry.clone());
                return Ok(Step::Done);
            }
            let rules = match self.grip(&object, entry) {
                Ok(rules) => rules,
                Err(slip) => return self.slipped(entry, slip).await.map(Step::Ended),
            };
            let planned: Result<Vec<RulePlan>, _> =
                entry.rules.iter().zip(&rules).map(|(rule, now)| steps::next(rule, now, &wish)).collect();
            let plans = match planned {
                Ok(plans) => plans,
                Err(refusal) => return self.hold(entry, &refusal.to_string()).await.map(Step::Ended),
            };
            let written = Entry {
                step: self.step,
                until: Some(Env::clock_in(self.step_time())),
                rules: entry.rules.iter().zip(&plans).map(|(rule, plan)| rule.next(plan)).collect::<Vec<RuleRecord>>(),
                ..entry.clone()
            };
            if let Some(ours) = record.of_run(&entry.session) {
                *ours = written.clone();
            }
            let operations = patch::shift(&object, &plans, &record);
            if let Err(why) = self.look_again(&object, &operations, &plans).await {
                return self.hold(entry, &why).await.map(Step::Ended);
            }
            match self.server.patch(&self.target.key, &self.target.api_version, &operations, true).await {
                Ok(Patched::Stored(_)) => {
                    *entry = written;
                    let message = format!("step {} of {}: {wish}", entry.step, entry.plan.len());
                    self.tell("written", &message, |event| event.weights = weights(&plans))?;
                    return Ok(Step::Done);
                }
                Ok(Patched::Conflict) => {}
                Ok(Patched::Refused(why)) => {
                    return self
                        .hold(entry, &format!("the server refuses the next step: {why}"))
                        .await
                        .map(Step::Ended);
                }
                Ok(Patched::Forbidden(why)) => {
                    return self.hold(entry, &forbidden(&why).message).await.map(Step::Ended);
                }
                // Whether it was stored is seen in the next round.
                Err(error) => {
                    self.context.messages.warning(&error.message);
                    tokio::time::sleep(LOOK).await;
                }
            }
        }
        self.hold(entry, &format!("the next step could not be written: {TRIES} tries failed")).await.map(Step::Ended)
    }

    /// The preflight of a further step: why it must not be written.
    async fn look_again(
        &mut self,
        object: &serde_json::Value,
        operations: &[serde_json::Value],
        plans: &[RulePlan],
    ) -> Result<(), String> {
        let why = |failure: Failure| failure.message;
        let after = match self.try_it(operations).await {
            Ok(after) => after,
            // Somebody writes just now: the patch itself will see.
            Err(failure) if failure.message.contains("right now") => return Ok(()),
            Err(failure) => return Err(why(failure)),
        };
        let mut read = self.source.read(self.context).await.map_err(why)?;
        let options = self.source.options(&self.context.scope);
        let found = preflight::look(&mut read.snapshot, &options, &self.target, object, &after, plans);
        stopped(self.arguments, &found).map_err(|_| {
            self.show_checks(&found);
            let first = found.checks.first().map(|check| check.text.clone()).unwrap_or_default();
            format!("the next step is not safe: {first}")
        })
    }
}
