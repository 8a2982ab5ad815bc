//! The operations of a shift, in the order in which a step needs them: check, write, ask the proxies, watch the backends,
//! count calls. Each carries out one effect of the machine and returns what it observed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::super::live_proxies::{AdminAccessArgs, ProxySample, pod_names, sample_proxies};
use super::args::AckMode;
use super::mesh_view::MeshView;
use super::metrics::{Metrics, MetricsAccess};
use super::world::{Clock, Proxies};
use crate::cluster::ClusterError;
use crate::cluster::client::ApiServer;
use crate::cluster::proxies::{IstiodSyncState, PodName};
use crate::cluster::write::PatchOutcome;
use crate::compare::weight_owner_notes;
use crate::mesh::Mesh;
use crate::rules::{self, Finding, Severity};
use crate::schema::Kind;
use crate::shift::affected::{CallerClassUsage, caller_class_usage, update_cohorts};
use crate::shift::machine::{BackendStates, CheckResult, Effect, Event, PatchResult, ReadResult};
use crate::shift::notice::ProxyAckCounts;
use crate::shift::plan::RulePlan;
use crate::shift::preflight::{self, Preflight, PreflightCheck, PreflightFacts};
use crate::shift::record::{RollbackTarget, ShiftEntry};
use crate::shift::survey;
use crate::snapshot::live::{LiveProxy, LiveState, ProxyResponse};

/// Up to this many proxies, all are queried by default; above it this is the size of the sample.
const MAX_QUERIED_PROXIES: usize = 50;
/// How long the answers of the Envoys wait for istiod's.
const SYNC_STATE_GRACE: Duration = Duration::from_millis(500);
/// Shortest limit of a query of the proxies.
const MIN_QUERY_LIMIT: Duration = Duration::from_secs(1);

/// Everything that operations use.
pub(super) struct Operations {
    pub(super) server: ApiServer,
    pub(super) proxies: Box<dyn Proxies>,
    pub(super) clock: std::rc::Rc<dyn Clock>,
    pub(super) view: MeshView,
    pub(super) metrics: Option<Metrics>,
    pub(super) access: AdminAccessArgs,
    pub(super) ack: Option<AckMode>,
    /// The result of the last check, for output.
    pub(super) last_check: Option<LastCheck>,
}

/// The result of the last check.
pub(super) struct LastCheck {
    pub(super) object: Arc<Value>,
    /// The object as the API server would store it.
    pub(super) after: Value,
    pub(super) plans: Vec<RulePlan>,
    pub(super) preflight: Preflight,
}

impl Operations {
    /// Carries out an operation. `ack_remaining` is the time until the proxies must have followed.
    pub(super) async fn perform(&mut self, effect: Effect, ack_remaining: Duration) -> Option<Event> {
        Some(match effect {
            Effect::Check { object, operations, plans } => Event::Checked(self.check(object, &operations, plans).await),
            Effect::Read => Event::Read(self.read().await),
            Effect::Patch(operations) => Event::Patched(self.patch(&operations).await),
            Effect::QueryProxies { object, rules } => {
                Event::Proxies(Ok(self.query_proxies(&object, &rules, ack_remaining).await))
            }
            Effect::CheckBackends { object, entry } => Event::Backends(self.check_backends(&object, &entry).await),
            Effect::CheckRollback { object, entry, rules, target, limit } => {
                let check = tokio::time::timeout(limit, self.check_rollback(&object, &entry, &rules, target));
                Event::RollbackChecked(check.await.ok().flatten())
            }
            Effect::StartWindow => Event::WindowStarted(self.start_window().await),
            Effect::SwitchToLogs => Event::SwitchedToLogs(self.switch_to_logs().await),
            Effect::CountWindow => Event::Window(self.count_window().await?),
            Effect::ShowPlan
            | Effect::ShowChecks
            | Effect::Ask(_)
            | Effect::CancelPrompt
            | Effect::StartTimer(..)
            | Effect::StopTimers
            | Effect::Emit(_)
            | Effect::Warn(_)
            | Effect::Applied
            | Effect::Finish(_) => return None,
        })
    }

