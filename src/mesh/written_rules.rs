//! VirtualServices to route rules: short names completed, words of the API read.

use super::Mesh;
use super::ids::{ObjectRef, SubsetName};
use super::retry;
use super::virtual_service::VirtualService;
use super::written_route::{WrittenAction, WrittenBackend, WrittenMatch, WrittenMirror, WrittenRule};
use super::xds::RouteConfig;
use crate::schema::Kind;
use crate::schema::virtual_service::{Fault, HttpRule};
use crate::vocabulary::duration;

impl Mesh<'_> {
    /// The HTTP rules of a VirtualService as they are written, with short names completed.
    pub fn virtual_service_rules(&self, object: &VirtualService) -> Vec<WrittenRule> {
        let rules = object.spec.http.iter().enumerate();
        rules
            .map(|(index, rule)| self.rule(&object.object, index, format!("spec.http[{index}]"), rule, false))
            .collect()
    }

    /// The rules of a route configuration: delegates merged in, Gateway API's sorted.
    pub(super) fn config_rules(&self, config: &RouteConfig) -> Vec<WrittenRule> {
        let rules = config.rules.iter();
        rules
            .map(|rule| {
                let written = rule.rule(self, config);
                self.rule(&rule.object, rule.index, rule.field(), written, config.is_gateway_api)
            })
            .collect()
    }

    fn rule(&self, object: &ObjectRef, index: usize, field: String, rule: &HttpRule, by_segment: bool) -> WrittenRule {
        let own = &object.namespace;
        let resolve = |host: &str| super::host::resolve(host, own, &self.cluster_domain);
        let action = if let Some(delegate) = &rule.delegate {
            let namespace =
                delegate.namespace.as_deref().filter(|ns| !ns.is_empty()).map_or_else(|| own.clone(), Into::into);
            let object = ObjectRef { kind: Kind::VirtualService, namespace, name: delegate.name.as_str().into() };
            WrittenAction::Delegate { object }
        } else if rule.redirect.is_some() {
            WrittenAction::Redirect
        } else if let Some(response) = &rule.direct_response {
            WrittenAction::DirectResponse(response.status)
        } else {
            let targets = rule.route.iter().enumerate().map(|(at, route)| {
                let destination = route.destination.as_ref();
                WrittenBackend {
                    host: resolve(destination.map_or("", |destination| &destination.host)),
                    port: destination
                        .and_then(|d| d.port.as_ref())
                        .map(|port| port.number)
                        .filter(|number| *number > 0),
                    subset: destination
                        .and_then(|d| d.subset.as_deref())
                        .filter(|name| !name.is_empty())
                        .map(SubsetName::from),
                    weight: route.weight,
                    field: format!("{field}.route[{at}]"),
                }
            });
            WrittenAction::Forward(targets.collect())
        };
        let legacy = rule.mirror.iter().map(|destination| {
            let share = rule.mirror_percentage.as_ref().map(|percent| percent.value);
            (destination, share.or(rule.mirror_percent.map(f64::from)).unwrap_or(100.0))
        });
        let listed = rule.mirrors.iter().filter_map(|mirror| {
            let share = mirror.percentage.as_ref().map_or(100.0, |percent| percent.value);
            mirror.destination.as_ref().map(|destination| (destination, share))
        });
        let mirrors = legacy
            .chain(listed)
            .filter(|(_, percent)| *percent > 0.0)
            .map(|(destination, percent)| WrittenMirror {
                host: resolve(&destination.host),
                subset: destination.subset.as_deref().filter(|name| !name.is_empty()).map(SubsetName::from),
                percent,
            })
            .collect();
        let rewrites = rule.rewrite.iter().flat_map(|rewrite| {
            let uri = rewrite.uri.as_ref().map(|uri| format!("path → {uri}"));
            let authority = rewrite.authority.as_ref().map(|authority| format!("authority → {authority}"));
            uri.into_iter().chain(authority)
        });
        WrittenRule {
            object: object.clone(),
            index,
            name: rule.name.clone(),
            matches: rule.matches.iter().map(|one| WrittenMatch::of_http(one, by_segment)).collect(),
            action,
            timeout: rule
                .timeout
                .as_deref()
                .and_then(|text| duration::parse(text).ok())
                .filter(|limit| !limit.is_zero()),
            retries: retry::effective(
                rule.retries.as_ref().map(|retries| (retries, object)),
                self.config.default_http_retry_policy.as_ref(),
            ),
            faults: rule.fault.as_ref().map(faults).unwrap_or_default(),
            mirrors,
            rewrites: rewrites.collect(),
            field,
        }
    }
}

fn faults(fault: &Fault) -> Vec<String> {
    let share = |percent: &Option<crate::schema::virtual_service::Percent>| {
        crate::vocabulary::share::format_percent(percent.as_ref().map_or(100.0, |percent| percent.value))
    };
    let mut texts = Vec::new();
    if let Some(delay) = &fault.delay {
        texts.push(format!("delay {} for {}", delay.fixed_delay.as_deref().unwrap_or("?"), share(&delay.percentage)));
    }
    if let Some(abort) = &fault.abort {
        let with = abort.grpc_status.clone().or(abort.http_status.map(|status| format!("HTTP {status}")));
        texts.push(format!("abort with {} for {}", with.unwrap_or_else(|| "?".to_owned()), share(&abort.percentage)));
    }
    texts
}
