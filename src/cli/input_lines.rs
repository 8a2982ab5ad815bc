//! Reads the lines of a stream from one buffer without copying them: a copy per line would take a third of the time.

#![expect(clippy::indexing_slicing, reason = "audited: all ranges lie within the filled part of the buffer")]

use std::io::{self, Read};
use std::ops::Range;

/// Longer lines are truncated. Headers may have 60 KiB, so lines of Envoy are far below this.
pub(super) const LINE_MAX: usize = 4 << 20;
/// The same for a line that starts like JSON: a response of Loki is one line.
const JSON_LINE_MAX: usize = 64 << 20;
/// Size of a read, and of the buffer unless a line is longer.
pub(super) const BUFFER: usize = 64 << 10;

fn limit_of(line: &[u8]) -> usize {
    if line.starts_with(b"{\"") || line.starts_with(b"[{") { JSON_LINE_MAX } else { LINE_MAX }
}

/// The lines of a stream.
pub(super) struct InputLines {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// Range of the buffer that was read and not yet returned.
    start: usize,
    end: usize,
    /// Range of the current line in the buffer.
    line: Range<usize>,
    /// Whether to skip the rest of a truncated line, up to the next line break.
    is_skipping: bool,
    /// Number of truncated lines.
    pub(super) truncated: u64,
}

impl InputLines {
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, end: 0, line: 0..0, is_skipping: false, truncated: 0 }
    }

    /// The current line without its line break.
    #[inline]
    pub(super) fn line(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    /// Whether the next line can be returned without reading.
    pub(super) fn has_line(&self) -> bool {
        memchr::memchr(b'\n', &self.buffer[self.start..self.end]).is_some()
    }

    /// Advances to the next line; `false` at the end of the stream.
    ///
    /// # Errors
    /// Errors of reading.
    #[inline]
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let mut searched = self.start;
        self.line = loop {
            if let Some(length) = memchr::memchr(b'\n', &self.buffer[searched..self.end]) {
                let line = self.start..searched + length;
                self.start = line.end + 1;
                if !std::mem::take(&mut self.is_skipping) {
                    let limit = limit_of(&self.buffer[line.clone()]);
                    self.truncated += u64::from(line.len() > limit);
                    break line.start..line.end.min(line.start + limit);
                }
                searched = self.start;
                continue;
            }
            if self.is_skipping {
                self.start = self.end;
            } else if let limit = limit_of(&self.buffer[self.start..self.end])
                && self.end - self.start > limit
            {
                let line = self.start..self.start + limit;
                (self.start, self.is_skipping) = (line.end, true);
                self.truncated += 1;
                break line;
            }
            searched = self.end - self.start;
            if !self.fill()? {
                if self.start == self.end {
                    return Ok(false);
                }
                break std::mem::replace(&mut self.start, self.end)..self.end;
            }
        };
        Ok(true)
    }

    /// Moves the unread bytes to the front of the buffer and reads more; `false` at the end of the stream.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.buffer.len() - self.end < BUFFER / 2 {
            self.buffer.resize(self.buffer.len() + BUFFER, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(count) => {
                    self.end += count;
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a few bytes per read.
    struct SlowReader(io::Cursor<Vec<u8>>, usize);

    impl Read for SlowReader {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(buffer.len());
            self.0.read(&mut buffer[..length])
        }
    }

    fn read_all(bytes: &[u8], bytes_per_read: usize) -> (Vec<Vec<u8>>, u64) {
        let mut lines = InputLines::new(Box::new(SlowReader(io::Cursor::new(bytes.to_vec()), bytes_per_read)));
        let mut all = Vec::new();
        while lines.advance().unwrap() {
            all.push(lines.line().to_vec());
        }
        (all, lines.truncated)
    }

    #[test]
    fn truncates_long_lines_and_keeps_the_next_line_whole() {
        let long = |count| std::iter::repeat_n(b'x', count).collect::<Vec<_>>();
        let bytes =
            [b"one\r\n\n".to_vec(), long(LINE_MAX), b"\n".to_vec(), long(LINE_MAX + 5), b"\ntwo".to_vec()].concat();
        let (lines, truncated) = read_all(&bytes, BUFFER);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, LINE_MAX, LINE_MAX, 3]);
        assert_eq!((truncated, &lines[4][..]), (1, &b"two"[..]));
        assert_eq!(read_all(&long(LINE_MAX * 2), BUFFER).0.len(), 1);
    }

    proptest! {
        #[test]
        fn returns_the_same_lines_as_a_split(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), bytes_per_read in 1_usize..50) {
            let mut expected: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(read_all(&bytes, bytes_per_read).0, expected);
        }
    }
}
