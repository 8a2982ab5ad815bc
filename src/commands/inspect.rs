//! `inspect`: how each gRPC Service is treated by the mesh, what is wrong with it, and the fix.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::proxy_states::{ProxyArgs, ProxyQuery, settled_with_counters};
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::cli::target;
use crate::dataplane::proxy::ProxyState;
use crate::mesh::version::VersionSource;
use crate::mesh::{self, Mesh, UndecodedObject};
use crate::render::inspect::InspectView;
use crate::render::style::Style;
use crate::report::inspect::{InspectReport, InspectRequest};
use crate::rules::select::{FindingSelection, FindingSelector, parse_ignore_file};
use crate::rules::{self, Severity};
use crate::snapshot::live::ProxyResponse;
use crate::{render, report};

/// Show how the mesh treats gRPC services, and what is wrong
///
/// Without a target: one row per Service port that speaks, or should speak, gRPC, then the findings, worst first. With a
/// target: everything about it on a page.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh inspect --from demo                 the built-in example; no cluster needed
  kubectl grpcmesh inspect                             the current namespace of the cluster
  kubectl grpcmesh inspect -A --only GM2               routing faults in all namespaces
  kubectl grpcmesh inspect checkout.shop               one Service on a page
  kubectl grpcmesh inspect --from demo checkout        the same in the example
  kubectl grpcmesh inspect checkout.shop --live        and what the Envoys have of it
  kubectl grpcmesh inspect -f new.yaml                 what would be wrong if this were applied
  kubectl grpcmesh inspect --from manifests/ -o json   for pipelines; exits 1 when something is wrong")]
pub struct InspectArgs {
    /// Services: checkout, checkout.shop, svc/x, vs/x, grpcroute/x, httproute/x, pod/y, deploy/z
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// Services without signs of gRPC too
    #[arg(long)]
    all_services: bool,
    /// Only Services with these labels, such as app=x,tier!=y
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: InspectFormat,
    /// Only these findings: codes, beginnings of codes, names (comma-separated)
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    only: Vec<String>,
    /// Not these findings: GM203, GM2, or GM203=VirtualService/shop/x
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    skip: Vec<String>,
    /// File with findings to leave out, one a line as in --skip
    #[arg(long, value_name = "FILE")]
    ignore_file: Option<PathBuf>,
    /// Exit 1 when a finding is at least this bad
    #[arg(long, value_name = "SEVERITY", default_value = "error")]
    fail_on: FailOn,
    /// Exit 0 whatever is found
    #[arg(long)]
    exit_zero: bool,
    /// Ask the Envoys too: what they have, whether they follow, and how calls spread
    #[arg(long, conflicts_with = "filename")]
    live: bool,
    #[command(flatten)]
    asking: ProxyArgs,
    #[command(flatten)]
    source: SourceArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum InspectFormat {
    /// For people.
    Table,
    /// With evidence and gateways.
    Wide,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
    /// Names of Services only.
    Name,
}

/// From which severity on a finding makes the command fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Errors.
    Error,
    /// Warnings and errors.
    Warning,
    /// Anything.
    Info,
    /// Nothing.
    Never,
}

impl FailOn {
    fn reached_by(self, severity: Severity) -> bool {
        match self {
            Self::Error => severity <= Severity::Error,
            Self::Warning => severity <= Severity::Warning,
            Self::Info => severity <= Severity::Info,
            Self::Never => false,
        }
    }
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: InspectArgs) -> Result<CommandOutcome, Failure> {
    let selection = selection(&arguments)?;
    let labels = arguments.selector.as_deref().map(parse_selector).transpose()?;
    let ScopedSnapshot { snapshot, namespaces } = read(context, &arguments).await?;
    let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
    if mesh.version_source == VersionSource::Assumed {
        let version = mesh.version;
        context.messages.hint(&format!("the source names no Istio version; {version} is assumed (--istio-version)"));
    }
    for UndecodedObject { object, field, why } in &mesh.undecoded {
        context.messages.warning(&format!("{object} is left out of the picture: {field}: {why}"));
    }
    let request = request(&mesh, &arguments, &namespaces, labels.as_deref())?;
    let outcome = rules::run(&mesh, &selection);
    for exception in &outcome.idle {
        context.messages.warning(&format!("the exception {exception} leaves nothing out: is the object's name right?"));
    }
    let report = report::inspect::inspect(&mesh, &outcome, &request);
    write(context, &arguments, &report)?;
    if report.services.is_empty() && arguments.targets.is_empty() {
        nothing_shown(context, &arguments, &mesh, &namespaces);
    }
    Ok(result(&arguments, &report, &mesh))
}

