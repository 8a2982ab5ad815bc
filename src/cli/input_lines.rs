//! The lines of a stream, lent from one buffer: a log has millions, and a copy of each would be a third of the time.

use std::io::{self, Read};
use std::ops::Range;

/// A longer line is cut: headers may be 60 KiB, and nothing that Envoy writes comes near this.
pub(super) const LINE_MAX: usize = 4 << 20;
/// Bytes that are asked for at once, and the buffer as long as no line is longer.
pub(super) const BUFFER: usize = 64 << 10;

/// Lines of a stream.
pub(super) struct InputLines {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What was read and not yet lent.
    start: usize,
    end: usize,
    /// Where the line is that is lent.
    line: Range<usize>,
    /// Whether what follows up to the next line break belongs to a line that was cut.
    is_rest: bool,
    /// Lines that were cut.
    pub(super) cut: u64,
}

impl InputLines {
    /// Nothing is read yet.
    pub(super) fn new(source: Box<dyn Read + Send>) -> Self {
        Self { source, buffer: Vec::new(), start: 0, end: 0, line: 0..0, is_rest: false, cut: 0 }
    }

    /// The line that was reached last, without its line break.
    #[inline]
    pub(super) fn line(&self) -> &[u8] {
        &self.buffer[self.line.clone()]
    }

    /// Goes to the next line; `false` at the end.
    ///
    /// # Errors
    /// Those of reading.
    #[inline]
    pub(super) fn advance(&mut self) -> io::Result<bool> {
        let mut searched = self.start;
        self.line = loop {
            if let Some(found) = memchr::memchr(b'\n', &self.buffer[searched..self.end]) {
                let line = self.start..searched + found;
                self.start = line.end + 1;
                if !std::mem::take(&mut self.is_rest) {
                    self.cut += u64::from(line.len() > LINE_MAX);
                    break line.start..line.end.min(line.start + LINE_MAX);
                }
                searched = self.start;
                continue;
            }
            if self.is_rest {
                self.start = self.end;
            } else if self.end - self.start > LINE_MAX {
                let line = self.start..self.start + LINE_MAX;
                (self.start, self.is_rest) = (line.end, true);
                self.cut += 1;
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

    /// Reads on, with what was not yet lent at the front; `false` at the end of the stream.
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

    /// Gives a few bytes at a time.
    struct Slow(io::Cursor<Vec<u8>>, usize);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    fn all(bytes: &[u8], most: usize) -> (Vec<Vec<u8>>, u64) {
        let mut lines = InputLines::new(Box::new(Slow(io::Cursor::new(bytes.to_vec()), most)));
        let mut found = Vec::new();
        while lines.advance().unwrap() {
            found.push(lines.line().to_vec());
        }
        (found, lines.cut)
    }

    #[test]
    fn too_long_lines_are_cut_and_the_next_one_is_whole() {
        let long = |count| std::iter::repeat_n(b'x', count).collect::<Vec<_>>();
        let bytes =
            [b"one\r\n\n".to_vec(), long(LINE_MAX), b"\n".to_vec(), long(LINE_MAX + 5), b"\ntwo".to_vec()].concat();
        let (lines, cut) = all(&bytes, BUFFER);
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [4, 0, LINE_MAX, LINE_MAX, 3]);
        assert_eq!((cut, &lines[4][..]), (1, &b"two"[..]));
        assert_eq!(all(&long(LINE_MAX * 2), BUFFER).0.len(), 1);
    }

    proptest! {
        #[test]
        fn lines_are_those_of_a_plain_split(bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400), most in 1_usize..50) {
            let mut wanted: Vec<_> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if wanted.last().is_some_and(Vec::is_empty) {
                wanted.pop();
            }
            prop_assert_eq!(all(&bytes, most).0, wanted);
        }
    }
}
