//! DestinationRules: which one a caller gets, and what it says for a port and a subset.
//!
//! Sources: `pilot/pkg/model/push_context.go` (`destinationRule`, `setDestinationRules`),
//! `pilot/pkg/networking/util/util.go` of istio/istio 1.31. The search goes through the caller's namespace, the
//! Service's, the root namespace, and the first hit ends it: nothing is merged across namespaces.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::host::HostMap;
use super::ids::{DestinationRuleId, Host, Labels, Namespace, ObjectRef, SubsetName};
use super::service::Visibility;
use crate::schema::destination_rule::{
    ClientTls, ConnectionPool, DestinationRuleSpec, LoadBalancer, OutlierDetection, Subset, TrafficPolicy,
};
use crate::schema::mesh_config::MeshConfig;

/// A DestinationRule with its host completed.
#[derive(Debug)]
pub struct DestinationRule {
    /// The object.
    pub object: ObjectRef,
    /// Host or wildcard.
    pub host: Host,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Who sees it.
    pub export_to: Visibility,
    /// Narrows it to these callers of its own namespace.
    pub selector: Option<Labels>,
    /// As written.
    pub spec: DestinationRuleSpec,
}

/// The rules that a caller gets for a host: several of one namespace are merged, and the first one names them.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppliedRules(pub Vec<DestinationRuleId>);

/// Rules for one host that istiod merges into one, with the namespaces that see them.
#[derive(Debug)]
struct MergedRules {
    export_to: ExportTo,
    /// Labels of the callers that it is for.
    selector: Option<Labels>,
    rules: Vec<DestinationRuleId>,
}

/// `exportTo` as written. Which rules are merged depends on the words, not on what they mean: `.` and the name of the
/// own namespace are two things here.
type ExportTo = BTreeSet<String>;

/// Merged rules by host.
type MergedByHost = HostMap<MergedRules>;

/// DestinationRules by namespace and host.
#[derive(Debug, Default)]
pub struct DestinationRules {
    rules: Vec<DestinationRule>,
    /// What callers of the namespace find there first.
    local: HashMap<Namespace, MergedByHost>,
    /// What is shown to callers elsewhere.
    exported: HashMap<Namespace, MergedByHost>,
    /// Private rules of the root namespace.
    root: MergedByHost,
    /// All rules by host, to find the namespaces whose callers may differ.
    by_host: HostMap<DestinationRuleId>,
    /// Limits that the mesh configuration has for everybody.
    default_pool: Option<ConnectionPool>,
}

impl DestinationRules {
    /// Sorts rules and merges them as istiod does: those with a workload selector first, then by age.
    pub fn new(mut rules: Vec<DestinationRule>, root: &Namespace, config: &MeshConfig) -> Self {
        rules.sort_by(|a, b| {
            let key = |rule: &DestinationRule| (rule.selector.is_none(), rule.created.clone());
            let names = |rule: &DestinationRule| (rule.object.name.clone(), rule.object.namespace.clone());
            key(a).cmp(&key(b)).then_with(|| names(a).cmp(&names(b)))
        });
        let default_export_to = &config.default_destination_rule_export_to;
        let default_pool = config.default_traffic_policy.as_ref().and_then(|policy| policy.connection_pool.clone());
        let mut index = Self { default_pool, ..Self::default() };
        for (position, rule) in rules.iter().enumerate() {
            let id = DestinationRuleId::new(position);
            index.by_host.insert(&rule.host, id);
            let own = &rule.object.namespace;
            // A rule with a workload selector is private whatever it says.
            let words: ExportTo = if rule.selector.is_some() {
                BTreeSet::from([".".to_owned()])
            } else {
                rule.spec.export_to.iter().cloned().collect()
            };
            let has = |word: &str| words.contains(word);
            if words.is_empty() || has("*") || has(".") || has(own.as_str()) {
                index.local.entry(own.clone()).or_default().merge(id, rule, &words);
            }
            let private = (words.is_empty() && default_export_to.iter().any(|word| word == "."))
                || (words.len() == 1 && (has(".") || has(own.as_str())));
            if !private {
                index.exported.entry(own.clone()).or_default().merge(id, rule, &words);
            } else if own == root {
                index.root.merge(id, rule, &words);
            }
        }
        index.rules = rules;
        index
    }

    /// One rule.
    pub fn get(&self, id: DestinationRuleId) -> &DestinationRule {
        &self.rules[id.index()]
    }

