//! DestinationRules: which of them apply to a caller, and the effective traffic policy of a port and subset.
//!
//! istiod converts a BackendTLSPolicy to a DestinationRule with one `tls` block ([`super::backend_policy`]), which merges
//! with the written rules for the host.
//!
//! Sources: `pilot/pkg/model/push_context.go` (`destinationRule`, `setDestinationRules`),
//! `pilot/pkg/networking/util/util.go` of istio/istio 1.31. istiod searches the caller's namespace, the
//! Service's namespace and the root namespace, and uses the first match. It never merges rules across namespaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::behavior::{Behaviors, IstiodBehavior};
use super::host::HostMap;
use super::ids::{DestinationRuleId, Host, Labels, Namespace, ObjectRef, SubsetName};
use super::service::Visibility;
use crate::schema::Kind;
use crate::schema::destination_rule::{
    ClientTls, ConnectionPool, DestinationRuleSpec, LoadBalancer, OutlierDetection, Subset, TrafficPolicy,
};
use crate::schema::mesh_config::MeshConfig;

/// A DestinationRule with its host name completed, or one that istiod converts from a BackendTLSPolicy.
#[derive(Debug)]
pub struct DestinationRule {
    /// The DestinationRule or BackendTLSPolicy.
    pub object: ObjectRef,
    /// Fully qualified host, or a wildcard.
    pub host: Host,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    pub export_to: Visibility,
    /// `workloadSelector`: limits the rule to callers of its own namespace with these labels.
    pub selector: Option<Labels>,
    pub spec: DestinationRuleSpec,
}

impl DestinationRule {
    /// Whether istiod converted it from a BackendTLSPolicy.
    pub fn is_converted(&self) -> bool {
        self.object.kind == Kind::BackendTlsPolicy
    }
}

/// The rules that apply to a caller for a host. istiod merges several rules of one namespace under the name of the
/// first.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppliedRules(pub Vec<DestinationRuleId>);

/// Rules for one host that istiod merges into one.
#[derive(Debug)]
struct MergedRules {
    export_to: ExportTo,
    /// `workloadSelector` of the rules.
    selector: Option<Labels>,
    rules: Vec<DestinationRuleId>,
}

/// The written `exportTo` values. istiod compares them literally when it merges rules, so `.` differs from the name of
/// the rule's own namespace.
type ExportTo = BTreeSet<String>;

type MergedByHost = HostMap<MergedRules>;

#[derive(Debug, Default)]
pub struct DestinationRules {
    rules: Vec<DestinationRule>,
    /// Rules that callers of the namespace itself get.
    local: HashMap<Namespace, MergedByHost>,
    /// Rules that callers of other namespaces may get.
    exported: HashMap<Namespace, MergedByHost>,
    /// Private rules of the root namespace.
    root_local: MergedByHost,
    /// All rules, to find the namespaces whose callers may get other rules.
    by_host: HostMap<DestinationRuleId>,
    /// `meshConfig.defaultTrafficPolicy.connectionPool`
    default_pool: Option<ConnectionPool>,
    /// Whether written rules take precedence over converted ones, block by block.
    prefers_written: bool,
}

