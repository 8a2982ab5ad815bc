//! Custom access log formats, compiled from Envoy's format string.

#![expect(
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "audited: the positions come from searches of the same bytes; fuzzed"
)]

use std::collections::HashMap;

use bumpalo::Bump;

use super::entry::{AccessEntry, LogOperator};
use super::json;

/// A compiled access log format.
#[derive(Debug, Clone)]
pub struct LogFormat(FormatKind);

#[derive(Debug, Clone)]
enum FormatKind {
    Text(Vec<FormatToken>),
    Json(JsonTemplate),
}

#[derive(Debug, Clone, PartialEq)]
enum FormatToken {
    Literal(Vec<u8>),
    Value(LogOperator),
}

/// Why a format cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The text contains no command operator.
    #[error("the format contains no command operator, such as %RESPONSE_FLAGS%")]
    NoOperator,
    /// A percent sign starts an operator that has no closing percent sign. Holds its position in bytes.
    #[error("the operator at character {0} has no closing %")]
    Unclosed(usize),
    /// Two operators have no literal between them, so the end of the first value is ambiguous. Holds the second one.
    #[error("%{0}% follows another operator without a separator")]
    Touching(String),
    /// The format has more parts than the parser supports.
    #[error("the format has more than {TOKENS_MAX} literals and operators")]
    TooLong,
    /// The text starts with a brace and is not a JSON object.
    #[error("the format starts with a brace and is not valid JSON: {0}")]
    NotJson(String),
}

impl LogFormat {
    /// Compiles a text format, or a JSON object of keys and format strings.
    ///
    /// # Errors
    /// [`FormatError`] if lines in this format cannot be parsed.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        if text.trim_start().starts_with('{') {
            return JsonTemplate::compile(text).map(|template| Self(FormatKind::Json(template)));
        }
        let tokens = tokenize(text.trim_end_matches('\n'))?;
        if !tokens.iter().any(|token| matches!(token, FormatToken::Value(_))) {
            return Err(FormatError::NoOperator);
        }
        if tokens.len() > TOKENS_MAX {
            return Err(FormatError::TooLong);
        }
        Ok(Self(FormatKind::Text(tokens)))
    }

    /// Whether lines in this format contain the gRPC status.
    pub fn logs_grpc_status(&self) -> bool {
        match &self.0 {
            FormatKind::Text(tokens) => tokens.contains(&FormatToken::Value(LogOperator::GrpcStatus)),
            FormatKind::Json(template) => template.0.values().any(|field| field.operator == LogOperator::GrpcStatus),
        }
    }

    /// Parses a line; `None` if it is not in this format.
    pub(super) fn parse<'a>(&self, line: &'a [u8], arena: &'a Bump) -> Option<AccessEntry<'a>> {
        match &self.0 {
            FormatKind::Json(template) if line.first() == Some(&b'{') => json::parse_custom(line, template, arena),
            FormatKind::Json(_) => None,
            FormatKind::Text(tokens) => parse_text(tokens, line, arena),
        }
    }
}

/// Limit for literals and operators: matching recurses once for each.
const TOKENS_MAX: usize = 1_000;
/// Limit for attempts to end a value, per line. Normal lines need a few dozen; a hostile line could need millions.
const ATTEMPTS_MAX: usize = 20_000;

fn parse_text<'a>(tokens: &[FormatToken], line: &'a [u8], arena: &'a Bump) -> Option<AccessEntry<'a>> {
    let mut matcher = FormatMatcher { arena, attempts: 0, candidate: AccessEntry::default(), result: None };
    matcher.match_tokens(tokens, line);
    matcher.result
}

/// Backtracking search for the values of a line. Envoy does not escape values, so text that a client sent may contain
/// the literals around it, and a line may have several readings.
struct FormatMatcher<'a> {
    arena: &'a Bump,
    attempts: usize,
    /// Values of the reading that is being tried.
    candidate: AccessEntry<'a>,
    /// The first complete reading, marked as ambiguous if there is another one.
    result: Option<AccessEntry<'a>>,
}

impl<'a> FormatMatcher<'a> {
    /// Tries all readings of `rest`; `true` ends the search.
    fn match_tokens(&mut self, tokens: &[FormatToken], rest: &'a [u8]) -> bool {
        match tokens {
            [] if !rest.is_empty() => false,
            [] => self.record_reading(),
            [FormatToken::Literal(literal), more @ ..] => {
                rest.strip_prefix(literal.as_slice()).is_some_and(|rest| self.match_tokens(more, rest))
            }
            [FormatToken::Value(operator)] => {
                self.set_value(*operator, rest) == ValueValidity::Valid && self.record_reading()
            }
            [FormatToken::Value(operator), more @ ..] => {
                let Some(FormatToken::Literal(literal)) = more.first() else { return false };
                self.match_value(*operator, literal, more, rest)
            }
        }
    }

