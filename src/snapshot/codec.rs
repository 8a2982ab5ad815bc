//! Snapshot files: JSON, perhaps compressed, with a version.
//!
//! ```json
//! {"kind":"Snapshot","version":1,"source":"cluster","taken":"2026-11-21T09:00:00Z",
//!  "kubernetesVersion":"v1.36.3","objects":[{"apiVersion":"v1","kind":"Service",…}],"gaps":[]}
//! ```
//! Objects are plain Kubernetes objects, so a snapshot can be read by other programs too.

use std::borrow::Cow;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::live::LiveState;
use super::raw::RawEntries;
use super::yaml::{DuplicateKey, LineColumn};
use super::{Gap, Object, ObjectKey, Snapshot, SourceKind};
use crate::schema::kind::{Kind, RecognizedKind};

/// The version that is written; every version up to it is read.
pub const VERSION: u32 = 1;

/// How far a compressed snapshot may grow.
const INFLATED_BYTES_MAX: u64 = 4 << 30;

/// Why bytes are not a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Not JSON of that form.
    #[error("not a snapshot: {0}")]
    Malformed(#[source] serde_json::Error),
    /// Written by a newer program.
    #[error("snapshot version {0} is newer than this program reads ({VERSION})")]
    TooNew(u32),
    /// Broken compression.
    #[error("broken gzip data: {0}")]
    Gzip(#[source] io::Error),
    /// Not text.
    #[error("not UTF-8 text")]
    NotText,
}

/// The file's outer form.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(title = "Snapshot")]
pub struct SnapshotFile<'a> {
    /// Always `Snapshot`.
    #[serde(borrow)]
    kind: Cow<'a, str>,
    /// Version of this form.
    version: u32,
    /// Where the objects were read from.
    source: SourceKind,
    /// When, as RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    taken: Option<String>,
    /// Version of the Kubernetes API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kubernetes_version: Option<String>,
    /// Kubernetes objects; Pods, EndpointSlices and workloads reduced.
    #[serde(borrow)]
    #[schemars(with = "Vec<serde_json::Map<String, serde_json::Value>>")]
    objects: Vec<Cow<'a, RawValue>>,
    /// What could not be read.
    #[serde(default)]
    gaps: Vec<Gap>,
    /// Keys that the manifests had twice; the objects hold the last value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    duplicate_keys: Vec<DuplicateEntry>,
    /// What the Envoys ran; its form may change with the version of the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(borrow)]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    live: Option<Cow<'a, RawValue>>,
}

/// A key that an object's manifest had twice.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct DuplicateEntry {
    api_version: String,
    kind: String,
    namespace: String,
    name: String,
    path: String,
    key: String,
    line: usize,
}

/// Whether `bytes` are compressed.
pub fn is_gzip(bytes: &[u8]) -> bool {
    bytes.starts_with(&[0x1f, 0x8b])
}

/// Unpacks compressed bytes.
///
/// # Errors
/// Broken data, or more than 4 GiB of it.
pub fn inflate(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
    let mut out = Vec::new();
    let mut reader = flate2::read::MultiGzDecoder::new(bytes).take(INFLATED_BYTES_MAX + 1);
    reader.read_to_end(&mut out).map_err(CodecError::Gzip)?;
    if out.len() as u64 > INFLATED_BYTES_MAX {
        return Err(CodecError::Gzip(io::Error::other("it unpacks to more than 4 GiB")));
    }
    Ok(out)
}

/// Whether a text is a snapshot rather than a manifest, by its first bytes.
pub fn is_snapshot(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Probe<'a> {
        #[serde(borrow)]
        kind: Cow<'a, str>,
    }
    let start = text.trim_start();
    if !start.starts_with('{') {
        return false;
    }
    // `kind` comes first in what is written here; a file that was re-ordered is parsed to find out.
    let head = &start[1..].trim_start();
    head.starts_with("\"kind\":\"Snapshot\"")
        || head.starts_with("\"kind\": \"Snapshot\"")
        || serde_json::from_str::<Probe<'_>>(text).is_ok_and(|probe| probe.kind == "Snapshot")
}

