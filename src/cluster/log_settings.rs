//! Reads the objects that configure access logs: the mesh configuration and Telemetries.

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

/// Limit of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// API versions of Telemetry, in the order in which they are tried.
const TELEMETRY_VERSIONS: [&str; 2] = ["v1", "v1alpha1"];

/// The log settings of a cluster, with what could not be read.
#[derive(Debug, Default)]
pub struct ClusterLogSettings {
    pub settings: LogSettings,
    pub has_mesh_config: bool,
    /// Objects that could not be read, with the reason.
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
    /// Reads the mesh configuration, and the Telemetries of the root namespace and of `namespaces`.
    pub async fn read_log_settings(
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
                read.has_mesh_config = true;
            }
            Err(error) => read.gaps.push(format!("ConfigMap {istio_namespace}/{map}: {error}")),
        }
        read.settings.root_namespace = read.settings.mesh.effective_root_namespace(istio_namespace).to_owned();
        let mut namespaces: BTreeSet<&str> = namespaces.clone();
        let root = read.settings.root_namespace.clone();
        namespaces.insert(&root);
        let mut telemetries = Vec::new();
        for namespace in namespaces {
            match self.telemetries(namespace).await {
                Ok(items) => telemetries.extend(items),
                Err(error) => read.gaps.push(format!("Telemetry in {namespace}: {error}")),
            }
        }
        // istiod applies the oldest object first.
        telemetries.sort_by(|a, b| {
            let key = |item: &ListItem| (item.metadata.creation_timestamp.clone(), item.metadata.name.clone());
            key(a).cmp(&key(b))
        });
        read.settings.telemetries = telemetries
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
        for version in TELEMETRY_VERSIONS {
            let path = format!("/apis/telemetry.istio.io/{version}/namespaces/{namespace}/telemetries");
            match self.get(&path, REQUEST_TIMEOUT).await {
                Ok(text) => {
                    return serde_json::from_str::<ListPage>(&text)
                        .map(|page| page.items)
                        .map_err(|error| error.to_string());
                }
                Err(error) if error.kind == ClusterErrorKind::NotFound => {}
                Err(error) => return Err(error.message),
            }
        }
        Ok(Vec::new())
    }

    /// Gets one value of a ConfigMap.
    async fn config_value(&self, namespace: &str, name: &str, key: &str) -> Result<String, String> {
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let text = self.get(&path, REQUEST_TIMEOUT).await.map_err(|error| error.message)?;
        let map: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let value = map.get("data").and_then(|data| data.get(key)).and_then(serde_json::Value::as_str);
        value.map(str::to_owned).ok_or_else(|| format!("it has no key \"{key}\""))
    }
}