    /// Lets the API server validate a patch without storing it, and checks the mesh as it would be afterwards.
    async fn check(&mut self, object: Arc<Value>, operations: &[Value], plans: Vec<RulePlan>) -> CheckResult {
        let failed = |error: ClusterError| CheckResult::Failed { message: error.message, hint: error.hint };
        let target = &self.view.target;
        let after = match self.server.patch(&target.key, &target.api_version, operations, false).await {
            Ok(PatchOutcome::Accepted(after)) => after,
            Ok(PatchOutcome::Conflict) => return CheckResult::Conflict,
            Ok(PatchOutcome::NotFound) => return CheckResult::Rejected("the object was deleted".to_owned()),
            Ok(PatchOutcome::Rejected(reason)) => return CheckResult::Rejected(reason),
            Ok(PatchOutcome::Forbidden(reason)) => return CheckResult::Forbidden(reason),
            Ok(PatchOutcome::Busy { reason, .. }) => return CheckResult::Failed { message: reason, hint: None },
            Err(error) => return failed(error),
        };
        if let Err(error) = self.view.read_for_check(&self.server).await {
            return failed(error);
        }
        let preflight = self.preflight(&object, &after, &plans).await;
        let (checks, hosts) = (preflight.checks.clone(), preflight.hosts());
        self.last_check = Some(LastCheck { object, after, plans, preflight });
        CheckResult::Accepted { checks, hosts }
    }

    async fn preflight(&mut self, object: &Value, after: &Value, plans: &[RulePlan]) -> Preflight {
        let target = self.view.object_ref();
        self.view.set_object(object);
        let findings_before = findings(&self.view.mesh());
        let rules: Vec<usize> = plans.iter().map(|plan| plan.split.rule).collect();
        self.update_cohorts_by_plans(&rules, plans);
        if !self.view.set_object(after) {
            let check = PreflightCheck::InvalidObject { kind: target.kind.name() };
            return Preflight { checks: vec![check], classes: Vec::new() };
        }
        self.update_cohorts_by_plans(&rules, plans);
        let (classes, namespaces, findings_after) = {
            let mesh = self.view.mesh();
            let classes = preflight::caller_classes(&mesh, &target, object, plans);
            let namespaces = preflight::rising_namespaces(&mesh, &classes, plans);
            (classes, namespaces, findings(&mesh))
        };
        let facts = PreflightFacts {
            owners: weight_owner_notes(object),
            findings: finding_checks(&target, &findings_before, &findings_after),
            autoscalers: self.list_autoscalers(&namespaces).await,
        };
        let preflight = preflight::check(&self.view.mesh(), &target, object, plans, classes, &facts);
        self.view.set_object(object);
        preflight
    }

    /// The autoscalers of namespaces. Those that the user may not list are skipped.
    async fn list_autoscalers(&self, namespaces: &BTreeSet<String>) -> Vec<Value> {
        let mut autoscalers = Vec::new();
        for namespace in namespaces {
            let path = format!("/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers");
            let Ok(text) = self.server.get(&path, self.server.timeout).await else { continue };
            let mut list: Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(items) = list.get_mut("items").and_then(Value::as_array_mut) {
                autoscalers.append(items);
            }
        }
        autoscalers
    }

    async fn read(&self) -> ReadResult {
        let target = &self.view.target;
        match self.server.get_object(&target.key, &target.api_version).await {
            Ok(Some(object)) => ReadResult::Object(object.into()),
            Ok(None) => ReadResult::NotFound,
            Err(error) => ReadResult::Failed { message: error.message },
        }
    }

    async fn patch(&self, operations: &[Value]) -> PatchResult {
        let target = &self.view.target;
        match self.server.patch(&target.key, &target.api_version, operations, true).await {
            Ok(PatchOutcome::Accepted(object)) => PatchResult::Applied(object.into()),
            Ok(PatchOutcome::Conflict) => PatchResult::Conflict,
            Ok(PatchOutcome::NotFound) => PatchResult::NotFound,
            Ok(PatchOutcome::Rejected(reason)) => PatchResult::Rejected(reason),
            Ok(PatchOutcome::Forbidden(reason)) => PatchResult::Forbidden(reason),
            Ok(PatchOutcome::Busy { reason, retry_after }) => PatchResult::Busy { reason, retry_after },
            Err(error) => PatchResult::AnswerLost(error.message),
        }
    }

