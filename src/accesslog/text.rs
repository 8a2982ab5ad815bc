//! Parses Istio's text format in the layouts of all versions.
//!
//! Envoy does not escape values, so a user agent may contain quotes and spaces. The fields that the proxy writes itself
//! are at both ends of the line, with the text of clients between them. A line is therefore parsed from the left up to
//! the sizes and times, from the right down to the authority, and the middle is split at `" "`.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

use super::byte_search;
use super::entry::{AccessEntry, ResponseFlags, absent_if_dash, parse_number};
use super::timestamp::TimestampCache;
use crate::vocabulary::response_code_details;

/// Layouts by the fields between the flags and the sizes, and after the upstream host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Istio 1.9 and later: details, termination details, quoted transport failure.
    Current,
    /// Istio 1.8: quoted transport failure.
    Istio18,
    /// Istio 1.2 to 1.7: quoted Mixer status, quoted transport failure.
    Mixer,
    /// No such fields: Envoy's default format, which ends with the host, and Istio 1.0 and 1.1, where cluster and addresses
    /// follow (1.0 without SNI).
    Envoy,
}

/// The fields between request and sizes of most lines: status, flags, details, and two absent values.
const SUCCESS_FIELDS: &[u8] = b"200 - via_upstream - \"-\" ";

/// Parses a line that starts with `[start time] "`.
pub(super) fn parse<'a>(line: &'a [u8], timestamps: &mut TimestampCache, access: &mut AccessEntry<'a>) -> Option<()> {
    let (b'[', time) = line.split_first()? else { return None };
    let (time, rest) = time.split_first_chunk::<24>()?;
    access.start_ms = Some(timestamps.parse_epoch_ms(time)?);
    let rest = rest.strip_prefix(b"] \"")?;
    // The request line ends at the first `" ` after which the rest of the line can be parsed.
    let mut start = 0;
    while let Some(offset) = find_closing_quote(&rest[start..]) {
        let end = start + offset;
        if let Some((rest, layout)) = parse_head(&rest[..end], &rest[end + 2..], access) {
            return parse_tail(rest, layout, access);
        }
        start = end + 1;
    }
    None
}

/// Parses the fields from the request to the sizes, and returns the rest after the opening quote of `x-forwarded-for`.
fn parse_head<'a>(request: &'a [u8], after: &'a [u8], access: &mut AccessEntry<'a>) -> Option<(&'a [u8], Layout)> {
    let (method, rest) = split_at_space(request)?;
    // Nearly every request has this protocol, and the comparison is faster than a search from the right.
    let path_end = match rest.strip_suffix(b" HTTP/2") {
        Some(path) => path.len(),
        None => rest.iter().rposition(|byte| *byte == b' ')?,
    };
    let (path, protocol) = (&rest[..path_end], &rest[path_end + 1..]);
    if !matches!(protocol, b"-" | b"") && !protocol.starts_with(b"HTTP/") {
        return None;
    }
    let request = (method, path, protocol);
    if let Some(sizes) = after.strip_prefix(SUCCESS_FIELDS) {
        access.http_status = Some(200);
        access.details = Some(response_code_details::VIA_UPSTREAM.as_bytes());
        return parse_sizes(request, sizes, Layout::Current, access);
    }
    let (code, after) = split_short_field(after)?;
    let code = u16::try_from(parse_number(code)?).ok()?;
    let (flags, after) = split_short_field(after)?;
    let flags = ResponseFlags::parse(flags)?;
    let fields = match after.first()? {
        b'"' => {
            let (first, next) = split_quoted(after)?;
            match next.first()? {
                b'"' => {
                    let (second, next) = split_quoted(next)?;
                    (Layout::Mixer, &b""[..], &b""[..], second, next)
                }
                _ => (Layout::Istio18, &b""[..], &b""[..], first, next),
            }
        }
        _ => match (split_sizes(after), split_at_space(after)) {
            (Some(_), _) => (Layout::Envoy, &b""[..], &b""[..], &b""[..], after),
            (None, Some((details, next))) => {
                let (termination, next) = split_short_field(next)?;
                let (failure, next) = split_quoted(next)?;
                (Layout::Current, details, termination, failure, next)
            }
            (None, None) => return None,
        },
    };
    let (layout, details, termination, failure, sizes) = fields;
    let rest = parse_sizes(request, sizes, layout, access)?;
    (access.http_status, access.flags) = (Some(code), flags);
    access.details = absent_if_dash(details);
    access.termination = absent_if_dash(termination);
    access.transport_failure = absent_if_dash(failure);
    Some(rest)
}

