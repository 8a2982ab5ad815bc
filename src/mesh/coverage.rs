//! What the source could not tell, so that nothing is concluded from an absence that is only a gap.

use std::collections::{BTreeMap, BTreeSet};

use super::ids::Namespace;
use crate::schema::Kind;
use crate::schema::kind::KINDS;
use crate::snapshot::{Gap, GapKind};

/// Kinds that could not be read, everywhere or in some namespaces.
#[derive(Debug, Default, Clone)]
pub struct Coverage {
    /// Kinds unread everywhere, but for these namespaces.
    everywhere: BTreeMap<Kind, BTreeSet<Namespace>>,
    namespaces: BTreeMap<Kind, BTreeSet<Namespace>>,
    /// For manifests: the namespaces that the files describe.
    described: Option<BTreeSet<Namespace>>,
}

impl Coverage {
    /// Reads the gaps of a snapshot. `described` are the namespaces with Services when the source is manifests.
    pub fn new(gaps: &[Gap], described: Option<BTreeSet<Namespace>>) -> Self {
        let mut coverage = Self { described, ..Self::default() };
        for gap in gaps.iter().filter(|gap| !matches!(gap.reason, GapKind::NotInstalled | GapKind::Malformed)) {
            let kinds = KINDS.iter().filter(|info| gap.kind.as_deref() == Some(info.name)).map(|info| info.kind);
            for kind in kinds {
                match gap.namespace.as_deref() {
                    None => {
                        let read = gap.read_in.iter().map(|namespace| Namespace::from(namespace.as_str()));
                        coverage.everywhere.entry(kind).or_default().extend(read);
                    }
                    Some(namespace) => {
                        coverage.namespaces.entry(kind).or_default().insert(namespace.into());
                    }
                }
            }
        }
        coverage
    }

    /// Whether the objects of `kind` in `namespace` are known.
    pub fn knows(&self, kind: Kind, namespace: &Namespace) -> bool {
        self.everywhere.get(&kind).is_none_or(|read| read.contains(namespace))
            && !self.namespaces.get(&kind).is_some_and(|namespaces| namespaces.contains(namespace))
    }

    /// Whether the absence of a Service in `namespace` means that there is none: it does not when the source is
    /// manifests that never mention that namespace.
    pub fn describes(&self, namespace: &Namespace) -> bool {
        self.knows(Kind::Service, namespace)
            && self.described.as_ref().is_none_or(|described| described.contains(namespace))
    }

    /// Whether the objects of `kind` are known in every namespace.
    pub fn knows_everywhere(&self, kind: Kind) -> bool {
        !self.everywhere.contains_key(&kind) && !self.namespaces.contains_key(&kind)
    }
}
