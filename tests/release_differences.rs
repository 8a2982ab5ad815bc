//! Each behavior that differs between releases of Istio changes an answer: with `--istio-version`, and with the variable
//! of istiod's environment that sets it.

mod support;

use serde_json::Value;
use support::TestEnv;

const SERVICES: &str = "\
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {selector: {app: cart}, clusterIP: 10.0.0.1, ports: [{name: grpc, port: 50051}, {port: 50052}, {name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, labels: {app: cart}}
spec: {containers: [{name: app, image: x}, {name: istio-proxy, image: x, args: [proxy, sidecar]}]}
status: {phase: Running, podIP: 10.1.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: web, labels: {app: web}}
spec: {containers: [{name: app, image: x}, {name: istio-proxy, image: x, args: [proxy, sidecar]}]}
status: {phase: Running, podIP: 10.1.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: ingress, namespace: web}
spec: {selector: {app: ingress}, clusterIP: 10.0.0.2, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: ingress-1, namespace: web, labels: {app: ingress}}
spec: {containers: [{name: istio-proxy, image: x, args: [proxy, router], ports: [{containerPort: 80}]}]}
status: {phase: Running, podIP: 10.1.0.3, conditions: [{type: Ready, status: 'True'}]}
";

fn istiod(variable: &str, value: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: istiod, namespace: istio-system}}\nspec: {{template: \
         {{metadata: {{labels: {{app: istiod}}}}, spec: {{containers: [{{name: discovery, image: 'istio/pilot:1.31.0', env: \
         [{{name: {variable}, value: '{value}'}}, {{name: PASSWORD, value: secret-text}}]}}]}}}}}}\n"
    )
}

/// A mesh with a question about it, and the part of the answer that differs.
struct Difference<'a> {
    objects: &'a str,
    call: &'a [&'a str],
    part: fn(&Value) -> Value,
}

impl Difference<'_> {
    fn answer(&self, objects: &str, version: Option<&str>) -> Value {
        let env = TestEnv::new();
        let file = env.write("mesh.yaml", objects);
        let version: Vec<&str> = version.into_iter().flat_map(|version| ["--istio-version", version]).collect();
        let source = ["--from", &file, "-o", "json", "--allow-unknown-host"];
        let run = env.run(&[&["route"], self.call, &source, &version[..]].concat());
        assert!(!run.stdout.contains("secret-text"));
        (self.part)(&serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run}")))
    }

    /// Asserts the answers of the release before `since` and of `since`, and those of the newest release with the
    /// variable turned off.
    fn assert_since(&self, since: u16, variable: Option<&str>, before: &Value, after: &Value) {
        let objects = format!("{SERVICES}---\n{}", self.objects);
        assert_eq!(self.answer(&objects, Some(&format!("1.{}", since - 1))), *before, "before 1.{since}");
        assert_eq!(self.answer(&objects, Some(&format!("1.{since}"))), *after, "since 1.{since}");
        assert_eq!(self.answer(&objects, None), *after);
        if let Some(variable) = variable {
            assert_eq!(self.answer(&(objects.clone() + &istiod(variable, "false")), None), *before, "{variable}=false");
        }
    }

    /// Asserts the answers without the variable, and with it.
    fn assert_variable(&self, variable: &str, without: &Value, with: &Value) {
        let objects = format!("{SERVICES}---\n{}", self.objects);
        assert_eq!(self.answer(&objects, None), *without);
        assert_eq!(self.answer(&(objects + &istiod(variable, "true")), None), *with);
    }
}

const FROM_WEB: [&str; 4] = ["cart.shop.svc.cluster.local:50051", "/a.B/C", "--caller", "web/web-1"];

#[test]
fn external_names_are_aliases_since_1_21() {
    let objects = "apiVersion: v1\nkind: Service\nmetadata: {name: alias, namespace: web}\nspec: {type: ExternalName, \
                   externalName: cart.shop.svc.cluster.local, ports: [{name: grpc, port: 50051}]}\n";
    let difference = Difference {
        objects,
        call: &["alias.web.svc.cluster.local:50051", "/a.B/C", "--caller", "web/web-1"],
        part: |answer| answer["backends"][0]["cluster"].clone(),
    };
    difference.assert_since(
        21,
        Some("ENABLE_EXTERNAL_NAME_ALIAS"),
        &"outbound|50051||alias.web.svc.cluster.local".into(),
        &"outbound|50051||cart.shop.svc.cluster.local".into(),
    );
}

