//! `doctor`: checks whether the commands can work in this cluster and on this machine.

use std::collections::BTreeSet;
use std::path::Path;

use clap::Args;

use super::live_proxies::{AdminAccessArgs, pod_names, sample_proxies};
use super::shift::parse_prometheus_address;
use super::version::proxies_by_version;
use crate::accesslog::Direction;
use crate::accesslog::settings::{LogProxy, Logging};
use crate::analysis::prometheus;
use crate::cli::context::Context;
use crate::cli::failure::{CommandOutcome, Failure};
use crate::cli::global::{ReportFormat, SourceArgs};
use crate::cluster::ClusterErrorKind;
use crate::cluster::client::ApiServer;
use crate::cluster::prometheus::PrometheusClient;
use crate::cluster::proxies::IstiodSyncState;
use crate::doctor::rights;
use crate::doctor::{CheckState, DoctorCheck, plugin_path, versions};
use crate::mesh::version::VersionSource;
use crate::mesh::workload::Workload;
use crate::mesh::{self, Mesh};
use crate::render;
use crate::report::doctor::DoctorReport;

/// Number of proxies whose reachability is checked, from different caller classes.
const SAMPLED_PROXIES: usize = 3;
/// Maximum number of namespaces whose permissions and logs are checked.
const MAX_NAMESPACES: usize = 20;

/// Check permissions, versions, access logs, reachability and completion
///
/// Checks the cluster with your permissions, and the plugin setup of this machine. Each failed check comes with its fix, for
/// missing permissions the rules of a Role.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl grpcmesh doctor -n shop
  kubectl grpcmesh doctor -o json | jq -r '.checks[] | select(.state == \"failed\").fix'
  kubectl grpcmesh doctor --prometheus istio-system/prometheus")]
pub struct DoctorArgs {
    /// Also check that this Prometheus has Istio's metrics: a URL, or NAMESPACE/SERVICE[:PORT]
    #[arg(long, value_name = "ADDRESS")]
    prometheus: Option<String>,
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "text")]
    output: ReportFormat,
    #[command(flatten)]
    access: AdminAccessArgs,
}

pub(super) async fn run(context: &mut Context<'_>, arguments: DoctorArgs) -> Result<CommandOutcome, Failure> {
    let mut checks = vec![DoctorCheck::new("client/version", CheckState::Ok, env!("CARGO_PKG_VERSION"))];
    checks.extend(check_path(&context.env.path));
    match context.connect().await {
        Ok(server) => check_cluster(context, &server, &arguments, &mut checks).await?,
        Err(error) => checks.push(unreachable(&error.message, error.hint)),
    }
    let report = DoctorReport::new(&checks);
    match arguments.output {
        ReportFormat::Text => render::doctor::doctor(&report, &context.style, context.out)?,
        ReportFormat::Json => render::json(&report, context.out)?,
        ReportFormat::Yaml => render::yaml::yaml(&report, context.out)?,
    }
    Ok(exit_outcome(&report))
}

fn exit_outcome(report: &DoctorReport) -> CommandOutcome {
    let has = |state: CheckState| report.checks.iter().any(|check| check.state == state);
    match (has(CheckState::Failed), has(CheckState::Unknown)) {
        (true, _) => CommandOutcome::Found,
        (false, true) => CommandOutcome::Partial,
        (false, false) => CommandOutcome::Clean,
    }
}

fn unreachable(reason: &str, hint: Option<String>) -> DoctorCheck {
    DoctorCheck::new("cluster", CheckState::Failed, reason)
        .with_fix(hint.unwrap_or_else(|| "kubectl cluster-info".to_owned()))
}

/// Checks the programs on `PATH` that kubectl runs for this plugin.
fn check_path(folders: &[impl AsRef<Path>]) -> Vec<DoctorCheck> {
    let mut files = Vec::new();
    let mut visited = BTreeSet::new();
    for folder in folders.iter().map(AsRef::as_ref).filter(|folder| visited.insert(folder.to_path_buf())) {
        let Ok(entries) = std::fs::read_dir(folder) else { continue };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut programs: Vec<String> = names
            .filter(|name| name.starts_with(plugin_path::PROGRAM) || name.starts_with(plugin_path::COMPLETER))
            .collect();
        programs.sort();
        files.extend(programs.into_iter().map(|name| (folder.display().to_string(), name)));
    }
    let definition = super::definition();
    let commands: Vec<&str> = definition.get_subcommands().map(clap::Command::get_name).collect();
    plugin_path::checks(&files, &commands)
}

