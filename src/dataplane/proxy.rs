//! One proxy: what the objects say that it runs, what it runs, and why the two may differ.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::endpoints::SliceEndpoints;
use super::{Difference, clusters, routes};
use crate::envoy::config_dump::RunningConfig;
use crate::envoy::route::{EnvoyAction, EnvoyRoute, EnvoyRouteTable};
use crate::envoy::sync::{XdsConnection, XdsSyncState};
use crate::mesh::Mesh;
use crate::mesh::xds::{Caller, CallerKind, CompiledRouteTable, ProxyConfig};

/// How a proxy stands to the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProxyState {
    /// Envoy refused what istiod sent, and runs what it had before.
    Refused,
    /// Something else than intended, and istiod takes it for up to date.
    Different,
    /// istiod sent it, and Envoy has not accepted it yet.
    Late,
    /// istiod has not sent it.
    NotSent,
    /// It cannot be asked.
    Unreachable,
    /// It was not asked, or nothing of it can be compared.
    NotCompared,
    /// As intended.
    InStep,
}

impl ProxyState {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Different => "different",
            Self::Late => "late",
            Self::NotSent => "not-sent",
            Self::Unreachable => "unreachable",
            Self::NotCompared => "not-compared",
            Self::InStep => "in-step",
        }
    }
}

/// What was found of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedProxy {
    /// How it stands.
    pub state: ProxyState,
    /// Why that is said.
    pub evidence: String,
    /// Since when, if known.
    pub since: Option<String>,
    /// Whether istiod could not be asked, so that what differs may as well be on its way.
    pub is_doubtful: bool,
    /// What differs of routes and clusters.
    pub differences: Vec<Difference>,
    /// What differs of endpoints.
    pub endpoints: Vec<Difference>,
    /// Parts that were left out, with what patches them.
    pub not_compared: Vec<String>,
    /// Whether routes are among them.
    pub skips_routes: bool,
    /// EnvoyFilters that add something which is compared nowhere: filters, loggers, listeners.
    pub beside: Vec<String>,
}

impl ComparedProxy {
    /// A proxy of which only this is known.
    pub fn without(state: ProxyState, evidence: String) -> Self {
        let (differences, endpoints, not_compared, beside) = Default::default();
        Self {
            skips_routes: false,
            state,
            evidence,
            since: None,
            is_doubtful: false,
            differences,
            endpoints,
            not_compared,
            beside,
        }
    }

    /// Without differences that were not there a moment before.
    #[must_use]
    pub fn without_passing(mut self, passing: &[String]) -> Self {
        if passing.is_empty() {
            return self;
        }
        for list in [&mut self.differences, &mut self.endpoints] {
            list.retain(|one| !passing.contains(&one.words()));
        }
        if self.may_settle() && self.differences.is_empty() && self.endpoints.is_empty() {
            self.state = ProxyState::InStep;
            let evidence = "what differed at one look was another thing at the next: it keeps up with changes";
            evidence.clone_into(&mut self.evidence);
        }
        self
    }

    /// All that differs.
    pub fn all_differences(&self) -> impl Iterator<Item = &Difference> {
        self.differences.iter().chain(&self.endpoints)
    }

    /// Whether what differs may be about to arrive.
    pub fn may_settle(&self) -> bool {
        matches!(self.state, ProxyState::Different | ProxyState::Late | ProxyState::NotSent)
    }
}

