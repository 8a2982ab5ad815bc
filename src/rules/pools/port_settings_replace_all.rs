//! GM407: settings of one port that drop the rest of the policy.

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
    summary: "portLevelSettings that drop blocks of the policy above them",
    docs: "\
## What it looks for
An entry of `portLevelSettings` without a block (`connectionPool`, `loadBalancer`, `outlierDetection`, `tls`) that the
policy above it has.

## Why it matters for gRPC
Settings of a port do not add to the policy, they replace it: the blocks that are not repeated fall back to Istio's
defaults on that port. Limits, ejection and even TLS that look set are not.

## Example
```yaml
trafficPolicy:
  tls: {mode: SIMPLE}
  portLevelSettings:
  - port: {number: 50051}
    connectionPool: {http: {http2MaxRequests: 100}}     # no TLS on 50051 any more
```

## Repair
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
        for (policy, place) in general.into_iter().chain(subsets) {
            for (index, port) in policy.port_level_settings.iter().enumerate() {
                let lost = lost(policy, port);
                if lost.is_empty() {
                    continue;
                }
                let number = port.port.as_ref().map_or(0, |port| port.number);
                let finding = Finding::new(&RULE, &rule.object, format!("{place}.portLevelSettings[{index}]"))
                    .message(format!("port {number} loses {} of the policy above", lost.join(", ")))
                    .impact(format!("on port {number} Istio's defaults hold for {}", lost.join(", ")))
                    .fix(format!("repeat {} under portLevelSettings[{index}]", lost.join(", ")));
                out.add(&RULE, finding);
            }
        }
    }
}

/// The blocks of a policy that the settings of a port lack.
fn lost(policy: &TrafficPolicy, port: &PortPolicy) -> Vec<&'static str> {
    // What falls back to the very default that stood above is not lost.
    let default = LoadBalancer { simple: Some("LEAST_REQUEST".to_owned()), ..LoadBalancer::default() };
    let balances = policy.load_balancer.as_ref().is_some_and(|balancer| *balancer != default);
    let blocks = [
        ("connectionPool", policy.connection_pool.is_some(), port.connection_pool.is_some()),
        ("loadBalancer", balances, port.load_balancer.is_some()),
        ("outlierDetection", policy.outlier_detection.is_some(), port.outlier_detection.is_some()),
        ("tls", policy.tls.is_some(), port.tls.is_some()),
    ];
    blocks.into_iter().filter(|(_, above, here)| *above && !here).map(|(name, ..)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, check_gap, findings, istio};

    fn mesh(port: &str) -> String {
        let above = "loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE}";
        istio(
            "DestinationRule",
            "d",
            &format!("{{host: a, trafficPolicy: {{{above}, portLevelSettings: [{{port: {{number: 1}}, {port}}}]}}}}"),
        )
    }

    #[test]
    fn lost_blocks_are_named() {
        let yaml = mesh("loadBalancer: {simple: RANDOM}");
        check(&RULE, &yaml, &["warning DestinationRule shop/d spec.trafficPolicy.portLevelSettings[0]"]);
        assert!(findings(&RULE, &yaml)[0].message.contains("loses tls"));
        check_gap(&RULE, &yaml);
    }

    #[test]
    fn repeated_blocks_and_lost_defaults_are_silent() {
        check(&RULE, &mesh("tls: {mode: SIMPLE}").replace("RANDOM", "LEAST_REQUEST"), &[]);
        check(&RULE, &mesh("loadBalancer: {simple: RANDOM}, tls: {mode: SIMPLE}"), &[]);
    }
}
