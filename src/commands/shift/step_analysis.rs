//! Windows of a step, one after the other, until they decide.

use std::time::{Duration, Instant};

use super::FailureAction;
use super::analysis::{CanaryAnalysis, WindowStart};
use super::monitor::LOOK;
use super::run_steps::StepOutcome;
use super::session::ShiftSession;
use crate::analysis::step_policy::{NextAction, StepPolicy};
use crate::analysis::verdict::{AnalysisResult, AnalysisVerdict, judge, judge_baseline};
use crate::analysis::window::Window;
use crate::cli::failure::Failure;
use crate::report::shift::WindowReport;
use crate::shift::record::{ShiftEntry, StepVerdict};

impl ShiftSession<'_, '_> {
    /// What callers see before anything is shifted. One that fails is no baseline.
    pub(super) async fn baseline(&mut self, entry: &mut ShiftEntry, guard: &mut CanaryAnalysis) -> Result<(), Failure> {
        self.step = 0;
        let stays = "nothing is written";
        let unknown = |why: String| Failure::source(format!("the guard's source does not answer: {why}")).hint(stays);
        let begun = match guard.begin(self).await {
            Ok(begun) => begun,
            Err(why) if guard.fall_back(self).await => guard.begin(self).await.map_err(|_| unknown(why))?,
            Err(why) => return Err(unknown(why)),
        };
        if guard.sides.shared {
            self.context.messages.warning(
                "other rules send calls to the same backends: whether calls split as the weights say is not checked",
            );
        }
        let mut begun = begun;
        let start = Instant::now();
        // A source that sees no call at all may be the wrong one: that is waited for.
        let (window, judged) = loop {
            self.count_down(self.arguments.guard.interval, "counting calls before the shift").await?;
            let window = tokio::select! {
                biased;
                () = self.asked_to_end(0) => return Err(Failure::interrupted().hint(stays)),
                window = guard.window(self, &mut begun) => window.map_err(unknown)?,
            };
            let judged = judge_baseline(&window, &guard.limits);
            if window.all().calls > 0 {
                break (window, judged);
            }
            self.show_window(entry, &window, guard, &judged)?;
            if start.elapsed() >= self.arguments.guard.max_wait {
                let waited = crate::vocabulary::duration::show(self.arguments.guard.max_wait);
                return Err(Failure::source(format!("{} saw no call to these backends in {waited}", guard.name()))
                    .hint(format!(
                        "{stays}; is it the right source? kubectl grpcmesh balance SERVICE counts by Envoy"
                    )));
            }
        };
        guard.before = window.all();
        self.show_window(entry, &window, guard, &judged)?;
        self.step = 1;
        match judged.verdict {
            AnalysisVerdict::Bad => {
                Err(Failure::source(format!("there is no baseline to compare with: {}", judged.why))
                    .hint("nothing is written; see what fails: kubectl grpcmesh tail SERVICE --callers"))
            }
            _ => Ok(()),
        }
    }

    /// Waits before anything is written.
    async fn count_down(&self, time: Duration, what: &'static str) -> Result<(), Failure> {
        let bar = self.context.messages.bar(what);
        bar.set_length(time.as_secs().max(1));
        let start = Instant::now();
        while start.elapsed() < time {
            tokio::select! {
                biased;
                () = self.asked_to_end(0) => return Err(Failure::interrupted().hint("nothing is written")),
                () = tokio::time::sleep(LOOK.min(time.saturating_sub(start.elapsed()))) => {}
            }
            bar.set_position(start.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn show_window(
        &mut self,
        entry: &mut ShiftEntry,
        window: &Window,
        guard: &CanaryAnalysis,
        judged: &AnalysisResult,
    ) -> Result<(), Failure> {
        let report = WindowReport::new(window, guard.name());
        let mut sentence = report.sentence();
        if let Some(first) = guard.unread.first() {
            sentence += &format!("; {} callers could not be read, such as {first}", guard.unread.len());
        }
        self.tell("window", &sentence, |event| event.window = Some(report))?;
        self.show_verdict(entry, window, judged)
    }

    /// Tells a verdict, and keeps it as the last of its step.
    fn show_verdict(
        &mut self,
        entry: &mut ShiftEntry,
        window: &Window,
        judged: &AnalysisResult,
    ) -> Result<(), Failure> {
        let word = judged.verdict.as_str();
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
    pub(super) async fn watch(
        &mut self,
        entry: &mut ShiftEntry,
        guard: &mut CanaryAnalysis,
        is_last: bool,
    ) -> Result<StepOutcome, Failure> {
        let arguments = &self.arguments.guard;
        let (interval, lasts) = (arguments.interval, arguments.watch.unwrap_or_default());
        let mut course = StepPolicy::new(arguments.bad_windows, arguments.max_wait);
        let start = Instant::now();
        let mut begun: Option<WindowStart> = None;
        let share = entry.rules.first().map_or(0.0, |rule| rule.rising(self.target.key.kind).1);
        loop {
            let mut trouble = None;
            if begun.is_none() {
                let now = tokio::select! {
                    biased;
                    () = self.asked_to_end(0) => return self.interrupted(entry).await.map(StepOutcome::Ended),
                    now = guard.begin(self) => now,
                };
                match now {
                    Ok(now) => begun = Some(now),
                    Err(why) if guard.fall_back(self).await => {
                        begun = guard.begin(self).await.ok();
                        trouble = Some(why);
                    }
                    Err(why) => trouble = Some(why),
                }
            }
            let waited = self.wait(entry, Some(&mut *guard), interval, "counting calls").await;
            if let Some(outcome) = self.waited(entry, waited).await? {
                return Ok(StepOutcome::Ended(outcome));
            }
            let counted = match (&mut begun, trouble) {
                (Some(begun), _) => tokio::select! {
                    biased;
                    () = self.asked_to_end(0) => return self.interrupted(entry).await.map(StepOutcome::Ended),
                    window = guard.window(self, begun) => window,
                },
                (None, trouble) => Err(trouble.unwrap_or_default()),
            };
            let judged = match counted {
                Ok(window) => {
                    let mut judged = judge(&window, guard.before, share, &guard.allowed());
                    if let (AnalysisVerdict::Good, Some(weak)) = (judged.verdict, &guard.weak) {
                        judged = AnalysisResult { verdict: AnalysisVerdict::Unknown, why: weak.clone() };
                    }
                    self.show_window(entry, &window, guard, &judged)?;
                    judged
                }
                Err(why) => {
                    let judged = AnalysisResult { verdict: AnalysisVerdict::Unknown, why };
                    self.show_verdict(entry, &Window::default(), &judged)?;
                    judged
                }
            };
            match course.after(judged.verdict, start.elapsed()) {
                NextAction::GoOn if is_last && start.elapsed() < lasts => {
                    begun = None;
                    course = StepPolicy::new(arguments.bad_windows, start.elapsed() + arguments.max_wait);
                }
                NextAction::GoOn => return Ok(StepOutcome::Done),
                NextAction::Again { anew: true } => begun = None,
                NextAction::Again { anew: false } => {}
                NextAction::RollBack => return self.back_out(entry, &judged.why).await.map(StepOutcome::Ended),
                NextAction::Stall => {
                    let why = format!(
                        "no verdict in {}: {}",
                        crate::vocabulary::duration::show(arguments.max_wait),
                        judged.why
                    );
                    let ended = match arguments.on_stall {
                        FailureAction::Hold => self.hold(entry, &why).await?,
                        FailureAction::Rollback => self.back_out(entry, &why).await?,
                    };
                    return Ok(StepOutcome::Ended(ended));
                }
            }
        }
    }
}
