//! What the objects say against what an Envoy runs, and one source against another.
//!
//! CORE. A room for each part of Envoy's configuration (`routes`, `clusters`, `endpoints`), one for a whole proxy
//! (`proxy`), one for objects, one for how calls spread (`balance`). What is compared is Envoy's own words, so that a
//! difference is one that a call can meet.

pub(crate) mod balance;
pub(crate) mod clusters;
pub mod endpoints;
pub mod proxy;
pub(crate) mod proxy_comparisons;
pub(crate) mod routes;

use serde::{Deserialize, Serialize};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Difference {
    /// What differs.
    pub what: String,
    /// As the objects have it; empty when they do not have it at all.
    pub desired: String,
    /// As the Envoy has it; empty when it does not have it at all.
    pub live: String,
    /// The host that it is about, if it is about one.
    pub host: Option<String>,
    /// Whether it decides which backends get calls, and with which weights.
    pub routes_calls: bool,
}

impl Difference {
    /// All of it in one text, to tell it from others.
    pub fn words(&self) -> String {
        format!("{}\n{}\n{}", self.what, self.desired, self.live)
    }

    /// One that is about no host, as far as is known yet.
    fn new(what: String, intent: String, live: String) -> Self {
        Self { what, desired: intent, live, host: None, routes_calls: false }
    }

    /// One that decides which backends get calls.
    fn of_routing(what: String, intent: String, live: String) -> Self {
        Self { routes_calls: true, ..Self::new(what, intent, live) }
    }

    /// Says of those from a place on which host they are about.
    fn about(found: &mut [Self], from: usize, host: &str) {
        for one in found.iter_mut().skip(from) {
            one.host = Some(host.to_owned());
        }
    }

    /// Notes a difference, if it is one.
    fn note<T: PartialEq>(found: &mut Vec<Self>, what: &str, intent: &T, live: &T, show: impl Fn(&T) -> String) {
        if intent != live {
            found.push(Self::new(what.to_owned(), show(intent), show(live)));
        }
    }
}
