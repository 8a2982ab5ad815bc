//! The compiled route tables of one proxy in the shape of Envoy's config dump, to compare them with the observed stage.
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

/// A route table that istiod sends.
#[derive(Debug)]
pub struct CompiledRouteTable {
    /// The table that Envoy runs if it accepts it.
    pub table: envoy::EnvoyRouteTable,
    /// Why Envoy rejects it and keeps the previous one; `None` if it accepts it.
    pub rejection: Option<String>,
}

impl<'m> ProxyConfig<'m> {
    /// The route tables that istiod sends to this proxy; for a sidecar, those with at least one virtual host.
    pub fn route_tables(&self) -> Vec<CompiledRouteTable> {
        if self.is_gateway() {
            let servers = self.servers();
            let names = servers.tables.keys();
            return names.map(|name| self.envoy_table(name.clone(), &self.gateway_hosts(&servers, name))).collect();
        }
        let names = self.route_table_names();
        let tables = names.iter().map(|name| self.envoy_table(name.to_string(), &self.virtual_hosts(name)));
        tables.filter(|compiled| !compiled.table.virtual_hosts.is_empty()).collect()
    }

    /// The route tables that the listeners of a sidecar use, by port.
    pub(super) fn route_table_names(&self) -> Vec<RouteTableName> {
        let mut names: Vec<RouteTableName> = Vec::new();
        for port in self.ports() {
            for name in self.tables_of_port(port) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        names
    }

    /// Ports for which a sidecar may have listeners.
    fn ports(&self) -> BTreeSet<u16> {
        let listeners = &self.scope.listeners;
        let egress_ports = listeners.iter().filter_map(|listener| listener.port.map(|(port, _)| port));
        let services = listeners.iter().flat_map(|listener| &listener.services);
        let service_ports = services.flat_map(|visible| visible.ports(self.mesh)).map(|port| port.number);
        egress_ports.chain(service_ports).collect()
    }

    fn envoy_table(&self, name: String, hosts: &[CompiledVirtualHost<'m>]) -> CompiledRouteTable {
        let rejection = hosts.iter().flat_map(|host| host.routes.iter()).find_map(CompiledRoute::rejection);
        let hosts = hosts.iter().map(|host| envoy::EnvoyVirtualHost {
            name: host.name.clone(),
            domains: host.domains.clone(),
            redirects_to_tls: host.requires_tls,
            routes: host.routes.iter().map(|route| self.envoy_route(route)).collect(),
        });
        CompiledRouteTable { table: envoy::EnvoyRouteTable { name, virtual_hosts: hosts.collect() }, rejection }
    }

    fn envoy_route(&self, route: &CompiledRoute<'m>) -> envoy::EnvoyRoute {
        let action = match route.action {
            CompiledAction::Forward | CompiledAction::Service(_) => {
                envoy::EnvoyAction::Forward(self.forward(route).map(envoy_forward).unwrap_or_default())
            }
            CompiledAction::Passthrough => envoy::EnvoyAction::Forward(envoy::EnvoyForward {
                clusters: vec![("PassthroughCluster".to_owned(), 1)],
                ..envoy::EnvoyForward::default()
            }),
            CompiledAction::Redirect(status) => envoy::EnvoyAction::Redirect(status),
            CompiledAction::DirectResponse(status) => envoy::EnvoyAction::DirectResponse(status),
            CompiledAction::Block => envoy::EnvoyAction::DirectResponse(502),
        };
        envoy::EnvoyRoute { name: route.name().into_owned(), conditions: route.conditions(), action }
    }
}

fn envoy_forward(CompiledForward { backends, timeout, retries, mirrors }: CompiledForward) -> envoy::EnvoyForward {
    let timeout = timeout.unwrap_or_default();
    let weight = |weight: Option<i64>| u64::try_from(weight.unwrap_or(1)).unwrap_or(0);
    envoy::EnvoyForward {
        clusters: backends.into_iter().map(|backend| (backend.cluster, weight(backend.weight))).collect(),
        timeout,
        max_grpc_timeout: timeout,
        retries: envoy_retries(&retries),
        mirrors: mirrors.into_iter().map(envoy_mirror).collect(),
    }
}

fn envoy_mirror(CompiledMirror { backend, percent }: CompiledMirror) -> (String, u64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "istiod truncates it too")]
    let share = (percent * envoy::MILLIONTHS_PER_PERCENT) as u64;
    (backend.cluster, share)
}

fn envoy_retries(retries: &RetryPolicy) -> Option<envoy::EnvoyRetries> {
    if retries.attempts == 0 {
        return None;
    }
    let (mut retry_on, mut status_codes) = (retries.retry_on.clone(), retries.status_codes.clone());
    retry_on.sort();
    status_codes.sort_unstable();
    Some(envoy::EnvoyRetries {
        retry_on,
        attempts: retries.attempts,
        status_codes: status_codes.into_iter().map(u32::from).collect(),
        per_try_timeout: retries.per_try_timeout.unwrap_or_default(),
    })
}
