//! Access to the running lab for tests: objects, callers, access logs and processes.

pub(crate) mod byte_limited_proxy;
pub(crate) mod mesh;
pub(crate) mod scenario;

pub(crate) use mesh::{CallResult, Lab, Pod};
pub(crate) use scenario::Scenario;

/// Configuration that the client's Envoy in `web` rejects: upstream builds of Envoy lack the filter that this provider
/// needs.
pub(crate) const REJECTED_BY_ENVOY: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: fx, namespace: web}
spec:
  selector: {matchLabels: {app: client}}
  metrics:
  - providers: [{name: prometheus}]
";
