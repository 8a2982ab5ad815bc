//! Whole route tables in Envoy's words, to hold beside what an Envoy says that it runs.
//!
//! Source: `TranslateRouteMatch` and `applyHTTPRouteDestination` in `pilot/pkg/networking/core/route/route.go` of
//! istio/istio 1.31.

use std::collections::BTreeSet;

use super::listener::RouteTableName;
use super::route::{CompiledAction, CompiledForward, CompiledRoute};
use super::virtual_host::CompiledVirtualHost;
use super::{CompiledMirror, ProxyConfig};
use crate::envoy::route as envoy;
use crate::mesh::retry::RetryPolicy;

/// A route table as it should be.
#[derive(Debug)]
pub struct CompiledRouteTable {
    /// As Envoy has it, if it takes it.
    pub table: envoy::EnvoyRouteTable,
    /// Why Envoy refuses it, and keeps what it had.
    pub refused: Option<String>,
}

impl<'m> ProxyConfig<'m> {
    /// The route tables that istiod makes for this proxy.
    pub fn route_tables(&self) -> Vec<CompiledRouteTable> {
        if self.is_gateway() {
            let servers = self.servers();
            let made = servers.tables.keys().map(|name| (name.clone(), self.gateway_hosts(&servers, name)));
            return made.map(|(name, hosts)| self.in_words(name, &hosts)).collect();
        }
        let mut found: Vec<RouteTableName> = Vec::new();
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

    fn in_words(&self, name: String, hosts: &[CompiledVirtualHost<'m>]) -> CompiledRouteTable {
        let refused = hosts.iter().flat_map(|host| host.routes.iter()).find_map(CompiledRoute::refused);
        let hosts = hosts.iter().map(|host| envoy::EnvoyVirtualHost {
            name: host.name.clone(),
            domains: host.domains.clone(),
            redirects_to_tls: host.needs_tls,
            routes: host.routes.iter().map(|route| self.route_in_words(route)).collect(),
        });
        CompiledRouteTable { table: envoy::EnvoyRouteTable { name, hosts: hosts.collect() }, refused }
    }

    fn route_in_words(&self, route: &CompiledRoute<'m>) -> envoy::EnvoyRoute {
        let action = match route.action {
            CompiledAction::Forward | CompiledAction::Service(_) => {
                envoy::EnvoyAction::Forward(self.forward(route).map(forward_in_words).unwrap_or_default())
            }
            CompiledAction::Passthrough => envoy::EnvoyAction::Forward(envoy::EnvoyForward {
                clusters: vec![("PassthroughCluster".to_owned(), 1)],
                ..envoy::EnvoyForward::default()
            }),
            CompiledAction::Redirect(status) => envoy::EnvoyAction::Redirect(status),
            CompiledAction::DirectResponse(status) => envoy::EnvoyAction::Respond(status),
            CompiledAction::Block => envoy::EnvoyAction::Respond(502),
        };
        envoy::EnvoyRoute { name: route.name().into_owned(), conditions: route.conditions(), action }
    }
}

fn forward_in_words(CompiledForward { backends, timeout, retries, mirrors }: CompiledForward) -> envoy::EnvoyForward {
    let timeout = timeout.unwrap_or_default();
    let weight = |weight: Option<i64>| u64::try_from(weight.unwrap_or(1)).unwrap_or(0);
    envoy::EnvoyForward {
        clusters: backends.into_iter().map(|one| (one.cluster, weight(one.weight))).collect(),
        timeout,
        max_grpc_timeout: timeout,
        retries: retries_in_words(&retries),
        mirrors: mirrors.into_iter().map(mirror_in_words).collect(),
    }
}

fn mirror_in_words(CompiledMirror { backend, percent }: CompiledMirror) -> (String, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "istiod cuts it off the same way")]
    let share = (percent * envoy::MILLIONTHS) as u64;
    (backend.cluster, share)
}

fn retries_in_words(retries: &RetryPolicy) -> Option<envoy::EnvoyRetries> {
    if retries.attempts == 0 {
        return None;
    }
    let (mut on, mut status_codes) = (retries.retry_on.clone(), retries.status_codes.clone());
    on.sort();
    status_codes.sort_unstable();
    Some(envoy::EnvoyRetries {
        on,
        attempts: retries.attempts,
        status_codes: status_codes.into_iter().map(u32::from).collect(),
        per_try_timeout: retries.per_try_timeout.unwrap_or_default(),
    })
}
