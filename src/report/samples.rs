//! Sample reports of a small shop mesh, as runs against a cluster produce them, for tests of what users see.

use std::collections::BTreeMap;

use super::balance::{BalanceReport, DistributionReport, EndpointReport, LogPatternReport};
use super::diff::{DiffProxyReport, DiffReport, DifferenceReport};
use super::doctor::DoctorReport;
use super::inspect::{
    BackendReport, InspectReport, LiveReport, LiveServiceReport, PodsReport, PortReport, ProxiesReport, RuleAction,
    RuleReport, ServiceReport, WorkloadReport,
};
use super::route::RetriesReport;
use super::shift::{PastShiftReport, ShiftEvent, ShiftHistoryReport, ShiftStatusReport, WindowReport};
use super::tail::{AddressNames, LogOrigin, TailLine};
use super::tail_join::{CallJoiner, TailCall};
use super::tail_summary::{SummaryCounter, TailSummary};
use super::{GapReport, ObjectReport, Percent};
use crate::accesslog::{LogLine, LogReader};
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::{AnalysisLimits, AnalysisVerdict, judge};
use crate::analysis::window::{CallCounts, Window};
use crate::compare::{ComparedObject, ObjectState};
use crate::dataplane::balance::{BalanceVerdict, CallDistribution, CountingPeriod, EndpointCounts};
use crate::dataplane::proxy::ProxyState;
use crate::diagnosis::diagnose;
use crate::doctor::{CheckState, DoctorCheck, plugin_path, rights, versions};
use crate::mesh::ids::WorkloadId;
use crate::mesh::protocol::Protocol;
use crate::mesh::version::IstioVersion;
use crate::mesh::xds::BackendState;
use crate::schema::Kind;
use crate::shift::affected::CallerClassUsage;
use crate::shift::notice::{ProxyAckCounts, ShiftEventType};
use crate::shift::record::{LostControlReason, RollbackTarget, RuleRecord, ShiftEntry, ShiftState, StepVerdict};
use crate::snapshot::{Gap, GapKind, ObjectKey};

const CHECKOUT: &str = "checkout.shop.svc.cluster.local";

fn object(kind: Kind, namespace: &str, name: &str) -> ObjectKey {
    ObjectKey { kind, namespace: namespace.into(), name: name.into() }
}

fn gap(what: &str, why: &str, reason: GapKind) -> GapReport {
    GapReport::from(&Gap::new(what.to_owned(), why.to_owned(), reason))
}

fn forbidden(resource: &str) -> GapReport {
    let why = format!("forbidden; check with: kubectl auth can-i list {resource} -n payments");
    gap(&format!("{resource} in namespace payments"), &why, GapKind::Forbidden)
}

// diff

/// Files against the cluster: one object in each state.
fn compared_objects() -> Vec<ComparedObject> {
    let virtual_service = |v1: u32, v2: u32| {
        format!(
            "kind: VirtualService\nmetadata:\n  name: checkout\n  namespace: shop\nspec:\n  hosts:\n  - checkout\n  http:\n  \
             - name: canary\n    route:\n    - destination:\n        host: checkout\n        subset: v1\n      weight: {v1}\n    \
             - destination:\n        host: checkout\n        subset: v2\n      weight: {v2}\n"
        )
    };
    let destination_rule = "kind: DestinationRule\nmetadata:\n  name: cart\n  namespace: shop\nspec:\n  host: cart\n";
    let compared = |kind, name, state, changes: &[&str], before: &str, after: &str| ComparedObject {
        object: object(kind, "shop", name),
        state,
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        before: before.to_owned(),
        after: after.to_owned(),
        notes: Vec::new(),
    };
    let changes = ["spec.http[0].route: v1 90% → 75%, v2 10% → 25%"];
    let (before, after) = (virtual_service(90, 10), virtual_service(75, 25));
    vec![
        ComparedObject {
            notes: vec!["Argo Rollouts manages this object and may set its weights".to_owned()],
            ..compared(Kind::VirtualService, "checkout", ObjectState::Differs, &changes, &before, &after)
        },
        compared(
            Kind::DestinationRule,
            "cart",
            ObjectState::Missing,
            &["the object would be created"],
            "",
            destination_rule,
        ),
        compared(Kind::Service, "checkout", ObjectState::Same, &[], "kind: Service\n", "kind: Service\n"),
    ]
}

fn proxy(pod: &str, caller_class: &str, state: ProxyState, evidence: &str) -> DiffProxyReport {
    let (namespace, pod) = pod.split_once('/').unwrap_or_default();
    DiffProxyReport {
        namespace: namespace.to_owned(),
        pod: pod.to_owned(),
        caller_class: caller_class.to_owned(),
        state,
        evidence: evidence.to_owned(),
        since: None,
        differences: Vec::new(),
        not_compared: Vec::new(),
        other_patches: Vec::new(),
    }
}

