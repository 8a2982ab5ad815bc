//! Compares one proxy: the configuration that the objects define, the one that it runs, and why the two may differ.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoints::SliceEndpoints;
use super::{Difference, clusters, routes};
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::route::{EnvoyAction, EnvoyRoute, EnvoyRouteTable};
use crate::envoy::sync::{XdsConnection, XdsSyncState};
use crate::mesh::Mesh;
use crate::mesh::xds::{Caller, CallerKind, CompiledRouteTable, ProxyConfig};

/// The state of a proxy, in the words of `istioctl proxy-status` and xDS, worst first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ProxyState {
    /// Envoy rejected configuration (NACK) and keeps the previous version.
    Rejected,
    /// Envoy does not run what the objects define, although it acknowledged everything that istiod sent.
    Different,
    /// istiod sent an update that Envoy has not acknowledged.
    Stale,
    /// istiod has not sent the update.
    NotSent,
    /// The admin port does not respond.
    Unreachable,
    /// The proxy was not queried, or none of its configuration can be compared.
    NotCompared,
    /// Envoy runs what the objects define.
    Synced,
}

impl ProxyState {
    /// The state as in JSON output, such as `not-sent`.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether the proxy was compared and does not run what the objects define.
    pub fn differs(self) -> bool {
        matches!(self, Self::Rejected | Self::Different | Self::Stale | Self::NotSent)
    }

    /// Whether the configuration of the proxy was read and compared.
    pub fn is_compared(self) -> bool {
        !matches!(self, Self::Unreachable | Self::NotCompared)
    }
}

/// The result of comparing one proxy with the objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedProxy {
    /// State of the proxy.
    pub state: ProxyState,
    /// Evidence for the state, in one sentence.
    pub evidence: String,
    /// Time of the oldest unacknowledged update, RFC 3339, if istiod reports it.
    pub since: Option<String>,
    /// Whether the sync state of istiod cannot be read. Differences may then be updates on their way.
    pub is_sync_unknown: bool,
    /// Differences of routes, clusters and certificates.
    pub differences: Vec<Difference>,
    /// Differences of endpoints.
    pub endpoints: Vec<Difference>,
    /// Parts that were not compared, each with the reason.
    pub not_compared: Vec<String>,
    /// Whether routes were not compared.
    pub skips_routes: bool,
    /// EnvoyFilters that only patch parts which are never compared, such as filters, loggers and listeners.
    pub other_patches: Vec<String>,
}

impl ComparedProxy {
    /// A proxy without compared configuration.
    pub fn with_state(state: ProxyState, evidence: String) -> Self {
        Self {
            state,
            evidence,
            since: None,
            is_sync_unknown: false,
            differences: Vec::new(),
            endpoints: Vec::new(),
            not_compared: Vec::new(),
            skips_routes: false,
            other_patches: Vec::new(),
        }
    }

    /// Removes the differences with these keys (see [`Difference::key`]), which did not exist in the previous reading.
    #[must_use]
    pub fn without_transient(mut self, keys: &[String]) -> Self {
        if keys.is_empty() {
            return self;
        }
        for differences in [&mut self.differences, &mut self.endpoints] {
            differences.retain(|difference| !keys.contains(&difference.key()));
        }
        if self.may_converge() && self.differences.is_empty() && self.endpoints.is_empty() {
            self.state = ProxyState::Synced;
            "the differences changed between two readings: the proxy receives the changes"
                .clone_into(&mut self.evidence);
        }
        self
    }

    /// Differences of routes, clusters, certificates and endpoints.
    pub fn all_differences(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().chain(&self.endpoints)
    }

    /// Whether the differences may be an update on its way.
    pub fn may_converge(&self) -> bool {
        matches!(self.state, ProxyState::Different | ProxyState::Stale | ProxyState::NotSent)
    }
}

