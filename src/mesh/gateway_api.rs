//! Gateway API routes: what they attach to and the rules they hold.
//!
//! Sources: `pilot/pkg/config/kube/gateway/conversion.go` and `route_collections.go` of istio/istio 1.31.

use std::sync::Arc;

use super::ids::{Namespace, ObjectRef, SubsetName};
use super::retry::RetryPolicy;
use super::route::{Action, Condition, Mirror, RouteRule, RuleMatch, Target, TextMatch};
use crate::schema::Kind;
use crate::schema::duration;
use crate::schema::gateway_api::{BackendRef, MethodMatch, ParentRef, Route, RouteMatch, ValueMatch};

/// An HTTPRoute or GRPCRoute.
#[derive(Debug)]
pub struct RouteObject {
    /// The object.
    pub object: ObjectRef,
    /// RFC 3339 time of creation.
    pub created: Option<Arc<str>>,
    /// What it attaches to.
    pub parents: Vec<Parent>,
    /// As written.
    pub route: Route,
}

/// What a route attaches to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parent {
    /// A Service: the rules act on calls to it in the mesh.
    Service {
        /// Namespace of the Service.
        namespace: Namespace,
        /// Name of the Service.
        name: Arc<str>,
        /// Only this port.
        port: Option<u16>,
    },
    /// A Gateway.
    Gateway {
        /// Namespace of the Gateway.
        namespace: Namespace,
        /// Name of the Gateway.
        name: Arc<str>,
        /// Only this listener.
        listener: Option<Arc<str>>,
        /// Only this port.
        port: Option<u16>,
    },
    /// Something else, which Istio does not take.
    Other(String),
}

impl Parent {
    /// Reads a parent reference of a route in namespace `own`.
    pub fn new(parent: &ParentRef, own: &Namespace) -> Self {
        let ParentRef { group, kind, namespace, name, section_name, port } = parent;
        let namespace = namespace.as_deref().map_or_else(|| own.clone(), Into::into);
        let group = group.as_deref().unwrap_or("gateway.networking.k8s.io");
        let kind = kind.as_deref().unwrap_or("Gateway");
        let port = port.and_then(|port| u16::try_from(port).ok());
        match (group, kind) {
            ("" | "core", "Service") => Self::Service { namespace, name: name.as_str().into(), port },
            ("gateway.networking.k8s.io", "Gateway") => {
                let listener = section_name.as_deref().map(Into::into);
                Self::Gateway { namespace, name: name.as_str().into(), listener, port }
            }
            (_, kind) => Self::Other(format!("{kind} {namespace}/{name}")),
        }
    }
}

impl RouteObject {
    /// The route's rules. Backends are Services; an invalid one keeps its share and its name.
    pub fn rules(&self, cluster_domain: &str, default_retries: &RetryPolicy) -> Vec<RouteRule> {
        let rules = self.route.spec.rules.iter().enumerate();
        rules.map(|(index, rule)| self.rule(index, rule, cluster_domain, default_retries)).collect()
    }

    fn rule(
        &self,
        index: usize,
        rule: &crate::schema::gateway_api::RouteRule,
        cluster_domain: &str,
        default_retries: &RetryPolicy,
    ) -> RouteRule {
        let field = format!("spec.rules[{index}]");
        let redirects = rule.filters.iter().any(|filter| filter.kind == "RequestRedirect");
        let targets = rule
            .backend_refs
            .iter()
            .enumerate()
            .map(|(at, backend)| self.target(backend, format!("{field}.backendRefs[{at}]"), cluster_domain))
            .collect::<Vec<_>>();
        let action = if redirects {
            Action::Redirect
        } else if targets.is_empty() {
            // Without backends the rule answers by itself.
            Action::DirectResponse(500)
        } else {
            Action::Forward(targets)
        };
        let mirrors = rule
            .filters
            .iter()
            .filter_map(|filter| filter.request_mirror.as_ref())
            .map(|mirror| Mirror {
                host: self.target(&mirror.backend_ref, String::new(), cluster_domain).host,
                subset: None,
                // Percentages of a CRD field are small whole numbers.
                percent: mirror.percent.map_or(100.0, |percent| f64::from(i32::try_from(percent).unwrap_or(100))),
            })
            .collect();
        let timeouts = rule.timeouts.as_ref();
        let limit = timeouts.and_then(|t| t.request.as_deref().or(t.backend_request.as_deref()));
        RouteRule {
            object: self.object.clone(),
            index,
            name: rule.name.clone(),
            matches: rule.matches.iter().map(rule_match).collect(),
            action,
            timeout: limit.and_then(|text| duration::parse(text).ok()).filter(|limit| !limit.is_zero()),
            retries: default_retries.clone(),
            faults: Vec::new(),
            mirrors,
            rewrites: rule
                .filters
                .iter()
                .filter(|f| f.kind == "URLRewrite")
                .map(|_| "path or host is rewritten".to_owned())
                .collect(),
            field,
        }
    }

