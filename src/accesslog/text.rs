//! Istio's text format, in all the layouts that it had.
//!
//! Nothing in a line is escaped, so a user agent may hold quotes and spaces. What the proxy writes itself stands at both
//! ends; the text of clients stands between. The line is therefore read from the left up to the sizes and times, from
//! the right down to the authority, and what remains in the middle is split at `" "`.

use std::borrow::Cow;

use super::entry::{Access, Flags, Operator, millis, number};

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

/// Reads a line that begins with `[start time] "`.
pub(super) fn parse(line: &[u8]) -> Option<Access<'_>> {
    let mut access = Access { start: millis(line.get(1..25)?), ..Access::default() };
    let rest = line.get(28..)?;
    // The request ends at the first `" ` after which everything else fits.
    let mut from = 0;
    while let Some(at) = find(&rest[from..]) {
        let end = from + at;
        if let Some(middle) = head(&rest[..end], &rest[end + 2..], &mut access) {
            return tail(middle.0, middle.1, access);
        }
        from = end + 1;
    }
    None
}

/// Reads request, code, flags and sizes; gives the rest, which begins after the quote of `x-forwarded-for`.
fn head<'a>(request: &'a [u8], after: &'a [u8], access: &mut Access<'a>) -> Option<(&'a [u8], Layout)> {
    let space = memchr::memchr(b' ', request)?;
    let last = memchr::memrchr(b' ', request)?;
    let protocol = &request[last + 1..];
    let is_protocol = matches!(protocol, b"-" | b"") || protocol.starts_with(b"HTTP/");
    if space == last || !is_protocol {
        return None;
    }
    let (code, after) = word(after)?;
    let code = u16::try_from(number(code)?).ok()?;
    let (flags, after) = word(after)?;
    let flags = Flags::parse(flags)?;
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
                let (termination, next) = word(next)?;
                let (failure, next) = quoted(next)?;
                (Layout::Current, details, termination, failure, next)
            }
            (None, None) => return None,
        },
    };
    let (layout, details, termination, failure, next) = fields;
    let ([received, sent, duration, upstream], next) = sizes(next)?;
    access.method = value(&request[..space]);
    access.path = value(&request[space + 1..last]);
    access.protocol = value(protocol);
    (access.code, access.flags) = (Some(code), flags);
    access.details = value(details);
    access.termination = value(termination);
    access.transport_failure = value(failure);
    (access.bytes_received, access.bytes_sent) = (number(received), number(sent));
    (access.duration, access.upstream_time) = (number(duration), number(upstream));
    Some((next, layout))
}

/// Reads authority, host and what follows from the right, then splits what clients sent.
fn tail<'a>(rest: &'a [u8], layout: Layout, mut access: Access<'a>) -> Option<Access<'a>> {
    let last = memchr::memrchr(b'"', rest)?;
    let (quoted_part, after) = (&rest[..last], &rest[last + 1..]);
    if layout == Layout::Envoy {
        if !after.is_empty() {
            return None;
        }
    } else {
        let mut parts = after.strip_prefix(b" ")?.splitn(6, |byte| *byte == b' ');
        for operator in [
            Operator::Cluster,
            Operator::UpstreamLocal,
            Operator::DownstreamLocal,
            Operator::DownstreamRemote,
            Operator::ServerName,
        ] {
            access.set(operator, Cow::Borrowed(parts.next()?));
        }
        // Istio 1.2 had no route name.
        access.route = parts.next().and_then(value);
    }
    let (before, host) = last_quoted(quoted_part)?;
    let (before, authority) = last_quoted(before)?;
    if host.contains(&b' ') {
        return None;
    }
    access.upstream_host = value(host);
    access.authority = value(authority);
    clients(before, &mut access);
    Some(access)
}

/// Splits `forwarded-for" "user-agent" "request-id`. More separators than two were sent by a client.
fn clients<'a>(text: &'a [u8], access: &mut Access<'a>) {
    let mut found = separators(text);
    let first = found.next();
    let (mut last, mut count) = (first, usize::from(first.is_some()));
    for at in found {
        (last, count) = (Some(at), count + 1);
    }
    let (Some(first), Some(last)) = (first, last) else {
        access.ambiguous = true;
        access.user_agent = value(text);
        return;
    };
    access.request_id = value(&text[last + 3..]);
    if first == last {
        access.ambiguous = true;
        access.user_agent = value(&text[..first]);
        return;
    }
    access.forwarded_for = value(&text[..first]);
    access.user_agent = value(&text[first + 3..last]);
    access.ambiguous = count > 2;
}

fn value(text: &[u8]) -> super::entry::Value<'_> {
    (!matches!(text, b"-" | b"")).then_some(Cow::Borrowed(text))
}

/// The text up to a space, and what follows it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// `"…" ` without quotes inside, and what follows.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = memchr::memchr(b'"', inner)?;
    Some((&inner[..end], inner[end + 1..].strip_prefix(b" ")?))
}

/// Four numbers, of which the last two may be absent, and the opening quote.
fn sizes(text: &[u8]) -> Option<([&[u8]; 4], &[u8])> {
    let (received, rest) = word(text)?;
    let (sent, rest) = word(rest)?;
    let (duration, rest) = word(rest)?;
    let (upstream, rest) = word(rest)?;
    number(received)?;
    number(sent)?;
    let is_absent = |text: &[u8]| matches!(text, b"-" | b"");
    (is_absent(duration) || number(duration).is_some()).then_some(())?;
    Some(([received, sent, duration, upstream], rest.strip_prefix(b"\"")?))
}

/// Cuts off what follows the last `" "`, if it has no quote in it.
fn last_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quote = memchr::memrchr(b'"', text)?;
    let before = text[..quote].strip_suffix(b"\" ")?;
    Some((before, &text[quote + 1..]))
}

/// The next quote that a space follows. A searcher for two bytes would cost more to build than the line to read.
fn find(text: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'"', text).find(|at| text.get(at + 1) == Some(&b' '))
}

/// Every `" "`.
fn separators(text: &[u8]) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'"', text).filter(|at| text.get(at + 1..at + 3) == Some(b" \""))
}
