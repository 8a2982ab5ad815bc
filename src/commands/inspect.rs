//! `inspect`: reports how the mesh treats gRPC Services, and findings with their fixes.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::live_proxies::{ProxyArgs, ProxyQuery, no_saved_proxies, read_settled_proxies_with_counters};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::cli::target;
use crate::mesh::service::Service;
use crate::mesh::version::VersionSource;
use crate::mesh::{self, Mesh};
use crate::render::inspect::InspectView;
use crate::render::style::Style;
use crate::report::inspect::{InspectReport, InspectRequest};
use crate::rules::select::{FindingSelection, FindingSelector, parse_ignore_file};
use crate::rules::{self, Severity};
use crate::schema::Kind;
use crate::snapshot::Gap;
use crate::snapshot::live::ProxyResponse;
use crate::{render, report};

/// Show how the mesh treats gRPC services, what is wrong, and how to fix it
///
/// Without a target, prints one row for each Service port that uses or should use gRPC, and the findings, worst first. With a
/// target, prints a page about each Service: ports, proxies, routes, limits, TLS, authorization and findings.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh inspect --from demo                 the built-in demo, without a cluster
  kubectl grpcmesh inspect                             the current namespace of the cluster
  kubectl grpcmesh inspect -A --only GM2               routing findings in all namespaces
  kubectl grpcmesh inspect checkout.shop               one Service in detail
  kubectl grpcmesh inspect --from demo checkout        the same in the demo
  kubectl grpcmesh inspect checkout.shop --live        also what the Envoys run
  kubectl grpcmesh inspect -f new.yaml                 findings as if the file were applied
  kubectl grpcmesh inspect --from manifests/ -o json   for pipelines; errors exit with code 1")]
pub struct InspectArgs {
    /// Services by name (checkout, checkout.shop) or by related object (vs/x, grpcroute/x, pod/y, deploy/z)
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Include Services without gRPC
    #[arg(long)]
    all_services: bool,
    /// Include only Services whose labels match, such as app=x,tier!=y
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: InspectFormat,
    /// Report only these findings, by code, code prefix or name (comma-separated)
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    only: Vec<String>,
    /// Do not report these findings, such as GM203, GM2 or GM203=VirtualService/shop/x (comma-separated)
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    skip: Vec<String>,
    /// File with findings to skip, one per line, as for --skip
    #[arg(long, value_name = "FILE")]
    ignore_file: Option<PathBuf>,
    /// Exit with code 1 for findings of at least this severity
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: FailOn,
    /// Exit with code 0 even if there are findings
    #[arg(long)]
    exit_zero: bool,
    /// Also read the Envoys: what they run, whether they are synced, and how calls spread
    #[arg(long, conflicts_with = "filename")]
    live: bool,
    #[command(flatten)]
    proxies: ProxyArgs,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InspectFormat {
    /// Table, or pages for targets
    Table,
    /// Table with gRPC evidence and gateways
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Only the names of the Services
    Name,
}

/// The values of `--fail-on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Errors
    Error,
    /// Errors and warnings
    Warning,
    /// All findings
    Info,
    /// Nothing: findings do not change the exit code
    Never,
}

impl FailOn {
    fn is_reached_by(self, severity: Severity) -> bool {
        match self {
            Self::Error => severity <= Severity::Error,
            Self::Warning => severity <= Severity::Warning,
            Self::Info => severity <= Severity::Info,
            Self::Never => false,
        }
    }
}

pub(super) async fn run(context: &mut Context<'_>, arguments: InspectArgs) -> Result<CommandOutcome, Failure> {
    let selection = finding_selection(&arguments)?;
    let labels = arguments.selector.as_deref().map(parse_label_selector).transpose()?;
    let ScopedSnapshot { snapshot, namespaces } = read_source(context, &arguments).await?;
    let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
    if mesh.version_source == VersionSource::Assumed {
        let version = mesh.version;
        context
            .messages
            .hint(&format!("no Istio version found in the source; assuming {version} (set it with --istio-version)"));
    }
    for note in mesh.istiod_notes() {
        context.messages.warning(&note);
    }
    for undecoded in &mesh.undecoded {
        context.messages.warning(&undecoded.to_string());
    }
    let request = request(&mesh, &arguments, &namespaces, labels.as_deref())?;
    let outcome = rules::run(&mesh, &selection);
    for skip in &outcome.unused_skips {
        context.messages.warning(&format!("--skip {skip} matches no finding: check the object name"));
    }
    let report = report::inspect::inspect(&mesh, &outcome, &request);
    write(context, &arguments, &report)?;
    if report.services.is_empty() && arguments.targets.is_empty() {
        explain_empty_report(context, &arguments, &mesh, &namespaces);
    }
    Ok(exit_outcome(&arguments, &report, &mesh))
}

