//! From the fields of an access line to what happened, whose side it is, whether it is a fault, and what to do.
//!
//! CORE. Combinations go before single flags: several refusals have no flag at all, and one flag means different things
//! on the two sides of a call. The gRPC status is taken from the log where the format has it, else inferred and marked,
//! else unknown. Sources stand at the head of each table.

use std::borrow::Cow;

use crate::accesslog::{AccessEntry, Direction};
use crate::vocabulary::response_flags::FaultSide;
use crate::vocabulary::{grpc_status, response_code_details, response_flags};

/// Whether a line is about a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultLevel {
    /// A call failed, or a request for another reason than its caller.
    Fault,
    /// The caller ended it, or the line does not tell whether it went well.
    Notice,
    /// As it should be.
    Normal,
}

impl FaultLevel {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fault => "fault",
            Self::Notice => "notice",
            Self::Normal => "normal",
        }
    }
}

/// How a gRPC status is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StatusSource {
    /// The log has it.
    Logged,
    /// It follows from the other fields.
    Inferred,
    /// The log cannot tell.
    Unknown,
}

/// The gRPC status of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallStatus {
    /// Number, if known.
    pub code: Option<u8>,
    /// How.
    pub known: StatusSource,
}

/// What is made of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallDiagnosis {
    /// What happened, in a sentence.
    pub what: Cow<'static, str>,
    /// Whose side.
    pub side: FaultSide,
    /// Whether it is a fault.
    pub grade: FaultLevel,
    /// What to look at; empty when there is nothing to do.
    pub next: Cow<'static, str>,
    /// gRPC status; `None` for what is no gRPC call.
    pub status: Option<CallStatus>,
}

/// Judges a line.
pub fn diagnose(access: &AccessEntry<'_>) -> CallDiagnosis {
    fn text<'v>(value: &'v crate::accesslog::FieldBytes<'_>) -> Cow<'v, str> {
        value.map(String::from_utf8_lossy).unwrap_or_default()
    }
    // Most calls: nothing but the other side's answer is told.
    let is_plain = access.flags.is_empty()
        && access.details == Some(response_code_details::VIA_UPSTREAM.as_bytes())
        && access.termination.is_none();
    let is_grpc = access.is_grpc();
    let details = if is_plain { Cow::Borrowed(response_code_details::VIA_UPSTREAM) } else { text(&access.details) };
    let judged = if is_plain {
        None
    } else {
        by_details(access, &details).or_else(|| by_flags(access, &details, &text(&access.transport_failure)))
    };
    let (mut verdict, inferred) = judged.unwrap_or_else(|| plain(access, is_grpc, &details));
    verdict.status = match (access.grpc_status, is_grpc) {
        (Some(code), _) => Some(CallStatus { code: Some(code), known: StatusSource::Logged }),
        (None, true) => Some(match inferred {
            Some(code) => CallStatus { code: Some(code), known: StatusSource::Inferred },
            None => CallStatus { code: None, known: StatusSource::Unknown },
        }),
        (None, false) => None,
    };
    if let Some(CallStatus { code: Some(code), known: StatusSource::Logged }) = verdict.status {
        with_status(&mut verdict, code);
    }
    verdict
}

type Judged = (CallDiagnosis, Option<u8>);

fn said(
    what: impl Into<Cow<'static, str>>,
    side: FaultSide,
    grade: FaultLevel,
    next: impl Into<Cow<'static, str>>,
    status: Option<u8>,
) -> Option<Judged> {
    Some((CallDiagnosis { what: what.into(), side, grade, next: next.into(), status: None }, status))
}

