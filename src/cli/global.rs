//! Flags that several commands share: kubectl's connection flags, source, scope and output.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::env::Env;
use crate::cluster::client::Connection;

/// kubectl's flags for the connection to the cluster.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Path to the kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Name of the kubeconfig context
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Name of the kubeconfig cluster
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Name of the kubeconfig user
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Address and port of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token for authentication to the API server
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// User to impersonate
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Group to impersonate (repeatable)
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,
    /// UID to impersonate
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,
    /// Path to the certificate file of the certificate authority
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// Path to the client certificate file
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// Path to the client key file
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Server name for the validation of the server certificate
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Do not validate the server certificate
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Timeout of each request, such as 30s; 0 means no timeout (default: 10s for the first request)
    #[arg(long, global = true, value_name = "DURATION", value_parser = request_timeout)]
    pub request_timeout: Option<Duration>,
    /// Do not request compressed responses
    #[arg(long, global = true)]
    pub disable_compression: bool,
    /// Directory of cached names for completion (default: ~/.kube/cache)
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// Parses a timeout as kubectl does: a duration or a number of seconds. 0 sets no timeout.
fn request_timeout(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    crate::vocabulary::duration::parse(text).map_err(|error| error.to_string())
}

impl ConnectionArgs {
    /// The settings of a client: the flags, and the kubeconfig files and proxies of the environment.
    pub fn connection(&self, env: &Env) -> Connection {
        let Self {
            kubeconfig,
            context,
            cluster,
            user,
            server,
            token,
            impersonate,
            impersonate_groups,
            impersonate_uid,
            certificate_authority,
            client_certificate,
            client_key,
            tls_server_name,
            insecure_skip_tls_verify,
            request_timeout,
            disable_compression,
            cache_dir: _,
        } = self.clone();
        Connection {
            kubeconfig,
            kubeconfig_files: env.kubeconfig_files.clone(),
            context,
            cluster,
            user,
            server,
            token,
            impersonate,
            impersonate_groups,
            impersonate_uid,
            certificate_authority,
            client_certificate,
            client_key,
            tls_server_name,
            insecure: insecure_skip_tls_verify,
            disable_compression,
            request_timeout,
            proxy: env.proxy.clone(),
        }
    }
}

/// The source of the objects.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Read "demo", a snapshot, a manifest, a directory or - for stdin instead of the cluster (repeatable)
    #[arg(long, value_name = "SOURCE")]
    pub from: Vec<String>,
    /// Manifest, directory or - for stdin to overlay on the source, as if applied (repeatable)
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<String>,
    /// Files in the folders of a source that are not manifests, such as route tests.
    #[arg(skip)]
    pub excluded_files: Vec<PathBuf>,
    /// Kinds to read from a cluster; empty means all.
    #[arg(skip)]
    pub kinds: Vec<crate::schema::Kind>,
    /// The command reads all namespaces unless `-n` is given, so that the kubeconfig's namespace may have no objects.
    #[arg(skip)]
    pub reads_all_namespaces: bool,
    /// Treat malformed documents as gaps instead of failing
    #[arg(long)]
    pub keep_going: bool,
    /// Largest compressed source to read, by its size when decompressed, such as 2Gi (default: 512Mi)
    #[arg(long, value_name = "SIZE", value_parser = byte_size)]
    pub max_source_size: Option<u64>,
    /// Istio version to assume, such as 1.27 (default: the version found in the source)
    #[arg(long, value_name = "VERSION", value_parser = istio_version)]
    pub istio_version: Option<crate::mesh::version::IstioVersion>,
    /// Cluster domain (default: the domain found in the source, else cluster.local)
    #[arg(long, value_name = "DOMAIN", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cluster_domain: Option<String>,
}

/// Parses `512Mi`, `2Gi` or a number of bytes.
///
/// # Errors
/// The text is not a size.
pub fn byte_size(text: &str) -> Result<u64, String> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    let (number, shift) =
        units.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift))).unwrap_or((text, 0));
    let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    size.filter(|size| *size > 0).ok_or_else(|| "expected a size such as 512Mi or 2Gi".to_owned())
}

fn istio_version(text: &str) -> Result<crate::mesh::version::IstioVersion, String> {
    use crate::mesh::version::IstioVersion;
    let version = IstioVersion::parse(text).ok_or_else(|| "expected a version such as 1.27".to_owned())?;
    let (oldest, newest) = (IstioVersion::OLDEST, IstioVersion::NEWEST);
    if version.is_supported() { Ok(version) } else { Err(format!("the supported versions are {oldest} to {newest}")) }
}

/// The namespaces in scope, as in kubectl, and the control plane.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Scope")]
pub struct ScopeArgs {
    /// Namespace (default: the namespace of the kubeconfig context; with --from, all)
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// Include all namespaces
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
    /// Namespace of istiod
    #[arg(short = 'i', long, global = true, value_name = "NAMESPACE", default_value = "istio-system")]
    pub istio_namespace: String,
    /// Revision of istiod, as in the label istio.io/rev
    #[arg(long, global = true, value_name = "REVISION")]
    pub revision: Option<String>,
}

/// How output is written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// When to use color; auto means on a terminal unless NO_COLOR is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
    /// Do not show progress bars on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Do not print table headers
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// Verbosity; 1 prints each API request with status, size and duration to stderr
    #[arg(short, long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,
}

// Help lists values without comments on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorWhen {
    #[default]
    Auto,
    Always,
    Never,
}

/// The formats of commands whose only output is one report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    #[value(alias = "table")]
    Text,
    Json,
    Yaml,
}
