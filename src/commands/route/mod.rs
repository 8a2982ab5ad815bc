//! `route`: what becomes of a call, from its client's proxy to the backends.

mod callers;
mod calls;
mod live;
mod tests_file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use self::calls::CallRequest;
use super::proxy_states::AdminAccessMode;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::mesh::xds::{Call, Caller, ProxyConfig};
use crate::mesh::{self, Mesh};
use crate::render;
use crate::report::route::RouteReport;
use crate::terminal::Messages;

/// Show what becomes of a call: listener, virtual host, rules tried, backends, timeout, retries
///
/// The answer is what istiod generates for the caller's proxy and Envoy then does. Without --caller there is one answer
/// for each class of callers that differs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh route checkout.shop:50051 /shop.Checkout/Pay
  kubectl grpcmesh route checkout /shop.Checkout/Pay -H x-canary:true --caller web/deploy/web
  kubectl grpcmesh route checkout /shop.Checkout/Pay --caller web/deploy/web --live
  kubectl grpcmesh route --from demo checkout.shop:50051 /shop.Checkout/Pay
  kubectl grpcmesh route api.example.com:443 /shop.Checkout/Pay --protocol grpc-tls --caller gateway/edge/ingress
  kubectl grpcmesh route --from manifests/ --calls calls.jsonl -o json
  kubectl grpcmesh route --from manifests/ --test routes.yaml -o junit")]
