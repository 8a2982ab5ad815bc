"""Starts and stops the lab: certificates, etcd, API server, controllers, kwok, istiod, Prometheus, and the mesh."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

import build
import pki
import process
from api import Api, Failed
from settings import (
    API, BRIDGE, ETCD, HERE, ISTIO, ISTIOD_HTTP, ISTIOD_MONITORING, KUBECONFIG, KUBELET_PORT, KUBERNETES, NODE, NODE_IP,
    PROMETHEUS, RUN, SERVICE_CIDR, run,
)

BEGIN = time.monotonic()
# In the order in which they are stopped.
PROGRAMS = ["kubelet", "prometheus", "istiod", "kwok", "kube-controller-manager", "kube-apiserver", "etcd"]
CONTROLLERS = [
    "endpointslice-controller", "serviceaccount-controller", "root-ca-certificate-publisher-controller",
    "deployment-controller", "replicaset-controller", "statefulset-controller", "namespace-controller",
    "garbage-collector-controller",
]
# Number of log lines to print if a component does not start.
LOG_TAIL = 15
# Commands that `kubectl exec` may run in a pod.
SHIMS = ["pilot-agent", "labapp", "curl", "sh", "ls", "env", "cat"]
# Istio configuration that upstream Envoy cannot load.
ISTIOD_ENVIRONMENT = {
    "PILOT_ENABLE_METADATA_EXCHANGE": "false",
    "PILOT_ENABLE_ALPN_FILTER": "false",
    "PILOT_ENABLE_ANALYSIS": "false",
    "PILOT_ENABLE_CONFIG_DISTRIBUTION_TRACKING": "true",
    "PILOT_CERT_PROVIDER": "istiod",
    "REVISION": "default",
    "CLUSTER_ID": "Kubernetes",
    "POD_NAMESPACE": "istio-system",
    "SERVICE_ACCOUNT": "istiod",
}


def say(text):
    print(f"{time.monotonic() - BEGIN:6.1f} s  {text}", file=sys.stderr, flush=True)


def wait_for(what, ready, limit=60.0):
    """Waits for a condition. Exits with its name if it is not met in time."""
    until = time.monotonic() + limit
    while True:
        try:
            if ready():
                say(what)
                return
        except (OSError, Failed, subprocess.CalledProcessError):
            pass
        if time.monotonic() > until:
            explain()
            raise SystemExit(f"lab: {what}: not ready after {limit:.0f} s; see the logs in {run('logs')}")
        time.sleep(0.1)


def explain():
    """Prints what is not ready and the ends of the logs, because the output may be all that is available."""
    try:
        for pod in Api().get("/api/v1/pods")["items"]:
            if not ready(pod):
                meta = pod["metadata"]
                print(f"not ready: {meta['namespace']}/{meta['name']} {pod['status'].get('phase')}", file=sys.stderr)
    except (OSError, Failed) as failed:
        print(f"the API server does not answer: {failed}", file=sys.stderr)
    for name in PROGRAMS:
        if os.path.exists(run("logs", name + ".log")):
            with open(run("logs", name + ".log"), errors="replace") as text:
                last = text.readlines()[-LOG_TAIL:]
            alive = "runs" if process.recall(run("pids", name)) else "does not run"
            print(f"--- {name} ({alive}), its log's end:", *[line[:300].rstrip() for line in last], sep="\n", file=sys.stderr)


def program(name):
    return run("bin", name)


def kubectl(*words, stdin=None, capture=False):
    command = ["kubectl", "--kubeconfig", KUBECONFIG, *words]
    done = subprocess.run(command, check=True, input=stdin, text=True, stdout=subprocess.PIPE)
    return done.stdout if capture else None


def apply(*files, text=None):
    for file in files:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", file)
    if text:
        kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)


def answers(url):
    return urllib.request.urlopen(url, timeout=2).status == 200


def manifest(name, **replacements):
    with open(os.path.join(HERE, "manifests", name)) as text:
        body = text.read()
    for word, value in replacements.items():
        body = body.replace(f"@{word}@", value)
    return body


def kubernetes():
    if subprocess.run(["ip", "link", "show", BRIDGE], capture_output=True).returncode:
        for words in (["link", "add", BRIDGE, "type", "bridge"], ["addr", "add", NODE_IP + "/16", "dev", BRIDGE], ["link", "set", BRIDGE, "up"]):
            subprocess.run(["ip", *words], check=True)
    key = lambda name: run("pki", name)
    process.start("etcd", [
        program("etcd"), "--data-dir", run("etcd"), "--listen-client-urls", ETCD, "--advertise-client-urls", ETCD,
        "--listen-peer-urls", "http://127.0.0.1:12380", "--unsafe-no-fsync", "--log-level", "warn",
    ])
    process.start("kube-apiserver", [
        program("kube-apiserver"), f"--etcd-servers={ETCD}", "--bind-address=127.0.0.1",
        f"--secure-port={API.rsplit(':', 1)[1]}", f"--advertise-address={NODE_IP}", "--endpoint-reconciler-type=none",
        f"--service-cluster-ip-range={SERVICE_CIDR}", "--authorization-mode=RBAC", f"--client-ca-file={key('ca.crt')}",
        f"--tls-cert-file={key('apiserver.crt')}", f"--tls-private-key-file={key('apiserver.key')}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={key('sa.pub')}", f"--service-account-signing-key-file={key('sa.key')}",
        f"--kubelet-client-certificate={key('kubelet-client.crt')}", f"--kubelet-client-key={key('kubelet-client.key')}",
        f"--kubelet-certificate-authority={key('ca.crt')}", "--kubelet-preferred-address-types=InternalIP",
        # Webhooks are called at their endpoint, because nothing serves the cluster IP of their Service.
        "--enable-aggregator-routing=true", "--profiling=false", f"--cert-dir={run('pki')}",
    ])
    wait_for("API server", lambda: Api().get("/readyz") == "ok")
    kcm = pki.by_certificate("kcm")
    process.start("kube-controller-manager", [
        program("kube-controller-manager"), f"--kubeconfig={kcm}", f"--authentication-kubeconfig={kcm}",
        f"--authorization-kubeconfig={kcm}", "--leader-elect=false", "--bind-address=127.0.0.1",
        "--use-service-account-credentials=true", f"--service-account-private-key-file={key('sa.key')}",
        f"--root-ca-file={key('ca.crt')}", f"--cert-dir={run('pki')}", f"--controllers={','.join(CONTROLLERS)}",
    ])


def node():
    """Creates the node and starts kwok, which acts as its kubelet. Without our stages, kwok would use its own."""
    sources = build.module_folder("modules/kwok", "sigs.k8s.io/kwok")
    apply(os.path.join(sources, "kustomize", "crd", "bases"))
    api = Api()
    api.apply(f"/api/v1/nodes/{NODE}", {
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "topology.kubernetes.io/region": "lab", "topology.kubernetes.io/zone": "lab-a"}},
    })
    room = {"cpu": "64", "memory": "256Gi", "pods": "10000"}
    api.merge(f"/api/v1/nodes/{NODE}/status", {"status": {
        "addresses": [{"type": "InternalIP", "address": NODE_IP}, {"type": "Hostname", "address": NODE}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "capacity": room, "allocatable": room,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Lab", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}],
        # istiod reads it before it injects native sidecars.
        "nodeInfo": {"kubeletVersion": "v" + KUBERNETES, "architecture": "amd64", "operatingSystem": "linux", "bootID": "", "containerRuntimeVersion": "lab", "kernelVersion": "", "kubeProxyVersion": "", "machineID": "", "osImage": "", "systemUUID": ""},
    }})
    os.makedirs(run("shims"), exist_ok=True)
    shim = run("shims", "enter")
    with open(shim, "w") as out:
        out.write('#!/bin/sh\n# Runs the command of this name inside the pod that kwok was asked about.\n'
                  'PATH=${PATH#*shims:}\nread -r pid start < "$LAB_PID_FILE"\n'
                  'exec nsenter -t "$pid" -n -m -S "$LAB_USER" -G "$LAB_USER" -- "$(basename "$0")" "$@"\n')
    os.chmod(shim, 0o755)
    for name in SHIMS:
        if not os.path.lexists(run("shims", name)):
            os.symlink("enter", run("shims", name))
    config = run("kwok.yaml")
    with open(config, "w") as out:
        out.write(manifest("kwok.yaml"))
    kinds = ",".join(prefix + kind for kind in ("Logs", "PortForward", "Exec") for prefix in ("", "Cluster"))
    process.start("kwok", [
        program("kwok"), f"--kubeconfig={pki.by_certificate('kwok')}", f"--config={config}",
        "--manage-all-nodes=false", "--manage-nodes-with-label-selector=kubernetes.io/hostname=" + NODE,
        f"--node-ip={NODE_IP}", f"--node-port={KUBELET_PORT}", f"--server-address={NODE_IP}:{KUBELET_PORT}",
        f"--tls-cert-file={run('pki', 'kubelet.crt')}", f"--tls-private-key-file={run('pki', 'kubelet.key')}",
        f"--enable-crds={kinds}",
    ], env={**os.environ, "PATH": f"{run('shims')}:{os.environ['PATH']}"})
    wait_for("default service account", lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default"))
    template = build.module_folder("modules/istio", "istio.io/istio") + "/tools/packaging/common/envoy_bootstrap.json"
    for folder in ("/etc/istio", "/var/lib/istio", "/var/run/secrets"):
        os.makedirs(folder, exist_ok=True)
    process.start("kubelet", [sys.executable, "-u", os.path.join(HERE, "lab", "kubelet.py"), template])


def istio():
    sources = build.module_folder("modules/istio", "sigs.k8s.io/gateway-api")
    apply(os.path.join(sources, "config", "crd", "standard"))
    api = Api()
    name = "istio-system"
    api.apply(f"/api/v1/namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    operator = run("istio-operator.yaml")
    with open(operator, "w") as out:
        out.write(manifest("istio-operator.yaml", VERSION=ISTIO, NODE=NODE))
    generate = [program("istioctl"), "manifest", "generate", "-f", operator]
    apply(text=subprocess.run(generate, check=True, capture_output=True, text=True).stdout)
    # The tag provides the validating webhook for objects without a revision label. Its injection webhook would overlap.
    tag = [program("istioctl"), "--kubeconfig", KUBECONFIG, "tag", "generate", "default", "--revision", "default", "--overwrite", "--skip-confirmation"]
    documents = subprocess.run(tag, check=True, capture_output=True, text=True).stdout.split("\n---\n")
    apply(text="\n---\n".join(one for one in documents if not re.search(r"^kind: MutatingWebhookConfiguration$", one, re.M)))
    pods = "/api/v1/namespaces/istio-system/pods?labelSelector=app%3Distiod"

    def fake_pod():
        ready = [pod for pod in api.get(pods)["items"] if pod["status"].get("phase") == "Running"]
        return ready and ready[0]["metadata"]["name"]

    wait_for("istiod's pod object", fake_pod)
    token = api.post("/api/v1/namespaces/istio-system/serviceaccounts/istiod/token", {"spec": {"expirationSeconds": 86400}})
    credentials = run("istiod.kubeconfig")
    pki.kubeconfig(credentials, "istiod", f"--token={token['status']['token']}")
    os.makedirs(run("istiod"), exist_ok=True)
    process.start("istiod", [
        program("pilot-discovery"), "discovery", f"--kubeconfig={credentials}", "--domain", "cluster.local",
        "--keepaliveMaxServerConnectionAge", "30m", f"--httpAddr={ISTIOD_HTTP}", f"--monitoringAddr={ISTIOD_MONITORING}",
        f"--grpcAddr={NODE_IP}:15010", f"--secureGRPCAddr={NODE_IP}:15012", f"--httpsAddr={NODE_IP}:15017",
    ], env={**os.environ, **ISTIOD_ENVIRONMENT, "POD_NAME": fake_pod()}, cwd=run("istiod"))
    wait_for("istiod", lambda: answers(f"http://{ISTIOD_HTTP}/ready"))
    hook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector"
    wait_for("injection webhook", lambda: api.get(hook)["webhooks"][0]["clientConfig"].get("caBundle"))
    slices = "/apis/discovery.k8s.io/v1/namespaces/istio-system/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Distiod"
    wait_for("istiod's endpoint", lambda: any(end["conditions"].get("ready") for one in api.get(slices)["items"] for end in one.get("endpoints") or []))


def ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def settled():
    """Whether every pod of the lab node is ready and none is terminating."""
    pods = [pod for pod in Api().get("/api/v1/pods")["items"] if pod["spec"].get("nodeName") in (NODE, None)]
    return len(pods) > 5 and all(ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in pods)


def mesh():
    apply(text=manifest("mesh.yaml"))
    apply(text=manifest("metrics.yaml"))
    config = run("prometheus.yml")
    with open(config, "w") as out:
        out.write(manifest("prometheus.yml", RUN=RUN))
    process.start("prometheus", [
        shutil.which("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={run('prometheus')}",
        f"--web.listen-address={PROMETHEUS}", "--log.level=warn",
    ])
    wait_for("Prometheus", lambda: answers(f"http://{PROMETHEUS}/-/ready"))
    wait_for("pods", settled, limit=120.0)


def up():
    if os.geteuid():
        raise SystemExit("lab: network namespaces require root")
    if os.path.isdir(RUN) and not all(process.recall(run("pids", name)) for name in PROGRAMS):
        # After a crash or restart of the machine, etcd has objects whose pods cannot recover.
        say("removing the remains of an earlier lab")
        down()
    for name in ("pids", "logs", "pods"):
        os.makedirs(run(name), exist_ok=True)
    build.all_programs()
    say("programs")
    pki.make()
    pki.by_certificate("admin")
    kubernetes()
    node()
    istio()
    mesh()
    print(KUBECONFIG)


def pid_files():
    folder = run("pods")
    pods = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    found = [run("pids", name) for name in PROGRAMS]
    for pod in pods:
        pids = os.path.join(folder, pod, "pids")
        found += [os.path.join(pids, name) for name in (os.listdir(pids) if os.path.isdir(pids) else [])]
    return found


def down():
    """Stops what `up` started, also after a crash: processes by pid file, network namespaces by prefix."""
    if os.path.isdir(RUN):
        open(run("ending"), "w").close()
    process.end([file for file in pid_files() if "/pods/" in file], patience=6.0)
    for name in PROGRAMS:
        process.end([run("pids", name)])
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout.split()
    for name in listed:
        if name.startswith("gml-"):
            process.end_namespace(name)
    subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)
    shutil.rmtree(RUN, ignore_errors=True)


def status():
    """Prints the running processes and their logs."""
    rows = [("WHAT", "PID", "LOG")]
    for file in pid_files():
        parts = file.split(os.sep)
        inside = "/pods/" in file
        name = f"{parts[-3].replace('_', '/', 1)} {parts[-1]}" if inside else parts[-1]
        log = os.path.join(os.path.dirname(os.path.dirname(file)), "logs", parts[-1] + ".log")
        rows.append((name, str(process.recall(file) or "-"), log))
    widths = [max(len(row[at]) for row in rows) for at in (0, 1)]
    for name, pid, log in rows:
        print(f"{name:<{widths[0]}}  {pid:<{widths[1]}}  {log}")
    return all(process.recall(run("pids", name)) for name in PROGRAMS)
