//! From the words of the command line to the pods whose logs are read.

use super::TailArgs;
use crate::cli::failure::Failure;
use crate::cluster::Trouble;
use crate::cluster::client::Server;
use crate::cluster::logs::Selection;

/// What is read.
pub(super) struct Targets {
    /// Pods.
    pub(super) selections: Vec<Selection>,
    /// The host to which calls are wanted, with `--callers`.
    pub(super) hosts: Vec<String>,
}

/// What a kind's pods are found by.
enum PodsOf {
    /// The selector of an object: group and plural.
    Selector(&'static str, &'static str),
    /// The pod itself.
    Itself,
    /// A Gateway: Istio's by its selector, Gateway API's by the label of its pods.
    Gateway,
    /// All pods that this Job's label names.
    Label(&'static str),
}

fn pods_of(kind: &str) -> Option<PodsOf> {
    let apps = "/apis/apps/v1";
    Some(match kind.to_ascii_lowercase().as_str() {
        "svc" | "service" | "services" => PodsOf::Selector("/api/v1", "services"),
        "deploy" | "deployment" | "deployments" => PodsOf::Selector(apps, "deployments"),
        "rs" | "replicaset" | "replicasets" => PodsOf::Selector(apps, "replicasets"),
        "sts" | "statefulset" | "statefulsets" => PodsOf::Selector(apps, "statefulsets"),
        "ds" | "daemonset" | "daemonsets" => PodsOf::Selector(apps, "daemonsets"),
        "rollout" | "rollouts" => PodsOf::Selector("/apis/argoproj.io/v1alpha1", "rollouts"),
        "job" | "jobs" => PodsOf::Label("batch.kubernetes.io/job-name"),
        "gw" | "gateway" | "gateways" => PodsOf::Gateway,
        "po" | "pod" | "pods" => PodsOf::Itself,
        _ => return None,
    })
}

/// Finds them. `places` are the namespaces meant, `None` is all.
pub(super) async fn find(server: &Server, arguments: &TailArgs, places: Option<&[String]>) -> Result<Targets, Failure> {
    let mut found = Targets { selections: Vec::new(), hosts: Vec::new() };
    let everywhere = || match places {
        Some(places) => places.iter().map(|place| Some(place.clone())).collect(),
        None => vec![None],
    };
    if let Some(labels) = &arguments.selector {
        for namespace in everywhere() {
            found.selections.push(Selection { namespace, labels: labels.clone(), name: None });
        }
    }
    for word in &arguments.targets {
        let (kind, name) = word.split_once('/').unwrap_or(("svc", word));
        let Some(pods_of) = pods_of(kind) else {
            return Err(Failure::usage(format!("\"{kind}\" is not a kind with pods"))
                .hint("one of svc, deploy, rs, sts, ds, job, rollout, gateway, pod"));
        };
        let is_service = matches!(pods_of, PodsOf::Selector(_, "services"));
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
                    found.selections.push(Selection { namespace: None, labels: String::new(), name: None });
                }
                Ok(selection) => found.selections.push(selection),
                // Of several namespaces one is enough.
                Err(error) if error.trouble == Trouble::NotFound && namespaces.len() > 1 => missing = Some(error),
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
    server: &Server,
    namespace: &str,
    pods_of: &PodsOf,
    name: &str,
) -> Result<Selection, crate::cluster::ClusterError> {
    let by_labels = |labels| Selection { namespace: Some(namespace.to_owned()), labels, name: None };
    Ok(match pods_of {
        PodsOf::Selector(group, plural) => by_labels(server.selector(namespace, group, plural, name).await?),
        PodsOf::Label(key) => by_labels(format!("{key}={name}")),
        PodsOf::Itself => {
            Selection { namespace: Some(namespace.to_owned()), labels: String::new(), name: Some(name.to_owned()) }
        }
        PodsOf::Gateway => {
            // Istio's Gateway picks pods in any namespace.
            match server.selector(namespace, "/apis/networking.istio.io/v1", "gateways", name).await {
                Ok(labels) => Selection { namespace: None, labels, name: None },
                Err(error) if error.trouble == Trouble::NotFound => {
                    by_labels(format!("gateway.networking.k8s.io/gateway-name={name}"))
                }
                Err(error) => return Err(error),
            }
        }
    })
}
