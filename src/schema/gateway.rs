//! Istio Gateway (`networking.istio.io`), as written. Source: `networking/v1alpha3/gateway.proto` of istio/api 1.31.

use serde::Deserialize;

use super::list::NullableList;
use super::meta::{StringMap, string_map};

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IstioGatewaySpec {
    /// Labels of gateway pods in any namespace; empty selects every gateway.
    #[serde(deserialize_with = "string_map")]
    pub selector: StringMap,
    pub servers: NullableList<GatewayServer>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayServer {
    pub port: Option<ServerPort>,
    /// Each may have a namespace and a slash before the host.
    pub hosts: NullableList<String>,
    pub tls: Option<ServerTls>,
    /// The address that the listener binds to.
    pub bind: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerPort {
    /// Port of the gateway's Service.
    pub number: u32,
    pub protocol: String,
    pub name: String,
    /// Istio's webhook rejects it.
    pub target_port: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerTls {
    /// `PASSTHROUGH` (the default), `SIMPLE`, `MUTUAL`, `AUTO_PASSTHROUGH`, `ISTIO_MUTUAL` or `OPTIONAL_MUTUAL`.
    pub mode: Option<String>,
    /// Redirects every request to HTTPS.
    pub https_redirect: Option<bool>,
    /// The Secret that holds the certificate.
    pub credential_name: Option<String>,
    pub credential_names: NullableList<String>,
    /// The Secret that holds only the CA certificate.
    pub ca_cert_credential_name: Option<String>,
    /// Path of a file in the gateway's container.
    pub server_certificate: Option<String>,
    /// Path of a file in the gateway's container.
    pub private_key: Option<String>,
}
