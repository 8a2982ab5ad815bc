//! The ground on which a shift stands while it waits: the object, and what callers get of its backends.

use std::time::{Duration, Instant};

use super::analysis::CanaryAnalysis;
use super::rollback::StopReason;
use super::session::ShiftSession;
use crate::cli::failure::Failure;
use crate::mesh;
use crate::mesh::xds::BackendState;
use crate::shift::affected::{AffectedClass, classes, label};
use crate::shift::record::ShiftEntry;
use crate::snapshot::{GapKind, Snapshot};

/// Pause between two looks at the object.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Pause between two looks at everything that calls depend on.
const SURVEY: Duration = Duration::from_secs(5);

/// What ended a wait.
pub(super) enum WaitOutcome {
    /// The time.
    Over,
    /// The program was asked to end.
    Interrupted,
    /// The object is not ours any more.
    Slipped(StopReason),
}

impl ShiftSession<'_, '_> {
    /// Waits, and watches the ground: the object, and what callers get of the backends.
    pub(super) async fn wait(
        &mut self,
        entry: &ShiftEntry,
        mut guard: Option<&mut CanaryAnalysis>,
        time: Duration,
        what: &'static str,
    ) -> WaitOutcome {
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
                    Err(slip) => return Ok(Some(WaitOutcome::Slipped(slip))),
                    Ok(_) if !is_due => return Ok(None),
                    Ok(_) => {}
                }
                let no_canary = self.survey(entry, guard.as_deref_mut()).await.map_err(|failure| failure.message)?;
                Ok::<_, String>(no_canary.map(|why| WaitOutcome::Slipped(StopReason::NoCanary(why))))
            };
            let seen = tokio::select! {
                biased;
                () = ended => break WaitOutcome::Interrupted,
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
                break WaitOutcome::Over;
            }
            tokio::select! {
                biased;
                () = self.asked_to_end(0) => break WaitOutcome::Interrupted,
                () = tokio::time::sleep(LOOK.min(left)) => {}
            }
        };
        self.context.messages.progress = progress;
        bar.finish_and_clear();
        waited
    }

    /// Looks at the mesh: who obeys, and whether the backends are there for them. Says why callers cannot reach the
    /// canary, if they cannot.
    pub(super) async fn survey(
        &mut self,
        entry: &ShiftEntry,
        guard: Option<&mut CanaryAnalysis>,
    ) -> Result<Option<String>, Failure> {
        let read = self.source.read(self.context).await?;
        let mesh = mesh::resolve(&read.snapshot, &self.source.options(&self.context.scope));
        let places: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = classes(&mesh, &self.target.object(), &places, "");
        if is_patchy(&read.snapshot) {
            return Ok(None);
        }
        if let Some(guard) = guard {
            guard.weak = self.dead(entry, &classes, false);
            self.learn_classes(guard, &mesh, &classes, entry);
        }
        Ok(self.dead_canary(entry, &classes))
    }

    /// Why callers cannot reach the canary.
    pub(super) fn dead_canary(&self, entry: &ShiftEntry, classes: &[AffectedClass]) -> Option<String> {
        self.dead(entry, classes, true)
    }

    fn dead(&self, entry: &ShiftEntry, classes: &[AffectedClass], canary: bool) -> Option<String> {
        let rising = self.rising(entry);
        let obeying = classes.iter().filter(|class| class.obeys);
        let mut backends =
            obeying.flat_map(|class| class.backends.values().flatten().map(move |backend| (class, backend)));
        backends.find_map(|(class, backend)| {
            let why = match backend.state {
                BackendState::Ok => return None,
                BackendState::NoCluster => "does not exist for it any more",
                BackendState::NoEndpoints => "has no ready pod any more",
            };
            (rising.contains(&label(backend).as_str()) == canary)
                .then(|| format!("{}: {} {why}", class.name, backend.cluster))
        })
    }

    /// Names of the backends whose share rises.
    fn rising<'e>(&self, entry: &'e ShiftEntry) -> Vec<&'e str> {
        entry.rules.iter().flat_map(|rule| rule.rising(self.target.key.kind).0).collect()
    }

    /// Learns who is who before the first window: of the mesh as it is, and as it will be.
    pub(super) fn learn(&self, guard: &mut CanaryAnalysis, mesh: &mesh::Mesh<'_>, entry: &ShiftEntry) {
        let places: Vec<usize> = entry.rules.iter().map(|rule| rule.rule).collect();
        let classes = classes(mesh, &self.target.object(), &places, "");
        self.learn_classes(guard, mesh, &classes, entry);
    }

    fn learn_classes(
        &self,
        guard: &mut CanaryAnalysis,
        mesh: &mesh::Mesh<'_>,
        classes: &[AffectedClass],
        entry: &ShiftEntry,
    ) {
        let rising = self.rising(entry);
        crate::shift::affected::update_cohorts(&mut guard.sides, mesh, classes, &|label| rising.contains(&label));
    }
}

/// Whether a list failed just now: what is missing then may well be there.
pub(super) fn is_patchy(snapshot: &Snapshot) -> bool {
    snapshot.gaps.iter().any(|gap| gap.reason == GapKind::Failed)
}