/// Stores method, path and protocol if the sizes and times can be parsed, too.
fn parse_sizes<'a>(
    (method, path, protocol): (&'a [u8], &'a [u8], &'a [u8]),
    sizes: &'a [u8],
    layout: Layout,
    access: &mut AccessEntry<'a>,
) -> Option<(&'a [u8], Layout)> {
    let ([received, sent, duration, upstream], rest) = split_sizes(sizes)?;
    access.method = absent_if_dash(method);
    access.path = absent_if_dash(path);
    access.protocol = absent_if_dash(protocol);
    (access.bytes_received, access.bytes_sent) = (received, sent);
    (access.duration_ms, access.upstream_time_ms) = (duration, upstream);
    Some((rest, layout))
}

/// Fast path for the fields after the sizes: a line with exactly the expected separators, as nearly every line. The slow
/// path of [`parse_tail`] gives the same result.
fn parse_regular_tail<'a>(rest: &'a [u8], access: &mut AccessEntry<'a>) -> Option<()> {
    let (forwarded_for, rest) = split_client_text(rest)?;
    let (user_agent, rest) = split_client_text(rest)?;
    let (request_id, rest) = split_client_text(rest)?;
    let (authority, rest) = rest.split_at(byte_search::find(rest, b'"').filter(|_| rest[0] != b' ')?);
    let rest = rest.strip_prefix(b"\" \"")?;
    let (host, rest) = rest.split_at(byte_search::find_either(rest, b'"', b' ')?);
    parse_upstream_fields(rest.strip_prefix(b"\"")?, false, access)?;
    access.forwarded_for = absent_if_dash(forwarded_for);
    access.user_agent = absent_if_dash(user_agent);
    access.request_id = absent_if_dash(request_id);
    access.authority = absent_if_dash(authority);
    access.upstream_host = absent_if_dash(host);
    Some(())
}

/// Splits a text that a client sent from the rest after its `" "`. `None` sends the line to the slow path: the text has a
/// quote that could end a request, or a leading space, which makes a separator of the quote before it.
#[inline]
fn split_client_text(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut end = 0;
    loop {
        end += byte_search::find(&text[end..], b'"')?;
        match text.get(end + 1..end + 3)? {
            b" \"" => break,
            [b' ', b'0'..=b'9'] => return None,
            _ => end += 1,
        }
    }
    (text[0] != b' ').then(|| (&text[..end], &text[end + 3..]))
}

/// Parses the fields after the sizes: from the right down to the authority, then the text of clients.
fn parse_tail<'a>(rest: &'a [u8], layout: Layout, access: &mut AccessEntry<'a>) -> Option<()> {
    if layout != Layout::Envoy && parse_regular_tail(rest, access).is_some() {
        return Some(());
    }
    let last_quote = memchr::memrchr(b'"', rest)?;
    let (quoted_fields, after) = (&rest[..last_quote], &rest[last_quote + 1..]);
    let is_short = layout == Layout::Envoy;
    if !(is_short && after.is_empty()) {
        parse_upstream_fields(after, is_short, access)?;
    }
    let (before, host) = split_last_quoted(quoted_fields)?;
    let (before, authority) = split_last_quoted(before)?;
    if host.contains(&b' ') {
        return None;
    }
    access.upstream_host = absent_if_dash(host);
    access.authority = absent_if_dash(authority);
    parse_client_text(before, access);
    Some(())
}

