//! The sync state that istiod reports for its connected proxies.
//!
//! Source: `/debug/syncz` in `pilot/pkg/xds/debug.go`, states as in `statusgen.go` of istio/istio 1.31.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The xDS connection of a proxy, as istiod reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdsConnection {
    /// Kinds of configuration (`cluster`, `listener`, `route`, `endpoint`) that were sent and not acknowledged, each
    /// with the time of sending (RFC 3339) if istiod reports it.
    pub unacknowledged: Vec<(String, Option<String>)>,
    /// The error with which Envoy rejected configuration (NACK).
    pub rejection: Option<String>,
}

/// The state of a proxy's connection to istiod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum XdsSyncState {
    /// The proxy is connected to istiod.
    Connected(XdsConnection),
    /// No istiod reports a connection of this proxy.
    NotConnected,
    /// No istiod responds, with the reason.
    IstiodUnreachable(String),
    /// The sync state of istiod cannot be read, with the reason.
    Unknown(String),
}

#[derive(Deserialize)]
struct RawProxy {
    #[serde(default)]
    proxy: String,
    #[serde(default)]
    resources: BTreeMap<String, RawResource>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawResource {
    #[serde(default)]
    sent: String,
    #[serde(default)]
    acked: String,
    sent_time: Option<String>,
    last_error: Option<String>,
}

/// Kinds of configuration that affect calls: last segment of the type URL, and prefix in responses of older istiods.
const CONFIG_KINDS: [(&str, &str); 4] = [
    ("Cluster", "cluster"),
    ("Listener", "listener"),
    ("RouteConfiguration", "route"),
    ("ClusterLoadAssignment", "endpoint"),
];

/// Parses a `/debug/syncz` response of one istiod into its proxies by `pod.namespace`.
///
/// # Errors
/// When the response is not JSON of that form.
pub fn parse(response: &[u8]) -> Result<BTreeMap<String, XdsConnection>, serde_json::Error> {
    let proxies: Vec<RawProxy> = serde_json::from_slice(response)?;
    Ok(proxies.into_iter().map(|proxy| (proxy.proxy.clone(), proxy.connection())).collect())
}

impl RawProxy {
    fn connection(&self) -> XdsConnection {
        let mut connection = XdsConnection::default();
        for (type_name, kind) in CONFIG_KINDS {
            let resource = self.resources.iter().find(|(name, _)| name.rsplit('.').next() == Some(type_name));
            let text = |key: &str| {
                self.rest.get(&format!("{kind}_{key}")).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
            };
            let (sent, acked, sent_time, error) = match resource {
                Some((_, resource)) => (
                    resource.sent.clone(),
                    resource.acked.clone(),
                    resource.sent_time.clone(),
                    resource.last_error.clone(),
                ),
                None => (text("sent"), text("acked"), None, None),
            };
            if let Some(error) = error.filter(|error| !error.is_empty()) {
                connection.rejection = Some(error);
            } else if !sent.is_empty() && sent != acked {
                connection.unacknowledged.push((kind.to_owned(), sent_time));
            }
        }
        connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_responses_of_current_and_older_istiods() {
        let newer = br#"[{"proxy": "a.shop", "resources": {
            "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": {"sent": "1/b", "acked": "1/a", "sentTime": "2026-11-21T13:50:03.2Z"},
            "type.googleapis.com/envoy.config.cluster.v3.Cluster": {"sent": "1/c", "acked": "1/c"},
            "type.googleapis.com/istio.networking.nds.v1.NameTable": {"sent": "1/c"}}}]"#;
        let connection = |text: &[u8]| parse(text).unwrap().remove("a.shop").unwrap();
        assert_eq!(connection(newer).unacknowledged, [("route".to_owned(), Some("2026-11-21T13:50:03.2Z".to_owned()))]);
        let older = br#"[{"proxy": "a.shop", "cluster_sent": "x", "cluster_acked": "", "route_sent": "y", "route_acked": "y"}]"#;
        assert_eq!(connection(older).unacknowledged, [("cluster".to_owned(), None)]);
        let rejected =
            br#"[{"proxy": "a.shop", "resources": {"x.Cluster": {"sent": "1", "lastError": "bad cluster"}}}]"#;
        assert_eq!(
            connection(rejected),
            XdsConnection { unacknowledged: Vec::new(), rejection: Some("bad cluster".to_owned()) }
        );
        assert!(parse(b"<html>").is_err());
    }
}
