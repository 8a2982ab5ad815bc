//! `shift` on the mesh: weights and nothing else, with a way back, and calls that go where the weights say.

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

/// Runs `shift` on the Service `fx`; its events, and its exit code.
pub(crate) fn shift(lab: &Lab, arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let output = lab.grpcmesh(&[&["shift", "fx.shop", "-o", "json"], arguments].concat());
    let text = String::from_utf8_lossy(&output.stdout);
    let events = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    (output.status.code().unwrap(), events.collect(), String::from_utf8_lossy(&output.stderr).into_owned())
}

pub(crate) fn words(events: &[Value]) -> Vec<&str> {
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
fn calls_follow_the_weights_and_none_fails() {
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
                    (code, words(&events)),
                    (0, vec!["plan", "preflight", "written", "acknowledged", "done"]),
                    "{kind}: {errors}"
                );
                calls.join().unwrap().iter().filter(|one| one.code != 0).count()
            });
            assert_eq!(failed, 0, "{kind} {to}: no call fails because of a shift");
            let seen = client.call(&["--count", "400", "fx.shop.svc.cluster.local:7070"]);
            let canary = seen.iter().filter(|one| one.server.starts_with("echo-v2")).count() as f64 / 400.0;
            // Five standard deviations of 400 calls at one half are 0.125.
            assert!((canary - share).abs() <= 0.125, "{kind}: {canary} of the calls go to v2, and {to}% should");
        }
        for _ in 0..2 {
            let (code, events, errors) = shift(&lab, &["--undo", "--yes"]);
            assert_eq!((code, words(&events)), (0, vec!["plan", "rolled-back", "acknowledged"]), "{kind}: {errors}");
            if history(&lab)["shifts"][0]["state"] == "rolled-back" {
                break;
            }
        }
        let after = object(&lab, kind);
        let weight = |object: &Value| {
            let backends = if kind == "virtualservice" { "/spec/http/0/route" } else { "/spec/rules/0/backendRefs" };
            object
                .pointer(backends)
                .unwrap()
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["weight"].clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(weight(&after), [50, 50].map(Value::from), "{kind}: the last shift is undone");
        let mut restored = after["spec"].clone();
        let mut plain = before["spec"].clone();
        for spec in [&mut restored, &mut plain] {
            let backends = if kind == "virtualservice" { "/http/0/route" } else { "/rules/0/backendRefs" };
            for one in spec.pointer_mut(backends).unwrap().as_array_mut().unwrap() {
                one.as_object_mut().unwrap().remove("weight");
            }
        }
        assert_eq!(restored, plain, "{kind}: nothing but weights changed");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn what_others_write_is_kept_and_their_weights_are_not_written_over() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    assert_eq!(shift(&lab, &["--to", "v2=25", "--yes", "--reason", "a try"]).0, 0);
    let past = history(&lab)["shifts"][0].clone();
    assert_eq!(
        (&past["state"], &past["reason"], &past["number"]),
        (&"done".into(), &"a try".into(), &1.into()),
        "{past:#}"
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
    assert!(errors.contains("somebody changed the weights since: v1 70, v2 77"), "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 77);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn proxies_that_do_not_follow_take_the_weights_back() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    client.signal(agent, "-STOP");
    let (code, events, errors) = shift(&lab, &["--to", "v2=60", "--yes", "--ack-timeout", "4s"]);
    let held = shift(&lab, &["--to", "v2=60", "--yes", "--ack-timeout", "4s", "--on-failure", "hold"]);
    client.signal(agent, "-CONT");
    let told = words(&events);
    assert_eq!(
        (code, &told[..5]),
        (1, &["plan", "preflight", "written", "acknowledged", "rolled-back"][..]),
        "{errors}"
    );
    assert!(events[3]["proxies"]["late"].to_string().contains(&client.name), "{:#}", events[3]);
    assert_eq!((held.0, *words(&held.1).last().unwrap()), (4, "held"), "{}", held.2);
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 60);
    let states: Vec<_> = history(&lab)["shifts"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["held", "rolled-back"]);
    lab.wait("it catches up", Duration::from_secs(40), || lab.grpcmesh(&["diff", "-A"]).status.success());
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_signal_takes_the_weights_back_or_holds_them() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let client = lab.client("web");
    let agent = client.pid("istio-proxy");
    for (signal, then, weight, state) in [
        ("-INT", "rollback", 10, "rolled-back"),
        ("-TERM", "rollback", 10, "rolled-back"),
        ("-HUP", "hold", 60, "held"),
    ] {
        // While one proxy does not follow, the shift waits.
        client.signal(agent, "-STOP");
        let words = ["shift", "fx.shop", "--to", "v2=60", "--yes", "--on-interrupt", then];
        let mut child = lab.spawn_grpcmesh(&words);
        lab.wait("it is written", Duration::from_secs(20), || history(&lab)["shifts"][0]["state"] == "open");
        std::thread::sleep(Duration::from_millis(1500));
        client.signal(child.id(), signal);
        let ended = std::time::Instant::now();
        let code = child.wait().unwrap().code();
        client.signal(agent, "-CONT");
        assert_eq!(code, Some(130), "{signal}");
        assert!(ended.elapsed() < Duration::from_secs(8), "{signal}: {:?}", ended.elapsed());
        assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], weight, "{signal}");
        assert_eq!(history(&lab)["shifts"][0]["state"], state, "{signal}");
        lab.wait("it catches up", Duration::from_secs(40), || lab.grpcmesh(&["diff", "-A"]).status.success());
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn it_asks_on_a_terminal() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let weight = || object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"].clone();
    let program = env!("CARGO_BIN_EXE_kubectl-grpcmesh");
    let command = format!("{program} shift fx.shop --to v2=35 --kubeconfig {}", lab.kubeconfig().display());
    for (answer, end, wanted) in [("n", "nothing is written", 10), ("y", "run the new weights", 35)] {
        let mut terminal = rexpect::spawn(&command, Some(30_000)).unwrap();
        terminal.exp_string("Write these weights?").unwrap();
        terminal.send_line(answer).unwrap();
        terminal.exp_string(end).unwrap();
        terminal.exp_eof().unwrap();
        assert_eq!(weight(), wanted, "{answer}");
    }
    // Ctrl-C at the question: nothing is written, and the cursor is there again.
    let mut terminal = rexpect::spawn(&command.replace("v2=35", "v2=80"), Some(30_000)).unwrap();
    terminal.exp_string("Write these weights?").unwrap();
    terminal.send_control('c').unwrap();
    let rest = terminal.exp_eof().unwrap();
    assert_eq!(weight(), 35);
    assert!(rest.contains("\u{1b}[?25h"), "{rest:?}");
    let status = terminal.process().wait().unwrap();
    assert!(format!("{status:?}").contains("130"), "{status:?}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn what_speaks_against_a_shift_stops_it() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let refused = |arguments: &[&str], words: &str| {
        let (code, _, errors) = shift(&lab, arguments);
        assert!(errors.contains(words), "{words} is not in: {errors}");
        code
    };
    assert_eq!(refused(&["--to", "v3=5", "--yes"], "no backend of the rule is called v3"), 2);
    assert_eq!(refused(&["--to", "v1=60,v2=60", "--yes"], "more than 100%"), 2);
    assert_eq!(refused(&["--to", "v2=5"], "--yes"), 2, "nobody can be asked in a pipe");
    assert_eq!(refused(&["--undo", "--dry-run", "--yes"], "--dry-run"), 2);
    lab.kubectl(&["annotate", "virtualservice", "-n", "shop", "fx", "argocd.argoproj.io/tracking-id=x"]);
    assert_eq!(refused(&["--to", "v2=5", "--yes"], "--force-owner"), 3);
    lab.kubectl(&["annotate", "virtualservice", "-n", "shop", "fx", "argocd.argoproj.io/tracking-id-"]);
    // What is printed instead can be applied, record and all.
    let printed = lab.grpcmesh(&["shift", "fx.shop", "--to", "v2=15", "--emit", "yaml"]);
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("apiVersion: networking.istio.io/"), "{printed}");
    let before = object(&lab, "virtualservice")["spec"].clone();
    let applied = lab.kubectl_raw(&["apply", "--dry-run=server", "-o", "json", "-f", "-"], &printed);
    let applied: Value = serde_json::from_slice(&applied.stdout).unwrap();
    assert_eq!(applied["spec"]["http"][0]["route"][1]["weight"], 15);
    assert!(applied["metadata"]["annotations"]["grpcmesh.io/shift"].as_str().unwrap().contains("held"));
    assert_eq!(object(&lab, "virtualservice")["spec"], before);
    // Another object that splits the same backends is named, with the command for it.
    let other = VIRTUAL_SERVICE.split("---").last().unwrap().replace("name: fx,", "name: fx-edge,");
    let other = other.replace("hosts: [fx]", "hosts: [fx.example]\n  gateways: [edge]");
    let _other = Scenario::apply_without_waiting(&lab, &other);
    let command = "kubectl grpcmesh shift vs/fx-edge -n shop --rule 0 --to v1=85,v2=15";
    assert_eq!(refused(&["--to", "v2=15", "--dry-run"], command), 0);
    // A pool that takes few calls, and an autoscaler, are told before.
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
    assert_eq!(refused(&["--to", "v2=15", "--dry-run"], "v2 takes 7 calls at a time of each proxy"), 0);
    assert_eq!(refused(&["--to", "v2=15", "--dry-run"], "HorizontalPodAutoscaler shop/fx scales echo-v2"), 0);
    // The canary loses its pods' label.
    let rule = r#"[{"op": "replace", "path": "/spec/subsets/1/labels/version", "value": "v9"}]"#;
    lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", rule]);
    assert_eq!(refused(&["--to", "v2=50", "--yes"], "has no ready pod"), 3);
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 10, "nothing was written");
    assert_eq!(history(&lab)["shifts"], Value::from(Vec::<Value>::new()));
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn nobody_goes_back_to_pods_that_are_gone() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    assert_eq!(shift(&lab, &["--to", "v2=100", "--yes"]).0, 0);
    let rule = r#"[{"op": "replace", "path": "/spec/subsets/0/labels/version", "value": "v9"}]"#;
    lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", rule]);
    let (code, _, errors) = shift(&lab, &["--undo", "--yes"]);
    assert!(code == 3 && errors.contains("which has no ready pod now"), "{code} {errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 100);
    let (code, _, errors) = shift(&lab, &["--undo", "--yes", "--force"]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 10);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn weights_that_cannot_be_compared_are_not_called_run() {
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
    assert_eq!((code, *words(&events).last().unwrap()), (4, "done"), "{errors}");
    assert!(acknowledged["proxies"]["unreachable"].to_string().contains("EnvoyFilter web/fx"), "{acknowledged:#}");
}

/// Shifts from several processes at once: each that is accepted is in the history once, each other one says why.
fn crowd(processes: usize, each: usize) {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    let outcomes: Vec<(i32, Vec<Value>, String)> = std::thread::scope(|scope| {
        let lab = &lab;
        let threads: Vec<_> = (0..processes)
            .map(|process| {
                scope.spawn(move || {
                    let one = |at: usize| {
                        let share = 1 + (process * each + at) * 7 % 98;
                        shift(lab, &["--to", &format!("v2={share}"), "--yes", "--ack", "none"])
                    };
                    (0..each).map(one).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut accepted: BTreeMap<String, usize> = BTreeMap::new();
    for (code, events, errors) in &outcomes {
        let written = events.iter().find(|event| event["event"] == "written");
        match written {
            Some(event) => *accepted.entry(event["session"].as_str().unwrap().to_owned()).or_default() += 1,
            None if *code == 0 => assert!(words(events).contains(&"done"), "it was so already: {events:?}"),
            None => assert!(*code == 3 && errors.contains("hint:"), "{code} {errors}"),
        }
    }
    let history = history(&lab);
    let shifts = history["shifts"].as_array().unwrap();
    let numbers: Vec<u64> = shifts.iter().map(|one| one["number"].as_u64().unwrap()).collect();
    assert!(accepted.len() >= each && accepted.values().all(|count| *count == 1), "{accepted:?}");
    assert_eq!(numbers[0], accepted.len() as u64, "every accepted shift has a number of its own");
    assert!(numbers.windows(2).all(|pair| pair[0] == pair[1] + 1), "{numbers:?}");
    assert!(shifts.iter().all(|one| accepted.contains_key(one["session"].as_str().unwrap())), "{history:#}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn many_at_once_are_each_accepted_once_or_refused() {
    crowd(4, 6);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_a_thousand_at_once() {
    crowd(8, 125);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn one_that_is_killed_is_gone_on_with_or_undone() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"));
    for (at, millis) in [150, 300, 400, 500, 650, 900].into_iter().enumerate() {
        let before = object(&lab, "virtualservice")["spec"].clone();
        let share = format!("v2={}", 20 + at);
        let mut child = lab.spawn_grpcmesh(&["shift", "fx.shop", "--to", &share, "--yes", "-o", "json", "--takeover"]);
        std::thread::sleep(Duration::from_millis(millis));
        child.kill().unwrap();
        child.wait().unwrap();
        let past = history(&lab);
        let open = past["shifts"][0]["state"] == "open";
        let way = if at % 2 == 0 { "--resume" } else { "--undo" };
        let (code, events, errors) = shift(&lab, &[way, "--yes", "--takeover"]);
        if open {
            assert_eq!(code, 0, "{way} after {millis} ms: {events:?} {errors}");
        }
        let now = history(&lab);
        assert_ne!(now["shifts"][0]["state"], "open", "{way} after {millis} ms: {now:#}");
        if open && way == "--undo" {
            assert_eq!(object(&lab, "virtualservice")["spec"], before);
        }
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn the_documented_roles_suffice() {
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
    assert_eq!((code, *words(&events).last().unwrap()), (0, "done"), "{errors}");
    assert_eq!(history(&lab)["shifts"][0]["by"], user);
    // Not to know whether the proxies follow is no reason to take anything back.
    lab.kubectl(&["delete", "clusterrolebinding", "fx-live-reader"]);
    let (code, events, errors) = shift(&lab, &["--to", "v2=42", "--yes", "--ack-timeout", "3s", "--as", user]);
    assert_eq!((code, *words(&events).last().unwrap()), (4, "held"), "{errors}");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"], 42);
    lab.kubectl(&["delete", "clusterrolebinding", "fx-shifter"]);
    let (code, _, errors) = shift(&lab, &["--to", "v2=45", "--yes", "--as", user]);
    assert!(code == 3 && errors.contains("docs/rbac/shifter.yaml"), "{code} {errors}");
}

/// One rule of a role that is taken away, what is tried then, and what is said to be missing.
const WITHOUT: [(&str, &[&str], &str); 5] = [
    ("resources: [virtualservices]", &["shift", "vs/fx.shop", "--to", "v2=20", "--yes"], "patch"),
    ("resources: [httproutes, grpcroutes]", &["shift", "httproute/fx.shop", "--to", "fx-v2=20", "--yes"], "patch"),
    ("resources: [httproutes, grpcroutes]", &["shift", "grpcroute/fx.shop", "--to", "fx-v2=20", "--yes"], "patch"),
    ("resources: [pods/log]", &["tail", "echo", "-n", "shop"], "pods/log"),
    ("resources: [pods/portforward]", &["balance", "echo", "-n", "shop", "--for", "1s"], "pods/portforward"),
];

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn no_rule_of_the_roles_beyond_reading_is_too_much() {
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
    let mut taken = std::collections::BTreeSet::new();
    for (mark, command, missing) in WITHOUT {
        let routes = match command[1].split('/').next() {
            Some("httproute") => gateway_api("HTTPRoute"),
            Some("grpcroute") => gateway_api("GRPCRoute"),
            _ => VIRTUAL_SERVICE.to_owned(),
        };
        let role = if shifter.contains(mark) { shifter } else { live };
        let _objects = Scenario::apply(&lab, &format!("{ROUTES}{routes}---\n{roles}"));
        let (head, rules) = role.split_once("rules:\n").unwrap();
        let all = rules.split_inclusive('\n').collect::<Vec<_>>();
        let kept = all.chunks(3).filter(|rule| !rule.concat().contains(mark));
        let less = kept.flatten().copied().collect::<String>();
        assert!(less.len() < rules.len() && !less.is_empty(), "{mark}");
        taken.insert(mark);
        let applied = lab.kubectl_raw(&["apply", "-f", "-"], &format!("{head}rules:\n{less}"));
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        lab.wait(&format!("without {mark} {command:?} says so"), std::time::Duration::from_secs(20), || {
            let output = lab.grpcmesh(&[command, &["--as", user]].concat());
            let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
            output.status.code() != Some(0) && said.contains(missing)
        });
    }
    let all = [shifter, live].map(|role| role.matches("- apiGroups").count()).iter().sum::<usize>();
    assert_eq!(taken.len(), all, "every rule");
}
