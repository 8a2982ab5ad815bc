//! The kinds of limits on a value, and the check of each.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::schema::re2;
use crate::vocabulary::duration;
use ValueLimit::{
    AnyOf, ClientTls, Destination, DifferentRegions, Duration, ExportTo, Forbids, GatewayName, Host, IpAddress, Labels,
    MaxItems, Method, NonEmpty, NonOverlappingHosts, OneOf, Percent, Port, PortSelector, Range, Regex, Requires,
    ServerHost, ServerTls, TotalOf100,
};

/// A constraint on a value.
pub(super) enum ValueLimit {
    /// A number in a range, both ends included.
    Range(i64, i64),
    /// 0, or a number from 0.0001 to 100.
    Percent,
    /// A port number.
    Port,
    /// A mapping whose `number` is a port number.
    PortSelector,
    /// A duration of at least 1 ms, in whole milliseconds.
    Duration,
    /// At most one of these fields is set.
    OneOf(&'static [&'static str]),
    /// At least one of these fields is set; any field when the list is empty.
    AnyOf(&'static [&'static str]),
    /// All of these fields are set.
    Requires(&'static [&'static str]),
    /// None of these fields is present.
    Forbids(&'static [&'static str]),
    /// A list with at most this many items.
    MaxItems(usize),
    /// A non-empty string.
    NonEmpty,
    /// A host name, which may start with `*`.
    Host,
    /// A destination whose host is not `*` and whose subset is a DNS label.
    Destination,
    /// Hosts of which no wildcard covers another.
    NonOverlappingHosts,
    /// `host` or `namespace/host`; the host has a dot or is `*`.
    ServerHost,
    /// `name` or `namespace/name`.
    GatewayName,
    /// Values of `exportTo`.
    ExportTo,
    /// Label keys and values.
    Labels,
    /// An RE2 expression.
    Regex,
    /// An HTTP method.
    Method,
    /// An IP address or a Unix socket.
    IpAddress,
    /// A map of numbers that add up to 100.
    TotalOf100,
    /// `from` and `to` differ.
    DifferentRegions,
    /// The certificates that the TLS mode of a caller requires.
    ClientTls,
    /// The certificates that the TLS mode of a Gateway server requires.
    ServerTls,
}

/// Why a value is rejected, and how to fix it.
pub(super) struct Violation {
    pub(super) message: String,
    pub(super) fix: String,
}

fn violation(message: impl Into<String>, fix: impl Into<String>) -> Option<Violation> {
    Some(Violation { message: message.into(), fix: fix.into() })
}

