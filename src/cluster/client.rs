//! Turns kubectl's connection flags into a client.
//!
//! The kubeconfig is resolved here instead of in the client library. A missing context or user gets a message that lists
//! the existing ones, and [`super::http_proxy`] decides about proxies.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use http::Request;
use kube::Client;
use kube::client::{Body, ClientBuilder};
use kube::config::{AuthInfo, Cluster, Config, Context, ExecAuthCluster, Kubeconfig};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::ExposeSecret as _;
use tower::buffer::BufferLayer;
use tower::filter::AsyncFilterLayer;

use super::credential_plugin::{CredentialPlugin, ExpiringToken, bearer_header};
use super::error::{ClusterError, ClusterErrorKind};
use super::http_proxy::HttpProxyEnvironment;
use super::request::RequestEvent;
use crate::vocabulary::nearest_name;

/// kubectl's connection flags, with the defaults of the environment.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// `--kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// Files of `KUBECONFIG`, or the default file. Missing files are skipped.
    pub kubeconfig_files: Vec<PathBuf>,
    /// `--context`.
    pub context: Option<String>,
    /// `--cluster`.
    pub cluster: Option<String>,
    /// `--user`.
    pub user: Option<String>,
    /// `--server`.
    pub server: Option<String>,
    /// `--token`.
    pub token: Option<String>,
    /// `--as`.
    pub impersonate: Option<String>,
    /// `--as-group`.
    pub impersonate_groups: Vec<String>,
    /// `--as-uid`.
    pub impersonate_uid: Option<String>,
    /// `--certificate-authority`.
    pub certificate_authority: Option<PathBuf>,
    /// `--client-certificate`.
    pub client_certificate: Option<PathBuf>,
    /// `--client-key`.
    pub client_key: Option<PathBuf>,
    /// `--tls-server-name`.
    pub tls_server_name: Option<String>,
    /// `--insecure-skip-tls-verify`.
    pub insecure: bool,
    /// `--disable-compression`.
    pub disable_compression: bool,
    /// `--request-timeout`; absent means 10 s for the first request.
    pub request_timeout: Option<Duration>,
    /// HTTP proxies of the environment.
    pub proxy: HttpProxyEnvironment,
}

/// A client with the settings of its kubeconfig context.
#[derive(Clone)]
pub struct ApiServer {
    /// Sends requests with the context's credentials.
    pub client: Client,
    /// Server URL, for messages.
    pub server: String,
    /// Default namespace of the context.
    pub namespace: String,
    /// Limit of the first request, and of requests without another limit of their own.
    pub timeout: Duration,
    /// `--request-timeout`. It replaces every other limit of a request.
    pub request_timeout: Option<Duration>,
    /// Whether the server ever answered, to give up after one request that it does not answer.
    pub health: Arc<ServerHealth>,
    /// Called after every request.
    pub observer: Option<RequestObserver>,
}

/// What is known about a server that may not answer.
#[derive(Debug, Default)]
pub struct ServerHealth {
    has_answered: AtomicBool,
    is_silent: AtomicBool,
}

impl ServerHealth {
    /// Notes an answer of any kind.
    pub(super) fn note_answer(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
        self.is_silent.store(false, Ordering::Relaxed);
    }

    /// Notes a request without an answer.
    pub(super) fn note_timeout(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
    }

    /// Whether the last request had no answer.
    pub fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    /// Whether no request ever had an answer, so that a further one would only wait for its limit again.
    pub(super) fn never_answers(&self) -> bool {
        self.is_silent() && !self.has_answered.load(Ordering::Relaxed)
    }
}

