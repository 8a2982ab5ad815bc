//! Route tables of a gateway.
//!
//! Source: `buildGatewayHTTPRouteConfig` and `collapseDuplicateRoutes` in `pilot/pkg/networking/core/gateway.go` of
//! istio/istio 1.31.

use std::collections::HashMap;
use std::rc::Rc;

use super::ProxyConfig;
use super::gateway_listeners::{MergedServers, PlacedServer, server_hosts};
use super::host_patterns;
use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;
use crate::mesh::ids::{Host, Namespace};

/// Routes of a configuration, and what was left out.
type CompiledRoutes<'m> = (Rc<[CompiledRoute<'m>]>, Rc<[super::TriedRule]>);

impl<'m> ProxyConfig<'m> {
    /// The virtual hosts of a gateway's route table.
    pub(super) fn gateway_hosts(&self, servers: &MergedServers, table: &str) -> Vec<CompiledVirtualHost<'m>> {
        let placed = servers.tables.get(table).map_or(&[][..], Vec::as_slice);
        let mut hosts: Vec<(String, CompiledVirtualHost<'m>)> = Vec::new();
        let mut cached: HashMap<(String, String), CompiledRoutes<'m>> = HashMap::new();
        for PlacedServer { gateway, server, .. } in placed {
            let number = server.port.as_ref().map_or(0, |port| port.number);
            let port = u16::try_from(number).unwrap_or(0);
            let redirects = server.tls.as_ref().is_some_and(|tls| tls.https_redirect == Some(true));
            for config in self.mesh.route_configs().visible(gateway, &self.caller.namespace) {
                let own: Vec<String> = config.hosts.iter().map(|host| host.as_str().to_owned()).collect();
                let allowed = server_hosts(server, &config.namespace);
                let allowed: Vec<String> = allowed.into_iter().map(str::to_owned).collect();
                let own: Vec<&str> = own.iter().map(String::as_str).collect();
                let both = host_patterns::intersection(&allowed, &own);
                if both.is_empty() {
                    continue;
                }
                let key = (gateway.to_string(), format!("{}/{}", config.name, config.namespace));
                if !cached.contains_key(&key) {
                    let (routes, left_out) = self.routes(config, gateway, port);
                    if routes.is_empty() {
                        continue;
                    }
                    cached.insert(key.clone(), (routes.into(), left_out.into()));
                }
                let Some((routes, left_out)) = cached.get(&key) else { continue };
                for host in both {
                    let host = host.to_ascii_lowercase();
                    match hosts.iter_mut().find(|(name, _)| *name == host) {
                        Some((_, one)) => {
                            one.routes = one.routes.iter().chain(&**routes).copied().collect();
                            one.left_out = one.left_out.iter().chain(&**left_out).cloned().collect();
                            one.needs_tls |= redirects;
                        }
                        None => {
                            let one = CompiledVirtualHost {
                                name: format!("{host}:{number}"),
                                domains: vec![host.clone()],
                                routes: Rc::clone(routes),
                                needs_tls: redirects,
                                left_out: Rc::clone(left_out),
                            };
                            hosts.push((host, one));
                        }
                    }
                }
            }
            for host in server.hosts.iter().filter(|_| redirects) {
                let host = host.to_ascii_lowercase();
                match hosts.iter_mut().find(|(name, _)| *name == host) {
                    Some((_, one)) => one.needs_tls = true,
                    None => {
                        let (name, domains) = (format!("{host}:{number}"), vec![host.clone()]);
                        hosts.push((
                            host,
                            CompiledVirtualHost {
                                name,
                                domains,
                                routes: Rc::new([]),
                                needs_tls: true,
                                left_out: Rc::new([]),
                            },
                        ));
                    }
                }
            }
        }
        if hosts.is_empty() {
            let number = placed.first().and_then(|one| one.server.port.as_ref()).map_or(0, |port| port.number);
            return vec![CompiledVirtualHost {
                name: format!("blackhole:{number}"),
                domains: vec!["*".to_owned()],
                routes: Rc::new([]),
                needs_tls: false,
                left_out: Rc::new([]),
            }];
        }
        collapse(hosts)
    }

    /// A destination's host behind an alias, and the only port of its Service. The configuration's own namespace goes
    /// first when a host is in several.
    pub(super) fn concrete_at_gateway(&self, host: &Host, namespace: &Namespace) -> (Host, Option<u16>) {
        let own = self.mesh.services_named(host.as_str()).iter().map(|id| self.mesh.service(*id));
        let mut visible = own.filter(|service| {
            service.namespace() == namespace && super::scope::is_visible(service, &self.caller.namespace)
        });
        match visible.next() {
            Some(service) => {
                let single = (service.ports.len() == 1).then(|| service.ports[0].number);
                match &service.resolution {
                    crate::mesh::service::Resolution::ExternalName(target) => (target.clone(), single),
                    _ => (host.clone(), single),
                }
            }
            None => self.concrete(host),
        }
    }
}

/// Hosts with the same routes share a virtual host, named by the most precise; catch-alls go behind other routes.
fn collapse<'m>(mut hosts: Vec<(String, CompiledVirtualHost<'m>)>) -> Vec<CompiledVirtualHost<'m>> {
    hosts.sort_by(|(a, _), (b, _)| host_patterns::by_precision(a, b));
    let mut found: Vec<CompiledVirtualHost<'m>> = Vec::new();
    for (_, one) in hosts {
        let same = found.iter_mut().find(|have| have.needs_tls == one.needs_tls && have.routes == one.routes);
        match same {
            Some(have) => have.domains.extend(one.domains),
            None => found.push(one),
        }
    }
    for host in &mut found {
        let mut routes = host.routes.to_vec();
        routes.sort_by_key(CompiledRoute::is_catch_all);
        host.routes = routes.into();
    }
    found
}
