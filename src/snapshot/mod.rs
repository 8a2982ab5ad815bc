//! Everything that was read from a source, as it was read.
//!
//! A [`Snapshot`] holds objects with their bodies as JSON text, and *gaps*: what could not be read, and why. It is
//! offline mode, support bundle and test fixture in one form. Typed views are decoded later, in
//! [`crate::mesh::resolve`], so an old snapshot still feeds a new rule.
//!
//! CORE: bytes come in and go out; nothing here opens a file or asks a cluster.

pub mod codec;
pub(crate) mod decode_error;
pub mod live;
pub mod manifest;
pub(crate) mod position;
mod raw;
pub(crate) mod redact;
mod reduce;
mod scalar;
pub mod yaml;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::schema::Kind;
use crate::schema::kind::Reduction;
use crate::schema::path::{PathSegment, parse_path};
use yaml::LineColumn;

/// Where a snapshot came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A live cluster.
    Cluster,
    /// Manifest files: what is not there may still exist elsewhere.
    Manifests,
    /// The built-in example.
    Demo,
}

/// A text that objects came from, kept so that findings can show its lines.
#[derive(Debug)]
pub struct SourceText {
    /// Path as the user gave it, `-` for standard input.
    pub path: String,
    /// The whole text.
    pub text: String,
}

/// Where in a text an object stands.
#[derive(Debug, Clone)]
pub struct TextPosition {
    /// The text.
    pub text: Arc<SourceText>,
    /// Bytes of the object's document.
    pub document: Range<usize>,
    /// Line of the text on which the document begins, from 1.
    pub line: usize,
    /// Which item of a `List` the object is.
    pub item: Option<usize>,
    /// Template that a `# Source:` comment (Helm) names.
    pub template: Option<String>,
}

/// A place with file, line and column, ready to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePosition {
    /// Line and column in the whole text.
    pub at: LineColumn,
    /// Bytes in the whole text.
    pub bytes: Range<usize>,
}

impl TextPosition {
    /// Finds the field at `path`, or its nearest ancestor.
    pub fn find(&self, path: &str) -> Option<SourcePosition> {
        let document = self.text.text.get(self.document.clone())?;
        let mut segments = Vec::new();
        if let Some(item) = self.item {
            segments.push(PathSegment::Field("items".to_owned()));
            segments.push(PathSegment::Index(item));
        }
        segments.extend(parse_path(path));
        let found = position::find(document, &segments)?;
        Some(SourcePosition {
            at: LineColumn { line: found.at.line + self.line - 1, column: found.at.column },
            bytes: found.bytes.start + self.document.start..found.bytes.end + self.document.start,
        })
    }
}

/// Identity of an object within a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind.
    pub kind: Kind,
    /// Namespace; empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
}

/// An object as it was read.
#[derive(Debug, Clone)]
pub struct Object {
    /// Identity.
    pub key: ObjectKey,
    /// `apiVersion` as written.
    pub api_version: Box<str>,
    /// JSON text, reduced as [`Kind`] says.
    pub body: Box<RawValue>,
    /// Where it stands, for manifests.
    pub place: Option<TextPosition>,
    /// Keys written twice, for manifests.
    pub duplicate_keys: Vec<yaml::DuplicateKey>,
}

impl Object {
    /// Makes an object from its body, reducing it.
    ///
    /// # Errors
    /// When the body's shape is not that of the kind.
    pub fn new(
        kind: Kind,
        api_version: &str,
        namespace: &str,
        name: &str,
        body: &RawValue,
    ) -> Result<Self, serde_json::Error> {
        let info = kind.info();
        let namespace = if info.namespaced { namespace } else { "" };
        let body = reduce::reduce(info.keep, body, info.namespaced.then_some(namespace))?;
        Ok(Self {
            key: ObjectKey { kind, namespace: namespace.into(), name: name.into() },
            api_version: api_version.into(),
            body,
            place: None,
            duplicate_keys: Vec::new(),
        })
    }
}

/// Why something could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// The cluster does not serve the kind: there are no such objects, and no answer is touched.
    NotInstalled,
    /// The source does not contain it, though a mesh would: manifests without Services, say.
    NotInSource,
    /// The user may not read it.
    Forbidden,
    /// The server failed or did not answer.
    Failed,
    /// An object that is not of its kind's shape.
    Malformed,
}

