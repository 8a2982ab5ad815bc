//! Limits on the values of Istio objects that types do not express: ranges, one-of groups, required fields, name formats.
//!
//! The limits are a table of field paths. Sources: `pkg/config/validation/validation.go`, `virtualservice.go` and
//! `agent/validation.go` of istio/istio 1.31, and the validation rules in the CRDs. `tests/validation.rs` compares the
//! result with the answers of a real API server.

use serde_json::Value;

mod limit;

pub(crate) use limit::is_label;

use super::fields::{FieldError, FieldProblem};
use super::kind::Kind;
use crate::schema::path::push_field;
use limit::ValueLimit::{
    self, AnyOf, ClientTls, Destination, DifferentRegions, Duration, ExportTo, Forbids, GatewayName, Host, IpAddress,
    Labels, MaxItems, Method, NonEmpty, NonOverlappingHosts, OneOf, Percent, Port, PortSelector, Range, Regex,
    Requires, ServerHost, ServerTls, TotalOf100,
};
use limit::Violation;

const STRING_MATCH: ValueLimit = OneOf(&["exact", "prefix", "regex"]);

/// Paths start below `spec`. `[]` stands for each item of a list, `*` for each value of a map.
static VIRTUAL_SERVICE: &[(&str, ValueLimit)] = &[
    ("exportTo", ExportTo),
    ("hosts", NonOverlappingHosts),
    ("hosts[]", Host),
    ("gateways[]", GatewayName),
    ("http[].match[].gateways[]", GatewayName),
    ("http[].match[].port", Range(0, 65535)),
    ("http[].match[].sourceLabels", Labels),
    ("http[].match[].uri", STRING_MATCH),
    ("http[].match[].method", STRING_MATCH),
    ("http[].match[].authority", STRING_MATCH),
    ("http[].match[].headers.*", STRING_MATCH),
    ("http[].match[].withoutHeaders.*", STRING_MATCH),
    ("http[].match[].queryParams.*", STRING_MATCH),
    ("http[].match[].queryParams.*.prefix", NonEmpty),
    ("http[].match[].uri.regex", NonEmpty),
    ("http[].match[].method.regex", NonEmpty),
    ("http[].match[].authority.regex", NonEmpty),
    ("http[].match[].headers.*.regex", NonEmpty),
    ("http[].route[].destination.host", Host),
    ("http[].route[].destination.port", PortSelector),
    ("http[].route[].weight", Range(i32::MIN as i64, i32::MAX as i64)),
    ("http[].mirror", Requires(&["host"])),
    ("http[].mirror", Destination),
    ("http[].mirror.host", Host),
    ("http[].mirror.port", PortSelector),
    ("http[].mirrors[]", Requires(&["destination"])),
    ("http[].mirrors[].destination", Destination),
    ("http[].mirrors[].destination.host", Host),
    ("http[].mirrors[].percentage.value", Range(0, 100)),
    ("http[].redirect", AnyOf(&["uri", "authority", "scheme", "port", "derivePort"])),
    ("http[].directResponse.status", Range(200, 599)),
    ("http[].rewrite", AnyOf(&["uri", "authority", "uriRegexRewrite"])),
    ("http[].rewrite", OneOf(&["uri", "uriRegexRewrite"])),
    ("http[].rewrite.uriRegexRewrite.match", Regex),
    ("http[].fault", AnyOf(&["delay", "abort"])),
    ("http[].fault.delay", Forbids(&["exponentialDelay"])),
    ("http[].fault.delay.percentage.value", Percent),
    ("http[].fault.abort", OneOf(&["httpStatus", "grpcStatus", "http2Error"])),
    ("http[].fault.abort.percentage.value", Percent),
    ("http[].corsPolicy.allowOrigins[].regex", Regex),
    ("http[].corsPolicy.allowMethods[]", Method),
    ("http[].corsPolicy.maxAge", Duration),
    ("http[].headers.request.remove[]", NonEmpty),
    ("http[].headers.response.remove[]", NonEmpty),
    ("tcp[]", Requires(&["route"])),
    ("tcp[].route[].destination.port", PortSelector),
    ("tls[]", Requires(&["match"])),
    ("tls[].match[]", Requires(&["sniHosts"])),
    ("tls[].route[].destination.port", PortSelector),
];

