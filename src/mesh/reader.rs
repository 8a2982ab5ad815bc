//! Decoding of snapshot objects, kind by kind, into the types of the mesh model.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::authorization::{AuthorizationPolicy, PolicyScope};
use super::backend_policy::{self, BackendTlsPolicy, BackendTrafficPolicy};
use super::destination_rule::DestinationRule;
use super::gateway::{ApiGateway, IstioGateway, ListenerSet, ReferenceGrant};
use super::gateway_api::{RouteObject, RouteParent};
use super::host::{self};
use super::ids::{Host, Interner, Labels, Namespace, ObjectRef, WorkloadId};
use super::security::{MtlsMode, PeerAuthentication, RequestAuthentication, SecurityPolicies};
use super::service::Visibility;
use super::version::IstioVersion;
use super::virtual_service::{GatewayName, VirtualService};
use super::waypoint;
use super::workload::Workload;
use super::{Extension, SidecarObject, UndecodedObject};
use crate::schema::core as shapes;
use crate::schema::destination_rule::{DestinationRuleSpec, MatchLabels};
use crate::schema::gateway::IstioGatewaySpec;
use crate::schema::kind::Kind;
use crate::schema::mesh_config::MeshConfig;
use crate::schema::meta::{ObjectMeta, Resource};
use crate::schema::security::{AuthorizationPolicySpec, PeerAuthenticationSpec, RequestAuthenticationSpec};
use crate::schema::sidecar::{SelectorSpec, SidecarSpec};
use crate::schema::virtual_service::VirtualServiceSpec;
use crate::schema::{gateway_api, meta::StringMap};
use crate::snapshot::{Object, Snapshot, decode_error, yaml};

/// The label that the API server sets on every namespace.
const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) struct ObjectReader<'s> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) names: Interner,
    /// Objects that failed to decode.
    pub(super) undecoded: Vec<UndecodedObject>,
}

/// Settings found in the Pods or the Deployment of istiod.
pub(super) struct IstiodInfo {
    pub(super) version: Option<IstioVersion>,
    pub(super) cluster_domain: Option<String>,
    /// Variables of its environment, by name.
    pub(super) environment: Vec<(String, String)>,
}

impl<'s> ObjectReader<'s> {
    /// Decodes all objects of a kind. Objects that fail to decode are added to `undecoded`.
    pub(super) fn decode<T: DeserializeOwned>(&mut self, kind: Kind) -> Vec<(ObjectRef, T)> {
        let objects: Vec<&'s Object> = self.snapshot.of_kind(kind).collect();
        let mut decoded = Vec::with_capacity(objects.len());
        for object in objects {
            let reference = ObjectRef::new(&object.key, &mut self.names);
            match decode_error::decode(object.body.get()) {
                Ok(value) => decoded.push((reference, value)),
                Err(error) => self.undecoded.push(UndecodedObject::new(reference, error)),
            }
        }
        decoded
    }

    pub(super) fn created(&mut self, meta: &ObjectMeta) -> Option<Arc<str>> {
        meta.creation_timestamp.as_deref().map(|time| self.names.intern(time))
    }

    /// The mesh configuration of a revision, and whether the source has one that can be parsed.
    pub(super) fn mesh_config(&mut self, istio_namespace: &str, revision: Option<&str>) -> (MeshConfig, bool) {
        let name = MeshConfig::config_map_name(revision);
        let maps: Vec<(ObjectRef, shapes::MeshConfigMap)> = self.decode(Kind::ConfigMap);
        let mut candidates: Vec<_> =
            maps.iter().filter(|(object, _)| object.namespace.as_str() == istio_namespace).collect();
        candidates.sort_by_key(|(object, _)| (*object.name != *name, object.clone()));
        let Some((object, map)) = candidates.first() else {
            return (MeshConfig::default(), false);
        };
        let text = map.data.mesh.as_deref().unwrap_or_default();
        let parsed = yaml::to_json(text).map_err(|error| error.message).and_then(|converted| match converted.json {
            None => Ok(MeshConfig::default()),
            Some(json) => serde_json::from_str(json.get()).map_err(|error| error.to_string()),
        });
        match parsed {
            Ok(config) => (config, true),
            Err(reason) => {
                let field = "data.mesh".to_owned();
                self.undecoded.push(UndecodedObject { object: object.clone(), field, reason });
                (MeshConfig::default(), false)
            }
        }
    }

