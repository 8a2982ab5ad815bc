//! Who stands behind a Service, and what its side asks of callers.

use std::collections::{BTreeMap, BTreeSet};

use super::inspect::{AuthorizationReport, TlsReport, WorkloadReport};
use super::page::pods;
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::service::{PodCount, Service};
use crate::schema::Kind;

pub(super) fn workloads(mesh: &Mesh<'_>, service: &Service) -> Vec<WorkloadReport> {
    type Alike = (String, Option<String>, String, Vec<String>);
    let mut groups: BTreeMap<Alike, PodCount> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        let exclusions = workload.exclusions.iter().map(|one| format!("{}: {}", one.annotation, one.value)).collect();
        let proxy = match workload.proxy.envoy().and_then(|envoy| envoy.ready) {
            Some(false) => format!("{} (not ready)", workload.proxy),
            Some(true) | None => workload.proxy.to_string(),
        };
        let key = (workload.title(), workload.labels.get("version").map(str::to_owned), proxy, exclusions);
        groups.entry(key).or_default().add(workload, service.publishes_not_ready);
    }
    groups
        .into_iter()
        .map(|((name, version, proxy, exclusions), count)| WorkloadReport {
            name,
            version,
            pods: pods(count, true),
            proxy,
            exclusions,
        })
        .collect()
}

pub(super) fn tls(mesh: &Mesh<'_>, service: &Service) -> Vec<TlsReport> {
    let mut reports: Vec<TlsReport> = Vec::new();
    for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
        for workload in mesh.workloads_of(service) {
            if workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let Some(number) = port.target.number_in(workload) else { continue };
            let (mode, object) = mesh.security.mtls(workload, number, &mesh.root);
            let known = [service.namespace(), &mesh.root]
                .into_iter()
                .all(|namespace| mesh.coverage.knows(Kind::PeerAuthentication, namespace));
            let report = match object {
                Some(object) => TlsReport { port: number, mode: mode.to_string(), decided_by: object.to_string() },
                None if known => TlsReport { port: number, mode: mode.to_string(), decided_by: "default".to_owned() },
                None => TlsReport {
                    port: number,
                    mode: "unknown".to_owned(),
                    decided_by: "PeerAuthentication could not be read".to_owned(),
                },
            };
            if !reports.contains(&report) {
                reports.push(report);
            }
        }
    }
    reports
}

pub(super) fn authorization(mesh: &Mesh<'_>, service: &Service) -> Vec<AuthorizationReport> {
    let mut reports: BTreeMap<ObjectRef, AuthorizationReport> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        for policy in mesh.security.authorization(workload, &mesh.root) {
            let operations = policy.spec.rules.iter().flat_map(|rule| &rule.to).filter_map(|to| to.operation.as_ref());
            let paths = operations.flat_map(|operation| operation.paths.iter().chain(&operation.not_paths)).cloned();
            let paths: BTreeSet<String> = paths.collect();
            reports.entry(policy.object.clone()).or_insert_with(|| AuthorizationReport {
                object: (&policy.object).into(),
                action: policy.spec.action.clone().unwrap_or_else(|| "ALLOW".to_owned()),
                paths: paths.into_iter().collect(),
            });
        }
    }
    reports.into_values().collect()
}
