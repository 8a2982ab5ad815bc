//! The lab's programs and pods: kubectl, istioctl, the program under test, and callers inside pods.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// istiod's debug port, see `lab/settings.py`.
const ISTIOD: &str = "http://127.0.0.1:18080";
pub(crate) const PROMETHEUS: &str = "http://127.0.0.1:19090";

/// The running lab.
#[derive(Clone)]
pub(crate) struct Lab {
    folder: PathBuf,
}

/// A pod that runs a client or a server.
#[derive(Clone)]
pub(crate) struct Pod {
    pub(crate) namespace: String,
    pub(crate) name: String,
    folder: PathBuf,
}

/// The result of one call as the client reports it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CallResult {
    /// gRPC status code.
    pub(crate) code: i32,
    /// Status message, shown when a test fails.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Debug")]
    pub(crate) message: String,
    /// Name of the pod that responded.
    #[serde(default)]
    pub(crate) server: String,
    /// Version of that pod.
    #[serde(default)]
    pub(crate) version: String,
}

impl Lab {
    /// Connects to the lab on this machine.
    #[expect(clippy::disallowed_methods, reason = "the environment names the lab's directory")]
    pub(crate) fn connect() -> Self {
        let home = std::env::var("HOME").unwrap_or_default();
        let cache = std::env::var("GRPCMESH_LAB_CACHE").unwrap_or_else(|_| format!("{home}/.cache/grpcmesh-lab"));
        let folder = PathBuf::from(cache).join("lab");
        assert!(folder.join("admin.kubeconfig").exists(), "the lab is not running: start it with tests/lab/up");
        Self { folder }
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A path in the lab's directory.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs kubectl and returns its output for any exit code.
    pub(crate) fn kubectl_output(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut child = self
            .command("kubectl")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    }

    /// Runs kubectl and returns stdout. Panics if it fails.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_output(arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs istioctl, whose output tests compare with the program's. Panics if it fails.
    #[track_caller]
    pub(crate) fn istioctl(&self, arguments: &[&str]) -> String {
        let output = self.command(self.path("bin/istioctl").to_str().unwrap()).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the program under test.
    pub(crate) fn grpcmesh(&self, arguments: &[&str]) -> Output {
        self.command(env!("CARGO_BIN_EXE_kubectl-grpcmesh")).args(arguments).output().unwrap()
    }

    /// Starts the program under test in the background.
    pub(crate) fn spawn_grpcmesh(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_kubectl-grpcmesh"));
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    /// Restarts one of the lab's own processes.
    pub(crate) fn restart(&self, name: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/restart");
        assert!(Command::new(script).arg(name).status().expect("tests/lab/restart runs").success(), "{name}");
    }

    /// Sends a signal to one of the lab's own processes.
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        let pid = self.process_id(name);
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success(), "{name}");
    }

    /// Runs `inspect` and returns its JSON report.
    #[track_caller]
    pub(crate) fn inspect(&self, arguments: &[&str]) -> Value {
        let mut command = vec!["inspect", "-o", "json", "--exit-zero"];
        command.extend(arguments);
        let output = self.grpcmesh(&command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{command:?}: {error}\n{stderr}"))
    }

    /// The first running pod with these labels.
    #[track_caller]
    pub(crate) fn pod(&self, namespace: &str, labels: &str) -> Pod {
        self.pods(namespace, labels).into_iter().next().unwrap_or_else(|| panic!("no pod {namespace} {labels}"))
    }

    /// The running pods with these labels.
    pub(crate) fn pods(&self, namespace: &str, labels: &str) -> Vec<Pod> {
        let names = self.kubectl(&[
            "get",
            "pods",
            "-n",
            namespace,
            "-l",
            labels,
            "--field-selector",
            "status.phase=Running",
            "-o",
            "jsonpath={.items[*].metadata.name}",
        ]);
        let pod = |name: &str| Pod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            folder: self.folder.join("pods").join(format!("{namespace}_{name}")),
        };
        names.split_whitespace().map(pod).collect()
    }

    /// The client pod with a sidecar in a namespace: `shop` or `web`.
    pub(crate) fn client(&self, namespace: &str) -> Pod {
        self.pod(namespace, "app=client")
    }

    /// Sends a GET request to a loopback address. Panics if it fails.
    pub(crate) fn http_get(&self, url: &str) -> String {
        let output = Command::new("curl").args(["-fsS", "--max-time", "10", url]).output().unwrap();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Sends a GET request to a URL that may contain braces, and returns the body even if the request fails.
    pub(crate) fn http_get_literal(&self, url: &str) -> String {
        let output = Command::new("curl").args(["-gfsS", "--max-time", "10", url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The process id of one of the lab's own processes.
    pub(crate) fn process_id(&self, name: &str) -> String {
        let status = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/status");
        let output = Command::new(status).output().expect("tests/lab/status runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().map(str::split_whitespace);
        let id =
            lines.find_map(|mut fields| fields.next()?.starts_with(name).then(|| fields.next().map(str::to_owned))?);
        id.unwrap_or_else(|| panic!("{name} is not running:\n{text}"))
    }

    /// Waits until every Envoy has acknowledged the latest configuration from istiod.
    pub(crate) fn wait_for_envoys(&self) {
        // istiod debounces changes for 100 ms before it pushes them.
        std::thread::sleep(Duration::from_millis(400));
        self.wait_until("every Envoy is synced", Duration::from_secs(20), || {
            let text = self.http_get(&format!("{ISTIOD}/debug/syncz"));
            let proxies: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            let is_synced = |proxy: &Value| {
                let resources = proxy["resources"].as_object().cloned().unwrap_or_default();
                !resources.is_empty() && resources.values().all(|resource| resource["sent"] == resource["acked"])
            };
            // The proxy of a terminating pod acknowledges nothing.
            let pods = self.kubectl(&["get", "pods", "-A", "-o", "json"]);
            let pods: Value = serde_json::from_str(&pods).unwrap();
            let has_running_pod = |proxy: &&Value| {
                pods["items"].as_array().unwrap().iter().any(|pod| {
                    let meta = &pod["metadata"];
                    let name = format!("{}.{}", meta["name"].as_str().unwrap(), meta["namespace"].as_str().unwrap());
                    proxy["proxy"] == name.as_str() && meta["deletionTimestamp"].is_null()
                })
            };
            !proxies.is_empty() && proxies.iter().filter(has_running_pod).all(is_synced)
        });
    }

    /// Polls a condition until it holds. Panics with its description after `limit`.
    #[track_caller]
    pub(crate) fn wait_until(&self, condition: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < limit, "timed out after {limit:?}: {condition}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until all pods are ready and none is terminating.
    pub(crate) fn wait_for_pods(&self) {
        self.wait_until("all pods are ready", Duration::from_mins(1), || {
            let text = self.kubectl(&["get", "pods", "-A", "-o", "json"]);
            let list: Value = serde_json::from_str(&text).unwrap();
            let is_ready = |pod: &Value| {
                let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
                pod["metadata"]["deletionTimestamp"].is_null()
                    && conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
            };
            list["items"].as_array().unwrap().iter().all(is_ready)
        });
    }
}

impl Pod {
    /// The process id of a container's main process.
    pub(crate) fn pid(&self, container: &str) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("pids").join(container)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// The process id of the pod's Envoy, a child of the agent.
    pub(crate) fn envoy_pid(&self) -> u32 {
        let agent = self.pid("istio-proxy").to_string();
        let output = Command::new("pgrep").args(["-P", &agent, "envoy"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    /// Sends a signal to a process of the lab.
    pub(crate) fn signal(&self, pid: u32, signal: &str) {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    /// Runs a command in the pod's namespaces, as the application's user.
    pub(crate) fn exec(&self, command: &[&str]) -> Output {
        let pid = self.pid("app").to_string();
        Command::new("nsenter")
            .args(["-t", &pid, "-n", "-m", "-S", "1000", "-G", "1000", "--"])
            .args(command)
            .output()
            .unwrap()
    }

    /// Makes calls from this pod and returns one result for each.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> Vec<CallResult> {
        let mut command = vec!["/usr/local/bin/labapp", "call"];
        command.extend(arguments);
        let output = self.exec(&command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Makes up to 12000 calls from this pod until the returned value is dropped.
    pub(crate) fn call_in_background(&self, arguments: &[&str]) -> BackgroundCalls {
        let pid = self.pid("app").to_string();
        let child = Command::new("nsenter")
            .args(["-t", &pid, "-n", "-m", "-S", "1000", "-G", "1000", "--", "/usr/local/bin/labapp", "call"])
            .args(["--count", "12000", "--every", "10ms", "--parallel", "4"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        BackgroundCalls(child.unwrap())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("logs/istio-proxy.log")
    }

    /// The current end of the proxy's log. [`Self::log_since`] reads from there.
    pub(crate) fn log_position(&self) -> u64 {
        std::fs::metadata(self.log_file()).map_or(0, |meta| meta.len())
    }

    /// Access-log lines since a position, without the container runtime's prefix. Envoy buffers lines for up to a
    /// second, so this waits for `at_least` lines, at most four seconds.
    pub(crate) fn log_since(&self, position: u64, at_least: usize) -> Vec<String> {
        let start = Instant::now();
        loop {
            let bytes = std::fs::read(self.log_file()).unwrap();
            let text = String::from_utf8_lossy(&bytes[usize::try_from(position).unwrap()..]).into_owned();
            let lines: Vec<String> = text
                .lines()
                .filter_map(|line| line.splitn(4, ' ').nth(3))
                .filter(|line| line.starts_with('['))
                .map(str::to_owned)
                .collect();
            if lines.len() >= at_least || start.elapsed() > Duration::from_secs(4) {
                return lines;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends a GET request to the admin port of the pod's Envoy.
    pub(crate) fn admin(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:15000{path}");
        let output = self.exec(&["/usr/bin/curl", "-fsS", &url]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A client that makes calls in the background; dropping it stops the calls.
pub(crate) struct BackgroundCalls(std::process::Child);

impl Drop for BackgroundCalls {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