/// Receives every completed request.
pub type RequestObserver = Arc<dyn Fn(&RequestEvent<'_>) + Send + Sync>;

/// Limit of the first request without `--request-timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Limit of a credential plugin without `--request-timeout`. It may open a browser to log in.
const PLUGIN_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest kubeconfig, as in client-go's limit for a request body: it may hold certificates of many clusters.
const MAX_KUBECONFIG_BYTES: u64 = 16 << 20;

/// Requests that wait for a token to be renewed.
const MAX_BUFFERED_REQUESTS: usize = 1024;

impl Connection {
    /// Builds a client. Sends no request, but may run an exec plugin.
    ///
    /// # Errors
    /// The kubeconfig, a certificate or the credentials are unusable.
    pub async fn connect(&self) -> Result<ApiServer, ClusterError> {
        let mut config = match self.kubeconfig()? {
            Some(kubeconfig) => self.config_from_kubeconfig(kubeconfig)?,
            None if self.server.is_some() => self.config_for_cluster(&Cluster::default(), AuthInfo::default(), None)?,
            None => Config::incluster().map_err(|_| self.missing_kubeconfig())?,
        };
        config.default_retry = false;
        let request_timeout = self.request_timeout.filter(|limit| !limit.is_zero());
        let timeout = request_timeout.unwrap_or(DEFAULT_TIMEOUT);
        config.connect_timeout = Some(timeout);
        let (server, namespace) = (shown_url(&config.cluster_url), config.default_namespace.clone());
        let expiring = authenticate(&mut config.auth_info, request_timeout.unwrap_or(PLUGIN_TIMEOUT)).await?;
        let client = client(config, expiring).map_err(|error| ClusterError::from_client(&error, &server))?;
        Ok(ApiServer { client, server, namespace, timeout, request_timeout, health: Arc::default(), observer: None })
    }

    fn kubeconfig(&self) -> Result<Option<Kubeconfig>, ClusterError> {
        if let Some(path) = &self.kubeconfig {
            return read(path).map(Some);
        }
        let mut merged: Option<Kubeconfig> = None;
        for path in self.kubeconfig_files.iter().filter(|path| path.exists()) {
            let next = read(path)?;
            merged = Some(match merged {
                None => next,
                Some(before) => before.merge(next).map_err(|error| {
                    ClusterError::new(
                        ClusterErrorKind::Config,
                        format!("cannot merge kubeconfig {}: {error}", path.display()),
                    )
                })?,
            });
        }
        Ok(merged)
    }

    /// Interprets a kubeconfig without connecting.
    ///
    /// # Errors
    /// It has no usable context, cluster or user.
    pub(crate) fn interpret(&self, kubeconfig: Kubeconfig) -> Result<(), ClusterError> {
        self.config_from_kubeconfig(kubeconfig).map(|_| ())
    }

    fn missing_kubeconfig(&self) -> ClusterError {
        let paths: Vec<_> = self.kubeconfig_files.iter().map(|path| path.display().to_string()).collect();
        ClusterError::new(ClusterErrorKind::Config, format!("cannot find a kubeconfig in {}", paths.join(", ")))
            .hint("pass one with --kubeconfig")
    }

    fn config_from_kubeconfig(&self, kubeconfig: Kubeconfig) -> Result<Config, ClusterError> {
        let Kubeconfig { clusters, auth_infos, contexts, current_context, .. } = kubeconfig;
        let context_name = self.context.clone().or(current_context).filter(|name| !name.is_empty());
        let context = match &context_name {
            Some(name) => {
                let names = contexts.iter().map(|context| context.name.as_str());
                let named = contexts.iter().find(|context| &context.name == name);
                let named = named.ok_or_else(|| missing_entry("context", name, names))?;
                named.context.clone().unwrap_or_default()
            }
            None if self.cluster.is_some() || self.server.is_some() => Context::default(),
            None => {
                return Err(ClusterError::new(
                    ClusterErrorKind::Config,
                    "cannot select a context: the kubeconfig sets no current context",
                )
                .hint("run kubectl config use-context NAME, or pass --context NAME"));
            }
        };
        let cluster_name = self.cluster.clone().unwrap_or_else(|| context.cluster.clone());
        let cluster = match clusters.iter().find(|cluster| cluster.name == cluster_name) {
            Some(named) => named.cluster.clone().unwrap_or_default(),
            None if cluster_name.is_empty() && self.server.is_some() => Cluster::default(),
            None => {
                return Err(missing_entry(
                    "cluster",
                    &cluster_name,
                    clusters.iter().map(|cluster| cluster.name.as_str()),
                ));
            }
        };
        let user_name = self.user.clone().or_else(|| context.user.clone()).filter(|name| !name.is_empty());
        let auth = match user_name {
            None => AuthInfo::default(),
            Some(name) => match auth_infos.iter().find(|user| user.name == name) {
                Some(named) => named.auth_info.clone().unwrap_or_default(),
                None => return Err(missing_entry("user", &name, auth_infos.iter().map(|user| user.name.as_str()))),
            },
        };
        self.config_for_cluster(&cluster, auth, context.namespace)
    }

    fn config_for_cluster(
        &self,
        cluster: &Cluster,
        auth: AuthInfo,
        namespace: Option<String>,
    ) -> Result<Config, ClusterError> {
        let config_error = |message: String| ClusterError::new(ClusterErrorKind::Config, message);
        let server = self.server.clone().or_else(|| cluster.server.clone()).filter(|server| !server.is_empty());
        let server =
            server.ok_or_else(|| config_error("cannot connect: the kubeconfig's cluster has no server".to_owned()))?;
        let server = if server.contains("://") { server } else { format!("https://{server}") };
        let url: http::Uri = server.parse().map_err(|error| {
            config_error(format!("invalid server URL \"{}\": {error}", without_credentials(&server)))
        })?;
        let proxy = self.proxy.proxy_for(&url, cluster.proxy_url.as_deref()).map_err(config_error)?;
        let mut config = Config::new(url);
        config.proxy_url = proxy;
        config.default_namespace = namespace.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned());
        config.accept_invalid_certs = self.insecure || cluster.insecure_skip_tls_verify.unwrap_or(false);
        config.disable_compression = self.disable_compression || cluster.disable_compression.unwrap_or(false);
        config.tls_server_name = self.tls_server_name.clone().or_else(|| cluster.tls_server_name.clone());
        config.root_cert = match (&self.certificate_authority, &cluster.certificate_authority_data) {
            (Some(path), _) => Some(certificates(&read_bytes(path)?, &path.display().to_string())?),
            (None, Some(data)) => Some(certificates(&decode(data)?, "certificate-authority-data")?),
            (None, None) => match &cluster.certificate_authority {
                Some(path) => Some(certificates(&read_bytes(Path::new(path))?, path)?),
                None => None,
            },
        };
        config.auth_info = self.auth(auth);
        if let Some(exec) = config.auth_info.exec.as_mut().filter(|exec| exec.provide_cluster_info) {
            exec.cluster = ExecAuthCluster::try_from(cluster).ok();
        }
        Ok(config)
    }

    /// Applies the flags over the user's entry. As in kubectl, `--token` takes precedence over an exec plugin.
    fn auth(&self, mut auth: AuthInfo) -> AuthInfo {
        if let Some(token) = &self.token {
            auth = AuthInfo {
                token: Some(token.clone().into()),
                client_certificate: auth.client_certificate,
                client_certificate_data: auth.client_certificate_data,
                client_key: auth.client_key,
                client_key_data: auth.client_key_data,
                ..AuthInfo::default()
            };
        }
        if let Some(path) = &self.client_certificate {
            auth.client_certificate = Some(path.display().to_string());
            auth.client_certificate_data = None;
        }
        if let Some(path) = &self.client_key {
            auth.client_key = Some(path.display().to_string());
            auth.client_key_data = None;
        }
        auth.impersonate = self.impersonate.clone().or(auth.impersonate);
        auth.impersonate_uid = self.impersonate_uid.clone().or(auth.impersonate_uid);
        if !self.impersonate_groups.is_empty() {
            auth.impersonate_groups = Some(self.impersonate_groups.clone());
        }
        auth
    }
}

