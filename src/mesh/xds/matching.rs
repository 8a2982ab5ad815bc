//! Route conditions as istiod translates them for Envoy, and whether a call matches them.
//!
//! Sources: `TranslateRouteMatch`, `sourceMatchHTTP` and `IsCatchAllRoute` in
//! `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31; Envoy 1.39's `RouteMatch`, `HeaderMatcher` and
//! `StringMatcher` (`config/route/v3/route_components.proto`, `type/matcher/v3/string.proto`).

use super::route_config::RouteConfig;
use super::{Call, Caller};
use crate::envoy::route::format_condition;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::re2::Re2Pattern;
use crate::schema::virtual_service::{HttpMatch, StringMatch};

/// Prefix of header names that stand for claims of a JWT. Envoy compares them with the result of its JWT filter.
const CLAIM_PREFIX: &str = "@request.auth.claims";

/// A condition on the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathMatch {
    Prefix(String),
    /// Whole path segments.
    Segments(String),
    Exact(String),
    Regex(Re2Pattern),
}

/// A condition on the value of a header or query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TextCondition {
    Present,
    Exact(String),
    Prefix(String),
    Regex(Re2Pattern),
}

/// A condition on a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HeaderMatch {
    pub(super) name: String,
    pub(super) text: TextCondition,
    pub(super) inverted: bool,
}

/// The conditions of one Envoy route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompiledMatch {
    pub(super) path: PathMatch,
    ignore_case: bool,
    pub(super) headers: Vec<HeaderMatch>,
    query: Vec<(String, TextCondition)>,
    /// Conditions on claims of a JWT, which only the proxy can check.
    claims: Vec<String>,
}

/// Whether istiod builds a route from these conditions for this proxy and port; otherwise the reason why not.
pub(super) fn applies_to(
    conditions: &HttpMatch,
    config: &RouteConfig,
    caller: &Caller,
    gateway: &GatewayName,
    port: u16,
) -> Result<(), String> {
    if let Some(other) = conditions.port.filter(|required| *required != 0 && *required != u32::from(port)) {
        return Err(format!("only for port {other}"));
    }
    if !conditions.gateways.is_empty() {
        // istiod ignores `sourceLabels` and `sourceNamespace` when `gateways` is set.
        let is_named = conditions.gateways.iter().any(|name| GatewayName::parse(name, &config.namespace) == *gateway);
        return if is_named { Ok(()) } else { Err(format!("only through {}", conditions.gateways.join(", "))) };
    }
    for (key, value) in &conditions.source_labels {
        if caller.labels.get(key) != Some(value.as_str()) {
            return Err(format!("only from pods with {key}={value}"));
        }
    }
    match conditions.source_namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() && namespace != caller.namespace.as_str() => {
            Err(format!("only from namespace {namespace}"))
        }
        _ => Ok(()),
    }
}

impl CompiledMatch {
    /// Translates the conditions of one match; `None` stands for a rule without conditions.
    pub(super) fn new(conditions: Option<&HttpMatch>, is_gateway_api: bool) -> Self {
        let mut compiled = Self {
            path: PathMatch::Prefix("/".to_owned()),
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            claims: Vec::new(),
        };
        let Some(conditions) = conditions else { return compiled };
        for (map, inverted) in [(&conditions.headers, false), (&conditions.without_headers, true)] {
            for (name, text) in map.iter().flatten() {
                if name.starts_with(CLAIM_PREFIX) {
                    compiled.claims.push(name.clone());
                } else {
                    compiled.headers.push(HeaderMatch {
                        name: name.to_ascii_lowercase(),
                        text: TextCondition::new(text),
                        inverted,
                    });
                }
            }
        }
        if let Some(uri) = &conditions.uri {
            compiled.path = match (&uri.exact, &uri.prefix, &uri.regex) {
                (Some(exact), ..) => PathMatch::Exact(exact.clone()),
                (_, Some(prefix), _) if is_gateway_api && prefix != "/" => {
                    PathMatch::Segments(prefix.strip_suffix('/').unwrap_or(prefix).to_owned())
                }
                (_, Some(prefix), _) => PathMatch::Prefix(prefix.clone()),
                (_, _, Some(regex)) => PathMatch::Regex(Re2Pattern::new(regex)),
                (None, None, None) => compiled.path,
            };
        }
        compiled.ignore_case = conditions.ignore_uri_case;
        let pseudo_headers =
            [(":method", &conditions.method), (":authority", &conditions.authority), (":scheme", &conditions.scheme)];
        for (name, text) in pseudo_headers {
            if let Some(text) = text {
                compiled.headers.push(HeaderMatch {
                    name: name.to_owned(),
                    text: TextCondition::new(text),
                    inverted: false,
                });
            }
        }
        let query_params = conditions.query_params.iter().flatten();
        compiled.query = query_params.map(|(name, text)| (name.clone(), TextCondition::new(text))).collect();
        compiled
    }

    /// The conditions in the text form of [`crate::envoy::route::EnvoyRoute`], sorted.
    pub(super) fn to_envoy(&self) -> Vec<String> {
        let path = match &self.path {
            PathMatch::Prefix(prefix) => format!("path prefix {prefix}"),
            PathMatch::Segments(prefix) => format!("path segments {prefix}"),
            PathMatch::Exact(path) => format!("path exact {path}"),
            PathMatch::Regex(regex) => format!("path regex {}", regex.as_str()),
        };
        let case = if self.ignore_case { ", case-insensitive" } else { "" };
        let mut conditions = vec![path + case];
        conditions.extend(self.headers.iter().map(|header| header.text.to_envoy(&header.name, header.inverted)));
        conditions.extend(self.query.iter().map(|(name, text)| text.to_envoy(&format!("?{name}"), false)));
        conditions.extend(self.claims.iter().map(|_| "JWT claim".to_owned()));
        conditions.sort();
        conditions
    }

