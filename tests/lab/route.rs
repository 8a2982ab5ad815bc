//! Compares `route` with the observed routes of the caller's Envoy (read by `istioctl`) and with real calls.

use serde_json::Value;

use crate::support::{Lab, Scenario};

/// A header rule with a timeout, a direct response, and a weighted split with retries.
const RULES: &str = "\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: route, namespace: shop}
spec:
  hosts: [echo]
  http:
  - name: canary
    match: [{headers: {x-canary: {exact: 'true'}}}]
    timeout: 2s
    route:
    - destination: {host: echo, subset: v2}
  - match: [{uri: {prefix: /unused.Calls/}}]
    directResponse: {status: 503}
  - retries: {attempts: 4, retryOn: 'unavailable,503', perTryTimeout: 300ms}
    route:
    - {destination: {host: echo, subset: v1}, weight: 75}
    - {destination: {host: echo, subset: v2}, weight: 25}
";

const HOST: &str = "echo.shop.svc.cluster.local:7070";

/// The JSON report of `route` for one caller.
fn route(lab: &Lab, caller: &str, extra: &[&str]) -> Value {
    let mut arguments = vec!["route", HOST, "/echo.Echo/Unary", "--caller", caller, "-o", "json"];
    arguments.extend(extra);
    let output = lab.grpcmesh(&arguments);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The observed routes for the host in the caller's Envoy.
fn observed_routes(lab: &Lab, pod: &str) -> Vec<Value> {
    let text = lab.istioctl(&["proxy-config", "routes", pod, "--name", "7070", "-o", "json"]);
    let tables: Value = serde_json::from_str(&text).unwrap();
    let hosts = tables[0]["virtualHosts"].as_array().unwrap();
    let host = hosts.iter().find(|host| host["name"] == HOST).unwrap_or_else(|| panic!("no {HOST} in {text}"));
    host["routes"].as_array().unwrap().clone()
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn compiled_routes_match_the_callers_envoy_and_its_calls() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let caller = format!("web/{}", client.name);
    let default = observed_routes(&lab, &format!("{}.web", client.name));
    assert_eq!(route(&lab, &caller, &[])["backends"][0]["cluster"], default[0]["route"]["cluster"]);

    let _objects = Scenario::apply(&lab, RULES);
    let routes = observed_routes(&lab, &format!("{}.web", client.name));
    let canary = route(&lab, &caller, &["-H", "x-canary:true"]);
    assert_eq!(canary["rule"]["route_name"], routes[0]["name"]);
    assert_eq!(canary["backends"][0]["cluster"], routes[0]["route"]["cluster"]);
    assert_eq!((&canary["timeout_ms"], &routes[0]["route"]["timeout"]), (&2000.into(), &"2s".into()));
    assert_eq!(canary["virtual_host"], HOST);

    let split = route(&lab, &caller, &[]);
    let observed = &routes[2]["route"];
    let shares = |backends: &Value, name: &str| -> Vec<(String, u64)> {
        let backends = backends.as_array().unwrap().iter();
        let mut shares: Vec<_> = backends
            .map(|backend| (backend[name].as_str().unwrap().to_owned(), backend["weight"].as_u64().unwrap()))
            .collect();
        shares.sort();
        shares
    };
    assert_eq!(shares(&split["backends"], "cluster"), shares(&observed["weightedClusters"]["clusters"], "name"));
    let retries = &observed["retryPolicy"];
    assert_eq!(split["retries"]["attempts"], retries["numRetries"]);
    assert_eq!(split["retries"]["status_codes"], retries["retriableStatusCodes"]);
    assert_eq!(split["retries"]["per_try_timeout_ms"], 300);
    let conditions = split["retries"]["retry_on"].as_array().unwrap();
    let conditions: Vec<&str> = conditions.iter().filter_map(Value::as_str).collect();
    assert_eq!(conditions.join(","), retries["retryOn"].as_str().unwrap());

    // The access log shows the cluster and the route name of each call.
    let position = client.log_position();
    let results = client.call(&["--count", "12", "--header", "x-canary=true", HOST]);
    assert!(results.iter().all(|result| result.version == "v2"), "{results:?}");
    let cluster = canary["backends"][0]["cluster"].as_str().unwrap();
    for line in client.log_since(position, results.len()) {
        assert!(line.contains(&format!(" {cluster} ")) && line.ends_with(" canary"), "{line}");
    }
    let position = client.log_position();
    let results = client.call(&["--count", "40", HOST]);
    let v1_calls = results.iter().filter(|result| result.version == "v1").count();
    assert!((20..40).contains(&v1_calls), "expected about 30 of 40 calls to v1, got {v1_calls}");
    let lines = client.log_since(position, results.len());
    for (backend, count) in split["backends"].as_array().unwrap().iter().zip([v1_calls, results.len() - v1_calls]) {
        let cluster = format!(" {} ", backend["cluster"].as_str().unwrap());
        assert_eq!(lines.iter().filter(|line| line.contains(&cluster)).count(), count, "{cluster}");
    }
}
