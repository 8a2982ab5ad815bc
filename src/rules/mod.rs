//! The findings' rules: one file each, named for the fault, with its documentation, its logic and its cases.
//!
//! A rule is a plain function over the [`Mesh`]. It never asks whether something could be read: it names what it
//! rests on, and [`Findings::add`] holds back what a gap leaves undecided. A rule never imports another rule.

mod finding;
pub mod select;
#[cfg(test)]
mod testing;

mod dataplane;
mod gateways;
mod objects;
mod pools;
mod ports;
mod retries;
mod routing;

pub use finding::{Finding, Findings, Severity};

use std::collections::BTreeMap;

use crate::dataplane::proxy::ProxyState;
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
    &objects::wrong_api_group::RULE,
    &objects::unknown_field::RULE,
    &objects::invalid_value::RULE,
    &ports::port_treated_as_tcp::RULE,
    &ports::port_auto_detected::RULE,
    &ports::app_protocol_unknown::RULE,
    &ports::gateway_to_auto_port::RULE,
    &ports::grpc_on_http1_port::RULE,
    &ports::udp_port::RULE,
    &ports::one_target_port_two_protocols::RULE,
    &ports::reserved_port::RULE,
    &ports::target_port_missing::RULE,
    &ports::headless_service::RULE,
    &routing::destination_host_unknown::RULE,
    &routing::route_host_unknown::RULE,
    &routing::subset_undefined::RULE,
    &routing::subset_hidden_from_callers::RULE,
    &routing::subset_without_pods::RULE,
    &routing::no_catch_all::RULE,
    &routing::host_claimed_twice::RULE,
    &routing::rules_on_tcp_port::RULE,
    &routing::weights_not_percent::RULE,
    &routing::gateway_skips_mesh_rules::RULE,
    &routing::delegate_broken::RULE,
    &routing::destination_port_missing_for_caller::RULE,
    &routing::destination_port_unknown::RULE,
    &routing::route_invisible::RULE,
    &routing::two_kinds_one_host::RULE,
    &routing::canary_on_headless::RULE,
    &routing::backend_invalid::RULE,
    &routing::route_table_rejected::RULE,
    &retries::retry_condition_rejected::RULE,
    &retries::retry_without_attempts::RULE,
    &retries::retry_loses_connect_failure::RULE,
    &retries::retry_after_deadline::RULE,
    &pools::stream_limit_ignored::RULE,
    &pools::one_call_per_connection::RULE,
    &pools::h2_upgrade_without_effect::RULE,
    &pools::port_settings_replace_all::RULE,
    &pools::destination_rule_hidden::RULE,
    &pools::destination_rule_host_unknown::RULE,
    &gateways::tls_on_plaintext_server::RULE,
    &gateways::https_without_tls::RULE,
    &gateways::gateway_selects_nothing::RULE,
    &gateways::gateway_conflict::RULE,
    &gateways::host_not_on_gateway::RULE,
    &gateways::gateway_unknown::RULE,
    &gateways::gateway_only_route::RULE,
    &dataplane::pod_without_proxy::RULE,
    &dataplane::no_ready_pods::RULE,
    &dataplane::proxy_rejected_config::RULE,
    &dataplane::proxy_stale::RULE,
    &dataplane::endpoints_differ::RULE,
    &dataplane::live_differs_from_intent::RULE,
    &dataplane::sidecar_hides_host::RULE,
    &dataplane::envoy_filter_in_path::RULE,
    &dataplane::sidecars_conflict::RULE,
    &dataplane::calls_pinned::RULE,
    &dataplane::ambient_without_waypoint::RULE,
    &dataplane::proxyless_grpc::RULE,
    &dataplane::traffic_around_proxy::RULE,
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
