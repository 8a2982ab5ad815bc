//! Behavior of istiod that differs between releases, or that a variable of its environment sets.
//!
//! The model follows istiod 1.31 everywhere else. [`NOT_TOLD_APART`] lists differences that it does not follow.
//!
//! Sources: `pilot/pkg/features`, `manifests/helm-profiles/compatibility-version-*.yaml` and `releasenotes/notes` of
//! istio/istio 1.31, and the change notes of each release.

use std::collections::BTreeMap;

use super::Mesh;
use super::retry::RetryDefaults;
use super::version::IstioVersion;
use crate::vocabulary::go_bool;

/// Behavior that some releases of istiod have, and others do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IstiodBehavior {
    /// An ExternalName Service is an alias of its target. Before, it was a host of its own, resolved by DNS.
    ExternalNameAliases,
    /// TLS that a DestinationRule starts without `caCertificates` verifies the server against the system's authorities.
    ServerVerification,
    /// The default retry policy leaves HTTP 503 out.
    SafeDefaultRetries,
    /// DestinationRules of one namespace for one host merge only if their `exportTo` allows it.
    SeparateExports,
    /// `h2UpgradePolicy` applies `maxConcurrentStreams` and `http2KeepAlive`.
    UpgradedStreamLimits,
    /// BackendTLSPolicies are read.
    BackendTlsPolicies,
    /// ListenerSets are read.
    ListenerSets,
    /// Of several namespaces with a host, one with a Kubernetes Service comes first. Before, the first by name did.
    PreferredServiceNamespace,
    /// A written DestinationRule takes precedence over a BackendTLSPolicy, block by block. Before, the policy replaced
    /// its whole `trafficPolicy`.
    RulesBeforeBackendPolicies,
    /// A gateway that istiod deploys gets no Istio Gateways of other namespaces.
    StrictGatewayMerging,
    /// `~NAMESPACE/HOST` in a Sidecar's `egress[].hosts` excludes hosts.
    SidecarExclusions,
    /// A gateway gets only the Istio Gateways of its own namespace.
    NamespacedGateways,
    /// Sidecars balance calls to a headless Service, as gateways do.
    BalancedHeadlessServices,
}

/// When istiod behaves in a certain way.
#[derive(Debug)]
pub struct BehaviorInfo {
    /// The behavior.
    pub behavior: IstiodBehavior,
    /// Minor version of the first release that behaves so by default; `None`: no release does.
    pub since: Option<u16>,
    /// The environment variable of istiod that turns it on and off.
    pub variable: Option<&'static str>,
    /// What changes, as a sentence.
    pub description: &'static str,
}

/// All behavior that the model tells apart, in the order of [`IstiodBehavior`].
pub static BEHAVIORS: &[BehaviorInfo] = &[
    BehaviorInfo {
        behavior: IstiodBehavior::ExternalNameAliases,
        since: Some(21),
        variable: Some("ENABLE_EXTERNAL_NAME_ALIAS"),
        description: "An ExternalName Service is an alias of its target, instead of a host of its own.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::ServerVerification,
        since: Some(21),
        variable: Some("VERIFY_CERTIFICATE_AT_CLIENT"),
        description: "TLS of a DestinationRule without caCertificates verifies the server's certificate.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::SafeDefaultRetries,
        since: Some(24),
        variable: Some("EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY"),
        description: "The default retry policy leaves out HTTP 503.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::SeparateExports,
        since: Some(24),
        variable: Some("ENABLE_ENHANCED_DESTINATIONRULE_MERGE"),
        description: "DestinationRules for one host merge only if their exportTo allows it.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::UpgradedStreamLimits,
        since: Some(28),
        variable: None,
        description: "h2UpgradePolicy: UPGRADE applies maxConcurrentStreams, and has no effect on detected ports of sidecars.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::BackendTlsPolicies,
        since: Some(28),
        variable: None,
        description: "BackendTLSPolicies are read.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::ListenerSets,
        since: Some(30),
        variable: None,
        description: "ListenerSets are read.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::PreferredServiceNamespace,
        since: Some(30),
        variable: Some("PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE"),
        description: "Of several namespaces with a host, one with a Kubernetes Service comes first, instead of the first by name.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::RulesBeforeBackendPolicies,
        since: Some(31),
        variable: None,
        description: "A DestinationRule takes precedence over a BackendTLSPolicy, block by block.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::StrictGatewayMerging,
        since: Some(31),
        variable: Some("PILOT_ENABLE_STRICT_GATEWAY_MERGING"),
        description: "A gateway that istiod deploys gets no Istio Gateways of other namespaces.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::SidecarExclusions,
        since: Some(31),
        variable: None,
        description: "~NAMESPACE/HOST in egress hosts of a Sidecar excludes hosts.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::NamespacedGateways,
        since: None,
        variable: Some("PILOT_SCOPE_GATEWAY_TO_NAMESPACE"),
        description: "A gateway gets only the Istio Gateways of its own namespace.",
    },
    BehaviorInfo {
        behavior: IstiodBehavior::BalancedHeadlessServices,
        since: None,
        variable: Some("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES"),
        description: "Sidecars balance calls to a headless Service.",
    },
];

/// Which behavior an istiod has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Behaviors {
    minor: u16,
    /// Variables of its environment.
    environment: BTreeMap<String, bool>,
}

