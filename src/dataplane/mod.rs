//! Compares what istiod would send to an Envoy (*compiled*) with what the Envoy runs (*observed*).
//!
//! CORE. One module for each part of Envoy's configuration (`routes`, `clusters`, `endpoints`), one for a whole proxy
//! (`proxy`), and one for the distribution of calls over endpoints (`balance`). Configuration is compared in Envoy's
//! own form, so that each reported difference affects calls.

pub(crate) mod balance;
pub(crate) mod clusters;
pub mod endpoints;
pub mod proxy;
pub(crate) mod proxy_comparisons;
pub(crate) mod routes;

use serde::{Deserialize, Serialize};

/// A difference between the desired and the live configuration of an Envoy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// The setting that differs, such as `timeout of checkout.shop.svc.cluster.local:50051`.
    pub what: String,
    /// The value that the objects define; empty if they do not define it.
    pub desired: String,
    /// The value in the Envoy; empty if it does not have it.
    pub live: String,
    /// The host that it belongs to, if it belongs to one.
    pub host: Option<String>,
    /// Whether it decides which backends get calls, and with which weights.
    pub routes_calls: bool,
}

impl Difference {
    /// Identifies it among the differences of a proxy.
    pub fn key(&self) -> String {
        format!("{}\n{}\n{}", self.what, self.desired, self.live)
    }

    fn new(what: String, desired: String, live: String) -> Self {
        Self { what, desired, live, host: None, routes_calls: false }
    }

    /// A difference that decides which backends get calls.
    fn of_routing(what: String, desired: String, live: String) -> Self {
        Self { routes_calls: true, ..Self::new(what, desired, live) }
    }

    /// Sets the host of all differences from index `start` on.
    fn set_host(differences: &mut [Self], start: usize, host: &str) {
        for difference in differences.iter_mut().skip(start) {
            difference.host = Some(host.to_owned());
        }
    }

    /// Adds a difference if the two values are not equal.
    fn push_if_different<T: PartialEq>(
        differences: &mut Vec<Self>,
        what: &str,
        desired: &T,
        live: &T,
        format: impl Fn(&T) -> String,
    ) {
        if desired != live {
            differences.push(Self::new(what.to_owned(), format(desired), format(live)));
        }
    }
}
