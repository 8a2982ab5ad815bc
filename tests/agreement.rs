//! `inspect` and `route` cannot disagree: if `route` says that a gRPC call fails, `inspect` reports an error or a warning
//! on an object of the call, under a code that explains this kind of failure. And if no call of a mesh fails, `inspect`
//! reports no error that says that calls do.
//!
//! The calls represent all others: for every port with gRPC evidence and every caller, one call for each match of the
//! rules that apply to the host, and one that no rule names; and the same through every gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use grpcmesh::mesh::ids::ObjectRef;
use grpcmesh::mesh::service::Resolution;
use grpcmesh::mesh::xds::{
    BackendState, Call, CallDecision, CallOutcome, CallProtocol, Caller, CallerKind, CompiledBackend, EXAMPLE_PATH,
    ProxyConfig, RouteOwner, UpstreamProtocol,
};
use grpcmesh::mesh::{Mesh, ResolveOptions, resolve};
use grpcmesh::rules::select::FindingSelection;
use grpcmesh::rules::{self, Finding, Severity};
use grpcmesh::snapshot::manifest::{OnMalformed, read};
use grpcmesh::snapshot::{Snapshot, SourceKind, SourceText};

/// Why a call, or a share of it, does not reach a gRPC server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Failure {
    NoCluster,
    NoEndpoints,
    Http1Upstream,
    NoRoute,
    Rejected,
    Unresolved,
    Closed,
    /// TLS of the caller does not fit that of a pod.
    Tls,
    /// The policies at a server deny it.
    Denied,
    /// A fault of the rule aborts it.
    Aborted,
}

impl Failure {
    /// The codes that explain the failure.
    fn codes(self) -> &'static [&'static str] {
        match self {
            Self::NoCluster => {
                &["GM107", "GM201", "GM203", "GM204", "GM214", "GM215", "GM216", "GM218", "GM222", "GM226"]
            }
            Self::NoEndpoints => &["GM110", "GM205", "GM702"],
            Self::Http1Upstream => &["GM101", "GM103", "GM104", "GM105"],
            Self::NoRoute => &["GM214", "GM218", "GM507"],
            Self::Rejected => &["GM225"],
            Self::Unresolved => &["GM702"],
            Self::Closed => &["GM501", "GM502", "GM506", "GM515"],
            Self::Tls => &["GM601", "GM602", "GM605", "GM606", "GM607", "GM609"],
            Self::Denied => &["GM603", "GM604", "GM606"],
            Self::Aborted => &["GM224"],
        }
    }
}

/// Disagreements that are correct, with the reason.
fn is_exception(mesh: &Mesh<'_>, tried: &TriedCall<'_>, failure: Failure) -> bool {
    match failure {
        // A call that no rule names is not one that the author of the rules meant to serve: GM207 (info) reports it.
        Failure::NoRoute => tried.call.path == EXAMPLE_PATH && tried.call.headers.is_empty(),
        // A proxy of a client resolves a headless Service by DNS. Without pods in manifests nothing is known about it.
        Failure::Unresolved => mesh.snapshot.source == SourceKind::Manifests,
        // A policy denies what its author does not want. GM603, GM604 and GM606 report those that cannot do what they say.
        Failure::Denied => true,
        // A fault for calls with a header is a test: GM224 reports those that ordinary calls meet.
        Failure::Aborted => !tried.call.headers.is_empty(),
        Failure::NoCluster
        | Failure::NoEndpoints
        | Failure::Http1Upstream
        | Failure::Rejected
        | Failure::Closed
        | Failure::Tls => false,
    }
}

/// A call with the decision about it.
struct TriedCall<'m> {
    caller: &'m Caller,
    call: Call,
    decision: CallDecision,
    /// The object of the host that is dialed, and the gateway.
    dialed: Vec<ObjectRef>,
}

