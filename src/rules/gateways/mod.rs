//! Rules GM5xx: gateways.

pub(super) mod gateway_conflict;
pub(super) mod gateway_only_route;
pub(super) mod gateway_selects_nothing;
pub(super) mod gateway_unknown;
pub(super) mod host_not_on_gateway;
pub(super) mod http_rules_on_passthrough;
pub(super) mod https_without_tls;
pub(super) mod tls_on_plaintext_server;
