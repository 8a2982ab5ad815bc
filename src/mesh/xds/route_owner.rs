//! Finds the route configuration that owns the routes to one host for a caller, without building the route table.
//! Pages and rules need this for many Services.

use std::collections::HashSet;

use super::gateway_listeners::{DroppedServer, DuplicateServer};
use super::matching::CompiledMatch;
use super::route_config::ConfigRule;
use super::route_config::{ConfigId, RouteConfig};
use super::scope::{self, EgressImports};
use super::{Caller, CallerKind, CompiledBackend, ProxyConfig, matching};
use crate::mesh::ids::{Host, Namespace, ObjectRef, ServiceId, VirtualServiceId};
use crate::mesh::virtual_service::GatewayName;
use crate::mesh::{Mesh, SidecarObject};
use crate::schema::virtual_service::Destination;

/// The owner of the routes to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteOwner {
    /// Istio itself, with the default route to all endpoints.
    Default,
    /// A route configuration.
    Config(ConfigId),
    /// No routes exist, because the caller does not see the Service.
    Hidden,
}

impl Mesh<'_> {
    /// The owner of the routes to a Service's port for a caller.
    ///
    /// Among configurations that name the Service's host, the first with rules for this caller and port owns it.
    /// If none names it, the configuration with the most specific wildcard does.
    ///
    /// Source: `BuildSidecarVirtualHostWrapper` in `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31.
    pub fn route_owner(&self, caller: &Caller, id: ServiceId, port: u16) -> RouteOwner {
        let service = self.service(id);
        let imports =
            scope::sidecar_of(self, caller).map(|sidecar| EgressImports::new(self, sidecar, &caller.namespace, port));
        let is_imported = imports.as_ref().is_none_or(|imports| imports.includes(service));
        if !is_imported || !scope::is_visible(service, &caller.namespace) {
            return RouteOwner::Hidden;
        }
        let owner = self.owner_in_scope(caller, &service.host, service.namespace(), port, imports.as_ref());
        owner.map_or(RouteOwner::Default, RouteOwner::Config)
    }

    /// The configuration that owns the routes to a host for a caller, whether or not a Service has the host.
    /// `service_namespace` is the namespace that the Service has or would have.
    pub fn owner_of_host(
        &self,
        caller: &Caller,
        host: &Host,
        service_namespace: &Namespace,
        port: u16,
    ) -> Option<ConfigId> {
        let imports =
            scope::sidecar_of(self, caller).map(|sidecar| EgressImports::new(self, sidecar, &caller.namespace, port));
        self.owner_in_scope(caller, host, service_namespace, port, imports.as_ref())
    }

    fn owner_in_scope(
        &self,
        caller: &Caller,
        host: &Host,
        service_namespace: &Namespace,
        port: u16,
        imports: Option<&EgressImports<'_>>,
    ) -> Option<ConfigId> {
        let configs = self.route_configs();
        let is_in_scope = |id: &ConfigId| {
            let is_visible = configs.precedence(*id, &caller.namespace).is_some();
            is_visible && imports.is_none_or(|imports| imports.includes_config(configs.get(*id)))
        };
        let has_rules = |id: &ConfigId| self.has_rules_for(configs.get(*id), caller, service_namespace, port);
        for (position, ids) in configs.covering_host(host).enumerate() {
            let mut candidates: Vec<ConfigId> = ids.iter().copied().filter(is_in_scope).collect();
            if candidates.is_empty() {
                continue;
            }
            candidates.sort_by_key(|id| configs.precedence(*id, &caller.namespace));
            let is_exact = position == 0 && candidates.iter().any(|id| configs.get(*id).hosts.contains(host));
            let mut candidates = candidates.into_iter();
            return if is_exact { candidates.find(has_rules) } else { candidates.next().filter(has_rules) };
        }
        None
    }

    /// Whether a configuration has rules for a caller and port. A Gateway API route acts only for callers of its own
    /// namespace, unless it is in the Service's namespace.
    pub fn has_rules_for(
        &self,
        config: &RouteConfig,
        caller: &Caller,
        service_namespace: &Namespace,
        port: u16,
    ) -> bool {
        if config.is_gateway_api && config.namespace != caller.namespace && config.namespace != *service_namespace {
            return false;
        }
        config.rules.iter().any(|rule| {
            let rule = rule.http_rule(self, config);
            let applies =
                |conditions| matching::applies_to(conditions, config, caller, &GatewayName::Mesh, port).is_ok();
            rule.matches.is_empty() || rule.matches.iter().any(applies)
        })
    }

    /// The Sidecar object that limits a caller.
    pub fn sidecar_of(&self, caller: &Caller) -> Option<ObjectRef> {
        scope::sidecar_of(self, caller).map(|sidecar| sidecar.object.clone())
    }

    /// Whether any egress listener of the caller's Sidecar imports a configuration; true without a Sidecar.
    pub fn imports_config(&self, caller: &Caller, config: &RouteConfig) -> bool {
        let sidecar = scope::sidecar_of(self, caller);
        sidecar.is_none_or(|sidecar| scope::imports_config(self, sidecar, &caller.namespace, config))
    }

    /// Why Envoy rejects every route table that contains a rule; `None` when the rule is valid.
    pub fn envoy_rejection(&self, config: &RouteConfig, rule: &ConfigRule) -> Option<String> {
        let http_rule = rule.http_rule(self, config);
        let weights: Vec<_> = http_rule.route.iter().map(|target| target.weight).collect();
        if weights.len() > 1 && crate::mesh::written_route::weight_shares(&weights).is_none() {
            return Some("several destinations without any weight".to_owned());
        }
        let status = http_rule.direct_response.as_ref().map(|response| response.status);
        if let Some(status) = status.filter(|status| !(200..600).contains(status)) {
            return Some(format!("HTTP status {status}"));
        }
        rule.conditions(self, config).iter().find_map(CompiledMatch::rejection)
    }

    /// The Sidecar object that limits what a caller sees.
    pub fn sidecar_for(&self, caller: &Caller) -> Option<&SidecarObject> {
        scope::sidecar_of(self, caller)
    }

    /// Servers of Gateways that istiod drops because they conflict with an earlier one, and servers with the same TLS
    /// server name as another one, on all gateways of the mesh.
    pub fn conflicting_servers(&self) -> (Vec<DroppedServer>, Vec<DuplicateServer>) {
        let mut visited = HashSet::new();
        let (mut dropped, mut duplicates) = (Vec::new(), Vec::new());
        for id in self.workload_ids() {
            let caller = Caller::of_workload(self, id);
            let key = (caller.namespace.clone(), caller.labels.clone());
            if caller.kind != CallerKind::Gateway || !visited.insert(key) {
                continue;
            }
            let proxy = ProxyConfig::new(self, caller);
            let servers = proxy.servers();
            duplicates.extend(proxy.duplicate_servers(&servers));
            for server in servers.dropped {
                if !dropped.contains(&server) {
                    dropped.push(server);
                }
            }
        }
        duplicates.dedup();
        (dropped, duplicates)
    }

    /// The VirtualService that owns the routes, if the owner is one.
    pub fn owning_virtual_service(&self, owner: RouteOwner) -> Option<VirtualServiceId> {
        match owner {
            RouteOwner::Config(id) => self.route_configs().get(id).virtual_service,
            RouteOwner::Default | RouteOwner::Hidden => None,
        }
    }

    /// Compiles a destination for a caller. The caller's Sidecar need not import the host, since istiod adds the
    /// destinations of every imported configuration.
    pub fn backend_for(&self, caller: &Caller, host: &Host, destination: &Destination, port: u32) -> CompiledBackend {
        let visible = scope::inferred_service(self, &caller.namespace, host.as_str());
        super::cluster::ClusterBuilder { mesh: self, caller }.backend(visible.as_ref(), host, destination, port, None)
    }
}
