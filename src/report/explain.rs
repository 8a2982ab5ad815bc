//! `explain`: what a finding's code means.

use schemars::JsonSchema;
use serde::Serialize;

use crate::rules::{Rule, Severity};

/// Answer of `explain`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(title = "Explain")]
pub struct ExplainReport {
    /// Always `Explain`.
    pub kind: &'static str,
    /// Version of this form.
    pub version: u32,
    /// One entry a word that was asked for.
    pub items: Vec<ExplainItem>,
}

/// One explanation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ExplainItem {
    /// The code.
    pub key: String,
    /// Its name.
    pub title: String,
    /// Usual severity.
    pub severity: Severity,
    /// What it looks for.
    pub meaning: String,
    /// Why it matters for gRPC.
    pub grpc: String,
    /// What leads to it: the example.
    pub causes: Vec<String>,
    /// The repair.
    pub next: Vec<String>,
    /// Where the facts come from.
    pub source: String,
    /// Istio's own code for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub istio_code: Option<&'static str>,
    /// The whole text, for people.
    #[serde(skip)]
    #[schemars(skip)]
    pub docs: &'static str,
    /// One sentence, for lists.
    pub summary: String,
}

impl ExplainReport {
    /// Explains rules.
    pub fn new<'r>(rules: impl Iterator<Item = &'r Rule>) -> Self {
        Self { kind: "Explain", version: 1, items: rules.map(ExplainItem::new).collect() }
    }
}

impl ExplainItem {
    fn new(rule: &Rule) -> Self {
        let section = |heading: &str| section(rule.docs, heading);
        Self {
            key: rule.code.to_owned(),
            title: rule.name.to_owned(),
            severity: rule.severity,
            meaning: section("## What it looks for"),
            grpc: section("## Why it matters for gRPC"),
            causes: vec![section("## Example")],
            next: vec![section("## Repair")],
            source: section("## References"),
            istio_code: rule.istio_code,
            docs: rule.docs,
            summary: rule.summary.to_owned(),
        }
    }
}

/// The text under a heading.
fn section(docs: &str, heading: &str) -> String {
    let Some((_, rest)) = docs.split_once(heading) else { return String::new() };
    let end = rest.find("\n## ").unwrap_or(rest.len());
    rest[..end].trim().to_owned()
}
