//! Certificates that a gateway needs before its listeners take TLS.
//!
//! Sources: `ToResourceName` in `pilot/pkg/model/credentials/resource.go`, `ApplyCredentialSDSToServerCommonTLSContext` in
//! `pilot/pkg/security/model/authentication.go` of istio/istio 1.31.

use std::collections::BTreeMap;

use super::Outbound;
use crate::schema::gateway::Server;

impl Outbound<'_> {
    /// Names of the secrets that Envoy asks istiod for, each with the Gateways that need it. A sidecar's own certificate
    /// is not among them: without it nothing works, and its agent says so.
    pub fn secrets(&self) -> BTreeMap<String, Vec<String>> {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        if !self.is_gateway() {
            return found;
        }
        for (gateway, server) in self.servers().all() {
            for name in names(server) {
                let users = found.entry(name).or_default();
                let gateway = gateway.to_string();
                if !users.contains(&gateway) {
                    users.push(gateway);
                }
            }
        }
        found
    }
}

fn names(server: &Server) -> Vec<String> {
    let Some(tls) = &server.tls else { return Vec::new() };
    if !matches!(tls.mode.as_deref(), Some("SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL")) {
        return Vec::new();
    }
    let given = tls.credential_names.iter().chain(&tls.credential_name).filter(|name| !name.is_empty());
    // Those that have a form of their own stay as they are, but for the proxy's own certificate and what is not one.
    let given = given.filter(|name| !name.starts_with("builtin://") && !name.starts_with("invalid://"));
    let mut names: Vec<String> =
        given.map(|name| if name.contains("://") { name.clone() } else { format!("kubernetes://{name}") }).collect();
    if tls.mode.as_deref() != Some("SIMPLE")
        && let Some(first) = names.first()
    {
        names.push(format!("{first}-cacert"));
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_istiod() {
        let of = |tls: &str| names(&serde_json::from_str(&format!("{{\"tls\": {tls}}}")).unwrap());
        assert_eq!(of(r#"{"mode": "SIMPLE", "credentialName": "a"}"#), ["kubernetes://a"]);
        assert_eq!(of(r#"{"mode": "MUTUAL", "credentialName": "a"}"#), ["kubernetes://a", "kubernetes://a-cacert"]);
        assert_eq!(of(r#"{"mode": "SIMPLE", "credentialNames": ["a", "b"]}"#), ["kubernetes://a", "kubernetes://b"]);
        for none in [
            r#"{"mode": "PASSTHROUGH"}"#,
            r#"{"mode": "ISTIO_MUTUAL"}"#,
            r#"{"mode": "SIMPLE", "serverCertificate": "/c"}"#,
        ] {
            assert_eq!(of(none), Vec::<String>::new(), "{none}");
        }
    }
}
