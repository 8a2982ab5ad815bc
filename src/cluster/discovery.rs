//! What an API server is, and which of our kinds it serves.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt as _;
use serde::Deserialize;

use super::client::ApiServer;
use super::collect::{LISTS_IN_FLIGHT, PAGE_TIMEOUT};
use super::error::{ClusterError, ClusterErrorKind};
use crate::schema::kind::KINDS;

/// Resources served, by group and version.
pub(super) type ServedResources = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

impl ApiServer {
    /// The first contact: the server's version. Being forbidden to know it is no trouble.
    pub(super) async fn version(&self) -> Result<Option<String>, ClusterError> {
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
                    format!("{} does not answer like a Kubernetes API server", self.server),
                )
                .hint("is the address right? kubectl config view --minify")),
            },
            Err(error) if matches!(error.trouble, ClusterErrorKind::Forbidden | ClusterErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Which resources our groups serve. A group that may not be asked for is left out: its kinds are then tried.
    pub(super) async fn served(&self) -> Result<ServedResources, ClusterError> {
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
        let text = match self.get("/apis", self.timeout).await {
            Ok(text) => text,
            Err(error) if error.trouble == ClusterErrorKind::Forbidden => return Ok(served),
            Err(error) => return Err(error),
        };
        let Ok(groups) = serde_json::from_str::<Groups>(&text) else { return Ok(served) };
        let ours: BTreeSet<&str> = KINDS.iter().map(|info| info.group).filter(|group| !group.is_empty()).collect();
        let present: BTreeMap<&str, &Group> = groups.groups.iter().map(|group| (group.name.as_str(), group)).collect();
        let mut questions = Vec::new();
        for name in ours {
            served.insert(name.to_owned(), BTreeMap::new());
            for version in present.get(name).into_iter().flat_map(|group| &group.versions) {
                let known =
                    KINDS.iter().any(|info| info.group == name && info.versions.contains(&version.version.as_str()));
                if known {
                    questions.push((name, version.version.clone()));
                }
            }
        }
        let answers = futures::stream::iter(questions.into_iter().map(|(group, version)| async move {
            let answer = self.get(&format!("/apis/{group}/{version}"), PAGE_TIMEOUT).await;
            (group, version, answer)
        }));
        let mut answers = answers.buffer_unordered(LISTS_IN_FLIGHT);
        while let Some((group, version, answer)) = answers.next().await {
            match answer {
                Ok(text) => {
                    let resources = serde_json::from_str::<Resources>(&text).map(|r| r.resources).unwrap_or_default();
                    let names = resources.into_iter().map(|resource| resource.name).collect();
                    served.entry(group.to_owned()).or_default().insert(version, names);
                }
                // Discovery that fails says nothing about the group: its kinds are tried.
                Err(_) => {
                    served.remove(group);
                }
            }
        }
        Ok(served)
    }
}
