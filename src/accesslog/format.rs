//! Custom formats, compiled from the format string that Envoy was given.

use std::collections::HashMap;

use bumpalo::Bump;

use super::entry::{Access, Operator};
use super::json;

/// A compiled format.
#[derive(Debug, Clone)]
pub struct Format(Form);

#[derive(Debug, Clone)]
enum Form {
    Text(Vec<Piece>),
    Json(Labels),
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Literal(Vec<u8>),
    Value(Operator),
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
    /// It begins with a brace and is no JSON object.
    #[error("the format looks like JSON and is none: {0}")]
    NotJson(String),
}

impl Format {
    /// Compiles a text format, or a JSON object of labels.
    ///
    /// # Errors
    /// When a line cannot be taken apart by it.
    pub fn compile(text: &str) -> Result<Self, FormatError> {
        if text.trim_start().starts_with('{') {
            return Labels::compile(text).map(|labels| Self(Form::Json(labels)));
        }
        let pieces = pieces(text.trim_end_matches('\n'))?;
        if !pieces.iter().any(|piece| matches!(piece, Piece::Value(_))) {
            return Err(FormatError::NoOperator);
        }
        Ok(Self(Form::Text(pieces)))
    }

    /// Whether its lines tell the gRPC status.
    pub fn tells_status(&self) -> bool {
        match &self.0 {
            Form::Text(pieces) => pieces.contains(&Piece::Value(Operator::GrpcStatus)),
            Form::Json(labels) => labels.0.values().any(|label| label.operator == Operator::GrpcStatus),
        }
    }

    /// Reads a line; `None` when it is of another form.
    pub(super) fn parse<'a>(&self, line: &'a [u8], arena: &'a Bump) -> Option<Access<'a>> {
        match &self.0 {
            Form::Json(labels) if line.first() == Some(&b'{') => json::read_labels(line, labels, arena),
            Form::Json(_) => None,
            Form::Text(pieces) => read(pieces, line, arena),
        }
    }
}

/// Reads from both ends toward the place where the text of clients is: values are as short as the literals allow.
fn read<'a>(pieces: &[Piece], line: &'a [u8], arena: &'a Bump) -> Option<Access<'a>> {
    let mut access = Access::default();
    let (mut pieces, mut rest) = (pieces, line);
    // From the right, as long as a literal ends the line: what the proxy writes itself stands there.
    while let [before @ .., Piece::Value(operator), Piece::Literal(literal)] = pieces {
        rest = rest.strip_suffix(literal.as_slice())?;
        let Some(Piece::Literal(left)) = before.last() else {
            pieces = &pieces[..pieces.len() - 1];
            break;
        };
        if *operator == Operator::UserAgent || *operator == Operator::Path || before.len() < 2 {
            pieces = &pieces[..pieces.len() - 1];
            break;
        }
        let at = memchr::memmem::rfind(rest, left)?;
        access.set(*operator, &rest[at + left.len()..], arena).then_some(())?;
        rest = &rest[..at + left.len()];
        pieces = before;
    }
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Literal(literal) => rest = rest.strip_prefix(literal.as_slice())?,
            Piece::Value(operator) => {
                let end = match pieces.peek() {
                    Some(Piece::Literal(literal)) => memchr::memmem::find(rest, literal)?,
                    Some(Piece::Value(_)) => return None,
                    None => rest.len(),
                };
                access.set(*operator, &rest[..end], arena).then_some(())?;
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty().then_some(access)
}

fn pieces(text: &str) -> Result<Vec<Piece>, FormatError> {
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
            pieces.push(Piece::Literal(std::mem::take(&mut literal).into_bytes()));
        } else if matches!(pieces.last(), Some(Piece::Value(_))) {
            return Err(FormatError::Touching(name.to_owned()));
        }
        pieces.push(Piece::Value(operator(name)));
        rest = &after[end + 1..];
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into_bytes()));
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
fn operator(text: &str) -> Operator {
    use Operator as O;
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
pub struct Labels(HashMap<String, Label>);

#[derive(Debug, Clone)]
struct Label {
    before: Vec<u8>,
    operator: Operator,
    after: Vec<u8>,
}

impl Labels {
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
                        (Piece::Literal(literal), None) => before = literal,
                        (Piece::Literal(literal), Some(_)) => after = literal,
                        (Piece::Value(operator), None) => found = Some(operator),
                        // Several in one text: what each printed cannot be told.
                        (Piece::Value(_), Some(_)) => found = Some(Operator::Unknown),
                    }
                }
                if let Some(operator) = found.filter(|operator| *operator != Operator::Unknown) {
                    self.0.insert(path.to_owned(), Label { before, operator, after });
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
    pub(super) fn read<'a>(&self, path: &str, text: &'a [u8]) -> Option<(Operator, &'a [u8])> {
        let Label { before, operator, after } = self.0.get(path)?;
        let inner = text.strip_prefix(before.as_slice()).unwrap_or(text);
        Some((*operator, inner.strip_suffix(after.as_slice()).unwrap_or(inner)))
    }
}
