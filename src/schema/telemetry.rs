//! Istio's Telemetry, as far as it decides about access logs.
//! Source: `telemetry/v1alpha1/telemetry.proto` of istio/api 1.31.

use serde::Deserialize;

use super::destination_rule::MatchLabels;
use super::list::NullableList;

/// `spec` of a Telemetry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetrySpec {
    /// Which pods; absent means all of the namespace.
    pub selector: Option<MatchLabels>,
    /// Gateways and Services of waypoints.
    pub target_refs: NullableList<PolicyTargetRef>,
    /// About access logs.
    pub access_logging: NullableList<AccessLogging>,
}

/// An object that a Telemetry is for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PolicyTargetRef {
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
}

/// One setting about access logs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct AccessLogging {
    /// For which side of a call.
    #[serde(rename = "match")]
    pub matches: Option<LoggingMatch>,
    /// Where to.
    pub providers: NullableList<ProviderRef>,
    /// Whether it turns logging off.
    pub disabled: Option<bool>,
    /// Which calls.
    pub filter: Option<LoggingFilter>,
}

/// `CLIENT`, `SERVER` or `CLIENT_AND_SERVER`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoggingMatch {
    /// The side.
    pub mode: Option<String>,
}

/// A provider of the mesh configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProviderRef {
    /// Its name.
    pub name: String,
}

/// Which calls are logged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LoggingFilter {
    /// CEL over Envoy's attributes.
    pub expression: String,
}