impl TriedCall<'_> {
    /// The failures of the call, each with the objects that it concerns.
    fn failures(&self, mesh: &Mesh<'_>) -> Vec<(Failure, Vec<ObjectRef>)> {
        let decision = &self.decision;
        let whole = |failure| vec![(failure, self.objects(mesh))];
        match decision.outcome {
            CallOutcome::Forward => {
                let used = decision.backends.iter().filter(|backend| is_used(decision, backend));
                let mut failures = self.failures_at_servers(mesh);
                failures.extend(used.filter_map(|backend| {
                    let failure = match (backend.state, backend.upstream_protocol) {
                        (BackendState::NoCluster, _) => Failure::NoCluster,
                        (BackendState::NoEndpoints, _) => Failure::NoEndpoints,
                        (BackendState::Ok, Some(UpstreamProtocol::Http1)) => Failure::Http1Upstream,
                        _ => return None,
                    };
                    Some((failure, self.objects(mesh)))
                }));
                failures
            }
            CallOutcome::Tcp => self.failures_at_servers(mesh),
            CallOutcome::NoRoute => whole(Failure::NoRoute),
            CallOutcome::Rejected => whole(Failure::Rejected),
            CallOutcome::Unresolved => whole(Failure::Unresolved),
            CallOutcome::Closed => whole(Failure::Closed),
            // The author of a rule, or of an outbound traffic policy, wants these answers. A TCP stream arrives.
            CallOutcome::DirectResponse | CallOutcome::Redirect | CallOutcome::Blocked | CallOutcome::Passthrough => {
                Vec::new()
            }
        }
    }

    /// Failures between the caller's proxy and the application, and aborts by the caller's proxy.
    fn failures_at_servers(&self, mesh: &Mesh<'_>) -> Vec<(Failure, Vec<ObjectRef>)> {
        let authorization = mesh.authorize(self.caller, &self.call, &self.decision);
        let mut failures = Vec::new();
        for (backend, own) in self.decision.backends.iter().zip(&authorization.backends) {
            if !is_used(&self.decision, backend) {
                continue;
            }
            if own.servers.iter().any(|access| access.result.is_err()) {
                let mut objects = self.objects(mesh);
                let policies = mesh.security_policies.peer_authentications();
                objects.extend(policies.map(|policy| policy.object.clone()));
                failures.push((Failure::Tls, objects));
            }
            if own.decision.as_ref().is_some_and(|decision| decision.verdict.as_str() == "denied") {
                failures.push((Failure::Denied, self.objects(mesh)));
            }
        }
        let fault = self.decision.rule.as_ref().and_then(|rule| rule.http_rule.fault.as_ref());
        let abort = fault.and_then(|fault| fault.abort.as_ref());
        if abort.is_some_and(|abort| abort.share_percent() > 0.0) {
            failures.push((Failure::Aborted, self.objects(mesh)));
        }
        failures
    }

    /// The objects that decide about the call.
    fn objects(&self, mesh: &Mesh<'_>) -> Vec<ObjectRef> {
        let mut objects = self.dialed.clone();
        if let Some(rule) = &self.decision.rule {
            objects.push(rule.object.clone());
            objects.extend(rule.delegate.clone());
        }
        for backend in &self.decision.backends {
            objects.extend(backend.destination_rule.clone());
            objects.extend(backend.backend_tls_policy.clone());
            let entries = backend.host.as_ref().map_or(&[][..], |host| mesh.services_named(host.as_str()));
            objects.extend(entries.iter().map(|id| mesh.service(*id).object.clone()));
        }
        objects
    }

    fn describe(&self) -> String {
        let Call { authority, path, headers, .. } = &self.call;
        let gateway = if self.caller.kind == CallerKind::Gateway { "gateway " } else { "" };
        let backends: Vec<String> = self
            .decision
            .backends
            .iter()
            .map(|backend| format!("{} {:?} {:?}", backend.cluster, backend.state, backend.upstream_protocol))
            .collect();
        let rule = self.decision.rule.as_ref().map(|rule| format!("{} {}", rule.object, rule.field));
        format!(
            "{gateway}{} -> {authority}{path} {headers:?}: {:?} by {} to {backends:?} {}",
            self.caller.namespace,
            self.decision.outcome,
            rule.unwrap_or_default(),
            self.decision.message
        )
    }
}

/// Whether a backend gets a share of the calls.
fn is_used(decision: &CallDecision, backend: &CompiledBackend) -> bool {
    decision.backends.len() == 1 || backend.weight.unwrap_or(0) > 0
}

/// One caller for each namespace and set of labels that some object reads, of pods with a sidecar and of gateways.
fn callers(mesh: &Mesh<'_>) -> Vec<Caller> {
    let mut seen = BTreeSet::new();
    let mut callers = Vec::new();
    for id in mesh.workload_ids() {
        if mesh.workload(id).proxy.is_meshed() == Some(false) {
            continue;
        }
        let caller = Caller::of_workload(mesh, id);
        let labels: Vec<String> = match caller.kind {
            CallerKind::Gateway => caller.labels.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            CallerKind::Sidecar => {
                let keys = mesh.caller_label_keys().iter();
                keys.filter_map(|key| caller.labels.get(key).map(|value| format!("{key}={value}"))).collect()
            }
        };
        if seen.insert((caller.namespace.clone(), caller.kind, labels)) {
            callers.push(caller);
        }
    }
    callers
}

