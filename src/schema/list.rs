//! A list that deserializes `null` as empty, like the Kubernetes API.

use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize};

/// A list field of an object. Absent, `null` and `[]` mean the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NullableList<T>(pub Vec<T>);

impl<T> NullableList<T> {
    /// Reports whether the list is empty; a method of its own for `skip_serializing_if`.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T> Default for NullableList<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for NullableList<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<'a, T> IntoIterator for &'a NullableList<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for NullableList<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}
