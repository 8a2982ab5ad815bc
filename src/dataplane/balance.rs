//! How calls spread over the endpoints of a Service, against an even spread.
//!
//! The counters are those of the callers' Envoys: what they sent where between two readings.

use std::collections::{BTreeMap, BTreeSet};

use crate::envoy::counters::EndpointCounters;
use crate::envoy::endpoint::show;
use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::ObjectRef;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Resolution, Service, ServicePort};
use crate::mesh::workload::Readiness;
use crate::snapshot::live::LiveState;

/// Calls for each endpoint below which nothing is judged: LEAST_REQUEST is not exactly even.
const ENOUGH: u64 = 10;
/// Jain's index from which a spread counts as even.
const EVEN: f64 = 0.9;
/// So many servers in effect, or fewer, are one.
const ONE: f64 = 1.5;

/// What one endpoint got.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointCounts {
    /// Calls, retries counted each.
    pub calls: u64,
    /// Errors among them, and connections that were refused.
    pub errors: u64,
    /// Subsets through which it was reached.
    pub subsets: BTreeSet<String>,
    /// Calls that an even spread would have given it.
    pub even: f64,
    /// Whether outlier detection has it out, for some caller.
    pub ejected: bool,
}

/// A spread.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallDistribution {
    /// Endpoints by address.
    pub endpoints: BTreeMap<String, EndpointCounts>,
    /// Callers that called at all.
    pub callers: usize,
    /// Whether no call ended, well or not: connections were counted, or streams go on.
    pub nothing_ended: bool,
}

/// What a counter grew by; one that fell began anew.
pub fn since(now: u64, then: u64) -> u64 {
    now.checked_sub(then).unwrap_or(now)
}

/// The Service's port that a cluster is for.
fn port(cluster: &str) -> &str {
    cluster.split('|').nth(1).unwrap_or_default()
}

/// Ports that anybody called: endpoints of others would only look idle.
fn used_ports(callers: &[CounterReadings]) -> BTreeSet<&str> {
    fn totals(readings: &[EndpointCounters]) -> BTreeMap<(&str, &str), u64> {
        let mut totals: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for one in readings {
            *totals.entry((&one.cluster, &one.address)).or_default() += one.total;
        }
        totals
    }
    let mut used = BTreeSet::new();
    for (before, after) in callers {
        let then = totals(before);
        for (key, now) in totals(after) {
            if since(now, then.get(&key).copied().unwrap_or(0)) > 0 {
                used.insert(port(key.0));
            }
        }
    }
    used
}

/// A verdict on a spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BalanceVerdict {
    /// Each endpoint gets about its share.
    Even,
    /// Some get much more than others.
    Uneven,
    /// One gets nearly all.
    Pinned,
    /// Too little to say.
    TooFew,
}

impl BalanceVerdict {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Even => "even",
            Self::Uneven => "uneven",
            Self::Pinned => "pinned",
            Self::TooFew => "too few calls",
        }
    }
}

impl CallDistribution {
    /// What callers sent between two readings of their counters; each is a pair of readings of one caller.
    pub fn new(callers: &[CounterReadings]) -> Self {
        let mut spread = Self::default();
        let (mut total, mut judged) = (0, 0);
        let used = used_ports(callers);
        for (before, after) in callers {
            let old: BTreeMap<(&str, &str), &EndpointCounters> =
                before.iter().map(|one| ((one.cluster.as_str(), one.address.as_str()), one)).collect();
            let mut clusters: BTreeMap<&str, Vec<(&EndpointCounters, u64)>> = BTreeMap::new();
            let mut sent = 0;
            for one in after.iter().filter(|one| used.is_empty() || used.contains(port(&one.cluster))) {
                let none = EndpointCounters::default();
                let then = old.get(&(one.cluster.as_str(), one.address.as_str())).copied().unwrap_or(&none);
                let calls = since(one.total, then.total);
                let (good, bad) = (since(one.success, then.success), since(one.errors, then.errors));
                let refused = since(one.refused, then.refused);
                (total, judged, sent) = (total + calls, judged + good + bad, sent + calls);
                let got = spread.endpoints.entry(one.address.clone()).or_default();
                got.calls += calls;
                got.errors += bad.max(refused);
                got.ejected |= one.ejected;
                if let Some(subset) = one.cluster.split('|').nth(2).filter(|subset| !subset.is_empty() && calls > 0) {
                    got.subsets.insert(subset.to_owned());
                }
                clusters.entry(&one.cluster).or_default().push((one, calls));
            }
            spread.callers += usize::from(sent > 0);
            for members in clusters.values() {
                let calls: u64 = members.iter().map(|(_, calls)| calls).sum();
                // Where locality decides, the endpoints of other places are there for when those here fail.
                let healthy = || members.iter().map(|(one, _)| one).filter(|one| one.healthy);
                let best = healthy().map(|one| one.priority).min();
                let taking: Vec<_> = healthy().filter(|one| Some(one.priority) == best).collect();
                let weights: u64 = taking.iter().map(|one| one.weight.max(1)).sum();
                for one in taking {
                    let even = calls as f64 * one.weight.max(1) as f64 / weights.max(1) as f64;
                    spread.endpoints.entry(one.address.clone()).or_default().even += even;
                }
            }
        }
        spread.nothing_ended = total > 0 && judged == 0;
        spread
    }

