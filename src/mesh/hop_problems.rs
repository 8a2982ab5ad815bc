//! Hops to the pods of a Service on which TLS of callers and servers does not fit.

use super::Mesh;
use super::hop::{HopFailure, HopResult, ServerSide, TLS_MODE_LABEL, WrittenTls};
use super::ids::{Namespace, ObjectRef, ServiceId, SubsetName};
use super::security::MtlsMode;
use super::service::{Service, ServicePort};
use super::workload::ProxyKind;
use super::written_route::WrittenAction;
use super::xds::{Caller, CompiledBackend};
use crate::schema::virtual_service::{Destination, PortSelector};

/// Connections of some callers to a port that fail because of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopProblem {
    /// Port of the Service.
    pub port: u16,
    /// The subset whose own settings cause the problem.
    pub subset: Option<SubsetName>,
    pub failure: HopFailure,
    /// The settings of the caller's side; `None`: auto mTLS decides.
    pub written: Option<WrittenTls>,
    /// The PeerAuthentication of the server's side.
    pub decided_by: Option<ObjectRef>,
    /// Why the caller's side uses plaintext, as the end of a sentence.
    pub plaintext_reason: String,
    /// Number of pods to which connections fail.
    pub failing: usize,
    /// Number of pods that get calls.
    pub all: usize,
    /// A pod to which connections fail.
    pub example: ObjectRef,
    /// Namespaces of the callers; empty for all that no other entry lists.
    pub callers: Vec<Namespace>,
}

