//! `doctor`: checks, each with what mends it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::doctor::DoctorCheck;

/// What was looked at.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Doctor")]
pub struct DoctorReport {
    /// Always `Doctor`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// The checks.
    pub checks: Vec<CheckReport>,
}

/// A check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CheckReport {
    /// Its name, such as `rights/shifter`.
    pub id: String,
    /// `ok`, `warning`, `failed` or `unknown`.
    pub state: &'static str,
    /// Why.
    pub reason: String,
    /// The command, or the objects to apply, that mend it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl DoctorReport {
    /// The report of checks.
    pub fn new(checks: &[DoctorCheck]) -> Self {
        let report = |check: &DoctorCheck| CheckReport {
            id: check.id.clone(),
            state: check.state.as_str(),
            reason: check.reason.clone(),
            fix: check.fix.clone(),
        };
        Self { kind: "Doctor", version: 1, checks: checks.iter().map(report).collect() }
    }
}