    /// Measures all against one share, these endpoints included. For callers that keep to the endpoint that was dialled:
    /// their clusters list no other.
    pub fn over_all(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses {
            self.endpoints.entry(address).or_default();
        }
        let even = self.calls() as f64 / self.endpoints.len().max(1) as f64;
        self.endpoints.values_mut().for_each(|got| got.even = even);
    }

    /// All calls.
    pub fn calls(&self) -> u64 {
        self.endpoints.values().map(|got| got.calls).sum()
    }

    /// Number of servers that would share the calls as unevenly if each of them got the same: (Σn)² ÷ Σn².
    pub fn effective_servers(&self) -> f64 {
        let squares: f64 = self.endpoints.values().map(|got| (got.calls as f64).powi(2)).sum();
        if squares > 0.0 { (self.calls() as f64).powi(2) / squares } else { 0.0 }
    }

    /// Jain's index of what endpoints got against an even spread: 1 is even, 1 ÷ number of endpoints is all on one.
    pub fn jain(&self) -> f64 {
        let shares: Vec<f64> =
            self.endpoints.values().filter(|got| got.even > 0.0).map(|got| got.calls as f64 / got.even).collect();
        let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
        if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 0.0 }
    }

    /// Whether calls that choose their server by lot would often come out as unevenly: chi-squared within three standard
    /// deviations of its mean.
    fn may_be_chance(&self) -> bool {
        let expected: Vec<&EndpointCounts> = self.endpoints.values().filter(|got| got.even > 0.0).collect();
        let freedom = expected.len().saturating_sub(1) as f64;
        let squares: f64 = expected.iter().map(|got| (got.calls as f64 - got.even).powi(2) / got.even).sum();
        squares <= freedom + 3.0 * (2.0 * freedom).sqrt()
    }

    /// The verdict. For a port that is `tcp`, what was counted are connections.
    pub fn evenness(&self, tcp: bool) -> BalanceVerdict {
        let expected = self.endpoints.values().filter(|got| got.even > 0.0).count() as u64;
        if self.calls() == 0 {
            return BalanceVerdict::TooFew;
        }
        if tcp && self.nothing_ended && self.endpoints.len() > 1 {
            return BalanceVerdict::Pinned;
        }
        if self.calls() < ENOUGH * expected.max(1) {
            return BalanceVerdict::TooFew;
        }
        match self.jain() {
            // Weights may give nearly all calls to one pod on purpose.
            jain if jain >= EVEN || self.may_be_chance() => BalanceVerdict::Even,
            _ if expected >= 2 && self.effective_servers() < ONE => BalanceVerdict::Pinned,
            _ => BalanceVerdict::Uneven,
        }
    }
}

/// First and last readings of one caller.
pub type CounterReadings = (Vec<EndpointCounters>, Vec<EndpointCounters>);

/// What the proxies of a snapshot counted for one host: first readings are absent where only one could be taken.
#[derive(Debug, Default)]
pub struct HostReadings {
    between: Vec<CounterReadings>,
    ever: Vec<CounterReadings>,
}

/// What the proxies of a snapshot counted, by the host that they called.
pub fn readings_by_host(live: &LiveState) -> BTreeMap<String, HostReadings> {
    let by_host = |counted: &[EndpointCounters]| -> BTreeMap<String, Vec<EndpointCounters>> {
        let mut found: BTreeMap<String, Vec<EndpointCounters>> = BTreeMap::new();
        for one in counted {
            if let Some(host) = one.cluster.splitn(4, '|').nth(3) {
                found.entry(host.to_owned()).or_default().push(one.clone());
            }
        }
        found
    };
    let mut all: BTreeMap<String, HostReadings> = BTreeMap::new();
    for (_, _, proxy) in live.proxies() {
        let Some(last) = &proxy.counted.1 else { continue };
        let mut first = proxy.counted.0.as_deref().map(by_host);
        for (host, last) in by_host(last) {
            let entry = all.entry(host.clone()).or_default();
            if let Some(first) = &mut first {
                // What was not there in the first reading had not been called yet.
                entry.between.push((first.remove(&host).unwrap_or_default(), last.clone()));
            }
            entry.ever.push((Vec::new(), last));
        }
    }
    all
}

