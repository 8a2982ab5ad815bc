//! The other side of each operation: the API server, another client, proxies, pods and sources of calls.

use std::sync::Arc;

use serde_json::{Value, json};

use super::super::{BackendStates, CheckResult, Event, PatchResult, ReadResult, WindowResult};
use super::invariants::{self, BrokenInvariant};
use super::setting::{ForeignWrite, Mutation};
use super::world::{
    KIND, ModelWorld, Observed, Pending, Reply, SentPatch, Slot, WriteKind, Writer, checksum, first_object, session,
    the_rule, weights, weights_in_use,
};
use crate::analysis::AnalysisSource;
use crate::analysis::window::{CallCounts, Window};
use crate::shift::notice::ProxyAckCounts;
use crate::shift::preflight::PreflightCheck;
use crate::shift::record::{RECORD_ANNOTATION, RuleRecord, ShiftRecord};

impl ModelWorld {
    /// Ends the operation in flight of a run.
    pub(super) fn reply(
        &mut self,
        run: usize,
        reply: Reply,
        mutation: Mutation,
        observed: &mut Observed,
    ) -> Result<(), BrokenInvariant> {
        let Some(pending) = self.running(run).pending.take() else { return Ok(()) };
        let is_free = matches!(reply, Reply::Plain | Reply::GoodWindow | Reply::BadWindow | Reply::FewCalls)
            || matches!((&pending, reply), (Pending::Window, Reply::Fails));
        self.budget.faults -= u8::from(!is_free);
        let event = match pending {
            Pending::Patch(patch) => Event::Patched(self.reply_to_patch(patch, reply, mutation)?),
            Pending::Read => Event::Read(match (&self.object, reply) {
                (_, Reply::Fails) => ReadResult::Failed { message: "no answer".to_owned() },
                (Some(object), _) => ReadResult::Object(object.clone()),
                (None, _) => ReadResult::NotFound,
            }),
            Pending::Check { object, operations } => {
                Event::Checked(self.reply_to_check(&object, &operations, reply, mutation))
            }
            Pending::Proxies { object, rules } => self.reply_about_proxies(run, &object, &rules, reply),
            Pending::Backends => Event::Backends((reply == Reply::Plain).then(|| BackendStates {
                unreachable_canary: (!self.canary_ready).then(|| "v2 has no ready pod".to_owned()),
                unreachable_baseline: (!self.baseline_ready).then(|| "v1 has no ready pod".to_owned()),
            })),
            Pending::RollbackCheck => {
                self.running(run).ghost.found_pods = Some(self.baseline_ready);
                Event::RollbackChecked((!self.baseline_ready).then(|| "v1 has no ready pod".to_owned()))
            }
            Pending::WindowStart => {
                Event::WindowStarted(if reply == Reply::Plain { Ok(()) } else { Err("no counters".to_owned()) })
            }
            Pending::SwitchToLogs => Event::SwitchedToLogs(reply == Reply::Plain),
            Pending::Window => {
                self.running(run).ghost.was_good = Some(reply == Reply::GoodWindow);
                Event::Window(window(reply))
            }
        };
        self.deliver(run, event, mutation, observed)
    }

    fn reply_about_proxies(&mut self, run: usize, object: &Arc<Value>, rules: &[usize], reply: Reply) -> Event {
        let is_synced = weights_in_use(object, rules) == self.proxies;
        let counts = match reply {
            Reply::Fails => return Event::Proxies(Err("no answer".to_owned())),
            Reply::ProxyRejects => ProxyAckCounts { total: 1, rejected: vec!["pod".to_owned()], ..Default::default() },
            Reply::ProxiesUnknown => {
                ProxyAckCounts { total: 1, unreachable: vec!["pod".to_owned()], ..Default::default() }
            }
            _ if is_synced => {
                self.running(run).ghost.synced_spec = Some(checksum(&object["spec"]));
                ProxyAckCounts { total: 1, synced: 1, ..Default::default() }
            }
            _ => ProxyAckCounts { total: 1, stale: vec!["pod".to_owned()], ..Default::default() },
        };
        Event::Proxies(Ok(counts))
    }

