//! Routes as Envoy gets them: conditions and what happens to a call.
//!
//! Source: `BuildHTTPRoutesForVirtualService` and `TranslateRoute` in `pilot/pkg/networking/core/route/route.go` of
//! istio/istio 1.31.

use std::time::Duration;

use super::configs::{RouteConfig, Rule};
use super::matching::{self, RouteMatch};
use super::{Backend, Mirror, Outbound, Tried};
use crate::mesh::ids::Host;
use crate::mesh::retry::{self, RetryPolicy};
use crate::mesh::virtual_service::GatewayName;
use crate::schema::duration;
use crate::schema::virtual_service::{Destination, HttpRule, Percent};

/// One route.
#[derive(Debug, Clone)]
pub(super) struct Route<'m> {
    pub(super) matches: RouteMatch,
    pub(super) name: String,
    pub(super) action: Action,
    /// The rule that it comes from, with its configuration and the position of the alternative.
    pub(super) origin: Option<(&'m RouteConfig, &'m Rule, Option<usize>)>,
    /// Number of the route, to know when two virtual hosts have the very same routes.
    pub(super) identity: usize,
}

/// What happens to a call.
#[derive(Debug, Clone)]
pub(super) enum Action {
    Forward(Box<Forward>),
    Redirect(u32),
    DirectResponse(u32),
    /// Where the client dialled.
    Passthrough,
    /// Nowhere: unknown hosts are not allowed.
    Block,
    /// A redirect with a status that Envoy does not know.
    Invalid(String),
}

/// A call that is sent on.
#[derive(Debug, Clone)]
pub(super) struct Forward {
    pub(super) backends: Vec<Backend>,
    pub(super) timeout: Option<Duration>,
    pub(super) retries: RetryPolicy,
    pub(super) mirrors: Vec<Mirror>,
}

/// Completes a destination: the concrete host, and the port when it names none.
pub(super) type Lookup<'l> = dyn Fn(&Host) -> (Host, Option<u16>) + 'l;

impl Route<'_> {
    /// A route for every call.
    pub(super) fn catch_all(name: &str, action: Action) -> Self {
        Self { matches: RouteMatch::new(None, false), name: name.to_owned(), action, origin: None, identity: 0 }
    }

    /// What makes Envoy refuse it, and with it the whole route table.
    pub(super) fn refused(&self) -> Option<String> {
        let by_action = match &self.action {
            Action::Forward(forward) if forward.backends.is_empty() => {
                Some("several destinations without any weight".to_owned())
            }
            Action::Invalid(why) => Some(why.clone()),
            Action::DirectResponse(status) if !(200..600).contains(status) => Some(format!("HTTP status {status}")),
            Action::Forward(_)
            | Action::DirectResponse(_)
            | Action::Redirect(_)
            | Action::Passthrough
            | Action::Block => None,
        };
        by_action.or_else(|| self.matches.refused())
    }
}

impl<'m> Outbound<'m> {
    /// The routes of a configuration for this proxy and port, and what was left out with the reason.
    pub(super) fn routes(
        &self,
        config: &'m RouteConfig,
        gateway: &GatewayName,
        port: u16,
        lookup: &Lookup<'_>,
    ) -> (Vec<Route<'m>>, Vec<Tried>) {
        let mut routes: Vec<Route<'m>> = Vec::new();
        let mut left_out = Vec::new();
        let mut done = false;
        for rule in &config.rules {
            let written = rule.rule(self.mesh, config);
            if done {
                left_out.push(Tried::rule(rule, None, "an earlier rule takes every call".to_owned()));
                continue;
            }
            if written.matches.is_empty() {
                routes.push(self.route(config, rule, written, None, port, lookup));
                done = true;
                continue;
            }
            for (at, one) in written.matches.iter().enumerate() {
                if done {
                    left_out.push(Tried::rule(rule, Some(at), "an earlier match takes every call".to_owned()));
                    continue;
                }
                match matching::is_for(one, config, &self.caller, gateway, port) {
                    Err(why) => left_out.push(Tried::rule(rule, Some(at), why)),
                    Ok(()) => {
                        let route = self.route(config, rule, written, Some(at), port, lookup);
                        done = route.matches.is_catch_all();
                        routes.push(route);
                    }
                }
            }
        }
        (routes, left_out)
    }

    fn route(
        &self,
        config: &'m RouteConfig,
        rule: &'m Rule,
        written: &HttpRule,
        at: Option<usize>,
        port: u16,
        lookup: &Lookup<'_>,
    ) -> Route<'m> {
        let one = at.map(|at| &written.matches[at]);
        let mut name = written.name.clone().unwrap_or_default();
        if let Some(own) = one.and_then(|one| one.name.as_deref()).filter(|own| !own.is_empty()) {
            name = format!("{name}.{own}");
        }
        let action = if let Some(redirect) = &written.redirect {
            match redirect.redirect_code.unwrap_or(0) {
                0 => Action::Redirect(301),
                code @ (301 | 302 | 303 | 307 | 308) => Action::Redirect(code),
                code => Action::Invalid(format!("redirect with HTTP status {code}")),
            }
        } else if let Some(response) = &written.direct_response {
            Action::DirectResponse(response.status)
        } else {
            Action::Forward(Box::new(self.forward(config, rule, written, port, lookup)))
        };
        let position = at.and_then(|at| rule.alternative(at));
        self.serial.set(self.serial.get() + 1);
        Route {
            matches: RouteMatch::new(one, config.is_gateway_api),
            name,
            action,
            origin: Some((config, rule, position)),
            identity: self.serial.get(),
        }
    }

    fn forward(
        &self,
        config: &RouteConfig,
        rule: &Rule,
        written: &HttpRule,
        port: u16,
        lookup: &Lookup<'_>,
    ) -> Forward {
        let target = |destination: &Destination, weight: Option<i64>| {
            let (host, own) = lookup(&config.destination(self.mesh, destination));
            self.backend(&host, destination, u32::from(own.unwrap_or(port)), weight)
        };
        let none = Destination::default();
        let backends = match &*written.route.0 {
            [one] => vec![target(one.destination.as_ref().unwrap_or(&none), None)],
            many => many
                .iter()
                .filter(|one| one.weight.unwrap_or(0) != 0)
                .map(|one| target(one.destination.as_ref().unwrap_or(&none), one.weight))
                .collect(),
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
            .map(|(destination, share)| Mirror { backend: target(destination, None), percent: share.unwrap_or(100.0) })
            .collect();
        Forward { backends, timeout: timeout.filter(|limit| !limit.is_zero()), retries, mirrors }
    }

    /// Istio's own route to a Service.
    pub(super) fn default_route(&self, host: &Host, port: u16) -> Route<'m> {
        let backend = self.backend(host, &Destination::default(), u32::from(port), None);
        let retries = retry::effective(None, self.mesh.config.default_http_retry_policy.as_ref());
        let forward = Forward { backends: vec![backend], timeout: None, retries, mirrors: Vec::new() };
        Route::catch_all("default", Action::Forward(Box::new(forward)))
    }
}
