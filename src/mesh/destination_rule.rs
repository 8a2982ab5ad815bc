//! DestinationRules: which one a caller gets, and what it says for a port and a subset.
//!
//! Sources: `pilot/pkg/model/push_context.go` (`destinationRule`, `setDestinationRules`),
//! `pilot/pkg/networking/util/util.go` of istio/istio 1.31. The search goes through the caller's namespace, the
//! Service's, the root namespace, and the first hit ends it: nothing is merged across namespaces.

use std::collections::HashMap;
use std::sync::Arc;

use super::host::HostMap;
use super::ids::{DestinationRuleId, Host, Labels, Namespace, ObjectRef, SubsetName};
use super::service::Visibility;
use crate::schema::destination_rule::{
    ClientTls, ConnectionPool, DestinationRuleSpec, LoadBalancer, OutlierDetection, Subset, TrafficPolicy,
};

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

/// The rules that a caller gets for a host: several of one namespace are merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppliedRules(pub Vec<DestinationRuleId>);

/// DestinationRules by namespace and host.
#[derive(Debug, Default)]
pub struct DestinationRules {
    rules: Vec<DestinationRule>,
    by_namespace: HashMap<Namespace, HostMap<DestinationRuleId>>,
    /// All rules by host, to find the namespaces whose callers may differ.
    by_host: HostMap<DestinationRuleId>,
}

impl DestinationRules {
    /// Sorts rules by age and indexes them.
    pub fn new(mut rules: Vec<DestinationRule>) -> Self {
        rules.sort_by(|a, b| (&a.created, &a.object).cmp(&(&b.created, &b.object)));
        let mut index = Self::default();
        for (position, rule) in rules.iter().enumerate() {
            let id = DestinationRuleId::new(position);
            index.by_namespace.entry(rule.object.namespace.clone()).or_default().insert(&rule.host, id);
            index.by_host.insert(&rule.host, id);
        }
        index.rules = rules;
        index
    }

    /// One rule.
    pub fn get(&self, id: DestinationRuleId) -> &DestinationRule {
        &self.rules[id.index()]
    }

