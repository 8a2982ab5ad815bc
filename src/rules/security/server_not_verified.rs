//! GM608: TLS that a DestinationRule starts without verifying the server.

use crate::mesh::Mesh;
use crate::mesh::behavior::IstiodBehavior;
use crate::mesh::destination_rule::DestinationRule;
use crate::rules::{Finding, Findings, Rule, Severity};
use crate::schema::Kind;
use crate::schema::destination_rule::ClientTls;

pub(in crate::rules) static RULE: Rule = Rule {
    code: "GM608",
    name: "server-not-verified",
    severity: Severity::Warning,
    needs: &[Kind::DestinationRule],
    istio_code: Some("IST0128"),
    summary: "A DestinationRule starts TLS without verifying who answers",
    docs: "\
## What it looks for
`SIMPLE` or `MUTUAL` TLS in a DestinationRule with `insecureSkipVerify`; with an `sni` but neither `subjectAltNames` nor
`caCertificates`, so that any certificate of a public authority is accepted; and, before Istio 1.21, without
`caCertificates`.

## Why it matters for gRPC
The caller's proxy encrypts the calls, and anyone who can redirect the connection may answer them. Since Istio 1.21 a
proxy verifies the server with the authorities of the system, and its name if neither `sni` nor `subjectAltNames` is
set.

## Example
```yaml
trafficPolicy:
  tls: {mode: SIMPLE, sni: api.example.com}      # accepts any certificate of a public authority
```

## Fix
```yaml
trafficPolicy:
  tls: {mode: SIMPLE, sni: api.example.com, subjectAltNames: [api.example.com]}
```

## References
- Istio source: `constructUpstreamTLS` and `setAutoSniAndAutoSanValidation` in `pilot/pkg/networking/core/cluster_tls.go`.
- Istio analysis: IST0128, IST0129.
",
    check,
};

fn check(mesh: &Mesh<'_>, out: &mut Findings<'_>) {
    for rule in mesh.destination_rules.iter() {
        for (field, tls) in settings(rule) {
            if let Some((message, fix)) = problem(mesh, tls) {
                let finding = Finding::new(&RULE, &rule.object, field)
                    .message(format!("calls to {} {message}", rule.host))
                    .impact("calls are encrypted, but another server may answer them")
                    .evidence([format!("mode {}", tls.mode.as_deref().unwrap_or_default())])
                    .fix(fix);
                out.add(&RULE, finding);
            }
        }
    }
}

/// All `tls` blocks of a rule, each with its path.
fn settings(rule: &DestinationRule) -> Vec<(String, &ClientTls)> {
    let subsets = rule.spec.subsets.iter().enumerate().filter_map(|(index, subset)| {
        Some((format!("spec.subsets[{index}].trafficPolicy"), subset.traffic_policy.as_ref()?))
    });
    let base = rule.spec.traffic_policy.iter().map(|policy| ("spec.trafficPolicy".to_owned(), policy));
    let mut settings = Vec::new();
    for (path, policy) in base.chain(subsets) {
        settings.extend(policy.tls.iter().map(|tls| (format!("{path}.tls"), tls)));
        let ports = policy.port_level_settings.iter().enumerate();
        settings.extend(
            ports.filter_map(|(index, port)| {
                Some((format!("{path}.portLevelSettings[{index}].tls"), port.tls.as_ref()?))
            }),
        );
    }
    settings
}

/// Why the server is not verified, and the fix.
fn problem(mesh: &Mesh<'_>, tls: &ClientTls) -> Option<(&'static str, String)> {
    if !matches!(tls.mode.as_deref(), Some("SIMPLE" | "MUTUAL")) {
        return None;
    }
    let is_set = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if tls.insecure_skip_verify == Some(true) {
        return Some(("accept any certificate: insecureSkipVerify is set", "remove insecureSkipVerify".to_owned()));
    }
    if is_set(&tls.ca_certificates) || is_set(&tls.credential_name) {
        return None;
    }
    if !mesh.has_behavior(IstiodBehavior::ServerVerification) {
        let fix = "tls:\n  caCertificates: /etc/ssl/certs/ca-certificates.crt".to_owned();
        return Some(("accept any certificate: caCertificates is not set", fix));
    }
    let sni = tls.sni.as_deref().filter(|sni| !sni.is_empty())?;
    tls.subject_alt_names.is_empty().then(|| {
        let message = "accept any certificate of a public authority: sni is set without subjectAltNames";
        (message, format!("tls:\n  subjectAltNames: [{sni}]"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{assert_findings, assert_undecided_on_gap, istio};

    fn rule(tls: &str) -> String {
        istio("DestinationRule", "api", &format!("{{host: api.example.com, trafficPolicy: {{tls: {tls}}}}}"))
    }

    #[test]
    fn reports_settings_that_verify_no_name() {
        let expected = "warning DestinationRule shop/api spec.trafficPolicy.tls";
        assert_findings(&RULE, &rule("{mode: SIMPLE, insecureSkipVerify: true}"), &[expected]);
        assert_findings(&RULE, &rule("{mode: SIMPLE, sni: api.example.com}"), &[expected]);
        assert_undecided_on_gap(&RULE, &rule("{mode: SIMPLE, sni: api.example.com}"));
    }

    #[test]
    fn is_silent_where_the_server_is_verified() {
        for tls in [
            "{mode: SIMPLE}",
            "{mode: SIMPLE, sni: a.example.com, subjectAltNames: [a.example.com]}",
            "{mode: SIMPLE, sni: a.example.com, caCertificates: /etc/ca.pem}",
            "{mode: ISTIO_MUTUAL, sni: a}",
            "{mode: DISABLE}",
        ] {
            assert_findings(&RULE, &rule(tls), &[]);
        }
    }
}
