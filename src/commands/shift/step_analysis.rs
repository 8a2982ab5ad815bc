//! Counts and judges the windows of a step until the step is decided.

use std::time::{Duration, Instant};

use super::FailureAction;
use super::analysis::{CanaryAnalysis, WindowStart};
use super::monitor::POLL_INTERVAL;
use super::run_steps::StepOutcome;
use super::session::ShiftSession;
use crate::analysis::step_policy::{NextAction, StepPolicy};
use crate::analysis::verdict::{AnalysisResult, AnalysisVerdict, judge, judge_baseline};
use crate::analysis::window::Window;
use crate::cli::failure::Failure;
use crate::report::shift::{ShiftEventType, WindowReport};
use crate::shift::record::{ShiftEntry, StepVerdict};

const NOTHING_APPLIED: &str = "nothing was applied";

impl ShiftSession<'_, '_> {
    /// Counts a window before the shift. Fails if it cannot serve as a baseline.
    pub(super) async fn measure_baseline(
        &mut self,
        entry: &mut ShiftEntry,
        analysis: &mut CanaryAnalysis,
    ) -> Result<(), Failure> {
        self.step = 0;
        let source_failed = |reason: String| {
            Failure::unavailable("cannot count calls for the baseline").cause(reason).hint(NOTHING_APPLIED)
        };
        let mut window_start = match analysis.start_window(self).await {
            Ok(window_start) => window_start,
            Err(reason) if analysis.fall_back_to_logs(self).await => {
                analysis.start_window(self).await.map_err(|_| source_failed(reason))?
            }
            Err(reason) => return Err(source_failed(reason)),
        };
        if analysis.cohorts.has_shared_backends {
            self.context.messages.warning(
                "other rules send calls to the same backends: the observed split is not compared with the weights",
            );
        }
        let start = Instant::now();
        // A source without any calls may be the wrong one, so wait for the first call.
        let (window, result) = loop {
            self.wait_for_baseline(self.arguments.analysis.interval).await?;
            let window = tokio::select! {
                biased;
                () = self.wait_for_signal(0) => return Err(Failure::interrupted().hint(NOTHING_APPLIED)),
                window = analysis.finish_window(self, &mut window_start) => window.map_err(source_failed)?,
            };
            let result = judge_baseline(&window, &analysis.limits);
            if window.total().calls > 0 {
                break (window, result);
            }
            self.emit_window(entry, &window, analysis, &result)?;
            if start.elapsed() >= self.arguments.analysis.max_wait {
                let max_wait = crate::vocabulary::duration::format(self.arguments.analysis.max_wait);
                let source = analysis.source().as_str();
                return Err(Failure::unavailable(format!(
                    "no calls to these backends in {max_wait} (source: {source})"
                ))
                .hint(format!(
                    "{NOTHING_APPLIED}; to see calls as Envoy counts them: kubectl grpcmesh balance SERVICE"
                )));
            }
        };
        analysis.before_shift = window.total();
        self.emit_window(entry, &window, analysis, &result)?;
        self.step = 1;
        match result.verdict {
            AnalysisVerdict::Bad => {
                Err(Failure::unavailable(format!("cannot start the shift: the baseline fails ({})", result.reason))
                    .hint(format!("{NOTHING_APPLIED}; show the failed calls: kubectl grpcmesh tail SERVICE --callers")))
            }
            _ => Ok(()),
        }
    }

    async fn wait_for_baseline(&self, duration: Duration) -> Result<(), Failure> {
        let bar = self.context.messages.progress_bar("counting calls for the baseline");
        bar.set_length(duration.as_secs().max(1));
        let start = Instant::now();
        while start.elapsed() < duration {
            tokio::select! {
                biased;
                () = self.wait_for_signal(0) => return Err(Failure::interrupted().hint(NOTHING_APPLIED)),
                () = tokio::time::sleep(POLL_INTERVAL.min(duration.saturating_sub(start.elapsed()))) => {}
            }
            bar.set_position(start.elapsed().as_secs());
        }
        bar.finish_and_clear();
        Ok(())
    }

    fn emit_window(
        &mut self,
        entry: &mut ShiftEntry,
        window: &Window,
        analysis: &CanaryAnalysis,
        result: &AnalysisResult,
    ) -> Result<(), Failure> {
        let report = WindowReport::new(window, analysis.source());
        let mut message = report.sentence();
        if let Some(first) = analysis.unread_callers.first() {
            message += &format!("; {} callers could not be read, such as {first}", analysis.unread_callers.len());
        }
        self.emit(ShiftEventType::Window, &message, |event| event.window = Some(report))?;
        self.emit_verdict(entry, window, result)
    }

