//! Who owns the routes to one Service for a caller, without making the whole route table: the question that pages and
//! rules ask for many Services.

use std::collections::HashSet;

use super::gateway_listeners::DroppedServer;
use super::matching::CompiledMatch;
use super::route_config::ConfigRule;
use super::route_config::{ConfigId, RouteConfig};
use super::scope::{self, EgressImports};
use super::{Caller, CallerKind, CompiledBackend, ProxyConfig, matching};
use crate::mesh::ids::{Host, Namespace, ServiceId, VirtualServiceId};
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::{Mesh, SidecarObject};
use crate::schema::virtual_service::Destination;

/// Who owns the routes to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOwner {
    /// Nobody: Istio's default route to all endpoints.
    Default,
    /// A route configuration.
    Config(ConfigId),
    /// Nobody, since the caller does not see the Service at all.
    Hidden,
}

impl Mesh<'_> {
    /// Who owns the routes to a Service's port for a caller.
    ///
    /// Of configurations with the Service's very host the first one that has rules for this caller and port takes it;
    /// without any such host, the most precise wildcard.
    pub fn route_owner(&self, caller: &Caller, id: ServiceId, port: u16) -> RouteOwner {
        let service = self.service(id);
        let imports =
            scope::sidecar_of(self, caller).map(|sidecar| EgressImports::new(sidecar, &caller.namespace, port));
        let imported = imports.as_ref().is_none_or(|imports| imports.takes(service));
        if !imported || !scope::is_visible(service, &caller.namespace) {
            return RouteOwner::Hidden;
        }
        let owner = self.owner_in_scope(caller, &service.host, service.namespace(), port, imports.as_ref());
        owner.map_or(RouteOwner::Default, RouteOwner::Config)
    }

    /// The configuration that owns the routes to a host, whether or not there is a Service, for a caller.
    /// `of_service` is the Service's namespace.
    pub fn owner_of_host(&self, caller: &Caller, host: &Host, of_service: &Namespace, port: u16) -> Option<ConfigId> {
        let imports =
            scope::sidecar_of(self, caller).map(|sidecar| EgressImports::new(sidecar, &caller.namespace, port));
        self.owner_in_scope(caller, host, of_service, port, imports.as_ref())
    }

    /// The same for a caller whose Sidecar takes `imports`.
    fn owner_in_scope(
        &self,
        caller: &Caller,
        host: &Host,
        of_service: &Namespace,
        port: u16,
        imports: Option<&EgressImports<'_>>,
    ) -> Option<ConfigId> {
        let configs = self.route_configs();
        let taken = |at: &ConfigId| {
            let config = configs.get(*at);
            configs.rank(*at, &caller.namespace).is_some() && imports.is_none_or(|imports| imports.takes_config(config))
        };
        let gives = |at: &ConfigId| self.gives_rules(configs.get(*at), caller, of_service, port);
        for (position, ids) in configs.covering(host).enumerate() {
            let mut own: Vec<ConfigId> = ids.iter().copied().filter(taken).collect();
            if own.is_empty() {
                continue;
            }
            own.sort_by_key(|at| configs.rank(*at, &caller.namespace));
            let exact = position == 0 && own.iter().any(|at| configs.get(*at).hosts.contains(host));
            return if exact { own.into_iter().find(gives) } else { own.into_iter().next().filter(gives) };
        }
        None
    }

    /// Whether a configuration has rules for a caller and port.
    pub fn gives_rules(&self, config: &RouteConfig, caller: &Caller, of_service: &Namespace, port: u16) -> bool {
        if config.is_gateway_api && config.namespace != caller.namespace && config.namespace != *of_service {
            return false;
        }
        config.rules.iter().any(|rule| {
            let written = rule.rule(self, config);
            let fits = |one| matching::is_for(one, config, caller, &GatewayName::Mesh, port).is_ok();
            written.matches.is_empty() || written.matches.iter().any(fits)
        })
    }

    /// Whether a caller's Sidecar, if it has one, imports a configuration at all.
    pub fn imports_config(&self, caller: &Caller, config: &RouteConfig) -> bool {
        let sidecar = scope::sidecar_of(self, caller);
        sidecar.is_none_or(|sidecar| scope::imports_config(sidecar, &caller.namespace, config))
    }

    /// Why Envoy refuses the whole route table that a rule stands in; `None` when it takes it.
    pub fn refused(&self, config: &RouteConfig, rule: &ConfigRule) -> Option<String> {
        let written = rule.rule(self, config);
        let weights: Vec<_> = written.route.iter().map(|target| target.weight).collect();
        if weights.len() > 1 && crate::mesh::written_route::shares(&weights).is_none() {
            return Some("several destinations without any weight".to_owned());
        }
        let status = written.direct_response.as_ref().map(|response| response.status);
        if let Some(status) = status.filter(|status| !(200..600).contains(status)) {
            return Some(format!("HTTP status {status}"));
        }
        rule.conditions(self, config).iter().find_map(CompiledMatch::refused)
    }

    /// The Sidecar object that narrows what a caller sees.
    pub fn sidecar_for(&self, caller: &Caller) -> Option<&SidecarObject> {
        scope::sidecar_of(self, caller)
    }

    /// Servers of Gateways that istiod leaves out beside an earlier one, on the gateways of the mesh.
    pub fn left_out_servers(&self) -> Vec<DroppedServer> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for id in self.workload_ids() {
            let caller = Caller::of_workload(self, id);
            let key = (caller.namespace.clone(), caller.labels.clone());
            if caller.kind != CallerKind::Gateway || !seen.insert(key) {
                continue;
            }
            for one in ProxyConfig::new(self, caller).servers().left_out {
                if !found.contains(&one) {
                    found.push(one);
                }
            }
        }
        found
    }

    /// The VirtualService that an owner is.
    pub fn owning_virtual_service(&self, owner: RouteOwner) -> Option<VirtualServiceId> {
        match owner {
            RouteOwner::Config(id) => self.route_configs().get(id).virtual_service,
            RouteOwner::Default | RouteOwner::Hidden => None,
        }
    }

    /// A destination of a configuration that a caller gets. Its host need not be imported: what a configuration sends
    /// to is.
    pub fn backend_for(&self, caller: &Caller, host: &Host, destination: &Destination, port: u32) -> CompiledBackend {
        let seen = scope::inferred(self, &caller.namespace, host.as_str());
        super::cluster::ClusterBuilder { mesh: self, caller }.backend(seen.as_ref(), host, destination, port, None)
    }
}
