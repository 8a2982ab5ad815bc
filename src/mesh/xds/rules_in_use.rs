//! Which rules of which objects a proxy uses, and where each sends its calls.

use super::route::CompiledRoute;
use super::virtual_host::CompiledVirtualHost;
use super::{CompiledBackend, ProxyConfig};
use crate::mesh::ids::ObjectRef;

/// A rule as one proxy has it, under one virtual host.
#[derive(Debug, Clone)]
pub struct RuleInUse {
    /// Host that is called, as the virtual host is named.
    pub host: String,
    /// The object; absent for what Istio does by itself.
    pub object: Option<ObjectRef>,
    /// Index of the rule in the object.
    pub rule: usize,
    /// Where it sends calls, those without weight left out.
    pub backends: Vec<CompiledBackend>,
}

impl<'m> ProxyConfig<'m> {
    /// The rules that decide over calls to hosts that `wanted` takes; those of delegates under the delegate's name.
    pub fn rules_in_use(&self, wanted: &dyn Fn(&str) -> bool) -> Vec<RuleInUse> {
        let mut found = Vec::new();
        let mut take = |hosts: Vec<CompiledVirtualHost<'m>>| {
            for one in hosts {
                let host = one.name.rsplit_once(':').map_or(&*one.name, |(host, _)| host);
                if wanted(host) {
                    found.extend(one.routes.iter().map(|route| self.in_use(host, route)));
                }
            }
        };
        if self.is_gateway() {
            let servers = self.servers();
            for table in servers.tables.keys() {
                take(self.gateway_hosts(&servers, table));
            }
            return found;
        }
        let mut seen = Vec::new();
        for port in self.ports() {
            for table in self.tables_of_port(port) {
                if !seen.contains(&table) {
                    take(self.virtual_hosts(&table));
                    seen.push(table);
                }
            }
        }
        found
    }

    fn in_use(&self, host: &str, route: &CompiledRoute<'m>) -> RuleInUse {
        let rule = route.origin.map(|origin| origin.rule);
        let named = rule.map(|rule| rule.delegate.clone().unwrap_or_else(|| (rule.object.clone(), rule.index)));
        let (object, rule) = named.map_or((None, 0), |(object, rule)| (Some(object), rule));
        let backends = self.forward(route).map(|forward| forward.backends).unwrap_or_default();
        RuleInUse { host: host.to_owned(), object, rule, backends }
    }
}
