//! Splits JSON that does not have one record per line: pretty-printed objects, arrays, and objects without a line break
//! between them.

/// Largest record that is kept in memory.
pub(super) const RECORD_MAX: usize = 64 << 20;

/// The state between two lines. The elements of an array at the top are records of their own, so that an array of any
/// length is read in bounded memory.
#[derive(Debug, Clone, Default)]
pub(in crate::accesslog) struct JsonDocument {
    /// The beginning of the current record.
    record: Vec<u8>,
    /// Brackets that are open in `record`.
    depth: usize,
    in_array: bool,
}

/// The text is not JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::accesslog) struct NotJson;

impl JsonDocument {
    /// Whether a record or the array around it continues in the next line.
    pub(in crate::accesslog) fn is_open(&self) -> bool {
        self.in_array || self.depth > 0
    }

    /// Adds a line, and appends the records that end in it to `records`.
    ///
    /// # Errors
    /// The line cannot continue the document, or the record is too large. [`Self::take_lines`] returns its lines.
    pub(in crate::accesslog) fn feed(&mut self, line: &[u8], records: &mut Vec<Vec<u8>>) -> Result<(), NotJson> {
        let (mut in_string, mut is_escaped) = (false, false);
        let (start, ended_before) = (self.record.len(), records.len());
        let result = line.iter().try_for_each(|byte| {
            if in_string {
                in_string = is_escaped || *byte != b'"';
                is_escaped = !is_escaped && *byte == b'\\';
            } else {
                match (byte, self.depth) {
                    (b'"', 1..) => in_string = true,
                    (b'[', 0) if !self.in_array => {
                        self.in_array = true;
                        return Ok(());
                    }
                    (b']', 0) if self.in_array => {
                        self.in_array = false;
                        return Ok(());
                    }
                    (b'{' | b'[', _) => self.depth += 1,
                    (b'}' | b']', 1..) => self.depth -= 1,
                    (b',' | b' ' | b'\t' | b'\r', 0) => return Ok(()),
                    (_, 0) => return Err(NotJson),
                    _ => {}
                }
            }
            self.record.push(*byte);
            if self.depth == 0 {
                records.push(std::mem::take(&mut self.record));
            }
            Ok(())
        });
        // A string of JSON contains no line break.
        if result.is_err() || in_string || self.record.len() > RECORD_MAX {
            // What the line added is dropped: the caller still has the line, or the records that ended in it.
            self.record.truncate(if records.len() == ended_before { start } else { 0 });
            return Err(NotJson);
        }
        if self.depth > 0 {
            self.record.push(b'\n');
        }
        Ok(())
    }

    /// Gives up the open record, and returns its lines.
    pub(in crate::accesslog) fn take_lines(&mut self) -> Vec<Vec<u8>> {
        let record = std::mem::take(self).record;
        record.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The records of a text that is fed line by line, and whether the document is complete.
    fn records(text: &str) -> Result<(Vec<String>, bool), NotJson> {
        let (mut document, mut records) = (JsonDocument::default(), Vec::new());
        for line in text.lines() {
            document.feed(line.as_bytes(), &mut records)?;
        }
        let records = records.into_iter().map(|record| String::from_utf8(record).unwrap()).collect();
        Ok((records, !document.is_open()))
    }

    #[test]
    fn elements_of_an_array_are_records() {
        let expected = Ok((vec!["{\"a\":\"]}\\\"\"}".to_owned(), "{}".to_owned()], true));
        assert_eq!(records("[{\"a\":\"]}\\\"\"},\n{}]"), expected);
        assert_eq!(records("{\"a\":\"]}\\\"\"}{}"), expected);
        assert_eq!(records("[\n\n"), Ok((Vec::new(), false)));
        assert_eq!(records("text"), Err(NotJson));
        assert_eq!(records("{\"a\n\"}"), Err(NotJson));
        assert_eq!(records("}"), Err(NotJson));
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<u8>().prop_map(serde_json::Value::from),
            "[\\[\\]{}\",\\\\a]{0,6}".prop_map(serde_json::Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                prop::collection::hash_map("[a-c\"]", inner, 0..4)
                    .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn finds_the_records_of_any_document(values in prop::collection::vec(prop::collection::hash_map("[a-c]", value(), 0..3), 0..4), is_pretty: bool, is_array: bool) {
            let print = if is_pretty { serde_json::to_string_pretty } else { serde_json::to_string };
            let texts: Vec<String> = values.iter().map(|value| print(value).unwrap()).collect();
            let text = if is_array { format!("[{}]", texts.join(",")) } else { texts.join("\n") };
            let (found, is_complete) = records(&text).unwrap();
            prop_assert!(is_complete);
            let parse = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
            prop_assert_eq!(found.iter().map(parse).collect::<Vec<_>>(), texts.iter().map(parse).collect::<Vec<_>>());
        }
    }
}
