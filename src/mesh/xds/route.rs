//! Routes as Envoy gets them: conditions and what happens to a call.
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
use crate::schema::virtual_service::{Destination, HttpRule, Percent};
use crate::vocabulary::duration;

/// One route. Where it sends to is worked out when a call takes it: a proxy has many routes that no call is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct CompiledRoute<'m> {
    pub(super) action: CompiledAction<'m>,
    /// The rule that it comes from; absent for Istio's own.
    pub(super) origin: Option<RouteOrigin<'m>>,
    /// Port that destinations without one have.
    pub(super) port: u16,
    /// Number of the making: hosts of a gateway share a virtual host only when their routes were made together.
    made: usize,
}

/// The rule that a route comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteOrigin<'m> {
    pub(super) config: &'m RouteConfig,
    pub(super) rule: &'m ConfigRule,
    /// The rule's text, delegates merged in.
    pub(super) written: &'m HttpRule,
    /// Which of its alternatives it is; absent when it has none.
    at: Option<usize>,
    matches: &'m CompiledMatch,
}

impl PartialEq for RouteOrigin<'_> {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self.matches, other.matches)
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CompiledAction<'m> {
    /// It goes to the rule's destinations.
    Forward,
    /// It goes to this Service.
    Service(&'m Host),
    Redirect(u32),
    DirectResponse(u32),
    /// Where the client dialled.
    Passthrough,
    /// Nowhere: unknown hosts are not allowed.
    Block,
}

/// Where a call is sent on, and how.
#[derive(Debug, Clone)]
pub(super) struct CompiledForward {
    pub(super) backends: Vec<CompiledBackend>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: RetryPolicy,
    pub(super) mirrors: Vec<CompiledMirror>,
}

impl RouteOrigin<'_> {
    /// Position of the alternative in the object.
    pub(super) fn alternative(&self) -> Option<usize> {
        self.at.and_then(|at| self.rule.alternative(at))
    }
}

impl<'m> CompiledRoute<'m> {
    /// A route of Istio's own, for every call.
    pub(super) fn catch_all(action: CompiledAction<'m>, port: u16) -> Self {
        Self { action, origin: None, port, made: 0 }
    }

