//! Who calls: words to proxies, and the classes of callers that may get different answers.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::cli::failure::Failure;
use crate::mesh::Mesh;
use crate::mesh::ids::{Labels, Namespace, WorkloadId};
use crate::mesh::service::{Resolution, Service};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::mesh::xds::{Caller, CallerKind, ProxyConfig};
use crate::report::route::{CallerName, RouteReport, title};
use crate::schema::Kind;
use crate::snapshot::SourceKind;

/// A caller as it was named.
#[derive(Debug, Clone)]
pub(super) struct NamedCaller {
    pub(super) title: CallerName,
    pub(super) caller: Caller,
    pub(super) class: CallerKey,
}

/// What tells callers apart: kind, namespace, the labels that some object reads, and the workload where its own
/// address or its Services matter.
pub(super) type CallerKey = (CallerKind, Namespace, Vec<(String, String)>, Option<WorkloadId>);

/// Callers that were asked for already, and one proxy for each class of them.
pub(super) struct ProxyConfigs<'m> {
    mesh: &'m Mesh<'m>,
    named: HashMap<String, NamedCaller>,
    of_class: HashMap<CallerKey, ProxyConfig<'m>>,
}

impl<'m> ProxyConfigs<'m> {
    pub(super) fn new(mesh: &'m Mesh<'m>) -> Self {
        Self { mesh, named: HashMap::new(), of_class: HashMap::new() }
    }

    /// The caller of a word.
    pub(super) fn named(&mut self, word: &str) -> Result<&NamedCaller, Failure> {
        if !self.named.contains_key(word) {
            let (title, caller) = parse(self.mesh, word)?;
            let class = self.class(&caller);
            self.named.insert(word.to_owned(), NamedCaller { title, caller, class });
        }
        Ok(&self.named[word])
    }

    /// The caller of a word, and a proxy of its class.
    pub(super) fn find(&mut self, word: &str) -> Result<(&NamedCaller, &ProxyConfig<'m>), Failure> {
        self.named(word)?;
        let named = &self.named[word];
        let outbound = self
            .of_class
            .entry(named.class.clone())
            .or_insert_with(|| ProxyConfig::new(self.mesh, named.caller.clone()));
        Ok((named, outbound))
    }

    fn class(&self, caller: &Caller) -> CallerKey {
        let own_pods = |service: &Service| matches!(&service.resolution, Resolution::Headless | Resolution::Entry(_));
        let alone = |id: &WorkloadId| caller.kind == CallerKind::Gateway || self.mesh.services_of(*id).any(own_pods);
        let labels = projected(&caller.labels, self.mesh.labels_read_of_callers());
        (caller.kind, caller.namespace.clone(), labels, caller.workload.filter(alone))
    }
}

/// Reads `NS/POD`, `NS/deploy/NAME`, `NS`, `gateway/NS/POD` and `gateway/NS/NAME`.
pub(super) fn parse(mesh: &Mesh<'_>, word: &str) -> Result<(CallerName, Caller), Failure> {
    let parts: Vec<&str> = word.split('/').collect();
    match parts.as_slice() {
        ["gateway", namespace, name] => {
            let id = gateway_pod(mesh, namespace, name).ok_or_else(|| {
                missing(mesh, &format!("no gateway pod {namespace}/{name}, nor pods of such a Gateway"))
            })?;
            let path = mesh.workload(id).object.path();
            let caller = Caller { kind: CallerKind::Gateway, ..Caller::of_workload(mesh, id) };
            Ok((title(CallerKind::Gateway, &path), caller))
        }
        [namespace] if !namespace.is_empty() => {
            let namespaces = || mesh.snapshot.of_kind(Kind::Namespace).map(|one| &*one.key.name);
            // Manifests may leave namespaces out; a cluster does not.
            let is_whole = mesh.snapshot.source != SourceKind::Manifests && namespaces().next().is_some();
            if is_whole && namespaces().all(|name| name != *namespace) {
                let hint = match workloads(mesh).find(|(_, one)| *one.object.name == **namespace) {
                    Some((_, pod)) => format!("a pod has this name: --caller {}", pod.object.path()),
                    None => "NS, NS/POD, NS/deploy/NAME, gateway/NS/POD or gateway/NS/NAME".to_owned(),
                };
                return Err(Failure::source(format!("there is no namespace {namespace}")).hint(hint));
            }
            let caller = Caller::in_namespace(Namespace::from(*namespace));
            Ok((CallerName((*namespace).to_owned()), caller))
        }
        [namespace, pod] => {
            let id = find(mesh, namespace, |workload| *workload.object.name == **pod)
                .ok_or_else(|| missing(mesh, &format!("no pod {pod} in namespace {namespace}")))?;
            let caller = Caller::of_workload(mesh, id);
            Ok((title(caller.kind, word), caller))
        }
        [namespace, kind, name] => {
            let kind = workload_kind(kind).ok_or_else(|| {
                Failure::usage(format!("\"{kind}\" is no kind of workload"))
                    .hint("one of deploy, sts, ds, job, rollout, pod")
            })?;
            let of_kind = |workload: &Workload| match &workload.owner {
                Some((owner, of)) => **owner == *kind && **of == **name,
                None => workload.object.kind.name() == kind && *workload.object.name == **name,
            };
            let id = find(mesh, namespace, of_kind)
                .ok_or_else(|| missing(mesh, &format!("no {kind} {name} with pods in namespace {namespace}")))?;
            let caller = Caller::of_workload(mesh, id);
            Ok((title(caller.kind, word), caller))
        }
        _ => Err(Failure::usage(format!("\"{word}\" names no caller"))
            .hint("NS/POD, NS/deploy/NAME, NS, gateway/NS/POD or gateway/NS/NAME")),
    }
}

