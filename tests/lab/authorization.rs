//! Compares the authorization decisions of `route` with the RBAC filters of real Envoys: many policies, each with calls of
//! three identities to four methods, at a port that the server's proxy handles as HTTP and one that it handles as TCP.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::support::{Lab, Pod, Scenario};

/// One server behind an HTTP port and one behind a TCP port. A connection per call keeps calls from using connections
/// that a proxy accepted before it had the policy.
const SERVERS: &str = "\
apiVersion: v1
kind: Service
metadata: {name: authz, namespace: shop}
spec: {selector: {app: authz}, ports: [{name: grpc, port: 7081, targetPort: 7070}]}
---
apiVersion: v1
kind: Service
metadata: {name: authz-tcp, namespace: shop}
spec: {selector: {app: authz-tcp}, ports: [{name: tcp, port: 7082, targetPort: 7070}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: authz, namespace: shop}
spec:
  host: authz
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
";

const HTTP: (&str, &str) = ("authz", "authz.shop.svc.cluster.local:7081");
const TCP: (&str, &str) = ("authz-tcp", "authz-tcp.shop.svc.cluster.local:7082");

const METHODS: [&str; 4] = ["/lab.Echo/Unary", "/lab.Echo/Other", "/lab.Echo/Stream", "/grpc.health.v1.Health/Check"];

/// Policies at the HTTP port. A case with several policies separates them with `;`, as `action rules`.
const HTTP_POLICIES: &[&str] = &[
    "ALLOW",
    "ALLOW [{}]",
    "DENY",
    "DENY [{}]",
    "AUDIT [{}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/*]}}]}]",
    "ALLOW [{to: [{operation: {paths: ['*/Other']}}]}]",
    "ALLOW [{to: [{operation: {paths: ['*']}}]}]",
    "ALLOW [{to: [{operation: {paths: ['/lab.Echo/{*}']}}]}]",
    "ALLOW [{to: [{operation: {paths: ['/{**}']}}]}]",
    "ALLOW [{to: [{operation: {paths: ['/{*}/Unary']}}]}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/Unary/]}}]}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/*], notPaths: [/lab.Echo/Other]}}]}]",
    "ALLOW [{to: [{operation: {notPaths: [/grpc.health.v1.Health/*]}}]}]",
    "ALLOW [{to: [{operation: {methods: [POST]}}]}]",
    "ALLOW [{to: [{operation: {methods: [GET]}}]}]",
    "ALLOW [{to: [{operation: {notMethods: [GET]}}]}]",
    "ALLOW [{to: [{operation: {ports: ['7070']}}]}]",
    "ALLOW [{to: [{operation: {ports: ['7081']}}]}]",
    "ALLOW [{to: [{operation: {hosts: [authz.shop.svc.cluster.local]}}]}]",
    "ALLOW [{to: [{operation: {hosts: ['authz.shop.svc.cluster.local:7081']}}]}]",
    "ALLOW [{to: [{operation: {hosts: ['AUTHZ.shop.*']}}]}]",
    "DENY [{to: [{operation: {hosts: [authz.shop.svc.cluster.local]}}]}]",
    "ALLOW [{from: [{source: {principals: [cluster.local/ns/web/sa/default]}}]}]",
    "ALLOW [{from: [{source: {principals: ['spiffe://cluster.local/ns/web/sa/default']}}]}]",
    "ALLOW [{from: [{source: {principals: ['*']}}]}]",
    "ALLOW [{from: [{source: {principals: ['*/sa/default']}}]}]",
    "ALLOW [{from: [{source: {principals: ['cluster.local/ns/we*']}}]}]",
    "ALLOW [{from: [{source: {notPrincipals: [cluster.local/ns/web/sa/default]}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}]}]",
    "ALLOW [{from: [{source: {namespaces: ['*op']}}]}]",
    "ALLOW [{from: [{source: {notNamespaces: [web]}}]}]",
    "ALLOW [{from: [{source: {serviceAccounts: [default]}}]}]",
    "ALLOW [{from: [{source: {serviceAccounts: [web/default]}}]}]",
    "ALLOW [{from: [{source: {trustDomains: [cluster.local]}}]}]",
    "ALLOW [{from: [{source: {ipBlocks: [0.0.0.0/0]}}]}]",
    "ALLOW [{from: [{source: {ipBlocks: [192.0.2.0/24]}}]}]",
    "ALLOW [{from: [{source: {notRemoteIpBlocks: [192.0.2.0/24]}}]}]",
    "ALLOW [{from: [{source: {requestPrincipals: ['*']}}]}]",
    "ALLOW [{from: [{source: {notRequestPrincipals: ['*']}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}], to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}]}, {to: [{operation: {paths: [/grpc.health.v1.Health/Check]}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}, {source: {principals: ['*/ns/shop/*']}}]}]",
    "ALLOW [{when: [{key: destination.port, values: ['7070']}]}]",
    "ALLOW [{when: [{key: connection.sni, values: ['outbound_.7081_._.authz.shop.svc.cluster.local']}]}]",
    "DENY [{when: [{key: connection.sni, notValues: ['*']}]}]",
    "ALLOW [{when: [{key: 'request.headers[content-type]', values: [application/grpc]}]}]",
    "ALLOW [{when: [{key: 'request.headers[x-tenant]', values: [acme]}]}]",
    "ALLOW [{when: [{key: 'request.headers[x-tenant]', notValues: [acme]}]}]",
    "DENY [{when: [{key: 'request.headers[x-tenant]', values: ['*']}]}]",
    "ALLOW [{when: [{key: source.namespace, values: [web]}, {key: source.principal, values: ['*/sa/default']}]}]",
    "DENY [{from: [{source: {notPrincipals: ['*']}}]}]",
    "DENY [{from: [{source: {namespaces: [web]}}], to: [{operation: {paths: ['*/Stream']}}]}]",
    "DENY [{to: [{operation: {notPaths: [/lab.Echo/Unary]}}]}]",
    "ALLOW [{}] ; DENY [{to: [{operation: {paths: [/lab.Echo/Other]}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}]}] ; ALLOW [{to: [{operation: {paths: ['*/Check']}}]}]",
    "CUSTOM [{to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
];

/// Policies at the TCP port.
const TCP_POLICIES: &[&str] = &[
    "ALLOW [{}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}]}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
    "ALLOW [{from: [{source: {namespaces: [web]}}], to: [{operation: {methods: [POST]}}]}]",
    "ALLOW [{to: [{operation: {paths: [/lab.Echo/Unary]}}]}, {from: [{source: {namespaces: [shop]}}]}]",
    "DENY [{to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
    "DENY [{from: [{source: {namespaces: [web]}}], to: [{operation: {paths: [/lab.Echo/Unary]}}]}]",
    "DENY [{to: [{operation: {ports: ['7082']}}]}]",
    "DENY [{to: [{operation: {ports: ['7070'], paths: [/other]}}]}]",
    "DENY [{from: [{source: {requestPrincipals: ['*']}}]}]",
];

/// A Deployment of the lab's server, like those of the lab's mesh.
fn deployment(name: &str) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: shop}}
spec:
  replicas: 1
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, version: v1}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: app
        image: labapp
        command: [labapp, serve, --name, $(POD), --version, v1]
        env:
        - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        ports:
        - {{name: grpc, containerPort: 7070}}
        readinessProbe: {{grpc: {{port: 7070}}}}
