//! Snapshots: the objects that were read from a source, and the gaps.
//!
//! A [`Snapshot`] holds objects with their bodies as JSON text. A *gap* is something that could not be read, with the
//! reason. The same form serves offline mode, support bundles and test fixtures. Bodies are decoded to typed values later, in
//! [`crate::mesh::resolve`], so that new rules work on old snapshots.
//!
//! CORE: bytes in, bytes out. Nothing here opens a file or queries a cluster.

pub mod codec;
pub(crate) mod decode_error;
pub mod live;
pub mod manifest;
pub(crate) mod position;
mod raw;
pub(crate) mod redact;
mod reduce;
mod scalar;
mod secrets;
pub mod yaml;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::schema::Kind;
use crate::schema::kind::Reduction;
use crate::schema::path::{PathSegment, parse_path};
use position::PositionIndex;
use yaml::LineColumn;

/// The source of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// A live cluster.
    Cluster,
    /// Manifest files. An object that they do not contain may still exist in the cluster.
    Manifests,
    /// The built-in example mesh.
    Demo,
}

/// The text of a manifest file, kept so that findings can quote its lines.
#[derive(Debug)]
pub struct SourceText {
    /// Path as the user gave it, `-` for standard input.
    pub path: String,
    /// Content of the file.
    pub text: String,
}

/// The position of an object in a manifest file.
#[derive(Debug, Clone)]
pub struct TextPosition {
    /// The file.
    pub text: Arc<SourceText>,
    /// Byte range of the object's YAML document.
    pub document: Range<usize>,
    /// First line of the document, from 1.
    pub line: usize,
    /// Index of the object in a `List`, from 0.
    pub item: Option<usize>,
    /// Template named by a `# Source:` comment of Helm.
    pub template: Option<String>,
    /// Positions of the document's fields, computed for the first finding and shared by the objects of the document.
    pub(crate) index: Arc<OnceLock<PositionIndex>>,
}

/// The position of a field in a file, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePosition {
    /// Line and column in the file.
    pub start: LineColumn,
    /// Byte range in the file.
    pub bytes: Range<usize>,
}

impl TextPosition {
    /// Finds the field at `path`, or its nearest existing ancestor.
    pub fn find(&self, path: &str) -> Option<SourcePosition> {
        let document = self.text.text.get(self.document.clone())?;
        let mut segments = Vec::new();
        if let Some(item) = self.item {
            segments.push(PathSegment::Field("items".to_owned()));
            segments.push(PathSegment::Index(item));
        }
        segments.extend(parse_path(path));
        let field = self.index.get_or_init(|| PositionIndex::of(document)).find(&segments)?;
        Some(SourcePosition {
            start: LineColumn { line: field.start.line + self.line - 1, column: field.start.column },
            bytes: field.bytes.start + self.document.start..field.bytes.end + self.document.start,
        })
    }
}

/// Identity of an object within a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Kind of the object.
    pub kind: Kind,
    /// Empty for cluster-scoped kinds.
    pub namespace: Box<str>,
    /// Name of the object.
    pub name: Box<str>,
}

/// An object, with its body as JSON text.
#[derive(Debug, Clone)]
pub struct Object {
    /// Identity of the object.
    pub key: ObjectKey,
    /// `apiVersion` of the object, which may be an older served version.
    pub api_version: Box<str>,
    /// JSON text, reduced to the fields of [`Reduction`].
    pub body: Box<RawValue>,
    /// Position in a manifest; absent for objects of a cluster or snapshot file.
    pub position: Option<TextPosition>,
    /// Keys that occur twice in the manifest.
    pub duplicate_keys: Vec<yaml::DuplicateKey>,
}

impl Object {
    /// Creates an object and reduces its body.
    ///
    /// # Errors
    /// The body does not have the shape of the kind.
    pub fn new(
        kind: Kind,
        api_version: &str,
        namespace: &str,
        name: &str,
        body: &RawValue,
    ) -> Result<Self, serde_json::Error> {
        let info = kind.info();
        let namespace = if info.namespaced { namespace } else { "" };
        let body = reduce::reduce(info.reduction, body, info.namespaced.then_some(namespace))?;
        Ok(Self {
            key: ObjectKey { kind, namespace: namespace.into(), name: name.into() },
            api_version: api_version.into(),
            body,
            position: None,
            duplicate_keys: Vec::new(),
        })
    }
}

/// The reason for a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum GapKind {
    /// The cluster does not serve the kind, so no such objects exist and no answer is affected.
    NotInstalled,
    /// The source does not contain objects that every mesh has, such as manifests without Services.
    NotInSource,
    /// The user may not read the objects.
    Forbidden,
    /// The server failed or did not answer.
    Failed,
    /// The object does not have the shape of its kind.
    Malformed,
}

