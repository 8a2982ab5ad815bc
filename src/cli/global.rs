//! Flags that every command has: kubectl's connection flags, the source, and output.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::env::Env;
use crate::cluster::client::Connection;

/// kubectl's connection flags.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// Kubeconfig file
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Cluster of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// User of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    pub user: Option<String>,
    /// Address of the API server
    #[arg(short, long, global = true, value_name = "URL")]
    pub server: Option<String>,
    /// Bearer token
    #[arg(long, global = true, value_name = "TOKEN")]
    pub token: Option<String>,
    /// Act as this user
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
    /// Act as a member of this group (repeatable)
    #[arg(long = "as-group", global = true, value_name = "GROUP")]
    pub impersonate_groups: Vec<String>,
    /// Act as this UID
    #[arg(long = "as-uid", global = true, value_name = "UID")]
    pub impersonate_uid: Option<String>,
    /// File with the server's certificate authority
    #[arg(long, global = true, value_name = "FILE")]
    pub certificate_authority: Option<PathBuf>,
    /// File with the client's certificate
    #[arg(long, global = true, value_name = "FILE")]
    pub client_certificate: Option<PathBuf>,
    /// File with the client's key
    #[arg(long, global = true, value_name = "FILE")]
    pub client_key: Option<PathBuf>,
    /// Name that the server's certificate must have
    #[arg(long, global = true, value_name = "NAME")]
    pub tls_server_name: Option<String>,
    /// Do not check the server's certificate
    #[arg(long, global = true)]
    pub insecure_skip_tls_verify: bool,
    /// Limit for one request, such as 30s (default 10s for the first contact)
    #[arg(long, global = true, value_name = "DURATION", value_parser = request_timeout)]
    pub request_timeout: Option<Duration>,
    /// Ask for answers without compression
    #[arg(long, global = true)]
    pub disable_compression: bool,
    /// Folder for what completion keeps for some seconds (default: ~/.kube/cache)
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

/// kubectl's form: a duration, or a number of seconds; 0 is no limit of its own.
fn request_timeout(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    crate::vocabulary::duration::parse(text).map_err(|error| error.to_string())
}

impl ConnectionArgs {
    /// What a client is made from.
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

/// Where objects are read from, and which of them are meant.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Source")]
pub struct SourceArgs {
    /// Read from here: "demo", a snapshot, manifests, a directory, or - (default: the cluster)
    #[arg(long, value_name = "SOURCE")]
    pub from: Vec<String>,
    /// Lay these manifests over the source, as if applied (repeatable; directories; -)
    #[arg(short, long, value_name = "PATH")]
    pub filename: Vec<String>,
    /// Files in the folders of a source that are something else, such as tests.
    #[arg(skip)]
    pub except: Vec<std::path::PathBuf>,
    /// Make malformed documents a gap instead of an error
    #[arg(long)]
    pub keep_going: bool,
    /// Istio version whose behaviour is assumed, such as 1.27 (default: the one found)
    #[arg(long, value_name = "VERSION", value_parser = istio_version)]
    pub istio_version: Option<crate::mesh::version::IstioVersion>,
    /// Cluster domain (default: istiod's, else cluster.local)
    #[arg(long, value_name = "DOMAIN", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub cluster_domain: Option<String>,
}

fn istio_version(text: &str) -> Result<crate::mesh::version::IstioVersion, String> {
    crate::mesh::version::IstioVersion::parse(text)
        .ok_or_else(|| "it is no version of Istio; write it like 1.27".to_owned())
}

/// The namespaces that are meant, as in kubectl.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Scope")]
pub struct ScopeArgs {
    /// Namespace
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// All namespaces
    #[arg(short = 'A', long, global = true)]
    pub all_namespaces: bool,
    /// Namespace of istiod
    #[arg(short = 'i', long, global = true, value_name = "NAMESPACE", default_value = "istio-system")]
    pub istio_namespace: String,
    /// Revision of the control plane whose configuration is meant
    #[arg(long, global = true, value_name = "REVISION")]
    pub revision: Option<String>,
}

/// How answers are written.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// When to use color
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: ColorWhen,
    /// No progress on stderr
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Leave out table headings
    #[arg(long, global = true)]
    pub no_headers: bool,
    /// From 1: every request to the API server, with its status, size and time, on stderr
    #[arg(short, long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    pub verbosity: u8,
}

/// When to use color.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum ColorWhen {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
