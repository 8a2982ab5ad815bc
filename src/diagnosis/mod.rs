//! Diagnoses an access log entry: what happened, which side caused it, whether it is a fault, and the next step.
//!
//! CORE. Combinations of fields take precedence over single flags: several rejections carry no flag at all, and the same
//! flag has different meanings on the two sides of a call. The gRPC status comes from the log if the format has it;
//! otherwise it is inferred and marked, or left unknown. The sources are named at the top of each table in
//! `vocabulary`.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::accesslog::{AccessEntry, Direction, FieldBytes};
use crate::vocabulary::grpc_status;
use crate::vocabulary::response_code_details::{self, VIA_UPSTREAM};
use crate::vocabulary::response_flags::{self, FaultSide, ResponseFlag};

/// Whether an entry describes a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum FaultLevel {
    /// The call failed, and not because of a choice of its caller.
    Fault,
    /// The caller ended the call, the application returned an error of its own, or the log does not show the outcome.
    Notice,
    /// The call went well.
    Normal,
}

/// How a gRPC status is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum StatusSource {
    /// The log contains it.
    Logged,
    /// It follows from the other fields.
    Inferred,
}

impl StatusSource {
    /// The value in JSON and CSV.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// The gRPC status of a gRPC call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallStatus {
    /// Number from 0 to 16, or a larger one that a server sent; `None` if the log does not show it.
    pub code: Option<u8>,
    /// How `code` is known; `None` exactly when `code` is `None`.
    pub source: Option<StatusSource>,
}

/// The diagnosis of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDiagnosis {
    /// The diagnosis in one sentence.
    pub what: Cow<'static, str>,
    /// The side that caused it.
    pub side: FaultSide,
    /// Whether it is a fault.
    pub level: FaultLevel,
    /// The next step; empty when there is nothing to do.
    pub next: Cow<'static, str>,
    /// gRPC status; `None` if the entry is not a gRPC call.
    pub status: Option<CallStatus>,
}

/// Diagnoses an entry.
///
/// Without a logged gRPC status an entry is treated as a gRPC call when [`AccessEntry::is_grpc`] says so.
pub fn diagnose(access: &AccessEntry<'_>) -> CallDiagnosis {
    fn text<'v>(value: &'v FieldBytes<'_>) -> Cow<'v, str> {
        value.map(String::from_utf8_lossy).unwrap_or_default()
    }
    // Most calls: the log has nothing but the upstream's response.
    let is_plain =
        access.flags.is_empty() && access.details == Some(VIA_UPSTREAM.as_bytes()) && access.termination.is_none();
    let is_grpc = access.is_grpc();
    let details = if is_plain { Cow::Borrowed(VIA_UPSTREAM) } else { text(&access.details) };
    let special_case = if is_plain {
        None
    } else {
        by_details(access, &details).or_else(|| by_flags(access, &details, &text(&access.transport_failure)))
    };
    let (mut diagnosis, inferred) = special_case.unwrap_or_else(|| by_response(access, is_grpc, &details));
    diagnosis.status = match (access.grpc_status, is_grpc) {
        (Some(code), _) => Some(CallStatus { code: Some(code), source: Some(StatusSource::Logged) }),
        (None, true) => Some(CallStatus { code: inferred, source: inferred.map(|_| StatusSource::Inferred) }),
        (None, false) => None,
    };
    if let Some(code) = access.grpc_status {
        apply_logged_status(&mut diagnosis, code);
    }
    diagnosis
}

/// A diagnosis without its status, and the gRPC status that can be inferred.
type Inference = (CallDiagnosis, Option<u8>);

fn infer(
    what: impl Into<Cow<'static, str>>,
    side: FaultSide,
    level: FaultLevel,
    next: impl Into<Cow<'static, str>>,
    status: Option<u8>,
) -> Inference {
    (CallDiagnosis { what: what.into(), side, level, next: next.into(), status: None }, status)
}