/// A gap: something that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct Gap {
    /// The missing objects, as text.
    pub what: String,
    /// The reason as text, with the missing permission when the user may not read the objects.
    pub why: String,
    /// The reason, for decisions.
    pub reason: GapKind,
    /// Kind of the missing objects, when all have the same kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Namespace of the missing objects; absent means all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// For a gap in all namespaces: the namespaces that could be read nevertheless.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_in: Vec<String>,
}

impl Gap {
    /// Creates a gap that is not limited to a kind or namespace.
    pub fn new(what: impl Into<String>, why: impl Into<String>, reason: GapKind) -> Self {
        Self { what: what.into(), why: why.into(), reason, kind: None, namespace: None, read_in: Vec::new() }
    }

    /// Creates a gap for the objects of one kind in all namespaces.
    pub fn of_kind(kind: Kind, what: impl Into<String>, why: impl Into<String>, reason: GapKind) -> Self {
        Self { kind: Some(kind.name().to_owned()), ..Self::new(what, why, reason) }
    }

    /// Reports whether answers may be incomplete because of this gap.
    pub fn affects_answers(&self) -> bool {
        !matches!(self.reason, GapKind::NotInstalled | GapKind::NotInSource)
    }
}

/// The objects and gaps of a source.
#[derive(Debug)]
pub struct Snapshot {
    /// The source of the objects.
    pub source: SourceKind,
    /// Time of the reading, as RFC 3339; absent for manifests and the demo.
    pub taken_at: Option<String>,
    /// Version of the Kubernetes API server, such as `v1.36.3`.
    pub kubernetes_version: Option<String>,
    /// Objects by identity. A later object replaces an earlier one.
    pub objects: BTreeMap<ObjectKey, Object>,
    /// Objects of Istio and Gateway API kinds under a group or version that is not served. They do not exist for the mesh.
    pub unserved: Vec<Object>,
    /// Everything that could not be read.
    pub gaps: Vec<Gap>,
    /// The observed configuration of the Envoys, if they were queried.
    pub live: Option<live::LiveState>,
}

impl Snapshot {
    /// Creates an empty snapshot.
    pub fn new(source: SourceKind) -> Self {
        Self {
            source,
            taken_at: None,
            kubernetes_version: None,
            objects: BTreeMap::new(),
            unserved: Vec::new(),
            gaps: Vec::new(),
            live: None,
        }
    }

    /// Adds an object, replacing one with the same identity. ConfigMaps without a mesh configuration are dropped.
    pub fn insert(&mut self, object: Object) {
        if object.key.kind.info().reduction == Reduction::MeshConfig && !holds_mesh_config(&object) {
            return;
        }
        self.objects.insert(object.key.clone(), object);
    }

    /// Applies `overlay`: its objects replace those with the same identity. The observed configuration is dropped, because it
    /// belongs to the replaced objects.
    pub fn apply_overlay(&mut self, overlay: Self) {
        let Self { source: _, taken_at: _, kubernetes_version: _, objects, unserved, gaps, live: _ } = overlay;
        self.objects.extend(objects);
        self.unserved.extend(unserved);
        self.gaps.extend(gaps);
        self.live = None;
    }

    /// Iterates the objects of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Object> {
        let first = ObjectKey { kind, namespace: "".into(), name: "".into() };
        self.objects.range(first..).take_while(move |(key, _)| key.kind == kind).map(|(_, object)| object)
    }

    /// Reports whether the snapshot has an object of this kind.
    pub fn contains_kind(&self, kind: Kind) -> bool {
        self.of_kind(kind).next().is_some()
    }

    /// Adds a gap for each kind that manifests usually contain but these do not, so that rules do not draw conclusions from
    /// its absence.
    pub fn add_gaps_for_absent_kinds(&mut self) {
        let reason = "the files contain no such objects, so findings that depend on them are not reported".to_owned();
        let mut add_gap = |kind: Kind, objects: &str| {
            self.gaps.push(Gap::of_kind(kind, objects, reason.clone(), GapKind::NotInSource));
        };
        let has = |kind: Kind| self.objects.keys().any(|key| key.kind == kind);
        if !has(Kind::Service) {
            add_gap(Kind::Service, "Services");
        }
        let has_pods = has(Kind::Pod) || self.objects.keys().any(|key| key.kind.is_workload());
        if !has_pods {
            add_gap(Kind::Pod, "Pods and workloads");
        }
    }
}

/// Reports whether a ConfigMap is the mesh configuration: `istio` or `istio-<revision>`.
fn holds_mesh_config(object: &Object) -> bool {
    (&*object.key.name == "istio" || object.key.name.starts_with("istio-")) && object.body.get().contains("\"mesh\":")
}
