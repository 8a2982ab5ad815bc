//! JSON objects parsed one level deep, so that one field of a body can change without parsing the rest.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// The entries of a JSON object in their order, values unparsed.
#[derive(Debug, Default)]
pub(crate) struct RawEntries<'a>(pub(crate) Vec<(Cow<'a, str>, Cow<'a, RawValue>)>);

impl<'a> RawEntries<'a> {
    /// Parses `text`; `None` when it is not an object.
    pub(crate) fn parse(text: &'a RawValue) -> Option<Self> {
        serde_json::from_str(text.get()).ok()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&RawValue> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// Sets `key` at its current position, or as the first entry when it is new.
    pub(crate) fn set(&mut self, key: &'static str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, slot)) => *slot = Cow::Owned(value),
            None => self.0.insert(0, (Cow::Borrowed(key), Cow::Owned(value))),
        }
    }

    /// Removes `key`. Returns whether it existed.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|(name, _)| name != key);
        self.0.len() != before
    }

    /// Keeps only the last entry of each key, like kubectl.
    pub(crate) fn keep_last(&mut self) {
        let mut keys = std::collections::HashSet::new();
        let mut entries: Vec<_> = Vec::with_capacity(self.0.len());
        for (key, value) in std::mem::take(&mut self.0).into_iter().rev() {
            if keys.insert(key.clone()) {
                entries.push((key, value));
            }
        }
        entries.reverse();
        self.0 = entries;
    }

    /// Serializes the object.
    pub(crate) fn to_raw(&self) -> Box<RawValue> {
        // Entries that were parsed from JSON always serialize: keys are strings and values are valid JSON.
        serde_json::value::to_raw_value(self).unwrap_or_else(|_| RawValue::NULL.to_owned())
    }
}

impl Serialize for RawEntries<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key.as_ref(), value.as_ref())?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for RawEntries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor;
        impl<'de> Visitor<'de> for EntriesVisitor {
            type Value = RawEntries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(Key(key)) = map.next_key()? {
                    entries.push((key, Cow::Borrowed(map.next_value::<&'de RawValue>()?)));
                }
                Ok(RawEntries(entries))
            }
        }
        deserializer.deserialize_map(EntriesVisitor)
    }
}

/// A key, borrowed unless it contains escapes.
#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);
