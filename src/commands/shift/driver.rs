//! Runs the state machine of a shift: carries out its effects and feeds it what they observe. It decides nothing.

use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use indicatif::ProgressBar;
use serde_json::Value;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

use super::operations::Operations;
use super::output::{Output, show_checks};
use super::world::{Clock, Prompter};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure, FailureKind};
use crate::shift::machine::{
    self, Answer, Effect, Ending, Event, FailureReport, FailureType, Question, Run, State, Timer,
};

/// What carries out the effects of a run.
pub(super) struct Driver<'a, 'w> {
    pub(super) context: &'a mut Context<'w>,
    pub(super) run: Run,
    /// The steps, as the plan shows them.
    pub(super) steps: Option<String>,
    pub(super) output: Output,
    pub(super) operations: Rc<Mutex<Operations>>,
    pub(super) prompter: Rc<dyn Prompter>,
    pub(super) clock: Rc<dyn Clock>,
    /// Number of signals to end that the process has received.
    pub(super) signals: watch::Receiver<u32>,
}

/// What a run waits for.
struct Waits {
    operation: LocalBoxFuture<'static, Event>,
    prompt: LocalBoxFuture<'static, Answer>,
    timers: BTreeMap<Timer, Instant>,
    /// Signals passed to the machine so far.
    signals: u32,
    bar: Option<(ProgressBar, Instant)>,
}

impl Driver<'_, '_> {
    /// Runs the machine on an object that was just read, until the run ends.
    pub(super) async fn run(mut self, object: Arc<Value>) -> Result<CommandOutcome, Failure> {
        let mut waits = Waits {
            operation: pending().boxed_local(),
            prompt: pending().boxed_local(),
            timers: BTreeMap::new(),
            signals: 0,
            bar: None,
        };
        let (mut state, mut effects) = machine::start(&self.run, object, self.clock.now());
        loop {
            for effect in effects {
                if let Effect::Finish(ending) = effect {
                    self.context
                        .out
                        .flush()
                        .or_else(|error| if self.output.is_applied { Ok(()) } else { Err(error) })?;
                    return outcome(ending);
                }
                self.carry_out(effect, &mut waits)?;
            }
            let event = self.next_event(&mut waits).await;
            (state, effects) = self.advance(state, event);
        }
    }

    fn advance(&self, state: State, event: Event) -> (State, Vec<Effect>) {
        let before = state.name();
        let (state, effects) = machine::next(&self.run, state, event, self.clock.now());
        if self.context.verbosity > 1 && before != state.name() {
            self.context.messages.detail(&format!("{before} → {}", state.name()));
        }
        (state, effects)
    }