/// How calls to a Service spread while the proxies were asked, or, when those were too few, since the proxies know the
/// endpoints; and which of the two it is. Few connections tell as little as few calls.
pub fn lately_or_ever(mesh: &Mesh<'_>, service: &Service, counted: &HostReadings) -> (CallDistribution, &'static str) {
    let tcp = is_tcp(service, None);
    let now = of_service(mesh, service, None, &counted.between);
    if now.calls() >= ENOUGH && now.evenness(tcp) != BalanceVerdict::TooFew {
        return (now, "while the proxies were asked");
    }
    (of_service(mesh, service, None, &counted.ever), "since the proxies know the endpoints")
}

/// The spread over a Service's endpoints. A headless one's callers know only the endpoint that was dialled: it is
/// measured against all ready pods.
pub fn of_service(
    mesh: &Mesh<'_>,
    service: &Service,
    port: Option<u16>,
    readings: &[CounterReadings],
) -> CallDistribution {
    let mut spread = CallDistribution::new(readings);
    if service.resolution == Resolution::Headless && spread.calls() > 0 {
        let ready = ready_addresses(mesh, service, port, &spread);
        spread.over_all(ready);
    }
    spread
}

/// What objects and counters say about the verdict.
pub fn cause(mesh: &Mesh<'_>, service: &Service, port: Option<u16>, spread: &CallDistribution) -> String {
    let tcp = is_tcp(service, port);
    let evenness = spread.evenness(tcp);
    if spread.calls() == 0 {
        return "no caller with a sidecar sent anything: calls of pods without one are not counted".to_owned();
    }
    if evenness == BalanceVerdict::TooFew {
        return format!("{} calls are too few for {} endpoints", spread.calls(), spread.endpoints.len());
    }
    if evenness == BalanceVerdict::Even {
        return String::new();
    }
    if tcp && spread.nothing_ended {
        let named: Vec<String> = ports(service, port).map(ServicePort::title).collect();
        let named = format!(" (port {})", named.join(", "));
        return format!(
            "the callers' proxies count connections, not calls{named}: the port is treated as TCP, so every call of a \
             connection goes to one pod; name it grpc-…, or set appProtocol: grpc"
        );
    }
    if service.resolution == Resolution::Headless {
        return "the Service is headless: each caller's proxy keeps to the pod that its client dialled".to_owned();
    }
    if let Some(rule) = hashed_by(mesh, service) {
        return format!("{rule} asks for a consistent hash: calls with one key go to one pod, as meant");
    }
    let out: Vec<&str> =
        spread.endpoints.iter().filter(|(_, got)| got.ejected).map(|(address, _)| address.as_str()).collect();
    if !out.is_empty() {
        return format!("outlier detection has {} out", out.join(", "));
    }
    if spread.callers == 1 {
        return "one caller only: with few calls at a time LEAST_REQUEST may stay with few pods; locality may prefer some"
            .to_owned();
    }
    "no object explains it: look at locality, at pods that came lately, and at streams that last long".to_owned()
}

/// The DestinationRule that asks for a consistent hash, if one does.
pub fn hashed_by<'m>(mesh: &'m Mesh<'_>, service: &Service) -> Option<&'m ObjectRef> {
    let is_own = |host: &str| mesh.find_host(host).is_some_and(|id| std::ptr::eq(mesh.service(id), service));
    let hashes = |rule: &&DestinationRule| {
        let policy = rule.spec.traffic_policy.as_ref();
        let mut policies =
            policy.into_iter().chain(rule.spec.subsets.iter().filter_map(|one| one.traffic_policy.as_ref()));
        policies.any(|one| one.load_balancer.as_ref().is_some_and(|balancer| balancer.consistent_hash.is_some()))
    };
    mesh.destination_rules.iter().filter(|rule| is_own(rule.host.as_str())).find(hashes).map(|rule| &rule.object)
}

/// The ports that are looked at.
fn ports(service: &Service, only: Option<u16>) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(move |port| only.is_none_or(|only| port.number == only))
}

/// Whether all ports, or the one that is meant, are treated as TCP: then connections were counted.
pub fn is_tcp(service: &Service, port: Option<u16>) -> bool {
    ports(service, port).all(|port| port.protocol.family() == ProtocolFamily::Tcp)
}

