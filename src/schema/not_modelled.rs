//! The fields of Istio's and Gateway API's kinds that the model does not read, and what they decide.
//!
//! Every field of `fields.txt` is in one of four groups: it is modelled, it is [`SHOWN`], it is [`NOT_MODELLED`], or it is
//! one of the [`UNRELATED`] fields, which do not change where a gRPC call goes, whether it arrives, or who may make it. A
//! test compares the lists with the fields that the types of this module decode, so a new field of a kind fails it.
//!
//! Patterns: `[]` is an entry of a list, `*` any key of a map. `**.` at the start is any path.

use serde_json::Value;

use super::kind::Kind;

/// A field that the model does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnreadField {
    /// The kind of the objects.
    pub kind: Kind,
    /// Path below `spec`.
    pub pattern: &'static str,
    /// What the field does to a call, after "it".
    pub effect: &'static str,
}

const fn unread(kind: Kind, pattern: &'static str, effect: &'static str) -> UnreadField {
    UnreadField { kind, pattern, effect }
}

/// Fields that can change where a gRPC call goes, whether it arrives, or who may make it. Answers that such a field of an
/// object may change name it.
pub static NOT_MODELLED: &[UnreadField] = &[
    // A spelling that the API server accepts too.
    unread(Kind::VirtualService, "http[].mirror_percent", "limits the share of calls that are mirrored"),
    unread(Kind::VirtualService, "tcp[].match[].sourceSubnet", "limits a TCP route to some callers"),
    unread(Kind::VirtualService, "http[].fault.delay.exponentialDelay", "delays calls"),
    unread(Kind::VirtualService, "http[].redirect.port", "changes the port of a redirect"),
    unread(Kind::VirtualService, "http[].redirect.derivePort", "changes the port of a redirect"),
    unread(Kind::VirtualService, "http[].redirect.prefixRewrite", "changes the path of a redirect"),
    unread(Kind::VirtualService, "http[].retries.retryIgnorePreviousHosts", "decides which pod a retry goes to"),
    unread(Kind::DestinationRule, "**.proxyProtocol", "puts a PROXY header before each connection"),
    unread(Kind::DestinationRule, "**.tunnel", "sends connections through another proxy with CONNECT"),
    unread(Kind::DestinationRule, "**.retryBudget", "limits retries in flight"),
    unread(
        Kind::DestinationRule,
        "**.loadBalancer.localityLbSetting.enabled",
        "turns locality load balancing on or off",
    ),
    unread(Kind::DestinationRule, "**.loadBalancer.localityLbSetting.failoverPriority", "prefers some pods to others"),
    unread(Kind::DestinationRule, "**.loadBalancer.warmup", "sends fewer calls to new pods"),
    unread(Kind::DestinationRule, "**.loadBalancer.warmupDurationSecs", "sends fewer calls to new pods"),
    unread(
        Kind::DestinationRule,
        "**.outlierDetection.outlierDetectionHttpErrorCodes",
        "decides which answers eject a pod",
    ),
    unread(Kind::DestinationRule, "**.tls.caCrl", "makes some server certificates invalid"),
    unread(Kind::IstioGateway, "servers[].defaultEndpoint", "sends calls to another address"),
    unread(Kind::IstioGateway, "servers[].tls.caCrl", "makes some client certificates invalid"),
    unread(Kind::IstioGateway, "servers[].tls.subjectAltNames", "limits the clients by their certificates"),
    unread(Kind::IstioGateway, "servers[].tls.verifyCertificateHash", "limits the clients by their certificates"),
    unread(Kind::IstioGateway, "servers[].tls.verifyCertificateSpki", "limits the clients by their certificates"),
    unread(Kind::ServiceEntry, "endpoints[].ports", "changes the port of an endpoint"),
    unread(Kind::ServiceEntry, "endpoints[].weight", "changes the share of an endpoint"),
    unread(Kind::ServiceEntry, "endpoints[].network", "sends calls through a gateway of another network"),
    unread(Kind::ServiceEntry, "endpoints[].locality", "decides which endpoints callers prefer"),
    unread(Kind::ServiceEntry, "subjectAltNames", "limits the certificates that servers may have"),
    unread(Kind::WorkloadEntry, "ports", "changes the port of the workload"),
    unread(Kind::WorkloadEntry, "weight", "changes the share of the workload"),
    unread(Kind::WorkloadEntry, "network", "sends calls through a gateway of another network"),
    unread(Kind::WorkloadEntry, "locality", "decides which workloads callers prefer"),
    unread(Kind::Sidecar, "egress[].captureMode", "decides whether the port captures traffic"),
    unread(Kind::Sidecar, "ingress", "decides which ports of the pod the proxy serves, and where calls on them go"),
    unread(Kind::Sidecar, "inboundConnectionPool", "limits the calls to the pod"),
    unread(Kind::Sidecar, "outboundTrafficPolicy.egressProxy", "sends calls to unknown hosts to another host"),
    unread(Kind::Gateway, "tls", "sets TLS for clients and backends of the gateway"),
    unread(Kind::Gateway, "listeners[].tls.options", "sets TLS for clients of the listener"),
    unread(Kind::ListenerSet, "listeners[].tls.options", "sets TLS for clients of the listener"),
    unread(Kind::HttpRoute, "rules[].backendRefs[].filters", "changes the calls of one backend"),
    unread(Kind::HttpRoute, "rules[].filters[].extensionRef", "does what another object says"),
    unread(Kind::HttpRoute, "rules[].filters[].externalAuth", "asks an external authorizer"),
    unread(Kind::HttpRoute, "rules[].filters[].requestRedirect.path", "changes the path of a redirect"),
    unread(Kind::HttpRoute, "rules[].filters[].requestRedirect.port", "changes the port of a redirect"),
    unread(Kind::HttpRoute, "rules[].sessionPersistence", "keeps the calls of a session on one pod"),
    unread(Kind::HttpRoute, "useDefaultGateways", "attaches the route to default gateways"),
    unread(Kind::GrpcRoute, "rules[].backendRefs[].filters", "changes the calls of one backend"),
    unread(Kind::GrpcRoute, "rules[].filters[].extensionRef", "does what another object says"),
    unread(Kind::GrpcRoute, "rules[].sessionPersistence", "keeps the calls of a session on one pod"),
    unread(Kind::GrpcRoute, "useDefaultGateways", "attaches the route to default gateways"),
    unread(Kind::Gateway, "defaultScope", "makes the gateway a default gateway"),
    unread(Kind::XBackendTrafficPolicy, "retryConstraint", "limits retries in flight"),
    unread(Kind::XBackendTrafficPolicy, "sessionPersistence", "keeps the calls of a session on one pod"),
    unread(Kind::EnvoyFilter, "configPatches[].patch", "changes the configuration of the proxy"),
    unread(Kind::EnvoyFilter, "configPatches[].match.cluster", "limits the patch to clusters"),
    unread(Kind::EnvoyFilter, "configPatches[].match.listener", "limits the patch to listeners"),
    unread(Kind::EnvoyFilter, "configPatches[].match.proxy", "limits the patch to proxies"),
    unread(Kind::EnvoyFilter, "configPatches[].match.routeConfiguration", "limits the patch to route tables"),
    unread(Kind::EnvoyFilter, "configPatches[].match.waypoint", "limits the patch to waypoints"),
    unread(Kind::WasmPlugin, "url", "runs a plugin for each call"),
    unread(Kind::WasmPlugin, "pluginConfig", "configures the plugin"),
    unread(Kind::WasmPlugin, "failStrategy", "decides whether calls fail with the plugin"),
    unread(Kind::WasmPlugin, "match", "limits the plugin to some calls"),
    unread(Kind::TrafficExtension, "wasm", "runs a plugin for each call"),
    unread(Kind::TrafficExtension, "lua", "runs a script for each call"),
    unread(Kind::TrafficExtension, "match", "limits the extension to some calls"),
];

