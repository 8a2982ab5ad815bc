//! Parses Envoy access logs in Istio's formats, and in custom ones, into fields that borrow from the line.
//!
//! The output of an `istio-proxy` container mixes access log lines with the logs of Envoy and of the Istio agent.
//! [`LogReader::read`] classifies each line. Istio's text format of every version is recognized by the fields after the
//! response flags, its JSON format by its keys. Other formats are compiled from their format string
//! ([`format::LogFormat`]).
//!
//! Sources: `pilot/pkg/model/telemetry_logging.go` of istio/istio and its predecessors for the formats, Envoy's
//! `substitution_formatter` for the output of each operator. Values are bytes: a client may send any bytes in a header.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

mod byte_search;
mod entry;
mod flat_json;
pub mod format;
mod json;
mod lead;
mod line_reader;
pub mod prefix;
pub(crate) mod settings;
mod text;
mod timestamp;
mod wrapped;

use std::sync::Arc;

use bumpalo::Bump;
use schemars::JsonSchema;
use serde::Serialize;

pub use entry::{AccessEntry, Direction, FieldBytes, LogOperator, ResponseFlags};
use format::LogFormat;
pub(crate) use lead::lead_for;
pub use line_reader::{LineConsumer, LineReader, ReadLine};
use prefix::UnprefixedLine;
use timestamp::TimestampCache;
pub use wrapped::names::names_in_path;

/// The pod that wrote a line, as far as the text next to the line names it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PodNames<'a> {
    /// Name of the pod.
    pub pod: Option<&'a str>,
    /// Namespace of the pod.
    pub namespace: Option<&'a str>,
    /// Name of the container.
    pub container: Option<&'a str>,
}

impl<'a> PodNames<'a> {
    /// These names, and those of `other` in place of missing ones.
    fn or(self, other: PodNames<'a>) -> Self {
        Self {
            pod: self.pod.or(other.pod),
            namespace: self.namespace.or(other.namespace),
            container: self.container.or(other.container),
        }
    }
}

/// A classified line.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every line is an access line; a box costs more than the copy")]
pub enum LogLine<'a> {
    /// One request, or one TCP connection.
    Access(AccessEntry<'a>),
    /// Any other line.
    Other(OtherLine),
}

/// Kind of a line that is not an access log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum OtherLine {
    /// The log of the Istio agent.
    AgentLog,
    /// A further line of a log record of several lines.
    Continuation,
    /// An empty line.
    Empty,
    /// Envoy's application log.
    EnvoyLog,
    /// An ejection by outlier detection, or its end.
    OutlierEvent,
    /// Unrecognized text, perhaps in a custom format.
    Unknown,
    /// Unrecognized JSON, perhaps in a custom format.
    UnknownJson,
}

impl OtherLine {
    /// The value in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Reads the lines of one container in order.
#[derive(Debug, Default)]
pub struct LogReader {
    /// Custom formats in the order in which they are tried.
    formats: Arc<[LogFormat]>,
    /// Whether the previous line belongs to a log record that may have further lines.
    in_record: bool,
    timestamps: TimestampCache,
    keys: flat_json::KeyCache,
    /// Decoded values of the last line that cannot be borrowed from it, such as JSON strings with escapes.
    arena: Bump,
}

impl LogReader {
    /// Builds a reader that tries custom formats first, then Istio's own.
    pub fn with_formats(formats: Arc<[LogFormat]>) -> Self {
        Self { formats, ..Self::default() }
    }

    /// Classifies and parses a line without its line break.
    pub fn read<'a>(&'a mut self, line: &'a [u8]) -> LogLine<'a> {
        let mut access = AccessEntry::default();
        match self.read_stripped(line, UnprefixedLine { line, names: PodNames::default() }, &mut access) {
            Ok(_) => LogLine::Access(access),
            Err(kind) => LogLine::Other(kind),
        }
    }

