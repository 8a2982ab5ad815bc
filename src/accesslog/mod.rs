//! Envoy's access log as Istio writes it: lines to fields, without guessing and without copying.
//!
//! A sidecar's output mixes access lines with the logs of the agent and of Envoy. [`Reader::read`] says of each line what
//! it is. Istio's text format of every version is recognised by what stands after the flags; its JSON by its keys;
//! other formats are compiled from their format string ([`format::Format`]).
//!
//! Sources: `pilot/pkg/model/telemetry_logging.go` of istio/istio and its predecessors for the formats, Envoy's
//! `substitution_formatter` for what an operator prints. Values are bytes: a client may send anything in a header.

mod byte_search;
mod entry;
mod flat_json;
pub mod format;
mod json;
pub mod prefix;
pub(crate) mod settings;
mod text;
mod timestamp;

use std::sync::Arc;

use bumpalo::Bump;

pub use entry::{AccessEntry, Direction, FieldBytes, LogOperator, ResponseFlags};
use format::LogFormat;
use prefix::UnprefixedLine;
use timestamp::TimestampCache;

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every line is one; a box for each would cost more than the copy")]
pub enum LogLine<'a> {
    /// One request, or one connection.
    Access(AccessEntry<'a>),
    /// Anything else.
    Other(OtherLine),
}

/// Lines that are no access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OtherLine {
    /// Envoy's own log.
    Envoy,
    /// The agent's log.
    Agent,
    /// A further line of a log record that has several.
    Continuation,
    /// An ejection by outlier detection, or its end.
    OutlierEvent,
    /// Nothing.
    Empty,
    /// JSON of another form: perhaps a custom format.
    UnknownJson,
    /// Text of another form: perhaps a custom format.
    Unknown,
}

impl OtherLine {
    /// The word for counts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Envoy => "envoy-log",
            Self::Agent => "agent-log",
            Self::Continuation => "continuation",
            Self::OutlierEvent => "outlier-event",
            Self::Empty => "empty",
            Self::UnknownJson => "unknown-json",
            Self::Unknown => "unknown",
        }
    }
}

/// Reads the lines of one container in their order.
#[derive(Debug, Default)]
pub struct LogReader {
    /// Custom formats, tried in this order.
    formats: Arc<[LogFormat]>,
    /// Whether the last line was of a log record that may go on.
    in_record: bool,
    clock: TimestampCache,
    /// Keys of JSON lines.
    keys: flat_json::KnownKeys,
    /// Values of the last line that are not written there as they are meant, such as JSON's with escapes.
    arena: Bump,
}

impl LogReader {
    /// Tries custom formats first, and reads everything else as usual.
    pub fn with_formats(formats: Arc<[LogFormat]>) -> Self {
        Self { formats, ..Self::default() }
    }

    /// Says what a line is. `line` has no line break at its end.
    pub fn read<'a>(&'a mut self, line: &'a [u8]) -> LogLine<'a> {
        let mut access = AccessEntry::default();
        match self.fill_stripped(line, UnprefixedLine { line, pod: None }, &mut access) {
            Ok(_) => LogLine::Access(access),
            Err(kind) => LogLine::Other(kind),
        }
    }

    /// As [`Self::read`], for a line that may carry a runtime's or kubectl's prefix; gives the pod that it names, too. A
    /// custom format is tried on the whole line first: it may begin with a time itself. The fields go into `access`, which
    /// is new: half a kilobyte is not moved around for each of millions of lines.
    ///
    /// # Errors
    /// The kind of what is no access line.
    #[inline]
    pub fn fill<'a>(&'a mut self, line: &'a [u8], access: &mut AccessEntry<'a>) -> Result<Option<&'a str>, OtherLine> {
        self.fill_stripped(line, prefix::strip(line), access)
    }

    #[inline]
    fn fill_stripped<'a>(
        &'a mut self,
        whole: &'a [u8],
        stripped: UnprefixedLine<'a>,
        access: &mut AccessEntry<'a>,
    ) -> Result<Option<&'a str>, OtherLine> {
        let Self { formats, in_record, clock, keys, arena } = self;
        arena.reset();
        let arena: &'a Bump = arena;
        let line = bare(stripped.line);
        if !formats.is_empty() {
            let custom = |line: &'a [u8]| formats.iter().find_map(|format| format.parse(line, arena));
            let whole = bare(whole);
            let of_whole = custom(whole).map(|read| (read, None));
            let of_rest = || custom(line).filter(|_| line.len() < whole.len()).map(|read| (read, stripped.pod));
            if let Some((read, pod)) = of_whole.or_else(of_rest) {
                (*access, *in_record) = (read, false);
                return Ok(pod);
            }
        }
        let read = classify(line, *in_record, (clock, keys, arena), access);
        *in_record = matches!(read, Err(OtherLine::Envoy | OtherLine::Agent | OtherLine::Continuation));
        read.map(|()| stripped.pod)
    }
}

impl Clone for LogReader {
    /// A reader that goes on in the same place.
    fn clone(&self) -> Self {
        let Self { formats, in_record, clock, keys, arena: _ } = self;
        let (formats, clock, keys) = (Arc::clone(formats), clock.clone(), keys.clone());
        Self { formats, in_record: *in_record, clock, keys, arena: Bump::new() }
    }
}

/// A line without what an editor or another system put around it: the mark before the first line, a carriage return.
#[inline]
fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
}

/// Reads a line in Istio's own formats; `in_record` when the one before it may go on.
#[inline]
fn classify<'a>(
    line: &'a [u8],
    in_record: bool,
    (clock, keys, arena): (&mut TimestampCache, &mut flat_json::KnownKeys, &'a Bump),
    access: &mut AccessEntry<'a>,
) -> Result<(), OtherLine> {
    match line.first() {
        None if in_record => Err(OtherLine::Continuation),
        None => Err(OtherLine::Empty),
        Some(b'{') => match flat_json::read(line, keys, clock, arena, access) {
            Some(()) => Ok(()),
            None => {
                *access = AccessEntry::default();
                json::read(line, arena, access)
            }
        },
        Some(b'[') => match text::parse(line, clock, access) {
            Some(()) => Ok(()),
            // Before its configuration is read, Envoy logs in a form of its own.
            None if is_date(&line[1..], b' ') => Err(OtherLine::Envoy),
            None if is_start_time(line) || !in_record => Err(OtherLine::Unknown),
            None => Err(OtherLine::Continuation),
        },
        Some(_) if is_date(line, b'T') && line.get(26..28) == Some(b"Z\t") => {
            let scope = line.split(|byte| *byte == b'\t').nth(2).unwrap_or_default();
            Err(if scope.starts_with(b"envoy ") { OtherLine::Envoy } else { OtherLine::Agent })
        }
        Some(_) if in_record => Err(OtherLine::Continuation),
        Some(_) => Err(OtherLine::Unknown),
    }
}

/// `[2026-11-21T09:00:00.000Z] "`.
fn is_start_time(line: &[u8]) -> bool {
    is_date(&line[1..], b'T') && line.get(25..28) == Some(b"] \"")
}

/// `2026-11-21T09:00:00`, with another letter before the time if asked.
fn is_date(text: &[u8], between: u8) -> bool {
    let Some(head) = text.get(..19) else { return false };
    head.iter().enumerate().all(|(at, byte)| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == between,
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    })
}
