//! GM103: an `appProtocol` that Istio does not know.

use crate::mesh::Mesh;
use crate::mesh::protocol::{DecidedBy, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM103",
    name: "app-protocol-unknown",
    severity: Severity::Warning,
    needs: &[],
    istio_code: Some("IST0118"),
    summary: "An appProtocol that Istio does not know, so the port is auto-detected",
    docs: "\
## What it looks for
`appProtocol` with a value that Istio does not know, such as `h2`, `h2c`, `grpcs`, `HTTP/2` or an empty string, on a
port with gRPC evidence, on a port whose name would have selected HTTP, or with a value that probably means HTTP/2.

## Why it matters for gRPC
When `appProtocol` is present, Istio ignores the port name. A port named `grpc` with `appProtocol: h2` is auto-detected:
gateways send HTTP/1.1 to it, so gRPC calls fail with UNAVAILABLE, and HTTP/2 settings are not applied.

## Example
```yaml
ports:
- name: grpc
  appProtocol: h2       # unknown to Istio; the port name is ignored
  port: 50051
```

## Fix
```yaml
ports:
- name: grpc
  appProtocol: grpc     # or kubernetes.io/h2c, or remove the field
  port: 50051
```

## References
- Verified on a real mesh: `tests/lab/effects/GM103.yaml`.
- Istio source: `pkg/config/kube/conversion.go`. Known values: grpc, grpc-web, http, http2, https, tls, tcp, mongo,
  redis, mysql, and exactly `kubernetes.io/h2c`, `kubernetes.io/ws`, `kubernetes.io/wss`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for service in &mesh.services {
        for port in &service.ports {
            let DecidedBy::UnknownAppProtocol { value, hidden } = &port.decided_by else { continue };
            let hides_http = hidden.is_some_and(|protocol| protocol.family() == ProtocolFamily::Http);
            if port.evidence.is_empty() && !hides_http && !means_http2(value) {
                continue;
            }
            let consequence = match hidden {
                Some(protocol) => format!("and hides the port name, which declares {protocol}"),
                None => "so Istio auto-detects the protocol".to_owned(),
            };
            let app_protocol =
                if !port.evidence.is_empty() || hidden.is_some_and(crate::mesh::protocol::Protocol::is_grpc) {
                    "grpc"
                } else if means_http2(value) {
                    "kubernetes.io/h2c"
                } else {
                    "http"
                };
            let finding = Finding::new(&RULE, &service.object, port.field_path("appProtocol"))
                .message(format!(
                    "port {} has appProtocol \"{value}\", which Istio does not know, {consequence}",
                    port.title()
                ))
                .impact(
                    "gRPC calls through a gateway fail with UNAVAILABLE because it sends HTTP/1.1 to the port; HTTP/2 \
                     settings of DestinationRules are not applied",
                )
                .evidence(&port.evidence)
                .fix(format!("ports:\n- appProtocol: {app_protocol}\n  port: {}", port.number));
            out.add(&RULE, finding);
        }
    }
}

/// Whether the author of an unknown value probably meant HTTP/2.
fn means_http2(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "h2" | "h2c" | "http/2" | "http2.0" | "grpcs" | "kubernetes.io/h2" | "kubernetes.io/grpc")
        || value.eq_ignore_ascii_case("kubernetes.io/h2c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, service};

    #[test]
    fn reports_unknown_values_that_hide_a_port_name_or_mean_http2() {
        for value in ["h2", "''", "grpcs", "kubernetes.io/H2C"] {
            let yaml = service("a", &format!("{{name: grpc, appProtocol: {value}, port: 1}}"));
            assert_findings(&RULE, &yaml, &["warning Service shop/a spec.ports[0].appProtocol"]);
        }
        assert_findings(
            &RULE,
            &service("a", "{name: x, appProtocol: h2c, port: 1}"),
            &["warning Service shop/a spec.ports[0].appProtocol"],
        );
    }

    #[test]
    fn is_silent_on_known_values_and_on_protocols_other_than_http() {
        for value in ["grpc", "kubernetes.io/h2c", "http2", "grpc-foo"] {
            assert_findings(&RULE, &service("a", &format!("{{name: grpc, appProtocol: {value}, port: 1}}")), &[]);
        }
        assert_findings(&RULE, &service("a", "{name: tcp-amqp, appProtocol: amqp, port: 5672}"), &[]);
    }
}
