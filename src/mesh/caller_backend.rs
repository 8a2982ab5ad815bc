//! Written backends as one caller gets them.
//!
//! Stage: compiled. [`CallerBackend`] joins a [`WrittenBackend`] with what istiod would send to the caller's proxy for
//! it, and marks a backend as unknown where the source cannot tell.

use super::Mesh;
use super::ids::ServiceId;
use super::service::PodCount;
use super::written_route::{WrittenBackend, weight_shares};
use super::xds::{BackendState, Caller};
use crate::schema::virtual_service::{Destination, PortSelector};

#[derive(Debug, Clone, PartialEq)]
pub struct CallerBackend {
    pub written: WrittenBackend,
    /// Share of the rule's calls in percent, 0 to 100.
    pub share_percent: f64,
    /// The registry's entry for the host, if the source has one.
    pub service: Option<ServiceId>,
    pub state: BackendState,
    /// Pods of the subset or Service; zero when the state is not [`BackendState::Ok`].
    pub pods: PodCount,
}

impl Mesh<'_> {
    /// The backends of one rule as `caller` gets them, in the order of the rule.
    ///
    /// `port` is the port that the caller dials. Backends without a port of their own use it.
    pub fn backends(&self, caller: &Caller, written: &[WrittenBackend], port: u16) -> Vec<CallerBackend> {
        let weights: Vec<_> = written.iter().map(|backend| backend.weight).collect();
        let shares = weight_shares(&weights).unwrap_or_else(|| vec![0.0; written.len()]);
        written.iter().zip(shares).map(|(backend, share)| self.caller_backend(caller, backend, port, share)).collect()
    }

    fn caller_backend(
        &self,
        caller: &Caller,
        written: &WrittenBackend,
        port: u16,
        share_percent: f64,
    ) -> CallerBackend {
        let destination = Destination {
            host: written.host.as_str().to_owned(),
            subset: written.subset.as_ref().map(ToString::to_string),
            port: written.port.map(|number| PortSelector { number }),
        };
        let compiled = self.backend_for(caller, &written.host, &destination, u32::from(port));
        let service = self.find_host(written.host.as_str());
        let covers_pods = service.is_some_and(|id| self.covers_endpoints_of(self.service(id)));
        let pods = compiled.endpoints.unwrap_or_else(|| match (compiled.state, service) {
            (BackendState::Ok, Some(id)) => self.service(id).endpoints,
            _ => PodCount::default(),
        });
        let state = match compiled.state {
            BackendState::NoCluster if !self.is_host_absent(&written.host) && service.is_none() => {
                BackendState::Unknown
            }
            BackendState::Ok if !covers_pods => BackendState::Unknown,
            state => state,
        };
        CallerBackend { written: written.clone(), share_percent, service, state, pods }
    }
}
