#!/usr/bin/env python3
"""Measures time and memory of whole processes, and compares them with other programs: `inspect` and `route` on generated meshes with
`istioctl analyze` (if on PATH), and `tail --summary` on large logs with `wc`, `grep`, `awk` and `jq`. Also measures `tail -f` of
many pods on a fake API server on loopback.

    scripts/figures.py [SERVICES ...]          (default: 1000 10000 100000)
    scripts/figures.py logs [MEGABYTES]        (default: 400)
    scripts/figures.py follow [PODS]           (default: 500)

Each line is the median of several runs. Times depend on the machine, so compare only lines of one run.
"""
import http.server
import json
import os
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PODS_PER_SERVICE = 3
CALLS = 10_000
CALLERS = 20
PROGRAM = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")


def measure(command, runs):
    """Returns median wall seconds, median CPU seconds, and peak memory in MB."""
    wall, cpu, memory = [], [], []
    for _ in range(runs):
        start = os.times().elapsed
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, _, usage = os.wait4(process.pid, 0)
        wall.append(os.times().elapsed - start)
        cpu.append(usage.ru_utime + usage.ru_stime)
        memory.append(usage.ru_maxrss / 1024)
    return statistics.median(wall), statistics.median(cpu), max(memory)


def calls(mesh, path):
    """Writes calls from a few pods to random Services."""
    objects = {"Service": [], "Pod": []}
    pattern = re.compile(r"^kind: (Service|Pod)$.*?^  name: (\S+)$.*?^  namespace: (\S+)$", re.M | re.S)
    with open(mesh) as text:
        for document in text.read().split("\n---\n"):
            match = pattern.search(document)
            if match:
                objects[match.group(1)].append(match.group(2, 3))
    generator = random.Random(1)
    pods = generator.sample(objects["Pod"], CALLERS)
    with open(path, "w") as out:
        for number in range(CALLS):
            (pod, pod_namespace), (name, namespace) = generator.choice(pods), generator.choice(objects["Service"])
            call = {"id": str(number), "caller": f"{pod_namespace}/{pod}", "authority": f"{name}.{namespace}:50051", "path": "/shop.Cart/Get"}
            out.write(json.dumps(call) + "\n")