/// Refusals and timeouts that have no flag.
fn by_details(access: &AccessEntry<'_>, details: &str) -> Option<Judged> {
    use FaultLevel::{Fault, Notice};
    // For TCP it stands where the end of the connection is explained.
    let termination = access.termination.map(String::from_utf8_lossy).unwrap_or_default();
    let denied =
        [details, &*termination].into_iter().find_map(|text| text.strip_prefix("rbac_access_denied_matched_policy"));
    if let Some(rest) = denied {
        let policy = rest.trim_start_matches('[').strip_suffix(']').unwrap_or(rest);
        let (what, next) = match policy {
            "none" => (
                "an ALLOW policy exists and none of its rules fits: denied".to_owned(),
                "kubectl get authorizationpolicy -n NAMESPACE: which rule should have allowed it?",
            ),
            policy => (
                format!("denied by the AuthorizationPolicy {policy}"),
                "does the policy name this caller, path or port on purpose?",
            ),
        };
        return said(what, FaultSide::Configuration, Fault, next, Some(7));
    }
    if details.starts_with("jwt_authn_access_denied") {
        return said(
            "the caller's token is missing or invalid",
            FaultSide::Caller,
            Fault,
            "compare the token with the RequestAuthentication's issuer and keys",
            Some(16),
        );
    }
    if details == "direct_response" {
        let blocked = access.route == Some(b"block_all");
        return if blocked {
            said(
                "the host is unknown to the mesh and unknown hosts are blocked",
                FaultSide::Configuration,
                Fault,
                "add a ServiceEntry, or outboundTrafficPolicy ALLOW_ANY",
                Some(grpc_status::of_http(access.code.unwrap_or(502))),
            )
        } else {
            said(
                "the route answers itself",
                FaultSide::Configuration,
                Notice,
                "redirect or directResponse of the VirtualService",
                None,
            )
        };
    }
    if details == "max_duration_timeout" {
        let (what, side, grade) = match access.direction() {
            Some(Direction::Inbound) => {
                ("the caller's deadline passed while the server worked", FaultSide::Server, Notice)
            }
            _ => ("the stream reached its longest duration", FaultSide::Configuration, Fault),
        };
        return said(what, side, grade, "compare the duration with the caller's deadline", Some(4));
    }
    if details == "overload" && !access.flags.has("DPE") && !access.flags.has("OM") {
        return said(
            "this proxy refuses calls because it runs out of resources",
            FaultSide::Proxy,
            Fault,
            "memory and limits of the proxy container",
            Some(14),
        );
    }
    None
}

