//! Authorization: whether the proxy of a server lets a call in, and which policy decides it.
//!
//! istiod translates AuthorizationPolicies to RBAC filters in the proxy of the server, one for each action, and Envoy
//! evaluates them for every call (HTTP) or connection (TCP). [`PolicySet::decide`] does the same: `policy` is the
//! translation, `request` the call as the server sees it, `truth` the logic for what the source does not contain.
//! `server` builds the requests for a call that the model routes, and `access` those of a table of callers and methods.
//!
//! The order of the filters: CUSTOM, then DENY, then ALLOW. AUDIT and dry runs never deny.
//!
//! Sources: `pilot/pkg/security/authz/builder/builder.go` and `networking/core/listener_builder.go` of istio/istio 1.31;
//! `source/extensions/filters/common/rbac/engine_impl.cc` of Envoy 1.39. `tests/authorization.rs` compares the decisions
//! with those of Envoy.

mod access;
mod patterns;
mod policy;
mod request;
mod server;
#[cfg(test)]
mod tests;
mod truth;

pub use access::{AccessRow, CallerGroup};
pub use policy::{AuthorizationPolicy, PolicyAction, PolicyAttribute, PolicyCondition, PolicyRule, PolicyScope};
pub use server::{BackendAuthorization, CallAuthorization, ServerAccess};

use schemars::JsonSchema;
use serde::Serialize;

use self::request::{PeerIdentity, ServerRequest};
use self::truth::{Truth, UnknownFact};
use super::ids::ObjectRef;
use crate::vocabulary::name_list::abbreviate;

/// Number of policies or rules that a reason lists.
const MAX_LISTED: usize = 3;

/// What the policies say about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum AuthorizationVerdict {
    /// No policy applies to the server.
    None,
    /// The server's proxy lets the call in.
    Allowed,
    /// It depends on what the source cannot tell, such as the claims of a token.
    Undecided,
    /// The server's proxy denies the call.
    Denied,
}

impl AuthorizationVerdict {
    /// The value in JSON reports.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The decision about one call at one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationDecision {
    pub verdict: AuthorizationVerdict,
    /// The policy that decides, and the index of the rule that matches.
    pub rule: Option<(ObjectRef, usize)>,
    pub reason: String,
}

impl AuthorizationDecision {
    fn new(verdict: AuthorizationVerdict, rule: Option<(ObjectRef, usize)>, reason: impl Into<String>) -> Self {
        Self { verdict, rule, reason: reason.into() }
    }

    /// The decision for a server that no policy selects.
    fn no_policy() -> Self {
        Self::new(AuthorizationVerdict::None, None, "no AuthorizationPolicy applies to the server")
    }

    fn undecided(reason: impl Into<String>) -> Self {
        Self::new(AuthorizationVerdict::Undecided, None, reason)
    }
}

/// The policies that apply to one server.
#[derive(Debug, Clone)]
pub struct PolicySet<'m> {
    policies: Vec<&'m AuthorizationPolicy>,
    /// Names of the external authorizers in the mesh configuration, and whether each supports TCP.
    providers: &'m [(String, bool)],
}

