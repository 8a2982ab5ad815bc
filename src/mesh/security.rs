//! TLS in force on the server side, and authorization that names gRPC methods.
//!
//! Source: `pilot/pkg/model/authentication.go` of istio/istio 1.31: workload before namespace before root namespace;
//! the oldest wins at one level; `UNSET` inherits; permissive when nobody says anything.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::ids::{Labels, Namespace, ObjectRef};
use super::workload::Workload;
use crate::schema::security::AuthorizationPolicySpec;

/// What a server's sidecar accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MtlsMode {
    /// Plain text only.
    Disable,
    /// Both.
    Permissive,
    /// Mesh TLS only.
    Strict,
}

impl MtlsMode {
    /// Reads a mode word; `UNSET` and unknown words are `None`.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "DISABLE" => Some(Self::Disable),
            "PERMISSIVE" => Some(Self::Permissive),
            "STRICT" => Some(Self::Strict),
            _ => None,
        }
    }
}

impl fmt::Display for MtlsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "plaintext only",
            Self::Permissive => "permissive: mTLS and plaintext",
            Self::Strict => "strict mTLS",
        })
    }
}

/// A PeerAuthentication.
#[derive(Debug)]
pub struct PeerAuthentication {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// Its pods; `None` means the whole namespace.
    pub selector: Option<Labels>,
    /// Mode of the whole pod.
    pub mode: Option<MtlsMode>,
    /// Modes by pod port; only with a selector.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// An AuthorizationPolicy.
#[derive(Debug)]
pub struct AuthorizationPolicy {
    /// The object.
    pub object: ObjectRef,
    /// Its pods; `None` means the whole namespace.
    pub selector: Option<Labels>,
    /// As written.
    pub spec: AuthorizationPolicySpec,
}

/// Security objects by namespace.
#[derive(Debug, Default)]
pub struct SecurityPolicies {
    peer: BTreeMap<Namespace, Vec<PeerAuthentication>>,
    authorization: BTreeMap<Namespace, Vec<AuthorizationPolicy>>,
}

impl SecurityPolicies {
    /// Indexes the objects.
    pub fn new(mut peer: Vec<PeerAuthentication>, authorization: Vec<AuthorizationPolicy>) -> Self {
        peer.sort_by(|a, b| (&a.created, &a.object).cmp(&(&b.created, &b.object)));
        let mut security = Self::default();
        for one in peer {
            security.peer.entry(one.object.namespace.clone()).or_default().push(one);
        }
        for one in authorization {
            security.authorization.entry(one.object.namespace.clone()).or_default().push(one);
        }
        security
    }

    /// What workloads of a namespace accept, where no object selects them: the namespace's own, then the root's.
    pub fn of_namespace(&self, namespace: &Namespace, root: &Namespace) -> Option<MtlsMode> {
        self.general(namespace, root).map(|(mode, _)| mode)
    }

    fn general(&self, namespace: &Namespace, root: &Namespace) -> Option<(MtlsMode, &ObjectRef)> {
        let general_of = |namespace: &Namespace| {
            let general = self.peer.get(namespace)?.iter().find(|one| one.selector.is_none())?;
            Some((general.mode?, &general.object))
        };
        general_of(namespace).or_else(|| general_of(root))
    }

    /// What a workload's proxy accepts on a pod port, and the object that says so.
    pub fn mtls(&self, workload: &Workload, port: u16, root: &Namespace) -> (MtlsMode, Option<&ObjectRef>) {
        let own = self.peer.get(workload.namespace()).map_or(&[][..], Vec::as_slice);
        let selected =
            own.iter().find(|one| one.selector.as_ref().is_some_and(|selector| workload.labels.contains_all(selector)));
        if let Some(one) = selected {
            if let Some(mode) = one.ports.get(&port) {
                return (*mode, Some(&one.object));
            }
            if let Some(mode) = one.mode {
                return (mode, Some(&one.object));
            }
        }
        if let Some((mode, object)) = self.general(workload.namespace(), root) {
            return (mode, Some(object));
        }
        (MtlsMode::Permissive, None)
    }

    /// The policies that select a workload, of its namespace and the root namespace.
    pub fn authorization<'a>(
        &'a self,
        workload: &'a Workload,
        root: &'a Namespace,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> + 'a {
        let own = workload.namespace();
        let root = (root != own).then_some(root);
        std::iter::once(own)
            .chain(root)
            .filter_map(|namespace| self.authorization.get(namespace))
            .flatten()
            .filter(|policy| policy.spec.target_refs.is_empty())
            .filter(|policy| policy.selector.as_ref().is_none_or(|selector| workload.labels.contains_all(selector)))
    }
}
