#!/usr/bin/env python3
"""Whole-process time and memory of `inspect` on generated meshes, beside `istioctl analyze` where that is on PATH.

    scripts/figures.py [SERVICES ...]          (default: 1000 10000 100000)

Each line is the median of the runs. Absolute times tell about the machine; compare lines of one run.
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PODS_EACH = 3
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


def main():
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
