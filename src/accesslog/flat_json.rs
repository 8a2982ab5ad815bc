//! JSON as a proxy prints it: one flat object without spaces, its keys in the same order in every line.
//!
//! Such a line is read here, several times as fast as by a decoder that must be ready for anything. Whatever is
//! otherwise, is not from Istio's own format, or is no valid JSON, is left to that decoder: what is read here, it would
//! read the same.

use bumpalo::Bump;

use super::byte_search;
use super::entry::{AccessEntry, LogOperator, number};
use super::json::operator;
use super::timestamp::TimestampCache;

/// Keys are remembered up to this place in a line, and up to this length.
const KEYS_MAX: usize = 64;
const KEY_LENGTH_MAX: usize = 128;

/// The keys of the last line, each as `"key":`, and what they tell. The next line most likely has the same.
#[derive(Debug, Clone, Default)]
pub(super) struct KnownKeys(Vec<(Vec<u8>, LogOperator)>);

impl KnownKeys {
    /// What the key tells with which `rest` begins, the key that stands at place `at` of its line, and what follows it.
    fn next<'a>(&mut self, at: usize, rest: &'a [u8], arena: &'a Bump) -> Option<(LogOperator, &'a [u8])> {
        if let Some((key, operator)) = self.0.get(at)
            && let Some(after) = rest.strip_prefix(key.as_slice())
        {
            return Some((*operator, after));
        }
        let (key, after) = text(rest, arena)?;
        let after = after.strip_prefix(b":")?;
        let operator = operator(std::str::from_utf8(key).ok()?);
        let whole = &rest[..rest.len() - after.len()];
        match self.0.get_mut(at) {
            _ if whole.len() > KEY_LENGTH_MAX => {}
            Some((known, tells)) => {
                known.clear();
                known.extend_from_slice(whole);
                *tells = operator;
            }
            None if at < KEYS_MAX => self.0.push((whole.to_vec(), operator)),
            None => {}
        }
        Some((operator, after))
    }
}

/// Reads a line; `None` when it is not of this kind, and then some fields of `access` may be set.
pub(super) fn read<'a>(
    line: &'a [u8],
    keys: &mut KnownKeys,
    clock: &mut TimestampCache,
    arena: &'a Bump,
    access: &mut AccessEntry<'a>,
) -> Option<()> {
    let (mut has_start, mut has_flags) = (false, false);
    let mut rest = line.strip_prefix(b"{")?;
    for at in 0.. {
        let (operator, value) = keys.next(at, rest, arena)?;
        let after = match value.first()? {
            b'"' => {
                let (text, after) = text(value, arena)?;
                match operator {
                    LogOperator::StartTime => {
                        access.start = clock.millis(text);
                        has_start = true;
                    }
                    operator => {
                        has_flags |= operator == LogOperator::ResponseFlags;
                        access.set(operator, text, arena);
                    }
                }
                after
            }
            b'n' => value.strip_prefix(b"null")?,
            _ => {
                let (digits, after) = digits(value)?;
                if operator != LogOperator::Unknown && !access.set_number(operator, number(digits)?) {
                    access.set(operator, digits, arena);
                }
                after
            }
        };
        let (end, after) = after.split_first()?;
        rest = after;
        match end {
            b',' => {}
            b'}' => break,
            _ => return None,
        }
    }
    (rest.is_empty() && has_start && has_flags).then_some(())
}

/// The text in quotes with which `rest` begins, and what follows it.
fn text<'a>(rest: &'a [u8], arena: &'a Bump) -> Option<(&'a [u8], &'a [u8])> {
    let inner = rest.strip_prefix(b"\"")?;
    let end = byte_search::find_special(inner)?;
    if inner[end] == b'"' {
        return Some((&inner[..end], &inner[end + 1..]));
    }
    unusual_text(rest, arena)
}

/// As [`text`], where it may have escapes and letters beyond ASCII: kept in `arena` as it was meant.
#[cold]
fn unusual_text<'a>(rest: &'a [u8], arena: &'a Bump) -> Option<(&'a [u8], &'a [u8])> {
    let mut end = 1;
    loop {
        end += byte_search::find_special(rest.get(end..)?)?;
        match rest[end] {
            b'"' => break,
            b'\\' => end += 2,
            _ => end += 1,
        }
    }
    let (text, after) = rest.split_at(end + 1);
    let text: String = serde_json::from_slice(text).ok()?;
    Some((arena.alloc_str(&text).as_bytes(), after))
}

