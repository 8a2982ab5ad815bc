//! What the mesh and its proxies say about the weights of a shift: which proxies run them, and which backends callers can
//! reach.

use std::collections::HashSet;

use super::affected::{CallerClassUsage, backend_label, caller_class_usage};
use super::machine::BackendStates;
use super::notice::ProxyAckCounts;
use super::record::{RollbackTarget, RuleRecord, ShiftEntry};
use super::split::effective_weights;
use crate::dataplane::Difference;
use crate::dataplane::proxy::{ComparedProxy, ProxyState};
use crate::dataplane::proxy_comparisons::ProxyComparisons;
use crate::envoy::sync::XdsSyncState;
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::workload::Readiness;
use crate::mesh::xds::BackendState;
use crate::schema::Kind;
use crate::snapshot::live::{LiveProxy, ProxyResponse};
use crate::snapshot::{GapKind, Snapshot};

/// The proxies whose routes come from some rules, and the hosts of these rules.
#[derive(Debug, Clone, Default)]
pub struct AffectedProxies {
    /// Pods that are ready, as `namespace/name`.
    pub pods: HashSet<String>,
    /// Sorted.
    pub hosts: Vec<String>,
}

/// The proxies whose routes come from rules of an object, by index.
pub fn affected_proxies(mesh: &Mesh<'_>, target: &ObjectRef, rules: &[usize]) -> AffectedProxies {
    let mut classes = caller_class_usage(mesh, target, rules, "");
    classes.retain(|class| class.uses_rule);
    let pods = classes.iter().flat_map(|class| &class.pods);
    let ready = pods.filter(|id| mesh.workload(**id).readiness != Readiness::NotReady);
    let pods = ready.map(|id| mesh.workload(*id).object.path()).collect();
    let mut hosts: Vec<String> = classes.into_iter().flat_map(|class| class.hosts).collect();
    hosts.sort();
    hosts.dedup();
    AffectedProxies { pods, hosts }
}

/// Whether the proxies run what the objects of the mesh give them. The snapshot of the mesh holds their answers.
pub fn acknowledgements(mesh: &Mesh<'_>, affected: &AffectedProxies) -> ProxyAckCounts {
    let mut counts = ProxyAckCounts { total: affected.pods.len(), ..ProxyAckCounts::default() };
    let gaps = mesh.snapshot.gaps.iter().filter(|gap| gap.affects_answers());
    counts.unreachable.extend(gaps.map(|gap| format!("{}: {}", gap.what, gap.why)));
    counts.total += counts.unreachable.len();
    let Some(proxies) = ProxyComparisons::new(mesh).filter(|_| !affected.hosts.is_empty()) else { return counts };
    for (id, proxy) in proxies.proxies() {
        let path = mesh.workload(id).object.path();
        if !affected.pods.contains(&path) {
            continue;
        }
        let Some(compared) = proxies.compare(id, &affected.hosts) else { continue };
        let with_evidence = format!("{path}: {}", compared.evidence);
        match proxy_ack(&compared, proxy, &affected.hosts) {
            ProxyAck::Synced => counts.synced += 1,
            ProxyAck::Stale => counts.stale.push(with_evidence),
            ProxyAck::Rejected => counts.rejected.push(with_evidence),
            ProxyAck::Unknown(reason) => {
                counts.unreachable.push(format!("{path}: {}", reason.unwrap_or(compared.evidence)));
            }
        }
    }
    counts
}

/// Whether a proxy runs the weights.
#[derive(Debug, PartialEq)]
enum ProxyAck {
    Synced,
    Stale,
    Rejected,
    /// With the reason, unless the comparison has it.
    Unknown(Option<String>),
}

const NOT_CONNECTED: &str = "it is not connected to istiod";

