//! Istio's text format, in all the layouts that it had.
//!
//! Nothing in a line is escaped, so a user agent may hold quotes and spaces. What the proxy writes itself stands at both
//! ends; the text of clients stands between. The line is therefore read from the left up to the sizes and times, from
//! the right down to the authority, and what remains in the middle is split at `" "`.

use super::byte_search;
use super::entry::{AccessEntry, ResponseFlags, number, value};
use super::timestamp::TimestampCache;
use crate::vocabulary::response_code_details;

/// How the layouts differ: what stands between flags and sizes, and what after the upstream's host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Istio 1.9 and later: details, termination details, quoted transport failure.
    Current,
    /// Istio 1.8: quoted transport failure.
    Istio18,
    /// Istio 1.2 to 1.7: quoted Mixer status, quoted transport failure.
    Mixer,
    /// Envoy's own default: nothing, and the line ends with the host.
    Envoy,
}

/// What stands between the request and the sizes of most lines: code, flags, details, and two that are absent.
const WENT_WELL: &[u8] = b"200 - via_upstream - \"-\" ";

/// Reads a line that begins with `[start time] "`.
pub(super) fn parse<'a>(line: &'a [u8], clock: &mut TimestampCache, access: &mut AccessEntry<'a>) -> Option<()> {
    let (b'[', time) = line.split_first()? else { return None };
    let (time, rest) = time.split_first_chunk::<24>()?;
    access.start = Some(clock.millis(time)?);
    let rest = rest.strip_prefix(b"] \"")?;
    // The request ends at the first `" ` after which everything else fits.
    let mut from = 0;
    while let Some(at) = find(&rest[from..]) {
        let end = from + at;
        if let Some((clients, layout)) = head(&rest[..end], &rest[end + 2..], access) {
            return tail(clients, layout, access);
        }
        from = end + 1;
    }
    None
}

/// Reads request, code, flags and sizes; gives the rest, which begins after the quote of `x-forwarded-for`.
fn head<'a>(request: &'a [u8], after: &'a [u8], access: &mut AccessEntry<'a>) -> Option<(&'a [u8], Layout)> {
    let (method, rest) = word(request)?;
    // Nearly always it is this protocol; a search from the right takes longer than to see that.
    let last = match rest.strip_suffix(b" HTTP/2") {
        Some(path) => path.len(),
        None => rest.iter().rposition(|byte| *byte == b' ')?,
    };
    let (path, protocol) = (&rest[..last], &rest[last + 1..]);
    if !matches!(protocol, b"-" | b"") && !protocol.starts_with(b"HTTP/") {
        return None;
    }
    let request = (method, path, protocol);
    if let Some(next) = after.strip_prefix(WENT_WELL) {
        access.code = Some(200);
        access.details = value(response_code_details::VIA_UPSTREAM.as_bytes());
        return requested(request, next, Layout::Current, access);
    }
    let (code, after) = short(after)?;
    let code = u16::try_from(number(code)?).ok()?;
    let (flags, after) = short(after)?;
    let flags = ResponseFlags::parse(flags)?;
    let fields = match after.first()? {
        b'"' => {
            let (first, next) = quoted(after)?;
            match next.first()? {
                b'"' => {
                    let (second, next) = quoted(next)?;
                    (Layout::Mixer, &b""[..], &b""[..], second, next)
                }
                _ => (Layout::Istio18, &b""[..], &b""[..], first, next),
            }
        }
        _ => match (sizes(after), word(after)) {
            (Some(_), _) => (Layout::Envoy, &b""[..], &b""[..], &b""[..], after),
            (None, Some((details, next))) => {
                let (termination, next) = short(next)?;
                let (failure, next) = quoted(next)?;
                (Layout::Current, details, termination, failure, next)
            }
            (None, None) => return None,
        },
    };
    let (layout, details, termination, failure, next) = fields;
    let read = requested(request, next, layout, access)?;
    (access.code, access.flags) = (Some(code), flags);
    access.details = value(details);
    access.termination = value(termination);
    access.transport_failure = value(failure);
    Some(read)
}

/// Takes method, path and protocol once sizes and times fit too.
fn requested<'a>(
    (method, path, protocol): (&'a [u8], &'a [u8], &'a [u8]),
    after: &'a [u8],
    layout: Layout,
    access: &mut AccessEntry<'a>,
) -> Option<(&'a [u8], Layout)> {
    let ([received, sent, duration, upstream], next) = sizes(after)?;
    access.method = value(method);
    access.path = value(path);
    access.protocol = value(protocol);
    (access.bytes_received, access.bytes_sent) = (received, sent);
    (access.duration, access.upstream_time) = (duration, upstream);
    Some((next, layout))
}

/// Reads what follows the sizes where there are as many separators as there should be: in nearly every line. [`tail`] would
/// read the same from it.
fn usual<'a>(rest: &'a [u8], access: &mut AccessEntry<'a>) -> Option<()> {
    let (forwarded_for, rest) = apart(rest)?;
    let (user_agent, rest) = apart(rest)?;
    let (request_id, rest) = apart(rest)?;
    let (authority, rest) = rest.split_at(byte_search::find(rest, b'"').filter(|_| rest[0] != b' ')?);
    let rest = rest.strip_prefix(b"\" \"")?;
    let (host, rest) = rest.split_at(byte_search::find_either(rest, b'"', b' ')?);
    proxy(rest.strip_prefix(b"\"")?, access)?;
    access.forwarded_for = value(forwarded_for);
    access.user_agent = value(user_agent);
    access.request_id = value(request_id);
    access.authority = value(authority);
    access.upstream_host = value(host);
    Some(())
}

