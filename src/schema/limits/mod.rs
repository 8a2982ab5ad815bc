//! Limits on values of Istio's objects that types do not tell: ranges, one-of groups, required fields, forms of names.
//!
//! A table of field paths with their limits. Sources: `pkg/config/validation/validation.go`, `virtualservice.go` and
//! `agent/validation.go` of istio/istio 1.31, and the CRDs' own rules; `tests/validation.rs` compares the outcome with
//! a real API server's answers.

use serde_json::Value;

mod limit;

pub(crate) use limit::is_label;

use super::fields::{FieldError, FieldProblem};
use super::kind::Kind;
use crate::schema::path::push_field;
use limit::ValueLimit::{
    self, Address, AnyOf, Apart, AtMost, ClientTls, Destination, Differ, Duration, ExportTo, Filled, GatewayName, Host,
    Labels, Method, Needs, OneOf, Percent, Port, PortSelector, Range, Regex, ServerHost, ServerTls, Shares, Without,
};

const STRING_MATCH: ValueLimit = OneOf(&["exact", "prefix", "regex"]);

/// Paths are of fields below `spec`; `[]` is each item of a list, `*` each value of a map.
static VIRTUAL_SERVICE: &[(&str, ValueLimit)] = &[
    ("exportTo", ExportTo),
    ("hosts", Apart),
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
    ("http[].match[].queryParams.*.prefix", Filled),
    ("http[].match[].uri.regex", Filled),
    ("http[].match[].method.regex", Filled),
    ("http[].match[].authority.regex", Filled),
    ("http[].match[].headers.*.regex", Filled),
    ("http[].route[].destination.host", Host),
    ("http[].route[].destination.port", PortSelector),
    ("http[].route[].weight", Range(i32::MIN as i64, i32::MAX as i64)),
    ("http[].mirror", Needs(&["host"])),
    ("http[].mirror", Destination),
    ("http[].mirror.host", Host),
    ("http[].mirror.port", PortSelector),
    ("http[].mirrors[]", Needs(&["destination"])),
    ("http[].mirrors[].destination", Destination),
    ("http[].mirrors[].destination.host", Host),
    ("http[].mirrors[].percentage.value", Range(0, 100)),
    ("http[].redirect", AnyOf(&["uri", "authority", "scheme", "port", "derivePort"])),
    ("http[].directResponse.status", Range(200, 599)),
    ("http[].rewrite", AnyOf(&["uri", "authority", "uriRegexRewrite"])),
    ("http[].rewrite", OneOf(&["uri", "uriRegexRewrite"])),
    ("http[].rewrite.uriRegexRewrite.match", Regex),
    ("http[].fault", AnyOf(&["delay", "abort"])),
    ("http[].fault.delay", Without(&["exponentialDelay"])),
    ("http[].fault.delay.percentage.value", Percent),
    ("http[].fault.abort", OneOf(&["httpStatus", "grpcStatus", "http2Error"])),
    ("http[].fault.abort.percentage.value", Percent),
    ("http[].corsPolicy.allowOrigins[].regex", Regex),
    ("http[].corsPolicy.allowMethods[]", Method),
    ("http[].corsPolicy.maxAge", Duration),
    ("http[].headers.request.remove[]", Filled),
    ("http[].headers.response.remove[]", Filled),
    ("tcp[]", Needs(&["route"])),
    ("tcp[].route[].destination.port", PortSelector),
    ("tls[]", Needs(&["match"])),
    ("tls[].match[]", Needs(&["sniHosts"])),
    ("tls[].route[].destination.port", PortSelector),
];

/// Limits of a DestinationRule outside its policies.
static DESTINATION_RULE: &[(&str, ValueLimit)] = &[
    ("exportTo", ExportTo),
    ("host", Host),
    ("subsets[].labels", Labels),
    ("trafficPolicy", AnyOf(&[])),
    ("trafficPolicy.portLevelSettings[]", AnyOf(&["loadBalancer", "connectionPool", "outlierDetection", "tls"])),
    ("trafficPolicy.tunnel", Needs(&["targetHost", "targetPort"])),
    ("trafficPolicy.tunnel.targetPort", Port),
];

