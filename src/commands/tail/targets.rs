//! From the words of the command line to the pods whose logs are read.

use super::TailArgs;
use crate::cli::failure::Failure;
use crate::cluster::ClusterErrorKind;
use crate::cluster::client::ApiServer;
use crate::cluster::logs::PodSelection;

/// What is read.
pub(super) struct TailTargets {
    /// Pods.
    pub(super) selections: Vec<PodSelection>,
    /// The host to which calls are wanted, with `--callers`.
    pub(super) hosts: Vec<String>,
}

/// What a kind's pods are found by.
enum PodLookup {
    /// The selector of an object: group and plural.
    Selector(&'static str, &'static str),
    /// The pod itself.
    Itself,
    /// A Gateway: Istio's by its selector, Gateway API's by the label of its pods.
    Gateway,
    /// All pods that this Job's label names.
    Label(&'static str),
}

fn pods_of(kind: &str) -> Option<PodLookup> {
    let apps = "/apis/apps/v1";
    Some(match kind.to_ascii_lowercase().as_str() {
        "svc" | "service" | "services" => PodLookup::Selector("/api/v1", "services"),
        "deploy" | "deployment" | "deployments" => PodLookup::Selector(apps, "deployments"),
        "rs" | "replicaset" | "replicasets" => PodLookup::Selector(apps, "replicasets"),
        "sts" | "statefulset" | "statefulsets" => PodLookup::Selector(apps, "statefulsets"),
        "ds" | "daemonset" | "daemonsets" => PodLookup::Selector(apps, "daemonsets"),
        "rollout" | "rollouts" => PodLookup::Selector("/apis/argoproj.io/v1alpha1", "rollouts"),
        "job" | "jobs" => PodLookup::Label("batch.kubernetes.io/job-name"),
        "gw" | "gateway" | "gateways" => PodLookup::Gateway,
        "po" | "pod" | "pods" => PodLookup::Itself,
        _ => return None,
    })
}

/// Finds them. `places` are the namespaces meant, `None` is all.
pub(super) async fn find(
    server: &ApiServer,
    arguments: &TailArgs,
    places: Option<&[String]>,
) -> Result<TailTargets, Failure> {
    let mut found = TailTargets { selections: Vec::new(), hosts: Vec::new() };
    let everywhere = || match places {
        Some(places) => places.iter().map(|place| Some(place.clone())).collect(),
        None => vec![None],
    };
    if let Some(labels) = &arguments.selector {
        for namespace in everywhere() {
            found.selections.push(PodSelection { namespace, labels: labels.clone(), name: None });
        }
    }
    for word in &arguments.targets {
        let (kind, name) = word.split_once('/').unwrap_or(("svc", word));
        let Some(pods_of) = pods_of(kind) else {
            return Err(Failure::usage(format!("\"{kind}\" is not a kind with pods"))
                .hint("one of svc, deploy, rs, sts, ds, job, rollout, gateway, pod"));
        };
        let is_service = matches!(pods_of, PodLookup::Selector(_, "services"));
        // `checkout.shop` names its namespace; names of other kinds may hold dots themselves.
        let (name, own) = match name.split_once('.') {
            Some((name, rest)) if is_service => (name, rest.split('.').next()),
            _ => (name, None),
        };
        if arguments.callers && (!is_service || !found.hosts.is_empty()) {
            return Err(Failure::usage("--callers needs one Service"));
        }
        let namespaces: Vec<String> = match (own, places) {
            (Some(own), _) => vec![own.to_owned()],
            (None, Some(places)) => places.to_vec(),
            (None, None) => {
                return Err(Failure::usage(format!("in which namespace is {kind}/{name}?"))
                    .hint("-A goes with labels (-l); name the namespace with -n"));
            }
        };
        let mut missing = None;
        let before = found.selections.len();
        for namespace in &namespaces {
            match selection(server, namespace, &pods_of, name).await {
                Ok(selection) if arguments.callers => {
                    drop(selection);
                    found.hosts.push(format!("{name}.{namespace}.svc"));
                    found.selections.push(PodSelection { namespace: None, labels: String::new(), name: None });
                }
                Ok(selection) => found.selections.push(selection),
                // Of several namespaces one is enough.
                Err(error) if error.trouble == ClusterErrorKind::NotFound && namespaces.len() > 1 => {
                    missing = Some(error)
                }
                Err(error) => return Err(error.into()),
            }
        }
        if let (true, Some(error)) = (found.selections.len() == before, missing) {
            return Err(error.into());
        }
    }
    Ok(found)
}

async fn selection(
    server: &ApiServer,
    namespace: &str,
    pods_of: &PodLookup,
    name: &str,
) -> Result<PodSelection, crate::cluster::ClusterError> {
    let by_labels = |labels| PodSelection { namespace: Some(namespace.to_owned()), labels, name: None };
    Ok(match pods_of {
        PodLookup::Selector(group, plural) => by_labels(server.selector(namespace, group, plural, name).await?),
        PodLookup::Label(key) => by_labels(format!("{key}={name}")),
        PodLookup::Itself => {
            PodSelection { namespace: Some(namespace.to_owned()), labels: String::new(), name: Some(name.to_owned()) }
        }
        PodLookup::Gateway => {
            // Istio's Gateway picks pods in any namespace.
            match server.selector(namespace, "/apis/networking.istio.io/v1", "gateways", name).await {
                Ok(labels) => PodSelection { namespace: None, labels, name: None },
                Err(error) if error.trouble == ClusterErrorKind::NotFound => {
                    by_labels(format!("gateway.networking.k8s.io/gateway-name={name}"))
                }
                Err(error) => return Err(error),
            }
        }
    })
}