impl DestinationRules {
    /// Sorts the rules as istiod does, those with a workload selector first and then by age, and merges them.
    pub fn new(
        mut rules: Vec<DestinationRule>,
        root_namespace: &Namespace,
        config: &MeshConfig,
        behaviors: &Behaviors,
    ) -> Self {
        let merges_by_export = behaviors.has(IstiodBehavior::SeparateExports);
        rules.sort_by(|a, b| {
            // istiod gives converted rules no creation time, which makes them the oldest.
            let key = |rule: &DestinationRule| (rule.selector.is_none(), !rule.is_converted(), rule.created.clone());
            let names = |rule: &DestinationRule| (rule.object.name.clone(), rule.object.namespace.clone());
            key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
        });
        let default_export_to = &config.default_destination_rule_export_to;
        let default_pool = config.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.clone());
        let prefers_written = behaviors.has(IstiodBehavior::RulesBeforeBackendPolicies);
        let mut index = Self { default_pool, prefers_written, ..Self::default() };
        for (position, rule) in rules.iter().enumerate() {
            let id = DestinationRuleId::new(position);
            index.by_host.insert(&rule.host, id);
            let own_namespace = &rule.object.namespace;
            // istiod treats a rule with a workload selector as private, whatever its `exportTo`.
            let export_to: ExportTo = if rule.selector.is_some() {
                BTreeSet::from([".".to_owned()])
            } else {
                rule.spec.export_to.iter().cloned().collect()
            };
            let has = |value: &str| export_to.contains(value);
            if export_to.is_empty() || has("*") || has(".") || has(own_namespace.as_str()) {
                index.local.entry(own_namespace.clone()).or_default().merge(id, rule, &export_to, merges_by_export);
            }
            let is_private = (export_to.is_empty() && default_export_to.iter().any(|value| value == "."))
                || (export_to.len() == 1 && (has(".") || has(own_namespace.as_str())));
            if !is_private {
                index.exported.entry(own_namespace.clone()).or_default().merge(id, rule, &export_to, merges_by_export);
            } else if own_namespace == root_namespace {
                index.root_local.merge(id, rule, &export_to, merges_by_export);
            }
        }
        index.rules = rules;
        index
    }

    #[expect(clippy::indexing_slicing, reason = "an id is valid for the mesh that issued it")]
    pub fn get(&self, id: DestinationRuleId) -> &DestinationRule {
        &self.rules[id.index()]
    }

    /// All written rules: those with a workload selector first, each group oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DestinationRule> {
        self.rules.iter().filter(|rule| !rule.is_converted())
    }

    /// All rules, those that istiod converts from BackendTLSPolicies included.
    pub fn with_converted(&self) -> impl Iterator<Item = &DestinationRule> {
        self.rules.iter()
    }

    /// The rules that apply to callers in namespace `caller` for a host of namespace `owner`. Without `labels`, the
    /// caller is one that no workload selector matches.
    ///
    /// Source: `destinationRule` in `push_context.go`.
    pub fn applied(
        &self,
        caller: &Namespace,
        labels: Option<&Labels>,
        host: &Host,
        owner: &Namespace,
        root_namespace: &Namespace,
    ) -> AppliedRules {
        let candidates = self.find_candidates(caller, host, owner, root_namespace);
        let selects = |merged: &MergedRules| {
            let is_local = merged.rules.first().is_some_and(|id| &self.get(*id).object.namespace == caller);
            is_local
                && merged
                    .selector
                    .as_ref()
                    .is_some_and(|selector| labels.is_some_and(|labels| labels.contains_all(selector)))
        };
        // istiod uses the last of several groups without a selector.
        let general = candidates.iter().rev().find(|merged| merged.selector.is_none());
        let chosen = candidates.iter().find(|merged| selects(merged)).or(general);
        AppliedRules(chosen.map(|merged| merged.rules.clone()).unwrap_or_default())
    }

    /// Workload selectors of the rules for `host` in namespace `caller`.
    pub fn selectors<'a>(&'a self, caller: &Namespace, host: &'a Host) -> impl Iterator<Item = &'a Labels> + 'a {
        let pool = self.local.get(caller);
        let lists = pool.into_iter().filter_map(|pool| pool.covering(host.as_str()).next());
        lists.flatten().filter_map(|merged| merged.selector.as_ref())
    }

    /// The first non-empty match in the caller's namespace, the owner's namespace and the root namespace.
    fn find_candidates<'a>(
        &'a self,
        caller: &Namespace,
        host: &'a Host,
        owner: &Namespace,
        root_namespace: &Namespace,
    ) -> Vec<&'a MergedRules> {
        // Public rules of the root namespace have the lowest precedence, for callers in the root namespace too.
        let pool = if caller == root_namespace { Some(&self.root_local) } else { self.local.get(caller) };
        if let Some(own_namespace) = pool.and_then(|pool| pool.covering(host.as_str()).next()) {
            return own_namespace.iter().collect();
        }
        [owner, root_namespace]
            .into_iter()
            .map(|namespace| self.exported_to(caller, namespace, host))
            .find(|rules| !rules.is_empty())
            .unwrap_or_default()
    }

    /// Rules of `namespace` that are exported to `caller`. istiod selects the most specific host before it checks
    /// `exportTo`, so a hidden rule can hide a less specific one.
    fn exported_to<'a>(&'a self, caller: &Namespace, namespace: &Namespace, host: &'a Host) -> Vec<&'a MergedRules> {
        let most_specific = self.exported.get(namespace).and_then(|pool| pool.covering(host.as_str()).next());
        let is_exported = |merged: &&MergedRules| {
            let export_to = &merged.export_to;
            export_to.is_empty() || export_to.contains("*") || export_to.contains(caller.as_str())
        };
        most_specific.into_iter().flatten().filter(is_exported).collect()
    }

    /// The namespaces with a rule whose host matches `host`.
    pub fn namespaces_with_rules_for<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Namespace> + 'a {
        self.by_host.covering(host.as_str()).flatten().map(|id| &self.get(*id).object.namespace)
    }

    /// All rules whose host matches `host`, most specific first, converted ones included.
    pub fn covering<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (DestinationRuleId, &'a DestinationRule)> + 'a {
        self.by_host.covering(host).flatten().map(|id| (*id, self.get(*id)))
    }

    /// The subset with this name. If several applied rules define it, the oldest one wins.
    pub fn subset<'a>(
        &'a self,
        applied: &AppliedRules,
        name: &SubsetName,
    ) -> Option<(&'a DestinationRule, &'a Subset)> {
        applied.0.iter().find_map(|id| {
            let rule = self.get(*id);
            rule.spec.subsets.iter().find(|subset| subset.name == name.as_str()).map(|subset| (rule, subset))
        })
    }

    /// Names of all subsets that the applied rules define.
    pub fn subset_names<'a>(&'a self, applied: &'a AppliedRules) -> impl Iterator<Item = &'a str> + 'a {
        applied.0.iter().flat_map(|id| self.get(*id).spec.subsets.iter()).map(|subset| subset.name.as_str())
    }

    /// The effective traffic policy of a Service port and, optionally, a subset.
    pub fn policy<'a>(&'a self, applied: &AppliedRules, port: u16, subset: Option<&SubsetName>) -> EffectivePolicy<'a> {
        let mut policy = EffectivePolicy { default_pool: self.default_pool.as_ref(), ..EffectivePolicy::default() };
        let with_policy = applied.0.iter().map(|id| self.get(*id)).filter(|rule| rule.spec.traffic_policy.is_some());
        let with_policy: Vec<&DestinationRule> = with_policy.collect();
        for rule in self.base_policies(&with_policy) {
            if let Some(written) = &rule.spec.traffic_policy {
                policy.merge(written, port, &rule.object);
            }
        }
        if let Some((rule, written)) = subset.and_then(|name| self.subset(applied, name))
            && let Some(written_policy) = &written.traffic_policy
        {
            let index = rule.spec.subsets.iter().position(|subset| std::ptr::eq(subset, written)).unwrap_or_default();
            policy.apply(written_policy, port, &rule.object, &format!("spec.subsets[{index}].trafficPolicy"));
        }
        policy
    }

    /// The rules whose policies istiod merges for all subsets, lowest precedence first.
    ///
    /// Of written rules the first one counts. A converted rule, which is always the first, gives way to each written
    /// rule that follows it, so that the last of those has the highest precedence.
    fn base_policies<'a>(&self, with_policy: &[&'a DestinationRule]) -> Vec<&'a DestinationRule> {
        match with_policy {
            [first, ..] if first.is_converted() && self.prefers_written => {
                let is_own_kind = |rule: &&&DestinationRule| std::ptr::eq(**rule, *first) || !rule.is_converted();
                with_policy.iter().filter(is_own_kind).copied().collect()
            }
            [first, ..] => vec![first],
            [] => Vec::new(),
        }
    }
}

