//! Identifiers of the mesh model: namespaces, hosts, labels, references to objects, and indexes into the mesh.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::schema::Kind;
use crate::snapshot::ObjectKey;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<Arc<str>> for $name {
            fn from(text: Arc<str>) -> Self {
                Self(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Name of a Kubernetes namespace; empty for cluster-scoped objects.
    Namespace
);
name_type!(
    /// A fully qualified host name in lower case, or a wildcard such as `*.example.com`.
    Host
);
name_type!(
    /// Name of a subset in a DestinationRule.
    SubsetName
);

/// Shares equal strings. Namespaces, names and labels repeat thousands of times in a mesh.
#[derive(Debug, Default)]
pub struct Interner(HashSet<Arc<str>>);

impl Interner {
    /// Returns the shared copy of `text`.
    pub fn intern(&mut self, text: &str) -> Arc<str> {
        if let Some(shared) = self.0.get(text) {
            return Arc::clone(shared);
        }
        let new: Arc<str> = text.into();
        self.0.insert(Arc::clone(&new));
        new
    }
}

/// Labels of an object, or a selector by equality, sorted by key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Labels(Vec<(Arc<str>, Arc<str>)>);

impl Labels {
    /// Interns the labels of an object.
    pub fn new(map: &crate::schema::meta::StringMap, names: &mut Interner) -> Self {
        Self(map.iter().map(|(key, value)| (names.intern(key), names.intern(value))).collect())
    }

    /// The value of a label.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.binary_search_by(|(label, _)| (**label).cmp(key)).ok().map(|index| &*self.0[index].1)
    }

    /// Whether these labels match `selector`. An empty selector matches every object.
    pub fn contains_all(&self, selector: &Self) -> bool {
        selector.0.iter().all(|(key, value)| self.get(key) == Some(value))
    }

    /// Key and value pairs, sorted by key.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// Whether the object has no labels.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

/// A reference to an object by kind, namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Kind; `kind.name()` is its `kind` field.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Namespace,
    /// `metadata.name`.
    pub name: Arc<str>,
}

impl ObjectRef {
    /// References the object of a snapshot key.
    pub fn new(key: &ObjectKey, names: &mut Interner) -> Self {
        Self { kind: key.kind, namespace: names.intern(&key.namespace).into(), name: names.intern(&key.name) }
    }

    /// Key of the object in [`crate::snapshot::Snapshot::objects`].
    pub fn key(&self) -> ObjectKey {
        ObjectKey { kind: self.kind, namespace: self.namespace.as_str().into(), name: (*self.name).into() }
    }

    /// Namespace and name: `shop/checkout`, or the name alone for cluster-scoped kinds.
    pub fn path(&self) -> String {
        if self.namespace.as_str().is_empty() {
            self.name.to_string()
        } else {
            format!("{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.path())
    }
}

macro_rules! index_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub(crate) u32);

        impl $name {
            pub(crate) fn new(index: usize) -> Self {
                // A snapshot with 2^32 objects does not fit into memory.
                Self(u32::try_from(index).unwrap_or(u32::MAX))
            }

            pub(crate) fn index(self) -> usize {
                self.0 as usize
            }
        }
    };
}

index_type!(
    /// Index of a [`super::service::Service`] in the mesh.
    ServiceId
);
index_type!(
    /// Index of a [`super::workload::Workload`] in the mesh.
    WorkloadId
);
index_type!(
    /// Index of a [`super::destination_rule::DestinationRule`] in the mesh.
    DestinationRuleId
);
index_type!(
    /// Index of a [`super::virtual_service::VirtualService`] in the mesh.
    VirtualServiceId
);
index_type!(
    /// Index of a [`super::gateway_api::RouteObject`] in the mesh.
    RouteObjectId
);
