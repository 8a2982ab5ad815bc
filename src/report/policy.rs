//! Traffic policies of a Service: limits in numbers, with their effect on calls.

use super::inspect::PolicyReport;
use super::page::is_upgraded_to_http2;
use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::caller_classes::CallerClass;
use crate::mesh::destination_rule::EffectivePolicy;
use crate::mesh::protocol::Protocol;
use crate::mesh::service::{Resolution, Service, ServicePort};

/// Policies of the gRPC ports: one for the host, and one for each subset whose policy differs.
pub(super) fn policy_reports(mesh: &Mesh<'_>, service: &Service, class: &CallerClass) -> Vec<PolicyReport> {
    let mut reports = Vec::new();
    let ports = service.ports.iter().filter(|port| !port.evidence.is_empty() || port.protocol.is_http2());
    for port in ports {
        let of_host = policy_report(mesh, service, port, class, None);
        let mut subsets = Vec::new();
        for name in mesh.destination_rules.subset_names(&class.destination_rules) {
            let of_subset = policy_report(mesh, service, port, class, Some(name));
            if (PolicyReport { subset: None, ..of_subset.clone() }) != of_host && !subsets.contains(&of_subset) {
                subsets.push(of_subset);
            }
        }
        reports.push(of_host);
        reports.extend(subsets);
    }
    reports
}

fn policy_report(
    mesh: &Mesh<'_>,
    service: &Service,
    port: &ServicePort,
    class: &CallerClass,
    subset: Option<&str>,
) -> PolicyReport {
    let name = subset.map(Into::into);
    let policy = mesh.destination_rules.policy(&class.destination_rules, port.number, name.as_ref());
    PolicyReport {
        port: port.number,
        subset: subset.map(str::to_owned),
        connection_pool: connection_pool(mesh, port.protocol, &policy),
        load_balancing: load_balancing(service, &policy),
        outlier_detection: outlier_detection(service, &policy),
        tls: match &policy.tls {
            Some(tls) => format!("{} ({})", tls.value.mode.as_deref().unwrap_or("DISABLE"), tls.object),
            None if mesh.config.enable_auto_mtls == Some(false) => "plaintext (auto mTLS is off)".to_owned(),
            None => "auto: mTLS where the server's pod has a proxy".to_owned(),
        },
    }
}

/// The limits of a connection pool with their effect on calls, one sentence each.
pub(super) fn connection_pool(mesh: &Mesh<'_>, protocol: Protocol, policy: &EffectivePolicy<'_>) -> Vec<String> {
    let Some(pool) = &policy.connection_pool else {
        return vec!["no limits (Istio's defaults)".to_owned()];
    };
    let positive = |limit: Option<i64>| limit.filter(|limit| *limit > 0);
    let tcp = pool.value.tcp.as_ref();
    let http = pool.value.http.as_ref();
    let connections = positive(tcp.and_then(|tcp| tcp.max_connections));
    let is_explicit_http2 = !policy.uses_client_protocol()
        && (protocol.is_http2()
            || (is_upgraded_to_http2(mesh, protocol, policy)
                && mesh.has_behavior(IstiodBehavior::UpgradedStreamLimits)));
    let streams = positive(http.and_then(|http| http.max_concurrent_streams)).filter(|_| is_explicit_http2);
    let mut lines = Vec::new();
    if let (Some(connections), Some(streams)) = (connections, streams) {
        lines.push(format!(
            "{connections} connections × {streams} streams = {} calls in flight per caller; further calls wait, then fail with UNAVAILABLE (UO)",
            connections.saturating_mul(streams)
        ));
    } else if let Some(connections) = connections {
        lines.push(format!("{connections} connections per caller; HTTP/2 uses only a few of them"));
    } else if let Some(streams) = streams {
        lines.push(format!("{streams} streams per connection; further calls open new connections"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.http2_max_requests)) {
        lines.push(format!("{limit} calls in flight per caller; further calls fail with UNAVAILABLE (UO)"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.http1_max_pending_requests)) {
        lines.push(format!(
            "{limit} calls waiting for a connection per caller; further calls fail with UNAVAILABLE (UO)"
        ));
    }
    if let Some(limit) = positive(http.and_then(|http| http.max_requests_per_connection)) {
        lines.push(format!("a new connection after {limit} calls"));
    }
    if let Some(limit) = positive(http.and_then(|http| http.max_retries)) {
        lines.push(format!("{limit} retries in flight per caller"));
    }
    let idle = http.and_then(|http| http.idle_timeout.as_deref()).or(tcp.and_then(|tcp| tcp.idle_timeout.as_deref()));
    if let Some(idle) = idle {
        lines.push(format!("idle connections are closed after {idle}"));
    }
    if let Some(limit) = tcp.and_then(|tcp| tcp.connect_timeout.as_deref()) {
        lines.push(format!("connect timeout {limit}"));
    }
    if let Some(age) = tcp.and_then(|tcp| tcp.max_connection_duration.as_deref()) {
        lines.push(format!("connections are closed after {age}"));
    }
    if lines.is_empty() {
        lines.push("no limits".to_owned());
    }
    lines.push(format!("from {}", pool.object));
    lines
}

fn load_balancing(service: &Service, policy: &EffectivePolicy<'_>) -> String {
    if service.resolution == Resolution::Headless {
        return "none: the pod that the client dialed (gateways: LEAST_REQUEST)".to_owned();
    }
    let Some(balancer) = &policy.load_balancer else { return "LEAST_REQUEST (default)".to_owned() };
    let value = balancer.value;
    let text = match (&value.consistent_hash, &value.simple) {
        (Some(hash), _) => {
            let by = if let Some(header) = &hash.http_header_name {
                format!("header {header}")
            } else if hash.http_cookie.is_some() {
                "a cookie".to_owned()
            } else if hash.use_source_ip == Some(true) {
                "the caller's address".to_owned()
            } else if let Some(parameter) = &hash.http_query_parameter_name {
                format!("query parameter {parameter}, which gRPC calls do not have")
            } else {
                "nothing".to_owned()
            };
            format!("consistent hash by {by}")
        }
        (None, Some(simple)) => simple.clone(),
        (None, None) => "LEAST_REQUEST".to_owned(),
    };
    format!("{text} ({})", balancer.object)
}

fn outlier_detection(service: &Service, policy: &EffectivePolicy<'_>) -> String {
    let Some(outlier) = &policy.outlier_detection else { return "off".to_owned() };
    let value = outlier.value;
    let errors = value.consecutive_5xx_errors.unwrap_or(5);
    let base = value.base_ejection_time.as_deref().unwrap_or("30s");
    let percent = value.max_ejection_percent.unwrap_or(10);
    let total = i64::from(service.endpoints.total);
    // Envoy ejects at least one host unless the percentage is 0.
    let max_ejected = if percent == 0 { 0 } else { (total * percent / 100).max(1).min(total.max(1)) };
    format!(
        "after {errors} consecutive errors, for {base}, at most {max_ejected} of {total} pods ({percent}%); gRPC statuses in trailers do not count ({})",
        outlier.object
    )
}