impl HostMap<MergedRules> {
    /// Adds a rule, merged with others for the same host or as an entry of its own.
    /// Source: `mergeDestinationRule` in `pilot/pkg/model/destination_rule.go`.
    ///
    /// `merges_by_export`: whether rules with different `exportTo` stay apart.
    fn merge(&mut self, id: DestinationRuleId, rule: &DestinationRule, export_to: &ExportTo, merges_by_export: bool) {
        let separate = MergedRules { export_to: export_to.clone(), selector: rule.selector.clone(), rules: vec![id] };
        let list = self.exact_mut(&rule.host);
        if list.is_empty() {
            list.push(separate);
            return;
        }
        let mut is_separate = true;
        for merged in list.iter_mut() {
            if *export_to == merged.export_to || !merges_by_export {
                is_separate = false;
            } else if !merged.export_to.is_empty() && export_to.is_superset(&merged.export_to) {
                is_separate = true;
            } else {
                is_separate = true;
                continue;
            }
            match (&merged.selector, &rule.selector) {
                (Some(a), Some(b)) if a != b => {
                    is_separate = true;
                    continue;
                }
                (Some(_), Some(_)) | (None, None) => is_separate = false,
                (Some(_), None) | (None, Some(_)) => {}
            }

            merged.rules.push(id);
        }
        if is_separate {
            list.push(separate);
        }
    }
}

/// One block of a traffic policy with its origin.
#[derive(Debug, Clone)]
pub struct PolicyBlock<'a, T> {
    pub value: &'a T,
    /// The DestinationRule.
    pub object: &'a ObjectRef,
    /// Path of the block in the rule.
    pub field: String,
}

