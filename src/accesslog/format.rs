//! Custom formats, compiled from the format string that Envoy was given.

use std::collections::HashMap;

use bumpalo::Bump;

use super::entry::{AccessEntry, LogOperator};
use super::json;

/// A compiled format.
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
    /// It has no operator at all, such as a word that was meant to be a name.
    #[error("the format has no operator such as %RESPONSE_FLAGS%")]
    NoOperator,
    /// A percent sign begins an operator that does not end.
    #[error("the operator at character {0} has no closing %")]
    Unclosed(usize),
    /// Two operators touch: where one value ends cannot be told.
    #[error("%{0}% follows another operator without anything between them")]
    Touching(String),
    /// It has more operators than anybody logs.
    #[error("the format has more than {PIECES_MAX} parts")]
    TooLong,
    /// It begins with a brace and is no JSON object.
    #[error("the format looks like JSON and is none: {0}")]
    NotJson(String),
}

impl LogFormat {
    /// Compiles a text format, or a JSON object of labels.
    ///
    /// # Errors
    /// When a line cannot be taken apart by it.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        if text.trim_start().starts_with('{') {
            return JsonTemplate::compile(text).map(|labels| Self(FormatKind::Json(labels)));
        }
        let pieces = pieces(text.trim_end_matches('\n'))?;
        if !pieces.iter().any(|piece| matches!(piece, FormatToken::Value(_))) {
            return Err(FormatError::NoOperator);
        }
        if pieces.len() > PIECES_MAX {
            return Err(FormatError::TooLong);
        }
        Ok(Self(FormatKind::Text(pieces)))
    }

    /// Whether its lines tell the gRPC status.
    pub fn tells_status(&self) -> bool {
        match &self.0 {
            FormatKind::Text(pieces) => pieces.contains(&FormatToken::Value(LogOperator::GrpcStatus)),
            FormatKind::Json(labels) => labels.0.values().any(|label| label.operator == LogOperator::GrpcStatus),
        }
    }

    /// Reads a line; `None` when it is of another form.
    pub(super) fn parse<'a>(&self, line: &'a [u8], arena: &'a Bump) -> Option<AccessEntry<'a>> {
        match &self.0 {
            FormatKind::Json(labels) if line.first() == Some(&b'{') => json::read_labels(line, labels, arena),
            FormatKind::Json(_) => None,
            FormatKind::Text(pieces) => read(pieces, line, arena),
        }
    }
}

/// Literals and operators of a format, at most: the search for a fit goes one call deeper for each.
const PIECES_MAX: usize = 1_000;
/// Places that are tried for the values of one line. A usual line needs a few dozen; what takes more was made to.
const TRIES_MAX: usize = 20_000;

fn read<'a>(pieces: &[FormatToken], line: &'a [u8], arena: &'a Bump) -> Option<AccessEntry<'a>> {
    let mut fit = FormatMatcher { arena, tries: 0, access: AccessEntry::default(), found: None };
    fit.all(pieces, line);
    fit.found
}

/// The search for the way in which a line fits a format. Nothing in a line is escaped: what a client sent may look like
/// the literals around it, and then there are several ways.
struct FormatMatcher<'a> {
    arena: &'a Bump,
    tries: usize,
    /// Values of the way that is being tried.
    access: AccessEntry<'a>,
    /// The first way, marked when there is another one.
    found: Option<AccessEntry<'a>>,
}

impl<'a> FormatMatcher<'a> {
    /// Tries all ways to fit the pieces; `true` when nothing more need be tried.
    fn all(&mut self, pieces: &[FormatToken], rest: &'a [u8]) -> bool {
        match pieces {
            [] if !rest.is_empty() => false,
            [] => self.note(),
            [FormatToken::Literal(literal), more @ ..] => {
                rest.strip_prefix(literal.as_slice()).is_some_and(|rest| self.all(more, rest))
            }
            [FormatToken::Value(operator)] => self.take(*operator, rest) == ValueFit::Fits && self.note(),
            [FormatToken::Value(operator), more @ ..] => {
                let Some(FormatToken::Literal(literal)) = more.first() else { return false };
                self.value(*operator, literal, more, rest)
            }
        }
    }

    /// Tries all ends of a value before `literal`, the shortest first. A user agent is the longest that fits: it is the
    /// place where most of what was not written by a proxy stands.
    fn value(&mut self, operator: LogOperator, literal: &[u8], more: &[FormatToken], rest: &'a [u8]) -> bool {
        let is_long = operator == LogOperator::UserAgent;
        let mut next = if is_long { memchr::memmem::rfind(rest, literal) } else { memchr::memmem::find(rest, literal) };
        while let Some(end) = next {
            self.tries += 1;
            if self.tries > TRIES_MAX {
                // Whether there is another way is not known.
                self.found = self.found.map(|found| AccessEntry { ambiguous: true, ..found });
                return true;
            }
            match self.take(operator, &rest[..end]) {
                ValueFit::Fits if self.all(more, &rest[end..]) => return true,
                ValueFit::Never if !is_long => return false,
                _ => {}
            }
            next = if is_long {
                memchr::memmem::rfind(&rest[..(end + literal.len()).saturating_sub(1)], literal)
            } else {
                memchr::memmem::find(&rest[end + 1..], literal).map(|further| end + 1 + further)
            };
        }
        false
    }

