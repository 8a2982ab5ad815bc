"""Prints our time and memory beside those of istioctl and kubectl for the same questions, in one run: on the running lab,
on 500 pods whose port-forwards all lead to one real Envoy, and on a cluster of 1,000 Services and 5,000 pods in the lab's
API server."""

import concurrent.futures
import os
import statistics
import subprocess
import sys
import time

from api import Api, Failed
from settings import HERE, KUBECONFIG, KUBELET_PORT, NODE_IP, run

SERVICES, PODS_EACH, NAMESPACES = 1000, 5, 20
RUNS = 5
CROWD = 500
CROWD_NODE = "crowd-node"
# istioctl reads one pod at a time: measure this many pods and scale the time.
ASKED = 10


def measure(command, runs=RUNS):
    """Returns median wall and CPU seconds, and peak memory in MB."""
    wall, cpu, memory = [], [], []
    for _ in range(runs):
        start = time.monotonic()
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": KUBECONFIG}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, _, usage = os.wait4(process.pid, 0)
        wall.append(time.monotonic() - start)
        cpu.append(usage.ru_utime + usage.ru_stime)
        memory.append(usage.ru_maxrss / 1024)
    return statistics.median(wall), statistics.median(cpu), max(memory)


def table(title, rows):
    print(f"\n{title}\n{'command':<58} {'wall s':>7} {'CPU s':>7} {'MB':>6}  ratio")
    base = None
    for name, command in rows:
        wall, cpu, memory = measure(command)
        base = base or wall
        print(f"{name:<58} {wall:>7.2f} {cpu:>7.2f} {memory:>6.0f}  {wall / base:.1f}", flush=True)


def questions(ours, namespace, service):
    istioctl = run("bin", "istioctl")
    kinds = "services,pods,virtualservices,destinationrules"
    return [
        ("kubectl grpcmesh inspect -A", [ours, "inspect", "-A"]),
        ("istioctl analyze -A", [istioctl, "analyze", "-A"]),
        (f"kubectl get {kinds} -A -o json", ["kubectl", "get", kinds, "-A", "-o", "json"]),
        (f"kubectl grpcmesh inspect -n {namespace} {service}", [ours, "inspect", "-n", namespace, service]),
        (f"istioctl x describe svc {service} -n {namespace}", [istioctl, "x", "describe", "svc", service, "-n", namespace]),
    ]


def namespace_of(number):
    return f"gen-{number % NAMESPACES}"


def create(number):
    """Creates a Service with its pods and routes."""
    api = LOCAL.api
    namespace, name = namespace_of(number), f"svc-{number}"
    meta = lambda name, **labels: {"name": name, "namespace": namespace, "labels": labels}
    core = f"/api/v1/namespaces/{namespace}"
    istio = f"/apis/networking.istio.io/v1/namespaces/{namespace}"
    port = {"name": "grpc", "port": 50051}
    put(api, core + "/services", {"metadata": meta(name), "spec": {"selector": {"app": name}, "ports": [port]}})
    subsets = [{"name": version, "labels": {"version": version}} for version in ("v1", "v2")]
    rule = {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": meta(name)}
    put(api, istio + "/destinationrules", {**rule, "spec": {"host": name, "subsets": subsets}})
    weights = [{"destination": {"host": name, "subset": v}, "weight": w} for v, w in (("v1", 90), ("v2", 10))]
    route = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": meta(name)}
    put(api, istio + "/virtualservices", {**route, "spec": {"hosts": [name], "http": [{"route": weights}]}})
    for pod in range(PODS_EACH):
        version = "v2" if pod == 0 else "v1"
        containers = [
            {"name": "app", "image": "app", "ports": [{"name": "grpc", "containerPort": 50051}]},
            {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0"},
        ]
        # No kubelet manages this node: these pods exist only as objects.
        spec = {"nodeName": "nowhere", "containers": containers}
        path = f"{core}/pods"
        put(api, path, {"metadata": meta(f"{name}-{pod}", app=name, version=version), "spec": spec})
        ip = f"10.198.{(number * PODS_EACH + pod) // 250}.{(number * PODS_EACH + pod) % 250 + 1}"
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready}
        api.merge(f"{path}/{name}-{pod}/status", {"status": status})


class Local:
    """Returns a connection for each thread."""

    def __init__(self):
        import threading

        self.of = threading.local()

    @property
    def api(self):
        if not hasattr(self.of, "api"):
            self.of.api = Api()
        return self.of.api


LOCAL = Local()


def put(api, path, body):
    try:
        api.post(path, body)
    except Failed as failed:
        if failed.status != 409:
            raise


def generated():
    api = Api()
    for number in range(NAMESPACES):
        put(api, "/api/v1/namespaces", {"metadata": {"name": f"gen-{number}"}})
    time.sleep(1)
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(create, range(SERVICES)))
    # Wait until controllers and istiod are idle before measuring.
    made = lambda: len(api.get("/apis/discovery.k8s.io/v1/endpointslices")["items"])
    until = time.monotonic() + 180
    while made() < SERVICES and time.monotonic() < until:
        time.sleep(2)
    time.sleep(10)


