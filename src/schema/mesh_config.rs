//! Istio's MeshConfig, as it stands in the ConfigMap `istio` or `istio-<revision>`.
//! Source: `mesh/v1alpha1/config.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::sidecar::OutboundPolicy;
use super::virtual_service::HttpRetries;

/// The settings that decide something here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfig {
    /// Namespace of mesh-wide objects; absent means istiod's own.
    pub root_namespace: Option<String>,
    /// SPIFFE trust domain; absent means `cluster.local`.
    pub trust_domain: Option<String>,
    /// Choose TLS by what the server has; absent means on.
    pub enable_auto_mtls: Option<bool>,
    /// `DO_NOT_UPGRADE` (default) or `UPGRADE`, for ports of the HTTP family.
    pub h2_upgrade_policy: Option<String>,
    /// Retries of routes that have none.
    pub default_http_retry_policy: Option<HttpRetries>,
    /// Limit for connecting; absent means 10 s.
    pub connect_timeout: Option<String>,
    /// Wait for the first bytes on detected ports; absent or 0 means for ever.
    pub protocol_detection_timeout: Option<String>,
    /// Visibility of VirtualServices without `exportTo`.
    pub default_virtual_service_export_to: NullableList<String>,
    /// Visibility of DestinationRules without `exportTo`.
    pub default_destination_rule_export_to: NullableList<String>,
    /// Visibility of Services and ServiceEntries without `exportTo`.
    pub default_service_export_to: NullableList<String>,
    /// What DestinationRules that leave out a block get instead of Envoy's default.
    pub default_traffic_policy: Option<super::destination_rule::TrafficPolicy>,
    /// Unknown hosts.
    pub outbound_traffic_policy: Option<OutboundPolicy>,
    /// Where proxies write the access log; empty means nowhere.
    pub access_log_file: Option<String>,
    /// Its format, Envoy's operators in text or in a JSON object; empty means Istio's own.
    pub access_log_format: Option<String>,
    /// What is used where no Telemetry says otherwise.
    pub default_providers: Option<DefaultProviders>,
    /// Named places for telemetry.
    pub extension_providers: NullableList<ExtensionProvider>,
}

impl MeshConfig {
    /// Name of the ConfigMap that holds the configuration of a revision.
    pub fn config_map_name(revision: Option<&str>) -> String {
        match revision {
            Some(revision) if revision != "default" => format!("istio-{revision}"),
            _ => "istio".to_owned(),
        }
    }

    /// Namespace of objects for the whole mesh; istiod's own when none is written.
    pub fn root<'a>(&'a self, istio_namespace: &'a str) -> &'a str {
        self.root_namespace.as_deref().filter(|root| !root.is_empty()).unwrap_or(istio_namespace)
    }
}

/// Names of providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DefaultProviders {
    /// Those of access logs.
    pub access_logging: NullableList<String>,
}

/// A named place for telemetry; only files have settings that matter here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ExtensionProvider {
    /// Name.
    pub name: String,
    /// A file that the proxy writes.
    pub envoy_file_access_log: Option<FileAccessLog>,
}

/// A file that the proxy writes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FileAccessLog {
    /// Path; empty means standard output.
    pub path: Option<String>,
    /// Format; absent means Istio's own.
    pub log_format: Option<LogFormatSpec>,
}

/// Format of an access log.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LogFormatSpec {
    /// Envoy's operators in text.
    pub text: Option<String>,
    /// Envoy's operators in a JSON object.
    pub labels: Option<serde_json::Map<String, serde_json::Value>>,
}