    fn take(&mut self, operator: LogOperator, text: &'a [u8]) -> ValueFit {
        if is_word(operator) && text.iter().any(|byte| matches!(byte, b' ' | b'"')) {
            return ValueFit::Never;
        }
        if self.access.set(operator, text, self.arena) { ValueFit::Fits } else { ValueFit::No }
    }

    /// Keeps a way in which the whole line fits; `true` at the second one.
    fn note(&mut self) -> bool {
        match &mut self.found {
            None => {
                self.found = Some(self.access);
                false
            }
            Some(found) => {
                found.ambiguous |= *found != self.access;
                found.ambiguous
            }
        }
    }
}

/// Whether a text can be a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueFit {
    Fits,
    /// Not this one; a longer one may.
    No,
    /// Neither this one nor a longer one.
    Never,
}

/// Whether a value is a word that proxies write, without spaces and quotes in it.
fn is_word(operator: LogOperator) -> bool {
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

fn pieces(text: &str) -> Result<Vec<FormatToken>, FormatError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut literal = String::new();
    while let Some((before, after)) = rest.split_once('%') {
        literal.push_str(before);
        if let Some(after) = after.strip_prefix('%') {
            literal.push('%');
            rest = after;
            continue;
        }
        let at = text.len() - after.len();
        let end = operator_end(after).ok_or(FormatError::Unclosed(at))?;
        let name = &after[..end];
        if !literal.is_empty() {
            pieces.push(FormatToken::Literal(std::mem::take(&mut literal).into_bytes()));
        } else if matches!(pieces.last(), Some(FormatToken::Value(_))) {
            return Err(FormatError::Touching(name.to_owned()));
        }
        pieces.push(FormatToken::Value(operator(name)));
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(FormatToken::Literal(literal.into_bytes()));
    }
    Ok(pieces)
}

/// Where the operator that begins here ends; a percent sign inside its parentheses belongs to it.
fn operator_end(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '%' if depth == 0 => return Some(at),
            _ => {}
        }
    }
    None
}

/// What an operator tells, by its name and arguments; `:20` at its end only cuts the value.
fn operator(text: &str) -> LogOperator {
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

/// A JSON format: keys, nested ones as `outer.inner`, with what stands around each operator.
#[derive(Debug, Clone, Default)]
pub struct JsonTemplate(HashMap<String, JsonTemplateField>);

#[derive(Debug, Clone)]
struct JsonTemplateField {
    before: Vec<u8>,
    operator: LogOperator,
    after: Vec<u8>,
}

impl JsonTemplate {
    fn compile(text: &str) -> Result<Self, FormatError> {
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| FormatError::NotJson(error.to_string()))?;
        let mut labels = Self::default();
        labels.take("", &value)?;
        if labels.0.is_empty() { Err(FormatError::NoOperator) } else { Ok(labels) }
    }

    fn take(&mut self, path: &str, value: &serde_json::Value) -> Result<(), FormatError> {
        match value {
            serde_json::Value::Object(fields) => {
                for (key, value) in fields {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.take(&path, value)?;
                }
            }
            serde_json::Value::String(text) => {
                let mut before = Vec::new();
                let mut after = Vec::new();
                let mut found = None;
                for piece in pieces(text)? {
                    match (piece, found) {
                        (FormatToken::Literal(literal), None) => before = literal,
                        (FormatToken::Literal(literal), Some(_)) => after = literal,
                        (FormatToken::Value(operator), None) => found = Some(operator),
                        // Several in one text: what each printed cannot be told.
                        (FormatToken::Value(_), Some(_)) => found = Some(LogOperator::Unknown),
                    }
                }
                if let Some(operator) = found.filter(|operator| *operator != LogOperator::Unknown) {
                    self.0.insert(path.to_owned(), JsonTemplateField { before, operator, after });
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// How many keys tell something.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether a key tells something.
    pub(super) fn knows(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }

    /// What a key's value tells.
    pub(super) fn read<'a>(&self, path: &str, text: &'a [u8]) -> Option<(LogOperator, &'a [u8])> {
        let JsonTemplateField { before, operator, after } = self.0.get(path)?;
        let inner = text.strip_prefix(before.as_slice()).unwrap_or(text);
        Some((*operator, inner.strip_suffix(after.as_slice()).unwrap_or(inner)))
    }
}
