//! Where a field of an object stands in the text it came from.
//!
//! Nothing is remembered while manifests are read. When a finding is shown, its one document is parsed again
//! and followed along the finding's field path. A path that leads nowhere, such as a missing field, ends at its
//! nearest ancestor.

use std::ops::Range;

use granit_parser::{Event, Parser};

use super::yaml::{LineColumn, options};
use crate::schema::path::PathSegment;

/// A place in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldPosition {
    /// Where it begins, within the document.
    pub at: LineColumn,
    /// Its bytes in the document: the key and, when that is short, the value.
    pub bytes: Range<usize>,
}

/// Finds what `path` names in `document`.
pub fn find(document: &str, path: &[PathSegment]) -> Option<FieldPosition> {
    let mut walk = PathSearch { path, depth: 0, best: None, best_depth: None, open: Vec::new(), pending: None };
    for next in Parser::new_from_str_with_options(document, options()) {
        let Ok((event, span)) = next else { break };
        let Some(bytes) = span.byte_range() else { break };
        if !walk.event(&event, bytes, LineColumn::of(&span)) {
            break;
        }
    }
    walk.best
}

struct PathSearch<'a> {
    path: &'a [PathSegment],
    /// How many segments of `path` lead to the innermost open collection that is on it.
    depth: usize,
    best: Option<FieldPosition>,
    best_depth: Option<usize>,
    open: Vec<OpenNode>,
    /// Place of the key whose value comes next, if that key is on the path.
    pending: Option<FieldPosition>,
}

enum OpenNode {
    /// A collection off the path.
    Off { mapping: bool, key_next: bool },
    /// A mapping on the path.
    Mapping { key_next: bool, matched: bool },
    /// A list on the path.
    List { index: usize },
}

impl PathSearch<'_> {
    /// Takes one event; false when the search is over.
    fn event(&mut self, event: &Event<'_>, bytes: Range<usize>, at: LineColumn) -> bool {
        match event {
            Event::Scalar(value, ..) => {
                if self.is_key() {
                    self.key(value, bytes, at);
                    return true;
                }
                let on_path = self.value_is_on_path();
                if on_path {
                    self.hit(bytes, at, true);
                    if self.depth == self.path.len() {
                        return false;
                    }
                    self.leave();
                }
                self.after_value();
                true
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                if self.is_key() {
                    self.key("", bytes, at);
                    return true;
                }
                if self.value_is_on_path() {
                    self.hit(bytes, at, true);
                    return false;
                }
                self.after_value();
                true
            }
            Event::MappingStart(..) | Event::SequenceStart(..) => {
                let mapping = matches!(event, Event::MappingStart(..));
                if self.value_is_on_path() {
                    self.hit(bytes, at, false);
                    if self.depth == self.path.len() {
                        return false;
                    }
                    self.open.push(if mapping {
                        OpenNode::Mapping { key_next: true, matched: false }
                    } else {
                        OpenNode::List { index: 0 }
                    });
                } else {
                    self.open.push(OpenNode::Off { mapping, key_next: mapping });
                }
                true
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let was_on_path = !matches!(self.open.pop(), Some(OpenNode::Off { .. }));
                if was_on_path {
                    // The path led into this collection and did not end there: nothing deeper will be found.
                    return false;
                }
                self.after_value();
                true
            }
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            // The parser may grow events that carry no data.
            | _ => true,
        }
    }

    fn is_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(OpenNode::Mapping { key_next: true, .. } | OpenNode::Off { mapping: true, key_next: true })
        )
    }

    fn key(&mut self, name: &str, bytes: Range<usize>, at: LineColumn) {
        match self.open.last_mut() {
            Some(OpenNode::Mapping { key_next, matched }) => {
                *key_next = false;
                *matched = matches!(self.path.get(self.depth), Some(PathSegment::Field(field)) if field == name);
                self.pending = matched.then_some(FieldPosition { at, bytes });
            }
            Some(OpenNode::Off { key_next, .. }) => *key_next = false,
            Some(OpenNode::List { .. }) | None => {}
        }
    }

    /// Whether the value that begins now is on the path; goes one segment deeper if so.
    fn value_is_on_path(&mut self) -> bool {
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

    fn hit(&mut self, value: Range<usize>, value_at: LineColumn, scalar: bool) {
        if self.best_depth.is_some_and(|depth| depth > self.depth) {
            return;
        }
        self.best_depth = Some(self.depth);
        self.best = Some(match self.pending.take() {
            Some(key) if scalar && value.end > key.bytes.end => {
                FieldPosition { at: key.at, bytes: key.bytes.start..value.end }
            }
            Some(key) => key,
            None if scalar => FieldPosition { at: value_at, bytes: value },
            None => FieldPosition { at: value_at, bytes: value.start..value.start + 1 },
        });
    }

    /// A scalar on the path where the path goes deeper: step back out of it.
    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn after_value(&mut self) {
        match self.open.last_mut() {
            Some(OpenNode::Mapping { key_next, matched }) => {
                *key_next = true;
                *matched = false;
            }
            Some(OpenNode::List { index }) => *index += 1,
            Some(OpenNode::Off { mapping, key_next }) => *key_next = *mapping,
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
  - name: one
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
        let found = find(TEXT, &parse_path(path)).unwrap();
        assert_eq!((found.at.line, found.at.column, &TEXT[found.bytes]), (line, column, slice), "{path}");
    }

    #[test]
    fn a_path_leads_to_its_key_and_value() {
        check("spec.http[1].route[0].destination.subset", 12, 9, "subset: v2");
        check("spec.http[1].route[1].destination.host", 13, 22, "host: ledger");
        check("spec.http[1].name", 8, 5, "name: two");
        check("spec.http", 5, 3, "http");
        check("metadata.annotations[\"a.b/c\"]", 3, 17, "a.b/c: x");
    }

    #[test]
    fn a_missing_field_is_shown_at_its_nearest_ancestor() {
        check("spec.http[1].timeout", 8, 5, "n");
        check("spec.gateways", 4, 1, "spec");
        check("spec.http[1].route[0].destination.port.number", 10, 7, "destination");
    }
}