/// A field of an object that the model does not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnreadUse {
    /// Path in the object, such as `spec.trafficPolicy.tunnel`.
    pub path: String,
    /// What it does to a call, after "it".
    pub effect: &'static str,
}

/// The fields of an object that can change an answer and that the model does not read.
pub fn unread_fields(kind: Kind, body: &Value) -> Vec<UnreadUse> {
    let Some(spec) = body.get("spec") else { return Vec::new() };
    let own: Vec<&UnreadField> = NOT_MODELLED.iter().filter(|field| field.kind == kind).collect();
    let mut found = Vec::new();
    if !own.is_empty() {
        collect(spec, &mut vec![Segment::Key("spec")], &own, &mut found);
    }
    found
}

/// Part of a path in an object.
#[derive(Debug, Clone, Copy)]
enum Segment<'v> {
    Key(&'v str),
    Index(usize),
}

fn collect<'v>(value: &'v Value, path: &mut Vec<Segment<'v>>, fields: &[&UnreadField], found: &mut Vec<UnreadUse>) {
    let own = pattern_of(path.get(1..).unwrap_or_default());
    if let Some(field) = fields.iter().find(|field| matches(field.pattern, &own)) {
        found.push(UnreadUse { path: path_of(path), effect: field.effect });
        return;
    }
    match value {
        Value::Object(entries) => {
            for (key, value) in entries.iter().filter(|(_, value)| !value.is_null()) {
                path.push(Segment::Key(key));
                collect(value, path, fields, found);
                path.pop();
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Segment::Index(index));
                collect(item, path, fields, found);
                path.pop();
            }
        }
        _ => {}
    }
}

