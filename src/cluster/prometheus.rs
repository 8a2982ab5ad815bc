//! Queries Prometheus or a compatible server: at a URL, or as a Service through the API server's proxy.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use kube::Client;
use kube::config::Config;

use super::client::ApiServer;
use super::error::{ClusterError, ClusterErrorKind};
use super::http_proxy::HttpProxyEnvironment;
use super::request::percent_encode;

/// Limit of one query.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The location of a Prometheus server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrometheusAddress {
    /// A URL, with the path prefix of the API.
    Address(Uri),
    /// A Service: namespace, name, and port number or name.
    Service(String, String, String),
}

impl std::str::FromStr for PrometheusAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains("://") {
            let uri: Uri = text.parse().map_err(|error| format!("invalid URL: {error}"))?;
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) || uri.query().is_some() {
                return Err("the URL must not contain credentials or a query, because messages show it; \
                            pass secrets with --prometheus-header-file"
                    .to_owned());
            }
            return if uri.host().is_some() {
                Ok(Self::Address(uri))
            } else {
                Err(format!("the URL \"{text}\" has no host"))
            };
        }
        let invalid = || format!("\"{text}\" is neither a URL (http://…) nor NAMESPACE/SERVICE[:PORT]");
        let (namespace, service) = text.split_once('/').ok_or_else(invalid)?;
        let (name, port) = service.split_once(':').unwrap_or((service, "9090"));
        let is_label =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if is_label(namespace) && is_label(name) && is_label(port) {
            Ok(Self::Service(namespace.to_owned(), name.to_owned(), port.to_owned()))
        } else {
            Err(invalid())
        }
    }
}

/// A connection to a Prometheus server.
#[derive(Clone)]
pub struct PrometheusClient {
    server: ApiServer,
    /// Path before `/api/v1`.
    path_prefix: String,
}

impl PrometheusClient {
    /// Connects to `address`. The headers are sent with every query to a URL.
    ///
    /// # Errors
    /// The URL or the HTTP proxy is unusable.
    pub fn new(
        address: &PrometheusAddress,
        api: &ApiServer,
        headers: Vec<(HeaderName, HeaderValue)>,
        proxy: &HttpProxyEnvironment,
    ) -> Result<Self, ClusterError> {
        match address {
            PrometheusAddress::Service(namespace, name, port) => {
                let path_prefix = format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy");
                Ok(Self { server: api.clone(), path_prefix })
            }
            PrometheusAddress::Address(uri) => {
                let mut config = Config::new(uri.clone());
                config.default_retry = false;
                config.connect_timeout = Some(QUERY_TIMEOUT);
                config.proxy_url =
                    proxy.proxy_for(uri, None).map_err(|error| ClusterError::new(ClusterErrorKind::Config, error))?;
                config.headers = headers;
                let url = uri.to_string().trim_end_matches('/').to_owned();
                let client = Client::try_from(config).map_err(|error| ClusterError::from_client(&error, &url))?;
                let server = ApiServer {
                    client,
                    server: url,
                    timeout: QUERY_TIMEOUT,
                    health: Arc::default(),
                    observer: api.observer.clone(),
                    ..api.clone()
                };
                // The client prepends the path of the URL itself.
                Ok(Self { server, path_prefix: String::new() })
            }
        }
    }

    /// Runs an instant query as of now and returns the JSON response.
    ///
    /// # Errors
    /// The server does not answer in time, or the status is not a success.
    pub async fn query(&self, query: &str) -> Result<String, ClusterError> {
        self.server
            .get(&format!("{}/api/v1/query?query={}", self.path_prefix, percent_encode(query)), QUERY_TIMEOUT)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_urls_and_services_and_never_shows_secrets() {
        let service = |port: &str| {
            PrometheusAddress::Service("istio-system".to_owned(), "prometheus".to_owned(), port.to_owned())
        };
        assert_eq!("istio-system/prometheus".parse(), Ok(service("9090")));
        assert_eq!("istio-system/prometheus:http".parse(), Ok(service("http")));
        assert!(matches!("https://mimir.example/prometheus".parse(), Ok(PrometheusAddress::Address(_))));
        for text in [
            "prometheus",
            "a/b/c",
            "a/b:",
            "/b",
            "http://",
            "a/b?x=1",
            "https://ci:secret@prom",
            "http://prom/?token=secret",
        ] {
            let error = text.parse::<PrometheusAddress>().unwrap_err();
            assert!(!error.contains("secret@") && !error.contains("token"), "{error}");
        }
    }
}
