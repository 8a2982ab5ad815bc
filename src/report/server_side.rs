//! The workloads of a Service, and the security policies on the server side.

use std::collections::{BTreeMap, BTreeSet};

use super::inspect::{AuthorizationReport, TlsReport, WorkloadReport};
use super::page::pods_report;
use crate::mesh::Mesh;
use crate::mesh::ids::ObjectRef;
use crate::mesh::service::{PodCount, Service};
use crate::schema::Kind;

pub(super) fn workload_reports(mesh: &Mesh<'_>, service: &Service) -> Vec<WorkloadReport> {
    type GroupKey = (String, Option<String>, String, Vec<String>);
    let mut groups: BTreeMap<GroupKey, PodCount> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        let exclusions = workload
            .exclusions
            .iter()
            .map(|exclusion| format!("{}: {}", exclusion.annotation, exclusion.value))
            .collect();
        let proxy = match workload.proxy.envoy().and_then(|envoy| envoy.is_ready) {
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
            pods: pods_report(count, true),
            proxy,
            exclusions,
        })
        .collect()
}

pub(super) fn tls_reports(mesh: &Mesh<'_>, service: &Service) -> Vec<TlsReport> {
    let mut reports: Vec<TlsReport> = Vec::new();
    for port in service.ports.iter().filter(|port| !port.evidence.is_empty()) {
        for workload in mesh.workloads_of(service) {
            if workload.proxy.is_meshed() == Some(false) {
                continue;
            }
            let Some(number) = port.target.number_in(workload) else { continue };
            let (mode, object) = mesh.security_policies.mtls_mode(workload, number, &mesh.root_namespace);
            let is_read = [service.namespace(), &mesh.root_namespace]
                .into_iter()
                .all(|namespace| mesh.coverage.covers(Kind::PeerAuthentication, namespace));
            let report = match object {
                Some(object) => TlsReport { port: number, mode: Some(mode), decided_by: object.to_string() },
                None if is_read => TlsReport { port: number, mode: Some(mode), decided_by: "default".to_owned() },
                None => TlsReport {
                    port: number,
                    mode: None,
                    decided_by: "PeerAuthentications could not be read".to_owned(),
                },
            };
            if !reports.contains(&report) {
                reports.push(report);
            }
        }
    }
    reports
}

pub(super) fn authorization_reports(mesh: &Mesh<'_>, service: &Service) -> Vec<AuthorizationReport> {
    let mut reports: BTreeMap<ObjectRef, AuthorizationReport> = BTreeMap::new();
    for workload in mesh.workloads_of(service) {
        for policy in mesh.security_policies.authorization_policies(workload, &mesh.root_namespace) {
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
