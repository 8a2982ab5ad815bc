//! Checks whether the program works in an environment, and how to fix what does not.
//!
//! CORE. Takes facts and returns checks: [`rights`] compares a user's permissions with the documented roles, [`versions`]
//! checks Istio's supported version skew, and [`plugin_path`] finds the program that kubectl would run.

pub(crate) mod plugin_path;
pub(crate) mod rights;
pub(crate) mod versions;

use schemars::JsonSchema;
use serde::Serialize;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum CheckState {
    /// No action is needed.
    Ok,
    /// A feature is limited.
    Warning,
    /// A feature does not work.
    Failed,
    /// The check could not be completed.
    Unknown,
}

impl CheckState {
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorCheck {
    /// Such as `rights/shifter`.
    pub id: String,
    pub state: CheckState,
    pub reason: String,
    /// A command to run, or objects to apply.
    pub fix: Option<String>,
}

impl DoctorCheck {
    /// Creates a check without a fix.
    pub fn new(id: impl Into<String>, state: CheckState, reason: impl Into<String>) -> Self {
        Self { id: id.into(), state, reason: reason.into(), fix: None }
    }

    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}
