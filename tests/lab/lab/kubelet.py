"""The lab's kubelet: pods of the lab node become network namespaces with real processes in them.

It polls the API server and does the work of a kubelet and CRI for each pod: address, network namespace, the iptables rules of the
injected init container, pilot-agent and Envoy, the application, readiness, restarts and termination. kwok serves logs, port-forward
and exec for the same pods; this program configures where it finds them.
"""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request

import process
from api import Api, Failed
from settings import BRIDGE, ISTIOD_HTTP, ISTIOD_MONITORING, NODE, NODE_IP, POD_PREFIX, run

PROXY = "istio-proxy"
INIT = "istio-init"
# Folders that Istio's agent and Envoy expect, with the folders mounted there.
MOUNTS = [
    ("bin", "/usr/local/bin"),
    ("secrets", "/var/run/secrets"),
    ("etc-istio", "/etc/istio"),
    ("var-lib-istio", "/var/lib/istio"),
    ("resolv.conf", "/etc/resolv.conf"),
    ("hosts", "/etc/hosts"),
]
# Ports of a proxy that support port-forward.
ADMIN_PORTS = [15000, 15004, 15020, 15021, 15090]
PROXY_UID, APP_UID = 1337, 1000


def log(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def network_namespace(name):
    return "gml-" + name


def command(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


class Pod:
    """One pod and its processes."""

    def __init__(self, body, bootstrap):
        self.body, self.bootstrap = body, bootstrap
        meta = body["metadata"]
        self.name, self.namespace, self.uid = meta["name"], meta["namespace"], meta["uid"]
        self.path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self.folder = run("pods", f"{self.namespace}_{self.name}")
        self.net = network_namespace(self.name)
        self.api = Api()
        self.ip = None
        self.running = {}
        self.ready = False
        self.gone = False
        self.lock = threading.Lock()

    # ---- spec ----

    def containers(self):
        spec = self.body["spec"]
        return spec.get("initContainers", []) + spec["containers"]

    def container(self, name):
        return next((one for one in self.containers() if one["name"] == name), None)

    def on_host(self):
        return self.body["spec"].get("hostNetwork", False)

    def environment(self, container):
        meta, spec = self.body["metadata"], self.body["spec"]
        fields = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "metadata.uid": self.uid,
            "status.podIP": self.ip,
            "status.podIPs": self.ip,
            "status.hostIP": NODE_IP,
            "spec.nodeName": NODE,
            "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        }
        for kind in ("labels", "annotations"):
            for name, value in meta.get(kind, {}).items():
                fields[f"metadata.{kind}['{name}']"] = value
        found = {}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "fieldRef" in source:
                found[variable["name"]] = fields.get(source["fieldRef"]["fieldPath"], "")
            elif "resourceFieldRef" in source:
                is_cpu = "cpu" in source["resourceFieldRef"]["resource"]
                found[variable["name"]] = "2" if is_cpu else str(1 << 30)
            else:
                found[variable["name"]] = variable.get("value", "")
        return found

    # ---- status ----

    def status(self, phase, ready):
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        say = lambda kind, good: {"type": kind, "status": "True" if good else "False", "lastTransitionTime": now}
        kinds = [("PodScheduled", True), ("Initialized", phase == "Running"), ("ContainersReady", ready), ("Ready", ready)]

        def state(container, is_init):
            once = is_init and container.get("restartPolicy") != "Always"
            if phase != "Running":
                how = {"waiting": {"reason": "PodInitializing"}}
            elif once:
                how = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
            else:
                how = {"running": {"startedAt": now}}
            good = ready or (once and phase == "Running")
            return {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": good,
                "started": good,
                "restartCount": self.running.get(container["name"], {}).get("restarts", 0),
                "state": how,
            }

        spec = self.body["spec"]
        self.api.merge(
            self.path + "/status",
            {
                "status": {
                    "phase": phase,
                    "podIP": self.ip,
                    "podIPs": [{"ip": self.ip}],
                    "hostIP": NODE_IP,
                    "hostIPs": [{"ip": NODE_IP}],
                    "startTime": now,
                    "conditions": [say(*kind) for kind in kinds],
                    "containerStatuses": [state(one, False) for one in spec["containers"]],
                    "initContainerStatuses": [state(one, True) for one in spec.get("initContainers", [])],
                }
            },
        )

    # ---- lifecycle ----

    def up(self):
        """Starts everything and waits until the pod is ready."""
        start = time.monotonic()
        self.status("Pending", False)
        self.debug_surface()
        if self.on_host():
            self.status("Running", True)
            self.ready = True
            return
        for name in ("logs", "pids", "secrets/tokens", "secrets/istio", "secrets/workload-spiffe-uds"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        for name in ("secrets/workload-spiffe-credentials", "secrets/credential-uds", "etc-istio/proxy", "etc-istio/pod"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        for name in ("var-lib-istio/data", "var-lib-istio/envoy"):
            os.makedirs(os.path.join(self.folder, name), exist_ok=True)
        self.network()
        self.files()
        if init := self.container(INIT):
            child = self.spawn(INIT, ["pilot-agent", *init["args"]], self.environment(init), 0)
            if child.wait() != 0:
                log(self.name, "the init container failed; see its log")
                return
        for container in self.containers():
            if container["name"] != INIT:
                self.launch(container)
        self.status("Running", False)
        while not self.gone and not self.answers():
            time.sleep(0.1)
        if not self.gone:
            self.status("Running", True)
            self.ready = True
            log(f"{self.namespace}/{self.name} {self.ip} ready in {time.monotonic() - start:.1f} s")

    def network(self):
        link = "gml" + self.uid[:8]
        command("ip", "netns", "add", self.net)
        command("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", self.net)
        command("ip", "link", "set", link, "master", BRIDGE, "up")
        inside = lambda *words: command("ip", "-n", self.net, *words)
        inside("addr", "add", self.ip + "/16", "dev", "eth0")
        inside("link", "set", "eth0", "up")
        inside("link", "set", "lo", "up")
        inside("route", "add", "default", "via", NODE_IP)
        # Gateways listen on ports below 1024 without being root.
        command("ip", "netns", "exec", self.net, "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0")

    def files(self):
        path = lambda name: os.path.join(self.folder, name)

        def write(name, text):
            with open(path(name), "w") as out:
                out.write(text)

        search = f"{self.namespace}.svc.cluster.local svc.cluster.local cluster.local"
        write("resolv.conf", f"nameserver {NODE_IP}\nsearch {search}\noptions ndots:5\n")
        write("hosts", f"127.0.0.1 localhost\n{self.ip} {self.name}\n{NODE_IP} istiod.istio-system.svc\n")
        if not self.container(PROXY):
            return
        account = self.body["spec"].get("serviceAccountName", "default")
        accounts = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token"
        bound = {"kind": "Pod", "apiVersion": "v1", "name": self.name, "uid": self.uid}
        wish = {"audiences": ["istio-ca"], "expirationSeconds": 43200, "boundObjectRef": bound}
        write("secrets/tokens/istio-token", self.api.post(accounts, {"spec": wish})["status"]["token"])
        root = f"/api/v1/namespaces/{self.namespace}/configmaps/istio-ca-root-cert"
        for _ in range(100):
            # istiod writes it shortly after the namespace is created.
            try:
                write("secrets/istio/root-cert.pem", self.api.get(root)["data"]["root-cert.pem"])
                break
            except Failed:
                time.sleep(0.1)
        for kind in ("labels", "annotations"):
            lines = [f"{name}={json.dumps(value)}\n" for name, value in self.body["metadata"].get(kind, {}).items()]
            write(f"etc-istio/pod/{kind}", "".join(lines))
        with open(self.bootstrap) as template:
            write("var-lib-istio/envoy/envoy_bootstrap_tmpl.json", template.read())
        for name in ("secrets", "etc-istio", "var-lib-istio"):
            command("chown", "-R", f"{PROXY_UID}:{PROXY_UID}", path(name))

    def launch(self, container):
        name, environment = container["name"], self.environment(container)
        words = [*container.get("command", []), *container.get("args", [])]
        for variable, value in environment.items():
            words = [word.replace(f"$({variable})", value) for word in words]
        if name == PROXY:
            words, uid = ["pilot-agent", *words], PROXY_UID
        else:
            uid = APP_UID
        restarts = self.running.get(name, {"restarts": -1})["restarts"] + 1
        self.running[name] = {"process": self.spawn(name, words, environment, uid), "restarts": restarts}

    def spawn(self, name, words, environment, uid):
        """Runs a command in the pod and writes its output to a log in the format of a container runtime."""
        read, write = os.pipe()
        # Envoy reopens /dev/stdout, so its user must own the pipe.
        os.fchown(write, uid, uid)
        mounts = []
        for source, target in MOUNTS:
            source = run("bin") if source == "bin" else os.path.join(self.folder, source)
            mounts.append(f"mount --bind {source} {target}")
        inside = f'{" && ".join(mounts)} && cd / && exec setpriv --reuid {uid} --regid {uid} --clear-groups -- "$@"'
        outside = ["ip", "netns", "exec", self.net, "unshare", "-m", "--propagation", "private", "sh", "-c", inside, "sh"]
        env = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/tmp", **environment}
        child = subprocess.Popen(
            [*outside, *words], env=env, stdin=subprocess.DEVNULL, stdout=write, stderr=write, start_new_session=True
        )
        os.close(write)
        file = os.path.join(self.folder, "logs", name + ".log")
        threading.Thread(target=keep_log, args=(read, file), daemon=True).start()
        process.remember(os.path.join(self.folder, "pids", name), child.pid)
        return child

    def answers(self):
        if self.container(PROXY):
            try:
                url = f"http://{self.ip}:15021/healthz/ready"
                return urllib.request.urlopen(url, timeout=1).status == 200
            except OSError:
                return False
        ports = [port["containerPort"] for one in self.containers() for port in one.get("ports", [])]
        try:
            for port in ports[:1]:
                socket.create_connection((self.ip, port), timeout=0.5).close()
            return True
        except OSError:
            return False

    def tend(self):
        """Restarts processes that died (restartPolicy: Always)."""
        for name, one in list(self.running.items()):
            if one["process"].poll() is not None and not self.gone:
                log("restart", self.name, name)
                # An Envoy outlives a killed agent and would keep the ports.
                ignore(ProcessLookupError, os.killpg, one["process"].pid, signal.SIGKILL)
                self.launch(self.container(name))

    def down(self):
        with self.lock:
            if self.gone:
                return
            self.gone = True
        folder = os.path.join(self.folder, "pids")
        files = [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []
        process.end(files, patience=12.0)
        for one in self.running.values():
            one["process"].poll()
        if not self.on_host():
            process.end_namespace(self.net)
        for plural in ("logs", "portforwards", "execs"):
            ignore(Failed, self.api.delete, f"/apis/kwok.x-k8s.io/v1alpha1/namespaces/{self.namespace}/{plural}/{self.name}")
        ignore(Failed, self.api.delete, self.path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}})
        log("gone", self.name)

    # ---- logs, port-forward and exec ----

    def debug_surface(self):
        names = [one["name"] for one in self.containers()]
        folder = lambda *parts: os.path.join(self.folder, *parts)
        if self.on_host():
            split = lambda text: text.rsplit(":", 1)
            to = lambda port, address: {"ports": [port], "target": {"address": split(address)[0], "port": int(split(address)[1])}}
            forwards = [to(port, f"{NODE_IP}:{port}") for port in (15010, 15012, 15017)]
            forwards += [to(15014, ISTIOD_MONITORING), to(8080, ISTIOD_HTTP)]
            logs = [{"containers": names, "logsFile": run("logs", "istiod.cri.log"), "follow": True}]
            execs = []
        else:
            ports = [port["containerPort"] for one in self.containers() for port in one.get("ports", [])]
            reach = lambda port: ["ip", "netns", "exec", self.net, "socat", "-", f"TCP:127.0.0.1:{port}"]
            forwards = [{"ports": [port], "command": reach(port)} for port in sorted({*ADMIN_PORTS, *ports})]
            logs = [{"containers": [one], "logsFile": folder("logs", one + ".log"), "follow": True} for one in names]
            user = lambda one: str(PROXY_UID if one == PROXY else APP_UID)
            variables = lambda one: {"LAB_PID_FILE": folder("pids", one), "LAB_USER": user(one)}
            pairs = lambda one: [{"name": name, "value": value} for name, value in variables(one).items()]
            execs = [{"containers": [one], "local": {"workDir": "/", "envs": pairs(one)}} for one in names]
        for kind, plural, spec in [
            ("Logs", "logs", {"logs": logs}),
            ("PortForward", "portforwards", {"forwards": forwards}),
            ("Exec", "execs", {"execs": execs}),
        ]:
            version = "kwok.x-k8s.io/v1alpha1"
            body = {"apiVersion": version, "kind": kind, "metadata": {"name": self.name}, "spec": spec}
            self.api.apply(f"/apis/{version}/namespaces/{self.namespace}/{plural}/{self.name}", body)


def ignore(kind, work, *arguments):
    try:
        work(*arguments)
    except kind:
        pass


def keep_log(read, file):
    """Writes each line in the format of a container runtime: time, stream, F for a full line."""
    with os.fdopen(read, "rb") as lines, open(file, "ab", buffering=0) as out:
        for line in lines:
            now = time.time_ns()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)).encode()
            out.write(stamp + b".%09dZ stdout F " % (now % 10**9) + line.rstrip(b"\n") + b"\n")


def resolve_nothing():
    """The upstream DNS server of the agents. It answers NXDOMAIN at once; without an answer, each lookup would take 5 s."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((NODE_IP, 53))
        while True:
            question, sender = server.recvfrom(4096)
            end = question.find(b"\0", 12)
            if end > 0:
                header = question[:2] + b"\x81\x83\0\1" + bytes(6)
                server.sendto(header + question[12 : end + 5], sender)


class Node:
    """All pods of the lab node."""

    def __init__(self, bootstrap):
        self.bootstrap = bootstrap
        self.api = Api()
        self.pods = {}

    def guarded(self, work):
        def careful():
            try:
                work()
            except Failed as failed:
                if failed.status != 404:
                    log("ERROR", work, failed)
            except (OSError, subprocess.CalledProcessError) as failed:
                log("ERROR", work, failed, getattr(failed, "stderr", ""))

        threading.Thread(target=careful, daemon=True).start()

    def step(self):
        if os.path.exists(run("ending")):
            # The lab is stopping: start nothing, and read the logs to their ends.
            return
        # This is the scheduler: unscheduled pods run on the lab node.
        for body in self.api.get("/api/v1/pods?fieldSelector=spec.nodeName%3D")["items"]:
            if not body["metadata"].get("deletionTimestamp"):
                meta = body["metadata"]
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding"
                ignore(Failed, self.api.post, path, binding)
        mine = self.api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{NODE}")["items"]
        used = {pod.ip for pod in self.pods.values()}
        for body in mine:
            uid = body["metadata"]["uid"]
            leaving = "deletionTimestamp" in body["metadata"]
            if uid not in self.pods:
                pod = Pod(body, self.bootstrap)
                free = (f"{POD_PREFIX}{number}" for number in range(1, 255) if f"{POD_PREFIX}{number}" not in used)
                pod.ip = NODE_IP if pod.on_host() else next(free)
                used.add(pod.ip)
                self.pods[uid] = pod
                if not leaving:
                    self.guarded(pod.up)
            pod = self.pods[uid]
            pod.body["metadata"] = body["metadata"]
            if leaving and not pod.gone:
                self.guarded(pod.down)
            elif not leaving:
                pod.tend()
        alive = {body["metadata"]["uid"] for body in mine}
        for uid in [uid for uid in self.pods if uid not in alive]:
            # After a forced deletion, the object is gone before its processes.
            pod = self.pods[uid]
            if pod.gone:
                del self.pods[uid]
            else:
                self.guarded(pod.down)
        self.tell_prometheus()

    def tell_prometheus(self):
        targets = []
        for pod in self.pods.values():
            if pod.ready and not pod.gone and pod.container(PROXY):
                labels = {"namespace": pod.namespace, "pod": pod.name}
                targets.append({"targets": [f"{pod.ip}:15020"], "labels": labels})
        with open(run("targets.json.new"), "w") as out:
            json.dump(targets, out)
        os.replace(run("targets.json.new"), run("targets.json"))

    def serve(self):
        threading.Thread(target=resolve_nothing, daemon=True).start()
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        while True:
            try:
                self.step()
            except (OSError, Failed, ValueError) as failed:
                log("the API server does not answer:", failed)
                time.sleep(0.5)
            time.sleep(0.2)


if __name__ == "__main__":
    import sys

    Node(sys.argv[1]).serve()
