//! Route rules in one form, whichever kind of object they come from, and the backends they lead to.

use std::fmt;
use std::time::Duration;

use super::ids::{Host, ObjectRef, ServiceId, SubsetName};
use super::retry::RetryPolicy;
use super::service::PodCount;
use crate::schema::virtual_service::{HttpMatch, StringMatch};

/// One rule, in the order Envoy tries them.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenRule {
    /// The object it comes from.
    pub object: ObjectRef,
    /// Position in the object's list of rules.
    pub index: usize,
    /// Field path of the rule, such as `spec.http[0]`.
    pub field: String,
    /// Name as written.
    pub name: Option<String>,
    /// Alternatives; empty matches everything.
    pub matches: Vec<WrittenMatch>,
    /// What happens to a call that matches.
    pub action: WrittenAction,
    /// Limit of the whole call, which also caps the client's deadline; `None` means no limit.
    pub timeout: Option<Duration>,
    /// Retries in force.
    pub retries: RetryPolicy,
    /// Injected faults, one text each.
    pub faults: Vec<String>,
    /// Copies of the traffic.
    pub mirrors: Vec<WrittenMirror>,
    /// Change of path or authority, one text each.
    pub rewrites: Vec<String>,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum WrittenAction {
    /// It goes to one of these targets.
    Forward(Vec<WrittenBackend>),
    /// The client is sent elsewhere, which gRPC clients do not follow.
    Redirect,
    /// The proxy answers with this HTTP status.
    DirectResponse(u32),
    /// Another VirtualService says.
    Delegate {
        /// Its namespace and name.
        object: ObjectRef,
    },
}

/// A weighted target as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenBackend {
    /// Host, completed.
    pub host: Host,
    /// Port; absent means the one that was dialled.
    pub port: Option<u32>,
    /// Subset.
    pub subset: Option<SubsetName>,
    /// Weight; absent is 0.
    pub weight: Option<i64>,
    /// Field path of the target.
    pub field: String,
}

/// A copy of traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenMirror {
    /// Where to.
    pub host: Host,
    /// Subset.
    pub subset: Option<SubsetName>,
    /// Share in percent.
    pub percent: f64,
}

/// A target as one caller gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct CallerBackend {
    /// As written.
    pub target: WrittenBackend,
    /// Share of the calls in percent.
    pub share: f64,
    /// The registry's entry; `None` when nobody knows the host.
    pub service: Option<ServiceId>,
    /// What comes of calls that go there.
    pub state: CallerBackendState,
    /// Pods that may answer.
    pub pods: PodCount,
}

/// What comes of calls to a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerBackendState {
    /// They arrive.
    Ok,
    /// The proxy has no such cluster: host, port or subset is unknown to it.
    NoCluster,
    /// The cluster has no ready endpoint.
    NoEndpoints,
    /// Nothing in the source tells about its pods.
    Unknown,
}

/// Shares of targets in percent. One target takes everything, whatever its weight; several with no weight get nothing
/// (`None`): Envoy refuses such a route table.
pub fn shares(weights: &[Option<i64>]) -> Option<Vec<f64>> {
    if weights.len() == 1 {
        return Some(vec![100.0]);
    }
    let weights: Vec<i64> = weights.iter().map(|weight| weight.unwrap_or(0).max(0)).collect();
    let total: i64 = weights.iter().try_fold(0_i64, |sum, weight| sum.checked_add(*weight))?;
    if total == 0 {
        return None;
    }
    // Percentages for people and JSON: weights beyond 2^53 lose nothing that anybody could see.
    #[expect(clippy::cast_precision_loss, reason = "shown with two digits")]
    Some(weights.iter().map(|weight| *weight as f64 * 100.0 / total as f64).collect())
}

/// A set of conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WrittenMatch {
    /// Conditions; none matches everything.
    pub conditions: Vec<WrittenCondition>,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WrittenCondition {
    /// The path.
    Path {
        /// Text.
        text: TextMatch,
        /// Whole path segments only (Gateway API's `PathPrefix`).
        by_segment: bool,
        /// Without regard to case.
        ignore_case: bool,
    },
    /// A header.
    Header {
        /// Name.
        name: String,
        /// Text.
        text: TextMatch,
        /// True for `withoutHeaders`.
        inverted: bool,
    },
    /// The HTTP method, `:authority`, or the scheme.
    Pseudo {
        /// `method`, `authority` or `scheme`.
        name: &'static str,
        /// Text.
        text: TextMatch,
    },
    /// A query parameter, which gRPC calls never have.
    Query {
        /// Name.
        name: String,
        /// Text.
        text: TextMatch,
    },
    /// The port of the call.
    Port(u32),
    /// Labels of the caller.
    SourceLabels(Vec<(String, String)>),
    /// Namespace of the caller.
    SourceNamespace(String),
    /// Only through these gateways.
    Gateways(Vec<String>),
}

