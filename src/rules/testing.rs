//! Test helpers for rules: run a rule on a few lines of YAML and compare its findings.

use std::sync::Arc;

use super::select::FindingSelection;
use super::{Finding, Rule, RulesOutcome};
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::counters::EndpointCounters;
use crate::envoy::endpoint::EndpointAssignment;
use crate::envoy::sync::{XdsConnection, XdsSyncState};
use crate::mesh::xds::{Caller, ProxyConfig};
use crate::mesh::{ResolveOptions, resolve};
use crate::snapshot::live::{LiveProxy, LiveState};
use crate::snapshot::manifest::{OnMalformed, read};
use crate::snapshot::{Gap, GapKind, Snapshot, SourceKind, SourceText};

/// Reads YAML as a complete cluster (`SourceKind::Demo`): objects that are not in the text do not exist.
pub(super) fn snapshot(yaml: &str) -> Snapshot {
    let mut snapshot = Snapshot::new(SourceKind::Demo);
    let text = Arc::new(SourceText { path: "case.yaml".to_owned(), text: yaml.to_owned() });
    read(&mut snapshot, text, "shop", OnMalformed::Stop).expect("the YAML is a valid manifest");
    snapshot
}

fn run(rule: &'static Rule, snapshot: &Snapshot) -> RulesOutcome {
    let mesh = resolve(snapshot, &ResolveOptions::default());
    let mut findings = super::Findings::new(&mesh);
    (rule.check)(&mesh, &mut findings);
    let (findings, undecided) = findings.into_parts();
    RulesOutcome { findings, undecided, ..RulesOutcome::default() }
}

/// The findings of a rule on a YAML text.
pub(super) fn findings(rule: &'static Rule, yaml: &str) -> Vec<Finding> {
    run(rule, &snapshot(yaml)).findings
}

/// Asserts that a rule reports exactly these findings, each as `severity Kind namespace/name field`.
#[track_caller]
pub(super) fn assert_findings(rule: &'static Rule, yaml: &str, expected: &[&str]) {
    assert_eq!(summaries(&findings(rule, yaml)), expected, "{yaml}");
}

/// `severity Kind namespace/name field` of each finding, which must have a message, an impact and a fix.
#[track_caller]
fn summaries(findings: &[Finding]) -> Vec<String> {
    for finding in findings {
        assert!(!finding.message.is_empty() && !finding.impact.is_empty() && !finding.fix.is_empty(), "{finding:?}");
    }
    findings.iter().map(|finding| format!("{} {} {}", finding.severity, finding.object, finding.field)).collect()
}

/// Asserts that a rule reports nothing and counts an undecided finding when a kind that it needs could not be read.
#[track_caller]
pub(super) fn assert_undecided_on_gap(rule: &'static Rule, yaml: &str) {
    assert!(!findings(rule, yaml).is_empty(), "the rule must report a finding without the gap");
    for kind in rule.needs {
        let mut snapshot = snapshot(yaml);
        snapshot.gaps.push(Gap::of_kind(*kind, kind.name(), "forbidden", GapKind::Forbidden));
        let outcome = run(rule, &snapshot);
        assert!(outcome.findings.is_empty(), "{}: reports a finding although {kind:?} is a gap", rule.code);
        assert!(
            outcome.undecided.contains_key(rule.code),
            "{}: a gap of {kind:?} must be counted as undecided",
            rule.code
        );
    }
}

/// A Service in `shop` with pods `app: NAME`.
pub(super) fn service(name: &str, port: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{selector: {{app: {name}}}, clusterIP: 10.96.0.9, ports: [{port}]}}\n"
    )
}

/// A ready pod in `shop` with a sidecar, labels `app: APP, version: VERSION`.
pub(super) fn pod(app: &str, version: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {app}-{version}, labels: {{app: {app}, version: {version}}}}}\n\
         spec: {{containers: [{{name: app, image: i, ports: [{{name: api, containerPort: 50051}}]}}, {{name: istio-proxy, image: 'proxyv2:1.31.0', args: [proxy, sidecar]}}]}}\n\
         status: {{phase: Running, podIP: 10.0.0.1, conditions: [{{type: Ready, status: 'True'}}]}}\n"
    )
}