/// Compares a proxy with the objects of a mesh.
///
/// `slices`: compare endpoints too. `hosts`: full host names; if not empty, only the configuration for calls to these
/// hosts is compared.
pub fn compare_proxy(
    mesh: &Mesh<'_>,
    caller: &Caller,
    running: &RunningConfig,
    sync: &XdsSyncState,
    slices: Option<&SliceEndpoints>,
    hosts: &[String],
) -> ComparedProxy {
    let compiled = ProxyConfig::new(mesh, caller.clone());
    let mut patched = patched_parts(mesh, caller);
    let (mut differences, mut endpoints) = (Vec::new(), Vec::new());
    let (mut table_count, mut cluster_count) = (0, 0);
    if !patched.routes {
        // Envoy keeps the previous version of a table that it rejects, which is unknown here.
        let (rejected, accepted): (Vec<_>, Vec<_>) =
            compiled.route_tables().into_iter().partition(|compiled| compiled.rejection.is_some());
        let tables = accepted.iter().map(|compiled| &compiled.table);
        let host_names = virtual_hosts_for(hosts, tables.chain(&running.routes));
        let select = |table: &EnvoyRouteTable| with_virtual_hosts(table, host_names.as_ref());
        let desired: Vec<EnvoyRouteTable> = accepted.iter().filter_map(|compiled| select(&compiled.table)).collect();
        let is_rejected = |table: &EnvoyRouteTable| rejected.iter().any(|compiled| compiled.table.name == table.name);
        let live = running.routes.iter().filter(|table| !is_rejected(table));
        let live: Vec<EnvoyRouteTable> = live.filter_map(select).collect();
        patched.not_compared.extend(rejected.iter().map(describe_rejection));
        table_count = desired.len();
        differences.extend(routes::compare(&desired, &live));
    }
    if !patched.clusters {
        let compiled_clusters = compiled.clusters();
        let compiled_clusters: Vec<_> =
            compiled_clusters.iter().filter(|compiled| is_cluster_for(hosts, &compiled.cluster.name)).collect();
        let desired: Vec<_> = compiled_clusters.iter().map(|compiled| &compiled.cluster).collect();
        cluster_count = desired.len();
        differences.extend(clusters::compare(&desired, &running.clusters));
        if let Some(slices) = slices {
            endpoints = slices.compare(mesh, &compiled_clusters, &running.endpoints);
        }
    }
    // A certificate belongs to no upstream host.
    if let Some(secrets) = running.secrets.as_ref().filter(|_| hosts.is_empty()) {
        differences.extend(missing_certificates(&compiled, secrets));
    }
    let is_synced = differences.is_empty() && endpoints.is_empty();
    let ProxyVerdict { state, evidence, since } = if let Some(verdict) = rejected_state(running, sync) {
        verdict
    } else if !is_synced {
        unsynced_state(sync)
    } else if patched.routes && patched.clusters {
        ProxyVerdict::new(ProxyState::NotCompared, "an EnvoyFilter patches both routes and clusters".to_owned())
    } else {
        let evidence = format!("{table_count} route tables and {cluster_count} clusters match");
        ProxyVerdict::new(ProxyState::Synced, evidence)
    };
    ComparedProxy {
        skips_routes: patched.routes,
        state,
        evidence,
        since,
        is_sync_unknown: matches!(sync, XdsSyncState::Unknown(_)),
        differences,
        endpoints,
        not_compared: patched.not_compared,
        other_patches: patched.other_patches,
    }
}

fn describe_rejection(compiled: &CompiledRouteTable) -> String {
    let reason = compiled.rejection.as_deref().unwrap_or_default();
    format!("route table {}: Envoy is expected to reject it: {reason}", compiled.table.name)
}

/// Certificates that a gateway's servers need and Envoy does not have.
fn missing_certificates(compiled: &ProxyConfig<'_>, secrets: &BTreeSet<String>) -> Vec<Difference> {
    let missing = compiled.secrets().into_iter().filter(|(name, _)| !secrets.contains(name));
    missing
        .map(|(name, users)| {
            let live = if name.starts_with("kubernetes-gateway://") {
                "missing: check that the Secret is in the namespace of the Gateway and has tls.crt and tls.key"
            } else {
                "missing: the Secret must be in the namespace of the gateway pods, and their ServiceAccount must be \
                 allowed to list Secrets"
            };
            let desired = format!("needed by {}", users.join(", "));
            Difference::new(format!("certificate {name}"), desired, live.to_owned())
        })
        .collect()
}

fn is_cluster_for(hosts: &[String], cluster: &str) -> bool {
    hosts.is_empty() || cluster.splitn(4, '|').nth(3).is_some_and(|name| hosts.iter().any(|host| host == name))
}

/// Names of the virtual hosts for these hosts and of those that forward to them; `None` selects all.
fn virtual_hosts_for<'t>(
    hosts: &[String],
    tables: impl Iterator<Item = &'t EnvoyRouteTable>,
) -> Option<BTreeSet<String>> {
    if hosts.is_empty() {
        return None;
    }
    let is_own = |name: &str| name.rsplit_once(':').is_some_and(|(name, _)| hosts.iter().any(|host| host == name));
    let forwards = |route: &EnvoyRoute| match &route.action {
        EnvoyAction::Forward(forward) => forward.clusters.iter().any(|(name, _)| is_cluster_for(hosts, name)),
        EnvoyAction::Redirect(_) | EnvoyAction::DirectResponse(_) | EnvoyAction::Other => false,
    };
    let selected = tables
        .flat_map(|table| &table.virtual_hosts)
        .filter(|virtual_host| is_own(&virtual_host.name) || virtual_host.routes.iter().any(forwards));
    Some(selected.map(|virtual_host| virtual_host.name.clone()).collect())
}

/// The part of a table with these virtual hosts; `None` if it has none of them.
fn with_virtual_hosts(table: &EnvoyRouteTable, names: Option<&BTreeSet<String>>) -> Option<EnvoyRouteTable> {
    let Some(names) = names else { return Some(table.clone()) };
    let virtual_hosts: Vec<_> = table.virtual_hosts.iter().filter(|host| names.contains(&host.name)).cloned().collect();
    (!virtual_hosts.is_empty()).then(|| EnvoyRouteTable { name: table.name.clone(), virtual_hosts })
}