    /// Asks the affected proxies whether they run the weights of an object. Envoys and istiod are asked at the same time, so
    /// that one that does not answer costs the answers of the others nothing.
    async fn query_proxies(&mut self, object: &Value, rules: &[usize], limit: Duration) -> ProxyAckCounts {
        let limit = limit.max(MIN_QUERY_LIMIT);
        self.view.set_object(object);
        let target = self.view.object_ref();
        let (affected, pods, skipped, istiod) = {
            let mesh = self.view.mesh();
            let affected = survey::affected_proxies(&mesh, &target, rules);
            let most = match self.ack {
                Some(AckMode::All) => None,
                Some(AckMode::Sampled) => Some(MAX_QUERIED_PROXIES),
                Some(AckMode::None) | None => {
                    (affected.pods.len() > MAX_QUERIED_PROXIES).then_some(MAX_QUERIED_PROXIES)
                }
            };
            let in_scope = |pod: &crate::mesh::workload::Workload| affected.pods.contains(&pod.object.path());
            let ProxySample { selected, skipped } = sample_proxies(&mesh, in_scope, most);
            let skipped: Vec<(PodName, String)> = skipped
                .into_iter()
                .map(|(id, reason)| (pod_names(&mesh, &[id]).remove(0), reason.to_string()))
                .collect();
            (affected, pod_names(&mesh, &selected), skipped, self.istiod_pods(&mesh))
        };
        let access = AdminAccessArgs { proxy_timeout: self.access.proxy_timeout.min(limit), ..self.access };
        self.view.snapshot.live = Some(self.read_live(&pods, skipped, &istiod, access, limit).await);
        survey::acknowledgements(&self.view.mesh(), &affected)
    }

    async fn read_live(
        &self,
        pods: &[PodName],
        skipped: Vec<(PodName, String)>,
        istiod: &[PodName],
        access: AdminAccessArgs,
        limit: Duration,
    ) -> LiveState {
        let live = std::cell::RefCell::new(LiveState::new(self.clock.now().to_string()));
        // Each configuration is stored as it arrives, so that equal parts are in memory only once.
        let record = |_: usize, running: Result<_, ClusterError>| match running {
            Ok(running) => live.borrow_mut().record_config(running),
            Err(error) => ProxyResponse::Unreachable(match error.hint {
                Some(hint) => format!("{} ({hint})", error.message),
                None => error.message,
            }),
        };
        // istiod decides about proxies that are not queried. For the others it only explains a difference.
        let grace = if skipped.is_empty() { SYNC_STATE_GRACE } else { limit };
        let (responses, sync) = {
            let mut configs = self.proxies.read_configs(&self.server, pods, access, &record);
            let mut sync = self.proxies.read_sync_state(&self.server, istiod, limit);
            tokio::select! {
                responses = &mut configs => {
                    let late = || IstiodSyncState::Unknown("istiod has not answered yet".to_owned());
                    (responses, tokio::time::timeout(grace, sync).await.unwrap_or_else(|_| late()))
                }
                sync = &mut sync => (configs.await, sync),
            }
        };
        let mut live = live.into_inner();
        let skipped = skipped.into_iter().map(|(pod, reason)| (pod, ProxyResponse::NotQueried(reason)));
        for (pod, response) in pods.iter().cloned().zip(responses).chain(skipped) {
            let proxy = LiveProxy { sync: sync.of(&pod), response, counters: (None, None), transient: Vec::new() };
            live.insert(pod.namespace, pod.pod, proxy);
        }
        live
    }

    /// The running istiod pods of the mesh.
    fn istiod_pods(&self, mesh: &Mesh<'_>) -> Vec<PodName> {
        let is_istiod = |workload: &crate::mesh::workload::Workload| {
            workload.object.kind == Kind::Pod
                && workload.namespace().as_str() == self.view.istio_namespace()
                && workload.labels.get("app").is_some_and(|app| app == "istiod")
        };
        let ids: Vec<_> = mesh.workload_ids().filter(|id| is_istiod(mesh.workload(*id))).collect();
        pod_names(mesh, &ids)
    }

    /// The caller classes of the rules of an entry, in the object at hand.
    fn classes(&mut self, object: &Value, entry: &ShiftEntry) -> Vec<CallerClassUsage> {
        self.view.set_object(object);
        let rules = located_rules(self.view.object_ref().kind, object, entry);
        caller_class_usage(&self.view.mesh(), &self.view.object_ref(), &rules, "")
    }