/// A text that a client sent, and what follows the `" "` after it. A quote inside may be anything but the end of a request,
/// and what begins with a space makes a separator of the quote before it.
#[inline]
fn apart(text: &[u8]) -> Option<(&[u8], &[u8])> {
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

/// Reads authority, host and what follows from the right, then splits what clients sent.
fn tail<'a>(rest: &'a [u8], layout: Layout, access: &mut AccessEntry<'a>) -> Option<()> {
    if layout != Layout::Envoy && usual(rest, access).is_some() {
        return Some(());
    }
    let last = memchr::memrchr(b'"', rest)?;
    let (quoted_part, after) = (&rest[..last], &rest[last + 1..]);
    if layout == Layout::Envoy {
        if !after.is_empty() {
            return None;
        }
    } else {
        proxy(after, access)?;
    }
    let (before, host) = last_quoted(quoted_part)?;
    let (before, authority) = last_quoted(before)?;
    if host.contains(&b' ') {
        return None;
    }
    access.upstream_host = value(host);
    access.authority = value(authority);
    clients(before, access);
    Some(())
}

/// Reads what follows the host: cluster, addresses, SNI and route; no quote can be in them.
fn proxy<'a>(after: &'a [u8], access: &mut AccessEntry<'a>) -> Option<()> {
    let bare = |text: &'a [u8]| {
        let at = byte_search::find_either(text, b'"', b' ').filter(|at| text[*at] == b' ')?;
        Some((&text[..at], &text[at + 1..]))
    };
    let (cluster, after) = bare(after.strip_prefix(b" ")?)?;
    let (upstream_local, after) = bare(after)?;
    let (downstream_local, after) = bare(after)?;
    // The rest is short: it is looked at together with what stands before it, in one step.
    if byte_search::find(after, b'"').is_some() {
        return None;
    }
    let (downstream_remote, after) = word(after)?;
    let (sni, route) = match after.strip_prefix(b"- ") {
        Some(route) => (&b"-"[..], route),
        // Istio 1.2 had no route name.
        None => word(after).unwrap_or((after, b"")),
    };
    // The default before Istio 1.23, in a format that copies it, has a semicolon there.
    access.cluster = value(cluster.strip_suffix(b";").unwrap_or(cluster));
    access.upstream_local = value(upstream_local);
    access.downstream_local = value(downstream_local);
    access.downstream_remote = value(downstream_remote);
    (access.sni, access.route) = (value(sni), value(route));
    Some(())
}

/// Splits `forwarded-for" "user-agent" "request-id`. More separators than two were sent by a client.
fn clients<'a>(text: &'a [u8], access: &mut AccessEntry<'a>) {
    let (mut first, mut last, mut count) = (None, None, 0);
    for at in memchr::memchr_iter(b'"', text) {
        match text.get(at + 1..at + 3) {
            Some(b" \"") => {
                first = first.or(Some(at));
                (last, count) = (Some(at), count + 1);
            }
            // As after a request: one of the two was sent as part of a path, or of a header.
            Some([b' ', digit]) if digit.is_ascii_digit() => access.ambiguous = true,
            _ => {}
        }
    }
    let (Some(first), Some(last)) = (first, last) else {
        access.ambiguous = true;
        access.user_agent = value(text);
        return;
    };
    access.request_id = value(&text[last + 3..]);
    // One separator, or two that share a quote.
    if last < first + 3 {
        access.ambiguous = true;
        access.user_agent = value(&text[..first]);
        return;
    }
    access.forwarded_for = value(&text[..first]);
    access.user_agent = value(&text[first + 3..last]);
    access.ambiguous |= count > 2;
}

/// The text up to a space, and what follows it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = byte_search::find(text, b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// As [`word`], for a text of a few bytes, which are sooner looked at one by one.
fn short(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// `"…" ` without quotes inside, and what follows.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = byte_search::find(inner, b'"')?;
    Some((&inner[..end], inner[end + 1..].strip_prefix(b" ")?))
}

/// Four numbers, of which the last two may be absent, and the opening quote.
#[inline]
fn sizes(text: &[u8]) -> Option<([Option<u64>; 4], &[u8])> {
    let (Some(received), rest) = size(text)? else { return None };
    let (Some(sent), rest) = size(rest)? else { return None };
    let (duration, rest) = size(rest)?;
    // A server may write anything into its header.
    let (upstream, rest) = size(rest).or_else(|| Some((None, short(rest)?.1)))?;
    Some(([Some(received), Some(sent), duration, upstream], rest.strip_prefix(b"\"")?))
}

/// A whole number, or its absence, and what follows the space after it.
#[inline]
fn size(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    match byte_search::number(text) {
        Some((number, [b' ', rest @ ..])) => Some((Some(number), rest)),
        _ => unusual_size(text),
    }
}

/// As [`size`], for a number of many digits, for none, and at the end of a line.
fn unusual_size(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (field, rest) = short(text)?;
    match number(field) {
        Some(number) => Some((Some(number), rest)),
        None => matches!(field, b"-" | b"").then_some((None, rest)),
    }
}

/// Cuts off what follows the last `" "`, if it has no quote in it.
fn last_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = memchr::memrchr(b'"', text)?;
    let before = text[..quote].strip_suffix(b"\" ")?;
    Some((before, &text[quote + 1..]))
}

/// The next quote that a space follows.
fn find(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + byte_search::find(&text[from..], b'"')?;
        if text.get(at + 1) == Some(&b' ') {
            return Some(at);
        }
        from = at + 1;
    }
}
