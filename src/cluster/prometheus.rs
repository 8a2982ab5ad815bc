//! Asking Prometheus, or what speaks its protocol: at an address, or as a Service through the API server.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use kube::Client;
use kube::config::Config;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use super::proxy::ProxyEnvironment;
use super::request::encode;

/// Limit for one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Where Prometheus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrometheusAddress {
    /// An address, with the path below which its API stands.
    Address(Uri),
    /// A Service: namespace, name, and port by number or name.
    Service(String, String, String),
}

impl std::str::FromStr for PrometheusAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            let uri: Uri = text.parse().map_err(|error| format!("it is no address: {error}"))?;
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some() {
                return Err(
                    "an address with a password or a query would be shown in messages: --prometheus-header-file \
                            takes what is secret"
                        .to_owned(),
                );
            }
            return if uri.host().is_some() { Ok(Self::Address(uri)) } else { Err(format!("\"{text}\" has no host")) };
        }
        let wrong = || format!("\"{text}\" is neither an address (http://…) nor NAMESPACE/SERVICE[:PORT]");
        let (namespace, service) = text.split_once('/').ok_or_else(wrong)?;
        let (name, port) = service.split_once(':').unwrap_or((service, "9090"));
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_word(namespace) && is_word(name) && is_word(port) {
            Ok(Self::Service(namespace.to_owned(), name.to_owned(), port.to_owned()))
        } else {
            Err(wrong())
        }
    }
}

/// A Prometheus.
#[derive(Clone)]
pub struct PrometheusClient {
    server: ApiServer,
    /// Path before `/api/v1`.
    root: String,
}

impl PrometheusClient {
    /// The one at a place. Headers go with every question to an address.
    ///
    /// # Errors
    /// An address that cannot be used.
    pub fn new(
        place: &PrometheusAddress,
        api: &ApiServer,
        headers: Vec<(HeaderName, HeaderValue)>,
        proxy: &ProxyEnvironment,
    ) -> Result<Self, ClusterError> {
        match place {
            PrometheusAddress::Service(namespace, name, port) => {
                let root = format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy");
                Ok(Self { server: api.clone(), root })
            }
            PrometheusAddress::Address(uri) => {
                let mut config = Config::new(uri.clone());
                config.default_retry = false;
                config.connect_timeout = Some(ANSWER);
                config.proxy_url =
                    proxy.proxy_for(uri, None).map_err(|why| ClusterError::new(ClusterErrorKind::Config, why))?;
                config.headers = headers;
                let shown = uri.to_string().trim_end_matches('/').to_owned();
                let client = Client::try_from(config).map_err(|error| ClusterError::of(&error, &shown))?;
                let server =
                    ApiServer { client, server: shown, timeout: ANSWER, watch: api.watch.clone(), ..api.clone() };
                // The client puts the address's own path before each.
                Ok(Self { server, root: String::new() })
            }
        }
    }

    /// The answer to an instant query, as of now.
    ///
    /// # Errors
    /// No answer in time, or a status that is not a success.
    pub async fn query(&self, query: &str) -> Result<String, ClusterError> {
        self.server.get(&format!("{}/api/v1/query?query={}", self.root, encode(query)), ANSWER).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let service = |port: &str| {
            PrometheusAddress::Service("istio-system".to_owned(), "prometheus".to_owned(), port.to_owned())
        };
        assert_eq!("istio-system/prometheus".parse(), Ok(service("9090")));
        assert_eq!("istio-system/prometheus:http".parse(), Ok(service("http")));
        assert!(matches!("https://mimir.example/prometheus".parse(), Ok(PrometheusAddress::Address(_))));
        for wrong in [
            "prometheus",
            "a/b/c",
            "a/b:",
            "/b",
            "http://",
            "a/b?x=1",
            "https://ci:secret@prom",
            "http://prom/?token=secret",
        ] {
            let why = wrong.parse::<PrometheusAddress>().unwrap_err();
            assert!(!why.contains("secret@") && !why.contains("token"), "{why}");
        }
    }
}