    /// Tries every end of a value before `literal`, the shortest value first. A user agent is tried longest first,
    /// because it contains most of the text that no proxy wrote.
    fn match_value(&mut self, operator: LogOperator, literal: &[u8], more: &[FormatToken], rest: &'a [u8]) -> bool {
        let is_longest_first = operator == LogOperator::UserAgent;
        let mut next =
            if is_longest_first { memchr::memmem::rfind(rest, literal) } else { memchr::memmem::find(rest, literal) };
        while let Some(end) = next {
            self.attempts += 1;
            if self.attempts > ATTEMPTS_MAX {
                // The search is incomplete: another reading may exist.
                self.result = self.result.map(|entry| AccessEntry { ambiguous: true, ..entry });
                return true;
            }
            match self.set_value(operator, &rest[..end]) {
                ValueValidity::Valid if self.match_tokens(more, &rest[end..]) => return true,
                ValueValidity::NeverValid if !is_longest_first => return false,
                _ => {}
            }
            next = if is_longest_first {
                memchr::memmem::rfind(&rest[..(end + literal.len()).saturating_sub(1)], literal)
            } else {
                memchr::memmem::find(&rest[end + 1..], literal).map(|offset| end + 1 + offset)
            };
        }
        false
    }

    fn set_value(&mut self, operator: LogOperator, text: &'a [u8]) -> ValueValidity {
        if is_single_word(operator) && text.iter().any(|byte| matches!(byte, b' ' | b'"')) {
            return ValueValidity::NeverValid;
        }
        if self.candidate.set(operator, text, self.arena) { ValueValidity::Valid } else { ValueValidity::Invalid }
    }

    /// Records a reading of the whole line; `true` once two readings differ.
    fn record_reading(&mut self) -> bool {
        match &mut self.result {
            None => {
                self.result = Some(self.candidate);
                false
            }
            Some(first) => {
                first.ambiguous |= *first != self.candidate;
                first.ambiguous
            }
        }
    }
}

/// Whether a text can be the value of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueValidity {
    Valid,
    /// This text is not valid; a longer one may be.
    Invalid,
    /// Neither this text nor a longer one is valid.
    NeverValid,
}

/// Whether the proxy itself writes the value, without spaces or quotes.
fn is_single_word(operator: LogOperator) -> bool {
    use LogOperator as O;
    match operator {
        O::Path | O::TerminationDetails | O::TransportFailure | O::UpstreamTime | O::ForwardedFor | O::UserAgent => {
            false
        }
        O::RequestId | O::Authority | O::RouteName | O::Unknown => false,
        O::StartTime | O::Method | O::Protocol | O::ResponseCode | O::ResponseFlags | O::ResponseFlagsLong => true,
        O::ResponseCodeDetails | O::BytesReceived | O::BytesSent | O::Duration | O::UpstreamHost | O::Cluster => true,
        O::UpstreamLocal | O::DownstreamLocal | O::DownstreamRemote | O::ServerName | O::GrpcStatus | O::Attempts => {
            true
        }
    }
}

fn tokenize(text: &str) -> Result<Vec<FormatToken>, FormatError> {
    let mut tokens = Vec::new();
    let mut rest = text;
    let mut literal = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let position = text.len() - after.len();
        let end = operator_end(after).ok_or(FormatError::Unclosed(position))?;
        let name = &after[..end];
        if !literal.is_empty() {
            tokens.push(FormatToken::Literal(std::mem::take(&mut literal).into_bytes()));
        } else if matches!(tokens.last(), Some(FormatToken::Value(_))) {
            return Err(FormatError::Touching(name.to_owned()));
        }
        tokens.push(FormatToken::Value(parse_operator(name)));
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        tokens.push(FormatToken::Literal(literal.into_bytes()));
    }
    Ok(tokens)
}

/// End of the operator at the start of `text`. A percent sign in its parentheses is part of the operator.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(index),
            _ => {}
        }
    }
    None
}