/// A whole number as JSON allows it, and what follows it.
fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| (1..20).contains(end))?;
    (end == 1 || text[0] != b'0').then_some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accesslog::{OtherLine, json};

    /// What both ways make of a line, `before` having been read before it.
    fn both(line: &[u8], before: &[u8]) -> (Option<String>, Result<String, OtherLine>) {
        let (arena, mut keys, mut clock) = (Bump::new(), KnownKeys::default(), TimestampCache::default());
        let _ = read(before, &mut keys, &mut clock, &arena, &mut AccessEntry::default());
        let (mut fast, mut slow) = (AccessEntry::default(), AccessEntry::default());
        let is_flat = read(line, &mut keys, &mut clock, &arena, &mut fast).is_some();
        (is_flat.then(|| format!("{fast:?}")), json::read(line, &arena, &mut slow).map(|()| format!("{slow:?}")))
    }

    fn key() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec![
            "start_time",
            "response_flags",
            "response_code",
            "grpc_status",
            "attempts",
            "duration",
            "bytes_sent",
            "path",
            "user_agent",
            "route_name",
            "upstream_cluster",
            "level",
            "other",
            "a\\u0062",
            "pa\\th",
            "",
        ])
    }

    fn value() -> impl Strategy<Value = String> {
        let text = prop::sample::select(vec![
            "2026-11-21T09:00:00.123Z",
            "2026-11-21T09:00:01Z",
            "-",
            "",
            "UF,URX",
            "uf",
            "14",
            "é",
            "\\\"",
            "\\\\",
            "\\",
            "\\u00e9",
            "\\ud800",
            "\t",
            "\u{7f}",
            "a rather long text that is longer than two steps",
            "{",
            "\",\"x\":\"",
        ]);
        let text = prop::collection::vec(text, 0..3).prop_map(|parts| format!("\"{}\"", parts.concat()));
        let other = prop::sample::select(vec![
            "null",
            "0",
            "7",
            "07",
            "-7",
            "1.5",
            "1e3",
            "12345678901234567890",
            "999",
            "true",
            "{}",
            "{\"a\":1}",
            "[1]",
            "nul",
            "",
        ]);
        prop_oneof![2 => text, 1 => other.prop_map(str::to_owned)]
    }

    fn line() -> impl Strategy<Value = Vec<u8>> {
        let fields = prop::collection::vec((key(), value(), prop::bool::weighted(0.05)), 0..6);
        let wanted = (prop::bool::weighted(0.8), prop::sample::select(vec!["}", "", "} ", "}}", ",}"]));
        (fields, wanted, prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
            |(fields, (is_access, end), changed)| {
                let mut parts: Vec<String> = fields
                    .into_iter()
                    .map(|(key, value, spaced)| format!("\"{key}\":{}{value}", if spaced { " " } else { "" }))
                    .collect();
                if is_access {
                    parts.push("\"start_time\":\"2026-11-21T09:00:00.500Z\",\"response_flags\":\"-\"".to_owned());
                }
                let mut line = format!("{{{}{end}", parts.join(",")).into_bytes();
                if let Some((place, byte)) = changed {
                    let place = place.index(line.len());
                    line[place] = byte;
                }
                line
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn as_any_decoder_reads_it(line in line(), before in line()) {
            let (fast, slow) = both(&line, &before);
            if let Some(fast) = fast {
                prop_assert_eq!(Ok(fast), slow, "{}", String::from_utf8_lossy(&line));
            }
        }
    }

    #[test]
    fn what_proxies_print_is_read_here() {
        let log = include_bytes!("../../tests/fixtures/accesslog/istio-json.log");
        let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
        let mut count = 0;
        for pair in lines.windows(2) {
            let (fast, slow) = both(pair[1], pair[0]);
            assert_eq!(fast, slow.ok(), "{}", String::from_utf8_lossy(pair[1]));
            count += usize::from(fast.is_some());
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn keys_that_change_are_forgotten() {
        let line =
            |key: &str| format!("{{\"start_time\":\"-\",\"{key}\":\"x\",\"response_flags\":\"-\"}}").into_bytes();
        let (fast, slow) = both(&line("route_name"), &line("user_agent"));
        assert!(fast.is_some());
        assert_eq!(fast, slow.ok());
    }
}