async fn check_cluster(
    context: &mut Context<'_>,
    server: &ApiServer,
    arguments: &DoctorArgs,
    checks: &mut Vec<DoctorCheck>,
) -> Result<(), Failure> {
    let source = SourceArgs::default();
    let scoped = match source.read(context).await {
        Ok(scoped) => scoped,
        Err(failure) => {
            checks.push(unreachable(&failure.message, failure.hints.first().cloned()));
            let namespaces = context.scope.namespace.clone().unwrap_or_else(|| server.namespace.clone());
            let namespaces: Vec<String> = namespaces.split(',').map(|name| name.trim().to_owned()).collect();
            // Missing permissions can be determined even without list permissions, if the API server answers.
            let permissions = check_permissions(server, &namespaces).await;
            checks.extend(permissions.into_iter().filter(|check| check.state != CheckState::Unknown));
            return Ok(());
        }
    };
    let version = scoped.snapshot.kubernetes_version.as_deref().unwrap_or("unknown");
    checks.push(DoctorCheck::new(
        "cluster",
        CheckState::Ok,
        format!("connected to {}, Kubernetes {version}", server.server),
    ));
    let mesh = mesh::resolve(&scoped.snapshot, &source.options(&context.scope));
    let istiod = (mesh.version_source == VersionSource::Istiod).then_some(mesh.version);
    checks.push(versions::istiod(istiod));
    checks.push(versions::proxies(istiod, &proxies_by_version(&mesh)));
    checks.push(check_gateway_api(server).await);
    let has_proxy = |workload: &&Workload| workload.proxy.envoy().is_some();
    let meshed_namespaces: BTreeSet<String> =
        mesh.workloads.iter().filter(has_proxy).map(|workload| workload.namespace().to_string()).collect();
    let in_scope = if scoped.namespaces.is_empty() { &meshed_namespaces } else { &scoped.namespaces };
    let namespaces: Vec<String> = in_scope.iter().take(MAX_NAMESPACES).cloned().collect();
    checks.extend(check_permissions(server, &namespaces).await);
    // Without proxies in scope, check the logs of other namespaces.
    let mut logging_namespaces = namespaces;
    logging_namespaces.retain(|name| meshed_namespaces.contains(name));
    if logging_namespaces.is_empty() {
        logging_namespaces = meshed_namespaces.into_iter().take(MAX_NAMESPACES).collect();
    }
    checks.extend(check_logs(context, server, &mesh, &logging_namespaces).await);
    checks.extend(check_reachability(context, server, &mesh, arguments.access).await);
    checks.push(check_prometheus(context, server, &mesh, arguments).await);
    Ok(())
}

/// Checks the version of Gateway API, which an annotation of its CustomResourceDefinitions states.
async fn check_gateway_api(server: &ApiServer) -> DoctorCheck {
    let id = "gateway-api/version";
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/grpcroutes.gateway.networking.k8s.io";
    match server.get(path, server.timeout).await {
        Ok(text) => {
            let object: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            let annotations = object.pointer("/metadata/annotations");
            let annotation = |name: &str| {
                annotations
                    .and_then(|all| all.get(format!("gateway.networking.k8s.io/{name}")))
                    .and_then(|value| value.as_str())
            };
            let (version, channel) = (annotation("bundle-version"), annotation("channel"));
            let reason =
                format!("GRPCRoute version {}, channel {}", version.unwrap_or("unknown"), channel.unwrap_or("unknown"));
            DoctorCheck::new(id, CheckState::Ok, reason)
        }
        Err(error) if error.kind == ClusterErrorKind::NotFound => DoctorCheck::new(
            id,
            CheckState::Warning,
            "GRPCRoute is not installed: only VirtualServices can route gRPC calls",
        )
        .with_fix("install Gateway API v1.1 or later: standard-install.yaml of kubernetes-sigs/gateway-api"),
        Err(error) => DoctorCheck::new(
            id,
            CheckState::Unknown,
            format!("cannot read the CustomResourceDefinition of GRPCRoute: {}", error.message),
        )
        .with_fix("grant get on customresourcedefinitions, which only this check needs"),
    }
}

