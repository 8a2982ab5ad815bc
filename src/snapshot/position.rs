//! Finds the position of a field in the YAML text of its object.
//!
//! Positions are not recorded while manifests are read. The first finding of a document parses it again into an index of
//! all its fields, which the other findings of the document share. For a path that does not exist, such as a missing field,
//! the index answers with the nearest ancestor.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;

use granit_parser::{Event, Parser};

use super::yaml::{LineColumn, options};
use crate::schema::path::PathSegment;

/// The position of a field in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPosition {
    /// Start of the field, within the document.
    pub start: LineColumn,
    /// Bytes of the key, and of the value when it is a scalar. The range lies on character boundaries of the document.
    pub bytes: Range<usize>,
}

/// The positions of all fields of one document.
#[derive(Debug, Default)]
pub struct PositionIndex {
    /// In the order of the document: a node, then its descendants.
    nodes: Vec<Node>,
    /// Members of collections with many members, by the node of the collection: label and node, sorted.
    large: HashMap<u32, Vec<(u64, u32)>>,
}

/// A field or an item, in as few bytes as possible, because a document can have millions.
#[derive(Debug)]
struct Node {
    /// Hash of the key in a mapping, index in a list.
    label: u64,
    /// Index of the first node that is not a descendant.
    end: u32,
    line: u32,
    column: u32,
    start_byte: u32,
    end_byte: u32,
}

/// Collections with more members have an entry in [`PositionIndex::large`].
const MAX_SCANNED_MEMBERS: usize = 16;

impl PositionIndex {
    /// Parses a document. Of one that is malformed, the index has the fields before the error.
    pub fn of(document: &str) -> Self {
        let mut builder = IndexBuilder { document, ..IndexBuilder::default() };
        for next in Parser::new_from_str_with_options(document, options()) {
            let Ok((event, span)) = next else { break };
            let Some(bytes) = span.byte_range() else { break };
            if !builder.process_event(&event, bytes, LineColumn::of(&span)) {
                break;
            }
        }
        while !builder.open.is_empty() {
            builder.close_collection();
        }
        builder.index
    }

    /// Finds the field at `path`, or its nearest existing ancestor.
    pub fn find(&self, path: &[PathSegment]) -> Option<FieldPosition> {
        let mut node = 0;
        for segment in path {
            match self.member(node, label_of(segment)) {
                Some(member) => node = member,
                None => break,
            }
        }
        self.nodes.get(node as usize).map(Node::position)
    }

    fn member(&self, collection: u32, label: u64) -> Option<u32> {
        if let Some(members) = self.large.get(&collection) {
            let first = members.partition_point(|(other, _)| *other < label);
            return members.get(first).filter(|(other, _)| *other == label).map(|(_, node)| *node);
        }
        let end = self.nodes.get(collection as usize)?.end;
        let mut next = collection + 1;
        while next < end {
            let node = self.nodes.get(next as usize)?;
            if node.label == label {
                return Some(next);
            }
            next = node.end;
        }
        None
    }
}

impl Node {
    fn position(&self) -> FieldPosition {
        FieldPosition {
            start: LineColumn { line: self.line as usize, column: self.column as usize },
            bytes: self.start_byte as usize..self.end_byte as usize,
        }
    }
}

