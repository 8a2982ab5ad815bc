//! GM719: a label that names a waypoint which istiod does not attach.

use crate::mesh::Mesh;
use crate::mesh::waypoint::{USE_WAYPOINT_LABEL, WaypointProblem};
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::vocabulary::nearest_name;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM719",
    name: "waypoint-not-attached",
    severity: Severity::Error,
    needs: &[Kind::Gateway, Kind::Namespace, Kind::Service],
    istio_code: None,
    summary: "istio.io/use-waypoint names a waypoint that does not exist, or that does not accept the object",
    docs: "\
## What it looks for
A Service, ServiceEntry or Namespace whose label `istio.io/use-waypoint` names a Gateway that does not exist, has a class
that is not one of waypoints, does not allow the namespace, or takes only the traffic of workloads.

## Why it matters for gRPC
istiod attaches no waypoint then, and calls go on without one: ztunnel connects to one pod, which gets all calls of the
connection. Route rules, retries, timeouts and the policies of the waypoint have no effect, and no call fails.

## Example
```yaml
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
# and no Gateway named waypoint in namespace shop
```

## Fix
```sh
istioctl waypoint apply -n shop
```

## References
- From Istio's code, not seen on a real mesh: `fetchWaypointForTarget` in
  `pilot/pkg/serviceregistry/ambient/waypoints.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for (object, waypoint, problem) in mesh.waypoint_problems() {
        let same_namespace = mesh.api_gateways.iter().filter(|gateway| gateway.object.namespace == waypoint.namespace);
        let names: Vec<&str> = same_namespace.map(|gateway| &*gateway.object.name).collect();
        let nearest = nearest_name::nearest(&waypoint.name, names.iter().copied());
        let fix = match (&problem, nearest) {
            (WaypointProblem::Missing, Some(name)) => format!("{USE_WAYPOINT_LABEL}: {name}"),
            (WaypointProblem::Missing, None) => {
                format!("istioctl waypoint apply -n {} --name {}", waypoint.namespace, waypoint.name)
            }
            (WaypointProblem::Class(_), _) => "set gatewayClassName of the Gateway to istio-waypoint".to_owned(),
            (WaypointProblem::NotAllowed, _) => {
                "allow the namespace in allowedRoutes of the HBONE listener of the Gateway".to_owned()
            }
            (WaypointProblem::Traffic(_), _) => "set the label istio.io/waypoint-for of the Gateway to all".to_owned(),
        };
        let finding = Finding::new(&RULE, &object, format!("metadata.labels[{USE_WAYPOINT_LABEL:?}]"))
            .message(format!("{object} names the waypoint {waypoint}, and {problem}"))
            .impact(
                "ztunnel connects to one pod for each connection: route rules, retries, timeouts and the policies of the \
                 waypoint have no effect",
            )
            .depends_on([&waypoint.namespace])
            .fix(fix);
        out.add(&RULE, finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap};

    fn namespace(name: &str, labels: &str) -> String {
        format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n")
    }

    fn gateway(labels: &str, class: &str, listener: &str) -> String {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: waypoint, namespace: shop, \
             labels: {{{labels}}}}}\nspec: {{gatewayClassName: {class}, listeners: [{{name: mesh, port: 15008, protocol: \
             HBONE{listener}}}]}}\n"
        )
    }

    const FIELD: &str = "metadata.labels[\"istio.io/use-waypoint\"]";

    #[test]
    fn reports_a_waypoint_that_does_not_exist_or_does_not_fit() {
        let shop = namespace("shop", "istio.io/use-waypoint: waypoint");
        let expected = format!("error Namespace shop {FIELD}");
        assert_findings(&RULE, &shop, &[&expected]);
        assert_findings(&RULE, &(shop.clone() + &gateway("", "istio", "")), &[&expected]);
        let workload = gateway("istio.io/waypoint-for: workload", "istio-waypoint", "");
        assert_findings(&RULE, &(shop.clone() + &workload), &[&expected]);
        let other = namespace("web", "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: shop");
        let same_only = gateway("", "istio-waypoint", "");
        assert_findings(&RULE, &(other + &same_only), &[&format!("error Namespace web {FIELD}")]);
        let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop, labels: \
                       {istio.io/use-waypoint: wayponit}}\nspec: {ports: [{port: 1, name: grpc}]}\n";
        let findings = crate::rules::testing::findings(&RULE, &(gateway("", "istio-waypoint", "") + service));
        assert!(findings[0].fix.contains("istio.io/use-waypoint: waypoint"), "{findings:?}");
        assert_undecided_on_gap(&RULE, &shop);
    }

    #[test]
    fn accepts_waypoints_that_exist_and_objects_without_one() {
        let shop = namespace("shop", "istio.io/use-waypoint: waypoint");
        assert_findings(&RULE, &(shop + &gateway("", "istio-waypoint", "")), &[]);
        assert_findings(&RULE, &namespace("shop", "istio.io/use-waypoint: none"), &[]);
        let other = namespace("web", "istio.io/use-waypoint: waypoint, istio.io/use-waypoint-namespace: shop");
        let all = gateway("istio.io/waypoint-for: all", "istio-waypoint", ", allowedRoutes: {namespaces: {from: All}}");
        assert_findings(&RULE, &(other + &all), &[]);
    }
}