impl Mesh<'_> {
    /// The problems on hops to the gRPC ports of a Service, for each class of callers with an Envoy.
    pub fn hop_problems(&self, id: ServiceId) -> Vec<HopProblem> {
        let service = self.service(id);
        let mut problems: Vec<HopProblem> = Vec::new();
        let ports: Vec<&ServicePort> = service.ports.iter().filter(|port| !port.evidence.is_empty()).collect();
        if ports.is_empty() || service.workloads.is_empty() || !self.may_have_hop_problems(service) {
            return problems;
        }
        for (caller, namespaces) in self.hop_callers(id) {
            for port in &ports {
                for subset in self.subsets_with_own_tls(&caller, service, port) {
                    for problem in self.problems_of(&caller, service, port, subset, &namespaces) {
                        let is_same = |known: &&mut HopProblem| {
                            let key = |problem: &HopProblem| {
                                (problem.port, problem.failure, problem.written.clone(), problem.subset.clone())
                            };
                            key(known) == key(&problem)
                        };
                        match problems.iter_mut().find(is_same) {
                            Some(known) if known.callers.is_empty() || problem.callers.is_empty() => {
                                known.callers.clear();
                            }
                            Some(known) => known.callers.extend(problem.callers),
                            None => problems.push(problem),
                        }
                    }
                }
            }
        }
        problems
    }

    /// Whether TLS of some caller may not fit: auto mTLS alone fits every pod unless an object or a label interferes.
    fn may_have_hop_problems(&self, service: &Service) -> bool {
        let security = &self.security_policies;
        let mode = security.namespace_mtls_mode(service.namespace(), &self.root_namespace);
        let has_own_policies = || {
            let mut policies = security.peer_authentications();
            policies.any(|policy| policy.object.namespace == *service.namespace() && policy.selector.is_some())
        };
        let sets_tls = || self.destination_rules.covering(service.host.as_str()).any(|(_, rule)| rule.spec.sets_tls());
        let disables_auto_mtls = self.config.enable_auto_mtls == Some(false);
        disables_auto_mtls
            || mode == Some(MtlsMode::Disable)
            || sets_tls()
            || has_own_policies()
            || self
                .workloads_of(service)
                .any(|workload| workload.labels.get(TLS_MODE_LABEL).is_some_and(|mode| mode != "istio"))
    }

    /// One caller for each class, and one gateway for each namespace if the Service is exposed.
    fn hop_callers(&self, id: ServiceId) -> Vec<(Caller, Vec<Namespace>)> {
        let classes = self.caller_classes(id);
        let has_default = self.has_default_callers(&classes);
        let sidecars = classes.iter().filter(|class| !class.is_default() || has_default);
        let mut callers: Vec<(Caller, Vec<Namespace>)> =
            sidecars.map(|class| (class.sample.clone(), class.namespaces.clone())).collect();
        if self.exposures(id).is_empty() {
            return callers;
        }
        let mut gateways: Vec<&Namespace> = Vec::new();
        for workload in self.workload_ids() {
            let pod = self.workload(workload);
            if matches!(pod.proxy, ProxyKind::Gateway(_)) && !gateways.contains(&pod.namespace()) {
                gateways.push(pod.namespace());
                callers.push((Caller::of_workload(self, workload), vec![pod.namespace().clone()]));
            }
        }
        callers
    }

    /// `None` for the Service as a whole, and the subsets whose TLS settings differ from it.
    fn subsets_with_own_tls(&self, caller: &Caller, service: &Service, port: &ServicePort) -> Vec<Option<SubsetName>> {
        let rules = self.applied_rules(caller, service);
        let names = self.destination_rules.subset_names(&rules).map(SubsetName::from);
        let has_own = |name: &SubsetName| {
            let policy = self.destination_rules.policy(&rules, port.number, Some(name));
            policy.tls.is_some_and(|tls| tls.field.starts_with("spec.subsets"))
        };
        std::iter::once(None).chain(names.filter(has_own).map(Some)).collect()
    }

    fn problems_of(
        &self,
        caller: &Caller,
        service: &Service,
        port: &ServicePort,
        subset: Option<SubsetName>,
        namespaces: &[Namespace],
    ) -> Vec<HopProblem> {
        let destination = Destination {
            host: service.host.to_string(),
            subset: subset.as_ref().map(ToString::to_string),
            port: Some(PortSelector { number: u32::from(port.number) }),
        };
        let backend = self.backend_for(caller, &service.host, &destination, u32::from(port.number));
        let servers = self.backend_servers(caller, &backend);
        let mut problems: Vec<HopProblem> = Vec::new();
        for (server, number) in &servers {
            let tls = self.caller_tls(caller, &backend, *server, *number);
            let side = self.server_side(*server, *number);
            let HopResult::Fails(failure) = side.accept(tls, port.protocol.is_http_or_auto()) else { continue };
            if let Some(known) = problems.iter_mut().find(|problem| problem.failure == failure) {
                known.failing += 1;
                continue;
            }
            let decided_by = match side {
                ServerSide::Proxy { decided_by, .. } => decided_by,
                ServerSide::Application { .. } | ServerSide::GrpcLibrary => None,
            };
            problems.push(HopProblem {
                port: port.number,
                subset: subset.clone(),
                failure,
                written: self.written_tls(caller, &backend),
                decided_by,
                plaintext_reason: self.plaintext_reason(caller, &backend),
                failing: 1,
                all: servers.len(),
                example: self.workload(*server).object.clone(),
                callers: namespaces.to_vec(),
            });
        }
        problems
    }

    /// Whether calls of a caller's proxy go directly to a Service: by Istio's default route, or a rule that names it.
    pub fn calls_directly(&self, caller: &Caller, id: ServiceId, port: u16) -> bool {
        let host = &self.service(id).host;
        match self.route_owner(caller, id, port) {
            super::xds::RouteOwner::Default => true,
            super::xds::RouteOwner::Hidden => false,
            owner @ super::xds::RouteOwner::Config(_) => {
                let rules = self.written_rules_of(owner);
                rules.iter().any(|rule| match &rule.action {
                    WrittenAction::Forward(backends) => backends.iter().any(|backend| backend.host == *host),
                    _ => false,
                })
            }
        }
    }
}

impl HopProblem {
    /// `2 of 3 pods`, or `all pods`.
    pub fn share_of_pods(&self) -> String {
        if self.failing == self.all { "all pods".to_owned() } else { format!("{} of {} pods", self.failing, self.all) }
    }
}

/// A backend for a port of a host, without a subset.
pub fn port_backend(mesh: &Mesh<'_>, caller: &Caller, service: &Service, port: u16) -> CompiledBackend {
    let destination = Destination {
        host: service.host.to_string(),
        subset: None,
        port: Some(PortSelector { number: u32::from(port) }),
    };
    mesh.backend_for(caller, &service.host, &destination, u32::from(port))
}
