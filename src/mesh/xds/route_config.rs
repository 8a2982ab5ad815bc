//! Route configurations as istiod works with them: VirtualServices with their delegates merged in, and those that it
//! makes of Gateway API routes. Everything after this treats both alike.
//!
//! Sources: `pilot/pkg/model/virtualservice_controller.go` and `push_context.go` of istio/istio 1.31.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::delegate;
use super::gateway_api_conversion;
use super::matching::CompiledMatch;
use crate::mesh::Mesh;
use crate::mesh::host::{self, HostMap};
use crate::mesh::ids::{Host, Namespace, ObjectRef, VirtualServiceId};
use crate::mesh::service::Visibility;
use crate::mesh::virtual_service::{GatewayName, VirtualService};
use crate::schema::Kind;
use crate::schema::virtual_service::{Destination, HttpRule, L4Rule};

/// Routes to some hosts, for sidecars or for gateways.
#[derive(Debug)]
pub struct RouteConfig {
    /// Namespace, which decides who sees it and what its gateways let in.
    pub namespace: Namespace,
    /// Name that istiod knows it by; one of its own for Gateway API.
    pub name: Arc<str>,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Hosts, completed and lower case.
    pub hosts: Vec<Host>,
    /// Where it acts; empty means all sidecars.
    pub gateways: Vec<GatewayName>,
    /// Who sees it.
    pub export_to: Visibility,
    /// Whether it was made of Gateway API routes, which changes what prefixes and missing clusters mean.
    pub is_gateway_api: bool,
    /// HTTP rules, in order.
    pub rules: Vec<ConfigRule>,
    /// The VirtualService that it is.
    pub virtual_service: Option<VirtualServiceId>,
    /// Objects that it comes from.
    pub objects: Vec<ObjectRef>,
}

/// One HTTP rule with the place that a user would look for it.
#[derive(Debug)]
pub struct ConfigRule {
    /// The object: of a delegate's rule, the root.
    pub object: ObjectRef,
    /// Position in the object's list of rules.
    pub index: usize,
    /// The delegate that holds the rest, and the position there.
    pub delegate: Option<(ObjectRef, usize)>,
    /// What is wrong with its backends.
    pub problems: Vec<String>,
    text: RuleText,
    /// Made when they are first asked for: many proxies have the same.
    conditions: OnceLock<Vec<CompiledMatch>>,
}

#[derive(Debug)]
enum RuleText {
    /// As it stands in the object.
    Written,
    /// Merged or converted, with the position of each alternative in the object.
    Made(Box<HttpRule>, Vec<Option<usize>>),
}

impl ConfigRule {
    /// A rule that stands nowhere as it is here.
    pub(super) fn made(
        object: ObjectRef,
        index: usize,
        rule: HttpRule,
        alternatives: Vec<Option<usize>>,
        problems: Vec<String>,
    ) -> Self {
        Self::new(object, index, problems, RuleText::Made(Box::new(rule), alternatives))
    }

    fn new(object: ObjectRef, index: usize, problems: Vec<String>, text: RuleText) -> Self {
        Self { object, index, delegate: None, problems, text, conditions: OnceLock::new() }
    }

    /// The rule.
    pub fn rule<'m>(&'m self, mesh: &'m Mesh<'_>, config: &RouteConfig) -> &'m HttpRule {
        match &self.text {
            RuleText::Made(rule, _) => rule,
            RuleText::Written => {
                let id = config.virtual_service.unwrap_or(VirtualServiceId::new(0));
                &mesh.virtual_services.get(id).spec.http[self.index]
            }
        }
    }

    /// The conditions of each alternative; of a rule without any, one that every call fits.
    pub(super) fn conditions(&self, mesh: &Mesh<'_>, config: &RouteConfig) -> &[CompiledMatch] {
        self.conditions.get_or_init(|| {
            let written = self.rule(mesh, config);
            if written.matches.is_empty() {
                return vec![CompiledMatch::new(None, config.is_gateway_api)];
            }
            written.matches.iter().map(|one| CompiledMatch::new(Some(one), config.is_gateway_api)).collect()
        })
    }

    /// The rule that was made of a Gateway API rule; `None` for one that somebody wrote.
    pub(super) fn made_rule(&self) -> Option<&HttpRule> {
        match &self.text {
            RuleText::Made(rule, _) => Some(rule),
            RuleText::Written => None,
        }
    }

    /// Position in the object of the alternative at `at`.
    pub fn alternative(&self, at: usize) -> Option<usize> {
        match &self.text {
            RuleText::Made(_, alternatives) => alternatives.get(at).copied().flatten(),
            RuleText::Written => Some(at),
        }
    }

    /// Field path of the rule in its object.
    pub fn field(&self) -> String {
        let list = if self.object.kind == Kind::VirtualService { "http" } else { "rules" };
        format!("spec.{list}[{}]", self.index)
    }
}