    fn target(&self, backend: &BackendRef, field: String, cluster_domain: &str) -> Target {
        let BackendRef { group, kind, name, namespace, port, weight } = backend;
        let namespace: Namespace = namespace.as_deref().map_or_else(|| self.object.namespace.clone(), Into::into);
        let is_service = group.as_deref().unwrap_or("").is_empty() && kind.as_deref().unwrap_or("Service") == "Service";
        let is_hostname = kind.as_deref() == Some("Hostname");
        let host = if is_service {
            super::host::of_service(name, &namespace, cluster_domain)
        } else if is_hostname {
            name.as_str().into()
        } else {
            format!("{} {namespace}/{name}", kind.as_deref().unwrap_or("?")).as_str().into()
        };
        Target {
            host,
            port: port.and_then(|port| u32::try_from(port).ok()),
            subset: None::<SubsetName>,
            weight: *weight,
            field,
        }
    }

    /// The Services of the mesh that it attaches to.
    pub fn service_parents(&self) -> impl Iterator<Item = (&Namespace, &str, Option<u16>)> {
        self.parents.iter().filter_map(|parent| match parent {
            Parent::Service { namespace, name, port } => Some((namespace, &**name, *port)),
            Parent::Gateway { .. } | Parent::Other(_) => None,
        })
    }

    /// Whether it is a GRPCRoute.
    pub fn is_grpc(&self) -> bool {
        self.object.kind == Kind::GrpcRoute
    }
}

fn rule_match(written: &RouteMatch) -> RuleMatch {
    let RouteMatch { path, method, headers, query_params } = written;
    let mut conditions = Vec::new();
    if let Some(path) = path {
        let value = path.value.clone().unwrap_or_else(|| "/".to_owned());
        let condition = match path.kind.as_deref().unwrap_or("PathPrefix") {
            "Exact" => Condition::Path { text: TextMatch::Exact(value), by_segment: false, ignore_case: false },
            "RegularExpression" => {
                Condition::Path { text: TextMatch::Regex(value), by_segment: false, ignore_case: false }
            }
            _ => Condition::Path { text: TextMatch::Prefix(value), by_segment: true, ignore_case: false },
        };
        conditions.push(condition);
    }
    match method {
        Some(MethodMatch::Http(method)) => {
            conditions.push(Condition::Pseudo { name: "method", text: TextMatch::Exact(method.clone()) });
        }
        Some(MethodMatch::Grpc(method)) => {
            let is_regex = method.kind.as_deref() == Some("RegularExpression");
            // How istiod writes them, without brackets around the parts of a regular expression.
            let text = match (method.service.as_deref(), method.method.as_deref()) {
                (Some(service), Some(name)) if is_regex => TextMatch::Regex(format!("/{service}/{name}")),
                (Some(service), None) if is_regex => TextMatch::Regex(format!("/{service}/.+")),
                (None, Some(name)) => TextMatch::Regex(format!("/[^/]+/{name}")),
                (Some(service), Some(name)) => TextMatch::Exact(format!("/{service}/{name}")),
                (Some(service), None) => TextMatch::Prefix(format!("/{service}/")),
                (None, None) => TextMatch::Prefix("/".to_owned()),
            };
            conditions.push(Condition::Path { text, by_segment: false, ignore_case: false });
        }
        None => {}
    }
    let text = |value: &ValueMatch| {
        let wanted = value.value.clone().unwrap_or_default();
        if value.kind.as_deref() == Some("RegularExpression") {
            TextMatch::Regex(wanted)
        } else {
            TextMatch::Exact(wanted)
        }
    };
    for header in headers {
        let name = header.name.clone().unwrap_or_default();
        conditions.push(Condition::Header { name, text: text(header), inverted: false });
    }
    for parameter in query_params {
        let name = parameter.name.clone().unwrap_or_default();
        conditions.push(Condition::Query { name, text: text(parameter) });
    }
    RuleMatch { conditions }
}