/// Rejections and timeouts that have no flag.
fn by_details(access: &AccessEntry<'_>, details: &str) -> Option<Inference> {
    use FaultLevel::{Fault, Notice};
    // For TCP the policy is in the connection termination details.
    let termination = access.termination.map(String::from_utf8_lossy).unwrap_or_default();
    let denied =
        [details, &*termination].into_iter().find_map(|text| text.strip_prefix("rbac_access_denied_matched_policy"));
    if let Some(policy) = denied {
        return Some(denied_by_policy(policy));
    }
    if details.starts_with("jwt_authn_access_denied") {
        return Some(infer(
            "the caller's token is missing or invalid",
            FaultSide::Caller,
            Fault,
            "compare the token with the issuer and keys of the RequestAuthentication",
            Some(16),
        ));
    }
    if details == "direct_response" {
        return Some(direct_response(access));
    }
    if details == "max_duration_timeout" {
        let (what, side, level) = match access.direction() {
            Some(Direction::Inbound) => {
                ("the caller's deadline expired while the server was working", FaultSide::Server, Notice)
            }
            _ => ("the stream reached its maximum duration", FaultSide::Configuration, Fault),
        };
        return Some(infer(what, side, level, "compare the duration with the caller's deadline", Some(4)));
    }
    if details == "overload" && !access.flags.contains("DPE") && !access.flags.contains("OM") {
        return Some(proxy_overload(Some(14)));
    }
    None
}

/// `policy` is `[NAME]`, or `[none]` when no ALLOW rule matched.
fn denied_by_policy(policy: &str) -> Inference {
    let policy = policy.trim_start_matches('[').strip_suffix(']').unwrap_or(policy);
    let (what, next) = match policy {
        "none" => (
            "denied: an ALLOW policy exists and none of its rules matches".to_owned(),
            "find the rule that should allow the call: kubectl get authorizationpolicy -n NAMESPACE -o yaml",
        ),
        policy => (
            format!("denied by AuthorizationPolicy {policy}"),
            "check whether the policy is meant to match this caller, path or port",
        ),
    };
    infer(what, FaultSide::Configuration, FaultLevel::Fault, next, Some(7))
}

fn direct_response(access: &AccessEntry<'_>) -> Inference {
    if access.route == Some(b"block_all") {
        return infer(
            "the mesh does not know the host, and outbound traffic to unknown hosts is blocked",
            FaultSide::Configuration,
            FaultLevel::Fault,
            "add a ServiceEntry, or set outboundTrafficPolicy to ALLOW_ANY",
            Some(grpc_status::from_http_status(access.http_status.unwrap_or(502))),
        );
    }
    infer(
        "the route responds directly, without an upstream",
        FaultSide::Configuration,
        FaultLevel::Notice,
        "check redirect and directResponse in the VirtualService",
        None,
    )
}

fn proxy_overload(status: Option<u8>) -> Inference {
    infer(
        "this proxy rejects calls because it is overloaded",
        FaultSide::Proxy,
        FaultLevel::Fault,
        "check the memory and the limits of the istio-proxy container",
        status,
    )
}

/// An entry with response flags.
struct FlaggedCall<'c> {
    access: &'c AccessEntry<'c>,
    details: &'c str,
    transport_failure: &'c str,
    /// The flag that decides.
    flag: &'static ResponseFlag,
    is_inbound: bool,
    /// Whether response headers had been sent.
    is_response_started: bool,
    /// `, on every attempt` when all retries failed.
    on_every_attempt: &'static str,
    /// The gRPC status of the response that Envoy generates for the flag.
    status: Option<u8>,
}

fn by_flags(access: &AccessEntry<'_>, details: &str, transport_failure: &str) -> Option<Inference> {
    // A delay does not affect the outcome, and exhausted retries say less than the reason that each attempt failed for.
    let flags: Vec<&str> = access.flags.iter().filter(|flag| *flag != "DI").collect();
    let main = flags.iter().find(|flag| **flag != "URX").or(flags.first()).copied()?;
    let Some(flag) = response_flags::find(main) else {
        return Some(infer(
            format!("response flag {main} is not known to this version of grpcmesh"),
            FaultSide::Proxy,
            FaultLevel::Notice,
            "look the flag up in the documentation of the proxy's Envoy version",
            None,
        ));
    };
    let is_response_started = details.starts_with("upstream_reset_after_response_started");
    let call = FlaggedCall {
        access,
        details,
        transport_failure,
        flag,
        is_inbound: access.direction() == Some(Direction::Inbound),
        is_response_started,
        on_every_attempt: if flags.contains(&"URX") && main != "URX" { ", on every attempt" } else { "" },
        // Once headers with 200 were sent the client sees a broken stream, and its library chooses the status.
        status: if is_response_started { None } else { flag.grpc_status },
    };
    Some(match flag.code {
        "UF" | "UC" | "UR" | "UT" | "UO" | "UH" | "URX" => call.upstream_failure(),
        "DR" | "DC" | "DPE" => call.downstream_failure(),
        _ => call.other_failure(),
    })
}

