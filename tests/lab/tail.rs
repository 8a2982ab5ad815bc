//! `tail` on the live mesh: compares its diagnoses with the outcome that the client observed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Lab, Scenario};

/// A `tail -f -o json` in the background.
struct FollowedTail {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl FollowedTail {
    fn start(lab: &Lab, arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-grpcmesh"))
            .args(["tail", "-f", "--tail", "0", "-o", "json"])
            .args(arguments)
            .env("KUBECONFIG", lab.kubeconfig())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        // The command prints nothing when its streams are open, so the test can only wait.
        std::thread::sleep(Duration::from_millis(1500));
        Self { child, lines }
    }

    /// The next `count` lines, or fewer after a timeout.
    fn next_lines(&self, count: usize) -> Vec<Value> {
        (0..count).filter_map(|_| self.lines.recv_timeout(Duration::from_secs(6)).ok()).collect()
    }

    /// Whether no further line arrives.
    fn is_silent(&self) -> bool {
        self.lines.recv_timeout(Duration::from_secs(2)).is_err()
    }
}

impl Drop for FollowedTail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: tailed, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070}
---
apiVersion: v1
kind: Service
metadata: {name: closed, namespace: shop}
spec:
  selector: {app: echo}
  ports:
  - {name: grpc, port: 7070, targetPort: 7999}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: tailed, namespace: shop}
spec:
  host: tailed
  subsets:
  - {name: v2, labels: {version: v2}}
  - {name: none, labels: {version: v9}}
  - name: tight
    labels: {version: v2}
    trafficPolicy: {connectionPool: {http: {http2MaxRequests: 1}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: tailed, namespace: shop}
spec:
  hosts: [tailed]
  http:
  - {match: [{headers: {x-case: {exact: uh}}}], route: [{destination: {host: tailed, subset: none}}]}
  - {match: [{headers: {x-case: {exact: nc}}}], route: [{destination: {host: tailed, subset: undefined}}]}
  - {match: [{headers: {x-case: {exact: uf}}}], route: [{destination: {host: closed}}]}
  - {match: [{headers: {x-case: {exact: uo}}}], retries: {attempts: 0}, route: [{destination: {host: tailed, subset: tight}}]}
  - {match: [{headers: {x-case: {exact: ut}}}], timeout: 0.3s, retries: {attempts: 0}, route: [{destination: {host: tailed, subset: v2}}]}
  - match: [{headers: {x-case: {exact: fi}}}]
    fault: {abort: {grpcStatus: ABORTED, percentage: {value: 100}}}
    route: [{destination: {host: tailed, subset: v2}}]
  - {match: [{headers: {x-case: {exact: ok}}}], route: [{destination: {host: tailed, subset: v2}}]}
";

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn diagnoses_match_the_outcome_that_the_client_observed() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, SERVICE);
    let client = lab.client("web");
    let tail = FollowedTail::start(&lab, &["pod/x".replace('x', &client.name).as_str(), "-n", "web"]);
    let address = "tailed.shop.svc.cluster.local:7070";
    let call = |case: &str, more: &[&str]| {
        let header = format!("x-case={case}");
        client.call(&[&["--header", header.as_str()], more, &[address]].concat())
    };
    // The case header, further arguments, the expected flag, the expected side, and whether it is a fault.
    let cases: [(&str, &[&str], &str, &str, bool); 9] = [
        ("uh", &[], "UH", "server", true),
        ("nc", &[], "NC", "configuration", true),
        ("nowhere", &[], "NR", "configuration", true),
        ("uf", &[], "URX", "server", true),
        ("ut", &["--header", "x-hang=1s"], "UT", "server", true),
        ("fi", &[], "FI", "configuration", true),
        ("ok", &["--header", "x-delay=2s", "--timeout", "300ms"], "DR", "caller", false),
        ("ok", &["--header", "x-delay=2s", "--cancel-after", "300ms"], "DR", "caller", false),
        ("ok", &["--header", "x-status=5"], "", "server", false),
    ];
    for (case, more, flag, side, fault) in cases {
        let outcomes = call(case, more);
        let lines = tail.next_lines(1);
        let [line] = lines.as_slice() else { panic!("{case}: no line came") };
        let flags: Vec<_> = line["flags"].as_array().unwrap().iter().map(|flag| flag.as_str().unwrap()).collect();
        // Client, proxy and server race to notice the deadline, and a client that exits closes its connection, too.
        let is_expected = match flag {
            "" => flags.is_empty(),
            "DR" => {
                ["DR", "DC", "UT"].iter().any(|flag| flags == [*flag]) || (flags.is_empty() && outcomes[0].code == 4)
            }
            // The server's proxy receives the same deadline and may respond first.
            "UT" => flags.contains(&"UT") || (flags.is_empty() && outcomes[0].code == 4),
            flag => flags.contains(&flag),
        };
        assert!(is_expected, "{case}: {line:#}");
        if flags.contains(&flag) {
            assert_eq!(
                (line["verdict"]["side"].as_str(), line["verdict"]["fault"].as_bool()),
                (Some(side), Some(fault)),
                "{case}: {line:#}"
            );
        }
        // A reported status is the one that the client received.
        if let Some(code) = line["grpc_status"].as_i64() {
            assert!(
                i64::from(outcomes[0].code) == code || flags == ["UT"],
                "{case}: the client got {outcomes:?}: {line:#}"
            );
        }
        assert_eq!(line["side"], "client");
    }
    let outcomes = call("uo", &["--count", "10", "--parallel", "10", "--header", "x-delay=300ms"]);
    let rejected = outcomes.iter().filter(|outcome| outcome.code == 14).count();
    let lines = tail.next_lines(rejected);
    assert!(
        rejected > 0 && lines.iter().all(|line| line["flags"][0] == "UO" && line["verdict"]["side"] == "configuration"),
        "{lines:#?}"
    );
    assert!(tail.is_silent(), "successful calls are not printed");
}

