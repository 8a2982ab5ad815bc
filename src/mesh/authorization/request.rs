//! A call as the proxy of the server sees it, and the value of conditions on it.
//!
//! Sources: `pilot/pkg/security/authz/model/generator.go` and `pilot/pkg/security/trustdomain/bundle.go` of istio/istio
//! 1.31; `source/extensions/filters/common/rbac/matchers.cc` of Envoy 1.39.

use std::net::IpAddr;

use super::patterns::{
    address_in, is_path_template, matches, matches_glob, matches_ignoring_case, matches_path_template, without_query,
};
use super::policy::{PolicyAttribute, PolicyCondition};
use super::truth::{Truth, UnknownFact};

/// The domain that stands for the mesh's own trust domain in principals.
const LOCAL_TRUST_DOMAIN: &str = "cluster.local";

/// The SPIFFE identity in a caller's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeIdentity {
    pub trust_domain: String,
    pub namespace: String,
    /// `None`: the source does not contain it.
    pub service_account: Option<String>,
}

impl SpiffeIdentity {
    /// The part before the ServiceAccount: `spiffe://cluster.local/ns/web/sa/`.
    fn prefix(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/", self.trust_domain, self.namespace)
    }
}

/// How the server's proxy knows the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeerIdentity {
    /// Plaintext, or TLS that the proxy does not terminate.
    None,
    Spiffe(SpiffeIdentity),
    /// The source does not decide it.
    Unknown,
}

/// A fact that the source may not contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known<T> {
    Is(T),
    Unknown(UnknownFact),
}

impl<T> Known<T> {
    fn test(&self, holds: impl FnOnce(&T) -> Truth) -> Truth {
        match self {
            Self::Is(value) => holds(value),
            Self::Unknown(fact) => Truth::Unknown(*fact),
        }
    }
}

/// The HTTP part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// All authorities that the client may use; the conditions on it are unknown where these differ.
    pub authorities: Vec<String>,
    pub path: String,
    /// Names in lower case, in order. Pseudo-headers and those that every gRPC client sends are included.
    pub headers: Vec<(String, String)>,
    /// Whether the client may send further headers.
    pub may_have_other_headers: bool,
}

/// A request at the proxy of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRequest<'a> {
    pub peer: PeerIdentity,
    /// The mesh's trust domain and its aliases.
    pub trust_domains: &'a [String],
    /// The address of the connection.
    pub source_ip: Known<IpAddr>,
    /// The address of the original client.
    pub remote_ip: Known<IpAddr>,
    pub destination_ip: Known<IpAddr>,
    /// Port of the pod.
    pub port: u16,
    /// Empty without TLS.
    pub server_name: Known<String>,
    /// `None` on a TCP filter chain.
    pub http: Option<HttpRequest>,
    /// Whether the proxy reads tokens.
    pub reads_tokens: bool,
}

/// A value that istiod cannot translate for this filter chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untranslatable;

