//! Conversion of route objects to [`WrittenRule`]s.
//!
//! Stage: written. VirtualServices convert directly. A route configuration of [`super::xds`] converts through its
//! origin, so that reports show delegates merged and Gateway API rules in the order in which Envoy tries them.

use super::Mesh;
use super::host;
use super::ids::{Namespace, ObjectRef, SubsetName};
use super::retry;
use super::virtual_service::VirtualService;
use super::written_route::{WrittenAction, WrittenBackend, WrittenMatch, WrittenMirror, WrittenRule};
use super::xds::RouteConfig;
use crate::schema::Kind;
use crate::schema::virtual_service::{Destination, Fault, HttpRule};
use crate::vocabulary::duration;

impl Mesh<'_> {
    /// The HTTP rules of a VirtualService, in written order, with short host names completed.
    pub fn virtual_service_rules(&self, object: &VirtualService) -> Vec<WrittenRule> {
        let rules = object.spec.http.iter().enumerate();
        rules
            .map(|(index, rule)| self.written_rule(&object.object, index, format!("spec.http[{index}]"), rule, false))
            .collect()
    }

    /// The rules of a route configuration, in the order in which Envoy tries them.
    pub(super) fn config_rules(&self, config: &RouteConfig) -> Vec<WrittenRule> {
        let rules = config.rules.iter();
        rules
            .map(|rule| {
                let written = rule.http_rule(self, config);
                self.written_rule(&rule.object, rule.index, rule.field(), written, config.is_gateway_api)
            })
            .collect()
    }

    fn written_rule(
        &self,
        object: &ObjectRef,
        index: usize,
        field: String,
        rule: &HttpRule,
        by_segment: bool,
    ) -> WrittenRule {
        let rewrites = rule.rewrite.iter().flat_map(|rewrite| {
            let uri = rewrite.uri.as_ref().map(|uri| format!("path → {uri}"));
            let authority = rewrite.authority.as_ref().map(|authority| format!("authority → {authority}"));
            uri.into_iter().chain(authority)
        });
        WrittenRule {
            object: object.clone(),
            index,
            name: rule.name.clone(),
            matches: rule
                .matches
                .iter()
                .map(|alternative| WrittenMatch::from_http_match(alternative, by_segment))
                .collect(),
            action: self.written_action(object, &field, rule),
            timeout: rule
                .timeout
                .as_deref()
                .and_then(|text| duration::parse(text).ok())
                .filter(|limit| !limit.is_zero()),
            retries: retry::effective_policy(
                rule.retries.as_ref().map(|retries| (retries, object)),
                self.retry_defaults(),
            ),
            faults: rule.fault.as_ref().map(describe_faults).unwrap_or_default(),
            mirrors: self.written_mirrors(&object.namespace, rule),
            rewrites: rewrites.collect(),
            field,
        }
    }

    fn written_action(&self, object: &ObjectRef, field: &str, rule: &HttpRule) -> WrittenAction {
        let own_namespace = &object.namespace;
        if let Some(delegate) = &rule.delegate {
            let namespace = delegate.namespace.as_deref().filter(|name| !name.is_empty());
            let namespace = namespace.map_or_else(|| own_namespace.clone(), Into::into);
            let object = ObjectRef { kind: Kind::VirtualService, namespace, name: delegate.name.as_str().into() };
            return WrittenAction::Delegate { object };
        }
        if rule.redirect.is_some() {
            return WrittenAction::Redirect;
        }
        if let Some(response) = &rule.direct_response {
            return WrittenAction::DirectResponse(response.status);
        }
        let backends = rule.route.iter().enumerate().map(|(index, route)| {
            let destination = route.destination.as_ref();
            let port = destination.and_then(|destination| destination.port.as_ref()).map(|port| port.number);
            WrittenBackend {
                host: host::to_fqdn(
                    destination.map_or("", |destination| &destination.host),
                    own_namespace,
                    &self.cluster_domain,
                ),
                port: port.filter(|number| *number > 0),
                subset: destination.and_then(written_subset),
                weight: route.weight,
                field: format!("{field}.route[{index}]"),
            }
        });
        WrittenAction::Forward(backends.collect())
    }

    /// The backends that get copies of the calls, from `mirror` and `mirrors`. Those with a share of 0 are left out.
    fn written_mirrors(&self, own_namespace: &Namespace, rule: &HttpRule) -> Vec<WrittenMirror> {
        let single = rule.mirror.iter().map(|destination| {
            let percent = rule.mirror_percentage.as_ref().map(|percent| percent.value);
            (destination, percent.or(rule.mirror_percent.map(f64::from)).unwrap_or(100.0))
        });
        let listed = rule.mirrors.iter().filter_map(|mirror| {
            let percent = mirror.percentage.as_ref().map_or(100.0, |percent| percent.value);
            mirror.destination.as_ref().map(|destination| (destination, percent))
        });
        single
            .chain(listed)
            .filter(|(_, percent)| *percent > 0.0)
            .map(|(destination, percent)| WrittenMirror {
                host: host::to_fqdn(&destination.host, own_namespace, &self.cluster_domain),
                subset: written_subset(destination),
                percent,
            })
            .collect()
    }
}

fn written_subset(destination: &Destination) -> Option<SubsetName> {
    destination.subset.as_deref().filter(|name| !name.is_empty()).map(SubsetName::from)
}

fn describe_faults(fault: &Fault) -> Vec<String> {
    let share = crate::vocabulary::share::format_percent;
    let mut texts = Vec::new();
    if let Some(delay) = &fault.delay {
        texts.push(format!(
            "delay {} for {}",
            delay.fixed_delay.as_deref().unwrap_or("?"),
            share(delay.share_percent())
        ));
    }
    if let Some(abort) = &fault.abort {
        let with = abort.grpc_status.clone().or(abort.http_status.map(|status| format!("HTTP {status}")));
        texts.push(format!(
            "abort with {} for {}",
            with.unwrap_or_else(|| "?".to_owned()),
            share(abort.share_percent())
        ));
    }
    texts
}