    /// Whether every call matches, so that istiod builds no route after it.
    pub(super) fn is_catch_all(&self) -> bool {
        let path = match &self.path {
            PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => prefix == "/",
            PathMatch::Regex(regex) => regex.as_str() == ".*",
            PathMatch::Exact(_) => false,
        };
        path && self.headers.is_empty() && self.query.is_empty() && self.claims.is_empty()
    }

    /// Why Envoy rejects the conditions, and with them the whole route table.
    pub(super) fn rejection(&self) -> Option<String> {
        if let PathMatch::Regex(regex) = &self.path
            && let Some(reason) = regex_rejection(regex)
        {
            return Some(reason);
        }
        if let PathMatch::Segments(prefix) = &self.path
            && (prefix.len() < 2 || prefix.contains(['?', '#']) || prefix.ends_with('/'))
        {
            return Some(format!("path prefix \"{prefix}\" does not consist of whole path segments"));
        }
        let texts = self.headers.iter().map(|header| &header.text).chain(self.query.iter().map(|(_, text)| text));
        for text in texts {
            match text {
                TextCondition::Prefix(prefix) if prefix.is_empty() => return Some("an empty prefix".to_owned()),
                TextCondition::Regex(regex) => {
                    if let Some(reason) = regex_rejection(regex) {
                        return Some(reason);
                    }
                }
                TextCondition::Prefix(_) | TextCondition::Exact(_) | TextCondition::Present => {}
            }
        }
        self.headers.iter().any(|header| header.name.is_empty()).then(|| "an empty header name".to_owned())
    }

    /// Conditions that only the proxy can check.
    pub(super) fn unchecked_conditions(&self) -> &[String] {
        &self.claims
    }

    /// Whether a call matches; otherwise the condition that fails.
    pub(super) fn check(&self, call: &Call) -> Result<(), String> {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let fold = |text: &str| if self.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        match &self.path {
            PathMatch::Prefix(prefix) if !fold(path).starts_with(&fold(prefix)) => {
                return Err(format!("path does not start with {prefix}"));
            }
            PathMatch::Exact(exact) if fold(path) != fold(exact) => return Err(format!("path is not {exact}")),
            PathMatch::Segments(prefix) => {
                let rest = fold(path).strip_prefix(&fold(prefix)).map(str::to_owned);
                if rest.is_none_or(|rest| !(rest.is_empty() || rest.starts_with('/'))) {
                    return Err(format!("path does not start with the segments {prefix}"));
                }
            }
            PathMatch::Regex(regex) if !regex.matches(path) => {
                return Err(format!("path does not match {}", regex.as_str()));
            }
            PathMatch::Prefix(_) | PathMatch::Exact(_) | PathMatch::Regex(_) => {}
        }
        for header in &self.headers {
            header.check(call.header(&header.name).as_deref())?;
        }
        for (name, text) in &self.query {
            let value = query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                (key == name).then_some(value)
            });
            match value {
                None => return Err(format!("query parameter {name} is absent")),
                Some(value) if !text.matches(value) => return Err(format!("query parameter {name} is {value}")),
                Some(_) => {}
            }
        }
        match self.claims.first() {
            Some(claim) => Err(format!("{claim} can only be checked by the proxy")),
            None => Ok(()),
        }
    }
}

fn regex_rejection(regex: &Re2Pattern) -> Option<String> {
    let text = regex.as_str();
    if text.is_empty() {
        return Some("an empty regular expression".to_owned());
    }
    regex.error().map(|error| format!("regular expression {text}: {error}"))
}

impl TextCondition {
    fn new(text: &StringMatch) -> Self {
        match (&text.exact, &text.prefix, &text.regex) {
            (Some(exact), ..) => Self::Exact(exact.clone()),
            (_, Some(prefix), _) => Self::Prefix(prefix.clone()),
            // `*` is not a valid RE2 expression; istiod translates it to a presence match.
            (_, _, Some(regex)) if regex == "*" => Self::Present,
            (_, _, Some(regex)) => Self::Regex(Re2Pattern::new(regex)),
            (None, None, None) => Self::Present,
        }
    }

    fn to_envoy(&self, name: &str, inverted: bool) -> String {
        let (kind, value) = match self {
            Self::Present => ("present", ""),
            Self::Exact(text) => ("exact", text.as_str()),
            Self::Prefix(text) => ("prefix", text.as_str()),
            Self::Regex(regex) => ("regex", regex.as_str()),
        };
        format_condition(name, kind, value, inverted)
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.matches(value),
        }
    }
}

impl std::fmt::Display for TextCondition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Present => f.write_str("present"),
            Self::Exact(text) => write!(f, "\"{text}\""),
            Self::Prefix(text) => write!(f, "\"{text}…\""),
            Self::Regex(regex) => write!(f, "/{}/", regex.as_str()),
        }
    }
}

impl HeaderMatch {
    fn check(&self, value: Option<&str>) -> Result<(), String> {
        let Self { name, text, inverted } = self;
        let name = name.trim_start_matches(':');
        match (inverted, value) {
            (false, None) => Err(format!("header {name} is absent")),
            (false, Some(value)) if !text.matches(value) => Err(format!("{name} is \"{value}\", not {text}")),
            (true, None) if *text == TextCondition::Present => Ok(()),
            // Envoy treats an absent header as empty here.
            (true, value) if text.matches(value.unwrap_or_default()) => Err(format!(
                "{name} is {}",
                value.map_or("absent, which counts as empty".to_owned(), |value| format!("\"{value}\""))
            )),
            _ => Ok(()),
        }
    }
}
