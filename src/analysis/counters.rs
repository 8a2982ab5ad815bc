//! Windows from the per-endpoint counters of the callers' Envoys.
//!
//! These counters need no setup. They count attempts: a retried call counts once per attempt. Envoy fixes what an error
//! is: HTTP status codes of 500 and above, and gRPC statuses that map to one. They have no latencies and no response
//! flags.
//!
//! Source: `upstream_rq_success` and `upstream_rq_error` of hosts, `source/common/router/router.cc` of envoyproxy/envoy
//! 1.39.

use std::collections::BTreeMap;

use super::cohorts::Cohorts;
use super::window::{CallCounts, Window};
use crate::dataplane::balance::{CounterReadings, counter_increase};
use crate::envoy::counters::EndpointCounters;

/// The attempts that callers made between their two readings.
pub fn window_between(cohorts: &Cohorts, callers: &[CounterReadings]) -> Window {
    let mut window = Window::default();
    for (before, after) in callers {
        let key = |endpoint: &EndpointCounters| (endpoint.cluster.clone(), endpoint.address.clone());
        let earlier: BTreeMap<_, _> = before.iter().map(|endpoint| (key(endpoint), endpoint)).collect();
        for now in after {
            let zero = EndpointCounters::default();
            let then = earlier.get(&key(now)).copied().unwrap_or(&zero);
            // Envoy counts no request for a connection that failed.
            let refused = counter_increase(now.connect_failures, then.connect_failures);
            let counts = CallCounts {
                calls: counter_increase(now.requests, then.requests) + refused,
                errors: counter_increase(now.errors, then.errors) + refused,
            };
            if cohorts.canary.contains_cluster(&now.cluster) {
                window.canary = window.canary.plus(counts);
            } else if cohorts.baseline.contains_cluster(&now.cluster) {
                window.baseline = window.baseline.plus(counts);
            }
        }
    }
    window.affected_canary_calls = window.canary.calls;
    window.affected_calls = window.canary.calls + window.baseline.calls;
    window
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohort;
    use super::*;

    #[test]
    fn attempts_belong_to_the_cohort_of_their_subset_on_any_port() {
        let cohort =
            |subset: &str| Cohort { destinations: [(subset.to_owned(), "a.b".to_owned())].into(), ..Cohort::default() };
        let cohorts = Cohorts { canary: cohort("v2"), baseline: cohort("v1"), ..Cohorts::default() };
        let counted = |cluster: &str, requests, errors, connect_failures| EndpointCounters {
            cluster: cluster.to_owned(),
            address: "1".to_owned(),
            requests,
            errors,
            connect_failures,
            ..EndpointCounters::default()
        };
        let before = vec![counted("outbound|1|v1|a.b", 100, 1, 0), counted("outbound|1|v2|a.b", 500, 9, 0)];
        let after = vec![
            counted("outbound|1|v1|a.b", 190, 2, 0),
            // A new endpoint: its counters started at 0.
            counted("outbound|1|v2|a.b", 8, 2, 1),
            counted("outbound|2|v2|a.b", 1, 0, 0),
            counted("outbound|1||a.b", 70, 70, 0),
            counted("outbound|1|v2|other", 70, 70, 0),
        ];
        let window = window_between(&cohorts, &[(before, after)]);
        assert_eq!(window.baseline, CallCounts { calls: 90, errors: 1 });
        assert_eq!(window.canary, CallCounts { calls: 10, errors: 3 });
        assert!((window.observed_share().unwrap() - 0.1).abs() < 1e-9);
    }
}
