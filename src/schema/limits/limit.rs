//! What each limit says about a value.

use serde_json::{Map, Value};

use crate::schema::re2;
use crate::vocabulary::duration;
use ValueLimit::{
    Address, AnyOf, Apart, AtMost, ClientTls, Destination, Differ, Duration, ExportTo, Filled, GatewayName, Host,
    Labels, Method, Needs, OneOf, Percent, Port, PortSelector, Range, Regex, ServerHost, ServerTls, Shares, Without,
};

/// What a value must be like.
pub(super) enum ValueLimit {
    /// A whole number in a range.
    Range(i64, i64),
    /// 0, or between 0.0001 and 100.
    Percent,
    /// A port number.
    Port,
    /// A mapping with `number`, a port.
    PortSelector,
    /// At least 1 ms, no part below.
    Duration,
    /// At most one of these fields.
    OneOf(&'static [&'static str]),
    /// At least one of these fields; any field when empty.
    AnyOf(&'static [&'static str]),
    /// These fields.
    Needs(&'static [&'static str]),
    /// None of these fields.
    Without(&'static [&'static str]),
    /// A list of at most so many.
    AtMost(usize),
    /// A text that is not empty.
    Filled,
    /// A host name, perhaps with `*` in front.
    Host,
    /// A destination: a host that is not `*`, and a subset that is a label.
    Destination,
    /// Hosts of which no wildcard covers another.
    Apart,
    /// `host`, or `namespace/host`, with a dot or `*`.
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
    /// An IP address.
    Address,
    /// A map of shares that add up to 100.
    Shares,
    /// `from` and `to` differ.
    Differ,
    /// Certificates that the TLS mode of a caller needs.
    ClientTls,
    /// Certificates that the TLS mode of a Gateway's server needs.
    ServerTls,
}

