//! Example calls: a gRPC call that meets the conditions of a rule. It represents the calls that the rule takes.

use std::ops::Bound::{self, Excluded, Unbounded};

use super::matching::{CompiledMatch, PathMatch, TextCondition, applies_to};
use super::route_config::{ConfigRule, RouteConfig};
use super::{Call, CallProtocol, Caller};
use crate::mesh::Mesh;
use crate::mesh::virtual_service::GatewayName;

/// A path that no rule names and every catch-all rule takes.
pub const EXAMPLE_PATH: &str = "/package.Service/Method";

impl Mesh<'_> {
    /// One gRPC call for each match of a rule, in the order of the matches; a rule without matches has one call.
    /// `None` stands for a match that no gRPC call meets, or for which no call was found. Authority and port are left
    /// empty unless the match requires an authority.
    pub fn example_calls(&self, config: &RouteConfig, rule: &ConfigRule) -> Vec<Option<Call>> {
        rule.conditions(self, config).iter().map(CompiledMatch::example_call).collect()
    }

    /// The calls of [`Mesh::example_calls`] for the matches that apply to a caller that dials `port`, through a gateway
    /// or, without one, in the mesh.
    pub fn example_calls_of(
        &self,
        config: &RouteConfig,
        rule: &ConfigRule,
        caller: &Caller,
        gateway: Option<&GatewayName>,
        port: u16,
    ) -> Vec<Call> {
        let matches = &rule.http_rule(self, config).matches;
        let gateway = gateway.unwrap_or(&GatewayName::Mesh);
        let applies = |index: usize| {
            let conditions = matches.get(index);
            conditions.is_none_or(|conditions| applies_to(conditions, config, caller, gateway, port).is_ok())
        };
        let calls = self.example_calls(config, rule).into_iter().enumerate();
        calls.filter(|(index, _)| applies(*index)).filter_map(|(_, call)| call).collect()
    }
}

impl CompiledMatch {
    fn example_call(&self) -> Option<Call> {
        let mut call = Call { path: self.example_path()?, protocol: CallProtocol::Grpc, ..Call::default() };
        for header in self.headers.iter().filter(|header| !header.inverted) {
            let value = match (&*header.name, header.text.example()) {
                (":authority" | "host", value) => {
                    call.authority = value?;
                    continue;
                }
                // The values that every gRPC call has.
                (":method" | ":scheme" | "content-type" | "te", _) => continue,
                (_, value) => value?,
            };
            call.headers.push((header.name.clone(), value));
        }
        self.check(&call).is_ok().then_some(call)
    }

    fn example_path(&self) -> Option<String> {
        let path = match &self.path {
            PathMatch::Exact(path) => path.clone(),
            PathMatch::Prefix(prefix) | PathMatch::Segments(prefix) => complete_path(prefix),
            PathMatch::Regex(regex) if regex.matches(EXAMPLE_PATH) => EXAMPLE_PATH.to_owned(),
            PathMatch::Regex(regex) => simplest_text(regex.as_str()),
        };
        Some(path)
    }
}

impl TextCondition {
    fn example(&self) -> Option<String> {
        match self {
            Self::Present => Some("example".to_owned()),
            Self::Exact(text) | Self::Prefix(text) => Some(text.clone()),
            Self::Regex(regex) => {
                let candidates = ["example".to_owned(), simplest_text(regex.as_str()), "1".to_owned(), String::new()];
                candidates.into_iter().find(|text| regex.matches(text))
            }
        }
    }
}

/// A gRPC path that starts with `prefix`.
fn complete_path(prefix: &str) -> String {
    match prefix.matches('/').count() {
        0 | 1 if prefix.len() < 2 => EXAMPLE_PATH.to_owned(),
        0 | 1 => format!("{prefix}/Method"),
        _ if prefix.ends_with('/') => format!("{prefix}Method"),
        _ => prefix.to_owned(),
    }
}

/// A text that a simple expression such as `^/shop\.Cart/.*$` matches: wildcards become a word, and escapes and anchors
/// are removed. The caller checks whether the expression matches it.
fn simplest_text(regex: &str) -> String {
    let text = regex.trim_start_matches('^').trim_end_matches('$');
    let text = [".*", ".+", "[^/]+", "[^/]*", "\\w+", "[a-zA-Z]+", "[A-Za-z]+"]
        .iter()
        .fold(text.to_owned(), |text, wildcard| text.replace(wildcard, "Method"));
    let text = ["\\d+", "[0-9]+"].iter().fold(text, |text, digits| text.replace(digits, "1"));
    // Of alternatives in a group, the first is enough.
    let text = match (text.find('('), text.find(')')) {
        (Some(start), Some(end)) if start < end => {
            let part = |range: (Bound<usize>, Bound<usize>)| text.get(range).unwrap_or_default();
            let (before, after) = (part((Unbounded, Excluded(start))), part((Excluded(end), Unbounded)));
            let group = part((Excluded(start), Excluded(end))).trim_start_matches("?:");
            let first = group.split('|').next().unwrap_or_default();
            format!("{before}{first}{after}")
        }
        _ => text,
    };
    text.replace('\\', "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::virtual_service::{HttpMatch, StringMatch};

    fn example(conditions: &HttpMatch) -> Option<Call> {
        CompiledMatch::new(Some(conditions), false).example_call()
    }

    #[test]
    fn finds_a_call_for_paths_and_headers() {
        let exact = |text: &str| Some(StringMatch { exact: Some(text.to_owned()), ..StringMatch::default() });
        let prefix = |text: &str| Some(StringMatch { prefix: Some(text.to_owned()), ..StringMatch::default() });
        let regex = |text: &str| Some(StringMatch { regex: Some(text.to_owned()), ..StringMatch::default() });
        for (uri, path) in [
            (None, EXAMPLE_PATH),
            (prefix("/"), EXAMPLE_PATH),
            (prefix("/shop.Cart"), "/shop.Cart/Method"),
            (prefix("/shop.Cart/"), "/shop.Cart/Method"),
            (exact("/shop.Cart/Add"), "/shop.Cart/Add"),
            (regex(".*"), EXAMPLE_PATH),
            (regex(r"^/shop\.(Cart|Order)/.*$"), "/shop.Cart/Method"),
        ] {
            let found = example(&HttpMatch { uri, ..HttpMatch::default() });
            assert_eq!(found.map(|call| call.path).as_deref(), Some(path));
        }
        let headers = [("x-canary".to_owned(), regex("v[0-9]+").unwrap())].into();
        let found = example(&HttpMatch { headers: Some(headers), ..HttpMatch::default() }).unwrap();
        assert_eq!(found.headers, [("x-canary".to_owned(), "v1".to_owned())]);
    }

    #[test]
    fn no_grpc_call_meets_a_match_on_get_or_on_a_query() {
        let get = Some(StringMatch { exact: Some("GET".to_owned()), ..StringMatch::default() });
        assert_eq!(example(&HttpMatch { method: get.clone(), ..HttpMatch::default() }), None);
        let query = Some([("q".to_owned(), StringMatch::default())].into());
        assert_eq!(example(&HttpMatch { query_params: query, ..HttpMatch::default() }), None);
    }
}
