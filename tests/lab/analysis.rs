//! The guard of `shift` on the mesh: steps that real calls decide.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::shift::{ROUTES, VIRTUAL_SERVICE, history, object, shift, words};
use crate::support::mesh::PROMETHEUS;
use crate::support::{Lab, Scenario};

const HOST: &str = "fx.shop.svc.cluster.local:7070";
/// What makes every fifth call to v2 fail, after its answer has begun.
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
/// Windows of seconds, as nobody would use them outside of a test.
const STEPS: [&str; 9] = ["--to", "v2=100", "--steps", "25,50", "--interval", "4s", "--min-requests", "30", "--yes"];

fn scenario(lab: &Lab) -> Scenario<'_> {
    Scenario::apply(lab, &format!("{ROUTES}{VIRTUAL_SERVICE}"))
}

/// `steps` with more words.
fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&STEPS[..], more].concat()
}

/// A shift that runs beside the test.
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

    /// Its exit code, events and messages.
    fn end(mut self) -> (i32, Vec<Value>, String) {
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
    lab.wait(&format!("step {step} is written"), Duration::from_mins(1), || {
        let last = &history(lab)["shifts"][0];
        last["state"] == "open" && last["step"].as_u64() == Some(step)
    });
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn good_calls_lead_through_the_steps() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").keep_calling(&[HOST]);
    for more in [&["--prometheus", PROMETHEUS, "--max-p99", "2s"][..], &[]] {
        let (code, events, errors) = shift(&lab, &with(more));
        let steps: Vec<_> = events.iter().filter(|one| one["event"] == "written").map(|one| &one["step"]).collect();
        assert_eq!((code, steps), (0, vec![&1.into(), &2.into(), &3.into()]), "{more:?} {events:?} {errors}");
        let good = verdicts(&events);
        assert!(good.len() >= 4 && *good.last().unwrap() == "good" && !good.contains(&"bad"), "{good:?}");
        let window = &events.iter().rfind(|one| one["event"] == "window").unwrap()["window"];
        assert!(
            window["canary"]["calls"].as_u64() >= Some(30) && window["observed_share"].as_f64() > Some(0.85),
            "{window}"
        );
        assert_eq!(window["p99_ms"].is_number(), !more.is_empty(), "{window}");
        assert_eq!(weight(&lab), 100);
        let past = &history(&lab)["shifts"][0];
        assert_eq!((&past["state"], &past["step"]), (&"done".into(), &3.into()));
        assert_eq!(past["plan"], Value::from(vec!["v2=25%", "v2=50%", "v2=100%"]));
        let (code, _, errors) = shift(&lab, &["--undo", "--yes"]);
        assert_eq!((code, weight(&lab)), (0, 10.into()), "{errors}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_canary_that_fails_in_trailers_is_taken_back() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").keep_calling(&[&FAILING[..], &[HOST]].concat());
    // What fails already is no baseline: nothing is written.
    let (code, events, errors) = shift(&lab, &with(&[]));
    assert_eq!((code, verdicts(&events)), (3, vec!["bad"]), "{errors}");
    assert!(errors.contains("there is no baseline to compare with"), "{errors}");
    assert_eq!(history(&lab)["shifts"], Value::from(Vec::<Value>::new()));
    assert_eq!(shift(&lab, &["--to", "v2=0", "--yes"]).0, 0);
    for more in [&["--prometheus", PROMETHEUS][..], &[]] {
        let (code, events, errors) = shift(&lab, &with(more));
        assert_eq!((code, weight(&lab)), (1, 0.into()), "{events:?} {errors}");
        assert_eq!(verdicts(&events).last(), Some(&"bad"));
        let window = &events.iter().rfind(|one| one["event"] == "window").unwrap()["window"];
        let of = |side: &str, what: &str| window[side][what].as_f64().unwrap();
        let rate = of("canary", "errors") / of("canary", "calls");
        assert!((0.1..0.3).contains(&rate) && of("baseline", "errors") == 0.0, "{window}");
        let past = &history(&lab)["shifts"][0];
        assert_eq!(
            (&past["state"], &past["verdicts"][1]["verdict"]),
            (&"rolled-back".into(), &"bad".into()),
            "{past:#}"
        );
    }
}

/// The mesh configuration with another line; dropping it puts back what was there.
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
        // istiod reads it from a file that follows.
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
fn logs_judge_where_they_tell_the_status() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let (code, _, errors) = shift(&lab, &with(&["--guard", "logs"]));
    assert!(code == 3 && errors.contains("do not tell the gRPC status"), "{code} {errors}");
    let format = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" %RESPONSE_CODE% %GRPC_STATUS(NUMBER)% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %DURATION% "%REQ(:AUTHORITY)%" %UPSTREAM_CLUSTER_RAW%"#;
    let format = format!("accessLogFormat: {}", Value::from(format!("{format}\n")));
    let _config = MeshConfig::with(&lab, &format);
    assert_eq!(shift(&lab, &["--to", "v2=0", "--yes"]).0, 0);
    let _calls = lab.client("web").keep_calling(&[&FAILING[..], &[HOST]].concat());
    let (code, events, errors) = shift(&lab, &with(&["--guard", "logs", "--max-p99", "2s"]));
    assert_eq!((code, weight(&lab)), (1, 0.into()), "{events:?} {errors}");
    let window = &events.iter().rfind(|one| one["event"] == "window").unwrap()["window"];
    assert!(window["p99_ms"].is_number() && window["source"] == "logs", "{window}");
    assert_eq!(verdicts(&events).last(), Some(&"bad"), "{events:?}");
}

