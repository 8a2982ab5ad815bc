//! Rules GM4xx: connection pools, load balancing and outlier detection.

pub(super) mod destination_rule_hidden;
pub(super) mod destination_rule_host_unknown;
pub(super) mod h2_upgrade_without_effect;
pub(super) mod one_call_per_connection;
pub(super) mod port_settings_replace_all;
pub(super) mod stream_limit_ignored;