fn by_flags(access: &AccessEntry<'_>, details: &str, transport: &str) -> Option<Judged> {
    use FaultLevel::{Fault, Notice};
    // A delay says nothing about the outcome, and used-up retries say less than what each try ended with.
    let flags: Vec<&str> = access.flags.iter().filter(|flag| *flag != "DI").collect();
    let main = flags.iter().find(|flag| **flag != "URX").or(flags.first()).copied()?;
    let retried = if flags.contains(&"URX") && main != "URX" { ", on every try" } else { "" };
    let started = details.starts_with("upstream_reset_after_response_started");
    let inbound = access.direction() == Some(Direction::Inbound);
    let host = access.upstream_host.map(|host| format!(" {}", String::from_utf8_lossy(host))).unwrap_or_default();
    let Some(flag) = response_flags::find(main) else {
        return said(
            format!("flag {main}, which this program does not know"),
            FaultSide::Proxy,
            Notice,
            "see Envoy's documentation of response flags",
            None,
        );
    };
    // Headers went out with 200: the caller sees a broken stream, and which status it makes of it is its own affair.
    let status = if started { None } else { flag.grpc };
    match main {
        "UF" => {
            let why = response_code_details::transport(transport)
                .or_else(|| details.contains("connection_timeout").then_some("the connection was not made in time"))
                .map(|why| format!(": {why}"))
                .unwrap_or_default();
            let who = if inbound { "the application in this pod" } else { "the server" };
            let next = if transport.contains("TLS") {
                "compare DestinationRule tls.mode with the PeerAuthentication, and whether the pod has a proxy"
            } else if inbound {
                "does the application listen on that port, on all addresses?"
            } else {
                flag.next
            };
            said(format!("no connection to {who}{host}{why}{retried}"), FaultSide::Network, Fault, next, status)
        }
        "UC" if inbound => said(
            format!("the application in this pod closed the connection{}", during(started)),
            FaultSide::Server,
            Fault,
            "did it crash or restart? kubectl logs --previous",
            status,
        ),
        "UC" => said(
            format!("the connection to the server{host} closed{}{retried}", during(started)),
            FaultSide::Server,
            Fault,
            flag.next,
            status,
        ),
        "UR" => {
            let refused = details.contains("refused_stream");
            let what = if refused {
                "the server refused the stream, as it does when it shuts down,"
            } else {
                "the server reset the stream"
            };
            said(format!("{what}{}{retried}", during(started)), FaultSide::Server, Fault, flag.next, status)
        }
        "DR" if inbound => said(
            "the caller's side gave up: its program, or its proxy's timeout",
            FaultSide::Caller,
            Notice,
            "the caller's own line with this request id tells which",
            None,
        ),
        "DR" if details.starts_with("http2.too_many_headers") => said(
            "the call has more headers than allowed",
            FaultSide::Caller,
            Fault,
            "fewer headers, or a higher limit by EnvoyFilter",
            None,
        ),
        "DR" => said("the caller cancelled, or its deadline passed", FaultSide::Caller, Notice, flag.next, None),
        "DC" if details.starts_with("downstream_local_disconnect") => said(
            format!("this proxy closed the caller's connection ({details})"),
            FaultSide::Proxy,
            Notice,
            "a keep-alive ping that was not answered, an idle limit, or a drain",
            None,
        ),
        "DC" => said("the caller's connection closed in the middle", FaultSide::Caller, Notice, flag.next, None),
        "DPE" if details == "overload" => said(
            "this proxy refuses calls because it runs out of resources",
            FaultSide::Proxy,
            Fault,
            "memory and limits of the proxy container",
            None,
        ),
        "NR" if details == "filter_chain_not_found" => said(
            "the connection fits no filter chain: plain text to a server that wants mTLS, or an unknown SNI",
            FaultSide::Configuration,
            Fault,
            "has the caller a proxy, and does its DestinationRule switch TLS off?",
            None,
        ),
        "NR" => said("no route matches this host and path", FaultSide::Configuration, Fault, flag.next, status),
        "UT" => {
            let what = if details.starts_with("upstream_per_try") {
                "a try was not answered within its time limit"
            } else {
                "no answer within the route's timeout or the client's deadline"
            };
            said(format!("{what}{retried}"), FaultSide::Server, Fault, flag.next, status)
        }
        "UO" if details == "via_upstream" => said(
            "the server's answer would have been retried, but the limit of retries is used up",
            FaultSide::Configuration,
            Fault,
            "DestinationRule connectionPool.http.maxRetries",
            None,
        ),
        "UH" if access.cluster == Some(b"BlackHoleCluster") => said(
            "the destination is unknown to the mesh and unknown destinations are blocked",
            FaultSide::Configuration,
            Fault,
            "add a ServiceEntry, or outboundTrafficPolicy ALLOW_ANY",
            None,
        ),
        "URX" => said(
            "the server's side, its program or its proxy, answered UNAVAILABLE or CANCELLED on every try",
            FaultSide::Server,
            Fault,
            "the lines of the servers' own proxies with this request id tell more",
            Some(14),
        ),
        "FI" => said("a fault rule ended the call on purpose", FaultSide::Configuration, Fault, flag.next, None),
        "RFCF" | "LH" => said(flag.meaning, flag.side, Notice, flag.next, status),
        _ => said(format!("{}{retried}", flag.meaning), flag.side, Fault, flag.next, status),
    }
}

fn during(started: bool) -> &'static str {
    if started { " in the middle of the answer" } else { " before the answer began" }
}

