//! Converts YAML to JSON like kubectl.
//!
//! kubectl reads YAML 1.1 with a fork of go-yaml v2: `yes` is true, `0777` is 511, `1_000` is 1000, `<<` merges mappings,
//! and the last of several equal keys wins. Source: `resolve.go` and `decode.go` of sigs.k8s.io/yaml `goyaml.v2`, verified
//! against kubectl itself (`kubectl annotate --local -o json`). JSON is written directly from the parser's events, without
//! an intermediate tree.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::rc::Rc;

use granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};
use serde_json::value::RawValue;

use super::raw::RawEntries;
use super::scalar::{ScalarValue, json_string, resolve, write_string};

/// Maximum size of the expanded aliases of a document. It bounds "billion laughs" attacks.
const MAX_ALIAS_BYTES: usize = 8 << 20;
/// Maximum size of the anchored values of a document. Anchors inside of anchored values store their text again.
const MAX_ANCHOR_BYTES: usize = 32 << 20;

/// A position in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineColumn {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl LineColumn {
    pub(crate) fn of(span: &Span) -> Self {
        Self { line: span.start.line(), column: span.start.col() + 1 }
    }
}

/// Why a document cannot be converted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError {
    /// Position in the document.
    pub position: LineColumn,
    /// The cause.
    pub message: String,
}

/// A key that occurs twice in one mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DuplicateKey {
    /// Field path of the mapping; empty at the top level.
    pub path: String,
    /// Name of the key.
    pub key: String,
    /// Position of the later key in the document.
    pub position: LineColumn,
}

/// One document as JSON.
#[derive(Debug)]
pub struct ConvertedDocument {
    /// `None` for an empty document.
    pub json: Option<Box<RawValue>>,
    /// Keys that occur twice. The JSON has the last value.
    pub duplicates: Vec<DuplicateKey>,
}

/// Parser options: comments are skipped. The parser itself bounds long keys and deep nesting.
pub(crate) fn options() -> Options {
    let mut options = Options::default();
    options.emit_comments = false;
    options
}

/// Converts one YAML document.
///
/// # Errors
/// The document is not valid YAML, its aliases expand to more than 8 MiB, or its anchors to more than 32 MiB.
pub fn to_json(document: &str) -> Result<ConvertedDocument, YamlError> {
    let mut writer = JsonWriter { has_aliases: document.contains('*'), ..JsonWriter::default() };
    for next in Parser::new_from_str_with_options(document, options()) {
        let (event, span) = next.map_err(|error| YamlError {
            position: LineColumn { line: error.marker().line(), column: error.marker().col() + 1 },
            message: error.info(),
        })?;
        writer.write_event(event, &span)?;
    }
    let json = if writer.out.is_empty() {
        None
    } else {
        Some(RawValue::from_string(writer.out).map_err(|error| YamlError {
            position: LineColumn { line: 1, column: 1 },
            message: format!("the document is nested too deeply or has an invalid number: {error}"),
        })?)
    };
    Ok(ConvertedDocument { json, duplicates: writer.duplicates })
}

#[derive(Default)]
struct JsonWriter {
    out: String,
    frames: Vec<OpenCollection>,
    /// Whether the document can have aliases. Otherwise anchored values are not stored.
    has_aliases: bool,
    anchors: HashMap<usize, Rc<str>>,
    anchor_bytes: usize,
    alias_bytes: usize,
    duplicates: Vec<DuplicateKey>,
}

struct OpenCollection {
    /// Offset of the opening bracket in the output.
    start: usize,
    anchor: usize,
    shape: CollectionKind,
}

enum CollectionKind {
    Sequence { count: usize },
    Mapping { keys: KeySet, key: Option<Key>, has_duplicate: bool, merges: Vec<String> },
}

enum Key {
    Name(String),
    /// `<<`: its value is moved out of the output again, starting at this offset.
    Merge(usize),
}

/// The keys of one mapping. Most mappings are small and need no hashing.
#[derive(Default)]
struct KeySet {
    small: Vec<String>,
    large: HashSet<String>,
}

impl KeySet {
    fn insert(&mut self, key: &str) -> bool {
        const MAX_SMALL: usize = 24;
        if self.large.is_empty() {
            if self.small.iter().any(|existing| existing == key) {
                return false;
            }
            self.small.push(key.to_owned());
            if self.small.len() > MAX_SMALL {
                self.large.extend(std::mem::take(&mut self.small));
            }
            true
        } else {
            self.large.insert(key.to_owned())
        }
    }
}

