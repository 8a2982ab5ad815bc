//! Whether this program can be used here, and what would mend what is in its way.
//!
//! CORE. Facts in, checks out: [`rights`] compares what a user may do with the documented roles, [`versions`] knows how
//! far Istio's parts may lie apart, [`path`] sees what kubectl would run instead of us.

pub(crate) mod plugin_path;
pub(crate) mod rights;
pub(crate) mod versions;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CheckState {
    /// Nothing to do.
    Ok,
    /// Something does less than it could.
    Warning,
    /// Something will not work.
    Failed,
    /// It could not be found out.
    Unknown,
}

impl CheckState {
    /// The word of the contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// A check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoctorCheck {
    /// Its name, such as `rights/shifter`.
    pub id: String,
    /// How it ended.
    pub state: CheckState,
    /// Why.
    pub reason: String,
    /// The command, or the objects to apply, that mend it.
    pub fix: Option<String>,
}

impl DoctorCheck {
    /// A check without anything to mend.
    pub fn new(id: impl Into<String>, state: CheckState, reason: impl Into<String>) -> Self {
        Self { id: id.into(), state, reason: reason.into(), fix: None }
    }

    /// What mends it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}
