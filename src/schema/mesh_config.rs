//! Istio's MeshConfig, as stored in the ConfigMap `istio` or `istio-<revision>`.
//! Source: `mesh/v1alpha1/config.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::sidecar::OutboundPolicy;
use super::virtual_service::HttpRetries;

/// The settings that routing, findings and access logs depend on.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Namespace of mesh-wide objects; absent means istiod's own.
    pub root_namespace: Option<String>,
    /// Trust domain of the mesh's identities; absent means `cluster.local`.
    pub trust_domain: Option<String>,
    /// Further trust domains whose identities count as those of the mesh.
    pub trust_domain_aliases: NullableList<String>,
    /// Whether callers use mTLS when the server supports it; absent means true.
    pub enable_auto_mtls: Option<bool>,
    /// `DO_NOT_UPGRADE` (the default) or `UPGRADE`, for ports whose protocol is HTTP.
    pub h2_upgrade_policy: Option<String>,
    /// Retries of routes that set none.
    pub default_http_retry_policy: Option<HttpRetries>,
    /// Absent means 10 s.
    pub connect_timeout: Option<String>,
    /// Visibility of VirtualServices without `exportTo`.
    pub default_virtual_service_export_to: NullableList<String>,
    /// Visibility of DestinationRules without `exportTo`.
    pub default_destination_rule_export_to: NullableList<String>,
    /// Visibility of Services and ServiceEntries without `exportTo`.
    pub default_service_export_to: NullableList<String>,
    /// Fills the blocks that a DestinationRule does not set.
    pub default_traffic_policy: Option<super::destination_rule::TrafficPolicy>,
    /// Decides about calls to unknown hosts.
    pub outbound_traffic_policy: Option<OutboundPolicy>,
    /// Empty means that proxies write no access log.
    pub access_log_file: Option<String>,
    /// Envoy format string or JSON object; empty means Istio's default format.
    pub access_log_format: Option<String>,
    /// Used when no Telemetry selects a provider.
    pub default_providers: Option<DefaultProviders>,
    pub extension_providers: NullableList<ExtensionProvider>,
}

impl MeshConfig {
    /// Name of the ConfigMap that holds a revision's configuration.
    pub fn config_map_name(revision: Option<&str>) -> String {
        match revision {
            Some(revision) if revision != "default" => format!("istio-{revision}"),
            _ => "istio".to_owned(),
        }
    }

    /// The mesh's trust domain and its aliases.
    pub fn trust_domains(&self) -> Vec<String> {
        let own = self.trust_domain.as_deref().filter(|domain| !domain.is_empty()).unwrap_or("cluster.local");
        std::iter::once(own.to_owned()).chain(self.trust_domain_aliases.iter().cloned()).collect()
    }

    /// Names of the external authorizers, and whether each supports TCP connections.
    pub fn authorizers(&self) -> Vec<(String, bool)> {
        let authorizers = self.extension_providers.iter().filter_map(|provider| {
            let supports_tcp = provider.envoy_ext_authz_grpc.is_some();
            (supports_tcp || provider.envoy_ext_authz_http.is_some()).then(|| (provider.name.clone(), supports_tcp))
        });
        authorizers.collect()
    }

    /// Namespace of mesh-wide objects: `rootNamespace`, else istiod's own namespace.
    pub fn effective_root_namespace<'a>(&'a self, istio_namespace: &'a str) -> &'a str {
        self.root_namespace.as_deref().filter(|root| !root.is_empty()).unwrap_or(istio_namespace)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    pub access_logging: NullableList<String>,
}

/// A provider of telemetry or authorization; only file access logs have settings that matter here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    pub name: String,
    pub envoy_file_access_log: Option<FileAccessLog>,
    /// An external authorizer that HTTP requests reach.
    pub envoy_ext_authz_http: Option<serde_json::Value>,
    /// An external authorizer that gRPC calls reach. It also supports TCP connections.
    pub envoy_ext_authz_grpc: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileAccessLog {
    /// Empty means standard output.
    pub path: Option<String>,
    /// Absent means Istio's default format.
    pub log_format: Option<LogFormatSpec>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogFormatSpec {
    /// An Envoy format string.
    pub text: Option<String>,
    /// A JSON object whose values are Envoy format strings.
    pub labels: Option<serde_json::Map<String, serde_json::Value>>,
}
