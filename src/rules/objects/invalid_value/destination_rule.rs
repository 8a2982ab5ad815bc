//! Values that Istio's validation rejects in a DestinationRule.

use super::{check_duration, reject};
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::ObjectRef;
use crate::rules::Findings;
use crate::schema::destination_rule::{ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy};
use crate::schema::limits::is_label;

pub(super) fn check(rule: &DestinationRule, out: &mut Findings<'_>) {
    let object = &rule.object;
    if rule.spec.host.is_empty() {
        reject(object, "spec.host", "the DestinationRule has no host", "host: checkout.shop.svc.cluster.local", out);
    }
    if let Some(policy) = &rule.spec.traffic_policy {
        check_policy(object, policy, "spec.trafficPolicy", out);
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if !is_label(&subset.name) {
            reject(
                object,
                format!("{path}.name"),
                format!("subset name \"{}\" is not a DNS label", subset.name),
                "use letters, digits and dashes",
                out,
            );
        }
        if rule.spec.subsets.iter().take(index).any(|other| other.name == subset.name) {
            reject(
                object,
                format!("{path}.name"),
                format!("subset \"{}\" is defined twice", subset.name),
                "remove or rename one of the two subsets",
                out,
            );
        }
        if let Some(policy) = &subset.traffic_policy {
            check_policy(object, policy, &format!("{path}.trafficPolicy"), out);
        }
    }
}

fn check_policy(object: &ObjectRef, policy: &TrafficPolicy, path: &str, out: &mut Findings<'_>) {
    check_policy_blocks(
        object,
        policy.connection_pool.as_ref(),
        policy.load_balancer.as_ref(),
        policy.outlier_detection.as_ref(),
        path,
        out,
    );
    for (index, port) in policy.port_level_settings.iter().enumerate() {
        let path = format!("{path}.portLevelSettings[{index}]");
        if port.port.as_ref().is_none_or(|port| port.number == 0 || port.number > 65535) {
            reject(
                object,
                format!("{path}.port"),
                "an entry of portLevelSettings has no valid port number",
                "port: {number: 50051}",
                out,
            );
        }
        check_policy_blocks(
            object,
            port.connection_pool.as_ref(),
            port.load_balancer.as_ref(),
            port.outlier_detection.as_ref(),
            &path,
            out,
        );
    }
}

fn check_policy_blocks(
    object: &ObjectRef,
    pool: Option<&ConnectionPool>,
    balancer: Option<&LoadBalancer>,
    outlier: Option<&OutlierDetection>,
    path: &str,
    out: &mut Findings<'_>,
) {
    if let Some(pool) = pool {
        check_connection_pool(object, pool, &format!("{path}.connectionPool"), out);
    }
    if let Some(balancer) = balancer {
        let path = format!("{path}.loadBalancer");
        if balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some() {
            reject(
                object,
                format!("{path}.zoneAwareLbSetting"),
                "zoneAwareLbSetting and localityLbSetting are mutually exclusive",
                "remove one of the two settings",
                out,
            );
        }
        let locality = balancer.locality_lb_setting.as_ref();
        if locality.is_some_and(|locality| !locality.distribute.is_empty() && !locality.failover.is_empty()) {
            reject(
                object,
                format!("{path}.localityLbSetting"),
                "distribute and failover are mutually exclusive",
                "remove one of the two settings",
                out,
            );
        }
        if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
            reject(
                object,
                format!("{path}.simple"),
                "simple and consistentHash are mutually exclusive",
                "remove one of the two settings",
                out,
            );
        }
    }
    if let Some(outlier) = outlier {
        let path = format!("{path}.outlierDetection");
        check_duration(object, format!("{path}.interval"), outlier.interval.as_deref(), out);
        check_duration(object, format!("{path}.baseEjectionTime"), outlier.base_ejection_time.as_deref(), out);
        if outlier.consecutive_local_origin_failures.is_some()
            && outlier.split_external_local_origin_errors != Some(true)
        {
            reject(
                object,
                format!("{path}.consecutiveLocalOriginFailures"),
                "consecutiveLocalOriginFailures requires splitExternalLocalOriginErrors",
                "splitExternalLocalOriginErrors: true",
                out,
            );
        }
        for (name, percent) in
            [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
        {
            if percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
                reject(
                    object,
                    format!("{path}.{name}"),
                    format!("{name} is not between 0 and 100"),
                    "use a value from 0 to 100",
                    out,
                );
            }
        }
    }
}

