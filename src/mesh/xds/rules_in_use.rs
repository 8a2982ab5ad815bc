//! Lists the rules that one proxy uses, with the backends of each.

use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;
use super::{CompiledBackend, ProxyConfig};
use crate::mesh::ids::ObjectRef;

/// A rule that one proxy uses in one virtual host.
#[derive(Debug, Clone)]
pub struct RuleInUse {
    /// Name of the virtual host, without the port.
    pub host: String,
    /// The object, for a delegate's rule the delegate; `None` for Istio's default route.
    pub object: Option<ObjectRef>,
    /// Index of the rule in the object.
    pub rule: usize,
    /// Backends with a weight above 0.
    pub backends: Vec<CompiledBackend>,
}

impl<'m> ProxyConfig<'m> {
    /// The rules of all virtual hosts whose name, without the port, is accepted by `is_selected`.
    pub fn rules_in_use(&self, is_selected: &dyn Fn(&str) -> bool) -> Vec<RuleInUse> {
        let mut rules = Vec::new();
        let mut add_rules = |hosts: Vec<CompiledVirtualHost<'m>>| {
            for virtual_host in hosts {
                let host = virtual_host.name.rsplit_once(':').map_or(&*virtual_host.name, |(host, _)| host);
                if is_selected(host) {
                    rules.extend(virtual_host.routes.iter().map(|route| self.rule_in_use(host, route)));
                }
            }
        };
        if self.is_gateway() {
            let servers = self.servers();
            for table in servers.tables.keys() {
                add_rules(self.gateway_hosts(&servers, table));
            }
            return rules;
        }
        for table in self.route_table_names() {
            add_rules(self.virtual_hosts(&table));
        }
        rules
    }

    fn rule_in_use(&self, host: &str, route: &CompiledRoute<'m>) -> RuleInUse {
        let rule = route.origin.map(|origin| origin.rule);
        let position = rule.map(|rule| rule.delegate.clone().unwrap_or_else(|| (rule.object.clone(), rule.index)));
        let (object, rule) = position.map_or((None, 0), |(object, index)| (Some(object), index));
        let backends = self.forward(route).map(|forward| forward.backends).unwrap_or_default();
        RuleInUse { host: host.to_owned(), object, rule, backends }
    }
}