struct ProxyVerdict {
    state: ProxyState,
    evidence: String,
    since: Option<String>,
}

impl ProxyVerdict {
    fn new(state: ProxyState, evidence: String) -> Self {
        Self { state, evidence, since: None }
    }
}

/// The verdict on a proxy that rejected configuration, according to its admin port or to istiod.
fn rejected_state(running: &RunningConfig, sync: &XdsSyncState) -> Option<ProxyVerdict> {
    if let Some((name, reason)) = running.rejected.first() {
        let resource = if name.is_empty() { String::new() } else { format!("{name}: ") };
        return Some(ProxyVerdict::new(ProxyState::Rejected, format!("Envoy rejected {resource}{reason}")));
    }
    if let XdsSyncState::Connected(XdsConnection { rejection: Some(reason), .. }) = sync {
        let first_line = reason.lines().next().unwrap_or_default();
        let evidence = format!("istiod reports that Envoy rejected configuration: {first_line}");
        return Some(ProxyVerdict::new(ProxyState::Rejected, evidence));
    }
    None
}

/// The verdict on a proxy with differences, by the sync state that istiod reports.
fn unsynced_state(sync: &XdsSyncState) -> ProxyVerdict {
    match sync {
        XdsSyncState::Connected(connection) if !connection.unacknowledged.is_empty() => {
            let kinds: Vec<&str> = connection.unacknowledged.iter().map(|(kind, _)| kind.as_str()).collect();
            let since = connection.unacknowledged.iter().filter_map(|(_, sent_time)| sent_time.clone()).min();
            let time = since.as_deref().map(|since| format!(" at {since}")).unwrap_or_default();
            let evidence = format!(
                "istiod sent configuration ({}){time}, which the proxy has not acknowledged yet",
                kinds.join(", ")
            );
            ProxyVerdict { since, ..ProxyVerdict::new(ProxyState::Stale, evidence) }
        }
        XdsSyncState::Connected(_) => {
            let evidence = "istiod reports that the proxy acknowledged its whole configuration".to_owned();
            ProxyVerdict::new(ProxyState::Different, evidence)
        }
        XdsSyncState::NotConnected => {
            ProxyVerdict::new(ProxyState::NotSent, "the proxy is not connected to istiod".to_owned())
        }
        XdsSyncState::IstiodUnreachable(reason) => {
            ProxyVerdict::new(ProxyState::NotSent, format!("istiod does not respond: {reason}"))
        }
        XdsSyncState::Unknown(reason) => {
            let evidence = format!("stale or different: the sync state of istiod cannot be read ({reason})");
            ProxyVerdict::new(ProxyState::Different, evidence)
        }
    }
}

/// The parts of a proxy's configuration that EnvoyFilters patch.
#[derive(Default)]
struct PatchedParts {
    routes: bool,
    clusters: bool,
    not_compared: Vec<String>,
    other_patches: Vec<String>,
}

/// Sorts the EnvoyFilters of a caller by what they patch. Patches of filters, listeners and loggers change neither
/// routes nor clusters.
fn patched_parts(mesh: &Mesh<'_>, caller: &Caller) -> PatchedParts {
    const ROUTES: [&str; 4] = ["HTTP_ROUTE", "VIRTUAL_HOST", "ROUTE_CONFIGURATION", "INVALID"];
    const CLUSTERS: [&str; 1] = ["CLUSTER"];
    let mut patched = PatchedParts::default();
    let extensions = mesh.extensions.iter();
    for extension in
        extensions.filter(|extension| extension.applies_to(&caller.namespace, &caller.labels, &mesh.root_namespace))
    {
        let applies_in = |context: Option<&str>| match context {
            Some("SIDECAR_INBOUND") => false,
            Some("SIDECAR_OUTBOUND") => caller.kind == CallerKind::Sidecar,
            Some("GATEWAY") => caller.kind == CallerKind::Gateway,
            _ => true,
        };
        let patches = extension.spec.config_patches.iter();
        let patches =
            patches.filter(|patch| applies_in(patch.matches.as_ref().and_then(|matches| matches.context.as_deref())));
        let kinds: BTreeSet<&str> = patches.filter_map(|patch| patch.apply_to.as_deref()).collect();
        let routes = kinds.iter().any(|kind| ROUTES.contains(kind));
        let clusters = kinds.iter().any(|kind| CLUSTERS.contains(kind));
        if routes || clusters {
            let parts = match (routes, clusters) {
                (true, true) => "routes and clusters",
                (true, false) => "routes",
                _ => "clusters",
            };
            patched.not_compared.push(format!("{parts}, patched by {}", extension.object));
        } else if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            patched.other_patches.push(format!("{} patches {}", extension.object, kinds.join(", ")));
        }
        patched.routes |= routes;
        patched.clusters |= clusters;
    }
    patched
}