pub struct RouteArgs {
    /// Authority of the call: a host, perhaps with a port
    #[arg(value_name = "HOST[:PORT]", required_unless_present_any = ["calls", "test"])]
    host: Option<String>,
    /// Path of the call
    #[arg(value_name = "/PKG.SERVICE/METHOD")]
    method: Option<String>,
    /// Header of the call, as name:value (repeatable)
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// Who calls: NS/POD, NS/deploy/NAME, NS, gateway/NS/POD, gateway/NS/NAME
    #[arg(long, value_name = "CALLER")]
    caller: Option<String>,
    /// What the client speaks
    #[arg(long, value_name = "PROTOCOL", default_value = "grpc")]
    protocol: CallProtocolArg,
    /// Host that the client resolves and dials, when it is not the authority's
    #[arg(long, value_name = "HOST")]
    dial: Option<String>,
    /// File with calls, one JSON object a line; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "method", "headers", "caller", "dial"])]
    calls: Option<PathBuf>,
    /// File with tests of routes, a YAML list; exit 1 when one fails
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "method", "headers", "caller", "dial", "calls"])]
    test: Option<PathBuf>,
    /// Ask the caller's own Envoy too, and say where it differs
    #[arg(long, conflicts_with_all = ["calls", "test", "filename"])]
    live: bool,
    /// How to reach the Envoy's admin port, with --live
    #[arg(long, value_name = "WAY", default_value = "port-forward")]
    via: AdminAccessMode,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: RouteFormat,
    #[command(flatten)]
    source: SourceArgs,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CallProtocolArg {
    /// gRPC in plain text: the sidecar adds mTLS.
    Grpc,
    /// gRPC over TLS of the application's own.
    GrpcTls,
    /// HTTP/1.1.
    Http1,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RouteFormat {
    /// The path of the call, for people.
    Text,
    /// One object a call, or one for all tests.
    Json,
    /// A report of tests in JUnit's XML.
    Junit,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, mut arguments: RouteArgs) -> Result<CommandOutcome, Failure> {
    if arguments.output == RouteFormat::Junit && arguments.test.is_none() {
        return Err(Failure::usage("-o junit is a report of tests").hint("give the tests with --test FILE"));
    }
    let tests = arguments.test.as_deref().map(tests_file::read).transpose()?;
    let lines = match &arguments.calls {
        Some(path) => Some(calls::read(path)?),
        None => None,
    };
    // Tests may stand beside the manifests that they are about.
    arguments.source.except = arguments.test.iter().chain(&arguments.calls).cloned().collect();
    let ScopedSnapshot { snapshot, namespaces } = arguments.source.read(context).await?;
    let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
    for undecoded in &mesh.undecoded {
        let (object, field, why) = (&undecoded.object, &undecoded.field, &undecoded.why);
        context.messages.warning(&format!("{object} is left out of the picture: {field}: {why}"));
    }
    let mut partial = mesh.snapshot.gaps.iter().any(crate::snapshot::Gap::touches_answers);
    if let Some(tests) = tests {
        let report = tests_file::run(&mesh, tests);
        match arguments.output {
            RouteFormat::Text => render::route_test::text(&report, &context.style, context.out)?,
            RouteFormat::Json => render::json(&report, context.out)?,
            RouteFormat::Junit => render::route_test::junit(&report, context.out)?,
        }
        return Ok(match (report.failed, partial) {
            (0, false) => CommandOutcome::Clean,
            (0, true) => CommandOutcome::Partial,
            _ => CommandOutcome::Found,
        });
    }
    let (reports, broken) = match lines {
        Some(lines) => answer_lines(&mesh, lines, &context.messages),
        None => {
            let call = calls::of_flags(&mesh, &arguments, namespaces.first().map(String::as_str))?;
            let called = arguments.method.is_some() && arguments.protocol != CallProtocolArg::Http1;
            if called && !calls::is_grpc_path(&call.path) {
                let path = &call.path;
                context.messages.warning(&format!("{path} is not /package.Service/Method: no gRPC client calls it"));
            }
            let answers = answer_one(&mesh, &arguments, &call)?;
            let reports = if arguments.live {
                live::ask(context, &mesh, &arguments, answers).await?
            } else {
                answers.into_iter().map(|(report, _)| report).collect()
            };
            (reports, 0)
        }
    };
    partial |= broken > 0;
    for (at, report) in reports.iter().enumerate() {
        match arguments.output {
            RouteFormat::Json | RouteFormat::Junit => render::json_line(report, context.out)?,
            RouteFormat::Text => {
                if at > 0 {
                    writeln!(context.out)?;
                }
                render::route::route(report, &context.style, context.out)?;
            }
        }
    }
    let live = reports.iter().filter_map(|report| report.live.as_ref());
    partial |= live.clone().any(|live| matches!(live.state, "unreachable" | "not-compared"));
    let differs = live.clone().any(|live| !matches!(live.state, "in-step" | "unreachable" | "not-compared"));
    let fails = arguments.calls.is_none() && reports.iter().any(|report| !report.arrives());
    Ok(match (partial, fails || differs) {
        (_, true) => CommandOutcome::Found,
        (true, false) => CommandOutcome::Partial,
        (false, false) => CommandOutcome::Clean,
    })
}

/// The answers to calls of a file in its order, and how many lines had none. What is wrong with those is told.
///
/// Calls are answered class by class, so that the routes of one proxy are held at a time.
fn answer_lines<'m>(
    mesh: &'m Mesh<'m>,
    lines: Vec<Result<CallRequest, String>>,
    messages: &Messages,
) -> (Vec<RouteReport>, usize) {
    let mut proxies = callers::ProxyConfigs::new(mesh);
    let mut classes: BTreeMap<callers::CallerKey, Vec<(usize, CallRequest, callers::NamedCaller)>> = BTreeMap::new();
    let mut reports: Vec<Option<RouteReport>> = Vec::new();
    reports.resize_with(lines.len(), || None);
    let mut broken = 0;
    for (at, line) in lines.into_iter().enumerate() {
        let named = line.and_then(|line| match proxies.named(&line.caller) {
            Ok(named) => Ok((line, named.clone())),
            Err(failure) => Err(format!("{}: {}", line.place, failure.message)),
        });
        match named {
            Ok((line, named)) => classes.entry(named.class.clone()).or_default().push((at, line, named)),
            Err(why) => {
                broken += 1;
                messages.warning(&why);
            }
        }
    }
    for members in classes.into_values() {
        let Some((_, _, first)) = members.first() else { continue };
        let outbound = ProxyConfig::new(mesh, first.caller.clone());
        for (at, line, named) in members {
            let answer = outbound.answer(&line.call);
            let report = RouteReport::new(mesh, &named.caller, &named.title, &line.call, &answer);
            reports[at] = Some(RouteReport { id: line.id, ..report });
        }
    }
    (reports.into_iter().flatten().collect(), broken)
}

fn answer_one<'m>(
    mesh: &'m Mesh<'m>,
    arguments: &RouteArgs,
    call: &Call,
) -> Result<Vec<(RouteReport, Caller)>, Failure> {
    if let Some(caller) = &arguments.caller {
        let mut proxies = callers::ProxyConfigs::new(mesh);
        let (named, outbound) = proxies.find(caller)?;
        let report = RouteReport::new(mesh, &named.caller, &named.title, call, &outbound.answer(call));
        return Ok(vec![(report, named.caller.clone())]);
    }
    Ok(callers::classes(mesh, |outbound, title| {
        RouteReport::new(mesh, &outbound.caller, title, call, &outbound.answer(call))
    }))
}
