//! The mesh as a shift sees it: read once for each preflight, and refreshed in between with the few objects that can
//! change a verdict.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::target::ShiftTarget;
use crate::cluster::ClusterError;
use crate::cluster::client::ApiServer;
use crate::cluster::collect::{CollectScope, collect};
use crate::mesh::ids::ObjectRef;
use crate::mesh::{self, Mesh, ResolveOptions};
use crate::schema::Kind;
use crate::shift::affected::CallerClassUsage;
use crate::snapshot::{Object, ObjectKey, Snapshot};

/// The kinds that decide where the calls of a rule go, who makes them, and whether they arrive.
pub(super) const SHIFT_KINDS: [Kind; 20] = [
    Kind::Namespace,
    Kind::Service,
    Kind::Pod,
    Kind::EndpointSlice,
    Kind::ConfigMap,
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::IstioGateway,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
    Kind::EnvoyFilter,
    Kind::PeerAuthentication,
    Kind::AuthorizationPolicy,
    Kind::Gateway,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::ReferenceGrant,
    Kind::ListenerSet,
    Kind::BackendTlsPolicy,
];

/// Backend checks between two reads of Services, which change less often than endpoints and DestinationRules.
const CHECKS_PER_SERVICE_READ: u32 = 3;
/// The label of an EndpointSlice with the name of its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// The mesh of a shift.
pub(super) struct MeshView {
    pub(super) snapshot: Snapshot,
    options: ResolveOptions,
    scope: CollectScope,
    pub(super) target: ShiftTarget,
    /// Whether the snapshot was read for the next check.
    is_fresh: bool,
    backend_checks: u32,
}

impl MeshView {
    /// A view of a snapshot that was just read.
    pub(super) fn new(snapshot: Snapshot, options: ResolveOptions, scope: CollectScope, target: ShiftTarget) -> Self {
        Self { snapshot, options, scope, target, is_fresh: true, backend_checks: 0 }
    }