    fn reply_to_check(
        &self,
        object: &Arc<Value>,
        operations: &[Value],
        reply: Reply,
        mutation: Mutation,
    ) -> CheckResult {
        let failed = || CheckResult::Failed { message: "no answer".to_owned(), hint: None };
        match reply {
            Reply::Fails => return failed(),
            Reply::Rejected => return CheckResult::Rejected("no".to_owned()),
            Reply::Forbidden => return CheckResult::Forbidden("no".to_owned()),
            _ => {}
        }
        let Some(current) = &self.object else { return failed() };
        if patched(current, operations, mutation).is_none()
            || current.pointer("/metadata/uid") != object.pointer("/metadata/uid")
        {
            return CheckResult::Conflict;
        }
        let checks = if reply == Reply::CheckFails { vec![PreflightCheck::NoAffectedProxy] } else { Vec::new() };
        CheckResult::Accepted { checks, hosts: vec!["checkout".to_owned()] }
    }

    fn reply_to_patch(
        &mut self,
        patch: Arc<SentPatch>,
        reply: Reply,
        mutation: Mutation,
    ) -> Result<PatchResult, BrokenInvariant> {
        let lost = || PatchResult::AnswerLost("no answer".to_owned());
        Ok(match reply {
            Reply::Fails => lost(),
            Reply::AnswerLost => {
                self.apply(&patch, mutation)?;
                lost()
            }
            Reply::Delayed => {
                self.late_patches.push(patch);
                lost()
            }
            Reply::Rejected => PatchResult::Rejected("no".to_owned()),
            Reply::Forbidden => PatchResult::Forbidden("no".to_owned()),
            Reply::Busy => PatchResult::Busy { reason: "busy".to_owned(), retry_after: None },
            _ => self.apply(&patch, mutation)?,
        })
    }