fn check_connection_pool(object: &ObjectRef, pool: &ConnectionPool, path: &str, out: &mut Findings<'_>) {
    if pool.http.is_none() && pool.tcp.is_none() {
        reject(object, path, "connectionPool is empty", "set tcp or http, or remove connectionPool", out);
    }
    if let Some(tcp) = &pool.tcp {
        check_not_negative(object, &[("maxConnections", tcp.max_connections)], &format!("{path}.tcp"), out);
        check_duration(object, format!("{path}.tcp.connectTimeout"), tcp.connect_timeout.as_deref(), out);
        check_duration(
            object,
            format!("{path}.tcp.maxConnectionDuration"),
            tcp.max_connection_duration.as_deref(),
            out,
        );
    }
    if let Some(http) = &pool.http {
        let numbers = [
            ("http1MaxPendingRequests", http.http1_max_pending_requests),
            ("http2MaxRequests", http.http2_max_requests),
            ("maxRequestsPerConnection", http.max_requests_per_connection),
            ("maxRetries", http.max_retries),
            ("maxConcurrentStreams", http.max_concurrent_streams),
        ];
        check_not_negative(object, &numbers, &format!("{path}.http"), out);
        check_duration(object, format!("{path}.http.idleTimeout"), http.idle_timeout.as_deref(), out);
        if http.h2_upgrade_policy.as_deref() == Some("UPGRADE") && http.use_client_protocol == Some(true) {
            reject(
                object,
                format!("{path}.http.useClientProtocol"),
                "useClientProtocol and h2UpgradePolicy: UPGRADE are mutually exclusive",
                "remove one of the two settings",
                out,
            );
        }
    }
}

fn check_not_negative(object: &ObjectRef, numbers: &[(&str, Option<i64>)], path: &str, out: &mut Findings<'_>) {
    for (name, number) in numbers {
        if number.is_some_and(|number| number < 0) {
            reject(object, format!("{path}.{name}"), format!("{name} is negative"), "use 0 for no limit", out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{assert_findings, istio};

    #[track_caller]
    fn assert_rejected_at(policy: &str, field: &str) {
        assert_findings(
            &RULE,
            &istio("DestinationRule", "d", &format!("{{host: a, trafficPolicy: {policy}}}")),
            &[&format!("error DestinationRule shop/d spec.trafficPolicy.{field}")],
        );
    }

    #[test]
    fn rejects_invalid_connection_pools() {
        assert_rejected_at("{connectionPool: {}}", "connectionPool");
        assert_rejected_at("{connectionPool: {tcp: {maxConnections: -1}}}", "connectionPool.tcp.maxConnections");
        assert_rejected_at("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectionPool.tcp.connectTimeout");
        assert_rejected_at(
            "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
            "connectionPool.http.useClientProtocol",
        );
        assert_rejected_at("{portLevelSettings: [{connectionPool: {tcp: {}}}]}", "portLevelSettings[0].port");
    }

    #[test]
    fn rejects_invalid_load_balancing_and_outlier_detection() {
        assert_rejected_at(
            "{outlierDetection: {consecutiveLocalOriginFailures: 5}}",
            "outlierDetection.consecutiveLocalOriginFailures",
        );
        assert_rejected_at("{outlierDetection: {maxEjectionPercent: 101}}", "outlierDetection.maxEjectionPercent");
        assert_rejected_at(
            "{loadBalancer: {localityLbSetting: {enabled: true}, zoneAwareLbSetting: {}}}",
            "loadBalancer.zoneAwareLbSetting",
        );
    }

    #[test]
    fn rejects_duplicate_and_malformed_subset_names() {
        assert_findings(
            &RULE,
            &istio("DestinationRule", "d", "{host: a, subsets: [{name: v1}, {name: v1}, {name: V_2}]}"),
            &["error DestinationRule shop/d spec.subsets[1].name", "error DestinationRule shop/d spec.subsets[2].name"],
        );
    }

    #[test]
    fn is_silent_on_valid_policies() {
        let policy = "{connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms}, http: {http2MaxRequests: 1000}}, outlierDetection: {consecutive5xxErrors: 7, interval: 5m}}";
        assert_findings(&RULE, &istio("DestinationRule", "d", &format!("{{host: a, trafficPolicy: {policy}}}")), &[]);
    }
}
