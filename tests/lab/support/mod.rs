//! The running lab as tests see it: objects, callers, access logs and processes.

pub(crate) mod cut;
pub(crate) mod mesh;
pub(crate) mod scenario;

pub(crate) use mesh::{Lab, Pod};
pub(crate) use scenario::Scenario;

/// What the Envoy of the client in `web` refuses: Envoy's own builds do not have the filter that this provider needs.
pub(crate) const REFUSED: &str = "
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: fx, namespace: web}
spec:
  selector: {matchLabels: {app: client}}
  metrics:
  - providers: [{name: prometheus}]
";