/// Reads the source; with `--live` what Envoys run, too.
async fn read(context: &mut Context<'_>, arguments: &InspectArgs) -> Result<ScopedSnapshot, Failure> {
    if arguments.asking.proxies.is_some() && (!arguments.live || !arguments.source.from.is_empty()) {
        return Err(Failure::usage("--proxies bounds how many Envoys of the cluster are asked: that is with --live"));
    }
    let mut read = arguments.source.read(context).await?;
    if !arguments.live {
        read.snapshot.live = None;
        return Ok(read);
    }
    if arguments.source.from.is_empty() {
        let question = ProxyQuery {
            // Callers of a Service may be anywhere.
            everywhere: !arguments.targets.is_empty(),
            only: None,
            most: arguments.asking.proxies,
            reach: arguments.asking.reach,
        };
        read = settled_with_counters(context, &arguments.source, read, question).await?;
    }
    let Some(live) = &read.snapshot.live else {
        return Err(Failure::usage("the source does not hold what Envoys run")
            .hint("save it with: kubectl grpcmesh snapshot --proxies -o FILE"));
    };
    let in_scope = |namespace: &str| {
        !arguments.targets.is_empty() || read.namespaces.is_empty() || read.namespaces.contains(namespace)
    };
    let silent = live.proxies().filter_map(|(namespace, pod, proxy)| match &proxy.answer {
        ProxyResponse::Silent(why) | ProxyResponse::NotAsked(why) => Some(format!("{namespace}/{pod}: {why}")),
        ProxyResponse::Runs(_) => None,
    });
    let silent = silent.filter(|one| one.split_once('/').is_some_and(|(namespace, _)| in_scope(namespace)));
    let silent: Vec<String> = silent.collect();
    if let Some(first) = silent.first() {
        context.messages.warning(&format!("{} proxies were not asked, such as {first}", silent.len()));
    }
    Ok(read)
}

fn selection(arguments: &InspectArgs) -> Result<FindingSelection, Failure> {
    let parse = |words: &[String]| -> Result<Vec<FindingSelector>, Failure> {
        let words = words.iter().filter(|word| !word.trim().is_empty());
        let parsed: Result<Vec<_>, _> = words.map(|word| FindingSelector::parse(word)).collect();
        parsed
            .map_err(|error| Failure::usage(error.to_string()).hint("list them with: kubectl grpcmesh explain --list"))
    };
    let mut skip = parse(&arguments.skip)?;
    if let Some(path) = &arguments.ignore_file {
        let name = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::usage(format!("cannot read the ignore file {name}")).cause(error))?;
        let selectors =
            parse_ignore_file(&text).map_err(|(line, error)| Failure::usage(format!("{name}:{line}: {error}")))?;
        skip.extend(selectors);
    }
    Ok(FindingSelection { only: parse(&arguments.only)?, skip })
}

/// One requirement of a label selector.
enum LabelRequirement {
    Is(String, String),
    IsNot(String, String),
    Has(String),
    HasNot(String),
}