/// No flag and nothing in the details: the answer came from the other side.
fn plain(access: &AccessEntry<'_>, is_grpc: bool, details: &str) -> Judged {
    let judged = |what: &'static str, side, grade, next: &'static str, status| {
        (CallDiagnosis { what: what.into(), side, grade, next: next.into(), status: None }, status)
    };
    // What this proxy refuses by itself has details of its own.
    let of_proxy = || response_code_details::find(response_code_details::DETAILS, details);
    if let Some(detail) = (!details.starts_with(response_code_details::VIA_UPSTREAM)).then(of_proxy).flatten() {
        return judged(
            detail.meaning,
            FaultSide::Caller,
            FaultLevel::Notice,
            "",
            access.code.filter(|code| *code >= 400).map(grpc_status::of_http),
        );
    }
    let code = access.code.unwrap_or(0);
    if access.protocol.is_none() && access.method.is_none() {
        return judged("a connection that was passed on as bytes", FaultSide::Nobody, FaultLevel::Normal, "", None);
    }
    if is_grpc {
        return match (code, access.bytes_sent) {
            (200, Some(sent)) if sent >= 5 => judged(
                "answered; a stream may have ended with an error in its trailers",
                FaultSide::Nobody,
                FaultLevel::Normal,
                "",
                Some(0),
            ),
            (200, Some(0)) if details == response_code_details::VIA_UPSTREAM => judged(
                "the server answered an error, or nothing at all: a status without a message",
                FaultSide::Server,
                FaultLevel::Notice,
                "log %GRPC_STATUS% to see which",
                None,
            ),
            (200, _) => judged("answered", FaultSide::Nobody, FaultLevel::Normal, "", None),
            (0, _) => judged("no answer was sent", FaultSide::Caller, FaultLevel::Notice, "", None),
            _ => judged(
                "something that is not the gRPC server answered",
                FaultSide::Server,
                FaultLevel::Fault,
                "who listens on that port? see upstream host and path",
                Some(grpc_status::of_http(code)),
            ),
        };
    }
    match code {
        0 => judged("no answer was sent", FaultSide::Caller, FaultLevel::Notice, "", None),
        500.. => judged(
            "the server's side, its program or its proxy, answered an error",
            FaultSide::Server,
            FaultLevel::Fault,
            "the server's own proxy and log tell more",
            None,
        ),
        400..=499 => judged("the server refused the request", FaultSide::Caller, FaultLevel::Notice, "", None),
        _ => judged("answered", FaultSide::Nobody, FaultLevel::Normal, "", None),
    }
}

/// What a logged status adds: with it nothing about the outcome is open.
fn with_status(verdict: &mut CallDiagnosis, code: u8) {
    let is_plain = matches!(verdict.grade, FaultLevel::Normal) || verdict.next.contains("%GRPC_STATUS%");
    if !is_plain {
        return;
    }
    let status = grpc_status::STATUSES.get(usize::from(code));
    let meaning = status.map_or("an unknown status", |status| status.meaning);
    let (grade, side) = match code {
        0 => (FaultLevel::Normal, FaultSide::Nobody),
        1 => (FaultLevel::Notice, FaultSide::Caller),
        // Whether the deadline was too short or the server too slow, nobody can tell from here.
        4 => (FaultLevel::Notice, FaultSide::Server),
        // What a program says about a request is its own affair.
        3 | 5 | 6 | 9 | 10 | 11 => (FaultLevel::Notice, FaultSide::Server),
        _ => (FaultLevel::Fault, FaultSide::Server),
    };
    verdict.what = if code == 0 {
        "answered".into()
    } else {
        format!("the server answered {}: {meaning}", grpc_status::name(code)).into()
    };
    let next = if grade == FaultLevel::Fault {
        "the server's own log at that time; the line of its proxy has the same request id"
    } else {
        ""
    };
    (verdict.grade, verdict.side, verdict.next) = (grade, side, next.into());
}
