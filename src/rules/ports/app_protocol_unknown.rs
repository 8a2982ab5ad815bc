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
    summary: "An appProtocol that Istio does not know, which hides a good port name",
    docs: "\
## What it looks for
`appProtocol` with a value that means nothing to Istio, such as `h2`, `h2c`, `grpcs`, `HTTP/2` or an empty text, on a
port with signs of gRPC or with a name that would have said HTTP.

## Why it matters for gRPC
When `appProtocol` is present, the port name is not read at all. A port named `grpc` with `appProtocol: h2` is left to
detection: gateways speak HTTP/1.1 to it, and HTTP/2 settings are not applied.

## Example
```yaml
ports:
- name: grpc
  appProtocol: h2       # unknown, and it hides the name
  port: 50051
```

## Repair
```yaml
ports:
- name: grpc
  appProtocol: grpc     # or kubernetes.io/h2c, or leave it out
  port: 50051
```

## References
- Seen on a real mesh: `tests/lab/effects/GM103.yaml`.
- Istio: `pkg/config/kube/conversion.go`; known words: grpc, grpc-web, http, http2, https, tls, tcp, mongo, redis,
  mysql, and exactly `kubernetes.io/h2c`, `kubernetes.io/ws`, `kubernetes.io/wss`.
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
            let hides = match hidden {
                Some(protocol) => format!("and hides the port name, which says {protocol}"),
                None => "so the protocol is left to detection".to_owned(),
            };
            let right = if !port.evidence.is_empty() || hidden.is_some_and(crate::mesh::protocol::Protocol::is_grpc) {
                "grpc"
            } else if means_http2(value) {
                "kubernetes.io/h2c"
            } else {
                "http"
            };
            let finding = Finding::new(&RULE, &service.object, port.field("appProtocol"))
                .message(format!("appProtocol \"{value}\" of port {} is unknown to Istio {hides}", port.title()))
                .impact("gateways speak HTTP/1.1 to it; HTTP/2 settings of DestinationRules are not applied")
                .evidence(&port.evidence)
                .fix(format!("ports:\n- appProtocol: {right}\n  port: {}", port.number));
            out.add(&RULE, finding);
        }
    }
}

/// Values by which people mean HTTP/2.
fn means_http2(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "h2" | "h2c" | "http/2" | "http2.0" | "grpcs" | "kubernetes.io/h2" | "kubernetes.io/grpc")
        || value.eq_ignore_ascii_case("kubernetes.io/h2c")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{check, service};

    #[test]
    fn unknown_values_that_hide_a_good_name_are_reported() {
        for value in ["h2", "''", "grpcs", "kubernetes.io/H2C"] {
            let yaml = service("a", &format!("{{name: grpc, appProtocol: {value}, port: 1}}"));
            check(&RULE, &yaml, &["warning Service shop/a spec.ports[0].appProtocol"]);
        }
        check(
            &RULE,
            &service("a", "{name: x, appProtocol: h2c, port: 1}"),
            &["warning Service shop/a spec.ports[0].appProtocol"],
        );
    }

    #[test]
    fn known_values_and_other_peoples_protocols_are_silent() {
        for value in ["grpc", "kubernetes.io/h2c", "http2", "grpc-foo"] {
            check(&RULE, &service("a", &format!("{{name: grpc, appProtocol: {value}, port: 1}}")), &[]);
        }
        check(&RULE, &service("a", "{name: tcp-amqp, appProtocol: amqp, port: 5672}"), &[]);
    }
}
