//! `doctor`: can this be used here, and what would mend what is in its way?

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use clap::{Args, ValueEnum};

use super::proxy_states::{AdminAccessArgs, choose, pods};
use super::shift::prometheus_at;
use crate::accesslog::Direction;
use crate::accesslog::settings::{LogProxy, Logging};
use crate::analysis::prometheus;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::SourceArgs;
use crate::cluster::client::ApiServer;
use crate::cluster::prometheus::PrometheusClient;
use crate::cluster::proxies::SyncState;
use crate::doctor::rights::{self, RbacRule};
use crate::doctor::{CheckState, DoctorCheck, plugin_path, versions};
use crate::mesh::version::VersionSource;
use crate::mesh::{self, Mesh};
use crate::render;
use crate::report::doctor::DoctorReport;

/// Proxies that are tried, one of each class of callers first.
const TRIED: usize = 3;
/// Namespaces whose rights and logs are looked at.
const PLACES: usize = 20;

/// Check whether this can be used here: rights, versions, logs, reach, completion
///
/// Looks at the cluster as you, and at this machine. Each check says what is wrong and what mends it; missing rights come
/// as a Role that can be applied.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh doctor -n shop
  kubectl grpcmesh doctor -o json | jq -r '.checks[] | select(.state == \"failed\").fix'
  kubectl grpcmesh doctor --prometheus istio-system/prometheus")]
pub struct DoctorArgs {
    /// Whether Prometheus answers, and has Istio's metrics: an address, or NAMESPACE/SERVICE[:PORT]
    #[arg(long, value_name = "PLACE")]
    prometheus: Option<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: DoctorFormat,
    #[command(flatten)]
    reach: AdminAccessArgs,
}

/// Output formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DoctorFormat {
    /// For people.
    Text,
    /// The contract.
    Json,
    /// The contract as YAML.
    Yaml,
}