    /// Emits a verdict and stores it as the last one of its step.
    fn emit_verdict(
        &mut self,
        entry: &mut ShiftEntry,
        window: &Window,
        result: &AnalysisResult,
    ) -> Result<(), Failure> {
        let verdict = result.verdict;
        entry.verdicts.retain(|stored| stored.step != self.step);
        entry.verdicts.push(StepVerdict {
            step: self.step,
            verdict,
            canary: window.canary,
            baseline: window.baseline,
            reason: result.reason.clone(),
        });
        let message = format!("{}: {}", verdict.as_str(), result.reason);
        self.emit(ShiftEventType::Verdict, &message, |event| event.verdict = Some(verdict))
    }

    /// Counts and judges windows until the step is done or the shift ends.
    pub(super) async fn analyze_step(
        &mut self,
        entry: &mut ShiftEntry,
        analysis: &mut CanaryAnalysis,
        is_last: bool,
    ) -> Result<StepOutcome, Failure> {
        let arguments = &self.arguments.analysis;
        let (interval, watch) = (arguments.interval, arguments.watch.unwrap_or_default());
        let mut policy = StepPolicy::new(arguments.bad_windows, arguments.max_wait);
        let start = Instant::now();
        let mut window_start: Option<WindowStart> = None;
        let share = entry.rules.first().map_or(0.0, |rule| rule.canary(self.target.key.kind).1);
        loop {
            let mut start_error = None;
            if window_start.is_none() {
                let result = tokio::select! {
                    biased;
                    () = self.wait_for_signal(0) => {
                        return self.handle_interrupt(entry).await.map(StepOutcome::Ended);
                    }
                    result = analysis.start_window(self) => result,
                };
                match result {
                    Ok(started) => window_start = Some(started),
                    Err(reason) if analysis.fall_back_to_logs(self).await => {
                        window_start = analysis.start_window(self).await.ok();
                        start_error = Some(reason);
                    }
                    Err(reason) => start_error = Some(reason),
                }
            }
            let wait = self.wait_and_monitor(entry, Some(&mut *analysis), interval, "counting calls").await;
            if let Some(outcome) = self.end_after_wait(entry, wait).await? {
                return Ok(StepOutcome::Ended(outcome));
            }
            let window = match (&mut window_start, start_error) {
                (Some(window_start), _) => tokio::select! {
                    biased;
                    () = self.wait_for_signal(0) => {
                        return self.handle_interrupt(entry).await.map(StepOutcome::Ended);
                    }
                    window = analysis.finish_window(self, window_start) => window,
                },
                (None, start_error) => Err(start_error.unwrap_or_default()),
            };
            let result = self.judge_window(entry, analysis, window, share)?;
            match policy.next_action(result.verdict, start.elapsed()) {
                NextAction::Advance if is_last && start.elapsed() < watch => {
                    window_start = None;
                    policy = StepPolicy::new(arguments.bad_windows, start.elapsed() + arguments.max_wait);
                }
                NextAction::Advance => return Ok(StepOutcome::Done),
                NextAction::NextWindow { restarts: true } => window_start = None,
                NextAction::NextWindow { restarts: false } => {}
                NextAction::RollBack => {
                    return self.roll_back_and_wait(entry, &result.reason).await.map(StepOutcome::Ended);
                }
                NextAction::Stall => {
                    let max_wait = crate::vocabulary::duration::format(arguments.max_wait);
                    let reason = format!("no good or bad verdict in {max_wait}: {}", result.reason);
                    let outcome = match arguments.on_stall {
                        FailureAction::Hold => self.hold(entry, &reason).await?,
                        FailureAction::Rollback => self.roll_back_and_wait(entry, &reason).await?,
                    };
                    return Ok(StepOutcome::Ended(outcome));
                }
            }
        }
    }

    /// Judges a window, or the failure to count it, and emits the result.
    fn judge_window(
        &mut self,
        entry: &mut ShiftEntry,
        analysis: &CanaryAnalysis,
        window: Result<Window, String>,
        share: f64,
    ) -> Result<AnalysisResult, Failure> {
        match window {
            Ok(window) => {
                let mut result = judge(&window, analysis.before_shift, share, &analysis.effective_limits());
                if let (AnalysisVerdict::Good, Some(reason)) = (result.verdict, &analysis.unreachable_baseline) {
                    result = AnalysisResult::new(AnalysisVerdict::Unknown, reason.clone());
                }
                self.emit_window(entry, &window, analysis, &result)?;
                Ok(result)
            }
            Err(reason) => {
                let result = AnalysisResult::new(AnalysisVerdict::Unknown, reason);
                self.emit_verdict(entry, &Window::default(), &result)?;
                Ok(result)
            }
        }
    }
}