/// Calls from sidecars to every port with gRPC evidence.
fn calls_from_sidecar<'m>(mesh: &Mesh<'_>, proxy: &ProxyConfig<'_>, caller: &'m Caller) -> Vec<TriedCall<'m>> {
    let mut tried = Vec::new();
    for id in mesh.service_ids() {
        let service = mesh.service(id);
        // Calls that routes send to a port are made to another port, and tried there.
        let is_dialed = |port: &&grpcmesh::mesh::service::ServicePort| !port.evidence.iter().all(|fact| !fact.is_own());
        for port in service.ports.iter().filter(is_dialed) {
            // What a caller may not see, it does not call: nothing shows that it wants to.
            if mesh.route_owner(caller, id, port.number) == RouteOwner::Hidden
                || matches!(service.resolution, Resolution::ExternalName(_))
                || service.host.as_str().starts_with('*')
            {
                continue;
            }
            let mut examples = vec![Call { path: EXAMPLE_PATH.to_owned(), ..Call::default() }];
            if let RouteOwner::Config(owner) = mesh.route_owner(caller, id, port.number) {
                let config = mesh.route_configs().get(owner);
                for rule in &config.rules {
                    examples.extend(mesh.example_calls_of(config, rule, caller, None, port.number));
                }
            }
            for example in examples {
                let authority = if example.authority.is_empty() {
                    format!("{}:{}", service.host, port.number)
                } else {
                    example.authority.clone()
                };
                let dial = Some(service.host.as_str().to_owned());
                let call = Call { authority, dial, port: port.number, ..example };
                let decision = proxy.decide(&call);
                tried.push(TriedCall { caller, call, decision, dialed: vec![service.object.clone()] });
            }
        }
    }
    tried
}

/// Calls to every server of the gateway, one for each rule that sends calls to a port with gRPC evidence.
fn calls_through_gateway<'m>(mesh: &Mesh<'_>, proxy: &ProxyConfig<'_>, caller: &'m Caller) -> Vec<TriedCall<'m>> {
    let mut tried = Vec::new();
    let workload = caller.workload.expect("gateways are workloads");
    for gateway in mesh.istio_gateways.iter().filter(|gateway| gateway.workloads.contains(&workload)) {
        let name = format!("{}/{}", gateway.object.namespace, gateway.object.name);
        let forwards = gateway.spec.servers.iter().map(|server| {
            let protocol = server.port.as_ref().map_or("", |port| &port.protocol).to_ascii_uppercase();
            let mode = server.tls.as_ref().map(|tls| tls.mode.as_deref().unwrap_or("PASSTHROUGH"));
            matches!(&*protocol, "TLS" | "TCP") || mode.is_some_and(|mode| mode.ends_with("PASSTHROUGH"))
        });
        let forwarding: Vec<bool> = forwards.collect();
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = server.port.as_ref().and_then(|port| u16::try_from(port.number).ok()) else { continue };
            // The rules for calls are meant for another server: GM515 if there is none.
            if forwarding[index] && !forwarding.iter().all(|forwards| *forwards) {
                continue;
            }
            let protocol = match server.tls.as_ref().and_then(|tls| tls.mode.as_deref()) {
                Some("SIMPLE" | "MUTUAL" | "ISTIO_MUTUAL" | "OPTIONAL_MUTUAL") => CallProtocol::GrpcTls,
                _ => CallProtocol::Grpc,
            };
            for (_, config) in mesh.route_configs().iter() {
                let Some(bound) = config.gateways.iter().find(|bound| bound.to_string() == name) else { continue };
                let hosts = config.hosts.iter().filter(|host| {
                    let served = server.hosts.iter().filter_map(|served| match served.split_once('/') {
                        None | Some(("*", _)) => Some(served.rsplit('/').next().unwrap_or(served)),
                        Some((".", host)) => (gateway.object.namespace == config.namespace).then_some(host),
                        Some((namespace, host)) => (namespace == config.namespace.as_str()).then_some(host),
                    });
                    let mut overlaps = served.map(|served| {
                        served == "*" || served == host.as_str() || {
                            let suffix = served.strip_prefix('*').unwrap_or(served);
                            served.starts_with('*') && host.as_str().ends_with(suffix)
                        }
                    });
                    overlaps.any(|overlaps| overlaps)
                });
                for host in hosts {
                    let host = host.as_str().replace('*', "example");
                    for rule in &config.rules {
                        if !sends_to_grpc(mesh, config, rule, port) {
                            continue;
                        }
                        for example in mesh.example_calls_of(config, rule, caller, Some(bound), port) {
                            // A match on another authority is for another host.
                            if !example.path.starts_with('/') || !example.authority.is_empty() {
                                continue;
                            }
                            let call = Call { authority: host.clone(), port, protocol, ..example };
                            let decision = proxy.decide(&call);
                            let dialed = [vec![gateway.object.clone()], config.objects.clone()].concat();
                            tried.push(TriedCall { caller, call, decision, dialed });
                        }
                    }
                }
            }
        }
    }
    tried
}

