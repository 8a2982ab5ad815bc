//! How calls are distributed over the endpoints of a Service, compared with an even distribution.
//!
//! The input are counters of the callers' Envoys, read twice: the calls that each of them sent to each endpoint between
//! the two readings.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::envoy::counters::EndpointCounters;
use crate::envoy::endpoint::socket_address;
use crate::mesh::Mesh;
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::ObjectRef;
use crate::mesh::protocol::ProtocolFamily;
use crate::mesh::service::{Resolution, Service, ServicePort};
use crate::mesh::workload::Readiness;
use crate::snapshot::live::LiveState;

/// Calls per endpoint below which the verdict is "too few calls": LEAST_REQUEST is not exactly even.
const MIN_CALLS_PER_ENDPOINT: u64 = 10;
/// Jain's index from which a distribution counts as even.
const EVEN_FROM_INDEX: f64 = 0.9;
/// With fewer effective servers than this, calls count as pinned to one endpoint.
const PINNED_BELOW_SERVERS: f64 = 1.5;

/// The calls that one endpoint received.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EndpointCounts {
    /// Calls, each retry counted.
    pub calls: u64,
    /// Failed calls or failed connections, whichever are more.
    pub errors: u64,
    /// Subsets through which callers reached it.
    pub subsets: BTreeSet<String>,
    /// Calls that it would receive in an even distribution.
    pub expected: f64,
    /// Whether outlier detection of any caller ejected it.
    pub is_ejected: bool,
}

/// The distribution of calls over endpoints.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CallDistribution {
    /// Counts by `address:port`.
    pub endpoints: BTreeMap<String, EndpointCounts>,
    /// Number of callers that sent calls.
    pub callers: usize,
    /// Whether no call completed, with success or error: the counters count connections, or all streams are still open.
    pub no_call_completed: bool,
}

/// The increase of a counter between two readings. A counter that decreased was reset in between.
pub fn counter_increase(now: u64, before: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// The Service port in the name of an Envoy cluster.
fn cluster_port(cluster: &str) -> &str {
    cluster.split('|').nth(1).unwrap_or_default()
}

/// Ports with calls. Endpoints of other ports would only look idle.
fn used_ports(callers: &[CounterReadings]) -> BTreeSet<&str> {
    fn totals(readings: &[EndpointCounters]) -> BTreeMap<(&str, &str), u64> {
        let mut totals: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for counters in readings {
            *totals.entry((&counters.cluster, &counters.address)).or_default() += counters.requests;
        }
        totals
    }
    let mut used = BTreeSet::new();
    for (first, last) in callers {
        let before = totals(first);
        for (key, now) in totals(last) {
            if counter_increase(now, before.get(&key).copied().unwrap_or(0)) > 0 {
                used.insert(cluster_port(key.0));
            }
        }
    }
    used
}

/// The verdict on a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum BalanceVerdict {
    /// Each endpoint receives about its share.
    Even,
    /// Some endpoints receive many more calls than others.
    Uneven,
    /// One endpoint receives nearly all calls.
    Pinned,
    /// Too few calls for a verdict.
    TooFewCalls,
}

impl BalanceVerdict {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl CallDistribution {
    /// The calls that callers sent between two readings of their counters.
    pub fn new(callers: &[CounterReadings]) -> Self {
        let mut distribution = Self::default();
        let (mut total, mut completed) = (0, 0);
        let used = used_ports(callers);
        for (first, last) in callers {
            let before: BTreeMap<(&str, &str), &EndpointCounters> = first
                .iter()
                .map(|counters| ((counters.cluster.as_str(), counters.address.as_str()), counters))
                .collect();
            let mut clusters: BTreeMap<&str, Vec<(&EndpointCounters, u64)>> = BTreeMap::new();
            let mut sent = 0;
            let is_used =
                |counters: &&EndpointCounters| used.is_empty() || used.contains(cluster_port(&counters.cluster));
            for now in last.iter().filter(is_used) {
                let zero = EndpointCounters::default();
                let before = before.get(&(now.cluster.as_str(), now.address.as_str())).copied().unwrap_or(&zero);
                let calls = counter_increase(now.requests, before.requests);
                let successes = counter_increase(now.successes, before.successes);
                let errors = counter_increase(now.errors, before.errors);
                let connect_failures = counter_increase(now.connect_failures, before.connect_failures);
                (total, completed, sent) = (total + calls, completed + successes + errors, sent + calls);
                let counts = distribution.endpoints.entry(now.address.clone()).or_default();
                counts.calls += calls;
                counts.errors += errors.max(connect_failures);
                counts.is_ejected |= now.is_ejected;
                if let Some(subset) = now.cluster.split('|').nth(2).filter(|subset| !subset.is_empty() && calls > 0) {
                    counts.subsets.insert(subset.to_owned());
                }
                clusters.entry(&now.cluster).or_default().push((now, calls));
            }
            distribution.callers += usize::from(sent > 0);
            for members in clusters.values() {
                distribution.add_expected(members);
            }
        }
        distribution.no_call_completed = total > 0 && completed == 0;
        distribution
    }

