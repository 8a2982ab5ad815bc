//! Whole route tables in Envoy's words, to hold beside what an Envoy says that it runs.
//!
//! Source: `TranslateRouteMatch` and `applyHTTPRouteDestination` in `pilot/pkg/networking/core/route/route.go` of
//! istio/istio 1.31.

use std::collections::BTreeSet;

use super::listener::RouteTable;
use super::route::{Action, Forward, Route};
use super::virtual_host::VirtualHost;
use super::{Mirror, Outbound};
use crate::envoy::route as envoy;
use crate::mesh::retry::RetryPolicy;

/// A route table as it should be.
#[derive(Debug)]
pub struct IntendedTable {
    /// As Envoy has it, if it takes it.
    pub table: envoy::RouteTable,
    /// Why Envoy refuses it, and keeps what it had.
    pub refused: Option<String>,
}

impl<'m> Outbound<'m> {
    /// The route tables that istiod makes for this proxy.
    pub fn route_tables(&self) -> Vec<IntendedTable> {
        if self.is_gateway() {
            let servers = self.servers();
            let made = servers.tables.keys().map(|name| (name.clone(), self.gateway_hosts(&servers, name)));
            return made.map(|(name, hosts)| self.in_words(name, &hosts)).collect();
        }
        let mut found: Vec<RouteTable> = Vec::new();
        for port in self.ports() {
            for table in self.tables_of_port(port) {
                if !found.contains(&table) {
                    found.push(table);
                }
            }
        }
        let made = found.iter().map(|table| self.in_words(table.to_string(), &self.virtual_hosts(table)));
        made.filter(|one| !one.table.hosts.is_empty()).collect()
    }

    /// Ports that some listener may be for.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        let egress = &self.scope.listeners;
        let named = egress.iter().filter_map(|one| one.port.map(|(port, _)| port));
        let of_services = egress.iter().flat_map(|one| &one.services).flat_map(|seen| seen.ports(self.mesh));
        named.chain(of_services.map(|port| port.number)).collect()
    }

    fn in_words(&self, name: String, hosts: &[VirtualHost<'m>]) -> IntendedTable {
        let refused = hosts.iter().flat_map(|host| host.routes.iter()).find_map(Route::refused);
        let hosts = hosts.iter().map(|host| envoy::VirtualHost {
            name: host.name.clone(),
            domains: host.domains.clone(),
            redirects_to_tls: host.needs_tls,
            routes: host.routes.iter().map(|route| self.route_in_words(route)).collect(),
        });
        IntendedTable { table: envoy::RouteTable { name, hosts: hosts.collect() }, refused }
    }

    fn route_in_words(&self, route: &Route<'m>) -> envoy::Route {
        let action = match route.action {
            Action::Forward | Action::Service(_) => {
                envoy::Action::Forward(self.forward(route).map(forward_in_words).unwrap_or_default())
            }
            Action::Passthrough => envoy::Action::Forward(envoy::Forward {
                clusters: vec![("PassthroughCluster".to_owned(), 1)],
                ..envoy::Forward::default()
            }),
            Action::Redirect(status) => envoy::Action::Redirect(status),
            Action::DirectResponse(status) => envoy::Action::Respond(status),
            Action::Block => envoy::Action::Respond(502),
        };
        envoy::Route { name: route.name().into_owned(), conditions: route.conditions(), action }
    }
}

fn forward_in_words(Forward { backends, timeout, retries, mirrors }: Forward) -> envoy::Forward {
    let timeout = timeout.unwrap_or_default();
    let weight = |weight: Option<i64>| u64::try_from(weight.unwrap_or(1)).unwrap_or(0);
    envoy::Forward {
        clusters: backends.into_iter().map(|one| (one.cluster, weight(one.weight))).collect(),
        timeout,
        max_grpc_timeout: timeout,
        retries: retries_in_words(&retries),
        mirrors: mirrors.into_iter().map(mirror_in_words).collect(),
    }
}

fn mirror_in_words(Mirror { backend, percent }: Mirror) -> (String, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "istiod cuts it off the same way")]
    let share = (percent * envoy::MILLIONTHS) as u64;
    (backend.cluster, share)
}

fn retries_in_words(retries: &RetryPolicy) -> Option<envoy::Retries> {
    if retries.attempts == 0 {
        return None;
    }
    let (mut on, mut status_codes) = (retries.retry_on.clone(), retries.status_codes.clone());
    on.sort();
    status_codes.sort_unstable();
    Some(envoy::Retries {
        on,
        attempts: retries.attempts,
        status_codes: status_codes.into_iter().map(u32::from).collect(),
        per_try_timeout: retries.per_try_timeout.unwrap_or_default(),
    })
}