    /// Whether callers reach the backends, as fresh objects say.
    async fn check_backends(&mut self, object: &Value, entry: &ShiftEntry) -> Option<BackendStates> {
        let classes = self.classes(object, entry);
        self.view.refresh_backends(&self.server, &classes).await.ok()?;
        let classes = self.classes(object, entry);
        let kind = self.view.object_ref().kind;
        let canary = survey::canary_labels(kind, entry);
        let mesh = self.view.mesh();
        if let Some(metrics) = &mut self.metrics {
            update_cohorts(&mut metrics.cohorts, &mesh, &classes, &|label| canary.contains(&label));
        }
        Some(survey::backend_states(&mesh, kind, entry, &classes))
    }

    /// Why a rollback would send calls to pods that do not exist; `object` is as the rollback leaves it.
    async fn check_rollback(
        &mut self,
        object: &Value,
        entry: &ShiftEntry,
        rules: &[usize],
        target: RollbackTarget,
    ) -> Option<String> {
        self.view.set_object(object);
        let object_ref = self.view.object_ref();
        let classes = caller_class_usage(&self.view.mesh(), &object_ref, rules, "");
        self.view.refresh_backends(&self.server, &classes).await.ok()?;
        survey::rollback_blocker(&self.view.mesh(), &object_ref, entry, rules, target)
    }

    fn update_cohorts_by_plans(&mut self, rules: &[usize], plans: &[RulePlan]) {
        let Some(metrics) = &mut self.metrics else { return };
        let is_canary = |label: &str| {
            plans.iter().any(|plan| {
                let mut backends = plan.backends.iter().enumerate();
                backends.any(|(index, planned)| planned.backend.label() == label && plan.is_rising(index))
            })
        };
        let mesh = self.view.mesh();
        let classes = caller_class_usage(&mesh, &self.view.object_ref(), rules, "");
        update_cohorts(&mut metrics.cohorts, &mesh, &classes, &is_canary);
    }

    async fn start_window(&mut self) -> Result<(), String> {
        let access = MetricsAccess { server: &self.server, proxies: &*self.proxies, clock: &*self.clock };
        match &mut self.metrics {
            Some(metrics) => metrics.start_window(access).await,
            None => Err("no source of calls".to_owned()),
        }
    }

    async fn switch_to_logs(&mut self) -> bool {
        let access = MetricsAccess { server: &self.server, proxies: &*self.proxies, clock: &*self.clock };
        match &mut self.metrics {
            Some(metrics) => metrics.switch_to_logs(access).await,
            None => false,
        }
    }

    async fn count_window(&mut self) -> Option<crate::shift::machine::WindowResult> {
        let access = MetricsAccess { server: &self.server, proxies: &*self.proxies, clock: &*self.clock };
        Some(self.metrics.as_mut()?.count_window(access).await)
    }
}

/// The indexes of an entry's rules in an object.
fn located_rules(kind: Kind, object: &Value, entry: &ShiftEntry) -> Vec<usize> {
    let located =
        entry.rules.iter().map(|rule| rule.find_unchanged(kind, object).map_or(rule.rule, |split| split.rule));
    located.collect()
}

fn findings(mesh: &Mesh<'_>) -> Vec<Finding> {
    rules::run(mesh, &rules::select::FindingSelection::default()).findings
}

/// New findings anywhere, and open findings of the object itself.
fn finding_checks(target: &crate::mesh::ids::ObjectRef, before: &[Finding], after: &[Finding]) -> Vec<PreflightCheck> {
    let mut checks = Vec::new();
    for finding in after.iter().filter(|finding| finding.severity != Severity::Info) {
        let text = format!("{} {}: {}", finding.code, finding.object, finding.message);
        let is_same =
            |old: &Finding| (old.code, &old.object, &old.field) == (finding.code, &finding.object, &finding.field);
        if !before.iter().any(is_same) {
            checks.push(PreflightCheck::IntroducesFinding { is_error: finding.severity == Severity::Error, text });
        } else if finding.object == *target {
            checks.push(PreflightCheck::OpenFinding { text });
        }
    }
    checks
}