    pub(super) fn namespace_labels(&mut self) -> BTreeMap<Namespace, StringMap> {
        let objects: Vec<(ObjectRef, shapes::NamespaceObject)> = self.decode(Kind::Namespace);
        objects
            .into_iter()
            .map(|(object, namespace)| {
                let mut labels = namespace.metadata.labels;
                // Manifests lack the label that the API server sets.
                labels.entry(NAMESPACE_NAME_LABEL.to_owned()).or_insert_with(|| object.name.to_string());
                (Arc::clone(&object.name).into(), labels)
            })
            .collect()
    }

    pub(super) fn istiod(&self, istio_namespace: &str) -> IstiodInfo {
        let pods = self.snapshot.of_kind(Kind::Pod).filter_map(|object| {
            let pod: shapes::Pod = (&*object.key.namespace == istio_namespace)
                .then(|| serde_json::from_str(object.body.get()).ok())
                .flatten()?;
            (pod.metadata.labels.get("app").map(String::as_str) == Some("istiod")).then_some(pod.spec)
        });
        let templates = self.snapshot.of_kind(Kind::Deployment).filter_map(|object| {
            let workload: shapes::WorkloadObject = (&*object.key.namespace == istio_namespace)
                .then(|| serde_json::from_str(object.body.get()).ok())
                .flatten()?;
            let template = workload.spec.template;
            (template.metadata.labels.get("app").map(String::as_str) == Some("istiod")).then_some(template.spec)
        });
        let mut istiod = IstiodInfo { version: None, cluster_domain: None, environment: Vec::new() };
        for spec in pods.chain(templates) {
            for container in spec.containers.iter().filter(|container| container.name == shapes::ISTIOD_CONTAINER) {
                let version = container.image.as_deref().and_then(IstioVersion::from_image);
                istiod.version = istiod.version.max(version);
                let variables = container.env.iter().filter_map(|variable| {
                    let is_kept = shapes::retains_variable(&container.name, &variable.name);
                    is_kept.then(|| Some((variable.name.clone(), variable.value.clone()?))).flatten()
                });
                istiod.environment.extend(variables);
                let mut arguments = container.args.iter();
                while let Some(argument) = arguments.next() {
                    let domain = match argument.strip_prefix("--domain") {
                        Some("") => arguments.next().cloned(),
                        Some(value) => value.strip_prefix('=').map(str::to_owned),
                        None => None,
                    };
                    istiod.cluster_domain = istiod.cluster_domain.take().or(domain.filter(|domain| !domain.is_empty()));
                }
            }
        }
        istiod
    }

    pub(super) fn destination_rules(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<DestinationRule> {
        let objects: Vec<(ObjectRef, Resource<DestinationRuleSpec>)> = self.decode(Kind::DestinationRule);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| DestinationRule {
                host: host::to_fqdn(&spec.host, &object.namespace, cluster_domain),
                created: self.created(&metadata),
                export_to: Visibility::new(
                    &spec.export_to,
                    &config.default_destination_rule_export_to,
                    &object.namespace,
                ),
                selector: spec
                    .workload_selector
                    .as_ref()
                    .map(|selector| Labels::new(&selector.match_labels, &mut self.names)),
                object,
                spec,
            })
            .collect()
    }

