//! `version`: prints the versions of this program, Kubernetes, istiod and the proxies.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::{ReportFormat, SourceArgs};
use crate::cli::source::ScopedSnapshot;
use crate::mesh::version::{IstioVersion, VersionSource};
use crate::mesh::{self, Mesh};
use crate::render;

/// Show the versions of this program, Kubernetes, istiod and the proxies
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh version --client
  kubectl grpcmesh version --from demo")]
pub struct VersionArgs {
    /// Print only the version of this program, without reading a source
    #[arg(long)]
    client: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ReportFormat,
    #[command(flatten)]
    source: SourceArgs,
}

/// The report of `version`.
#[derive(Debug, Serialize)]
struct VersionReport {
    kind: &'static str,
    version: u32,
    client: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    istiod: Option<String>,
    /// Number of proxies by version.
    proxies: BTreeMap<String, u32>,
}

pub(super) async fn run(context: &mut Context<'_>, mut arguments: VersionArgs) -> Result<CommandOutcome, Failure> {
    arguments.source.reads_all_namespaces = true;
    let client = env!("CARGO_PKG_VERSION");
    let mut report =
        VersionReport { kind: "Version", version: 1, client, kubernetes: None, istiod: None, proxies: BTreeMap::new() };
    let mut source_failure = None;
    if !arguments.client {
        match arguments.source.read(context).await {
            Ok(ScopedSnapshot { snapshot, .. }) => {
                let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
                report.kubernetes.clone_from(&snapshot.kubernetes_version);
                report.istiod = (mesh.version_source == VersionSource::Istiod).then(|| mesh.version.to_string());
                let proxies = proxies_by_version(&mesh).into_iter();
                report.proxies = proxies.map(|(version, count)| (version.to_string(), count)).collect();
            }
            // The client version is printed even if the source cannot be read.
            Err(failure) => source_failure = Some(failure),
        }
    }
    match arguments.output {
        ReportFormat::Json => render::json(&report, context.out)?,
        ReportFormat::Yaml => render::yaml::yaml(&report, context.out)?,
        ReportFormat::Text => {
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
    match source_failure {
        Some(failure) => Err(failure.hint("use --client to print only the version of this program")),
        None => Ok(CommandOutcome::Clean),
    }
}

/// The number of proxies of each version.
pub(super) fn proxies_by_version(mesh: &Mesh<'_>) -> BTreeMap<IstioVersion, u32> {
    let mut counts = BTreeMap::new();
    for workload in &mesh.workloads {
        if let Some(version) = workload.proxy.envoy().and_then(|envoy| envoy.version) {
            *counts.entry(version).or_default() += workload.pod_count;
        }
    }
    counts
}
