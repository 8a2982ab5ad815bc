//! Canary analysis of `shift` on the mesh: real calls decide the steps.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::shift::{ROUTES, VIRTUAL_SERVICE, event_types, history, object, shift};
use crate::support::mesh::PROMETHEUS;
use crate::support::{Lab, Scenario};

const HOST: &str = "fx.shop.svc.cluster.local:7070";
/// Makes a fifth of the calls to v2 fail in their trailers.
const FAILING: [&str; 8] = [
    "--header",
    "x-status=14",
    "--header",
    "x-status-in=trailers",
    "--header",
    "x-version=v2",
    "--header",
    "x-percent=20",
];
/// Steps with windows of seconds, too short outside of a test.
const STEPS: [&str; 9] = ["--to", "v2=100", "--steps", "25,50", "--interval", "4s", "--min-requests", "30", "--yes"];

fn scenario(lab: &Lab) -> Scenario<'_> {
    Scenario::apply(lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"))
}

/// [`STEPS`] and more arguments.
fn steps_and<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&STEPS[..], more].concat()
}

/// A shift that runs in the background.
struct Running(Child);

impl Running {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
            .env("KUBECONFIG", lab.kubeconfig())
            .args(["shift", "fx.shop", "-o", "json"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Waits for its end and returns exit code, events and stderr.
    fn wait(mut self) -> (i32, Vec<Value>, String) {
        let (mut text, mut errors) = (String::new(), String::new());
        self.0.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.0.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        let code = self.0.wait().unwrap().code().unwrap();
        (code, text.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), errors)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn weight(lab: &Lab) -> Value {
    object(lab, "virtualservice")["spec"]["http"][0]["route"][1]["weight"].clone()
}

fn verdicts(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["verdict"].as_str()).collect()
}

fn wait_for_step(lab: &Lab, step: u64) {
    lab.wait_until(&format!("step {step} is applied"), Duration::from_mins(1), || {
        let last = &history(lab)["shifts"][0];
        last["state"] == "open" && last["step"].as_u64() == Some(step)
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn good_verdicts_advance_through_all_steps() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").call_in_background(&[HOST]);
    for more in [&["--prometheus", PROMETHEUS, "--max-p99", "2s"][..], &[]] {
        let (code, events, errors) = shift(&lab, &steps_and(more));
        let steps: Vec<_> =
            events.iter().filter(|event| event["event"] == "applied").map(|event| &event["step"]).collect();
        assert_eq!((code, steps), (0, vec![&1.into(), &2.into(), &3.into()]), "{more:?} {events:?} {errors}");
        let verdicts = verdicts(&events);
        let is_good = *verdicts.last().unwrap() == "good" && !verdicts.contains(&"bad");
        assert!(verdicts.len() >= 4 && is_good, "{verdicts:?}");
        let window = &events.iter().rfind(|event| event["event"] == "window").unwrap()["window"];
        assert!(
            window["canary"]["calls"].as_u64() >= Some(30) && window["observed_share"].as_f64() > Some(0.85),
            "{window}"
        );
        assert_eq!(window["p99_ms"].is_number(), !more.is_empty(), "{window}");
        assert_eq!(weight(&lab), 100);
        let last = &history(&lab)["shifts"][0];
        assert_eq!((&last["state"], &last["step"]), (&"done".into(), &3.into()));
        assert_eq!(last["plan"], Value::from(vec!["v2=25%", "v2=50%", "v2=100%"]));
        let (code, _, errors) = shift(&lab, &["--undo", "--yes"]);
        assert_eq!((code, weight(&lab)), (0, 10.into()), "{errors}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_canary_that_fails_in_trailers_is_rolled_back() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").call_in_background(&[&FAILING[..], &[HOST]].concat());
    // A failing window cannot be a baseline: the shift does not start.
    let (code, events, errors) = shift(&lab, &steps_and(&[]));
    assert_eq!((code, verdicts(&events)), (3, vec!["bad"]), "{errors}");
    assert!(errors.contains("the baseline fails"), "{errors}");
    assert_eq!(history(&lab)["shifts"], Value::from(Vec::<Value>::new()));
    assert_eq!(shift(&lab, &["--to", "v2=0", "--yes"]).0, 0);
    for more in [&["--prometheus", PROMETHEUS][..], &[]] {
        let (code, events, errors) = shift(&lab, &steps_and(more));
        assert_eq!((code, weight(&lab)), (1, 0.into()), "{events:?} {errors}");
        assert_eq!(verdicts(&events).last(), Some(&"bad"));
        let window = &events.iter().rfind(|event| event["event"] == "window").unwrap()["window"];
        let count = |cohort: &str, field: &str| window[cohort][field].as_f64().unwrap();
        let error_ratio = count("canary", "errors") / count("canary", "calls");
        assert!((0.1..0.3).contains(&error_ratio) && count("baseline", "errors") == 0.0, "{window}");
        let last = &history(&lab)["shifts"][0];
        assert_eq!(
            (&last["state"], &last["verdicts"][1]["verdict"]),
            (&"rolled-back".into(), &"bad".into()),
            "{last:#}"
        );
    }
}

/// The mesh configuration with one more line; dropping it restores the original.
struct MeshConfig<'a> {
    lab: &'a Lab,
    before: String,
}

impl<'a> MeshConfig<'a> {
    fn with(lab: &'a Lab, line: &str) -> Self {
        let before = lab.kubectl(&["get", "configmap", "-n", "istio-system", "istio", "-o", "jsonpath={.data.mesh}"]);
        let config = Self { lab, before };
        config.write(&format!("{}\n{line}\n", config.before.trim_end()));
        config
    }

    fn write(&self, mesh: &str) {
        let patch = serde_json::json!({"data": {"mesh": mesh}}).to_string();
        self.lab.kubectl(&["patch", "configmap", "-n", "istio-system", "istio", "--type", "merge", "-p", &patch]);
        // istiod reads the ConfigMap from a mounted file, which is updated with a delay.
        std::thread::sleep(Duration::from_secs(1));
        self.lab.wait_for_envoys();
    }
}

impl Drop for MeshConfig<'_> {
    fn drop(&mut self) {
        self.write(&self.before.clone());
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn analysis_by_logs_needs_the_grpc_status_in_the_log_format() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let (code, _, errors) = shift(&lab, &steps_and(&["--analysis", "logs"]));
    assert!(code == 3 && errors.contains("have no gRPC status"), "{code} {errors}");
    let format = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %GRPC_STATUS(NUMBER)% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DURATION% "%REQ(:AUTHORITY)%" %UPSTREAM_CLUSTER_RAW%"#;
    let format = format!("accessLogFormat: {}", Value::from(format!("{format}\n")));
    let _config = MeshConfig::with(&lab, &format);
    assert_eq!(shift(&lab, &["--to", "v2=0", "--yes"]).0, 0);
    let _calls = lab.client("web").call_in_background(&[&FAILING[..], &[HOST]].concat());
    let (code, events, errors) = shift(&lab, &steps_and(&["--analysis", "logs", "--max-p99", "2s"]));
    assert_eq!((code, weight(&lab)), (1, 0.into()), "{events:?} {errors}");
    let window = &events.iter().rfind(|event| event["event"] == "window").unwrap()["window"];
    assert!(window["p99_ms"].is_number() && window["source"] == "logs", "{window}");
    assert_eq!(verdicts(&events).last(), Some(&"bad"), "{events:?}");
}

/// The address of this machine on the bridge of the lab, through which the API server reaches its Services.
const BRIDGE: &str = "10.199.255.1";

/// Forwards a port of the bridge to Prometheus.
fn forward_prometheus() -> u16 {
    let listener = TcpListener::bind((BRIDGE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(PROMETHEUS.trim_start_matches("http://")).unwrap();
            for (mut reader, mut writer) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut reader, &mut writer);
                    let _ = writer.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn prometheus_is_queried_through_the_api_server_with_the_documented_role() {
    let lab = Lab::connect();
    let port = forward_prometheus();
    // The API server only proxies to addresses of pods, so the endpoint claims to be istiod's pod, which has this
    // address.
    let pod = lab.pod("istio-system", "app=istiod").name;
    let service = format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: fx-prometheus, namespace: istio-system}}
spec:
  ports:
  - {{name: http, port: 9090, targetPort: {port}}}
---
apiVersion: v1
kind: Endpoints
metadata: {{name: fx-prometheus, namespace: istio-system}}
subsets:
- addresses: [{{ip: {BRIDGE}, targetRef: {{kind: Pod, name: {pod}, namespace: istio-system}}}}]
  ports: [{{name: http, port: {port}}}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: fx-analysis, namespace: legacy}}
---
"
    );
    let roles = [
        ("reader", include_str!("../../docs/rbac/reader.yaml")),
        ("live-reader", include_str!("../../docs/rbac/live-reader.yaml")),
        ("shifter", include_str!("../../docs/rbac/shifter.yaml")),
        ("prometheus", include_str!("../../docs/rbac/prometheus.yaml")),
    ];
    let bindings = roles.map(|(name, role)| {
        format!(
            "{role}---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: fx-{name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-{name}}}
subjects: [{{kind: ServiceAccount, name: fx-analysis, namespace: legacy}}]
---
"
        )
    });
    let _objects =
        Scenario::apply(&lab, &[service, bindings.concat(), ROUTES.to_owned(), VIRTUAL_SERVICE.to_owned()].concat());
    let _calls = lab.client("web").call_in_background(&[HOST]);
    let user = "system:serviceaccount:legacy:fx-analysis";
    lab.wait_until("the API server reaches the Service", Duration::from_secs(20), || {
        let path = "/api/v1/namespaces/istio-system/services/fx-prometheus:http/proxy/-/ready";
        lab.kubectl_output(&["get", "--raw", path], "").status.success()
    });
    let arguments = [
        "--to",
        "v2=50",
        "--watch",
        "--interval",
        "5s",
        "--min-requests",
        "30",
        "--yes",
        "--as",
        user,
        "--prometheus",
        "istio-system/fx-prometheus:http",
    ];
    let (code, events, errors) = shift(&lab, &arguments);
    assert_eq!((code, verdicts(&events).last()), (0, Some(&"good")), "{events:?} {errors}");
    // Without the role the shift does not start.
    lab.kubectl(&["delete", "clusterrolebinding", "fx-prometheus"]);
    let (code, _, errors) = shift(&lab, &[&arguments[..], &["--to", "v2=60"]].concat()[2..]);
    assert!(code == 3 && errors.contains("cannot count calls for the baseline"), "{code} {errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn too_few_calls_and_a_failing_source_neither_promote_nor_roll_back() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    // A source without any calls may be the wrong one.
    let (code, _, errors) = shift(&lab, &steps_and(&["--max-wait", "3s"]));
    assert!(code == 3 && errors.contains("no calls to these backends"), "{code} {errors}");
    let calls = lab.client("web").call_in_background(&["--every", "400ms", HOST]);
    let (code, events, errors) = shift(&lab, &steps_and(&["--max-wait", "6s"]));
    assert_eq!((code, weight(&lab)), (4, 25.into()), "{events:?} {errors}");
    let all = verdicts(&events);
    assert!(all.len() >= 3 && all.iter().all(|verdict| *verdict == "not-enough-calls"), "{all:?}");
    assert_eq!(history(&lab)["shifts"][0]["state"], "held");
    // The same command continues from there, and a rollback restores the weights from before that run.
    let (code, events, errors) = shift(&lab, &steps_and(&["--max-wait", "6s", "--on-stall", "rollback"]));
    assert_eq!((code, weight(&lab)), (1, 25.into()), "{events:?} {errors}");
    assert!(events[0]["message"].as_str().unwrap().contains("v2 25% → 50%"), "{:#}", events[0]);

    drop(calls);

    // Counters have no latencies. If Prometheus is unreachable, the shift does not start.
    let (code, _, errors) = shift(&lab, &steps_and(&["--max-p99", "1s"]));
    assert!(code == 2 && errors.contains("--prometheus"), "{code} {errors}");
    let (code, _, errors) = shift(&lab, &steps_and(&["--prometheus", "http://127.0.0.1:9"]));
    assert!(code == 3 && errors.contains("cannot count calls for the baseline"), "{code} {errors}");

    // If Prometheus becomes unreachable during a step, the shift waits and does not advance.
    let _calls = lab.client("web").call_in_background(&[HOST]);
    let running = Running::start(&lab, &steps_and(&["--prometheus", PROMETHEUS, "--max-wait", "8s"]));
    wait_for_step(&lab, 1);
    lab.signal("prometheus", "-STOP");
    let (code, events, errors) = running.wait();
    lab.signal("prometheus", "-CONT");
    assert_eq!((code, weight(&lab)), (4, 50.into()), "{events:?} {errors}");
    assert_eq!(verdicts(&events).last(), Some(&"unknown"), "{events:?}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn reacts_to_everything_that_happens_during_a_step() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").call_in_background(&[HOST]);
    let long = [
        "--to",
        "v2=100",
        "--steps",
        "25,60",
        "--interval",
        "30s",
        "--min-requests",
        "30",
        "--yes",
        "--analysis",
        "none",
    ];
    let patch =
        |kind: &str, text: &str| lab.kubectl(&["patch", kind, "-n", "shop", "fx", "--type", "json", "-p", text]);

    // The API server restarts: the shift continues.
    let short = ["--to", "v2=40", "--steps", "20", "--interval", "6s", "--yes", "--min-requests", "30"];
    let running = Running::start(&lab, &short);
    wait_for_step(&lab, 1);
    lab.restart("kube-apiserver");
    let (code, events, errors) = running.wait();
    assert_eq!((code, weight(&lab)), (0, 40.into()), "{events:?} {errors}");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);
    assert_eq!(weight(&lab), 10);

    // Another client changes another field, which is kept; then the weights, which are not overwritten.
    let running = Running::start(&lab, &long);
    wait_for_step(&lab, 1);
    patch("virtualservice", r#"[{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}]"#);
    let status = lab.grpcmesh(&["shift", "fx.shop", "--status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("step 1 of 3 (v2=25%, v2=60%, v2=100%)") && text.contains("v1 75, v2 25"), "{text}");
    // A second shift is rejected.
    let (code, _, errors) = shift(&lab, &["--to", "v2=5", "--yes"]);
    assert!(code == 3 && errors.contains("another shift is in progress"), "{code} {errors}");
    patch("virtualservice", r#"[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 77}]"#);
    let (code, events, errors) = running.wait();
    assert_eq!((code, weight(&lab)), (3, 77.into()), "{errors}");
    assert_eq!(*event_types(&events).last().unwrap(), "lost-control");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["timeout"], "9s");
    patch(
        "virtualservice",
        r#"[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 10},
        {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 90}]"#,
    );

    // A second session takes over: the first writes nothing more. The shift that lost control above blocks neither.
    let running = Running::start(&lab, &long);
    lab.wait_until("the weights are applied", Duration::from_secs(20), || weight(&lab) == 25);
    let (code, _, errors) = shift(&lab, &["--to", "v2=30", "--yes", "--takeover"]);
    assert_eq!(code, 0, "{errors}");
    let (code, events, errors) = running.wait();
    assert_eq!((code, *event_types(&events).last().unwrap()), (3, "lost-control"), "{errors}");
    assert_eq!(weight(&lab), 30);

    // --abort in another process rolls back.
    let running = Running::start(&lab, &long);
    lab.wait_until("the weights are applied", Duration::from_secs(20), || {
        history(&lab)["shifts"][0]["state"] == "open"
    });
    let (code, events, errors) = shift(&lab, &["--abort"]);
    assert_eq!((code, *event_types(&events).last().unwrap()), (0, "rolled-back"), "{errors}");
    let (code, events, errors) = running.wait();
    assert_eq!((code, weight(&lab)), (1, 30.into()), "{errors}");
    let rolled_back = events.iter().find(|event| event["event"] == "rolled-back").unwrap();
    assert!(rolled_back["message"].as_str().unwrap().contains("aborted by"), "{rolled_back}");
    assert_eq!(rolled_back["rollback_target"], "start");

    // A signal during a window rolls back within seconds.
    let running = Running::start(&lab, &long);
    lab.wait_until("the weights are applied", Duration::from_secs(20), || {
        history(&lab)["shifts"][0]["state"] == "open"
    });
    std::thread::sleep(Duration::from_secs(3));
    let signaled = std::time::Instant::now();
    lab.client("web").signal(running.0.id(), "-TERM");
    let (code, _, errors) = running.wait();
    assert!(signaled.elapsed() < Duration::from_secs(8), "{:?}", signaled.elapsed());
    assert_eq!((code, weight(&lab)), (130, 30.into()), "{errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn an_unreachable_canary_is_rolled_back_immediately() {
    struct Scaled<'a>(&'a Lab);
    impl Scaled<'_> {
        fn to(&self, replicas: &str) {
            self.0.kubectl(&["scale", "deployment", "-n", "shop", "echo-v2", &format!("--replicas={replicas}")]);
        }
    }
    impl Drop for Scaled<'_> {
        fn drop(&mut self) {
            self.to("1");
            self.0.wait_for_pods();
        }
    }
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let long = ["--to", "v2=100", "--steps", "25", "--interval", "40s", "--yes", "--analysis", "none"];
    // Its subset is deleted.
    let running = Running::start(&lab, &long);
    wait_for_step(&lab, 1);
    let patch =
        |text: &str| lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", text]);
    patch(r#"[{"op": "remove", "path": "/spec/subsets/1"}]"#);
    let (code, events, errors) = running.wait();
    let verdict =
        events.iter().find(|event| event["event"] == "verdict").unwrap_or_else(|| panic!("{events:?} {errors}"));
    assert!(verdict["message"].as_str().unwrap().contains("no longer exists"), "{verdict}");
    assert_eq!((code, weight(&lab)), (1, 10.into()), "{errors}");
    patch(r#"[{"op": "add", "path": "/spec/subsets/-", "value": {"name": "v2", "labels": {"version": "v2"}}}]"#);
    lab.wait_for_envoys();
    // Its pods are deleted.
    let running = Running::start(&lab, &long);
    lab.wait_until("the weights are applied", Duration::from_secs(20), || {
        history(&lab)["shifts"][0]["state"] == "open"
    });
    let scaled = Scaled(&lab);
    scaled.to("0");
    let (code, events, errors) = running.wait();
    let verdict =
        events.iter().find(|event| event["event"] == "verdict").unwrap_or_else(|| panic!("{events:?} {errors}"));
    assert!(verdict["message"].as_str().unwrap().contains("no longer has a ready pod"), "{verdict}");
    assert_eq!((code, weight(&lab)), (1, 10.into()), "{errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_killed_shift_in_steps_can_be_resumed() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").call_in_background(&[HOST]);
    let mut running = Running::start(&lab, &STEPS);
    wait_for_step(&lab, 2);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    drop(running);
    let limits = ["--interval", "3s", "--min-requests", "30", "--yes"];
    let (code, _, errors) = shift(&lab, &[&["--resume"][..], &limits].concat());
    assert!(code == 3 && errors.contains("--takeover"), "its deadline has not passed: {code} {errors}");
    let (code, _, errors) = shift(&lab, &[&["--resume", "--takeover"][..], &limits].concat());
    assert!(code == 2 && errors.contains("canary analysis by envoy"), "{code} {errors}");
    let resume = ["--resume", "--takeover", "--analysis", "envoy"];
    let (code, events, errors) = shift(&lab, &[&resume[..], &limits].concat());
    assert_eq!((code, weight(&lab)), (0, 100.into()), "{events:?} {errors}");
    // Roll back one step, then the whole shift.
    assert_eq!(shift(&lab, &["--undo", "--yes", "--rollback-to", "previous"]).0, 0);
    assert_eq!(weight(&lab), 50);
    assert_eq!(history(&lab)["shifts"][0]["state"], "held");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);
    assert_eq!(weight(&lab), 10);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn asks_for_missing_arguments_and_between_steps_on_a_terminal() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").call_in_background(&[HOST]);
    let program =
        format!("{} shift --kubeconfig {}", env!("CARGO_BIN_EXE_kubectl-grpcmesh"), lab.kubeconfig().display());
    let mut terminal = rexpect::spawn(&format!("{program} -n shop"), Some(30_000)).unwrap();
    terminal.exp_string("Which backend?").unwrap();
    terminal.send("j").unwrap();
    terminal.send_line("").unwrap();
    terminal.exp_string("New share of v2?").unwrap();
    for _ in 0..2 {
        terminal.send("k").unwrap();
    }
    terminal.send_line("").unwrap();
    terminal.exp_string("Apply these weights?").unwrap();
    terminal.send_line("y").unwrap();
    terminal.exp_string("run the new weights").unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!(weight(&lab), 100, "two items up from the first preset is 100%, the last before \"other\"");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);

    let steps = "fx.shop --to v2=100 --steps 30,60 --interval 3s --min-requests 30";
    for (keys, output, expected) in [("jj", "restored the weights from before", 10), ("j", "the new weights stay", 30)]
    {
        let mut terminal = rexpect::spawn(&format!("{program} {steps}"), Some(60_000)).unwrap();
        terminal.exp_string("Apply these weights?").unwrap();
        terminal.send_line("y").unwrap();
        terminal.exp_string("Step 1 of 3 is done. What next?").unwrap();
        terminal.exp_string("roll back").unwrap();
        for key in keys.chars() {
            terminal.send(&key.to_string()).unwrap();
        }
        terminal.send_line("").unwrap();
        terminal.exp_string(output).unwrap();
        terminal.exp_eof().unwrap();
        assert_eq!(weight(&lab), expected, "{keys}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_a_shift_killed_at_any_moment_can_be_resumed_or_undone() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    // A fixed sequence of delays, spread over the whole shift.
    let mut random = 12_345_u64;
    for index in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let millis = 50 + (random >> 33) % 5_000;
        let before = object(&lab, "virtualservice")["spec"].clone();
        let share = format!("v2={}", 20 + index);
        let arguments =
            ["--to", &share, "--steps", "12,15", "--interval", "700ms", "--yes", "--analysis", "none", "--takeover"];
        let mut running = Running::start(&lab, &arguments);
        std::thread::sleep(Duration::from_millis(millis));
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        drop(running);
        let was_open = history(&lab)["shifts"][0]["state"] == "open";
        let flag = if index % 2 == 0 { "--resume" } else { "--undo" };
        let (code, events, errors) =
            shift(&lab, &[flag, "--yes", "--takeover", "--interval", "500ms", "--analysis", "none"]);
        let now = history(&lab);
        assert_ne!(now["shifts"][0]["state"], "open", "{flag} after {millis} ms: {now:#}");
        if was_open {
            assert_eq!(code, 0, "{flag} after {millis} ms: {events:?} {errors}");
        }
        let spec = object(&lab, "virtualservice")["spec"].clone();
        let weights: Vec<u64> = spec["http"][0]["route"]
            .as_array()
            .unwrap()
            .iter()
            .map(|backend| backend["weight"].as_u64().unwrap())
            .collect();
        assert_eq!(weights.iter().sum::<u64>(), 100, "{weights:?}");
        if was_open && flag == "--undo" {
            assert_eq!(spec, before, "after {millis} ms");
        }
        if was_open && flag == "--resume" {
            assert_eq!(weights[1], 20 + index, "after {millis} ms");
        }
    }
}