/// Compares a proxy. With hosts in `only`, just what leads to them.
pub fn judge(
    mesh: &Mesh<'_>,
    caller: &Caller,
    running: &RunningConfig,
    sync: &XdsSyncState,
    slices: Option<&SliceEndpoints>,
    only: &[String],
) -> ComparedProxy {
    let outbound = ProxyConfig::new(mesh, caller.clone());
    let mut patched = patched(mesh, caller);
    let (mut differences, mut endpoints) = (Vec::new(), Vec::new());
    let mut counts = (0, 0);
    if !patched.routes {
        // A table that Envoy refuses stays what it was: nothing can be said of its routes.
        let (refused, intent): (Vec<_>, Vec<_>) =
            outbound.route_tables().into_iter().partition(|one| one.refused.is_some());
        let names = leading_to(only, intent.iter().map(|one| &one.table).chain(&running.routes));
        let asked = |table: &EnvoyRouteTable| part(table, names.as_ref());
        let intent: Vec<EnvoyRouteTable> = intent.iter().filter_map(|one| asked(&one.table)).collect();
        let live = running.routes.iter().filter(|table| refused.iter().all(|one| one.table.name != table.name));
        let live: Vec<EnvoyRouteTable> = live.filter_map(asked).collect();
        let why = |one: &CompiledRouteTable| {
            let why = one.refused.as_deref().unwrap_or_default();
            format!("route table {}: Envoy should refuse it: {why}", one.table.name)
        };
        patched.titles.extend(refused.iter().map(why));
        counts.0 = intent.len();
        differences.extend(routes::compare(&intent, &live));
    }
    if !patched.clusters {
        let intended = outbound.clusters();
        let intended: Vec<_> = intended.iter().filter(|one| is_for(only, &one.cluster.name)).collect();
        let words: Vec<_> = intended.iter().map(|one| &one.cluster).collect();
        counts.1 = words.len();
        differences.extend(clusters::compare(&words, &running.clusters));
        if let Some(slices) = slices {
            endpoints = slices.compare(mesh, &intended, &running.endpoints);
        }
    }
    // What leads to hosts is asked for: a certificate leads to none.
    if let Some(secrets) = running.secrets.as_ref().filter(|_| only.is_empty()) {
        let missing = outbound.secrets().into_iter().filter(|(name, _)| !secrets.contains(name));
        differences.extend(missing.map(|(name, users)| {
            let live = if name.starts_with("kubernetes-gateway://") {
                "not there: is the Secret in the Gateway's namespace, with tls.crt and tls.key?"
            } else {
                "not there: the Secret must be in the namespace of the gateway's pods, whose ServiceAccount may list Secrets"
            };
            Difference::new(format!("certificate {name}"), format!("needed by {}", users.join(", ")), live.to_owned())
        }));
    }
    let is_as_intended = differences.is_empty() && endpoints.is_empty();
    let is_doubtful = matches!(sync, XdsSyncState::Unknown(_));
    let (state, evidence, since) = state(running, sync, is_as_intended, &patched, counts);
    ComparedProxy {
        skips_routes: patched.routes,
        state,
        evidence,
        since,
        is_doubtful,
        differences,
        endpoints,
        not_compared: patched.titles,
        beside: patched.beside,
    }
}

/// Whether a cluster is one of the hosts'.
fn is_for(only: &[String], cluster: &str) -> bool {
    only.is_empty() || cluster.splitn(4, '|').nth(3).is_some_and(|host| only.iter().any(|one| one == host))
}

/// Names of the virtual hosts that are the hosts' own, or send to them; `None` is all.
fn leading_to<'t>(only: &[String], tables: impl Iterator<Item = &'t EnvoyRouteTable>) -> Option<BTreeSet<String>> {
    if only.is_empty() {
        return None;
    }
    let own = |name: &str| name.rsplit_once(':').is_some_and(|(host, _)| only.iter().any(|one| one == host));
    let sends = |route: &EnvoyRoute| match &route.action {
        EnvoyAction::Forward(forward) => forward.clusters.iter().any(|(name, _)| is_for(only, name)),
        EnvoyAction::Redirect(_) | EnvoyAction::Respond(_) | EnvoyAction::Other => false,
    };
    let hosts = tables.flat_map(|table| &table.hosts);
    Some(hosts.filter(|host| own(&host.name) || host.routes.iter().any(sends)).map(|host| host.name.clone()).collect())
}

/// A table with these virtual hosts only; `None` when it has none of them.
fn part(table: &EnvoyRouteTable, names: Option<&BTreeSet<String>>) -> Option<EnvoyRouteTable> {
    let Some(names) = names else { return Some(table.clone()) };
    let hosts: Vec<_> = table.hosts.iter().filter(|host| names.contains(&host.name)).cloned().collect();
    (!hosts.is_empty()).then(|| EnvoyRouteTable { name: table.name.clone(), hosts })
}

