//! `route`: predicts where a call goes, from the caller's proxy to the backends.

mod callers;
mod calls;
mod known_hosts;
mod live;
mod test_file;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use self::calls::CallRequest;
use self::test_file::RouteTestCase;
use super::live_proxies::AdminAccessMode;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cli::source::ScopedSnapshot;
use crate::dataplane::proxy::ProxyState;
use crate::mesh::xds::{Call, Caller, ProxyConfig};
use crate::mesh::{self, Mesh};
use crate::render;
use crate::report::route::RouteReport;
use crate::snapshot::Gap;
use crate::terminal::Messages;

/// Show where a call goes: listener, virtual host, rules, backends, timeout and retries
///
/// Computes what istiod sends to the caller's proxy and what Envoy does with the call. Without --caller, prints one answer
/// for each caller class.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh route checkout.shop:50051 /shop.Checkout/Pay
  kubectl grpcmesh route checkout /shop.Checkout/Pay -H x-canary:true --caller web/deploy/web
  kubectl grpcmesh route checkout /shop.Checkout/Pay --caller web/deploy/web --live
  kubectl grpcmesh route --from demo checkout.shop:50051 /shop.Checkout/Pay
  kubectl grpcmesh route api.example.com:443 /a.B/C --protocol grpc-tls --caller gateway/edge/public
  kubectl grpcmesh route --from manifests/ --calls calls.jsonl -o json
  kubectl grpcmesh route --from manifests/ --test routes.yaml -o junit")]