/// Judges only the routes to `hosts`: endpoints that come and go, and cluster settings, say nothing about weights.
fn proxy_ack(compared: &ComparedProxy, proxy: &LiveProxy, hosts: &[String]) -> ProxyAck {
    // Outside of the sample istiod's sync state decides.
    if matches!(proxy.response, ProxyResponse::NotQueried(_)) {
        return match &proxy.sync {
            XdsSyncState::Connected(sync) if sync.rejection.is_some() => ProxyAck::Rejected,
            XdsSyncState::Connected(sync) if sync.unacknowledged.is_empty() => ProxyAck::Synced,
            XdsSyncState::Connected(_) => ProxyAck::Stale,
            XdsSyncState::NotConnected => ProxyAck::Unknown(Some(NOT_CONNECTED.to_owned())),
            XdsSyncState::IstiodUnreachable(reason) | XdsSyncState::Unknown(reason) => {
                ProxyAck::Unknown(Some(reason.clone()))
            }
        };
    }
    if matches!(compared.state, ProxyState::Unreachable | ProxyState::NotCompared) {
        return ProxyAck::Unknown(None);
    }
    if compared.skips_routes {
        let patched = compared.not_compared.join("; ");
        return ProxyAck::Unknown(Some(format!("its routes cannot be compared: {patched}")));
    }
    let is_relevant = |difference: &&Difference| {
        difference.routes_calls && difference.host.as_ref().is_none_or(|host| hosts.contains(host))
    };
    match (compared.differences.iter().find(is_relevant), compared.state, &proxy.sync) {
        (None, ..) => ProxyAck::Synced,
        (Some(_), ProxyState::Rejected, _) => ProxyAck::Rejected,
        (Some(_), _, XdsSyncState::NotConnected) => ProxyAck::Unknown(Some(NOT_CONNECTED.to_owned())),
        (Some(_), ..) => ProxyAck::Stale,
    }
}

/// Whether a list failed, so that objects may only seem to be missing.
pub fn has_failed_reads(snapshot: &Snapshot) -> bool {
    snapshot.gaps.iter().any(|gap| gap.reason == GapKind::Failed)
}

/// Why callers cannot reach a backend of the canary, or of the baseline. Nothing is known if a list failed.
pub fn backend_states(mesh: &Mesh<'_>, kind: Kind, entry: &ShiftEntry, classes: &[CallerClassUsage]) -> BackendStates {
    if has_failed_reads(mesh.snapshot) {
        return BackendStates::default();
    }
    let canary = canary_labels(kind, entry);
    let find = |is_canary: bool| {
        let affected = classes.iter().filter(|class| class.uses_rule);
        let mut backends =
            affected.flat_map(|class| class.backends.values().flatten().map(move |backend| (class, backend)));
        backends.find_map(|(class, backend)| {
            let problem = match backend.state {
                BackendState::Ok | BackendState::Unknown => return None,
                BackendState::NoCluster => "no longer exists",
                BackendState::NoEndpoints => "no longer has a ready pod",
            };
            (canary.contains(&backend_label(backend).as_str()) == is_canary)
                .then(|| format!("for callers in {} the backend {} {problem}", class.name, backend.cluster))
        })
    };
    BackendStates { unreachable_canary: find(true), unreachable_baseline: find(false) }
}

/// Labels of the backends whose share an entry raises.
pub fn canary_labels(kind: Kind, entry: &ShiftEntry) -> Vec<&str> {
    entry.rules.iter().flat_map(|rule| rule.canary(kind).0).collect()
}

