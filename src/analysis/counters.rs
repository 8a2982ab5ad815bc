//! Windows from what the callers' Envoys count for each endpoint.
//!
//! They are there without any setting. What is counted are tries: a call that was tried again counts each time. Which of
//! them are errors is fixed in Envoy: HTTP codes from 500 on, and gRPC answers whose status maps to one. There are
//! no latencies and no flags.
//!
//! Source: `upstream_rq_success` and `upstream_rq_error` of hosts, `source/common/router/router.cc` of envoyproxy/envoy
//! 1.39.

use std::collections::BTreeMap;

use super::cohorts::Cohorts;
use super::window::{CallCounts, Window};
use crate::dataplane::balance::{CounterReadings, since};
use crate::envoy::counters::EndpointCounters;

/// What callers counted between their two readings.
pub fn window(sides: &Cohorts, callers: &[CounterReadings]) -> Window {
    let mut window = Window::default();
    for (before, after) in callers {
        let key = |one: &EndpointCounters| (one.cluster.clone(), one.address.clone());
        let old: BTreeMap<_, _> = before.iter().map(|one| (key(one), one)).collect();
        for now in after {
            let none = EndpointCounters::default();
            let then = old.get(&key(now)).copied().unwrap_or(&none);
            // A connection that was refused carried no try.
            let refused = since(now.refused, then.refused);
            let counted = CallCounts {
                calls: since(now.total, then.total) + refused,
                errors: since(now.errors, then.errors) + refused,
            };
            if sides.canary.has_cluster(&now.cluster) {
                window.canary = window.canary.and(counted);
            } else if sides.baseline.has_cluster(&now.cluster) {
                window.baseline = window.baseline.and(counted);
            }
        }
    }
    window.obeying_canary = window.canary.calls;
    window.obeying = window.canary.calls + window.baseline.calls;
    window
}

#[cfg(test)]
mod tests {
    use super::super::cohorts::Cohort;
    use super::*;

    #[test]
    fn tries_belong_to_subsets_whatever_the_port() {
        let side =
            |subset: &str| Cohort { destinations: [(subset.to_owned(), "a.b".to_owned())].into(), ..Cohort::default() };
        let sides = Cohorts { canary: side("v2"), baseline: side("v1"), ..Cohorts::default() };
        let counted = |cluster: &str, total, errors, refused| EndpointCounters {
            cluster: cluster.to_owned(),
            address: "1".to_owned(),
            total,
            errors,
            refused,
            ..EndpointCounters::default()
        };
        let before = vec![counted("outbound|1|v1|a.b", 100, 1, 0), counted("outbound|1|v2|a.b", 500, 9, 0)];
        let after = vec![
            counted("outbound|1|v1|a.b", 190, 2, 0),
            // The endpoint is a new one: its counters began anew.
            counted("outbound|1|v2|a.b", 8, 2, 1),
            counted("outbound|2|v2|a.b", 1, 0, 0),
            counted("outbound|1||a.b", 70, 70, 0),
            counted("outbound|1|v2|other", 70, 70, 0),
        ];
        let window = window(&sides, &[(before, after)]);
        assert_eq!(window.baseline, CallCounts { calls: 90, errors: 1 });
        assert_eq!(window.canary, CallCounts { calls: 10, errors: 3 });
        assert!((window.observed_share().unwrap() - 0.1).abs() < 1e-9);
    }
}
