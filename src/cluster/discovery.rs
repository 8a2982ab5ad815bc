//! Discovery: the API server's version, and the versions of our kinds that it serves.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use serde::Deserialize;

use super::client::ApiServer;
use super::collect::{LISTS_IN_FLIGHT, PAGE_TIMEOUT};
use super::error::{ClusterError, ClusterErrorKind};
use crate::schema::kind::KINDS;

/// Plural names of the served resources, by API group and version.
pub(super) type ServedResources = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Accepts all groups with their resources in one response, where the server supports that (Kubernetes 1.30), else the
/// list of groups.
///
/// Source: `staging/src/k8s.io/apiserver/pkg/endpoints/discovery/aggregated` of kubernetes/kubernetes.
const AGGREGATED_DISCOVERY: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// The resources that an aggregated discovery document lists for the API groups of our kinds; `None` for another document.
fn aggregated_resources(text: &str) -> Option<ServedResources> {
    #[derive(Deserialize)]
    struct Discovery {
        kind: String,
        items: Vec<Group>,
    }
    #[derive(Deserialize)]
    struct Group {
        metadata: Name,
        #[serde(default)]
        versions: Vec<Version>,
    }
    #[derive(Deserialize)]
    struct Name {
        #[serde(default)]
        name: String,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
        #[serde(default)]
        resources: Vec<Resource>,
        /// `Stale` when the server behind the group does not answer: the resources are then unknown.
        #[serde(default)]
        freshness: String,
    }
    #[derive(Deserialize)]
    struct Resource {
        resource: String,
    }
    let discovery: Discovery = serde_json::from_str(text).ok()?;
    if discovery.kind != "APIGroupDiscoveryList" {
        return None;
    }
    let our_groups = KINDS.iter().map(|info| info.group).filter(|group| !group.is_empty());
    let mut served: ServedResources = our_groups.map(|group| (group.to_owned(), BTreeMap::new())).collect();
    for Group { metadata: Name { name }, versions } in discovery.items {
        if versions.iter().any(|version| version.freshness == "Stale") {
            served.remove(&name);
            continue;
        }
        let Some(group) = served.get_mut(&name) else { continue };
        for Version { version, resources, .. } in versions {
            group.insert(version, resources.into_iter().map(|resource| resource.resource).collect());
        }
    }
    Some(served)
}

impl ApiServer {
    /// Gets the server's version, as the first request to it. `None` when the user may not read it.
    pub(super) async fn server_version(&self) -> Result<Option<String>, ClusterError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            git_version: String,
        }
        match self.get("/version", self.timeout).await {
            Ok(text) => match serde_json::from_str::<Version>(&text) {
                Ok(version) => Ok(Some(version.git_version)),
                Err(_) => Err(ClusterError::new(
                    ClusterErrorKind::Server,
                    format!("cannot read the version of {}: it is not a Kubernetes API server", self.server),
                )
                .hint("check the address: kubectl config view --minify")),
            },
            Err(error) if matches!(error.kind, ClusterErrorKind::Forbidden | ClusterErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gets the resources that the API groups of our kinds serve. A group whose discovery fails is omitted; its kinds are
    /// then listed without knowing whether they are served.
    pub(super) async fn served_resources(&self) -> Result<ServedResources, ClusterError> {
        #[derive(Deserialize)]
        struct Groups {
            groups: Vec<Group>,
        }
        #[derive(Deserialize)]
        struct Group {
            name: String,
            versions: Vec<Version>,
        }
        #[derive(Deserialize)]
        struct Version {
            version: String,
        }
        #[derive(Deserialize)]
        struct Resources {
            resources: Vec<Resource>,
        }
        #[derive(Deserialize)]
        struct Resource {
            name: String,
        }
        let mut served = ServedResources::new();
        let text = match self.get_accepting("/apis", AGGREGATED_DISCOVERY, self.timeout).await {
            Ok(text) => text,
            Err(error) if error.kind == ClusterErrorKind::Forbidden => return Ok(served),
            Err(error) => return Err(error),
        };
        if let Some(aggregated) = aggregated_resources(&text) {
            return Ok(aggregated);
        }
        let Ok(groups) = serde_json::from_str::<Groups>(&text) else { return Ok(served) };
        let our_groups: BTreeSet<&str> =
            KINDS.iter().map(|info| info.group).filter(|group| !group.is_empty()).collect();
        let present: BTreeMap<&str, &Group> = groups.groups.iter().map(|group| (group.name.as_str(), group)).collect();
        let mut group_versions = Vec::new();
        for name in our_groups {
            served.insert(name.to_owned(), BTreeMap::new());
            for version in present.get(name).into_iter().flat_map(|group| &group.versions) {
                let is_read =
                    KINDS.iter().any(|info| info.group == name && info.versions.contains(&version.version.as_str()));
                if is_read {
                    group_versions.push((name, version.version.clone()));
                }
            }
        }
        let responses = futures::stream::iter(group_versions.into_iter().map(|(group, version)| async move {
            let response = self.get(&format!("/apis/{group}/{version}"), PAGE_TIMEOUT).await;
            (group, version, response)
        }));
        let mut responses = responses.buffer_unordered(LISTS_IN_FLIGHT);
        while let Some((group, version, response)) = responses.next().await {
            match response {
                Ok(text) => {
                    let resources =
                        serde_json::from_str::<Resources>(&text).map(|list| list.resources).unwrap_or_default();
                    let names = resources.into_iter().map(|resource| resource.name).collect();
                    served.entry(group.to_owned()).or_default().insert(version, names);
                }
                // A failure does not mean that the group is not served.
                Err(_) => {
                    served.remove(group);
                }
            }
        }
        Ok(served)
    }
}