    /// All rules, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DestinationRule> {
        self.rules.iter()
    }

    /// The rules that callers in `caller` without a matching workload selector get for a host of namespace `owner`.
    pub fn applied(&self, caller: &Namespace, host: &Host, owner: &Namespace, root: &Namespace) -> AppliedRules {
        if caller == root {
            // Public rules of the root namespace are meant for everybody, not for its own gateways first.
            let local = self.local(caller, host, |rule| rule.export_to == Visibility::Private);
            if !local.0.is_empty() {
                return local;
            }
        } else {
            let local = self.local(caller, host, |_| true);
            if !local.0.is_empty() {
                return local;
            }
        }
        let of_owner = self.exported(owner, host, caller);
        if of_owner.0.is_empty() { self.exported(root, host, caller) } else { of_owner }
    }

    fn in_namespace(&self, namespace: &Namespace) -> Option<&HostMap<DestinationRuleId>> {
        self.by_namespace.get(namespace)
    }

    fn local(&self, namespace: &Namespace, host: &Host, wanted: impl Fn(&DestinationRule) -> bool) -> AppliedRules {
        let Some(map) = self.in_namespace(namespace) else {
            return AppliedRules::default();
        };
        for ids in map.covering(host.as_str()) {
            let found: Vec<_> = ids.iter().copied().filter(|id| wanted(self.get(*id))).collect();
            if !found.is_empty() {
                return self.merged(found);
            }
        }
        AppliedRules::default()
    }

    /// The most specific host among public rules is chosen before it is asked whether the caller may see it.
    fn exported(&self, namespace: &Namespace, host: &Host, caller: &Namespace) -> AppliedRules {
        let Some(map) = self.in_namespace(namespace) else {
            return AppliedRules::default();
        };
        for ids in map.covering(host.as_str()) {
            let public: Vec<_> =
                ids.iter().copied().filter(|id| self.get(*id).export_to != Visibility::Private).collect();
            if public.is_empty() {
                continue;
            }
            let seen = public.into_iter().filter(|id| {
                let rule = self.get(*id);
                rule.export_to.reaches(caller, &rule.object.namespace)
            });
            return self.merged(seen.collect());
        }
        AppliedRules::default()
    }

    /// Rules with a workload selector stand alone; here is the view of callers that none selects. Rules for one host
    /// are merged only when they are exported to the same namespaces: the oldest decides.
    fn merged(&self, ids: Vec<DestinationRuleId>) -> AppliedRules {
        let general: Vec<_> = ids.into_iter().filter(|id| self.get(*id).selector.is_none()).collect();
        let Some(first) = general.first().map(|id| self.get(*id)) else {
            return AppliedRules::default();
        };
        AppliedRules(
            general
                .iter()
                .copied()
                .filter(|id| {
                    let rule = self.get(*id);
                    rule.export_to == first.export_to && rule.host == first.host
                })
                .collect(),
        )
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
    pub fn policy<'a>(&'a self, applied: &AppliedRules, port: u16, subset: Option<&SubsetName>) -> Policy<'a> {
        let mut policy = Policy::default();
        let with_policy = applied.0.iter().map(|id| self.get(*id)).find(|rule| rule.spec.traffic_policy.is_some());
        if let Some(rule) = with_policy
            && let Some(written) = &rule.spec.traffic_policy
        {
            policy.take(written, port, &rule.object, "spec.trafficPolicy", Level::Rule);
        }
        if let Some((rule, written)) = subset.and_then(|name| self.subset(applied, name))
            && let Some(written_policy) = &written.traffic_policy
        {
            let index = rule.spec.subsets.iter().position(|subset| std::ptr::eq(subset, written)).unwrap_or_default();
            policy.take(
                written_policy,
                port,
                &rule.object,
                &format!("spec.subsets[{index}].trafficPolicy"),
                Level::Subset,
            );
        }
        policy
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
pub struct Policy<'a> {
    /// Limits.
    pub connection_pool: Option<Sourced<'a, ConnectionPool>>,
    /// Balancing.
    pub load_balancer: Option<Sourced<'a, LoadBalancer>>,
    /// Ejection.
    pub outlier_detection: Option<Sourced<'a, OutlierDetection>>,
    /// TLS.
    pub tls: Option<Sourced<'a, ClientTls>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Rule,
    Subset,
}

impl<'a> Policy<'a> {
    /// Takes a written policy: port-level settings replace all four blocks; a subset overrides block by block.
    fn take(&mut self, written: &'a TrafficPolicy, port: u16, object: &'a ObjectRef, path: &str, level: Level) {
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
            };
            return;
        }
        let own = Self {
            connection_pool: block(written.connection_pool.as_ref(), object, path, "connectionPool"),
            load_balancer: block(written.load_balancer.as_ref(), object, path, "loadBalancer"),
            outlier_detection: block(written.outlier_detection.as_ref(), object, path, "outlierDetection"),
            tls: block(written.tls.as_ref(), object, path, "tls"),
        };
        if level == Level::Rule {
            *self = own;
            return;
        }
        let Self { connection_pool, load_balancer, outlier_detection, tls } = own;
        let before = std::mem::take(self);
        *self = Self {
            connection_pool: connection_pool.or(before.connection_pool),
            load_balancer: load_balancer.or(before.load_balancer),
            outlier_detection: outlier_detection.or(before.outlier_detection),
            tls: tls.or(before.tls),
        };
    }

    /// Whether the upstream protocol is the caller's own.
    pub fn uses_client_protocol(&self) -> bool {
        self.http().is_some_and(|http| http.use_client_protocol == Some(true))
    }

    /// The HTTP part of the connection pool.
    pub fn http(&self) -> Option<&'a crate::schema::destination_rule::HttpPool> {
        self.connection_pool.as_ref().and_then(|pool| pool.value.http.as_ref())
    }

    /// The upgrade policy word, if written.
    pub fn h2_upgrade(&self) -> Option<&'a str> {
        self.http().and_then(|http| http.h2_upgrade_policy.as_deref())
    }
}
