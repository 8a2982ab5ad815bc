//! Finds the lines of a proxy in what log collectors make of them: a string in a JSON record, an object in it, a cell of
//! CSV, or a line after a prefix.
//!
//! Collectors and their options are too many to list, so nothing here depends on a known name. Any string that may be a
//! line of a proxy is a candidate, and [`super::LineReader`] decides by parsing it.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

pub(super) mod document;
pub(super) mod names;

use std::borrow::Cow;

use serde_json::Value;

use self::names::LineNames;
use super::is_date;

/// Limit for the depth of JSON. A record in a string, such as one of Fluent Bit in an event of CloudWatch, counts as
/// several levels.
const DEPTH_MAX: usize = 32;
const STRING_DEPTH: usize = 8;
/// Limit for places at which an object may start in a text.
const OBJECTS_MAX: usize = 4;
/// The smallest text that can be the line of a proxy.
const LINE_MIN: usize = 20;

/// A text that may be the line of a proxy.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) text: Vec<u8>,
    pub(super) names: LineNames,
    /// Number of the record: if a record has a line of a proxy, its other strings are not counted.
    pub(super) record: usize,
    /// Whether the wrapper says that this is a log line, whatever it contains.
    pub(super) is_certain: bool,
}

/// Collects the candidates of one or more records.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    pub(super) list: Vec<Candidate>,
    records: usize,
}

/// Where a candidate is found.
#[derive(Debug, Clone)]
struct Surroundings {
    names: LineNames,
    /// Number of the record that contains it.
    record: usize,
    /// Depth in JSON. A record in a string counts as several levels, which bounds the work on hostile input.
    depth: usize,
}

impl Candidates {
    /// Adds the candidates of a JSON text; `false` if it is not JSON.
    pub(super) fn add_json(&mut self, text: &[u8]) -> bool {
        let Some(value) = parse_json(text) else { return false };
        let surroundings = Surroundings { names: LineNames::default(), record: 0, depth: 0 };
        self.add_value(&value, &surroundings);
        true
    }

    /// Adds the candidates of a line of text: everything that may start after a prefix.
    pub(super) fn add_text(&mut self, line: &[u8]) {
        let surroundings = Surroundings { names: LineNames::default(), record: 0, depth: 0 };
        self.add_text_in(&without_colors(line), &surroundings);
    }

    fn add(&mut self, text: Vec<u8>, surroundings: &Surroundings, is_certain: bool) {
        if text.len() >= LINE_MIN || is_certain {
            let Surroundings { names, record, depth: _ } = surroundings;
            self.list.push(Candidate { text, names: names.clone(), record: *record, is_certain });
        }
    }

    fn add_value(&mut self, value: &Value, around: &Surroundings) {
        match value {
            _ if around.depth > DEPTH_MAX => {}
            Value::Object(fields) => {
                let mut names = around.names.clone();
                names.add_record(&mut Vec::new(), fields);
                // An object with the fields of an access line: Google Cloud's `jsonPayload`, or stern's `extjson`.
                if is_access_record(value) {
                    let around = Surroundings { names, ..around.clone() };
                    return self.add(value.to_string().into_bytes(), &around, false);
                }
                self.records += 1;
                let inside = Surroundings { names, record: self.records, depth: around.depth + 1 };
                fields.values().for_each(|field| self.add_value(field, &inside));
            }
            Value::Array(items) => self.add_items(items, around),
            Value::String(text) => self.add_string(text, around),
            _ => {}
        }
    }

    fn add_items(&mut self, items: &[Value], around: &Surroundings) {
        self.records += 1;
        let mut inside = Surroundings { record: self.records, depth: around.depth + 1, ..around.clone() };
        match items {
            // Loki's API (`reference/loki-http-api.md`): the time in nanoseconds, the line, and perhaps its metadata.
            [Value::String(time), Value::String(line), ..]
                if time.len() > 15 && time.bytes().all(|byte| byte.is_ascii_digit()) =>
            {
                self.add(line.trim_end().as_bytes().to_vec(), &inside, true);
                self.add_string(line, &inside);
            }
            // journalctl prints text that is not UTF-8 as an array of bytes (systemd's `JOURNAL_EXPORT_FORMATS`).
            [Value::Number(_), ..] if items.len() >= LINE_MIN => {
                let byte = |item: &Value| item.as_u64().and_then(|number| u8::try_from(number).ok());
                if let Some(text) = items.iter().map(byte).collect::<Option<Vec<u8>>>() {
                    inside.record = around.record;
                    self.add(text, &inside, false);
                }
            }
            _ => {
                for item in items {
                    inside.names.add_label(item);
                }
                for item in items {
                    self.add_value(item, &inside);
                }
            }
        }
    }

    fn add_string(&mut self, text: &str, around: &Surroundings) {
        let text = text.trim_end();
        if text.len() < LINE_MIN {
            return;
        }
        self.add(text.as_bytes().to_vec(), around, false);
        let inside = Surroundings { depth: around.depth + STRING_DEPTH, ..around.clone() };
        if let Some(value) = text.starts_with('{').then(|| parse_json(text.as_bytes())).flatten() {
            if !is_access_record(&value) {
                self.add_value(&value, &inside);
            }
        } else if inside.depth <= DEPTH_MAX {
            self.add_text_in(text.as_bytes(), &inside);
        }
    }

