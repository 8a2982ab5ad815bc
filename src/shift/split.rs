//! The rules of a route object, as written, that send calls to backends by weight.

use serde_json::Value;

use crate::schema::Kind;

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitBackend {
    /// Host as written in a VirtualService; name of the Service in a Gateway API route.
    pub host: String,
    pub subset: Option<String>,
    /// Namespace of the Service, if a Gateway API route names it.
    pub namespace: Option<String>,
    pub port: Option<u64>,
    /// Weight as written. See [`effective_weights`] for what an absent one means.
    pub weight: Option<u64>,
}

impl SplitBackend {
    /// Its short name: the subset, else the first label of the host.
    pub fn label(&self) -> String {
        self.subset.clone().unwrap_or_else(|| self.short_host().to_owned())
    }

    /// First label of the host.
    pub fn short_host(&self) -> &str {
        self.host.split('.').next().unwrap_or(&self.host)
    }
}

/// A rule with its backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleSplit {
    /// Kind of the object.
    pub kind: Kind,
    /// Index of the rule.
    pub rule: usize,
    /// Name of the rule.
    pub name: Option<String>,
    /// Match conditions as written, in JSON; null matches every call.
    pub condition: Value,
    /// Backends in their order.
    pub backends: Vec<SplitBackend>,
}

impl RuleSplit {
    /// JSON Pointer to the list of backends.
    pub fn pointer(&self) -> String {
        format!("{}/{}", rule_pointer(self.kind, self.rule), backends_field(self.kind))
    }

    /// The weights as Istio reads them; see [`effective_weights`].
    pub fn effective_weights(&self) -> Vec<u64> {
        effective_weights(self.kind, &self.backends.iter().map(|backend| backend.weight).collect::<Vec<_>>())
    }

    /// `http[1] "canary"`, `rules[0]`.
    pub fn title(&self) -> String {
        let field = rules_field(self.kind);
        let name = self.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        format!("{field}[{}]{name}", self.rule)
    }

    /// A checksum of everything but the weights: name, conditions and backends.
    pub fn identity(&self) -> String {
        let backends =
            self.backends.iter().map(|backend| (&backend.host, &backend.subset, &backend.namespace, backend.port));
        let text = format!("{:?} {} {:?}", self.name, self.condition, backends.collect::<Vec<_>>());
        let mut checksum = flate2::Crc::new();
        checksum.update(text.as_bytes());
        format!("{:08x}", checksum.sum())
    }
}

/// Weights as Istio reads them. In a VirtualService a single destination gets all calls whatever its weight, and of
/// several destinations one without a weight gets none. In Gateway API an absent weight is 1.
///
/// Sources: `translateRoute` in `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31; `BackendRef.weight` of
/// Gateway API.
pub fn effective_weights(kind: Kind, weights: &[Option<u64>]) -> Vec<u64> {
    let is_gateway_api = kind != Kind::VirtualService;
    match weights {
        [_] if !is_gateway_api => vec![100],
        all => all.iter().map(|weight| weight.unwrap_or(u64::from(is_gateway_api))).collect(),
    }
}

/// JSON Pointer to a rule.
pub(super) fn rule_pointer(kind: Kind, rule: usize) -> String {
    let field = rules_field(kind);
    format!("/spec/{field}/{rule}")
}

/// The field of a route object's spec that holds its rules.
pub(super) fn rules_field(kind: Kind) -> &'static str {
    if kind == Kind::VirtualService { "http" } else { "rules" }
}

/// The field of a rule that holds its backends.
pub(super) fn backends_field(kind: Kind) -> &'static str {
    if kind == Kind::VirtualService { "route" } else { "backendRefs" }
}

/// The rules of a VirtualService, HTTPRoute or GRPCRoute that have backends.
#[expect(clippy::indexing_slicing, reason = "reads fields of a JSON value, which never panics")]
pub fn rule_splits(kind: Kind, object: &Value) -> Vec<RuleSplit> {
    let condition = if kind == Kind::VirtualService { "match" } else { "matches" };
    let rules = object["spec"][rules_field(kind)].as_array().map(Vec::as_slice).unwrap_or_default();
    let splits = rules.iter().enumerate().map(|(index, rule)| {
        let backends = rule[backends_field(kind)].as_array().map(Vec::as_slice).unwrap_or_default();
        RuleSplit {
            kind,
            rule: index,
            name: non_empty_string(&rule["name"]),
            condition: rule[condition].clone(),
            backends: backends.iter().map(|backend| parse_backend(kind, backend)).collect(),
        }
    });
    splits.filter(|split| !split.backends.is_empty()).collect()
}

fn non_empty_string(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

#[expect(clippy::indexing_slicing, reason = "reads fields of a JSON value, which never panics")]
fn parse_backend(kind: Kind, body: &Value) -> SplitBackend {
    let weight = body["weight"].as_u64();
    if kind == Kind::VirtualService {
        let destination = &body["destination"];
        return SplitBackend {
            host: non_empty_string(&destination["host"]).unwrap_or_default(),
            subset: non_empty_string(&destination["subset"]),
            namespace: None,
            port: destination["port"]["number"].as_u64(),
            weight,
        };
    }
    SplitBackend {
        host: non_empty_string(&body["name"]).unwrap_or_default(),
        subset: None,
        namespace: non_empty_string(&body["namespace"]),
        port: body["port"].as_u64(),
        weight,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_rules_with_backends_of_every_kind() {
        let service = json!({"spec": {"http": [
            {"name": "canary", "match": [{"uri": {"prefix": "/a"}}],
             "route": [{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}, "weight": 90},
                       {"destination": {"host": "a.shop.svc.cluster.local", "subset": "v2"}}]},
            {"redirect": {"uri": "/b"}},
            {"route": [{"destination": {"host": "b"}}]}]}});
        let splits = rule_splits(Kind::VirtualService, &service);
        assert_eq!(splits.iter().map(RuleSplit::title).collect::<Vec<_>>(), ["http[0] \"canary\"", "http[2]"]);
        assert_eq!(splits[0].pointer(), "/spec/http/0/route");
        assert_eq!(splits.iter().map(RuleSplit::effective_weights).collect::<Vec<_>>(), [vec![90, 0], vec![100]]);
        assert_eq!((splits[0].backends[1].label().as_str(), splits[1].backends[0].label().as_str()), ("v2", "b"));
        let route = json!({"spec": {"rules": [{"backendRefs": [{"name": "a-v1", "port": 1}, {"name": "a-v2", "port": 1, "weight": 3}]}]}});
        let splits = rule_splits(Kind::GrpcRoute, &route);
        assert_eq!(
            (splits[0].effective_weights(), splits[0].pointer().as_str()),
            (vec![1, 3], "/spec/rules/0/backendRefs")
        );
        assert_eq!(rule_splits(Kind::HttpRoute, &json!({"spec": {"rules": "x"}})), Vec::new());
    }

    #[test]
    fn the_identity_ignores_only_the_weights() {
        let identity = |condition: &str, weight: u64, subset: &str| {
            let body = json!({"spec": {"http": [{"match": [{"uri": {"prefix": condition}}],
                "route": [{"destination": {"host": "a", "subset": subset}, "weight": weight}]}]}});
            rule_splits(Kind::VirtualService, &body)[0].identity()
        };
        assert_eq!(identity("/a", 1, "v1"), identity("/a", 2, "v1"));
        assert_ne!(identity("/a", 1, "v1"), identity("/b", 1, "v1"));
        assert_ne!(identity("/a", 1, "v1"), identity("/a", 1, "v2"));
    }
}
