//! GM714: one endpoint takes nearly all calls.

use crate::dataplane::balance::{BalanceVerdict, cause, hashed_by, is_tcp, lately_or_ever, readings_by_host};
use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM714",
    name: "calls-pinned",
    severity: Severity::Warning,
    needs: &[Kind::Service, Kind::DestinationRule],
    istio_code: None,
    summary: "Live: one of a Service's endpoints takes nearly all calls",
    docs: "\
## What it looks for
With `--live`: counters of the callers' Envoys by which one endpoint of several gets nearly all calls, measured against
what an even spread, and weights, would give each. What was counted while the proxies were asked goes before what was
counted since they know the endpoints. Hashing that a DestinationRule asks for is as meant and not told.

## Why it matters for gRPC
gRPC keeps one connection and sends all calls through it. Where the proxy sees only bytes, all of them go to one pod: the
others idle, and one more pod does not help.

## Example
```yaml
kind: Service
spec: {ports: [{name: tcp-api, port: 50051}]}   # bytes only: name it grpc-api
```

## Repair
`kubectl grpcmesh balance SERVICE` measures it and says why.

## References
- Seen on a real mesh: `tests/lab/balance.rs`.
- Jain's index, chi-squared: `src/compare/balance.rs`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    let Some(live) = &mesh.snapshot.live else { return };
    for (host, counted) in readings_by_host(live) {
        let Some(service) = mesh.find_host(&host).map(|id| mesh.service(id)) else { continue };
        if !service.has_grpc() || hashed_by(mesh, service).is_some() {
            continue;
        }
        let tcp = is_tcp(service, None);
        let (spread, when) = lately_or_ever(mesh, service, &counted);
        // A few connections are no proof of anything.
        if spread.evenness(tcp) != BalanceVerdict::Pinned || spread.effective_servers() >= 1.5 {
            continue;
        }
        let what = if tcp { "connections" } else { "calls" };
        let busiest = spread.endpoints.iter().max_by_key(|(_, got)| got.calls);
        let (address, most) = busiest.map(|(address, got)| (address.as_str(), got.calls)).unwrap_or_default();
        let why = cause(mesh, service, None, &spread);
        let finding = Finding::new(&RULE, &service.object, "spec.ports")
            .message(format!(
                "{address} gets {most} of {} {what}; the Service has {} endpoints",
                spread.calls(),
                spread.endpoints.len()
            ))
            .impact("the other pods idle, and one more pod does not help")
            .evidence([format!("counted {when}, by {} callers", spread.callers)])
            .evidence((!why.is_empty()).then_some(why))
            .fix(format!("kubectl grpcmesh balance {}", mesh.short_host(&service.host)));
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::counters::EndpointCounters;
    use crate::rules::testing::{LiveCase, check_live, live_mesh};

    fn counted(address: &str, total: u64) -> EndpointCounters {
        let cluster = "outbound|50051||a.shop.svc.cluster.local".to_owned();
        let address = address.to_owned();
        EndpointCounters { cluster, address, total, success: total, healthy: true, ..EndpointCounters::default() }
    }

    #[test]
    fn a_connection_more_is_no_proof() {
        let tcp = live_mesh().replace("{name: grpc, port: 50051}]}", "{name: api, appProtocol: tcp, port: 50051}]}")
            + "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\n\
               spec: {hosts: [a], http: [{match: [{uri: {prefix: /x.Y/}}], route: [{destination: {host: a}}]}]}\n";
        let connections = |now: u64| {
            move |pod: &str, proxy: &mut LiveCase| {
                let of = |a: u64, b: u64| {
                    let all = [counted("10.0.0.1:50051", a), counted("10.0.0.2:50051", b)];
                    Some(all.map(|one| EndpointCounters { success: 0, ..one }).to_vec())
                };
                if pod == "b-v1" {
                    proxy.counted = (of(100, 100), of(100 + now, 100));
                }
            }
        };
        check_live(&RULE, &tcp, connections(1), &[]);
        check_live(&RULE, &tcp, connections(40), &["warning Service shop/a spec.ports"]);
    }

    #[test]
    fn one_endpoint_that_gets_all_is_told() {
        let counts = |first: [u64; 2], last: [u64; 2]| {
            move |pod: &str, proxy: &mut LiveCase| {
                if pod == "b-v1" {
                    let both = |[a, b]: [u64; 2]| vec![counted("10.0.0.1:50051", a), counted("10.0.0.2:50051", b)];
                    proxy.counted = (Some(both(first)), Some(both(last)));
                }
            }
        };
        let told = ["warning Service shop/a spec.ports"];
        check_live(&RULE, &live_mesh(), counts([0, 0], [90, 1]), &told);
        check_live(&RULE, &live_mesh(), counts([900, 2], [901, 2]), &told);
        // A pod that came lately has few calls in all, and its share of those that come now.
        check_live(&RULE, &live_mesh(), counts([900, 0], [950, 50]), &[]);
        check_live(&RULE, &live_mesh(), counts([0, 0], [5, 0]), &[]);
        check_live(&RULE, &live_mesh(), counts([0, 0], [50, 50]), &[]);
        // Without a first reading nothing is known of the time in between.
        let once = |pod: &str, proxy: &mut LiveCase| {
            counts([0, 0], [900, 1])(pod, proxy);
            proxy.counted.0 = None;
        };
        check_live(&RULE, &live_mesh(), once, &told);
        // Endpoints of other places wait for those here to fail.
        let elsewhere = |pod: &str, proxy: &mut LiveCase| {
            counts([0, 0], [90, 0])(pod, proxy);
            for one in proxy.counted.1.iter_mut().flatten().filter(|one| one.address.starts_with("10.0.0.2")) {
                one.priority = 1;
            }
        };
        check_live(&RULE, &live_mesh(), elsewhere, &[]);
    }
}