/// Limits of a policy, wherever it stands.
static POLICY: &[(&str, ValueLimit)] = &[
    ("connectionPool.http.http2KeepAlive.interval", Duration),
    ("connectionPool.http.http2KeepAlive.timeout", Duration),
    ("connectionPool.tcp.tcpKeepalive.time", Duration),
    ("connectionPool.tcp.tcpKeepalive.interval", Duration),
    ("loadBalancer.consistentHash", OneOf(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"])),
    ("loadBalancer.consistentHash.httpCookie", Needs(&["name"])),
    ("loadBalancer.localityLbSetting.distribute[].to", Shares),
    ("loadBalancer.localityLbSetting.failover[]", Differ),
    ("loadBalancer.warmup.minimumPercent", Range(0, 100)),
    ("loadBalancer.warmupDurationSecs", Duration),
    ("outlierDetection.consecutive5xxErrors", Range(0, u32::MAX as i64)),
    ("outlierDetection.consecutiveGatewayErrors", Range(0, u32::MAX as i64)),
    ("outlierDetection.consecutiveLocalOriginFailures", Range(0, u32::MAX as i64)),
    ("tls", ClientTls),
];

/// Where policies stand in a DestinationRule.
const POLICIES: [&str; 4] = [
    "trafficPolicy",
    "trafficPolicy.portLevelSettings[]",
    "subsets[].trafficPolicy",
    "subsets[].trafficPolicy.portLevelSettings[]",
];

static GATEWAY: &[(&str, ValueLimit)] = &[
    ("servers[].hosts[]", ServerHost),
    ("servers[].bind", Address),
    ("servers[].tls.credentialNames", AtMost(2)),
    ("servers[].tls", OneOf(&["credentialName", "credentialNames"])),
    ("servers[]", ServerTls),
];

/// What the limits say against an object's body.
pub fn check(kind: Kind, body: &Value) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let Some(spec) = body.get("spec") else { return problems };
    let mut run = |at: &str, (path, limit): &(&str, ValueLimit)| {
        let full = if at.is_empty() { (*path).to_owned() } else { format!("{at}.{path}") };
        walk(spec, &full, "spec".to_owned(), &mut |value, path| {
            if let Some((message, fix)) = limit.refuses(value) {
                problems.push(FieldProblem { path: path.to_owned(), what: FieldError::Refused { message, fix } });
            }
        });
    };
    match kind {
        Kind::VirtualService => {
            for row in VIRTUAL_SERVICE {
                run("", row);
            }
        }
        Kind::IstioGateway => {
            for row in GATEWAY {
                run("", row);
            }
        }
        Kind::DestinationRule => {
            for row in DESTINATION_RULE {
                run("", row);
            }
            for place in POLICIES {
                for row in POLICY {
                    run(place, row);
                }
            }
        }
        _ => {}
    }
    problems
}

/// Calls `found` for each value that the pattern leads to.
fn walk(value: &Value, pattern: &str, path: String, found: &mut dyn FnMut(&Value, &str)) {
    if value.is_null() {
        return;
    }
    let (segment, rest) = pattern.split_once('.').unwrap_or((pattern, ""));
    let (name, is_list) = segment.strip_suffix("[]").map_or((segment, false), |name| (name, true));
    let Value::Object(fields) = value else { return };
    let mut step = |name: &str, value: &Value| {
        let mut path = path.clone();
        push_field(&mut path, name);
        let mut go = |value: &Value, path: String| {
            if rest.is_empty() { found(value, &path) } else { walk(value, rest, path, found) }
        };
        match (is_list, value) {
            (_, Value::Null) => {}
            (true, Value::Array(items)) => {
                for (index, item) in items.iter().enumerate() {
                    go(item, format!("{path}[{index}]"));
                }
            }
            (true, _) => {}
            (false, value) => go(value, path),
        }
    };
    if name == "*" {
        fields.iter().for_each(|(name, value)| step(name, value));
    } else if let Some(value) = fields.get(name) {
        step(name, value);
    }
}
