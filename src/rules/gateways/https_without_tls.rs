//! GM502: a gateway server of protocol HTTPS or TLS without TLS settings.

use crate::mesh::Mesh;
use crate::mesh::protocol::Protocol;
use crate::rules::{Finding, Findings, Rule, Severity};

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM502",
    name: "https-without-tls",
    severity: Severity::Error,
    needs: &[],
    istio_code: Some("IST0106"),
    summary: "A gateway server of protocol HTTPS or TLS without TLS settings",
    docs: "\
## What it looks for
An Istio Gateway whose server has `protocol: HTTPS` or `TLS` and no `tls` block.

## Why it matters for gRPC
The webhook refuses it. Where it gets in there is no certificate to show: every client's handshake fails, and gRPC
clients see UNAVAILABLE.

## Example
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [api.example.com]
```

## Repair
```yaml
servers:
- port: {number: 443, name: https, protocol: HTTPS}
  hosts: [api.example.com]
  tls: {mode: SIMPLE, credentialName: api-cert}
```

## References
- Seen on a real mesh: `tests/lab/effects/GM502.yaml`.
- Istio: `pkg/config/validation/validation.go`: \"server must have TLS settings for HTTPS/TLS protocols\".
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for gateway in &mesh.istio_gateways {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            let encrypted = matches!(Protocol::parse(&port.protocol), Some(Protocol::Https | Protocol::Tls));
            if !encrypted || server.tls.is_some() {
                continue;
            }
            let finding = Finding::new(&RULE, &gateway.object, format!("spec.servers[{index}]"))
                .message(format!(
                    "server {} on port {} is {} but has no tls block",
                    port.name, port.number, port.protocol
                ))
                .impact("the webhook refuses it; where it gets in, every TLS handshake fails (UNAVAILABLE)")
                .fix("tls: {mode: SIMPLE, credentialName: my-cert}");
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
            &format!("{{servers: [{{port: {{number: 443, name: x, protocol: {protocol}}}, hosts: ['*']{tls}}}]}}"),
        )
    }

    #[test]
    fn a_missing_block_is_reported() {
        check(&RULE, &server("HTTPS", ""), &["error Gateway shop/g spec.servers[0]"]);
        check(&RULE, &server("tls", ""), &["error Gateway shop/g spec.servers[0]"]);
    }

    #[test]
    fn with_a_block_or_plain_text_it_is_silent() {
        check(&RULE, &server("HTTPS", ", tls: {mode: PASSTHROUGH}"), &[]);
        check(&RULE, &server("HTTP", ""), &[]);
    }
}