fn state(
    running: &RunningConfig,
    sync: &XdsSyncState,
    is_as_intended: bool,
    patched: &PatchedParts,
    counts: (usize, usize),
) -> (ProxyState, String, Option<String>) {
    if let Some((name, why)) = running.refused.first() {
        let place = if name.is_empty() { String::new() } else { format!("{name}: ") };
        return (ProxyState::Refused, format!("Envoy refused {place}{why}"), None);
    }
    if let XdsSyncState::Connected(XdsConnection { refused: Some(why), .. }) = sync {
        let first = why.lines().next().unwrap_or_default();
        return (ProxyState::Refused, format!("Envoy refused, says istiod: {first}"), None);
    }
    if is_as_intended {
        if patched.routes && patched.clusters {
            return (ProxyState::NotCompared, "an EnvoyFilter patches both routes and clusters".to_owned(), None);
        }
        let (tables, clusters) = counts;
        return (ProxyState::InStep, format!("{tables} route tables and {clusters} clusters are as intended"), None);
    }
    match sync {
        XdsSyncState::Connected(sync) if !sync.waiting.is_empty() => {
            let kinds: Vec<&str> = sync.waiting.iter().map(|(kind, _)| kind.as_str()).collect();
            let since = sync.waiting.iter().filter_map(|(_, at)| at.clone()).min();
            let at = since.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
            let text = format!("istiod sent configuration ({}){at}, not accepted yet", kinds.join(", "));
            (ProxyState::Late, text, since)
        }
        XdsSyncState::Connected(_) => {
            (ProxyState::Different, "istiod says that the proxy accepted all that it was sent".to_owned(), None)
        }
        XdsSyncState::NotConnected => (ProxyState::NotSent, "the proxy is connected to no istiod".to_owned(), None),
        XdsSyncState::NoAnswer(why) => (ProxyState::NotSent, format!("no istiod answers: {why}"), None),
        XdsSyncState::Unknown(why) => {
            (ProxyState::Different, format!("late or different: istiod may not be asked ({why})"), None)
        }
    }
}

/// What EnvoyFilters change behind the model's back.
struct PatchedParts {
    routes: bool,
    clusters: bool,
    titles: Vec<String>,
    beside: Vec<String>,
}

/// Filters, listeners and loggers that are added change no route and no cluster.
fn patched(mesh: &Mesh<'_>, caller: &Caller) -> PatchedParts {
    const ROUTES: [&str; 4] = ["HTTP_ROUTE", "VIRTUAL_HOST", "ROUTE_CONFIGURATION", "INVALID"];
    const CLUSTERS: [&str; 1] = ["CLUSTER"];
    let mut found = PatchedParts { routes: false, clusters: false, titles: Vec::new(), beside: Vec::new() };
    for one in mesh.extensions.iter().filter(|one| one.acts_on(&caller.namespace, &caller.labels, &mesh.root)) {
        let acts = |context: Option<&str>| match context {
            Some("SIDECAR_INBOUND") => false,
            Some("SIDECAR_OUTBOUND") => caller.kind == CallerKind::Sidecar,
            Some("GATEWAY") => caller.kind == CallerKind::Gateway,
            _ => true,
        };
        let patches = one.spec.config_patches.iter();
        let patches = patches.filter(|patch| acts(patch.matches.as_ref().and_then(|one| one.context.as_deref())));
        let kinds: BTreeSet<&str> = patches.filter_map(|patch| patch.apply_to.as_deref()).collect();
        let (routes, clusters) =
            (kinds.iter().any(|kind| ROUTES.contains(kind)), kinds.iter().any(|kind| CLUSTERS.contains(kind)));
        if routes || clusters {
            let parts = match (routes, clusters) {
                (true, true) => "routes and clusters",
                (true, false) => "routes",
                _ => "clusters",
            };
            found.titles.push(format!("{parts}: patched by {}", one.object));
        } else if !kinds.is_empty() {
            let kinds: Vec<&str> = kinds.into_iter().collect();
            found.beside.push(format!("{} patches {}", one.object, kinds.join(", ")));
        }
        found.routes |= routes;
        found.clusters |= clusters;
    }
    found
}
