//! A finding with its position and excerpt when the object came from a file.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::ObjectReport;
use crate::mesh::Mesh;
use crate::rules::{Finding, Severity};
use crate::snapshot::{SourceText, TextPosition};

/// A fault, with its evidence and its fix.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FindingReport {
    /// Stable code, such as `GM203`.
    pub code: &'static str,
    /// Name of the rule, such as `subset-undefined`.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object to fix.
    pub object: ObjectReport,
    /// Path of the field in that object.
    pub field: String,
    /// The fault in one sentence.
    pub message: String,
    /// The effect on callers.
    pub impact: String,
    /// Namespaces of the affected callers; empty means all callers.
    pub callers: Vec<String>,
    /// The facts that show the fault.
    pub evidence: Vec<String>,
    /// How to fix it: YAML or a command.
    pub fix: String,
    /// Position of the field, for objects that come from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionReport>,
    /// Istio's code for the same fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// The text around the position, for the terminal.
    #[serde(skip)]
    #[schemars(skip)]
    pub excerpt: Option<Excerpt>,
}

/// A position in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PositionReport {
    /// Path of the file as given on the command line.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// The template that rendered the object, from a `# Source:` comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// The text that a finding points into.
#[derive(Debug, Clone)]
pub struct Excerpt {
    /// The whole text.
    pub text: Arc<SourceText>,
    /// Bytes of the field.
    pub bytes: std::ops::Range<usize>,
}

impl FindingReport {
    /// Reports a finding, with its position when the object came from a file.
    pub fn new(mesh: &Mesh<'_>, finding: &Finding) -> Self {
        let origin = document(mesh, finding);
        let position = origin.and_then(|origin| Some((origin, origin.find(&finding.field)?)));
        Self {
            code: finding.code,
            name: finding.name,
            severity: finding.severity,
            object: (&finding.object).into(),
            field: finding.field.clone(),
            message: finding.message.clone(),
            impact: finding.impact.clone(),
            callers: finding.callers.clone(),
            evidence: finding.evidence.clone(),
            fix: finding.fix.clone(),
            istio_code: finding.istio_code,
            position: position.as_ref().map(|(origin, position)| PositionReport {
                file: origin.text.path.clone(),
                line: position.start.line,
                column: position.start.column,
                template: origin.template.clone(),
            }),
            excerpt: position
                .map(|(origin, position)| Excerpt { text: Arc::clone(&origin.text), bytes: position.bytes }),
        }
    }
}

/// The document in a file that the finding's object came from.
fn document<'m>(mesh: &Mesh<'m>, finding: &Finding) -> Option<&'m TextPosition> {
    let key = finding.object.key();
    let object = if finding.code == "GM001" {
        // GM001 is about an object of the wrong API group, which the snapshot keeps apart from the others.
        mesh.snapshot.unserved.iter().find(|object| object.key == key)
    } else {
        mesh.snapshot.objects.get(&key)
    };
    object.and_then(|object| object.position.as_ref())
}