impl JsonWriter {
    fn write_event(&mut self, event: Event<'_>, span: &Span) -> Result<(), YamlError> {
        match event {
            Event::Scalar(value, style, anchor, tag) => self.write_scalar(&value, style, anchor, tag.as_deref(), span),
            Event::SequenceStart(_, anchor, _) => {
                self.start_value(span)?;
                let start = self.out.len();
                self.out.push('[');
                self.frames.push(OpenCollection { start, anchor, shape: CollectionKind::Sequence { count: 0 } });
                Ok(())
            }
            Event::MappingStart(_, anchor, _) => {
                self.start_value(span)?;
                let start = self.out.len();
                self.out.push('{');
                let shape =
                    CollectionKind::Mapping { keys: KeySet::default(), key: None, has_duplicate: false, merges: Vec::new() };
                self.frames.push(OpenCollection { start, anchor, shape });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close_collection(span),
            Event::Alias(id) => self.write_alias(id, span),
            Event::UnresolvedAlias(name) => Err(error(span, format!("the alias *{name} has no anchor"))),
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd
            | Event::Anchor(..)
            | Event::Comment(..)
            // Future versions of the parser may add events without data.
            | _ => Ok(()),
        }
    }

    /// Writes the comma before an item of a sequence. Rejects a collection as a mapping key.
    fn start_value(&mut self, span: &Span) -> Result<(), YamlError> {
        match self.frames.last_mut().map(|frame| &mut frame.shape) {
            Some(CollectionKind::Sequence { count }) => {
                if *count > 0 {
                    self.out.push(',');
                }
                *count += 1;
                Ok(())
            }
            Some(CollectionKind::Mapping { key: None, .. }) => {
                Err(error(span, "a mapping key must be a plain value, not a list or a mapping".to_owned()))
            }
            Some(CollectionKind::Mapping { .. }) | None => Ok(()),
        }
    }

    fn write_scalar(
        &mut self,
        value: &str,
        style: ScalarStyle,
        anchor: usize,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<(), YamlError> {
        if self.expects_key() {
            let resolved = resolve(value, style, tag).map_err(|message| error(span, message))?;
            if style == ScalarStyle::Plain && value == "<<" {
                let offset = self.out.len();
                self.set_key(Key::Merge(offset));
                return Ok(());
            }
            let name = resolved.into_key();
            if anchor > 0 {
                self.store_anchor(anchor, json_string(&name).into(), span)?;
            }
            self.write_key(name, span);
            return Ok(());
        }
        self.start_value(span)?;
        let start = self.out.len();
        match resolve(value, style, tag).map_err(|message| error(span, message))? {
            ScalarValue::Text(text) => write_string(&mut self.out, &text),
            ScalarValue::Literal(literal) => self.out.push_str(&literal),
        }
        self.store_value(anchor, start, span)?;
        self.complete_value(span)
    }

    /// Stores the text of an anchored value that starts at `start` in the output.
    fn store_value(&mut self, anchor: usize, start: usize, span: &Span) -> Result<(), YamlError> {
        match self.out.get(start..) {
            Some(text) if anchor > 0 && self.has_aliases => self.store_anchor(anchor, text.into(), span),
            _ => Ok(()),
        }
    }

    fn store_anchor(&mut self, anchor: usize, text: Rc<str>, span: &Span) -> Result<(), YamlError> {
        self.anchor_bytes += text.len();
        if self.anchor_bytes > MAX_ANCHOR_BYTES {
            return Err(error(span, "anchors expand to more than 32 MiB".to_owned()));
        }
        self.anchors.insert(anchor, text);
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(OpenCollection { shape: CollectionKind::Mapping { key: None, .. }, .. }))
    }

    fn set_key(&mut self, new: Key) {
        if let Some(OpenCollection { shape: CollectionKind::Mapping { key, .. }, .. }) = self.frames.last_mut() {
            *key = Some(new);
        }
    }

    fn write_key(&mut self, name: String, span: &Span) {
        let is_new = match self.frames.last_mut().map(|frame| &mut frame.shape) {
            Some(CollectionKind::Mapping { keys, has_duplicate, .. }) => {
                let is_new = keys.insert(&name);
                *has_duplicate |= !is_new;
                is_new
            }
            Some(CollectionKind::Sequence { .. }) | None => true,
        };
        if !is_new {
            self.duplicates.push(DuplicateKey { path: self.path(), key: name.clone(), position: LineColumn::of(span) });
        }
        if !self.out.ends_with('{') {
            self.out.push(',');
        }
        write_string(&mut self.out, &name);
        self.out.push(':');
        self.set_key(Key::Name(name));
    }

    /// Builds the field path of the innermost open mapping.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.shape {
                CollectionKind::Sequence { count } => {
                    let _ = write!(path, "[{}]", count.saturating_sub(1));
                }
                CollectionKind::Mapping { key: Some(Key::Name(name)), .. } => {
                    crate::schema::path::push_field(&mut path, name);
                }
                CollectionKind::Mapping { .. } => {}
            }
        }
        path
    }

    fn close_collection(&mut self, span: &Span) -> Result<(), YamlError> {
        let Some(OpenCollection { start, anchor, shape }) = self.frames.pop() else {
            return Ok(());
        };
        match shape {
            CollectionKind::Sequence { .. } => self.out.push(']'),
            CollectionKind::Mapping { keys: _, key: _, has_duplicate, merges } => {
                self.out.push('}');
                if has_duplicate || !merges.is_empty() {
                    let own = self.out.get(start..).unwrap_or_default();
                    let merged = merge(own, &merges).map_err(|message| error(span, message))?;
                    self.out.truncate(start);
                    self.out.push_str(&merged);
                }
            }
        }
        self.store_value(anchor, start, span)?;
        self.complete_value(span)
    }

    fn write_alias(&mut self, id: usize, span: &Span) -> Result<(), YamlError> {
        let text = self
            .anchors
            .get(&id)
            .ok_or_else(|| error(span, "an alias refers to the node that contains it".to_owned()))?
            .clone();
        self.alias_bytes += text.len();
        if self.alias_bytes > MAX_ALIAS_BYTES {
            return Err(error(span, "aliases expand to more than 8 MiB".to_owned()));
        }
        if self.expects_key() {
            let Ok(name) = serde_json::from_str::<String>(&text) else {
                return Err(error(span, "a mapping key must be a plain value".to_owned()));
            };
            self.write_key(name, span);
            return Ok(());
        }
        self.start_value(span)?;
        self.out.push_str(&text);
        self.complete_value(span)
    }

    /// Completes a value: the enclosing mapping expects a key again.
    fn complete_value(&mut self, span: &Span) -> Result<(), YamlError> {
        let Some(OpenCollection { shape: CollectionKind::Mapping { key, merges, .. }, .. }) = self.frames.last_mut()
        else {
            return Ok(());
        };
        if let Some(Key::Merge(offset)) = key.take() {
            let text = self.out.split_off(offset);
            match text.as_bytes().first() {
                Some(b'{') => merges.push(text),
                Some(b'[') => {
                    let list: Vec<&RawValue> = serde_json::from_str(&text).unwrap_or_default();
                    if list.iter().any(|item| !item.get().starts_with('{')) {
                        return Err(error(span, "<< needs a mapping, or a list of mappings".to_owned()));
                    }
                    merges.extend(list.iter().map(|item| item.get().to_owned()));
                }
                _ => return Err(error(span, "<< needs a mapping, or a list of mappings".to_owned())),
            }
        }
        Ok(())
    }
}

