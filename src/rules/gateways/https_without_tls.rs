//! GM502: a gateway server with protocol HTTPS or TLS but without TLS settings.

use crate::mesh::Mesh;
use crate::mesh::protocol::Protocol;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM502",
    name: "https-without-tls",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A gateway server with protocol HTTPS or TLS but without TLS settings",
    docs: "\
## What it looks for
An Istio Gateway server with `protocol: HTTPS` or `TLS` and no `tls` block.

## Why it matters for gRPC
The webhook rejects the object. If it is stored anyway, the gateway has no certificate: every TLS handshake fails, and
gRPC clients get UNAVAILABLE.

## Example
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [api.example.com]
```

## Fix
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [api.example.com]
  tls: {mode: SIMPLE, credentialName: api-cert}
```

## References
- Verified on a real mesh: `tests/lab/effects/GM502.yaml`.
- Istio source: `pkg/config/validation/validation.go`: \"server must have TLS settings for HTTPS/TLS protocols\".
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for gateway in &mesh.istio_gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            let requires_tls = matches!(Protocol::parse(&port.protocol), Some(Protocol::Https | Protocol::Tls));
            if !requires_tls || server.tls.is_some() {
                continue;
            }
            let finding = Finding::new(&RULE, &gateway.object, format!("spec.servers[{index}]"))
                .message(format!(
                    "server {} on port {} of {} has protocol {} but no tls block",
                    port.name, port.number, gateway.object, port.protocol
                ))
                .impact(
                    "the webhook rejects the object; if it is stored anyway, every TLS handshake fails (UNAVAILABLE)",
                )
                .fix("tls: {mode: SIMPLE, credentialName: my-cert}");
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
            &format!("{{servers: [{{port: {{number: 443, name: x, protocol: {protocol}}}, hosts: ['*']{tls}}}]}}"),
        )
    }

    #[test]
    fn reports_a_missing_tls_block() {
        assert_findings(&RULE, &server("HTTPS", ""), &["error Gateway shop/g spec.servers[0]"]);
        assert_findings(&RULE, &server("tls", ""), &["error Gateway shop/g spec.servers[0]"]);
    }

    #[test]
    fn accepts_a_tls_block_and_plaintext_protocols() {
        assert_findings(&RULE, &server("HTTPS", ", tls: {mode: PASSTHROUGH}"), &[]);
        assert_findings(&RULE, &server("HTTP", ""), &[]);
    }
}
