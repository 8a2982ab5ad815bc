//! Fast path for JSON as Envoy prints it: one flat object without spaces, with the keys in the same order in every line.
//!
//! It is several times as fast as a general JSON decoder. Any other line (nested, of another format, or invalid) is left
//! to `json::parse`, which gives the same result for the lines that are parsed here.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

use bumpalo::Bump;

use super::byte_search;
use super::entry::{AccessEntry, LogOperator, parse_number};
use super::json::operator_for_key;
use super::timestamp::TimestampCache;

/// Limits for the number and the length of cached keys.
const KEYS_MAX: usize = 64;
const KEY_LENGTH_MAX: usize = 128;

/// The keys of the previous line as `"key":`, with their operators. The next line most likely has the same keys.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyCache(Vec<(Vec<u8>, LogOperator)>);

impl KeyCache {
    /// The operator of the key at the start of `rest`, which is number `index` in its line, and the text after the key.
    fn next<'a>(&mut self, index: usize, rest: &'a [u8], arena: &'a Bump) -> Option<(LogOperator, &'a [u8])> {
        if let Some((key, operator)) = self.0.get(index)
            && let Some(after) = rest.strip_prefix(key.as_slice())
        {
            return Some((*operator, after));
        }
        let (key, after) = split_string(rest, arena)?;
        let after = after.strip_prefix(b":")?;
        let operator = operator_for_key(std::str::from_utf8(key).ok()?);
        let whole = &rest[..rest.len() - after.len()];
        match self.0.get_mut(index) {
            _ if whole.len() > KEY_LENGTH_MAX => {}
            Some((cached_key, cached_operator)) => {
                cached_key.clear();
                cached_key.extend_from_slice(whole);
                *cached_operator = operator;
            }
            None if index < KEYS_MAX => self.0.push((whole.to_vec(), operator)),
            None => {}
        }
        Some((operator, after))
    }
}

/// Parses a line; `None` if it is not of this kind, with some fields of `access` possibly set.
pub(super) fn parse<'a>(
    line: &'a [u8],
    keys: &mut KeyCache,
    timestamps: &mut TimestampCache,
    arena: &'a Bump,
    access: &mut AccessEntry<'a>,
) -> Option<()> {
    let (mut has_start, mut has_flags) = (false, false);
    let mut rest = line.strip_prefix(b"{")?;
    for index in 0.. {
        let (operator, value) = keys.next(index, rest, arena)?;
        let after = match value.first()? {
            b'"' => {
                let (text, after) = split_string(value, arena)?;
                match operator {
                    LogOperator::StartTime => {
                        access.start_ms = timestamps.parse_epoch_ms(text);
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
                let (digits, after) = split_integer(value)?;
                if operator != LogOperator::Unknown && !access.set_number(operator, parse_number(digits)?) {
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

/// Splits the JSON string at the start of `rest`, without its quotes, from the text after it.
fn split_string<'a>(rest: &'a [u8], arena: &'a Bump) -> Option<(&'a [u8], &'a [u8])> {
    let inner = rest.strip_prefix(b"\"")?;
    let end = byte_search::find_special(inner)?;
    if inner[end] == b'"' {
        return Some((&inner[..end], &inner[end + 1..]));
    }
    split_unusual_string(rest, arena)
}

/// Slow path of [`split_string`] for escapes and non-ASCII characters; `arena` holds the decoded string.
#[cold]
fn split_unusual_string<'a>(rest: &'a [u8], arena: &'a Bump) -> Option<(&'a [u8], &'a [u8])> {
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

/// Splits an integer without sign or leading zeros from the text after it.
fn split_integer(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| !byte.is_ascii_digit()).filter(|end| (1..20).contains(end))?;
    (end == 1 || text[0] != b'0').then_some(text.split_at(end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::accesslog::{OtherLine, json};

    /// The results of the fast and the slow path for a line, after `previous` has filled the key cache.
    fn parse_with_each(line: &[u8], previous: &[u8]) -> (Option<String>, Result<String, OtherLine>) {
        let (arena, mut keys, mut timestamps) = (Bump::new(), KeyCache::default(), TimestampCache::default());
        let _ = parse(previous, &mut keys, &mut timestamps, &arena, &mut AccessEntry::default());
        let (mut fast, mut slow) = (AccessEntry::default(), AccessEntry::default());
        let is_flat = parse(line, &mut keys, &mut timestamps, &arena, &mut fast).is_some();
        (is_flat.then(|| format!("{fast:?}")), json::parse(line, &arena, &mut slow).map(|()| format!("{slow:?}")))
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
        let ending = (prop::bool::weighted(0.8), prop::sample::select(vec!["}", "", "} ", "}}", ",}"]));
        (fields, ending, prop::option::weighted(0.1, (any::<prop::sample::Index>(), any::<u8>()))).prop_map(
            |(fields, (is_access, end), changed)| {
                let mut parts: Vec<String> = fields
                    .into_iter()
                    .map(|(key, value, spaced)| format!("\"{key}\":{}{value}", if spaced { " " } else { "" }))
                    .collect();
                if is_access {
                    parts.push("\"start_time\":\"2026-11-21T09:00:00.500Z\",\"response_flags\":\"-\"".to_owned());
                }
                let mut line = format!("{{{}{end}", parts.join(",")).into_bytes();
                if let Some((position, byte)) = changed {
                    let position = position.index(line.len());
                    line[position] = byte;
                }
                line
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]
        #[test]
        fn agrees_with_the_general_decoder(line in line(), previous in line()) {
            let (fast, slow) = parse_with_each(&line, &previous);
            if let Some(fast) = fast {
                prop_assert_eq!(Ok(fast), slow, "{}", String::from_utf8_lossy(&line));
            }
        }
    }

    #[test]
    fn parses_every_line_of_a_real_proxy_on_the_fast_path() {
        let log = include_bytes!("../../tests/fixtures/accesslog/istio-json.log");
        let lines: Vec<&[u8]> = log.split(|byte| *byte == b'\n').collect();
        let mut count = 0;
        for pair in lines.windows(2) {
            let (fast, slow) = parse_with_each(pair[1], pair[0]);
            assert_eq!(fast, slow.ok(), "{}", String::from_utf8_lossy(pair[1]));
            count += usize::from(fast.is_some());
        }
        assert!(count > 100, "{count}");
    }

    #[test]
    fn replaces_cached_keys_that_change() {
        let line =
            |key: &str| format!("{{\"start_time\":\"-\",\"{key}\":\"x\",\"response_flags\":\"-\"}}").into_bytes();
        let (fast, slow) = parse_with_each(&line("route_name"), &line("user_agent"));
        assert!(fast.is_some());
        assert_eq!(fast, slow.ok());
    }
}