"
    )
}

/// The AuthorizationPolicies of one case, for the pods of `app`.
fn policies(app: &str, case: &str) -> String {
    let policy = |(index, text): (usize, &str)| {
        let (action, rules) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let provider = if action == "CUSTOM" { ", provider: {name: no-such-authorizer}" } else { "" };
        let rules = if rules.is_empty() { String::new() } else { format!(", rules: {rules}") };
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: case-{index}, namespace: shop}}\n\
             spec: {{selector: {{matchLabels: {{app: {app}}}}}, action: {action}{provider}{rules}}}\n"
        )
    };
    case.split(" ; ").enumerate().map(policy).collect()
}

/// What a call shows about the decision of the server's proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Observed {
    LetIn,
    /// PERMISSION_DENIED of an HTTP filter.
    Denied,
    /// A closed connection.
    Closed,
}

fn observe(caller: &Pod, host: &str, method: &str) -> Observed {
    let results = caller.call(&["--timeout", "4s", "--method", method, host]);
    match results[0].code {
        7 => Observed::Denied,
        14 => Observed::Closed,
        // The health service does not know the service that the client asks for: NOT_FOUND of the application.
        0 | 5 => Observed::LetIn,
        code => panic!("{method}: unexpected status {code}: {results:?}"),
    }
}

