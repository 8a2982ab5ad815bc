//! Resolves the targets of the command line to pod selections.

use super::TailArgs;
use crate::cli::failure::Failure;
use crate::cli::target::Target;
use crate::cluster::ClusterErrorKind;
use crate::cluster::client::ApiServer;
use crate::cluster::logs::PodSelection;
use crate::mesh::GATEWAY_NAME_LABEL;
use crate::schema::Kind;

/// The pods to read.
pub(super) struct TailTargets {
    pub(super) selections: Vec<PodSelection>,
    /// With `--callers`: the hosts of the Service in each namespace. Only calls to them are selected.
    pub(super) hosts: Vec<String>,
}

/// How the pods of a kind are resolved.
enum PodLookup {
    /// By the object's selector: API path and plural name of the kind.
    Selector(&'static str, &'static str),
    /// The target is a pod.
    Pod,
    /// An Istio Gateway by its selector, a Gateway API Gateway by the label of its pods.
    Gateway,
    /// By a label with the object's name.
    Label(&'static str),
}

fn lookup_of(kind: Kind) -> Option<PodLookup> {
    let apps = "/apis/apps/v1";
    Some(match kind {
        Kind::Service => PodLookup::Selector("/api/v1", "services"),
        Kind::Deployment => PodLookup::Selector(apps, "deployments"),
        Kind::ReplicaSet => PodLookup::Selector(apps, "replicasets"),
        Kind::StatefulSet => PodLookup::Selector(apps, "statefulsets"),
        Kind::DaemonSet => PodLookup::Selector(apps, "daemonsets"),
        Kind::Rollout => PodLookup::Selector("/apis/argoproj.io/v1alpha1", "rollouts"),
        Kind::Job => PodLookup::Label("batch.kubernetes.io/job-name"),
        Kind::IstioGateway | Kind::Gateway => PodLookup::Gateway,
        Kind::Pod => PodLookup::Pod,
        _ => return None,
    })
}

/// Resolves the targets. `namespaces` is `None` for all namespaces.
pub(super) async fn resolve_targets(
    server: &ApiServer,
    arguments: &TailArgs,
    namespaces: Option<&[String]>,
) -> Result<TailTargets, Failure> {
    let mut resolved = TailTargets { selections: Vec::new(), hosts: Vec::new() };
    let scope = || match namespaces {
        Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        None => vec![None],
    };
    if let Some(labels) = &arguments.selector {
        for namespace in scope() {
            resolved.selections.push(PodSelection { namespace, labels: labels.clone(), name: None });
        }
    }
    for text in &arguments.targets {
        let unsupported = |cause: String| {
            Failure::usage(format!("cannot read \"{text}\""))
                .cause(cause)
                .hint("use svc, deploy, rs, sts, ds, job, rollout, gateway, or pod")
        };
        let target = Target::parse(text).map_err(|error| unsupported(error.to_string()))?;
        let kind = target.kind.unwrap_or(Kind::Service);
        let Some(lookup) = lookup_of(kind) else {
            return Err(unsupported(format!("{} is not a kind with pods", kind.name())));
        };
        let is_service = kind == Kind::Service;
        let name = &*target.name;
        if arguments.callers && (!is_service || !resolved.hosts.is_empty()) {
            return Err(Failure::usage("--callers needs exactly one Service"));
        }
        let target_namespaces: Vec<String> = match (target.namespace, namespaces) {
            (Some(namespace), _) => vec![namespace],
            (None, Some(namespaces)) => namespaces.to_vec(),
            (None, None) => {
                return Err(Failure::usage(format!("cannot read {text} in all namespaces"))
                    .hint("set its namespace with -n, or select pods by labels with -l and -A"));
            }
        };
        let mut missing = None;
        let before = resolved.selections.len();
        for namespace in &target_namespaces {
            match resolve_selection(server, namespace, &lookup, name).await {
                Ok(selection) if arguments.callers => {
                    drop(selection);
                    resolved.hosts.push(format!("{name}.{namespace}.svc"));
                    resolved.selections.push(PodSelection { namespace: None, labels: String::new(), name: None });
                }
                Ok(selection) => resolved.selections.push(selection),
                // The object need not exist in every namespace.
                Err(error) if error.kind == ClusterErrorKind::NotFound && target_namespaces.len() > 1 => {
                    missing = Some(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let (true, Some(error)) = (resolved.selections.len() == before, missing) {
            return Err(error.into());
        }
    }
    Ok(resolved)
}

async fn resolve_selection(
    server: &ApiServer,
    namespace: &str,
    lookup: &PodLookup,
    name: &str,
) -> Result<PodSelection, crate::cluster::ClusterError> {
    let by_labels = |labels| PodSelection { namespace: Some(namespace.to_owned()), labels, name: None };
    Ok(match lookup {
        PodLookup::Selector(group, plural) => by_labels(server.pod_selector_of(namespace, group, plural, name).await?),
        PodLookup::Label(key) => by_labels(format!("{key}={name}")),
        PodLookup::Pod => {
            PodSelection { namespace: Some(namespace.to_owned()), labels: String::new(), name: Some(name.to_owned()) }
        }
        PodLookup::Gateway => {
            // An Istio Gateway selects pods in any namespace.
            match server.pod_selector_of(namespace, "/apis/networking.istio.io/v1", "gateways", name).await {
                Ok(labels) => PodSelection { namespace: None, labels, name: None },
                Err(error) if error.kind == ClusterErrorKind::NotFound => {
                    by_labels(format!("{GATEWAY_NAME_LABEL}={name}"))
                }
                Err(error) => return Err(error),
            }
        }
    })
}
