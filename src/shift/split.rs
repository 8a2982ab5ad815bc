//! The rules of an object that send calls to backends by weight.

use serde_json::Value;

use crate::schema::Kind;

/// A backend of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitBackend {
    /// Host as written in a VirtualService, name of the Service in a route of Gateway API.
    pub host: String,
    /// Subset.
    pub subset: Option<String>,
    /// Namespace, where a route of Gateway API names one.
    pub namespace: Option<String>,
    /// Port, if written.
    pub port: Option<u64>,
    /// Weight as written; absent is 1 in Gateway API, all or nothing in a VirtualService.
    pub weight: Option<u64>,
}

impl SplitBackend {
    /// What tells it from its neighbours: the subset, else the Service's name.
    pub fn label(&self) -> String {
        self.subset.clone().unwrap_or_else(|| self.short().to_owned())
    }

    /// First label of the host.
    pub fn short(&self) -> &str {
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
    /// Conditions under which it takes a call, as JSON; null is every call.
    pub condition: Value,
    /// Backends in their order.
    pub backends: Vec<SplitBackend>,
}

impl RuleSplit {
    /// JSON Pointer to the list of backends.
    pub fn pointer(&self) -> String {
        format!("{}/{}", rule_pointer(self.kind, self.rule), backends_field(self.kind))
    }

    /// Weights as they act. A VirtualService's only destination gets everything whatever its weight, and of several one
    /// without a weight gets nothing; in Gateway API an absent weight is 1.
    ///
    /// Sources: `translateRoute` in `pilot/pkg/networking/core/route/route.go` of istio/istio 1.31; `BackendRef.weight` of
    /// Gateway API.
    pub fn acting(&self) -> Vec<u64> {
        acting(self.kind, &self.backends.iter().map(|one| one.weight).collect::<Vec<_>>())
    }

    /// `http[1] "canary"`, `rules[0]`.
    pub fn title(&self) -> String {
        let field = rules_field(self.kind);
        let name = self.name.as_ref().map(|name| format!(" \"{name}\"")).unwrap_or_default();
        format!("{field}[{}]{name}", self.rule)
    }

    /// A number for what the rule is, its weights aside: name, conditions and backends.
    pub fn identity(&self) -> String {
        let backends = self.backends.iter().map(|one| (&one.host, &one.subset, &one.namespace, one.port));
        let text = format!("{:?} {} {:?}", self.name, self.condition, backends.collect::<Vec<_>>());
        let mut sum = flate2::Crc::new();
        sum.update(text.as_bytes());
        format!("{:08x}", sum.sum())
    }
}

/// Weights as they act, as [`Split::acting`] says.
pub fn acting(kind: Kind, weights: &[Option<u64>]) -> Vec<u64> {
    let of_gateway_api = kind != Kind::VirtualService;
    match weights {
        [_] if !of_gateway_api => vec![100],
        all => all.iter().map(|weight| weight.unwrap_or(u64::from(of_gateway_api))).collect(),
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
pub fn splits(kind: Kind, object: &Value) -> Vec<RuleSplit> {
    let condition = if kind == Kind::VirtualService { "match" } else { "matches" };
    let rules = object["spec"][rules_field(kind)].as_array().map(Vec::as_slice).unwrap_or_default();
    let made = rules.iter().enumerate().map(|(rule, body)| {
        let backends = body[backends_field(kind)].as_array().map(Vec::as_slice).unwrap_or_default();
        RuleSplit {
            kind,
            rule,
            name: text(&body["name"]),
            condition: body[condition].clone(),
            backends: backends.iter().map(|one| backend(kind, one)).collect(),
        }
    });
    made.filter(|split| !split.backends.is_empty()).collect()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn backend(kind: Kind, body: &Value) -> SplitBackend {
    let weight = body["weight"].as_u64();
    if kind == Kind::VirtualService {
        let destination = &body["destination"];
        return SplitBackend {
            host: text(&destination["host"]).unwrap_or_default(),
            subset: text(&destination["subset"]),
            namespace: None,
            port: destination["port"]["number"].as_u64(),
            weight,
        };
    }
    SplitBackend {
        host: text(&body["name"]).unwrap_or_default(),
        subset: None,
        namespace: text(&body["namespace"]),
        port: body["port"].as_u64(),
        weight,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_of_all_kinds() {
        let service = json!({"spec": {"http": [
            {"name": "canary", "match": [{"uri": {"prefix": "/a"}}],
             "route": [{"destination": {"host": "a", "subset": "v1", "port": {"number": 7}}, "weight": 90},
                       {"destination": {"host": "a.shop.svc.cluster.local", "subset": "v2"}}]},
            {"redirect": {"uri": "/b"}},
            {"route": [{"destination": {"host": "b"}}]}]}});
        let found = splits(Kind::VirtualService, &service);
        assert_eq!(found.iter().map(RuleSplit::title).collect::<Vec<_>>(), ["http[0] \"canary\"", "http[2]"]);
        assert_eq!(found[0].pointer(), "/spec/http/0/route");
        assert_eq!(found.iter().map(RuleSplit::acting).collect::<Vec<_>>(), [vec![90, 0], vec![100]]);
        assert_eq!((found[0].backends[1].label().as_str(), found[1].backends[0].label().as_str()), ("v2", "b"));
        let route = json!({"spec": {"rules": [{"backendRefs": [{"name": "a-v1", "port": 1}, {"name": "a-v2", "port": 1, "weight": 3}]}]}});
        let found = splits(Kind::GrpcRoute, &route);
        assert_eq!((found[0].acting(), found[0].pointer().as_str()), (vec![1, 3], "/spec/rules/0/backendRefs"));
        assert_eq!(splits(Kind::HttpRoute, &json!({"spec": {"rules": "x"}})), Vec::new());
    }

    #[test]
    fn identity_is_all_but_the_weights() {
        let of = |condition: &str, weight: u64, subset: &str| {
            let body = json!({"spec": {"http": [{"match": [{"uri": {"prefix": condition}}],
                "route": [{"destination": {"host": "a", "subset": subset}, "weight": weight}]}]}});
            splits(Kind::VirtualService, &body)[0].identity()
        };
        assert_eq!(of("/a", 1, "v1"), of("/a", 2, "v1"));
        assert_ne!(of("/a", 1, "v1"), of("/b", 1, "v1"));
        assert_ne!(of("/a", 1, "v1"), of("/a", 1, "v2"));
    }
}
