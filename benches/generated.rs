//! Generates a synthetic mesh of any size, the same on every run. The benchmarks and the numbers in the docs use it.

use std::fmt::Write as _;

const SERVICES_PER_NAMESPACE: usize = 50;

/// Generates manifests: each Service has a VirtualService, a DestinationRule and `pods` Pods of two versions. The route
/// objects of every third Service are exported to its own namespace only. Each namespace has a PeerAuthentication. One
/// Service in fifty has a fault, so that measurements include findings.
pub(crate) fn manifests(services: usize, pods: usize) -> String {
    let mut out = String::new();
    let namespaces = services.div_ceil(SERVICES_PER_NAMESPACE);
    for number in 0..namespaces {
        let _ = write!(
            out,
            "apiVersion: v1
kind: Namespace
metadata:
  name: team-{number}
  labels:
    istio-injection: enabled
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: team-{number}
spec:
  mtls:
    mode: STRICT
---
"
        );
    }
    for number in 0..services {
        let namespace = number / SERVICES_PER_NAMESPACE;
        let has_fault = number % 50 == 7;
        let port = if has_fault { "api" } else { "grpc" };
        let export = if number % 3 == 0 { "  exportTo:\n  - .\n" } else { "" };
        let _ = write!(
            out,
            "apiVersion: v1
kind: Service
metadata:
  name: svc-{number}
  namespace: team-{namespace}
spec:
  clusterIP: 10.{}.{}.{}
  selector:
    app: svc-{number}
  ports:
  - name: {port}
    port: 50051
    targetPort: 50051
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: svc-{number}
  namespace: team-{namespace}
spec:
  hosts:
  - svc-{number}
{export}  http:
  - match:
    - uri:
        prefix: /shop.Svc{number}/Pay
    retries:
      attempts: 3
      retryOn: unavailable,cancelled
    timeout: 2s
    route:
    - destination:
        host: svc-{number}
        subset: v1
      weight: 90
    - destination:
        host: svc-{number}
        subset: v2
      weight: 10
  - route:
    - destination:
        host: svc-{number}
        subset: v1
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: svc-{number}
  namespace: team-{namespace}
spec:
  host: svc-{number}
{export}  trafficPolicy:
    connectionPool:
      http:
        http2MaxRequests: 1000
  subsets:
  - name: v1
    labels:
      version: v1
  - name: v2
    labels:
      version: v2
---
",
            96 + number / 65_536,
            number / 256 % 256,
            number % 256,
        );
        for pod in 0..pods {
            let version = if pod + 1 == pods { "v2" } else { "v1" };
            let _ = write!(
                out,
                "apiVersion: v1
kind: Pod
metadata:
  name: svc-{number}-{version}-{pod}
  namespace: team-{namespace}
  labels:
    app: svc-{number}
    version: {version}
spec:
  containers:
  - name: app
    image: shop:{version}
    ports:
    - name: grpc
      containerPort: 50051
  - name: istio-proxy
    image: proxyv2:1.31.0
status:
  podIP: 10.{}.{}.{}
  conditions:
  - type: Ready
    status: 'True'
---
",
                128 + number / 8_192,
                number / 32 % 256,
                number % 32 * 8 + pod,
            );
        }
    }
    out
}
