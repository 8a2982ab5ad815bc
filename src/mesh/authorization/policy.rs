//! AuthorizationPolicies as istiod translates them: each rule as alternatives of conditions on attributes.
//!
//! Source: `New` in `pilot/pkg/security/authz/model/model.go` and `ShouldAttachPolicy` in
//! `pilot/pkg/model/policyattachment.go` of istio/istio 1.31.

use crate::mesh::GATEWAY_NAME_LABEL;
use crate::mesh::ids::{Labels, Namespace, ObjectRef};
use crate::mesh::workload::{ProxyKind, Workload};
use crate::schema::security::{AuthorizationPolicySpec, AuthorizationRule, PolicyTarget, RuleOperation, RuleSource};
use crate::vocabulary::go_bool;

/// Class of the Gateways that are waypoints.
const WAYPOINT_CLASS: &str = "istio-waypoint";

/// The written `action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyAction {
    Allow,
    Deny,
    /// Records calls; it never denies one.
    Audit,
    /// Asks an external authorizer about the calls that a rule matches.
    Custom,
}

impl PolicyAction {
    /// istiod reads no `action` as `ALLOW`. `None`: a value that the API server refuses.
    fn parse(action: Option<&str>) -> Option<Self> {
        match action {
            None | Some("" | "ALLOW") => Some(Self::Allow),
            Some("DENY") => Some(Self::Deny),
            Some("AUDIT") => Some(Self::Audit),
            Some("CUSTOM") => Some(Self::Custom),
            Some(_) => None,
        }
    }

    /// The value in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }
}

/// What a condition compares.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyAttribute {
    Host,
    Method,
    Path,
    /// A request header, in lower case. `Err`: the key has no name in brackets.
    Header(Result<String, ()>),
    /// Claims of a token.
    Token,
    DestinationIp,
    DestinationPort,
    ServerName,
    SourceIp,
    RemoteIp,
    SourceNamespace,
    ServiceAccount,
    TrustDomain,
    Principal,
    /// `experimental.envoy.filters.…`
    FilterMetadata,
}

impl PolicyAttribute {
    /// Whether only HTTP requests have the attribute. A TCP filter chain cannot compare it.
    pub fn is_http_only(&self) -> bool {
        matches!(self, Self::Host | Self::Method | Self::Path | Self::Header(_) | Self::Token)
    }

    /// The attribute of a `when` key. `None`: istiod skips the rule.
    fn of_key(key: &str) -> Option<Self> {
        let attribute = match key {
            "destination.ip" => Self::DestinationIp,
            "destination.port" => Self::DestinationPort,
            "connection.sni" => Self::ServerName,
            "source.ip" => Self::SourceIp,
            "remote.ip" => Self::RemoteIp,
            "source.namespace" => Self::SourceNamespace,
            "source.trustDomain" => Self::TrustDomain,
            "source.serviceAccount" => Self::ServiceAccount,
            "source.principal" => Self::Principal,
            "request.auth.principal" | "request.auth.audiences" | "request.auth.presenter" => Self::Token,
            _ if key.starts_with("experimental.envoy.filters.") => Self::FilterMetadata,
            _ if key.starts_with("request.auth.claims") => Self::Token,
            _ => {
                let name = key.strip_prefix("request.headers")?;
                let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
                Self::Header(name.map(str::to_ascii_lowercase).ok_or(()))
            }
        };
        Some(attribute)
    }

    /// The attribute in words, such as `the path`.
    pub fn title(&self) -> String {
        match self {
            Self::Host => "the authority".to_owned(),
            Self::Method => "the HTTP method".to_owned(),
            Self::Path => "the path".to_owned(),
            Self::Header(Ok(name)) => format!("header {name}"),
            Self::Header(Err(())) => "a header".to_owned(),
            Self::Token => "the token".to_owned(),
            Self::DestinationIp => "the pod's address".to_owned(),
            Self::DestinationPort => "the pod's port".to_owned(),
            Self::ServerName => "the SNI name".to_owned(),
            Self::SourceIp => "the caller's address".to_owned(),
            Self::RemoteIp => "the client's address".to_owned(),
            Self::SourceNamespace => "the caller's namespace".to_owned(),
            Self::ServiceAccount => "the caller's ServiceAccount".to_owned(),
            Self::TrustDomain => "the caller's trust domain".to_owned(),
            Self::Principal => "the caller's identity".to_owned(),
            Self::FilterMetadata => "filter metadata".to_owned(),
        }
    }
}