fn old_backends() -> DifferenceReport {
    let backends = |v1: u32, v2: u32| format!("outbound|50051|v1|{CHECKOUT} {v1}, outbound|50051|v2|{CHECKOUT} {v2}");
    DifferenceReport {
        what: format!("backends of {CHECKOUT}:50051"),
        desired: backends(75, 25),
        live: backends(90, 10),
    }
}

/// A proxy in each of the seven states, two of them with the same differences, and two that are synced.
fn compared_proxies() -> Vec<DiffProxyReport> {
    let different = |pod: &str| DiffProxyReport {
        differences: vec![
            old_backends(),
            DifferenceReport {
                what: format!("timeout of {CHECKOUT}:50051"),
                desired: "3s".to_owned(),
                live: "none".to_owned(),
            },
            DifferenceReport {
                what: format!("endpoints of outbound|50051|v2|{CHECKOUT}"),
                desired: "10.8.0.14:50051".to_owned(),
                live: String::new(),
            },
        ],
        ..proxy(
            pod,
            "web (app=client)",
            ProxyState::Different,
            "istiod reports that the proxy acknowledged all configuration",
        )
    };
    vec![
        different("web/client-7f8b989dbd-hvf4x"),
        different("web/client-7f8b989dbd-qm2rk"),
        DiffProxyReport {
            differences: vec![old_backends()],
            ..proxy(
                "web/client-7f8b989dbd-tz8wd",
                "web (app=client)",
                ProxyState::Rejected,
                "Envoy rejected 50051: Only unique values for domains are permitted. Duplicate entry of domain checkout.shop",
            )
        },
        DiffProxyReport {
            since: Some("2026-11-21T09:28:14Z".to_owned()),
            differences: vec![old_backends()],
            ..proxy(
                "shop/cart-5c9f8d7b6-k4n2p",
                "shop",
                ProxyState::Stale,
                "istiod sent configuration (route) at 2026-11-21T09:28:14Z, which the proxy has not acknowledged yet",
            )
        },
        DiffProxyReport {
            differences: vec![old_backends()],
            ..proxy(
                "shop/catalog-v1-6d5f7c9b8-2xk7m",
                "shop",
                ProxyState::NotSent,
                "the proxy is not connected to istiod",
            )
        },
        proxy(
            "payments/ledger-0",
            "payments",
            ProxyState::Unreachable,
            "pods \"ledger-0\" is forbidden: cannot create resource \"pods/portforward\" in the namespace \"payments\"",
        ),
        DiffProxyReport {
            not_compared: vec!["routes and clusters, patched by EnvoyFilter istio-ingress/tuning".to_owned()],
            ..proxy(
                "istio-ingress/gateway-84c9d7f6b-9wz5t",
                "gateway istio-ingress/gateway",
                ProxyState::NotCompared,
                "an EnvoyFilter patches both routes and clusters",
            )
        },
        DiffProxyReport {
            not_compared: vec!["routes, patched by EnvoyFilter shop/rate-limits".to_owned()],
            other_patches: vec!["EnvoyFilter istio-system/access-log patches NETWORK_FILTER".to_owned()],
            ..proxy(
                "shop/recommendation-7b6c5d4f9-hh2vq",
                "shop",
                ProxyState::Synced,
                "0 route tables and 42 clusters match",
            )
        },
        proxy("shop/checkout-v1-6f7d9c5b8-lw9xn", "shop", ProxyState::Synced, "6 route tables and 42 clusters match"),
    ]
}

/// Objects and proxies in all states, with a gap.
pub(crate) fn diff() -> DiffReport {
    let sides = Some(["files".to_owned(), "cluster".to_owned()]);
    let gaps = vec![
        forbidden("virtualservices.networking.istio.io"),
        gap("grpcroutes.gateway.networking.k8s.io", "not installed", GapKind::NotInstalled),
    ];
    DiffReport::new(sides, compared_objects(), compared_proxies(), gaps)
}

/// Proxies only, all synced.
pub(crate) fn diff_synced() -> DiffReport {
    let mut proxies = compared_proxies();
    proxies.retain(|proxy| proxy.state == ProxyState::Synced && proxy.not_compared.is_empty());
    DiffReport::new(None, Vec::new(), proxies, Vec::new())
}

// balance

const ENDPOINTS: [(&str, &str, &str); 4] = [
    ("10.8.0.11:50051", "checkout-v1-6f7d9c5b8-lw9xn", "v1"),
    ("10.8.0.12:50051", "checkout-v1-6f7d9c5b8-p8k4d", "v1"),
    ("10.8.0.13:50051", "checkout-v1-6f7d9c5b8-zq7tr", "v1"),
    ("10.8.0.14:50051", "checkout-v2-5d8b7c6f9-x2m6j", "v2"),
];

