//! The virtual hosts of a gateway's route tables.
//!
//! Source: `buildGatewayHTTPRouteConfig` and `collapseDuplicateRoutes` in `pilot/pkg/networking/core/gateway.go` of
//! istio/istio 1.31.

use std::collections::HashMap;
use std::rc::Rc;

use super::ProxyConfig;
use super::gateway_listeners::{BoundServer, MergedServers, server_hosts};
use super::host_patterns;
use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;
use crate::mesh::ids::{Host, Namespace};

/// The routes of a configuration, and the rules and matches that istiod skips.
type CompiledRoutes<'m> = (Rc<[CompiledRoute<'m>]>, Rc<[super::TriedRule]>);

impl<'m> ProxyConfig<'m> {
    /// Builds the virtual hosts of a route table from all servers that share it.
    pub(super) fn gateway_hosts(&self, servers: &MergedServers, table: &str) -> Vec<CompiledVirtualHost<'m>> {
        let bound = servers.tables.get(table).map_or(&[][..], Vec::as_slice);
        let mut hosts: Vec<(String, CompiledVirtualHost<'m>)> = Vec::new();
        let mut cached: HashMap<(String, String), CompiledRoutes<'m>> = HashMap::new();
        for BoundServer { gateway, server, .. } in bound {
            let number = server.port.as_ref().map_or(0, |port| port.number);
            let port = u16::try_from(number).unwrap_or(0);
            let redirects_to_https = server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true));
            for config in self.mesh.route_configs().visible_configs(gateway, &self.caller.namespace) {
                let config_hosts: Vec<&str> = config.hosts.iter().map(Host::as_str).collect();
                let allowed = server_hosts(server, &config.namespace);
                let allowed: Vec<String> = allowed.into_iter().map(str::to_owned).collect();
                let common_hosts = host_patterns::intersection(&allowed, &config_hosts);
                if common_hosts.is_empty() {
                    continue;
                }
                let key = (gateway.to_string(), format!("{}/{}", config.name, config.namespace));
                if !cached.contains_key(&key) {
                    let (routes, skipped) = self.routes(config, gateway, port);
                    if routes.is_empty() {
                        continue;
                    }
                    cached.insert(key.clone(), (routes.into(), skipped.into()));
                }
                let Some((routes, skipped)) = cached.get(&key) else { continue };
                for host in common_hosts {
                    let host = host.to_ascii_lowercase();
                    match hosts.iter_mut().find(|(name, _)| *name == host) {
                        Some((_, existing)) => {
                            existing.routes = existing.routes.iter().chain(&**routes).copied().collect();
                            existing.skipped = existing.skipped.iter().chain(&**skipped).cloned().collect();
                            existing.requires_tls |= redirects_to_https;
                        }
                        None => {
                            let virtual_host = CompiledVirtualHost {
                                name: format!("{host}:{number}"),
                                domains: vec![host.clone()],
                                routes: Rc::clone(routes),
                                requires_tls: redirects_to_https,
                                skipped: Rc::clone(skipped),
                            };
                            hosts.push((host, virtual_host));
                        }
                    }
                }
            }
            for host in server.hosts.iter().filter(|_| redirects_to_https) {
                let host = host.to_ascii_lowercase();
                match hosts.iter_mut().find(|(name, _)| *name == host) {
                    Some((_, existing)) => existing.requires_tls = true,
                    None => {
                        let (name, domains) = (format!("{host}:{number}"), vec![host.clone()]);
                        hosts.push((
                            host,
                            CompiledVirtualHost {
                                name,
                                domains,
                                routes: Rc::new([]),
                                requires_tls: true,
                                skipped: Rc::new([]),
                            },
                        ));
                    }
                }
            }
        }
        if hosts.is_empty() {
            let number = bound.first().and_then(|first| first.server.port.as_ref()).map_or(0, |port| port.number);
            return vec![CompiledVirtualHost {
                name: format!("blackhole:{number}"),
                domains: vec!["*".to_owned()],
                routes: Rc::new([]),
                requires_tls: false,
                skipped: Rc::new([]),
            }];
        }
        collapse(hosts)
    }

    /// The target of an ExternalName Service, and the port of a Service that has only one. A Service in the
    /// configuration's own namespace takes precedence over others with the same host.
    pub(super) fn resolve_alias_at_gateway(&self, host: &Host, namespace: &Namespace) -> (Host, Option<u16>) {
        let services = self.mesh.services_named(host.as_str()).iter().map(|id| self.mesh.service(*id));
        let mut visible = services.filter(|service| {
            service.namespace() == namespace && super::scope::is_visible(service, &self.caller.namespace)
        });
        match visible.next() {
            Some(service) => {
                let single = service.ports.first().filter(|_| service.ports.len() == 1).map(|port| port.number);
                match &service.resolution {
                    crate::mesh::service::Resolution::ExternalName(target) => (target.clone(), single),
                    _ => (host.clone(), single),
                }
            }
            None => self.resolve_alias(host),
        }
    }
}

/// Merges hosts with the same routes into one virtual host, named after the most specific host, and moves catch-all
/// routes to the end.
fn collapse<'m>(mut hosts: Vec<(String, CompiledVirtualHost<'m>)>) -> Vec<CompiledVirtualHost<'m>> {
    hosts.sort_by(|(a, _), (b, _)| host_patterns::by_specificity(a, b));
    let mut collapsed: Vec<CompiledVirtualHost<'m>> = Vec::new();
    for (_, host) in hosts {
        let same_routes = collapsed
            .iter_mut()
            .find(|existing| existing.requires_tls == host.requires_tls && existing.routes == host.routes);
        match same_routes {
            Some(existing) => existing.domains.extend(host.domains),
            None => collapsed.push(host),
        }
    }
    for host in &mut collapsed {
        let mut routes = host.routes.to_vec();
        routes.sort_by_key(CompiledRoute::is_catch_all);
        host.routes = routes.into();
    }
    collapsed
}
