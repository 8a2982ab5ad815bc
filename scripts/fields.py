#!/usr/bin/env python3
"""Makes src/schema/fields.txt: the field trees of the Istio and Gateway API kinds, from their published CRDs.

Usage: scripts/fields.py            (needs Go for the module proxy, and PyYAML)

One line a field, indented by depth: name, then type.
  s string   i integer   n number   b boolean   o object   m map (the value's type follows)
  x anything   q integer or string   []T list of T   s=A|B string with these values only
The trees are the union of all versions of a kind, so that an old manifest is not called wrong.
"""
import json, os, re, subprocess, sys, tempfile

try:
    import yaml
except ImportError:
    sys.exit("PyYAML is missing: pip install pyyaml")

ISTIO_API = "istio.io/api@v1.31.1"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.0"
KINDS = {
    "networking.istio.io": ["VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "WorkloadEntry", "Sidecar",
                            "EnvoyFilter", "ProxyConfig"],
    "security.istio.io": ["PeerAuthentication", "AuthorizationPolicy"],
    "telemetry.istio.io": ["Telemetry"],
    "extensions.istio.io": ["WasmPlugin"],
    "gateway.networking.k8s.io": ["Gateway", "HTTPRoute", "GRPCRoute", "ReferenceGrant"],
}


def module(name):
    with tempfile.TemporaryDirectory() as folder:
        open(os.path.join(folder, "go.mod"), "w").write("module fields\n")
        out = subprocess.run(["go", "mod", "download", "-json", name], cwd=folder, check=True, capture_output=True)
    return json.loads(out.stdout)["Dir"]


def node(schema):
    """(type, children) of a schema; children is a dict, or the node of a map's value."""
    if schema.get("x-kubernetes-int-or-string"):
        return "q", {}
    kind = schema.get("type")
    if kind == "array":
        inner, children = node(schema.get("items", {}))
        return "[]" + inner, children
    if kind == "object" or "properties" in schema:
        value = schema.get("additionalProperties")
        if isinstance(value, dict):
            return "m", {"*": node(value)}
        fields = schema.get("properties")
        if fields:
            return "o", {name: node(field) for name, field in fields.items()}
        return "x", {}
    if kind == "string":
        values = schema.get("enum")
        if values:
            return "s=" + "|".join(str(v) for v in values), {}
        return "s", {}
    return {"integer": "i", "number": "n", "boolean": "b"}.get(kind, "x"), {}


def merge(a, b):
    """The union of two nodes; where the types disagree, anything goes."""
    (kind, left), (other, right) = a, b
    if kind != other:
        strings = kind.startswith("s") and other.startswith("s")
        return ("s" if strings else "x"), {}
    children = dict(left)
    for name, child in right.items():
        children[name] = merge(children[name], child) if name in children else child
    return kind, children


def emit(name, tree, depth, out):
    kind, children = tree
    if name == "*":
        # A map's value stands on the map's own line when it is plain.
        out.append(" " * depth + "* " + kind)
    else:
        out.append(" " * depth + name + " " + kind)
    for child in sorted(children):
        emit(child, children[child], depth + 1, out)


def main():
    istio, gateway = module(ISTIO_API), module(GATEWAY_API)
    files = [os.path.join(istio, "kubernetes", "customresourcedefinitions.gen.yaml")]
    experimental = os.path.join(gateway, "config", "crd", "experimental")
    files += [os.path.join(experimental, name) for name in sorted(os.listdir(experimental))]
    trees = {}
    for path in files:
        for crd in yaml.safe_load_all(open(path)):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"]
            if kind not in KINDS.get(group, []):
                continue
            for version in crd["spec"]["versions"]:
                spec = version["schema"]["openAPIV3Schema"].get("properties", {}).get("spec")
                if spec is None:
                    continue
                tree = node(spec)
                key = (group, kind)
                trees[key] = merge(trees[key], tree) if key in trees else tree
    missing = [(g, k) for g, kinds in KINDS.items() for k in kinds if (g, k) not in trees]
    if missing:
        sys.exit(f"no schema for {missing}")
    out = [f"# Made by scripts/fields.py from {ISTIO_API} and {GATEWAY_API}. Do not edit."]
    for group, kinds in KINDS.items():
        for kind in kinds:
            out.append(f"{group}/{kind}")
            emit("spec", trees[(group, kind)], 1, out)
    top = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.path.join(top, "src", "schema", "fields.txt")
    open(path, "w").write("\n".join(out) + "\n")
    print(f"{len(out)} lines, {os.path.getsize(path)} bytes")


if __name__ == "__main__":
    main()
