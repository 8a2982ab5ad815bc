"""Certificates and kubeconfigs of the control plane, created with openssl in about a second."""

import os
import subprocess

from settings import API, NODE, NODE_IP, run

# Name, subject, subject alternative names.
CERTIFICATES = [
    ("apiserver", "/CN=kube-apiserver", f"IP:127.0.0.1,IP:10.96.0.1,IP:{NODE_IP},DNS:localhost,DNS:kubernetes.default.svc"),
    ("kubelet", f"/CN={NODE}", f"IP:{NODE_IP},DNS:{NODE}"),
    ("kubelet-client", "/O=system:masters/CN=kube-apiserver-kubelet-client", ""),
    ("admin", "/O=system:masters/CN=lab-admin", ""),
    ("kwok", "/O=system:masters/CN=lab-kwok", ""),
    ("kcm", "/CN=system:kube-controller-manager", ""),
]


def openssl(*arguments, stdin=None):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True, input=stdin)


def make():
    pki = lambda name: run("pki", name)
    if os.path.exists(pki("done")):
        return
    os.makedirs(run("pki"), mode=0o700, exist_ok=True)
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", pki("ca.key"))
    openssl("req", "-x509", "-new", "-key", pki("ca.key"), "-subj", "/CN=lab-ca", "-days", "365", "-out", pki("ca.crt"))
    for name, subject, names in CERTIFICATES:
        key, request, certificate, extensions = (pki(f"{name}.{end}") for end in ("key", "csr", "crt", "ext"))
        with open(extensions, "w") as out:
            out.write("extendedKeyUsage=serverAuth,clientAuth\n" + (f"subjectAltName={names}\n" if names else ""))
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
        signing = ["-CA", pki("ca.crt"), "-CAkey", pki("ca.key"), "-CAcreateserial", "-days", "365"]
        openssl("x509", "-req", "-in", request, *signing, "-out", certificate, "-extfile", extensions)
    openssl("genrsa", "-out", pki("sa.key"), "2048")
    openssl("rsa", "-in", pki("sa.key"), "-pubout", "-out", pki("sa.pub"))
    open(pki("done"), "w").close()


def kubeconfig(path, user, *credentials):
    """Writes a kubeconfig with kubectl, which decides its format."""
    config = lambda *arguments: subprocess.run(
        ["kubectl", "config", "--kubeconfig", path, *arguments], check=True, capture_output=True
    )
    config("set-cluster", "lab", f"--server={API}", f"--certificate-authority={run('pki', 'ca.crt')}", "--embed-certs")
    config("set-credentials", user, *credentials)
    config("set-context", "lab", "--cluster=lab", f"--user={user}")
    config("use-context", "lab")


def by_certificate(user):
    path = run(user + ".kubeconfig")
    if not os.path.exists(path):
        certificate, key = run("pki", user + ".crt"), run("pki", user + ".key")
        kubeconfig(path, user, f"--client-certificate={certificate}", f"--client-key={key}", "--embed-certs")
    return path
