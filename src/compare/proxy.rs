//! One proxy: what the objects say that it runs, what it runs, and why the two may differ.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::endpoints::Slices;
use super::{Difference, clusters, routes};
use crate::envoy::route::RouteTable;
use crate::envoy::running::Running;
use crate::envoy::sync::Sync;
use crate::mesh::Mesh;
use crate::mesh::outbound::{Caller, CallerKind, Outbound};

/// How a proxy stands to the objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
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

impl State {
    /// The word for it.
    pub fn word(self) -> &'static str {
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

/// What istiod says of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyncView {
    /// It is connected.
    Connected(Sync),
    /// Every istiod was asked, and none has it.
    NotConnected,
    /// No istiod answers.
    NoAnswer(String),
    /// istiod may not be asked.
    Unknown(String),
}

/// What was found of a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// How it stands.
    pub state: State,
    /// Why that is said.
    pub evidence: String,
    /// Since when, if known.
    pub since: Option<String>,
    /// What differs.
    pub differences: Vec<Difference>,
    /// Parts that were left out, with what patches them.
    pub not_compared: Vec<String>,
}

/// Compares a proxy. With `host`, only what concerns that host.
pub fn judge(
    mesh: &Mesh<'_>,
    caller: &Caller,
    running: &Running,
    sync: &SyncView,
    slices: Option<&Slices>,
    host: Option<&str>,
) -> Judged {
    let outbound = Outbound::new(mesh, caller.clone());
    let patched = patched(mesh, caller);
    let mut differences = Vec::new();
    let mut counts = (0, 0);
    if !patched.routes {
        let tables = outbound.route_tables();
        let refused = outbound.refusals();
        // A table that Envoy refuses stays what it was: nothing can be said of its routes.
        let kept = |table: &&RouteTable| !refused.contains_key(&table.name);
        let intent: Vec<&RouteTable> = tables.iter().map(|one| &one.table).filter(kept).collect();
        let live: Vec<RouteTable> =
            running.routes.iter().filter(|table| !refused.contains_key(&table.name)).cloned().collect();
        counts.0 = intent.len();
        differences.extend(routes::compare(&intent, &live));
    }
    if !patched.clusters {
        let intended = outbound.clusters();
        let of_host = |name: &str| host.is_none_or(|host| mentions(name, host));
        let intended: Vec<_> = intended.iter().filter(|one| of_host(&one.cluster.name)).collect();
        let words: Vec<_> = intended.iter().map(|one| &one.cluster).collect();
        counts.1 = words.len();
        differences.extend(clusters::compare(&words, &running.clusters));
        if let Some(slices) = slices {
            differences.extend(slices.compare(mesh, &intended, &running.endpoints));
        }
    }
    if let Some(host) = host {
        differences.retain(|one| mentions(&one.what, host));
    }
    let (state, evidence, since) = state(running, sync, &differences, &patched, counts);
    Judged { state, evidence, since, differences, not_compared: patched.titles }
}

/// Whether a text names a host as a whole: `echo.shop.…` is not part of `my-echo.shop.…`.
fn mentions(text: &str, host: &str) -> bool {
    text.match_indices(host).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_none_or(|before| !(before.is_ascii_alphanumeric() || matches!(before, '-' | '.')))
    })
}

fn state(
    running: &Running,
    sync: &SyncView,
    differences: &[Difference],
    patched: &Patched,
    counts: (usize, usize),
) -> (State, String, Option<String>) {
    if let Some((name, why)) = running.refused.first() {
        let place = if name.is_empty() { String::new() } else { format!("{name}: ") };
        return (State::Refused, format!("Envoy refused {place}{why}"), None);
    }
    if let SyncView::Connected(Sync { refused: Some(why), .. }) = sync {
        let first = why.lines().next().unwrap_or_default();
        return (State::Refused, format!("Envoy refused, says istiod: {first}"), None);
    }
    if differences.is_empty() {
        if patched.routes && patched.clusters {
            return (State::NotCompared, "an EnvoyFilter patches both routes and clusters".to_owned(), None);
        }
        let (tables, clusters) = counts;
        return (State::InStep, format!("{tables} route tables and {clusters} clusters are as intended"), None);
    }
    match sync {
        SyncView::Connected(sync) if !sync.waiting.is_empty() => {
            let kinds: Vec<&str> = sync.waiting.iter().map(|(kind, _)| kind.as_str()).collect();
            let since = sync.waiting.iter().filter_map(|(_, at)| at.clone()).min();
            let at = since.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
            let text = format!("istiod sent configuration ({}){at}, not accepted yet", kinds.join(", "));
            (State::Late, text, since)
        }
        SyncView::Connected(_) => {
            (State::Different, "istiod says that the proxy accepted all that it was sent".to_owned(), None)
        }
        SyncView::NotConnected => (State::NotSent, "the proxy is connected to no istiod".to_owned(), None),
        SyncView::NoAnswer(why) => (State::NotSent, format!("no istiod answers: {why}"), None),
        SyncView::Unknown(why) => {
            (State::Different, format!("late or different: istiod may not be asked ({why})"), None)
        }
    }
}

/// What EnvoyFilters change behind the model's back.
struct Patched {
    routes: bool,
    clusters: bool,
    titles: Vec<String>,
}

/// Filters, listeners and loggers that are added change no route and no cluster.
fn patched(mesh: &Mesh<'_>, caller: &Caller) -> Patched {
    const ROUTES: [&str; 4] = ["HTTP_ROUTE", "VIRTUAL_HOST", "ROUTE_CONFIGURATION", "INVALID"];
    const CLUSTERS: [&str; 1] = ["CLUSTER"];
    let mut found = Patched { routes: false, clusters: false, titles: Vec::new() };
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
        }
        found.routes |= routes;
        found.clusters |= clusters;
    }
    found
}
