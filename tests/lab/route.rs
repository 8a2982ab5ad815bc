//! `route` beside what the caller's own Envoy runs, with `istioctl` as the witness, and beside calls that are made.

use serde_json::Value;

use crate::support::{Lab, Scenario};

/// A split, a rule of its own for a header, and a limit.
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
  - match: [{uri: {prefix: /nobody.Calls/}}]
    directResponse: {status: 503}
  - retries: {attempts: 4, retryOn: 'unavailable,503', perTryTimeout: 300ms}
    route:
    - {destination: {host: echo, subset: v1}, weight: 75}
    - {destination: {host: echo, subset: v2}, weight: 25}
";

const HOST: &str = "echo.shop.svc.cluster.local:7070";

/// The answer of `route` for one caller.
fn route(lab: &Lab, caller: &str, extra: &[&str]) -> Value {
    let mut words = vec!["route", HOST, "/echo.Echo/Unary", "--caller", caller, "-o", "json"];
    words.extend(extra);
    let output = lab.grpcmesh(&words);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// The routes that the caller's Envoy runs for the host.
fn running(lab: &Lab, pod: &str) -> Vec<Value> {
    let text = lab.istioctl(&["proxy-config", "routes", pod, "--name", "7070", "-o", "json"]);
    let tables: Value = serde_json::from_str(&text).unwrap();
    let hosts = tables[0]["virtualHosts"].as_array().unwrap();
    let host = hosts.iter().find(|host| host["name"] == HOST).unwrap_or_else(|| panic!("no {HOST} in {text}"));
    host["routes"].as_array().unwrap().clone()
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn answers_are_what_the_callers_proxy_runs() {
    let lab = Lab::connect();
    let client = lab.client("web");
    let caller = format!("web/{}", client.name);
    let default = running(&lab, &format!("{}.web", client.name));
    assert_eq!(route(&lab, &caller, &[])["backends"][0]["cluster"], default[0]["route"]["cluster"]);

    let _objects = Scenario::apply(&lab, RULES);
    let routes = running(&lab, &format!("{}.web", client.name));
    let canary = route(&lab, &caller, &["-H", "x-canary:true"]);
    assert_eq!(canary["rule"]["route_name"], routes[0]["name"]);
    assert_eq!(canary["backends"][0]["cluster"], routes[0]["route"]["cluster"]);
    assert_eq!((&canary["timeout_ms"], &routes[0]["route"]["timeout"]), (&2000.into(), &"2s".into()));
    assert_eq!(canary["virtual_host"], HOST);

    let split = route(&lab, &caller, &[]);
    let running = &routes[2]["route"];
    let shares = |backends: &Value, name: &str| -> Vec<(String, u64)> {
        let backends = backends.as_array().unwrap().iter();
        let mut shares: Vec<_> =
            backends.map(|one| (one[name].as_str().unwrap().to_owned(), one["weight"].as_u64().unwrap())).collect();
        shares.sort();
        shares
    };
    assert_eq!(shares(&split["backends"], "cluster"), shares(&running["weightedClusters"]["clusters"], "name"));
    let retries = &running["retryPolicy"];
    assert_eq!(split["retries"]["attempts"], retries["numRetries"]);
    assert_eq!(split["retries"]["status_codes"], retries["retriableStatusCodes"]);
    assert_eq!(split["retries"]["per_try_timeout_ms"], 300);
    let words: Vec<&str> = split["retries"]["retry_on"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(words.join(","), retries["retryOn"].as_str().unwrap());

    // And the calls themselves go there, as the access log says: cluster and name of the route.
    let mark = client.log_mark();
    let seen = client.call(&["--count", "12", "--header", "x-canary=true", HOST]);
    assert!(seen.iter().all(|one| one.version == "v2"), "{seen:?}");
    let cluster = canary["backends"][0]["cluster"].as_str().unwrap();
    for line in client.log_since(mark, seen.len()) {
        assert!(line.contains(&format!(" {cluster} ")) && line.ends_with(" canary"), "{line}");
    }
    let mark = client.log_mark();
    let seen = client.call(&["--count", "40", HOST]);
    let first = seen.iter().filter(|one| one.version == "v1").count();
    assert!((20..40).contains(&first), "three in four of 40 calls: {first}");
    let lines = client.log_since(mark, seen.len());
    for (backend, count) in split["backends"].as_array().unwrap().iter().zip([first, seen.len() - first]) {
        let cluster = format!(" {} ", backend["cluster"].as_str().unwrap());
        assert_eq!(lines.iter().filter(|line| line.contains(&cluster)).count(), count, "{cluster}");
    }
}