fn label_of(segment: &PathSegment) -> u64 {
    match segment {
        PathSegment::Field(name) => hash(name),
        PathSegment::Index(index) => *index as u64,
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// Returns the range without the parts of characters at its ends, and within the document.
fn whole_characters(document: &str, bytes: Range<usize>) -> Range<usize> {
    let start = document.floor_char_boundary(bytes.start);
    start..document.ceil_char_boundary(bytes.end.min(document.len())).max(start)
}

#[derive(Default)]
struct IndexBuilder<'a> {
    document: &'a str,
    index: PositionIndex,
    open: Vec<OpenCollection>,
}

struct OpenCollection {
    node: u32,
    members: Vec<(u64, u32)>,
    /// The key whose value comes next: hash, start and bytes.
    key: Option<(u64, LineColumn, Range<usize>)>,
    is_mapping: bool,
}

impl IndexBuilder<'_> {
    /// Processes one event. Returns false when the root ends.
    fn process_event(&mut self, event: &Event<'_>, bytes: Range<usize>, start: LineColumn) -> bool {
        match event {
            Event::Scalar(value, ..) => self.add_scalar(value, bytes, start),
            Event::Alias(_) | Event::UnresolvedAlias(_) => self.add_scalar("", bytes, start),
            Event::MappingStart(..) => self.open_collection(true, bytes.start, start),
            Event::SequenceStart(..) => self.open_collection(false, bytes.start, start),
            Event::MappingEnd | Event::SequenceEnd => self.close_collection(),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            // Future versions of the parser may add events without data.
            | _ => return true,
        }
        !self.open.is_empty()
    }

    fn add_scalar(&mut self, value: &str, bytes: Range<usize>, start: LineColumn) {
        if let Some(mapping) = self.open.last_mut().filter(|open| open.is_mapping && open.key.is_none()) {
            mapping.key = Some((hash(value), start, bytes));
            return;
        }
        self.add_node(start, bytes, true);
    }

    fn open_collection(&mut self, is_mapping: bool, start_byte: usize, start: LineColumn) {
        // Without a key, the position is the first character: the collection itself may cover the whole document.
        let node = self.add_node(start, start_byte..start_byte + 1, false);
        self.open.push(OpenCollection { node, members: Vec::new(), key: None, is_mapping });
    }

    fn close_collection(&mut self) {
        let Some(OpenCollection { node, mut members, .. }) = self.open.pop() else { return };
        let end = self.next_node();
        if let Some(node) = self.index.nodes.get_mut(node as usize) {
            node.end = end;
        }
        if members.len() > MAX_SCANNED_MEMBERS {
            members.sort_unstable();
            self.index.large.insert(node, members);
        }
    }

    fn next_node(&self) -> u32 {
        u32::try_from(self.index.nodes.len()).unwrap_or(u32::MAX)
    }

    /// Adds the value that starts here to the open collection, and returns its node.
    fn add_node(&mut self, start: LineColumn, bytes: Range<usize>, is_scalar: bool) -> u32 {
        let node = self.next_node();
        let (mut label, mut start, mut bytes) = (0, start, bytes);
        if let Some(open) = self.open.last_mut() {
            label = open.members.len() as u64;
            if let Some((key, key_start, key_bytes)) = open.key.take() {
                let end = if is_scalar { bytes.end.max(key_bytes.end) } else { key_bytes.end };
                (label, start, bytes) = (key, key_start, key_bytes.start..end);
            }
            open.members.push((label, node));
        }
        let bytes = whole_characters(self.document, bytes);
        let narrow = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.index.nodes.push(Node {
            label,
            end: node + 1,
            line: narrow(start.line),
            column: narrow(start.column),
            start_byte: narrow(bytes.start),
            end_byte: narrow(bytes.end),
        });
        node
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::path::parse_path;

    const TEXT: &str = "\
kind: VirtualService
metadata:
  annotations: {a.b/c: x}
spec:
  http:
  - name: a
    route: []
  - name: two
    route:
    - destination:
        host: cart
        subset: v2
    - {destination: {host: ledger}}
";

    #[track_caller]
    fn check(path: &str, line: usize, column: usize, slice: &str) {
        let position = PositionIndex::of(TEXT).find(&parse_path(path)).unwrap();
        assert_eq!(
            (position.start.line, position.start.column, &TEXT[position.bytes]),
            (line, column, slice),
            "{path}"
        );
    }

    #[test]
    fn finds_the_key_and_value_of_a_path() {
        check("spec.http[1].route[0].destination.subset", 12, 9, "subset: v2");
        check("spec.http[1].route[1].destination.host", 13, 22, "host: ledger");
        check("spec.http[1].name", 8, 5, "name: two");
        check("spec.http", 5, 3, "http");
        check("metadata.annotations[\"a.b/c\"]", 3, 17, "a.b/c: x");
    }

    #[test]
    fn finds_the_nearest_ancestor_of_a_missing_field() {
        check("spec.http[1].timeout", 8, 5, "n");
        check("spec.gateways", 4, 1, "spec");
        check("spec.http[1].route[0].destination.port.number", 10, 7, "destination");
    }

    #[test]
    fn spans_of_keys_that_are_not_ascii_end_at_a_character() {
        for (text, path, slice) in [
            ("é: 1\n", "", "é"),
            ("spec:\n  - ключ: {名: 1}\n", "spec[0]", "к"),
            ("spec:\n  - ключ: {名: 1}\n", "spec[0].ключ.名", "名: 1"),
            ("spec: {\u{1f980}: [ü]}", "spec.\u{1f980}[0]", "ü"),
        ] {
            let position = PositionIndex::of(text).find(&parse_path(path)).unwrap();
            assert_eq!(text.get(position.bytes), Some(slice), "{path} in {text}");
        }
    }

    #[test]
    fn finds_members_of_large_collections() {
        let text: String = (0..100).map(|number| format!("k{number}: [{}]\n", "x, ".repeat(number))).collect();
        let index = PositionIndex::of(&text);
        for (path, line, slice) in [("k0", 1, "k0"), ("k99[98]", 100, "x"), ("k7.missing", 8, "k7"), ("none", 1, "k")] {
            let position = index.find(&parse_path(path)).unwrap();
            assert_eq!((position.start.line, text.get(position.bytes)), (line, Some(slice)), "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_position_is_a_slice_of_the_document(text in "[a-zé名\u{1f980}:&*\\[\\]{}, \n#'-]{0,60}", path in "[a-zé.\\[\\]0-9]{0,6}") {
            if let Some(position) = PositionIndex::of(&text).find(&parse_path(&path)) {
                proptest::prop_assert!(text.get(position.bytes).is_some());
            }
        }
    }
}
