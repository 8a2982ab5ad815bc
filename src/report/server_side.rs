//! The workloads of a Service, and the security policies on the server side.

use std::collections::{BTreeMap, BTreeSet};

use super::inspect::{AccessReport, AuthorizationReport, TlsReport, WorkloadReport};
use super::page::pods_report;
use crate::mesh::Mesh;
use crate::mesh::authorization::{AccessRow, AuthorizationVerdict, CallerGroup, PolicyAction, PolicyAttribute};
use crate::mesh::ids::{ObjectRef, ServiceId};
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
            let conditions = policy.rules().flat_map(|(_, rule)| rule.conditions());
            let conditions = conditions.filter(|condition| condition.attribute == PolicyAttribute::Path);
            let paths = conditions.flat_map(|condition| condition.values.iter().chain(&condition.not_values)).cloned();
            let paths: BTreeSet<String> = paths.collect();
            reports.entry(policy.object.clone()).or_insert_with(|| AuthorizationReport {
                object: (&policy.object).into(),
                action: policy.action.map_or("unknown action", PolicyAction::as_str).to_owned(),
                is_dry_run: policy.is_dry_run,
                paths: paths.into_iter().collect(),
            });
        }
    }
    reports.into_values().collect()
}

/// Who may call which method, when a policy decides about some call.
pub(super) fn access_reports(mesh: &Mesh<'_>, id: ServiceId) -> Vec<AccessReport> {
    let service = mesh.service(id);
    let is_read = [service.namespace(), &mesh.root_namespace].into_iter().all(|namespace| {
        [Kind::AuthorizationPolicy, Kind::PeerAuthentication].iter().all(|kind| mesh.coverage.covers(*kind, namespace))
    });
    if !is_read {
        return Vec::new();
    }
    let rows = mesh.access_table(id).into_iter();
    rows.map(|AccessRow { port, method, mut callers }| {
        let mut titles = |verdict: AuthorizationVerdict| {
            let groups = callers.remove(&verdict).unwrap_or_default();
            groups.iter().map(CallerGroup::title).collect::<Vec<_>>()
        };
        AccessReport {
            port,
            method,
            allowed: titles(AuthorizationVerdict::Allowed),
            denied: titles(AuthorizationVerdict::Denied),
            undecided: titles(AuthorizationVerdict::Undecided),
        }
    })
    .collect()
}