def crowd():
    """Creates pods that exist only as objects; their port-forwards lead to the Envoy of the client."""
    api = Api()
    port = {"kubeletEndpoint": {"Port": KUBELET_PORT}}
    api.apply(f"/api/v1/nodes/{CROWD_NODE}", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": CROWD_NODE}})
    addresses = [{"type": "InternalIP", "address": NODE_IP}]
    api.merge(f"/api/v1/nodes/{CROWD_NODE}/status", {"status": {"addresses": addresses, "daemonEndpoints": port}})
    clients = api.get("/api/v1/namespaces/web/pods?labelSelector=app%3Dclient")["items"]
    real = clients[0]["metadata"]["name"]
    kwok = "/apis/kwok.x-k8s.io/v1alpha1/namespaces/web/portforwards"
    spec = api.get(f"{kwok}/{real}")["spec"]

    def one(number):
        api = LOCAL.api
        name = f"crowd-{number}"
        body = {"apiVersion": "kwok.x-k8s.io/v1alpha1", "kind": "PortForward", "metadata": {"name": name}, "spec": spec}
        api.apply(f"{kwok}/{name}", body)
        proxy = {"name": "istio-proxy", "image": "istio/proxyv2:1.31.0", "args": ["proxy", "sidecar"]}
        pod = {"nodeName": CROWD_NODE, "containers": [{"name": "app", "image": "app"}, proxy]}
        put(api, "/api/v1/namespaces/web/pods", {"metadata": {"name": name, "labels": {"app": "crowd"}}, "spec": pod})
        ip = f"10.197.{number // 250}.{number % 250 + 1}"
        ready = [{"type": "Ready", "status": "True"}]
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": ready}
        api.merge(f"/api/v1/namespaces/web/pods/{name}/status", {"status": status})

    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(one, range(CROWD)))


def disperse():
    api = Api()
    for number in range(CROWD):
        for path in ("/api/v1/namespaces/web/pods", "/apis/kwok.x-k8s.io/v1alpha1/namespaces/web/portforwards"):
            try:
                api.delete(f"{path}/crowd-{number}", {"gracePeriodSeconds": 0})
            except Failed:
                pass
    try:
        api.delete(f"/api/v1/nodes/{CROWD_NODE}")
    except Failed:
        pass


def proxies(ours):
    """Measures `diff` of all proxies, and istioctl printing the same for some of them."""
    istioctl = run("bin", "istioctl")
    loop = "".join(
        f"{istioctl} proxy-config {part} crowd-{number}.web -o json; " for number in range(ASKED) for part in ("routes", "clusters", "endpoints")
    )
    print(f"\n{CROWD} proxies\n{'command':<58} {'wall s':>7} {'CPU s':>7} {'MB':>6}  s a proxy")
    asked = [
        ("kubectl grpcmesh diff -n web", [ours, "diff", "-n", "web"], CROWD),
        (f"istioctl proxy-config routes, clusters, endpoints of {ASKED}", ["sh", "-c", loop], ASKED),
    ]
    for name, command, count in asked:
        wall, cpu, memory = measure(command, 1)
        print(f"{name:<58} {wall:>7.2f} {cpu:>7.2f} {memory:>6.0f}  {wall / count:.3f}", flush=True)


def remove():
    api = Api()
    for number in range(NAMESPACES):
        namespace = f"gen-{number}"
        now = {"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        try:
            api.delete(f"/api/v1/namespaces/{namespace}/pods", now)
            api.delete(f"/api/v1/namespaces/{namespace}")
        except Failed:
            pass


def main():
    root = os.path.dirname(os.path.dirname(HERE))
    subprocess.run(["cargo", "build", "--release", "--quiet"], cwd=root, check=True)
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(root, "target"))
    ours = os.path.join(target, "release", "kubectl-grpcmesh")
    table("the lab", questions(ours, "shop", "echo"))
    print(f"\nmaking {CROWD} pods", file=sys.stderr)
    try:
        crowd()
        proxies(ours)
    finally:
        disperse()
    print(f"\nmaking {SERVICES} Services and {SERVICES * PODS_EACH} pods", file=sys.stderr)
    try:
        generated()
        table(f"{SERVICES} Services, {SERVICES * PODS_EACH} pods", questions(ours, "gen-7", "svc-7"))
    finally:
        remove()
