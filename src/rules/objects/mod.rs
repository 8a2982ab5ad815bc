//! Rules GM0xx: objects as written, against the schemas and validation of Istio and Gateway API.

pub(super) mod invalid_value;
pub(super) mod unknown_field;
pub(super) mod wrong_api_group;
