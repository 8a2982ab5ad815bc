//! What stands before a line when it comes through a container runtime, kubectl or a log collector.

/// A line without its prefix, and whom the prefix names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnprefixedLine<'a> {
    /// The line as the container wrote it.
    pub line: &'a [u8],
    /// Pod that `kubectl logs --prefix` names.
    pub pod: Option<&'a str>,
}

/// Takes off `[pod/NAME/CONTAINER] `, a timestamp of `kubectl logs --timestamps`, and a runtime's `TIME stdout F `.
#[inline]
pub fn strip(line: &[u8]) -> UnprefixedLine<'_> {
    let (pod, line) = match kubectl_prefix(line) {
        Some((pod, rest)) => (Some(pod), rest),
        None => (None, line),
    };
    UnprefixedLine { line: without_time(line), pod }
}

/// A stream of a container, as a runtime writes it before each line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuntimeStream {
    /// `stdout`: where access lines go.
    Out,
    /// `stderr`: where Envoy's own log goes.
    Err,
}

/// Whether a runtime cut the line here, at 16 KiB, and goes on in its next line of the same stream.
#[inline]
pub fn is_partial(line: &[u8]) -> bool {
    stream(line).is_some_and(|(_, is_partial)| is_partial)
}

/// The stream of a line that a runtime wrote, and whether it cut the line.
#[inline]
pub fn stream(line: &[u8]) -> Option<(RuntimeStream, bool)> {
    if !begins_with_time(line) {
        return None;
    }
    let space = line.iter().take(40).position(|byte| *byte == b' ')?;
    let (stream, rest) = match line.get(space + 1..space + 8)? {
        b"stdout " => (RuntimeStream::Out, &line[space + 8..]),
        b"stderr " => (RuntimeStream::Err, &line[space + 8..]),
        _ => return None,
    };
    Some((stream, rest.starts_with(b"P ")))
}

#[inline]
fn begins_with_time(line: &[u8]) -> bool {
    line.first().is_some_and(u8::is_ascii_digit)
        && line.get(..11).is_some_and(|head| head[..4].iter().all(u8::is_ascii_digit) && head[10] == b'T')
}

#[inline]
fn kubectl_prefix(line: &[u8]) -> Option<(&str, &[u8])> {
    let rest = line.strip_prefix(b"[pod/")?;
    let end = rest.iter().position(|byte| *byte == b']')?;
    let name = std::str::from_utf8(&rest[..end]).ok()?;
    Some((name.split('/').next()?, rest[end + 1..].strip_prefix(b" ")?))
}

/// Logs of the agent begin with a time too, followed by a tab: that one belongs to the line.
#[inline]
fn without_time(line: &[u8]) -> &[u8] {
    if !begins_with_time(line) {
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
    fn prefixes_go_and_lines_stay() {
        let access = b"[2026-11-21T09:00:00.000Z] \"- - -\" 0 - x";
        let agent = b"2026-11-21T09:00:00.000000Z\tinfo\tready";
        for prefix in ["", "2026-11-21T09:00:00.1234Z stdout F ", "2026-11-21T09:00:00.1234Z "] {
            for line in [&access[..], agent] {
                let whole = [prefix.as_bytes(), line].concat();
                assert_eq!(strip(&whole), UnprefixedLine { line, pod: None }, "{prefix}");
            }
        }
        let whole = [&b"[pod/echo-1/istio-proxy] "[..], access].concat();
        assert_eq!(strip(&whole), UnprefixedLine { line: access, pod: Some("echo-1") });
        assert_eq!(strip(b"").line, b"");
    }
}
