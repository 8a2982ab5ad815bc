//! What must hold after every transition.

use std::sync::Arc;

use serde_json::Value;

use super::super::{Effect, Ending, RunJob};
use super::server::{patched, record_text};
use super::setting::Mutation;
use super::world::{
    KIND, ModelWorld, Pending, Running, SentPatch, Slot, WriteKind, Writer, checksum, the_rule, weights,
};
use crate::shift::patch::{record_pointer, rollback_patch};
use crate::shift::record::{RollbackTarget, ShiftRecord, ShiftState};

/// An invariant that does not hold, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BrokenInvariant {
    pub(super) invariant: &'static str,
    pub(super) details: String,
}

impl BrokenInvariant {
    pub(super) fn new(invariant: &'static str, details: impl Into<String>) -> Self {
        Self { invariant, details: details.into() }
    }
}

type Check = Result<(), BrokenInvariant>;

fn require(holds: bool, invariant: &'static str, details: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(BrokenInvariant::new(invariant, details())) }
}

/// Those of the object.
pub(super) fn of_object(world: &ModelWorld) -> Check {
    let Some(object) = world.object.as_deref() else { return Ok(()) };
    let record = match ShiftRecord::from_object(object) {
        Ok(record) => record,
        Err(error) => return Err(BrokenInvariant::new("record_is_readable", error.to_string())),
    };
    one_entry_per_shift(&record)?;
    newest_entry_leads_back(world, object, &record)
}

/// At most one entry is open, and it is the newest; every session has one entry.
fn one_entry_per_shift(record: &ShiftRecord) -> Check {
    for (index, entry) in record.entries.iter().enumerate() {
        let is_closed = index == 0 || entry.state != ShiftState::Open;
        let older = &record.entries[index + 1..];
        let is_single = older.iter().all(|older| older.session != entry.session && older.number < entry.number);
        require(is_closed && is_single, "one_entry_per_shift", || format!("{:?}", record.entries))?;
    }
    Ok(())
}

/// Either another client wrote the weights last, or the newest entry leads back to the exact weights before the shift:
/// its rules have the weights that it says, and a rollback restores those from before. This also holds when every run
/// is killed at this moment.
fn newest_entry_leads_back(world: &ModelWorld, object: &Value, record: &ShiftRecord) -> Check {
    const NAME: &str = "newest_entry_leads_back";
    let Writer::Entry(number) = world.writer else { return Ok(()) };
    let newest = record.entries.first().filter(|newest| newest.number == number);
    let Some(newest) = newest else { return Err(BrokenInvariant::new(NAME, "the weights belong to no entry")) };
    let start = world.starts.iter().find(|(start, _)| *start == number).map(|(_, weights)| weights.clone());
    if newest.state == ShiftState::RolledBack {
        return require(weights(object) == start, NAME, || format!("rolled back, but not to {start:?}"));
    }
    let operations = rollback_patch(KIND, object, newest, RollbackTarget::Start, record)
        .map_err(|lost| BrokenInvariant::new(NAME, lost.to_string()))?;
    let restored = patched(object, &operations, Mutation::default());
    let restored = restored.as_ref().and_then(weights);
    require(restored.is_some() && restored == start, NAME, || {
        format!("a rollback leads to {restored:?}, not {start:?}")
    })
}

/// A run that has not ended waits for something: an operation, an answer or a timer.
pub(super) fn no_run_is_stuck(world: &ModelWorld) -> Check {
    for slot in &world.slots {
        if let Slot::Running(running) = slot {
            let waits = running.pending.is_some() || running.prompt || !running.timers.is_empty();
            require(waits, "no_run_is_stuck", || running.state.name().to_owned())?;
        }
    }
    Ok(())
}

/// Those of a patch that a run sends.
pub(super) fn of_patch(running: &Running, patch: &SentPatch, checks_preconditions: bool) -> Check {
    if checks_preconditions {
        patch_has_its_preconditions(&patch.operations, &patch.base)?;
    }
    nothing_is_promoted_unknown(running, patch)?;
    no_rollback_without_pods(running, patch)
}

/// A patch tests everything that it rests on: UID, resource version, the record if there is one, and the name,
/// conditions and backends with weights of the rule.
pub(super) fn patch_has_its_preconditions(operations: &[Value], base: &Value) -> Check {
    let has_test = |path: &str| {
        let value = base.pointer(path);
        let is_test = |operation: &&Value| operation["op"] == "test" && operation["path"] == path;
        value.is_none() || operations.iter().filter(is_test).any(|operation| operation.get("value") == value)
    };
    let rule = the_rule(base).map_or(0, |rule| rule.rule);
    let field = |name: &str| format!("/spec/http/{rule}/{name}");
    let paths = ["/metadata/uid".to_owned(), "/metadata/resourceVersion".to_owned(), record_pointer()];
    for path in paths.into_iter().chain(["name", "match", "route"].map(field)) {
        require(has_test(&path), "patch_has_its_preconditions", || format!("{path} is not tested"))?;
    }
    Ok(())
}

/// With analysis, neither the next step nor the end of the shift is written unless the last window of the step was
/// good. The end is not written either unless all proxies were found to run the very object.
fn nothing_is_promoted_unknown(running: &Running, patch: &SentPatch) -> Check {
    const NAME: &str = "nothing_is_promoted_unknown";
    let settings = &running.run.settings;
    if !matches!(patch.kind, WriteKind::Advance | WriteKind::Done) {
        return Ok(());
    }
    let is_good = settings.analysis.is_none() || running.ghost.was_good == Some(true);
    require(is_good, NAME, || format!("{:?} after a window that was not good", patch.kind))?;
    let is_synced = running.ghost.synced_spec == Some(checksum(&patch.base["spec"]));
    let needs_synced = patch.kind == WriteKind::Done && settings.acknowledges;
    require(is_synced || !needs_synced, NAME, || "done, but the proxies were not found to run this object".to_owned())
}

