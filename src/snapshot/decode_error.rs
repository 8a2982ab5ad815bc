//! Which field of an object does not fit the shape that was wanted.
//!
//! The decoder tells a place in the text; the field is found from it, on the rare way where something does not fit. A
//! decoder that notes its path as it goes would be a second one for every shape, and a tenth of the program.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::raw::RawEntries;

/// What does not fit, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecodeError {
    /// Path of the field, such as `spec.http[0].route`; empty for the whole.
    pub(crate) field: String,
    /// What stands there, and what was expected.
    pub(crate) why: String,
}

/// Reads a shape from JSON.
pub(crate) fn decode<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| {
        let told = error.to_string();
        let why = told.rsplit_once(" at line ").map_or(&*told, |(why, _)| why);
        let line = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum::<usize>();
        let field = if error.is_data() {
            path(text, line + error.column(), why.starts_with("missing field"))
        } else {
            String::new()
        };
        DecodeError { field, why: why.to_owned() }
    })
}

/// The path of what ends at a place of `text`, or holds it. What a whole object lacks is told at its end, as is what a
/// decoder finds about the last of its fields.
fn path(text: &str, mut at: usize, is_missing: bool) -> String {
    let (mut path, mut inner) = (String::new(), text);
    loop {
        let fields = children(inner);
        let is_end = at >= inner.trim_end().len();
        let Some((name, child)) = fields.iter().rev().find(|(_, child)| {
            let start = child.as_ptr().addr() - inner.as_ptr().addr();
            let space = inner[start + child.len()..].bytes().take_while(u8::is_ascii_whitespace).count();
            (start <= at && at <= start + child.len() + space) || (is_end && !is_missing)
        }) else {
            return path;
        };
        if !path.is_empty() && !name.starts_with('[') {
            path.push('.');
        }
        path.push_str(name);
        at = (at - (child.as_ptr().addr() - inner.as_ptr().addr())).min(child.len());
        inner = child;
    }
}

/// What an object or a list holds, by name or by `[place]`.
fn children(text: &str) -> Vec<(String, &str)> {
    if let Ok(RawEntries(entries)) = serde_json::from_str::<RawEntries<'_>>(text) {
        let borrowed = entries.into_iter().filter_map(|(name, value)| match value {
            std::borrow::Cow::Borrowed(value) => Some((name.into_owned(), value.get())),
            std::borrow::Cow::Owned(_) => None,
        });
        return borrowed.collect();
    }
    let items: Vec<&RawValue> = serde_json::from_str(text).unwrap_or_default();
    items.into_iter().enumerate().map(|(at, item)| (format!("[{at}]"), item.get())).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::schema::virtual_service::VirtualServiceSpec;

    fn misfit<'a, T: Deserialize<'a> + std::fmt::Debug>(text: &'a str) -> DecodeError {
        decode::<T>(text).unwrap_err()
    }

    #[test]
    fn what_does_not_fit_is_named() {
        #[derive(Debug, Deserialize)]
        #[serde(deny_unknown_fields)]
        #[expect(dead_code, reason = "only whether it can be read matters")]
        struct Shape {
            name: String,
            #[serde(default)]
            inner: Option<Box<Shape>>,
            #[serde(default)]
            list: Vec<u8>,
        }
        for (text, field, why) in [
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
            assert_eq!(misfit::<Shape>(text), DecodeError { field: field.to_owned(), why: why.to_owned() }, "{text}");
        }
    }

    /// Replaces what a pointer names.
    fn with(mut spec: Value, pointer: &str, wrong: &Value) -> Value {
        *spec.pointer_mut(pointer).unwrap() = wrong.clone();
        spec
    }

    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found)),
            Value::Array(items) => {
                items.iter().enumerate().for_each(|(key, value)| pointers(value, &format!("{at}/{key}"), found));
            }
            _ => {}
        }
    }

    proptest! {
        /// A decoder that notes its path as it goes is the judge.
        #[test]
        fn the_field_is_that_of_a_decoder_that_notes_its_path(at in any::<prop::sample::Index>(), wrong in prop_oneof![
            Just(json!(true)), Just(json!(-1.5)), Just(json!("word")), Just(json!(["x"])), Just(json!({"x": []})),
        ], is_wide in any::<bool>()) {
            let spec = json!({
                "hosts": ["a"], "gateways": ["mesh"],
                "http": [
                    {"name": "one", "match": [{"uri": {"prefix": "/"}, "headers": {"h": {"exact": "v"}}, "port": 80}]},
                    {"timeout": "1s", "retries": {"attempts": 2, "perTryTimeout": "1s", "retryOn": "x"},
                     "route": [{"destination": {"host": "a", "port": {"number": 1}}, "weight": 100}]},
                ],
            });
            let mut places = Vec::new();
            pointers(&spec, "", &mut places);
            let spec = with(spec, &places[at.index(places.len())], &wrong);
            let text = if is_wide { format!("{spec:#}") } else { spec.to_string() };
            let judge: Result<VirtualServiceSpec, _> =
                serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(&text));
            match (decode::<VirtualServiceSpec>(&text), judge) {
                (Ok(_), Ok(_)) => {}
                (Err(found), Err(wanted)) => {
                    let wanted = wanted.path().to_string();
                    prop_assert_eq!(found.field, if wanted == "." { "" } else { &wanted }, "{}", text);
                }
                (found, wanted) => prop_assert!(false, "{found:?} {wanted:?}"),
            }
        }
    }
}
