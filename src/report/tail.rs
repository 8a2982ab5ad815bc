//! `tail -o json`: one object per call.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::accesslog::{AccessEntry, Direction, FieldBytes};
use crate::diagnosis::{CallDiagnosis, FaultLevel, StatusSource};
use crate::vocabulary::response_flags::FaultSide;

/// One call, or one TCP connection.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "TailLine")]
pub struct TailLine {
    /// Always `TailLine`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// Start of the call, RFC 3339 in UTC with milliseconds.
    pub time: Option<String>,
    /// Pod whose proxy wrote the line.
    pub pod: Option<String>,
    /// Namespace of `pod`.
    pub namespace: Option<String>,
    /// Container that wrote the line, if the log names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Side of the call on which that proxy is.
    pub side: Option<ProxySide>,
    /// Caller: a pod, or an address.
    pub source: Option<String>,
    /// Host, pod or address that was called.
    pub destination: Option<String>,
    /// Path of the request, for gRPC `/package.Service/Method`.
    pub method: Option<String>,
    /// gRPC status as a number; null if it is not known or the call is not gRPC.
    pub grpc_status: Option<u8>,
    /// How `grpc_status` is known; null if `grpc_status` is null.
    pub grpc_status_from: Option<StatusSource>,
    /// HTTP status code; null if no response started.
    pub http_status: Option<u16>,
    /// Response flags in logged order.
    pub flags: Vec<String>,
    /// Response code details.
    pub details: Option<String>,
    /// Why the connection to the upstream host failed.
    pub transport_failure: Option<String>,
    /// Duration in milliseconds.
    pub duration_ms: Option<u64>,
    /// Endpoint of the last attempt.
    pub upstream_host: Option<String>,
    /// Envoy cluster that the route selected.
    pub upstream_cluster: Option<String>,
    /// Subset in the cluster's name.
    pub subset: Option<String>,
    /// Request id; the same on both sides of a call and for every retry.
    pub request_id: Option<String>,
    /// Name of the route.
    pub route: Option<String>,
    /// Whether text that a client sent allows several readings of the line.
    pub ambiguous: bool,
    /// The diagnosis.
    pub verdict: CallDiagnosisReport,
}

/// The diagnosis of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CallDiagnosisReport {
    /// The diagnosis in one sentence.
    pub what: String,
    /// Party that caused it.
    pub side: FaultSide,
    /// Whether the call is a fault.
    pub fault: bool,
    /// Next steps.
    pub next: Vec<String>,
}

/// The side of a call on which a proxy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ProxySide {
    /// The caller's proxy.
    Client,
    /// The server's proxy.
    Server,
}

impl ProxySide {
    /// The value in JSON and CSV.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<Direction> for ProxySide {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Outbound => Self::Client,
            Direction::Inbound => Self::Server,
        }
    }
}

/// The pod that a log belongs to, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOrigin {
    /// Name of the pod.
    pub pod: Option<String>,
    /// Namespace of the pod.
    pub namespace: Option<String>,
    /// Name of the container.
    pub container: Option<String>,
    /// IP address of the pod.
    pub ip: Option<String>,
}

/// Names of pods and Services by IP address.
#[derive(Debug, Clone, Default)]
pub struct AddressNames(pub HashMap<String, String>);

impl AddressNames {
    /// The name for `ip:port` or `[v6]:port`, or the address itself.
    fn resolve(&self, address: &str) -> String {
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
pub(super) fn short_host(host: &str) -> &str {
    host.split_once(".svc.").map_or(host, |(short, _)| short)
}

impl TailLine {
    /// Builds the report of one entry. `names` resolves addresses that the entry itself does not name.
    pub fn new(access: &AccessEntry<'_>, diagnosis: &CallDiagnosis, origin: &LogOrigin, names: &AddressNames) -> Self {
        // Without a cluster the downstream address decides: a client's proxy sees the address of its own pod there.
        let is_downstream =
            |ip: &String| text(&access.downstream_remote_address).is_some_and(|remote| ip_of(&remote) == ip);
        let by_address =
            origin.ip.as_ref().map(|ip| if is_downstream(ip) { Direction::Outbound } else { Direction::Inbound });
        let direction = access.direction().or(by_address);
        let pod = origin.pod.clone();
        let remote = text(&access.downstream_remote_address).map(|address| names.resolve(&address));
        let target = match access.destination() {
            Some((_, _, host)) if !host.is_empty() => Some(short_host(host).to_owned()),
            _ => text(&access.authority)
                .map(|authority| short_host(&authority).to_owned())
                .or_else(|| text(&access.upstream_host).map(|host| names.resolve(&host))),
        };
        let (source, destination) = match direction {
            Some(Direction::Inbound) => (remote, pod.or(target)),
            _ => (pod.or(remote), target),
        };
        let subset = access.destination().map(|(_, subset, _)| subset.to_owned()).filter(|subset| !subset.is_empty());
        Self {
            kind: "TailLine",
            version: 1,
            time: access.start_ms.and_then(format_time),
            pod: origin.pod.clone(),
            namespace: origin.namespace.clone(),
            container: origin.container.clone(),
            side: direction.map(ProxySide::from),
            source,
            destination,
            method: text(&access.path),
            grpc_status: diagnosis.status.and_then(|status| status.code),
            grpc_status_from: diagnosis.status.and_then(|status| status.source),
            http_status: access.http_status.filter(|code| *code > 0),
            flags: access.flags.iter().map(str::to_owned).collect(),
            details: text(&access.details),
            transport_failure: text(&access.transport_failure),
            duration_ms: access.duration_ms,
            upstream_host: text(&access.upstream_host),
            upstream_cluster: text(&access.upstream_cluster),
            subset,
            request_id: text(&access.request_id),
            route: text(&access.route),
            ambiguous: access.ambiguous,
            verdict: CallDiagnosisReport {
                what: diagnosis.what.to_string(),
                side: diagnosis.side,
                fault: diagnosis.level == FaultLevel::Fault,
                next: if diagnosis.next.is_empty() { Vec::new() } else { vec![diagnosis.next.to_string()] },
            },
        }
    }
}

/// Milliseconds since 1970 as RFC 3339.
pub(super) fn format_time(millis: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(format!("{time:.3}"))
}
