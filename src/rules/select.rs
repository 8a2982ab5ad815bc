//! Which findings are wanted: `--only`, `--skip`, ignore files, and the annotation on an object.

use std::fmt;

use super::{Finding, Rule};
use crate::mesh::Mesh;
use crate::snapshot::ObjectKey;
use crate::vocabulary::nearest_name;

/// The annotation that silences findings on an object: codes, joined by commas.
pub const ANNOTATION: &str = "grpcmesh.io/ignore";

/// One word of `--only` or `--skip`: a code, the beginning of codes, a rule's name, perhaps with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingSelector {
    code: String,
    object: Option<ObjectPattern>,
}

/// `VirtualService/shop/checkout`; each part may be `*`, and parts may be left out at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ObjectPattern {
    kind: String,
    namespace: String,
    name: String,
}

/// Why a word selects nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// No rule has that code or name.
    #[error("no finding is called \"{word}\"{}", nearest.as_ref().map_or(String::new(), |n| format!("; did you mean {n}?")))]
    Unknown {
        /// The word.
        word: String,
        /// The nearest name.
        nearest: Option<String>,
    },
    /// The object part is not `Kind/namespace/name`.
    #[error("\"{0}\" is not an object; write Kind/namespace/name, with * for any")]
    Object(String),
}

impl FindingSelector {
    /// Parses `GM203`, `GM2`, `subset-undefined` or `GM203=VirtualService/shop/x`.
    ///
    /// # Errors
    /// When no rule fits or the object is not of its form.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let (code, object) = match text.split_once('=') {
            Some((code, object)) => (code.trim(), Some(object.trim())),
            None => (text.trim(), None),
        };
        let fits = super::RULES.iter().any(|rule| fits(code, rule.code, rule.name));
        if !fits {
            let names = super::RULES.iter().flat_map(|rule| [rule.code, rule.name]);
            let nearest = nearest_name::nearest(code, names).map(str::to_owned);
            return Err(SelectorError::Unknown { word: code.to_owned(), nearest });
        }
        let object = object.map(ObjectPattern::parse).transpose()?;
        Ok(Self { code: code.to_owned(), object })
    }

    /// Whether it is about certain objects only.
    pub(super) fn names_object(&self) -> bool {
        self.object.is_some()
    }

    /// Whether it means this finding.
    pub(super) fn takes(&self, finding: &Finding) -> bool {
        fits(&self.code, finding.code, finding.name)
            && self.object.as_ref().is_none_or(|pattern| pattern.covers(finding))
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

/// Whether `word` is the code, its beginning (`GM2`), or the rule's name.
fn fits(word: &str, code: &str, name: &str) -> bool {
    let begins = word.len() >= 3 && code.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word));
    begins || name.eq_ignore_ascii_case(word)
}

impl ObjectPattern {
    fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut parts = text.split('/').map(str::to_owned);
        let pattern = Self {
            kind: parts.next().filter(|kind| !kind.is_empty()).ok_or_else(|| SelectorError::Object(text.to_owned()))?,
            namespace: parts.next().unwrap_or_else(|| "*".to_owned()),
            name: parts.next().unwrap_or_else(|| "*".to_owned()),
        };
        if parts.next().is_some() { Err(SelectorError::Object(text.to_owned())) } else { Ok(pattern) }
    }

    fn covers(&self, finding: &Finding) -> bool {
        let is = |pattern: &str, value: &str| pattern == "*" || pattern.eq_ignore_ascii_case(value);
        is(&self.kind, finding.object.kind.name())
            && is(&self.namespace, finding.object.namespace.as_str())
            && is(&self.name, &finding.object.name)
    }
}

/// Which findings are wanted.
#[derive(Debug, Clone, Default)]
pub struct FindingSelection {
    /// Only these; empty means all.
    pub only: Vec<FindingSelector>,
    /// Not these.
    pub skip: Vec<FindingSelector>,
}

impl FindingSelection {
    /// Whether the rule may give a wanted finding.
    pub fn wants_rule(&self, rule: &Rule) -> bool {
        self.only.is_empty() || self.only.iter().any(|selector| fits(&selector.code, rule.code, rule.name))
    }

    /// Whether a finding is left out.
    pub fn skips(&self, finding: &Finding) -> bool {
        let wanted = self.only.is_empty() || self.only.iter().any(|selector| selector.takes(finding));
        !wanted || self.skip.iter().any(|selector| selector.takes(finding))
    }
}

/// Parses an ignore file: one selector a line, `#` begins a comment.
///
/// # Errors
/// The first bad line, with its number.
pub fn parse_ignore_file(text: &str) -> Result<Vec<FindingSelector>, (usize, SelectorError)> {
    let mut selectors = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        if !content.is_empty() {
            selectors.push(FindingSelector::parse(content).map_err(|error| (index + 1, error))?);
        }
    }
    Ok(selectors)
}

/// Whether the finding's object says that it is to be ignored.
pub(super) fn is_annotated(mesh: &Mesh<'_>, finding: &Finding) -> bool {
    #[derive(serde::Deserialize)]
    struct Header {
        metadata: crate::schema::meta::ObjectMeta,
    }
    // What is said of several objects is left out when all of them ask for it.
    finding.objects().all(|one| {
        let key: ObjectKey = one.key();
        let Some(object) = mesh.snapshot.objects.get(&key) else { return false };
        // A quick look at the text spares most objects the parser.
        if !object.body.get().contains(ANNOTATION) {
            return false;
        }
        let Ok(header) = serde_json::from_str::<Header>(object.body.get()) else { return false };
        let codes = header.metadata.annotations.get(ANNOTATION);
        codes.is_some_and(|codes| codes.split(',').any(|word| fits(word.trim(), finding.code, finding.name)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_codes_beginnings_and_names() {
        for word in ["GM203", "gm203", "GM2", "subset-undefined", "GM203=VirtualService/shop/x", "GM203=VirtualService"]
        {
            assert!(FindingSelector::parse(word).is_ok(), "{word}");
        }
        assert_eq!(
            FindingSelector::parse("subset-undefind").unwrap_err().to_string(),
            "no finding is called \"subset-undefind\"; did you mean subset-undefined?"
        );
        assert!(FindingSelector::parse("GM999").is_err());
        assert!(FindingSelector::parse("GM203=a/b/c/d").is_err());
    }

    #[test]
    fn ignore_files_have_comments() {
        let selectors = parse_ignore_file("# all\nGM203 # why\n\nGM2=Service/shop/a\n").unwrap();
        assert_eq!(selectors.len(), 2);
        assert_eq!(parse_ignore_file("GM203\nnope\n").unwrap_err().0, 2);
    }
}