impl ValueLimit {
    /// Checks a value. Values of a wrong type pass: the field table reports them.
    pub(super) fn check(&self, value: &Value) -> Option<Violation> {
        let text = value.as_str();
        let fields = value.as_object();
        match self {
            Range(low, high) => check_range(*low, *high, value.as_f64()?),
            Percent => {
                let number = value.as_f64()?;
                if number == 0.0 || (0.0001..=100.0).contains(&number) {
                    return None;
                }
                violation(format!("{value} is not a valid percentage"), "use 0, or a number from 0.0001 to 100")
            }
            Port => check_port(value.as_i64()?),
            PortSelector => check_port(fields?.get("number").and_then(Value::as_i64).unwrap_or(0)),
            Duration => check_duration(text?),
            OneOf(names) => match present(fields?, names)[..] {
                [] | [_] => None,
                ref several => {
                    violation(format!("{} are mutually exclusive", several.join(" and ")), "keep one of them")
                }
            },
            AnyOf(names) => check_any_of(fields?, names),
            Requires(names) => {
                let fields = fields?;
                let missing: Vec<_> = names.iter().filter(|name| !is_filled(fields, name)).copied().collect();
                let missing = missing.join(", ");
                if missing.is_empty() {
                    return None;
                }
                violation(format!("{missing} is missing"), format!("add {missing}"))
            }
            Forbids(names) => match present(fields?, names)[..] {
                [] => None,
                ref unsupported => violation(format!("{} is not supported", unsupported.join(", ")), "remove it"),
            },
            MaxItems(max) => {
                let length = value.as_array()?.len();
                if length <= *max {
                    return None;
                }
                violation(format!("{length} items exceed the limit of {max}"), format!("keep at most {max}"))
            }
            NonEmpty if text?.is_empty() => violation("the value is empty", "set a value or remove the field"),
            NonEmpty => None,
            Host => {
                let text = text?;
                if text.is_empty() || text == "*" || is_host(text) { None } else { invalid_host(text) }
            }
            Destination => check_destination(fields?),
            NonOverlappingHosts => {
                let hosts: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
                let (wildcard, host) = hosts.iter().find_map(|wildcard| {
                    let suffix = wildcard.strip_prefix('*').filter(|suffix| !suffix.is_empty())?;
                    hosts.iter().find(|host| *host != wildcard && host.ends_with(suffix)).map(|host| (wildcard, host))
                })?;
                violation(format!("host \"{wildcard}\" covers host \"{host}\""), "keep one of them")
            }
            ServerHost => check_server_host(text?),
            GatewayName => check_gateway_name(text?),
            ExportTo => check_export_to(value),
            Labels => fields?.iter().find_map(|(key, value)| check_label(key, value.as_str().unwrap_or_default())),
            Regex => {
                let error = re2::compile(text?).err()?;
                violation(
                    format!("\"{}\" is not a valid RE2 expression: {error}", text.unwrap_or_default()),
                    "use RE2 syntax, which has no look-around and no back-references",
                )
            }
            Method => {
                const METHODS: [&str; 9] =
                    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
                if METHODS.contains(&text?) {
                    return None;
                }
                violation(format!("{value} is not an HTTP method"), "use a method in capital letters, such as POST")
            }
            IpAddress => {
                let text = text?;
                if text.is_empty() || text.starts_with("unix://") || text.parse::<std::net::IpAddr>().is_ok() {
                    return None;
                }
                violation(format!("\"{text}\" is not an IP address"), "use an IPv4 or IPv6 address")
            }
            TotalOf100 => {
                let total: i64 = fields?.values().filter_map(Value::as_i64).sum();
                if total == 100 {
                    return None;
                }
                violation(format!("the shares add up to {total}"), "make the shares add up to 100")
            }
            DifferentRegions => {
                let fields = fields?;
                if fields.get("from").and_then(Value::as_str) != fields.get("to").and_then(Value::as_str) {
                    return None;
                }
                violation("from and to are the same region", "use different regions in from and to")
            }
            ClientTls => check_client_tls(fields?),
            ServerTls => check_server_tls(fields?),
        }
    }
}

fn check_range(low: i64, high: i64, number: f64) -> Option<Violation> {
    if (low as f64..=high as f64).contains(&number) {
        return None;
    }
    violation(format!("{number} is not between {low} and {high}"), format!("use a number from {low} to {high}"))
}

fn check_port(number: i64) -> Option<Violation> {
    if (1..=65535).contains(&number) {
        return None;
    }
    violation(format!("{number} is not a port number"), "use a number from 1 to 65535")
}

fn check_duration(text: &str) -> Option<Violation> {
    match duration::parse(text) {
        Err(error) => violation(error.to_string(), "use a duration such as 2s or 500ms"),
        Ok(time) if time.as_nanos() < 1_000_000 => {
            violation(format!("\"{text}\" is less than 1 ms"), "use a duration of at least 1ms")
        }
        Ok(_) => None,
    }
}

fn check_any_of(fields: &Map<String, Value>, names: &[&str]) -> Option<Violation> {
    let is_any_set = if names.is_empty() { fields.values().any(is_set) } else { !present(fields, names).is_empty() };
    if is_any_set {
        return None;
    }
    let fix = if names.is_empty() {
        "set one of its fields, or remove it".to_owned()
    } else {
        format!("set one of {}, or remove it", names.join(", "))
    };
    violation("no field is set", fix)
}

fn check_destination(fields: &Map<String, Value>) -> Option<Violation> {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
    if text("host") == "*" {
        return violation("a destination host cannot be \"*\"", "use the name of one host");
    }
    let subset = text("subset");
    if subset.is_empty() || is_label(subset) {
        return None;
    }
    violation(format!("subset \"{subset}\" is not a DNS label"), "use letters, digits and dashes only")
}

fn check_server_host(text: &str) -> Option<Violation> {
    let (namespace, host) = text.split_once('/').map_or((None, text), |(namespace, host)| (Some(namespace), host));
    if host != "*" && !host.contains('.') {
        return violation(format!("\"{text}\" is a short host name"), "use a fully qualified host name, or *");
    }
    let is_valid_namespace = namespace.is_none_or(|name| matches!(name, "." | "*") || is_label(name));
    if is_valid_namespace && (host == "*" || is_host(host)) { None } else { invalid_host(text) }
}

