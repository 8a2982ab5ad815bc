//! Written route rules in one form for VirtualServices, HTTPRoutes and GRPCRoutes.
//!
//! Stage: written. The types hold what the objects say, with short host names completed and durations parsed. They do
//! not depend on a caller, and rules and reports show them. The compiled stage, in which a call is matched, is in
//! [`super::xds`] and [`super::caller_backend`].

use std::fmt;
use std::time::Duration;

use super::ids::{Host, ObjectRef, SubsetName};
use super::retry::RetryPolicy;
use crate::schema::virtual_service::{HttpMatch, StringMatch};

/// One rule of a route object.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenRule {
    pub object: ObjectRef,
    /// Position in `spec.http` or `spec.rules` of the object.
    pub index: usize,
    /// Path of the rule, such as `spec.http[0]`.
    pub field: String,
    pub name: Option<String>,
    /// Alternatives: the rule matches if any of them does. Empty matches every call.
    pub matches: Vec<WrittenMatch>,
    pub action: WrittenAction,
    /// Limit of the whole call, which Envoy also applies to `grpc-timeout`. `None`: no limit.
    pub timeout: Option<Duration>,
    /// The effective retry policy, defaults included.
    pub retries: RetryPolicy,
    /// Injected faults, each as a sentence fragment such as `delay 2s for 10%`.
    pub faults: Vec<String>,
    pub mirrors: Vec<WrittenMirror>,
    /// Rewrites, each such as `path → /v2`.
    pub rewrites: Vec<String>,
}

/// The action of a rule on a matching call.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenAction {
    /// Forwards it to one of these backends.
    Forward(Vec<WrittenBackend>),
    /// Answers with an HTTP redirect, which gRPC clients do not follow.
    Redirect,
    /// Answers with this HTTP status code.
    DirectResponse(u32),
    /// Uses the rules of another VirtualService.
    Delegate { object: ObjectRef },
}

/// A weighted backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenBackend {
    /// Fully qualified host.
    pub host: Host,
    /// Port of the Service. `None`: the port that the caller dials.
    pub port: Option<u32>,
    pub subset: Option<SubsetName>,
    /// Weight relative to the other backends. `None` counts as 0.
    pub weight: Option<i64>,
    /// Path of the backend, such as `spec.http[0].route[1]`.
    pub field: String,
}

/// A backend that gets copies of the calls.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenMirror {
    pub host: Host,
    pub subset: Option<SubsetName>,
    /// Share of the calls in percent.
    pub percent: f64,
}

/// Shares of weighted backends in percent, in the same order. A single backend gets 100, whatever its weight. `None`:
/// several backends without any weight, for which Envoy rejects the route table.
pub fn weight_shares(weights: &[Option<i64>]) -> Option<Vec<f64>> {
    if weights.len() == 1 {
        return Some(vec![100.0]);
    }
    let weights: Vec<i64> = weights.iter().map(|weight| weight.unwrap_or(0).max(0)).collect();
    let total: i64 = weights.iter().try_fold(0_i64, |sum, weight| sum.checked_add(*weight))?;
    if total == 0 {
        return None;
    }
    // Reports show two decimals, so the loss of precision for weights beyond 2^53 is invisible.
    #[expect(clippy::cast_precision_loss, reason = "shown with two decimals")]
    Some(weights.iter().map(|weight| *weight as f64 * 100.0 / total as f64).collect())
}

/// One alternative of a rule: conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WrittenMatch {
    /// Empty matches every call.
    pub conditions: Vec<WrittenCondition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenCondition {
    Path {
        text: TextMatch,
        /// A prefix matches whole path segments only, as `PathPrefix` of Gateway API does.
        by_segment: bool,
        ignores_case: bool,
    },
    Header {
        name: String,
        text: TextMatch,
        /// `withoutHeaders`: the header must not match.
        is_inverted: bool,
    },
    /// The HTTP method, `:authority`, or the scheme.
    PseudoHeader {
        /// `method`, `authority` or `scheme`.
        name: &'static str,
        text: TextMatch,
    },
    /// A query parameter. gRPC calls have none.
    Query { name: String, text: TextMatch },
    /// The port that the caller dials.
    Port(u32),
    /// Labels of the caller.
    SourceLabels(Vec<(String, String)>),
    /// Namespace of the caller.
    SourceNamespace(String),
    /// Gateways through which the call must arrive.
    Gateways(Vec<String>),
}

/// A condition on a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    Exact(String),
    Prefix(String),
    /// RE2 expression that must match the whole string.
    Regex(String),
    /// The string exists, with any value.
    Present,
}

impl TextMatch {
    pub fn from_string_match(text: &StringMatch) -> Self {
        let StringMatch { exact, prefix, regex } = text;
        match (exact, prefix, regex) {
            (Some(exact), ..) => Self::Exact(exact.clone()),
            (None, Some(prefix), _) => Self::Prefix(prefix.clone()),
            (None, None, Some(regex)) if regex == "*" => Self::Present,
            (None, None, Some(regex)) => Self::Regex(regex.clone()),
            (None, None, None) => Self::Present,
        }
    }
}

impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "= {text}"),
            Self::Prefix(text) => write!(f, "= {text}*"),
            Self::Regex(text) => write!(f, "~ {text}"),
            Self::Present => f.write_str("is present"),
        }
    }
}