/// The report of calls and errors of the four endpoints of checkout.
fn balance_of(counts: [(u64, u64); 4], callers: usize, cause: &str) -> BalanceReport {
    let mut distribution = CallDistribution { callers, ..CallDistribution::default() };
    for ((address, ..), (calls, errors)) in ENDPOINTS.iter().zip(counts) {
        let counts = EndpointCounts { calls, errors, ..EndpointCounts::default() };
        distribution.endpoints.insert((*address).to_owned(), counts);
    }
    distribution.measure_against([]);
    let calls = distribution.calls();
    let mut endpoints: Vec<EndpointReport> = ENDPOINTS
        .iter()
        .zip(counts)
        .map(|((address, pod, subset), (endpoint_calls, errors))| EndpointReport {
            address: (*address).to_owned(),
            pod: Some((*pod).to_owned()),
            subset: (endpoint_calls > 0).then(|| (*subset).to_owned()),
            calls: endpoint_calls,
            errors,
            share_percent: Percent::of(endpoint_calls, calls),
        })
        .collect();
    endpoints.sort_by(|a, b| b.calls.cmp(&a.calls).then_with(|| a.address.cmp(&b.address)));
    BalanceReport {
        kind: "Balance",
        version: 1,
        service: CHECKOUT.to_owned(),
        seconds: 30.2,
        callers,
        endpoints,
        calls,
        effective_servers: distribution.effective_servers(),
        jain: distribution.jain_index(),
        verdict: distribution.verdict(false),
        cause: cause.to_owned(),
        log_pattern: None,
        gaps: Vec::new(),
    }
}

/// An even spread.
pub(crate) fn balance_even() -> BalanceReport {
    balance_of([(310, 0), (301, 0), (297, 1), (292, 0)], 3, "")
}

/// An uneven spread, with an endpoint whose pod the source does not contain.
pub(crate) fn balance_uneven() -> BalanceReport {
    let cause =
        "DestinationRule shop/checkout sets a consistent hash: all calls with the same key go to one pod, as intended";
    let mut report = balance_of([(700, 0), (310, 12), (150, 0), (40, 0)], 3, cause);
    report.endpoints[3].pod = None;
    report
}

/// Calls pinned to one pod, with a log pattern and callers that could not be read.
pub(crate) fn balance_pinned() -> BalanceReport {
    let cause = "port 50051 tcp-checkout is treated as TCP: Envoy balances connections, and all calls of a connection go to one \
                 pod; name the port grpc-… or set appProtocol: grpc";
    let counts = BTreeMap::from([
        ("checkout-v1-6f7d9c5b8-lw9xn".to_owned(), 1204),
        ("checkout-v2-5d8b7c6f9-x2m6j".to_owned(), 2),
    ]);
    BalanceReport {
        log_pattern: Some(LogPatternReport { distinct: counts.len(), counts }),
        gaps: vec![
            gap(
                "web/client-7f8b989dbd-hvf4x",
                "pods \"client-7f8b989dbd-hvf4x\" is forbidden: cannot create resource \"pods/portforward\"",
                GapKind::Failed,
            ),
            gap("web/client-7f8b989dbd-qm2rk", "skipped because of --proxies 1", GapKind::Failed),
        ],
        ..balance_of([(1204, 3), (2, 0), (0, 0), (0, 0)], 1, cause)
    }
}

/// Too few calls for a verdict.
pub(crate) fn balance_too_few() -> BalanceReport {
    balance_of([(3, 0), (2, 0), (1, 0), (0, 0)], 1, "6 calls to 4 endpoints are too few for a verdict")
}

// doctor

/// Checks that passed, with a warning.
pub(crate) fn doctor_ready() -> DoctorReport {
    DoctorReport::new(&ready_checks())
}

fn ready_checks() -> Vec<DoctorCheck> {
    let istiod = IstioVersion { major: 1, minor: 31 };
    let older = IstioVersion { major: 1, minor: 30 };
    let files = [("/home/alice/.krew/bin".to_owned(), "kubectl-grpcmesh".to_owned())];
    let mut checks = vec![DoctorCheck::new("client/version", CheckState::Ok, "0.1.0")];
    checks.extend(plugin_path::checks(&files, &["inspect"]));
    checks.push(DoctorCheck::new("cluster", CheckState::Ok, "connected to https://10.0.0.1:6443, Kubernetes v1.34.2"));
    checks.push(versions::istiod(Some(istiod)));
    checks.push(versions::proxies(Some(istiod), &BTreeMap::from([(istiod, 41), (older, 2)])));
    checks
}