async fn check_permissions(server: &ApiServer, namespaces: &[String]) -> Vec<DoctorCheck> {
    if server.health.is_silent() {
        return Vec::new();
    }
    let mut cluster_wide = Vec::new();
    for right in rights::essential_rights() {
        if server.health.is_silent() {
            break;
        }
        let is_granted = server.is_allowed_cluster_wide(&right).await.unwrap_or(false);
        cluster_wide.push((right, is_granted));
    }
    let mut checks: Vec<DoctorCheck> = Vec::new();
    for namespace in namespaces {
        match server.rules_in_namespace(namespace).await {
            Ok((granted, incomplete)) => {
                for check in rights::checks(namespace, &granted, &cluster_wide) {
                    // An authorizer that cannot list all its rules may grant more than it reports.
                    let check = if incomplete && check.state == CheckState::Failed {
                        DoctorCheck { state: CheckState::Unknown, ..check }
                    } else {
                        check
                    };
                    // Checks that pass in several namespaces are equal and reported once.
                    if !checks.contains(&check) {
                        checks.push(check);
                    }
                }
            }
            Err(error) => {
                checks.push(DoctorCheck::new(format!("rights/{namespace}"), CheckState::Unknown, error.message));
            }
        }
    }
    checks
}

/// Checks whether the proxies of namespaces log calls.
async fn check_logs(
    context: &Context<'_>,
    server: &ApiServer,
    mesh: &Mesh<'_>,
    namespaces: &[String],
) -> Vec<DoctorCheck> {
    let scope = &context.scope;
    let names: BTreeSet<&str> = namespaces.iter().map(String::as_str).collect();
    let logging = server.read_log_settings(&scope.istio_namespace, scope.revision.as_deref(), &names).await;
    if let Some(gap) = logging.gaps.first() {
        return vec![DoctorCheck::new("logs", CheckState::Unknown, format!("cannot read the log settings: {gap}"))];
    }
    let mut checks = Vec::new();
    for namespace in namespaces {
        let has_proxy =
            |workload: &&Workload| workload.namespace().as_str() == namespace && workload.proxy.envoy().is_some();
        let Some(workload) = mesh.workloads.iter().find(has_proxy) else { continue };
        let labels = workload.labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let proxy = LogProxy { namespace, labels: &labels };
        let id = format!("logs/{namespace}");
        let by_direction =
            [Direction::Outbound, Direction::Inbound].map(|direction| logging.settings.logging(proxy, direction));
        checks.push(match &by_direction {
            [Logging::Off(reason), _] | [_, Logging::Off(reason)] => DoctorCheck::new(
                id,
                CheckState::Warning,
                format!(
                    "the proxies in {namespace} do not log calls in both directions, so tail shows only some of them"
                ),
            )
            .with_fix(logging.settings.telemetry_fix(namespace, reason)),
            _ if !logging.settings.logs_grpc_status() => DoctorCheck::new(
                id,
                CheckState::Ok,
                "calls are logged without the gRPC status, which tail infers if possible",
            ),
            _ => DoctorCheck::new(id, CheckState::Ok, "calls are logged with the gRPC status"),
        });
    }
    checks
}

