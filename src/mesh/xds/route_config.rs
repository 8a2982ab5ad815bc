//! Route configurations, the common form of VirtualServices (with their delegates merged in) and of converted Gateway
//! API routes. All later steps treat both alike.
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
use crate::snapshot::{Gap, GapKind};

/// Routes to some hosts, for sidecars or for gateways.
#[derive(Debug)]
pub struct RouteConfig {
    /// Namespace of its objects. It decides visibility, and which hosts of a Gateway the configuration may use.
    pub namespace: Namespace,
    /// The VirtualService's name, or the name that istiod generates for Gateway API routes.
    pub name: Arc<str>,
    /// Creation time in RFC 3339 format.
    pub created: Option<Arc<str>>,
    /// Full host names in lower case.
    pub hosts: Vec<Host>,
    /// The gateways that use it; empty means all sidecars.
    pub gateways: Vec<GatewayName>,
    /// The namespaces whose proxies see it.
    pub export_to: Visibility,
    /// Whether it comes from Gateway API routes, which changes the meaning of path prefixes and missing clusters.
    pub is_gateway_api: bool,
    /// HTTP rules, in the order in which Envoy tries them.
    pub rules: Vec<ConfigRule>,
    /// The VirtualService; `None` for Gateway API.
    pub virtual_service: Option<VirtualServiceId>,
    /// The objects that it comes from.
    pub objects: Vec<ObjectRef>,
}

/// One HTTP rule of a configuration, with its position in the written object.
#[derive(Debug)]
pub struct ConfigRule {
    /// The object; for a delegate's rule, the root.
    pub object: ObjectRef,
    /// Index in the object's list of rules.
    pub index: usize,
    /// The delegate and the index of the merged rule in it.
    pub delegate: Option<(ObjectRef, usize)>,
    /// Invalid backends, one message each.
    pub backend_problems: Vec<String>,
    source: RuleSource,
    /// Compiled on first use and shared by all proxies.
    conditions: OnceLock<Vec<CompiledMatch>>,
}

#[derive(Debug)]
enum RuleSource {
    /// The rule in the object, unchanged.
    Written,
    /// A merged or converted rule, with the index of each match in the root's `match` list.
    Generated(Box<HttpRule>, Vec<Option<usize>>),
}

impl ConfigRule {
    /// A rule that istiod generates: a delegate's rule merged into its root, or a converted Gateway API rule.
    pub(super) fn generated(
        object: ObjectRef,
        index: usize,
        rule: HttpRule,
        match_indexes: Vec<Option<usize>>,
        backend_problems: Vec<String>,
    ) -> Self {
        Self::new(object, index, backend_problems, RuleSource::Generated(Box::new(rule), match_indexes))
    }

    fn new(object: ObjectRef, index: usize, backend_problems: Vec<String>, source: RuleSource) -> Self {
        Self { object, index, delegate: None, backend_problems, source, conditions: OnceLock::new() }
    }

    /// The compiled rule. `config` must be the configuration that contains it.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn http_rule<'m>(&'m self, mesh: &'m Mesh<'_>, config: &RouteConfig) -> &'m HttpRule {
        match &self.source {
            RuleSource::Generated(rule, _) => rule,
            RuleSource::Written => {
                let id = config.virtual_service.unwrap_or(VirtualServiceId::new(0));
                &mesh.virtual_services.get(id).spec.http[self.index]
            }
        }
    }

    /// The conditions of each match; for a rule without matches, one condition that every call meets.
    pub(super) fn conditions(&self, mesh: &Mesh<'_>, config: &RouteConfig) -> &[CompiledMatch] {
        self.conditions.get_or_init(|| {
            let rule = self.http_rule(mesh, config);
            if rule.matches.is_empty() {
                return vec![CompiledMatch::new(None, config.is_gateway_api)];
            }
            let matches = rule.matches.iter();
            matches.map(|conditions| CompiledMatch::new(Some(conditions), config.is_gateway_api)).collect()
        })
    }

    /// The generated rule; `None` for a rule that is used as written.
    pub(super) fn generated_rule(&self) -> Option<&HttpRule> {
        match &self.source {
            RuleSource::Generated(rule, _) => Some(rule),
            RuleSource::Written => None,
        }
    }

    /// Index in the written rule's `match` list of the match at `position` in the compiled rule; `None` if the root has
    /// no such match.
    pub fn match_index(&self, position: usize) -> Option<usize> {
        match &self.source {
            RuleSource::Generated(_, indexes) => indexes.get(position).copied().flatten(),
            RuleSource::Written => Some(position),
        }
    }

    /// Field path of the rule in its object, such as `spec.http[0]`.
    pub fn field(&self) -> String {
        let list = if self.object.kind == Kind::VirtualService { "http" } else { "rules" };
        format!("spec.{list}[{}]", self.index)
    }
}

impl RouteConfig {
    /// Whether sidecars use it.
    pub fn acts_in_mesh(&self) -> bool {
        GatewayName::list_includes_mesh(&self.gateways)
    }

