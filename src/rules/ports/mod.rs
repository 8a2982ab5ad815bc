//! Rules GM1xx: ports and the protocol that Istio selects for them.

pub(super) mod app_protocol_unknown;
pub(super) mod gateway_to_auto_port;
pub(super) mod grpc_on_http1_port;
pub(super) mod headless_service;
pub(super) mod one_target_port_two_protocols;
pub(super) mod port_auto_detected;
pub(super) mod port_treated_as_tcp;
pub(super) mod reserved_port;
pub(super) mod target_port_missing;
pub(super) mod udp_port;