    /// Parses a line that may have the prefix of a container runtime or of kubectl, and returns the names in the prefix. Custom formats are tried on the whole line first, since a format may start with a timestamp itself.
    ///
    /// `access` must be a default value. It is an out parameter because moving half a kilobyte per line is measurable.
    ///
    /// # Errors
    /// The kind of a line that is not an access log line.
    #[inline]
    pub fn read_into<'a>(
        &'a mut self,
        line: &'a [u8],
        access: &mut AccessEntry<'a>,
    ) -> Result<PodNames<'a>, OtherLine> {
        self.read_stripped(line, prefix::strip(line), access)
    }

    #[inline]
    fn read_stripped<'a>(
        &'a mut self,
        whole: &'a [u8],
        stripped: UnprefixedLine<'a>,
        access: &mut AccessEntry<'a>,
    ) -> Result<PodNames<'a>, OtherLine> {
        let Self { formats, in_record, timestamps, keys, arena } = self;
        arena.reset();
        let arena: &'a Bump = arena;
        let line = trim(stripped.line);
        if !formats.is_empty() {
            let custom = |line: &'a [u8]| formats.iter().find_map(|format| format.parse(line, arena));
            let whole = trim(whole);
            let from_whole = custom(whole).map(|entry| (entry, PodNames::default()));
            let from_rest = || custom(line).filter(|_| line.len() < whole.len()).map(|entry| (entry, stripped.names));
            if let Some((entry, names)) = from_whole.or_else(from_rest) {
                (*access, *in_record) = (entry, false);
                return Ok(names);
            }
        }
        let result = classify(line, *in_record, (timestamps, keys, arena), access);
        *in_record = matches!(result, Err(OtherLine::EnvoyLog | OtherLine::AgentLog | OtherLine::Continuation));
        result.map(|()| stripped.names)
    }
}

impl Clone for LogReader {
    /// The clone continues at the same line.
    fn clone(&self) -> Self {
        let Self { formats, in_record, timestamps, keys, arena: _ } = self;
        Self {
            formats: Arc::clone(formats),
            in_record: *in_record,
            timestamps: timestamps.clone(),
            keys: keys.clone(),
            arena: Bump::new(),
        }
    }
}

/// Removes a byte order mark and a carriage return, which editors and Windows tools add.
#[inline]
fn trim(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// Parses a line in Istio's own formats. `in_record`: the previous line belongs to a record that may continue.
#[inline]
fn classify<'a>(
    line: &'a [u8],
    in_record: bool,
    (timestamps, keys, arena): (&mut TimestampCache, &mut flat_json::KeyCache, &'a Bump),
    access: &mut AccessEntry<'a>,
) -> Result<(), OtherLine> {
    match line.first() {
        None if in_record => Err(OtherLine::Continuation),
        None => Err(OtherLine::Empty),
        Some(b'{') => match flat_json::parse(line, keys, timestamps, arena, access) {
            Some(()) => Ok(()),
            None => {
                *access = AccessEntry::default();
                json::parse(line, arena, access)
            }
        },
        Some(b'[') => match text::parse(line, timestamps, access) {
            Some(()) => Ok(()),
            // Until Envoy has loaded its bootstrap configuration it logs in its default format.
            None if is_date(&line[1..], b' ') => Err(OtherLine::EnvoyLog),
            None if is_start_time(line) || !in_record => Err(OtherLine::Unknown),
            None => Err(OtherLine::Continuation),
        },
        Some(_) if is_date(line, b'T') && line.get(26..28) == Some(b"Z\t") => {
            let scope = line.split(|byte| *byte == b'\t').nth(2).unwrap_or_default();
            Err(if scope.starts_with(b"envoy ") { OtherLine::EnvoyLog } else { OtherLine::AgentLog })
        }
        Some(_) if in_record => Err(OtherLine::Continuation),
        Some(_) => Err(OtherLine::Unknown),
    }
}

/// Whether the line starts like `[2026-11-21T09:00:00.000Z] "`.
fn is_start_time(line: &[u8]) -> bool {
    is_date(&line[1..], b'T') && line.get(25..28) == Some(b"] \"")
}

/// Whether the text starts like `2026-11-21T09:00:00`, with `separator` in place of the `T`.
fn is_date(text: &[u8], separator: u8) -> bool {
    let Some(head) = text.get(..19) else { return false };
    head.iter().enumerate().all(|(index, byte)| match index {
        4 | 7 => *byte == b'-',
        10 => *byte == separator,
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    })
}
