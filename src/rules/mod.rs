//! The findings' rules: one file each, named for the fault, with its documentation, its logic and its cases.
//!
//! A rule is a plain function over the [`Mesh`]. It never asks whether something could be read: it names what it
//! rests on, and [`Findings::add`] holds back what a gap leaves undecided. A rule never imports another rule.

mod finding;
pub mod select;
#[cfg(test)]
mod testing;

mod ambient_without_waypoint;
mod app_protocol_unknown;
mod backend_invalid;
mod calls_pinned;
mod canary_on_headless;
mod delegate_broken;
mod destination_host_unknown;
mod destination_port_missing;
mod destination_port_unknown;
mod destination_rule_hidden;
mod destination_rule_host_unknown;
mod duplicate_claims;
mod endpoints_differ;
mod envoy_filter_in_path;
mod gateway_conflict;
mod gateway_only_route;
mod gateway_selects_nothing;
mod gateway_skips_split;
mod gateway_to_auto_port;
mod gateway_unknown;
mod grpc_on_http1_port;
mod h2_upgrade_without_effect;
mod headless_service;
mod host_not_on_gateway;
mod https_without_tls;
mod invalid_value;
mod live_differs_from_intent;
mod no_catch_all;
mod no_ready_pods;
mod one_call_per_connection;
mod pod_without_proxy;
mod port_auto_detected;
mod port_settings_replace_all;
mod port_treated_as_tcp;
mod proxy_late;
mod proxy_refused_config;
mod proxyless_grpc;
mod reserved_port;
mod retry_after_deadline;
mod retry_condition_refused;
mod retry_loses_connect_failure;
mod retry_without_attempts;
mod route_host_unknown;
mod route_invisible;
mod route_table_rejected;
mod rules_on_tcp_port;
mod sidecar_hides_host;
mod sidecars_conflict;
mod stream_limit_ignored;
mod subset_hidden;
mod subset_undefined;
mod subset_without_pods;
mod target_port_conflict;
mod target_port_missing;
mod tls_on_plaintext_server;
mod traffic_around_proxy;
mod two_kinds_one_host;
mod udp_port;
mod unknown_field;
mod weights_not_percent;
mod wrong_api_group;

pub use finding::{Finding, Findings, Severity};

use std::collections::BTreeMap;

use crate::compare::proxy::ProxyState;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::schema::Kind;
use select::FindingSelection;

/// A rule with its documentation.
#[derive(Debug)]
pub struct Rule {
    /// Stable code, such as `GM203`.
    pub code: &'static str,
    /// Name for the fault, such as `subset-undefined`.
    pub name: &'static str,
    /// Usual severity.
    pub severity: Severity,
    /// Kinds without which the rule cannot decide.
    pub needs: &'static [Kind],
    /// Istio's own code for the fault.
    pub istio_code: Option<&'static str>,
    /// One sentence for lists.
    pub summary: &'static str,
    /// What, why, example, repair, references: Markdown with these five headings.
    pub docs: &'static str,
    /// The logic.
    pub check: fn(&Mesh<'_>, &mut Findings<'_>),
}