    /// Adds the expected share of each endpoint of one cluster of one caller.
    fn add_expected(&mut self, members: &[(&EndpointCounters, u64)]) {
        let calls: u64 = members.iter().map(|(_, calls)| calls).sum();
        // With locality load balancing, endpoints of a higher priority value get calls only when all others fail.
        let healthy = || members.iter().map(|(counters, _)| counters).filter(|counters| counters.is_healthy);
        let priority = healthy().map(|counters| counters.priority).min();
        let active: Vec<_> = healthy().filter(|counters| Some(counters.priority) == priority).collect();
        let weights: u64 = active.iter().map(|counters| counters.weight.max(1)).sum();
        for counters in active {
            let expected = calls as f64 * counters.weight.max(1) as f64 / weights.max(1) as f64;
            self.endpoints.entry(counters.address.clone()).or_default().expected += expected;
        }
    }

    /// Expects an equal share for every endpoint, including these addresses.
    ///
    /// For headless Services: the cluster of a caller only lists the endpoint that its client dialed.
    pub fn measure_against(&mut self, addresses: impl IntoIterator<Item = String>) {
        for address in addresses {
            self.endpoints.entry(address).or_default();
        }
        let expected = self.calls() as f64 / self.endpoints.len().max(1) as f64;
        self.endpoints.values_mut().for_each(|counts| counts.expected = expected);
    }

    /// The number of calls to all endpoints.
    pub fn calls(&self) -> u64 {
        self.endpoints.values().map(|counts| counts.calls).sum()
    }

    /// The number of equally loaded servers with the same concentration of calls: (Σn)² ÷ Σn².
    pub fn effective_servers(&self) -> f64 {
        let squares: f64 = self.endpoints.values().map(|counts| (counts.calls as f64).powi(2)).sum();
        if squares > 0.0 { (self.calls() as f64).powi(2) / squares } else { 0.0 }
    }

    /// Endpoints for which calls are expected.
    fn expected_endpoints(&self) -> impl Iterator<Item = &EndpointCounts> {
        self.endpoints.values().filter(|counts| counts.expected > 0.0)
    }

    /// Jain's fairness index of the received against the expected calls, from 0 to 1: 1 is even, and 1 ÷ number of
    /// endpoints means that one endpoint receives all calls.
    pub fn jain_index(&self) -> f64 {
        let shares: Vec<f64> = self.expected_endpoints().map(|counts| counts.calls as f64 / counts.expected).collect();
        let (sum, squares) = (shares.iter().sum::<f64>(), shares.iter().map(|share| share * share).sum::<f64>());
        if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 0.0 }
    }

    /// Whether random load balancing often gives such a distribution: chi-squared within three standard deviations of
    /// its mean.
    fn may_be_chance(&self) -> bool {
        let degrees_of_freedom = self.expected_endpoints().count().saturating_sub(1) as f64;
        let chi_squared: f64 = self
            .expected_endpoints()
            .map(|counts| (counts.calls as f64 - counts.expected).powi(2) / counts.expected)
            .sum();
        chi_squared <= degrees_of_freedom + 3.0 * (2.0 * degrees_of_freedom).sqrt()
    }