impl fmt::Display for WrittenCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { text: TextMatch::Exact(path), ignores_case, .. } => {
                write!(f, "{path}{}", if *ignores_case { " (any case)" } else { "" })
            }
            Self::Path { text: TextMatch::Prefix(path), by_segment, ignores_case } => {
                let slash = if *by_segment && !path.ends_with('/') { "[/]" } else { "" };
                write!(f, "{path}{slash}*{}", if *ignores_case { " (any case)" } else { "" })
            }
            Self::Path { text: TextMatch::Regex(path), .. } => write!(f, "path ~ {path}"),
            Self::Path { text: TextMatch::Present, .. } => f.write_str("any path"),
            Self::Header { name, text, is_inverted: false } => write!(f, "{name} {text}"),
            Self::Header { name, text, is_inverted: true } => write!(f, "not {name} {text}"),
            Self::PseudoHeader { name, text } => write!(f, "{name} {text}"),
            Self::Query { name, text } => write!(f, "?{name} {text}"),
            Self::Port(port) => write!(f, "port {port}"),
            Self::SourceLabels(labels) => {
                f.write_str("from pods ")?;
                for (index, (key, value)) in labels.iter().enumerate() {
                    write!(f, "{}{key}={value}", if index > 0 { "," } else { "" })?;
                }
                Ok(())
            }
            Self::SourceNamespace(namespace) => write!(f, "from namespace {namespace}"),
            Self::Gateways(gateways) => write!(f, "through {}", gateways.join(", ")),
        }
    }
}

impl fmt::Display for WrittenMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.conditions.is_empty() {
            return f.write_str("any call");
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            write!(f, "{}{condition}", if index > 0 { " and " } else { "" })?;
        }
        Ok(())
    }
}

impl WrittenMatch {
    /// Converts one alternative. With `by_segment`, a path prefix matches whole path segments only.
    pub fn from_http_match(written: &HttpMatch, by_segment: bool) -> Self {
        let HttpMatch {
            name: _,
            uri,
            scheme,
            method,
            authority,
            headers,
            without_headers,
            query_params,
            port,
            source_labels,
            source_namespace,
            gateways,
            ignore_uri_case,
        } = written;
        let mut conditions = Vec::new();
        if let Some(uri) = uri {
            let text = TextMatch::from_string_match(uri);
            // Istio does not apply `ignoreUriCase` to regular expressions.
            let ignores_case = *ignore_uri_case && !matches!(text, TextMatch::Regex(_));
            conditions.push(WrittenCondition::Path { text, by_segment, ignores_case });
        }
        for (name, text) in [("method", method), ("authority", authority), ("scheme", scheme)] {
            if let Some(text) = text {
                conditions.push(WrittenCondition::PseudoHeader { name, text: TextMatch::from_string_match(text) });
            }
        }
        for (map, is_inverted) in [(headers, false), (without_headers, true)] {
            for (name, text) in map.iter().flatten() {
                conditions.push(WrittenCondition::Header {
                    name: name.clone(),
                    text: TextMatch::from_string_match(text),
                    is_inverted,
                });
            }
        }
        for (name, text) in query_params.iter().flatten() {
            conditions.push(WrittenCondition::Query { name: name.clone(), text: TextMatch::from_string_match(text) });
        }
        if let Some(port) = port {
            conditions.push(WrittenCondition::Port(*port));
        }
        if gateways.is_empty() {
            if !source_labels.is_empty() {
                let labels = source_labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
                conditions.push(WrittenCondition::SourceLabels(labels));
            }
            if let Some(namespace) = source_namespace {
                conditions.push(WrittenCondition::SourceNamespace(namespace.clone()));
            }
        } else {
            // istiod ignores `sourceLabels` and `sourceNamespace` in a match with `gateways`.
            conditions.push(WrittenCondition::Gateways(gateways.0.clone()));
        }
        Self { conditions }
    }

    /// Whether the alternative matches every call: it has no condition but `prefix: /` or `regex: .*` on the path.
    /// Source: `IsCatchAllRoute` in `route.go`.
    pub fn is_catch_all(&self) -> bool {
        self.conditions.iter().all(|condition| match condition {
            WrittenCondition::Path { text: TextMatch::Prefix(prefix), .. } => prefix == "/",
            WrittenCondition::Path { text: TextMatch::Regex(regex), .. } => regex == ".*" || regex == "*",
            WrittenCondition::Path { text: TextMatch::Exact(_) | TextMatch::Present, .. }
            | WrittenCondition::Header { .. }
            | WrittenCondition::PseudoHeader { .. }
            | WrittenCondition::Query { .. }
            | WrittenCondition::Port(_)
            | WrittenCondition::SourceLabels(_)
            | WrittenCondition::SourceNamespace(_)
            | WrittenCondition::Gateways(_) => false,
        })
    }
}

impl WrittenRule {
    /// Whether the rule matches every call.
    pub fn is_catch_all(&self) -> bool {
        self.matches.is_empty() || self.matches.iter().any(WrittenMatch::is_catch_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_relative_to_the_sum_of_weights() {
        assert_eq!(weight_shares(&[Some(0)]), Some(vec![100.0]));
        assert_eq!(weight_shares(&[Some(9), Some(1)]), Some(vec![90.0, 10.0]));
        assert_eq!(weight_shares(&[Some(80), None]), Some(vec![100.0, 0.0]));
        assert_eq!(weight_shares(&[None, Some(0)]), None);
    }

    proptest::proptest! {
        #[test]
        fn shares_add_up_to_100(weights in proptest::collection::vec(proptest::option::of(0_i64..10_000), 1..6)) {
            if let Some(shares) = weight_shares(&weights) {
                proptest::prop_assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-9);
            }
        }
    }
}
