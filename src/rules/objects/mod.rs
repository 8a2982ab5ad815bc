//! Rules GM0xx: written objects, compared with the schemas and the validation of Istio and Gateway API.

pub(super) mod invalid_value;
pub(super) mod unknown_field;
pub(super) mod wrong_api_group;
