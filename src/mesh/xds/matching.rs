//! Route rules as Envoy gets them for one proxy, and whether a call fits.
//!
//! Sources: `TranslateRouteMatch`, `sourceMatchHTTP` and `IsCatchAllRoute` in
//! `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31; Envoy 1.39's `RouteMatch`, `HeaderMatcher` and
//! `StringMatcher` (`config/route/v3/route_components.proto`, `type/matcher/v3/string.proto`).

use super::route_config::RouteConfig;
use super::{Call, Caller};
use crate::envoy::route::text_condition;
use crate::mesh::virtual_service::GatewayName;
use crate::schema::re2::Re2Pattern;
use crate::schema::virtual_service::{HttpMatch, StringMatch};

/// Header names that stand for claims of a checked token; Envoy compares them with what its JWT filter found.
const CLAIMS: &str = "@request.auth.claims";

/// How a path is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PathMatch {
    Prefix(String),
    /// Whole path segments.
    Segments(String),
    Exact(String),
    Regex(Re2Pattern),
}

/// A text condition.
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
    name: String,
    text: TextCondition,
    inverted: bool,
}

/// The conditions of one Envoy route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CompiledMatch {
    path: PathMatch,
    ignore_case: bool,
    headers: Vec<HeaderMatch>,
    query: Vec<(String, TextCondition)>,
    /// Conditions on claims of a token, which only the proxy knows.
    claims: Vec<String>,
}

/// Whether istiod makes a route of an alternative for this proxy and port; else why not.
pub(super) fn is_for(
    one: &HttpMatch,
    config: &RouteConfig,
    caller: &Caller,
    gateway: &GatewayName,
    port: u16,
) -> Result<(), String> {
    if let Some(wanted) = one.port.filter(|wanted| *wanted != 0 && *wanted != u32::from(port)) {
        return Err(format!("only for port {wanted}"));
    }
    if !one.gateways.is_empty() {
        // With gateways, the caller's labels and namespace are not looked at.
        let named = one.gateways.iter().any(|name| GatewayName::parse(name, &config.namespace) == *gateway);
        return if named { Ok(()) } else { Err(format!("only through {}", one.gateways.join(", "))) };
    }
    for (key, value) in &one.source_labels {
        if caller.labels.get(key) != Some(value.as_str()) {
            return Err(format!("only from pods with {key}={value}"));
        }
    }
    match one.source_namespace.as_deref() {
        Some(namespace) if !namespace.is_empty() && namespace != caller.namespace.as_str() => {
            Err(format!("only from namespace {namespace}"))
        }
        _ => Ok(()),
    }
}

impl CompiledMatch {
    /// The conditions of an alternative; `None` stands for a rule without any.
    pub(super) fn new(one: Option<&HttpMatch>, is_gateway_api: bool) -> Self {
        let mut made = Self {
            path: PathMatch::Prefix("/".to_owned()),
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            claims: Vec::new(),
        };
        let Some(one) = one else { return made };
        for (map, inverted) in [(&one.headers, false), (&one.without_headers, true)] {
            for (name, text) in map.iter().flatten() {
                if name.starts_with(CLAIMS) {
                    made.claims.push(name.clone());
                } else {
                    made.headers.push(HeaderMatch {
                        name: name.to_ascii_lowercase(),
                        text: TextCondition::of(text),
                        inverted,
                    });
                }
            }
        }
        if let Some(uri) = &one.uri {
            made.path = match (&uri.exact, &uri.prefix, &uri.regex) {
                (Some(exact), ..) => PathMatch::Exact(exact.clone()),
                (_, Some(prefix), _) if is_gateway_api && prefix != "/" => {
                    PathMatch::Segments(prefix.strip_suffix('/').unwrap_or(prefix).to_owned())
                }
                (_, Some(prefix), _) => PathMatch::Prefix(prefix.clone()),
                (_, _, Some(regex)) => PathMatch::Regex(Re2Pattern::new(regex)),
                (None, None, None) => made.path,
            };
        }
        made.ignore_case = one.ignore_uri_case;
        for (name, text) in [(":method", &one.method), (":authority", &one.authority), (":scheme", &one.scheme)] {
            if let Some(text) = text {
                made.headers.push(HeaderMatch {
                    name: name.to_owned(),
                    text: TextCondition::of(text),
                    inverted: false,
                });
            }
        }
        made.query =
            one.query_params.iter().flatten().map(|(name, text)| (name.clone(), TextCondition::of(text))).collect();
        made
    }

    /// Its conditions in Envoy's words, sorted.
    pub(super) fn in_words(&self) -> Vec<String> {
        let path = match &self.path {
            PathMatch::Prefix(prefix) => format!("path prefix {prefix}"),
            PathMatch::Segments(prefix) => format!("path segments {prefix}"),
            PathMatch::Exact(path) => format!("path exact {path}"),
            PathMatch::Regex(regex) => format!("path regex {}", regex.as_str()),
        };
        let folded = if self.ignore_case { ", any case" } else { "" };
        let mut conditions = vec![path + folded];
        conditions.extend(self.headers.iter().map(|one| one.text.in_words(&one.name, one.inverted)));
        conditions.extend(self.query.iter().map(|(name, text)| text.in_words(&format!("?{name}"), false)));
        conditions.extend(self.claims.iter().map(|_| "a claim of the token".to_owned()));
        conditions.sort();
        conditions
    }

