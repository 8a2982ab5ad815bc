//! The lab's programs and pods.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

/// istiod's debug port, see `lab/settings.py`.
const ISTIOD: &str = "http://127.0.0.1:18080";
/// Prometheus.
pub(crate) const PROMETHEUS: &str = "http://127.0.0.1:19090";

/// The running lab.
#[derive(Clone)]
pub(crate) struct Lab {
    folder: PathBuf,
}

/// A pod with a caller or a server in it.
#[derive(Clone)]
pub(crate) struct Pod {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
    folder: PathBuf,
}

/// What the client saw of one call.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Seen {
    /// gRPC status.
    pub(crate) code: i32,
    /// Text of the status, shown when a test fails.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Debug")]
    pub(crate) message: String,
    /// The pod that answered.
    #[serde(default)]
    pub(crate) server: String,
    /// Its version.
    #[serde(default)]
    pub(crate) version: String,
}

impl Lab {
    /// The lab that runs on this machine.
    #[expect(clippy::disallowed_methods, reason = "tests are told by the environment where the lab is")]
    pub(crate) fn connect() -> Self {
        let home = std::env::var("HOME").unwrap_or_default();
        let cache = std::env::var("GRPCMESH_LAB_CACHE").unwrap_or_else(|_| format!("{home}/.cache/grpcmesh-lab"));
        let folder = PathBuf::from(cache).join("lab");
        assert!(folder.join("admin.kubeconfig").exists(), "the lab is not up: run tests/lab/up first");
        Self { folder }
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A path below the lab's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", self.kubeconfig());
        command
    }