def healthy_log(name, lines):
    """Generates the log of a healthy mesh, in the order of time: 49 of 50 calls succeed."""
    generator = random.Random(1)
    if name == "text":
        success = re.compile(rb'^\[.* HTTP/2" 200 - via_upstream - "-" \d+ [1-9]')
    else:
        success = re.compile(rb'^(?!.*"bytes_sent":0,).*"response_code":200,"response_code_details":"via_upstream","response_flags":"-"')
    successes = [line for line in lines if success.search(line)]
    timestamp = re.compile(rb"2026-11-2\d\d?T\d\d:\d\d:\d\d\.\d{3}Z")
    block = []
    for milliseconds in range(20_000):
        line = generator.choice(lines if generator.random() < 0.02 else successes)
        now = b"2026-11-20T23:%02d:%02d.%03dZ" % (milliseconds // 60_000, milliseconds // 1000 % 60, milliseconds % 1000)
        block.append(timestamp.sub(now, line, count=1))
    return b"".join(block)


def logs(megabytes):
    ours = os.path.join(PROGRAM, "kubectl-grpcmesh")
    fixtures = os.path.join(ROOT, "tests", "fixtures", "accesslog")
    print(f"{'log':<14} {'MB':>5}  {'program':<44} {'wall s':>7} {'CPU s':>7} {'MB':>5}  ratio to wc -l")
    with tempfile.TemporaryDirectory() as folder:
        for name, is_healthy in (("text", True), ("json", True), ("text", False), ("json", False)):
            with open(os.path.join(fixtures, f"istio-{name}.log"), "rb") as file:
                lines = file.read()
            lines = healthy_log(name, lines.splitlines(keepends=True)) if is_healthy else lines
            path = os.path.join(folder, name + ".log")
            with open(path, "wb") as out:
                for _ in range(megabytes * 1_000_000 // len(lines)):
                    out.write(lines)
            tools = {"text": ["awk"], "json": ["jq"]}[name] if is_healthy else []
            # The pattern that is closest to the lines that the summary counts.
            flag_pattern = {"text": '" [0-9]* [A-Z]', "json": '"response_flags":"[A-Z]'}[name]
            label = name if is_healthy else name + ", failing"
            rows = [
                ("wc -l", ["wc", "-l", path]),
                # With output to /dev/null, grep would stop at the first match.
                ("grep -c URX", ["sh", "-c", f"grep -c URX {path} | cat"]),
                ("grep -c, lines with a flag", ["sh", "-c", f"LC_ALL=C grep -c '{flag_pattern}' {path} | cat"]),
                ("tail --summary", [ours, "tail", "--logs", path, "--summary"]),
                ("tail --summary on one core", ["taskset", "-c", "0", ours, "tail", "--logs", path, "--summary"]),
            ]
            if "awk" in tools:
                rows.append(("awk, counting the sixth field", ["awk", "{count[$6]++} END {for (flag in count) print flag, count[flag]}", path]))
            if "jq" in tools and shutil.which("jq"):
                rows.append(("jq, printing the flags", ["jq", "-r", ".response_flags?", path]))
            base = None
            for program, command in rows:
                wall, cpu, memory = measure(command, 3)
                base = base or wall
                print(f"{label:<14} {megabytes:>5}  {program:<44} {wall:>7.2f} {cpu:>7.2f} {memory:>5.0f}  {wall / base:.1f}", flush=True)
            os.remove(path)


SECONDS = 15
LINES_PER_SECOND = 10


class Cluster(http.server.BaseHTTPRequestHandler):
    """A fake API server that serves pods and their growing logs."""
    protocol_version = "HTTP/1.1"
    pods = 0
    sent = 0

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.endswith("/log"):
            self.follow()
        elif path.endswith("/pods"):
            pods = [{"metadata": {"name": f"echo-{n}", "namespace": "shop", "uid": f"uid-{n}", "labels": {"app": "echo"}},
                     "spec": {"containers": [{"name": "app"}, {"name": "istio-proxy"}]},
                     "status": {"phase": "Running", "podIP": f"10.1.{n // 250}.{n % 250}"}} for n in range(self.pods)]
            self.answer(200, {"kind": "PodList", "metadata": {}, "items": pods})
        else:
            self.answer(404, {"kind": "Status", "reason": "NotFound", "code": 404})

    def answer(self, code, body):
        body = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def follow(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        line = '[%s] "POST /echo.Echo/Say HTTP/2" 200 UF upstream_reset_before_response_started{x} - "-" 10 0 1 - "-" "grpc-go/1.80" "%s" "echo.shop:50051" "10.0.0.1:50051" outbound|50051||echo.shop.svc.cluster.local - 10.96.0.1:50051 10.1.0.1:40000 - default\n'
        try:
            for _ in range((SECONDS + 5) * LINES_PER_SECOND):
                now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() % 10**9:09d}Z"
                text = (now + " " + line % (now[:23] + "Z", uuid.uuid4())).encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
                Cluster.sent += 1
                time.sleep(1 / LINES_PER_SECOND)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            pass


def follow(pods):
    """Measures memory and CPU while following many pods, and counts the lines received."""
    Cluster.pods = pods
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cluster)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "config")
        with open(config, "w") as out:
            json.dump({"apiVersion": "v1", "kind": "Config", "current-context": "lab",
                       "clusters": [{"name": "lab", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                       "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab", "namespace": "shop"}}],
                       "users": [{"name": "lab", "user": {}}]}, out)
        output = os.path.join(folder, "out")
        command = [os.path.join(PROGRAM, "kubectl-grpcmesh"), "tail", "-l", "app=echo", "-f", "-o", "json",
                   "--max-log-requests", str(pods), "--kubeconfig", config]
        with open(output, "wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
            time.sleep(SECONDS)
            process.send_signal(signal.SIGINT)
            _, status, usage = os.wait4(process.pid, 0)
        with open(output, "rb") as out:
            lines = out.read().count(b"\n")
    print(f"{pods} pods followed for {SECONDS} s: {lines} calls printed of {Cluster.sent} lines sent, "
          f"{usage.ru_maxrss / 1024:.0f} MB, {usage.ru_utime + usage.ru_stime:.2f} s CPU, exit code {os.waitstatus_to_exitcode(status)}")


def main():
    if sys.argv[1:2] in (["logs"], ["follow"]):
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
    if sys.argv[1:2] == ["follow"]:
        follow(int(sys.argv[2]) if len(sys.argv) > 2 else 500)
        return
    if sys.argv[1:2] == ["logs"]:
        logs(int(sys.argv[2]) if len(sys.argv) > 2 else 400)
        return
    sizes = [int(argument) for argument in sys.argv[1:]] or [1000, 10000, 100000]
    build = ["cargo", "build", "--release", "--quiet", "--bins", "--examples"]
    subprocess.run(build, cwd=ROOT, check=True)
    ours = os.path.join(PROGRAM, "kubectl-grpcmesh")
    generate = os.path.join(PROGRAM, "examples", "generate")
    istioctl = shutil.which("istioctl")
    print(f"{'services':>8} {'YAML MB':>8}  {'program':<28} {'wall s':>8} {'CPU s':>8} {'MB':>7}  ratio")
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            runs = 5 if size <= 10_000 else 1
            path = os.path.join(folder, "mesh.yaml")
            with open(path, "wb") as out:
                subprocess.run([generate, str(size), str(PODS_PER_SERVICE)], stdout=out, check=True)
            megabytes = os.path.getsize(path) / 1e6
            rows = [("inspect", [ours, "inspect", "-A", "--from", path])]
            snapshot = os.path.join(folder, "mesh.json")
            subprocess.run([ours, "snapshot", "--from", path, "-o", snapshot, "--quiet"], stderr=subprocess.DEVNULL, check=True)
            rows.append(("inspect of a snapshot", [ours, "inspect", "-A", "--from", snapshot]))
            lines = os.path.join(folder, "calls.jsonl")
            calls(path, lines)
            rows.append((f"route, {CALLS:,} calls, {CALLERS} pods", [ours, "route", "--from", path, "--calls", lines, "-o", "json"]))
            if istioctl and size <= 10_000:
                rows.append(("istioctl analyze", [istioctl, "analyze", "--use-kube=false", path]))
            base = None
            for name, command in rows:
                wall, cpu, memory = measure(command, runs)
                base = base or wall
                print(f"{size:>8} {megabytes:>8.1f}  {name:<28} {wall:>8.2f} {cpu:>8.2f} {memory:>7.0f}  {wall / base:.1f}", flush=True)
            os.remove(snapshot)


if __name__ == "__main__":
    main()