/// One check in each state. The failed one comes with objects to apply.
pub(crate) fn doctor() -> DoctorReport {
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| rights::RbacRule {
        api_groups: vec![group.to_owned()],
        resources: resources.iter().map(|resource| (*resource).to_owned()).collect(),
        verbs: verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..rights::RbacRule::default()
    };
    let granted = [rule("*", &["*"], &["get", "list", "watch"]), rule("", &["pods/portforward"], &["create"])];
    let mut checks = ready_checks();
    checks.extend(rights::checks("shop", &granted, &[]));
    checks.push(
        DoctorCheck::new(
            "gateway-api/version",
            CheckState::Unknown,
            "cannot read its CustomResourceDefinition: forbidden",
        )
        .with_fix("grant get on customresourcedefinitions; only this check needs it"),
    );
    DoctorReport::new(&checks)
}

// shift

const SESSION: &str = "3f9c2ab17d40e615";
const UNDO: &str = "to undo: kubectl grpcmesh shift vs/checkout -n shop --undo";

fn weights(v1: u64, v2: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([("v1".to_owned(), v1), ("v2".to_owned(), v2)])
}

fn window(canary: (u64, u64), baseline: (u64, u64)) -> Window {
    Window {
        canary: CallCounts { calls: canary.0, errors: canary.1 },
        baseline: CallCounts { calls: baseline.0, errors: baseline.1 },
        affected_canary_calls: canary.0,
        affected_calls: canary.0 + baseline.0,
        ..Window::default()
    }
}

/// The events of a window and of its verdict.
fn window_events(step: u32, window: &Window, share: f64, source: AnalysisSource) -> [ShiftEvent; 2] {
    let limits = AnalysisLimits {
        min_requests: 100,
        max_error_ratio: 0.01,
        max_p99_ms: Some(300.0),
        split_tolerance: Some(0.1),
    };
    let limits = AnalysisLimits { max_p99_ms: window.p99_ms.and(limits.max_p99_ms), ..limits };
    let report = WindowReport::new(window, source);
    let result = judge(window, CallCounts { calls: 2400, errors: 2 }, share, &limits);
    let message = format!("{}: {}", result.verdict.as_str(), result.reason);
    [
        ShiftEvent { step, window: Some(report.clone()), ..ShiftEvent::new(ShiftEventType::Window, report.sentence()) },
        ShiftEvent { step, verdict: Some(result.verdict), ..ShiftEvent::new(ShiftEventType::Verdict, message) },
    ]
}

/// Events of every type: a shift in steps that a bad canary ends, and the other ends that a shift can have.
pub(crate) fn shift_events() -> Vec<ShiftEvent> {
    use ShiftEventType::{Acknowledged, Applied, Done, Held, LostControl, Plan, Preflight, RolledBack};
    let proxies = |synced, stale: &[&str], unreachable: &[&str]| {
        let list = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect();
        let total = synced + stale.len() + unreachable.len();
        let rejected = Vec::new();
        Some(ProxyAckCounts { total, synced, stale: list(stale), rejected, unreachable: list(unreachable) })
    };
    let rejected = "web/client-7f8b989dbd-tz8wd: Envoy rejected 50051: Duplicate entry of domain checkout.shop";
    let mut events = vec![
        ShiftEvent {
            weights: weights(95, 5),
            ..ShiftEvent::new(Plan, "VirtualService shop/checkout http[0] \"canary\": v1 100% → 95%, v2 0% → 5%")
        },
        ShiftEvent::new(Plan, "3 steps: v2=5%, v2=25%, v2=50%; at least 2m each; canary analysis: prometheus"),
        ShiftEvent::new(
            Preflight,
            "4 affected proxies: web (app=client) (3), gateway istio-ingress/gateway (1); 7 not affected",
        ),
        ShiftEvent {
            weights: weights(95, 5),
            ..ShiftEvent::new(Applied, format!("weights applied by alice@example.com, session {SESSION}"))
        },
        ShiftEvent {
            proxies: proxies(4, &[], &[]),
            ..ShiftEvent::new(Acknowledged, "4 of 4 proxies run the new weights")
        },
    ];
    events.extend(window_events(1, &window((40, 0), (760, 1)), 0.05, AnalysisSource::Prometheus));
    let good = Window { p99_ms: Some(84.0), ..window((128, 0), (2390, 3)) };
    events.extend(window_events(1, &good, 0.05, AnalysisSource::Prometheus));
    events.push(ShiftEvent { step: 2, weights: weights(75, 25), ..ShiftEvent::new(Applied, "step 2 of 3: v2=25%") });
    let stale = "web/client-7f8b989dbd-hvf4x: istiod sent configuration (route) at 2026-11-21T09:28:14Z, which the proxy has not acknowledged yet";
    events.push(ShiftEvent {
        step: 2,
        proxies: proxies(2, &[stale], &["payments/ledger-0: pods/portforward is forbidden"]),
        ..ShiftEvent::new(Acknowledged, format!("1 of 4 proxies do not run the weights after 1m, such as {stale}"))
    });
    events.push(ShiftEvent {
        step: 2,
        proxies: Some(ProxyAckCounts {
            total: 4,
            synced: 3,
            rejected: vec![rejected.to_owned()],
            ..ProxyAckCounts::default()
        }),
        ..ShiftEvent::new(Acknowledged, format!("rejected by {rejected}"))
    });
    let bad = Window { no_upstream: 2, ..window((602, 41), (1810, 3)) };
    let bad_events = window_events(2, &bad, 0.25, AnalysisSource::Envoy);
    let bad_reason = bad_events[1].message.clone();
    events.extend(bad_events);
    events.extend(window_events(2, &window((600, 40), (1800, 120)), 0.25, AnalysisSource::Logs));
    events.push(ShiftEvent {
        step: 2,
        weights: weights(100, 0),
        rollback_target: Some(RollbackTarget::Start),
        ..ShiftEvent::new(RolledBack, format!("{bad_reason}; restored the weights from before the shift"))
    });
    events.push(ShiftEvent {
        step: 2,
        ..ShiftEvent::new(Held, format!("no good or bad verdict within 10m; the new weights stay; {UNDO}"))
    });
    events.push(ShiftEvent {
        step: 2,
        lost_control: Some(LostControlReason::WeightsChanged),
        ..ShiftEvent::new(
            LostControl,
            "the weights have changed since this shift: v1 50, v2 50 (last written by kubectl-edit)",
        )
    });
    events.push(ShiftEvent { step: 3, ..ShiftEvent::new(Done, format!("the shift is finished; {UNDO}")) });
    for (index, event) in events.iter_mut().enumerate() {
        event.session = SESSION.to_owned();
        event.seq = u32::try_from(index).unwrap_or_default() + 1;
        event.time = format!("2026-11-21T09:{:02}:00Z", 10 + index);
    }
    events
}

