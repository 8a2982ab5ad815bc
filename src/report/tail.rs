//! `tail`: one entry a call.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::accesslog::{AccessEntry, Direction, FieldBytes};
use crate::diagnosis::{CallDiagnosis, FaultLevel, StatusSource};

/// One call, or one connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailLine")]
pub struct TailLine {
    /// Always `TailLine`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// Start, RFC 3339 in UTC with milliseconds.
    pub time: Option<String>,
    /// The pod whose proxy wrote it.
    pub pod: Option<String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// `client` for the caller's proxy, `server` for the one beside the server.
    pub side: Option<&'static str>,
    /// Who called.
    pub source: Option<String>,
    /// Who was called.
    pub destination: Option<String>,
    /// Path, for gRPC `/package.Service/Method`.
    pub method: Option<String>,
    /// gRPC status.
    pub grpc_status: Option<u8>,
    /// `logged`, `inferred`, or null when it is not known or no gRPC call.
    pub grpc_status_from: Option<&'static str>,
    /// HTTP status.
    pub http_status: Option<u16>,
    /// Response flags in the order printed.
    pub flags: Vec<String>,
    /// Response code details.
    pub details: Option<String>,
    /// Why the connection to the server failed.
    pub transport_failure: Option<String>,
    /// Milliseconds.
    pub duration_ms: Option<u64>,
    /// Endpoint that was tried last.
    pub upstream_host: Option<String>,
    /// Cluster.
    pub upstream_cluster: Option<String>,
    /// Subset of the cluster.
    pub subset: Option<String>,
    /// Request id: the same on both sides.
    pub request_id: Option<String>,
    /// Route name.
    pub route: Option<String>,
    /// Whether a client's text made the line readable in several ways.
    pub ambiguous: bool,
    /// What is made of it.
    pub verdict: CallDiagnosisReport,
}

/// What is made of a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CallDiagnosisReport {
    /// What happened.
    pub what: String,
    /// Whose side: `caller`, `server`, `network`, `proxy`, `configuration` or `nobody`.
    pub side: &'static str,
    /// Whether it is a fault.
    pub fault: bool,
    /// What to look at.
    pub next: Vec<String>,
}

/// The pod that a log is of, as far as its name or path tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOrigin {
    /// Pod.
    pub pod: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Address.
    pub ip: Option<String>,
}

/// Names of addresses, from a source.
#[derive(Debug, Clone, Default)]
pub struct AddressNames(pub HashMap<String, String>);

impl AddressNames {
    /// The name of `ip:port` or `[v6]:port`, else the address itself.
    fn name(&self, address: &str) -> String {
        self.0.get(ip_of(address)).cloned().unwrap_or_else(|| address.to_owned())
    }
}

/// The IP of `ip:port` or `[v6]:port`.
fn ip_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(ip, _)| ip).trim_matches(['[', ']'])
}

pub(super) fn text(value: &FieldBytes<'_>) -> Option<String> {
    value.map(|value| String::from_utf8_lossy(value).into_owned())
}

/// `echo.shop` for `echo.shop.svc.cluster.local`.
pub(super) fn short(host: &str) -> &str {
    host.split_once(".svc.").map_or(host, |(short, _)| short)
}

impl TailLine {
    /// Tells about one line.
    pub fn new(access: &AccessEntry<'_>, verdict: &CallDiagnosis, origin: &LogOrigin, names: &AddressNames) -> Self {
        // Where no cluster was chosen the address of the caller tells: its own proxy's pod has it too.
        let is_own = |ip: &String| text(&access.downstream_remote).is_some_and(|remote| ip_of(&remote) == ip);
        let by_address = origin.ip.as_ref().map(|ip| if is_own(ip) { Direction::Outbound } else { Direction::Inbound });
        let direction = access.direction().or(by_address);
        let inbound = direction == Some(Direction::Inbound);
        let own = origin.pod.clone();
        let remote = text(&access.downstream_remote).map(|address| names.name(&address));
        let target = match access.destination() {
            Some((_, _, host)) if !host.is_empty() => Some(short(host).to_owned()),
            _ => text(&access.authority)
                .map(|authority| short(&authority).to_owned())
                .or_else(|| text(&access.upstream_host).map(|host| names.name(&host))),
        };
        let (source, destination) = if inbound { (remote, own.or(target)) } else { (own.or(remote), target) };
        let subset = access.destination().map(|(_, subset, _)| subset.to_owned()).filter(|subset| !subset.is_empty());
        Self {
            kind: "TailLine",
            version: 1,
            time: access.start.and_then(show_time),
            pod: origin.pod.clone(),
            namespace: origin.namespace.clone(),
            side: direction.map(|direction| if direction == Direction::Inbound { "server" } else { "client" }),
            source,
            destination,
            method: text(&access.path),
            grpc_status: verdict.status.and_then(|status| status.code),
            grpc_status_from: verdict.status.and_then(|status| match status.known {
                StatusSource::Logged => Some("logged"),
                StatusSource::Inferred => Some("inferred"),
                StatusSource::Unknown => None,
            }),
            http_status: access.code.filter(|code| *code > 0),
            flags: access.flags.iter().map(str::to_owned).collect(),
            details: text(&access.details),
            transport_failure: text(&access.transport_failure),
            duration_ms: access.duration,
            upstream_host: text(&access.upstream_host),
            upstream_cluster: text(&access.cluster),
            subset,
            request_id: text(&access.request_id),
            route: text(&access.route),
            ambiguous: access.ambiguous,
            verdict: CallDiagnosisReport {
                what: verdict.what.to_string(),
                side: verdict.side.as_str(),
                fault: verdict.grade == FaultLevel::Fault,
                next: if verdict.next.is_empty() { Vec::new() } else { vec![verdict.next.to_string()] },
            },
        }
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn show_time(millis: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{time:.3}"))
}
