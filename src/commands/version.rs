//! `version`: of this program; with a source also of istiod and the proxies.

use std::collections::BTreeMap;

use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::mesh::version::VersionSource;
use crate::{mesh, render};

/// Show the version of this program, and of istiod and the proxies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh version --client
  kubectl grpcmesh version --from demo")]
pub struct VersionArgs {
    /// Only this program; reads nothing
    #[arg(long)]
    client: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: VersionFormat,
    #[command(flatten)]
    source: SourceArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VersionFormat {
    /// For people.
    Text,
    /// JSON.
    Json,
}

/// What is shown.
#[derive(Debug, Serialize)]
struct VersionReport {
    kind: &'static str,
    version: u32,
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    istiod: Option<String>,
    /// Proxies by version.
    proxies: BTreeMap<String, u32>,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: VersionArgs) -> Result<CommandOutcome, Failure> {
    let client = env!("CARGO_PKG_VERSION");
    let mut report =
        VersionReport { kind: "Version", version: 1, client, kubernetes: None, istiod: None, proxies: BTreeMap::new() };
    let mut trouble = None;
    if !arguments.client {
        match arguments.source.read(context).await {
            Ok(ScopedSnapshot { snapshot, .. }) => {
                let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
                report.kubernetes.clone_from(&snapshot.kubernetes_version);
                report.istiod = (mesh.version_source == VersionSource::Istiod).then(|| mesh.version.to_string());
                for workload in &mesh.workloads {
                    if let Some(version) = workload.proxy.envoy().and_then(|envoy| envoy.version) {
                        *report.proxies.entry(version.to_string()).or_default() += workload.count;
                    }
                }
            }
            // The program's own version is known whatever the cluster does.
            Err(failure) => trouble = Some(failure),
        }
    }
    match arguments.output {
        VersionFormat::Json => render::json(&report, context.out)?,
        VersionFormat::Text => {
            writeln!(context.out, "client      {client}")?;
            if let Some(version) = &report.kubernetes {
                writeln!(context.out, "kubernetes  {version}")?;
            }
            if let Some(version) = &report.istiod {
                writeln!(context.out, "istiod      {version}")?;
            }
            for (version, count) in &report.proxies {
                writeln!(context.out, "proxies     {version} ({count})")?;
            }
        }
    }
    match trouble {
        Some(failure) => Err(failure.hint("for this program only: --client")),
        None => Ok(CommandOutcome::Clean),
    }
}