/// A shift of the rule of checkout from all calls to v1.
fn shift_entry(number: u64, state: ShiftState, applied: (u64, u64), message: &str) -> ShiftEntry {
    ShiftEntry {
        number,
        session: format!("{SESSION}-{number}"),
        user: "alice@example.com".to_owned(),
        started_at: format!("2026-11-2{number}T09:10:00Z"),
        reason: None,
        deadline: None,
        hosts: vec![CHECKOUT.to_owned()],
        plan: Vec::new(),
        step: 1,
        analysis: None,
        verdicts: Vec::new(),
        abort_requested_by: None,
        state,
        message: message.to_owned(),
        rules: vec![RuleRecord {
            rule: 0,
            identity: "1b2c3d4e".to_owned(),
            backends: vec!["v1".to_owned(), "v2".to_owned()],
            start: vec![Some(100), Some(0)],
            applied: vec![Some(applied.0), Some(applied.1)],
            previous: Vec::new(),
        }],
    }
}

/// A shift in its second step.
fn open_entry() -> ShiftEntry {
    let verdict = |step, verdict, canary: (u64, u64), baseline: (u64, u64), reason: &str| StepVerdict {
        step,
        verdict,
        canary: CallCounts { calls: canary.0, errors: canary.1 },
        baseline: CallCounts { calls: baseline.0, errors: baseline.1 },
        reason: reason.to_owned(),
    };
    ShiftEntry {
        reason: Some("release 2.4 of checkout".to_owned()),
        deadline: Some("2026-11-24T09:42:00Z".to_owned()),
        plan: vec!["v2=5%".to_owned(), "v2=25%".to_owned(), "v2=50%".to_owned()],
        step: 2,
        analysis: Some(AnalysisSource::Envoy),
        verdicts: vec![
            verdict(
                0,
                AnalysisVerdict::Good,
                (0, 0),
                (2400, 2),
                "before the shift: 2 of 2400 calls failed (95% CI 0.0% to 0.3%); 1% allowed",
            ),
            verdict(
                1,
                AnalysisVerdict::Good,
                (128, 0),
                (2390, 3),
                "canary: 0 of 128 calls failed (at most 2.9%); baseline: 3 of 2390 calls failed (0.0% to 0.4%)",
            ),
            verdict(2, AnalysisVerdict::NotEnoughCalls, (40, 0), (120, 0), "40 calls to the canary, 100 needed"),
        ],
        ..shift_entry(4, ShiftState::Open, (75, 25), "")
    }
}

const SHIFTED_OBJECT: &str = "VirtualService shop/checkout";

