//! Coverage of the source: which kinds and namespaces it contains.
//!
//! A missing object proves something only if the source covers its kind and namespace. Otherwise it is a gap.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::Namespace;
use crate::schema::Kind;
use crate::schema::kind::KINDS;
use crate::snapshot::{Gap, GapKind};

#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Kinds that could not be listed cluster-wide, with the namespaces in which they were listed instead.
    unread_except: BTreeMap<Kind, BTreeSet<Namespace>>,
    /// Kinds that could not be listed in these namespaces.
    unread_in: BTreeMap<Kind, BTreeSet<Namespace>>,
    /// For manifests: the namespaces of their Services.
    described: Option<BTreeSet<Namespace>>,
}

impl Coverage {
    /// `described` holds the namespaces with Services if the source is manifests, and is `None` for other sources.
    pub fn new(gaps: &[Gap], described: Option<BTreeSet<Namespace>>) -> Self {
        let mut coverage = Self { described, ..Self::default() };
        for gap in gaps.iter().filter(|gap| !matches!(gap.reason, GapKind::NotInstalled | GapKind::Malformed)) {
            let kinds = KINDS.iter().filter(|info| gap.kind.as_deref() == Some(info.name)).map(|info| info.kind);
            for kind in kinds {
                match gap.namespace.as_deref() {
                    None => {
                        let read = gap.read_in.iter().map(|namespace| Namespace::from(namespace.as_str()));
                        coverage.unread_except.entry(kind).or_default().extend(read);
                    }
                    Some(namespace) => {
                        coverage.unread_in.entry(kind).or_default().insert(namespace.into());
                    }
                }
            }
        }
        coverage
    }

    /// Whether the source has all objects of `kind` in `namespace`.
    pub fn covers(&self, kind: Kind, namespace: &Namespace) -> bool {
        self.unread_except.get(&kind).is_none_or(|read| read.contains(namespace))
            && !self.unread_in.get(&kind).is_some_and(|namespaces| namespaces.contains(namespace))
    }

    /// Whether a Service of `namespace` that is missing from the source does not exist. Manifests prove this only for
    /// the namespaces of their own Services.
    pub fn covers_services_in(&self, namespace: &Namespace) -> bool {
        self.covers(Kind::Service, namespace)
            && self.described.as_ref().is_none_or(|described| described.contains(namespace))
    }

    /// Whether the source has all objects of `kind` in every namespace.
    pub fn covers_everywhere(&self, kind: Kind) -> bool {
        !self.unread_except.contains_key(&kind) && !self.unread_in.contains_key(&kind)
    }
}