    /// TCP rules; Gateway API configurations have none.
    pub fn tcp<'m>(&self, mesh: &'m Mesh<'_>) -> &'m [L4Rule] {
        self.virtual_service.map_or(&[], |id| &mesh.virtual_services.get(id).spec.tcp)
    }

    /// TLS rules; Gateway API configurations have none.
    pub fn tls<'m>(&self, mesh: &'m Mesh<'_>) -> &'m [L4Rule] {
        self.virtual_service.map_or(&[], |id| &mesh.virtual_services.get(id).spec.tls)
    }

    /// The full host name of a destination.
    pub fn destination_host(&self, mesh: &Mesh<'_>, destination: &Destination) -> Host {
        host::to_fqdn(&destination.host, &self.namespace, &mesh.cluster_domain)
    }
}

/// Position of a configuration in [`RouteConfigs`], oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConfigId(usize);

/// Precedence of a configuration for the proxies of one namespace: visibility class, whether it is another namespace's
/// or a VirtualService, and position. Lower values win.
type Precedence = (u8, bool, usize);

/// All route configurations, oldest first.
#[derive(Debug, Default)]
pub struct RouteConfigs {
    all: Vec<RouteConfig>,
    by_gateway: HashMap<GatewayName, Vec<usize>>,
    /// Configurations for sidecars.
    by_host: HostMap<ConfigId>,
    /// VirtualServices whose delegates are merged only in part, because of [`MAX_MERGED_MATCHES`].
    truncated: Vec<ObjectRef>,
}

/// Matches that merging delegates may produce in the whole mesh. A root with n matches and a delegate with n matches have
/// n × n together, of up to 3 kB each.
const MAX_MERGED_MATCHES: usize = 20_000;

impl RouteConfigs {
    pub(super) fn new(mesh: &Mesh<'_>) -> Self {
        let mut merging = DelegateMerging { remaining: MAX_MERGED_MATCHES, truncated: Vec::new() };
        let mut all: Vec<RouteConfig> = mesh
            .virtual_services
            .iter()
            .filter(|(_, object)| !object.hosts.is_empty())
            .map(|(id, object)| virtual_service_config(mesh, id, object, &mut merging))
            .collect();
        all.extend(gateway_api_conversion::configs(mesh));
        all.sort_by(|a, b| (&a.created, &a.name, &a.namespace).cmp(&(&b.created, &b.name, &b.namespace)));
        let mut by_gateway: HashMap<GatewayName, Vec<usize>> = HashMap::new();
        for (position, config) in all.iter().enumerate() {
            if config.gateways.is_empty() {
                by_gateway.entry(GatewayName::Mesh).or_default().push(position);
            }
            for gateway in &config.gateways {
                by_gateway.entry(gateway.clone()).or_default().push(position);
            }
        }
        let mut by_host = HostMap::default();
        for (position, config) in all.iter().enumerate().filter(|(_, config)| config.acts_in_mesh()) {
            for host in &config.hosts {
                by_host.insert(host, ConfigId(position));
            }
        }
        Self { all, by_gateway, by_host, truncated: merging.truncated }
    }

    /// A gap for each VirtualService whose delegates have too many matches to merge all of them.
    pub fn gaps(&self) -> impl Iterator<Item = Gap> + '_ {
        self.truncated.iter().map(|object| Gap {
            namespace: Some(object.namespace.to_string()),
            ..Gap::of_kind(
                Kind::VirtualService,
                format!("rules of delegates of {object}"),
                format!("merging them gives more than {MAX_MERGED_MATCHES} matches; use fewer matches in the root"),
                GapKind::Failed,
            )
        })
    }

    /// The configuration with this id.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn get(&self, id: ConfigId) -> &RouteConfig {
        &self.all[id.0]
    }

    /// All configurations, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (ConfigId, &RouteConfig)> {
        self.all.iter().enumerate().map(|(position, config)| (ConfigId(position), config))
    }

    /// Configurations for sidecars with a host that equals or covers `host`, grouped by their host, the most specific
    /// first.
    pub fn covering_host<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a [ConfigId]> + 'a {
        self.by_host.covering(host.as_str())
    }

    /// Configurations for sidecars that name exactly this host, oldest first.
    pub fn naming_host(&self, host: &Host) -> impl Iterator<Item = ConfigId> {
        self.by_host.exact(host.as_str()).iter().copied()
    }

    /// Whether proxies of a namespace see a configuration.
    pub fn is_visible(&self, id: ConfigId, namespace: &Namespace) -> bool {
        self.precedence(id, namespace).is_some()
    }

    /// Precedence of a configuration for proxies of a namespace; `None` if they do not see it.
    pub(super) fn precedence(&self, id: ConfigId, namespace: &Namespace) -> Option<Precedence> {
        let config = self.get(id);
        let own_route = config.is_gateway_api && config.namespace == *namespace;
        Some((visibility_class(config, namespace)?, !own_route, id.0))
    }

    /// Configurations of a gateway, or of the mesh, that a proxy in `namespace` sees, by precedence: private ones of the
    /// namespace, then those exported to it by name, then public ones. Within each class, Gateway API routes of the
    /// proxy's own namespace come first, and older configurations before younger ones.
    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub(super) fn visible_configs(
        &self,
        gateway: &GatewayName,
        namespace: &Namespace,
    ) -> impl Iterator<Item = &RouteConfig> {
        let bound = self.by_gateway.get(gateway).map_or(&[][..], Vec::as_slice);
        let mut ranked: Vec<Precedence> =
            bound.iter().filter_map(|position| self.precedence(ConfigId(*position), namespace)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|(_, _, position)| &self.all[position])
    }
}