/// The bridge of the lab, on which the API server reaches Services of this machine.
const BRIDGE: &str = "10.199.255.1";

/// Lets what comes to a port of the bridge through to Prometheus.
fn relay() -> u16 {
    let listener = TcpListener::bind((BRIDGE, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(PROMETHEUS.trim_start_matches("http://")).unwrap();
            for (mut from, mut to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    port
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn prometheus_is_asked_through_the_api_server_with_the_documented_role() {
    let lab = Lab::connect();
    let port = relay();
    // The API server only goes to addresses of pods: istiod's is this machine's.
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
metadata: {{name: fx-guard, namespace: legacy}}
---
"
    );
    let roles = [
        ("reader", include_str!("../../docs/rbac/reader.yaml")),
        ("live-reader", include_str!("../../docs/rbac/live-reader.yaml")),
        ("shifter", include_str!("../../docs/rbac/shifter.yaml")),
        ("prometheus", include_str!("../../docs/rbac/prometheus.yaml")),
    ];
    let bound = roles.map(|(name, role)| {
        format!(
            "{role}---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: fx-{name}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: grpcmesh-{name}}}
subjects: [{{kind: ServiceAccount, name: fx-guard, namespace: legacy}}]
---
"
        )
    });
    let _objects =
        Scenario::apply(&lab, &[service, bound.concat(), ROUTES.to_owned(), VIRTUAL_SERVICE.to_owned()].concat());
    let _calls = lab.client("web").keep_calling(&[HOST]);
    let user = "system:serviceaccount:legacy:fx-guard";
    lab.wait("the API server knows the Service", Duration::from_secs(20), || {
        let path = "/api/v1/namespaces/istio-system/services/fx-prometheus:http/proxy/-/ready";
        lab.kubectl_raw(&["get", "--raw", path], "").status.success()
    });
    let through = [
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
    let (code, events, errors) = shift(&lab, &through);
    assert_eq!((code, verdicts(&events).last()), (0, Some(&"good")), "{events:?} {errors}");
    // Without the role nothing is begun.
    lab.kubectl(&["delete", "clusterrolebinding", "fx-prometheus"]);
    let (code, _, errors) = shift(&lab, &[&through[..], &["--to", "v2=60"]].concat()[2..]);
    assert!(code == 3 && errors.contains("the guard's source does not answer"), "{code} {errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn too_little_traffic_and_a_source_that_fails_decide_nothing() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    // A source that sees nothing may be the wrong one.
    let (code, _, errors) = shift(&lab, &with(&["--max-wait", "3s"]));
    assert!(code == 3 && errors.contains("saw no call"), "{code} {errors}");
    let calls = lab.client("web").keep_calling(&["--every", "400ms", HOST]);
    let (code, events, errors) = shift(&lab, &with(&["--max-wait", "6s"]));
    assert_eq!((code, weight(&lab)), (4, 25.into()), "{events:?} {errors}");
    let told = verdicts(&events);
    assert!(told.len() >= 3 && told.iter().all(|one| *one == "not-enough-calls"), "{told:?}");
    assert_eq!(history(&lab)["shifts"][0]["state"], "held");
    // The same command goes on from there, and a held step can be taken back to where it began.
    let (code, events, errors) = shift(&lab, &with(&["--max-wait", "6s", "--on-stall", "rollback"]));
    assert_eq!((code, weight(&lab)), (1, 25.into()), "{events:?} {errors}");
    assert!(events[0]["message"].as_str().unwrap().contains("v2 25% → 50%"), "{:#}", events[0]);

    drop(calls);

    // Counters cannot tell latencies; Prometheus that is away at the start writes nothing.
    let (code, _, errors) = shift(&lab, &with(&["--max-p99", "1s"]));
    assert!(code == 2 && errors.contains("--prometheus"), "{code} {errors}");
    let (code, _, errors) = shift(&lab, &with(&["--prometheus", "http://127.0.0.1:9"]));
    assert!(code == 3 && errors.contains("the guard's source does not answer"), "{code} {errors}");

    // One that goes away in the middle is waited for, and promotes nothing.
    let _calls = lab.client("web").keep_calling(&[HOST]);
    let running = Running::start(&lab, &with(&["--prometheus", PROMETHEUS, "--max-wait", "8s"]));
    wait_for_step(&lab, 1);
    lab.signal("prometheus", "-STOP");
    let (code, events, errors) = running.end();
    lab.signal("prometheus", "-CONT");
    assert_eq!((code, weight(&lab)), (4, 50.into()), "{events:?} {errors}");
    assert_eq!(verdicts(&events).last(), Some(&"unknown"), "{events:?}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn what_happens_in_the_middle_of_a_step() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").keep_calling(&[HOST]);
    let long =
        ["--to", "v2=100", "--steps", "25,60", "--interval", "30s", "--min-requests", "30", "--yes", "--guard", "none"];
    let patch =
        |kind: &str, text: &str| lab.kubectl(&["patch", kind, "-n", "shop", "fx", "--type", "json", "-p", text]);

    // The API server is started anew: the shift goes on.
    let quick = ["--to", "v2=40", "--steps", "20", "--interval", "6s", "--yes", "--min-requests", "30"];
    let running = Running::start(&lab, &quick);
    wait_for_step(&lab, 1);
    lab.restart("kube-apiserver");
    let (code, events, errors) = running.end();
    assert_eq!((code, weight(&lab)), (0, 40.into()), "{events:?} {errors}");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);
    assert_eq!(weight(&lab), 10);

    // Somebody else changes another field, which is kept; then the weights, which are not written over.
    let running = Running::start(&lab, &long);
    wait_for_step(&lab, 1);
    patch("virtualservice", r#"[{"op": "replace", "path": "/spec/http/0/timeout", "value": "9s"}]"#);
    let status = lab.grpcmesh(&["shift", "fx.shop", "--status"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(text.contains("step 1 of 3 (v2=25%, v2=60%, v2=100%)") && text.contains("v1 75, v2 25"), "{text}");
    // A second operator is told, and stops at that.
    let (code, _, errors) = shift(&lab, &["--to", "v2=5", "--yes"]);
    assert!(code == 3 && errors.contains("is not ended"), "{code} {errors}");
    patch("virtualservice", r#"[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 77}]"#);
    let (code, events, errors) = running.end();
    assert_eq!((code, weight(&lab)), (3, 77.into()), "{errors}");
    assert_eq!(*words(&events).last().unwrap(), "lost-control");
    assert_eq!(object(&lab, "virtualservice")["spec"]["http"][0]["timeout"], "9s");
    patch(
        "virtualservice",
        r#"[{"op": "replace", "path": "/spec/http/0/route/1/weight", "value": 10},
        {"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 90}]"#,
    );

    // A second operator takes over: the first writes nothing more. What was lost before stands in nobody's way.
    let running = Running::start(&lab, &long);
    lab.wait("it is written", Duration::from_secs(20), || weight(&lab) == 25);
    let (code, _, errors) = shift(&lab, &["--to", "v2=30", "--yes", "--takeover"]);
    assert_eq!(code, 0, "{errors}");
    let (code, events, errors) = running.end();
    assert_eq!((code, *words(&events).last().unwrap()), (3, "lost-control"), "{errors}");
    assert_eq!(weight(&lab), 30);

    // Asked from elsewhere, it goes back.
    let running = Running::start(&lab, &long);
    lab.wait("it is written", Duration::from_secs(20), || history(&lab)["shifts"][0]["state"] == "open");
    let (code, events, errors) = shift(&lab, &["--abort"]);
    assert_eq!((code, *words(&events).last().unwrap()), (0, "rolled-back"), "{errors}");
    let (code, events, errors) = running.end();
    assert_eq!((code, weight(&lab)), (1, 30.into()), "{errors}");
    let back = events.iter().find(|one| one["event"] == "rolled-back").unwrap();
    assert!(back["message"].as_str().unwrap().contains("aborted by"), "{back}");

    // A signal in the middle of a window: back within moments.
    let running = Running::start(&lab, &long);
    lab.wait("it is written", Duration::from_secs(20), || history(&lab)["shifts"][0]["state"] == "open");
    std::thread::sleep(Duration::from_secs(3));
    let asked = std::time::Instant::now();
    lab.client("web").signal(running.0.id(), "-TERM");
    let (code, _, errors) = running.end();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    assert_eq!((code, weight(&lab)), (130, 30.into()), "{errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_canary_that_is_not_there_any_more_is_taken_back_at_once() {
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
    let long = ["--to", "v2=100", "--steps", "25", "--interval", "40s", "--yes", "--guard", "none"];
    // Its subset goes.
    let running = Running::start(&lab, &long);
    wait_for_step(&lab, 1);
    let patch =
        |text: &str| lab.kubectl(&["patch", "destinationrule", "-n", "shop", "fx", "--type", "json", "-p", text]);
    patch(r#"[{"op": "remove", "path": "/spec/subsets/1"}]"#);
    let (code, events, errors) = running.end();
    let last = events.iter().find(|one| one["event"] == "verdict").unwrap_or_else(|| panic!("{events:?} {errors}"));
    assert!(last["message"].as_str().unwrap().contains("does not exist for it any more"), "{last}");
    assert_eq!((code, weight(&lab)), (1, 10.into()), "{errors}");
    patch(r#"[{"op": "add", "path": "/spec/subsets/-", "value": {"name": "v2", "labels": {"version": "v2"}}}]"#);
    lab.wait_for_envoys();
    // Its pods go.
    let running = Running::start(&lab, &long);
    lab.wait("it is written", Duration::from_secs(20), || history(&lab)["shifts"][0]["state"] == "open");
    let scaled = Scaled(&lab);
    scaled.to("0");
    let (code, events, errors) = running.end();
    let last = events.iter().find(|one| one["event"] == "verdict").unwrap_or_else(|| panic!("{events:?} {errors}"));
    assert!(last["message"].as_str().unwrap().contains("has no ready pod any more"), "{last}");
    assert_eq!((code, weight(&lab)), (1, 10.into()), "{errors}");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn a_shift_in_steps_that_was_killed_is_gone_on_with() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").keep_calling(&[HOST]);
    let mut running = Running::start(&lab, &STEPS);
    wait_for_step(&lab, 2);
    running.0.kill().unwrap();
    running.0.wait().unwrap();
    drop(running);
    let quick = ["--interval", "3s", "--min-requests", "30", "--yes"];
    let (code, _, errors) = shift(&lab, &[&["--resume"][..], &quick].concat());
    assert!(code == 3 && errors.contains("--takeover"), "its time is not over: {code} {errors}");
    let (code, _, errors) = shift(&lab, &[&["--resume", "--takeover"][..], &quick].concat());
    assert!(code == 2 && errors.contains("was judged by counters"), "{code} {errors}");
    let going_on = ["--resume", "--takeover", "--guard", "counters"];
    let (code, events, errors) = shift(&lab, &[&going_on[..], &quick].concat());
    assert_eq!((code, weight(&lab)), (0, 100.into()), "{events:?} {errors}");
    // One step back at a time, if that is asked for.
    assert_eq!(shift(&lab, &["--undo", "--yes", "--rollback-to", "previous"]).0, 0);
    assert_eq!(weight(&lab), 50);
    assert_eq!(history(&lab)["shifts"][0]["state"], "held");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);
    assert_eq!(weight(&lab), 10);
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn on_a_terminal_it_asks_for_what_is_missing_and_between_steps() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    let _calls = lab.client("web").keep_calling(&[HOST]);
    let program =
        format!("{} shift --kubeconfig {}", env!("CARGO_BIN_EXE_kubectl-grpcmesh"), lab.kubeconfig().display());
    let mut terminal = rexpect::spawn(&format!("{program} -n shop"), Some(30_000)).unwrap();
    terminal.exp_string("Whose share?").unwrap();
    terminal.send("j").unwrap();
    terminal.send_line("").unwrap();
    terminal.exp_string("Share of v2?").unwrap();
    for _ in 0..2 {
        terminal.send("k").unwrap();
    }
    terminal.send_line("").unwrap();
    terminal.exp_string("Write these weights?").unwrap();
    terminal.send_line("y").unwrap();
    terminal.exp_string("run the new weights").unwrap();
    terminal.exp_eof().unwrap();
    assert_eq!(weight(&lab), 100, "two steps up from the first preset is the last before \"another\"");
    assert_eq!(shift(&lab, &["--undo", "--yes"]).0, 0);

    let steps = "fx.shop --to v2=100 --steps 30,60 --interval 3s --min-requests 30";
    for (keys, end, wanted) in [("jj", "the weights are as before", 10), ("j", "the new weights stay", 30)] {
        let mut terminal = rexpect::spawn(&format!("{program} {steps}"), Some(60_000)).unwrap();
        terminal.exp_string("Write these weights?").unwrap();
        terminal.send_line("y").unwrap();
        terminal.exp_string("Step 1 of 3 is done. What now?").unwrap();
        terminal.exp_string("roll back").unwrap();
        for key in keys.chars() {
            terminal.send(&key.to_string()).unwrap();
        }
        terminal.send_line("").unwrap();
        terminal.exp_string(end).unwrap();
        terminal.exp_eof().unwrap();
        assert_eq!(weight(&lab), wanted, "{keys}");
    }
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn slow_killed_at_fifty_moments() {
    let lab = Lab::connect();
    let _objects = scenario(&lab);
    // The same moments each time, spread over all that happens.
    let mut random = 12_345_u64;
    for at in 0..50 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let millis = 50 + (random >> 33) % 5_000;
        let before = object(&lab, "virtualservice")["spec"].clone();
        let share = format!("v2={}", 20 + at);
        let arguments =
            ["--to", &share, "--steps", "12,15", "--interval", "700ms", "--yes", "--guard", "none", "--takeover"];
        let mut running = Running::start(&lab, &arguments);
        std::thread::sleep(Duration::from_millis(millis));
        running.0.kill().unwrap();
        running.0.wait().unwrap();
        drop(running);
        let was_open = history(&lab)["shifts"][0]["state"] == "open";
        let way = if at % 2 == 0 { "--resume" } else { "--undo" };
        let (code, events, errors) =
            shift(&lab, &[way, "--yes", "--takeover", "--interval", "500ms", "--guard", "none"]);
        let now = history(&lab);
        assert_ne!(now["shifts"][0]["state"], "open", "{way} after {millis} ms: {now:#}");
        if was_open {
            assert_eq!(code, 0, "{way} after {millis} ms: {events:?} {errors}");
        }
        let spec = object(&lab, "virtualservice")["spec"].clone();
        let weights: Vec<u64> =
            spec["http"][0]["route"].as_array().unwrap().iter().map(|one| one["weight"].as_u64().unwrap()).collect();
        assert_eq!(weights.iter().sum::<u64>(), 100, "{weights:?}");
        if was_open && way == "--undo" {
            assert_eq!(spec, before, "after {millis} ms");
        }
        if was_open && way == "--resume" {
            assert_eq!(weights[1], 20 + at, "after {millis} ms");
        }
    }
}
