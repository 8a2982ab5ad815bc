//! Rules GM2xx: routes, and the backends that calls reach.

pub(super) mod backend_invalid;
pub(super) mod canary_on_headless;
pub(super) mod delegate_broken;
pub(super) mod destination_host_unknown;
pub(super) mod destination_port_missing_for_caller;
pub(super) mod destination_port_unknown;
pub(super) mod external_name_destination;
pub(super) mod fault_injection_active;
pub(super) mod gateway_skips_mesh_rules;
pub(super) mod host_claimed_twice;
pub(super) mod no_catch_all;
pub(super) mod route_host_unknown;
pub(super) mod route_invisible;
pub(super) mod route_not_accepted;
pub(super) mod route_table_rejected;
pub(super) mod rule_unreachable;
pub(super) mod rules_on_tcp_port;
pub(super) mod subset_hidden_from_callers;
pub(super) mod subset_undefined;
pub(super) mod subset_without_pods;
pub(super) mod two_kinds_one_host;
pub(super) mod weights_not_percent;