    /// Its name.
    pub(super) fn name(&self) -> Cow<'m, str> {
        let Some(RouteOrigin { written, at, .. }) = self.origin else {
            return Cow::Borrowed(match self.action {
                CompiledAction::Passthrough => "allow_any",
                CompiledAction::Block => "block_all",
                _ => "default",
            });
        };
        let name = written.name.as_deref().unwrap_or_default();
        match at.and_then(|at| written.matches[at].name.as_deref()).filter(|own| !own.is_empty()) {
            Some(own) => Cow::Owned(format!("{name}.{own}")),
            None => Cow::Borrowed(name),
        }
    }

    /// Whether every call fits.
    pub(super) fn is_catch_all(&self) -> bool {
        self.origin.is_none_or(|origin| origin.matches.is_catch_all())
    }

    /// Its conditions in Envoy's words, sorted.
    pub(super) fn conditions(&self) -> Vec<String> {
        self.origin.map_or_else(|| vec!["path prefix /".to_owned()], |origin| origin.matches.in_words())
    }

    /// Whether a call fits; else which condition it fails.
    pub(super) fn check(&self, call: &Call) -> Result<(), String> {
        self.origin.map_or(Ok(()), |origin| origin.matches.check(call))
    }

    /// Conditions that only the proxy can check.
    pub(super) fn unknown(&self) -> &'m [String] {
        self.origin.map_or(&[], |origin| origin.matches.unknown())
    }

    /// What makes Envoy refuse it, and with it the whole route table.
    pub(super) fn refused(&self) -> Option<String> {
        let RouteOrigin { written, matches, .. } = self.origin?;
        let by_action = match self.action {
            CompiledAction::Forward if written.route.len() != 1 && weighted(written).next().is_none() => {
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
        by_action.or_else(|| matches.refused())
    }
}

/// The destinations of several that get calls at all.
fn weighted(written: &HttpRule) -> impl Iterator<Item = (Option<&Destination>, Option<i64>)> {
    let targets = written.route.iter().filter(|one| one.weight.unwrap_or(0) != 0);
    targets.map(|one| (one.destination.as_ref(), one.weight))
}

impl<'m> ProxyConfig<'m> {
    /// The routes of a configuration for this proxy and port, and what was left out with the reason.
    pub(super) fn routes(
        &self,
        config: &'m RouteConfig,
        gateway: &GatewayName,
        port: u16,
    ) -> (Vec<CompiledRoute<'m>>, Vec<TriedRule>) {
        let mut routes: Vec<CompiledRoute<'m>> = Vec::new();
        let mut left_out = Vec::new();
        let mut done = false;
        self.serial.set(self.serial.get() + 1);
        for rule in &config.rules {
            let written = rule.rule(self.mesh, config);
            let conditions = rule.conditions(self.mesh, config);
            if done {
                left_out.push(TriedRule::rule(rule, None, "an earlier rule takes every call".to_owned()));
                continue;
            }
            let made = |at: Option<usize>| {
                let matches = &conditions[at.unwrap_or(0)];
                let origin = RouteOrigin { config, rule, written, at, matches };
                CompiledRoute {
                    action: CompiledAction::of(written),
                    origin: Some(origin),
                    port,
                    made: self.serial.get(),
                }
            };
            if written.matches.is_empty() {
                routes.push(made(None));
                done = true;
                continue;
            }
            for (at, one) in written.matches.iter().enumerate() {
                if done {
                    left_out.push(TriedRule::rule(rule, Some(at), "an earlier match takes every call".to_owned()));
                    continue;
                }
                match matching::is_for(one, config, &self.caller, gateway, port) {
                    Err(why) => left_out.push(TriedRule::rule(rule, Some(at), why)),
                    Ok(()) => {
                        let route = made(Some(at));
                        done = route.is_catch_all();
                        routes.push(route);
                    }
                }
            }
        }
        (routes, left_out)
    }

    /// Where a route sends calls; `None` when it sends them nowhere.
    pub(super) fn forward(&self, route: &CompiledRoute<'_>) -> Option<CompiledForward> {
        match (route.action, route.origin) {
            (CompiledAction::Service(host), _) => Some(self.forward_to(host, route.port)),
            (CompiledAction::Forward, Some(origin)) => Some(self.forward_by_rule(origin, route.port)),
            _ => None,
        }
    }

    fn forward_by_rule(&self, origin: RouteOrigin<'_>, port: u16) -> CompiledForward {
        let RouteOrigin { config, rule, written, .. } = origin;
        let none = Destination::default();
        let target = |destination: Option<&Destination>, weight: Option<i64>| {
            let destination = destination.unwrap_or(&none);
            let host = config.destination(self.mesh, destination);
            let (host, own) = if self.is_gateway() {
                self.concrete_at_gateway(&host, &config.namespace)
            } else {
                (self.concrete_on_port(&host, port), None)
            };
            self.backend(&host, destination, u32::from(own.unwrap_or(port)), weight)
        };
        let backends = match &*written.route.0 {
            [one] => vec![target(one.destination.as_ref(), None)],
            _ => weighted(written).map(|(destination, weight)| target(destination, weight)).collect(),
        };
        let timeout = written.timeout.as_deref().and_then(|text| duration::parse(text).ok());
        let retries = retry::effective(
            written.retries.as_ref().map(|retries| (retries, &rule.object)),
            self.mesh.config.default_http_retry_policy.as_ref(),
        );
        let legacy = written.mirror.as_ref().map(|destination| {
            let share = written.mirror_percentage.as_ref().map(|percent| percent.value);
            (destination, share.or(written.mirror_percent.map(f64::from)))
        });
        let listed = written.mirrors.iter().filter_map(|mirror| {
            let share = mirror.percentage.as_ref().map(|Percent { value }| *value);
            mirror.destination.as_ref().map(|destination| (destination, share))
        });
        let mirrors = legacy
            .into_iter()
            .chain(listed)
            .filter(|(_, share)| share.is_none_or(|share| share > 0.0))
            .map(|(to, share)| CompiledMirror { backend: target(Some(to), None), percent: share.unwrap_or(100.0) })
            .collect();
        CompiledForward { backends, timeout: timeout.filter(|limit| !limit.is_zero()), retries, mirrors }
    }

    /// Istio's own way to a Service.
    fn forward_to(&self, host: &Host, port: u16) -> CompiledForward {
        let backend = self.backend(host, &Destination::default(), u32::from(port), None);
        let retries = retry::effective(None, self.mesh.config.default_http_retry_policy.as_ref());
        CompiledForward { backends: vec![backend], timeout: None, retries, mirrors: Vec::new() }
    }
}

impl CompiledAction<'_> {
    fn of(written: &HttpRule) -> Self {
        if let Some(redirect) = &written.redirect {
            return Self::Redirect(redirect.redirect_code.filter(|code| *code != 0).unwrap_or(301));
        }
        written.direct_response.as_ref().map_or(Self::Forward, |response| Self::DirectResponse(response.status))
    }
}
