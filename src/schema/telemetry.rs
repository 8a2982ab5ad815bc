//! Istio Telemetry as written, reduced to access logs.
//! Source: `telemetry/v1alpha1/telemetry.proto` of istio/api 1.31.

use serde::Deserialize;

use super::destination_rule::MatchLabels;
use super::list::NullableList;

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetrySpec {
    /// Absent selects every pod of the namespace.
    pub selector: Option<MatchLabels>,
    /// Set when the object applies to a gateway or waypoint instead of pods.
    pub target_refs: NullableList<serde_json::Value>,
    pub access_logging: NullableList<AccessLogging>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccessLogging {
    /// The side of the call that the setting applies to.
    #[serde(rename = "match")]
    pub matches: Option<LoggingMatch>,
    pub providers: NullableList<ProviderRef>,
    pub disabled: Option<bool>,
    pub filter: Option<LoggingFilter>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoggingMatch {
    /// `CLIENT`, `SERVER` or `CLIENT_AND_SERVER`.
    pub mode: Option<String>,
}

/// Name of a provider in the mesh configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProviderRef {
    pub name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoggingFilter {
    /// A CEL expression over Envoy's attributes.
    pub expression: String,
}