    pub(super) fn virtual_services(&mut self, config: &MeshConfig, cluster_domain: &str) -> Vec<VirtualService> {
        let objects: Vec<(ObjectRef, Resource<VirtualServiceSpec>)> = self.decode(Kind::VirtualService);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let hosts = spec.hosts.iter().map(|host| {
                    let host = host::to_fqdn(host, &object.namespace, cluster_domain);
                    Host::from(host.as_str().to_ascii_lowercase().as_str())
                });
                VirtualService {
                    hosts: hosts.collect(),
                    gateways: spec.gateways.iter().map(|name| GatewayName::parse(name, &object.namespace)).collect(),
                    created: self.created(&metadata),
                    export_to: Visibility::new(
                        &spec.export_to,
                        &config.default_virtual_service_export_to,
                        &object.namespace,
                    ),
                    object,
                    spec,
                }
            })
            .collect()
    }

    pub(super) fn route_objects(&mut self) -> Vec<RouteObject> {
        let mut routes: Vec<(ObjectRef, gateway_api::ApiRoute)> = self.decode(Kind::HttpRoute);
        routes.extend(self.decode(Kind::GrpcRoute));
        let mut routes: Vec<_> = routes
            .into_iter()
            .map(|(object, route)| RouteObject {
                created: self.created(&route.metadata),
                parents: route
                    .spec
                    .parent_refs
                    .iter()
                    .map(|parent| RouteParent::new(parent, &object.namespace))
                    .collect(),
                object,
                route,
            })
            .collect();
        routes.sort_by(|a, b| (&a.created, &a.object).cmp(&(&b.created, &b.object)));
        routes
    }

    pub(super) fn istio_gateways(&mut self, workloads: &[Workload]) -> Vec<IstioGateway> {
        let gateway_pods: Vec<(WorkloadId, &Workload)> = workloads
            .iter()
            .enumerate()
            .filter(|(_, workload)| matches!(workload.proxy, super::workload::ProxyKind::Gateway(_)))
            .map(|(position, workload)| (WorkloadId::new(position), workload))
            .collect();
        let objects: Vec<(ObjectRef, Resource<IstioGatewaySpec>)> = self.decode(Kind::IstioGateway);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let selector = Labels::new(&spec.selector, &mut self.names);
                let selected =
                    gateway_pods.iter().filter(|(_, pod)| pod.labels.contains_all(&selector)).map(|(id, _)| *id);
                IstioGateway { workloads: selected.collect(), created: self.created(&metadata), selector, object, spec }
            })
            .collect()
    }

    pub(super) fn api_gateways(&mut self) -> Vec<ApiGateway> {
        let objects: Vec<(ObjectRef, Resource<gateway_api::ApiGatewaySpec>)> = self.decode(Kind::Gateway);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| ApiGateway {
                created: self.created(&metadata),
                service_name: metadata.annotations.get("gateway.istio.io/name-override").cloned(),
                waypoint_for: metadata.labels.get(waypoint::TRAFFIC_TYPE_LABEL).cloned(),
                object,
                spec,
            })
            .collect()
    }

    pub(super) fn listener_sets(&mut self) -> Vec<ListenerSet> {
        let objects: Vec<(ObjectRef, Resource<gateway_api::ListenerSetSpec>)> = self.decode(Kind::ListenerSet);
        objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let gateway = match RouteParent::new(&spec.parent_ref, &object.namespace) {
                    RouteParent::Listeners { owner, .. } if owner.kind == Kind::Gateway => {
                        Some((owner.namespace, owner.name))
                    }
                    _ => None,
                };
                ListenerSet { created: self.created(&metadata), object, gateway, spec }
            })
            .collect()
    }

    /// BackendTLSPolicies and XBackendTrafficPolicies, without those that istiod leaves to other controllers.
    pub(super) fn backend_policies(&mut self) -> (Vec<BackendTlsPolicy>, Vec<BackendTrafficPolicy>) {
        let is_ignored = |metadata: &ObjectMeta| {
            let value = metadata.annotations.get(backend_policy::IGNORE_ANNOTATION);
            value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
        };
        let tls: Vec<(ObjectRef, Resource<gateway_api::BackendTlsPolicySpec>)> = self.decode(Kind::BackendTlsPolicy);
        let tls = tls.into_iter().filter(|(_, policy)| !is_ignored(&policy.metadata));
        let tls = tls.map(|(object, Resource { metadata, spec })| {
            let created = self.created(&metadata);
            BackendTlsPolicy { object, created, spec }
        });
        let tls = tls.collect();
        let traffic: Vec<(ObjectRef, Resource<gateway_api::BackendTrafficPolicySpec>)> =
            self.decode(Kind::XBackendTrafficPolicy);
        let traffic = traffic.into_iter().filter(|(_, policy)| !is_ignored(&policy.metadata));
        let traffic = traffic.map(|(object, Resource { metadata: _, spec })| BackendTrafficPolicy {
            object,
            targets: spec.target_refs.0,
        });
        (tls, traffic.collect())
    }

    pub(super) fn security(&mut self) -> SecurityPolicies {
        let peer: Vec<(ObjectRef, Resource<PeerAuthenticationSpec>)> = self.decode(Kind::PeerAuthentication);
        let peer = peer.into_iter().map(|(object, Resource { metadata, spec })| {
            let labels = |map: &StringMap, names: &mut Interner| (!map.is_empty()).then(|| Labels::new(map, names));
            let selector = spec.selector.as_ref().and_then(|s| labels(&s.match_labels, &mut self.names));
            let ports = spec
                .port_level_mtls
                .iter()
                .flatten()
                .filter_map(|(port, mtls)| Some((port.parse().ok()?, MtlsMode::parse(mtls.mode.as_deref()?)?)));
            PeerAuthentication {
                created: self.created(&metadata),
                mode: spec.mtls.as_ref().and_then(|mtls| MtlsMode::parse(mtls.mode.as_deref()?)),
                ports: ports.collect(),
                selector,
                object,
            }
        });
        let peer = peer.collect();
        let policies: Vec<(ObjectRef, Resource<AuthorizationPolicySpec>)> = self.decode(Kind::AuthorizationPolicy);
        let policies: Vec<_> = policies
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let selector = self.policy_selector(spec.selector.as_ref());
                let dry_run = metadata.annotations.get("istio.io/dry-run").map(String::as_str);
                AuthorizationPolicy::new(object, selector, dry_run, &spec)
            })
            .collect();
        let requests: Vec<(ObjectRef, Resource<RequestAuthenticationSpec>)> = self.decode(Kind::RequestAuthentication);
        let requests = requests.into_iter().filter(|(_, request)| !request.spec.jwt_rules.is_empty());
        let requests = requests.map(|(object, Resource { metadata: _, spec })| {
            let selector = self.policy_selector(spec.selector.as_ref());
            let scope = PolicyScope::new(selector, spec.target_ref.as_ref(), &spec.target_refs);
            RequestAuthentication { namespace: object.namespace, scope }
        });
        let requests = requests.collect();
        SecurityPolicies::new(peer, policies, requests)
    }

    /// The labels of a policy's selector; `None` for one that selects every pod.
    fn policy_selector(&mut self, selector: Option<&MatchLabels>) -> Option<Labels> {
        let selector = selector.filter(|selector| !selector.match_labels.is_empty())?;
        Some(Labels::new(&selector.match_labels, &mut self.names))
    }

    pub(super) fn extensions(&mut self) -> Vec<Extension> {
        let mut objects: Vec<(ObjectRef, Resource<SelectorSpec>)> = self.decode(Kind::EnvoyFilter);
        objects.extend(self.decode(Kind::WasmPlugin));
        objects.extend(self.decode(Kind::TrafficExtension));
        objects.into_iter().map(|(object, Resource { metadata: _, spec })| Extension { object, spec }).collect()
    }

    /// Sidecars in the order in which istiod tries them: those with a workload selector first, each group oldest first.
    pub(super) fn sidecars(&mut self) -> Vec<SidecarObject> {
        let objects: Vec<(ObjectRef, Resource<SidecarSpec>)> = self.decode(Kind::Sidecar);
        let mut sidecars: Vec<_> = objects
            .into_iter()
            .map(|(object, Resource { metadata, spec })| {
                let selector = spec.workload_selector.as_ref();
                let selector = selector.map(|selector| Labels::new(&selector.labels, &mut self.names));
                SidecarObject { created: self.created(&metadata), selector, object, spec }
            })
            .collect();
        sidecars.sort_by(|a, b| {
            let key = |sidecar: &SidecarObject| {
                let SidecarObject { object, created, selector, .. } = sidecar;
                (selector.is_none(), created.clone(), object.name.clone(), object.namespace.clone())
            };
            key(a).cmp(&key(b))
        });
        sidecars
    }

    pub(super) fn grants(&mut self) -> Vec<ReferenceGrant> {
        let objects: Vec<(ObjectRef, Resource<gateway_api::ReferenceGrantSpec>)> = self.decode(Kind::ReferenceGrant);
        objects.into_iter().map(|(object, Resource { metadata: _, spec })| ReferenceGrant { object, spec }).collect()
    }
}
