//! `diff`: compares files with the cluster, two sources, and desired with live state of every Envoy.

mod objects;
mod proxies;

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::live_proxies::{ProxyArgs, no_saved_proxies};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::target;
use crate::dataplane::proxy::ProxyState;
use crate::mesh;
use crate::render;
use crate::render::diff::DiffDetail;
use crate::report::GapReport;
use crate::report::diff::DiffReport;

/// Compare files with the cluster, and the cluster with what every Envoy runs
///
/// With -f, compares the files with the cluster, by a server-side dry run if permitted, so that defaults and admission
/// webhooks apply. Then compares the route tables, clusters and endpoints of each proxy in scope with what istiod should
/// send to it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh diff                                the proxies of the current namespace
  kubectl grpcmesh diff -A --wait                      wait until all proxies are synced
  kubectl grpcmesh diff checkout.shop                  only the configuration for one Service
  kubectl grpcmesh diff -f new.yaml --summary          preview a change
  kubectl grpcmesh diff --from mesh.json.gz            a snapshot that was saved with --proxies
  kubectl grpcmesh diff --from old.json --against new.json
  kubectl grpcmesh diff -A -o json                     for pipelines; differences exit with code 1")]
pub struct DiffArgs {
    /// Compare only the configuration for these Services: checkout, checkout.shop, vs/x, grpcroute/x, httproute/x
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Compare the objects of the source with those of this source, in the forms of --from
    #[arg(long, value_name = "SOURCE", conflicts_with = "filename")]
    against: Option<String>,
    /// Print one sentence per change, without YAML
    #[arg(long, conflicts_with = "full")]
    summary: bool,
    /// Also print equal objects and synced proxies
    #[arg(long)]
    full: bool,
    /// Wait until all proxies are synced, but no longer than this (60s if no duration is given)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "60s",
        value_parser = crate::vocabulary::duration::parse)]
    wait: Option<Duration>,
    /// Do not compare proxies
    #[arg(long, conflicts_with_all = ["wait", "proxies"])]
    no_proxies: bool,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: DiffFormat,
    /// Exit with code 0 even if there are differences
    #[arg(long)]
    exit_zero: bool,
    #[command(flatten)]
    proxies: ProxyArgs,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DiffFormat {
    /// Text
    Text,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Markdown, such as for a comment on a pull request
    Markdown,
    /// Workflow commands that GitHub shows as annotations
    Github,
}

pub(super) async fn run(context: &mut Context<'_>, arguments: DiffArgs) -> Result<CommandOutcome, Failure> {
    // The files are a side of the comparison, not an overlay.
    let source = SourceArgs { filename: Vec::new(), ..arguments.source.clone() };
    let is_live = source.from.is_empty();
    if !is_live && (arguments.wait.is_some() || arguments.proxies.proxies.is_some()) {
        return Err(Failure::usage("cannot combine --wait or --proxies with --from: they need a cluster"));
    }
    let scoped = source.read(context).await?;
    reject_empty_comparison(&arguments, is_live || scoped.snapshot.live.is_some())?;
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let (sides, compared, mut gaps) = objects::compare(context, &arguments, &scoped).await?;
    gaps.extend(mesh.snapshot.gaps.iter().map(GapReport::from));
    let mut hosts = Vec::new();
    for target in &arguments.targets {
        let services = target::services(&mesh, target, &scoped.namespaces)?;
        hosts.extend(services.into_iter().map(|id| mesh.service(id).host.as_str().to_owned()));
    }
    let compares_proxies = arguments.against.is_none() && !arguments.no_proxies;
    let proxies = match (compares_proxies, is_live) {
        (false, _) => Vec::new(),
        (true, false) => proxies::saved(&mesh, &scoped.namespaces, &hosts),
        (true, true) => {
            drop(mesh);
            proxies::compare(context, &arguments, &source, scoped, &hosts).await?
        }
    };
    let report = DiffReport::new(sides, compared, proxies, gaps);
    write(context, &arguments, &report)?;
    Ok(if arguments.exit_zero { CommandOutcome::Clean } else { exit_outcome(&report) })
}

fn exit_outcome(report: &DiffReport) -> CommandOutcome {
    match (report.differs(), report.is_partial()) {
        (true, _) => CommandOutcome::Found,
        (false, true) => CommandOutcome::Partial,
        (false, false) => CommandOutcome::Clean,
    }
}

/// Rejects arguments with which the command would compare nothing, or would ignore a target.
fn reject_empty_comparison(arguments: &DiffArgs, has_proxies: bool) -> Result<(), Failure> {
    if !has_proxies && arguments.against.is_none() && arguments.source.filename.is_empty() {
        return Err(no_saved_proxies().hint("to compare objects, use --against SOURCE or -f FILE"));
    }
    if !arguments.targets.is_empty() && (arguments.against.is_some() || !has_proxies) {
        return Err(Failure::usage("cannot limit the comparison of objects to a target: targets select proxies")
            .hint("omit the target"));
    }
    Ok(())
}

fn write(context: &mut Context<'_>, arguments: &DiffArgs, report: &DiffReport) -> Result<(), Failure> {
    let detail = match (arguments.summary, arguments.full) {
        (true, _) => DiffDetail::Summary,
        (_, true) => DiffDetail::Full,
        _ => DiffDetail::Normal,
    };
    match arguments.output {
        DiffFormat::Text => render::diff::diff(report, detail, &context.style, context.out)?,
        DiffFormat::Json => render::json(report, context.out)?,
        DiffFormat::Yaml => render::yaml::yaml(report, context.out)?,
        DiffFormat::Markdown => render::diff::markdown(report, context.out)?,
        DiffFormat::Github => render::diff::github(report, context.out)?,
    }
    let unreachable = report.counts.proxies.get(&ProxyState::Unreachable);
    if unreachable.is_some_and(|count| *count == report.proxies.len()) {
        context.messages.hint(
            "reading proxies requires create on pods/portforward (docs/rbac/live-reader.yaml), or on pods/exec with --via exec",
        );
    }
    if report.objects.is_empty() && report.proxies.is_empty() {
        context.messages.hint("no proxies in scope: use -A for all namespaces");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_exit_code_follows_the_differences_and_what_was_not_compared() {
        for state in samples::diff().proxies.iter().map(|proxy| proxy.state) {
            let mut proxies = samples::diff().proxies;
            proxies.retain(|proxy| {
                proxy.state == state && proxy.not_compared.is_empty() == (state != ProxyState::NotCompared)
            });
            let outcome = match state {
                ProxyState::Synced => CommandOutcome::Clean,
                ProxyState::Unreachable | ProxyState::NotCompared => CommandOutcome::Partial,
                _ => CommandOutcome::Found,
            };
            let report = DiffReport::new(None, Vec::new(), proxies, Vec::new());
            assert_eq!(exit_outcome(&report), outcome, "{state:?}");
        }
        let DiffReport { gaps, .. } = samples::diff();
        assert_eq!(exit_outcome(&DiffReport { gaps, ..samples::diff_synced() }), CommandOutcome::Partial);
        assert_eq!(exit_outcome(&samples::diff()), CommandOutcome::Found);
    }
}
