//! Removes the prefixes that container runtimes, kubectl and log collectors put before a line.

#![expect(clippy::indexing_slicing, reason = "audited: the positions come from searches of the same bytes; fuzzed")]

use super::PodNames;

/// A line without its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnprefixedLine<'a> {
    /// The line as the container wrote it.
    pub line: &'a [u8],
    /// The pod and the container named by `kubectl logs --prefix`.
    pub names: PodNames<'a>,
}

/// Removes `[pod/NAME/CONTAINER] `, the timestamp of `kubectl logs --timestamps`, and a runtime's `TIME stdout F `.
#[inline]
pub fn strip(line: &[u8]) -> UnprefixedLine<'_> {
    let (names, line) = kubectl_prefix(line).unwrap_or((PodNames::default(), line));
    UnprefixedLine { line: without_time(line), names }
}

/// The stream of a container that a runtime names before each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeStream {
    /// `stdout`, which has the access log.
    Stdout,
    /// `stderr`, which has Envoy's application log.
    Stderr,
}

/// Whether a runtime split the line here, at 16 KiB, and continues it in the next line of the same stream.
#[inline]
pub fn is_partial(line: &[u8]) -> bool {
    stream(line).is_some_and(|(_, is_partial)| is_partial)
}

/// The stream of a line that a runtime wrote, and whether the line is partial. `None` without a runtime's prefix.
#[inline]
pub fn stream(line: &[u8]) -> Option<(RuntimeStream, bool)> {
    if !starts_with_time(line) {
        return None;
    }
    let space = line.iter().take(40).position(|byte| *byte == b' ')?;
    let (stream, rest) = match line.get(space + 1..space + 8)? {
        b"stdout " => (RuntimeStream::Stdout, &line[space + 8..]),
        b"stderr " => (RuntimeStream::Stderr, &line[space + 8..]),
        _ => return None,
    };
    Some((stream, rest.starts_with(b"P ")))
}

#[inline]
fn starts_with_time(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit)
        && line.get(..11).is_some_and(|head| head[..4].iter().all(u8::is_ascii_digit) && head[10] == b'T')
}

#[inline]
fn kubectl_prefix(line: &[u8]) -> Option<(PodNames<'_>, &[u8])> {
    let rest = line.strip_prefix(b"[pod/")?;
    let end = rest.iter().position(|byte| *byte == b']')?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    let mut parts = name.split('/');
    let names = PodNames { pod: parts.next(), namespace: None, container: parts.next() };
    Some((names, rest[end + 1..].strip_prefix(b" ")?))
}

/// Lines of the Istio agent start with a timestamp and a tab: that timestamp is part of the line and stays.
#[inline]
fn without_time(line: &[u8]) -> &[u8] {
    if !starts_with_time(line) {
        return line;
    }
    let Some(space) = line.iter().take(40).position(|byte| *byte == b' ') else { return line };
    if line[..space].contains(&b'\t') {
        return line;
    }
    let rest = &line[space + 1..];
    for stream in [&b"stdout "[..], b"stderr "] {
        if let Some(rest) = rest.strip_prefix(stream) {
            return rest.strip_prefix(b"F ").or_else(|| rest.strip_prefix(b"P ")).unwrap_or(rest);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strips_prefixes_and_keeps_the_agents_timestamp() {
        let access = b"[2026-11-21T09:00:00.000Z] \"- - -\" 0 - x";
        let agent = b"2026-11-21T09:00:00.000000Z\tinfo\tready";
        for prefix in ["", "2026-11-21T09:00:00.1234Z stdout F ", "2026-11-21T09:00:00.1234Z "] {
            for line in [&access[..], agent] {
                let prefixed = [prefix.as_bytes(), line].concat();
                assert_eq!(strip(&prefixed), UnprefixedLine { line, names: PodNames::default() }, "{prefix}");
            }
        }
        let prefixed = [&b"[pod/echo-1/istio-proxy] "[..], access].concat();
        let names = PodNames { pod: Some("echo-1"), namespace: None, container: Some("istio-proxy") };
        assert_eq!(strip(&prefixed), UnprefixedLine { line: access, names });
        assert_eq!(strip(b"").line, b"");
    }
}
