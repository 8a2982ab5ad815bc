"""Processes of the lab: each has its own session, and is identified by pid and start time."""

import os
import signal
import subprocess
import time

from settings import run


def started(pid):
    """Returns the start time of a process in clock ticks, or `None`. A pid alone may have been reused."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return None if fields[0] == "Z" else fields[19]
    except OSError:
        return None


def remember(file, pid):
    with open(file, "w") as out:
        out.write(f"{pid} {started(pid)}")


def recall(file):
    """Returns the pid in a file if that process still runs."""
    try:
        with open(file) as text:
            pid, start = text.read().split()
    except (OSError, ValueError):
        return None
    return int(pid) if started(int(pid)) == start else None


def start(name, command, env=None, cwd=None):
    """Starts a program if it does not run. Its output goes to logs/NAME.log."""
    file = run("pids", name)
    if recall(file):
        return
    with open(run("logs", name + ".log"), "ab") as log:
        child = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    remember(file, child.pid)


def inside(namespace):
    """The processes in a network namespace."""
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


def end_namespace(namespace):
    """Kills the remaining processes in a network namespace, such as an Envoy whose agent died, and deletes it."""
    for pid in inside(namespace):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True)


def end(files, patience=8.0):
    """Terminates, then kills, the processes in pid files. Removes the files."""
    for sign, limit in ((signal.SIGTERM, patience), (signal.SIGKILL, 2.0)):
        for file in files:
            if pid := recall(file):
                # A stopped process receives signals only after it continues.
                for one in (sign, signal.SIGCONT):
                    try:
                        os.kill(pid, one)
                    except ProcessLookupError:
                        pass
        until = time.monotonic() + limit
        while time.monotonic() < until and any(recall(file) for file in files):
            time.sleep(0.05)
    for file in files:
        if os.path.exists(file):
            os.remove(file)


def restart(name):
    """Restarts a program with the same arguments. What it serves is unavailable in between."""
    file = run("pids", name)
    pid = recall(file)
    if not pid:
        raise SystemExit(f"lab: {name} is not running")
    with open(f"/proc/{pid}/cmdline", "rb") as words, open(f"/proc/{pid}/environ", "rb") as variables:
        command = words.read().decode().rstrip("\0").split("\0")
        env = dict(one.split("=", 1) for one in variables.read().decode().split("\0") if "=" in one)
    cwd = os.readlink(f"/proc/{pid}/cwd")
    end([file])
    start(name, command, env, cwd)