fn path_of(segments: &[Segment<'_>]) -> String {
    let mut path = String::new();
    for segment in segments {
        match segment {
            Segment::Index(index) => path.push_str(&format!("[{index}]")),
            Segment::Key(key) => crate::schema::path::push_field(&mut path, key),
        }
    }
    path
}

fn pattern_of(segments: &[Segment<'_>]) -> String {
    let mut pattern = String::new();
    for segment in segments {
        match segment {
            Segment::Index(_) => pattern.push_str("[]"),
            Segment::Key(key) => {
                if !pattern.is_empty() {
                    pattern.push('.');
                }
                pattern.push_str(key);
            }
        }
    }
    pattern
}

fn matches(pattern: &str, path: &str) -> bool {
    match pattern.strip_prefix("**.") {
        Some(suffix) => path.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')),
        None => pattern == path,
    }
}

/// Fields that do not change where a gRPC call goes, whether it arrives, or who may make it.
static UNRELATED: &[(Kind, &str)] = &[
    (Kind::VirtualService, "http[].corsPolicy"),
    (Kind::VirtualService, "http[].directResponse.body"),
    (Kind::VirtualService, "http[].match[].statPrefix"),
    (Kind::DestinationRule, "**.connectionPool.tcp.tcpKeepalive"),
    (Kind::DestinationRule, "**.loadBalancer.consistentHash.maglev"),
    (Kind::DestinationRule, "**.loadBalancer.consistentHash.minimumRingSize"),
    (Kind::DestinationRule, "**.loadBalancer.consistentHash.ringHash"),
    // Ignored since Istio 1.6.
    (Kind::DestinationRule, "**.outlierDetection.consecutiveErrors"),
    // File names, or names of Secrets.
    (Kind::DestinationRule, "**.tls.clientCertificate"),
    (Kind::DestinationRule, "**.tls.privateKey"),
    (Kind::IstioGateway, "servers[].name"),
    (Kind::IstioGateway, "servers[].tls.caCertificates"),
    (Kind::IstioGateway, "servers[].tls.tlsCertificates"),
    (Kind::IstioGateway, "servers[].tls.cipherSuites"),
    (Kind::IstioGateway, "servers[].tls.insecureSkipVerify"),
    (Kind::IstioGateway, "servers[].tls.maxProtocolVersion"),
    (Kind::IstioGateway, "servers[].tls.minProtocolVersion"),
    (Kind::EnvoyFilter, "priority"),
    (Kind::Telemetry, "metrics"),
    // Deprecated; logs are found by targetRefs and selectors.
    (Kind::Telemetry, "targetRef"),
    (Kind::Telemetry, "tracing"),
    (Kind::WasmPlugin, "imagePullPolicy"),
    (Kind::WasmPlugin, "imagePullSecret"),
    (Kind::WasmPlugin, "phase"),
    (Kind::WasmPlugin, "pluginName"),
    (Kind::WasmPlugin, "priority"),
    (Kind::WasmPlugin, "sha256"),
    (Kind::WasmPlugin, "type"),
    (Kind::WasmPlugin, "verificationKey"),
    (Kind::WasmPlugin, "vmConfig"),
    (Kind::TrafficExtension, "phase"),
    (Kind::TrafficExtension, "priority"),
    (Kind::Gateway, "infrastructure"),
    (Kind::Gateway, "listeners[].allowedRoutes.kinds[].group"),
    (Kind::Gateway, "listeners[].tls.certificateRefs[].group"),
    (Kind::ListenerSet, "listeners[].allowedRoutes.kinds[].group"),
    (Kind::ListenerSet, "listeners[].tls.certificateRefs[].group"),
    (Kind::HttpRoute, "rules[].filters[].cors"),
    (Kind::BackendTlsPolicy, "options"),
    (Kind::BackendTlsPolicy, "validation.caCertificateRefs[].group"),
    (Kind::BackendTlsPolicy, "validation.subjectAltNames[].type"),
    (Kind::ProxyConfig, "concurrency"),
    (Kind::ProxyConfig, "environmentVariables"),
    (Kind::ProxyConfig, "image"),
    (Kind::ProxyConfig, "selector"),
];

/// Fields that pages and findings show, and that do not change the answer of `route`.
static SHOWN: &[(Kind, &str)] = &[
    (Kind::DestinationRule, "**.connectionPool.tcp"),
    (Kind::DestinationRule, "**.connectionPool.http.http1MaxPendingRequests"),
    (Kind::DestinationRule, "**.connectionPool.http.http2MaxRequests"),
    (Kind::DestinationRule, "**.connectionPool.http.maxRequestsPerConnection"),
    (Kind::DestinationRule, "**.connectionPool.http.maxRetries"),
    (Kind::DestinationRule, "**.connectionPool.http.idleTimeout"),
    (Kind::DestinationRule, "**.connectionPool.http.maxConcurrentStreams"),
    (Kind::DestinationRule, "**.connectionPool.http.http2KeepAlive"),
    (Kind::DestinationRule, "**.outlierDetection"),
    (Kind::DestinationRule, "**.loadBalancer"),
    (Kind::Telemetry, "accessLogging"),
];

/// The page of the documentation that lists the fields of every kind.
pub fn documentation() -> String {
    let mut text = String::from(
        "<!-- Generated from src/schema/not_modelled.rs by `GOLDEN=1 cargo test --test golden`. Do not edit. -->\n\n\
         # What is modelled\n\n\
         `route` and the findings read the kinds below. A field that is not listed is modelled. Answers name the fields that \
         are not\nmodelled where an object in the path of the call sets them.\n\n\
         Backends of kind InferencePool are not modelled; answers name them. XListenerSet and XBackend are not read, as in \
         Istio 1.31.\n",
    );
    for info in super::kind::KINDS.iter().filter(|info| super::fields::has_schema(info.kind)) {
        text += &format!("\n## {} ({})\n\n", info.name, info.group);
        let code = |pattern: &str| format!("`{}`", pattern.replace("**.", "…"));
        let list = |fields: &[(Kind, &str)]| -> Vec<String> {
            fields.iter().filter(|(kind, _)| *kind == info.kind).map(|(_, pattern)| code(pattern)).collect()
        };
        let mut lines: Vec<String> = NOT_MODELLED
            .iter()
            .filter(|field| field.kind == info.kind)
            .map(|field| format!("- Not modelled: {}, which {}.\n", code(field.pattern), field.effect))
            .collect();
        for (title, patterns) in
            [("Shown, without effect on routes", list(SHOWN)), ("Not related to calls", list(UNRELATED))]
        {
            if !patterns.is_empty() {
                lines.push(format!("- {title}: {}.\n", patterns.join(", ")));
            }
        }
        text += &if lines.is_empty() { "All fields are modelled.\n".to_owned() } else { lines.concat() };
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::schema::fields;
    use crate::schema::kind::KINDS;
    use crate::schema::{
        destination_rule, gateway, gateway_api, security, service_entry, sidecar, telemetry, virtual_service,
    };

    /// The fields that a type does not decode, as patterns.
    fn ignored_by<T: DeserializeOwned>(spec: Value) -> Vec<String> {
        let mut ignored = Vec::new();
        let decoded: Result<T, _> = serde_ignored::deserialize(spec, |path| {
            ignored.push(path.to_string().replace(".?", "").replace(".0", "[]"));
        });
        assert!(decoded.is_ok(), "{:?}", decoded.err().map(|error| error.to_string()));
        ignored
    }

    /// The fields of a kind that no type decodes.
    fn ignored_fields(kind: Kind) -> Vec<String> {
        let Some(spec) = fields::example(kind) else { return Vec::new() };
        match kind {
            Kind::VirtualService => ignored_by::<virtual_service::VirtualServiceSpec>(spec),
            Kind::DestinationRule => ignored_by::<destination_rule::DestinationRuleSpec>(spec),
            Kind::IstioGateway => ignored_by::<gateway::IstioGatewaySpec>(spec),
            Kind::ServiceEntry => ignored_by::<service_entry::ServiceEntrySpec>(spec),
            Kind::WorkloadEntry => ignored_by::<service_entry::WorkloadEntrySpec>(spec),
            Kind::Sidecar => ignored_by::<sidecar::SidecarSpec>(spec),
            Kind::EnvoyFilter | Kind::WasmPlugin | Kind::TrafficExtension => ignored_by::<sidecar::SelectorSpec>(spec),
            Kind::PeerAuthentication => ignored_by::<security::PeerAuthenticationSpec>(spec),
            Kind::RequestAuthentication => ignored_by::<security::RequestAuthenticationSpec>(spec),
            Kind::AuthorizationPolicy => ignored_by::<security::AuthorizationPolicySpec>(spec),
            Kind::Telemetry => ignored_by::<telemetry::TelemetrySpec>(spec),
            Kind::Gateway => ignored_by::<gateway_api::ApiGatewaySpec>(spec),
            Kind::HttpRoute | Kind::GrpcRoute => ignored_by::<gateway_api::ApiRouteSpec>(spec),
            Kind::ReferenceGrant => ignored_by::<gateway_api::ReferenceGrantSpec>(spec),
            Kind::ListenerSet => ignored_by::<gateway_api::ListenerSetSpec>(spec),
            Kind::BackendTlsPolicy => ignored_by::<gateway_api::BackendTlsPolicySpec>(spec),
            Kind::XBackendTrafficPolicy => ignored_by::<gateway_api::BackendTrafficPolicySpec>(spec),
            _ => spec.as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect(),
        }
    }

    #[test]
    fn every_field_of_every_kind_is_modelled_or_listed() {
        let listed: Vec<(Kind, &str)> =
            NOT_MODELLED.iter().map(|field| (field.kind, field.pattern)).chain(UNRELATED.iter().copied()).collect();
        let mut problems = Vec::new();
        let mut used = BTreeSet::new();
        for info in KINDS {
            for path in ignored_fields(info.kind) {
                let own: Vec<_> =
                    listed.iter().filter(|(kind, pattern)| *kind == info.kind && matches(pattern, &path)).collect();
                match own.as_slice() {
                    [] => problems.push(format!("{} {path} is neither read nor listed", info.name)),
                    [entry] => {
                        used.insert(**entry);
                    }
                    _ => problems.push(format!("{} {path} is listed more than once", info.name)),
                }
            }
        }
        let stale = listed.iter().filter(|entry| !used.contains(entry));
        problems.extend(stale.map(|(kind, pattern)| format!("{} {pattern} is read, or does not exist", kind.name())));
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn every_shown_field_exists_and_is_read() {
        for (kind, pattern) in SHOWN {
            let example = serde_json::json!({ "spec": fields::example(*kind) });
            let as_field = UnreadField { kind: *kind, pattern, effect: "" };
            let mut found = Vec::new();
            collect(&example["spec"], &mut vec![Segment::Key("spec")], &[&as_field], &mut found);
            assert!(!found.is_empty(), "{} {pattern}", kind.name());
            assert!(!ignored_fields(*kind).iter().any(|path| matches(pattern, path)), "{} {pattern}", kind.name());
        }
    }

    #[test]
    fn names_the_unread_fields_of_an_object() {
        let rule = serde_json::json!({"spec": {"host": "cart", "trafficPolicy": {"portLevelSettings": [
            {"port": {"number": 1}, "proxyProtocol": {"version": "V2"}}
        ]}, "subsets": [{"name": "v1", "trafficPolicy": {"tunnel": null}}]}});
        let paths: Vec<String> =
            unread_fields(Kind::DestinationRule, &rule).into_iter().map(|field| field.path).collect();
        assert_eq!(paths, ["spec.trafficPolicy.portLevelSettings[0].proxyProtocol"]);
    }
}