/// A rollback is written only after a check that found ready pods, except by an undo with `--force`.
fn no_rollback_without_pods(running: &Running, patch: &SentPatch) -> Check {
    let is_forced = matches!(running.run.job, RunJob::Undo) && running.run.settings.force;
    let is_allowed = patch.kind != WriteKind::RollBack || is_forced || running.ghost.found_pods == Some(true);
    require(is_allowed, "no_rollback_without_pods", || format!("the last check: {:?}", running.ghost.found_pods))
}

/// Those of a patch that the API server applies to an object.
pub(super) fn of_applied_patch(world: &ModelWorld, patch: &Arc<SentPatch>, current: &Value) -> Check {
    nothing_is_overwritten(world, patch, current)?;
    require(!world.lost[patch.run], "a_lost_run_never_writes", || format!("{:?} is applied", patch.kind))
}

/// The object that a patch is applied to has the UID, the rule, the weights and the record of the object that the patch
/// was computed from. A rollback finds the weights that its own shift wrote last.
fn nothing_is_overwritten(world: &ModelWorld, patch: &Arc<SentPatch>, current: &Value) -> Check {
    const NAME: &str = "nothing_is_overwritten";
    let base = &*patch.base;
    let rule = the_rule(base).map_or(0, |rule| rule.rule);
    require(base["metadata"]["uid"] == current["metadata"]["uid"], NAME, || "another object".to_owned())?;
    require(record_text(base) == record_text(current), NAME, || "another record".to_owned())?;
    for field in ["name", "match", "route"] {
        let values = [base, current].map(|object| object["spec"]["http"][rule][field].clone());
        require(values[0] == values[1], NAME, || format!("another {field}: {} instead of {}", values[1], values[0]))?;
    }
    if patch.kind != WriteKind::RollBack {
        return Ok(());
    }
    let number = ShiftRecord::from_object(base).ok().and_then(|record| Some(record.entries.first()?.number));
    let is_own = number.is_some_and(|number| world.writer == Writer::Entry(number));
    require(is_own, NAME, || format!("a rollback of weights by {:?}", world.writer))
}

/// After a second signal the run takes its question back and ends; it does nothing else.
pub(super) fn second_signal_ends_at_once(effects: &[Effect]) -> Check {
    let is_allowed = |effect: &Effect| matches!(effect, Effect::CancelPrompt | Effect::StopTimers | Effect::Finish(_));
    let ends = matches!(effects.last(), Some(Effect::Finish(_))) && effects.iter().all(is_allowed);
    require(ends, "second_signal_ends_at_once", || format!("{effects:?}"))
}

/// Those of a run that ends.
pub(super) fn of_ending(world: &ModelWorld, run: usize, ending: &Ending) -> Check {
    let Slot::Running(running) = &world.slots[run] else { return Ok(()) };
    clean_means_finished(world, running, ending)?;
    let is_clean_loss = world.lost[run] && *ending == Ending::Clean;
    require(!is_clean_loss, "a_lost_run_never_writes", || "it ends clean".to_owned())?;
    nothing_was_applied_is_true(world, run, running, ending)
}

/// A shift that ends clean has closed its entry as done (as held if proxies are not asked) on an object with the
/// weights of the entry. After an undo that ends clean a rollback is stored.
fn clean_means_finished(world: &ModelWorld, running: &Running, ending: &Ending) -> Check {
    if *ending != Ending::Clean || !running.ghost.sent_patch {
        return Ok(());
    }
    let expected = match running.run.job {
        RunJob::Shift(_) | RunJob::Resume if running.run.settings.acknowledges => (WriteKind::Done, true),
        RunJob::Shift(_) | RunJob::Resume => (WriteKind::Unacknowledged, true),
        // While its own answer was lost, the session of the shift may have rolled back.
        RunJob::Undo if world.is_rolled_back => return Ok(()),
        RunJob::Undo => (WriteKind::RollBack, true),
        RunJob::Abort => return Ok(()),
    };
    let stored = running.ghost.stored;
    let holds = stored == Some(expected)
        // A resumed shift without analysis and proxies may also be done.
        || !running.run.settings.acknowledges && stored == Some((WriteKind::Done, true));
    require(holds, "clean_means_finished", || format!("the last stored write: {stored:?}"))
}

/// A run that says that nothing was applied has not changed weights, and no patch of it that does can arrive later.
fn nothing_was_applied_is_true(world: &ModelWorld, run: usize, running: &Running, ending: &Ending) -> Check {
    let Ending::Failed(report) = ending else { return Ok(()) };
    if !report.hints.iter().any(|hint| hint.contains("nothing was applied")) {
        return Ok(());
    }
    let late = world.late_patches.iter().map(|patch| (patch.run, patch.kind));
    let pending = match &running.pending {
        Some(Pending::Patch(patch)) => Some((patch.run, patch.kind)),
        _ => None,
    };
    let may_apply = late.chain(pending).any(|(sender, kind)| sender == run && kind.writes_weights());
    require(!may_apply && !running.ghost.changed_weights, "nothing_was_applied_is_true", || format!("{report:?}"))
}