impl RouteConfig {
    /// Whether sidecars get it.
    pub fn acts_in_mesh(&self) -> bool {
        self.gateways.is_empty() || self.gateways.contains(&GatewayName::Mesh)
    }

    /// Its TCP rules.
    pub fn tcp<'m>(&self, mesh: &'m Mesh<'_>) -> &'m [L4Rule] {
        self.virtual_service.map_or(&[], |id| &mesh.virtual_services.get(id).spec.tcp)
    }

    /// Its TLS rules.
    pub fn tls<'m>(&self, mesh: &'m Mesh<'_>) -> &'m [L4Rule] {
        self.virtual_service.map_or(&[], |id| &mesh.virtual_services.get(id).spec.tls)
    }

    /// A destination's host, completed.
    pub fn destination(&self, mesh: &Mesh<'_>, destination: &Destination) -> Host {
        host::resolve(&destination.host, &self.namespace, &mesh.cluster_domain)
    }
}

/// Position of a route configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigId(usize);

/// How a configuration stands among others for a namespace: lower is asked first.
type Precedence = (u8, bool, usize);

/// All route configurations, oldest first.
#[derive(Debug, Default)]
pub struct RouteConfigs {
    all: Vec<RouteConfig>,
    by_gateway: HashMap<GatewayName, Vec<usize>>,
    /// Those that sidecars get.
    by_host: HostMap<ConfigId>,
}

impl RouteConfigs {
    /// Makes them for a mesh.
    pub(super) fn new(mesh: &Mesh<'_>) -> Self {
        let mut all: Vec<RouteConfig> = mesh
            .virtual_services
            .iter()
            .filter(|(_, object)| !object.hosts.is_empty())
            .map(|(id, object)| of_virtual_service(mesh, id, object))
            .collect();
        all.extend(gateway_api_conversion::configs(mesh));
        all.sort_by(|a, b| (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace)));
        let mut by_gateway: HashMap<GatewayName, Vec<usize>> = HashMap::new();
        for (at, config) in all.iter().enumerate() {
            if config.gateways.is_empty() {
                by_gateway.entry(GatewayName::Mesh).or_default().push(at);
            }
            for gateway in &config.gateways {
                by_gateway.entry(gateway.clone()).or_default().push(at);
            }
        }
        let mut by_host = HostMap::default();
        for (at, config) in all.iter().enumerate().filter(|(_, config)| config.acts_in_mesh()) {
            for host in &config.hosts {
                by_host.insert(host, ConfigId(at));
            }
        }
        Self { all, by_gateway, by_host }
    }

    /// One configuration.
    pub fn get(&self, id: ConfigId) -> &RouteConfig {
        &self.all[id.0]
    }

    /// All configurations, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigId, &RouteConfig)> {
        self.all.iter().enumerate().map(|(at, config)| (ConfigId(at), config))
    }

    /// Those of sidecars whose host covers a host, by host, the most precise first.
    pub fn covering<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a [ConfigId]> + 'a {
        self.by_host.covering(host.as_str())
    }

    /// Those of sidecars that name exactly this host, oldest first.
    pub fn of_host(&self, host: &Host) -> impl Iterator<Item = ConfigId> {
        self.by_host.exact(host.as_str()).iter().copied()
    }

    /// Whether proxies of a namespace see a configuration.
    pub fn is_seen(&self, id: ConfigId, namespace: &Namespace) -> bool {
        self.rank(id, namespace).is_some()
    }

    /// How a configuration stands for proxies of a namespace; `None` where they do not see it.
    pub(super) fn rank(&self, id: ConfigId, namespace: &Namespace) -> Option<Precedence> {
        let config = self.get(id);
        let own_route = config.is_gateway_api && config.namespace == *namespace;
        Some((rank(config, namespace)?, !own_route, id.0))
    }

    /// Those that act at a gateway, or in the mesh, for a proxy in `namespace`: what is private to the namespace first,
    /// then what is exported to it by name, then what everybody sees; inside each the oldest first. Those of Gateway
    /// API in the proxy's own namespace go before others of their class.
    pub(super) fn visible(&self, gateway: &GatewayName, namespace: &Namespace) -> impl Iterator<Item = &RouteConfig> {
        let bound = self.by_gateway.get(gateway).map_or(&[][..], Vec::as_slice);
        let mut ranked: Vec<Precedence> = bound.iter().filter_map(|at| self.rank(ConfigId(*at), namespace)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, at)| &self.all[at])
    }
}