/// One attribute with the values that it must have, or must not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyCondition {
    pub attribute: PolicyAttribute,
    /// Empty: any value.
    pub values: Vec<String>,
    pub not_values: Vec<String>,
    /// Path of the written values in the rule, such as `to[0].operation.paths`.
    pub field: String,
}

/// One rule. It matches a call if some entry of both lists has no condition that fails.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PolicyRule {
    /// From `from`, with the conditions of `when` that concern the caller.
    pub sources: Vec<Vec<PolicyCondition>>,
    /// From `to`, with the other conditions of `when`.
    pub operations: Vec<Vec<PolicyCondition>>,
}

impl PolicyRule {
    /// Translates a rule. `None`: istiod skips it because of an unknown `when` key.
    fn new(rule: &AuthorizationRule) -> Option<Self> {
        let mut on_source = Vec::new();
        let mut on_operation = Vec::new();
        for (index, condition) in rule.when.iter().enumerate() {
            let attribute = PolicyAttribute::of_key(&condition.key)?;
            let list = match attribute {
                PolicyAttribute::DestinationIp
                | PolicyAttribute::DestinationPort
                | PolicyAttribute::ServerName
                | PolicyAttribute::FilterMetadata => &mut on_operation,
                _ => &mut on_source,
            };
            let fields = [format!("when[{index}].values"), format!("when[{index}].notValues")];
            push_condition(list, attribute, &condition.values, &condition.not_values, fields);
        }
        let with = |base: &[PolicyCondition], own: Vec<PolicyCondition>| [own, base.to_vec()].concat();
        let sources = rule.from.iter().enumerate().map(|(index, from)| {
            let own = from.source.as_ref().map(|source| source_conditions(source, index)).unwrap_or_default();
            with(&on_source, own)
        });
        let operations = rule.to.iter().enumerate().map(|(index, to)| {
            let own = to.operation.as_ref().map(|operation| operation_conditions(operation, index)).unwrap_or_default();
            with(&on_operation, own)
        });
        let any = |list: Vec<Vec<PolicyCondition>>, base: &[PolicyCondition]| {
            if list.is_empty() { vec![base.to_vec()] } else { list }
        };
        Some(Self { sources: any(sources.collect(), &on_source), operations: any(operations.collect(), &on_operation) })
    }

    /// All conditions of the rule.
    pub fn conditions(&self) -> impl Iterator<Item = &PolicyCondition> {
        self.sources.iter().chain(&self.operations).flatten()
    }
}

/// Adds a condition unless it has no values. `fields` are the paths of the values and of the excluded values.
fn push_condition(
    list: &mut Vec<PolicyCondition>,
    attribute: PolicyAttribute,
    values: &[String],
    not_values: &[String],
    [field, not_field]: [String; 2],
) {
    if !values.is_empty() || !not_values.is_empty() {
        let field = if values.is_empty() { not_field } else { field };
        list.push(PolicyCondition { attribute, values: values.to_vec(), not_values: not_values.to_vec(), field });
    }
}

fn source_conditions(source: &RuleSource, index: usize) -> Vec<PolicyCondition> {
    use PolicyAttribute as Attribute;
    let mut conditions = Vec::new();
    let mut push = |attribute, name: &str, values: &[String], not_values: &[String]| {
        push_condition(&mut conditions, attribute, values, not_values, field_paths("from", index, "source", name));
    };
    push(Attribute::Principal, "principals", &source.principals, &source.not_principals);
    push(Attribute::Token, "requestPrincipals", &source.request_principals, &source.not_request_principals);
    push(Attribute::ServiceAccount, "serviceAccounts", &source.service_accounts, &source.not_service_accounts);
    push(Attribute::TrustDomain, "trustDomains", &source.trust_domains, &source.not_trust_domains);
    push(Attribute::SourceNamespace, "namespaces", &source.namespaces, &source.not_namespaces);
    push(Attribute::RemoteIp, "remoteIpBlocks", &source.remote_ip_blocks, &source.not_remote_ip_blocks);
    push(Attribute::SourceIp, "ipBlocks", &source.ip_blocks, &source.not_ip_blocks);
    conditions
}