/// An Istio networking object in `shop`.
pub(super) fn istio(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

/// An Istio security object in `shop`.
pub(super) fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n")
}

#[test]
fn every_rule_is_silent_on_a_healthy_service() {
    let yaml = service("checkout", "{name: grpc, port: 50051}")
        + &pod("checkout", "v1")
        + &pod("checkout", "v2")
        + &istio(
            "DestinationRule",
            "checkout",
            "{host: checkout, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
        )
        + &istio(
            "VirtualService",
            "checkout",
            "{hosts: [checkout], http: [{route: [{destination: {host: checkout, subset: v1}, weight: 90}, {destination: {host: checkout, subset: v2}, weight: 10}], \
             retries: {attempts: 2, retryOn: 'connect-failure,unavailable'}, timeout: 2s}]}",
        );
    let snapshot = snapshot(&yaml);
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    assert_eq!(super::run(&mesh, &FindingSelection::default()).findings, []);
}

/// Services `a` and `b` on gRPC ports, each with a pod with a sidecar, and their EndpointSlices.
pub(super) fn live_mesh() -> String {
    let slice = |name: &str, ip: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\naddressType: IPv4\n\
             metadata: {{name: {name}-x, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             ports: [{{name: grpc, port: 50051}}]\nendpoints: [{{addresses: [{ip}], conditions: {{ready: true}}, targetRef: {{kind: Pod, name: {name}-v1}}}}]\n"
        )
    };
    let port = "{name: grpc, port: 50051}";
    [
        service("a", port),
        service("b", port).replace("10.96.0.9", "10.96.0.10"),
        pod("a", "v1"),
        pod("b", "v1").replace("10.0.0.1", "10.0.0.2"),
        slice("a", "10.0.0.1"),
        slice("b", "10.0.0.2"),
    ]
    .concat()
}

/// Live state of one proxy.
pub(super) struct LiveCase {
    /// Configuration that the proxy runs.
    pub(super) running: RunningConfig,
    /// Sync state that istiod reports.
    pub(super) sync: XdsSyncState,
    /// Two readings of the endpoint counters.
    pub(super) counters: (Option<Vec<EndpointCounters>>, Option<Vec<EndpointCounters>>),
}

/// Like [`assert_findings`], with a live state read at 09:00:00 in which every proxy runs its desired configuration.
/// `change` is called with the pod name and the state of each proxy, and may alter it.
#[track_caller]
pub(super) fn assert_live_findings(
    rule: &'static Rule,
    yaml: &str,
    change: impl Fn(&str, &mut LiveCase),
    expected: &[&str],
) {
    let mut snapshot = snapshot(yaml);
    let mut live = LiveState::new("2026-11-21T09:00:00Z".to_owned());
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    for id in mesh.workload_ids() {
        let desired = ProxyConfig::new(&mesh, Caller::of_workload(&mesh, id));
        let clusters: Vec<_> = desired.clusters();
        let address = |host: &str| if host.starts_with("a.") { "10.0.0.1:50051" } else { "10.0.0.2:50051" };
        let endpoints = clusters.iter().filter(|config| config.has_endpoints).map(|config| EndpointAssignment {
            cluster: config.cluster.name.clone(),
            healthy: [address(config.cluster.name.rsplit('|').next().unwrap_or_default()).to_owned()].into(),
            unhealthy: <_>::default(),
            cluster_ids: <_>::default(),
        });
        let running = RunningConfig {
            routes: desired.route_tables().into_iter().map(|config| config.table).collect(),
            endpoints: endpoints.collect(),
            clusters: clusters.into_iter().map(|config| config.cluster).collect(),
            rejected: Vec::new(),
            secrets: None,
        };
        let name = mesh.workload(id).object.name.to_string();
        let mut case =
            LiveCase { running, sync: XdsSyncState::Connected(XdsConnection::default()), counters: <_>::default() };
        change(&name, &mut case);
        let LiveCase { running, sync, counters: counted } = case;
        let answer = live.record_config(running);
        live.insert(
            "shop".to_owned(),
            name,
            LiveProxy { sync, response: answer, counters: counted, transient: Vec::new() },
        );
    }
    drop(mesh);
    snapshot.live = Some(live);
    let reported = summaries(&run(rule, &snapshot).findings);
    assert_eq!(reported, expected, "{yaml}");
}