/// Builds the client, with a layer that renews an expiring token.
fn client(config: Config, expiring: Option<ExpiringToken>) -> Result<Client, kube::Error> {
    let builder = ClientBuilder::try_from(config)?;
    let Some(token) = expiring.map(Arc::new) else { return Ok(builder.build()) };
    let authorize = move |request: Request<Body>| Arc::clone(&token).authorize(request);
    // The filter waits for the plugin while other requests pass, so it needs a service that can be cloned.
    let builder = builder.with_layer(&BufferLayer::new(MAX_BUFFERED_REQUESTS));
    Ok(builder.with_layer(&AsyncFilterLayer::new(authorize)).build())
}

/// Runs the credential plugin of a user, and checks that the token can be sent.
async fn authenticate(auth: &mut AuthInfo, limit: Duration) -> Result<Option<ExpiringToken>, ClusterError> {
    if let Some(token) = &auth.token {
        bearer_header(token.expose_secret())?;
    }
    let has_other = auth.token.is_some() || auth.token_file.is_some() || auth.auth_provider.is_some();
    let has_password = auth.username.is_some() && auth.password.is_some();
    let Some(exec) = auth.exec.take().filter(|_| !has_other && !has_password) else { return Ok(None) };
    let plugin = CredentialPlugin::new(exec, limit);
    let credential = plugin.run().await?;
    if let (Some(certificate), Some(key)) = (&credential.client_certificate_data, &credential.client_key_data) {
        let encode = |pem: &String| base64::engine::general_purpose::STANDARD.encode(pem);
        auth.client_certificate = None;
        auth.client_key = None;
        auth.client_certificate_data = Some(encode(certificate));
        auth.client_key_data = Some(encode(key).into());
    }
    let expiring = ExpiringToken::new(plugin, &credential)?;
    if let (None, Some(token)) = (&expiring, credential.token.filter(|token| !token.is_empty())) {
        bearer_header(&token)?;
        auth.token = Some(token.into());
    }
    Ok(expiring)
}

/// A URL as messages show it: without user, password and the final slash.
fn shown_url(url: &http::Uri) -> String {
    without_credentials(url.to_string().trim_end_matches('/'))
}

/// Removes the user and password of a URL, which need not be valid.
pub(super) fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end).unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{host}{path}")
}

