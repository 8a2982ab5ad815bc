//! GM224: a fault that calls on an ordinary path meet.

use crate::mesh::Mesh;
use crate::mesh::virtual_service::VirtualService;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::virtual_service::{Fault, HttpMatch, HttpRule};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM224",
    name: "fault-injection-active",
    severity: Severity::Warning,
    needs: &[Kind::VirtualService],
    istio_code: None,
    summary: "A fault is injected into calls on an ordinary path",
    docs: "\
## What it looks for
A route rule with `fault` for a host with gRPC, whose match does not need a header: an abort or a delay of more than 0 %
of the calls.

## Why it matters for gRPC
The caller's proxy answers the aborted share itself, with the flag FI, before it selects a backend; retries of the rule
do not help. A delay (flag DI) counts against the client's deadline. Faults are useful in tests, where a header selects
the calls; on an ordinary path they are usually left over.

## Example
```yaml
http:
- fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 30}}}
  route: [{destination: {host: checkout}}]
```

## Fix
Remove `fault`, or limit the rule to test calls:
```yaml
- match: [{headers: {x-test: {exact: chaos}}}]
```

## References
- Istio: `HTTPFaultInjection`. Envoy: HTTP fault filter, flags `FI` and `DI`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (_, object) in mesh.virtual_services.iter() {
        let carries_grpc = object.hosts.is_empty()
            || object
                .hosts
                .iter()
                .any(|host| mesh.find_host(host.as_str()).is_some_and(|id| mesh.service(id).has_grpc_evidence()))
            || routes_to_grpc(mesh, object);
        if !carries_grpc {
            continue;
        }
        for (index, rule) in object.spec.http.iter().enumerate() {
            if let Some(fault) = rule.fault.as_ref().filter(|_| is_ordinary(rule)) {
                report(object, index, fault, out);
            }
        }
    }
}

/// Whether a rule of the object has a destination with gRPC, as behind a gateway's host.
fn routes_to_grpc(mesh: &Mesh<'_>, object: &VirtualService) -> bool {
    let destinations = object.spec.http.iter().flat_map(|rule| &rule.route);
    let mut hosts = destinations.filter_map(|route| route.destination.as_ref()).map(|destination| {
        crate::mesh::host::to_fqdn(&destination.host, &object.object.namespace, &mesh.cluster_domain)
    });
    hosts.any(|host| mesh.find_host(host.as_str()).is_some_and(|id| mesh.service(id).has_grpc_evidence()))
}

/// Whether calls without a special header meet the rule.
fn is_ordinary(rule: &HttpRule) -> bool {
    let needs_header = |condition: &HttpMatch| condition.headers.iter().any(|headers| !headers.is_empty());
    rule.matches.is_empty() || rule.matches.iter().any(|condition| !needs_header(condition))
}

fn report(object: &VirtualService, index: usize, fault: &Fault, out: &mut Findings<'_>) {
    let abort = fault.abort.as_ref().map(|abort| {
        let status = match (&abort.grpc_status, abort.http_status) {
            (Some(status), _) => status.clone(),
            (None, Some(status)) => format!("HTTP {status}"),
            (None, None) => "an error".to_owned(),
        };
        (abort.share_percent(), status)
    });
    let delay =
        fault.delay.as_ref().map(|delay| (delay.share_percent(), delay.fixed_delay.clone().unwrap_or_default()));
    let abort = abort.filter(|(share, _)| *share > 0.0);
    let delay = delay.filter(|(share, _)| *share > 0.0);
    let aborted = abort.as_ref().map(|(share, status)| format!("aborts {share}% of the calls with {status}"));
    let delayed = delay.as_ref().map(|(share, time)| format!("delays {share}% of the calls by {time}"));
    let parts: Vec<String> = aborted.into_iter().chain(delayed).collect();
    if parts.is_empty() {
        return;
    }
    let impact = match &abort {
        Some((share, status)) => format!("clients see {status} for {share}% of the calls, flag FI"),
        None => "the delay counts against the deadline of the client, flag DI".to_owned(),
    };
    let finding = Finding::new(&RULE, &object.object, format!("spec.http[{index}].fault"))
        .message(format!("the rule {}", parts.join(" and ")))
        .impact(impact)
        .evidence(["no header is needed to meet the rule"])
        .fix(format!("remove spec.http[{index}].fault, or match a header of test calls"));
    out.add(&RULE, finding);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio, service};

    fn mesh(rule: &str) -> String {
        service("a", "{name: grpc, port: 50051}")
            + &istio(
                "VirtualService",
                "a",
                &format!("{{hosts: [a], http: [{{{rule}, route: [{{destination: {{host: a}}}}]}}]}}"),
            )
    }

    #[test]
    fn reports_faults_that_ordinary_calls_meet() {
        let expected = "warning VirtualService shop/a spec.http[0].fault";
        let abort = "fault: {abort: {grpcStatus: UNAVAILABLE, percentage: {value: 30}}}";
        assert_findings(&RULE, &mesh(abort), &[expected]);
        assert_findings(&RULE, &mesh("fault: {delay: {fixedDelay: 5s, percent: 10}}"), &[expected]);
        assert_findings(&RULE, &mesh(&format!("match: [{{uri: {{prefix: /a.B/}}}}], {abort}")), &[expected]);
        assert_undecided_on_gap(&RULE, &mesh(abort));
    }

    #[test]
    fn is_silent_on_test_calls_and_empty_shares() {
        let header = "match: [{headers: {x-test: {exact: 'true'}}}]";
        assert_findings(
            &RULE,
            &mesh(&format!("{header}, fault: {{abort: {{httpStatus: 503, percentage: {{value: 100}}}}}}")),
            &[],
        );
        assert_findings(&RULE, &mesh("fault: {abort: {httpStatus: 503, percentage: {value: 0}}}"), &[]);
        // Without a share, no call is affected.
        assert_findings(&RULE, &mesh("fault: {abort: {httpStatus: 503}, delay: {fixedDelay: 5s}}"), &[]);
    }
}