impl FlaggedCall<'_> {
    fn upstream_failure(&self) -> Inference {
        use FaultLevel::Fault;
        let Self { access, details, flag, is_inbound, on_every_attempt, status, .. } = *self;
        let next = flag.next_step;
        match flag.code {
            "UF" => self.connection_failure(),
            "UC" if is_inbound => infer(
                format!("the application in this pod closed the connection{}", self.response_progress()),
                FaultSide::Server,
                Fault,
                "check whether the application crashed or restarted: kubectl logs --previous",
                status,
            ),
            "UC" => infer(
                format!(
                    "the connection to the server{} closed{}{on_every_attempt}",
                    self.upstream_host(),
                    self.response_progress()
                ),
                FaultSide::Server,
                Fault,
                next,
                status,
            ),
            "UR" => {
                let what = if details.contains("refused_stream") {
                    "the server rejected the stream, as it does during shutdown,"
                } else {
                    "the server reset the stream"
                };
                let what = format!("{what}{}{on_every_attempt}", self.response_progress());
                infer(what, FaultSide::Server, Fault, next, status)
            }
            "UT" => {
                let what = match (details.starts_with("upstream_per_try"), on_every_attempt) {
                    (true, "") => "an attempt exceeded the per-try timeout".to_owned(),
                    (true, _) => "every attempt exceeded the per-try timeout".to_owned(),
                    (false, _) => {
                        format!("no response within the route timeout or the caller's deadline{on_every_attempt}")
                    }
                };
                infer(what, FaultSide::Server, Fault, next, status)
            }
            "UO" if details == VIA_UPSTREAM => infer(
                "the server returned a retriable error, and the limit of concurrent retries was reached",
                FaultSide::Configuration,
                Fault,
                "raise connectionPool.http.maxRetries in the DestinationRule",
                None,
            ),
            "UH" if access.upstream_cluster == Some(b"BlackHoleCluster") => infer(
                "the mesh does not know the destination, and outbound traffic to unknown destinations is blocked",
                FaultSide::Configuration,
                Fault,
                "add a ServiceEntry, or set outboundTrafficPolicy to ALLOW_ANY",
                None,
            ),
            "URX" => infer(
                "the server or its sidecar returned UNAVAILABLE or CANCELLED on every attempt",
                FaultSide::Server,
                Fault,
                "read the access log lines of the server's sidecars with this request id",
                Some(14),
            ),
            _ => self.other_failure(),
        }
    }

    fn connection_failure(&self) -> Inference {
        let transport_failure = self.transport_failure;
        let cause = response_code_details::transport_failure_meaning(transport_failure)
            .or_else(|| self.details.contains("connection_timeout").then_some("the connect timeout expired"))
            .map(|cause| format!(": {cause}"))
            .unwrap_or_default();
        let server = if self.is_inbound { "the application in this pod" } else { "the server" };
        let next = if transport_failure.contains("TLS") {
            "compare tls.mode in the DestinationRule with the PeerAuthentication, and check that the pod has a sidecar"
        } else if self.is_inbound {
            "check that the application listens on that port, on all addresses"
        } else {
            self.flag.next_step
        };
        let (host, on_every_attempt) = (self.upstream_host(), self.on_every_attempt);
        let what = format!("no connection to {server}{host}{cause}{on_every_attempt}");
        infer(what, FaultSide::Network, FaultLevel::Fault, next, self.status)
    }

    fn downstream_failure(&self) -> Inference {
        use FaultLevel::{Fault, Notice};
        let (details, next) = (self.details, self.flag.next_step);
        match self.flag.code {
            "DR" if self.is_inbound => infer(
                "the caller's side ended the call: its application, or a timeout in its proxy",
                FaultSide::Caller,
                Notice,
                "read the access log line of the caller's proxy with this request id",
                None,
            ),
            "DR" if details.starts_with("http2.too_many_headers") => infer(
                "the request has more headers than allowed",
                FaultSide::Caller,
                Fault,
                "send fewer headers, or raise the limit with an EnvoyFilter",
                None,
            ),
            "DR" => {
                infer("the caller cancelled the call or its deadline expired", FaultSide::Caller, Notice, next, None)
            }
            "DC" if details.starts_with("downstream_local_disconnect") => infer(
                format!("this proxy closed the caller's connection ({details})"),
                FaultSide::Proxy,
                Notice,
                "check for an unanswered keepalive ping, an idle timeout, or a drain",
                None,
            ),
            "DC" => infer("the caller closed its connection during the call", FaultSide::Caller, Notice, next, None),
            "DPE" if details == "overload" => proxy_overload(None),
            "DPE" => {
                let (what, next) = self.invalid_request();
                infer(what, FaultSide::Caller, Fault, next, None)
            }
            _ => self.other_failure(),
        }
    }

    /// What a client did that broke the rules of HTTP, and the next step, by what was read of its request. A port scanner,
    /// and TLS on a plaintext port, leave neither method nor path.
    fn invalid_request(&self) -> (&'static str, &'static str) {
        let AccessEntry { method, path, protocol, user_agent, sni, .. } = *self.access;
        let has_user_agent = |name: &[u8]| user_agent.is_some_and(|text| text.starts_with(name));
        // The SNI that a proxy of the mesh sends: `outbound_.50051_._.checkout.shop.svc.cluster.local`.
        if self.is_inbound && sni.is_some_and(|sni| sni.starts_with(b"outbound_")) {
            return (
                "the caller's proxy sent what is not valid HTTP",
                "read the access log line of the caller's proxy at that time: it forwards what its application sent, or \
                 its Envoy version differs",
            );
        }
        let has_request = method.is_some() || path.is_some();
        if has_request && has_user_agent(b"grpc-node") {
            return (
                "the calling application (grpc-node) broke the rules of HTTP/2, and its connection was closed with all its \
                 calls",
                "look for errors of its HTTP/2 session in the calling application's log, and update @grpc/grpc-js and Node.js",
            );
        }
        if has_request {
            return (
                "the calling application broke the rules of HTTP, and its connection was closed",
                "check the calling application: the version of its gRPC or HTTP library, and the headers that it adds",
            );
        }
        if protocol == Some(b"HTTP/2") {
            return (
                "the caller sent a request with headers that are not valid HTTP/2",
                "find the client by its downstream address, and check the headers and the path that it sends",
            );
        }
        (self.flag.meaning, self.flag.next_step)
    }

    fn other_failure(&self) -> Inference {
        use FaultLevel::{Fault, Notice};
        let Self { flag, on_every_attempt, status, .. } = *self;
        match flag.code {
            "NR" if self.details == "filter_chain_not_found" => infer(
                "no filter chain matches the connection: plaintext to a server that requires mTLS, or an unknown SNI",
                FaultSide::Configuration,
                Fault,
                "check that the caller has a sidecar and that its DestinationRule does not disable TLS",
                None,
            ),
            "NR" => {
                infer("no route matches this host and path", FaultSide::Configuration, Fault, flag.next_step, status)
            }
            "FI" => infer(flag.meaning, FaultSide::Configuration, Fault, flag.next_step, None),
            "RFCF" | "LH" => infer(flag.meaning, flag.side, Notice, flag.next_step, status),
            _ => infer(format!("{}{on_every_attempt}", flag.meaning), flag.side, Fault, flag.next_step, status),
        }
    }

    /// The endpoint with a leading space, to insert into a sentence.
    fn upstream_host(&self) -> String {
        self.access.upstream_host.map(|host| format!(" {}", String::from_utf8_lossy(host))).unwrap_or_default()
    }

    fn response_progress(&self) -> &'static str {
        if self.is_response_started { " during the response" } else { " before the response started" }
    }
}

