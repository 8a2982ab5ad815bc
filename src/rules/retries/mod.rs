//! Rules GM3xx: retries, timeouts and deadlines.

pub(super) mod retry_after_deadline;
pub(super) mod retry_condition_rejected;
pub(super) mod retry_loses_connect_failure;
pub(super) mod retry_without_attempts;