/// Reads the source, and with `--live` also the proxies, unless a snapshot contains them.
async fn read_source(context: &mut Context<'_>, arguments: &InspectArgs) -> Result<ScopedSnapshot, Failure> {
    if arguments.proxies.proxies.is_some() && (!arguments.live || !arguments.source.from.is_empty()) {
        return Err(Failure::usage("--proxies requires --live, and cannot be combined with --from"));
    }
    let mut scoped = arguments.source.read(context).await?;
    if !arguments.live {
        scoped.snapshot.live = None;
        return Ok(scoped);
    }
    if arguments.source.from.is_empty() {
        let query = ProxyQuery {
            // The callers of a Service may be in any namespace.
            all_namespaces: !arguments.targets.is_empty(),
            only: None,
            limit: arguments.proxies.proxies,
            access: arguments.proxies.access,
        };
        scoped = read_settled_proxies_with_counters(context, &arguments.source, scoped, query).await?;
    }
    let Some(live) = &scoped.snapshot.live else {
        return Err(no_saved_proxies());
    };
    let in_scope = |namespace: &str| {
        !arguments.targets.is_empty() || scoped.namespaces.is_empty() || scoped.namespaces.contains(namespace)
    };
    let proxies = live.proxies().filter(|(namespace, ..)| in_scope(namespace));
    let unread = proxies.filter_map(|(namespace, pod, proxy)| match &proxy.response {
        ProxyResponse::Unreachable(reason) | ProxyResponse::NotQueried(reason) => {
            Some(format!("{namespace}/{pod}: {reason}"))
        }
        ProxyResponse::Running(_) => None,
    });
    let unread: Vec<String> = unread.collect();
    if let Some(first) = unread.first() {
        context.messages.warning(&format!("{} proxies were not read; the first is {first}", unread.len()));
    }
    Ok(scoped)
}

fn finding_selection(arguments: &InspectArgs) -> Result<FindingSelection, Failure> {
    let parse_selectors = |texts: &[String]| -> Result<Vec<FindingSelector>, Failure> {
        let texts = texts.iter().filter(|text| !text.trim().is_empty());
        let selectors: Result<Vec<_>, _> = texts.map(|text| FindingSelector::parse(text)).collect();
        selectors.map_err(|error| {
            Failure::usage(error.to_string()).hint("list the findings with: kubectl grpcmesh explain --list")
        })
    };
    let mut skip = parse_selectors(&arguments.skip)?;
    if let Some(path) = &arguments.ignore_file {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read the ignore file {name}")).cause(error))?;
        let selectors =
            parse_ignore_file(&text).map_err(|(line, error)| Failure::usage(format!("{name}:{line}: {error}")))?;
        skip.extend(selectors);
    }
    Ok(FindingSelection { only: parse_selectors(&arguments.only)?, skip })
}

enum LabelRequirement {
    Equals(String, String),
    NotEquals(String, String),
    Exists(String),
    NotExists(String),
}

fn parse_label_selector(text: &str) -> Result<Vec<LabelRequirement>, Failure> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let value_of = |text: &str| text.trim_start_matches('=').trim().to_owned();
            // A requirement may be written with = or ==.
            let requirement = if let Some((key, value)) = part.split_once("!=") {
                LabelRequirement::NotEquals(key.trim().to_owned(), value_of(value))
            } else if let Some((key, value)) = part.split_once('=') {
                LabelRequirement::Equals(key.trim().to_owned(), value_of(value))
            } else if let Some(key) = part.strip_prefix('!') {
                LabelRequirement::NotExists(key.to_owned())
            } else if part.contains([' ', '(', ')']) {
                return Err(Failure::usage(format!("\"{part}\" is not a valid label requirement"))
                    .hint("use key=value, key!=value, key or !key, separated by commas"));
            } else {
                LabelRequirement::Exists(part.to_owned())
            };
            Ok(requirement)
        })
        .collect()
}

