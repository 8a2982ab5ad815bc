//! Selection of findings: `--only`, `--skip`, ignore files, and the annotation on an object.

use std::collections::HashMap;
use std::fmt;

use super::{Finding, Rule};
use crate::mesh::Mesh;
use crate::snapshot::ObjectKey;
use crate::vocabulary::nearest_name;

/// Annotation that ignores findings on an object. Its value is a comma-separated list of codes or names.
pub const IGNORE_ANNOTATION: &str = "grpcmesh.io/ignore";

/// An item of `--only` or `--skip`: a code, a code prefix or a rule name, optionally with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingSelector {
    code: String,
    object: Option<ObjectPattern>,
}

/// `VirtualService/shop/checkout`. Each part may be `*`; missing trailing parts match everything.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObjectPattern {
    kind: String,
    namespace: String,
    name: String,
}

/// Why an item of `--only` or `--skip` is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No rule has that code or name.
    #[error("unknown finding \"{code}\"{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n}?")))]
    Unknown {
        /// The code or name as given.
        code: String,
        /// The most similar code or name.
        nearest: Option<String>,
    },
    /// The object part is not `Kind/namespace/name`.
    #[error("\"{0}\" is not a valid object: expected Kind/namespace/name, where * matches any value")]
    InvalidObject(String),
}

impl FindingSelector {
    /// Parses `GM203`, `GM2`, `subset-undefined` or `GM203=VirtualService/shop/x`.
    ///
    /// # Errors
    /// When no rule has that code or name, or when the object is not `Kind/namespace/name`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let (code, object) = match text.split_once('=') {
            Some((code, object)) => (code.trim(), Some(object.trim())),
            None => (text.trim(), None),
        };
        let is_known = super::RULES.iter().any(|rule| matches_code_or_name(code, rule.code, rule.name));
        if !is_known {
            let names = super::RULES.iter().flat_map(|rule| [rule.code, rule.name]);
            let nearest = nearest_name::nearest(code, names).map(str::to_owned);
            return Err(SelectorError::Unknown { code: code.to_owned(), nearest });
        }
        let object = object.map(ObjectPattern::parse).transpose()?;
        Ok(Self { code: code.to_owned(), object })
    }

    pub(super) fn names_object(&self) -> bool {
        self.object.is_some()
    }

    pub(super) fn matches_finding(&self, finding: &Finding) -> bool {
        matches_code_or_name(&self.code, finding.code, finding.name)
            && self.object.as_ref().is_none_or(|pattern| pattern.matches(finding))
    }
}

impl fmt::Display for FindingSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)?;
        match &self.object {
            Some(ObjectPattern { kind, namespace, name }) => write!(f, "={kind}/{namespace}/{name}"),
            None => Ok(()),
        }
    }
}

/// Whether `text` is the code, a prefix of it of at least three characters (`GM2`), or the name of the rule.
fn matches_code_or_name(text: &str, code: &str, name: &str) -> bool {
    let is_prefix = text.len() >= 3 && code.get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text));
    is_prefix || name.eq_ignore_ascii_case(text)
}

impl ObjectPattern {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = text.split('/').map(str::to_owned);
        let pattern = Self {
            kind: parts
                .next()
                .filter(|kind| !kind.is_empty())
                .ok_or_else(|| SelectorError::InvalidObject(text.to_owned()))?,
            namespace: parts.next().unwrap_or_else(|| "*".to_owned()),
            name: parts.next().unwrap_or_else(|| "*".to_owned()),
        };
        if parts.next().is_some() { Err(SelectorError::InvalidObject(text.to_owned())) } else { Ok(pattern) }
    }

    fn matches(&self, finding: &Finding) -> bool {
        let matches_part = |pattern: &str, value: &str| pattern == "*" || pattern.eq_ignore_ascii_case(value);
        matches_part(&self.kind, finding.object.kind.name())
            && matches_part(&self.namespace, finding.object.namespace.as_str())
            && matches_part(&self.name, &finding.object.name)
    }
}