    /// All rules: those with a workload selector first, then oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DestinationRule> {
        self.rules.iter()
    }

    /// The rules that callers in `caller` get for a host of namespace `owner`. Without `labels` the caller is one that
    /// no workload selector picks.
    pub fn applied(
        &self,
        caller: &Namespace,
        labels: Option<&Labels>,
        host: &Host,
        owner: &Namespace,
        root: &Namespace,
    ) -> AppliedRules {
        let found = self.found(caller, host, owner, root);
        let selects = |merged: &MergedRules| {
            let of_caller = merged.rules.first().is_some_and(|id| &self.get(*id).object.namespace == caller);
            of_caller
                && merged
                    .selector
                    .as_ref()
                    .is_some_and(|selector| labels.is_some_and(|labels| labels.contains_all(selector)))
        };
        // Of several that are for everybody the last one is taken.
        let general = found.iter().rev().find(|merged| merged.selector.is_none());
        let chosen = found.iter().find(|merged| selects(merged)).or(general);
        AppliedRules(chosen.map(|merged| merged.rules.clone()).unwrap_or_default())
    }

    /// Labels of workload selectors that might pick callers of `host` in `caller`.
    pub fn selectors<'a>(&'a self, caller: &Namespace, host: &'a Host) -> impl Iterator<Item = &'a Labels> + 'a {
        let pool = self.local.get(caller);
        let lists = pool.into_iter().filter_map(|pool| pool.covering(host.as_str()).next());
        lists.flatten().filter_map(|merged| merged.selector.as_ref())
    }

    /// The search through the caller's namespace, the owner's, the root: the first hit ends it.
    fn found<'a>(
        &'a self,
        caller: &Namespace,
        host: &'a Host,
        owner: &Namespace,
        root: &Namespace,
    ) -> Vec<&'a MergedRules> {
        // Public rules of the root namespace are meant for everybody, not for its own gateways first.
        let pool = if caller == root { Some(&self.root) } else { self.local.get(caller) };
        if let Some(own) = pool.and_then(|pool| pool.covering(host.as_str()).next()) {
            return own.iter().collect();
        }
        [owner, root]
            .into_iter()
            .map(|from| self.shown(from, host, caller))
            .find(|shown| !shown.is_empty())
            .unwrap_or_default()
    }

    /// The most specific host is chosen before it is asked whether the caller may see its rules.
    fn shown<'a>(&'a self, namespace: &Namespace, host: &'a Host, caller: &Namespace) -> Vec<&'a MergedRules> {
        let most_specific = self.exported.get(namespace).and_then(|pool| pool.covering(host.as_str()).next());
        let seen = |merged: &&MergedRules| {
            let words = &merged.export_to;
            words.is_empty() || words.contains("*") || words.contains(caller.as_str())
        };
        most_specific.into_iter().flatten().filter(seen).collect()
    }

    /// The namespaces, besides the Service's own, whose rules might apply to callers of `host`.
    pub fn namespaces_with_rules_for<'a>(&'a self, host: &'a Host) -> impl Iterator<Item = &'a Namespace> + 'a {
        self.by_host.covering(host.as_str()).flatten().map(|id| &self.get(*id).object.namespace)
    }

    /// All rules whose host covers `host`.
    pub fn covering<'a>(
        &'a self,
        host: &'a str,
    ) -> impl Iterator<Item = (DestinationRuleId, &'a DestinationRule)> + 'a {
        self.by_host.covering(host).flatten().map(|id| (*id, self.get(*id)))
    }

    /// A subset of the applied rules: of two with one name the older rule's wins.
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

    /// Names of all subsets of the applied rules.
    pub fn subset_names<'a>(&'a self, applied: &'a AppliedRules) -> impl Iterator<Item = &'a str> + 'a {
        applied.0.iter().flat_map(|id| self.get(*id).spec.subsets.iter()).map(|subset| subset.name.as_str())
    }

    /// The policy in force for a port and perhaps a subset.
    pub fn policy<'a>(&'a self, applied: &AppliedRules, port: u16, subset: Option<&SubsetName>) -> EffectivePolicy<'a> {
        let mut policy = EffectivePolicy { default_pool: self.default_pool.as_ref(), ..EffectivePolicy::default() };
        let with_policy = applied.0.iter().map(|id| self.get(*id)).find(|rule| rule.spec.traffic_policy.is_some());
        if let Some(rule) = with_policy
            && let Some(written) = &rule.spec.traffic_policy
        {
            policy.take(written, port, &rule.object, "spec.trafficPolicy");
        }
        if let Some((rule, written)) = subset.and_then(|name| self.subset(applied, name))
            && let Some(written_policy) = &written.traffic_policy
        {
            let index = rule.spec.subsets.iter().position(|subset| std::ptr::eq(subset, written)).unwrap_or_default();
            policy.take(written_policy, port, &rule.object, &format!("spec.subsets[{index}].trafficPolicy"));
        }
        policy
    }
}