fn request(
    mesh: &Mesh<'_>,
    arguments: &InspectArgs,
    namespaces: &BTreeSet<String>,
    labels: Option<&[LabelRequirement]>,
) -> Result<InspectRequest, Failure> {
    let mut targets = Vec::new();
    for target in &arguments.targets {
        for id in target::services(mesh, target, namespaces)? {
            if !targets.contains(&id) {
                targets.push(id);
            }
        }
    }
    let selected = labels.map(|requirements| {
        mesh.service_ids()
            .filter(|id| {
                let labels = &mesh.service(*id).labels;
                requirements.iter().all(|requirement| match requirement {
                    LabelRequirement::Equals(key, value) => labels.get(key) == Some(value.as_str()),
                    LabelRequirement::NotEquals(key, value) => labels.get(key) != Some(value.as_str()),
                    LabelRequirement::Exists(key) => labels.get(key).is_some(),
                    LabelRequirement::NotExists(key) => labels.get(key).is_none(),
                })
            })
            .collect()
    });
    Ok(InspectRequest { targets, selected, namespaces: namespaces.clone(), all_services: arguments.all_services })
}

fn write(context: &mut Context<'_>, arguments: &InspectArgs, report: &InspectReport) -> Result<(), Failure> {
    let view = if arguments.targets.is_empty() { InspectView::Overview } else { InspectView::Pages };
    match arguments.output {
        InspectFormat::Table => render::inspect::inspect(report, view, &context.style, context.out)?,
        InspectFormat::Wide => {
            let style = Style { wide: true, width: None, ..context.style };
            render::inspect::inspect(report, view, &style, context.out)?;
        }
        InspectFormat::Json => render::json(report, context.out)?,
        InspectFormat::Yaml => render::yaml::yaml(report, context.out)?,
        InspectFormat::Name => render::inspect::names(report, context.out)?,
    }
    Ok(())
}

fn explain_empty_report(
    context: &Context<'_>,
    arguments: &InspectArgs,
    mesh: &Mesh<'_>,
    namespaces: &BTreeSet<String>,
) {
    let location = match namespaces.first() {
        Some(namespace) => format!(" in namespace {namespace}"),
        None => String::new(),
    };
    let covers = |namespace: &String| mesh.coverage.covers(Kind::Service, &namespace.as_str().into());
    let were_services_read = if namespaces.is_empty() {
        mesh.coverage.covers_everywhere(Kind::Service)
    } else {
        namespaces.iter().all(covers)
    };
    if !were_services_read {
        context.messages.warning(&format!("cannot read the Services{location}"));
        return;
    }
    context.messages.warning(&format!("no Service{location} uses gRPC"));
    if !namespaces.is_empty() && mesh.services.iter().any(Service::has_grpc_evidence) {
        context.messages.hint("other namespaces have gRPC Services: use -A");
    } else if !arguments.all_services {
        context.messages.hint("use --all-services to include Services without gRPC");
    }
}

/// Decides the exit code. Only gaps that affect answers count: manifests never contain all objects of a cluster.
fn exit_outcome(arguments: &InspectArgs, report: &InspectReport, mesh: &Mesh<'_>) -> CommandOutcome {
    if arguments.exit_zero {
        return CommandOutcome::Clean;
    }
    if report.findings.iter().any(|finding| arguments.fail_on.is_reached_by(finding.severity)) {
        return CommandOutcome::Found;
    }
    let has_unread_proxies = report.live.iter().any(|live| live.proxies.keys().any(|state| !state.is_compared()));
    let is_partial = has_unread_proxies
        || mesh.snapshot.gaps.iter().any(Gap::affects_answers)
        || mesh.route_configs().gaps().next().is_some();
    if is_partial { CommandOutcome::Partial } else { CommandOutcome::Clean }
}
