//! Decode errors with the path of the field.
//!
//! serde_json reports a position in the text. The path is derived from it, only when decoding fails. A decoder that tracks
//! its path would be compiled for every type, and would add a tenth to the size of the program.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::raw::RawEntries;

/// A field that cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecodeError {
    /// Such as `spec.http[0].route`; empty for the whole text.
    pub(crate) field: String,
    /// The value and the expected type.
    pub(crate) message: String,
}

/// Decodes a value from JSON.
pub(crate) fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| {
        let text_with_position = error.to_string();
        let message = text_with_position.rsplit_once(" at line ").map_or(&*text_with_position, |(message, _)| message);
        let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let field = if error.is_data() {
            path_at_offset(text, line + error.column(), message.starts_with("missing field"))
        } else {
            String::new()
        };
        DecodeError { field, message: message.to_owned() }
    })
}

/// Finds the path of the innermost value at byte `offset` of `text`. The decoder reports a missing field at the end of its
/// object, like an error in the last field.
fn path_at_offset(text: &str, mut offset: usize, is_missing: bool) -> String {
    let (mut path, mut inner) = (String::new(), text);
    loop {
        let fields = children(inner);
        let is_end = offset >= inner.trim_end().len();
        let Some((name, child)) = fields.iter().rev().find(|(_, child)| {
            let start = child.as_ptr().addr() - inner.as_ptr().addr();
            let space = inner
                .get(start + child.len()..)
                .unwrap_or_default()
                .bytes()
                .take_while(u8::is_ascii_whitespace)
                .count();
            (start <= offset && offset <= start + child.len() + space) || (is_end && !is_missing)
        }) else {
            return path;
        };
        if !path.is_empty() && !name.starts_with('[') {
            path.push('.');
        }
        path.push_str(name);
        offset = (offset - (child.as_ptr().addr() - inner.as_ptr().addr())).min(child.len());
        inner = child;
    }
}

/// Children of an object or a list, by name or by `[index]`.
fn children(text: &str) -> Vec<(String, &str)> {
    if let Ok(RawEntries(entries)) = serde_json::from_str::<RawEntries<'_>>(text) {
        let borrowed = entries.into_iter().filter_map(|(name, value)| match value {
            std::borrow::Cow::Borrowed(value) => Some((name.into_owned(), value.get())),
            std::borrow::Cow::Owned(_) => None,
        });
        return borrowed.collect();
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    items.into_iter().enumerate().map(|(index, item)| (format!("[{index}]"), item.get())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::virtual_service::VirtualServiceSpec;

    fn decode_error<'a, T: Deserialize<'a> + std::fmt::Debug>(text: &'a str) -> DecodeError {
        decode::<T>(text).unwrap_err()
    }

    #[test]
    fn names_the_field_that_cannot_be_decoded() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only decoding is tested")]
        struct Shape {
            name: String,
            #[serde(default)]
            inner: Option<Box<Shape>>,
            #[serde(default)]
            list: Vec<u8>,
        }
        for (text, field, message) in [
            (r#"{"name": 5}"#, "name", "invalid type: integer `5`, expected a string"),
            (
                r#"{"name": "a", "list": [1, 2, "x"], "inner": null}"#,
                "list[2]",
                "invalid type: string \"x\", expected u8",
            ),
            ("{\n  \"name\": \"a\",\n  \"list\": [1,\n 300 ]}", "list[1]", "invalid value: integer `300`, expected u8"),
            (r#"{"inner": {"list": []}, "name": "a"}"#, "inner", "missing field `name`"),
            (r#"{"inner": {"name": "a", "inner": {}}}"#, "inner.inner", "missing field `name`"),
            (r#"{"name": "a", "other": 5}"#, "", "unknown field `other`, expected one of `name`, `inner`, `list`"),
            (
                r#"{"name": "a", "inner": {"name": "b", "lits": []}}"#,
                "inner",
                "unknown field `lits`, expected one of `name`, `inner`, `list`",
            ),
            ("[1, 2]", "[0]", "invalid type: integer `1`, expected a string"),
            (r#"{"name": "#, "", "EOF while parsing a value"),
        ] {
            assert_eq!(
                decode_error::<Shape>(text),
                DecodeError { field: field.to_owned(), message: message.to_owned() },
                "{text}"
            );
        }
    }

    fn replace(mut spec: Value, pointer: &str, value: &Value) -> Value {
        *spec.pointer_mut(pointer).unwrap() = value.clone();
        spec
    }

    fn pointers(value: &Value, prefix: &str, pointers_out: &mut Vec<String>) {
        pointers_out.push(prefix.to_owned());
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    pointers(value, &format!("{prefix}/{key}"), pointers_out);
                }
            }
            Value::Array(items) => {
                items
                    .iter()
                    .enumerate()
                    .for_each(|(key, value)| pointers(value, &format!("{prefix}/{key}"), pointers_out));
            }
            _ => {}
        }
    }

    proptest! {
        /// Compares with a decoder that tracks its path.
        #[test]
        fn finds_the_same_field_as_a_decoder_that_tracks_its_path(index in any::<prop::sample::Index>(), value in prop_oneof![
            Just(json!(true)), Just(json!(-1.5)), Just(json!("word")), Just(json!(["x"])), Just(json!({"x": []})),
        ], is_indented in any::<bool>()) {
            let spec = json!({
                "hosts": ["a"], "gateways": ["mesh"],
                "http": [
                    {"name": "a", "match": [{"uri": {"prefix": "/"}, "headers": {"h": {"exact": "v"}}, "port": 80}]},
                    {"timeout": "1s", "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "x"},
                     "route": [{"destination": {"host": "a", "port": {"number": 1}}, "weight": 100}]},
                ],
            });
            let mut paths = Vec::new();
            pointers(&spec, "", &mut paths);
            let spec = replace(spec, &paths[index.index(paths.len())], &value);
            let text = if is_indented { format!("{spec:#}") } else { spec.to_string() };
            let expected: Result<VirtualServiceSpec, _> =
                serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text));
            match (decode::<VirtualServiceSpec>(&text), expected) {
                (Ok(_), Ok(_)) => {}
                (Err(actual), Err(expected)) => {
                    let path = expected.path().to_string();
                    prop_assert_eq!(actual.field, if path == "." { "" } else { &path }, "{}", text);
                }
                (actual, expected) => prop_assert!(false, "{actual:?} {expected:?}"),
            }
        }
    }
}