fn parse_selector(text: &str) -> Result<Vec<LabelRequirement>, Failure> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let pair =
                |(key, value): (&str, &str)| (key.trim().to_owned(), value.trim_start_matches('=').trim().to_owned());
            let requirement = if let Some(both) = part.split_once("!=") {
                let (key, value) = pair(both);
                LabelRequirement::IsNot(key, value)
            } else if let Some(both) = part.split_once('=') {
                let (key, value) = pair(both);
                LabelRequirement::Is(key, value)
            } else if let Some(key) = part.strip_prefix('!') {
                LabelRequirement::HasNot(key.to_owned())
            } else if part.contains([' ', '(', ')']) {
                return Err(Failure::usage(format!("\"{part}\" is not a label requirement"))
                    .hint("key=value, key!=value, key or !key, joined by commas"));
            } else {
                LabelRequirement::Has(part.to_owned())
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
    for word in &arguments.targets {
        for id in target::services(mesh, word, namespaces)? {
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
                    LabelRequirement::Is(key, value) => labels.get(key) == Some(value.as_str()),
                    LabelRequirement::IsNot(key, value) => labels.get(key) != Some(value.as_str()),
                    LabelRequirement::Has(key) => labels.get(key).is_some(),
                    LabelRequirement::HasNot(key) => labels.get(key).is_none(),
                })
            })
            .collect()
    });
    Ok(InspectRequest { targets, selected, namespaces: namespaces.clone(), all_services: arguments.all_services })
}

fn write(context: &mut Context<'_>, arguments: &InspectArgs, report: &InspectReport) -> Result<(), Failure> {
    let shape = if arguments.targets.is_empty() { InspectView::Overview } else { InspectView::Pages };
    match arguments.output {
        InspectFormat::Table => render::inspect::inspect(report, shape, &context.style, context.out)?,
        InspectFormat::Wide => {
            let style = Style { wide: true, width: None, ..context.style };
            render::inspect::inspect(report, shape, &style, context.out)?;
        }
        InspectFormat::Json => render::json(report, context.out)?,
        InspectFormat::Yaml => render::yaml::yaml(report, context.out)?,
        InspectFormat::Name => render::inspect::names(report, context.out)?,
    }
    Ok(())
}

fn nothing_shown(context: &Context<'_>, arguments: &InspectArgs, mesh: &Mesh<'_>, namespaces: &BTreeSet<String>) {
    let place = match namespaces.first() {
        Some(namespace) => format!(" in namespace {namespace}"),
        None => String::new(),
    };
    let unread = namespaces
        .iter()
        .map(|namespace| namespace.as_str().into())
        .any(|namespace| !mesh.coverage.knows(crate::schema::Kind::Service, &namespace))
        || (namespaces.is_empty() && !mesh.coverage.knows_everywhere(crate::schema::Kind::Service));
    if unread {
        context.messages.warning(&format!("the Services{place} could not be read"));
        return;
    }
    context.messages.warning(&format!("no Service{place} shows signs of gRPC"));
    if !namespaces.is_empty() && mesh.services.iter().any(crate::mesh::service::Service::has_grpc) {
        context.messages.hint("there are some in other namespaces: -A");
    } else if !arguments.all_services {
        context.messages.hint("to see the others too: --all-services");
    }
}

/// The exit code. Manifests are partial by nature: what they do not contain is said, and is no failure.
fn result(arguments: &InspectArgs, report: &InspectReport, mesh: &Mesh<'_>) -> CommandOutcome {
    if arguments.exit_zero {
        return CommandOutcome::Clean;
    }
    if report.findings.iter().any(|finding| arguments.fail_on.reached_by(finding.severity)) {
        return CommandOutcome::Found;
    }
    let unasked = [ProxyState::Unreachable, ProxyState::NotCompared].map(ProxyState::as_str);
    let silent = report.live.iter().any(|live| unasked.iter().any(|word| live.proxies.contains_key(word)));
    let partial = silent || mesh.snapshot.gaps.iter().any(crate::snapshot::Gap::touches_answers);
    if partial { CommandOutcome::Partial } else { CommandOutcome::Clean }
}