    /// The verdict. `is_tcp`: all ports are treated as TCP, and the counters count connections.
    pub fn verdict(&self, is_tcp: bool) -> BalanceVerdict {
        let expected = self.expected_endpoints().count() as u64;
        if self.calls() == 0 {
            return BalanceVerdict::TooFewCalls;
        }
        if is_tcp && self.no_call_completed && self.endpoints.len() > 1 {
            return BalanceVerdict::Pinned;
        }
        if self.calls() < MIN_CALLS_PER_ENDPOINT * expected.max(1) {
            return BalanceVerdict::TooFewCalls;
        }
        match self.jain_index() {
            // The index is relative to the expected calls: weights may send nearly all calls to one pod on purpose.
            jain if jain >= EVEN_FROM_INDEX || self.may_be_chance() => BalanceVerdict::Even,
            _ if expected >= 2 && self.effective_servers() < PINNED_BELOW_SERVERS => BalanceVerdict::Pinned,
            _ => BalanceVerdict::Uneven,
        }
    }
}

/// First and last reading of one caller's counters.
pub type CounterReadings = (Vec<EndpointCounters>, Vec<EndpointCounters>);

/// Counters of a snapshot's proxies for one host.
#[derive(Debug, Default)]
pub struct HostReadings {
    /// First and last readings of the proxies that were read twice.
    between: Vec<CounterReadings>,
    /// Last readings of all proxies, against zero.
    total: Vec<CounterReadings>,
}

/// The counters of a snapshot's proxies, by the host of the cluster.
pub fn readings_by_host(live: &LiveState) -> BTreeMap<String, HostReadings> {
    let by_host = |counters: &[EndpointCounters]| -> BTreeMap<String, Vec<EndpointCounters>> {
        let mut by_host: BTreeMap<String, Vec<EndpointCounters>> = BTreeMap::new();
        for endpoint in counters {
            if let Some(host) = endpoint.cluster.splitn(4, '|').nth(3) {
                by_host.entry(host.to_owned()).or_default().push(endpoint.clone());
            }
        }
        by_host
    };
    let mut readings: BTreeMap<String, HostReadings> = BTreeMap::new();
    for (_, _, proxy) in live.proxies() {
        let Some(last) = &proxy.counters.1 else { continue };
        let mut first = proxy.counters.0.as_deref().map(by_host);
        for (host, last) in by_host(last) {
            let entry = readings.entry(host.clone()).or_default();
            if let Some(first) = &mut first {
                // A host that is absent in the first reading had no calls yet.
                entry.between.push((first.remove(&host).unwrap_or_default(), last.clone()));
            }
            entry.total.push((Vec::new(), last));
        }
    }
    readings
}

/// The period that the counters of a distribution cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CountingPeriod {
    /// Between the first and the last reading.
    BetweenReadings,
    /// Since each proxy has the endpoints.
    SinceEndpointAdded,
}

impl CountingPeriod {
    pub fn label(self) -> &'static str {
        match self {
            Self::BetweenReadings => "between the two readings",
            Self::SinceEndpointAdded => "since the endpoints were added",
        }
    }
}

/// The calls to a Service between the readings or, when those are too few for a verdict, since the proxies have the
/// endpoints. Too few connections count as too few calls.
pub fn recent_or_total(
    mesh: &Mesh<'_>,
    service: &Service,
    readings: &HostReadings,
) -> (CallDistribution, CountingPeriod) {
    let recent = service_distribution(mesh, service, None, &readings.between);
    let is_conclusive = recent.verdict(is_tcp(service, None)) != BalanceVerdict::TooFewCalls;
    if recent.calls() >= MIN_CALLS_PER_ENDPOINT && is_conclusive {
        return (recent, CountingPeriod::BetweenReadings);
    }
    (service_distribution(mesh, service, None, &readings.total), CountingPeriod::SinceEndpointAdded)
}

/// The distribution of calls over the endpoints of a Service, or of one port number. A headless Service is measured
/// against all ready pods, because its callers only have the endpoint that their client dialed.
pub fn service_distribution(
    mesh: &Mesh<'_>,
    service: &Service,
    port: Option<u16>,
    readings: &[CounterReadings],
) -> CallDistribution {
    let mut distribution = CallDistribution::new(readings);
    if service.resolution == Resolution::Headless && distribution.calls() > 0 {
        let ready = ready_addresses(mesh, service, port, &distribution);
        distribution.measure_against(ready);
    }
    distribution
}

