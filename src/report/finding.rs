//! A finding as it is shown, with the lines of the file that it came from.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::ObjectReport;
use crate::mesh::Mesh;
use crate::rules::{Finding, Severity};
use crate::snapshot::{SourceText, TextPosition};

/// A finding.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct FindingReport {
    /// Stable code.
    pub code: &'static str,
    /// Name of the rule.
    pub name: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// The object to mend.
    pub object: ObjectReport,
    /// Field path in it.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What callers will see.
    pub effect: String,
    /// Namespaces of the callers it touches; empty means all.
    pub callers: Vec<String>,
    /// What makes us say so.
    pub evidence: Vec<String>,
    /// The repair.
    pub fix: String,
    /// Where it stands, for objects from files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<PositionReport>,
    /// Istio's own code for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// The text around the position, for the terminal.
    #[serde(skip)]
    #[schemars(skip)]
    pub excerpt: Option<Excerpt>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PositionReport {
    /// Path as it was given.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// Template that made the object, by a `# Source:` comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// The lines that a finding points at.
#[derive(Debug, Clone)]
pub struct Excerpt {
    /// The whole text.
    pub text: Arc<SourceText>,
    /// Bytes of the field.
    pub bytes: std::ops::Range<usize>,
}

impl FindingReport {
    /// Prepares a finding for showing; looks up its place when the object came from a file.
    pub fn new(mesh: &Mesh<'_>, finding: &Finding) -> Self {
        let place = place(mesh, finding);
        let spot = place.and_then(|place| Some((place, place.find(&finding.field)?)));
        Self {
            code: finding.code,
            name: finding.name,
            severity: finding.severity,
            object: (&finding.object).into(),
            field: finding.field.clone(),
            message: finding.message.clone(),
            effect: finding.impact.clone(),
            callers: finding.callers.clone(),
            evidence: finding.evidence.clone(),
            fix: finding.fix.clone(),
            istio_code: finding.istio_code,
            position: spot.as_ref().map(|(place, spot)| PositionReport {
                file: place.text.path.clone(),
                line: spot.at.line,
                column: spot.at.column,
                template: place.template.clone(),
            }),
            excerpt: spot.map(|(place, spot)| Excerpt { text: Arc::clone(&place.text), bytes: spot.bytes }),
        }
    }
}

fn place<'m>(mesh: &Mesh<'m>, finding: &Finding) -> Option<&'m TextPosition> {
    let key = finding.object.key();
    let object = mesh.snapshot.objects.get(&key);
    let misplaced = || mesh.snapshot.misplaced.iter().find(|object| object.key == key);
    // GM001 is about an object that has no place among the others.
    let object = if finding.code == "GM001" { misplaced() } else { object };
    object.and_then(|object| object.place.as_ref())
}
