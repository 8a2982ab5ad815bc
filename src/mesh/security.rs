//! PeerAuthentications, RequestAuthentications and AuthorizationPolicies by namespace, and the effective mTLS mode of a
//! workload.
//!
//! Source: `pilot/pkg/model/authentication.go` of istio/istio 1.31: a policy for the workload takes
//! precedence over one for its namespace, and that over one in the root namespace. Within one level the oldest wins.
//! `UNSET` inherits, and the default is permissive.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::authorization::{AuthorizationPolicy, PolicyScope};
use super::ids::{Labels, Namespace, ObjectRef};
use super::workload::Workload;

/// Connections that the proxy of a server accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum MtlsMode {
    /// Plaintext only.
    Disable,
    /// mTLS and plaintext.
    Permissive,
    /// mTLS only.
    Strict,
}

impl MtlsMode {
    /// `None` for `UNSET` and unknown values.
    pub fn parse(mode: &str) -> Option<Self> {
        match mode {
            "DISABLE" => Some(Self::Disable),
            "PERMISSIVE" => Some(Self::Permissive),
            "STRICT" => Some(Self::Strict),
            _ => None,
        }
    }
}

impl MtlsMode {
    /// The value in the object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "DISABLE",
            Self::Permissive => "PERMISSIVE",
            Self::Strict => "STRICT",
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

#[derive(Debug)]
pub struct PeerAuthentication {
    pub object: ObjectRef,
    /// RFC 3339 creation time.
    pub created: Option<Arc<str>>,
    /// Pod labels. `None`: all pods of the namespace, or of the mesh in the root namespace.
    pub selector: Option<Labels>,
    /// Mode for all ports; `None` inherits.
    pub mode: Option<MtlsMode>,
    /// Modes by pod port. istiod ignores them without a selector.
    pub ports: BTreeMap<u16, MtlsMode>,
}

/// A RequestAuthentication with rules: proxies read the tokens of calls.
#[derive(Debug)]
pub struct RequestAuthentication {
    pub namespace: Namespace,
    pub scope: PolicyScope,
}

#[derive(Debug, Default)]
pub struct SecurityPolicies {
    peer: BTreeMap<Namespace, Vec<PeerAuthentication>>,
    authorization: BTreeMap<Namespace, Vec<AuthorizationPolicy>>,
    request: Vec<RequestAuthentication>,
}

impl SecurityPolicies {
    pub fn new(
        mut peer: Vec<PeerAuthentication>,
        authorization: Vec<AuthorizationPolicy>,
        request: Vec<RequestAuthentication>,
    ) -> Self {
        peer.sort_by(|a, b| (&a.created, &a.object).cmp(&(&b.created, &b.object)));
        let mut security = Self { request, ..Self::default() };
        for policy in peer {
            security.peer.entry(policy.object.namespace.clone()).or_default().push(policy);
        }
        for policy in authorization {
            security.authorization.entry(policy.object.namespace.clone()).or_default().push(policy);
        }
        security
    }

    /// Mode for workloads of a namespace that no selector matches: that of the namespace, else of the root namespace.
    /// `None`: no policy sets it.
    pub fn namespace_mtls_mode(&self, namespace: &Namespace, root_namespace: &Namespace) -> Option<MtlsMode> {
        self.namespace_wide(namespace, root_namespace).map(|(mode, _)| mode)
    }

    fn namespace_wide(&self, namespace: &Namespace, root_namespace: &Namespace) -> Option<(MtlsMode, &ObjectRef)> {
        let mode_in = |namespace: &Namespace| {
            let policy = self.peer.get(namespace)?.iter().find(|policy| policy.selector.is_none())?;
            Some((policy.mode?, &policy.object))
        };
        mode_in(namespace).or_else(|| mode_in(root_namespace))
    }

    /// Effective mode of a pod port of a workload, and the object that sets it.
    pub fn mtls_mode(
        &self,
        workload: &Workload,
        port: u16,
        root_namespace: &Namespace,
    ) -> (MtlsMode, Option<&ObjectRef>) {
        // istiod ignores policies of the root namespace that have a selector.
        let own = self.peer.get(workload.namespace()).filter(|_| workload.namespace() != root_namespace);
        let policies = own.map_or(&[][..], Vec::as_slice);
        let selects = |policy: &&PeerAuthentication| {
            policy.selector.as_ref().is_some_and(|selector| workload.labels.contains_all(selector))
        };
        if let Some(policy) = policies.iter().find(selects) {
            if let Some(mode) = policy.ports.get(&port) {
                return (*mode, Some(&policy.object));
            }
            if let Some(mode) = policy.mode {
                return (mode, Some(&policy.object));
            }
        }
        if let Some((mode, object)) = self.namespace_wide(workload.namespace(), root_namespace) {
            return (mode, Some(object));
        }
        (MtlsMode::Permissive, None)
    }

    /// AuthorizationPolicies of the workload's namespace and the root namespace that apply to the workload's proxy.
    pub fn authorization_policies<'a>(
        &'a self,
        workload: &'a Workload,
        root_namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a AuthorizationPolicy> + 'a {
        let own_namespace = workload.namespace();
        let root = (root_namespace != own_namespace).then_some(root_namespace);
        std::iter::once(own_namespace)
            .chain(root)
            .filter_map(|namespace| self.authorization.get(namespace))
            .flatten()
            .filter(|policy| policy.scope.applies_to(&policy.object.namespace, workload, root_namespace))
    }

    /// All AuthorizationPolicies of some namespaces.
    pub fn policies_in<'a>(&'a self, namespaces: &[&Namespace]) -> impl Iterator<Item = &'a AuthorizationPolicy> + 'a {
        let mut namespaces: Vec<&Namespace> = namespaces.to_vec();
        namespaces.dedup();
        let lists: Vec<_> = namespaces.into_iter().filter_map(|namespace| self.authorization.get(namespace)).collect();
        lists.into_iter().flatten()
    }

    /// All AuthorizationPolicies, by namespace.
    pub fn all_policies(&self) -> impl Iterator<Item = &AuthorizationPolicy> {
        self.authorization.values().flatten()
    }

    /// All PeerAuthentications, by namespace.
    pub fn peer_authentications(&self) -> impl Iterator<Item = &PeerAuthentication> {
        self.peer.values().flatten()
    }

    /// The PeerAuthentications that apply to a workload: its own, that of its namespace, and that of the mesh.
    pub fn peer_authentications_for<'a>(
        &'a self,
        workload: &'a Workload,
        root_namespace: &'a Namespace,
    ) -> impl Iterator<Item = &'a ObjectRef> + 'a {
        let selects =
            |policy: &&PeerAuthentication| policy.selector.as_ref().is_none_or(|own| workload.labels.contains_all(own));
        let own = self.peer.get(workload.namespace()).into_iter().flatten().filter(selects);
        let root = self.peer.get(root_namespace).into_iter().flatten().filter(|policy| policy.selector.is_none());
        own.chain(root).map(|policy| &policy.object)
    }

    /// Whether a RequestAuthentication with rules applies to the workload's proxy.
    pub fn has_request_authentication(&self, workload: &Workload, root_namespace: &Namespace) -> bool {
        self.request.iter().any(|request| request.scope.applies_to(&request.namespace, workload, root_namespace))
    }
}