/// All rules by code.
pub static RULES: &[&Rule] = &[
    &wrong_api_group::RULE,
    &unknown_field::RULE,
    &invalid_value::RULE,
    &port_treated_as_tcp::RULE,
    &port_auto_detected::RULE,
    &app_protocol_unknown::RULE,
    &gateway_to_auto_port::RULE,
    &grpc_on_http1_port::RULE,
    &udp_port::RULE,
    &target_port_conflict::RULE,
    &reserved_port::RULE,
    &target_port_missing::RULE,
    &headless_service::RULE,
    &destination_host_unknown::RULE,
    &route_host_unknown::RULE,
    &subset_undefined::RULE,
    &subset_hidden::RULE,
    &subset_without_pods::RULE,
    &no_catch_all::RULE,
    &duplicate_claims::RULE,
    &rules_on_tcp_port::RULE,
    &weights_not_percent::RULE,
    &gateway_skips_split::RULE,
    &delegate_broken::RULE,
    &destination_port_missing::RULE,
    &destination_port_unknown::RULE,
    &route_invisible::RULE,
    &two_kinds_one_host::RULE,
    &canary_on_headless::RULE,
    &backend_invalid::RULE,
    &route_table_rejected::RULE,
    &retry_condition_refused::RULE,
    &retry_without_attempts::RULE,
    &retry_loses_connect_failure::RULE,
    &retry_after_deadline::RULE,
    &stream_limit_ignored::RULE,
    &one_call_per_connection::RULE,
    &h2_upgrade_without_effect::RULE,
    &port_settings_replace_all::RULE,
    &destination_rule_hidden::RULE,
    &destination_rule_host_unknown::RULE,
    &tls_on_plaintext_server::RULE,
    &https_without_tls::RULE,
    &gateway_selects_nothing::RULE,
    &gateway_conflict::RULE,
    &host_not_on_gateway::RULE,
    &gateway_unknown::RULE,
    &gateway_only_route::RULE,
    &pod_without_proxy::RULE,
    &no_ready_pods::RULE,
    &proxy_refused_config::RULE,
    &proxy_late::RULE,
    &endpoints_differ::RULE,
    &live_differs_from_intent::RULE,
    &sidecar_hides_host::RULE,
    &envoy_filter_in_path::RULE,
    &sidecars_conflict::RULE,
    &calls_pinned::RULE,
    &ambient_without_waypoint::RULE,
    &proxyless_grpc::RULE,
    &traffic_around_proxy::RULE,
];

/// What a run of the rules gave.
#[derive(Debug, Default)]
pub struct RulesOutcome {
    /// Findings, worst first, then by object, field and code.
    pub findings: Vec<Finding>,
    /// How many findings were left out because of `--skip`, an ignore file or an annotation.
    pub ignored: usize,
    /// Claims that gaps left undecided, by code.
    pub undecided: BTreeMap<&'static str, usize>,
    /// Exceptions for one object that left nothing out.
    pub idle: Vec<String>,
    /// How the proxies stand, if they were asked.
    pub proxies: Vec<(WorkloadId, ProxyState)>,
}

/// Runs the selected rules.
pub fn run(mesh: &Mesh<'_>, selection: &FindingSelection) -> RulesOutcome {
    let mut findings = Findings::new(mesh);
    for rule in RULES.iter().filter(|rule| selection.wants_rule(rule)) {
        (rule.check)(mesh, &mut findings);
    }
    let proxies = findings.proxies().iter().map(|(id, judged)| (*id, judged.state)).collect();
    let (found, undecided) = findings.into_parts();
    let total = found.len();
    let idle = selection
        .skip
        .iter()
        .filter(|selector| selector.names_object() && !found.iter().any(|one| selector.takes(one)));
    let idle = idle.map(ToString::to_string).collect();
    let mut findings: Vec<_> =
        found.into_iter().filter(|finding| !selection.skips(finding) && !select::is_annotated(mesh, finding)).collect();
    findings.sort_by(|a, b| {
        (a.severity, &a.object, &a.field, a.code, &a.message)
            .cmp(&(b.severity, &b.object, &b.field, b.code, &b.message))
    });
    // Several routes to one fault tell the same thing once.
    let kept = findings.len();
    findings.dedup();
    RulesOutcome { ignored: total - kept, undecided, idle, findings, proxies }
}

/// Finds a rule by its code or name, in any case.
pub fn find(text: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.code.eq_ignore_ascii_case(text) || rule.name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_unique() {
        assert!(RULES.windows(2).all(|pair| pair[0].code < pair[1].code));
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn every_rule_is_documented_under_the_same_headings() {
        const HEADINGS: [&str; 5] =
            ["## What it looks for", "## Why it matters for gRPC", "## Example", "## Repair", "## References"];
        for rule in RULES {
            let headings: Vec<_> = rule.docs.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(headings, HEADINGS, "{}", rule.code);
            assert!(rule.summary.ends_with(|c: char| c.is_alphanumeric() || c == ')'), "{}: no full stop", rule.code);
        }
    }

    #[test]
    fn codes_follow_their_form() {
        for rule in RULES {
            let digits = rule.code.strip_prefix("GM").unwrap_or_default();
            assert!(digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()), "{}", rule.code);
        }
    }
}
