//! ListenerSets and BackendTLSPolicies: what `route` answers, against what istiod sends to Envoy.

use serde_json::Value;

use crate::support::{Lab, Scenario};

const LISTENER_SET: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: extra, namespace: shop}
spec:
  parentRef: {name: edge}
  listeners:
  - {name: extra, port: 80, protocol: HTTP, hostname: extra.example.com}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: echo-extra, namespace: shop}
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: ListenerSet, name: extra}]
  hostnames: [extra.example.com]
  rules:
  - backendRefs: [{name: echo, port: 7070}]
";

const TLS_POLICY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {name: echo, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: echo}]
  validation: {hostname: echo.example.com, wellKnownCACertificates: System}
";

fn report(lab: &Lab, arguments: &[&str]) -> Value {
    let output = lab.grpcmesh(&[arguments, &["-o", "json"]].concat());
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The clusters of the virtual hosts with a domain, in a gateway's Envoy.
fn observed_clusters(lab: &Lab, pod: &str, domain: &str) -> Vec<Value> {
    let text = lab.istioctl(&["proxy-config", "routes", pod, "-o", "json"]);
    let tables: Vec<Value> = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let hosts = tables.iter().flat_map(|table| list(&table["virtualHosts"]));
    let own = hosts.filter(|host| list(&host["domains"]).contains(&domain.into()));
    own.flat_map(|host| list(&host["routes"])).map(|route| route["route"]["cluster"].clone()).collect()
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_listener_set_adds_listeners_to_its_gateway() {
    let lab = Lab::connect();
    let edge = lab.pod("shop", "gateway.networking.k8s.io/gateway-name=edge");
    let arguments = ["route", "extra.example.com:80", "/echo.Echo/Unary", "--caller", "gateway/shop/edge"];
    assert_eq!(observed_clusters(&lab, &format!("{}.shop", edge.name), "extra.example.com"), [] as [Value; 0]);
    let allowed = [&arguments[..], &["--allow-unknown-host"]].concat();
    assert_eq!(report(&lab, &allowed)["outcome"], "no-route");

    let _objects = Scenario::apply(&lab, LISTENER_SET);
    let observed = observed_clusters(&lab, &format!("{}.shop", edge.name), "extra.example.com");
    let answer = report(&lab, &arguments);
    assert_eq!([answer["backends"][0]["cluster"].clone()].to_vec(), observed, "{answer}");
    assert_eq!(answer["rule"]["name"], "echo-extra");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_backend_tls_policy_starts_tls_in_the_callers_envoy() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let caller = format!("web/{}", client.name);
    let arguments = ["route", "echo.shop.svc.cluster.local:7070", "/echo.Echo/Unary", "--caller", caller.as_str()];
    let server_name = || {
        let pod = format!("{}.web", client.name);
        let host = ["--fqdn", "echo.shop.svc.cluster.local", "--subset", "", "-o", "json"];
        let text = lab.istioctl(&[&["proxy-config", "clusters", &pod][..], &host].concat());
        let clusters: Vec<Value> = serde_json::from_str(&text).unwrap();
        let name = "outbound|7070||echo.shop.svc.cluster.local";
        let cluster = clusters.into_iter().find(|cluster| cluster["name"] == name).unwrap();
        cluster.pointer("/transportSocket/typedConfig/sni").cloned()
    };
    assert_eq!(server_name(), None);
    assert_eq!(report(&lab, &arguments)["backends"][0]["tls"], "auto");

    let _objects = Scenario::apply(&lab, TLS_POLICY);
    assert_eq!(server_name(), Some("echo.example.com".into()));
    let answer = report(&lab, &arguments);
    assert_eq!(answer["backends"][0]["tls"], "tls", "{answer}");
    // The proxies of the servers expect mTLS of the mesh, or plaintext.
    assert_eq!(answer["client_sees"][0]["reason"], "tls-to-proxy", "{answer}");
    let results = client.call(&["--count", "4", "echo.shop.svc.cluster.local:7070"]);
    assert!(results.iter().all(|result| result.code == 14), "{results:?}");
}
