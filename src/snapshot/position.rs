//! Finds the position of a field in the YAML text of its object.
//!
//! Positions are not recorded while manifests are read. When a finding is shown, its document is parsed again and searched
//! for the field path. For a path that does not exist, such as a missing field, the search returns the nearest ancestor.

use std::ops::Range;

use granit_parser::{Event, Parser};

use super::yaml::{LineColumn, options};
use crate::schema::path::PathSegment;

/// The position of a field in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPosition {
    /// Start of the field, within the document.
    pub start: LineColumn,
    /// Bytes of the key, and of the value when it is a scalar.
    pub bytes: Range<usize>,
}

/// Finds the field at `path`, or its nearest existing ancestor.
pub fn find(document: &str, path: &[PathSegment]) -> Option<FieldPosition> {
    let mut search = PathSearch { path, depth: 0, best: None, best_depth: None, open: Vec::new(), pending: None };
    for next in Parser::new_from_str_with_options(document, options()) {
        let Ok((event, span)) = next else { break };
        let Some(bytes) = span.byte_range() else { break };
        if !search.process_event(&event, bytes, LineColumn::of(&span)) {
            break;
        }
    }
    search.best
}

struct PathSearch<'a> {
    path: &'a [PathSegment],
    /// Number of path segments that lead to the innermost open collection on the path.
    depth: usize,
    best: Option<FieldPosition>,
    best_depth: Option<usize>,
    open: Vec<OpenNode>,
    /// Position of the key whose value comes next, if the key is on the path.
    pending: Option<FieldPosition>,
}

enum OpenNode {
    /// A collection off the path.
    Off { is_mapping: bool, key_next: bool },
    /// A mapping on the path.
    Mapping { key_next: bool, matched: bool },
    /// A list on the path.
    List { index: usize },
}

impl PathSearch<'_> {
    /// Processes one event. Returns false when the search is over.
    fn process_event(&mut self, event: &Event<'_>, bytes: Range<usize>, start: LineColumn) -> bool {
        match event {
            Event::Scalar(value, ..) => {
                if self.expects_key() {
                    self.read_key(value, bytes, start);
                    return true;
                }
                let on_path = self.descend_if_on_path();
                if on_path {
                    self.record_match(bytes, start, true);
                    if self.depth == self.path.len() {
                        return false;
                    }
                    self.ascend();
                }
                self.complete_value();
                true
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                if self.expects_key() {
                    self.read_key("", bytes, start);
                    return true;
                }
                if self.descend_if_on_path() {
                    self.record_match(bytes, start, true);
                    return false;
                }
                self.complete_value();
                true
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let is_mapping = matches!(event, Event::MappingStart(..));
                if self.descend_if_on_path() {
                    self.record_match(bytes, start, false);
                    if self.depth == self.path.len() {
                        return false;
                    }
                    self.open.push(if is_mapping {
                        OpenNode::Mapping { key_next: true, matched: false }
                    } else {
                        OpenNode::List { index: 0 }
                    });
                } else {
                    self.open.push(OpenNode::Off { is_mapping, key_next: is_mapping });
                }
                true
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let was_on_path = !matches!(self.open.pop(), Some(OpenNode::Off { .. }));
                if was_on_path {
                    // The path leads into this collection and does not end in it, so no deeper match can follow.
                    return false;
                }
                self.complete_value();
                true
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            // Future versions of the parser may add events without data.
            | _ => true,
        }
    }

    fn expects_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(OpenNode::Mapping { key_next: true, .. } | OpenNode::Off { is_mapping: true, key_next: true })
        )
    }

    fn read_key(&mut self, name: &str, bytes: Range<usize>, start: LineColumn) {
        match self.open.last_mut() {
            Some(OpenNode::Mapping { key_next, matched }) => {
                *key_next = false;
                *matched = matches!(self.path.get(self.depth), Some(PathSegment::Field(field)) if field == name);
                self.pending = matched.then_some(FieldPosition { start, bytes });
            }
            Some(OpenNode::Off { key_next, .. }) => *key_next = false,
            Some(OpenNode::List { .. }) | None => {}
        }
    }

    /// Reports whether the next value is on the path, and descends one segment if so.
    fn descend_if_on_path(&mut self) -> bool {
        let on_path = match self.open.last() {
            None => return true,
            Some(OpenNode::Mapping { matched, .. }) => *matched,
            Some(OpenNode::List { index }) => self.path.get(self.depth) == Some(&PathSegment::Index(*index)),
            Some(OpenNode::Off { .. }) => false,
        };
        if on_path {
            self.depth += 1;
        }
        on_path
    }

    fn record_match(&mut self, value: Range<usize>, value_start: LineColumn, is_scalar: bool) {
        if self.best_depth.is_some_and(|depth| depth > self.depth) {
            return;
        }
        self.best_depth = Some(self.depth);
        self.best = Some(match self.pending.take() {
            Some(key) if is_scalar && value.end > key.bytes.end => {
                FieldPosition { start: key.start, bytes: key.bytes.start..value.end }
            }
            Some(key) => key,
            None if is_scalar => FieldPosition { start: value_start, bytes: value },
            None => FieldPosition { start: value_start, bytes: value.start..value.start + 1 },
        });
    }

    /// Ascends from a scalar that is on the path but not at its end.
    fn ascend(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn complete_value(&mut self) {
        match self.open.last_mut() {
            Some(OpenNode::Mapping { key_next, matched }) => {
                *key_next = true;
                *matched = false;
            }
            Some(OpenNode::List { index }) => *index += 1,
            Some(OpenNode::Off { is_mapping, key_next }) => *key_next = *is_mapping,
            None => {}
        }
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
        let position = find(TEXT, &parse_path(path)).unwrap();
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
}