impl ValueLimit {
    /// Why a value is refused, and what would be right. Values of a wrong type are the field table's business.
    pub(super) fn refuses(&self, value: &Value) -> Option<(String, String)> {
        let refuse = |message: String, fix: &str| Some((message, fix.to_owned()));
        let text = value.as_str();
        let fields = value.as_object();
        match self {
            Range(low, high) => {
                let number = value.as_f64()?;
                let fits = (*low as f64..=*high as f64).contains(&number);
                if fits {
                    None
                } else {
                    refuse(format!("{value} is not between {low} and {high}"), "a number in that range")
                }
            }
            Percent => {
                let number = value.as_f64()?;
                let fits = number == 0.0 || (0.0001..=100.0).contains(&number);
                if fits { None } else { refuse(format!("{value} is not a percentage"), "0 to 100") }
            }
            Port => port(value.as_i64()?),
            PortSelector => port(fields?.get("number").and_then(Value::as_i64).unwrap_or(0)),
            Duration => {
                let text = text?;
                match duration::parse(text) {
                    Err(error) => refuse(error.to_string(), "a duration such as 2s or 500ms"),
                    Ok(time) if time.as_nanos() < 1_000_000 => {
                        refuse(format!("\"{text}\" is below 1 ms"), "1ms or more")
                    }
                    Ok(_) => None,
                }
            }
            OneOf(names) => {
                let have = present(fields?, names);
                if have.len() < 2 {
                    None
                } else {
                    refuse(format!("{} exclude each other", have.join(" and ")), "keep one of them")
                }
            }
            AnyOf(names) => {
                let fields = fields?;
                let have =
                    if names.is_empty() { fields.values().any(is_set) } else { !present(fields, names).is_empty() };
                let wanted = if names.is_empty() { "a field".to_owned() } else { names.join(", ") };
                if have { None } else { refuse("it says nothing".to_owned(), &format!("remove it, or give {wanted}")) }
            }
            Needs(names) => {
                let fields = fields?;
                let missing: Vec<_> =
                    names.iter().filter(|name| !fields.get(**name).is_some_and(is_set)).copied().collect();
                if missing.is_empty() {
                    None
                } else {
                    refuse(format!("{} is missing", missing.join(", ")), &format!("{}: …", missing.join(", ")))
                }
            }
            Without(names) => {
                let have = present(fields?, names);
                if have.is_empty() {
                    None
                } else {
                    refuse(format!("{} is not supported", have.join(", ")), "remove it")
                }
            }
            AtMost(most) => {
                let length = value.as_array()?.len();
                if length <= *most {
                    None
                } else {
                    refuse(format!("{length} are too many"), &format!("at most {most}"))
                }
            }
            Filled => {
                if text?.is_empty() {
                    refuse("it is empty".to_owned(), "leave it out")
                } else {
                    None
                }
            }
            Host => {
                let text = text?;
                if text.is_empty() || text == "*" || is_host(text) { None } else { not_a_host(text) }
            }
            Destination => {
                let fields = fields?;
                let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
                if text("host") == "*" {
                    return refuse("a destination cannot be \"*\"".to_owned(), "name one host");
                }
                if text("subset").is_empty() || is_label(text("subset")) {
                    return None;
                }
                refuse(format!("subset \"{}\" is not a DNS label", text("subset")), "letters, digits and dashes")
            }
            Apart => {
                let hosts: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
                let covered = hosts.iter().find_map(|wide| {
                    let suffix = wide.strip_prefix('*').filter(|suffix| !suffix.is_empty())?;
                    hosts.iter().find(|host| *host != wide && host.ends_with(suffix)).map(|host| (wide, host))
                });
                covered.and_then(|(wide, host)| {
                    refuse(format!("host \"{wide}\" covers host \"{host}\""), "keep one of them")
                })
            }
            ServerHost => {
                let text = text?;
                let (namespace, host) =
                    text.split_once('/').map_or((None, text), |(namespace, host)| (Some(namespace), host));
                let good_namespace = namespace.is_none_or(|name| matches!(name, "." | "*") || is_label(name));
                if host != "*" && !host.contains('.') {
                    return refuse(format!("\"{text}\" is a short name"), "a full name, or *");
                }
                if good_namespace && (host == "*" || is_host(host)) { None } else { not_a_host(text) }
            }
            GatewayName => {
                let text = text?;
                let (namespace, name) =
                    text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name));
                let good =
                    namespace.is_none_or(|name| name == "." || is_label(name)) && !name.is_empty() && is_host(name);
                if good {
                    None
                } else {
                    refuse(format!("\"{text}\" is not the name of a Gateway"), "name, or namespace/name")
                }
            }
            ExportTo => export_to(value),
            Labels => fields?.iter().find_map(|(key, value)| {
                let value = value.as_str().unwrap_or_default();
                if !is_label_key(key) {
                    refuse(format!("\"{key}\" is not a label"), "letters, digits, -, _ and .")
                } else if !is_label_value(value) {
                    refuse(format!("\"{value}\" is not the value of a label"), "letters, digits, -, _ and .")
                } else {
                    None
                }
            }),
            Regex => match re2::compile(text?) {
                Ok(_) => None,
                Err(why) => refuse(
                    format!("\"{}\" is not an RE2 expression: {why}", text.unwrap_or_default()),
                    "RE2 has no look-around and no back-references",
                ),
            },
            Method => {
                const METHODS: [&str; 9] =
                    ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
                if METHODS.contains(&text?) {
                    None
                } else {
                    refuse(format!("{value} is not an HTTP method"), "capital letters, such as POST")
                }
            }
            Address => {
                let text = text?;
                let known = text.is_empty() || text.starts_with("unix://") || text.parse::<std::net::IpAddr>().is_ok();
                if known { None } else { refuse(format!("\"{text}\" is not an address"), "an IP address") }
            }
            Shares => {
                let total: i64 = fields?.values().filter_map(Value::as_i64).sum();
                if total == 100 { None } else { refuse(format!("the shares add up to {total}"), "100 in all") }
            }
            Differ => {
                let fields = fields?;
                let same = fields.get("from").and_then(Value::as_str) == fields.get("to").and_then(Value::as_str);
                if same { refuse("from and to are the same".to_owned(), "another region in to") } else { None }
            }
            ClientTls => {
                let fields = fields?;
                let mode = fields.get("mode").and_then(Value::as_str);
                let missing: Vec<_> =
                    ["clientCertificate", "privateKey"].into_iter().filter(|name| !filled(fields, name)).collect();
                if mode == Some("MUTUAL") && !filled(fields, "credentialName") && !missing.is_empty() {
                    return refuse(format!("MUTUAL needs {}", missing.join(" and ")), "credentialName: …");
                }
                None
            }
            ServerTls => server_tls(fields?),
        }
    }
}