/// Explains the verdict from objects and counters; empty for an even distribution.
pub fn verdict_cause(mesh: &Mesh<'_>, service: &Service, port: Option<u16>, distribution: &CallDistribution) -> String {
    let is_tcp = is_tcp(service, port);
    let verdict = distribution.verdict(is_tcp);
    if distribution.calls() == 0 {
        return "no caller with a sidecar sent calls; calls from pods without a sidecar are not counted".to_owned();
    }
    if verdict == BalanceVerdict::TooFewCalls {
        let (calls, endpoints) = (distribution.calls(), distribution.endpoints.len());
        return format!("{calls} calls to {endpoints} endpoints are too few for a verdict");
    }
    if verdict == BalanceVerdict::Even {
        return String::new();
    }
    if is_tcp && distribution.no_call_completed {
        let ports: Vec<String> = selected_ports(service, port).map(ServicePort::title).collect();
        return format!(
            "port {} is treated as TCP: Envoy balances connections, and all calls of a connection go to one pod; name \
             the port grpc-… or set appProtocol: grpc",
            ports.join(", ")
        );
    }
    if service.resolution == Resolution::Headless {
        return "the Service is headless: each caller's proxy uses the pod that its client dialed".to_owned();
    }
    if let Some(rule) = consistent_hash_rule(mesh, service) {
        return format!("{rule} sets a consistent hash: all calls with the same key go to one pod, as intended");
    }
    let ejected: Vec<&str> = distribution
        .endpoints
        .iter()
        .filter(|(_, counts)| counts.is_ejected)
        .map(|(address, _)| address.as_str())
        .collect();
    if !ejected.is_empty() {
        return format!("outlier detection ejected {}", ejected.join(", "));
    }
    if distribution.callers == 1 {
        return "only one caller sent calls: LEAST_REQUEST with few concurrent calls, or locality load balancing, may \
                prefer few pods"
            .to_owned();
    }
    "no object explains it; possible causes are locality load balancing, new pods, and long-lived streams".to_owned()
}

/// The DestinationRule that sets a consistent hash for a Service, if any.
pub fn consistent_hash_rule<'m>(mesh: &'m Mesh<'_>, service: &Service) -> Option<&'m ObjectRef> {
    let is_own_host = |host: &str| mesh.find_host(host).is_some_and(|id| std::ptr::eq(mesh.service(id), service));
    let has_hash = |rule: &&DestinationRule| {
        let subsets = rule.spec.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref());
        let mut policies = rule.spec.traffic_policy.iter().chain(subsets);
        policies.any(|policy| policy.load_balancer.as_ref().is_some_and(|balancer| balancer.consistent_hash.is_some()))
    };
    let mut rules = mesh.destination_rules.iter().filter(|rule| is_own_host(rule.host.as_str()));
    rules.find(has_hash).map(|rule| &rule.object)
}

/// All ports of a Service, or the one with this number.
fn selected_ports(service: &Service, number: Option<u16>) -> impl Iterator<Item = &ServicePort> {
    service.ports.iter().filter(move |port| number.is_none_or(|number| port.number == number))
}

/// Whether all ports of a Service, or the one with this number, are treated as TCP. Their counters count connections.
pub fn is_tcp(service: &Service, port: Option<u16>) -> bool {
    selected_ports(service, port).all(|port| port.protocol.family() == ProtocolFamily::Tcp)
}

