//! GM714: one endpoint gets nearly all calls.

use crate::dataplane::balance::{
    BalanceVerdict, consistent_hash_rule, is_tcp, readings_by_host, recent_or_total, verdict_cause,
};
use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM714",
    name: "calls-pinned",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::DestinationRule],
    istio_code: None,
    summary: "With --live: one endpoint of a Service gets nearly all calls",
    docs: "\
## What it looks for
With `--live`: the counters of the callers' Envoys show that one of several endpoints gets nearly all calls, compared
with the expected number for an even distribution and the configured weights. Counters of the time in which the proxies
were read take precedence over the totals since Envoy learned the endpoints. A Service with a consistent hash in a
DestinationRule is not reported, because there the distribution is intended.

## Why it matters for gRPC
A gRPC client keeps one connection and sends all calls through it. If the proxy treats the port as TCP, all of these
calls go to one pod. The other pods are idle, and scaling up does not help.

## Example
```yaml
kind: Service
spec: {ports: [{name: tcp-api, port: 50051}]}   # treated as TCP: rename it to grpc-api
```

## Fix
`kubectl grpcmesh balance SERVICE` measures the distribution and reports the cause.

## References
- Verified on a real mesh: `tests/lab/balance.rs`.
- Jain's index and the chi-squared test: `src/dataplane/balance.rs`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let Some(live) = &mesh.snapshot.live else { return };
    for (host, readings) in readings_by_host(live) {
        let Some(service) = mesh.find_host(&host).map(|id| mesh.service(id)) else { continue };
        if !service.has_grpc_evidence() || consistent_hash_rule(mesh, service).is_some() {
            continue;
        }
        let is_tcp = is_tcp(service, None);
        let (distribution, period) = recent_or_total(mesh, service, &readings);
        // With a handful of connections, "pinned" may be chance.
        if distribution.verdict(is_tcp) != BalanceVerdict::Pinned || distribution.effective_servers() >= 1.5 {
            continue;
        }
        let unit = if is_tcp { "connections" } else { "calls" };
        let busiest = distribution.endpoints.iter().max_by_key(|(_, counts)| counts.calls);
        let (address, most) = busiest.map(|(address, counts)| (address.as_str(), counts.calls)).unwrap_or_default();
        let cause = verdict_cause(mesh, service, None, &distribution);
        let finding = Finding::new(&RULE, &service.object, "spec.ports")
            .message(format!(
                "{address} gets {most} of {} {unit} to {}, which has {} endpoints",
                distribution.calls(),
                service.object,
                distribution.endpoints.len()
            ))
            .impact(
                "the other pods are idle, and scaling up does not help: latency rises as soon as that \
                 pod is saturated",
            )
            .evidence([format!("counters of {} callers, {}", distribution.callers, period.label())])
            .evidence((!cause.is_empty()).then_some(cause))
            .fix(format!("kubectl grpcmesh balance {}", mesh.short_host(&service.host)));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::counters::EndpointCounters;
    use crate::rules::testing::{LiveCase, assert_live_findings, live_mesh};

    fn endpoint_counters(address: &str, total: u64) -> EndpointCounters {
        let cluster = "outbound|50051||a.shop.svc.cluster.local".to_owned();
        let address = address.to_owned();
        EndpointCounters {
            cluster,
            address,
            requests: total,
            successes: total,
            is_healthy: true,
            ..EndpointCounters::default()
        }
    }

    #[test]
    fn ignores_a_single_additional_connection() {
        let tcp = live_mesh().replace("{name: grpc, port: 50051}]}", "{name: api, appProtocol: tcp, port: 50051}]}")
            + "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n\
               spec: {hosts: [a], http: [{match: [{uri: {prefix: /x.Y/}}], route: [{destination: {host: a}}]}]}\n";
        let connections = |added: u64| {
            move |pod: &str, proxy: &mut LiveCase| {
                let counters = |a: u64, b: u64| {
                    let readings = [endpoint_counters("10.0.0.1:50051", a), endpoint_counters("10.0.0.2:50051", b)];
                    Some(readings.map(|reading| EndpointCounters { successes: 0, ..reading }).to_vec())
                };
                if pod == "b-v1" {
                    proxy.counters = (counters(100, 100), counters(100 + added, 100));
                }
            }
        };
        assert_live_findings(&RULE, &tcp, connections(1), &[]);
        assert_live_findings(&RULE, &tcp, connections(40), &["warning Service shop/a spec.ports"]);
    }

    #[test]
    fn reports_one_endpoint_that_gets_nearly_all_calls() {
        let counts = |first: [u64; 2], last: [u64; 2]| {
            move |pod: &str, proxy: &mut LiveCase| {
                if pod == "b-v1" {
                    let readings = |[a, b]: [u64; 2]| {
                        vec![endpoint_counters("10.0.0.1:50051", a), endpoint_counters("10.0.0.2:50051", b)]
                    };
                    proxy.counters = (Some(readings(first)), Some(readings(last)));
                }
            }
        };
        let finding = ["warning Service shop/a spec.ports"];
        assert_live_findings(&RULE, &live_mesh(), counts([0, 0], [90, 1]), &finding);
        assert_live_findings(&RULE, &live_mesh(), counts([900, 2], [901, 2]), &finding);
        // A new pod has few calls in total, but its share of the recent ones.
        assert_live_findings(&RULE, &live_mesh(), counts([900, 0], [950, 50]), &[]);
        assert_live_findings(&RULE, &live_mesh(), counts([0, 0], [5, 0]), &[]);
        assert_live_findings(&RULE, &live_mesh(), counts([0, 0], [50, 50]), &[]);
        // Without a first reading only the totals can be used.
        let single_reading = |pod: &str, proxy: &mut LiveCase| {
            counts([0, 0], [900, 1])(pod, proxy);
            proxy.counters.0 = None;
        };
        assert_live_findings(&RULE, &live_mesh(), single_reading, &finding);
        // Endpoints in other localities are used only when the local ones fail.
        let other_locality = |pod: &str, proxy: &mut LiveCase| {
            counts([0, 0], [90, 0])(pod, proxy);
            for reading in
                proxy.counters.1.iter_mut().flatten().filter(|reading| reading.address.starts_with("10.0.0.2"))
            {
                reading.priority = 1;
            }
        };
        assert_live_findings(&RULE, &live_mesh(), other_locality, &[]);
    }
}
