//! Istio's text format, in all the layouts that it had.
//!
//! Nothing in a line is escaped, so a user agent may hold quotes and spaces. What the proxy writes itself stands at both
//! ends; the text of clients stands between. The line is therefore read from the left up to the sizes and times, from
//! the right down to the authority, and what remains in the middle is split at `" "`.

use std::borrow::Cow;

use super::entry::{Access, Flags, millis, number};

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

/// Start times that differ in their milliseconds only, as those of neighbours in a log do, are worked out once.
#[derive(Debug, Clone, Default)]
pub(super) struct Clock {
    second: [u8; 19],
    millis: i64,
}

impl Clock {
    /// Reads `[2026-11-21T09:00:00.123Z] "`, with which a line begins; `None` when it begins otherwise.
    fn start(&mut self, line: &[u8]) -> Option<i64> {
        let (head, end) = (line.get(1..20)?, line.get(20..28)?);
        let [b'.', a, b, c, b'Z', b']', b' ', b'"'] = end else { return None };
        if head != self.second {
            self.millis = millis(line.get(1..25)?)?.div_euclid(1000) * 1000;
            self.second.copy_from_slice(head);
        }
        Some(self.millis + i64::try_from(number(&[*a, *b, *c])?).ok()?)
    }
}

/// Reads a line that begins with `[start time] "`.
pub(super) fn parse<'a>(line: &'a [u8], clock: &mut Clock, access: &mut Access<'a>) -> Option<()> {
    access.start = Some(clock.start(line)?);
    let rest = line.get(28..)?;
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
fn head<'a>(request: &'a [u8], after: &'a [u8], access: &mut Access<'a>) -> Option<(&'a [u8], Layout)> {
    let space = request.iter().position(|byte| *byte == b' ')?;
    let last = request.iter().rposition(|byte| *byte == b' ')?;
    let protocol = &request[last + 1..];
    let is_protocol = matches!(protocol, b"-" | b"") || protocol.starts_with(b"HTTP/");
    if space == last || !is_protocol {
        return None;
    }
    let (code, after) = short(after)?;
    let code = u16::try_from(number(code)?).ok()?;
    let (flags, after) = short(after)?;
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
                let (termination, next) = short(next)?;
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
    (access.bytes_received, access.bytes_sent) = (received, sent);
    (access.duration, access.upstream_time) = (duration, upstream);
    Some((next, layout))
}

/// Reads authority, host and what follows from the right, then splits what clients sent.
fn tail<'a>(rest: &'a [u8], layout: Layout, access: &mut Access<'a>) -> Option<()> {
    let last = memchr::memrchr(b'"', rest)?;
    let (quoted_part, after) = (&rest[..last], &rest[last + 1..]);
    if layout == Layout::Envoy {
        if !after.is_empty() {
            return None;
        }
    } else {
        let (cluster, after) = word(after.strip_prefix(b" ")?)?;
        let (upstream_local, after) = word(after)?;
        let (downstream_local, after) = word(after)?;
        let (downstream_remote, after) = word(after)?;
        // Istio 1.2 had no route name.
        let (sni, route) = word(after).map_or((after, None), |(sni, route)| (sni, value(route)));
        // The default before Istio 1.23, in a format that copies it, has a semicolon there.
        access.cluster = value(cluster.strip_suffix(b";").unwrap_or(cluster));
        access.upstream_local = value(upstream_local);
        access.downstream_local = value(downstream_local);
        access.downstream_remote = value(downstream_remote);
        (access.sni, access.route) = (value(sni), route);
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

/// Splits `forwarded-for" "user-agent" "request-id`. More separators than two were sent by a client.
fn clients<'a>(text: &'a [u8], access: &mut Access<'a>) {
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

fn value(text: &[u8]) -> super::entry::Value<'_> {
    (!matches!(text, b"-" | b"")).then_some(Cow::Borrowed(text))
}

/// The text up to a space, and what follows it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = near(b' ', text)?;
    Some((&text[..at], &text[at + 1..]))
}

/// The place of a byte that is expected within a few dozen bytes: a search that is part of this very code is over
/// before the one for the widest registers, which must be called, has begun.
fn near(byte: u8, text: &[u8]) -> Option<usize> {
    #[cfg(target_arch = "x86_64")]
    {
        memchr::arch::x86_64::sse2::memchr::One::new(byte)?.find(text)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        memchr::memchr(byte, text)
    }
}

/// As [`word`], for a text of a few bytes, which are sooner looked at one by one.
fn short(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..at], &text[at + 1..]))
}

/// `"…" ` without quotes inside, and what follows.
fn quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = text.strip_prefix(b"\"")?;
    let end = near(b'"', inner)?;
    Some((&inner[..end], inner[end + 1..].strip_prefix(b" ")?))
}

/// Four numbers, of which the last two may be absent, and the opening quote.
fn sizes(text: &[u8]) -> Option<([Option<u64>; 4], &[u8])> {
    let (received, rest) = short(text)?;
    let received = number(received)?;
    let (sent, rest) = short(rest)?;
    let sent = number(sent)?;
    let (duration, rest) = short(rest)?;
    let is_absent = matches!(duration, b"-" | b"");
    let duration = number(duration);
    (is_absent || duration.is_some()).then_some(())?;
    let (upstream, rest) = short(rest)?;
    Some(([Some(received), Some(sent), duration, number(upstream)], rest.strip_prefix(b"\"")?))
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
