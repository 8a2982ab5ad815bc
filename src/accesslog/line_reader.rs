//! Reads the lines of a file as people have it: with or without what a log collector added to each line.

use super::wrapped::document::JsonDocument;
use super::wrapped::{Candidate, Candidates, has_pod_key, record_names};
use super::{AccessEntry, LogReader, OtherLine, PodNames, trim};

/// Reads lines in order. A line may contain no, one or several lines of proxies.
#[derive(Debug, Clone, Default)]
pub struct LineReader {
    reader: LogReader,
    document: JsonDocument,
}

/// One line of a proxy.
#[derive(Debug)]
pub enum ReadLine<'l, 'a> {
    /// An access line, and the pod that is named next to it.
    Access(&'l AccessEntry<'a>, PodNames<'a>),
    /// Another line.
    Other(OtherLine),
}

/// Receives the text of each line of a proxy, and what it is.
pub type LineConsumer<'c, E> = dyn FnMut(&[u8], ReadLine<'_, '_>) -> Result<(), E> + 'c;

impl LineReader {
    /// Builds a reader that parses lines with `reader`.
    pub fn new(reader: LogReader) -> Self {
        Self { reader, document: JsonDocument::default() }
    }

    /// The reader of the lines of proxies.
    pub fn reader(&mut self) -> &mut LogReader {
        &mut self.reader
    }

    /// The kind of a line that is not an access line; `None` if it contains one.
    pub fn classify(&mut self, line: &[u8]) -> Option<OtherLine> {
        let mut kind = None;
        let mut has_access = false;
        let _ = self.read(line, &mut |_, read| {
            match read {
                ReadLine::Access(..) => has_access = true,
                ReadLine::Other(other) => kind = Some(other),
            }
            Ok::<(), std::convert::Infallible>(())
        });
        kind.filter(|_| !has_access)
    }

    /// Reads a line without its line break.
    ///
    /// # Errors
    /// Errors of `each`.
    #[inline]
    pub fn read<E>(&mut self, line: &[u8], each: &mut LineConsumer<'_, E>) -> Result<(), E> {
        let mut access = AccessEntry::default();
        // Lines that no collector changed are decided here. The rest is slow.
        let kind = match self.reader.read_into(line, &mut access) {
            // A collector may have merged the fields of the line into its own record.
            Ok(PodNames { pod: None, .. }) if line.first() == Some(&b'{') && has_pod_key(line) => {
                let names = record_names(line);
                return each(line, ReadLine::Access(&access, names.as_names()));
            }
            Ok(names) if !self.document.is_open() => return each(line, ReadLine::Access(&access, names)),
            Ok(_) => {
                // A line of a proxy cannot continue a document: what looked like one is text.
                for held in self.document.take_lines() {
                    self.read_text(&held, OtherLine::UnknownJson, each)?;
                }
                return self.read(line, each);
            }
            Err(kind) => kind,
        };
        if self.document.is_open() || may_be_wrapped(kind, line) {
            self.read_wrapped(line, kind, each)
        } else {
            each(line, ReadLine::Other(kind))
        }
    }

    /// Reads what is left of an incomplete document at the end of the input.
    ///
    /// # Errors
    /// Errors of `each`.
    pub fn finish<E>(&mut self, each: &mut LineConsumer<'_, E>) -> Result<(), E> {
        let lines = self.document.take_lines();
        lines.into_iter().try_for_each(|line| self.read_text(&line, OtherLine::UnknownJson, each))
    }

    #[cold]
    fn read_wrapped<E>(&mut self, line: &[u8], kind: OtherLine, each: &mut LineConsumer<'_, E>) -> Result<(), E> {
        let line = trim(line);
        let is_open = self.document.is_open();
        let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
        if !is_open && first == Some(&b'{') {
            let mut candidates = Candidates::default();
            if candidates.add_json(line) {
                return self.read_candidates(candidates, line, kind, each);
            }
        }
        let starts_document = matches!(first, Some(b'{' | b'['));
        if !is_open && !starts_document {
            return self.read_text(line, kind, each);
        }
        let mut records = Vec::new();
        let result = self.document.feed(line, &mut records);
        let has_records = !records.is_empty();
        for record in records {
            let mut candidates = Candidates::default();
            candidates.add_json(&record);
            self.read_candidates(candidates, &record, OtherLine::UnknownJson, each)?;
        }
        if result.is_err() {
            self.finish(each)?;
            if !has_records {
                return self.read_text(line, kind, each);
            }
        }
        Ok(())
    }

    /// Reads a line that is not JSON, perhaps with a prefix.
    fn read_text<E>(&mut self, line: &[u8], kind: OtherLine, each: &mut LineConsumer<'_, E>) -> Result<(), E> {
        let mut candidates = Candidates::default();
        candidates.add_text(line);
        self.read_candidates(candidates, line, kind, each)
    }

    /// Reports the access lines among the candidates, or else lines of other known kinds, or else the whole line.
    fn read_candidates<E>(
        &mut self,
        candidates: Candidates,
        line: &[u8],
        kind: OtherLine,
        each: &mut LineConsumer<'_, E>,
    ) -> Result<(), E> {
        let mut last_record = None;
        let mut others: Vec<(&Candidate, OtherLine)> = Vec::new();
        for candidate in candidates.list.iter().filter(|candidate| candidate.text != line) {
            if last_record == Some(candidate.record) {
                continue;
            }
            let mut access = AccessEntry::default();
            match self.reader.read_into(&candidate.text, &mut access) {
                Ok(names) => {
                    last_record = Some(candidate.record);
                    others.retain(|(other, _)| other.record != candidate.record);
                    let names = names.or(candidate.names.as_names());
                    each(&candidate.text, ReadLine::Access(&access, names))?;
                }
                Err(kind) if candidate.is_certain || is_known(kind) => others.push((candidate, kind)),
                Err(_) => {}
            }
        }
        others.dedup_by_key(|(candidate, _)| candidate.record);
        if last_record.is_none() && others.is_empty() {
            return each(line, ReadLine::Other(kind));
        }
        others.into_iter().try_for_each(|(candidate, kind)| each(&candidate.text, ReadLine::Other(kind)))
    }
}

fn is_known(kind: OtherLine) -> bool {
    matches!(kind, OtherLine::AgentLog | OtherLine::EnvoyLog | OtherLine::OutlierEvent)
}

/// Whether a collector may have made the line. A JSON log of an application may quote an access line in its message.
fn may_be_wrapped(kind: OtherLine, line: &[u8]) -> bool {
    match kind {
        OtherLine::Unknown | OtherLine::UnknownJson | OtherLine::Continuation => true,
        OtherLine::AgentLog | OtherLine::EnvoyLog | OtherLine::OutlierEvent => {
            line.starts_with(b"{") && memchr::memmem::find(line, b"Z] \\\"").is_some()
        }
        OtherLine::Empty => false,
    }
}