/// Limits of a DestinationRule outside its traffic policies.
static DESTINATION_RULE: &[(&str, ValueLimit)] = &[
    ("exportTo", ExportTo),
    ("host", Host),
    ("subsets[].labels", Labels),
    ("trafficPolicy", AnyOf(&[])),
    ("trafficPolicy.portLevelSettings[]", AnyOf(&["loadBalancer", "connectionPool", "outlierDetection", "tls"])),
    ("trafficPolicy.tunnel", Requires(&["targetHost", "targetPort"])),
    ("trafficPolicy.tunnel.targetPort", Port),
];

/// Limits of a traffic policy, at any of [`POLICY_PATHS`].
static POLICY: &[(&str, ValueLimit)] = &[
    ("connectionPool.http.http2KeepAlive.interval", Duration),
    ("connectionPool.http.http2KeepAlive.timeout", Duration),
    ("connectionPool.tcp.tcpKeepalive.time", Duration),
    ("connectionPool.tcp.tcpKeepalive.interval", Duration),
    ("loadBalancer.consistentHash", OneOf(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"])),
    ("loadBalancer.consistentHash.httpCookie", Requires(&["name"])),
    ("loadBalancer.localityLbSetting.distribute[].to", TotalOf100),
    ("loadBalancer.localityLbSetting.failover[]", DifferentRegions),
    ("loadBalancer.warmup.minimumPercent", Range(0, 100)),
    ("loadBalancer.warmupDurationSecs", Duration),
    ("outlierDetection.consecutive5xxErrors", Range(0, u32::MAX as i64)),
    ("outlierDetection.consecutiveGatewayErrors", Range(0, u32::MAX as i64)),
    ("outlierDetection.consecutiveLocalOriginFailures", Range(0, u32::MAX as i64)),
    ("tls", ClientTls),
];

/// Paths of the traffic policies in a DestinationRule.
const POLICY_PATHS: [&str; 4] = [
    "trafficPolicy",
    "trafficPolicy.portLevelSettings[]",
    "subsets[].trafficPolicy",
    "subsets[].trafficPolicy.portLevelSettings[]",
];

static GATEWAY: &[(&str, ValueLimit)] = &[
    ("servers[].hosts[]", ServerHost),
    ("servers[].bind", IpAddress),
    ("servers[].tls.credentialNames", MaxItems(2)),
    ("servers[].tls", OneOf(&["credentialName", "credentialNames"])),
    ("servers[]", ServerTls),
];

/// Checks an object's body against the limits of its kind.
pub fn check(kind: Kind, body: &Value) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let Some(spec) = body.get("spec") else { return problems };
    let mut check_limit = |prefix: &str, (path, limit): &(&str, ValueLimit)| {
        let pattern = if prefix.is_empty() { (*path).to_owned() } else { format!("{prefix}.{path}") };
        visit(spec, &pattern, "spec".to_owned(), &mut |value, path| {
            if let Some(Violation { message, fix }) = limit.check(value) {
                problems.push(FieldProblem { path: path.to_owned(), error: FieldError::Rejected { message, fix } });
            }
        });
    };
    match kind {
        Kind::VirtualService => {
            for row in VIRTUAL_SERVICE {
                check_limit("", row);
            }
        }
        Kind::IstioGateway => {
            for row in GATEWAY {
                check_limit("", row);
            }
        }
        Kind::DestinationRule => {
            for row in DESTINATION_RULE {
                check_limit("", row);
            }
            for prefix in POLICY_PATHS {
                for row in POLICY {
                    check_limit(prefix, row);
                }
            }
        }
        _ => {}
    }
    problems
}

/// Calls `visitor` with each value that the pattern matches, and its path.
fn visit(value: &Value, pattern: &str, path: String, visitor: &mut dyn FnMut(&Value, &str)) {
    if value.is_null() {
        return;
    }
    let (segment, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
    let (name, is_list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
    let Value::Object(fields) = value else { return };
    let mut visit_field = |name: &str, value: &Value| {
        let mut path = path.clone();
        push_field(&mut path, name);
        let mut visit_value = |value: &Value, path: String| {
            if rest.is_empty() { visitor(value, &path) } else { visit(value, rest, path, visitor) }
        };
        match (is_list, value) {
            (_, Value::Null) => {}
            (true, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    visit_value(item, format!("{path}[{index}]"));
                }
            }
            (true, _) => {}
            (false, value) => visit_value(value, path),
        }
    };
    if name == "*" {
        fields.iter().for_each(|(name, value)| visit_field(name, value));
    } else if let Some(value) = fields.get(name) {
        visit_field(name, value);
    }
}