/// The effective traffic policy of one port and subset. Absent blocks mean Istio's defaults.
#[derive(Debug, Clone, Default)]
pub struct EffectivePolicy<'a> {
    pub connection_pool: Option<PolicyBlock<'a, ConnectionPool>>,
    pub load_balancer: Option<PolicyBlock<'a, LoadBalancer>>,
    pub outlier_detection: Option<PolicyBlock<'a, OutlierDetection>>,
    pub tls: Option<PolicyBlock<'a, ClientTls>>,
    /// `meshConfig.defaultTrafficPolicy.connectionPool`, used if no rule sets `connectionPool`.
    default_pool: Option<&'a ConnectionPool>,
    /// Whether the blocks are those of a port.
    is_port_level: bool,
}

impl<'a> EffectivePolicy<'a> {
    /// Merges the policy of a rule over this one, block by block, in the port-level settings as well.
    ///
    /// Source: `mergeBackendPolicyTrafficPolicy` in `pilot/pkg/model/destination_rule.go`. istiod merges the policies of
    /// all rules before it selects those of a port, so that a port-level block of either rule replaces all blocks that are
    /// not port-level.
    fn merge(&mut self, written: &'a TrafficPolicy, port: u16, object: &'a ObjectRef) {
        let lower = std::mem::take(self);
        self.default_pool = lower.default_pool;
        self.apply(written, port, object, "spec.trafficPolicy");
        match (lower.is_port_level, self.is_port_level) {
            (false, true) => {}
            (true, false) => *self = lower,
            _ => {
                self.connection_pool = self.connection_pool.take().or(lower.connection_pool);
                self.load_balancer = self.load_balancer.take().or(lower.load_balancer);
                self.outlier_detection = self.outlier_detection.take().or(lower.outlier_detection);
                self.tls = self.tls.take().or(lower.tls);
            }
        }
    }

    /// Applies a written policy over this one, block by block. Port-level settings replace all four blocks.
    fn apply(&mut self, written: &'a TrafficPolicy, port: u16, object: &'a ObjectRef, path: &str) {
        fn block<'a, T>(
            value: Option<&'a T>,
            object: &'a ObjectRef,
            path: &str,
            name: &str,
        ) -> Option<PolicyBlock<'a, T>> {
            let is_converted = object.kind == Kind::BackendTlsPolicy;
            let field = || if is_converted { "spec.validation".to_owned() } else { format!("{path}.{name}") };
            value.map(|value| PolicyBlock { value, object, field: field() })
        }
        let mut port_level = written.port_level_settings.iter().enumerate();
        let found = port_level
            .find(|(_, entry)| entry.port.as_ref().is_some_and(|selector| selector.number == u32::from(port)));
        if let Some((index, entry)) = found {
            let path = format!("{path}.portLevelSettings[{index}]");
            *self = Self {
                connection_pool: block(entry.connection_pool.as_ref(), object, &path, "connectionPool"),
                load_balancer: block(entry.load_balancer.as_ref(), object, &path, "loadBalancer"),
                outlier_detection: block(entry.outlier_detection.as_ref(), object, &path, "outlierDetection"),
                tls: block(entry.tls.as_ref(), object, &path, "tls"),
                default_pool: self.default_pool,
                is_port_level: true,
            };
            return;
        }
        let parent = std::mem::take(self);
        *self = Self {
            connection_pool: block(written.connection_pool.as_ref(), object, path, "connectionPool")
                .or(parent.connection_pool),
            load_balancer: block(written.load_balancer.as_ref(), object, path, "loadBalancer").or(parent.load_balancer),
            outlier_detection: block(written.outlier_detection.as_ref(), object, path, "outlierDetection")
                .or(parent.outlier_detection),
            tls: block(written.tls.as_ref(), object, path, "tls").or(parent.tls),
            default_pool: parent.default_pool,
            is_port_level: parent.is_port_level,
        };
    }

    /// `useClientProtocol`: whether the upstream protocol is that of the caller.
    pub fn uses_client_protocol(&self) -> bool {
        self.http_pool().is_some_and(|http| http.use_client_protocol == Some(true))
    }

    /// The effective connection pool limits: those of the rules, else those of the mesh configuration.
    pub fn effective_pool(&self) -> Option<&'a ConnectionPool> {
        self.connection_pool.as_ref().map(|pool| pool.value).or(self.default_pool)
    }

    pub fn http_pool(&self) -> Option<&'a crate::schema::destination_rule::HttpPool> {
        self.effective_pool().and_then(|pool| pool.http.as_ref())
    }

    /// The written `h2UpgradePolicy`.
    pub fn h2_upgrade_policy(&self) -> Option<&'a str> {
        self.http_pool().and_then(|http| http.h2_upgrade_policy.as_deref())
    }
}
