//! Policies of Gateway API for the backends of Services: BackendTLSPolicies, which istiod converts to DestinationRules,
//! and XBackendTrafficPolicies, which are not modelled.
//!
//! Source: `pilot/pkg/config/kube/gateway/backend_policies.go` of istio/istio 1.31.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::destination_rule::DestinationRule;
use super::ids::{Namespace, ObjectRef};
use super::service::{Service, Visibility};
use crate::schema::Kind;
use crate::schema::destination_rule::{ClientTls, DestinationRuleSpec, PortPolicy, TrafficPolicy};
use crate::schema::gateway_api::{BackendPolicyTarget, BackendTlsPolicySpec};
use crate::schema::virtual_service::PortSelector;

/// With this annotation, istiod leaves a policy to other controllers.
pub(super) const IGNORE_ANNOTATION: &str = "istio.io/ignore-policy-attachment";

/// A BackendTLSPolicy that istiod does not ignore.
#[derive(Debug)]
pub struct BackendTlsPolicy {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    pub spec: BackendTlsPolicySpec,
}

/// An XBackendTrafficPolicy: retry budgets and session persistence of a Service.
#[derive(Debug)]
pub struct BackendTrafficPolicy {
    pub object: ObjectRef,
    pub targets: Vec<BackendPolicyTarget>,
}

impl BackendTrafficPolicy {
    /// Whether the policy is one of this Service.
    pub fn applies_to(&self, service: &Service) -> bool {
        let is_own = self.object.namespace == *service.namespace();
        is_own
            && self
                .targets
                .iter()
                .any(|target| target_kind(target) == Some(service.object.kind) && *target.name == *service.object.name)
    }
}

/// A target of a policy that does not act on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadTarget {
    /// The BackendTLSPolicy.
    pub policy: ObjectRef,
    /// Index in `spec.targetRefs`.
    pub index: usize,
    /// Name of the target.
    pub name: String,
    pub reason: DeadTargetReason,
}

/// Why a policy does not act on a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeadTargetReason {
    /// Neither a Service nor a ServiceEntry.
    Kind(String),
    /// No object of the policy's namespace has the name.
    Missing,
    /// The object has no port with the name of `sectionName`; it has these.
    Port { name: String, existing: Vec<String> },
    /// An older policy has the same target.
    Conflict(ObjectRef),
}

fn target_kind(target: &BackendPolicyTarget) -> Option<Kind> {
    match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => Some(Kind::Service),
        ("networking.istio.io", "ServiceEntry") => Some(Kind::ServiceEntry),
        _ => None,
    }
}

/// The policies of one host, as istiod merges them.
#[derive(Default)]
struct HostPolicies<'p> {
    /// The policy of all ports.
    whole: Option<&'p BackendTlsPolicy>,
    /// Policies of single ports, by number.
    by_port: BTreeMap<u16, &'p BackendTlsPolicy>,
}

/// The DestinationRules that istiod converts from the policies, and the targets on which no policy acts.
pub(super) fn convert(policies: &[BackendTlsPolicy], services: &[Service]) -> (Vec<DestinationRule>, Vec<DeadTarget>) {
    let mut ordered: Vec<&BackendTlsPolicy> = policies.iter().collect();
    ordered.sort_by_key(|policy| (policy.created.clone(), policy.object.namespace.clone(), policy.object.name.clone()));
    let mut by_host: BTreeMap<usize, HostPolicies<'_>> = BTreeMap::new();
    // Two policies conflict if they have the same target.
    let mut owners: BTreeMap<(&Namespace, &BackendPolicyTarget), &ObjectRef> = BTreeMap::new();
    let mut dead = Vec::new();
    for policy in ordered {
        for (index, target) in policy.spec.target_refs.iter().enumerate() {
            let mut reject = |reason| {
                dead.push(DeadTarget { policy: policy.object.clone(), index, name: target.name.clone(), reason });
            };
            let positions = match target_positions(policy, target, services) {
                Ok(positions) => positions,
                Err(reason) => {
                    reject(reason);
                    continue;
                }
            };
            let key = (&policy.object.namespace, target);
            if let Some(first) = owners.get(&key).filter(|first| ***first != policy.object) {
                reject(DeadTargetReason::Conflict((*first).clone()));
                continue;
            }
            owners.insert(key, &policy.object);
            for (position, port) in positions {
                let host = by_host.entry(position).or_default();
                match port {
                    Some(number) => {
                        host.by_port.entry(number).or_insert(policy);
                    }
                    None => {
                        host.whole.get_or_insert(policy);
                    }
                }
            }
        }
    }
    let rules = by_host.into_iter().filter_map(|(position, host)| rule_of(services.get(position)?, &host)).collect();
    (rules, dead)
}

