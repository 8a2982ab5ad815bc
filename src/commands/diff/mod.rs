//! `diff`: files against the cluster, and the cluster against what every Envoy runs.

mod objects;
mod proxies;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::proxy_states::ProxyArgs;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::target;
use crate::mesh;
use crate::render;
use crate::render::diff::DiffDetail;
use crate::report::GapReport;
use crate::report::diff::DiffReport;

/// Show what files would change, and whether every Envoy runs what the cluster's objects say
///
/// With -f, the files are compared with the cluster: by a dry run on the server where that is allowed, so that defaults
/// and admission are the server's own. Then each proxy in scope is asked what it runs: route tables, clusters and
/// endpoints are held beside what istiod should have made of the objects for that very proxy.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh diff                                the proxies of the current namespace
  kubectl grpcmesh diff -A --wait                      all proxies, until they are in step
  kubectl grpcmesh diff checkout.shop                  what callers' proxies have for one Service
  kubectl grpcmesh diff -f new.yaml --summary          what would change
  kubectl grpcmesh diff --from mesh.json.gz            a snapshot with --proxies
  kubectl grpcmesh diff --from old.json --against new.json
  kubectl grpcmesh diff -A -o json                     for pipelines; exits 1 when something differs")]
pub struct DiffArgs {
    /// Only what proxies have for these Services: checkout, checkout.shop, vs/x, grpcroute/x, httproute/x
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Another source, to compare the objects of two
    #[arg(long, value_name = "SOURCE", conflicts_with = "filename")]
    against: Option<String>,
    /// Sentences only, no YAML
    #[arg(long, conflicts_with = "full")]
    summary: bool,
    /// Also what is the same, and proxies that are in step
    #[arg(long)]
    full: bool,
    /// Wait until all proxies are in step, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
        value_parser = crate::vocabulary::duration::parse)]
    wait: Option<Duration>,
    /// Do not ask proxies
    #[arg(long, conflicts_with_all = ["wait", "proxies"])]
    no_proxies: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: DiffFormat,
    /// Exit 0 whatever differs
    #[arg(long)]
    exit_zero: bool,
    #[command(flatten)]
    asking: ProxyArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// For people.
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
    /// For a pull request.
    Markdown,
    /// Annotations of a GitHub workflow.
    Github,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: DiffArgs) -> Result<CommandOutcome, Failure> {
    let is_live = arguments.source.from.is_empty();
    if !is_live && (arguments.wait.is_some() || arguments.asking.proxies.is_some()) {
        return Err(Failure::usage(
            "--wait and --proxies are about a cluster's proxies, and --from names another source",
        ));
    }
    // The files are one side of a comparison here, not an overlay.
    let bare = SourceArgs { filename: Vec::new(), ..arguments.source.clone() };
    let read = bare.read(context).await?;
    let has_proxies = is_live || read.snapshot.live.is_some();
    if !has_proxies && arguments.against.is_none() && arguments.source.filename.is_empty() {
        return Err(Failure::usage("the source does not hold what Envoys run")
            .hint("compare its objects: --against SOURCE, or -f FILE; or save it with: snapshot --proxies"));
    }
    if !arguments.targets.is_empty() && (arguments.against.is_some() || !has_proxies) {
        return Err(Failure::usage(
            "a TARGET says of which Services the proxies are compared; objects are compared whole",
        )
        .hint("leave it out"));
    }
    let mesh = mesh::resolve(&read.snapshot, &bare.options(&context.scope));
    let (sides, compared, mut gaps) = objects::compare(context, &arguments, &read).await?;
    gaps.extend(mesh.snapshot.gaps.iter().map(GapReport::from));
    let mut hosts = Vec::new();
    for word in &arguments.targets {
        let found = target::services(&mesh, word, &read.namespaces)?;
        hosts.extend(found.into_iter().map(|id| mesh.service(id).host.as_str().to_owned()));
    }
    let wants_proxies = arguments.against.is_none() && !arguments.no_proxies;
    let proxies = match (wants_proxies, is_live) {
        (false, _) => Vec::new(),
        (true, false) => proxies::saved(&mesh, &read.namespaces, &hosts),
        (true, true) => {
            drop(mesh);
            proxies::compare(context, &arguments, &bare, read, &hosts).await?
        }
    };
    let report = DiffReport::new(sides, compared, proxies, gaps);
    let detail = match (arguments.summary, arguments.full) {
        (true, _) => DiffDetail::Summary,
        (_, true) => DiffDetail::Full,
        _ => DiffDetail::Normal,
    };
    match arguments.output {
        DiffFormat::Text => render::diff::diff(&report, detail, &context.style, context.out)?,
        DiffFormat::Json => render::json(&report, context.out)?,
        DiffFormat::Yaml => render::yaml::yaml(&report, context.out)?,
        DiffFormat::Markdown => render::diff::markdown(&report, context.out)?,
        DiffFormat::Github => render::diff::github(&report, context.out)?,
    }
    if report.counts.get("unreachable").is_some_and(|count| *count == report.proxies.len()) {
        context.messages.hint(
            "asking proxies needs create on pods/portforward (docs/rbac/live-reader.yaml), or on pods/exec with --via exec",
        );
    }
    if report.objects.is_empty() && report.proxies.is_empty() {
        context.messages.hint("there is no proxy in scope to compare; all namespaces: -A");
    }
    Ok(match (report.differs() && !arguments.exit_zero, report.is_partial()) {
        (true, _) => CommandOutcome::Found,
        (false, true) if !arguments.exit_zero => CommandOutcome::Partial,
        _ => CommandOutcome::Clean,
    })
}