fn error(span: &Span, message: String) -> YamlError {
    YamlError { position: LineColumn::of(span), message }
}

/// Applies merge keys (`<<`) and "last key wins" to a mapping that is already JSON.
fn merge(text: &str, merges: &[String]) -> Result<String, String> {
    let merge_error = |error: serde_json::Error| format!("cannot merge the mapping: {error}");
    let mut own: RawEntries<'_> = serde_json::from_str(text).map_err(merge_error)?;
    own.keep_last();
    let mut keys: HashSet<String> = own.0.iter().map(|(key, _)| key.clone().into_owned()).collect();
    for source in merges {
        let source: RawEntries<'_> = serde_json::from_str(source).map_err(merge_error)?;
        for (key, value) in source.0 {
            if keys.insert(key.clone().into_owned()) {
                own.0.push((Cow::Owned(key.into_owned()), Cow::Owned(value.into_owned())));
            }
        }
    }
    Ok(own.to_raw().get().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(yaml: &str, json: &str) {
        let converted = to_json(yaml).map(|c| c.json.map(|j| j.get().to_owned()).unwrap_or_default());
        assert_eq!(converted.as_deref(), Ok(json), "{yaml}");
    }

    #[test]
    fn resolves_scalars_like_kubectl() {
        for (yaml, json) in [
            ("a: yes", r#"{"a":true}"#),
            ("a: On", r#"{"a":true}"#),
            ("a: n", r#"{"a":false}"#),
            ("a: 'yes'", r#"{"a":"yes"}"#),
            ("a: 0777", r#"{"a":511}"#),
            ("a: 0o17", r#"{"a":15}"#),
            ("a: 08", r#"{"a":8}"#),
            ("a: -012", r#"{"a":-10}"#),
            ("a: 0b11", r#"{"a":3}"#),
            ("a: 0x1F", r#"{"a":31}"#),
            ("a: 1_000", r#"{"a":1000}"#),
            ("a: 1e3", r#"{"a":1000}"#),
            ("a: 1.50", r#"{"a":1.5}"#),
            ("a: .5", r#"{"a":0.5}"#),
            ("a: 1.2.3", r#"{"a":"1.2.3"}"#),
            ("a: 2s", r#"{"a":"2s"}"#),
            ("a: 18446744073709551615", r#"{"a":18446744073709551615}"#),
            ("a: 2001-01-01", r#"{"a":"2001-01-01"}"#),
            ("a: ~", r#"{"a":null}"#),
            ("a:", r#"{"a":null}"#),
            ("a: !!str 12", r#"{"a":"12"}"#),
            ("a: !!int '12'", r#"{"a":12}"#),
            ("a: \"x\\ty\"", r#"{"a":"x\ty"}"#),
            ("y: 1", r#"{"true":1}"#),
            ("8080: x", r#"{"8080":"x"}"#),
            ("a: |\n  b\n  c\n", r#"{"a":"b\nc\n"}"#),
        ] {
            check(yaml, json);
        }
    }

    #[test]
    fn expands_merge_keys_and_aliases() {
        check("x: &x {a: 1, b: 2}\nw:\n  <<: *x\n  b: 3\n", r#"{"x":{"a":1,"b":2},"w":{"b":3,"a":1}}"#);
        check("x: &x {a: 1}\nz: &z {b: 2}\nw:\n  <<: [*x, *z]\n", r#"{"x":{"a":1},"z":{"b":2},"w":{"a":1,"b":2}}"#);
        check("- &a 1\n- *a\n", "[1,1]");
    }

    #[test]
    fn merges_many_keys_in_the_order_of_their_sources() {
        let keys: String = (0..40_000).map(|number| format!("  k{number}: 1\n")).collect();
        let json = to_json(&format!("base: &base\n{keys}own:\n  k7: 2\n  <<: *base\n")).unwrap().json.unwrap();
        assert!(json.get().contains(r#""own":{"k7":2,"k0":1,"k1":1,"#));
    }

    #[test]
    fn last_duplicate_key_wins_and_is_reported() {
        let converted = to_json("spec:\n  http:\n  - {a: 1, b: 2, a: 3}\n").unwrap();
        assert_eq!(converted.json.unwrap().get(), r#"{"spec":{"http":[{"b":2,"a":3}]}}"#);
        assert_eq!(converted.duplicates.len(), 1);
        assert_eq!(converted.duplicates[0].path, "spec.http[0]");
        assert_eq!(converted.duplicates[0].position, LineColumn { line: 3, column: 18 });
    }

    #[test]
    fn rejects_hostile_documents_without_expanding_them() {
        let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (previous, next) in ('a'..='i').zip('b'..='j') {
            bomb.push_str(&format!("{next}: &{next} [{}]\n", vec![format!("*{previous}"); 8].join(", ")));
        }
        assert!(to_json(&bomb).unwrap_err().message.contains("aliases expand"));
        // Each anchor stores the ones inside of it again.
        let nested = format!(
            "a: {}{}{}\nb: *a0\n",
            (0..60).map(|n| format!("&a{n} [")).collect::<String>(),
            "x, ".repeat(1 << 18),
            "]".repeat(60)
        );
        assert!(to_json(&nested).unwrap_err().message.contains("anchors expand"));
        assert!(to_json("a: &a [*a]").is_err());
        assert!(to_json("? [a]\n: b").is_err());
        assert!(to_json("a: .inf").is_err());
        assert!(to_json("a: [").is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_text_converts_or_fails_without_a_panic(text in "\\PC{0,200}") {
            let _ = to_json(&text);
        }

        #[test]
        fn converts_json_to_itself(value in arbitrary_json()) {
            let text = serde_json::to_string(&value).unwrap();
            let converted = to_json(&text).unwrap().json.unwrap();
            let back: serde_json::Value = serde_json::from_str(converted.get()).unwrap();
            proptest::prop_assert_eq!(back, value);
        }
    }

    fn arbitrary_json() -> impl proptest::strategy::Strategy<Value = serde_json::Value> {
        use proptest::prelude::*;
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            "[ -~]{0,12}".prop_map(Into::into),
        ];
        leaf.prop_recursive(3, 24, 5, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::btree_map("[a-z.]{1,8}", inner, 0..5)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }
}
