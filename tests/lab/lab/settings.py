"""Versions, addresses and folders of the lab. After a version change, `up` builds what is missing."""

import hashlib
import os

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.environ.get("GRPCMESH_LAB_CACHE", os.path.expanduser("~/.cache/grpcmesh-lab"))
RUN = os.path.join(CACHE, "lab")

ISTIO = "1.31.0"
KUBERNETES = "1.36.3"
ENVOY = "1.39.3"

# Everything listens on loopback or on the bridge, which only this machine can reach.
BRIDGE = "grpcmesh0"
NODE = "lab-node"
NODE_IP = "10.199.255.1"
POD_PREFIX = "10.199.0."
SERVICE_CIDR = "10.96.0.0/16"
API = "https://127.0.0.1:16443"
ETCD = "http://127.0.0.1:12379"
KUBELET_PORT = 10247
ISTIOD_HTTP = "127.0.0.1:18080"
ISTIOD_MONITORING = "127.0.0.1:18014"
PROMETHEUS = "127.0.0.1:19090"
KUBECONFIG = os.path.join(RUN, "admin.kubeconfig")


def run(*parts):
    """Returns a path below the folder of the running lab."""
    return os.path.join(RUN, *parts)


def key(*paths):
    """Returns a short hash of the content of files and folders, for use as a cache key."""
    digest = hashlib.sha256()
    for path in paths:
        files = [path]
        if os.path.isdir(path):
            files = sorted(os.path.join(path, name) for name in os.listdir(path))
        for file in files:
            with open(file, "rb") as text:
                digest.update(os.path.basename(file).encode() + b"\0" + text.read())
    return digest.hexdigest()[:12]