/// The findings to report.
#[derive(Debug, Clone, Default)]
pub struct FindingSelection {
    /// Report only these; empty means all.
    pub only: Vec<FindingSelector>,
    /// Drop these.
    pub skip: Vec<FindingSelector>,
}

impl FindingSelection {
    /// Whether `--only` selects this rule.
    pub fn includes_rule(&self, rule: &Rule) -> bool {
        self.only.is_empty()
            || self.only.iter().any(|selector| matches_code_or_name(&selector.code, rule.code, rule.name))
    }

    /// Whether `--only` or `--skip` drops the finding.
    pub fn skips(&self, finding: &Finding) -> bool {
        let is_included = self.only.is_empty() || self.only.iter().any(|selector| selector.matches_finding(finding));
        !is_included || self.skip.iter().any(|selector| selector.matches_finding(finding))
    }
}

/// Parses an ignore file: one selector per line; `#` starts a comment.
///
/// # Errors
/// The first invalid line, with its number from 1.
pub fn parse_ignore_file(text: &str) -> Result<Vec<FindingSelector>, (usize, SelectorError)> {
    let mut selectors = Vec::new();
    // Editors on Windows start files with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if !content.is_empty() {
            selectors.push(FindingSelector::parse(content).map_err(|error| (index + 1, error))?);
        }
    }
    Ok(selectors)
}

/// The annotations [`IGNORE_ANNOTATION`] of the objects with findings. Each object is parsed once, whatever the number of its
/// findings is.
#[derive(Default)]
pub(super) struct IgnoreAnnotations(HashMap<ObjectKey, Option<String>>);

impl IgnoreAnnotations {
    /// Whether the annotation ignores the finding. A finding about several objects is ignored only when all of them have the
    /// annotation.
    pub(super) fn ignore(&mut self, mesh: &Mesh<'_>, finding: &Finding) -> bool {
        finding.objects().all(|reference| {
            let codes = self.0.entry(reference.key()).or_insert_with_key(|key| ignored_codes(mesh, key));
            codes.as_ref().is_some_and(|codes| {
                codes.split(',').any(|code| matches_code_or_name(code.trim(), finding.code, finding.name))
            })
        })
    }
}

fn ignored_codes(mesh: &Mesh<'_>, key: &ObjectKey) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Header {
        metadata: crate::schema::meta::ObjectMeta,
    }
    let body = mesh.snapshot.objects.get(key)?.body.get();
    // A text search avoids parsing the objects without the annotation.
    if !body.contains(IGNORE_ANNOTATION) {
        return None;
    }
    let header: Header = serde_json::from_str(body).ok()?;
    header.metadata.annotations.get(IGNORE_ANNOTATION).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_codes_code_prefixes_names_and_objects() {
        for text in ["GM203", "gm203", "GM2", "subset-undefined", "GM203=VirtualService/shop/x", "GM203=VirtualService"]
        {
            assert!(FindingSelector::parse(text).is_ok(), "{text}");
        }
        assert_eq!(
            FindingSelector::parse("subset-undefind").unwrap_err().to_string(),
            "unknown finding \"subset-undefind\"; did you mean subset-undefined?"
        );
        assert!(FindingSelector::parse("GM999").is_err());
        assert!(FindingSelector::parse("GM203=a/b/c/d").is_err());
    }

    #[test]
    fn ignore_files_allow_comments_and_report_the_invalid_line() {
        let selectors = parse_ignore_file("# all\nGM203 # why\n\nGM2=Service/shop/a\n").unwrap();
        assert_eq!(selectors.len(), 2);
        assert_eq!(parse_ignore_file("GM203\nnope\n").unwrap_err().0, 2);
        assert_eq!(parse_ignore_file("\u{feff}GM203\n").unwrap().len(), 1);
    }
}