/// Parses the fields after the host: cluster, addresses, SNI and route. None of them can contain a quote. With
/// `may_lack_sni`, the line may end with the caller's address.
fn parse_upstream_fields<'a>(after: &'a [u8], may_lack_sni: bool, access: &mut AccessEntry<'a>) -> Option<()> {
    let split_field = |text: &'a [u8]| {
        let end = byte_search::find_either(text, b'"', b' ').filter(|end| text[*end] == b' ')?;
        Some((&text[..end], &text[end + 1..]))
    };
    let (cluster, after) = split_field(after.strip_prefix(b" ")?)?;
    let (upstream_local, after) = split_field(after)?;
    let (downstream_local, after) = split_field(after)?;
    // The rest is short: one search covers it.
    if byte_search::find(after, b'"').is_some() {
        return None;
    }
    let (downstream_remote, after) = split_at_space(after).or_else(|| may_lack_sni.then_some((after, &b"-"[..])))?;
    let (sni, route) = match after.strip_prefix(b"- ") {
        Some(route) => (&b"-"[..], route),
        // Istio 1.2 did not log the route name.
        None => split_at_space(after).unwrap_or((after, b"")),
    };
    // Formats copied from Istio before 1.23 print a semicolon after the cluster.
    access.upstream_cluster = absent_if_dash(cluster.strip_suffix(b";").unwrap_or(cluster));
    access.upstream_local_address = absent_if_dash(upstream_local);
    access.downstream_local_address = absent_if_dash(downstream_local);
    access.downstream_remote_address = absent_if_dash(downstream_remote);
    (access.sni, access.route) = (absent_if_dash(sni), absent_if_dash(route));
    Some(())
}

/// Splits `forwarded-for" "user-agent" "request-id`. Separators beyond two come from a client.
fn parse_client_text<'a>(text: &'a [u8], access: &mut AccessEntry<'a>) {
    let (mut first, mut last, mut count) = (None, None, 0);
    for quote in memchr::memchr_iter(b'"', text) {
        match text.get(quote + 1..quote + 3) {
            Some(b" \"") => {
                first = first.or(Some(quote));
                (last, count) = (Some(quote), count + 1);
            }
            // The same text ends a request: a client sent it in a path or in a header.
            Some([b' ', digit]) if digit.is_ascii_digit() => access.ambiguous = true,
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (first, last) else {
        access.ambiguous = true;
        access.user_agent = absent_if_dash(text);
        return;
    };
    access.request_id = absent_if_dash(&text[last + 3..]);
    // One separator, or two separators that share a quote.
    if last < first + 3 {
        access.ambiguous = true;
        access.user_agent = absent_if_dash(&text[..first]);
        return;
    }
    access.forwarded_for = absent_if_dash(&text[..first]);
    access.user_agent = absent_if_dash(&text[first + 3..last]);
    access.ambiguous |= count > 2;
}

/// Splits at the first space.
fn split_at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = byte_search::find(text, b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Same as [`split_at_space`], and faster for fields of a few bytes.
fn split_short_field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..end], &text[end + 1..]))
}

/// Splits a quoted field without inner quotes from the rest after `" `.
fn split_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = byte_search::find(inner, b'"')?;
    Some((&inner[..end], inner[end + 1..].strip_prefix(b" ")?))
}

/// Splits bytes received, bytes sent, duration and upstream time from the rest after the next quote. The last two may
/// be absent.
#[inline]
fn split_sizes(text: &[u8]) -> Option<([Option<u64>; 4], &[u8])> {
    let (Some(received), rest) = split_size(text)? else { return None };
    let (Some(sent), rest) = split_size(rest)? else { return None };
    let (duration, rest) = split_size(rest)?;
    // The upstream time is a response header: a server may set it to any text.
    let (upstream, rest) = split_size(rest).or_else(|| Some((None, split_short_field(rest)?.1)))?;
    Some(([Some(received), Some(sent), duration, upstream], rest.strip_prefix(b"\"")?))
}

/// Splits a number, or `-`, from the rest after the next space.
#[inline]
fn split_size(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match byte_search::number(text) {
        Some((number, [b' ', rest @ ..])) => Some((Some(number), rest)),
        _ => split_unusual_size(text),
    }
}

/// Slow path of [`split_size`]: a number of many digits, an absent one, or a field at the end of a line.
fn split_unusual_size(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (field, rest) = split_short_field(text)?;
    match parse_number(field) {
        Some(number) => Some((Some(number), rest)),
        None => matches!(field, b"-" | b"").then_some((None, rest)),
    }
}

/// Splits at the last `" "`; the second part contains no quote.
fn split_last_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = memchr::memrchr(b'"', text)?;
    let before = text[..quote].strip_suffix(b"\" ")?;
    Some((before, &text[quote + 1..]))
}

/// Position of the next quote before a space.
fn find_closing_quote(text: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let quote = start + byte_search::find(&text[start..], b'"')?;
        if text.get(quote + 1) == Some(&b' ') {
            return Some(quote);
        }
        start = quote + 1;
    }
}
