//! `explain`: what a finding's code, a response flag, response code details or a gRPC status means.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::Serialize;

use crate::accesslog::{AccessEntry, ResponseFlags};
use crate::diagnosis::diagnose;
use crate::rules::{RULES, Rule, Severity};
use crate::vocabulary::grpc_status::{self, GrpcStatus, STATUSES};
use crate::vocabulary::response_code_details;
use crate::vocabulary::response_code_details::{CodeDetail, DETAILS};
use crate::vocabulary::response_flags::{FLAGS, ResponseFlag};

/// Answer of `explain`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Explain")]
pub struct ExplainReport {
    /// Always `Explain`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// One entry a word that was asked for.
    pub items: Vec<ExplainItem>,
}

/// What an explanation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExplainTopic {
    /// A finding's code.
    Finding,
    /// A response flag.
    Flag,
    /// Response code details.
    Details,
    /// A gRPC status.
    Status,
    /// Several flags, or flags with details, read as one line.
    Line,
}

impl ExplainTopic {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Finding => "finding",
            Self::Flag => "flag",
            Self::Details => "details",
            Self::Status => "status",
            Self::Line => "line",
        }
    }
}

/// One explanation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExplainItem {
    /// The code, flag, text or number.
    pub key: String,
    /// What it is about.
    pub topic: ExplainTopic,
    /// Its name.
    pub title: String,
    /// Usual severity of a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// What it looks for, or what happened.
    pub meaning: String,
    /// Why it matters for gRPC, or what a gRPC client sees.
    pub grpc: String,
    /// What leads to it.
    pub causes: Vec<String>,
    /// The repair, or what to look at first.
    pub next: Vec<String>,
    /// Where the facts come from.
    pub source: String,
    /// Istio's own code for a finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// The whole text, for people: Markdown with headings of the second level.
    #[serde(skip)]
    #[schemars(skip)]
    pub docs: Cow<'static, str>,
    /// One sentence, for lists.
    pub summary: String,
}

impl ExplainReport {
    /// A report of these items.
    pub fn new(items: Vec<ExplainItem>) -> Self {
        Self { kind: "Explain", version: 1, items }
    }

    /// Everything that can be explained.
    pub fn everything() -> Self {
        let rules = RULES.iter().map(|rule| ExplainItem::of_rule(rule));
        let flags = FLAGS.iter().map(ExplainItem::of_flag);
        let statuses = STATUSES.iter().map(ExplainItem::of_status);
        let details = DETAILS.iter().map(ExplainItem::of_details);
        Self::new(rules.chain(flags).chain(statuses).chain(details).collect())
    }
}

const LOG_SOURCE: &str = "Envoy 1.39: response flags, response code details and gRPC status mapping; Istio 1.31";