fn operation_conditions(operation: &RuleOperation, index: usize) -> Vec<PolicyCondition> {
    use PolicyAttribute as Attribute;
    let mut conditions = Vec::new();
    let mut push = |attribute, name: &str, values: &[String], not_values: &[String]| {
        push_condition(&mut conditions, attribute, values, not_values, field_paths("to", index, "operation", name));
    };
    push(Attribute::Host, "hosts", &operation.hosts, &operation.not_hosts);
    push(Attribute::Method, "methods", &operation.methods, &operation.not_methods);
    push(Attribute::Path, "paths", &operation.paths, &operation.not_paths);
    push(Attribute::DestinationPort, "ports", &operation.ports, &operation.not_ports);
    conditions
}

/// `to[0].operation.paths` and `to[0].operation.notPaths`.
fn field_paths(list: &str, index: usize, part: &str, name: &str) -> [String; 2] {
    let (first, rest) = name.split_at(1);
    let base = format!("{list}[{index}].{part}");
    [format!("{base}.{name}"), format!("{base}.not{}{rest}", first.to_ascii_uppercase())]
}

/// The pods to which a policy applies.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyScope {
    /// Pod labels. `None`: all pods of the namespace, or of the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Gateways or waypoints. Not empty: the policy applies to no sidecar.
    pub targets: Vec<PolicyTarget>,
}

impl PolicyScope {
    pub fn new(selector: Option<Labels>, target: Option<&PolicyTarget>, targets: &[PolicyTarget]) -> Self {
        let targets = if targets.is_empty() { target.into_iter().cloned().collect() } else { targets.to_vec() };
        Self { selector, targets }
    }

    /// Whether the policy of namespace `namespace` applies to the proxy of a workload. Policies for Services and
    /// ServiceEntries apply at waypoints only, which are not modelled.
    pub fn applies_to(&self, namespace: &Namespace, workload: &Workload, root_namespace: &Namespace) -> bool {
        if workload.namespace() != namespace && namespace != root_namespace {
            return false;
        }
        let is_selected = || self.selector.as_ref().is_none_or(|selector| workload.labels.contains_all(selector));
        let is_waypoint = matches!(workload.proxy, ProxyKind::Waypoint(_));
        let Some(gateway) = workload.labels.get(GATEWAY_NAME_LABEL) else {
            return self.targets.is_empty() && is_selected();
        };
        if self.targets.is_empty() {
            return !is_waypoint && is_selected();
        }
        self.targets.iter().any(|target| match target.kind.as_str() {
            "GatewayClass" => is_waypoint && namespace == root_namespace && target.name == WAYPOINT_CLASS,
            _ => workload.namespace() == namespace && target.names_gateway(namespace.as_str(), gateway),
        })
    }
}

/// An AuthorizationPolicy.
#[derive(Debug)]
pub struct AuthorizationPolicy {
    pub object: ObjectRef,
    pub scope: PolicyScope,
    /// `None`: a value that the API server refuses. istiod ignores the policy.
    pub action: Option<PolicyAction>,
    /// Whether the annotation `istio.io/dry-run` makes the policy record calls only.
    pub is_dry_run: bool,
    /// The external authorizer of a `CUSTOM` policy.
    pub provider: Option<String>,
    /// By index; `None` for a rule that istiod skips.
    pub rules: Vec<Option<PolicyRule>>,
}

impl AuthorizationPolicy {
    /// `dry_run` is the value of the annotation `istio.io/dry-run`.
    pub fn new(
        object: ObjectRef,
        selector: Option<Labels>,
        dry_run: Option<&str>,
        spec: &AuthorizationPolicySpec,
    ) -> Self {
        Self {
            object,
            scope: PolicyScope::new(selector, spec.target_ref.as_ref(), &spec.target_refs),
            action: PolicyAction::parse(spec.action.as_deref()),
            is_dry_run: dry_run.and_then(go_bool::parse) == Some(true),
            provider: spec.provider.as_ref().map(|provider| provider.name.clone()),
            rules: spec.rules.iter().map(PolicyRule::new).collect(),
        }
    }

    /// The name that istiod gives to a rule. Envoy reports the first match in the order of these names.
    pub fn rule_name(&self, index: usize) -> String {
        format!("ns[{}]-policy[{}]-rule[{index}]", self.object.namespace, self.object.name)
    }

    /// The rules that istiod translates, with their index.
    pub fn rules(&self) -> impl Iterator<Item = (usize, &PolicyRule)> {
        self.rules.iter().enumerate().filter_map(|(index, rule)| Some((index, rule.as_ref()?)))
    }

    /// Whether the policy decides about calls: `false` for `AUDIT` and for dry runs.
    pub fn is_enforced(&self) -> bool {
        !self.is_dry_run && self.action.is_some_and(|action| action != PolicyAction::Audit)
    }
}
