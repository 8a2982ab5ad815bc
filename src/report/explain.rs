//! The report of `explain`: finding codes, response flags, response code details and gRPC statuses.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::accesslog::{AccessEntry, ResponseFlags};
use crate::diagnosis::diagnose;
use crate::rules::{RULES, Rule, Severity};
use crate::vocabulary::grpc_status::{self, GrpcStatus, STATUSES};
use crate::vocabulary::response_code_details;
use crate::vocabulary::response_code_details::{CodeDetail, DETAILS};
use crate::vocabulary::response_flags::{FLAGS, FaultSide, ResponseFlag};

/// The answer of `explain`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Explain")]
pub struct ExplainReport {
    /// Always `Explain`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// One explanation per argument.
    pub items: Vec<ExplainItem>,
}

/// The subject of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ExplainTopic {
    /// The code of a finding.
    Finding,
    /// A response flag.
    Flag,
    /// Response code details.
    Details,
    /// A gRPC status.
    Status,
    /// Several flags, or flags with details, explained together as one log line.
    Line,
}

impl ExplainTopic {
    /// The value in JSON reports.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// One explanation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExplainItem {
    /// The code, flag, details or status number.
    pub key: String,
    /// The title of the key.
    pub topic: ExplainTopic,
    /// The name of the finding, flag or status.
    pub title: String,
    /// Usual severity of a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// The condition that the finding reports, or the diagnosis of the call.
    pub meaning: String,
    /// Why it matters for gRPC, or what a gRPC client sees.
    pub grpc: String,
    /// Settings and situations that lead to it.
    pub causes: Vec<String>,
    /// The fix, or what to check first.
    pub next: Vec<String>,
    /// The source of the facts.
    pub source: String,
    /// Istio's code for the same finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// The whole text for the terminal: Markdown with second-level headings.
    #[serde(skip)]
    #[schemars(skip)]
    pub docs: Cow<'static, str>,
    /// One sentence for lists.
    pub summary: String,
}

impl ExplainReport {
    /// A report of the given items.
    pub fn new(items: Vec<ExplainItem>) -> Self {
        Self { kind: "Explain", version: 1, items }
    }

    /// All findings, flags, gRPC statuses and response code details.
    pub fn all() -> Self {
        let rules = RULES.iter().map(|rule| ExplainItem::of_rule(rule));
        let flags = FLAGS.iter().map(ExplainItem::of_flag);
        let statuses = STATUSES.iter().map(ExplainItem::of_status);
        let details = DETAILS.iter().map(ExplainItem::of_details);
        Self::new(rules.chain(flags).chain(statuses).chain(details).collect())
    }
}

const LOG_SOURCE: &str = "Envoy 1.39: response flags, response code details and gRPC status mapping; Istio 1.31";

impl ExplainItem {
    /// Explains a finding by the documentation of its rule.
    pub fn of_rule(rule: &Rule) -> Self {
        let section = |heading: &str| section(rule.docs, heading);
        Self {
            key: rule.code.to_owned(),
            topic: ExplainTopic::Finding,
            title: rule.name.to_owned(),
            severity: Some(rule.severity),
            meaning: section("## What it looks for"),
            grpc: section("## Why it matters for gRPC"),
            causes: vec![section("## Example")],
            next: vec![section("## Fix")],
            source: section("## References"),
            istio_code: rule.istio_code,
            docs: Cow::Borrowed(rule.docs),
            summary: rule.summary.to_owned(),
        }
    }

    /// Explains a response flag.
    pub fn of_flag(flag: &ResponseFlag) -> Self {
        let grpc = match flag.grpc_status {
            Some(code) => format!(
                "a unary call gets {code} {}, and the log shows HTTP status code 200. Once the response has started, the \
                 client sees a reset stream instead",
                grpc_status::name(code)
            ),
            None => "this flag sets no gRPC status: see the other flags and the details of the line".to_owned(),
        };
        let side = format_side(flag.side);
        Self::of_log(
            flag.code,
            ExplainTopic::Flag,
            flag.name,
            flag.meaning,
            grpc,
            &[flag.related_settings, &side],
            flag.next_step,
        )
    }

    /// Explains response code details.
    pub fn of_details(detail: &CodeDetail) -> Self {
        Self::of_log(
            detail.prefix,
            ExplainTopic::Details,
            "response code details",
            detail.meaning,
            String::new(),
            &[],
            "",
        )
    }