    fn add_text_in(&mut self, line: &[u8], around: &Surroundings) {
        for start in starts(line) {
            let (prefix, rest) = line.split_at(start.position);
            let mut around = around.clone();
            around.names.add_prefix(&String::from_utf8_lossy(prefix));
            match start.form {
                TextForm::Plain => self.add(rest.to_vec(), &around, false),
                TextForm::Cell => self.add(csv_cell(rest), &around, false),
                TextForm::Escaped => self.add(escaped_string(rest), &around, false),
                TextForm::Json => {
                    around.depth += STRING_DEPTH;
                    let Some(value) = parse_json(rest) else { continue };
                    self.add_value(&value, &around);
                    // What the other starts find is inside of the object.
                    return;
                }
            }
        }
    }
}

/// Whether an object has the fields of an access line in Istio's JSON format.
fn is_access_record(value: &Value) -> bool {
    ["start_time", "response_flags"].iter().all(|key| value.get(key).is_some())
}

/// Whether the names of a record have to be looked up: it has a key such as `pod` or `pod_name`.
pub(super) fn has_pod_key(line: &[u8]) -> bool {
    memchr::memmem::find_iter(line, b"pod").any(|position| {
        let is_start = position.checked_sub(1).is_some_and(|before| matches!(line[before], b'"' | b'.' | b'_'));
        let after = &line[position + 3..];
        is_start && [&b"\":"[..], b"_name\":", b".name\":", b"Name\":"].iter().any(|end| after.starts_with(end))
    })
}

/// The names in the fields of a JSON record.
pub(super) fn record_names(line: &[u8]) -> LineNames {
    let mut names = LineNames::default();
    if let Some(Value::Object(fields)) = parse_json(line) {
        names.add_record(&mut Vec::new(), &fields);
    }
    names
}

/// The first JSON value of a text. Bytes that are not UTF-8 are replaced.
fn parse_json(text: &[u8]) -> Option<Value> {
    let text = String::from_utf8_lossy(text);
    serde_json::from_str(&text).ok()
}

/// How the line of a proxy is written after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TextForm {
    /// As it is, up to the end.
    Plain,
    /// JSON, up to the end.
    Json,
    /// In a cell of CSV, in which quotes are doubled.
    Cell,
    /// In a string with backslashes, as in logfmt or in a fragment of JSON.
    Escaped,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LineStart {
    position: usize,
    form: TextForm,
}

/// The places after a prefix at which the line of a proxy may start.
fn starts(line: &[u8]) -> Vec<LineStart> {
    let start_times = memchr::memmem::find_iter(line, b"[2").filter_map(|position| {
        let rest = &line[position..];
        let quote = position.checked_sub(1).is_some_and(|before| line[before] == b'"');
        let form = match (is_date(&rest[1..], b'T'), rest.get(25..28)?, rest.get(28)) {
            (true, b"] \"", Some(b'"')) if quote => TextForm::Cell,
            (true, b"] \"", _) => TextForm::Plain,
            (true, b"] \\", _) => TextForm::Escaped,
            // Envoy's log before it has loaded its configuration.
            (false, ..) if is_date(&rest[1..], b' ') => TextForm::Plain,
            _ => return None,
        };
        Some(LineStart { position, form })
    });
    let objects = memchr::memmem::find_iter(line, b"{\"").map(|position| LineStart { position, form: TextForm::Json });
    // Logs of Envoy and of the agent.
    let records = memchr::memmem::find_iter(line, b" 2").filter_map(|space| {
        let rest = &line[space + 1..];
        (is_date(rest, b'T') && rest.get(26..28) == Some(b"Z\t"))
            .then_some(LineStart { position: space + 1, form: TextForm::Plain })
    });
    // Later start times are in text that a client sent. So are all others if the line itself starts with one.
    let start_time = start_times.take(1).next();
    if start_time.is_some_and(|start| start.position == 0) {
        return Vec::new();
    }
    objects.take(OBJECTS_MAX).chain(start_time).chain(records.take(1)).collect()
}

/// Removes the escape codes for colors.
fn without_colors(line: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(0x1b, line).is_none() {
        return Cow::Borrowed(line);
    }
    let (mut out, mut in_code) = (Vec::with_capacity(line.len()), false);
    for byte in line {
        in_code |= *byte == 0x1b;
        if !in_code {
            out.push(*byte);
        }
        in_code &= !byte.is_ascii_alphabetic();
    }
    Cow::Owned(out)
}

/// The text up to the quote that ends the cell.
fn csv_cell(text: &[u8]) -> Vec<u8> {
    let (mut out, mut bytes) = (Vec::new(), text.iter().peekable());
    while let Some(byte) = bytes.next() {
        if *byte == b'"' && bytes.next_if(|next| **next == b'"').is_none() {
            break;
        }
        out.push(*byte);
    }
    out
}

/// The text up to the quote that ends the string, without backslashes.
fn escaped_string(text: &[u8]) -> Vec<u8> {
    let end = (0..text.len()).find(|index| text[*index] == b'"' && text[index - 1] != b'\\').unwrap_or(text.len());
    let quoted = [b"\"", &text[..end], b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(text) => text.trim_end().as_bytes().to_vec(),
        Err(_) => text[..end].iter().copied().filter(|byte| *byte != b'\\').collect(),
    }
}