/// Runs the command.
pub(super) async fn run(context: &mut Context<'_>, arguments: DoctorArgs) -> Result<CommandOutcome, Failure> {
    let mut checks = vec![DoctorCheck::new("client/version", CheckState::Ok, env!("CARGO_PKG_VERSION"))];
    checks.extend(on_this_machine(&context.env.path));
    match context.connect().await {
        Ok(server) => of_cluster(context, &server, &arguments, &mut checks).await?,
        Err(error) => checks.push(unreachable(&error.message, error.hint)),
    }
    let report = DoctorReport::new(&checks);
    match arguments.output {
        DoctorFormat::Text => render::doctor::doctor(&report, &context.style, context.out)?,
        DoctorFormat::Json => render::json(&report, context.out)?,
        DoctorFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    let has = |state: CheckState| checks.iter().any(|check| check.state == state);
    Ok(match (has(CheckState::Failed), has(CheckState::Unknown)) {
        (true, _) => CommandOutcome::Found,
        (false, true) => CommandOutcome::Partial,
        (false, false) => CommandOutcome::Clean,
    })
}

fn unreachable(why: &str, hint: Option<String>) -> DoctorCheck {
    DoctorCheck::new("cluster", CheckState::Failed, why).fix(hint.unwrap_or_else(|| "kubectl cluster-info".to_owned()))
}

/// What kubectl would run: the files of `PATH` that are called like us.
fn on_this_machine(folders: &[impl AsRef<Path>]) -> Vec<DoctorCheck> {
    let mut files = Vec::new();
    let mut seen = BTreeSet::new();
    for folder in folders.iter().map(AsRef::as_ref).filter(|folder| seen.insert(folder.to_path_buf())) {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut ours: Vec<String> = names
            .filter(|name| name.starts_with(plugin_path::PROGRAM) || name.starts_with(plugin_path::COMPLETER))
            .collect();
        ours.sort();
        files.extend(ours.into_iter().map(|name| (folder.display().to_string(), name)));
    }
    let definition = super::definition();
    let commands: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
    plugin_path::checks(&files, &commands)
}

async fn of_cluster(
    context: &mut Context<'_>,
    server: &ApiServer,
    arguments: &DoctorArgs,
    checks: &mut Vec<DoctorCheck>,
) -> Result<(), Failure> {
    let source = SourceArgs::default();
    let read = match source.read(context).await {
        Ok(read) => read,
        Err(failure) => {
            checks.push(unreachable(&failure.message, failure.hints.first().cloned()));
            let named = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
            let places: Vec<String> = named.split(',').map(|name| name.trim().to_owned()).collect();
            // Who may list nothing may still be told what is missing; who reaches nothing may not.
            let rights = rights_in(server, &places).await;
            checks.extend(rights.into_iter().filter(|check| check.state != CheckState::Unknown));
            return Ok(());
        }
    };
    let version = read.snapshot.kubernetes_version.clone().unwrap_or_else(|| "unknown".to_owned());
    checks.push(DoctorCheck::new(
        "cluster",
        CheckState::Ok,
        format!("{} answers: Kubernetes {version}", server.server),
    ));
    let mesh = mesh::resolve(&read.snapshot, &source.options(&context.scope));
    let istiod = (mesh.version_source == VersionSource::Istiod).then_some(mesh.version);
    checks.push(versions::istiod(istiod));
    let mut counts = BTreeMap::new();
    for workload in &mesh.workloads {
        if let Some(version) = workload.proxy.envoy().and_then(|envoy| envoy.version) {
            *counts.entry(version).or_default() += workload.count;
        }
    }
    checks.push(versions::proxies(istiod, &counts));
    checks.push(gateway_api(server).await);
    let with_proxy: BTreeSet<String> = mesh
        .workloads
        .iter()
        .filter(|workload| workload.proxy.envoy().is_some())
        .map(|workload| workload.namespace().to_string())
        .collect();
    let mut places: Vec<String> =
        if read.namespaces.is_empty() { &with_proxy } else { &read.namespaces }.iter().cloned().collect();
    places.truncate(PLACES);
    checks.extend(rights_in(server, &places).await);
    // Where no proxy is in scope, those that there are tell.
    let in_scope: Vec<String> = places.into_iter().filter(|place| with_proxy.contains(place)).collect();
    let logging = if in_scope.is_empty() { with_proxy.into_iter().take(PLACES).collect() } else { in_scope };
    checks.extend(logs(context, server, &mesh, &logging).await);
    checks.extend(reach(context, server, &mesh, arguments.reach).await);
    checks.push(metrics(context, server, &mesh, arguments).await);
    Ok(())
}

/// The version of Gateway API's definitions, which they carry as an annotation.
async fn gateway_api(server: &ApiServer) -> DoctorCheck {
    let id = "gateway-api/version";
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/grpcroutes.gateway.networking.k8s.io";
    match server.get(path, server.timeout).await {
        Ok(text) => {
            let object: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let note =
                |name: &str| object["metadata"]["annotations"][format!("gateway.networking.k8s.io/{name}")].as_str();
            let (version, channel) = (note("bundle-version"), note("channel"));
            let shown = format!("GRPCRoute {} ({})", version.unwrap_or("of unknown version"), channel.unwrap_or("?"));
            DoctorCheck::new(id, CheckState::Ok, shown)
        }
        Err(error) if error.trouble == crate::cluster::ClusterErrorKind::NotFound => DoctorCheck::new(
            id,
            CheckState::Warning,
            "Gateway API has no GRPCRoute here: only VirtualServices route gRPC calls",
        )
        .fix("install its standard definitions, from v1.1 on: kubernetes-sigs/gateway-api, standard-install.yaml"),
        Err(error) => {
            DoctorCheck::new(id, CheckState::Unknown, format!("its definitions cannot be read: {}", error.message))
                .fix("ask for get on customresourcedefinitions; nothing but this check needs it")
        }
    }
}

async fn rights_in(server: &ApiServer, places: &[String]) -> Vec<DoctorCheck> {
    let mut everywhere = Vec::new();
    for right in rights::decisive() {
        let is_given = server.may_everywhere(&right).await.unwrap_or(false);
        everywhere.push((right, is_given));
    }
    let mut checks: Vec<DoctorCheck> = Vec::new();
    for place in places {
        match server.rules_in(place).await {
            Ok((granted, incomplete)) => {
                let rules: &[RbacRule] = &granted;
                for check in rights::checks(place, rules, &everywhere) {
                    // An authorizer that cannot list its rules may give more than it tells.
                    let check = if incomplete && check.state == CheckState::Failed {
                        DoctorCheck { state: CheckState::Unknown, ..check }
                    } else {
                        check
                    };
                    // Of several namespaces the good ones are one check.
                    if !checks.contains(&check) {
                        checks.push(check);
                    }
                }
            }
            Err(error) => checks.push(DoctorCheck::new(format!("rights/{place}"), CheckState::Unknown, error.message)),
        }
    }
    checks
}

/// Whether the proxies of namespaces log what `tail` reads.
async fn logs(context: &Context<'_>, server: &ApiServer, mesh: &Mesh<'_>, places: &[String]) -> Vec<DoctorCheck> {
    let scope = &context.scope;
    let names: BTreeSet<&str> = places.iter().map(String::as_str).collect();
    let read = server.log_settings(&scope.istio_namespace, scope.revision.as_deref(), &names).await;
    if let Some(gap) = read.gaps.first() {
        return vec![DoctorCheck::new(
            "logs",
            CheckState::Unknown,
            format!("whether proxies log calls could not be read: {gap}"),
        )];
    }
    let mut checks = Vec::new();
    for place in places {
        let labels = mesh.workloads.iter().find(|one| one.namespace().as_str() == place && one.proxy.envoy().is_some());
        let Some(workload) = labels else { continue };
        let labels = workload.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let proxy = LogProxy { namespace: place, labels: &labels };
        let id = format!("logs/{place}");
        let sides = [Direction::Outbound, Direction::Inbound].map(|side| read.settings.of(proxy, side));
        checks.push(match &sides {
            [Logging::Off(reason), _] | [_, Logging::Off(reason)] => DoctorCheck::new(
                id,
                CheckState::Warning,
                format!("calls of {place} are not logged, or not on both sides: tail sees less"),
            )
            .fix(read.settings.remedy(place, reason)),
            _ if !read.settings.tells_status() => DoctorCheck::new(
                id,
                CheckState::Ok,
                "calls are logged; the format has no gRPC status, which is inferred where it can be",
            ),
            _ => DoctorCheck::new(id, CheckState::Ok, "calls are logged, with their gRPC status"),
        });
    }
    checks
}

/// Whether istiod and proxies can be asked what they run.
async fn reach(context: &Context<'_>, server: &ApiServer, mesh: &Mesh<'_>, reach: AdminAccessArgs) -> Vec<DoctorCheck> {
    let needs = "kubectl apply -f docs/rbac/live-reader.yaml, and bind it; or --via exec";
    let sync = match server.sync_state(&context.scope.istio_namespace).await {
        SyncState::Known(proxies, None) => {
            DoctorCheck::new("istiod/reach", CheckState::Ok, format!("istiod tells of {} proxies", proxies.len()))
        }
        SyncState::Known(_, Some(why)) => DoctorCheck::new("istiod/reach", CheckState::Warning, why),
        SyncState::NoAnswer(why) => DoctorCheck::new("istiod/reach", CheckState::Failed, why)
            .fix(format!("kubectl get pods -n {} -l app=istiod", context.scope.istio_namespace)),
        SyncState::Unknown(why) => DoctorCheck::new("istiod/reach", CheckState::Warning, why).fix(needs),
    };
    let (chosen, _) = choose(mesh, |_| true, Some(TRIED));
    let pods = pods(mesh, &chosen);
    let id = "proxies/reach";
    if pods.is_empty() {
        return vec![sync, DoctorCheck::new(id, CheckState::Warning, "there is no proxy to ask")];
    }
    let none = |_: &str| false;
    let answers =
        server.all_counters(&pods, reach.via.into(), reach.parallel, reach.proxy_timeout, &none, &|all| all).await;
    let failed: Vec<String> = pods
        .iter()
        .zip(&answers)
        .filter_map(|(pod, answer)| {
            let error = answer.as_ref().err()?;
            Some(format!("{}/{}: {}", pod.namespace, pod.pod, error.message))
        })
        .collect();
    let check = match &failed[..] {
        [] => DoctorCheck::new(id, CheckState::Ok, format!("{} of {} proxies tried answer", pods.len(), pods.len())),
        [first, ..] => {
            let state = if failed.len() == pods.len() { CheckState::Failed } else { CheckState::Warning };
            DoctorCheck::new(
                id,
                state,
                format!("{} of {} proxies tried do not answer: {first}", failed.len(), pods.len()),
            )
            .fix(needs)
        }
    };
    vec![sync, check]
}

/// Whether Prometheus has what the guard of `shift` asks for.
async fn metrics(context: &Context<'_>, server: &ApiServer, mesh: &Mesh<'_>, arguments: &DoctorArgs) -> DoctorCheck {
    let id = "prometheus";
    let Some(place) = &arguments.prometheus else {
        let found = mesh.services.iter().find(|service| {
            service.object.name.contains("prometheus") && service.ports.iter().any(|port| port.number == 9090)
        });
        return match found {
            Some(service) => {
                let name = format!("{}/{}", service.namespace(), service.object.name);
                DoctorCheck::new(
                    id,
                    CheckState::Ok,
                    format!("not asked; {name} looks like one: doctor --prometheus {name}"),
                )
            }
            None => DoctorCheck::new(
                id,
                CheckState::Ok,
                "not asked: shift counts calls by the callers' proxies without one",
            ),
        };
    };
    let place = match prometheus_at(place) {
        Ok(place) => place,
        Err(failure) => return DoctorCheck::new(id, CheckState::Failed, failure.message),
    };
    let asked = match PrometheusClient::new(&place, server, Vec::new(), &context.env.proxy) {
        Ok(prometheus) => prometheus.query("count(istio_requests_total{reporter=\"source\"})").await,
        Err(error) => Err(error),
    };
    match asked.map_err(|error| error.message).and_then(|text| prometheus::read(&text)) {
        Ok(series) => match prometheus::number(&series) {
            Some(count) => DoctorCheck::new(id, CheckState::Ok, format!("it answers: {count} series of istio_requests_total")),
            None => DoctorCheck::new(id, CheckState::Failed, "it answers, and has no istio_requests_total of callers' proxies")
                .fix("scrape the proxies: istio.io, \"Integrations\", Prometheus; and see that no Telemetry turns metrics off"),
        },
        Err(why) => DoctorCheck::new(id, CheckState::Failed, why)
            .fix("an address that answers /api/v1/query; or NAMESPACE/SERVICE with docs/rbac/prometheus.yaml"),
    }
}