    /// Explains a gRPC status.
    pub fn of_status(status: &GrpcStatus) -> Self {
        let causes: Vec<String> = FLAGS
            .iter()
            .filter(|flag| flag.grpc_status == Some(status.code))
            .map(|flag| flag.code.to_owned())
            .collect();
        let without_flag = match status.code {
            4 => {
                " It also sends this status without a flag when a deadline or the maximum stream duration expires (max_duration_timeout)."
            }
            7 => {
                " It also sends this status without a flag when an AuthorizationPolicy denies the call (rbac_access_denied_matched_policy)."
            }
            8 => " A rate limit can be configured to send it instead of UNAVAILABLE (flag RL).",
            16 => {
                " It also sends this status without a flag when a token is missing or invalid (jwt_authn_access_denied)."
            }
            _ => "",
        };
        let grpc = if causes.is_empty() && without_flag.is_empty() {
            "Envoy never sends this status itself: it comes from the server or from the client's gRPC library"
                .to_owned()
        } else {
            let flags = if causes.is_empty() {
                String::new()
            } else {
                format!("Envoy sends this status itself with the flags {}.", causes.join(", "))
            };
            format!("{flags}{without_flag}").trim().to_owned()
        };
        Self::of_log(&status.code.to_string(), ExplainTopic::Status, status.name, status.meaning, grpc, &[], "")
    }

    /// Explains flags and details together, as in one log line of the caller's proxy.
    pub fn of_line(flags: &str, details: &str) -> Self {
        let mut access = AccessEntry {
            method: Some(b"POST"),
            path: Some(b"/package.Service/Method"),
            protocol: Some(b"HTTP/2"),
            http_status: Some(200),
            bytes_sent: Some(0),
            flags: ResponseFlags(flags),
            upstream_cluster: Some(b"outbound|0||host"),
            ..AccessEntry::default()
        };
        access.details = (!details.is_empty()).then_some(details.as_bytes());
        if let Some((_, reason)) = details.split_once('|') {
            access.transport_failure = Some(reason.trim_end_matches('}').as_bytes());
        }
        let diagnosis = diagnose(&access);
        let status = diagnosis.status.and_then(|status| status.code);
        let grpc = status.map_or_else(
            || "the log does not show which status the client gets".to_owned(),
            |code| format!("the client gets {code} {}", grpc_status::name(code)),
        );
        let key = [flags, details].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let side = format_side(diagnosis.side);
        let meaning = match response_code_details::find_by_prefix(DETAILS, details) {
            Some(detail) => format!("{}. {}: {}", diagnosis.what, detail.prefix, detail.meaning),
            None if details.is_empty() => diagnosis.what.into_owned(),
            None if flags.is_empty() => {
                format!("unknown response code details \"{details}\"; without them: {}", diagnosis.what)
            }
            None => format!("{}. Unknown response code details \"{details}\"", diagnosis.what),
        };
        Self::of_log(&key, ExplainTopic::Line, "combination", &meaning, grpc, &[&side], &diagnosis.next)
    }

    /// Explains a flag that Envoy 1.39 does not have.
    pub fn of_unknown_flag(flag: &str) -> Self {
        let meaning = "not a flag of Envoy 1.39: it belongs to a newer Envoy or to an extension";
        Self::of_log(
            flag,
            ExplainTopic::Flag,
            "unknown flag",
            meaning,
            String::new(),
            &[],
            "see the documentation of the proxy that logged it",
        )
    }

    fn of_log(
        key: &str,
        topic: ExplainTopic,
        title: &str,
        meaning: &str,
        grpc: String,
        causes: &[&str],
        next: &str,
    ) -> Self {
        let causes: Vec<String> =
            causes.iter().filter(|cause| !cause.is_empty()).map(|cause| (*cause).to_owned()).collect();
        let mut docs = format!("## What happened\n{meaning}\n");
        for (heading, text) in [("For gRPC", grpc.as_str()), ("Causes", &causes.join("; ")), ("Next steps", next)] {
            if !text.is_empty() {
                docs.push_str(&format!("\n## {heading}\n{text}\n"));
            }
        }
        let next = if next.is_empty() { Vec::new() } else { vec![next.to_owned()] };
        Self {
            key: key.to_owned(),
            topic,
            title: title.to_owned(),
            severity: None,
            meaning: meaning.to_owned(),
            grpc,
            causes,
            next,
            source: LOG_SOURCE.to_owned(),
            istio_code: None,
            docs: Cow::Owned(docs),
            summary: meaning.to_owned(),
        }
    }
}

/// `caller side`; empty for a call that went well.
fn format_side(side: FaultSide) -> String {
    match side {
        FaultSide::None => String::new(),
        side => format!("{} side", side.as_str()),
    }
}

/// The text of `docs` under `heading`.
fn section(docs: &str, heading: &str) -> String {
    let Some((_, rest)) = docs.split_once(heading) else { return String::new() };
    rest.split_once("\n## ").map_or(rest, |(section, _)| section).trim().to_owned()
}