impl ServerRequest<'_> {
    /// The value of a condition of a policy in `policy_namespace`.
    ///
    /// A value that cannot be translated makes istiod drop the whole rule of an ALLOW policy, and only the value in
    /// other policies (`checkError` in `model.go`).
    ///
    /// # Errors
    /// If the whole rule is dropped.
    pub fn check(
        &self,
        condition: &PolicyCondition,
        policy_namespace: &str,
        is_allow: bool,
    ) -> Result<Truth, Untranslatable> {
        let any_of = |values: &[String]| -> Result<Option<Truth>, Untranslatable> {
            let mut any = None;
            for value in values {
                match self.value(&condition.attribute, value, policy_namespace) {
                    Ok(holds) => any = Some(any.unwrap_or(Truth::No).or(holds)),
                    Err(error) if is_allow => return Err(error),
                    Err(Untranslatable) => {}
                }
            }
            Ok(any)
        };
        let required = any_of(&condition.values)?.unwrap_or(Truth::Yes);
        let excluded = any_of(&condition.not_values)?.unwrap_or(Truth::No);
        Ok(required.and(!excluded))
    }

    fn value(&self, attribute: &PolicyAttribute, value: &str, policy_namespace: &str) -> Result<Truth, Untranslatable> {
        if attribute.is_http_only() {
            return self.http_value(attribute, value);
        }
        let in_range = |address: &Known<IpAddr>| {
            let (address, fact) = match address {
                Known::Is(address) => (Some(*address), UnknownFact::CallerAddress),
                Known::Unknown(fact) => (None, *fact),
            };
            address_in(value, address, fact).ok_or(Untranslatable)
        };
        match attribute {
            PolicyAttribute::DestinationIp => in_range(&self.destination_ip),
            PolicyAttribute::SourceIp => in_range(&self.source_ip),
            PolicyAttribute::RemoteIp => in_range(&self.remote_ip),
            PolicyAttribute::DestinationPort => {
                value.parse::<u16>().map(|port| Truth::from(port == self.port)).map_err(|_| Untranslatable)
            }
            PolicyAttribute::ServerName => Ok(self.server_name.test(|name| matches(value, name).into())),
            PolicyAttribute::FilterMetadata => Ok(Truth::Unknown(UnknownFact::FilterMetadata)),
            _ => Ok(self.identity_value(attribute, value, policy_namespace)),
        }
    }

    fn http_value(&self, attribute: &PolicyAttribute, value: &str) -> Result<Truth, Untranslatable> {
        let http = self.http.as_ref().ok_or(Untranslatable)?;
        let path = without_query(&http.path);
        Ok(match attribute {
            PolicyAttribute::Host => http.authority_matches(value),
            PolicyAttribute::Path if is_path_template(value) => matches_path_template(value, path).into(),
            PolicyAttribute::Path => matches(value, path).into(),
            PolicyAttribute::Method => http.header_matches(":method", value),
            PolicyAttribute::Header(name) => http.header_matches(name.as_ref().map_err(|()| Untranslatable)?, value),
            _ if self.reads_tokens => Truth::Unknown(UnknownFact::Token),
            // Without a RequestAuthentication no filter reads the token, so no claim has a value.
            _ => Truth::No,
        })
    }

    fn identity_value(&self, attribute: &PolicyAttribute, value: &str, policy_namespace: &str) -> Truth {
        let identity = match &self.peer {
            PeerIdentity::None => return Truth::No,
            PeerIdentity::Unknown => return Truth::Unknown(UnknownFact::CallerIdentity),
            PeerIdentity::Spiffe(identity) => identity,
        };
        match attribute {
            PolicyAttribute::SourceNamespace => {
                let text = identity.prefix() + identity.service_account.as_deref().unwrap_or_default();
                matches_glob(&format!("*/ns/{value}/*"), &text).into()
            }
            PolicyAttribute::TrustDomain => self.trust_domain_matches(value, identity),
            PolicyAttribute::ServiceAccount => {
                let (namespace, name) = value.split_once('/').unwrap_or((policy_namespace, value));
                let is_account = identity.service_account.as_ref().map(|account| account == name);
                Truth::from(namespace == identity.namespace)
                    .and(is_account.map_or(Truth::Unknown(UnknownFact::ServiceAccount), Truth::from))
            }
            _ => expand_trust_domains(value, self.trust_domains)
                .iter()
                .map(|principal| principal_matches(principal, identity))
                .fold(Truth::No, Truth::or),
        }
    }

    fn trust_domain_matches(&self, value: &str, identity: &SpiffeIdentity) -> Truth {
        let is_own = self.trust_domains.iter().any(|domain| domain == value);
        let is_alias = is_own && self.trust_domains.contains(&identity.trust_domain);
        Truth::from(is_alias || value == "*" || matches_glob(value, &identity.trust_domain))
    }
}

