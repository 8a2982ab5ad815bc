//! Envoy's access log as Istio writes it: lines to fields, without guessing and without copying.
//!
//! A sidecar's output mixes access lines with the logs of the agent and of Envoy. [`Reader::read`] says of each line what
//! it is. Istio's text format of every version is recognised by what stands after the flags; its JSON by its keys;
//! other formats are compiled from their format string ([`format::Format`]).
//!
//! Sources: `pilot/pkg/model/telemetry_logging.go` of istio/istio and its predecessors for the formats, Envoy's
//! `substitution_formatter` for what an operator prints. Values are bytes: a client may send anything in a header.

mod entry;
pub mod format;
mod json;
pub mod prefix;
pub mod settings;
mod text;

use std::sync::Arc;

pub use entry::{Access, Direction, Flags, Operator, Value};
use format::Format;

/// What a line is.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly every line is one; a box for each would cost more than the copy")]
pub enum Line<'a> {
    /// One request, or one connection.
    Access(Access<'a>),
    /// Anything else.
    Other(Kind),
}

/// Lines that are no access lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
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

impl Kind {
    /// The word for counts.
    pub fn word(self) -> &'static str {
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
#[derive(Debug, Clone, Default)]
pub struct Reader {
    /// Custom formats, tried in this order.
    formats: Arc<[Format]>,
    /// Whether the last line was of a log record that may go on.
    in_record: bool,
    clock: text::Clock,
}

impl Reader {
    /// Tries custom formats first, and reads everything else as usual.
    pub fn with_formats(formats: Arc<[Format]>) -> Self {
        Self { formats, ..Self::default() }
    }

    /// Says what a line is. `line` has no line break at its end.
    #[inline]
    pub fn read<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let read = self.classify(line);
        self.in_record = matches!(read, Line::Other(Kind::Envoy | Kind::Agent | Kind::Continuation));
        read
    }

    /// As [`Self::read`], for a line that may carry a runtime's or kubectl's prefix; gives the pod that it names, too. A
    /// custom format is tried on the whole line first: it may begin with a time itself.
    #[inline]
    pub fn read_prefixed<'a>(&mut self, line: &'a [u8]) -> (Line<'a>, Option<&'a str>) {
        if let Some(access) = self.custom(line.strip_suffix(b"\r").unwrap_or(line)) {
            self.in_record = false;
            return (Line::Access(access), None);
        }
        let stripped = prefix::strip(line);
        (self.read(stripped.line), stripped.pod)
    }

    fn custom<'a>(&self, line: &'a [u8]) -> Option<Access<'a>> {
        self.formats.iter().find_map(|format| format.parse(line))
    }

    fn classify<'a>(&mut self, line: &'a [u8]) -> Line<'a> {
        if let Some(access) = self.custom(line) {
            return Line::Access(access);
        }
        match line.first() {
            None => Line::Other(if self.in_record { Kind::Continuation } else { Kind::Empty }),
            Some(b'{') => json::read(line),
            Some(b'[') => {
                // Filled where it stays: half a kilobyte is not moved around for each line.
                let mut read = Line::Access(Access::default());
                let is_access = match &mut read {
                    Line::Access(access) => text::parse(line, &mut self.clock, access).is_some(),
                    Line::Other(_) => false,
                };
                match is_access {
                    true => read,
                    // Before its configuration is read, Envoy logs in a form of its own.
                    false if is_date(&line[1..], b' ') => Line::Other(Kind::Envoy),
                    false if is_start_time(line) || !self.in_record => Line::Other(Kind::Unknown),
                    false => Line::Other(Kind::Continuation),
                }
            }
            Some(_) if is_date(line, b'T') && line.get(26..28) == Some(b"Z\t") => {
                let scope = line.split(|byte| *byte == b'\t').nth(2).unwrap_or_default();
                Line::Other(if scope.starts_with(b"envoy ") { Kind::Envoy } else { Kind::Agent })
            }
            Some(_) if self.in_record => Line::Other(Kind::Continuation),
            Some(_) => Line::Other(Kind::Unknown),
        }
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