/// Something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// What is missing, in words.
    pub what: String,
    /// Why, in words, with the missing right if that is it.
    pub why: String,
    /// Why, as one of the known reasons.
    pub reason: GapKind,
    /// Kind of objects that are missing, when it is one kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace in which they are missing; absent means everywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// For a gap everywhere: the namespaces that could be read all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_in: Vec<String>,
}

impl Gap {
    /// A gap that is not about one kind or namespace.
    pub fn new(what: impl Into<String>, why: impl Into<String>, reason: GapKind) -> Self {
        Self { what: what.into(), why: why.into(), reason, kind: None, namespace: None, read_in: Vec::new() }
    }

    /// A gap of objects of one kind, everywhere.
    pub fn of_kind(kind: Kind, what: impl Into<String>, why: impl Into<String>, reason: GapKind) -> Self {
        Self { kind: Some(kind.name().to_owned()), ..Self::new(what, why, reason) }
    }

    /// Whether an answer may be wrong because of this gap.
    pub fn touches_answers(&self) -> bool {
        !matches!(self.reason, GapKind::NotInstalled | GapKind::NotInSource)
    }
}

/// What was read.
#[derive(Debug)]
pub struct Snapshot {
    /// Where from.
    pub source: SourceKind,
    /// When, as RFC 3339; absent for manifests and the demo.
    pub taken: Option<String>,
    /// Version of the Kubernetes API server, such as `v1.36.3`.
    pub kubernetes_version: Option<String>,
    /// Objects by identity; a later one replaced an earlier one.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// Objects of our kinds under a group or version that nobody serves; they do not exist for the mesh.
    pub misplaced: Vec<Object>,
    /// What could not be read.
    pub gaps: Vec<Gap>,
    /// What the Envoys ran, if they were asked.
    pub live: Option<live::LiveState>,
}

impl Snapshot {
    /// An empty snapshot.
    pub fn new(source: SourceKind) -> Self {
        Self {
            source,
            taken: None,
            kubernetes_version: None,
            objects: BTreeMap::new(),
            misplaced: Vec::new(),
            gaps: Vec::new(),
            live: None,
        }
    }

    /// Adds an object; replaces the one with the same identity.
    pub fn insert(&mut self, object: Object) {
        if object.key.kind.info().keep == Reduction::MeshConfig && !holds_mesh_config(&object) {
            return;
        }
        self.objects.insert(object.key.clone(), object);
    }

    /// Lays `overlay` over this snapshot: its objects replace those of the same identity. What Envoys ran was made of
    /// other objects: it goes.
    pub fn lay_over(&mut self, overlay: Self) {
        let Self { source: _, taken: _, kubernetes_version: _, objects, misplaced, gaps, live: _ } = overlay;
        self.objects.extend(objects);
        self.misplaced.extend(misplaced);
        self.gaps.extend(gaps);
        self.live = None;
    }

    /// The objects of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let from = ObjectKey { kind, namespace: "".into(), name: "".into() };
        self.objects.range(from..).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// Whether there is any object of this kind.
    pub fn has(&self, kind: Kind) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Adds a gap for each kind that manifests need and do not contain, so that nothing is concluded from its absence.
    pub fn note_absent_kinds(&mut self) {
        let why = "no object of that kind is among the files; what they would decide is not judged".to_owned();
        let mut absent =
            |kind: Kind, what: &str| self.gaps.push(Gap::of_kind(kind, what, why.clone(), GapKind::NotInSource));
        let has = |kind: Kind| self.objects.keys().any(|key| key.kind == kind);
        if !has(Kind::Service) {
            absent(Kind::Service, "Services");
        }
        let has_pods = has(Kind::Pod) || self.objects.keys().any(|key| key.kind.is_workload());
        if !has_pods {
            absent(Kind::Pod, "Pods and workloads");
        }
    }
}

/// The mesh's ConfigMaps are `istio` and `istio-<revision>`; others are never kept.
fn holds_mesh_config(object: &Object) -> bool {
    (&*object.key.name == "istio" || object.key.name.starts_with("istio-")) && object.body.get().contains("\"mesh\":")
}
