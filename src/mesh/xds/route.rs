//! The routes that istiod builds from one route configuration for one proxy: conditions, actions and destinations.
//!
//! Source: `BuildHTTPRoutesForVirtualService` and `TranslateRoute` in `pilot/pkg/networking/core/route/route.go` of
//! istio/istio 1.31.

use std::borrow::Cow;
use std::time::Duration;

use super::matching::{self, CompiledMatch};
use super::route_config::{ConfigRule, RouteConfig};
use super::{Call, CompiledBackend, CompiledMirror, ProxyConfig, TriedRule};
use crate::mesh::ids::Host;
use crate::mesh::retry::{self, RetryPolicy};
use crate::mesh::virtual_service::GatewayName;
use crate::schema::virtual_service::{Destination, HttpRule, PercentValue};
use crate::vocabulary::duration;

/// One route. Its backends are computed only when a call matches it, since most routes of a proxy are never used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CompiledRoute<'m> {
    pub(super) action: CompiledAction<'m>,
    /// The rule that it comes from; `None` for Istio's default routes.
    pub(super) origin: Option<RouteOrigin<'m>>,
    /// Port of destinations that name none.
    pub(super) port: u16,
    /// Number of the `routes` call that built it. Hosts of a gateway share a virtual host only when their routes come
    /// from the same call.
    batch: usize,
}

/// The rule that a route comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteOrigin<'m> {
    pub(super) config: &'m RouteConfig,
    pub(super) rule: &'m ConfigRule,
    /// The compiled rule: delegates are merged in, Gateway API rules are converted.
    pub(super) http_rule: &'m HttpRule,
    /// Position in the compiled rule's `match` list; `None` for a rule without conditions.
    position: Option<usize>,
    conditions: &'m CompiledMatch,
}

impl PartialEq for RouteOrigin<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.conditions, other.conditions)
    }
}

/// The action of a route on a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CompiledAction<'m> {
    /// Forwards it to the rule's destinations.
    Forward,
    /// Forwards it to this Service: Istio's default route.
    Service(&'m Host),
    /// Redirects with this HTTP status code.
    Redirect(u32),
    /// Responds with this HTTP status code.
    DirectResponse(u32),
    /// Forwards it to the address that the client dialed.
    Passthrough,
    /// Responds with 502, since the outbound traffic policy allows no unknown hosts.
    Block,
}

/// The backends and policies of a forwarding route.
#[derive(Debug, Clone)]
pub(super) struct CompiledForward {
    pub(super) backends: Vec<CompiledBackend>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: RetryPolicy,
    pub(super) mirrors: Vec<CompiledMirror>,
}

impl RouteOrigin<'_> {
    /// Index in the `match` list of the written rule.
    pub(super) fn match_index(&self) -> Option<usize> {
        self.position.and_then(|position| self.rule.match_index(position))
    }
}

impl<'m> CompiledRoute<'m> {
    /// A default route of Istio that matches every call.
    pub(super) fn catch_all(action: CompiledAction<'m>, port: u16) -> Self {
        Self { action, origin: None, port, batch: 0 }
    }

    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub(super) fn name(&self) -> Cow<'m, str> {
        let Some(RouteOrigin { http_rule, position, .. }) = self.origin else {
            return Cow::Borrowed(match self.action {
                CompiledAction::Passthrough => "allow_any",
                CompiledAction::Block => "block_all",
                _ => "default",
            });
        };
        let name = http_rule.name.as_deref().unwrap_or_default();
        let match_name = position.and_then(|position| http_rule.matches[position].name.as_deref());
        match match_name.filter(|name| !name.is_empty()) {
            Some(match_name) => Cow::Owned(format!("{name}.{match_name}")),
            None => Cow::Borrowed(name),
        }
    }

    /// Whether every call matches.
    pub(super) fn is_catch_all(&self) -> bool {
        self.origin.is_none_or(|origin| origin.conditions.is_catch_all())
    }

    /// The conditions in the text form of [`crate::envoy::route::EnvoyRoute`], sorted.
    pub(super) fn conditions(&self) -> Vec<String> {
        self.origin.map_or_else(|| vec!["path prefix /".to_owned()], |origin| origin.conditions.to_envoy())
    }

    /// Whether a call matches; otherwise the condition that fails.
    pub(super) fn check(&self, call: &Call) -> Result<(), String> {
        self.origin.map_or(Ok(()), |origin| origin.conditions.check(call))
    }

    /// Conditions that only the proxy can check.
    pub(super) fn unchecked_conditions(&self) -> &'m [String] {
        self.origin.map_or(&[], |origin| origin.conditions.unchecked_conditions())
    }

    /// Why Envoy rejects the route, and with it the whole route table.
    pub(super) fn rejection(&self) -> Option<String> {
        let RouteOrigin { http_rule, conditions, .. } = self.origin?;
        let by_action = match self.action {
            CompiledAction::Forward
                if http_rule.route.len() != 1 && destinations_with_weight(http_rule).next().is_none() =>
            {
                Some("several destinations without any weight".to_owned())
            }
            CompiledAction::Redirect(code) if !matches!(code, 301 | 302 | 303 | 307 | 308) => {
                Some(format!("redirect with HTTP status {code}"))
            }
            CompiledAction::DirectResponse(status) if !(200..600).contains(&status) => {
                Some(format!("HTTP status {status}"))
            }
            _ => None,
        };
        by_action.or_else(|| conditions.rejection())
    }
}

