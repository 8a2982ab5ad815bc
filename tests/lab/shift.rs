//! `shift` on the mesh: it changes only weights, calls follow them, and every shift can be rolled back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Scenario};

pub(crate) const ROUTES: &str = "
apiVersion: v1
kind: Service
metadata: {name: fx, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: fx-v1, namespace: shop}
spec:
  selector: {app: echo, version: v1}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: fx-v2, namespace: shop}
spec:
  selector: {app: echo, version: v2}
  ports:
  - {name: grpc, port: 7070}
";

pub(crate) const VIRTUAL_SERVICE: &str = "
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: fx, namespace: shop}
spec:
  host: fx
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fx, namespace: shop, annotations: {kept: 'yes'}}
spec:
  hosts: [fx]
  http:
  - name: canary
    timeout: 5s
    retries: {attempts: 1, retryOn: unavailable}
    route:
    - {destination: {host: fx, subset: v1}, weight: 90}
    - {destination: {host: fx, subset: v2}, weight: 10}
";

fn gateway_api(kind: &str) -> String {
    format!(
        "
---
apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{name: fx, namespace: shop}}
spec:
  parentRefs: [{{group: '', kind: Service, name: fx, port: 7070}}]
  rules:
  - backendRefs:
    - {{name: fx-v1, port: 7070, weight: 90}}
    - {{name: fx-v2, port: 7070, weight: 10}}
"
    )
}