/// Past shifts in every state.
pub(crate) fn shift_history() -> ShiftHistoryReport {
    let by_ci = ShiftEntry {
        user: "system:serviceaccount:ci:deployer".to_owned(),
        ..shift_entry(
            2,
            ShiftState::RolledBack,
            (75, 25),
            "canary: 41 of 602 calls failed (95% CI 5.1% to 9.1%); 1% allowed",
        )
    };
    let entries = [
        open_entry(),
        shift_entry(3, ShiftState::Held, (75, 25), "proxies were not checked (--ack none)"),
        by_ci,
        shift_entry(1, ShiftState::Done, (95, 5), "4 of 4 proxies run the new weights"),
    ];
    ShiftHistoryReport {
        kind: "ShiftHistory",
        version: 1,
        object: SHIFTED_OBJECT.to_owned(),
        shifts: entries.iter().map(PastShiftReport::from).collect(),
    }
}

/// The history of an object that was never shifted.
pub(crate) fn shift_history_empty() -> ShiftHistoryReport {
    ShiftHistoryReport { shifts: Vec::new(), ..shift_history() }
}

/// A shift in its second step.
pub(crate) fn shift_status() -> ShiftStatusReport {
    ShiftStatusReport {
        kind: "ShiftStatus",
        version: 1,
        object: SHIFTED_OBJECT.to_owned(),
        weights: BTreeMap::from([
            ("http[0] \"canary\"".to_owned(), weights(75, 25)),
            ("http[1]".to_owned(), weights(100, 0)),
        ]),
        unchanged: Some(true),
        last: Some((&open_entry()).into()),
    }
}

/// A held shift whose weights another client changed.
pub(crate) fn shift_status_changed() -> ShiftStatusReport {
    let held = shift_entry(3, ShiftState::Held, (75, 25), "the canary got no calls within 10m");
    ShiftStatusReport {
        weights: BTreeMap::from([("http[0] \"canary\"".to_owned(), weights(50, 50))]),
        unchanged: Some(false),
        last: Some((&held).into()),
        ..shift_status()
    }
}

/// An object that was never shifted.
pub(crate) fn shift_status_empty() -> ShiftStatusReport {
    ShiftStatusReport { unchanged: None, last: None, ..shift_status() }
}

/// A class that uses the rule of checkout, and more classes that do not than `shift` lists.
pub(crate) fn caller_classes() -> Vec<CallerClassUsage> {
    let class = |name: &str, pods: u32, unaffected_reason: &str| CallerClassUsage {
        name: name.to_owned(),
        pods: (0..pods).map(WorkloadId).collect(),
        uses_rule: unaffected_reason.is_empty(),
        unaffected_reason: unaffected_reason.to_owned(),
        hosts: vec![CHECKOUT.to_owned()],
        backends: BTreeMap::new(),
        shares_backends: false,
        workloads_by_cluster: BTreeMap::new(),
    };
    let hidden = "its proxy has no routes for checkout.shop.svc.cluster.local";
    let other = "its calls are routed by VirtualService batch/checkout";
    let mut classes = vec![class("web (app=client)", 3, ""), class("batch", 2, other)];
    classes.extend(["audit", "billing", "ledger", "mail", "reports", "search"].map(|name| class(name, 1, hidden)));
    classes
}

// tail