    /// The API server applies a patch, or refuses it because a test fails.
    pub(super) fn apply(&mut self, patch: &Arc<SentPatch>, mutation: Mutation) -> Result<PatchResult, BrokenInvariant> {
        let Some(current) = self.object.clone() else { return Ok(PatchResult::NotFound) };
        let Some(mut changed) = patched(&current, &patch.operations, mutation) else {
            return Ok(PatchResult::Conflict);
        };
        invariants::of_applied_patch(self, patch, &current)?;
        self.version += 1;
        changed["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let changed = Arc::new(changed);
        self.object = Some(changed.clone());
        let newest = ShiftRecord::from_object(&changed).ok().and_then(|record| record.entries.into_iter().next());
        let has_weights = newest.as_ref().is_some_and(|entry| {
            entry.rules.iter().all(|rule: &RuleRecord| rule.find_unchanged(KIND, &changed).is_ok())
        });
        if let (true, Some(entry)) = (patch.kind.writes_weights(), &newest) {
            self.writer = Writer::Entry(entry.number);
            if let (WriteKind::Begin, Some(before)) = (patch.kind, weights(&current)) {
                self.starts.retain(|(number, _)| *number != entry.number);
                self.starts.push((entry.number, before));
            }
        }
        self.is_rolled_back |= patch.kind == WriteKind::RollBack;
        if let Slot::Running(running) = &mut self.slots[patch.run] {
            let ghost = &mut Arc::make_mut(running).ghost;
            ghost.stored = Some((patch.kind, has_weights));
            ghost.changed_weights |= patch.kind.writes_weights();
            if matches!(patch.kind, WriteKind::Begin | WriteKind::Advance) {
                (ghost.was_good, ghost.synced_spec) = (None, None);
            }
            self.update_checksum(patch.run);
        }
        Ok(PatchResult::Applied(changed))
    }

    /// Another client writes.
    pub(super) fn foreign_write(&mut self, write: ForeignWrite) {
        self.budget.foreign -= 1;
        let Some(object) = &self.object else { return };
        let mut changed = Value::clone(object);
        self.version += 1;
        changed["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let loses_weights = matches!(
            write,
            ForeignWrite::ChangeWeights | ForeignWrite::Delete | ForeignWrite::Recreate | ForeignWrite::Restore
        );
        if loses_weights
            && let Some(open) = ShiftRecord::from_object(object).ok().as_ref().and_then(ShiftRecord::open_entry)
        {
            for run in 0..2 {
                self.lost[run] |= open.session == session(run);
            }
        }
        match write {
            ForeignWrite::ChangeWeights => {
                let rule = the_rule(object).map_or(0, |rule| rule.rule);
                let route = &mut changed["spec"]["http"][rule]["route"];
                let (stable, canary) = if route[0]["weight"] == 83 { (55, 45) } else { (83, 17) };
                (route[0]["weight"], route[1]["weight"]) = (json!(stable), json!(canary));
                self.writer = Writer::Foreign;
            }
            ForeignWrite::TouchStatus => changed["status"] = json!({"seen": self.version}),
            ForeignWrite::TouchLabels => changed["metadata"]["labels"] = json!({"seen": self.version.to_string()}),
            ForeignWrite::InsertRule => {
                let mut first = changed["spec"]["http"][0].clone();
                first["name"] = json!("first");
                first["match"] = json!([{"headers": {"x-first": {"exact": "1"}}}]);
                if let Some(rules) = changed["spec"]["http"].as_array_mut() {
                    rules.insert(0, first);
                }
            }
            ForeignWrite::Delete => {
                (self.object, self.writer) = (None, Writer::Foreign);
                return;
            }
            ForeignWrite::Recreate => {
                changed = first_object();
                changed["metadata"]["resourceVersion"] = json!(self.version.to_string());
                (self.writer, self.starts) = (Writer::Foreign, Vec::new());
            }
            ForeignWrite::Restore => {}
        }
        if matches!(write, ForeignWrite::Recreate | ForeignWrite::Restore) {
            self.uid += 1;
            changed["metadata"]["uid"] = json!(format!("u{}", self.uid));
        }
        self.object = Some(Arc::new(changed));
    }
}

impl Pending {
    /// How it can end.
    pub(super) fn replies(&self, may_fail: bool) -> &'static [Reply] {
        use Reply::{
            AnswerLost, BadWindow, Busy, CheckFails, Delayed, Fails, FewCalls, Forbidden, GoodWindow, Plain,
            ProxiesUnknown, ProxyRejects, Rejected,
        };
        let all: &[Reply] = match self {
            Self::Read | Self::Backends | Self::WindowStart | Self::SwitchToLogs => &[Plain, Fails],
            Self::Patch(_) => &[Plain, Fails, AnswerLost, Delayed, Rejected, Forbidden, Busy],
            Self::Check { .. } => &[Plain, Fails, Rejected, Forbidden, CheckFails],
            Self::Proxies { .. } => &[Plain, Fails, ProxyRejects, ProxiesUnknown],
            Self::RollbackCheck => &[Plain],
            Self::Window => return &[GoodWindow, BadWindow, FewCalls, Fails],
        };
        if may_fail { all } else { &all[..1] }
    }
}

/// The object after a patch; `None` if a test fails.
pub(super) fn patched(object: &Value, operations: &[Value], mutation: Mutation) -> Option<Value> {
    let patch: json_patch::Patch = serde_json::from_value(Value::from(mutation.apply(operations))).unwrap();
    let mut changed = object.clone();
    json_patch::patch(&mut changed, &patch).ok()?;
    Some(changed)
}

/// The record of an object as text.
pub(super) fn record_text(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][RECORD_ANNOTATION].as_str()
}

fn window(reply: Reply) -> WindowResult {
    let counts = |calls, errors| CallCounts { calls, errors };
    let (canary, baseline) = match reply {
        Reply::GoodWindow => (counts(20, 0), counts(80, 0)),
        Reply::BadWindow => (counts(20, 20), counts(80, 0)),
        _ => (counts(0, 0), counts(0, 0)),
    };
    let window = Window { canary, baseline, ..Window::default() };
    WindowResult {
        window: if reply == Reply::Fails { Err("the source does not answer".to_owned()) } else { Ok(window) },
        source: AnalysisSource::Envoy,
        unread_callers: Vec::new(),
        has_shared_backends: false,
    }
}
