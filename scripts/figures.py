#!/usr/bin/env python3
"""Whole-process time and memory beside peers: `inspect` and `route` on generated meshes beside `istioctl analyze` where
that is on PATH, `tail --summary` on large logs beside `wc`, `grep`, `awk` and `jq`.

    scripts/figures.py [SERVICES ...]          (default: 1000 10000 100000)
    scripts/figures.py logs [MEGABYTES]        (default: 400)

Each line is the median of the runs. Absolute times tell about the machine; compare lines of one run.
"""
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PODS_EACH = 3
CALLS = 10_000
CALLERS = 20
PROGRAM = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(ROOT, "target")), "release")


def measure(command, runs):
    """Median wall seconds, median CPU seconds, largest memory in MB."""
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
    """Writes calls of a few pods to Services anywhere."""
    found = {"Service": [], "Pod": []}
    form = re.compile(r"^kind: (Service|Pod)$.*?^  name: (\S+)$.*?^  namespace: (\S+)$", re.M | re.S)
    with open(mesh) as text:
        for document in text.read().split("\n---\n"):
            match = form.search(document)
            if match:
                found[match.group(1)].append(match.group(2, 3))
    step = random.Random(1)
    pods = step.sample(found["Pod"], CALLERS)
    with open(path, "w") as out:
        for number in range(CALLS):
            (pod, home), (name, namespace) = step.choice(pods), step.choice(found["Service"])
            call = {"id": str(number), "caller": f"{home}/{pod}", "authority": f"{name}.{namespace}:50051", "path": "/shop.Cart/Get"}
            out.write(json.dumps(call) + "\n")


def logs(megabytes):
    ours = os.path.join(PROGRAM, "kubectl-grpcmesh")
    fixtures = os.path.join(ROOT, "tests", "fixtures", "accesslog")
    print(f"{'log':<10} {'MB':>5}  {'program':<44} {'wall s':>7} {'CPU s':>7} {'MB':>5}  ratio to wc -l")
    with tempfile.TemporaryDirectory() as folder:
        for name, peers in (("text", ["awk"]), ("json", ["jq"])):
            with open(os.path.join(fixtures, f"istio-{name}.log"), "rb") as one:
                lines = one.read()
            path = os.path.join(folder, name + ".log")
            with open(path, "wb") as out:
                for _ in range(megabytes * 1_000_000 // len(lines)):
                    out.write(lines)
            rows = [
                ("wc -l", ["wc", "-l", path]),
                # Its output must go somewhere: into nothing it would stop at the first hit.
                ("grep -c URX", ["sh", "-c", f"grep -c URX {path} | cat"]),
                ("tail --summary", [ours, "tail", "--logs", path, "--summary"]),
                ("tail --summary on one core", ["taskset", "-c", "0", ours, "tail", "--logs", path, "--summary"]),
            ]
            if "awk" in peers:
                rows.append(("awk, counting the sixth field", ["awk", "{count[$6]++} END {for (flag in count) print flag, count[flag]}", path]))
            if "jq" in peers and shutil.which("jq"):
                rows.append(("jq, printing the flags", ["jq", "-r", ".response_flags?", path]))
            base = None
            for program, command in rows:
                wall, cpu, memory = measure(command, 3)
                base = base or wall
                print(f"{name:<10} {megabytes:>5}  {program:<44} {wall:>7.2f} {cpu:>7.2f} {memory:>5.0f}  {wall / base:.1f}", flush=True)
            os.remove(path)


def main():
    if sys.argv[1:2] == ["logs"]:
        subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=ROOT, check=True)
        logs(int(sys.argv[2]) if len(sys.argv) > 2 else 400)
        return
    sizes = [int(word) for word in sys.argv[1:]] or [1000, 10000, 100000]
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
                subprocess.run([generate, str(size), str(PODS_EACH)], stdout=out, check=True)
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