impl ExplainItem {
    /// A finding.
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
            next: vec![section("## Repair")],
            source: section("## References"),
            istio_code: rule.istio_code,
            docs: Cow::Borrowed(rule.docs),
            summary: rule.summary.to_owned(),
        }
    }

    /// A response flag.
    pub fn of_flag(flag: &ResponseFlag) -> Self {
        let grpc = match flag.grpc {
            Some(code) => format!(
                "a unary call gets {code} {}; the log shows HTTP status 200 all the same. Once the answer has begun, the \
                 client sees a broken stream instead",
                grpc_status::name(code)
            ),
            None => "no status of its own: see the other flags and the details of the line".to_owned(),
        };
        let side = format!("{} side", flag.side.as_str());
        Self::of_log(flag.code, ExplainTopic::Flag, flag.name, flag.meaning, grpc, &[flag.points_at, &side], flag.next)
    }

    /// Response code details.
    pub fn of_details(detail: &CodeDetail) -> Self {
        Self::of_log(
            detail.text,
            ExplainTopic::Details,
            "response code details",
            detail.meaning,
            String::new(),
            &[],
            "",
        )
    }

    /// A gRPC status.
    pub fn of_status(status: &GrpcStatus) -> Self {
        let causes: Vec<String> =
            FLAGS.iter().filter(|flag| flag.grpc == Some(status.code)).map(|flag| flag.code.to_owned()).collect();
        let without_flag = match status.code {
            4 => {
                " It also answers it without a flag when a deadline or the longest duration of a stream passes (max_duration_timeout)."
            }
            7 => {
                " It also answers it without a flag when an AuthorizationPolicy denies the call (rbac_access_denied_matched_policy)."
            }
            8 => " A rate limit may be told to answer it in place of UNAVAILABLE (flag RL).",
            16 => " It also answers it without a flag when a token is missing or invalid (jwt_authn_access_denied).",
            _ => "",
        };
        let grpc = if causes.is_empty() && without_flag.is_empty() {
            "Envoy does not answer it by itself: it comes from the server or from the client's own library".to_owned()
        } else {
            let flags = if causes.is_empty() {
                String::new()
            } else {
                format!("Envoy answers it by itself with the flags {}.", causes.join(", "))
            };
            format!("{flags}{without_flag}").trim().to_owned()
        };
        Self::of_log(&status.code.to_string(), ExplainTopic::Status, status.name, status.meaning, grpc, &[], "")
    }

    /// Flags and details read together, as they stand in one line of a caller's proxy.
    pub fn of_line(flags: &str, text: &str) -> Self {
        let mut access = AccessEntry {
            method: Some(b"POST"),
            path: Some(b"/package.Service/Method"),
            protocol: Some(b"HTTP/2"),
            code: Some(200),
            bytes_sent: Some(0),
            flags: ResponseFlags(flags),
            cluster: Some(b"outbound|0||host"),
            ..AccessEntry::default()
        };
        access.details = (!text.is_empty()).then_some(text.as_bytes());
        if let Some((_, reason)) = text.split_once('|') {
            access.transport_failure = Some(reason.trim_end_matches('}').as_bytes());
        }
        let verdict = diagnose(&access);
        let status = verdict.status.and_then(|status| status.code);
        let grpc = status.map_or_else(
            || "the log cannot tell which status the client got".to_owned(),
            |code| format!("the client gets {code} {}", grpc_status::name(code)),
        );
        let key = [flags, text].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        let side = format!("{} side", verdict.side.as_str());
        let meaning = match response_code_details::find(DETAILS, text) {
            Some(detail) => format!("{}. {}: {}", verdict.what, detail.text, detail.meaning),
            None if text.is_empty() => verdict.what.into_owned(),
            None if flags.is_empty() => {
                format!("\"{text}\" is no text that this program knows; without it: {}", verdict.what)
            }
            None => format!("{}. \"{text}\" is no text that this program knows", verdict.what),
        };
        Self::of_log(&key, ExplainTopic::Line, "read together", &meaning, grpc, &[&side], &verdict.next)
    }

    /// A flag that this Envoy does not have.
    pub fn of_unknown_flag(word: &str) -> Self {
        let meaning = "not a flag of Envoy 1.39: of a newer Envoy, or registered by an extension";
        Self::of_log(
            word,
            ExplainTopic::Flag,
            "unknown flag",
            meaning,
            String::new(),
            &[],
            "see the documentation of the proxy that wrote it",
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
        let causes: Vec<String> = causes.iter().filter(|one| !one.is_empty()).map(|one| (*one).to_owned()).collect();
        let mut docs = format!("## What happened\n{meaning}\n");
        for (heading, text) in [("For gRPC", grpc.as_str()), ("Points at", &causes.join("; ")), ("Look first", next)] {
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

/// The text under a heading.
fn section(docs: &str, heading: &str) -> String {
    let Some((_, rest)) = docs.split_once(heading) else { return String::new() };
    let end = rest.find("\n## ").unwrap_or(rest.len());
    rest[..end].trim().to_owned()
}