/// The rules of one filter that match a call, in the order in which Envoy tries them.
struct FilterMatch<'m> {
    /// The first rule that matches.
    rule: Option<(&'m AuthorizationPolicy, usize)>,
    /// A rule that may match.
    uncertain: Option<(&'m AuthorizationPolicy, usize, UnknownFact)>,
}

impl<'m> PolicySet<'m> {
    /// `providers` lists the external authorizers of the mesh configuration: name, and whether it speaks gRPC.
    pub fn new(policies: Vec<&'m AuthorizationPolicy>, providers: &'m [(String, bool)]) -> Self {
        Self { policies, providers }
    }

    /// Whether no policy decides about calls.
    pub fn is_empty(&self) -> bool {
        !self.policies.iter().any(|policy| policy.is_enforced())
    }

    /// The policies that apply, whatever their action.
    pub fn policies(&self) -> &[&'m AuthorizationPolicy] {
        &self.policies
    }

    fn of_action(&self, action: PolicyAction) -> Vec<&'m AuthorizationPolicy> {
        let is_active = |policy: &&AuthorizationPolicy| policy.action == Some(action) && policy.is_enforced();
        self.policies.iter().copied().filter(is_active).collect()
    }

    /// Decides about a request.
    pub fn decide(&self, request: &ServerRequest<'_>) -> AuthorizationDecision {
        use AuthorizationVerdict::{Allowed, Denied};
        if self.is_empty() {
            let records = self.policies.first();
            return records.map_or_else(AuthorizationDecision::no_policy, |policy| {
                let reason = format!("{} only records calls", policy.object);
                AuthorizationDecision::new(AuthorizationVerdict::None, None, reason)
            });
        }
        let at = |(policy, index): (&AuthorizationPolicy, usize)| Some((policy.object.clone(), index));
        let custom = self.decide_custom(request);
        if let Some(decision) = custom.as_ref().filter(|decision| decision.verdict == Denied) {
            return decision.clone();
        }
        let deny = match_rules(&self.of_action(PolicyAction::Deny), request, false);
        if let Some((policy, index)) = deny.rule {
            let reason = format!("rule {index} of {} denies it{}", policy.object, tcp_note(request, policy, index));
            return AuthorizationDecision::new(Denied, at((policy, index)), reason);
        }
        let allow_policies = self.of_action(PolicyAction::Allow);
        let allow = match_rules(&allow_policies, request, true);
        if !allow_policies.is_empty() && allow.rule.is_none() && allow.uncertain.is_none() {
            return AuthorizationDecision::new(Denied, None, explain_no_match(&allow_policies, request));
        }
        if let Some(undecided) = custom {
            return undecided;
        }
        let uncertain = deny.uncertain.or(allow.uncertain.filter(|_| allow.rule.is_none()));
        if let Some((policy, index, fact)) = uncertain {
            let reason = format!("rule {index} of {} depends on {}", policy.object, fact.as_str());
            return AuthorizationDecision::undecided(reason);
        }
        match allow.rule {
            Some((policy, index)) => {
                let reason = format!("rule {index} of {} allows it", policy.object);
                AuthorizationDecision::new(Allowed, at((policy, index)), reason)
            }
            None => {
                let reason = "no rule of a DENY policy matches, and no ALLOW policy applies to the server";
                AuthorizationDecision::new(Allowed, None, reason)
            }
        }
    }

    /// The decision of CUSTOM policies: denied when their provider does not exist, else undecided when a rule matches.
    fn decide_custom(&self, request: &ServerRequest<'_>) -> Option<AuthorizationDecision> {
        let policies = self.of_action(PolicyAction::Custom);
        let provider_of = |policy: &&AuthorizationPolicy| policy.provider.clone().unwrap_or_default();
        let mut names: Vec<String> = policies.iter().map(provider_of).collect();
        names.sort();
        names.dedup();
        let mut undecided = None;
        for name in &names {
            let own: Vec<_> = policies.iter().copied().filter(|policy| provider_of(policy) == *name).collect();
            let matched = match_rules(&own, request, false);
            let provider = self.providers.iter().find(|(provider, _)| provider == name);
            let problem = match provider {
                None => format!("meshConfig.extensionProviders has no authorizer \"{name}\""),
                Some(_) if names.len() > 1 => "istiod supports one provider for each workload".to_owned(),
                // An HTTP authorizer has no filter for TCP connections.
                Some((_, false)) if request.http.is_none() => continue,
                Some(_) => {
                    let found = matched.rule.or(matched.uncertain.map(|(policy, index, _)| (policy, index)));
                    undecided = undecided.or(found.map(|(policy, index)| {
                        let reason = format!("rule {index} of {} asks the authorizer {name}", policy.object);
                        AuthorizationDecision::undecided(reason)
                    }));
                    continue;
                }
            };
            if let Some((policy, index)) = matched.rule {
                let reason = format!("rule {index} of {} matches, and {problem}", policy.object);
                let rule = Some((policy.object.clone(), index));
                return Some(AuthorizationDecision::new(AuthorizationVerdict::Denied, rule, reason));
            }
            undecided = undecided.or(matched.uncertain.map(|(policy, index, fact)| {
                let fact = fact.as_str();
                let reason = format!("rule {index} of {} depends on {fact}, and {problem}", policy.object);
                AuthorizationDecision::undecided(reason)
            }));
        }
        undecided
    }
}

