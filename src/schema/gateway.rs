//! Istio's own Gateway (`networking.istio.io`). Source: `networking/v1alpha3/gateway.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

/// `spec` of an Istio Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IstioGatewaySpec {
    /// Labels of the gateway pods, in any namespace; empty means every gateway.
    #[serde(deserialize_with = "string_map")]
    pub selector: StringMap,
    /// Servers.
    pub servers: NullableList<GatewayServer>,
}

/// One server of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayServer {
    /// Name.
    pub name: Option<String>,
    /// Port.
    pub port: Option<ServerPort>,
    /// Hosts, each perhaps with a namespace before a slash.
    pub hosts: NullableList<String>,
    /// TLS.
    pub tls: Option<ServerTls>,
    /// Address to bind.
    pub bind: Option<String>,
}

/// Port of a server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerPort {
    /// Port of the gateway's Service.
    pub number: u32,
    /// Protocol word.
    pub protocol: String,
    /// Name.
    pub name: String,
    /// Refused by Istio.
    pub target_port: Option<u32>,
}

/// TLS of a server.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// `PASSTHROUGH` (the default), `SIMPLE`, `MUTUAL`, `AUTO_PASSTHROUGH`, `ISTIO_MUTUAL`, `OPTIONAL_MUTUAL`.
    pub mode: Option<String>,
    /// Answer everything with a redirect to HTTPS.
    pub https_redirect: Option<bool>,
    /// Certificate from a Secret.
    pub credential_name: Option<String>,
    /// Certificates from Secrets.
    pub credential_names: NullableList<String>,
    /// CA from a Secret of its own.
    pub ca_cert_credential_name: Option<String>,
    /// Certificate file.
    pub server_certificate: Option<String>,
    /// Key file.
    pub private_key: Option<String>,
    /// CA file.
    pub ca_certificates: Option<String>,
}
