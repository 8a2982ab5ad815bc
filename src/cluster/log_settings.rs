//! What the cluster's objects say about access logs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Deserialize;

use super::client::ApiServer;
use super::error::ClusterErrorKind;
use crate::accesslog::settings::{LogSettings, TelemetryObject};
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::ObjectMeta;
use crate::schema::telemetry::TelemetrySpec;
use crate::snapshot::yaml;

/// Limit for one list.
const ANSWER: Duration = Duration::from_secs(10);
/// Versions that are asked for, newest first.
const VERSIONS: [&str; 2] = ["v1", "v1alpha1"];

/// Settings, and what could not be read of them.
#[derive(Debug, Default)]
pub struct ClusterLogSettings {
    /// What was read.
    pub settings: LogSettings,
    /// Whether the mesh configuration was found.
    pub has_mesh: bool,
    /// What is missing, with the reason.
    pub gaps: Vec<String>,
}

#[derive(Deserialize)]
struct ListPage {
    items: Vec<ListItem>,
}

#[derive(Deserialize)]
struct ListItem {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: TelemetrySpec,
}

impl ApiServer {
    /// Reads the mesh configuration and the Telemetries of the root namespace and of `namespaces`.
    pub async fn log_settings(
        &self,
        istio_namespace: &str,
        revision: Option<&str>,
        namespaces: &BTreeSet<&str>,
    ) -> ClusterLogSettings {
        let mut read = ClusterLogSettings::default();
        let map = MeshConfig::config_map_name(revision);
        match self.config_value(istio_namespace, &map, "mesh").await {
            Ok(text) => {
                let json = yaml::to_json(&text).ok().and_then(|converted| converted.json);
                match json.map(|json| serde_json::from_str(json.get())) {
                    Some(Ok(mesh)) => read.settings.mesh = mesh,
                    Some(Err(error)) => read.gaps.push(format!("ConfigMap {istio_namespace}/{map}: {error}")),
                    None => {}
                }
                read.has_mesh = true;
            }
            Err(why) => read.gaps.push(format!("ConfigMap {istio_namespace}/{map}: {why}")),
        }
        read.settings.root = read.settings.mesh.root(istio_namespace).to_owned();
        let mut places: BTreeSet<&str> = namespaces.clone();
        let root = read.settings.root.clone();
        places.insert(&root);
        let mut found = Vec::new();
        for namespace in places {
            match self.telemetries(namespace).await {
                Ok(items) => found.extend(items),
                Err(why) => read.gaps.push(format!("Telemetry in {namespace}: {why}")),
            }
        }
        // istiod takes the oldest first.
        found.sort_by(|a, b| {
            let key = |item: &ListItem| (item.metadata.creation_timestamp.clone(), item.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        read.settings.telemetries = found
            .into_iter()
            .map(|ListItem { metadata, spec }| TelemetryObject {
                namespace: metadata.namespace.unwrap_or_default(),
                name: metadata.name,
                spec,
            })
            .collect();
        read
    }

    async fn telemetries(&self, namespace: &str) -> Result<Vec<ListItem>, String> {
        for version in VERSIONS {
            let path = format!("/apis/telemetry.istio.io/{version}/namespaces/{namespace}/telemetries");
            match self.get(&path, ANSWER).await {
                Ok(text) => {
                    return serde_json::from_str::<ListPage>(&text)
                        .map(|page| page.items)
                        .map_err(|error| error.to_string());
                }
                Err(error) if error.trouble == ClusterErrorKind::NotFound => {}
                Err(error) => return Err(error.message),
            }
        }
        Ok(Vec::new())
    }

    /// One ConfigMap's value.
    async fn config_value(&self, namespace: &str, name: &str, key: &str) -> Result<String, String> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let text = self.get(&path, ANSWER).await.map_err(|error| error.message)?;
        let map: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        map["data"][key].as_str().map(str::to_owned).ok_or_else(|| format!("it has no \"{key}\""))
    }
}