/// Finds the rules that match, in the order of Envoy: by the text of their names, so that rule 10 precedes rule 2.
fn match_rules<'m>(
    policies: &[&'m AuthorizationPolicy],
    request: &ServerRequest<'_>,
    is_allow: bool,
) -> FilterMatch<'m> {
    let mut rules: Vec<(String, &'m AuthorizationPolicy, usize, &PolicyRule)> = Vec::new();
    for policy in policies {
        rules.extend(policy.rules().map(|(index, rule)| (policy.rule_name(index), *policy, index, rule)));
    }
    rules.sort_by(|a, b| a.0.cmp(&b.0));
    let mut found = FilterMatch { rule: None, uncertain: None };
    for (_, policy, index, rule) in rules {
        match rule_matches(policy, rule, request, is_allow) {
            Truth::Yes => {
                found.rule = Some((policy, index));
                return found;
            }
            Truth::No => {}
            Truth::Unknown(fact) => found.uncertain = found.uncertain.or(Some((policy, index, fact))),
        }
    }
    found
}

fn rule_matches(policy: &AuthorizationPolicy, rule: &PolicyRule, request: &ServerRequest<'_>, is_allow: bool) -> Truth {
    let namespace = policy.object.namespace.as_str();
    let any = |alternatives: &[Vec<PolicyCondition>]| {
        let mut any = Truth::No;
        for conditions in alternatives {
            let mut all = Truth::Yes;
            for condition in conditions {
                // An alternative that cannot be translated drops the whole rule, also where another one matches.
                all = all.and(request.check(condition, namespace, is_allow).ok()?);
            }
            any = any.or(all);
        }
        Some(any)
    };
    match (any(&rule.sources), any(&rule.operations)) {
        (Some(source), Some(operation)) => source.and(operation),
        _ => Truth::No,
    }
}

/// What is special about a rule on a TCP filter chain, in words.
fn tcp_note(request: &ServerRequest<'_>, policy: &AuthorizationPolicy, index: usize) -> &'static str {
    let rule = policy.rules.get(index).and_then(Option::as_ref);
    let reads_http = rule.is_some_and(|rule| rule.conditions().any(|condition| condition.attribute.is_http_only()));
    if request.http.is_none() && reads_http {
        " (the server handles the port as TCP, so the HTTP conditions of the rule do not count)"
    } else {
        ""
    }
}

/// Why no ALLOW rule matches: the first condition that fails, for the first rules.
fn explain_no_match(policies: &[&AuthorizationPolicy], request: &ServerRequest<'_>) -> String {
    let mut failures = Vec::new();
    for policy in policies {
        for (index, rule) in policy.rules() {
            let namespace = policy.object.namespace.as_str();
            let fails = |condition: &&PolicyCondition| request.check(condition, namespace, true) != Ok(Truth::Yes);
            let Some(condition) = rule.conditions().find(fails) else { continue };
            let cause = if request.check(condition, namespace, true).is_err() {
                format!("{} cannot be read: the server handles the port as TCP", condition.attribute.title())
            } else if request.peer == PeerIdentity::None && condition.attribute.is_identity() {
                "the call has no mTLS identity".to_owned()
            } else {
                format!("{} does not match", condition.attribute.title())
            };
            failures.push(format!("{}[{index}]: {cause}", policy.object.path()));
        }
    }
    let names: Vec<String> = policies.iter().map(|policy| policy.object.path()).collect();
    let of = if policies.len() == 1 { "ALLOW policy" } else { "ALLOW policies" };
    let text = format!("no rule of the {of} {} matches", abbreviate(&names, MAX_LISTED));
    if failures.is_empty() { text } else { format!("{text} ({})", abbreviate(&failures, MAX_LISTED)) }
}

impl PolicyAttribute {
    /// Whether the attribute comes from the caller's certificate.
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::Principal | Self::SourceNamespace | Self::ServiceAccount | Self::TrustDomain)
    }
}