/// A condition on a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextMatch {
    /// Equal.
    Exact(String),
    /// Begins with.
    Prefix(String),
    /// Matches as a whole (RE2).
    Regex(String),
    /// Is there.
    Present,
}

impl TextMatch {
    /// Reads Istio's form.
    pub fn of(text: &StringMatch) -> Self {
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
            Self::Path { text: TextMatch::Exact(path), ignore_case, .. } => {
                write!(f, "{path}{}", if *ignore_case { " (any case)" } else { "" })
            }
            Self::Path { text: TextMatch::Prefix(path), by_segment, ignore_case } => {
                let slash = if *by_segment && !path.ends_with('/') { "[/]" } else { "" };
                write!(f, "{path}{slash}*{}", if *ignore_case { " (any case)" } else { "" })
            }
            Self::Path { text: TextMatch::Regex(path), .. } => write!(f, "path ~ {path}"),
            Self::Path { text: TextMatch::Present, .. } => f.write_str("any path"),
            Self::Header { name, text, inverted: false } => write!(f, "{name} {text}"),
            Self::Header { name, text, inverted: true } => write!(f, "not {name} {text}"),
            Self::Pseudo { name, text } => write!(f, "{name} {text}"),
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
    /// Reads one alternative. `by_segment`: prefixes mean whole path segments.
    pub fn of_http(written: &HttpMatch, by_segment: bool) -> Self {
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
            let text = TextMatch::of(uri);
            // Case is never ignored for a regular expression.
            let ignore_case = *ignore_uri_case && !matches!(text, TextMatch::Regex(_));
            conditions.push(WrittenCondition::Path { text, by_segment, ignore_case });
        }
        for (name, text) in [("method", method), ("authority", authority), ("scheme", scheme)] {
            if let Some(text) = text {
                conditions.push(WrittenCondition::Pseudo { name, text: TextMatch::of(text) });
            }
        }
        for (map, inverted) in [(headers, false), (without_headers, true)] {
            for (name, text) in map.iter().flatten() {
                conditions.push(WrittenCondition::Header { name: name.clone(), text: TextMatch::of(text), inverted });
            }
        }
        for (name, text) in query_params.iter().flatten() {
            conditions.push(WrittenCondition::Query { name: name.clone(), text: TextMatch::of(text) });
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
            // With gateways in a match, istiod does not look at the caller's labels or namespace.
            conditions.push(WrittenCondition::Gateways(gateways.0.clone()));
        }
        Self { conditions }
    }

    /// Whether every call matches: no condition, or only `prefix: /` or `regex: .*` on the path.
    /// Source: `IsCatchAllRoute` in `route.go`.
    pub fn is_catch_all(&self) -> bool {
        self.conditions.iter().all(|condition| match condition {
            WrittenCondition::Path { text: TextMatch::Prefix(prefix), .. } => prefix == "/",
            WrittenCondition::Path { text: TextMatch::Regex(regex), .. } => regex == ".*" || regex == "*",
            WrittenCondition::Path { text: TextMatch::Exact(_) | TextMatch::Present, .. }
            | WrittenCondition::Header { .. }
            | WrittenCondition::Pseudo { .. }
            | WrittenCondition::Query { .. }
            | WrittenCondition::Port(_)
            | WrittenCondition::SourceLabels(_)
            | WrittenCondition::SourceNamespace(_)
            | WrittenCondition::Gateways(_) => false,
        })
    }
}

impl WrittenRule {
    /// Whether every call matches.
    pub fn is_catch_all(&self) -> bool {
        self.matches.is_empty() || self.matches.iter().any(WrittenMatch::is_catch_all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_relative() {
        assert_eq!(shares(&[Some(0)]), Some(vec![100.0]));
        assert_eq!(shares(&[Some(9), Some(1)]), Some(vec![90.0, 10.0]));
        assert_eq!(shares(&[Some(80), None]), Some(vec![100.0, 0.0]));
        assert_eq!(shares(&[None, Some(0)]), None);
    }

    proptest::proptest! {
        #[test]
        fn shares_add_up(weights in proptest::collection::vec(proptest::option::of(0_i64..10_000), 1..6)) {
            if let Some(shares) = shares(&weights) {
                proptest::prop_assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-9);
            }
        }
    }
}