/// Addresses of the ready pods of a Service, with the pod port of the known endpoints.
fn ready_addresses(
    mesh: &Mesh<'_>,
    service: &Service,
    port: Option<u16>,
    distribution: &CallDistribution,
) -> Vec<String> {
    let known_ports: Vec<u16> =
        distribution.endpoints.keys().filter_map(|address| address.rsplit(':').next()?.parse::<u16>().ok()).collect();
    let port = known_ports.first().copied().or(port).unwrap_or_else(|| service.main_port());
    let ready = mesh.workloads_of(service).filter(|workload| workload.readiness != Readiness::NotReady);
    ready.filter_map(|workload| workload.ip.as_deref().map(|ip| socket_address(ip, port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(subset: &str, address: &str, calls: u64) -> EndpointCounters {
        EndpointCounters {
            cluster: format!("outbound|1|{subset}|a"),
            address: address.to_owned(),
            requests: calls,
            successes: calls,
            is_healthy: true,
            ..EndpointCounters::default()
        }
    }

    fn distribution(calls: &[(&str, &str, u64)]) -> CallDistribution {
        let last: Vec<EndpointCounters> =
            calls.iter().map(|(subset, address, calls)| counters(subset, address, *calls)).collect();
        CallDistribution::new(&[(Vec::new(), last)])
    }

    #[test]
    fn verdict_follows_the_calls_per_endpoint() {
        for (calls, verdict) in [
            (&[("", "a", 30), ("", "b", 31), ("", "c", 29)][..], BalanceVerdict::Even),
            (&[("", "a", 90), ("", "b", 1), ("", "c", 0)], BalanceVerdict::Pinned),
            (&[("", "a", 60), ("", "b", 20), ("", "c", 10)], BalanceVerdict::Uneven),
            // 40 calls on a real mesh with random load balancing.
            (&[("", "a", 17), ("", "b", 16), ("", "c", 7)], BalanceVerdict::Even),
            (&[("", "a", 5), ("", "b", 4)], BalanceVerdict::TooFewCalls),
            (&[], BalanceVerdict::TooFewCalls),
        ] {
            assert_eq!(distribution(calls).verdict(false), verdict, "{calls:?}");
        }
    }

    #[test]
    fn weights_between_subsets_count_as_intended() {
        let canary = distribution(&[("v1", "a", 45), ("v1", "b", 45), ("v2", "c", 10)]);
        assert_eq!(canary.verdict(false), BalanceVerdict::Even);
        assert!((canary.jain_index() - 1.0).abs() < 0.01 && canary.effective_servers() < 2.5, "{canary:?}");
        assert_eq!(distribution(&[("v1", "a", 95), ("v2", "b", 5)]).verdict(false), BalanceVerdict::Even);
    }

    #[test]
    fn connections_are_pinned_and_a_reset_counter_starts_at_zero() {
        let tcp = EndpointCounters { successes: 0, ..counters("", "a", 2) };
        let idle = EndpointCounters { requests: 0, successes: 0, ..counters("", "b", 0) };
        let connections = CallDistribution::new(&[(Vec::new(), vec![tcp, idle])]);
        assert!(connections.no_call_completed && connections.verdict(true) == BalanceVerdict::Pinned);
        // Long-lived streams look the same on a port that is not TCP.
        assert_eq!(connections.verdict(false), BalanceVerdict::TooFewCalls);
        let reset = CallDistribution::new(&[(vec![counters("", "a", 500)], vec![counters("", "a", 30)])]);
        assert_eq!(reset.calls(), 30);
    }

    #[test]
    fn ports_without_calls_are_ignored() {
        let mut idle = counters("", "c", 0);
        idle.cluster = "outbound|2||a".to_owned();
        let last = vec![counters("", "a", 30), counters("", "b", 30), idle];
        let distribution = CallDistribution::new(&[(Vec::new(), last)]);
        assert_eq!((distribution.endpoints.len(), distribution.verdict(false)), (2, BalanceVerdict::Even));
    }

    #[test]
    fn endpoints_that_no_client_dialed_count_for_headless_services() {
        let mut headless = distribution(&[("", "a:1", 40)]);
        headless.measure_against(["b:1".to_owned(), "c:1".to_owned()]);
        assert_eq!(headless.verdict(false), BalanceVerdict::Pinned);
        assert!((headless.jain_index() - 1.0 / 3.0).abs() < 0.01);
        // Another caller dialed the second endpoint and sends no more calls.
        let callers = [(Vec::new(), vec![counters("", "a:1", 40)]), (Vec::new(), vec![counters("", "b:1", 0)])];
        let mut headless = CallDistribution::new(&callers);
        headless.measure_against(["a:1".to_owned(), "b:1".to_owned()]);
        assert_eq!(headless.verdict(false), BalanceVerdict::Pinned);
    }
}