impl Behaviors {
    /// `environment`: variables of istiod as written. Those that are no booleans count as absent, as they do for istiod.
    pub fn new<'a>(version: IstioVersion, environment: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let parse = |(name, value): (&str, &str)| Some((name.to_owned(), go_bool::parse(value)?));
        Self { minor: version.minor, environment: environment.into_iter().filter_map(parse).collect() }
    }

    /// Whether istiod behaves so.
    pub fn has(&self, behavior: IstiodBehavior) -> bool {
        let Some(info) = BEHAVIORS.iter().find(|info| info.behavior == behavior) else { return false };
        let set = info.variable.and_then(|name| self.environment.get(name));
        set.copied().unwrap_or_else(|| info.since.is_some_and(|since| self.minor >= since))
    }

    /// Variables that change the default of the release.
    pub fn changed_by_environment(&self) -> impl Iterator<Item = (&'static BehaviorInfo, bool)> {
        BEHAVIORS.iter().filter_map(|info| {
            let set = *self.environment.get(info.variable?)?;
            let default = info.since.is_some_and(|since| self.minor >= since);
            (set != default).then_some((info, set))
        })
    }
}

impl Mesh<'_> {
    /// What users should know about the istiod of the source: a release that the model does not know, and variables that
    /// change its behavior.
    pub fn istiod_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let (oldest, newest) = (IstioVersion::OLDEST, IstioVersion::NEWEST);
        if !self.version.is_supported() {
            notes.push(format!(
                "the source has Istio {}; this program knows {oldest} to {newest}, so answers may be wrong",
                self.version
            ));
        }
        for (info, value) in self.behaviors.changed_by_environment() {
            let variable = info.variable.unwrap_or_default();
            let not = if value { "applies" } else { "does not apply" };
            notes.push(format!("istiod sets {variable}={value}, so this {not}: {}", info.description));
        }
        notes
    }

    /// Whether the istiod of the mesh behaves so.
    pub fn has_behavior(&self, behavior: IstiodBehavior) -> bool {
        self.behaviors.has(behavior)
    }

    /// What the mesh retries unless a route says otherwise.
    pub fn retry_defaults(&self) -> RetryDefaults<'_> {
        RetryDefaults {
            mesh_default: self.config.default_http_retry_policy.as_ref(),
            retries_503: !self.has_behavior(IstiodBehavior::SafeDefaultRetries),
        }
    }
}

/// Differences between releases that the model does not follow: what it answers, as a sentence.
static NOT_TOLD_APART: &[&str] = &[
    "Native sidecars (1.27): whether injection adds the proxy as an init container is read from the pods.",
    "Shadow hosts (1.28): the host of mirrored calls is not shown, with or without -shadow.",
    "Retries of the server's proxy (1.24, 1.26) are not shown.",
    "Unready endpoints (1.31): they are counted as not ready, whether or not istiod sends them.",
    "HTTPRoute and GRPCRoute for one host of a gateway (1.30): they are merged. Earlier releases use one of them.",
    "Conflicts between listeners of one Gateway (1.31): the first listener wins. Earlier releases may merge them.",
    "exportTo of the mesh configuration with `.` and other namespaces (1.31): all of them count.",
];

/// The page of the documentation that lists what differs between releases.
pub fn documentation() -> String {
    let mut text = String::from(
        "<!-- Generated from src/mesh/behavior.rs by `GOLDEN=1 cargo test --test golden`. Do not edit. -->\n\n\
         # Istio versions\n\n\
         `inspect`, `route`, `diff` and `shift` follow the release of istiod in the source: the tag of its image, else that \
         of the newest\nproxy, else the newest release. `--istio-version` sets another one, from ",
    );
    text += &format!("{} to {}.\n\n", IstioVersion::OLDEST, IstioVersion::NEWEST);
    text += "## What changes with the release\n\n\
             Everywhere else, answers are those of the newest release. A variable of istiod's environment takes precedence.\n\n\
             | Since | Behavior | Variable of istiod |\n|---|---|---|\n";
    for info in BEHAVIORS {
        let since = info.since.map_or_else(|| "off by default".to_owned(), |minor| format!("1.{minor}"));
        let variable = info.variable.map(|name| format!("`{name}`")).unwrap_or_default();
        text += &format!("| {since} | {} | {variable} |\n", info.description.replace('|', "\\|"));
    }
    text += "\n## Not told apart by version\n\n";
    for line in NOT_TOLD_APART {
        text += &format!("- {line}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn behaviors(minor: u16, environment: &[(&str, &str)]) -> Behaviors {
        Behaviors::new(IstioVersion { major: 1, minor }, environment.iter().copied())
    }

    #[test]
    fn follows_the_release_unless_a_variable_says_otherwise() {
        let strict = IstiodBehavior::StrictGatewayMerging;
        assert!(!behaviors(30, &[]).has(strict));
        assert!(behaviors(31, &[]).has(strict));
        let off = behaviors(31, &[("PILOT_ENABLE_STRICT_GATEWAY_MERGING", "false")]);
        assert!(!off.has(strict));
        let changed: Vec<_> = off.changed_by_environment().map(|(info, set)| (info.behavior, set)).collect();
        assert_eq!(changed, [(strict, false)]);
        // istiod ignores values that are no booleans.
        assert!(behaviors(31, &[("PILOT_ENABLE_STRICT_GATEWAY_MERGING", "no")]).has(strict));
        assert!(!behaviors(31, &[]).has(IstiodBehavior::NamespacedGateways));
        assert!(behaviors(20, &[("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", "true")]).has(IstiodBehavior::NamespacedGateways));
    }

    #[test]
    fn snapshots_keep_the_variables_of_the_table() {
        let mut named: Vec<&str> = BEHAVIORS.iter().filter_map(|info| info.variable).collect();
        let mut kept = crate::schema::core::ISTIOD_VARIABLES.to_vec();
        named.sort_unstable();
        kept.sort_unstable();
        assert_eq!(named, kept);
    }

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (index, info) in BEHAVIORS.iter().enumerate() {
            assert_eq!(info.behavior as usize, index, "{:?}", info.behavior);
        }
    }
}