/// Addresses of ready pods, with the ports that were seen.
fn ready_addresses(mesh: &Mesh<'_>, service: &Service, port: Option<u16>, spread: &CallDistribution) -> Vec<String> {
    let seen: Vec<u16> =
        spread.endpoints.keys().filter_map(|address| address.rsplit(':').next()?.parse::<u16>().ok()).collect();
    let port = seen.first().copied().or(port).unwrap_or_else(|| service.main_port());
    let ready = mesh.workloads_of(service).filter(|workload| workload.readiness != Readiness::NotReady);
    ready.filter_map(|workload| workload.ip.as_deref().map(|ip| show(ip, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(cluster: &str, address: &str, total: u64) -> EndpointCounters {
        EndpointCounters {
            cluster: format!("outbound|1|{cluster}|a"),
            address: address.to_owned(),
            total,
            success: total,
            healthy: true,
            ..EndpointCounters::default()
        }
    }

    fn spread(calls: &[(&str, &str, u64)]) -> CallDistribution {
        let after: Vec<EndpointCounters> =
            calls.iter().map(|(cluster, address, total)| counted(cluster, address, *total)).collect();
        CallDistribution::new(&[(Vec::new(), after)])
    }

    #[test]
    fn verdicts() {
        assert_eq!(spread(&[("", "a", 30), ("", "b", 31), ("", "c", 29)]).evenness(false), BalanceVerdict::Even);
        assert_eq!(spread(&[("", "a", 90), ("", "b", 1), ("", "c", 0)]).evenness(false), BalanceVerdict::Pinned);
        assert_eq!(spread(&[("", "a", 60), ("", "b", 20), ("", "c", 10)]).evenness(false), BalanceVerdict::Uneven);
        // What 40 calls gave on a mesh that balances them by lot.
        assert_eq!(spread(&[("", "a", 17), ("", "b", 16), ("", "c", 7)]).evenness(false), BalanceVerdict::Even);
        assert_eq!(spread(&[("", "a", 5), ("", "b", 4)]).evenness(false), BalanceVerdict::TooFew);
        assert_eq!(spread(&[]).evenness(false), BalanceVerdict::TooFew);
    }

    #[test]
    fn weights_between_subsets_are_meant() {
        let canary = spread(&[("v1", "a", 45), ("v1", "b", 45), ("v2", "c", 10)]);
        assert_eq!(canary.evenness(false), BalanceVerdict::Even);
        assert!((canary.jain() - 1.0).abs() < 0.01 && canary.effective_servers() < 2.5, "{canary:?}");
        assert_eq!(spread(&[("v1", "a", 95), ("v2", "b", 5)]).evenness(false), BalanceVerdict::Even);
    }

    #[test]
    fn connections_are_no_calls_and_counters_may_begin_anew() {
        let mut tcp = counted("", "a", 2);
        tcp.success = 0;
        let other = EndpointCounters { total: 0, success: 0, ..counted("", "b", 0) };
        let spread = CallDistribution::new(&[(Vec::new(), vec![tcp, other])]);
        assert!(spread.nothing_ended && spread.evenness(true) == BalanceVerdict::Pinned);
        // Long streams look the same; there are just few.
        assert_eq!(spread.evenness(false), BalanceVerdict::TooFew);
        let anew = CallDistribution::new(&[(vec![counted("", "a", 500)], vec![counted("", "a", 30)])]);
        assert_eq!(anew.calls(), 30);
    }

    #[test]
    fn ports_that_nobody_called_do_not_count() {
        let mut idle = counted("", "c", 0);
        idle.cluster = "outbound|2||a".to_owned();
        let after = vec![counted("", "a", 30), counted("", "b", 30), idle];
        let spread = CallDistribution::new(&[(Vec::new(), after)]);
        assert_eq!((spread.endpoints.len(), spread.evenness(false)), (2, BalanceVerdict::Even));
    }

    #[test]
    fn endpoints_that_were_never_dialled_count() {
        let mut headless = spread(&[("", "a:1", 40)]);
        headless.over_all(["b:1".to_owned(), "c:1".to_owned()]);
        assert_eq!(headless.evenness(false), BalanceVerdict::Pinned);
        assert!((headless.jain() - 1.0 / 3.0).abs() < 0.01);
        // Other callers dialled the others once, and call no more.
        let callers = [(Vec::new(), vec![counted("", "a:1", 40)]), (Vec::new(), vec![counted("", "b:1", 0)])];
        let mut headless = CallDistribution::new(&callers);
        headless.over_all(["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(headless.evenness(false), BalanceVerdict::Pinned);
    }
}