const LOG_LINES: [(&str, &str); 8] = [
    (
        "web/client-7f8b989dbd-hvf4x 10.8.1.5",
        "[2026-11-21T09:28:14.480Z] \"POST /shop.checkout.v1.Checkout/Pay HTTP/2\" 200 URX,UF upstream_reset_before_response_started{connection_failure} - \"delayed connect error: 111\" 45 0 3 - \"-\" \"grpc-go/1.75\" \"5e2f7a31-0c\" \"checkout.shop:50051\" \"10.8.0.14:50051\" outbound|50051|v2|checkout.shop.svc.cluster.local - 10.96.14.3:50051 10.8.1.5:40122 - canary",
    ),
    (
        "web/client-7f8b989dbd-hvf4x 10.8.1.5",
        "[2026-11-21T09:28:15.102Z] \"POST /shop.checkout.v1.Checkout/Pay HTTP/2\" 200 UT response_timeout - \"-\" 45 0 3000 - \"-\" \"grpc-go/1.75\" \"5e2f7a31-0d\" \"checkout.shop:50051\" \"10.8.0.11:50051\" outbound|50051|v1|checkout.shop.svc.cluster.local 10.8.1.5:40124 10.96.14.3:50051 10.8.1.5:40122 - canary",
    ),
    (
        "shop/checkout-v1-6f7d9c5b8-lw9xn 10.8.0.11",
        "[2026-11-21T09:28:15.104Z] \"POST /shop.checkout.v1.Checkout/Pay HTTP/2\" 0 DR http2.remote_reset - \"-\" 45 0 2998 - \"-\" \"grpc-go/1.75\" \"5e2f7a31-0d\" \"checkout.shop:50051\" \"10.8.0.11:50051\" inbound|50051|| 127.0.0.6:50200 10.8.0.11:50051 10.8.1.5:40124 - default",
    ),
    (
        "web/client-7f8b989dbd-qm2rk 10.8.1.6",
        "[2026-11-21T09:28:16.020Z] \"POST /shop.cart.v1.Cart/Add HTTP/2\" 200 - via_upstream - \"-\" 22 9 5 4 \"-\" \"grpc-go/1.75\" \"5e2f7a31-0e\" \"cart.shop:50052\" \"10.8.0.21:50052\" outbound|50052||cart.shop.svc.cluster.local 10.8.1.6:40200 10.96.14.4:50052 10.8.1.6:40201 - default",
    ),
    (
        "shop/cart-5c9f8d7b6-k4n2p 10.8.0.21",
        "[2026-11-21T09:28:16.021Z] \"POST /shop.cart.v1.Cart/Add HTTP/2\" 200 - via_upstream - \"-\" 22 9 3 3 \"-\" \"grpc-go/1.75\" \"5e2f7a31-0e\" \"cart.shop:50052\" \"10.8.0.21:50052\" inbound|50052|| 127.0.0.6:50210 10.8.0.21:50052 10.8.1.6:40200 - default",
    ),
    (
        "web/client-7f8b989dbd-qm2rk 10.8.1.6",
        "[2026-11-21T09:28:17.300Z] \"POST /shop.catalog.v1.Catalog/List HTTP/2\" 200 UH no_healthy_upstream - \"-\" 12 0 0 - \"-\" \"grpc-go/1.75\" \"5e2f7a31-0f\" \"catalog.shop:50053\" \"-\" outbound|50053|stable|catalog.shop.svc.cluster.local - 10.96.14.5:50053 10.8.1.6:40230 - default",
    ),
    (
        "web/client-7f8b989dbd-qm2rk 10.8.1.6",
        "2026-11-21T09:28:17.400000Z\twarning\tenvoy config source/extensions/config_subscription/grpc/grpc_stream.h:226\tStreamAggregatedResources gRPC config stream to xds-grpc closed: 14\tthread=12",
    ),
    (
        "payments/ledger-0 10.8.2.3",
        "[2026-11-21T09:28:18.000Z] \"POST /shop.ledger.v1.Ledger/Book HTTP/2\" 200 - rbac_access_denied_matched_policy[none] - \"-\" 31 0 0 - \"-\" \"grpc-go/1.75\" \"5e2f7a31-10\" \"ledger.payments:50055\" \"-\" inbound|50055|| - 10.8.2.3:50055 10.8.0.11:41000 outbound_.50055_._.ledger.payments.svc.cluster.local default",
    ),
];

fn origin(pod: &str) -> LogOrigin {
    let (path, ip) = pod.split_once(' ').unwrap_or_default();
    let (namespace, pod) = path.split_once('/').unwrap_or_default();
    LogOrigin {
        pod: Some(pod.to_owned()),
        namespace: Some(namespace.to_owned()),
        container: None,
        ip: Some(ip.to_owned()),
    }
}

/// The names that a live run gives to the addresses of pods.
fn address_names() -> AddressNames {
    let origins = LOG_LINES.iter().map(|(pod, _)| origin(pod));
    AddressNames(origins.filter_map(|origin| Some((origin.ip?, origin.pod?))).collect())
}

/// The lines of several pods.
pub(crate) fn tail_lines() -> Vec<TailLine> {
    let mut reader = LogReader::default();
    let mut lines = Vec::new();
    for (pod, text) in LOG_LINES {
        if let LogLine::Access(access) = reader.read(text.as_bytes()) {
            lines.push(TailLine::new(&access, &diagnose(&access), &origin(pod), &address_names()));
        }
    }
    lines
}

/// The same lines, joined by request.
pub(crate) fn tail_calls() -> Vec<TailCall> {
    let mut joiner = CallJoiner::default();
    let start_ms = |index: usize| i64::try_from(index).unwrap_or_default();
    let lines = tail_lines().into_iter().enumerate();
    let mut calls: Vec<TailCall> = lines.flat_map(|(index, line)| joiner.add(line, start_ms(index), true)).collect();
    calls.extend(joiner.finish());
    calls
}

/// The summary of the lines, each of them logged several times.
pub(crate) fn tail_summary() -> TailSummary {
    let mut counter = SummaryCounter::default();
    let mut reader = LogReader::default();
    for (index, (_, text)) in LOG_LINES.iter().enumerate() {
        for _ in 0..=(LOG_LINES.len() - index) * 3 {
            match reader.read(text.as_bytes()) {
                LogLine::Access(access) => {
                    let diagnosis = diagnose(&access);
                    counter.count_in_range(&diagnosis);
                    counter.add(&access, &diagnosis);
                }
                LogLine::Other(kind) => counter.count_other_line(kind),
            }
        }
    }
    TailSummary { ambiguous: 2, ungrouped: 5, ..counter.report() }
}