    pub(super) fn mesh(&self) -> Mesh<'_> {
        mesh::resolve(&self.snapshot, &self.options)
    }

    /// istiod's namespace.
    pub(super) fn istio_namespace(&self) -> &str {
        &self.scope.istio_namespace
    }

    pub(super) fn object_ref(&self) -> ObjectRef {
        self.target.object_ref()
    }

    /// Reads the mesh, unless it was read for this check already.
    ///
    /// # Errors
    /// The API server cannot be reached.
    pub(super) async fn read_for_check(&mut self, server: &ApiServer) -> Result<(), ClusterError> {
        if !std::mem::take(&mut self.is_fresh) {
            self.snapshot = collect(server, &self.scope, &|_, _| ()).await?;
        }
        Ok(())
    }

    /// Replaces the target. Returns whether the object can be decoded.
    pub(super) fn set_object(&mut self, object: &Value) -> bool {
        let ShiftTarget { key, api_version } = &self.target;
        let Some(object) = serde_json::value::to_raw_value(object)
            .ok()
            .and_then(|body| Object::new(key.kind, api_version, &key.namespace, &key.name, &body).ok())
        else {
            return false;
        };
        self.snapshot.insert(object);
        true
    }

    /// Reads the objects that decide whether callers reach the backends of their rules: endpoints, DestinationRules and, less
    /// often, Services.
    ///
    /// # Errors
    /// A request fails. The view is then as before, or refreshed in part.
    pub(super) async fn refresh_backends(
        &mut self,
        server: &ApiServer,
        classes: &[CallerClassUsage],
    ) -> Result<(), ClusterError> {
        let objects = BackendObjects::new(&self.mesh(), classes);
        for (namespace, names) in &objects.sliced_services {
            self.refresh_slices(server, namespace, names).await?;
        }
        for (namespace, selector) in &objects.pod_selectors {
            self.refresh_pods(server, namespace, selector).await?;
        }
        self.backend_checks += 1;
        let reads_services = self.backend_checks.is_multiple_of(CHECKS_PER_SERVICE_READ);
        let is_due = |object: &&ObjectRef| object.kind != Kind::Service || reads_services;
        for object in objects.policies.iter().filter(is_due) {
            self.refresh_object(server, object).await?;
        }
        Ok(())
    }

    /// Reads the EndpointSlices of Services.
    async fn refresh_slices(
        &mut self,
        server: &ApiServer,
        namespace: &str,
        services: &BTreeSet<String>,
    ) -> Result<(), ClusterError> {
        let names = services.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        let selector = format!("{SERVICE_NAME_LABEL} in ({names})");
        let is_listed =
            |object: &Object| label(object, SERVICE_NAME_LABEL).is_some_and(|service| services.contains(&service));
        self.replace_listed(server, Kind::EndpointSlice, namespace, &selector, is_listed).await
    }

    /// Reads the pods that a Service selects.
    async fn refresh_pods(
        &mut self,
        server: &ApiServer,
        namespace: &str,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ClusterError> {
        let selector = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
        let is_listed = |object: &Object| labels.iter().all(|(key, value)| label(object, key).as_ref() == Some(value));
        self.replace_listed(server, Kind::Pod, namespace, &selector, is_listed).await
    }

    /// Replaces the objects that a list would have returned by those that it returns now.
    async fn replace_listed(
        &mut self,
        server: &ApiServer,
        kind: Kind,
        namespace: &str,
        selector: &str,
        is_listed: impl Fn(&Object) -> bool,
    ) -> Result<(), ClusterError> {
        let listed = server.list_selected(kind, &self.api_version(kind), namespace, selector).await?;
        let in_namespace = self.snapshot.of_kind(kind).filter(|object| &*object.key.namespace == namespace);
        let outdated: Vec<ObjectKey> =
            in_namespace.filter(|object| is_listed(object)).map(|object| object.key.clone()).collect();
        for key in outdated {
            self.snapshot.objects.remove(&key);
        }
        for object in listed {
            self.snapshot.insert(object);
        }
        Ok(())
    }

    async fn refresh_object(&mut self, server: &ApiServer, object: &ObjectRef) -> Result<(), ClusterError> {
        let (key, api_version) = (object.key(), self.api_version(object.kind));
        let Some(body) = server.get_object(&key, &api_version).await? else {
            self.snapshot.objects.remove(&key);
            return Ok(());
        };
        let body = serde_json::value::to_raw_value(&body).ok();
        let read = body.and_then(|body| Object::new(key.kind, &api_version, &key.namespace, &key.name, &body).ok());
        if let Some(read) = read {
            self.snapshot.insert(read);
        }
        Ok(())
    }

    /// The version in which the objects of a kind were read.
    fn api_version(&self, kind: Kind) -> String {
        let read = self.snapshot.of_kind(kind).next().map(|object| object.api_version.to_string());
        read.unwrap_or_else(|| {
            let info = kind.info();
            let version = info.versions.first().copied().unwrap_or("v1");
            if info.group.is_empty() { version.to_owned() } else { format!("{}/{version}", info.group) }
        })
    }
}

/// The objects that decide whether callers reach the backends of their rules.
#[derive(Default)]
struct BackendObjects {
    /// Services whose EndpointSlices are the endpoints, by namespace.
    sliced_services: BTreeMap<String, BTreeSet<String>>,
    /// Namespace and labels of the pods of subsets.
    pod_selectors: BTreeSet<(String, BTreeMap<String, String>)>,
    /// Services and DestinationRules.
    policies: BTreeSet<ObjectRef>,
}

impl BackendObjects {
    fn new(mesh: &Mesh<'_>, classes: &[CallerClassUsage]) -> Self {
        let mut objects = Self::default();
        let affected = classes.iter().filter(|class| class.uses_rule);
        for backend in affected.flat_map(|class| class.backends.values().flatten()) {
            let services = mesh.services.iter().filter(|service| backend.host.as_ref() == Some(&service.host));
            for service in services.filter(|service| service.is_kubernetes()) {
                let namespace = service.namespace().to_string();
                if backend.subset.is_some() && !service.selector.is_empty() {
                    let labels = service.selector.iter().map(|(key, value)| (key.to_string(), value.to_string()));
                    objects.pod_selectors.insert((namespace, labels.collect()));
                } else {
                    objects.sliced_services.entry(namespace).or_default().insert(service.object.name.to_string());
                }
                objects.policies.insert(service.object.clone());
            }
            objects.policies.extend(backend.destination_rule.clone());
        }
        objects
    }
}

/// The value of a label of an object.
fn label(object: &Object, key: &str) -> Option<String> {
    let body: Value = serde_json::from_str(object.body.get()).ok()?;
    Some(body.get("metadata")?.get("labels")?.get(key)?.as_str()?.to_owned())
}