#[test]
#[ignore = "needs the lab: tests/lab/up"]
fn follows_callers_and_new_pods_without_losing_or_repeating_lines() {
    let lab = Lab::connect();
    let _objects = Scenario::apply(&lab, SERVICE);
    let tail = FollowedTail::start(&lab, &["tailed", "-n", "shop", "--callers", "--all"]);
    let address = "tailed.shop.svc.cluster.local:7070";
    for namespace in ["web", "shop"] {
        let client = lab.client(namespace);
        client.call(&["--count", "40", "--parallel", "4", "--header", "x-case=ok", address]);
        // Calls to another Service are not reported.
        client.call(&["--count", "3", "echo.shop.svc.cluster.local:7070"]);
        let lines = tail.next_lines(40);
        let ids: std::collections::BTreeSet<_> = lines.iter().map(|line| line["request_id"].to_string()).collect();
        assert_eq!((lines.len(), ids.len()), (40, 40), "{namespace}");
        assert!(
            lines.iter().all(|line| line["namespace"] == namespace && line["destination"] == "tailed.shop"),
            "{lines:#?}"
        );
    }
    assert!(tail.is_silent());

    lab.kubectl(&["scale", "-n", "web", "deploy/client", "--replicas=2"]);
    lab.wait_until("the second client is ready", Duration::from_secs(30), || lab.pods("web", "app=client").len() == 2);
    lab.wait_for_pods();
    // New pods are discovered every three seconds.
    std::thread::sleep(Duration::from_secs(4));
    for client in lab.pods("web", "app=client") {
        client.call(&["--count", "5", "--header", "x-case=ok", address]);
    }
    let lines = tail.next_lines(10);
    lab.kubectl(&["scale", "-n", "web", "deploy/client", "--replicas=1"]);
    let pods: std::collections::BTreeSet<_> = lines.iter().map(|line| line["pod"].to_string()).collect();
    assert_eq!((lines.len(), pods.len()), (10, 2), "{lines:#?}");
    drop(tail);
    lab.wait_until("one client is left", Duration::from_secs(30), || {
        lab.kubectl(&["get", "pods", "-n", "web", "-l", "app=client", "-o", "name"]).lines().count() == 1
    });
}