/// The positions of the registry entries that a target names, with the port that it limits the policy to.
fn target_positions(
    policy: &BackendTlsPolicy,
    target: &BackendPolicyTarget,
    services: &[Service],
) -> Result<Vec<(usize, Option<u16>)>, DeadTargetReason> {
    let kind = target_kind(target).ok_or_else(|| DeadTargetReason::Kind(target.kind.clone()))?;
    let is_target = |service: &Service| {
        let object = &service.object;
        object.kind == kind && object.namespace == policy.object.namespace && *object.name == *target.name
    };
    let positions: Vec<usize> =
        services.iter().enumerate().filter(|(_, service)| is_target(service)).map(|(position, _)| position).collect();
    let Some(first) = positions.first().and_then(|position| services.get(*position)) else {
        return Err(DeadTargetReason::Missing);
    };
    let Some(section) = target.section_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(positions.into_iter().map(|position| (position, None)).collect());
    };
    let port = first.ports.iter().find(|port| port.name.as_deref() == Some(section));
    let Some(port) = port else {
        let existing = first.ports.iter().filter_map(|port| Some(port.name.as_deref()?.to_owned())).collect();
        return Err(DeadTargetReason::Port { name: section.to_owned(), existing });
    };
    Ok(positions.into_iter().map(|position| (position, Some(port.number))).collect())
}

fn rule_of(service: &Service, host: &HostPolicies<'_>) -> Option<DestinationRule> {
    let owner = host.whole.or_else(|| host.by_port.values().next().copied())?;
    let ports = host.by_port.iter().map(|(number, policy)| PortPolicy {
        port: Some(PortSelector { number: u32::from(*number) }),
        tls: Some(client_tls(policy)),
        ..PortPolicy::default()
    });
    let policy = TrafficPolicy {
        tls: host.whole.map(client_tls),
        port_level_settings: crate::schema::NullableList(ports.collect()),
        ..TrafficPolicy::default()
    };
    Some(DestinationRule {
        object: owner.object.clone(),
        host: service.host.clone(),
        created: None,
        export_to: Visibility::Public,
        selector: None,
        spec: DestinationRuleSpec {
            host: service.host.as_str().to_owned(),
            traffic_policy: Some(policy),
            ..DestinationRuleSpec::default()
        },
    })
}

/// The TLS settings that istiod generates: TLS with the server's certificate, and with the SNI name of the policy.
fn client_tls(policy: &BackendTlsPolicy) -> ClientTls {
    let validation = &policy.spec.validation;
    let names = validation.subject_alt_names.iter().filter_map(|name| name.hostname.clone().or(name.uri.clone()));
    let is_system = validation.well_known_ca_certificates.is_some();
    let config_map = validation.ca_certificate_refs.first().filter(|_| !is_system);
    let own_namespace = &policy.object.namespace;
    ClientTls {
        mode: Some("SIMPLE".to_owned()),
        sni: Some(validation.hostname.clone()),
        subject_alt_names: crate::schema::NullableList(names.collect()),
        credential_name: config_map.map(|reference| format!("configmap://{own_namespace}/{}", reference.name)),
        ..ClientTls::default()
    }
}