fn port(number: i64) -> Option<(String, String)> {
    if (1..=65535).contains(&number) {
        None
    } else {
        Some((format!("{number} is not a port number"), "1 to 65535".to_owned()))
    }
}

fn not_a_host(text: &str) -> Option<(String, String)> {
    Some((
        format!("\"{text}\" is not a host name"),
        "letters, digits and dashes between dots; * only in front".to_owned(),
    ))
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

fn filled(fields: &Map<String, Value>, name: &str) -> bool {
    fields.get(name).is_some_and(is_set)
}

/// Whether a text is a DNS label in any case, as names of subsets must be.
/// Source: `pkg/config/labels/instance.go` (`IsDNS1123Label`).
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
    !text.is_empty() && text.len() <= 63 && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Labels between dots, the first of which may be or begin with `*`; or an address.
fn is_host(text: &str) -> bool {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return true;
    }
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 255
        && text.split('.').enumerate().all(|(at, label)| match label.strip_prefix('*').filter(|_| at == 0) {
            Some(rest) => rest.is_empty() || is_label(rest.trim_start_matches('-')),
            None => is_label(label),
        })
}

fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key.rsplit_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    prefix.is_none_or(is_host) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let edge = |c: char| c.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(edge)
            && value.ends_with(edge)
            && value.chars().all(|c| edge(c) || matches!(c, '-' | '_' | '.')))
}

fn export_to(value: &Value) -> Option<(String, String)> {
    let names: Vec<&str> = value.as_array()?.iter().filter_map(Value::as_str).collect();
    let refuse = |message: String, fix: &str| Some((message, fix.to_owned()));
    for (at, name) in names.iter().enumerate() {
        if *name == "~" {
            return refuse("\"~\" (nobody) is for Services only".to_owned(), "\".\", \"*\" or names of namespaces");
        }
        if !matches!(*name, "." | "*") && !is_label(name) {
            return refuse(format!("\"{name}\" is not a namespace"), "\".\", \"*\" or names of namespaces");
        }
        if names[..at].contains(name) {
            return refuse(format!("\"{name}\" is listed twice"), "remove one");
        }
    }
    if names.len() > 1 && names.contains(&"*") {
        return refuse("\"*\" (everybody) stands beside others".to_owned(), "either \"*\" or the others");
    }
    None
}

/// TLS of a server whose protocol has TLS; on plain-text protocols another rule speaks.
fn server_tls(server: &Map<String, Value>) -> Option<(String, String)> {
    let protocol = server.get("port")?.get("protocol")?.as_str()?.to_ascii_uppercase();
    if !matches!(protocol.as_str(), "HTTPS" | "TLS") {
        return None;
    }
    let tls = server.get("tls")?.as_object()?;
    let mode = tls.get("mode").and_then(Value::as_str).unwrap_or_default();
    let credential = filled(tls, "credentialName") || filled(tls, "credentialNames") || filled(tls, "tlsCertificates");
    let refuse = |message: &str| Some((message.to_owned(), "tls: {credentialName: …}".to_owned()));
    match mode {
        "ISTIO_MUTUAL" if credential => {
            Some(("ISTIO_MUTUAL takes Istio's own certificates".to_owned(), "remove credentialName".to_owned()))
        }
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL"
            if !(credential || filled(tls, "serverCertificate") && filled(tls, "privateKey")) =>
        {
            refuse("the TLS mode needs a certificate and its key")
        }
        "MUTUAL" | "OPTIONAL_MUTUAL" if !credential && !filled(tls, "caCertificates") => {
            refuse("MUTUAL needs caCertificates to check clients with")
        }
        _ => None,
    }
}
