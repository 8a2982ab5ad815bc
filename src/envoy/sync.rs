//! What istiod says of the proxies that are connected to it.
//!
//! Source: `/debug/syncz` in `pilot/pkg/xds/debug.go`, states as in `statusgen.go` of istio/istio 1.31.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A proxy as istiod sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XdsConnection {
    /// Kinds of configuration that were sent and not acknowledged, with the time of sending, if known.
    pub waiting: Vec<(String, Option<String>)>,
    /// What Envoy said when it refused some.
    pub refused: Option<String>,
}

/// What is known of a proxy's connection to istiod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum XdsSyncState {
    /// It is connected.
    Connected(XdsConnection),
    /// Every istiod was asked, and none has it.
    NotConnected,
    /// No istiod answers.
    NoAnswer(String),
    /// istiod may not be asked.
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

/// Kinds of configuration that calls depend on, by the end of their type and by the older name.
const KINDS: [(&str, &str); 4] = [
    ("Cluster", "cluster"),
    ("Listener", "listener"),
    ("RouteConfiguration", "route"),
    ("ClusterLoadAssignment", "endpoint"),
];

/// Reads the answer of one istiod: its proxies by `pod.namespace`.
///
/// # Errors
/// When it is no JSON in that form.
pub fn read(answer: &[u8]) -> Result<BTreeMap<String, XdsConnection>, serde_json::Error> {
    let proxies: Vec<RawProxy> = serde_json::from_slice(answer)?;
    Ok(proxies.into_iter().map(|one| (one.proxy.clone(), one.sync())).collect())
}

impl RawProxy {
    fn sync(&self) -> XdsConnection {
        let mut sync = XdsConnection::default();
        for (ending, older) in KINDS {
            let resource = self.resources.iter().find(|(name, _)| name.rsplit('.').next() == Some(ending));
            let text = |key: &str| {
                self.rest.get(&format!("{older}_{key}")).and_then(|value| value.as_str()).unwrap_or_default().to_owned()
            };
            let (sent, acked, at, error) = match resource {
                Some((_, one)) => (one.sent.clone(), one.acked.clone(), one.sent_time.clone(), one.last_error.clone()),
                None => (text("sent"), text("acked"), None, None),
            };
            if let Some(error) = error.filter(|error| !error.is_empty()) {
                sync.refused = Some(error);
            } else if !sent.is_empty() && sent != acked {
                sync.waiting.push((older.to_owned(), at));
            }
        }
        sync
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_and_older_answers_are_read() {
        let newer = br#"[{"proxy": "a.shop", "resources": {
            "type.googleapis.com/envoy.config.route.v3.RouteConfiguration": {"sent": "1/b", "acked": "1/a", "sentTime": "2026-11-21T13:50:03.2Z"},
            "type.googleapis.com/envoy.config.cluster.v3.Cluster": {"sent": "1/c", "acked": "1/c"},
            "type.googleapis.com/istio.networking.nds.v1.NameTable": {"sent": "1/c"}}}]"#;
        let read_one = |text: &[u8]| read(text).unwrap().remove("a.shop").unwrap();
        assert_eq!(read_one(newer).waiting, [("route".to_owned(), Some("2026-11-21T13:50:03.2Z".to_owned()))]);
        let older = br#"[{"proxy": "a.shop", "cluster_sent": "x", "cluster_acked": "", "route_sent": "y", "route_acked": "y"}]"#;
        assert_eq!(read_one(older).waiting, [("cluster".to_owned(), None)]);
        let refused =
            br#"[{"proxy": "a.shop", "resources": {"x.Cluster": {"sent": "1", "lastError": "bad cluster"}}}]"#;
        assert_eq!(read_one(refused), XdsConnection { waiting: Vec::new(), refused: Some("bad cluster".to_owned()) });
        assert!(read(b"<html>").is_err());
    }
}
