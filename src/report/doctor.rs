//! The report of `doctor`: checks, each with its fix.

use schemars::JsonSchema;
use serde::Serialize;

use crate::doctor::{CheckState, DoctorCheck};

/// The results of all checks.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Doctor")]
pub struct DoctorReport {
    /// Always `Doctor`.
    pub kind: &'static str,
    /// Version of this schema.
    pub version: u32,
    /// The checks in the order they ran.
    pub checks: Vec<CheckReport>,
}

/// One check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Identifier, such as `rights/shifter`.
    pub id: String,
    /// The result.
    pub state: CheckState,
    /// The evidence for the result.
    pub reason: String,
    /// A command to run, or objects to apply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl DoctorReport {
    /// Reports the checks in their order.
    pub fn new(checks: &[DoctorCheck]) -> Self {
        let report = |check: &DoctorCheck| CheckReport {
            id: check.id.clone(),
            state: check.state,
            reason: check.reason.clone(),
            fix: check.fix.clone(),
        };
        Self { kind: "Doctor", version: 1, checks: checks.iter().map(report).collect() }
    }
}