#[test]
fn default_retries_leave_out_503_since_1_24() {
    let difference =
        Difference { objects: "", call: &FROM_WEB, part: |answer| answer["retries"]["status_codes"].clone() };
    let variable = Some("EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY");
    difference.assert_since(24, variable, &serde_json::json!([503]), &serde_json::json!([]));
}

#[test]
fn destination_rules_with_different_exports_stay_apart_since_1_24() {
    let rule = |name: &str, export: &str, subset: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}, namespace: \
             shop}}\nspec: {{host: cart, exportTo: ['{export}'], subsets: [{{name: {subset}, labels: {{app: cart}}}}]}}\n"
        )
    };
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: cart, namespace: shop}\nspec: \
                 {hosts: [cart], http: [{route: [{destination: {host: cart, subset: b}}]}]}\n";
    let objects = format!("{route}{}{}", rule("a", "web", "a"), rule("b", "other", "b"));
    let difference =
        Difference { objects: &objects, call: &FROM_WEB, part: |answer| answer["backends"][0]["state"].clone() };
    difference.assert_since(24, Some("ENABLE_ENHANCED_DESTINATIONRULE_MERGE"), &"ok".into(), &"no-cluster".into());
}

#[test]
fn an_upgrade_has_no_effect_on_detected_ports_since_1_28() {
    let objects = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: cart, namespace: shop}\nspec: \
                   {host: cart, trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}}\n";
    let difference = Difference {
        objects,
        call: &["cart.shop.svc.cluster.local:50052", "/a.B/C", "--caller", "web/web-1"],
        part: |answer| answer["backends"][0]["upstream_protocol"].clone(),
    };
    difference.assert_since(28, None, &"http2".into(), &"downstream".into());
}

const TLS_POLICY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: cart, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: cart, sectionName: grpc}]
  validation: {hostname: cart.example.com, wellKnownCACertificates: System}
";

#[test]
fn backend_tls_policies_are_read_since_1_28() {
    let tls = |answer: &Value| answer["backends"][0]["tls"].clone();
    let difference = Difference { objects: TLS_POLICY, call: &FROM_WEB, part: tls };
    difference.assert_since(28, None, &"auto".into(), &"tls".into());
    // Only the port that the policy names.
    let other = Difference {
        objects: TLS_POLICY,
        call: &["cart.shop.svc.cluster.local:80", "/a.B/C", "--caller", "web/web-1"],
        part: tls,
    };
    other.assert_since(28, None, &"auto".into(), &"auto".into());
}

#[test]
fn a_destination_rule_takes_precedence_over_a_backend_tls_policy_since_1_31() {
    let policy = TLS_POLICY.replace(", sectionName: grpc", "");
    let objects = format!(
        "{policy}---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: cart, namespace: \
         shop, creationTimestamp: '2026-01-01T00:00:00Z'}}\nspec: {{host: cart, trafficPolicy: {{tls: {{mode: DISABLE}}}}}}\n"
    );
    let difference =
        Difference { objects: &objects, call: &FROM_WEB, part: |answer| answer["backends"][0]["tls"].clone() };
    difference.assert_since(31, None, &"tls".into(), &"plain".into());
}

#[test]
fn listener_sets_are_read_since_1_30() {
    let objects = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: web}
spec:
  gatewayClassName: istio
  addresses: [{type: Hostname, value: ingress}]
  allowedListeners: {namespaces: {from: All}}
  listeners: [{name: own, port: 80, protocol: HTTP, hostname: own.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: extra, namespace: shop}
spec:
  parentRef: {name: edge, namespace: web}
  listeners: [{name: extra, protocol: HTTP, hostname: extra.example.com}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: cart, namespace: shop}
spec:
  parentRefs: [{kind: ListenerSet, name: extra}]
  rules: [{backendRefs: [{name: cart, port: 50051}]}]
";
    let call = ["extra.example.com:80", "/a.B/C", "--caller", "gateway/web/ingress-1"];
    let part = |answer: &Value| answer["outcome"].clone();
    Difference { objects, call: &call, part }.assert_since(30, None, &"no-route".into(), &"forward".into());
    // A Gateway allows no ListenerSets unless it says so.
    let objects = objects.replace("  allowedListeners: {namespaces: {from: All}}\n", "");
    let difference = Difference { objects: &objects, call: &call, part };
    difference.assert_since(31, None, &"no-route".into(), &"no-route".into());
}