fn visibility_class(config: &RouteConfig, namespace: &Namespace) -> Option<u8> {
    let is_own = config.namespace == *namespace;
    match &config.export_to {
        Visibility::Public => Some(2),
        Visibility::Private => is_own.then_some(0),
        Visibility::Namespaces(namespaces) => namespaces.contains(namespace).then_some(u8::from(!is_own)),
        Visibility::NoNamespace => None,
    }
}

/// How many matches may still be merged, and where that was not enough.
struct DelegateMerging {
    remaining: usize,
    truncated: Vec<ObjectRef>,
}

impl DelegateMerging {
    /// Reserves the matches of a merged rule. Returns false, and notes the root, when too many were merged already.
    fn reserve(&mut self, object: &ObjectRef, root: &HttpRule, delegate: &HttpRule) -> bool {
        let matches = root.matches.len().max(1).saturating_mul(delegate.matches.len().max(1));
        match self.remaining.checked_sub(matches) {
            Some(remaining) => self.remaining = remaining,
            None if self.truncated.last() == Some(object) => return false,
            None => {
                self.truncated.push(object.clone());
                return false;
            }
        }
        true
    }
}

fn virtual_service_config(
    mesh: &Mesh<'_>,
    id: VirtualServiceId,
    object: &VirtualService,
    merging: &mut DelegateMerging,
) -> RouteConfig {
    let mut rules = Vec::with_capacity(object.spec.http.len());
    for (index, rule) in object.spec.http.iter().enumerate() {
        let reference = object.object.clone();
        let Some(delegate) = &rule.delegate else {
            rules.push(ConfigRule::new(reference, index, Vec::new(), RuleSource::Written));
            continue;
        };
        // Without its delegate, istiod drops only this rule.
        let Some(delegate) = find_delegate(mesh, object, delegate) else { continue };
        let root_rule = with_full_names(mesh, &object.object.namespace, rule);
        for (delegate_index, delegate_rule) in delegate.spec.http.iter().enumerate() {
            if !merging.reserve(&reference, &root_rule, delegate_rule) {
                break;
            }
            let delegate_rule = with_full_names(mesh, &delegate.object.namespace, delegate_rule);
            if let Some((merged, match_indexes)) = delegate::merge(&root_rule, &delegate_rule) {
                let mut rule = ConfigRule::generated(reference.clone(), index, merged, match_indexes, Vec::new());
                rule.delegate = Some((delegate.object.clone(), delegate_index));
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

/// The delegate of a root's rule: a VirtualService without hosts that is exported to the root's namespace.
pub fn find_delegate<'m>(
    mesh: &'m Mesh<'_>,
    root: &VirtualService,
    delegate: &crate::schema::virtual_service::Delegate,
) -> Option<&'m VirtualService> {
    let root_namespace = &root.object.namespace;
    let namespace = delegate.namespace.as_deref().filter(|namespace| !namespace.is_empty());
    let namespace = namespace.map_or_else(|| root_namespace.clone(), Into::into);
    let target = mesh.virtual_services.find(&namespace, &delegate.name)?;
    (target.spec.hosts.is_empty() && target.export_to.includes(root_namespace, &namespace)).then_some(target)
}

/// A copy of a rule in which short names of hosts and gateways are expanded in the namespace of its object.
fn with_full_names(mesh: &Mesh<'_>, namespace: &Namespace, rule: &HttpRule) -> HttpRule {
    let mut rule = rule.clone();
    let expand = |destination: &mut Destination| {
        let full = host::to_fqdn(&destination.host, namespace, &mesh.cluster_domain);
        full.as_str().clone_into(&mut destination.host);
    };
    for target in &mut rule.route.0 {
        target.destination.iter_mut().for_each(expand);
    }
    rule.mirror.iter_mut().for_each(expand);
    for mirror in &mut rule.mirrors.0 {
        mirror.destination.iter_mut().for_each(expand);
    }
    for conditions in &mut rule.matches.0 {
        for gateway in &mut conditions.gateways.0 {
            *gateway = GatewayName::parse(gateway, namespace).to_string();
        }
    }
    rule
}