/// The operator with this name and arguments. A length limit such as `:20` at its end is ignored.
fn parse_operator(text: &str) -> LogOperator {
    use LogOperator as O;
    let (name, arguments) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.rsplit_once(')').map_or(rest, |(inner, _)| inner)),
        None => (text.split_once(':').map_or(text, |(name, _)| name), ""),
    };
    match (name, arguments.to_ascii_uppercase().as_str()) {
        ("START_TIME", "") => O::StartTime,
        ("REQ", ":METHOD") => O::Method,
        ("REQ" | "REQ_WITHOUT_QUERY", ":PATH" | "X-ENVOY-ORIGINAL-PATH?:PATH") | ("PATH", _) => O::Path,
        ("PROTOCOL", _) => O::Protocol,
        ("RESPONSE_CODE", _) => O::ResponseCode,
        ("RESPONSE_FLAGS", _) => O::ResponseFlags,
        ("RESPONSE_FLAGS_LONG", _) => O::ResponseFlagsLong,
        ("RESPONSE_CODE_DETAILS", _) => O::ResponseCodeDetails,
        ("CONNECTION_TERMINATION_DETAILS", _) => O::TerminationDetails,
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", _) => O::TransportFailure,
        ("BYTES_RECEIVED", _) => O::BytesReceived,
        ("BYTES_SENT", _) => O::BytesSent,
        ("DURATION", _) => O::Duration,
        ("RESP", "X-ENVOY-UPSTREAM-SERVICE-TIME") => O::UpstreamTime,
        ("REQ", "X-FORWARDED-FOR") => O::ForwardedFor,
        ("REQ", "USER-AGENT") => O::UserAgent,
        ("REQ", "X-REQUEST-ID") => O::RequestId,
        ("REQ", ":AUTHORITY") => O::Authority,
        ("UPSTREAM_HOST", _) => O::UpstreamHost,
        ("UPSTREAM_CLUSTER" | "UPSTREAM_CLUSTER_RAW", _) => O::Cluster,
        ("UPSTREAM_LOCAL_ADDRESS", _) => O::UpstreamLocal,
        ("DOWNSTREAM_LOCAL_ADDRESS", _) => O::DownstreamLocal,
        (
            "DOWNSTREAM_REMOTE_ADDRESS"
            | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT"
            | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS"
            | "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
            _,
        ) => O::DownstreamRemote,
        ("REQUESTED_SERVER_NAME", _) => O::ServerName,
        ("ROUTE_NAME", _) => O::RouteName,
        ("GRPC_STATUS" | "GRPC_STATUS_NUMBER", _) | ("RESP" | "TRAILER", "GRPC-STATUS") => O::GrpcStatus,
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", _) => O::Attempts,
        _ => O::Unknown,
    }
}

/// A JSON format: fields by key, nested keys as `outer.inner`.
#[derive(Debug, Clone, Default)]
pub struct JsonTemplate(HashMap<String, JsonTemplateField>);

#[derive(Debug, Clone)]
struct JsonTemplateField {
    /// Literal before the operator.
    prefix: Vec<u8>,
    operator: LogOperator,
    /// Literal after the operator.
    suffix: Vec<u8>,
}

impl JsonTemplate {
    fn compile(text: &str) -> Result<Self, FormatError> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| FormatError::NotJson(error.to_string()))?;
        let mut template = Self::default();
        template.add("", &value)?;
        if template.0.is_empty() { Err(FormatError::NoOperator) } else { Ok(template) }
    }

    fn add(&mut self, path: &str, value: &serde_json::Value) -> Result<(), FormatError> {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.add(&path, value)?;
                }
            }
            serde_json::Value::String(text) => {
                let mut prefix = Vec::new();
                let mut suffix = Vec::new();
                let mut operator = None;
                for token in tokenize(text)? {
                    match (token, operator) {
                        (FormatToken::Literal(literal), None) => prefix = literal,
                        (FormatToken::Literal(literal), Some(_)) => suffix = literal,
                        (FormatToken::Value(first), None) => operator = Some(first),
                        // Several operators in one value: their outputs cannot be separated.
                        (FormatToken::Value(_), Some(_)) => operator = Some(LogOperator::Unknown),
                    }
                }
                if let Some(operator) = operator.filter(|operator| *operator != LogOperator::Unknown) {
                    self.0.insert(path.to_owned(), JsonTemplateField { prefix, operator, suffix });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Number of keys with a known operator.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key has a known operator.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// The operator of a key, and the part of the value that it printed.
    pub(super) fn extract<'a>(&self, path: &str, text: &'a [u8]) -> Option<(LogOperator, &'a [u8])> {
        let JsonTemplateField { prefix, operator, suffix } = self.0.get(path)?;
        let inner = text.strip_prefix(prefix.as_slice()).unwrap_or(text);
        Some((*operator, inner.strip_suffix(suffix.as_slice()).unwrap_or(inner)))
    }
}
