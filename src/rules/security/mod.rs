//! Rules GM6xx: TLS between proxies, and authorization.

pub(super) mod authorization_never_grpc;
pub(super) mod authorization_on_tcp;
pub(super) mod backend_policy_without_effect;
pub(super) mod mutual_to_unmeshed;
pub(super) mod port_level_mtls_wrong_port;
pub(super) mod server_not_verified;
pub(super) mod sidecar_credential_ignored;
pub(super) mod strict_with_plain_callers;
pub(super) mod tls_modes_conflict;
pub(super) mod tls_to_plain_port;