fn rank(config: &RouteConfig, namespace: &Namespace) -> Option<u8> {
    let own = config.namespace == *namespace;
    match &config.export_to {
        Visibility::Public => Some(2),
        Visibility::Private => own.then_some(0),
        Visibility::Namespaces(namespaces) => namespaces.contains(namespace).then_some(u8::from(!own)),
        Visibility::Nobody => None,
    }
}

fn of_virtual_service(mesh: &Mesh<'_>, id: VirtualServiceId, object: &VirtualService) -> RouteConfig {
    let mut rules = Vec::with_capacity(object.spec.http.len());
    for (index, rule) in object.spec.http.iter().enumerate() {
        let own = object.object.clone();
        let Some(delegate) = &rule.delegate else {
            rules.push(ConfigRule::new(own, index, Vec::new(), RuleText::Written));
            continue;
        };
        // A delegate that is missing, or that the root's namespace does not see, takes only this rule away.
        let Some(delegate) = find_delegate(mesh, object, delegate) else { continue };
        let root = completed(mesh, &object.object.namespace, rule);
        for (position, inner) in delegate.spec.http.iter().enumerate() {
            let inner = completed(mesh, &delegate.object.namespace, inner);
            if let Some((merged, alternatives)) = delegate::merge(&root, &inner) {
                let mut rule = ConfigRule::made(own.clone(), index, merged, alternatives, Vec::new());
                rule.delegate = Some((delegate.object.clone(), position));
                rules.push(rule);
            }
        }
    }
    RouteConfig {
        namespace: object.object.namespace.clone(),
        name: Arc::clone(&object.object.name),
        created: object.created.clone(),
        hosts: object.hosts.clone(),
        gateways: object.gateways.clone(),
        export_to: object.export_to.clone(),
        is_gateway_api: false,
        rules,
        virtual_service: Some(id),
        objects: vec![object.object.clone()],
    }
}

/// The delegate of a root's rule, if there is one that the root's namespace sees.
pub fn find_delegate<'m>(
    mesh: &'m Mesh<'_>,
    root: &VirtualService,
    delegate: &crate::schema::virtual_service::Delegate,
) -> Option<&'m VirtualService> {
    let own = &root.object.namespace;
    let namespace =
        delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty()).map_or_else(|| own.clone(), Into::into);
    let found = mesh.virtual_services.named(&namespace, &delegate.name)?;
    (found.spec.hosts.is_empty() && found.export_to.reaches(own, &namespace)).then_some(found)
}

/// A rule with the names in it completed in the namespace of its object.
fn completed(mesh: &Mesh<'_>, namespace: &Namespace, rule: &HttpRule) -> HttpRule {
    let mut rule = rule.clone();
    let complete = |destination: &mut Destination| {
        let full = host::resolve(&destination.host, namespace, &mesh.cluster_domain);
        full.as_str().clone_into(&mut destination.host);
    };
    for target in &mut rule.route.0 {
        target.destination.iter_mut().for_each(complete);
    }
    rule.mirror.iter_mut().for_each(complete);
    for mirror in &mut rule.mirrors.0 {
        mirror.destination.iter_mut().for_each(complete);
    }
    for one in &mut rule.matches.0 {
        for gateway in &mut one.gateways.0 {
            *gateway = GatewayName::parse(gateway, namespace).to_string();
        }
    }
    rule
}