// inspect --live

fn checkout() -> ServiceReport {
    let pods = |ready, total| PodsReport { ready, total, unknown: 0, in_source: true };
    let backend = |subset: &str, weight: i64, pods| BackendReport {
        host: CHECKOUT.to_owned(),
        short_host: "checkout.shop".to_owned(),
        port: None,
        subset: Some(subset.to_owned()),
        weight: Some(weight),
        share_percent: Percent(weight as f64),
        state: BackendState::Ok,
        pods,
    };
    let workload = |version: &str, pods| WorkloadReport {
        name: format!("deployment checkout-{version}"),
        version: Some(version.to_owned()),
        pods,
        proxy: "native sidecar 1.31".to_owned(),
        exclusions: Vec::new(),
    };
    ServiceReport {
        namespace: "shop".to_owned(),
        name: "checkout".to_owned(),
        kind: Kind::Service.into(),
        host: CHECKOUT.to_owned(),
        resolution: "ClusterIP".to_owned(),
        external_name: None,
        ports: vec![PortReport {
            number: 50051,
            name: "grpc".to_owned(),
            app_protocol: None,
            protocol: Protocol::Grpc,
            decided_by: "port name \"grpc\"".to_owned(),
            evidence: vec!["Istio treats the port as gRPC".to_owned()],
            target_port: "50051".to_owned(),
            inbound: "handles each call".to_owned(),
            outbound: "balanced per call; HTTP/2 to the server".to_owned(),
            gateway: "HTTP/2 to the server".to_owned(),
        }],
        pods: pods(4, 4),
        proxies: ProxiesReport { present: 4, unknown: 0, total: 4 },
        routes: vec![RuleReport {
            object: (&object(Kind::VirtualService, "shop", "checkout")).into(),
            index: 0,
            name: Some("canary".to_owned()),
            matches: Vec::new(),
            action: RuleAction::Forward,
            status: None,
            delegate: None,
            backends: vec![backend("v1", 75, pods(3, 3)), backend("v2", 25, pods(1, 1))],
            timeout_ms: 3000,
            retries: RetriesReport {
                attempts: 2,
                retry_on: vec!["connect-failure".to_owned(), "refused-stream".to_owned(), "unavailable".to_owned()],
                status_codes: Vec::new(),
                per_try_timeout_ms: 0,
                owner: "istio default".to_owned(),
            },
            faults: Vec::new(),
            mirrors: Vec::new(),
            rewrites: Vec::new(),
        }],
        callers: Vec::new(),
        destination_rules: Vec::<ObjectReport>::new(),
        policies: Vec::new(),
        workloads: vec![workload("v1", pods(3, 3)), workload("v2", pods(1, 1))],
        tls: Vec::new(),
        authorization: Vec::new(),
        access: Vec::new(),
        gateways: Vec::new(),
        affected_by_gaps: Vec::new(),
        not_modelled: Vec::new(),
        finding_counts: BTreeMap::new(),
        has_grpc: true,
        live: None,
    }
}

/// The page of a Service with what its callers' Envoys run and counted. `period` decides how much they counted.
pub(crate) fn inspect_live(period: CountingPeriod) -> InspectReport {
    let balance = match period {
        CountingPeriod::BetweenReadings => balance_uneven(),
        CountingPeriod::SinceEndpointAdded => balance_even(),
    };
    let BalanceReport { callers, calls, endpoints, verdict, cause, .. } = balance;
    let distribution = Some(DistributionReport { period, callers, calls, endpoints, verdict, cause });
    let proxies = diff().proxies;
    let counts = diff().counts.proxies;
    InspectReport {
        kind: "Inspect",
        version: 1,
        istio_version: "1.31".to_owned(),
        services: vec![ServiceReport { live: Some(LiveServiceReport { proxies, distribution }), ..checkout() }],
        findings: Vec::new(),
        ignored: 0,
        undecided: BTreeMap::new(),
        gaps: Vec::new(),
        live: Some(LiveReport { time: "2026-11-21T09:30:00Z".to_owned(), proxies: counts }),
    }
}

#[test]
fn balance_samples_have_the_verdicts_of_their_names() {
    let verdicts = [balance_even(), balance_uneven(), balance_pinned(), balance_too_few()].map(|report| report.verdict);
    use BalanceVerdict::{Even, Pinned, TooFewCalls, Uneven};
    assert_eq!(verdicts, [Even, Uneven, Pinned, TooFewCalls]);
}