impl HostMap<MergedRules> {
    /// Adds a rule: to the rules for the same host that it is merged with, or beside them.
    /// Source: `mergeDestinationRule` in `pilot/pkg/model/destination_rule.go`.
    fn merge(&mut self, id: DestinationRuleId, rule: &DestinationRule, words: &ExportTo) {
        let alone = MergedRules { export_to: words.clone(), selector: rule.selector.clone(), rules: vec![id] };
        let list = self.exact_mut(&rule.host);
        if list.is_empty() {
            list.push(alone);
            return;
        }
        let mut stands_alone = true;
        for merged in list.iter_mut() {
            if *words == merged.export_to {
                stands_alone = false;
            } else if !merged.export_to.is_empty() && words.is_superset(&merged.export_to) {
                stands_alone = true;
            } else {
                stands_alone = true;
                continue;
            }
            match (&merged.selector, &rule.selector) {
                (Some(a), Some(b)) if a != b => {
                    stands_alone = true;
                    continue;
                }
                (Some(_), Some(_)) | (None, None) => stands_alone = false,
                (Some(_), None) | (None, Some(_)) => {}
            }

            merged.rules.push(id);
        }
        if stands_alone {
            list.push(alone);
        }
    }
}

/// A block of a policy with the place that it comes from.
#[derive(Debug, Clone)]
pub struct Sourced<'a, T> {
    /// The block.
    pub value: &'a T,
    /// The rule.
    pub object: &'a ObjectRef,
    /// Field path of the block.
    pub field: String,
}

/// The policy in force for one port and subset. Absent blocks have Istio's defaults.
#[derive(Debug, Clone, Default)]
pub struct EffectivePolicy<'a> {
    /// Limits.
    pub connection_pool: Option<Sourced<'a, ConnectionPool>>,
    /// Balancing.
    pub load_balancer: Option<Sourced<'a, LoadBalancer>>,
    /// Ejection.
    pub outlier_detection: Option<Sourced<'a, OutlierDetection>>,
    /// TLS.
    pub tls: Option<Sourced<'a, ClientTls>>,
    /// Limits of the mesh configuration, in force where none are written at all.
    default_pool: Option<&'a ConnectionPool>,
}

impl<'a> EffectivePolicy<'a> {
    /// Takes a written policy: port-level settings replace all four blocks; a subset overrides block by block.
    fn take(&mut self, written: &'a TrafficPolicy, port: u16, object: &'a ObjectRef, path: &str) {
        fn block<'a, T>(value: Option<&'a T>, object: &'a ObjectRef, path: &str, name: &str) -> Option<Sourced<'a, T>> {
            value.map(|value| Sourced { value, object, field: format!("{path}.{name}") })
        }
        let of_port = written
            .port_level_settings
            .iter()
            .position(|entry| entry.port.as_ref().is_some_and(|selector| selector.number == u32::from(port)));
        if let Some(index) = of_port {
            let entry = &written.port_level_settings[index];
            let path = format!("{path}.portLevelSettings[{index}]");
            *self = Self {
                connection_pool: block(entry.connection_pool.as_ref(), object, &path, "connectionPool"),
                load_balancer: block(entry.load_balancer.as_ref(), object, &path, "loadBalancer"),
                outlier_detection: block(entry.outlier_detection.as_ref(), object, &path, "outlierDetection"),
                tls: block(entry.tls.as_ref(), object, &path, "tls"),
                default_pool: self.default_pool,
            };
            return;
        }
        let before = std::mem::take(self);
        *self = Self {
            connection_pool: block(written.connection_pool.as_ref(), object, path, "connectionPool")
                .or(before.connection_pool),
            load_balancer: block(written.load_balancer.as_ref(), object, path, "loadBalancer").or(before.load_balancer),
            outlier_detection: block(written.outlier_detection.as_ref(), object, path, "outlierDetection")
                .or(before.outlier_detection),
            tls: block(written.tls.as_ref(), object, path, "tls").or(before.tls),
            default_pool: before.default_pool,
        };
    }

    /// Whether the upstream protocol is the caller's own.
    pub fn uses_client_protocol(&self) -> bool {
        self.http().is_some_and(|http| http.use_client_protocol == Some(true))
    }

    /// The limits in force: those written, else those that the mesh configuration has for everybody.
    pub fn pool(&self) -> Option<&'a ConnectionPool> {
        self.connection_pool.as_ref().map(|pool| pool.value).or(self.default_pool)
    }

    /// The HTTP part of the connection pool.
    pub fn http(&self) -> Option<&'a crate::schema::destination_rule::HttpPool> {
        self.pool().and_then(|pool| pool.http.as_ref())
    }

    /// The upgrade policy word, if written.
    pub fn h2_upgrade(&self) -> Option<&'a str> {
        self.http().and_then(|http| http.h2_upgrade_policy.as_deref())
    }
}