    /// Whether every call fits, so that nothing after it is ever tried.
    pub(super) fn is_catch_all(&self) -> bool {
        let path = match &self.path {
            PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => prefix == "/",
            PathMatch::Regex(regex) => regex.as_str() == ".*",
            PathMatch::Exact(_) => false,
        };
        path && self.headers.is_empty() && self.query.is_empty() && self.claims.is_empty()
    }

    /// What Envoy refuses in it, together with the whole route table that it stands in.
    pub(super) fn refused(&self) -> Option<String> {
        if let PathMatch::Regex(regex) = &self.path
            && let Some(why) = refused_regex(regex)
        {
            return Some(why);
        }
        if let PathMatch::Segments(prefix) = &self.path
            && (prefix.len() < 2 || prefix.contains(['?', '#']) || prefix.ends_with('/'))
        {
            return Some(format!("path prefix \"{prefix}\" is no whole segments"));
        }
        let texts = self.headers.iter().map(|header| &header.text).chain(self.query.iter().map(|(_, text)| text));
        for text in texts {
            match text {
                TextCondition::Prefix(prefix) if prefix.is_empty() => return Some("an empty prefix".to_owned()),
                TextCondition::Regex(regex) => {
                    if let Some(why) = refused_regex(regex) {
                        return Some(why);
                    }
                }
                TextCondition::Prefix(_) | TextCondition::Exact(_) | TextCondition::Present => {}
            }
        }
        self.headers.iter().any(|header| header.name.is_empty()).then(|| "an empty header name".to_owned())
    }

    /// Conditions that only the proxy can check.
    pub(super) fn unknown(&self) -> &[String] {
        &self.claims
    }

    /// Whether a call fits; else which condition it fails.
    pub(super) fn check(&self, call: &Call) -> Result<(), String> {
        let (path, query) = call.path.split_once('?').unwrap_or((&call.path, ""));
        let path = path.split_once('#').map_or(path, |(path, _)| path);
        let fold = |text: &str| if self.ignore_case { text.to_ascii_lowercase() } else { text.to_owned() };
        match &self.path {
            PathMatch::Prefix(prefix) if !fold(path).starts_with(&fold(prefix)) => {
                return Err(format!("path does not begin with {prefix}"));
            }
            PathMatch::Exact(exact) if fold(path) != fold(exact) => return Err(format!("path is not {exact}")),
            PathMatch::Segments(prefix) => {
                let rest = fold(path).strip_prefix(&fold(prefix)).map(str::to_owned);
                if rest.is_none_or(|rest| !(rest.is_empty() || rest.starts_with('/'))) {
                    return Err(format!("path does not begin with the segments {prefix}"));
                }
            }
            PathMatch::Regex(regex) if !regex.fits(path) => {
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
                Some(value) if !text.fits(value) => return Err(format!("query parameter {name} is {value}")),
                Some(_) => {}
            }
        }
        match self.claims.first() {
            Some(claim) => Err(format!("{claim} is not known here")),
            None => Ok(()),
        }
    }
}

fn refused_regex(regex: &Re2Pattern) -> Option<String> {
    let text = regex.as_str();
    if text.is_empty() {
        return Some("an empty regular expression".to_owned());
    }
    regex.refused().map(|why| format!("regular expression {text}: {why}"))
}

impl TextCondition {
    fn of(text: &StringMatch) -> Self {
        match (&text.exact, &text.prefix, &text.regex) {
            (Some(exact), ..) => Self::Exact(exact.clone()),
            (_, Some(prefix), _) => Self::Prefix(prefix.clone()),
            // `*` is no RE2 expression; istiod takes it for "is there".
            (_, _, Some(regex)) if regex == "*" => Self::Present,
            (_, _, Some(regex)) => Self::Regex(Re2Pattern::new(regex)),
            (None, None, None) => Self::Present,
        }
    }

    fn in_words(&self, name: &str, inverted: bool) -> String {
        let (kind, value) = match self {
            Self::Present => ("present", ""),
            Self::Exact(text) => ("exact", text.as_str()),
            Self::Prefix(text) => ("prefix", text.as_str()),
            Self::Regex(regex) => ("regex", regex.as_str()),
        };
        text_condition(name, kind, value, inverted)
    }

    fn fits(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Exact(exact) => value == exact,
            Self::Prefix(prefix) => value.starts_with(prefix.as_str()),
            Self::Regex(regex) => regex.fits(value),
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
            (false, Some(value)) if !text.fits(value) => Err(format!("{name} is \"{value}\", not {text}")),
            (true, None) if *text == TextCondition::Present => Ok(()),
            // A header that is absent counts as empty.
            (true, value) if text.fits(value.unwrap_or_default()) => Err(format!(
                "{name} is {}",
                value.map_or("absent, which counts as empty".to_owned(), |value| format!("\"{value}\""))
            )),
            _ => Ok(()),
        }
    }
}