fn missing(mesh: &Mesh<'_>, what: &str) -> Failure {
    let mut known: Vec<String> = mesh
        .workloads
        .iter()
        .filter(|workload| workload.proxy.is_meshed() != Some(false))
        .map(|workload| workload.object.path())
        .take(3)
        .collect();
    known.dedup();
    let failure = Failure::source(format!("there is {what}"));
    if known.is_empty() {
        failure.hint("the source has no pods; a namespace alone stands for any pod there")
    } else {
        failure.hint(format!("there are, for example, {}", known.join(", ")))
    }
}

fn workload_kind(word: &str) -> Option<&'static str> {
    Some(match word.to_ascii_lowercase().as_str() {
        "deploy" | "deployment" | "deployments" => "Deployment",
        "sts" | "statefulset" | "statefulsets" => "StatefulSet",
        "ds" | "daemonset" | "daemonsets" => "DaemonSet",
        "job" | "jobs" => "Job",
        "rollout" | "rollouts" => "Rollout",
        "pod" | "pods" | "po" => "Pod",
        _ => return None,
    })
}

fn find(mesh: &Mesh<'_>, namespace: &str, wanted: impl Fn(&Workload) -> bool) -> Option<WorkloadId> {
    workloads(mesh).find(|(_, one)| one.namespace().as_str() == namespace && wanted(one)).map(|(id, _)| id)
}

fn workloads<'a>(mesh: &'a Mesh<'_>) -> impl Iterator<Item = (WorkloadId, &'a Workload)> {
    mesh.workload_ids().map(|id| (id, mesh.workload(id)))
}

/// A gateway's pod: by its own name, by its workload's, by the Gateway that selects it, or by the Service before it.
fn gateway_pod(mesh: &Mesh<'_>, namespace: &str, name: &str) -> Option<WorkloadId> {
    let own =
        |one: &Workload| *one.object.name == *name || one.owner.as_ref().is_some_and(|(_, owner)| **owner == *name);
    let labelled = |one: &Workload| one.labels.get("gateway.networking.k8s.io/gateway-name") == Some(name);
    let selected = mesh
        .find_istio_gateway(&Namespace::from(namespace), name)
        .and_then(|gateway| gateway.workloads.first().copied());
    let behind = || {
        let id = mesh.find_service(namespace, name)?;
        mesh.service(id).workloads.first().copied()
    };
    find(mesh, namespace, own).or_else(|| find(mesh, namespace, labelled)).or(selected).or_else(behind)
}

/// One report for each class of callers with an answer of its own; the callers of a class are named in it.
pub(super) fn classes<'m>(
    mesh: &'m Mesh<'m>,
    report: impl Fn(&ProxyConfig<'m>, &CallerName) -> RouteReport,
) -> Vec<(RouteReport, Caller)> {
    let mut reports: Vec<(RouteReport, Caller)> = Vec::new();
    for (name, caller) in representatives(mesh) {
        let outbound = ProxyConfig::new(mesh, caller);
        let mut one = report(&outbound, &name);
        // A gateway that does not serve the host is no caller of it.
        let serves = !matches!(one.outcome, "closed" | "no-route" | "tcp");
        if outbound.caller.kind == CallerKind::Gateway && !serves {
            continue;
        }
        let known = reports.iter_mut().find(|(have, _)| {
            one.caller.clone_from(&have.caller);
            one.callers.clone_from(&have.callers);
            *have == one
        });
        match known {
            Some((have, _)) => have.callers.push(name.0),
            None => {
                one.caller.clone_from(&name.0);
                one.callers = vec![name.0];
                reports.push((one, outbound.caller));
            }
        }
    }
    reports
}

/// A caller for each namespace with meshed pods, and for each set of labels there that some object reads; gateways.
fn representatives(mesh: &Mesh<'_>) -> Vec<(CallerName, Caller)> {
    let read = mesh.labels_read_of_callers();
    let mut sidecars: BTreeMap<(Namespace, Vec<(String, String)>), WorkloadId> = BTreeMap::new();
    let mut gateways: BTreeMap<(Namespace, String), WorkloadId> = BTreeMap::new();
    for (id, workload) in workloads(mesh) {
        let namespace = workload.namespace().clone();
        match workload.proxy {
            ProxyKind::Gateway(_) => {
                gateways.entry((namespace, workload.title())).or_insert(id);
            }
            _ if workload.proxy.is_meshed() == Some(false) || workload.object.kind == Kind::WorkloadEntry => {}
            _ => {
                sidecars.entry((namespace, projected(&workload.labels, read))).or_insert(id);
            }
        }
    }
    let mut found = Vec::new();
    for ((namespace, labels), id) in &sidecars {
        let text: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let name = if text.is_empty() { namespace.to_string() } else { format!("{namespace} ({})", text.join(",")) };
        found.push((CallerName(name), Caller::of_workload(mesh, *id)));
    }
    if found.is_empty() {
        // Manifests without pods: each namespace of a Service stands for its callers.
        let namespaces: BTreeSet<&Namespace> = mesh.services.iter().map(Service::namespace).collect();
        found.extend(
            namespaces
                .into_iter()
                .map(|namespace| (CallerName(namespace.to_string()), Caller::in_namespace(namespace.clone()))),
        );
    }
    found.extend(gateways.values().map(|id| {
        let path = mesh.workload(*id).object.path();
        (title(CallerKind::Gateway, &path), Caller::of_workload(mesh, *id))
    }));
    found
}

fn projected(labels: &Labels, read: &BTreeSet<String>) -> Vec<(String, String)> {
    let known = read.iter().filter_map(|key| labels.get(key).map(|value| (key.clone(), value.to_owned())));
    known.collect()
}