    /// Runs kubectl; its output, whatever its exit code.
    pub(crate) fn kubectl_raw(&self, arguments: &[&str], stdin: &str) -> Output {
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

    /// Runs kubectl, which must succeed.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.kubectl_raw(arguments, "");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "kubectl {arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs istioctl, an independent witness.
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

    /// Starts the program under test and lets it run.
    pub(crate) fn spawn_grpcmesh(&self, arguments: &[&str]) -> std::process::Child {
        let mut command = self.command(env!("CARGO_BIN_EXE_kubectl-grpcmesh"));
        command.args(arguments).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    /// Ends one of the lab's own processes and starts it again.
    pub(crate) fn restart(&self, name: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/restart");
        assert!(Command::new(script).arg(name).status().expect("the lab restarts it").success(), "{name}");
    }

    /// Sends a signal to one of the lab's own processes.
    pub(crate) fn signal(&self, name: &str, signal: &str) {
        let pid = self.process(name);
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success(), "{name}");
    }

    /// The JSON answer of the program under test, whatever it found.
    #[track_caller]
    pub(crate) fn inspect(&self, arguments: &[&str]) -> Value {
        let mut words = vec!["inspect", "-o", "json", "--exit-zero"];
        words.extend(arguments);
        let output = self.grpcmesh(&words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{words:?}: {error}\n{stderr}"))
    }

    /// The one running pod of these labels.
    #[track_caller]
    pub(crate) fn pod(&self, namespace: &str, labels: &str) -> Pod {
        self.pods(namespace, labels).into_iter().next().unwrap_or_else(|| panic!("no pod {namespace} {labels}"))
    }

    /// Running pods of these labels.
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

    /// The meshed caller of a namespace: `shop` or `web`.
    pub(crate) fn client(&self, namespace: &str) -> Pod {
        self.pod(namespace, "app=client")
    }

    /// GET of a loopback address.
    pub(crate) fn http(&self, url: &str) -> String {
        let output = Command::new("curl").args(["-fsS", "--max-time", "10", url]).output().unwrap();
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// As [`Self::http`], for addresses with braces in them.
    pub(crate) fn http_raw(&self, url: &str) -> String {
        let output = Command::new("curl").args(["-gfsS", "--max-time", "10", url]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The number of one of the lab's own processes.
    pub(crate) fn process(&self, name: &str) -> String {
        let status = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/status");
        let output = Command::new(status).output().expect("the lab tells its state");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut lines = text.lines().map(str::split_whitespace);
        let found =
            lines.find_map(|mut words| words.next()?.starts_with(name).then(|| words.next().map(str::to_owned))?);
        found.unwrap_or_else(|| panic!("{name} does not run:\n{text}"))
    }

    /// Waits until istiod has sent what it has to every Envoy and each has taken it.
    pub(crate) fn wait_for_envoys(&self) {
        // istiod waits 100 ms for more changes before it pushes.
        std::thread::sleep(Duration::from_millis(400));
        self.wait("every Envoy runs what istiod sent", Duration::from_secs(20), || {
            let text = self.http(&format!("{ISTIOD}/debug/syncz"));
            let proxies: Vec<Value> = serde_json::from_str(&text).unwrap_or_default();
            let in_step = |proxy: &Value| {
                let resources = proxy["resources"].as_object().cloned().unwrap_or_default();
                !resources.is_empty() && resources.values().all(|one| one["sent"] == one["acked"])
            };
            // The proxy of a pod that ends takes nothing any more.
            let pods = self.kubectl(&["get", "pods", "-A", "-o", "json"]);
            let pods: Value = serde_json::from_str(&pods).unwrap();
            let stays = |proxy: &&Value| {
                pods["items"].as_array().unwrap().iter().any(|pod| {
                    let meta = &pod["metadata"];
                    let name = format!("{}.{}", meta["name"].as_str().unwrap(), meta["namespace"].as_str().unwrap());
                    proxy["proxy"] == name.as_str() && meta["deletionTimestamp"].is_null()
                })
            };
            !proxies.is_empty() && proxies.iter().filter(stays).all(in_step)
        });
    }

    /// Asks until something holds; panics with its name when it does not in time.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < limit, "after {limit:?} still not: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until all pods of the application namespaces are ready and none is leaving.
    pub(crate) fn wait_for_pods(&self) {
        self.wait("all pods are ready", Duration::from_mins(1), || {
            let text = self.kubectl(&["get", "pods", "-A", "-o", "json"]);
            let list: Value = serde_json::from_str(&text).unwrap();
            let ready = |pod: &Value| {
                let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
                pod["metadata"]["deletionTimestamp"].is_null()
                    && conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
            };
            list["items"].as_array().unwrap().iter().all(ready)
        });
    }
}

impl Pod {
    /// The pid of a container's program.
    pub(crate) fn pid(&self, container: &str) -> u32 {
        let text = std::fs::read_to_string(self.folder.join("pids").join(container)).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    }

    /// The pid of its Envoy, a child of the agent.
    pub(crate) fn envoy(&self) -> u32 {
        let agent = self.pid("istio-proxy").to_string();
        let output = Command::new("pgrep").args(["-P", &agent, "envoy"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
    }

    /// Sends a signal to a process of the lab.
    pub(crate) fn signal(&self, pid: u32, signal: &str) {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    }

    /// Runs a command inside the pod, as its application's user.
    pub(crate) fn inside(&self, words: &[&str]) -> Output {
        let pid = self.pid("app").to_string();
        Command::new("nsenter")
            .args(["-t", &pid, "-n", "-m", "-S", "1000", "-G", "1000", "--"])
            .args(words)
            .output()
            .unwrap()
    }

    /// Calls from here; one entry a call.
    #[track_caller]
    pub(crate) fn call(&self, arguments: &[&str]) -> Vec<Seen> {
        let mut words = vec!["/usr/local/bin/labapp", "call"];
        words.extend(arguments);
        let output = self.inside(&words);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Calls from here until it is dropped, or until there were so many.
    pub(crate) fn keep_calling(&self, arguments: &[&str]) -> Calling {
        let pid = self.pid("app").to_string();
        let child = Command::new("nsenter")
            .args(["-t", &pid, "-n", "-m", "-S", "1000", "-G", "1000", "--", "/usr/local/bin/labapp", "call"])
            .args(["--count", "12000", "--every", "10ms", "--parallel", "4"])
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Calling(child.unwrap())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("logs/istio-proxy.log")
    }

    /// A mark in the proxy's log: what comes later is read with [`Self::log_since`].
    pub(crate) fn log_mark(&self) -> u64 {
        std::fs::metadata(self.log_file()).map_or(0, |meta| meta.len())
    }

    /// Access-log lines since a mark, without the runtime's prefix. Envoy writes at most a second late.
    pub(crate) fn log_since(&self, mark: u64, at_least: usize) -> Vec<String> {
        let start = Instant::now();
        loop {
            let bytes = std::fs::read(self.log_file()).unwrap();
            let text = String::from_utf8_lossy(&bytes[usize::try_from(mark).unwrap()..]).into_owned();
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

    /// Envoy's answer on its admin port.
    pub(crate) fn admin(&self, path: &str) -> String {
        let url = format!("http://127.0.0.1:15000{path}");
        let output = self.inside(&["/usr/bin/curl", "-fsS", &url]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// A client that calls all the time.
pub(crate) struct Calling(std::process::Child);

impl Drop for Calling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
