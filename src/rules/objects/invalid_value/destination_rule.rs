//! What validation refuses in a DestinationRule.

use super::{check_duration, refuse};
use crate::mesh::destination_rule::DestinationRule;
use crate::mesh::ids::ObjectRef;
use crate::rules::Findings;
use crate::schema::destination_rule::{ConnectionPool, LoadBalancer, OutlierDetection, TrafficPolicy};
use crate::schema::limits::is_label;

pub(super) fn check(rule: &DestinationRule, out: &mut Findings<'_>) {
    let object = &rule.object;
    if rule.spec.host.is_empty() {
        refuse(object, "spec.host", "the host is missing", "host: …", out);
    }
    if let Some(policy) = &rule.spec.traffic_policy {
        self::policy(object, policy, "spec.trafficPolicy", out);
    }
    for (index, subset) in rule.spec.subsets.iter().enumerate() {
        let path = format!("spec.subsets[{index}]");
        if !is_label(&subset.name) {
            refuse(
                object,
                format!("{path}.name"),
                format!("subset \"{}\" is not a DNS label", subset.name),
                "letters, digits and dashes",
                out,
            );
        }
        if rule.spec.subsets[..index].iter().any(|other| other.name == subset.name) {
            refuse(
                object,
                format!("{path}.name"),
                format!("subset \"{}\" is defined twice", subset.name),
                "remove one",
                out,
            );
        }
        if let Some(policy) = &subset.traffic_policy {
            self::policy(object, policy, &format!("{path}.trafficPolicy"), out);
        }
    }
}

fn policy(object: &ObjectRef, policy: &TrafficPolicy, path: &str, out: &mut Findings<'_>) {
    blocks(
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
            refuse(
                object,
                format!("{path}.port"),
                "port-level settings need the number of a Service port",
                "port: {number: 50051}",
                out,
            );
        }
        blocks(
            object,
            port.connection_pool.as_ref(),
            port.load_balancer.as_ref(),
            port.outlier_detection.as_ref(),
            &path,
            out,
        );
    }
}

fn blocks(
    object: &ObjectRef,
    pool: Option<&ConnectionPool>,
    balancer: Option<&LoadBalancer>,
    outlier: Option<&OutlierDetection>,
    path: &str,
    out: &mut Findings<'_>,
) {
    if let Some(pool) = pool {
        connection_pool(object, pool, &format!("{path}.connectionPool"), out);
    }
    if let Some(balancer) = balancer {
        let path = format!("{path}.loadBalancer");
        let both = balancer.locality_lb_setting.is_some() && balancer.zone_aware_lb_setting.is_some();
        if both {
            refuse(
                object,
                format!("{path}.zoneAwareLbSetting"),
                "zoneAwareLbSetting and localityLbSetting exclude each other",
                "remove one",
                out,
            );
        }
        let distributes = balancer.locality_lb_setting.as_ref();
        if distributes.is_some_and(|locality| !locality.distribute.is_empty() && !locality.failover.is_empty()) {
            refuse(
                object,
                format!("{path}.localityLbSetting"),
                "distribute and failover exclude each other",
                "remove one",
                out,
            );
        }
        if balancer.simple.is_some() && balancer.consistent_hash.is_some() {
            refuse(
                object,
                format!("{path}.simple"),
                "a balancer is either simple or consistentHash",
                "remove one",
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
            refuse(
                object,
                format!("{path}.consecutiveLocalOriginFailures"),
                "consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors",
                "splitExternalLocalOriginErrors: true",
                out,
            );
        }
        for (name, percent) in
            [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
        {
            if percent.is_some_and(|percent| !(0..=100).contains(&percent)) {
                refuse(object, format!("{path}.{name}"), format!("{name} is between 0 and 100"), "0 to 100", out);
            }
        }
    }
}

fn connection_pool(object: &ObjectRef, pool: &ConnectionPool, path: &str, out: &mut Findings<'_>) {
    if pool.http.is_none() && pool.tcp.is_none() {
        refuse(object, path, "the connection pool is empty", "tcp: … or http: …, or remove it", out);
    }
    if let Some(tcp) = &pool.tcp {
        negative(object, &[("maxConnections", tcp.max_connections)], &format!("{path}.tcp"), out);
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
        negative(object, &numbers, &format!("{path}.http"), out);
        check_duration(object, format!("{path}.http.idleTimeout"), http.idle_timeout.as_deref(), out);
        if http.h2_upgrade_policy.as_deref() == Some("UPGRADE") && http.use_client_protocol == Some(true) {
            refuse(
                object,
                format!("{path}.http.useClientProtocol"),
                "useClientProtocol and h2UpgradePolicy: UPGRADE exclude each other",
                "remove one",
                out,
            );
        }
    }
}

fn negative(object: &ObjectRef, numbers: &[(&str, Option<i64>)], path: &str, out: &mut Findings<'_>) {
    for (name, number) in numbers {
        if number.is_some_and(|number| number < 0) {
            refuse(object, format!("{path}.{name}"), format!("{name} is below 0"), "0 means no limit", out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RULE;
    use crate::rules::testing::{check, istio};

    #[track_caller]
    fn refused(policy: &str, field: &str) {
        check(
            &RULE,
            &istio("DestinationRule", "d", &format!("{{host: a, trafficPolicy: {policy}}}")),
            &[&format!("error DestinationRule shop/d spec.trafficPolicy.{field}")],
        );
    }

    #[test]
    fn pools() {
        refused("{connectionPool: {}}", "connectionPool");
        refused("{connectionPool: {tcp: {maxConnections: -1}}}", "connectionPool.tcp.maxConnections");
        refused("{connectionPool: {tcp: {connectTimeout: 0s}}}", "connectionPool.tcp.connectTimeout");
        refused(
            "{connectionPool: {http: {h2UpgradePolicy: UPGRADE, useClientProtocol: true}}}",
            "connectionPool.http.useClientProtocol",
        );
        refused("{portLevelSettings: [{connectionPool: {tcp: {}}}]}", "portLevelSettings[0].port");
    }

    #[test]
    fn balancing_and_ejection() {
        refused(
            "{outlierDetection: {consecutiveLocalOriginFailures: 5}}",
            "outlierDetection.consecutiveLocalOriginFailures",
        );
        refused("{outlierDetection: {maxEjectionPercent: 101}}", "outlierDetection.maxEjectionPercent");
        refused(
            "{loadBalancer: {localityLbSetting: {enabled: true}, zoneAwareLbSetting: {}}}",
            "loadBalancer.zoneAwareLbSetting",
        );
    }

    #[test]
    fn subsets() {
        check(
            &RULE,
            &istio("DestinationRule", "d", "{host: a, subsets: [{name: v1}, {name: v1}, {name: V_2}]}"),
            &["error DestinationRule shop/d spec.subsets[1].name", "error DestinationRule shop/d spec.subsets[2].name"],
        );
    }

    #[test]
    fn ordinary_policies_are_silent() {
        let policy = "{connectionPool: {tcp: {maxConnections: 100, connectTimeout: 30ms}, http: {http2MaxRequests: 1000}}, outlierDetection: {consecutive5xxErrors: 7, interval: 5m}}";
        check(&RULE, &istio("DestinationRule", "d", &format!("{{host: a, trafficPolicy: {policy}}}")), &[]);
    }
}