    /// Waits for whatever comes first. A signal always does.
    async fn next_event(&mut self, waits: &mut Waits) -> Event {
        loop {
            let next = waits.timers.iter().min_by_key(|(_, end)| **end).map(|(timer, end)| (*timer, *end));
            let timer = async {
                match next {
                    Some((timer, end)) => {
                        tokio::time::sleep_until(end).await;
                        timer
                    }
                    None => pending().await,
                }
            };
            let has_bar = waits.bar.is_some();
            let tick =
                async { if has_bar { tokio::time::sleep(Duration::from_secs(1)).await } else { pending().await } };
            let seen = waits.signals;
            tokio::select! {
                biased;
                _ = self.signals.wait_for(|count| *count > seen) => {
                    waits.signals += 1;
                    return Event::Signal;
                }
                event = &mut waits.operation => {
                    waits.operation = pending().boxed_local();
                    return event;
                }
                answer = &mut waits.prompt => {
                    waits.prompt = pending().boxed_local();
                    return Event::Answer(answer);
                }
                timer = timer => {
                    waits.timers.remove(&timer);
                    return Event::Timer(timer);
                }
                () = tick => {
                    if let Some((bar, start)) = &waits.bar {
                        bar.set_position(start.elapsed().as_secs());
                    }
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect, waits: &mut Waits) -> Result<(), Failure> {
        match effect {
            Effect::Read
            | Effect::Patch(_)
            | Effect::Check { .. }
            | Effect::QueryProxies { .. }
            | Effect::CheckBackends { .. }
            | Effect::CheckRollback { .. }
            | Effect::StartWindow
            | Effect::CountWindow
            | Effect::SwitchToLogs => self.start_operation(effect, waits),
            Effect::ShowPlan => self.show_plan()?,
            Effect::ShowChecks => {
                if let Some(check) = self.operations.try_lock().ok().and_then(|mut held| held.last_check.take()) {
                    show_checks(self.context, &check.preflight.checks);
                }
            }
            Effect::Ask(question) => {
                self.context.out.flush()?;
                waits.prompt = self.ask(question);
            }
            Effect::CancelPrompt => {
                waits.prompt = pending().boxed_local();
                self.prompter.restore();
            }
            Effect::StartTimer(timer, duration) => {
                waits.timers.insert(timer, Instant::now() + duration);
                self.show_progress(timer, duration, waits);
            }
            Effect::StopTimers => {
                waits.timers.clear();
                if let Some((bar, _)) = waits.bar.take() {
                    bar.finish_and_clear();
                }
            }
            Effect::Emit(notice) => self.output.emit(self.context, notice, self.clock.now())?,
            Effect::Warn(text) => self.context.messages.warning(&text),
            Effect::Applied => self.output.is_applied = true,
            Effect::Finish(_) => {}
        }
        Ok(())
    }

    /// Starts an operation; the one before is dropped.
    fn start_operation(&self, effect: Effect, waits: &mut Waits) {
        // Dropping it first releases the lock.
        waits.operation = pending().boxed_local();
        let operations = Rc::clone(&self.operations);
        let now = Instant::now();
        let ack_remaining = waits.timers.get(&Timer::Ack).map_or(Duration::ZERO, |end| *end - now);
        waits.operation = async move {
            let event = operations.lock().await.perform(effect, ack_remaining).await;
            match event {
                Some(event) => event,
                None => pending().await,
            }
        }
        .boxed_local();
    }

    fn show_plan(&mut self) -> Result<(), Failure> {
        let Ok(operations) = self.operations.try_lock() else { return Ok(()) };
        let Some(check) = &operations.last_check else { return Ok(()) };
        let (target, now) = (&operations.view.target, self.clock.now());
        self.output.show_plan(self.context, target, check, self.steps.as_deref(), now)
    }

    fn ask(&self, question: Question) -> LocalBoxFuture<'static, Answer> {
        match question {
            Question::Apply => {
                let answer = self.prompter.confirm("Apply these weights?".to_owned());
                async move {
                    match answer.await {
                        Ok(Some(true)) => Answer::Yes,
                        Ok(_) => Answer::No,
                        Err(error) => failed_prompt(&error),
                    }
                }
                .boxed_local()
            }
            Question::NextStep { step, of, next } => {
                let items =
                    vec![format!("continue with {next}"), "hold these weights".to_owned(), "roll back".to_owned()];
                let answer = self.prompter.choose(format!("Step {step} of {of} is done. What next?"), items);
                async move {
                    match answer.await {
                        Ok(Some(0)) => Answer::Yes,
                        Ok(Some(1) | None) => Answer::No,
                        Ok(Some(_)) => Answer::RollBack,
                        Err(error) => failed_prompt(&error),
                    }
                }
                .boxed_local()
            }
        }
    }

    /// Shows how much of a long wait is over.
    fn show_progress(&self, timer: Timer, duration: Duration, waits: &mut Waits) {
        let label = match timer {
            Timer::Ack => "waiting for proxies",
            Timer::Window => "waiting for the end of the window",
            Timer::Abort => "waiting for the other session",
            Timer::Retry
            | Timer::Unreachable
            | Timer::Poll
            | Timer::Monitor
            | Timer::Backends
            | Timer::MaxWait
            | Timer::Watch => return,
        };
        if self.context.messages.shows_progress {
            let bar = self.context.messages.progress_bar(label);
            bar.set_length(duration.as_secs().max(1));
            waits.bar = Some((bar, Instant::now()));
        }
    }
}

fn failed_prompt(error: &std::io::Error) -> Answer {
    if error.kind() == std::io::ErrorKind::Interrupted { Answer::Interrupt } else { Answer::Failed }
}

/// The outcome of the command for the end of a run.
fn outcome(ending: Ending) -> Result<CommandOutcome, Failure> {
    match ending {
        Ending::Clean => Ok(CommandOutcome::Clean),
        Ending::Found => Ok(CommandOutcome::Found),
        Ending::Partial => Ok(CommandOutcome::Partial),
        Ending::Failed(FailureReport { kind, message, causes, hints }) => {
            let kind = match kind {
                FailureType::Usage => FailureKind::Usage,
                FailureType::Unavailable => FailureKind::Unavailable,
                FailureType::Interrupted => FailureKind::Interrupted,
            };
            Err(Failure { kind, message, causes, hints })
        }
    }
}
