//! GM501: TLS settings on a gateway server that is plain text.

use crate::mesh::Mesh;
use crate::mesh::protocol::{Protocol, ProtocolFamily};
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM501",
    name: "tls-on-plaintext-server",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A gateway server of protocol GRPC, HTTP or HTTP2 with TLS settings: plain text",
    docs: "\
## What it looks for
An Istio Gateway whose server has `protocol: GRPC`, `GRPC-WEB`, `HTTP` or `HTTP2` and TLS settings other than
`httpsRedirect`.

## Why it matters for gRPC
The protocol words of the HTTP family mean plain text. The webhook refuses TLS settings beside them, except a
`credentialName` without a mode; where such a server gets in, TLS is not terminated: clients that speak TLS fail, and
clients that do not are served in the clear.

## Example
```yaml
servers:
- port: {number: 443, name: grpc, protocol: GRPC}
  tls: {mode: SIMPLE, credentialName: shop-cert}
```

## Repair
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}     # TLS ends here, HTTP/2 is offered
  tls: {mode: SIMPLE, credentialName: shop-cert}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM501.yaml`.
- Istio: `pkg/config/validation/validation.go` (validateServer), `pilot/pkg/networking/core/gateway.go`.
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
            // Validation looks at the mode and at certificates in files only.
            let refused = tls.mode.as_deref().is_some_and(|mode| mode != "PASSTHROUGH")
                || tls.server_certificate.is_some()
                || tls.private_key.is_some();
            let finding = Finding::new(&RULE, &gateway.object, format!("spec.servers[{index}].tls"))
                .message(format!(
                    "server {} on port {} has TLS settings, but protocol {} means plain text",
                    port.name, port.number, port.protocol
                ))
                .impact(if refused {
                    "the webhook refuses it; where it gets in, TLS is not terminated and calls are served in the clear"
                } else {
                    "the webhook lets it pass, yet TLS is not terminated: calls are served in the clear"
                })
                .evidence(settings)
                .fix(format!(
                    "servers:\n- port: {{number: {}, name: https, protocol: HTTPS}}\n  tls: {{mode: SIMPLE, credentialName: {}}}",
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
    use crate::rules::testing::{check, istio};

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
    fn tls_beside_a_plain_text_protocol_is_reported() {
        for protocol in ["GRPC", "http2", "HTTP", "GRPC-WEB"] {
            check(
                &RULE,
                &server(protocol, "{mode: SIMPLE, credentialName: c}"),
                &["error Gateway shop/g spec.servers[0].tls"],
            );
        }
        check(&RULE, &server("GRPC", "{credentialName: c}"), &["error Gateway shop/g spec.servers[0].tls"]);
    }

    #[test]
    fn https_and_redirects_are_silent() {
        check(&RULE, &server("HTTPS", "{mode: SIMPLE, credentialName: c}"), &[]);
        check(&RULE, &server("HTTP", "{httpsRedirect: true}"), &[]);
    }
}
