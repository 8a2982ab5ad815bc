//! Monitors the object, and the backends as callers have them, while a shift waits.

use std::time::{Duration, Instant};

use super::analysis::CanaryAnalysis;
use super::rollback::StopReason;
use super::session::ShiftSession;
use crate::cli::failure::Failure;
use crate::mesh;
use crate::mesh::xds::BackendState;
use crate::shift::affected::{CallerClassUsage, backend_label, caller_class_usage};
use crate::shift::record::ShiftEntry;
use crate::snapshot::{GapKind, Snapshot};

/// Interval between reads of the object.
pub(super) const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between reads of the whole mesh.
const MESH_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// How a wait ended.
pub(super) enum WaitOutcome {
    /// The time is over.
    Elapsed,
    /// The process received a signal.
    Interrupted,
    /// The shift cannot continue.
    Stopped(StopReason),
}

impl ShiftSession<'_, '_> {
    /// Waits for `duration` and monitors the shift meanwhile.
    pub(super) async fn wait_and_monitor(
        &mut self,
        entry: &ShiftEntry,
        mut analysis: Option<&mut CanaryAnalysis>,
        duration: Duration,
        label: &'static str,
    ) -> WaitOutcome {
        let bar = self.context.messages.progress_bar(label);
        bar.set_length(duration.as_secs().max(1));
        // Only one progress bar at a time: reads meanwhile show none.
        let progress = std::mem::replace(&mut self.context.messages.shows_progress, false);
        let start = Instant::now();
        let mut last_mesh_check: Option<Instant> = None;
        let mut is_reported = false;
        let outcome = loop {
            bar.set_position(start.elapsed().as_secs());
            let is_mesh_check_due = last_mesh_check.is_none_or(|last| last.elapsed() >= MESH_CHECK_INTERVAL);
            let interrupted = self.wait_for_signal(0);
            let check = async {
                let object = self.get_object().await.map_err(|failure| failure.message)?;
                if let Err(reason) = self.verify_ownership(&object, entry) {
                    return Ok(Some(WaitOutcome::Stopped(reason)));
                }
                if !is_mesh_check_due {
                    return Ok(None);
                }
                let unreachable =
                    self.check_mesh(entry, analysis.as_deref_mut()).await.map_err(|failure| failure.message)?;
                let stopped = |message| WaitOutcome::Stopped(StopReason::CanaryUnreachable(message));
                Ok::<_, String>(unreachable.map(stopped))
            };
            let result = tokio::select! {
                biased;
                () = interrupted => break WaitOutcome::Interrupted,
                result = check => result,
            };
            match result {
                Ok(Some(outcome)) => break outcome,
                Ok(None) if is_mesh_check_due => last_mesh_check = Some(Instant::now()),
                Ok(None) => {}
                // A short outage of the API server ends nothing.
                Err(error) if !is_reported => {
                    is_reported = true;
                    self.context.messages.warning(&error);
                }
                Err(_) => {}
            }
            let remaining = duration.saturating_sub(start.elapsed());
            if remaining.is_zero() {
                break WaitOutcome::Elapsed;
            }
            tokio::select! {
                biased;
                () = self.wait_for_signal(0) => break WaitOutcome::Interrupted,
                () = tokio::time::sleep(POLL_INTERVAL.min(remaining)) => {}
            }
        };
        self.context.messages.shows_progress = progress;
        bar.finish_and_clear();
        outcome
    }

    /// Reads the mesh, updates the cohorts, and returns why callers cannot reach the canary, if they cannot.
    pub(super) async fn check_mesh(
        &mut self,
        entry: &ShiftEntry,
        analysis: Option<&mut CanaryAnalysis>,
    ) -> Result<Option<String>, Failure> {
        let read = self.source.read(self.context).await?;
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let rules: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = caller_class_usage(&mesh, &self.target.object_ref(), &rules, "");
        if has_failed_reads(&read.snapshot) {
            return Ok(None);
        }
        if let Some(analysis) = analysis {
            analysis.unreachable_baseline = self.unreachable_backend(entry, &classes, false);
            self.update_cohorts_from(analysis, &mesh, &classes, entry);
        }
        Ok(self.unreachable_canary(entry, &classes))
    }

    /// Why callers cannot reach the canary.
    pub(super) fn unreachable_canary(&self, entry: &ShiftEntry, classes: &[CallerClassUsage]) -> Option<String> {
        self.unreachable_backend(entry, classes, true)
    }

    /// Why callers cannot reach a backend of the canary, or of the baseline.
    fn unreachable_backend(&self, entry: &ShiftEntry, classes: &[CallerClassUsage], is_canary: bool) -> Option<String> {
        let canary = self.canary_backends(entry);
        let affected = classes.iter().filter(|class| class.uses_rule);
        let mut backends =
            affected.flat_map(|class| class.backends.values().flatten().map(move |backend| (class, backend)));
        backends.find_map(|(class, backend)| {
            let problem = match backend.state {
                BackendState::Ok | BackendState::Unknown => return None,
                BackendState::NoCluster => "no longer exists",
                BackendState::NoEndpoints => "no longer has a ready pod",
            };
            (canary.contains(&backend_label(backend).as_str()) == is_canary)
                .then(|| format!("for callers in {} the backend {} {problem}", class.name, backend.cluster))
        })
    }

    /// Labels of the backends whose share rises.
    fn canary_backends<'e>(&self, entry: &'e ShiftEntry) -> Vec<&'e str> {
        entry.rules.iter().flat_map(|rule| rule.canary(self.target.key.kind).0).collect()
    }

    /// Updates the cohorts of an analysis from a mesh.
    pub(super) fn update_cohorts(&self, analysis: &mut CanaryAnalysis, mesh: &mesh::Mesh<'_>, entry: &ShiftEntry) {
        let rules: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = caller_class_usage(mesh, &self.target.object_ref(), &rules, "");
        self.update_cohorts_from(analysis, mesh, &classes, entry);
    }

    fn update_cohorts_from(
        &self,
        analysis: &mut CanaryAnalysis,
        mesh: &mesh::Mesh<'_>,
        classes: &[CallerClassUsage],
        entry: &ShiftEntry,
    ) {
        let canary = self.canary_backends(entry);
        let is_canary = |label: &str| canary.contains(&label);
        crate::shift::affected::update_cohorts(&mut analysis.cohorts, mesh, classes, &is_canary);
    }
}

/// Whether a list failed, so that objects may only seem to be missing.
pub(super) fn has_failed_reads(snapshot: &Snapshot) -> bool {
    snapshot.gaps.iter().any(|gap| gap.reason == GapKind::Failed)
}