/// Checks whether istiod and a sample of the proxies answer.
async fn check_reachability(
    context: &Context<'_>,
    server: &ApiServer,
    mesh: &Mesh<'_>,
    access: AdminAccessArgs,
) -> Vec<DoctorCheck> {
    let fix = "apply and bind docs/rbac/live-reader.yaml, or use --via exec";
    let sync = match server.istiod_sync_state(&context.scope.istio_namespace).await {
        IstiodSyncState::Reported(proxies, None) => {
            DoctorCheck::new("istiod/reach", CheckState::Ok, format!("istiod reports {} proxies", proxies.len()))
        }
        IstiodSyncState::Reported(_, Some(reason)) => DoctorCheck::new("istiod/reach", CheckState::Warning, reason),
        IstiodSyncState::NoAnswer(reason) => DoctorCheck::new("istiod/reach", CheckState::Failed, reason)
            .with_fix(format!("kubectl get pods -n {} -l app=istiod", context.scope.istio_namespace)),
        IstiodSyncState::Unknown(reason) => DoctorCheck::new("istiod/reach", CheckState::Warning, reason).with_fix(fix),
    };
    let pods = pod_names(mesh, &sample_proxies(mesh, |_| true, Some(SAMPLED_PROXIES)).selected);
    let id = "proxies/reach";
    if pods.is_empty() {
        return vec![sync, DoctorCheck::new(id, CheckState::Warning, "the mesh has no proxies")];
    }
    // The check needs an answer but no counters.
    let no_cluster = |_: &str| false;
    let AdminAccessArgs { via, parallel, proxy_timeout } = access;
    let responses =
        server.endpoint_counters(&pods, via.into(), parallel, proxy_timeout, &no_cluster, &|counters| counters).await;
    let failed: Vec<String> = pods
        .iter()
        .zip(&responses)
        .filter_map(|(pod, response)| {
            let error = response.as_ref().err()?;
            Some(format!("{}/{}: {}", pod.namespace, pod.pod, error.message))
        })
        .collect();
    let check = match &failed[..] {
        [] => DoctorCheck::new(id, CheckState::Ok, format!("all {} sampled proxies answer", pods.len())),
        [first, ..] => {
            let state = if failed.len() == pods.len() { CheckState::Failed } else { CheckState::Warning };
            DoctorCheck::new(
                id,
                state,
                format!("{} of {} sampled proxies do not answer: {first}", failed.len(), pods.len()),
            )
            .with_fix(fix)
        }
    };
    vec![sync, check]
}

/// Checks whether Prometheus has the metrics that the canary analysis of `shift` needs.
async fn check_prometheus(
    context: &Context<'_>,
    server: &ApiServer,
    mesh: &Mesh<'_>,
    arguments: &DoctorArgs,
) -> DoctorCheck {
    let id = "prometheus";
    let Some(address) = &arguments.prometheus else {
        let prometheus = mesh.services.iter().find(|service| {
            service.object.name.contains("prometheus") && service.ports.iter().any(|port| port.number == 9090)
        });
        return match prometheus {
            Some(service) => {
                let name = format!("{}/{}", service.namespace(), service.object.name);
                DoctorCheck::new(
                    id,
                    CheckState::Ok,
                    format!("not checked; to check {name}: kubectl grpcmesh doctor --prometheus {name}"),
                )
            }
            None => DoctorCheck::new(
                id,
                CheckState::Ok,
                "not checked; without Prometheus, shift uses the counters of the callers' proxies",
            ),
        };
    };
    let address = match parse_prometheus_address(address) {
        Ok(address) => address,
        Err(failure) => return DoctorCheck::new(id, CheckState::Failed, failure.message),
    };
    let response = match PrometheusClient::new(&address, server, Vec::new(), &context.env.proxy) {
        Ok(prometheus) => prometheus.query("count(istio_requests_total{reporter=\"source\"})").await,
        Err(error) => Err(error),
    };
    match response.map_err(|error| error.message).and_then(|text| prometheus::parse_response(&text)) {
        Ok(series) => match prometheus::scalar_value(&series) {
            Some(count) => {
                DoctorCheck::new(id, CheckState::Ok, format!("Prometheus has {count} series of istio_requests_total"))
            }
            None => DoctorCheck::new(
                id,
                CheckState::Failed,
                "Prometheus has no series of istio_requests_total from callers' proxies",
            )
            .with_fix(
                "scrape the proxies (see \"Integrations\" on istio.io), and check that no Telemetry disables metrics",
            ),
        },
        Err(reason) => DoctorCheck::new(id, CheckState::Failed, reason)
            .with_fix("use a URL that serves /api/v1/query, or NAMESPACE/SERVICE with docs/rbac/prometheus.yaml"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn the_exit_code_follows_the_worst_check() {
        let without_failed = |mut report: DoctorReport| {
            report.checks.retain(|check| check.state != CheckState::Failed);
            report
        };
        assert_eq!(exit_outcome(&samples::doctor_ready()), CommandOutcome::Clean, "a warning does not fail");
        assert_eq!(exit_outcome(&samples::doctor()), CommandOutcome::Found);
        assert_eq!(exit_outcome(&without_failed(samples::doctor())), CommandOutcome::Partial);
    }
}
