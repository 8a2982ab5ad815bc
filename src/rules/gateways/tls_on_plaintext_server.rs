//! GM501: TLS settings on a gateway server with a plaintext protocol.

use crate::mesh::Mesh;
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM501",
    name: "tls-on-plaintext-server",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A gateway server with TLS settings and a plaintext protocol (GRPC, HTTP or HTTP2)",
    docs: "\
## What it looks for
An Istio Gateway server with `protocol: GRPC`, `GRPC-WEB`, `HTTP` or `HTTP2` and TLS settings other than
`httpsRedirect`.

## Why it matters for gRPC
These protocols are plaintext. The webhook rejects TLS settings next to them, except a `credentialName` without a mode.
If such a server is stored, the gateway does not terminate TLS: TLS clients fail to connect, and plaintext clients are
served without encryption.

## Example
```yaml
servers:
- port: {number: 443, name: grpc, protocol: GRPC}
  tls: {mode: SIMPLE, credentialName: shop-cert}
```

## Fix
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}     # terminates TLS and negotiates HTTP/2
  tls: {mode: SIMPLE, credentialName: shop-cert}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM501.yaml`.
- Istio source: `pkg/config/validation/validation.go` (validateServer), `pilot/pkg/networking/core/gateway.go`.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for gateway in &mesh.istio_gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let (Some(port), Some(tls)) = (&server.port, &server.tls) else { continue };
            let Some(protocol) = Protocol::parse(&port.protocol) else { continue };
            let settings = [
                tls.mode.as_ref().map(|mode| format!("mode: {mode}")),
                tls.credential_name.as_ref().map(|name| format!("credentialName: {name}")),
                tls.server_certificate.as_ref().map(|_| "serverCertificate".to_owned()),
                tls.private_key.as_ref().map(|_| "privateKey".to_owned()),
                (!tls.credential_names.is_empty()).then(|| "credentialNames".to_owned()),
            ];
            let settings: Vec<_> = settings.into_iter().flatten().collect();
            if protocol.family() != ProtocolFamily::Http || settings.is_empty() {
                continue;
            }
            // Validation checks the mode and certificate files only.
            let is_rejected = tls.mode.as_deref().is_some_and(|mode| mode != "PASSTHROUGH")
                || tls.server_certificate.is_some()
                || tls.private_key.is_some();
            let finding = Finding::new(&RULE, &gateway.object, format!("spec.servers[{index}].tls"))
                .message(format!(
                    "server {} on port {} of {} has TLS settings, but protocol {} is plaintext",
                    port.name, port.number, gateway.object, port.protocol
                ))
                .impact(if is_rejected {
                    "the webhook rejects the object; if it is stored anyway, TLS clients get \
                     UNAVAILABLE and plaintext calls are served"
                } else {
                    "the webhook accepts the object, but the gateway does not terminate TLS: TLS \
                     clients get UNAVAILABLE and plaintext calls are served"
                })
                .evidence(settings)
                .fix(format!(
                    "servers:\n- port: {{number: {}, name: https, protocol: HTTPS}}\n  tls: {{mode: \
                     SIMPLE, credentialName: {}}}",
                    port.number,
                    tls.credential_name.as_deref().unwrap_or("my-cert")
                ));
            out.add(&RULE, finding);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, istio};

    fn server(protocol: &str, tls: &str) -> String {
        istio(
            "Gateway",
            "g",
            &format!(
                "{{servers: [{{port: {{number: 443, name: x, protocol: {protocol}}}, hosts: ['*'], tls: {tls}}}]}}"
            ),
        )
    }

    #[test]
    fn reports_tls_settings_with_a_plaintext_protocol() {
        for protocol in ["GRPC", "http2", "HTTP", "GRPC-WEB"] {
            assert_findings(
                &RULE,
                &server(protocol, "{mode: SIMPLE, credentialName: c}"),
                &["error Gateway shop/g spec.servers[0].tls"],
            );
        }
        assert_findings(&RULE, &server("GRPC", "{credentialName: c}"), &["error Gateway shop/g spec.servers[0].tls"]);
    }

    #[test]
    fn accepts_https_and_redirects() {
        assert_findings(&RULE, &server("HTTPS", "{mode: SIMPLE, credentialName: c}"), &[]);
        assert_findings(&RULE, &server("HTTP", "{httpsRedirect: true}"), &[]);
    }
}