/// Reads a snapshot.
///
/// # Errors
/// When the text is not a snapshot, or is of a newer version.
pub fn decode(text: &str) -> Result<Snapshot, CodecError> {
    let file: SnapshotFile<'_> = serde_json::from_str(text).map_err(CodecError::Malformed)?;
    let SnapshotFile { kind: _, version, source, taken, kubernetes_version, objects, gaps, duplicate_keys, live } =
        file;
    if version > VERSION {
        return Err(CodecError::TooNew(version));
    }
    let mut snapshot = Snapshot { taken, kubernetes_version, gaps, ..Snapshot::new(source) };
    // Its form may be that of another version of the program: the objects are worth reading all the same.
    match live.map(|text| serde_json::from_str::<LiveState>(text.get())).transpose() {
        Ok(live) => snapshot.live = live,
        Err(error) => {
            let why = format!("written by another version of this program: {error}");
            snapshot.gaps.push(Gap::new("what the Envoys ran", why, super::GapKind::NotInSource));
        }
    }
    for body in objects {
        let header: Header<'_> = serde_json::from_str(body.get()).map_err(CodecError::Malformed)?;
        let (kind, misplaced) = match Kind::recognise(&header.api_version, &header.kind) {
            RecognizedKind::Known(kind) => (kind, false),
            RecognizedKind::Misplaced(kind) => (kind, true),
            RecognizedKind::Other => continue,
        };
        let namespace = header.metadata.namespace.as_deref().unwrap_or_default();
        let object = Object::new(kind, &header.api_version, namespace, &header.metadata.name, &body)
            .map_err(CodecError::Malformed)?;
        if misplaced {
            snapshot.misplaced.push(object);
        } else {
            snapshot.insert(object);
        }
    }
    for entry in duplicate_keys {
        let RecognizedKind::Known(kind) = Kind::recognise(&entry.api_version, &entry.kind) else { continue };
        let key = ObjectKey { kind, namespace: entry.namespace.into(), name: entry.name.into() };
        if let Some(object) = snapshot.objects.get_mut(&key) {
            let at = LineColumn { line: entry.line, column: 1 };
            object.duplicate_keys.push(DuplicateKey { path: entry.path, key: entry.key, at });
        }
    }
    Ok(snapshot)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header<'a> {
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    metadata: HeaderMeta<'a>,
}

#[derive(Deserialize)]
struct HeaderMeta<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Option<Cow<'a, str>>,
}

/// Writes a snapshot as JSON with a final line break.
///
/// # Errors
/// Those of `out`.
pub fn encode(snapshot: &Snapshot, mut out: impl Write) -> io::Result<()> {
    let objects = snapshot.objects.values().chain(&snapshot.misplaced).map(body_with_kind).collect();
    let file = SnapshotFile {
        kind: Cow::Borrowed("Snapshot"),
        version: VERSION,
        source: snapshot.source,
        taken: snapshot.taken.clone(),
        kubernetes_version: snapshot.kubernetes_version.clone(),
        objects,
        gaps: snapshot.gaps.clone(),
        duplicate_keys: duplicate_entries(snapshot),
        live: snapshot.live.as_ref().map(serde_json::value::to_raw_value).transpose()?.map(Cow::Owned),
    };
    serde_json::to_writer(&mut out, &file)?;
    out.write_all(b"\n")
}

fn duplicate_entries(snapshot: &Snapshot) -> Vec<DuplicateEntry> {
    let of = |object: &Object| -> Vec<DuplicateEntry> {
        let entry = |duplicate: &DuplicateKey| DuplicateEntry {
            api_version: object.api_version.to_string(),
            kind: object.key.kind.name().to_owned(),
            namespace: object.key.namespace.to_string(),
            name: object.key.name.to_string(),
            path: duplicate.path.clone(),
            key: duplicate.key.clone(),
            line: duplicate.at.line,
        };
        object.duplicate_keys.iter().map(entry).collect()
    };
    snapshot.objects.values().flat_map(of).collect()
}

/// The body with `apiVersion` and `kind`, which reduced bodies and items of typed lists lack.
fn body_with_kind(object: &Object) -> Cow<'_, RawValue> {
    let Some(mut entries) = RawEntries::parse(&object.body) else {
        return Cow::Borrowed(&object.body);
    };
    if entries.get("kind").is_some() && entries.get("apiVersion").is_some() {
        return Cow::Borrowed(&object.body);
    }
    for (key, value) in [("kind", object.key.kind.name()), ("apiVersion", &*object.api_version)] {
        if let Ok(value) = serde_json::value::to_raw_value(value) {
            entries.set(key, value);
        }
    }
    Cow::Owned(entries.to_raw())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::snapshot::SourceText;
    use crate::snapshot::manifest::{OnMalformed, read};

    fn sample() -> Snapshot {
        let mut snapshot = Snapshot::new(SourceKind::Cluster);
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}]}\n---\n\
                    apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: a}}\nspec: {containers: [{name: x, image: z}]}\n---\n\
                    apiVersion: networking.io/v1\nkind: DestinationRule\nmetadata: {name: d}\n";
        let text = Arc::new(SourceText { path: "x".to_owned(), text: text.to_owned() });
        read(&mut snapshot, text, "shop", OnMalformed::Stop).unwrap();
        snapshot.taken = Some("2026-01-01T00:00:00Z".to_owned());
        snapshot
    }

    #[test]
    fn decode_takes_back_what_encode_wrote() {
        let mut first = Vec::new();
        encode(&sample(), &mut first).unwrap();
        let text = String::from_utf8(first.clone()).unwrap();
        assert!(is_snapshot(&text));
        let decoded = decode(&text).unwrap();
        assert_eq!(decoded.objects.keys().collect::<Vec<_>>(), sample().objects.keys().collect::<Vec<_>>());
        assert_eq!(decoded.misplaced.len(), 1);
        let mut second = Vec::new();
        encode(&decoded, &mut second).unwrap();
        assert_eq!(text, String::from_utf8(second).unwrap());
    }

    #[test]
    fn a_newer_version_is_refused() {
        let text = r#"{"kind":"Snapshot","version":99,"source":"cluster","objects":[]}"#;
        assert!(matches!(decode(text), Err(CodecError::TooNew(99))));
    }
}