pub struct RouteArgs {
    /// Authority of the call: a host, and the port if the Service has several
    #[arg(value_name = "HOST[:PORT]", required_unless_present_any = ["calls", "test"])]
    host: Option<String>,
    /// Path of the call (default: /); the first slash may be omitted, as with grpcurl
    #[arg(value_name = "/PKG.SERVICE/METHOD")]
    method: Option<String>,
    /// Header of the call, such as x-canary:true (repeatable)
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// Caller: NS/POD, NS/deploy/NAME, NS, gateway/NS/POD or gateway/NS/NAME
    #[arg(long, value_name = "CALLER")]
    caller: Option<String>,
    /// Protocol that the client uses
    #[arg(long, value_name = "PROTOCOL", default_value = "grpc")]
    protocol: CallProtocolArg,
    /// Host that the client resolves and connects to, if it differs from the authority
    #[arg(long, value_name = "HOST")]
    dial: Option<String>,
    /// Also answer for a host or port that nothing in the mesh has
    #[arg(long, conflicts_with_all = ["calls", "test"])]
    allow_unknown_host: bool,
    /// File with calls, one JSON object per line; - for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "method", "headers", "caller", "dial"])]
    calls: Option<PathBuf>,
    /// File with route tests, a YAML list; failed tests exit with code 1
    #[arg(long, value_name = "FILE", conflicts_with_all = ["host", "method", "headers", "caller", "dial", "calls"])]
    test: Option<PathBuf>,
    /// Also compare the answer with what the caller's Envoy runs
    #[arg(long, conflicts_with_all = ["calls", "test", "filename"])]
    live: bool,
    /// How to reach the admin port of the Envoy, with --live
    #[arg(long, value_name = "MODE", default_value = "port-forward")]
    via: AdminAccessMode,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: RouteFormat,
    #[command(flatten)]
    source: SourceArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum CallProtocolArg {
    /// gRPC without TLS, to which the sidecar adds mTLS
    Grpc,
    /// gRPC over TLS of the application itself
    GrpcTls,
    /// HTTP/1.1
    Http1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RouteFormat {
    /// Text
    Text,
    /// One JSON object per answer and line, or one for all tests
    Json,
    /// Test results as JUnit XML
    Junit,
}

pub(super) async fn run(context: &mut Context<'_>, mut arguments: RouteArgs) -> Result<CommandOutcome, Failure> {
    if arguments.output == RouteFormat::Junit && arguments.test.is_none() {
        return Err(Failure::usage("-o junit requires --test").hint("pass the tests with --test FILE"));
    }
    let tests = arguments.test.as_deref().map(test_file::read).transpose()?;
    let lines = arguments.calls.as_deref().map(calls::read).transpose()?;
    // The directory of the manifests may contain these files too.
    arguments.source.excluded_files = arguments.test.iter().chain(&arguments.calls).cloned().collect();
    let ScopedSnapshot { snapshot, namespaces } = arguments.source.read(context).await?;
    let mesh = mesh::resolve(&snapshot, &arguments.source.options(&context.scope));
    for note in mesh.istiod_notes() {
        context.messages.warning(&note);
    }
    for undecoded in &mesh.undecoded {
        context.messages.warning(&undecoded.to_string());
    }
    if let Some(tests) = tests {
        return run_tests(context, &mesh, tests, arguments.output);
    }
    let (reports, unanswered) = match lines {
        Some(lines) => answer_calls(&mesh, lines, &context.messages),
        None => {
            let call = calls::from_flags(&mesh, &arguments, namespaces.first().map(String::as_str))?;
            warn_about_path(context, &arguments, &call);
            let answers = answer_call(&mesh, &arguments, &call)?;
            let reports = if arguments.live {
                live::compare(context, &mesh, &arguments, answers).await?
            } else {
                answers.into_iter().map(|(report, _)| report).collect()
            };
            (reports, 0)
        }
    };
    write(context, &reports, arguments.output)?;
    Ok(exit_outcome(&arguments, &mesh, &reports, unanswered))
}

fn run_tests(
    context: &mut Context<'_>,
    mesh: &Mesh<'_>,
    tests: Vec<RouteTestCase>,
    output: RouteFormat,
) -> Result<CommandOutcome, Failure> {
    let report = test_file::run(mesh, tests);
    match output {
        RouteFormat::Text => render::route_test::text(&report, &context.style, context.out)?,
        RouteFormat::Json => render::json(&report, context.out)?,
        RouteFormat::Junit => render::route_test::junit(&report, context.out)?,
    }
    Ok(if report.failed > 0 {
        CommandOutcome::Found
    } else if has_gaps(mesh) {
        CommandOutcome::Partial
    } else {
        CommandOutcome::Clean
    })
}

fn has_gaps(mesh: &Mesh<'_>) -> bool {
    mesh.snapshot.gaps.iter().any(Gap::affects_answers)
}

fn warn_about_path(context: &Context<'_>, arguments: &RouteArgs, call: &Call) {
    let is_grpc = arguments.method.is_some() && arguments.protocol != CallProtocolArg::Http1;
    if is_grpc && !calls::is_grpc_path(&call.path) {
        let path = &call.path;
        context.messages.warning(&format!("gRPC clients never send the path {path}: expected /package.Service/Method"));
    }
}

fn write(context: &mut Context<'_>, reports: &[RouteReport], output: RouteFormat) -> Result<(), Failure> {
    for (index, report) in reports.iter().enumerate() {
        match output {
            RouteFormat::Json | RouteFormat::Junit => render::json_line(report, context.out)?,
            RouteFormat::Text => {
                if index > 0 {
                    writeln!(context.out)?;
                }
                render::route::route(report, &context.style, context.out)?;
            }
        }
    }
    Ok(())
}

/// Decides the exit code. A call that does not arrive counts as found, except in a file of calls, where it is an answer.
fn exit_outcome(arguments: &RouteArgs, mesh: &Mesh<'_>, reports: &[RouteReport], unanswered: usize) -> CommandOutcome {
    let states = || reports.iter().filter_map(|report| report.live.as_ref()).map(|live| live.state);
    let has_failed_call = arguments.calls.is_none() && reports.iter().any(|report| !report.arrives());
    let is_partial = has_gaps(mesh) || unanswered > 0 || states().any(|state| !state.is_compared());
    if has_failed_call || states().any(ProxyState::differs) {
        CommandOutcome::Found
    } else if is_partial {
        CommandOutcome::Partial
    } else {
        CommandOutcome::Clean
    }
}

/// Answers the calls of a file in order. Also returns the number of lines without an answer, each of which causes a warning.
///
/// Calls are answered by caller class, so that the routes of only one proxy are in memory at a time.
fn answer_calls<'m>(
    mesh: &'m Mesh<'m>,
    lines: Vec<Result<CallRequest, String>>,
    messages: &Messages,
) -> (Vec<RouteReport>, usize) {
    let mut configs = callers::ProxyConfigs::new(mesh);
    let mut classes: BTreeMap<callers::CallerKey, Vec<(usize, CallRequest, callers::NamedCaller)>> = BTreeMap::new();
    let mut reports: Vec<Option<RouteReport>> = Vec::new();
    reports.resize_with(lines.len(), || None);
    let mut unanswered = 0;
    for (index, line) in lines.into_iter().enumerate() {
        let resolved = line.and_then(|request| match configs.resolve(&request.caller) {
            Ok(caller) => Ok((request, caller.clone())),
            Err(failure) => Err(format!("{}: {}", request.position, failure.message)),
        });
        match resolved {
            Ok((request, caller)) => classes.entry(caller.class.clone()).or_default().push((index, request, caller)),
            Err(error) => {
                unanswered += 1;
                messages.warning(&error);
            }
        }
    }
    for members in classes.into_values() {
        let Some((_, _, first)) = members.first() else { continue };
        let proxy = ProxyConfig::new(mesh, first.caller.clone());
        for (index, request, caller) in members {
            let decision = proxy.decide(&request.call);
            let report = RouteReport::new(mesh, &caller.caller, &caller.name, &request.call, &decision);
            if let Some(slot) = reports.get_mut(index) {
                *slot = Some(RouteReport { id: request.id, ..report });
            }
        }
    }
    (reports.into_iter().flatten().collect(), unanswered)
}

/// The answers to one call: for the caller of `--caller`, else for each caller class that gets a different answer.
fn answer_call<'m>(
    mesh: &'m Mesh<'m>,
    arguments: &RouteArgs,
    call: &Call,
) -> Result<Vec<(RouteReport, Caller)>, Failure> {
    if let Some(caller) = &arguments.caller {
        let mut configs = callers::ProxyConfigs::new(mesh);
        let (caller, proxy) = configs.proxy_of(caller)?;
        let report = RouteReport::new(mesh, &caller.caller, &caller.name, call, &proxy.decide(call));
        return Ok(vec![(report, caller.caller.clone())]);
    }
    Ok(callers::report_by_class(mesh, call))
}