/// No flag and no special details: the response came from upstream.
fn by_response(access: &AccessEntry<'_>, is_grpc: bool, details: &str) -> Inference {
    let infer = |what: &'static str, side, level, next: &'static str, status| infer(what, side, level, next, status);
    // Responses that this proxy generates itself have details of their own.
    let generated_by_proxy = || response_code_details::find_by_prefix(response_code_details::DETAILS, details);
    if let Some(detail) = (!details.starts_with(VIA_UPSTREAM)).then(generated_by_proxy).flatten() {
        return infer(
            detail.meaning,
            FaultSide::Caller,
            FaultLevel::Notice,
            "",
            access.http_status.filter(|code| *code >= 400).map(grpc_status::from_http_status),
        );
    }
    let http_status = access.http_status.unwrap_or(0);
    if access.protocol.is_none() && access.method.is_none() {
        return infer("a TCP connection, proxied without decoding", FaultSide::None, FaultLevel::Normal, "", None);
    }
    if is_grpc {
        return match (http_status, access.bytes_sent) {
            // A gRPC message has a header of five bytes: the server sent at least one.
            (200, Some(sent)) if sent >= 5 => infer(
                "the server responded; a stream may still have ended with an error in its trailers",
                FaultSide::None,
                FaultLevel::Normal,
                "",
                Some(0),
            ),
            (200, Some(0)) if details == VIA_UPSTREAM => infer(
                "the server responded without a message: an error, or an empty stream",
                FaultSide::Server,
                FaultLevel::Notice,
                "add %GRPC_STATUS% to the access log format to see the status",
                None,
            ),
            (200, _) => infer("the server responded", FaultSide::None, FaultLevel::Normal, "", None),
            (0, _) => infer("no response was sent", FaultSide::Caller, FaultLevel::Notice, "", None),
            _ => infer(
                "the response does not come from a gRPC server",
                FaultSide::Server,
                FaultLevel::Fault,
                "check which process listens on that port: compare the upstream host and the path",
                Some(grpc_status::from_http_status(http_status)),
            ),
        };
    }
    match http_status {
        0 => infer("no response was sent", FaultSide::Caller, FaultLevel::Notice, "", None),
        500.. => infer(
            "the server or its sidecar returned an error",
            FaultSide::Server,
            FaultLevel::Fault,
            "read the server's log and the access log of its sidecar",
            None,
        ),
        400..=499 => infer("the server rejected the request", FaultSide::Caller, FaultLevel::Notice, "", None),
        _ => infer("the server responded", FaultSide::None, FaultLevel::Normal, "", None),
    }
}

