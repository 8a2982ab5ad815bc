//! The effective retry policy of a route, and the object or default that sets it.
//!
//! Source: `pilot/pkg/networking/core/route/retry/retry.go` of istio/istio 1.31.

use std::fmt;
use std::time::Duration;

use super::ids::ObjectRef;
use crate::schema::virtual_service::HttpRetries;
use crate::vocabulary::duration;

/// `retryOn` conditions of Istio's default policy.
pub const DEFAULT_RETRY_ON: [&str; 5] =
    ["connect-failure", "refused-stream", "unavailable", "cancelled", "retriable-status-codes"];

/// Number of retries, without the first attempt, in Istio's default policy.
pub const DEFAULT_ATTEMPTS: u32 = 2;

/// The origin of a retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryOwner {
    /// A rule of this route object.
    Rule(ObjectRef),
    /// `meshConfig.defaultHttpRetryPolicy`
    MeshDefault,
    /// Istio's built-in default.
    IstioDefault,
}

impl fmt::Display for RetryOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule(object) => write!(f, "{object}"),
            Self::MeshDefault => f.write_str("mesh default"),
            Self::IstioDefault => f.write_str("istio default"),
        }
    }
}

/// An effective retry policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Number of retries, without the first attempt. 0 disables retries.
    pub attempts: u32,
    /// Conditions, in written order.
    pub retry_on: Vec<String>,
    /// HTTP status codes that Envoy retries.
    pub status_codes: Vec<u16>,
    /// Limit of one attempt. `None`: only the timeout of the route applies.
    pub per_try_timeout: Option<Duration>,
    pub owner: RetryOwner,
}

/// What a mesh retries unless a route says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct RetryDefaults<'a> {
    /// `defaultHttpRetryPolicy` of the mesh configuration.
    pub mesh_default: Option<&'a HttpRetries>,
    /// Whether the conditions of Istio's default policy include HTTP 503.
    pub retries_503: bool,
}

impl RetryDefaults<'_> {
    fn conditions(self) -> (Vec<String>, Vec<u16>) {
        let status_codes = if self.retries_503 { vec![503] } else { Vec::new() };
        (DEFAULT_RETRY_ON.iter().map(|&condition| condition.to_owned()).collect(), status_codes)
    }
}

/// The effective policy of a route with `written` retries.
pub fn effective_policy(written: Option<(&HttpRetries, &ObjectRef)>, defaults: RetryDefaults<'_>) -> RetryPolicy {
    match (written, defaults.mesh_default) {
        (Some((retries, object)), _) => from_written(retries, defaults, RetryOwner::Rule(object.clone())),
        (None, Some(retries)) => from_written(retries, defaults, RetryOwner::MeshDefault),
        (None, None) => {
            let (retry_on, status_codes) = defaults.conditions();
            let owner = RetryOwner::IstioDefault;
            RetryPolicy { attempts: DEFAULT_ATTEMPTS, retry_on, status_codes, per_try_timeout: None, owner }
        }
    }
}

/// A written `retries` block replaces the default policy as a whole. Only an unset `retryOn` takes the default
/// conditions.
fn from_written(retries: &HttpRetries, defaults: RetryDefaults<'_>, owner: RetryOwner) -> RetryPolicy {
    let attempts = u32::try_from(retries.attempts.unwrap_or(0)).unwrap_or(0);
    if attempts == 0 {
        return RetryPolicy {
            attempts: 0,
            retry_on: Vec::new(),
            status_codes: Vec::new(),
            per_try_timeout: None,
            owner,
        };
    }
    let (retry_on, status_codes) = match retries.retry_on.as_deref() {
        None | Some("") => defaults.conditions(),
        Some(text) => split_conditions(text),
    };
    let per_try_timeout =
        retries.per_try_timeout.as_deref().and_then(|text| duration::parse(text).ok()).filter(|limit| !limit.is_zero());
    RetryPolicy { attempts, retry_on, status_codes, per_try_timeout, owner }
}

/// Splits `retryOn` into conditions and HTTP status codes. Status codes imply the condition `retriable-status-codes`.
/// Source: `parseRetryOn` in `retry.go`, which recognizes the codes that Go's `http.StatusText` knows.
fn split_conditions(text: &str) -> (Vec<String>, Vec<u16>) {
    let mut conditions = Vec::new();
    let mut codes = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        if part.is_empty() {
            continue;
        }
        match part.parse::<u16>() {
            Ok(code) if is_http_status(code) => codes.push(code),
            _ => conditions.push(part.to_owned()),
        }
    }
    if !codes.is_empty() && !conditions.iter().any(|condition| condition == "retriable-status-codes") {
        conditions.push("retriable-status-codes".to_owned());
    }
    (conditions, codes)
}

/// Whether Go's `http.StatusText` knows the code.
pub fn is_http_status(code: u16) -> bool {
    matches!(
        code,
        100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Kind;

    fn rule() -> ObjectRef {
        ObjectRef { kind: Kind::VirtualService, namespace: "shop".into(), name: "checkout".into() }
    }

    #[test]
    fn falls_back_to_the_mesh_default_then_to_the_istio_default() {
        let policy = effective_policy(None, RetryDefaults::default());
        assert_eq!((policy.attempts, policy.retry_on.len()), (2, 5));
        let off = HttpRetries { attempts: Some(0), ..HttpRetries::default() };
        let defaults = RetryDefaults { mesh_default: Some(&off), ..RetryDefaults::default() };
        assert_eq!(effective_policy(None, defaults).attempts, 0);
    }

    #[test]
    fn older_releases_retry_503_where_the_default_conditions_apply() {
        let defaults = RetryDefaults { retries_503: true, ..RetryDefaults::default() };
        assert_eq!(effective_policy(None, defaults).status_codes, [503]);
        let object = rule();
        let written = HttpRetries { attempts: Some(3), ..HttpRetries::default() };
        assert_eq!(effective_policy(Some((&written, &object)), defaults).status_codes, [503]);
        let own = HttpRetries { retry_on: Some("unavailable".into()), ..written };
        assert!(effective_policy(Some((&own, &object)), defaults).status_codes.is_empty());
    }

    #[test]
    fn a_written_block_replaces_the_default_policy() {
        let object = rule();
        let policy = |retries: HttpRetries| effective_policy(Some((&retries, &object)), RetryDefaults::default());
        assert_eq!(policy(HttpRetries::default()).attempts, 0);
        let three = policy(HttpRetries { attempts: Some(3), ..HttpRetries::default() });
        assert_eq!((three.attempts, three.retry_on.len()), (3, 5));
        let codes = policy(HttpRetries {
            attempts: Some(1),
            retry_on: Some("503, unavailable".into()),
            ..HttpRetries::default()
        });
        assert_eq!(codes.retry_on, ["unavailable", "retriable-status-codes"]);
        assert_eq!(codes.status_codes, [503]);
    }
}