#[test]
fn a_kubernetes_service_comes_before_other_namespaces_since_1_30() {
    let objects = "\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cart, namespace: aaa}
spec: {hosts: [cart.shop.svc.cluster.local], resolution: DNS, ports: [{number: 50051, name: grpc, protocol: GRPC}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: web}
spec: {egress: [{hosts: ['web/*', 'shop/front.example.com']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: shop}
spec: {hosts: [front.example.com], http: [{route: [{destination: {host: cart.shop.svc.cluster.local, port: {number: 80}}}]}]}
";
    let difference = Difference {
        objects,
        call: &["front.example.com:80", "/a.B/C", "--caller", "web/web-1"],
        part: |answer| answer["backends"][0]["state"].clone(),
    };
    difference.assert_since(30, Some("PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE"), &"no-cluster".into(), &"ok".into());
}

const FOREIGN_GATEWAY: &str = "\
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: foreign, namespace: shop}
spec: {selector: {app: ingress}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [cart.example.com]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart.example.com], gateways: [foreign], http: [{route: [{destination: {host: cart, port: {number: 50051}}}]}]}
";
const AT_GATEWAY: [&str; 4] = ["cart.example.com:80", "/a.B/C", "--caller", "gateway/web/ingress-1"];

#[test]
fn deployed_gateways_get_no_gateways_of_other_namespaces_since_1_31() {
    let deployed = "\
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: web, annotations: {gateway.istio.io/name-override: ingress}}
spec: {gatewayClassName: istio, listeners: [{name: own, port: 80, protocol: HTTP, hostname: own.example.com}]}
";
    let objects = format!("{FOREIGN_GATEWAY}{deployed}");
    let difference = Difference { objects: &objects, call: &AT_GATEWAY, part: |answer| answer["outcome"].clone() };
    difference.assert_since(31, Some("PILOT_ENABLE_STRICT_GATEWAY_MERGING"), &"forward".into(), &"no-route".into());
}

#[test]
fn sidecars_can_exclude_hosts_since_1_31() {
    let objects = "apiVersion: networking.istio.io/v1\nkind: Sidecar\nmetadata: {name: default, namespace: web}\nspec: \
                   {egress: [{hosts: ['*/*', '~shop/*']}]}\n";
    let difference = Difference { objects, call: &FROM_WEB, part: |answer| answer["outcome"].clone() };
    difference.assert_since(31, None, &"forward".into(), &"passthrough".into());
}

#[test]
fn gateways_can_be_limited_to_their_namespace() {
    let difference =
        Difference { objects: FOREIGN_GATEWAY, call: &AT_GATEWAY, part: |answer| answer["outcome"].clone() };
    difference.assert_variable("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", &"forward".into(), &"closed".into());
}

#[test]
fn sidecars_can_balance_calls_to_headless_services() {
    let objects = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {selector: {app: cart}, \
                   clusterIP: None, ports: [{name: grpc, port: 50051}]}\n";
    let difference = Difference {
        objects,
        call: &["db.shop.svc.cluster.local:50051", "/a.B/C", "--caller", "web/web-1"],
        part: |answer| answer["backends"][0]["endpoints"].clone(),
    };
    difference.assert_variable("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES", &Value::Null, &1.into());
}

#[test]
fn the_environment_of_istiod_is_reported_and_unknown_versions_are_refused() {
    let env = TestEnv::new();
    let file = env.write("mesh.yaml", format!("{SERVICES}{}", istiod("PILOT_ENABLE_STRICT_GATEWAY_MERGING", "false")));
    let run = env.run(&["inspect", "--from", &file]);
    assert!(run.stderr.contains("istiod sets PILOT_ENABLE_STRICT_GATEWAY_MERGING=false"), "{run}");
    for version in ["1.19", "1.99", "2.0"] {
        let run = env.run(&["route", "cart.shop:50051", "--from", &file, "--istio-version", version]);
        assert_eq!(run.code(), 2, "{run}");
    }
    let newer = env.write("newer.yaml", format!("{SERVICES}{}", istiod("X", "1").replace("1.31.0", "1.99.0")));
    let run = env.run(&["route", "cart.shop:50051", "--from", &newer]);
    assert!(run.stderr.contains("the source has Istio 1.99"), "{run}");
}