/// Replaces a diagnosis that left the outcome open: the logged status decides it.
fn apply_logged_status(diagnosis: &mut CallDiagnosis, code: u8) {
    let is_outcome_open = matches!(diagnosis.level, FaultLevel::Normal) || diagnosis.next.contains("%GRPC_STATUS%");
    if !is_outcome_open {
        return;
    }
    let status = grpc_status::STATUSES.get(usize::from(code));
    let meaning = status.map_or("an unknown status", |status| status.meaning);
    let (level, side) = match code {
        0 => (FaultLevel::Normal, FaultSide::None),
        1 => (FaultLevel::Notice, FaultSide::Caller),
        // The entry does not show whether the deadline was too short or the server too slow.
        4 => (FaultLevel::Notice, FaultSide::Server),
        // An application's answer about a request is not a fault of the mesh.
        3 | 5 | 6 | 9 | 10 | 11 => (FaultLevel::Notice, FaultSide::Server),
        _ => (FaultLevel::Fault, FaultSide::Server),
    };
    diagnosis.what = if code == 0 {
        "the server responded".into()
    } else {
        format!("the server returned {}: {meaning}", grpc_status::name(code)).into()
    };
    let next = if level == FaultLevel::Fault {
        "read the server's log at that time; the line of its sidecar has the same request id"
    } else {
        ""
    };
    (diagnosis.level, diagnosis.side, diagnosis.next) = (level, side, next.into());
}
