//! What a shift reports while it runs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use strum::IntoStaticStr;

use super::record::{LostControlReason, RollbackTarget};
use crate::analysis::AnalysisSource;
use crate::analysis::verdict::AnalysisVerdict;
use crate::analysis::window::Window;

/// Type of a shift event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, JsonSchema, IntoStaticStr)]
#[serde(rename_all = "kebab-case")]
#[strum(serialize_all = "kebab-case")]
pub enum ShiftEventType {
    /// The planned weights and steps.
    Plan,
    /// Affected proxies and the result of the checks.
    Preflight,
    /// The weights of a step are applied.
    Applied,
    /// Whether the affected proxies run the applied weights.
    Acknowledged,
    /// Calls counted in one window.
    Window,
    /// Verdict on a window.
    Verdict,
    /// The weights from before are restored.
    RolledBack,
    /// The weights stay, and the shift ends unfinished.
    Held,
    /// Another client changed the weights, the rule or the record, or the object is gone.
    LostControl,
    /// The shift is finished.
    Done,
}

impl ShiftEventType {
    /// The value in JSON.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Acknowledgement by the affected proxies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, JsonSchema)]
pub struct ProxyAckCounts {
    /// Affected proxies.
    pub total: usize,
    /// Proxies that run the applied weights.
    pub synced: usize,
    /// Proxies that do not run them yet, with the evidence.
    pub stale: Vec<String>,
    /// Proxies that rejected them, with Envoy's message.
    pub rejected: Vec<String>,
    /// Proxies whose state is unknown, with the cause.
    pub unreachable: Vec<String>,
}

/// An event without what only the program around it knows: session, number and time.
#[derive(Debug, Clone, PartialEq)]
pub struct Notice {
    pub event: ShiftEventType,
    /// Step of the shift, from 1; 0 is the window before the first step.
    pub step: u32,
    /// The event in a sentence. A window describes itself.
    pub message: String,
    pub details: NoticeDetails,
}

/// The fields of a [`Notice`] that depend on its type.
#[derive(Debug, Clone, PartialEq)]
pub enum NoticeDetails {
    None,
    /// Planned or applied weights by backend.
    Weights(BTreeMap<String, u64>),
    Proxies(ProxyAckCounts),
    /// Counted calls, and the callers that could not be read, with the reason.
    Window {
        window: Window,
        source: AnalysisSource,
        unread_callers: Vec<String>,
    },
    Verdict(AnalysisVerdict),
    RolledBack {
        target: RollbackTarget,
        weights: BTreeMap<String, u64>,
    },
    LostControl(LostControlReason),
}