impl HttpRequest {
    fn authority_matches(&self, value: &str) -> Truth {
        let mut holds = self.authorities.iter().map(|authority| matches_ignoring_case(value, authority));
        let Some(first) = holds.next() else { return Truth::Unknown(UnknownFact::Authority) };
        if holds.all(|other| other == first) { first.into() } else { Truth::Unknown(UnknownFact::Authority) }
    }

    /// Whether a header matches a value. Envoy joins the values of a header that occurs several times.
    fn header_matches(&self, name: &str, value: &str) -> Truth {
        let name = if name == "host" { ":authority" } else { name };
        if name == ":authority" {
            return match self.authorities.as_slice() {
                [authority] => matches(value, authority).into(),
                _ => Truth::Unknown(UnknownFact::Authority),
            };
        }
        let found: Vec<&str> =
            self.headers.iter().filter(|(header, _)| header == name).map(|(_, text)| text.as_str()).collect();
        if found.is_empty() {
            let is_unknown = self.may_have_other_headers || is_set_by_proxies(name);
            return if is_unknown { Truth::Unknown(UnknownFact::Header) } else { Truth::No };
        }
        let text = found.join(",");
        // A header that is present may be empty.
        (value == "*" || matches(value, &text)).into()
    }
}

/// Whether proxies add the header to calls.
fn is_set_by_proxies(name: &str) -> bool {
    matches!(name, "x-request-id" | "x-forwarded-proto" | "x-forwarded-client-cert" | "traceparent" | "tracestate")
        || name.starts_with("x-envoy-")
        || name.starts_with("x-b3-")
}

/// Adds the mesh's trust domain and its aliases to a principal that names one of them, or `cluster.local`.
fn expand_trust_domains(principal: &str, trust_domains: &[String]) -> Vec<String> {
    let (domain, rest) = principal.split_once('/').unwrap_or((principal, ""));
    if principal.split('/').count() != 5 || domain == "*" {
        return vec![principal.to_owned()];
    }
    // istiod compares the domain of the principal with the trust domains as patterns.
    let is_own = domain == LOCAL_TRUST_DOMAIN || trust_domains.iter().any(|pattern| matches(pattern, domain));
    if !is_own {
        return vec![principal.to_owned()];
    }
    let covers = |own: &String| domain.strip_prefix('*').is_some_and(|suffix| own.ends_with(suffix));
    trust_domains.iter().map(|own| if covers(own) { principal.to_owned() } else { format!("{own}/{rest}") }).collect()
}

/// Whether an identity matches a principal, which is written without `spiffe://`.
fn principal_matches(principal: &str, identity: &SpiffeIdentity) -> Truth {
    let prefix = identity.prefix();
    let Some(account) = &identity.service_account else { return partial_match(principal, &prefix) };
    let text = prefix + account;
    let name = text.strip_prefix("spiffe://").unwrap_or(&text);
    Truth::from(match principal.strip_prefix('*') {
        Some(suffix) => name.ends_with(suffix),
        None => matches(principal, name),
    })
}

/// Whether a text that starts with `known` and ends with an unknown name matches a principal.
fn partial_match(principal: &str, known: &str) -> Truth {
    let unknown = Truth::Unknown(UnknownFact::ServiceAccount);
    match principal.strip_prefix('*') {
        Some("") => Truth::Yes,
        Some(suffix) => match suffix.rsplit_once('/') {
            // The name contains no slash, so everything up to the last slash is known.
            Some((head, _)) if !known.ends_with(&format!("{head}/")) => Truth::No,
            _ => unknown,
        },
        None => {
            let written = format!("spiffe://{principal}");
            let text = written.strip_suffix('*').unwrap_or(&written);
            match (text.len() < written.len(), known.starts_with(text)) {
                (true, true) => Truth::Yes,
                _ if text.starts_with(known) => unknown,
                _ => Truth::No,
            }
        }
    }
}