/// Runs `shift` on the Service `fx` and returns its exit code, events and stderr.
pub(crate) fn shift(lab: &Lab, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output = lab.grpcmesh(&[&["shift", "fx.shop", "-o", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    (output.status.code().unwrap(), events.collect(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn event_types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

pub(crate) fn object(lab: &Lab, kind: &str) -> Value {
    serde_json::from_str(&lab.kubectl(&["get", kind, "-n", "shop", "fx", "-o", "json"])).unwrap()
}

pub(crate) fn history(lab: &Lab) -> Value {
    let output = lab.grpcmesh(&["shift", "fx.shop", "--history", "-o", "json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn calls_follow_the_weights_and_no_call_fails() {
    let lab = Lab::connect();
    let client = lab.client("web");
    for (kind, routes) in [
        ("virtualservice", VIRTUAL_SERVICE.to_owned()),
        ("grpcroute", gateway_api("GRPCRoute")),
        ("httproute", gateway_api("HTTPRoute")),
    ] {
        let _objects = Scenario::apply(&lab, &format!("{ROUTES}{routes}"));
        let before = object(&lab, kind);
        let name = if kind == "virtualservice" { "v2" } else { "fx-v2" };
        for (to, share) in [(50, 0.5), (100, 1.0)] {
            let failed = std::thread::scope(|scope| {
                let calls = scope
                    .spawn(|| client.call(&["--count", "400", "--every", "10ms", "fx.shop.svc.cluster.local:7070"]));
                let (code, events, errors) = shift(&lab, &["--to", &format!("{name}={to}"), "--yes"]);
                assert_eq!(
                    (code, event_types(&events)),
                    (0, vec!["plan", "preflight", "applied", "acknowledged", "done"]),
                    "{kind}: {errors}"
                );
                calls.join().unwrap().iter().filter(|call| call.code != 0).count()
            });
            assert_eq!(failed, 0, "{kind} {to}: no call fails because of a shift");
            let calls = client.call(&["--count", "400", "fx.shop.svc.cluster.local:7070"]);
            let canary = calls.iter().filter(|call| call.server.starts_with("echo-v2")).count() as f64 / 400.0;
            // Five standard deviations of 400 calls at one half are 0.125.
            assert!((canary - share).abs() <= 0.125, "{kind}: {canary} of the calls go to v2, and {to}% should");
        }
        for _ in 0..2 {
            let (code, events, errors) = shift(&lab, &["--undo", "--yes"]);
            assert_eq!(
                (code, event_types(&events)),
                (0, vec!["plan", "rolled-back", "acknowledged"]),
                "{kind}: {errors}"
            );
            if history(&lab)["shifts"][0]["state"] == "rolled-back" {
                break;
            }
        }
        let after = object(&lab, kind);
        let weights = |object: &Value| {
            let backends = if kind == "virtualservice" { "/spec/http/0/route" } else { "/spec/rules/0/backendRefs" };
            object
                .pointer(backends)
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(|backend| backend["weight"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(weights(&after), [50, 50].map(Value::from), "{kind}: the last shift is undone");
        let mut restored = after["spec"].clone();
        let mut plain = before["spec"].clone();
        for spec in [&mut restored, &mut plain] {
            let backends = if kind == "virtualservice" { "/http/0/route" } else { "/rules/0/backendRefs" };
            for backend in spec.pointer_mut(backends).unwrap().as_array_mut().unwrap() {
                backend.as_object_mut().unwrap().remove("weight");
            }
        }
        assert_eq!(restored, plain, "{kind}: nothing but weights changed");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn keeps_fields_and_never_overwrites_weights_that_another_client_changed() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    assert_eq!(shift(&lab, &["--to", "v2=25", "--yes", "--reason", "a try"]).0, 0);
    let last = history(&lab)["shifts"][0].clone();
    assert_eq!(
        (&last["state"], &last["reason"], &last["number"]),
        (&"done".into(), &"a try".into(), &1.into()),
        "{last:#}"
    );

    let patch =
        |text: &str| lab.kubectl(&["patch", "virtualservice", "-n", "shop", "fx", "--type", "json", "-p", text]);
    patch(r#"[{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}]"#);
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);
    let now = object(&lab, "virtualservice");
    assert_eq!(now["spec"]["http"][0]["timeout"], "9s");
    assert_eq!(now["spec"]["http"][0]["route"][1]["weight"], 10);
    assert_eq!(now["metadata"]["annotations"]["kept"], "yes");

    assert_eq!(shift(&lab, &["--to", "v2=30", "--yes"]).0, 0);
    patch(r#"[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 77}]"#);
    let (code, _, errors) = shift(&lab, &["--undo", "--yes"]);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("the weights have changed since this shift: v1 70, v2 77"), "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 77);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn rolls_back_when_a_proxy_stays_stale() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let (code, events, errors) = shift(&lab, &["--to", "v2=60", "--yes", "--ack-timeout", "4s"]);
    let held = shift(&lab, &["--to", "v2=60", "--yes", "--ack-timeout", "4s", "--on-failure", "hold"]);
    client.signal(agent, "-CONT");
    let types = event_types(&events);
    assert_eq!(
        (code, &types[..5]),
        (1, &["plan", "preflight", "applied", "acknowledged", "rolled-back"][..]),
        "{errors}"
    );
    assert!(events[3]["proxies"]["stale"].to_string().contains(&client.name), "{:#}", events[3]);
    assert_eq!((held.0, *event_types(&held.1).last().unwrap()), (4, "held"), "{}", held.2);
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 60);
    let states: Vec<_> =
        history(&lab)["shifts"].as_array().unwrap().iter().map(|shift| shift["state"].clone()).collect();
    assert_eq!(states, ["held", "rolled-back"]);
    lab.wait_until("the proxy is synced again", Duration::from_secs(40), || {
        lab.grpcmesh(&["diff", "-A"]).status.success()
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_signal_rolls_back_or_holds() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    for (signal, action, weight, state) in [
        ("-INT", "rollback", 10, "rolled-back"),
        ("-TERM", "rollback", 10, "rolled-back"),
        ("-HUP", "hold", 60, "held"),
    ] {
        // The shift waits for a stale proxy.
        client.signal(agent, "-STOP");
        let arguments = ["shift", "fx.shop", "--to", "v2=60", "--yes", "--on-interrupt", action];
        let mut child = lab.spawn_grpcmesh(&arguments);
        lab.wait_until("the weights are applied", Duration::from_secs(20), || {
            history(&lab)["shifts"][0]["state"] == "open"
        });
        std::thread::sleep(Duration::from_millis(1500));
        client.signal(child.id(), signal);
        let signaled = std::time::Instant::now();
        let code = child.wait().unwrap().code();
        client.signal(agent, "-CONT");
        assert_eq!(code, Some(130), "{signal}");
        assert!(signaled.elapsed() < Duration::from_secs(8), "{signal}: {:?}", signaled.elapsed());
        assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], weight, "{signal}");
        assert_eq!(history(&lab)["shifts"][0]["state"], state, "{signal}");
        lab.wait_until("the proxy is synced again", Duration::from_secs(40), || {
            lab.grpcmesh(&["diff", "-A"]).status.success()
        });
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn asks_for_confirmation_on_a_terminal() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let weight = || object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"].clone();
    let program = env!("CARGO_BIN_EXE_kubectl-grpcmesh");
    let command = format!("{program} shift fx.shop --to v2=35 --kubeconfig {}", lab.kubeconfig().display());
    for (answer, output, expected) in [("n", "nothing was applied", 10), ("y", "run the new weights", 35)] {
        let mut terminal = rexpect::spawn(&command, Some(30_000)).unwrap();
        terminal.exp_string("Apply these weights?").unwrap();
        terminal.send_line(answer).unwrap();
        terminal.exp_string(output).unwrap();
        terminal.exp_eof().unwrap();
        assert_eq!(weight(), expected, "{answer}");
    }
    // Ctrl-C at the prompt: nothing is applied, and the cursor is visible again.
    let mut terminal = rexpect::spawn(&command.replace("v2=35", "v2=80"), Some(30_000)).unwrap();
    terminal.exp_string("Apply these weights?").unwrap();
    terminal.send_control('c').unwrap();
    let rest = terminal.exp_eof().unwrap();
    assert_eq!(weight(), 35);
    assert!(rest.contains("\u{1b}[?25h"), "{rest:?}");
    let status = terminal.process().wait().unwrap();
    assert!(format!("{status:?}").contains("130"), "{status:?}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_failed_preflight_check_stops_the_shift() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let exit_code = |arguments: &[&str], expected: &str| {
        let (code, _, errors) = shift(&lab, arguments);
        assert!(errors.contains(expected), "{expected} is not in: {errors}");
        code
    };
    assert_eq!(exit_code(&["--to", "v3=5", "--yes"], "the rule has no backend v3"), 2);
    assert_eq!(exit_code(&["--to", "v1=60,v2=60", "--yes"], "more than 100%"), 2);
    assert_eq!(exit_code(&["--to", "v2=5"], "--yes"), 2, "a pipe cannot be prompted");
    assert_eq!(exit_code(&["--undo", "--dry-run", "--yes"], "--dry-run"), 2);
    lab.kubectl(&["annotate", "virtualservice", "-n", "shop", "fx", "argocd.argoproj.io/tracking-id=x"]);
    assert_eq!(exit_code(&["--to", "v2=5", "--yes"], "--force-owner"), 3);
    lab.kubectl(&["annotate", "virtualservice", "-n", "shop", "fx", "argocd.argoproj.io/tracking-id-"]);
    // The emitted object, with its record, can be applied.
    let emitted = lab.grpcmesh(&["shift", "fx.shop", "--to", "v2=15", "--emit", "yaml"]);
    let emitted = String::from_utf8(emitted.stdout).unwrap();
    assert!(emitted.contains("apiVersion: networking.istio.io/"), "{emitted}");
    let before = object(&lab, "virtualservice")["spec"].clone();
    let applied = lab.kubectl_output(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &emitted);
    let applied: Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!(applied["spec"]["http"][0]["route"][1]["weight"], 15);
    assert!(applied["metadata"]["annotations"]["grpcmesh.io/shift"].as_str().unwrap().contains("held"));
    assert_eq!(object(&lab, "virtualservice")["spec"], before);
    // Another object that splits the same backends is reported with the command that shifts it.
    let other = VIRTUAL_SERVICE.split("---").last().unwrap().replace("name: fx,", "name: fx-edge,");
    let other = other.replace("hosts: [fx]", "hosts: [fx.example]\n  gateways: [edge]");
    let _other = Scenario::apply_without_waiting(&lab, &other);
    let command = "kubectl grpcmesh shift vs/fx-edge -n shop --rule 0 --to v1=85,v2=15";
    assert_eq!(exit_code(&["--to", "v2=15", "--dry-run"], command), 0);
    // A small connection pool and an autoscaler are reported.
    let scaler = "
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: fx, namespace: shop}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: echo-v2}
  maxReplicas: 3
";
    let _scaler = Scenario::apply_without_waiting(&lab, scaler);
    let pool = r#"[{"op": "add", "path": "/spec/trafficPolicy", "value": {"connectionPool": {"http": {"http2MaxRequests": 7}}}}]"#;
    lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", pool]);
    assert_eq!(exit_code(&["--to", "v2=15", "--dry-run"], "each proxy sends v2 at most 7 concurrent calls"), 0);
    assert_eq!(exit_code(&["--to", "v2=15", "--dry-run"], "HorizontalPodAutoscaler shop/fx scales echo-v2"), 0);
    // The subset of the canary selects no pods any more.
    let rule = r#"[{"op": "replace", "path": "/spec/subsets/1/labels/version", "value": "v9"}]"#;
    lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", rule]);
    assert_eq!(exit_code(&["--to", "v2=50", "--yes"], "has no ready pod"), 3);
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 10, "nothing was applied");
    assert_eq!(history(&lab)["shifts"], Value::from(Vec::<Value>::new()));
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn never_rolls_back_to_a_backend_without_pods() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    assert_eq!(shift(&lab, &["--to", "v2=100", "--yes"]).0, 0);
    let rule = r#"[{"op": "replace", "path": "/spec/subsets/0/labels/version", "value": "v9"}]"#;
    lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", rule]);
    let (code, _, errors) = shift(&lab, &["--undo", "--yes"]);
    assert!(code == 3 && errors.contains("which has no ready pod"), "{code} {errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 100);
    let (code, _, errors) = shift(&lab, &["--undo", "--yes", "--force"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 10);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn proxies_with_patched_routes_do_not_count_as_synced() {
    let lab = Lab::connect();
    let filter = "
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: fx, namespace: web}
spec:
  workloadSelector: {labels: {app: client}}
  configPatches:
  - applyTo: HTTP_ROUTE
    match: {context: SIDECAR_OUTBOUND}
    patch: {operation: MERGE, value: {route: {timeout: 7s}}}
";
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}{filter}"));
    let (code, events, errors) = shift(&lab, &["--to", "v2=20", "--yes"]);
    let acknowledged = events.iter().find(|event| event["event"] == "acknowledged").unwrap();
    assert_eq!((code, *event_types(&events).last().unwrap()), (4, "done"), "{errors}");
    assert!(acknowledged["proxies"]["unreachable"].to_string().contains("EnvoyFilter web/fx"), "{acknowledged:#}");
}

/// Runs shifts in several processes at once: each accepted shift is in the history once, every other one reports why.
fn run_concurrent_shifts(processes: usize, shifts_per_process: usize) {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let outcomes: Vec<(i32, Vec<Value>, String)> = std::thread::scope(|scope| {
        let lab = &lab;
        let threads: Vec<_> = (0..processes)
            .map(|process| {
                scope.spawn(move || {
                    let run = |index: usize| {
                        let share = 1 + (process * shifts_per_process + index) * 7 % 98;
                        shift(lab, &["--to", &format!("v2={share}"), "--yes", "--ack", "none"])
                    };
                    (0..shifts_per_process).map(run).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for (code, events, errors) in &outcomes {
        let applied = events.iter().find(|event| event["event"] == "applied");
        match applied {
            Some(event) => *accepted.entry(event["session"].as_str().unwrap().to_owned()).or_default() += 1,
            None if *code == 0 => {
                assert!(event_types(events).contains(&"done"), "the weights already matched: {events:?}");
            }
            None => assert!(*code == 3 && errors.contains("hint:"), "{code} {errors}"),
        }
    }
    let history = history(&lab);
    let shifts = history["shifts"].as_array().unwrap();
    let numbers: Vec<u64> = shifts.iter().map(|shift| shift["number"].as_u64().unwrap()).collect();
    assert!(accepted.len() >= shifts_per_process && accepted.values().all(|count| *count == 1), "{accepted:?}");
    assert_eq!(numbers[0], accepted.len() as u64, "every accepted shift has its own number");
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1), "{numbers:?}");
    assert!(shifts.iter().all(|shift| accepted.contains_key(shift["session"].as_str().unwrap())), "{history:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn concurrent_shifts_are_each_accepted_once_or_rejected() {
    run_concurrent_shifts(4, 6);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_a_thousand_concurrent_shifts() {
    run_concurrent_shifts(8, 125);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_killed_shift_can_be_resumed_or_undone() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    for (index, millis) in [150, 300, 400, 500, 650, 900].into_iter().enumerate() {
        let before = object(&lab, "virtualservice")["spec"].clone();
        let share = format!("v2={}", 20 + index);
        let mut child = lab.spawn_grpcmesh(&["shift", "fx.shop", "--to", &share, "--yes", "-o", "json", "--takeover"]);
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        let killed = history(&lab);
        let is_open = killed["shifts"][0]["state"] == "open";
        let flag = if index % 2 == 0 { "--resume" } else { "--undo" };
        let (code, events, errors) = shift(&lab, &[flag, "--yes", "--takeover"]);
        if is_open {
            assert_eq!(code, 0, "{flag} after {millis} ms: {events:?} {errors}");
        }
        let now = history(&lab);
        assert_ne!(now["shifts"][0]["state"], "open", "{flag} after {millis} ms: {now:#}");
        if is_open && flag == "--undo" {
            assert_eq!(object(&lab, "virtualservice")["spec"], before);
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_documented_roles_are_sufficient() {
    let lab = Lab::connect();
    let roles = [
        include_str!("../../docs/rbac/reader.yaml"),
        include_str!("../../docs/rbac/live-reader.yaml"),
        include_str!("../../docs/rbac/shifter.yaml"),
    ]
    .join("---\n");
    let bindings = ["reader", "live-reader", "shifter"].map(|role| {
        format!(
            "
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: fx-{role}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-{role}}}
subjects: [{{kind: ServiceAccount, name: fx-shifter, namespace: legacy}}]
"
        )
    });
    let account = "
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: fx-shifter, namespace: legacy}
";
    let yaml = [&roles, account, &bindings.concat(), "---", ROUTES, VIRTUAL_SERVICE].concat();
    let _objects = Scenario::apply(&lab, &yaml);
    let user = "system:serviceaccount:legacy:fx-shifter";
    let (code, events, errors) = shift(&lab, &["--to", "v2=40", "--yes", "--as", user]);
    assert_eq!((code, *event_types(&events).last().unwrap()), (0, "done"), "{errors}");
    assert_eq!(history(&lab)["shifts"][0]["user"], user);
    // An unknown state of the proxies does not cause a rollback.
    lab.kubectl(&["delete", "clusterrolebinding", "fx-live-reader"]);
    let (code, events, errors) = shift(&lab, &["--to", "v2=42", "--yes", "--ack-timeout", "3s", "--as", user]);
    assert_eq!((code, *event_types(&events).last().unwrap()), (4, "held"), "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 42);
    lab.kubectl(&["delete", "clusterrolebinding", "fx-shifter"]);
    let (code, _, errors) = shift(&lab, &["--to", "v2=45", "--yes", "--as", user]);
    assert!(code == 3 && errors.contains("docs/rbac/shifter.yaml"), "{code} {errors}");
}

/// A rule to remove from a role, a command that needs it, and the right that its error reports.
const REMOVED_RULES: [(&str, &[&str], &str); 5] = [
    ("resources: [virtualservices]", &["shift", "vs/fx.shop", "--to", "v2=20", "--yes"], "patch"),
    ("resources: [httproutes, grpcroutes]", &["shift", "httproute/fx.shop", "--to", "fx-v2=20", "--yes"], "patch"),
    ("resources: [httproutes, grpcroutes]", &["shift", "grpcroute/fx.shop", "--to", "fx-v2=20", "--yes"], "patch"),
    ("resources: [pods/log]", &["tail", "echo", "-n", "shop"], "pods/log"),
    ("resources: [pods/portforward]", &["balance", "echo", "-n", "shop", "--for", "1s"], "pods/portforward"),
];

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn every_rule_of_the_live_reader_and_shifter_roles_is_necessary() {
    let lab = Lab::connect();
    let (shifter, live) =
        (include_str!("../../docs/rbac/shifter.yaml"), include_str!("../../docs/rbac/live-reader.yaml"));
    let bound = ["reader", "live-reader", "shifter"].map(|role| {
        format!(
            "---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: fx-{role}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-{role}}}
subjects: [{{kind: ServiceAccount, name: fx-least, namespace: legacy}}]
"
        )
    });
    let account = "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: fx-least, namespace: legacy}\n";
    let reader = include_str!("../../docs/rbac/reader.yaml");
    let roles = [reader, "---", shifter, "---", live, account, &bound.concat()].join("\n");
    let user = "system:serviceaccount:legacy:fx-least";
    let mut removed = std::collections::BTreeSet::new();
    for (rule, command, right) in REMOVED_RULES {
        let routes = match command[1].split('/').next() {
            Some("httproute") => gateway_api("HTTPRoute"),
            Some("grpcroute") => gateway_api("GRPCRoute"),
            _ => VIRTUAL_SERVICE.to_owned(),
        };
        let role = if shifter.contains(rule) { shifter } else { live };
        let _objects = Scenario::apply(&lab, &format!("{ROUTES}{routes}---\n{roles}"));
        let (head, rules) = role.split_once("rules:\n").unwrap();
        let all = rules.split_inclusive('\n').collect::<Vec<_>>();
        let remaining = all.chunks(3).filter(|lines| !lines.concat().contains(rule));
        let remaining = remaining.flatten().copied().collect::<String>();
        assert!(remaining.len() < rules.len() && !remaining.is_empty(), "{rule}");
        removed.insert(rule);
        let applied = lab.kubectl_output(&["apply", "-f", "-"], &format!("{head}rules:\n{remaining}"));
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        lab.wait_until(&format!("{command:?} fails without {rule}"), std::time::Duration::from_secs(20), || {
            let output = lab.grpcmesh(&[command, &["--as", user]].concat());
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            output.status.code() != Some(0) && text.contains(right)
        });
    }
    let all = [shifter, live].map(|role| role.matches("- apiGroups").count()).iter().sum::<usize>();
    assert_eq!(removed.len(), all, "every rule");
}