/// Why a rollback would send calls to pods that do not exist. The mesh contains the object as the rollback leaves it, and
/// `rules` are the indexes of the entry's rules in it.
pub fn rollback_blocker(
    mesh: &Mesh<'_>,
    target: &ObjectRef,
    entry: &ShiftEntry,
    rules: &[usize],
    rollback_target: RollbackTarget,
) -> Option<String> {
    if has_failed_reads(mesh.snapshot) {
        return None;
    }
    let classes = caller_class_usage(mesh, target, rules, "");
    let of_rules = classes.iter().flat_map(|class| {
        entry.rules.iter().zip(rules).filter_map(|(rule, index)| Some((rule, class.backends.get(index)?)))
    });
    let rising = of_rules.flat_map(|(rule, backends)| {
        backends
            .iter()
            .filter(move |backend| is_rising_in_rollback(target.kind, rule, &backend_label(backend), rollback_target))
    });
    let mut problems = rising.filter_map(|backend| {
        let problem = match backend.state {
            BackendState::Ok | BackendState::Unknown => return None,
            BackendState::NoCluster => "does not exist for callers",
            BackendState::NoEndpoints => "has no ready pod",
        };
        Some(format!("a rollback would send more calls to {}, which {problem}", backend.cluster))
    });
    problems.next()
}

/// Whether a rollback raises the share of a backend.
fn is_rising_in_rollback(kind: Kind, rule: &RuleRecord, label: &str, target: RollbackTarget) -> bool {
    let (after, now) = (effective_weights(kind, rule.weights_at(target)), effective_weights(kind, &rule.applied));
    let share = |weights: &[u64], index: usize| {
        weights.get(index).copied().unwrap_or(0) as f64 / weights.iter().sum::<u64>().max(1) as f64
    };
    let index = rule.backends.iter().position(|backend| backend == label);
    index.is_some_and(|index| share(&after, index) > share(&now, index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::sync::XdsConnection;

    #[test]
    fn the_sync_state_of_istiod_decides_outside_of_the_sample() {
        let proxy = |sync| LiveProxy {
            sync,
            response: ProxyResponse::NotQueried("not queried: --proxies 50".to_owned()),
            counters: (None, None),
            transient: Vec::new(),
        };
        let ack =
            |sync| proxy_ack(&ComparedProxy::with_state(ProxyState::NotCompared, String::new()), &proxy(sync), &[]);
        let unacknowledged = vec![("route".to_owned(), None)];
        assert_eq!(ack(XdsSyncState::Connected(XdsConnection::default())), ProxyAck::Synced);
        assert_eq!(ack(XdsSyncState::Connected(XdsConnection { unacknowledged, rejection: None })), ProxyAck::Stale);
        assert_eq!(
            ack(XdsSyncState::Connected(XdsConnection {
                unacknowledged: Vec::new(),
                rejection: Some("no".to_owned())
            })),
            ProxyAck::Rejected
        );
        assert!(matches!(ack(XdsSyncState::NotConnected), ProxyAck::Unknown(Some(_))));
        assert!(matches!(ack(XdsSyncState::Unknown("403".to_owned())), ProxyAck::Unknown(Some(_))));
    }

    #[test]
    fn only_route_differences_of_the_hosts_make_a_proxy_stale() {
        let connected = XdsSyncState::Connected(XdsConnection::default());
        let response = ProxyResponse::Unreachable(String::new());
        let proxy = LiveProxy { sync: connected, response, counters: (None, None), transient: Vec::new() };
        let compared = |routes_calls: bool, host: &str| {
            let difference = Difference {
                what: String::new(),
                desired: String::new(),
                live: String::new(),
                host: Some(host.to_owned()),
                routes_calls,
            };
            ComparedProxy {
                differences: vec![difference],
                ..ComparedProxy::with_state(ProxyState::Different, String::new())
            }
        };
        let ack = |routes_calls: bool, host: &str| proxy_ack(&compared(routes_calls, host), &proxy, &["a".to_owned()]);
        assert_eq!(ack(true, "a"), ProxyAck::Stale);
        assert_eq!(ack(true, "b"), ProxyAck::Synced);
        assert_eq!(ack(false, "a"), ProxyAck::Synced, "such as a circuit breaker");
        let patched = ComparedProxy { skips_routes: true, ..compared(true, "a") };
        assert!(matches!(proxy_ack(&patched, &proxy, &["a".to_owned()]), ProxyAck::Unknown(Some(_))));
    }
}