/// The destinations with a weight above 0, of a rule with several.
fn destinations_with_weight(rule: &HttpRule) -> impl Iterator<Item = (Option<&Destination>, Option<i64>)> {
    let targets = rule.route.iter().filter(|target| target.weight.unwrap_or(0) != 0);
    targets.map(|target| (target.destination.as_ref(), target.weight))
}

impl<'m> ProxyConfig<'m> {
    /// The routes of a configuration for this proxy and port, and the rules and matches that istiod skips for it.
    #[expect(clippy::indexing_slicing, reason = "the positions come from the list itself")]
    pub(super) fn routes(
        &self,
        config: &'m RouteConfig,
        gateway: &GatewayName,
        port: u16,
    ) -> (Vec<CompiledRoute<'m>>, Vec<TriedRule>) {
        let mut routes: Vec<CompiledRoute<'m>> = Vec::new();
        let mut skipped = Vec::new();
        let mut has_catch_all = false;
        self.route_batch.set(self.route_batch.get() + 1);
        for rule in &config.rules {
            let http_rule = rule.http_rule(self.mesh, config);
            let compiled = rule.conditions(self.mesh, config);
            if has_catch_all {
                skipped.push(TriedRule::new(rule, None, "an earlier rule matches every call".to_owned()));
                continue;
            }
            let route_for = |position: Option<usize>| {
                let conditions = &compiled[position.unwrap_or(0)];
                let origin = RouteOrigin { config, rule, http_rule, position, conditions };
                CompiledRoute {
                    action: CompiledAction::from_rule(http_rule),
                    origin: Some(origin),
                    port,
                    batch: self.route_batch.get(),
                }
            };
            if http_rule.matches.is_empty() {
                routes.push(route_for(None));
                has_catch_all = true;
                continue;
            }
            for (position, conditions) in http_rule.matches.iter().enumerate() {
                if has_catch_all {
                    let reason = "an earlier match matches every call".to_owned();
                    skipped.push(TriedRule::new(rule, Some(position), reason));
                    continue;
                }
                match matching::applies_to(conditions, config, &self.caller, gateway, port) {
                    Err(reason) => skipped.push(TriedRule::new(rule, Some(position), reason)),
                    Ok(()) => {
                        let route = route_for(Some(position));
                        has_catch_all = route.is_catch_all();
                        routes.push(route);
                    }
                }
            }
        }
        (routes, skipped)
    }

    /// The backends and policies of a route; `None` when it does not forward.
    pub(super) fn forward(&self, route: &CompiledRoute<'_>) -> Option<CompiledForward> {
        match (route.action, route.origin) {
            (CompiledAction::Service(host), _) => Some(self.forward_by_default(host, route.port)),
            (CompiledAction::Forward, Some(origin)) => Some(self.forward_by_rule(origin, route.port)),
            _ => None,
        }
    }

    fn forward_by_rule(&self, origin: RouteOrigin<'_>, port: u16) -> CompiledForward {
        let RouteOrigin { config, rule, http_rule, .. } = origin;
        let no_destination = Destination::default();
        let compile = |destination: Option<&Destination>, weight: Option<i64>| {
            let destination = destination.unwrap_or(&no_destination);
            let host = config.destination_host(self.mesh, destination);
            let (host, single_port) = if self.is_gateway() {
                self.resolve_alias_at_gateway(&host, &config.namespace)
            } else {
                (self.resolve_alias_on_port(&host, port), None)
            };
            self.backend(&host, destination, u32::from(single_port.unwrap_or(port)), weight)
        };
        let backends = match &*http_rule.route.0 {
            [target] => vec![compile(target.destination.as_ref(), None)],
            _ => {
                destinations_with_weight(http_rule).map(|(destination, weight)| compile(destination, weight)).collect()
            }
        };
        let timeout = http_rule.timeout.as_deref().and_then(|text| duration::parse(text).ok());
        let retries = retry::effective_policy(
            http_rule.retries.as_ref().map(|retries| (retries, &rule.object)),
            self.mesh.retry_defaults(),
        );
        let legacy = http_rule.mirror.as_ref().map(|destination| {
            let share = http_rule.mirror_percentage.as_ref().map(|percent| percent.value);
            (destination, share.or(http_rule.mirror_percent.map(f64::from)))
        });
        let listed = http_rule.mirrors.iter().filter_map(|mirror| {
            let share = mirror.percentage.as_ref().map(|PercentValue { value }| *value);
            mirror.destination.as_ref().map(|destination| (destination, share))
        });
        let mirrors = legacy
            .into_iter()
            .chain(listed)
            .filter(|(_, share)| share.is_none_or(|share| share > 0.0))
            .map(|(destination, share)| CompiledMirror {
                backend: compile(Some(destination), None),
                percent: share.unwrap_or(100.0),
            })
            .collect();
        CompiledForward { backends, timeout: timeout.filter(|limit| !limit.is_zero()), retries, mirrors }
    }

    /// Istio's default route to a Service.
    fn forward_by_default(&self, host: &Host, port: u16) -> CompiledForward {
        let backend = self.backend(host, &Destination::default(), u32::from(port), None);
        let retries = retry::effective_policy(None, self.mesh.retry_defaults());
        CompiledForward { backends: vec![backend], timeout: None, retries, mirrors: Vec::new() }
    }
}

impl CompiledAction<'_> {
    fn from_rule(rule: &HttpRule) -> Self {
        if let Some(redirect) = &rule.redirect {
            return Self::Redirect(redirect.redirect_code.filter(|code| *code != 0).unwrap_or(301));
        }
        rule.direct_response.as_ref().map_or(Self::Forward, |response| Self::DirectResponse(response.status))
    }
}
