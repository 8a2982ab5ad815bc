//! The rules that produce findings: one file per rule, named after the fault, with its docs, check and tests.
//!
//! A rule is a plain function over the [`Mesh`]. It does not check for gaps itself: each finding lists the namespaces
//! that it depends on, and [`Findings::add`] drops it and counts it as undecided when one of them could not be read.
//! A rule never imports another rule. `dead_objects` removes what follows from the cause that another finding names.

mod dead_objects;
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
mod security;

pub use finding::{Finding, Findings, Severity};

use std::collections::BTreeMap;

use crate::dataplane::proxy::ProxyState;
use crate::mesh::Mesh;
use crate::mesh::ids::WorkloadId;
use crate::schema::Kind;
use select::FindingSelection;

/// A check with its stable code and its documentation.
#[derive(Debug)]
pub struct Rule {
    /// Stable code, such as `GM203`.
    pub code: &'static str,
    /// Name of the fault, such as `subset-undefined`.
    pub name: &'static str,
    /// Severity of its findings, unless a finding sets another one.
    pub severity: Severity,
    /// Kinds that must have been read completely: the rule is undecided where one of them is a gap.
    pub needs: &'static [Kind],
    /// Code of the message that `istioctl analyze` reports for this fault, such as `IST0101`.
    pub istio_code: Option<&'static str>,
    /// One line for `explain --list`, without a full stop.
    pub summary: &'static str,
    /// Markdown with five headings: what it looks for, why it matters, an example, the fix, references.
    pub docs: &'static str,
    /// Adds the findings of this rule.
    pub check: fn(&Mesh<'_>, &mut Findings<'_>),
}

/// All rules, ordered by code.
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
    &routing::rule_unreachable::RULE,
    &routing::no_catch_all::RULE,
    &routing::host_claimed_twice::RULE,
    &routing::rules_on_tcp_port::RULE,
    &routing::weights_not_percent::RULE,
    &routing::gateway_skips_mesh_rules::RULE,
    &routing::delegate_broken::RULE,
    &routing::destination_port_missing_for_caller::RULE,
    &routing::destination_port_unknown::RULE,
    &routing::route_invisible::RULE,
    &routing::route_not_accepted::RULE,
    &routing::two_kinds_one_host::RULE,
    &routing::canary_on_headless::RULE,
    &routing::backend_invalid::RULE,
    &routing::fault_injection_active::RULE,
    &routing::route_table_rejected::RULE,
    &routing::external_name_destination::RULE,
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
    &gateways::http_rules_on_passthrough::RULE,
    &security::tls_modes_conflict::RULE,
    &security::mutual_to_unmeshed::RULE,
    &security::authorization_on_tcp::RULE,
    &security::authorization_never_grpc::RULE,
    &security::strict_with_plain_callers::RULE,
    &security::port_level_mtls_wrong_port::RULE,
    &security::sidecar_credential_ignored::RULE,
    &security::server_not_verified::RULE,
    &security::tls_to_plain_port::RULE,
    &security::backend_policy_without_effect::RULE,
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
    &dataplane::waypoint_not_attached::RULE,
];

/// Result of running the selected rules.
#[derive(Debug, Default)]
pub struct RulesOutcome {
    /// Findings ordered by severity (worst first), object, field and code.
    pub findings: Vec<Finding>,
    /// Number of findings dropped by `--skip`, an ignore file or an annotation.
    pub ignored: usize,
    /// Number of possible findings that gaps leave undecided, by code.
    pub undecided: BTreeMap<&'static str, usize>,
    /// Skips of a single object that matched no finding.
    pub unused_skips: Vec<String>,
    /// State of each proxy that was compared; empty without `--live`.
    pub proxies: Vec<(WorkloadId, ProxyState)>,
}

/// Runs the rules that `selection` includes, and drops the findings that it skips.
pub fn run(mesh: &Mesh<'_>, selection: &FindingSelection) -> RulesOutcome {
    let mut findings = Findings::new(mesh);
    for rule in RULES.iter().filter(|rule| selection.includes_rule(rule)) {
        (rule.check)(mesh, &mut findings);
    }
    let proxies = findings.proxies().iter().map(|(id, compared)| (*id, compared.state)).collect();
    let (mut all_findings, undecided) = findings.into_parts();
    dead_objects::remove_consequences(mesh, &mut all_findings);
    let total = all_findings.len();
    let unused_skips = selection
        .skip
        .iter()
        .filter(|selector| {
            selector.names_object() && !all_findings.iter().any(|finding| selector.matches_finding(finding))
        })
        .map(ToString::to_string)
        .collect();
    let mut annotations = select::IgnoreAnnotations::default();
    let mut findings: Vec<_> = all_findings
        .into_iter()
        .filter(|finding| !selection.skips(finding) && !annotations.ignore(mesh, finding))
        .collect();
    findings.sort_by(|a, b| {
        (a.severity, &a.object, &a.field, a.code, &a.message)
            .cmp(&(b.severity, &b.object, &b.field, b.code, &b.message))
    });
    // A rule can reach one fault on several paths. Duplicates are not counted as ignored.
    let remaining = findings.len();
    findings.dedup();
    RulesOutcome { ignored: total - remaining, undecided, unused_skips, findings, proxies }
}

/// Finds a rule by its code or name, case-insensitively.
pub fn find(text: &str) -> Option<&'static Rule> {
    RULES.iter().copied().find(|rule| rule.code.eq_ignore_ascii_case(text) || rule.name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_ordered_by_code_and_names_are_unique() {
        assert!(RULES.windows(2).all(|pair| pair[0].code < pair[1].code));
        let mut names: Vec<_> = RULES.iter().map(|rule| rule.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn every_rule_is_documented_under_the_same_headings() {
        const HEADINGS: [&str; 5] =
            ["## What it looks for", "## Why it matters for gRPC", "## Example", "## Fix", "## References"];
        for rule in RULES {
            let headings: Vec<_> = rule.docs.lines().filter(|line| line.starts_with("## ")).collect();
            assert_eq!(headings, HEADINGS, "{}", rule.code);
            assert!(
                rule.summary.ends_with(|c: char| c.is_alphanumeric() || c == ')'),
                "{}: the summary ends with a full stop",
                rule.code
            );
        }
    }

    #[test]
    fn codes_are_gm_and_three_digits() {
        for rule in RULES {
            let digits = rule.code.strip_prefix("GM").unwrap_or_default();
            assert!(digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()), "{}", rule.code);
        }
    }
}