fn read(path: &Path) -> Result<Kubeconfig, ClusterError> {
    let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if size > MAX_KUBECONFIG_BYTES {
        let message = format!("cannot read kubeconfig {}: it is larger than 16 MiB", path.display());
        return Err(ClusterError::new(ClusterErrorKind::Config, message).hint("check --kubeconfig"));
    }
    if !path.exists() {
        return Err(ClusterError::new(
            ClusterErrorKind::Config,
            format!("cannot read kubeconfig {}: no such file", path.display()),
        )
        .hint("check --kubeconfig"));
    }
    Kubeconfig::read_from(path).map_err(|error| {
        // Only the first line: the library also quotes the lines around an error, which may hold a token.
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        ClusterError::new(ClusterErrorKind::Config, format!("cannot read kubeconfig {}: {first}", path.display()))
            .hint(format!("check it with: kubectl config view --kubeconfig {}", path.display()))
    })
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, ClusterError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_KUBECONFIG_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| {
        ClusterError::new(ClusterErrorKind::Config, format!("cannot read {}: {error}", path.display()))
    })?;
    Ok(bytes)
}

fn decode(data: &str) -> Result<Vec<u8>, ClusterError> {
    base64::engine::general_purpose::STANDARD.decode(data.trim()).map_err(|_| {
        ClusterError::new(ClusterErrorKind::Config, "cannot decode certificate-authority-data: invalid base64")
    })
}

fn certificates(pem: &[u8], source: &str) -> Result<Vec<Vec<u8>>, ClusterError> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem).map(|certificate| certificate.map(|der| der.to_vec())).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(ClusterError::new(
            ClusterErrorKind::Config,
            format!("cannot read certificates from {source}: no PEM certificate found"),
        )),
    }
}

fn missing_entry<'a>(entry: &str, name: &str, names: impl Iterator<Item = &'a str>) -> ClusterError {
    let names = nearest_name::closest(name, names, 5);
    let existing = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    ClusterError::new(
        ClusterErrorKind::Config,
        format!("cannot find {entry} \"{name}\": the kubeconfig has {existing}"),
    )
    .hint(format!("list them with: kubectl config get-{entry}s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- {name: a, context: {cluster: c, user: u, namespace: shop}}\n- {name: b, context: {cluster: gone, user: u}}\nclusters:\n- {name: c, cluster: {server: 'https://127.0.0.1:1'}}\nusers:\n- {name: u, user: {token: t}}\n";

    fn config(connection: &Connection) -> Result<Config, ClusterError> {
        connection.config_from_kubeconfig(Kubeconfig::from_yaml(CONFIG).unwrap())
    }

    #[test]
    fn current_context_sets_server_and_namespace() {
        let config = config(&Connection::default()).unwrap();
        assert_eq!(
            (config.cluster_url.to_string().as_str(), config.default_namespace.as_str()),
            ("https://127.0.0.1:1/", "shop")
        );
    }

    #[test]
    fn missing_names_are_reported_with_the_existing_ones() {
        let message = |connection: Connection| config(&connection).unwrap_err().message;
        let context = |name: &str| Connection { context: Some(name.to_owned()), ..Connection::default() };
        assert_eq!(message(context("x")), "cannot find context \"x\": the kubeconfig has a, b");
        assert_eq!(message(context("b")), "cannot find cluster \"gone\": the kubeconfig has c");
        let user = Connection { user: Some("v".to_owned()), ..Connection::default() };
        assert_eq!(message(user), "cannot find user \"v\": the kubeconfig has u");
    }

    #[test]
    fn urls_are_shown_without_credentials() {
        for (url, shown) in [
            ("https://user:CANARY@api.example:6443/x?y=a@b", "https://api.example:6443/x?y=a@b"),
            ("user:CANARY@proxy", "proxy"),
            ("http://a:CANARY@b:c@proxy/", "http://proxy/"),
            ("https://api.example", "https://api.example"),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
        let server = Connection { server: Some("https://u:CANARY@bad host".to_owned()), ..Connection::default() };
        assert!(!config(&server).unwrap_err().message.contains("CANARY"));
    }

    #[tokio::test]
    async fn a_token_with_a_line_break_is_an_error() {
        for token in ["abc\n", "a\rb", "a\0"] {
            let mut auth = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() };
            let error = authenticate(&mut auth, PLUGIN_TIMEOUT).await.err().unwrap();
            assert!(error.message.starts_with("cannot use the token: it contains a line break"), "{error}");
            assert!(!error.message.contains(token));
        }
    }

    #[test]
    fn flags_take_precedence_over_the_kubeconfig() {
        let connection = Connection {
            server: Some("api.example".to_owned()),
            impersonate: Some("dev".to_owned()),
            impersonate_groups: vec!["g".to_owned()],
            token: Some("other".to_owned()),
            ..Connection::default()
        };
        let config = config(&connection).unwrap();
        assert_eq!(config.cluster_url.host(), Some("api.example"));
        assert_eq!(config.auth_info.impersonate.as_deref(), Some("dev"));
        assert_eq!(config.auth_info.impersonate_groups.as_deref(), Some(&["g".to_owned()][..]));
    }
}