fn sends_to_grpc(
    mesh: &Mesh<'_>,
    config: &grpcmesh::mesh::xds::RouteConfig,
    rule: &grpcmesh::mesh::xds::ConfigRule,
    port: u16,
) -> bool {
    let written = rule.http_rule(mesh, config);
    written.route.iter().filter_map(|backend| backend.destination.as_ref()).any(|destination| {
        let host = config.destination_host(mesh, destination);
        let Some(service) = mesh.find_host(host.as_str()).map(|id| mesh.service(id)) else { return false };
        let number = destination.port.as_ref().map_or(u32::from(port), |port| port.number);
        let port = u16::try_from(number).ok().and_then(|number| service.port(number));
        port.map_or_else(|| service.has_grpc_evidence(), |port| !port.evidence.is_empty())
    })
}

/// What the comparison of the meshes found.
#[derive(Default)]
struct Comparison {
    calls: usize,
    failing: usize,
    /// Failures without a finding.
    silent: Vec<(Failure, String)>,
    /// Errors that say that calls fail although none does.
    unfounded: Vec<(&'static str, String)>,
}

fn compare(title: &str, mesh: &Mesh<'_>, findings: &[Finding], comparison: &mut Comparison) {
    let callers = callers(mesh);
    let mut failed = false;
    for caller in &callers {
        let proxy = ProxyConfig::new(mesh, caller.clone());
        let calls = match caller.kind {
            CallerKind::Sidecar => calls_from_sidecar(mesh, &proxy, caller),
            CallerKind::Gateway => calls_through_gateway(mesh, &proxy, caller),
        };
        for tried in calls {
            comparison.calls += 1;
            let failures = tried.failures(mesh);
            comparison.failing += usize::from(!failures.is_empty());
            for (failure, objects) in failures {
                failed = true;
                let explains = |finding: &&Finding| {
                    finding.severity != Severity::Info
                        && failure.codes().contains(&finding.code)
                        && finding.objects().any(|object| {
                            objects.contains(object)
                                // Envoy rejects the table for a rule of any object in it, which the message names.
                                || (failure == Failure::Rejected && tried.decision.message.contains(&object.to_string()))
                                // Two servers with one name make Envoy reject the listener, with all other servers on it.
                                || (finding.code == "GM506" && tried.decision.message.starts_with("several servers"))
                        })
                };
                if !findings.iter().any(|finding| explains(&finding)) && !is_exception(mesh, &tried, failure) {
                    comparison.silent.push((failure, format!("{title}: {}", tried.describe())));
                }
            }
        }
    }
    if failed || has_other_calls(title, &callers) {
        return;
    }
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
    for finding in errors.filter(|finding| CALLS_FAIL.contains(&finding.code)) {
        let text = format!("{title}: {} {}: {}", finding.object, finding.field, finding.message);
        comparison.unfounded.push((finding.code, text));
    }
}

/// Codes whose errors say that calls fail. Errors of other codes say that what an object asks for has no effect, or that
/// the API server rejects it.
const CALLS_FAIL: [&str; 17] = [
    "GM104", "GM105", "GM201", "GM203", "GM204", "GM205", "GM215", "GM216", "GM222", "GM225", "GM226", "GM515",
    "GM601", "GM602", "GM607", "GM609", "GM702",
];

/// Whether errors of a mesh may be about calls that no call here represents. Without pods of callers no call is tried, and
/// the random meshes have rules for ports without evidence of gRPC and for hosts that no caller sees.
fn has_other_calls(title: &str, callers: &[Caller]) -> bool {
    callers.is_empty() || title.starts_with("sample-") || title.starts_with("m1-")
}

fn with_mesh<T>(source: SourceKind, texts: &[(String, String)], then: impl FnOnce(&Mesh<'_>, &[Finding]) -> T) -> T {
    let mut snapshot = Snapshot::new(source);
    for (path, text) in texts {
        let text = Arc::new(SourceText { path: path.clone(), text: text.clone() });
        read(&mut snapshot, text, "default", OnMalformed::KeepGoing).unwrap_or_else(|error| panic!("{error}"));
    }
    if source == SourceKind::Manifests {
        snapshot.add_gaps_for_absent_kinds();
    }
    let mesh = resolve(&snapshot, &ResolveOptions::default());
    let findings = rules::run(&mesh, &FindingSelection::default()).findings;
    then(&mesh, &findings)
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn yaml_files(folder: &str) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(repository(folder)).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

/// Disagreements of a kind that are printed.
const MAX_PRINTED: usize = 12;

/// Name, source, and the files with their contents.
type NamedMesh = (String, SourceKind, Vec<(String, String)>);

/// All meshes, each a title with its manifests.
fn meshes() -> Vec<NamedMesh> {
    let file = |path: &str| (path.to_owned(), std::fs::read_to_string(repository(path)).unwrap());
    let mut meshes = vec![
        ("demo".to_owned(), SourceKind::Demo, vec![file("src/demo/shop.yaml")]),
        ("healthy demo".to_owned(), SourceKind::Demo, vec![file("src/demo/healthy.yaml")]),
    ];
    for fixture in yaml_files("tests/fixtures/healthy") {
        meshes.push((format!("healthy {}", fixture.0), SourceKind::Manifests, vec![fixture]));
    }
    for fixture in yaml_files("tests/fixtures/failures") {
        meshes.push((format!("failures {}", fixture.0), SourceKind::Manifests, vec![fixture]));
    }
    let lab = file("tests/lab/manifests/mesh.yaml");
    for effect in yaml_files("tests/lab/effects") {
        meshes.push((format!("effect {}", effect.0), SourceKind::Manifests, vec![lab.clone(), effect]));
    }
    for case in json_lines("tests/fixtures/routes/cases.jsonl.gz") {
        let part = |name: &str| case[name].as_str().unwrap().to_owned();
        meshes.push((part("id"), SourceKind::Demo, vec![(part("id"), part("mesh"))]));
    }
    // Meshes with AuthorizationPolicies, PeerAuthentications and TLS settings.
    for case in json_lines("tests/fixtures/authorization/meshes.jsonl.gz") {
        let title = format!("authorization {}", case["id"].as_str().unwrap());
        let texts = vec![(title.clone(), case["yaml"].as_str().unwrap().to_owned())];
        meshes.push((title, SourceKind::Demo, texts));
    }
    meshes
}

fn json_lines(path: &str) -> Vec<serde_json::Value> {
    let compressed = std::fs::File::open(repository(path)).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// One paragraph for each kind of disagreement.
fn by_kind<K: Ord + Copy + std::fmt::Debug>(disagreements: &[(K, String)]) -> String {
    let mut kinds: BTreeMap<K, Vec<&str>> = BTreeMap::new();
    for (kind, text) in disagreements {
        kinds.entry(*kind).or_default().push(text);
    }
    let paragraphs = kinds.iter().map(|(kind, texts)| {
        let shown: Vec<&str> = texts.iter().take(MAX_PRINTED).copied().collect();
        format!("{kind:?}: {}\n  {}", texts.len(), shown.join("\n  "))
    });
    paragraphs.collect::<Vec<_>>().join("\n")
}

#[test]
fn inspect_and_route_agree_about_every_call() {
    let mut total = Comparison::default();
    let meshes = meshes();
    for (title, source, texts) in &meshes {
        with_mesh(*source, texts, |mesh, findings| compare(title, mesh, findings, &mut total));
    }
    let summary = format!("{} meshes, {} calls, {} of them fail", meshes.len(), total.calls, total.failing);
    assert!(total.calls > 1_000 && total.failing > 100, "{summary}");
    let (silent, unfounded) = (by_kind(&total.silent), by_kind(&total.unfounded));
    assert!(
        silent.is_empty() && unfounded.is_empty(),
        "{summary}\ncalls that fail without a finding:\n{silent}\nerrors without a call that fails:\n{unfounded}"
    );
}