fn check_gateway_name(text: &str) -> Option<Violation> {
    let (namespace, name) = text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name));
    let is_valid_namespace = namespace.is_none_or(|name| name == "." || is_label(name));
    if is_valid_namespace && !name.is_empty() && is_host(name) {
        return None;
    }
    violation(format!("\"{text}\" is not the name of a Gateway"), "use name or namespace/name")
}

fn check_label(key: &str, value: &str) -> Option<Violation> {
    let fix = "use letters, digits, -, _ and . only";
    if !is_label_key(key) {
        return violation(format!("\"{key}\" is not a valid label key"), fix);
    }
    if !is_label_value(value) {
        return violation(format!("\"{value}\" is not a valid label value"), fix);
    }
    None
}

fn check_client_tls(fields: &Map<String, Value>) -> Option<Violation> {
    let mode = fields.get("mode").and_then(Value::as_str);
    let missing: Vec<_> =
        ["clientCertificate", "privateKey"].into_iter().filter(|name| !is_filled(fields, name)).collect();
    if mode != Some("MUTUAL") || is_filled(fields, "credentialName") || missing.is_empty() {
        return None;
    }
    violation(format!("mode MUTUAL requires {}", missing.join(" and ")), "set credentialName, or both files")
}

fn check_export_to(value: &Value) -> Option<Violation> {
    const FIX: &str = "use \".\", \"*\" or namespace names";
    let names: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
    let mut seen = HashSet::new();
    for name in &names {
        if *name == "~" {
            return violation("\"~\" (no namespace) is only valid for Services", FIX);
        }
        if !matches!(*name, "." | "*") && !is_label(name) {
            return violation(format!("\"{name}\" is not a namespace name"), FIX);
        }
        if !seen.insert(*name) {
            return violation(format!("\"{name}\" is listed twice"), "remove one of them");
        }
    }
    if names.len() > 1 && names.contains(&"*") {
        return violation("\"*\" (all namespaces) is combined with others", "keep either \"*\" or the others");
    }
    None
}

/// Checks the TLS settings of a server whose protocol is HTTPS or TLS. GM501 covers the other protocols.
fn check_server_tls(server: &Map<String, Value>) -> Option<Violation> {
    let protocol = server.get("port")?.get("protocol")?.as_str()?.to_ascii_uppercase();
    if !matches!(protocol.as_str(), "HTTPS" | "TLS") {
        return None;
    }
    let tls = server.get("tls")?.as_object()?;
    let mode = tls.get("mode").and_then(Value::as_str).unwrap_or_default();
    let has_credential =
        is_filled(tls, "credentialName") || is_filled(tls, "credentialNames") || is_filled(tls, "tlsCertificates");
    let has_files = is_filled(tls, "serverCertificate") && is_filled(tls, "privateKey");
    match mode {
        "ISTIO_MUTUAL" if has_credential => {
            violation("mode ISTIO_MUTUAL uses Istio's own certificates", "remove credentialName")
        }
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL" if !has_credential && !has_files => {
            violation(format!("mode {mode} requires a certificate and its key"), "set tls.credentialName")
        }
        "MUTUAL" | "OPTIONAL_MUTUAL" if !has_credential && !is_filled(tls, "caCertificates") => {
            violation(format!("mode {mode} requires caCertificates to verify clients"), "set tls.credentialName")
        }
        _ => None,
    }
}

fn invalid_host(text: &str) -> Option<Violation> {
    violation(
        format!("\"{text}\" is not a valid host name"),
        "use letters, digits and dashes between dots; * only at the start",
    )
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    }
}

fn present<'a>(fields: &Map<String, Value>, names: &[&'a str]) -> Vec<&'a str> {
    names.iter().filter(|name| fields.get(**name).is_some_and(|value| !value.is_null())).copied().collect()
}

fn is_filled(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(is_set)
}

/// Reports whether a text is a DNS label in upper or lower case, as subset names must be.
/// Source: `pkg/config/labels/instance.go` (`IsDNS1123Label`).
pub(crate) fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Accepts labels between dots, of which the first may be or start with `*`, and IP addresses.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255
        && text.split('.').enumerate().all(|(index, label)| match label.strip_prefix('*').filter(|_| index == 0) {
            Some(rest) => rest.is_empty() || is_label(rest.trim_start_matches('-')),
            None => is_label(label),
        })
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_host) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(is_edge)
            && value.ends_with(is_edge)
            && value.chars().all(|c| is_edge(c) || matches!(c, '-' | '_' | '.')))
}
