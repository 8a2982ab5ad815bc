//! GM407: port-level settings that drop the rest of the traffic policy.

use crate::mesh::Mesh;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::{LoadBalancer, PortPolicy, TrafficPolicy};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM407",
    name: "port-settings-replace-all",
    severity: Severity::Warning,
    needs: &[Kind::DestinationRule],
    istio_code: None,
    summary: "portLevelSettings that drop settings of the traffic policy they override",
    docs: "\
## What it looks for
An entry of `portLevelSettings` without a block (`connectionPool`, `loadBalancer`, `outlierDetection` or `tls`) that
the traffic policy around it sets.

## Why it matters for gRPC
Istio does not merge port-level settings with the traffic policy, it replaces the policy. On that port, each block that
is not repeated falls back to Istio's default: connection limits, outlier detection and even TLS are not applied.

## Example
```yaml
trafficPolicy:
  tls: {mode: SIMPLE}
  portLevelSettings:
  - port: {number: 50051}
    connectionPool: {http: {http2MaxRequests: 100}}     # disables TLS on 50051
```

## Fix
```yaml
  - port: {number: 50051}
    tls: {mode: SIMPLE}
    connectionPool: {http: {http2MaxRequests: 100}}
```

## References
- Istio: `networking/v1alpha3/destination_rule.proto` (`portLevelSettings`), `pilot/pkg/networking/util/util.go`
  (`MergeTrafficPolicy`).
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        let general = rule.spec.traffic_policy.as_ref().map(|policy| (policy, "spec.trafficPolicy".to_owned()));
        let subsets = rule.spec.subsets.iter().enumerate().filter_map(|(index, subset)| {
            Some((subset.traffic_policy.as_ref()?, format!("spec.subsets[{index}].trafficPolicy")))
        });
        for (policy, path) in general.into_iter().chain(subsets) {
            for (index, port) in policy.port_level_settings.iter().enumerate() {
                let dropped = dropped_blocks(policy, port);
                if dropped.is_empty() {
                    continue;
                }
                let dropped = dropped.join(", ");
                let number = port.port.as_ref().map_or(0, |port| port.number);
                let finding = Finding::new(&RULE, &rule.object, format!("{path}.portLevelSettings[{index}]"))
                    .message(format!("portLevelSettings for port {number} of {} drop {dropped}", rule.object))
                    .impact(format!("calls to port {number} use Istio's defaults for {dropped}"))
                    .evidence([format!("{path} sets {dropped}")])
                    .fix(format!("repeat {dropped} of {path} in portLevelSettings[{index}]"));
                out.add(&RULE, finding);
            }
        }
    }
}

/// Blocks of a traffic policy that the settings of a port do not repeat.
fn dropped_blocks(policy: &TrafficPolicy, port: &PortPolicy) -> Vec<&'static str> {
    // A dropped block that equals the default has no effect.
    let default = LoadBalancer { simple: Some("LEAST_REQUEST".to_owned()), ..LoadBalancer::default() };
    let has_custom_balancer = policy.load_balancer.as_ref().is_some_and(|balancer| *balancer != default);
    let blocks = [
        ("connectionPool", policy.connection_pool.is_some(), port.connection_pool.is_some()),
        ("loadBalancer", has_custom_balancer, port.load_balancer.is_some()),
        ("outlierDetection", policy.outlier_detection.is_some(), port.outlier_detection.is_some()),
        ("tls", policy.tls.is_some(), port.tls.is_some()),
    ];
    blocks.into_iter().filter(|(_, in_policy, on_port)| *in_policy && !on_port).map(|(name, ..)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, findings, istio};

    fn mesh(port: &str) -> String {
        let policy = "loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE}";
        istio(
            "DestinationRule",
            "d",
            &format!("{{host: a, trafficPolicy: {{{policy}, portLevelSettings: [{{port: {{number: 1}}, {port}}}]}}}}"),
        )
    }

    #[test]
    fn reports_dropped_blocks_by_name() {
        let yaml = mesh("loadBalancer: {simple: RANDOM}");
        assert_findings(&RULE, &yaml, &["warning DestinationRule shop/d spec.trafficPolicy.portLevelSettings[0]"]);
        assert!(findings(&RULE, &yaml)[0].message.ends_with("drop tls"));
        assert_undecided_on_gap(&RULE, &yaml);
    }

    #[test]
    fn accepts_repeated_blocks_and_dropped_defaults() {
        assert_findings(&RULE, &mesh("tls: {mode: SIMPLE}").replace("RANDOM", "LEAST_REQUEST"), &[]);
        assert_findings(&RULE, &mesh("loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE}"), &[]);
    }
}