/// What `route` says about each call, by caller and method.
fn predict(lab: &Lab, callers: &[Pod], host: &str, is_tcp: bool) -> BTreeMap<String, Result<Observed, String>> {
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("lab-authorization.jsonl");
    let mut lines = Vec::new();
    for caller in callers {
        let name = format!("{}/{}", caller.namespace, caller.name);
        for method in METHODS {
            let id = format!("{} {method}", caller.namespace);
            lines.push(json!({"id": id, "caller": name, "authority": host, "path": method}).to_string());
        }
    }
    std::fs::write(&file, lines.join("\n")).unwrap();
    let output = lab.grpcmesh(&["route", "--calls", file.to_str().unwrap(), "-o", "json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), lines.len(), "{}", String::from_utf8_lossy(&output.stderr));
    let prediction = |answer: &Value| {
        let authorization = &answer["authorization"];
        match authorization["decision"].as_str() {
            Some("allowed" | "none") => Ok(Observed::LetIn),
            Some("denied") if is_tcp => Ok(Observed::Closed),
            Some("denied") => Ok(Observed::Denied),
            _ => Err(format!("no decision: {answer}")),
        }
    };
    answers.iter().map(|answer| (answer["id"].as_str().unwrap().to_owned(), prediction(answer))).collect()
}

/// The calls of one case whose result differs from the prediction, and the number of calls.
fn check_case(lab: &Lab, callers: &[Pod], (app, host): (&str, &str), case: &str) -> (Vec<String>, usize) {
    let _policies = Scenario::apply(lab, &policies(app, case));
    let predictions = predict(lab, callers, host, app == TCP.0);
    let mut differences = Vec::new();
    for caller in callers {
        for method in METHODS {
            let predicted = &predictions[&format!("{} {method}", caller.namespace)];
            let mut observed = observe(caller, host, method);
            if *predicted != Ok(observed) {
                // A connection that was accepted just before the update is used once more.
                std::thread::sleep(std::time::Duration::from_secs(1));
                observed = observe(caller, host, method);
            }
            if *predicted != Ok(observed) {
                differences.push(format!(
                    "{app} {case}: {}/{} {method}: observed {observed:?}, route {predicted:?}",
                    caller.namespace, caller.name
                ));
            }
        }
    }
    (differences, callers.len() * METHODS.len())
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn decisions_equal_those_of_real_envoys() {
    let lab = Lab::connect();
    let _servers = Scenario::apply(&lab, &[SERVERS, &deployment(HTTP.0), &deployment(TCP.0)].concat());
    // Identities: two namespaces of the mesh, and a pod without a proxy.
    let callers = [lab.client("web"), lab.client("shop"), lab.pod("legacy", "app=outside")];
    for (_, host) in [HTTP, TCP] {
        for caller in &callers {
            for method in METHODS {
                assert_eq!(observe(caller, host, method), Observed::LetIn, "without policies: {host} {method}");
            }
        }
    }
    let mut differences = Vec::new();
    let mut calls = 0;
    let cases = HTTP_POLICIES.iter().map(|case| (HTTP, case)).chain(TCP_POLICIES.iter().map(|case| (TCP, case)));
    for (server, case) in cases {
        let (found, made) = check_case(&lab, &callers, server, case);
        differences.extend(found);
        calls += made;
    }
    assert!(HTTP_POLICIES.len() >= 40 && calls >= 40 * callers.len() * METHODS.len(), "{calls} calls");
    assert!(differences.is_empty(), "{} differences of {calls}:\n{}", differences.len(), differences.join("\n"));
}
